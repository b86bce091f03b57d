"""The log event of a request."""

from __future__ import annotations

import json

import pytest
from attrs import frozen
from twisted.logger import LogEvent, LogLevel

from dstreams.config import parse_log_filter
from dstreams.http.access_log import NEVER, RequestEvents, RequestFields, least_status
from dstreams.http.errors import problem_response
from dstreams.http.messages import HeadCacheEntry, Request, Response
from dstreams.http.observing import Observed
from dstreams.protocol.problems import InsufficientStorage, InternalError, NotFound, Unavailable
from dstreams.telemetry.histograms import Histogram
from dstreams.telemetry.logs import LevelFilter

FIELDS = RequestFields(b"/v1/stream/", "memory")


@frozen
class FakeSpeaker:
    """A connection (a ``ObservedConnection``)."""

    http_version: str = "1.1"
    peer: str = "192.0.2.9"


def request(path: bytes = b"/v1/stream/a%2Fb/c", query: bytes = b"", **headers: bytes) -> Request:
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return Request(b"GET", path, query, named, peer="192.0.2.1", body=b"")


def told(request: Request | None, response: Response | None, operation: str = "read") -> LogEvent:
    events: list[LogEvent] = []
    reporter = RequestEvents(FIELDS, 0, events.append, lambda: 5.0)
    reporter.report(request, response, operation, 0.0125, FakeSpeaker())
    return events[0]


class RequestFieldsTests:
    """What is said of a request."""

    def test_everything(self) -> None:
        """An ordinary request is described completely."""
        asked = request(query=b"offset=-1", host=b"example.org", user_agent=b"curl/8")
        asked.facts.name = "a/b/c"
        event = told(asked, Response(200))
        assert dict(event["log_fields"]) == {
            "ds.operation": "read",
            "ds.storage.backend": "memory",
            "ds.stream_id": "a/b/c",
            "http.request.method": "GET",
            "http.route": "/v1/stream/{name}",
            "url.path": "/v1/stream/a%2Fb/c",
            "url.query": "offset=-1",
            "server.address": "example.org",
            "client.address": "192.0.2.1",
            "user_agent.original": "curl/8",
            "network.protocol.version": "1.1",
            "event.duration": 12_500_000,
            "http.response.status_code": 200,
        }
        assert (event["log_level"], event["log_format"]) == (LogLevel.info, "request completed")
        assert (event["log_namespace"], event["log_time"]) == ("dstreams.requests", 5.0)

    def test_little(self) -> None:
        """What isn't known has no field."""
        fields = told(None, problem_response(NotFound("x"), None))["log_fields"]
        assert set(fields) == {
            "ds.operation",
            "ds.storage.backend",
            "client.address",
            "event.duration",
            "http.response.status_code",
            "error.type",
            "error.message",
            "ds.error_code",
        }
        assert fields["client.address"] == "192.0.2.9"

    @pytest.mark.parametrize("name", ["abc", "日", "a" * 5000])
    def test_names(self, name: str) -> None:
        """The whole decoded name, as the application has found it."""
        asked = request()
        asked.facts.name = name
        assert told(asked, Response(200))["log_fields"]["ds.stream_id"] == name

    def test_no_name(self) -> None:
        """A path that can't be a name has none."""
        assert "ds.stream_id" not in told(request(b"/v1/stream/a//b"), Response(400))["log_fields"]

    @pytest.mark.parametrize(
        ("operation", "mode"), [("poll", "long-poll"), ("subscribe", "sse"), ("read", None), ("append", None)]
    )
    def test_live_mode(self, operation: str, mode: str | None) -> None:
        """Live reads say how they wait."""
        assert told(request(), Response(200), operation)["log_fields"].get("ds.live_mode") == mode

    def test_pages(self) -> None:
        """A page's route is its path; what is nothing has none."""
        assert told(request(b"/healthz"), Response(200), "health")["log_fields"]["http.route"] == "/healthz"
        assert "http.route" not in told(request(b"/secret"), Response(404), "request")["log_fields"]

    def test_mounted(self) -> None:
        """The path is the one that the client sent, wherever the streams are mounted."""
        asked = request(b"/v1/stream/a")
        asked.root = b"/api"
        assert told(asked, Response(200))["log_fields"]["url.path"] == "/api/v1/stream/a"


