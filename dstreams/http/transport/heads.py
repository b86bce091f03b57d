"""What the heads of requests have in common in all versions of HTTP."""

from __future__ import annotations

import re

HOST = re.compile(rb"(?:[A-Za-z0-9\-._~%!$&'()*+,;=]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
"""The syntax of a Host header or of ``:authority`` (RFC 9110 section 7.2)."""


class HeadFault(Exception):
    """A head that HTTP doesn't allow.

    :param status: the status to refuse it with.
    :param detail: one sentence for the client's developer.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
