"""Server-sent events: the frames of a live read (PROTOCOL section 5.8, WHATWG HTML section 9.2).

The event stream format has three line ends, and readers strip one space after a colon. Text is escaped accordingly, so
that a reader gets the text that was appended, except that CR and CRLF become LF.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from codecs import charmap_decode
from enum import Enum
from typing import Final

from dstreams.protocol.json_mode import wrap

HEARTBEAT: Final = b":\n\n"
"""A comment, which readers ignore and middleboxes count as traffic."""

LINE_BYTES: Final = 32 * 1024
"""Maximum bytes of the value of a ``data`` field, where it can be divided. Common readers, such as Go's
``bufio.Scanner``, fail at lines of 64 KiB."""


# These are integers, because searching bytes for one takes 0.03 us; for a bytes object of length one it takes 0.15 us.
_LF: Final = 0x0A
_CR: Final = 0x0D


class SseEncoding(Enum):
    """How a stream's bytes are encoded in events; it depends on the content type."""

    TEXT = "text"
    JSON = "json"
    BASE64 = "base64"


_UNFINISHED_CHARACTER: Final = re.compile(
    rb"(?:[\xc2-\xdf]"
    rb"|\xe0[\xa0-\xbf]?"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]?"
    rb"|\xed[\x80-\x9f]?"
    rb"|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?"
    rb"|[\xf1-\xf3][\x80-\xbf]{0,2}"
    rb"|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?)\Z"
)
"""Matches the incomplete beginning of a well-formed UTF-8 sequence (Unicode, table 3-7) at the end of the bytes."""


def data_event(data: bytes, encoding: SseEncoding, end: bytes, table: str | None = None) -> bytes:
    """Return an event of type ``data`` with stored bytes.

    :param data: the bytes; for JSON in the stored form of :mod:`dstreams.protocol.json_mode`.
    :param encoding: how to encode them.
    :param end: the offset after them, as a token. It is the event's id, which a browser sends back when it reconnects.
    :param table: the characters of a single-byte charset; ``None`` for UTF-8.
    :return: the whole event with its blank line.
    """
    if encoding is SseEncoding.BASE64:
        encoded = b2a_base64(data, newline=False)
        if len(encoded) > LINE_BYTES:
            encoded = b"\ndata:".join(encoded[at : at + LINE_BYTES] for at in range(0, len(encoded), LINE_BYTES))
        return b"event: data\ndata:%b\nid:%b\n\n" % (encoded, end)
    text = wrap(data) if encoding is SseEncoding.JSON else data
    if _LF in text or _CR in text or text.startswith(b" ") or table is not None or not text.isascii():
        text = escape_lines(text, table=table)
    return b"event: data\ndata:%b\nid:%b\n\n" % (text, end)


def end_of_event(offset: bytes) -> bytes:
    """Return the part of an event after its data.

    :param offset: the offset after the event, as a token: the event's id.
    """
    return b"\nid:%b\n\n" % offset


def escape_lines(text: bytes, at_line_start: bool = True, table: str | None = None) -> bytes:
    """Return text as the value of a ``data`` field, with another field for each further line.

    An event stream is UTF-8. Bytes that are not UTF-8 are replaced by U+FFFD, because common readers would fail at
    them, and fail again after every reconnect.

    :param at_line_start: whether the text begins a line.
    :param table: the characters of a single-byte charset; ``None`` for UTF-8.
    """
    if table is not None:
        text = charmap_decode(text, "strict", table)[0].encode()
    elif not text.isascii():
        text = text.decode("utf-8", "replace").encode()
    if _LF in text or _CR in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        text = text.replace(b"\n ", b"\n  ").replace(b"\n", b"\ndata:")
    return b" " + text if at_line_start and text.startswith(b" ") else text


def control_event(next_offset: bytes, cursor: int | None, up_to_date: bool, closed: bool) -> bytes:
    """Return an event of type ``control``, which gives the reader its position in the stream.

    :param next_offset: the offset from which to continue, as a token; also the event's id.
    :param cursor: the cursor for the client to send back, or ``None``. It is omitted if the stream is closed, because
        no further request follows.
    :param up_to_date: whether the reader is at the tail.
    :param closed: whether the reader is at the end of a closed stream; implies ``up_to_date``.
    :return: the whole event with its blank line.
    """
    if closed:
        members = b',"upToDate":true,"streamClosed":true'
    else:
        members = b"" if cursor is None else b',"streamCursor":"%d"' % cursor
        if up_to_date:
            members += b',"upToDate":true'
    return b'event: control\ndata:{"streamNextOffset":"%b"%b}\nid:%b\n\n' % (next_offset, members, next_offset)


def incomplete_suffix(data: bytes) -> int:
    """Return how many bytes at the end belong to an incomplete character.

    :param data: a piece of a text stream.
    :return: 0 to 3, the number of bytes to leave for the next event. Also 0 if the end is certainly not UTF-8, because
        no further bytes could complete it.
    """
    if not data or data[-1] < 0x80:
        return 0
    unfinished = _UNFINISHED_CHARACTER.search(data[-3:])
    return 0 if unfinished is None else len(unfinished.group())
