"""What the protocol says, as a dictionary of lists: the model that the engine is compared with.

Written from the protocol's text, in the plainest way: a stream is a list of units (single bytes, or JSON
messages), a fork copies them, nothing is shared, every question is answered by looking at everything.
"""

from __future__ import annotations

from attrs import define, field

JSON, TEXT = "application/json", "text/plain"

JSON_BODIES: dict[bytes, list[bytes]] = {
    b"1": [b"1"],
    b"[]": [],
    b"[[]]": [b"[]"],
    b'[1,"two"]': [b"1", b'"two"'],
    b' [ {"a": 1} , 2.50 ]\n': [b'{"a": 1}', b"2.50"],
    b"[[1,2],[3]]": [b"[1,2]", b"[3]"],
    b"12345": [b"12345"],
}
"""JSON bodies, and the messages that are in them; every other body isn't JSON."""


@define
class Times:
    """What no failure takes back: the time, when each stream was last used, which offsets were handed out.

    :param lent: when streams were really used last, if a restart has made them younger and nobody has used them since.
    """

    now: float
    used: dict[int, float] = field(factory=dict)
    lent: dict[int, float] = field(factory=dict)
    tokens: dict[int, dict[int, str]] = field(factory=dict)
    last_id: int = 0

    def restart(self, grace: float) -> None:
        """What had not been written down before a crash may be missing: so much longer every stream lives."""
        for stream_id, used in self.used.items():
            self.used[stream_id] = min(self.now, self.lent.setdefault(stream_id, used) + grace)


@define
class Put:
    """The parts of a PUT that make two of them the same."""

    content_type: str | None
    ttl: int | None = None
    expires_at: int | None = None
    source: str | None = None
    index: int | None = None
    sub_offset: int = 0


@define
class Stream:
    """``boundaries`` are the lengths at which appends ended, ``inherited`` how many units were copied."""

    id: int
    put: Put
    content_type: str
    ttl: int | None
    expires_at: int | None
    units: list[bytes] = field(factory=list)
    boundaries: list[int] = field(factory=list)
    inherited: int = 0
    closed: bool = False
    closed_by: tuple[str, int, int] | None = None
    stream_seq: str | None = None
    producers: dict[str, tuple[int, int]] = field(factory=dict)
    deleted: bool = False

    def split(self, body: bytes) -> list[bytes] | None:
        """The units of a body, ``None`` when it can't be one."""
        if not body:
            return []
        return JSON_BODIES.get(body) if self.content_type == JSON else [bytes([byte]) for byte in body]

    def cost(self, units: list[bytes]) -> int:
        """Stored bytes: JSON messages have a separator each."""
        return sum(len(unit) + (self.content_type == JSON) for unit in units)

    def add(self, units: list[bytes]) -> None:
        self.units += units
        if units:
            self.boundaries.append(len(self.units))


