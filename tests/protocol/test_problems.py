"""The error vocabulary and its documents."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.protocol import problems
from dstreams.protocol.problems import BY_STATUS, NotFound, ProtocolError, Unavailable, printable, render

VOCABULARY = [
    ("BadRequest", 400, "BAD_REQUEST", "bad-request", "Bad Request"),
    ("InvalidOffset", 400, "INVALID_OFFSET", "invalid-offset", "Invalid Offset"),
    ("InvalidStreamName", 400, "INVALID_STREAM_NAME", "invalid-stream-name", "Invalid Stream Name"),
    ("InvalidJson", 400, "INVALID_JSON", "invalid-json", "Invalid JSON"),
    ("EmptyBody", 400, "EMPTY_BODY", "empty-body", "Empty Body"),
    ("EmptyArray", 400, "EMPTY_ARRAY", "empty-array", "Empty Array"),
    ("ProducerFenced", 403, "PRODUCER_EPOCH_FENCED", "producer-epoch-fenced", "Producer Epoch Fenced"),
    ("NotFound", 404, "NOT_FOUND", "not-found", "Stream Not Found"),
    ("MethodNotAllowed", 405, "METHOD_NOT_ALLOWED", "method-not-allowed", "Method Not Allowed"),
    ("RequestTimeout", 408, "REQUEST_TIMEOUT", "request-timeout", "Request Timeout"),
    ("AlreadyExists", 409, "ALREADY_EXISTS", "already-exists", "Stream Already Exists"),
    ("ContentTypeMismatch", 409, "CONTENT_TYPE_MISMATCH", "content-type-mismatch", "Content Type Mismatch"),
    ("StreamClosed", 409, "STREAM_CLOSED", "stream-closed", "Stream Closed"),
    ("SequenceConflict", 409, "SEQUENCE_CONFLICT", "sequence-conflict", "Sequence Conflict"),
    ("ForkFromTombstone", 409, "FORK_FROM_TOMBSTONE", "fork-from-tombstone", "Fork From Deleted Stream"),
    ("ForkTooDeep", 409, "FORK_TOO_DEEP", "fork-too-deep", "Fork Too Deep"),
    ("TooManyProducers", 409, "TOO_MANY_PRODUCERS", "too-many-producers", "Too Many Producers"),
    ("PathBlocked", 409, "PATH_BLOCKED", "path-blocked", "Stream Path Blocked"),
    ("Gone", 410, "GONE", "gone", "Stream Gone"),
    ("PayloadTooLarge", 413, "PAYLOAD_TOO_LARGE", "payload-too-large", "Payload Too Large"),
    ("UriTooLong", 414, "URI_TOO_LONG", "uri-too-long", "URI Too Long"),
    ("ExpectationFailed", 417, "EXPECTATION_FAILED", "expectation-failed", "Expectation Failed"),
    ("Misdirected", 421, "MISDIRECTED", "misdirected", "Misdirected Request"),
    ("HeadersTooLarge", 431, "HEADERS_TOO_LARGE", "headers-too-large", "Request Header Fields Too Large"),
    ("InternalError", 500, "INTERNAL_ERROR", "internal", "Internal Server Error"),
    ("DataDamaged", 500, "DATA_DAMAGED", "data-damaged", "Stored Data Damaged"),
    ("NotImplementedByServer", 501, "NOT_IMPLEMENTED", "not-implemented", "Not Implemented"),
    ("Unavailable", 503, "UNAVAILABLE", "unavailable", "Service Unavailable"),
    (
        "VersionNotSupported",
        505,
        "VERSION_NOT_SUPPORTED",
        "version-not-supported",
        "HTTP Version Not Supported",
    ),
    ("InsufficientStorage", 507, "INSUFFICIENT_STORAGE", "insufficient-storage", "Insufficient Storage"),
    ("TooManyStreams", 507, "TOO_MANY_STREAMS", "too-many-streams", "Too Many Streams"),
]


class VocabularyTests:
    """What clients may branch on never changes by accident."""

    @pytest.mark.parametrize(("name", "status", "code", "slug", "title"), VOCABULARY)
    def test_class_carries_its_row_of_the_table(self, name: str, status: int, code: str, slug: str, title: str) -> None:
        """Every error has the published status, code, type and title."""
        error = getattr(problems, name)
        assert (error.status, error.code, error.slug, error.title) == (status, code, slug, title)

    def test_table_is_complete(self) -> None:
        """There is no error class besides those of the table."""
        assert {cls.__name__ for cls in ProtocolError.__subclasses__()} == {row[0] for row in VOCABULARY}

    @pytest.mark.parametrize("status", [400, 408, 413, 414, 417, 431, 500, 501, 503, 505])
    def test_transport_finds_its_errors_by_status(self, status: int) -> None:
        """Every status a transport refuses with has a class of that status."""
        assert BY_STATUS[status].status == status

    def test_unavailable_says_when_to_retry(self) -> None:
        """A 503 keeps its own headers and adds Retry-After."""
        assert Unavailable(headers=b"A: b\r\n").headers == b"A: b\r\nRetry-After: 1\r\n"

    def test_raised_without_a_detail_uses_that_of_the_class(self) -> None:
        """Errors whose cause is private say a fixed sentence; others say nothing."""
        assert problems.InternalError().detail == problems.InternalError.default_detail
        assert problems.InternalError("x").detail == "x"
        assert NotFound().detail is None


class RenderTests:
    """The problem+json document."""

    def test_members_come_in_order(self) -> None:
        """The document has all members of RFC 9457 and the code, in the documented order."""
        assert render(NotFound("Stream not found: a"), "/v1/stream/a?offset=-1") == (
            b'{"type":"/errors/not-found","title":"Stream Not Found","status":404,"code":"NOT_FOUND",'
            b'"detail":"Stream not found: a","instance":"/v1/stream/a?offset=-1"}'
        )

    def test_absent_members_are_left_out(self) -> None:
        """A missing detail or instance has no member."""
        assert set(orjson.loads(render(NotFound(), ""))) == {"type", "title", "status", "code"}

    @given(st.text(st.characters()), st.text(st.characters()))
    def test_any_text_gives_a_document(self, detail: str, instance: str) -> None:
        """Whatever is echoed, lone surrogates included, the result is a JSON object."""
        document = orjson.loads(render(NotFound(detail), instance))
        assert document["detail"] == detail.encode("utf-8", "replace").decode("utf-8")

    def test_lone_surrogate_is_replaced(self) -> None:
        """A character that UTF-8 can't hold becomes a question mark."""
        assert orjson.loads(render(NotFound("\ud800"), "/"))["detail"] == "?"


class PrintableTests:
    """Echoing what a client sent."""

    @given(st.one_of(st.binary(), st.text()))
    def test_result_is_short_printable_ascii(self, raw: bytes | str) -> None:
        """Nothing that reaches a detail can break a log line, a terminal or a header."""
        shown = printable(raw)
        assert shown.isascii()
        assert shown.isprintable()
        assert len(shown) < 1000

    def test_long_values_are_cut(self) -> None:
        """A long value shows its beginning and its length."""
        assert printable(b"x" * 100) == "'" + "x" * 80 + "'... (100 characters)"
