"""The errors that a client can get: one class per kind of error, and the document that describes it.

Every class has the HTTP status and a stable ``code`` on which clients may branch. ``detail`` is one sentence for the
client's developer. It is public: paths, operating system errors and other private causes are only logged.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import orjson

_MAX_ECHO: Final = 80
"""Maximum number of characters of a rejected value that are repeated in a detail: enough to recognise it."""


def printable(raw: bytes | str) -> str:
    """Return a rejected value in a form that is safe to repeat in a detail.

    :param raw: the value that the client sent.
    :return: the value in single quotes, with everything but printable ASCII escaped, and shortened if it is long.
    """
    text = raw.decode("latin-1") if isinstance(raw, bytes) else raw
    shown = ascii(text[:_MAX_ECHO])
    return shown if len(text) <= _MAX_ECHO else f"{shown}... ({len(text)} characters)"


class ProtocolError(Exception):
    """The base class of all errors that are reported to clients.

    :param detail: what is wrong with this request, or ``None`` for the default of the class.
    :param headers: header lines to add to the response, each ended by CRLF.
    """

    status: ClassVar[int]
    """The HTTP status code."""
    code: ClassVar[str]
    """The stable, upper-case name for programs to compare."""
    slug: ClassVar[str]
    """The last part of the problem type's URI."""
    title: ClassVar[str]
    """The summary for people, the same for every occurrence."""
    default_detail: ClassVar[str | None] = None
    """The detail of an error that is raised without one."""

    def __init_subclass__(
        cls, *, status: int, code: str, slug: str | None = None, title: str | None = None, **kwargs: Any
    ) -> None:
        """Set the class's attributes; slug and title are derived from the code if they are not given."""
        super().__init_subclass__(**kwargs)
        cls.status, cls.code = status, code
        cls.slug = code.lower().replace("_", "-") if slug is None else slug
        cls.title = code.replace("_", " ").title() if title is None else title

    def __init__(self, detail: str | None = None, headers: bytes = b"") -> None:
        super().__init__(detail)
        self.detail = self.default_detail if detail is None else detail
        self.headers = headers

    def __str__(self) -> str:
        return self.title if self.detail is None else f"{self.title}: {self.detail}"


class BadRequest(ProtocolError, status=400, code="BAD_REQUEST"):
    """A header, a parameter or the message itself is invalid."""


class InvalidOffset(ProtocolError, status=400, code="INVALID_OFFSET"):
    """An offset that this server never sent for the stream."""


class InvalidStreamName(ProtocolError, status=400, code="INVALID_STREAM_NAME"):
    """A path that is not a valid stream name."""


class InvalidJson(ProtocolError, status=400, code="INVALID_JSON", title="Invalid JSON"):
    """A body for a JSON stream that is not JSON, or is nested too deeply."""


class EmptyBody(ProtocolError, status=400, code="EMPTY_BODY"):
    """An append with an empty body that does not close the stream."""

    default_detail = "An append needs a body, unless it closes the stream with Stream-Closed: true."


class EmptyArray(ProtocolError, status=400, code="EMPTY_ARRAY"):
    """An append of ``[]``, which contains no message (PROTOCOL section 9.1.3)."""

    default_detail = "An empty JSON array holds no message to append."


class ProducerFenced(ProtocolError, status=403, code="PRODUCER_EPOCH_FENCED"):
    """A producer whose epoch has been replaced by a newer one (PROTOCOL section 5.2.1)."""


class NotFound(ProtocolError, status=404, code="NOT_FOUND", title="Stream Not Found"):
    """The stream does not exist or has expired."""


class MethodNotAllowed(ProtocolError, status=405, code="METHOD_NOT_ALLOWED"):
    """A method that the resource does not support; ``headers`` should contain ``Allow``."""


class RequestTimeout(ProtocolError, status=408, code="REQUEST_TIMEOUT"):
    """The request did not arrive before its deadline."""


class AlreadyExists(ProtocolError, status=409, code="ALREADY_EXISTS", title="Stream Already Exists"):
    """A stream of this name exists with another configuration."""


class ContentTypeMismatch(ProtocolError, status=409, code="CONTENT_TYPE_MISMATCH"):
    """A valid content type other than the stream's."""


