"""Reading a document: parsed as a stream, checked member by member, its messages laid aside.

Members may stand in any order. Unknown ones are skipped, so that documents of later versions and of other servers can
be read; one that stands twice is an error, since nobody can say which counts.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

import ijson
from attrs import define, field

from dstreams.progress import Progress
from dstreams.protocol.json_mode import split_messages
from dstreams.protocol.names import NameLimits
from dstreams.protocol.problems import InvalidJson
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
"""After so many, the rest of a document isn't looked at."""


def read_document(file: IO[bytes], staging: Staging, limits: NameLimits, progress: Progress) -> list[StagedStream]:
    """Read a whole document.

    :param file: read once, from where it stands to its end.
    :param staging: takes the messages.
    :param limits: how large a name may be.
    :return: the streams, in their order.
    :raise InvalidDocument: with everything that is wrong with it.
    """
    # With floats, whole numbers have 64 bits at most. Without, one of thousands of digits, which Python refuses to
    # read, crashes the parser.
    events: Iterator[_Event] = ijson.basic_parse(_Counted(file, progress), buf_size=_READ_BYTES, use_float=True)
    return _Document(events, staging, limits).read()


@define
class _Counted:
    """A file that tells how far it has been read."""

    _file: IO[bytes]
    _progress: Progress
    _done: int = field(default=0, init=False)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._done += len(data)
        # At the end all has been read; how much there is, a pipe doesn't tell before.
        self._progress("reading bytes", self._done, self._done if size and not data else 0)
        return data


@define(eq=False)
class _Document:
    """The state of reading one."""

    _events: Iterator[_Event]
    _staging: Staging
    _limits: NameLimits
    _streams: list[StagedStream] = field(factory=list, init=False)
    _names: set[str] = field(factory=set, init=False)
    _problems: list[str] = field(factory=list, init=False)
    # Why the stream at hand can't be imported; the first reason counts.
    _fault: str | None = field(default=None, init=False)
    _number: int = field(default=0, init=False)

    def read(self) -> list[StagedStream]:
        try:
            self._document()
            for _ in self._events:  # the parser complains about what follows the document
                pass
        except ijson.JSONError as error:
            self._stop(f"this is no complete JSON document: {_one_line(error)}")
        except (UnicodeDecodeError, ValueError, OverflowError) as error:
            self._stop(f"this is no JSON document: {_one_line(error)}")
        if self._problems:
            raise InvalidDocument(self._problems)
        return self._streams

    def _stop(self, problem: str) -> None:
        raise InvalidDocument([*self._problems, problem]) from None

    # --- the document --------------------------------------------------------------------------------

    def _document(self) -> None:
        if self._next()[0] != "start_map":
            self._stop("a document is a JSON object, as 'durable-streams export' writes it")
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
        """All members of a stream have been read: see that they fit together."""
        self._number += 1
        try:
            record = parse_record(given, self._limits)
            if record.extended and parse_next_offset(given) != self._staging.size:
                self._note(f"its messages don't end at 'next_offset' {given['next_offset']}: some are missing")
            if record.name in self._names:
                self._note("there are two streams of that name")
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
        """The stream can't be imported; the first reason is the one that is told."""
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
        """How the stream's messages are stored."""
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
            raise Malformed(f"'data_base64' can't be decoded: {error}") from None
        data = stored(payload)
        # One without bytes can't be told from none.
        if data and not self._fault:
            self._staging.add(data, ends_append=not continues)

    # --- JSON ----------------------------------------------------------------------------------------

    def _next(self) -> _Event:
        return next(self._events)

    def _keys(self, what: str) -> Iterator[str]:
        """The names of an object's members, up to its end; whoever iterates takes each value."""
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
        """The next value, whatever it is."""
        event, value = self._next()
        if event not in _DEPTH:  # most are; for a million messages it makes a difference of seconds
            return value
        builder = ijson.ObjectBuilder()
        builder.event(event, value)
        for following in self._rest():
            builder.event(*following)
        return builder.value

    def _skip(self) -> None:
        """Leave out the next value, however large it is."""
        if self._next()[0] in _DEPTH:
            for _ in self._rest():
                pass

    def _rest(self) -> Iterator[_Event]:
        """What follows the begin of an array or object, up to its end."""
        depth = 1
        while depth:
            event = self._next()
            depth += _DEPTH.get(event[0], 0)
            yield event


def _stored_json(payload: bytes) -> bytes:
    """A message of a JSON stream as it is stored: one value, checked, and its comma."""
    try:
        # An array is opened one level by an append, so a message that is one was inside another.
        data, ends = split_messages(b"[%b]" % payload if payload.lstrip(_WHITE_SPACE).startswith(b"[") else payload)
    except InvalidJson as error:
        raise Malformed(f"it is no JSON: {error.detail}") from None
    if len(ends) != 1:
        raise Malformed("it is no JSON: several values in one message")
    return data


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
