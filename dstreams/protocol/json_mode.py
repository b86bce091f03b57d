"""JSON mode: messages inside the byte stream (PROTOCOL section 9.1).

Stored form: the raw bytes of every message, each followed by a comma. Any run of whole messages becomes the
array that readers get by replacing the last comma with brackets, so a read never parses anything. Messages
keep the bytes the client sent: order of keys, duplicate keys, precision of numbers, escapes, inner blanks.
"""

from __future__ import annotations

from itertools import accumulate, count
from operator import add
from typing import Final

import msgspec
import orjson

from dstreams.protocol.problems import InvalidJson

MAX_DEPTH: Final = 512
"""The deepest nesting taken, the outermost array or object counted as 1.

Below what both parsers manage (orjson 1024; msgspec what Python's recursion limit leaves on the stack), and
far above what documents need.
"""

_WHITE_SPACE: Final = b" \t\n\r"
_ELEMENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_NO_MESSAGE: Final = msgspec.Raw(b"")

_NESTING: Final = b'[]{}"'
_NOT_NESTING: Final = bytes(byte for byte in range(256) if byte not in _NESTING)
_TO_ARRAYS: Final = bytes.maketrans(b"{}", b"[]")
_TO_STEPS: Final = bytes.maketrans(b"[]", b"\x01\xff")  # +1 and -1 as signed bytes


def split_messages(body: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Validate a request body and cut it into messages.

    A top-level array is opened one level: each element is a message. Any other value is one message.

    :param body: the request body.
    :return: the messages in stored form, and the position after each of them (its comma included), from 0.
        ``[]`` gives ``(b"", ())``.
    :raises InvalidJson: the body isn't JSON in UTF-8, or is nested deeper than :data:`MAX_DEPTH`.
    """
    try:
        # The values aren't used: this is the strict check that the raw split below doesn't make.
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(str(error)) from None
    # MAX_DEPTH + 1 levels need as many opening and closing brackets.
    if len(body) > 2 * MAX_DEPTH:
        _check_depth(body)
    if body.startswith(b"{"):
        stored = body.rstrip(_WHITE_SPACE) + b","
        return stored, (len(stored),)
    body = body.strip(_WHITE_SPACE)
    if not body.startswith(b"["):
        return body + b",", (len(body) + 1,)
    return _split_array(body)


def wrap(stored: bytes) -> bytes:
    """Make the array that readers get.

    :param stored: any number of whole messages in stored form.
    :return: a JSON array of them; ``[]`` for none.
    """
    return b"[%b]" % stored[:-1]


def _split_array(body: bytes) -> tuple[bytes, tuple[int, ...]]:
    try:
        elements = _ELEMENTS.decode(body)
    except RecursionError:
        # Called from a stack so deep that the parser has less room than MAX_DEPTH.
        raise _too_deep() from None
    except msgspec.DecodeError as error:
        # Nothing is known that only the first parser takes; if there is, it gets a 400, not a 500.
        raise InvalidJson(str(error)) from None
    if not elements:
        return b"", ()
    # The n-th end counts n commas.
    ends = tuple(map(add, accumulate(map(len, elements)), count(1)))
    elements.append(_NO_MESSAGE)
    return b",".join(elements), ends


def _check_depth(body: bytes) -> None:
    """Refuse valid JSON that is nested too deeply; costs two counts when it can't be."""
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise _too_deep()


def _depth(body: bytes) -> int:
    """The nesting depth of valid JSON, by steps that each run in C over the whole text."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Now every quote begins or ends a string, so a pair of neighbours can go without changing what is inside.
    nesting = body.translate(_TO_ARRAYS, _NOT_NESTING).replace(b'""', b"")
    if b'"' in nesting:
        nesting = b"".join(nesting.split(b'"')[::2])
    steps = nesting.translate(_TO_STEPS)
    return max(accumulate(memoryview(steps).cast("b")), default=0)


def _too_deep() -> InvalidJson:
    return InvalidJson(f"The JSON is nested too deeply; at most {MAX_DEPTH} levels are allowed.")
