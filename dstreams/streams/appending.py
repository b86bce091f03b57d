"""Append and close: validates a POST and converts it to a change (PROTOCOL 5.2, 5.2.1, 5.3).

The checks that need only the request's head come before those that need the body. So an early response, sent while
the body is still arriving, is the response that the complete request would get.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

from attrs import define, field

from dstreams.model.changes import Append, StreamConfig
from dstreams.model.ends import MANY, ManyEnds
from dstreams.model.state import StreamState
from dstreams.protocol import producers
from dstreams.protocol.content_types import media_type
from dstreams.protocol.json_mode import split_messages
from dstreams.protocol.json_slices import Messages
from dstreams.protocol.offsets import format_offset
from dstreams.protocol.positions import position_lines
from dstreams.protocol.problems import (
    BadRequest,
    ContentTypeMismatch,
    EmptyArray,
    EmptyBody,
    SequenceConflict,
    StreamClosed,
    TooManyProducers,
    printable,
)
from dstreams.protocol.producers import Producer

SPLIT_AT_ONCE_BYTES: Final = 64 * 1024
"""Maximum bytes of a JSON body that is checked and split in one step: 2 ms for ordinary messages, 6 ms at worst."""


@define(eq=False)
class AppendRequest:
    """An append as requested by its head. It is never modified, and shared by all requests with the same head.

    :param content_type: the header as sent, or ``None`` if absent.
    :param closes: whether the request closes the stream.
    """

    content_type: bytes | None
    closes: bool
    producer: Producer | None
    stream_seq: bytes | None
    media_type: str | None = field(init=False)
    """The media type in ``content_type``; ``None`` if the header is absent or malformed."""

    @media_type.default
    def _read_media_type(self) -> str | None:
        try:
            return None if self.content_type is None else media_type(self.content_type)
        except BadRequest:
            return None

    def numbered(self, seq: int) -> AppendRequest:
        """Return a copy of a producer's request with another sequence number."""
        producer = self.producer
        assert producer is not None
        return AppendRequest(
            self.content_type, self.closes, Producer(producer.id, producer.epoch, seq), self.stream_seq
        )


@define(eq=False)
class Appended:
    """The result of an accepted or repeated append.

    :param tail: the stream's tail.
    :param closed: whether the stream is closed now.
    :param producer: the producer's id, epoch and highest accepted sequence number, if a producer sent the request.
    :param stored: whether new bytes were stored; ``False`` for a duplicate and for a close without data.
    """

    tail: int
    closed: bool
    producer: Producer | None
    stored: bool


def validate_head(
    state: StreamState, request: AppendRequest, length: int | None, most_producers: int
) -> Appended | None:
    """Validate an append by its head.

    :param length: the body's length in bytes, or ``None`` while it is unknown.
    :param most_producers: the maximum number of producers of the stream.
    :return: the result for a duplicate; ``None`` if the append may proceed, or cannot be decided without the body.
    :raise ProtocolError: if it is rejected.
    """
    if state.closed:
        return _judge_on_closed(state, request, length)
    if length != 0 and request.media_type != state.config.content_type.media_type:
        if length is None:
            return None  # an empty body is never rejected because of its type (PROTOCOL 5.2)
        _refuse_type(state, request)
    producer = request.producer
    if producer is not None:
        last = state.producer(producer.id)
        if last is None:
            _check_new_producer(state, producer, most_producers)
        elif not producers.check(producer, last):
            return _repeat(state, request, length, Producer(producer.id, *last))
    if request.stream_seq is not None and state.stream_seq is not None:
        _check_stream_seq(request.stream_seq, state.stream_seq, request, length)
    return None


