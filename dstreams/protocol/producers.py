"""Idempotent producers: each append is stored once, even if it is sent repeatedly (PROTOCOL section 5.2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import define

from dstreams.protocol.headers import (
    MAX_INTEGER,
    PRODUCER_EPOCH,
    PRODUCER_EPOCH_KEY,
    PRODUCER_EXPECTED_SEQ,
    PRODUCER_ID_KEY,
    PRODUCER_RECEIVED_SEQ,
    PRODUCER_SEQ,
    PRODUCER_SEQ_KEY,
    parse_integer,
)
from dstreams.protocol.problems import BadRequest, ProducerFenced, SequenceConflict

_EPOCH_LINE: Final = PRODUCER_EPOCH + b": %d\r\n"
ACCEPTED_LINES: Final = _EPOCH_LINE + PRODUCER_SEQ + b": %d\r\n"
"""The header lines that acknowledge a batch, for its epoch and sequence number."""

_GAP_LINES: Final = PRODUCER_EXPECTED_SEQ + b": %d\r\n" + PRODUCER_RECEIVED_SEQ + b": %d\r\n"

MAX_ID_BYTES: Final = 512
"""Maximum length of a producer id in bytes. Ids are kept for each stream as long as it exists."""


@define
class Producer:
    """The producer headers of one append.

    :param id: the producer's stable name; the bytes of the header as Latin-1 characters.
    :param epoch: the number of the producer's session.
    :param seq: the sequence number of the append in this session.
    """

    id: str
    epoch: int
    seq: int


def parse_producer(headers: Mapping[bytes, bytes]) -> Producer | None:
    """Parse the producer headers of a request.

    :param headers: the request's headers by lower-case name.
    :return: the producer, or ``None`` if the request has none of the three headers.
    :raises BadRequest: if only some of them are present, or one is invalid.
    """
    name = headers.get(PRODUCER_ID_KEY)
    epoch = headers.get(PRODUCER_EPOCH_KEY)
    seq = headers.get(PRODUCER_SEQ_KEY)
    if name is None or epoch is None or seq is None:
        if name is None and epoch is None and seq is None:
            return None
        raise BadRequest("Producer-Id, Producer-Epoch and Producer-Seq must be sent together.")
    if not name:
        raise BadRequest("Invalid header value for Producer-Id: it is empty.")
    if len(name) > MAX_ID_BYTES:
        raise BadRequest(
            f"Invalid header value for Producer-Id: it has {len(name)} bytes; at most {MAX_ID_BYTES} are allowed."
        )
    return Producer(name.decode("latin-1"), parse_integer(PRODUCER_EPOCH, epoch), parse_integer(PRODUCER_SEQ, seq))


SEQ_BITS: Final = 53
"""Number of bits for a sequence number, which is at most :data:`MAX_INTEGER`."""


def pack(epoch: int, seq: int) -> int:
    """Return a producer's last epoch and sequence number as one integer.

    A stream may have a million producers. Python's garbage collector ignores a dictionary of integers, but traverses a
    dictionary of tuples again and again.
    """
    return epoch << SEQ_BITS | seq


def unpack(packed: int) -> tuple[int, int]:
    """Return the epoch and the sequence number that :func:`pack` has packed."""
    return packed >> SEQ_BITS, packed & MAX_INTEGER


def check_first(producer: Producer) -> None:
    """Check the append of a producer that is new to the stream: any epoch is allowed, but its sequence starts at 0.

    :raises SequenceConflict: if appends before this one are missing.
    """
    if producer.seq != 0:
        raise _gap(0, producer.seq)


def check(producer: Producer, last: tuple[int, int]) -> bool:
    """Check the append of a producer that has appended to the stream before.

    :param producer: the producer headers of the request.
    :param last: the epoch and the last sequence number accepted from this producer on this stream.
    :return: ``True`` to accept the append, ``False`` for a duplicate that is already stored.
    :raises ProducerFenced: if the epoch has been replaced by a newer one.
    :raises BadRequest: if a new epoch does not start at sequence 0.
    :raises SequenceConflict: if appends before this one are missing.
    """
    seq = producer.seq
    last_epoch, last_seq = last
    epoch = producer.epoch
    if epoch == last_epoch:
        if seq <= last_seq:
            return False
        if seq == last_seq + 1:
            return True
        raise _gap(last_seq + 1, seq)
    if epoch < last_epoch:
        raise fenced(epoch, last_epoch)
    if seq != 0:
        raise BadRequest(f"A new producer epoch must begin with Producer-Seq 0, not {seq}.")
    return True


def fenced(epoch: int, last_epoch: int) -> ProducerFenced:
    """Return the error for a batch whose epoch is older than the producer's last one (PROTOCOL 5.2.1)."""
    return ProducerFenced(
        f"The producer's epoch {epoch} has been replaced by epoch {last_epoch}.", _EPOCH_LINE % last_epoch
    )


def _gap(expected: int, received: int) -> SequenceConflict:
    return SequenceConflict(
        f"Expected Producer-Seq {expected}, received {received}.",
        _GAP_LINES % (expected, received),
    )
