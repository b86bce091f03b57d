"""Entity tags of reads (PROTOCOL section 10.1, RFC 9110 section 8.8.3)."""

from __future__ import annotations

import re
from typing import Final

_TAG: Final = rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")'
_TAGS: Final = re.compile(_TAG)
_LIST: Final = re.compile(rb"[ \t]*(?:%(tag)b[ \t]*)?(?:,[ \t]*(?:%(tag)b[ \t]*)?)*" % {b"tag": _TAG})


def format_etag(stream_id: int, start: int, end: int, closed: bool) -> bytes:
    """Return the entity tag for the response to a read.

    :param stream_id: the id of the stream's incarnation, so that a recreated stream has other tags.
    :param start: the position at which the read began.
    :param end: the position after the last byte of the response.
    :param closed: whether the response says that the stream is closed.
    :return: a strong entity tag with its quotes.
    """
    return (b'"%x:%d:%d:c"' if closed else b'"%x:%d:%d"') % (stream_id, start, end)


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Whether the client already has the response (RFC 9110 section 13.1.2).

    :param if_none_match: the header's value: ``*`` or a list of entity tags.
    :param etag: the tag of the current response.
    :return: ``True`` for ``*``, or if one of the tags equals it in the weak comparison. ``False`` also for a malformed
        list, since sending the response again is always correct.
    """
    if if_none_match == etag:
        return True
    if if_none_match.strip(b" \t") == b"*":
        return True
    if _LIST.fullmatch(if_none_match) is None:
        return False
    return etag in _TAGS.findall(if_none_match)
