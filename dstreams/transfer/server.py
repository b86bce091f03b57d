"""The streams of a running server: exported from it, and imported into it, over HTTP.

Any server of the protocol will do. What the protocol doesn't tell can't be exported: producers, Stream-Seq, where the
messages of a byte stream end, and when a stream was made (the admin listing knows that). Reading a stream renews its
TTL, as it does for every client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field

from dstreams.protocol.content_types import ContentType, parse_content_type
from dstreams.protocol.expiry import format_expires_at, parse_expires_at
from dstreams.protocol.headers import MAX_INTEGER
from dstreams.protocol.json_mode import split_messages
from dstreams.protocol.names import encode_name
from dstreams.protocol.offsets import format_offset, parse_offset
from dstreams.protocol.problems import ProtocolError
from dstreams.transfer.errors import NoSuchStream, TransferError
from dstreams.transfer.http import Answer, Body, Server
from dstreams.transfer.listing import Listed
from dstreams.transfer.planning import Step
from dstreams.transfer.records import Origin, Record
from dstreams.transfer.staging import PIECE_BYTES, Staging
from dstreams.transfer.writing import Message


@define(eq=False)
class ServerStreams:
    """The streams of a server, as an export and a listing see them.

    :param names: which streams; all that the admin listing has, when it is empty.
    :param admin_url: where the admin listing is, if it can be asked.
    :param now: Unix seconds, for what the server doesn't tell.
    """

    _server: Server
    _names: Sequence[str]
    _admin_url: str | None
    _now: float
    _entries: dict[str, dict[str, Any]] | None = field(default=None, init=False)

    def names(self) -> list[str]:
        """All streams there are, in order."""
        return sorted(self._listing()) if not self._names else sorted(set(self._names))

    def _listing(self) -> dict[str, dict[str, Any]]:
        if self._entries is None:
            self._entries = {}
            if self._admin_url is not None:
                for entry in self._server.listing(self._admin_url):
                    self._entries[entry["name"]] = entry
            elif not self._names:
                raise TransferError(
                    "the protocol has no listing of streams: name them with --stream, or give --admin-url, which is"
                    " http://ENDPOINT/admin with the server's admin.endpoint"
                )
        return self._entries

    def listed(self, name: str) -> Listed:
        """A stream's line of the listing.

        :raise NoSuchStream:
        """
        entry = self._listing().get(name)
        if entry is None:
            record, tail = self._head(name)
            return Listed(
                name=name,
                closed=record.closed,
                content_type=record.content_type.value,
                total_bytes=_position(tail),
                ttl=record.ttl,
                expires_at=record.expires_at,
            )
        created, updated = _time(entry["created_at"]), _time(entry["updated_at"])
        return Listed(
            name=name,
            closed=entry["closed"],
            content_type=entry["content_type"],
            messages=entry["messages"],
            total_bytes=entry["bytes"],
            created_at=created,
            updated_at=None if updated == created else updated,
            ttl=entry["ttl_seconds"],
            expires_at=_time(entry["expires_at"]),
        )

    def record(self, name: str, exported: frozenset[str]) -> Record:
        """A stream's members of a document; see ``Exportable``."""
        record, _ = self._head(name)
        entry = self._listing().get(name)
        if entry is None:
            return record
        created, updated = _time(entry["created_at"]), _time(entry["updated_at"])
        return Record(
            name=name,
            content_type=record.content_type,
            ttl=record.ttl,
            expires_at=record.expires_at,
            created_closed=record.closed and updated == created,
            closed=record.closed,
            created_at=created,
            updated_at=None if updated == created else updated,
            origin=_origin(entry, exported),
        )

    def _head(self, name: str) -> tuple[Record, str]:
        """What HEAD tells of a stream, and where its tail is."""
        answer = self._server.ask("HEAD", self._server.stream_url(name))
        if answer.status in {404, 410}:
            raise NoSuchStream(name)
        if answer.status != 200:
            raise TransferError(f"{self._server.stream_url(name)}: the server answered {answer.status}")
        headers = answer.headers
        ttl, expires_at = headers.get("Stream-TTL"), headers.get("Stream-Expires-At")
        record = Record(
            name=name,
            content_type=_content_type(headers),
            ttl=None if ttl is None else min(int(ttl), MAX_INTEGER),
            expires_at=None if ttl is not None else _time(expires_at),
            # Whether by the PUT or later isn't told; an import makes it with one PUT.
            created_closed=_is_closed(headers),
            closed=_is_closed(headers),
            created_at=self._now,
        )
        return record, headers.get("Stream-Next-Offset", "")

    def messages(self, name: str) -> Iterator[Message]:
        """A stream's messages up to where it ends when the reading begins."""
        record, tail = self._head(name)
        cut_at = None
        entry = self._listing().get(name)
        if entry is not None and entry["fork_offset"] is not None:
            cut_at = _position(entry["fork_offset"])
        offset, position = "-1", 0
        while True:
            answer, pieces = self._server.stream(f"{self._server.stream_url(name)}?offset={offset}", PIECE_BYTES)
            if answer.status != 200:
                raise TransferError(f"stream {name!r} could not be read from {offset} on: {answer.problem}")
            for message in _messages(record.content_type, pieces, None if cut_at is None else cut_at - position):
                position += message.size
                yield message
            following = answer.headers.get("Stream-Next-Offset", "")
            up_to_date = answer.headers.get("Stream-Up-To-Date", "").lower() == "true"
            # Offsets sort as strings (PROTOCOL section 8); a busy stream may never be read to its end.
            if up_to_date or following >= tail:
                return
            if following == offset or not following:
                raise TransferError(f"stream {name!r}: the server gives no way on from offset {offset}")
            offset = following


