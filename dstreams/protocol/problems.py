"""The errors a client can get: one class per failure, and the document that describes it.

Every class carries the HTTP status and the stable ``code`` that clients may branch on. ``detail`` is one
sentence for the client's developer and is public: paths, operating system errors and other private causes
belong to the log, never here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import orjson

_MAX_ECHO: Final = 80
"""The number of characters of a refused value that are repeated in a detail: enough to recognise it."""


def printable(raw: bytes | str) -> str:
    """Make a refused value safe to repeat in a detail.

    :param raw: what the client sent.
    :return: the value in single quotes, everything but printable ASCII escaped, shortened when it is long.
    """
    text = raw.decode("latin-1") if isinstance(raw, bytes) else raw
    shown = ascii(text[:_MAX_ECHO])
    return shown if len(text) <= _MAX_ECHO else f"{shown}... ({len(text)} characters)"


class ProtocolError(Exception):
    """A request that can't be served, as the client will see it; the root of the vocabulary.

    :param detail: what was wrong with this very request, or ``None`` to say what the class says.
    :param headers: header lines to add to the response, each ended by CRLF.
    """

    status: ClassVar[int]
    """The HTTP status code."""
    code: ClassVar[str]
    """The stable, upper-case name that programs compare."""
    slug: ClassVar[str]
    """The last part of the problem type's URI."""
    title: ClassVar[str]
    """The summary for people, the same for every occurrence."""
    default_detail: ClassVar[str | None] = None
    """The detail of an error raised without one."""

    def __init_subclass__(cls, *, status: int, code: str, slug: str, title: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.status, cls.code, cls.slug, cls.title = status, code, slug, title

    def __init__(self, detail: str | None = None, headers: bytes = b"") -> None:
        super().__init__(detail)
        self.detail = self.default_detail if detail is None else detail
        self.headers = headers

    def __str__(self) -> str:
        return self.title if self.detail is None else f"{self.title}: {self.detail}"


class BadRequest(ProtocolError, status=400, code="BAD_REQUEST", slug="bad-request", title="Bad Request"):
    """A header, a parameter or the message itself is wrong."""


class InvalidOffset(ProtocolError, status=400, code="INVALID_OFFSET", slug="invalid-offset", title="Invalid Offset"):
    """An offset this server never gave out for the stream."""


class InvalidStreamName(
    ProtocolError,
    status=400,
    code="INVALID_STREAM_NAME",
    slug="invalid-stream-name",
    title="Invalid Stream Name",
):
    """A path that can't be a stream's name."""


class InvalidJson(ProtocolError, status=400, code="INVALID_JSON", slug="invalid-json", title="Invalid JSON"):
    """A body for a JSON stream that isn't JSON, or is nested too deeply."""


class EmptyBody(ProtocolError, status=400, code="EMPTY_BODY", slug="empty-body", title="Empty Body"):
    """An append without anything to append, and without closing the stream."""

    default_detail = "An append needs a body, unless it closes the stream with Stream-Closed: true."


class EmptyArray(ProtocolError, status=400, code="EMPTY_ARRAY", slug="empty-array", title="Empty Array"):
    """An append of ``[]``, which holds no message (PROTOCOL section 9.1.3)."""

    default_detail = "An empty JSON array holds no message to append."


class ProducerFenced(
    ProtocolError,
    status=403,
    code="PRODUCER_EPOCH_FENCED",
    slug="producer-epoch-fenced",
    title="Producer Epoch Fenced",
):
    """A producer whose epoch a newer one has replaced (PROTOCOL section 5.2.1)."""


class NotFound(ProtocolError, status=404, code="NOT_FOUND", slug="not-found", title="Stream Not Found"):
    """No such stream, or it has expired."""


class MethodNotAllowed(
    ProtocolError,
    status=405,
    code="METHOD_NOT_ALLOWED",
    slug="method-not-allowed",
    title="Method Not Allowed",
):
    """A method the resource doesn't have; ``headers`` should hold ``Allow``."""


class RequestTimeout(
    ProtocolError, status=408, code="REQUEST_TIMEOUT", slug="request-timeout", title="Request Timeout"
):
    """The request didn't arrive in time."""


class AlreadyExists(
    ProtocolError, status=409, code="ALREADY_EXISTS", slug="already-exists", title="Stream Already Exists"
):
    """A stream of this name exists with another configuration."""


class ContentTypeMismatch(
    ProtocolError,
    status=409,
    code="CONTENT_TYPE_MISMATCH",
    slug="content-type-mismatch",
    title="Content Type Mismatch",
):
    """A valid content type that isn't the stream's."""


class StreamClosed(ProtocolError, status=409, code="STREAM_CLOSED", slug="stream-closed", title="Stream Closed"):
    """An append to a closed stream; ``headers`` should hold ``Stream-Closed`` and ``Stream-Next-Offset``."""


class SequenceConflict(
    ProtocolError,
    status=409,
    code="SEQUENCE_CONFLICT",
    slug="sequence-conflict",
    title="Sequence Conflict",
):
    """A producer left a gap, or ``Stream-Seq`` didn't grow."""


class ForkFromTombstone(
    ProtocolError,
    status=409,
    code="FORK_FROM_TOMBSTONE",
    slug="fork-from-tombstone",
    title="Fork From Deleted Stream",
):
    """A fork of a stream that was deleted and is kept only for its existing forks."""


class ForkTooDeep(ProtocolError, status=409, code="FORK_TOO_DEEP", slug="fork-too-deep", title="Fork Too Deep"):
    """A fork of a stream that has as many ancestors as a stream may have."""


class TooManyProducers(
    ProtocolError,
    status=409,
    code="TOO_MANY_PRODUCERS",
    slug="too-many-producers",
    title="Too Many Producers",
):
    """A new producer on a stream that has as many producers as a stream may have; they are never forgotten."""


class PathBlocked(ProtocolError, status=409, code="PATH_BLOCKED", slug="path-blocked", title="Stream Path Blocked"):
    """A create where a deleted stream is still kept for its forks."""


class Gone(ProtocolError, status=410, code="GONE", slug="gone", title="Stream Gone"):
    """Any access to a stream that is kept only for its forks."""


class PayloadTooLarge(
    ProtocolError,
    status=413,
    code="PAYLOAD_TOO_LARGE",
    slug="payload-too-large",
    title="Payload Too Large",
):
    """More bytes than a limit allows."""


class UriTooLong(ProtocolError, status=414, code="URI_TOO_LONG", slug="uri-too-long", title="URI Too Long"):
    """A request line longer than the limit."""


class ExpectationFailed(
    ProtocolError,
    status=417,
    code="EXPECTATION_FAILED",
    slug="expectation-failed",
    title="Expectation Failed",
):
    """An ``Expect`` header other than ``100-continue``."""


class Misdirected(ProtocolError, status=421, code="MISDIRECTED", slug="misdirected", title="Misdirected Request"):
    """A request for a host that this listener doesn't answer for (RFC 9110 section 15.5.20)."""


class HeadersTooLarge(
    ProtocolError,
    status=431,
    code="HEADERS_TOO_LARGE",
    slug="headers-too-large",
    title="Request Header Fields Too Large",
):
    """Too many header fields, or too long ones."""


class InternalError(ProtocolError, status=500, code="INTERNAL_ERROR", slug="internal", title="Internal Server Error"):
    """A fault of ours; what happened is in the log only."""

    default_detail = "The server failed to process this request."


class DataDamaged(ProtocolError, status=500, code="DATA_DAMAGED", slug="data-damaged", title="Stored Data Damaged"):
    """Stored bytes that this request needs fail their checksum; the log says which."""

    default_detail = "What is stored of the stream there is damaged. Other parts of it can still be read."


class NotImplementedByServer(
    ProtocolError, status=501, code="NOT_IMPLEMENTED", slug="not-implemented", title="Not Implemented"
):
    """A method or transfer coding that this server doesn't know."""


class Unavailable(ProtocolError, status=503, code="UNAVAILABLE", slug="unavailable", title="Service Unavailable"):
    """The server can't do this now; adds ``Retry-After: 1``."""

    default_detail = "The server can't process this request at the moment."

    def __init__(self, detail: str | None = None, headers: bytes = b"") -> None:
        super().__init__(detail, headers + b"Retry-After: 1\r\n")


class VersionNotSupported(
    ProtocolError,
    status=505,
    code="VERSION_NOT_SUPPORTED",
    slug="version-not-supported",
    title="HTTP Version Not Supported",
):
    """An HTTP version other than 1.0 and 1.1 where HTTP/1 is spoken."""


class InsufficientStorage(
    ProtocolError,
    status=507,
    code="INSUFFICIENT_STORAGE",
    slug="insufficient-storage",
    title="Insufficient Storage",
):
    """The disk is full, or a quota is used up."""

    default_detail = "The server has no room left to store this."


class TooManyStreams(
    ProtocolError,
    status=507,
    code="TOO_MANY_STREAMS",
    slug="too-many-streams",
    title="Too Many Streams",
):
    """A create where there are as many streams as there may be."""


BY_STATUS: Final[dict[int, type[ProtocolError]]] = {
    error.status: error
    for error in (
        BadRequest,
        RequestTimeout,
        PayloadTooLarge,
        UriTooLong,
        ExpectationFailed,
        HeadersTooLarge,
        InternalError,
        NotImplementedByServer,
        Unavailable,
        VersionNotSupported,
    )
}
"""What a transport raises by status alone."""


def render(error: ProtocolError, instance: str) -> bytes:
    """Describe an error as ``application/problem+json`` (RFC 9457).

    :param error: the error.
    :param instance: the path and query of the request as sent, never the scheme or host; empty when unknown.
    :return: the document: type, title, status, code, then detail and instance when there are any.
    """
    members: dict[str, str | int] = {
        "type": "/errors/" + error.slug,
        "title": error.title,
        "status": error.status,
        "code": error.code,
    }
    if error.detail is not None:
        members["detail"] = error.detail
    if instance:
        members["instance"] = instance
    try:
        return orjson.dumps(members)
    except TypeError:
        # A lone surrogate in what was echoed: an error report must not become an error itself.
        return orjson.dumps({name: _encodable(value) for name, value in members.items()})


def _encodable(value: str | int) -> str | int:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