def plan(
    state: StreamState,
    request: AppendRequest,
    body: bytes,
    at: float,
    most_producers: int,
    messages: Messages | None = None,
) -> Append | Appended:
    """Validate a complete request and convert it to a change.

    :param at: the time, in Unix seconds.
    :param most_producers: the maximum number of producers of the stream.
    :param messages: the messages of a large body that has been split already; without it the body is split here.
    :return: the change to commit, or the result if nothing changes.
    :raise ProtocolError: if it is rejected.
    """
    answer = validate_head(state, request, len(body), most_producers)
    if answer is not None:
        return answer
    start, closes = state.tail, request.closes
    if body:
        if state.config.content_type.is_json:
            data, ends = stored_messages(state.config, body, start, messages)
            if not ends and not closes:
                raise EmptyArray("An empty JSON array contains no message to append")
        else:
            data, ends = body, (start + len(body),)
    elif closes:
        data, ends = b"", ()
    else:
        raise EmptyBody
    stream_seq = request.stream_seq if ends else None
    return Append(state.id, start, data, ends, request.producer, stream_seq, closes, at)


def stored_messages(
    config: StreamConfig, body: bytes, start: int, messages: Messages | None = None
) -> tuple[bytes, Sequence[int]]:
    """Return a body as it is stored, and the absolute ends of its messages.

    :param start: the position at which it will be stored.
    :param messages: the messages of a large JSON body that has been split already.
    :raise InvalidJson: if the body must be JSON but is not.
    """
    if not config.content_type.is_json:
        return body, (start + len(body),) if body else ()
    if messages is not None:
        if len(messages.ends) < MANY:
            return messages.data, tuple([start + end for end in messages.ends])
        return messages.data, ManyEnds(start, messages.ends, messages.lengths)
    data, ends = split_messages(body)
    if start and len(ends) == 1:
        return data, (start + ends[0],)
    return data, tuple([start + end for end in ends]) if start else ends


def _repeat(state: StreamState, request: AppendRequest, length: int | None, last: Producer) -> Appended | None:
    """Acknowledge a duplicate.

    :return: ``None`` while it is unknown whether the body is empty.
    :raise EmptyBody: if the body is empty and the request does not close the stream.
    """
    if not request.closes and not length:
        if length is None:
            return None
        raise EmptyBody
    return Appended(state.tail, False, last, False)


def _judge_on_closed(state: StreamState, request: AppendRequest, length: int | None) -> Appended | None:
    """Reject an append to a closed stream, but acknowledge a repeated close again (PROTOCOL 5.2, 5.2.1)."""
    producer = request.producer
    if producer is not None:
        if producer == state.closed_by:
            return Appended(state.tail, True, producer, False)
        last = state.producer(producer.id)
        if last is not None and producer.epoch < last[0]:
            raise producers.fenced(producer.epoch, last[0])
    elif request.closes:
        if length is None:
            return None
        if length == 0:
            return Appended(state.tail, True, None, False)
    raise StreamClosed(
        f"The stream was closed at {format_offset(state.tail).decode()}",
        position_lines(state.tail, closed=True),
    )


def _refuse_type(state: StreamState, request: AppendRequest) -> NoReturn:
    if request.content_type is None:
        raise BadRequest("Content-Type is required when there is a body")
    given = media_type(request.content_type)
    raise ContentTypeMismatch(f"The stream's type is {state.config.content_type.media_type}, not {given}")


def _check_new_producer(state: StreamState, producer: Producer, most: int) -> None:
    """Check the first request of a producer.

    :raise TooManyProducers: if the stream already has the maximum number of producers.
    """
    producers.check_first(producer)
    known = len(state.producers or ()) + len(state.base_producers or ())
    # This counts producers that are in both dictionaries twice; producer_count() is exact but slower.
    if known >= most and state.producer_count() >= most:
        raise TooManyProducers(
            f"The stream has {state.producer_count()} producers; limits.max_producers allows {most}."
            " Use one of them, or another stream"
        )


def _check_stream_seq(stream_seq: bytes, last: bytes, request: AppendRequest, length: int | None) -> None:
    if stream_seq > last:
        return
    if request.closes and not length:
        return  # a close without a body has no sequence
    raise SequenceConflict(
        f"Stream-Seq {printable(stream_seq)} is not greater than the last accepted, {printable(last)}"
    )
