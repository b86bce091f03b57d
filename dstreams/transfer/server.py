"""Exports from and imports into a running server over HTTP.

This works with any server of the protocol. What the protocol does not expose cannot be exported: producers,
Stream-Seq, message boundaries of byte streams, and creation times (which the admin listing has). Reading a stream
renews its TTL, as for every client.
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
    """The streams of a server, for export and listing.

    :param names: the streams to read; if empty, all streams of the admin listing.
    :param admin_url: the URL of the admin pages, if they can be reached.
    :param now: Unix seconds, in place of times that the server does not expose.
    """

    _server: Server
    _names: Sequence[str]
    _admin_url: str | None
    _now: float
    _entries: dict[str, dict[str, Any]] | None = field(default=None, init=False)

    def names(self) -> list[str]:
        """Return the names of all streams, sorted."""
        return sorted(self._listing()) if not self._names else sorted(set(self._names))

    def _listing(self) -> dict[str, dict[str, Any]]:
        if self._entries is None:
            self._entries = {}
            if self._admin_url is not None:
                for entry in self._server.listing(self._admin_url):
                    self._entries[entry["name"]] = entry
            elif not self._names:
                raise TransferError(
                    "the protocol cannot list streams: name them with --stream, or give --admin-url, which is"
                    " http://ENDPOINT/admin with the server's admin.endpoint"
                )
        return self._entries

    def listed(self, name: str) -> Listed:
        """Return a stream's entry for the listing.

        :raise NoSuchStream: if the server has no stream of that name.
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
        """Return a stream's members for an export document; see ``Exportable``."""
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
        """Return what HEAD says about a stream, and its tail offset."""
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
            # The protocol does not say whether the creating PUT closed it; an import creates it with one PUT.
            created_closed=_is_closed(headers),
            closed=_is_closed(headers),
            created_at=self._now,
        )
        return record, headers.get("Stream-Next-Offset", "")

    def messages(self, name: str) -> Iterator[Message]:
        """Yield a stream's messages up to the tail that it had when the reading began."""
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
            # Offsets sort as strings (PROTOCOL section 8). The end of a busy stream may never be reached.
            if up_to_date or following >= tail:
                return
            if following == offset or not following:
                raise TransferError(f"stream {name!r}: the server returned no next offset after {offset}")
            offset = following


def _messages(content_type: ContentType, pieces: Iterator[bytes], cut_at: int | None) -> Iterator[Message]:
    """Cut a response body into messages: array elements in JSON mode, else pieces of any size.

    :param cut_at: an additional position at which to cut bytes, counted from the first byte of the body.
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
        raise TransferError(f"the server sent an invalid content type: {error.detail}") from None


def _is_closed(headers: Mapping[str, str]) -> bool:
    return headers.get("Stream-Closed", "").lower() == "true"


def _time(text: str | None) -> float | None:
    return None if text is None else parse_expires_at(text.encode("latin-1"))


def _position(offset: str) -> int | None:
    """Return the position that an offset of this server stands for, or ``None`` for another server's offset."""
    try:
        return parse_offset(offset.encode("latin-1"))
    except ProtocolError:
        return None


@define(eq=False)
class ServerTarget:
    """A server that streams are imported into, each with one PUT that carries all of its data."""

    _server: Server
    # The streams that were stored and whose offsets are positions, so that forks of them can be created.
    _sources: set[str] = field(factory=set, init=False)

    def taken(self, names: Iterable[str]) -> frozenset[str]:
        """Return those of the names that are in use."""
        return frozenset(name for name in names if self._taken(name))

    def _taken(self, name: str) -> bool:
        answer = self._server.ask("HEAD", self._server.stream_url(name))
        if answer.status in {200, 410}:
            return True
        if answer.status == 404:
            return False
        raise TransferError(f"{self._server.stream_url(name)}: the server answered {answer.status}")

    def check(self, steps: Sequence[Step], staging: Staging) -> None:
        """Do nothing: the server checks each stream when it receives it."""

    def store(self, steps: Sequence[Step], staging: Staging, done: Callable[[int], object]) -> None:
        """Store all steps; see ``Importable``."""
        for number, step in enumerate(steps, 1):
            answer = self._put(step, staging)
            if answer.status != 201:
                before = f"{number - 1} stream(s) were stored before it" if number > 1 else "nothing was stored"
                why = "it exists now" if answer.status in {200, 409} else f"the server answered {answer.problem}"
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
    """Return size and content of a PUT's body: the stored bytes from ``start`` on, in JSON mode as one array."""
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
