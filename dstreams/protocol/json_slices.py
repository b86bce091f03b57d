"""Check and split a large JSON body in slices, without a call that takes time in proportion to the body.

One call of a JSON parser on 9 MB blocks the interpreter for 70 ms, and a list of 4.5 million elements takes gigabytes.
So the body is checked one *group* at a time: a piece of at most :data:`WINDOW_BYTES` that ends at a token boundary. A
group alone is not JSON. To make it a document, a substitute for the text before it is prepended, and the brackets that
are still open are closed after it. For example, ``[{"a": [1, 2, 3], "b": 4}]`` cut after ``2,``::

    [{"a": [1, 2,     checked as   [{"a": [1, 2,0]}]
    3], "b": 4}]      checked as   [{"":[0,3], "b": 4}]

A JSON parser reads left to right, and its state is only the open brackets and the last token. Therefore the body is
valid exactly if all of these documents are. They are checked by the same parser as small bodies, so both ways accept
the same JSON.

The elements of a top-level array are found in the same pass. If a group consists of whole elements, as it nearly
always does, a second parser finds them. Otherwise they end at the commas outside strings and inner brackets.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from enum import Enum
from io import BytesIO
from itertools import accumulate
from typing import Final

import msgspec
import orjson
from attrs import define, field

from dstreams.protocol.json_mode import (
    MAX_DEPTH,
    STEPS,
    WHITE_SPACE,
    check_depth,
    fault,
    mask,
    places,
    split_array,
    too_deep,
)
from dstreams.protocol.problems import InvalidJson
from dstreams.protocol.sse import incomplete_suffix

WINDOW_BYTES: Final = 16 * 1024
"""Maximum bytes of a body that are checked in one step: 0.2 ms for ordinary JSON, 3 ms at worst."""

COPY_BYTES: Final = 256 * 1024
"""Maximum bytes of a large message that are copied in one step: 0.2 ms."""

_GUESSES: Final = 3
"""Maximum number of positions that are tried as the end of a group before the window is searched thoroughly."""

_PAUSE: Final = 8
"""Number of windows that are searched thoroughly after all guesses were wrong."""

_NOT_BLANK: Final = re.compile(rb"[^ \t\n\r]")
_STRING_UNITS: Final = re.compile(
    rb'(?:[^\\"]+'
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u(?![dD][89abAB])[0-9a-fA-F]{4}"
    rb"|\\[^u])*"
)
"""Matches characters and whole escape sequences; a surrogate pair is matched as one."""

_LONGEST_ESCAPE: Final = 12
"""The length in bytes of an escaped surrogate pair, ``\\uD83D\\uDE00``."""

_WORD: Final = b"+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The characters of numbers and of the words ``true``, ``false`` and ``null``, and some more."""

_BRACKETS: Final = b"[]{}"
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_CLOSING: Final = {0x5B: b"]", 0x7B: b"}"}


class _After(Enum):
    """The kind of the last token before a position in the body, which is part of the parser's state there."""

    NOTHING = "the beginning of the document, or an opening bracket"
    COMMA = "a comma"
    VALUE = "a value"
    KEY = "a member's key"
    COLON = "the colon after a key"
    IN_STRING = "a part of a string value"
    IN_KEY = "a part of a key"


_IN_ARRAY: Final = {
    _After.NOTHING: b"[",
    _After.COMMA: b"[0,",
    _After.VALUE: b'[""',
    _After.IN_STRING: b'["',
}
_IN_OBJECT: Final = {
    _After.NOTHING: b"{",
    _After.COMMA: b'{"":0,',
    _After.VALUE: b'{"":""',
    _After.KEY: b'{""',
    _After.COLON: b'{"":',
    _After.IN_STRING: b'{"":"',
    _After.IN_KEY: b'{"',
}
_AT_TOP: Final = {_After.NOTHING: b"", _After.VALUE: b'""', _After.IN_STRING: b'"'}
"""With ``_IN_ARRAY`` and ``_IN_OBJECT``: the substitute for the text from the innermost open bracket up to a group, by
the last token of that text."""

_COMPLETIONS: Final = (
    (_After.VALUE, b""),
    (_After.KEY, b":0"),
    (_After.COLON, b'""'),
)
"""The text that completes a group ending after a token, by the kind of that token."""

