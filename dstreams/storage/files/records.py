"""Encodes and decodes changes in their binary form in the journal.

All numbers are little-endian. A change is one byte for its kind, followed by:

====  ==========  ==============================================================================================
kind  change      fields
====  ==========  ==============================================================================================
1     Create      u64 stream id, f64 at, u32 n, u32 m, u32 d; n bytes of JSON (name, content type, TTL, expiry,
                  fork, closed); m message lengths of u32 each; d bytes of data
2     Append      u8 flags, u64 stream id, u64 start, f64 at, u32 m, u32 d; [flag 2: u16 i, u64 epoch, u64 seq,
                  i bytes of producer id]; [flag 4: u16 s, s bytes of Stream-Seq]; m message lengths of u32 each,
                  omitted if m is 1; d bytes of data. Flag 1: the stream is closed.
3     Delete      f64 at, u32 n, u32 r; n + r stream ids of u64 each: the removed, then the released
4     SoftDelete  u64 stream id, f64 at
5     Touch       u64 stream id, f64 at
====  ==========  ==============================================================================================

The form has message lengths rather than ends, because lengths fit into 32 bits at any position.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from operator import sub
from typing import cast

import orjson

from dstreams.model.changes import (
    Append,
    Change,
    Create,
    Delete,
    SoftDelete,
    Touch,
)
from dstreams.model.ends import MANY, ManyEnds
from dstreams.protocol.producers import Producer
from dstreams.storage.config_json import MalformedRecord, config_members, member, members_config

_CREATE = struct.Struct("<BQdIII")
_APPEND = struct.Struct("<BBQQdII")
_PRODUCER = struct.Struct("<HQQ")
_SHORT = struct.Struct("<H")
_DELETE = struct.Struct("<BdII")
_ONE = struct.Struct("<BQd")

_CLOSES, _HAS_PRODUCER, _HAS_STREAM_SEQ = 1, 2, 4


def encode(changes: Iterable[Change]) -> list[bytes]:
    """Encode changes. The data of streams is not copied.

    :return: the bytes in pieces; :func:`decode` reads the concatenation.
    """
    pieces: list[bytes] = []
    for change in changes:
        if not isinstance(change, Append):
            pieces += _encode_other(change)
        elif change.producer is None and change.stream_seq is None and len(change.ends) == 1:
            # The fast path for nearly all changes.
            flags, data = _CLOSES if change.closes else 0, change.data
            pieces += (_APPEND.pack(2, flags, change.stream_id, change.start, change.at, 1, len(data)), data)
        else:
            pieces += _encode_append(change)
    return pieces


def _encode_other(change: Create | Delete | SoftDelete | Touch) -> tuple[bytes, ...]:
    if isinstance(change, Create):
        meta = orjson.dumps(config_members(change.config, change.fork) | {"name": change.name, "closed": change.closed})
        lengths = _lengths(change.start, change.ends)
        sizes = (len(meta), len(change.ends), len(change.data))
        return _CREATE.pack(1, change.stream_id, change.at, *sizes) + meta, lengths, change.data
    if isinstance(change, Delete):
        ids = change.stream_ids + change.released
        head = _DELETE.pack(3, change.at, len(change.stream_ids), len(change.released))
        return (head + struct.pack(f"<{len(ids)}Q", *ids),)
    return (_ONE.pack(4 if isinstance(change, SoftDelete) else 5, change.stream_id, change.at),)


def _encode_append(change: Append) -> tuple[bytes, ...]:
    flags, extra = 0, b""
    if change.closes:
        flags = _CLOSES
    producer = change.producer
    if producer is not None:
        flags |= _HAS_PRODUCER
        producer_id = producer.id.encode("latin-1")
        extra = _PRODUCER.pack(len(producer_id), producer.epoch, producer.seq) + producer_id
    if change.stream_seq is not None:
        flags |= _HAS_STREAM_SEQ
        extra += _SHORT.pack(len(change.stream_seq)) + change.stream_seq
    ends, data = change.ends, change.data
    lengths = _lengths(change.start, ends) if len(ends) > 1 else b""
    head = _APPEND.pack(2, flags, change.stream_id, change.start, change.at, len(ends), len(data))
    return head + extra, lengths, data


def decode(data: bytes) -> Iterator[Change]:
    """Decode the changes in the payload of a batch, in order.

    :raise MalformedRecord: if this version cannot decode the bytes, although their checksum was correct.
    """
    reader = _Reader(data)
    try:
        while reader.position < len(data):
            kind = data[reader.position]
            if kind not in _DECODERS:
                raise MalformedRecord(f"unknown kind of change {kind} at byte {reader.position} of the batch")
            yield _DECODERS[kind](reader)
    except (struct.error, orjson.JSONDecodeError) as error:
        raise MalformedRecord(f"a change ends or breaks at byte {reader.position} of the batch: {error}") from None


class _Reader:
    """Reads the payload of a batch from beginning to end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        values = form.unpack_from(self.data, self.position)
        self.position += form.size
        return values

    def take(self, size: int) -> bytes:
        taken = self.data[self.position : self.position + size]
        if len(taken) != size:
            raise MalformedRecord(f"a change is cut off at byte {self.position} of the batch")
        self.position += size
        return taken

    def ends(self, start: int, count: int) -> Sequence[int]:
        lengths = _little_endian(array("I", self.take(4 * count)))
        if count >= MANY:
            return ManyEnds.of_lengths(start, lengths)
        return tuple(accumulate(lengths, initial=start))[1:]

    def check(self, start: int, ends: Sequence[int], size: int) -> None:
        """Check that the messages together are as long as the data, and that none is empty."""
        if (ends[-1] if ends else start) != start + size or 0 in _steps(start, ends):
            raise MalformedRecord(f"message ends and data differ before byte {self.position} of the batch")


