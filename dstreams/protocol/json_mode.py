"""JSON mode: converts between JSON values and messages in the byte stream (PROTOCOL section 9.1).

Stored form: the raw bytes of every message, each followed by a comma. To convert any sequence of whole messages to the
array that readers get, the last comma is removed and brackets are added. So a read never parses anything. Messages
keep the bytes that the client sent: order of keys, duplicate keys, precision of numbers, escapes, inner blanks.
"""

from __future__ import annotations

from itertools import accumulate, count
from operator import add
from typing import Final

import msgspec
import orjson

from dstreams.protocol.problems import InvalidJson

MAX_DEPTH: Final = 512
"""Maximum nesting depth; the outermost array or object counts as 1.

Both parsers can handle more (orjson 1024 levels; msgspec as many as Python's recursion limit leaves on the stack), and
documents need far less.
"""

WHITE_SPACE: Final = b" \t\n\r"
_ELEMENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_NO_MESSAGE: Final = msgspec.Raw(b"")

_NESTING: Final = b'[]{}"'
_NOT_NESTING: Final = bytes(byte for byte in range(256) if byte not in _NESTING)

STEPS: Final = bytes({0x5B: 1, 0x7B: 1, 0x5D: 255, 0x7D: 255}.get(byte, 0) for byte in range(256))
"""Translates brackets to changes of the nesting depth, +1 and -1 as signed bytes, and all other bytes to 0."""

_REASONS: Final = {
    "number is infinity when parsed as double": "a number is beyond the range of a double, which ends at about 1.8e308",
    "no low surrogate in string": "an escape is half of a surrogate pair; the other half must follow",
    "invalid low surrogate in string": "an escape is half of a surrogate pair; the other half must follow",
    "invalid high surrogate in string": "an escape is half of a surrogate pair; the other half must precede",
    "str is not valid UTF-8: surrogates not allowed": "the text is not UTF-8",
    "Input is a zero-length, empty document": "there is no value",
    "input data is empty": "there is no value",
    "unexpected end of data": "it ends too early",
    "unexpected content after document": "there is something after the value",
    "failed to allocate memory": f"it is nested deeper than {MAX_DEPTH} levels",
}
"""The parser's error messages, and those that clients get instead."""


def split_messages(body: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Validate a request body and split it into messages.

    Each element of a top-level array is a message. Any other value is one message. The time is proportional to the
    body; :class:`dstreams.protocol.json_slices.JsonSlices` does the same in slices.

    :param body: the request body.
    :return: the messages in stored form, and the position after each of them (its comma included), from 0.
        For ``[]`` it is ``(b"", ())``.
    :raises InvalidJson: if the body is not JSON in UTF-8, or is nested deeper than :data:`MAX_DEPTH`.
    """
    try:
        # The values are not used. This is the strict check, which the raw split below does not do.
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise fault(error, body) from None
    # MAX_DEPTH + 1 levels need as many opening and closing brackets.
    if len(body) > 2 * MAX_DEPTH:
        check_depth(body)
    if body.startswith(b"{"):
        stored = body.rstrip(WHITE_SPACE) + b","
        return stored, (len(stored),)
    body = body.strip(WHITE_SPACE)
    if not body.startswith(b"["):
        return body + b",", (len(body) + 1,)
    elements = split_array(body)
    if not elements:
        return b"", ()
    # The n-th end includes n commas.
    ends = tuple(map(add, accumulate(map(len, elements)), count(1)))
    elements.append(_NO_MESSAGE)
    return b",".join(elements), ends


def wrap(stored: bytes) -> bytes:
    """Return the array that readers get.

    :param stored: any number of whole messages in stored form.
    :return: a JSON array of them; ``[]`` for none.
    """
    return b"[%b]" % stored[:-1]


def split_array(document: bytes) -> list[msgspec.Raw]:
    """Return the elements of a valid JSON array as they are written, without white space around them."""
    try:
        return _ELEMENTS.decode(document)
    except RecursionError:
        # The caller's stack is so deep that less than MAX_DEPTH levels are left for the parser.
        raise too_deep() from None
    except msgspec.DecodeError as error:
        # No input is known that only the other parser accepts. If there is any, the response is a 400, not a 500.
        raise InvalidJson(f"{error}") from None


def check_depth(body: bytes) -> None:
    """Reject valid JSON that is nested too deeply. Text with at most ``MAX_DEPTH`` opening brackets is only counted."""
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise too_deep()


def _depth(body: bytes) -> int:
    """Return the nesting depth of valid JSON, by steps that each run in C over the whole text."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Now every quote begins or ends a string. Removing two adjacent quotes does not change what is inside strings.
    nesting = body.translate(None, _NOT_NESTING).replace(b'""', b"")
    if b'"' in nesting:
        nesting = b"".join(nesting.split(b'"')[::2])
    steps = nesting.translate(STEPS)
    return max(accumulate(memoryview(steps).cast("b")), default=0)


def too_deep() -> InvalidJson:
    """Return the error for JSON that is nested too deeply."""
    return InvalidJson(f"The JSON is nested too deeply; at most {MAX_DEPTH} levels are allowed.")


def mask(text: bytes) -> tuple[bytes, bool]:
    """Replace the contents of strings by underscores, so that only structural brackets, commas and quotes are left.

    :param text: JSON, or a part of it that begins outside strings.
    :return: the masked text, which has the same length, and whether the text ends inside a string.
    """
    if b"\\" in text:
        text = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    parts = text.split(b'"')
    parts[1::2] = [b"_" * len(part) for part in parts[1::2]]
    return b'"'.join(parts), not len(parts) % 2


def fault(
    error: orjson.JSONDecodeError, document: bytes, begin: int = 0, at: int = 0, messages: int = 0
) -> InvalidJson:
    """Return the error for a client that describes what is wrong with a body, and where.

    :param error: the parser's error.
    :param document: the parsed text, which contains a part of the body.
    :param begin: the position of that part in ``document``.
    :param at: the position of that part in the body.
    :param messages: the number of the body's messages before that part.
    """
    reason = _REASONS.get(error.msg, error.msg)
    place = len(document)
    try:
        text = document.decode()
    except UnicodeDecodeError as wrong:
        place = wrong.start
    else:
        # The parser counts characters, not bytes.
        place = len(text[: error.pos].encode())
    where = f"at byte {max(0, place - begin) + at}"
    if document[:begin].lstrip(WHITE_SPACE).startswith(b"[") or document.lstrip(WHITE_SPACE).startswith(b"["):
        where += f" in message {messages + _elements_before(document, begin, place) + 1}"
    return InvalidJson(f"{reason} ({where})")


def _elements_before(document: bytes, begin: int, place: int) -> int:
    """Return how many elements of the outermost array end between two positions."""
    masked, _ = mask(document[:place])
    depths = list(accumulate(memoryview(masked.translate(STEPS)).cast("b"), initial=0))
    return sum(depths[comma] == 1 for comma in places(masked, b",", begin))


def places(text: bytes, what: bytes, begin: int = 0) -> list[int]:
    """Return the positions of a byte in a text, in order."""
    found = []
    place = text.find(what, begin)
    while place >= 0:
        found.append(place)
        place = text.find(what, place + 1)
    return found