_STRING_COMPLETIONS: Final = ((_After.IN_STRING, b'"'), (_After.IN_KEY, b'":0'))


@define(eq=False)
class Messages:
    """The messages of a body.

    :param data: the messages in stored form, each followed by a comma.
    :param ends: the position after each message (its comma included), from 0, 64 bits each.
    :param lengths: the length of each message with its comma, 32 bits each.
    """

    data: bytes
    ends: array[int]
    lengths: array[int]


@define(eq=False)
class JsonSlices:
    """Checks and splits one body, with the same result as :func:`dstreams.protocol.json_mode.split_messages`.

    :param body: the request body.
    :param window_bytes: the maximum number of bytes checked in one step.
    """

    _body: bytes
    _window_bytes: int = WINDOW_BYTES
    _at: int = field(default=0, init=False)
    """The position up to which the body is checked."""
    _last: int = field(default=0, init=False)
    """The end of the last group; only white space is between it and ``_at``."""
    _end: int = field(default=0, init=False)
    """The end of the body without trailing white space."""
    _open: bytearray = field(factory=bytearray, init=False)
    """The opening brackets around ``_at``, the outermost first."""
    _after: _After = field(default=_After.NOTHING, init=False)
    _is_array: bool = field(default=False, init=False)
    _element: int = field(default=-1, init=False)
    """The start of an element of the top-level array that may be larger than a group; -1 if there is none."""
    _large: tuple[int, int] | None = field(default=None, init=False)
    """The start and the end of a checked element that is larger than a group, until it is stored."""
    _exact: int = field(default=0, init=False)
    """The number of following windows that are searched thoroughly."""
    _stored: BytesIO = field(factory=BytesIO, init=False)
    """The messages found so far, in stored form."""
    _ends: array[int] = field(factory=lambda: array("Q"), init=False)
    _lengths: array[int] = field(factory=lambda: array("I"), init=False)

    def steps(self) -> Iterator[None]:
        """Check and split the body, about one group for each item.

        :raise InvalidJson: if the body is not JSON in UTF-8, or is nested deeper than :data:`MAX_DEPTH`.
        """
        body = self._body
        yield from self._skip_blanks()
        self._end = len(body)
        while self._end > self._at and body[self._end - 1] in WHITE_SPACE:
            begin = max(self._at, self._end - self._window_bytes)
            self._end = begin + len(body[begin : self._end].rstrip(WHITE_SPACE))
            yield
        self._is_array = body.startswith(b"[", self._at)
        if self._is_array:
            self._at += 1
            self._open += b"["
            yield from self._skip_blanks()
        begin = self._at
        while self._at < self._end:
            self._group()
            yield
            if self._large is not None:
                yield from self._add(*self._large)
                self._large = None
            yield from self._skip_blanks()
        if self._open or self._after is not _After.VALUE:
            self._parse(before := self._before(), before)
        if not self._is_array:
            yield from self._add(begin, self._end)

    def messages(self) -> Messages:
        """Return the messages, after :meth:`steps` is exhausted."""
        return Messages(self._stored.getvalue(), self._ends, self._lengths)

    # -- advancing

    def _skip_blanks(self) -> Iterator[None]:
        """Advance past white space, but not inside strings."""
        self._last = self._at
        if self._after is _After.IN_STRING or self._after is _After.IN_KEY:
            return
        while self._at < len(self._body):
            until = min(self._at + 16 * self._window_bytes, len(self._body))
            found = _NOT_BLANK.search(self._body, self._at, until)
            if found is not None:
                self._at = found.start()
                return
            self._at = until
            yield

    def _group(self) -> None:
        """Check one group."""
        begin, until = self._at, min(self._at + self._window_bytes, self._end)
        whole = self._open == b"[" and self._after in (_After.NOTHING, _After.COMMA)
        if whole and not self._exact and self._guess(begin, until):
            return
        self._exact = max(0, self._exact - 1)
        self._search(begin, until, whole)

    def _guess(self, begin: int, until: int) -> bool:
        """Check a group of whole elements whose end is guessed; return whether one of the guesses was right.

        A comma ends an element if the text from the start of the first element to the comma is a list of JSON values.
        """
        body = self._body
        if until == self._end:
            if body[until - 1] == 0x5D and self._take_elements(begin, until - 1, closed=True):
                return True
        else:
            separator = self._separator(begin, until)
            # In b"}," the bracket belongs to the element.
            shift = 0 if separator.startswith(b",") else 1
            cut = until
            for _ in range(_GUESSES):
                cut = body.rfind(separator, begin, cut)
                if cut < 0:
                    break
                if self._take_elements(begin, cut + shift, closed=False):
                    return True
        self._exact = _PAUSE
        return False

    def _separator(self, begin: int, until: int) -> bytes:
        """Return text that probably separates two elements, by the first byte of the element at ``begin``.

        For an object it is a comma, the white space before this object, and its first key, if that text occurs in the
        window; otherwise ``},``.
        """
        body = self._body
        first = body[begin : begin + 1]
        if first == b"[":
            return b"],"
        if first != b"{":
            return b","
        key_end = body.find(b":", begin, min(begin + 100, until)) + 1
        like_this = b"," + body[self._last : begin] + body[begin:key_end]
        return like_this if body.find(like_this, begin, until) >= 0 else b"},"

    def _take_elements(self, begin: int, end: int, *, closed: bool) -> bool:
        """Check whole elements of the top-level array, and store them if they are valid.

        :param closed: whether the array ends after them; otherwise a comma follows.
        :return: whether they are valid; also ``False`` if an element between two commas is missing.
        """
        group = self._body[begin:end]
        document = b"[" + group + b"]"
        try:
            orjson.loads(document)
        except orjson.JSONDecodeError:
            return False
        check_depth(document)
        elements = split_array(document)
        if not elements and not (closed and self._after is _After.NOTHING):
            return False
        self._add_elements(group, elements)
        self._moved(end, closed=closed)
        return True

    def _moved(self, end: int, *, closed: bool) -> None:
        self._at = end + 1
        if closed:
            self._open.pop()
        self._after = _After.VALUE if closed else _After.COMMA

    # -- the thorough search

    def _search(self, begin: int, until: int, whole: bool) -> None:
        """Check a group whose end is found by examining every bracket, comma and quote of the window.

        :param whole: whether an element of the top-level array begins here.
        """
        window = self._body[begin:until]
        in_string = self._after is _After.IN_STRING or self._after is _After.IN_KEY
        masked, ends_in_string = mask(b'"' + window if in_string else window)
        if in_string:
            masked = masked[1:]
        if whole:
            self._element = begin
        if self._is_array and self._open:
            # An element of the top-level array ends at the first comma or bracket outside all inner brackets.
            cut = self._end_of_element(masked, last=whole)
            if cut >= 0:
                closed = window[cut] == 0x5D
                self._check(window[:cut], masked[:cut], b"", _After.VALUE if closed else _After.COMMA)
                if whole:
                    group = window[:cut]
                    self._add_elements(group, split_array(b"[" + group + b"]"))
                else:
                    size = len(window[:cut].rstrip(WHITE_SPACE))
                    self._large = (self._element, begin + size if size else self._last)
                self._element = -1
                self._moved(begin + cut, closed=closed)
                return
        last = until == self._end
        cut = max(masked.rfind(each) for each in (b",", b"[", b"]", b"{", b"}"))
        if last:
            # The body ends here, so the document has to be complete.
            self._check(window, masked, b"", _After.VALUE)
            self._at = until
        elif cut >= 0:
            token = masked[cut : cut + 1]
            if token == b",":
                self._check(window[:cut], masked[:cut], b"", _After.COMMA)
            else:
                after = _After.NOTHING if token in b"[{" else _After.VALUE
                self._check(window[: cut + 1], masked[: cut + 1], b"", after)
            self._at = begin + cut + 1
        elif ends_in_string:
            self._cut_string(window, masked)
        else:
            self._cut_token(window, masked)

    def _end_of_element(self, masked: bytes, *, last: bool) -> int:
        """Return where an element of the top-level array ends in the window, or -1.

        :param last: whether to return the end of the last element that ends there, instead of the current element's.
        """
        surplus = len(self._open) - 1
        steps = memoryview(masked.translate(STEPS)).cast("b")
        depths = list(accumulate(steps, initial=surplus))
        close = next((place for place in places(masked, b"]") if depths[place + 1] < 0), -1)
        if close >= 0 and last:
            return close
        stop = close if close >= 0 else len(masked)
        if last:
            comma = masked.rfind(b",", 0, stop)
            while comma >= 0 and depths[comma] != 0:
                comma = masked.rfind(b",", 0, comma)
            return comma
        comma = next((place for place in places(masked[:stop], b",") if depths[place] == 0), -1)
        return comma if comma >= 0 else close

    def _cut_string(self, window: bytes, masked: bytes) -> None:
        """End the group inside a string, between two characters."""
        begin = masked.rfind(b'"') + 1
        cut = len(window)
        if b"\\" in window[-_LONGEST_ESCAPE:]:
            found = _STRING_UNITS.match(window, begin)
            cut = begin if found is None else found.end()
        cut -= incomplete_suffix(window[begin:cut])
        if not cut:
            self._parse(before := self._before(), before + window + b'"')
        self._complete(window[:cut], masked[:cut], _STRING_COMPLETIONS)
        self._at += cut

    def _cut_token(self, window: bytes, masked: bytes) -> None:
        """End the group after a string or a colon, or before a number or word that may continue after the window."""
        kept = len(masked.rstrip(_WORD).rstrip(WHITE_SPACE))
        if not kept:
            raise InvalidJson(f"a number or word is longer than {len(window)} bytes (at byte {self._at})")
        self._complete(window[:kept], masked[:kept], _COMPLETIONS)
        self._at += kept

    def _complete(self, group: bytes, masked: bytes, completions: Sequence[tuple[_After, bytes]]) -> None:
        """Check a group without brackets and commas that ends after or inside a token of unknown kind."""
        if not self._open or self._open[-1] == 0x5B:
            completions = completions[:1]  # only objects have keys
        for after, completion in completions[:-1]:
            try:
                self._check(group, masked, completion, after)
            except InvalidJson:
                continue
            return
        after, completion = completions[-1]
        self._check(group, masked, completion, after)

    # -- checking

    def _before(self) -> bytes:
        """Return the substitute for the text before ``_at``."""
        if not self._open:
            return _AT_TOP[self._after]
        outer = b"".join([b"[" if each == 0x5B else b'{"":' for each in self._open[:-1]])
        return outer + (_IN_ARRAY if self._open[-1] == 0x5B else _IN_OBJECT)[self._after]

    def _check(self, group: bytes, masked: bytes, completion: bytes, after: _After) -> None:
        """Check a group, and record the brackets that are open after it and its last token.

        :param masked: the group with strings masked.
        :param completion: the text that completes the token at its end.
        :param after: the kind of that token.
        """
        before = self._before()
        left = bytearray(self._open)
        for bracket in masked.translate(None, _NO_BRACKETS):
            if bracket in b"[{":
                left.append(bracket)
                if len(left) > MAX_DEPTH:
                    raise too_deep()
            elif left:
                left.pop()
        if after is _After.COMMA:
            # This checks that a comma is allowed: a value precedes it, and it does not follow the outermost value.
            completion = b',"":0' if left[-1:] == b"{" else b",0"
        document = before + group + completion + b"".join([_CLOSING[each] for each in reversed(left)])
        self._parse(before, document)
        self._open, self._after = left, after

    def _parse(self, before: bytes, document: bytes) -> None:
        try:
            orjson.loads(document)
        except orjson.JSONDecodeError as error:
            raise fault(error, document, len(before), self._at, len(self._ends)) from None

    # -- messages

    def _add_elements(self, group: bytes, elements: list[msgspec.Raw]) -> None:
        """Store whole elements."""
        if not elements:
            return
        stored = self._stored.tell()
        lengths = array("I", [len(each) + 1 for each in elements])
        ends = array("Q", accumulate(lengths, initial=stored))
        ends.pop(0)
        self._ends += ends
        self._lengths += lengths
        if ends[-1] - stored == len(group) + 1:
            self._stored.write(group)  # no white space between them
        else:
            self._stored.write(b",".join(elements))
        self._stored.write(b",")

    def _add(self, begin: int, end: int) -> Iterator[None]:
        """Store one message that may be larger than a group, ``COPY_BYTES`` for each item."""
        message = memoryview(self._body)[begin:end]
        for at in range(0, len(message), COPY_BYTES):
            self._stored.write(message[at : at + COPY_BYTES])
            yield
        self._stored.write(b",")
        self._ends.append(self._stored.tell())
        self._lengths.append(len(message) + 1)
