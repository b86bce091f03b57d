"""Reads a document: parses it as a stream, checks every member, and puts the messages into the staging file.

Members may be in any order. Unknown ones are skipped, so that documents of later versions and of other servers can be
read. A repeated member is an error, because it would be unclear which one counts.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

import ijson
from attrs import define, field

from dstreams.protocol.json_mode import split_messages
from dstreams.protocol.names import NameLimits
from dstreams.protocol.problems import InvalidJson
from dstreams.runtime.progress import Progress
from dstreams.transfer.errors import InvalidDocument
from dstreams.transfer.records import (
    EXTENSION,
    EXTENSION_VERSION,
    FORMAT_VERSION,
    STREAM_MEMBERS,
    Malformed,
    parse_content_type_of,
    parse_next_offset,
    parse_record,
)
from dstreams.transfer.staging import StagedStream, Staging

_Event = tuple[str, Any]

_WHITE_SPACE: Final = b" \t\n\r"
_READ_BYTES: Final = 256 * 1024
_DEPTH: Final = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}
_MOST_PROBLEMS: Final = 1000
"""The number of problems after which the rest of the document is not read."""


def read_document(file: IO[bytes], staging: Staging, limits: NameLimits, progress: Progress) -> list[StagedStream]:
    """Read a whole document.

    :param file: read once, from its current position to the end.
    :param staging: receives the messages.
    :param limits: limits on stream names.
    :return: the streams, in the document's order.
    :raise InvalidDocument: if anything is wrong; it lists all problems.
    """
    # use_float limits whole numbers to 64 bits. Without it, a number of thousands of digits, which Python refuses to
    # convert, crashes the parser.
    events: Iterator[_Event] = ijson.basic_parse(_Counted(file, progress), buf_size=_READ_BYTES, use_float=True)
    return _Document(events, staging, limits).read()


@define
class _Counted:
    """A file that reports how much of it has been read."""

    _file: IO[bytes]
    _progress: Progress
    _done: int = field(default=0, init=False)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._done += len(data)
        # The total is known only at the end, because a pipe has no size.
        self._progress("reading bytes", self._done, self._done if size and not data else 0)
        return data


@define(eq=False)
class _Document:
    """The state of reading one document."""

    _events: Iterator[_Event]
    _staging: Staging
    _limits: NameLimits
    _streams: list[StagedStream] = field(factory=list, init=False)
    _names: set[str] = field(factory=set, init=False)
    _problems: list[str] = field(factory=list, init=False)
    # Why the current stream cannot be imported; only the first reason is kept.
    _fault: str | None = field(default=None, init=False)
    _number: int = field(default=0, init=False)

    def read(self) -> list[StagedStream]:
        try:
            self._document()
            for _ in self._events:  # the parser raises an error for anything that follows the document
                pass
        except ijson.JSONError as error:
            self._stop(f"this is not a complete JSON document: {_one_line(error)}")
        except (UnicodeDecodeError, ValueError, OverflowError) as error:
            self._stop(f"this is not a JSON document: {_one_line(error)}")
        if self._problems:
            raise InvalidDocument(self._problems)
        return self._streams

    def _stop(self, problem: str) -> None:
        raise InvalidDocument([*self._problems, problem]) from None

    # --- the document --------------------------------------------------------------------------------

    def _document(self) -> None:
        if self._next()[0] != "start_map":
            self._stop("a document must be a JSON object, as written by 'durable-streams export'")
        missing = {"format_version", "streams"}
        for name in self._keys("the document"):
            missing.discard(name)
            if name == "format_version":
                self._check_version(self._value(), FORMAT_VERSION, "format version")
            elif name == EXTENSION:
                extension = self._value()
                version = extension.get("version") if isinstance(extension, dict) else None
                self._check_version(version, EXTENSION_VERSION, f"version of '{EXTENSION}'")
            elif name == "streams":
                self._all_streams()
            else:
                self._skip()
        for name in sorted(missing):
            self._problems.append(f"the document has no '{name}'")

    def _check_version(self, found: object, known: int, what: str) -> None:
        if isinstance(found, bool) or found != known:
            self._stop(f"unsupported {what}: {found!r}; this server reads {known}")

    def _all_streams(self) -> None:
        if self._next()[0] != "start_array":
            self._stop("'streams' must be an array")
        for event, _ in iter(self._next, ("end_array", None)):
            if event != "start_map":
                self._stop("every element of 'streams' must be an object")
            self._stream()

    # --- a stream ------------------------------------------------------------------------------------

    def _stream(self) -> None:
        self._fault = None
        given: dict[str, Any] = {}
        missing = "'messages' is missing"
        for name in self._keys("the stream"):
            if name == "messages":
                missing = ""
                self._all_messages(given)
            elif name in STREAM_MEMBERS:
                given[name] = self._value()
            else:
                self._skip()
        self._note(missing)
        self._finish(given)

    def _finish(self, given: dict[str, Any]) -> None:
        """Check a stream whose members have all been read, and add it."""
        self._number += 1
        try:
            record = parse_record(given, self._limits)
            if record.extended and parse_next_offset(given) != self._staging.size:
                self._note(f"its messages do not end at 'next_offset' {given['next_offset']}: some are missing")
            if record.name in self._names:
                self._note("there are two streams with that name")
        except Malformed as error:
            self._note(str(error))
            record = None
        if record is None or self._fault:
            self._staging.discard()
            self._problem(f"stream {given.get('name', self._number)!r}: {self._fault}")
        else:
            self._names.add(record.name)
            self._streams.append(self._staging.finish(record))

    def _note(self, fault: str) -> None:
        """Record why the current stream cannot be imported; only the first reason is reported."""
        self._fault = self._fault or fault

    def _problem(self, text: str) -> None:
        self._problems.append(text)
        if len(self._problems) >= _MOST_PROBLEMS:
            raise InvalidDocument(self._problems)

    # --- messages ------------------------------------------------------------------------------------

    def _all_messages(self, given: dict[str, Any]) -> None:
        if "config" not in given:
            self._note("'messages' must come after 'config'")
        stored = self._storing(given)
        if self._next()[0] != "start_array":
            self._stop("'messages' must be an array")
        for number, (event, _) in enumerate(iter(self._next, ("end_array", None))):
            if event != "start_map":
                self._stop("every element of 'messages' must be an object")
            try:
                self._message(stored)
            except Malformed as error:
                self._note(f"message {number}: {error}")

    def _storing(self, given: dict[str, Any]) -> Callable[[bytes], bytes]:
        """Return the function that converts the stream's messages to their stored form."""
        config = given.get("config")
        try:
            content_type = parse_content_type_of(config if isinstance(config, dict) else {})
        except Malformed as error:
            self._note(str(error))
            return bytes
        return _stored_json if content_type.is_json else bytes

    def _message(self, stored: Callable[[bytes], bytes]) -> None:
        found: dict[str, Any] = {}
        for name in self._keys("the message"):
            found[name] = self._value()
        text, continues = found.get("data_base64"), found.get("append_continues", False)
        if not isinstance(text, str):
            raise Malformed("'data_base64' is missing")
        if not isinstance(continues, bool):
            raise Malformed("'append_continues' must be true or false")
        try:
            payload = binascii.a2b_base64(text, strict_mode=True)
        except ValueError as error:  # not ASCII, or not base64
            raise Malformed(f"'data_base64' cannot be decoded: {error}") from None
        data = stored(payload)
        # A message without bytes leaves no trace in a stream.
        if data and not self._fault:
            self._staging.add(data, ends_append=not continues)

    # --- JSON ----------------------------------------------------------------------------------------

    def _next(self) -> _Event:
        return next(self._events)

    def _keys(self, what: str) -> Iterator[str]:
        """Yield the names of an object's members up to its end; the caller reads each value."""
        seen = set()
        while True:
            event, name = self._next()
            if event == "end_map":
                return
            if name in seen:
                self._stop(f"{what} has two members {name!r}")
            seen.add(name)
            yield name

    def _value(self) -> Any:
        """Read and return the next value of any type."""
        event, value = self._next()
        if event not in _DEPTH:  # a scalar, as most are; this saves seconds for a million messages
            return value
        builder = ijson.ObjectBuilder()
        builder.event(event, value)
        for following in self._rest():
            builder.event(*following)
        return builder.value

    def _skip(self) -> None:
        """Skip the next value, however large it is."""
        if self._next()[0] in _DEPTH:
            for _ in self._rest():
                pass

    def _rest(self) -> Iterator[_Event]:
        """Yield the events up to the end of the array or object that has just started."""
        depth = 1
        while depth:
            event = self._next()
            depth += _DEPTH.get(event[0], 0)
            yield event


def _stored_json(payload: bytes) -> bytes:
    """Return a message of a JSON stream in its stored form: one value, validated, and its comma."""
    try:
        # An append flattens one level of arrays, so a message that is an array was nested in another one.
        data, ends = split_messages(b"[%b]" % payload if payload.lstrip(_WHITE_SPACE).startswith(b"[") else payload)
    except InvalidJson as error:
        raise Malformed(f"it is not JSON: {error.detail}") from None
    if len(ends) != 1:
        raise Malformed("it is not JSON: several values in one message")
    return data


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