def _messages(content_type: ContentType, pieces: Iterator[bytes], cut_at: int | None) -> Iterator[Message]:
    """Cut an answer into messages: elements of the array in JSON mode, else pieces of any size.

    :param cut_at: where else to cut bytes, counted from the answer's first one.
    """
    if content_type.is_json:
        data, ends = split_messages(b"".join(pieces))
        start = 0
        for end in ends:
            yield Message(data[start : end - 1], end - start)
            start = end
        return
    at = 0
    for piece in pieces:
        begin = 0
        if cut_at is not None and at < cut_at < at + len(piece):
            begin = cut_at - at
            yield Message(piece[:begin], begin)
        yield Message(piece[begin:], len(piece) - begin)
        at += len(piece)


def _origin(entry: Mapping[str, Any], exported: frozenset[str]) -> Origin | None:
    source, offset = entry["forked_from"], entry["fork_offset"]
    position = None if offset is None else _position(offset)
    if source not in exported or position is None:
        return None
    return Origin(source, position, position)


def _content_type(headers: Mapping[str, str]) -> ContentType:
    try:
        return parse_content_type(headers.get("Content-Type", "application/octet-stream").encode("latin-1"))
    except ProtocolError as error:
        raise TransferError(f"the server sent a content type that is none: {error.detail}") from None


def _is_closed(headers: Mapping[str, str]) -> bool:
    return headers.get("Stream-Closed", "").lower() == "true"


def _time(text: str | None) -> float | None:
    return None if text is None else parse_expires_at(text.encode("latin-1"))


def _position(offset: str) -> int | None:
    """The position that an offset of this server names, ``None`` for another server's."""
    try:
        return parse_offset(offset.encode("latin-1"))
    except ProtocolError:
        return None


@define(eq=False)
class ServerTarget:
    """A server that streams are imported into: each by one PUT that carries all of it."""

    _server: Server
    # Streams that were stored and whose offsets are positions, so that a fork of them can be asked for.
    _sources: set[str] = field(factory=set, init=False)

    def taken(self, names: Iterable[str]) -> frozenset[str]:
        """Which of these names are taken."""
        return frozenset(name for name in names if self._taken(name))

    def _taken(self, name: str) -> bool:
        answer = self._server.ask("HEAD", self._server.stream_url(name))
        if answer.status in {200, 410}:
            return True
        if answer.status == 404:
            return False
        raise TransferError(f"{self._server.stream_url(name)}: the server answered {answer.status}")

    def check(self, steps: Sequence[Step]) -> None:
        """What fits is for the server to say, when it gets each of them."""

    def store(self, steps: Sequence[Step], staging: Staging, done: Callable[[int], object]) -> None:
        """Store all of the steps; see ``Importable``."""
        for number, step in enumerate(steps, 1):
            answer = self._put(step, staging)
            if answer.status != 201:
                before = f"{number - 1} stream(s) were stored before it" if number > 1 else "nothing was stored"
                why = "it exists by now" if answer.status in {200, 409} else f"the server answered {answer.problem}"
                raise TransferError(f"stream {step.record.name!r} was not stored: {why}; {before}")
            if answer.headers.get("Stream-Next-Offset") == format_offset(step.staged.size).decode():
                self._sources.add(step.record.name)
            done(number)

    def _put(self, step: Step, staging: Staging) -> Answer:
        record = step.record
        headers = {"Content-Type": record.content_type.value}
        if record.ttl is not None:
            headers["Stream-TTL"] = str(record.ttl)
        if record.expires_at is not None:
            headers["Stream-Expires-At"] = format_expires_at(record.expires_at).decode()
        if record.closed:
            headers["Stream-Closed"] = "true"
        start, origin = 0, record.origin
        if origin is not None and step.source is not None and origin.source in self._sources:
            start = step.own_start
            headers["Stream-Forked-From"] = f"{self._server.path}/{encode_name(origin.source).decode()}"
            headers["Stream-Fork-Offset"] = format_offset(start).decode()
        size, body = _body(step, staging, start)
        headers["Content-Length"] = str(size)
        return self._server.ask("PUT", self._server.stream_url(record.name), headers, body)


def _body(step: Step, staging: Staging, start: int) -> tuple[int, Body]:
    """A PUT's body: the stored bytes from ``start`` on, in JSON mode as an array of its messages."""
    end = step.staged.size
    if start == end:
        return 0, b""
    if not step.record.content_type.is_json:
        return end - start, staging.pieces(step.staged, start, end)

    def array() -> Iterator[bytes]:
        yield b"["
        yield from staging.pieces(step.staged, start, end - 1)  # without the last comma
        yield b"]"

    return end - start + 1, array()