class SameHeadTests:
    """What requests with the same head have in common is described once."""

    def test_own_fields(self) -> None:
        """Each has its own client, duration and status."""
        events: list[LogEvent] = []
        reporter = RequestEvents(FIELDS, 0, events.append, lambda: 5.0)
        facts = HeadCacheEntry(observed=Observed(200, Histogram(), "read", True))
        for peer, elapsed in (("192.0.2.1", 1e-9), ("2001:db8::1", 2e-9)):
            asked = Request(b"GET", b"/v1/stream/a", b"", {}, peer=peer, body=b"", facts=facts)
            reporter.report(asked, Response(200), "read", elapsed, FakeSpeaker())
        first, second = (dict(event["log_fields"]) for event in events)
        assert second == first | {"client.address": "2001:db8::1", "event.duration": 2}

    def test_json(self) -> None:
        """The line says what the mapping says."""
        fields = told(request(query=b'\xff"', host=b"\x80"), Response(200))["log_fields"]
        assert json.loads(b"{" + fields.json + b"}") == dict(fields)
        assert len(fields) == len(dict(fields))


class ErrorTests:
    """What is said of a request that failed."""

    def test_client_error(self) -> None:
        """The problem's type, code and detail, at warn."""
        event = told(request(), problem_response(NotFound("Stream not found: x"), None))
        fields = event["log_fields"]
        assert (event["log_level"], event["log_format"]) == (LogLevel.warn, "request completed with client error")
        assert fields["error.type"] == "/errors/not-found"
        assert fields["ds.error_code"] == "NOT_FOUND"
        assert fields["error.message"] == "Stream not found: x"
        assert "ds.error_class" not in fields

    @pytest.mark.parametrize(
        ("error", "error_class"),
        [
            (InternalError(), "internal"),
            (Unavailable(), "unavailable"),
            (InsufficientStorage(), "insufficient_storage"),
        ],
    )
    def test_server_error(self, error: InternalError | Unavailable | InsufficientStorage, error_class: str) -> None:
        """What went wrong inside is told, at error, though the client isn't told."""
        error.__cause__ = OSError(28, "No space left on device", "/var/lib/x")
        response = problem_response(error, None)
        event = told(request(), response)
        fields = event["log_fields"]
        assert (event["log_level"], event["log_format"]) == (LogLevel.error, "request failed")
        assert fields["ds.error_class"] == error_class
        assert fields["error.message"] == "OSError: [Errno 28] No space left on device: '/var/lib/x'"
        assert isinstance(response.body, bytes)
        assert b"/var/lib" not in response.body
        assert b"/var/lib" not in response.head

    @pytest.mark.parametrize("status", [501, 505])
    def test_clients_faults(self, status: int) -> None:
        """A method or version that no server has to know isn't this one's failure: any client could send it."""
        event = told(None, Response(status), "request")
        assert (event["log_level"], event["log_format"]) == (LogLevel.warn, "request completed with client error")
        assert "ds.error_class" not in event["log_fields"]

    def test_retry_after(self) -> None:
        """When the client may try again is told."""
        fields = told(request(), problem_response(Unavailable(), None))["log_fields"]
        assert fields["http.response.header.retry_after"] == "1"

    @pytest.mark.parametrize(("status", "kind"), [(404, "client_error"), (500, "server_error")])
    def test_pages(self, status: int, kind: str) -> None:
        """An error of a page has a type, too."""
        assert told(request(b"/x"), Response(status), "request")["log_fields"]["error.type"] == kind

    def test_abandoned(self) -> None:
        """A client that left is no failure, and there is no status."""
        event = told(request(), None, "poll")
        assert (event["log_level"], event["log_format"]) == (LogLevel.info, "request abandoned")
        assert event["log_fields"]["error.type"] == "client_gone"
        assert "http.response.status_code" not in event["log_fields"]


class LevelTests:
    """Which requests are logged."""

    @pytest.mark.parametrize(
        ("chosen", "least"),
        [
            ("debug", 0),
            ("info", 0),
            ("warn", 400),
            ("error", 500),
            ("critical", NEVER),
            ("off", NEVER),
            ("off,dstreams.requests=info", 0),
            ("info,dstreams.requests=off", NEVER),
            ("info,dstreams=warn", 400),
        ],
    )
    def test_least_status(self, chosen: str, least: int) -> None:
        """The level of ``dstreams.requests`` says from which status on."""
        assert least_status(LevelFilter(parse_log_filter(chosen))) == least
