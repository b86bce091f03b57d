"""Create and fork: validates a PUT and converts it to a change (PROTOCOL 5.1, 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, frozen
from twisted.internet.defer import Deferred

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Create, ForkPoint, StreamConfig
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import DEFAULT, ContentType
from dstreams.protocol.json_slices import Messages
from dstreams.protocol.offsets import format_offset
from dstreams.protocol.problems import AlreadyExists, BadRequest, ContentTypeMismatch, ForkTooDeep, PathBlocked
from dstreams.runtime.pending import then
from dstreams.streams import reading
from dstreams.streams.appending import stored_messages
from dstreams.streams.reading import Piece


@frozen
class ForkRequest:
    """The fork headers of a PUT.

    :param source: the source's name.
    :param anchor: ``Stream-Fork-Offset``, or ``None`` for the source's tail.
    :param sub_offset: bytes, or messages in JSON mode, to inherit beyond the anchor.
    """

    source: str
    anchor: int | None
    sub_offset: int


@define(eq=False)
class CreateRequest:
    """The content of a PUT.

    :param content_type: ``None`` if the header is absent.
    :param ttl: seconds.
    :param expires_at: Unix seconds.
    :param length: the body's length in bytes, or ``None`` while it is unknown.
    :param body: the body, or ``None`` while it is arriving.
    """

    name: str
    content_type: ContentType | None
    ttl: int | None
    expires_at: float | None
    closed: bool
    fork: ForkRequest | None
    length: int | None
    body: bytes | None


@define(eq=False)
class Created:
    """The stream after the PUT.

    :param fresh: whether the PUT created it; ``False`` if it existed.
    """

    name: str
    content_type: ContentType
    tail: int
    closed: bool
    fresh: bool


def match_existing(state: StreamState, request: CreateRequest) -> Created:
    """Return the result of a PUT for a name that is in use.

    :return: the existing stream, if it has the requested configuration.
    :raise AlreadyExists: if it has another configuration.
    :raise PathBlocked: if it was deleted but is kept for its forks.
    """
    if state.soft_deleted:
        raise PathBlocked("The name belongs to a deleted stream that has forks")
    difference = _difference(state, request)
    if difference is not None:
        raise AlreadyExists(f"The stream exists with {difference}")
    return Created(state.name, state.config.content_type, state.tail, state.closed, False)


def _difference(state: StreamState, request: CreateRequest) -> str | None:
    """Return how an existing stream differs from the requested one, or ``None`` if it does not."""
    fork = request.fork
    asked_type = request.content_type or (DEFAULT if fork is None else None)
    if asked_type is not None and asked_type.media_type != state.config.content_type.media_type:
        return f"another content type: {state.config.content_type.media_type}"
    if request.closed != state.closed:
        return "another closure status: it is " + ("closed" if state.closed else "open")
    if (fork is None) != (state.fork is None):
        return "another origin: it is " + ("a fork" if state.fork else "not a fork")
    inherits = request.ttl is None and request.expires_at is None
    if fork is not None and state.fork is not None:
        asked = ForkPoint(0, fork.source, 0, fork.anchor, fork.sub_offset, inherits)
        if not state.fork.same_request(asked):
            return "another fork point or expiry"
        if inherits:
            return None
    if request.ttl != state.config.ttl:
        return "another Stream-TTL"
    if request.expires_at != state.config.expires_at:
        return "another Stream-Expires-At"
    return None


def check_fork_type(source: StreamState, request: CreateRequest) -> None:
    """Check that the requested content type, if any, is that of the fork's source.

    :raise ContentTypeMismatch: if it is another one.
    """
    asked, has = request.content_type, source.config.content_type
    if asked is not None and asked.media_type != has.media_type:
        raise ContentTypeMismatch(f"The source's type is {has.media_type}, not {asked.media_type}")


def check_fork_depth(catalog: Catalog, source: StreamState, most: int) -> None:
    """Check how many ancestors a new fork would have. Existing forks with more ancestors are still served.

    :param most: the maximum number of ancestors, including the source.
    :raise ForkTooDeep: if it would have more.
    """
    ancestor: StreamState | None = source
    for _ in range(most):
        assert ancestor is not None, "a fork keeps its source"
        if ancestor.fork is None:
            return
        ancestor = catalog.get(ancestor.fork.source_id)
    raise ForkTooDeep(f"The source is already {most} forks deep; fork one of its ancestors instead")


def fork_point(source: StreamState, pieces: Sequence[Piece], request: CreateRequest) -> ForkPoint | Deferred[ForkPoint]:
    """Return the point at which a fork branches off from its source.

    :param source: the source as readers see it.
    :param pieces: the source's bytes.
    :raise BadRequest: (or the Deferred fails with it) if the source has no such point.
    """
    fork = request.fork
    assert fork is not None
    anchor = source.tail if fork.anchor is None else fork.anchor
    if anchor > source.tail:
        tail = format_offset(source.tail).decode()
        raise BadRequest(f"Stream-Fork-Offset lies beyond the source's tail {tail}")
    inherits = request.ttl is None and request.expires_at is None

    def at(position: int) -> ForkPoint:
        return ForkPoint(source.id, source.name, position, fork.anchor, fork.sub_offset, inherits)

    def refine(on_boundary: bool) -> ForkPoint | Deferred[ForkPoint]:
        if not on_boundary:
            raise BadRequest("Stream-Fork-Offset lies inside a message of the source")
        if not fork.sub_offset:
            return at(anchor)
        return then(reading.append_ends(pieces, anchor), lambda ends: at(_sub_position(source, anchor, ends, fork)))

    if anchor == source.tail or not source.config.content_type.is_json:
        return refine(True)
    return then(reading.floor(pieces, anchor), lambda found: refine(found == anchor))


def _sub_position(source: StreamState, anchor: int, ends: Sequence[int], fork: ForkRequest) -> int:
    """Return the position that ``Stream-Fork-Sub-Offset`` specifies beyond the anchor.

    :param ends: the message ends after the anchor, up to the next data boundary.
    """
    if source.config.content_type.is_json:
        if fork.sub_offset <= len(ends):
            return ends[fork.sub_offset - 1]
    elif ends and anchor + fork.sub_offset <= ends[-1]:
        return anchor + fork.sub_offset
    raise BadRequest(f"Stream-Fork-Sub-Offset {fork.sub_offset} goes past the next data boundary")


def content_type_of(request: CreateRequest, source: StreamState | None) -> ContentType:
    """Return the content type of a new stream, or of a fork of ``source``."""
    return request.content_type or DEFAULT if source is None else source.config.content_type


def plan(
    request: CreateRequest,
    stream_id: int,
    source: StreamState | None,
    fork: ForkPoint | None,
    at: float,
    messages: Messages | None = None,
) -> Create:
    """Return the change that creates the stream.

    :param source: the fork's source, or ``None`` if the stream is not a fork.
    :param fork: where the fork branches off, or ``None`` if the stream is not a fork.
    :param messages: the messages of a large JSON body that has been split already; without it the body is split here.
    :raise InvalidJson: if the initial body must be JSON but is not.
    """
    ttl, expires_at = request.ttl, request.expires_at
    if source is not None and ttl is None and expires_at is None:
        ttl, expires_at = source.config.ttl, source.config.expires_at
    config = StreamConfig(content_type_of(request, source), ttl, expires_at)
    start = 0 if fork is None else fork.position
    data, ends = stored_messages(config, request.body, start, messages) if request.body else (b"", ())
    return Create(stream_id, request.name, config, fork, data, ends, request.closed, at)
