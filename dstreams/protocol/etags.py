"""Entity tags of reads (PROTOCOL section 10.1, RFC 9110 section 8.8.3)."""

from __future__ import annotations

import re
from typing import Final

_TAG: Final = rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")'
_TAGS: Final = re.compile(_TAG)
_LIST: Final = re.compile(rb"[ \t]*(?:%(tag)b[ \t]*)?(?:,[ \t]*(?:%(tag)b[ \t]*)?)*" % {b"tag": _TAG})


def format_etag(stream_id: int, start: int, end: int, closed: bool) -> bytes:
    """Name the answer to a read.

    :param stream_id: the number of the stream's incarnation, so that a recreated stream has other tags.
    :param start: the position the read began at.
    :param end: the position after the last byte of the answer.
    :param closed: whether the answer tells that the stream is closed.
    :return: a strong entity tag with its quotes.
    """
    return (b'"%x:%d:%d:c"' if closed else b'"%x:%d:%d"') % (stream_id, start, end)


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Whether the client already has the answer (RFC 9110 section 13.1.2).

    :param if_none_match: the header's value: ``*`` or a list of entity tags.
    :param etag: the tag of the current answer.
    :return: ``True`` when one of them equals it in the weak comparison; ``False`` for a malformed list too,
        since sending the answer again is always right.
    """
    if if_none_match == etag:
        return True
    if if_none_match.strip(b" \t") == b"*":
        return True
    if _LIST.fullmatch(if_none_match) is None:
        return False
    return etag in _TAGS.findall(if_none_match)