@define
class Model:
    """All streams. Methods give the status of the answer, and change what it says has changed."""

    times: Times
    stream_limit: int
    total_limit: int
    streams: dict[str, Stream] = field(factory=dict)

    def forks(self, name: str) -> list[str]:
        return [other for other, stream in self.streams.items() if stream.put.source == name]

    def over(self, stream: Stream) -> bool:
        used = self.times.used.get(stream.id)
        idle = stream.ttl is not None and used is not None and self.times.now - used >= stream.ttl
        return idle or (stream.expires_at is not None and self.times.now >= stream.expires_at)

    def look(self, name: str) -> int:
        """200, or why there is nothing to see."""
        stream = self.streams.get(name)
        if stream is None:
            return 404
        if stream.deleted:
            return 410
        return (410 if self.forks(name) else 404) if self.over(stream) else 200

    def expire(self) -> None:
        for name, stream in list(self.streams.items()):
            if not stream.deleted and self.over(stream):
                self.delete(name)

    def used(self) -> int:
        return sum(stream.cost(stream.units[stream.inherited :]) for stream in self.streams.values())

    def full(self, stream: Stream, units: list[bytes]) -> bool:
        size = stream.cost(stream.units[stream.inherited :] + units)
        return size > self.stream_limit or self.used() + stream.cost(units) > self.total_limit

    def touch(self, stream: Stream) -> None:
        if stream.id in self.times.used:
            self.times.used[stream.id] = self.times.now
            self.times.lent.pop(stream.id, None)

    def put(self, name: str, put: Put, body: bytes, closed: bool) -> int:
        there = self.streams.get(name)
        if there is not None:
            fork = put.source is not None
            kind = put.content_type or (there.content_type if fork else "application/octet-stream")
            rest = (put.ttl, put.expires_at, put.source, put.index, put.sub_offset)
            made = (there.put.ttl, there.put.expires_at, there.put.source, there.put.index)
            same = kind == there.content_type and rest == (*made, there.put.sub_offset)
            return 200 if same and closed == there.closed and not there.deleted else 409
        if put.source is None:
            kind = put.content_type or "application/octet-stream"
            stream = Stream(0, put, kind, put.ttl, put.expires_at)
        else:
            source = self.streams.get(put.source)
            if source is None:
                return 404
            if source.deleted or put.content_type not in {None, source.content_type}:
                return 409
            length = len(source.units) if put.index is None else put.index
            after = [end for end in source.boundaries if end > length]
            if put.sub_offset and (not after or length + put.sub_offset > after[0]):
                return 400
            length += put.sub_offset
            own = put.ttl is not None or put.expires_at is not None
            ttl, expires_at = (put.ttl, put.expires_at) if own else (source.ttl, source.expires_at)
            boundaries = [end for end in source.boundaries if end < length] + [length] * (length > 0)
            units = source.units[:length]
            stream = Stream(0, put, source.content_type, ttl, expires_at, units, boundaries, length)
        first = stream.split(body)
        if first is None or self.full(stream, first):
            return 400 if first is None else 413
        self.times.last_id += 1
        stream.id = self.times.last_id
        tokens = self.times.tokens.get(self.streams[put.source].id, {}) if put.source else {}
        self.times.tokens[stream.id] = {n: token for n, token in tokens.items() if n <= len(stream.units)}
        stream.add(first)
        stream.closed = closed
        self.streams[name] = stream
        return 201

    def post(  # noqa: C901 (one check after the other, as the protocol lists them)
        self,
        name: str,
        content_type: str,
        body: bytes,
        closes: bool,
        seq: str | None,
        producer: tuple[str, int, int] | None,
    ) -> tuple[int, dict[str, str]]:
        """The status, and the producer headers of the answer."""
        stream = self.streams.get(name)
        if stream is None or stream.deleted:
            return (404 if stream is None else 410), {}
        if stream.closed:
            return self._post_on_closed(stream, body, closes, producer)
        if body and content_type != stream.content_type:
            return 409, {}
        if producer is not None:
            refusal = self._check_producer(stream, *producer)
            if refusal is not None:
                return refusal
        regression = seq is not None and stream.stream_seq is not None and seq <= stream.stream_seq
        if regression and (body or not closes):
            return 409, {}
        units = stream.split(body)
        if units is None or (not units and not closes):
            return 400, {}
        if self.full(stream, units):
            return 413, {}
        stream.add(units)
        if units and seq is not None:
            stream.stream_seq = seq
        if closes:
            stream.closed, stream.closed_by = True, producer
        self.touch(stream)
        if producer is None:
            return 204, {}
        stream.producers[producer[0]] = producer[1:]
        return (200 if units else 204), _echo(producer[1:])

    def _post_on_closed(
        self, stream: Stream, body: bytes, closes: bool, producer: tuple[str, int, int] | None
    ) -> tuple[int, dict[str, str]]:
        if producer is None:
            return (204 if closes and not body else 409), {}
        if producer == stream.closed_by:
            return 204, _echo(producer[1:])
        last = stream.producers.get(producer[0])
        if last is not None and producer[1] < last[0]:
            return 403, {"producer-epoch": str(last[0])}
        return 409, {}

    def _check_producer(self, stream: Stream, name: str, epoch: int, seq: int) -> tuple[int, dict[str, str]] | None:
        last = stream.producers.get(name)
        if last is not None and epoch < last[0]:
            return 403, {"producer-epoch": str(last[0])}
        if last is not None and epoch > last[0]:
            return (400, {}) if seq else None
        if last is not None and seq <= last[1]:
            return 204, _echo(last)
        expected = 0 if last is None else last[1] + 1
        if seq == expected:
            return None
        return 409, {"producer-expected-seq": str(expected), "producer-received-seq": str(seq)}

    def delete(self, name: str) -> int:
        stream = self.streams.get(name)
        if stream is None or stream.deleted:
            return 404 if stream is None else 410
        if self.forks(name):
            stream.deleted = True
            return 204
        gone: str | None = name
        while gone is not None:
            source = self.streams.pop(gone).put.source
            keep = source is None or not self.streams[source].deleted or self.forks(source)
            gone = None if keep else source
        return 204


def _echo(last: tuple[int, ...]) -> dict[str, str]:
    return {"producer-epoch": str(last[0]), "producer-seq": str(last[1])}
