"""Percent-encoding of URL parts (RFC 3986 section 2.1)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

_PERCENT: Final = ord("%")
_MALFORMED: Final = re.compile(rb"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)


def percent_decode(raw: bytes) -> bytes:
    """Decode every ``%XX`` once; ``+`` is not decoded to a blank.

    :param raw: the encoded bytes.
    :return: the decoded bytes; they need not be UTF-8.
    :raises ValueError: with the offending part, if a ``%`` is not followed by two hexadecimal digits.
    """
    if _PERCENT not in raw:
        return raw
    malformed = _MALFORMED.search(raw)
    if malformed is not None:
        raise ValueError(malformed.group().decode("latin-1"))
    return unquote_to_bytes(raw)
