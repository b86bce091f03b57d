"""The bytes of HTTP/1.1 responses before their headers: status lines and the connection header."""

from __future__ import annotations

from http import HTTPStatus

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_PHRASES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""RFC 9110's names, where Python's versions disagree."""

STATUS_LINES: dict[int, bytes] = {
    status.value: f"HTTP/1.1 {status.value} {_PHRASES.get(status.value, status.phrase)}\r\n".encode("ascii")
    for status in HTTPStatus
}
"""The first lines of responses."""


def connection_line(keep_alive: bool, is_1_0: bool) -> bytes:
    """What the client is told about the connection; nothing when it goes on as usual."""
    if not keep_alive:
        return b"Connection: close\r\n"
    return b"Connection: keep-alive\r\n" if is_1_0 else b""


def unknown_status(status: int) -> bytes:
    """The first line of a response whose status isn't among the :data:`STATUS_LINES`."""
    return b"HTTP/1.1 %d Unknown\r\n" % status
