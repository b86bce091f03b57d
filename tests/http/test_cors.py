"""Cross-origin resource sharing."""

from __future__ import annotations

import pytest

from dstreams.http.context import HttpSettings
from dstreams.protocol.headers import ALLOWED_REQUEST_HEADERS, EXPOSED
from tests.support.engine import Engine, Reply

pytestmark = pytest.mark.usefixtures("failures")

ORIGIN = "https://app.example"
PROTOCOL_ANSWERS = {
    "stream-next-offset",
    "stream-up-to-date",
    "stream-cursor",
    "stream-closed",
    "stream-ttl",
    "stream-expires-at",
    "stream-sse-data-encoding",
    "producer-epoch",
    "producer-seq",
    "producer-expected-seq",
    "producer-received-seq",
    "etag",
    "location",
    "retry-after",
}
PROTOCOL_QUESTIONS = {
    "content-type",
    "authorization",
    "if-none-match",
    "stream-seq",
    "stream-ttl",
    "stream-expires-at",
    "stream-closed",
    "stream-forked-from",
    "stream-fork-offset",
    "stream-fork-sub-offset",
    "producer-id",
    "producer-epoch",
    "producer-seq",
    "traceparent",
    "tracestate",
    "baggage",
}


def listed(origins: str = ORIGIN, *, credentials: bool = False) -> Engine:
    return Engine(settings=HttpSettings(cors_origins=tuple(origins.split(",")), cors_credentials=credentials))


def vary(reply: Reply) -> set[str]:
    """What the response depends on besides the URL, and an event stream's ``Last-Event-ID``."""
    return words(reply.headers.get("vary", "")) - {"", "last-event-id"}


def words(value: str) -> set[str]:
    return {word.strip().lower() for word in value.split(",")}


def every_kind(engine: Engine, **headers: str) -> list[Reply]:
    """An answer to each method, errors among them."""
    return [
        engine.put("s", b"x", "text/plain", **headers),
        engine.post("s", b"y", "text/plain", **headers),
        engine.post("s", b"", "text/plain", **headers),
        engine.get("s", None, **headers),
        engine.ask("HEAD", "s", b"", "", **headers),
        engine.ask("GET", "s", b"", "offset=-1&live=sse", **headers),
        engine.get("missing", None, **headers),
        engine.ask("PATCH", "s", b"", "", **headers),
        engine.ask("DELETE", "s", b"", "", **headers),
    ]


class EverybodyTests:
    """``*``: scripts of all origins."""

    def test_asked_by_a_browser(self) -> None:
        """Every answer to a browser, errors too, may be read, with all protocol headers."""
        for reply in every_kind(Engine(), origin=ORIGIN):
            assert reply.headers["access-control-allow-origin"] == "*"
            assert words(reply.headers["access-control-expose-headers"]) >= PROTOCOL_ANSWERS
            assert "access-control-allow-credentials" not in reply.headers
            assert vary(reply) == set()

    def test_reads_without_an_origin(self) -> None:
        """Answers to reads say so to everybody: a cache may hand them to a browser later."""
        engine = Engine()
        engine.put("s", b"x")
        for reply in [engine.get("s"), engine.head("s"), engine.get("missing"), engine.sse("s")]:
            assert reply.headers["access-control-allow-origin"] == "*"

    def test_refusals_of_the_transport(self) -> None:
        """So do refusals of what could not be read."""
        reply = Reply(Engine().application.refuse(None, 400, "Because."))
        assert reply.headers["access-control-allow-origin"] == "*"


class ListedTests:
    """A list of origins."""

    def test_admitted(self) -> None:
        """An origin of the list is named in the answer, which depends on it for caches."""
        for reply in every_kind(listed(f"http://other.example,{ORIGIN}"), origin=ORIGIN):
            assert reply.headers["access-control-allow-origin"] == ORIGIN
            assert vary(reply) == {"origin"}
            assert words(reply.headers["access-control-expose-headers"]) >= PROTOCOL_ANSWERS

    @pytest.mark.parametrize(
        "origin",
        [
            "http://evil.example",
            "null",
            "",
            ORIGIN + ".evil.example",
            ORIGIN + "/",
            ORIGIN.upper(),
            "*",
            f"{ORIGIN}, {ORIGIN}",
        ],
    )
    def test_others(self, origin: str) -> None:
        """Any other isn't, and caches learn that the origin matters."""
        for reply in every_kind(listed(), origin=origin):
            assert "access-control-allow-origin" not in reply.headers
            assert vary(reply) == {"origin"}

    def test_without_an_origin(self) -> None:
        """So do they from answers to requests that name none."""
        for reply in every_kind(listed()):
            assert "access-control-allow-origin" not in reply.headers
            assert vary(reply) == {"origin"}

    def test_refusals_of_the_transport(self) -> None:
        """And from refusals of what could not be read."""
        reply = Reply(listed().application.refuse(None, 400, "Because."))
        assert vary(reply) == {"origin"}