def _decode_create(reader: _Reader) -> Create:
    _, stream_id, at, meta_size, count, size = reader.unpack(_CREATE)
    members = orjson.loads(reader.take(meta_size))
    config, fork = members_config(members)
    name, closed = member(members, "name", str), member(members, "closed", bool)
    start = 0 if fork is None else fork.position
    ends = reader.ends(start, count)
    reader.check(start, ends, size)
    return Create(stream_id, name, config, fork, reader.take(size), ends, closed, at)


def _decode_append(reader: _Reader) -> Append:
    _, flags, stream_id, start, at, count, size = reader.unpack(_APPEND)
    producer = stream_seq = None
    if flags & _HAS_PRODUCER:
        id_size, epoch, seq = reader.unpack(_PRODUCER)
        producer = Producer(reader.take(id_size).decode("latin-1"), epoch, seq)
    if flags & _HAS_STREAM_SEQ:
        stream_seq = reader.take(reader.unpack(_SHORT)[0])
    ends = reader.ends(start, count) if count > 1 else (start + size,) * count
    reader.check(start, ends, size)
    data = reader.take(size)
    return Append(stream_id, start, data, ends, producer, stream_seq, bool(flags & _CLOSES), at)


def _decode_delete(reader: _Reader) -> Delete:
    _, at, removed, released = reader.unpack(_DELETE)
    ids = struct.unpack(f"<{removed + released}Q", reader.take(8 * (removed + released)))
    return Delete(ids[:removed], ids[removed:], at)


def _decode_soft_delete(reader: _Reader) -> SoftDelete:
    _, stream_id, at = reader.unpack(_ONE)
    return SoftDelete(stream_id, at)


def _decode_touch(reader: _Reader) -> Touch:
    _, stream_id, at = reader.unpack(_ONE)
    return Touch(stream_id, at)


_DECODERS: dict[int, Callable[[_Reader], Change]] = {
    1: _decode_create,
    2: _decode_append,
    3: _decode_delete,
    4: _decode_soft_delete,
    5: _decode_touch,
}


def _lengths(start: int, ends: Sequence[int]) -> bytes:
    if isinstance(ends, ManyEnds):
        # A view, because 25 million lengths are 100 MB. Whatever takes the piece takes any buffer.
        return cast("bytes", memoryview(_little_endian(ends.lengths)).cast("B"))
    return struct.pack(f"<{len(ends)}I", *(end - begin for begin, end in zip((start, *ends), ends, strict=False)))


def _steps(start: int, ends: Sequence[int]) -> Iterable[int]:
    """Return the lengths of messages."""
    return ends.lengths if isinstance(ends, ManyEnds) else map(sub, ends, (start, *ends))


def _little_endian(numbers: array[int]) -> array[int]:
    """Convert numbers between the byte orders of this machine and of the file."""
    if sys.byteorder == "little":
        return numbers
    swapped = numbers[:]
    swapped.byteswap()
    return swapped
