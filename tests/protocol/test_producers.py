"""Idempotent producers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.protocol.headers import MAX_INTEGER
from dstreams.protocol.problems import BadRequest, ProducerFenced, SequenceConflict
from dstreams.protocol.producers import MAX_ID_BYTES, Producer, check, check_first, pack, parse_producer, unpack

ALL = {b"producer-id": b"p", b"producer-epoch": b"2", b"producer-seq": b"7"}


class ParseTests:
    """The three headers."""

    def test_all_three(self) -> None:
        """The headers become one value."""
        assert parse_producer(ALL) == Producer("p", 2, 7)

    def test_none(self) -> None:
        """A request without any of them has no producer."""
        assert parse_producer({b"content-type": b"text/plain"}) is None

    @pytest.mark.parametrize("present", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
    def test_only_some_is_refused(self, present: tuple[int, ...]) -> None:
        """Every proper subset of the headers is a bad request."""
        names = list(ALL)
        with pytest.raises(BadRequest, match="must be sent together"):
            parse_producer({names[index]: ALL[names[index]] for index in present})

    @pytest.mark.parametrize(
        ("name", "value", "detail"),
        [
            (b"producer-id", b"", "Invalid header value for Producer-Id: it is empty."),
            (
                b"producer-id",
                b"x" * (MAX_ID_BYTES + 1),
                "Invalid header value for Producer-Id: it has 513 bytes; at most 512 are allowed.",
            ),
            (b"producer-epoch", b"1.5", "Invalid header value for Producer-Epoch: '1.5'"),
            (b"producer-epoch", b"-1", "Invalid header value for Producer-Epoch: '-1'"),
            (b"producer-seq", b"1e3", "Invalid header value for Producer-Seq: '1e3'"),
            (b"producer-seq", b"+1", "Invalid header value for Producer-Seq: '+1'"),
            (b"producer-seq", b"", "Invalid header value for Producer-Seq: ''"),
        ],
    )
    def test_invalid_values_are_refused(self, name: bytes, value: bytes, detail: str) -> None:
        """A bad value is a bad request that names its header."""
        with pytest.raises(BadRequest) as caught:
            parse_producer({**ALL, name: value})
        assert (caught.value.detail or "").startswith(detail)

    @given(st.binary(min_size=1, max_size=MAX_ID_BYTES))
    def test_ids_keep_their_bytes(self, name: bytes) -> None:
        """Different ids on the wire stay different, whatever their encoding."""
        producer = parse_producer({**ALL, b"producer-id": name})
        assert producer is not None
        assert producer.id.encode("latin-1") == name


class CheckTests:
    """The decision of PROTOCOL section 5.2.1."""

    @pytest.mark.parametrize(
        ("epoch", "seq", "last", "accepted"),
        [
            (0, 0, (0, 0), False),
            (0, 1, (0, 0), True),
            (0, 3, (0, 7), False),
            (0, 7, (0, 7), False),
            (0, 8, (0, 7), True),
            (1, 0, (0, 7), True),
            (9, 0, (0, 7), True),
        ],
    )
    def test_accepts_or_recognises(self, epoch: int, seq: int, last: tuple[int, int], accepted: bool) -> None:
        """The next batch and a new epoch are accepted; a batch sent again is a duplicate."""
        assert check(Producer("p", epoch, seq), last) is accepted

    @pytest.mark.parametrize(
        ("epoch", "seq", "last", "expected"),
        [(0, 2, (0, 0), 1), (4, 100, (4, 7), 8)],
    )
    def test_gap(self, epoch: int, seq: int, last: tuple[int, int], expected: int) -> None:
        """A missing batch is a conflict whose headers say what was expected and received."""
        with pytest.raises(SequenceConflict) as caught:
            check(Producer("p", epoch, seq), last)
        assert caught.value.headers == (b"Producer-Expected-Seq: %d\r\nProducer-Received-Seq: %d\r\n" % (expected, seq))

    def test_first(self) -> None:
        """An unknown producer begins with any epoch, and with sequence number 0."""
        check_first(Producer("p", 5, 0))
        with pytest.raises(SequenceConflict) as caught:
            check_first(Producer("p", 3, 9))
        assert caught.value.headers == b"Producer-Expected-Seq: 0\r\nProducer-Received-Seq: 9\r\n"

    @pytest.mark.parametrize("seq", [0, 7, 8, 100])
    def test_stale_epoch(self, seq: int) -> None:
        """A replaced epoch is fenced whatever its sequence number, and learns the current epoch."""
        with pytest.raises(ProducerFenced) as caught:
            check(Producer("p", 1, seq), (2, 7))
        assert caught.value.headers == b"Producer-Epoch: 2\r\n"

    def test_new_epoch_starts_at_zero(self) -> None:
        """A new epoch that begins with another number is a bad request."""
        with pytest.raises(BadRequest, match="must begin with Producer-Seq 0, not 8"):
            check(Producer("p", 3, 8), (2, 7))

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=60))
    def test_each_batch_is_accepted_once_and_in_order(self, arrivals: list[tuple[int, int]]) -> None:
        """Whatever arrives, accepted batches never repeat, and are gapless within ever newer epochs."""
        last: tuple[int, int] | None = None
        accepted: list[tuple[int, int]] = []
        for epoch, seq in arrivals:
            try:
                if last is None:
                    check_first(Producer("p", epoch, seq))
                if last is None or check(Producer("p", epoch, seq), last):
                    accepted.append((epoch, seq))
                    last = (epoch, seq)
                else:
                    assert (epoch, seq) in accepted
            except (BadRequest, ProducerFenced, SequenceConflict):
                continue
        assert accepted == sorted(set(accepted))
        for (epoch, seq), (next_epoch, next_seq) in pairwise(accepted):
            assert next_seq == (seq + 1 if next_epoch == epoch else 0)


class PackTests:
    """A producer's state as one integer."""

    @given(st.integers(0, MAX_INTEGER), st.integers(0, MAX_INTEGER))
    def test_there_and_back(self, epoch: int, seq: int) -> None:
        """Any epoch and sequence number come back."""
        assert unpack(pack(epoch, seq)) == (epoch, seq)

    def test_order(self) -> None:
        """A newer epoch or a later sequence number is a larger integer."""
        assert sorted([pack(1, 0), pack(0, MAX_INTEGER), pack(0, 1)]) == [pack(0, 1), pack(0, MAX_INTEGER), pack(1, 0)]