class CredentialsTests:
    """``http.cors_credentials``."""

    def test_listed(self) -> None:
        """Listed origins may send credentials, with every request and after a preflight; others may not."""
        engine = listed(credentials=True)
        for reply in [*every_kind(engine, origin=ORIGIN), engine.ask("OPTIONS", "s", origin=ORIGIN)]:
            assert reply.headers["access-control-allow-credentials"] == "true"
            assert reply.headers["access-control-allow-origin"] == ORIGIN
            assert vary(reply) == {"origin"}
        for reply in [*every_kind(engine, origin="http://evil.example"), *every_kind(engine)]:
            assert "access-control-allow-credentials" not in reply.headers
            assert "access-control-allow-origin" not in reply.headers

    def test_off(self) -> None:
        """Without the key nobody may."""
        for reply in every_kind(listed(), origin=ORIGIN):
            assert "access-control-allow-credentials" not in reply.headers

    def test_everybody(self) -> None:
        """An application that doesn't check its configuration never combines them with ``*``."""
        for reply in every_kind(listed("*", credentials=True), origin=ORIGIN):
            assert reply.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in reply.headers


class PreflightTests:
    """OPTIONS."""

    @pytest.mark.parametrize("name", ["s", "missing", "a//b", "__ds/x", ""])
    def test_answer(self, name: str) -> None:
        """Whatever the path, what may be asked, for how long that may be remembered, and no body."""
        request = {"access_control_request_method": "PUT", "access_control_request_headers": "stream-ttl"}
        reply = Engine().ask("OPTIONS", name, b"", "", origin=ORIGIN, **request)
        assert (reply.status, reply.body) == (204, b"")
        assert words(reply.headers["access-control-allow-methods"]) >= {"get", "head", "put", "post", "delete"}
        assert words(reply.headers["access-control-allow-headers"]) >= PROTOCOL_QUESTIONS
        assert reply.headers["access-control-allow-origin"] == "*"
        assert int(reply.headers["access-control-max-age"]) > 0
        assert words(reply.headers["allow"]) >= {"get", "head", "put", "post", "delete", "options"}

    def test_changes_nothing(self) -> None:
        """Asking makes no stream."""
        engine = Engine()
        engine.ask("OPTIONS", "s", origin=ORIGIN)
        assert engine.head("s").status == 404

    def test_allowed_headers(self) -> None:
        """The operator's headers come after the protocol's, each once."""
        engine = Engine(settings=HttpSettings(cors_allow_headers=("X-Request-ID", "authorization", "b3")))
        allowed = engine.ask("OPTIONS", "s", origin=ORIGIN).headers["access-control-allow-headers"]
        assert allowed.endswith(", baggage, X-Request-ID, b3")
        assert allowed.lower().count("authorization") == 1

    def test_listed(self) -> None:
        """With a list only its origins are let in."""
        assert listed().ask("OPTIONS", "s", origin=ORIGIN).headers["access-control-allow-origin"] == ORIGIN
        refused = listed().ask("OPTIONS", "s", origin="http://evil.example")
        assert refused.status == 204
        assert "access-control-allow-origin" not in refused.headers

    def test_early(self) -> None:
        """A preflight isn't judged by its head: it is answered when it is complete."""
        engine = Engine()
        assert engine.application.validate_head(engine.request("OPTIONS", "s", None)) is None


class NameTests:
    """The lists of header names."""

    def test_complete(self) -> None:
        """Every header of the protocol is in its list, once."""
        exposed = [name.decode().lower() for name in EXPOSED]
        allowed = [name.decode().lower() for name in ALLOWED_REQUEST_HEADERS]
        assert set(exposed) >= PROTOCOL_ANSWERS
        assert set(allowed) >= PROTOCOL_QUESTIONS
        assert len(set(exposed)) == len(exposed)
        assert len(set(allowed)) == len(allowed)