class StreamClosed(ProtocolError, status=409, code="STREAM_CLOSED"):
    """An append to a closed stream; ``headers`` should contain ``Stream-Closed`` and ``Stream-Next-Offset``."""


class SequenceConflict(ProtocolError, status=409, code="SEQUENCE_CONFLICT"):
    """A producer's sequence has a gap, or ``Stream-Seq`` has not increased."""


class ForkFromTombstone(ProtocolError, status=409, code="FORK_FROM_TOMBSTONE", title="Fork From Deleted Stream"):
    """A fork of a stream that was deleted and is kept only for its existing forks."""


class ForkTooDeep(ProtocolError, status=409, code="FORK_TOO_DEEP"):
    """A fork of a stream that already has the maximum number of ancestors."""


class TooManyProducers(ProtocolError, status=409, code="TOO_MANY_PRODUCERS"):
    """A new producer on a stream that already has the maximum number of producers; producers are never removed."""


class PathBlocked(ProtocolError, status=409, code="PATH_BLOCKED", title="Stream Path Blocked"):
    """A create under the name of a deleted stream that is kept for its forks."""


class Gone(ProtocolError, status=410, code="GONE", title="Stream Gone"):
    """An access to a stream that is kept only for its forks."""


class PayloadTooLarge(ProtocolError, status=413, code="PAYLOAD_TOO_LARGE"):
    """More bytes than a limit allows."""


class UriTooLong(ProtocolError, status=414, code="URI_TOO_LONG", title="URI Too Long"):
    """A request line longer than the limit."""


class ExpectationFailed(ProtocolError, status=417, code="EXPECTATION_FAILED"):
    """An ``Expect`` header other than ``100-continue``."""


class Misdirected(ProtocolError, status=421, code="MISDIRECTED", title="Misdirected Request"):
    """A request for a host that this listener does not serve (RFC 9110 section 15.5.20)."""


class HeadersTooLarge(ProtocolError, status=431, code="HEADERS_TOO_LARGE", title="Request Header Fields Too Large"):
    """Too many header fields, or too long ones."""


class InternalError(ProtocolError, status=500, code="INTERNAL_ERROR", slug="internal", title="Internal Server Error"):
    """An unexpected error in the server; its cause is only logged."""

    default_detail = "The server failed to process this request."


class DataDamaged(ProtocolError, status=500, code="DATA_DAMAGED", title="Stored Data Damaged"):
    """Stored bytes that the request needs are damaged; the log says which."""

    default_detail = "What is stored of the stream there is damaged. Other parts of it can still be read."


class NotImplementedByServer(ProtocolError, status=501, code="NOT_IMPLEMENTED"):
    """A method or transfer coding that this server does not implement."""


class Unavailable(ProtocolError, status=503, code="UNAVAILABLE", title="Service Unavailable"):
    """The server cannot process the request now; the response gets ``Retry-After: 1``."""

    default_detail = "The server can't process this request at the moment."

    def __init__(self, detail: str | None = None, headers: bytes = b"") -> None:
        super().__init__(detail, headers + b"Retry-After: 1\r\n")


class VersionNotSupported(ProtocolError, status=505, code="VERSION_NOT_SUPPORTED", title="HTTP Version Not Supported"):
    """An HTTP version other than 1.0 and 1.1 on an HTTP/1 connection."""


class InsufficientStorage(ProtocolError, status=507, code="INSUFFICIENT_STORAGE"):
    """The disk is full, or a quota is exceeded."""

    default_detail = "The server has no room left to store this."


class TooManyStreams(ProtocolError, status=507, code="TOO_MANY_STREAMS"):
    """A create while the maximum number of streams exists."""


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
"""The errors that a transport raises by status, without a more specific class."""


def render(error: ProtocolError, instance: str) -> bytes:
    """Return the ``application/problem+json`` document for an error (RFC 9457).

    :param error: the error.
    :param instance: the path and query of the request as sent, never the scheme or host; empty if unknown.
    :return: the document: type, title, status, code, and then detail and instance, if any.
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
        # An echoed value contains a lone surrogate. Reporting an error must not raise another one.
        return orjson.dumps({name: _encodable(value) for name, value in members.items()})


def _encodable(value: str | int) -> str | int:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
