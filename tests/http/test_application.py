"""The application: routes, methods, what every answer carries, and that no input breaks it."""

from __future__ import annotations

import json
import re

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from dstreams.http import application as application_module
from dstreams.http.application import StreamApplication
from dstreams.http.context import HttpSettings
from dstreams.http.messages import Request, Response
from dstreams.http.pages.page import Page
from dstreams.http.routes import Route
from dstreams.protocol.names import NameLimits
from dstreams.storage.interface import StorageDamaged
from dstreams.streams.limits import StoreLimits
from tests.support.engine import START, WALL, Engine, FakeSink, FetchingStorage, Reply, offset

pytestmark = pytest.mark.usefixtures("failures")

JSON = "application/json"


def ask(engine: Engine, method: str, path: str, query: str = "", body: bytes = b"", **more: object) -> Reply:
    """A request for any path."""
    request = Request(method.encode(), path.encode(), query.encode(), {}, len(body), body=body)
    for name, value in more.items():
        setattr(request, name, value)
    return Reply(engine.application.respond(request))


class RoutingTests:
    """Which requests are for a stream."""

    @pytest.mark.parametrize(
        "path", ["/", "/v1", "/v1/stream", "/v1/streams/a", "/v2/stream/a", "*", "", "//v1/stream/a"]
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"])
    def test_elsewhere(self, path: str, method: str) -> None:
        """What isn't below the base path is nothing of ours: 404 with a body."""
        reply = ask(Engine(), method, path)
        assert reply.status == 404
        assert reply.code == "NOT_FOUND"

    def test_pages(self) -> None:
        """A page answers at its path, with the common headers too; it is only read."""
        engine = Engine()
        paths = (b"/", b"/healthz", b"/v1/stream", b"/metrics", b"/v1/stream/page")
        page = Page(lambda request: Response(200, b"X-Path: %b\r\n" % request.path, b"ok"))
        application = StreamApplication(engine.context, dict.fromkeys(paths, page))
        for path in paths:
            reply = Reply(application.respond(Request(b"GET", path, b"", {}, body=b"")))
            assert reply.headers["x-path"] == path.decode()
            assert reply.headers["x-content-type-options"] == "nosniff"
            reply = Reply(application.respond(Request(b"POST", path, b"", {}, body=b"")))
            assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
        missing = Reply(application.respond(Request(b"GET", b"/v1/stream/x", b"", {}, body=b"")))
        assert missing.status == 404
        assert "x-path" not in missing.headers

    @pytest.mark.parametrize("base", ["/", "/s", "/a/b/c", "/v1/stream"])
    def test_any_base_path(self, base: str) -> None:
        """Streams may be mounted anywhere, at the root too."""
        engine = Engine(settings=HttpSettings(base_path=base.encode()))
        prefix = base.rstrip("/")
        assert ask(engine, "PUT", f"{prefix}/a/b", body=b"x").headers["location"] == f"{prefix}/a/b"
        assert ask(engine, "GET", f"{prefix}/a/b").body == b"x"
        assert engine.fork("f", "a/b").status == 201
        assert ask(engine, "GET", f"{prefix}/f").body == b"x"

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/health"])
    @pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
    def test_health_at_the_root(self, path: str, method: str) -> None:
        """With streams at the root the health paths are never streams."""
        engine = Engine(settings=HttpSettings(base_path=b"/"))
        reply = ask(engine, method, path)
        assert (reply.status, reply.problem["detail"]) == (404, "There is nothing at this path")
        assert ask(engine, "PUT", path + "/x").status == 201
        assert engine.application.validate_head(Request(b"PUT", path.encode(), b"", {}, 5)) is None

    @pytest.mark.parametrize("name", ["__ds", "__ds/subscriptions/x", "%5F%5Fds/x", "__ds%2Fx"])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
    def test_reserved_names(self, name: str, method: str) -> None:
        """Names below ``__ds`` are no streams: 404, early as late, and none can be made."""
        engine = Engine()
        request = engine.request(method, name, b"x", content_type="text/plain")
        assert Reply(engine.application.respond(request)).code == "NOT_FOUND"
        request.body = None
        early = engine.application.validate_head(request)
        assert early is None or early.status == 404
        assert engine.fork("f", name).status == 404

    @pytest.mark.parametrize("name", ["__dsx", "a/__ds", "_ds", "__DS"])
    def test_not_reserved(self, name: str) -> None:
        """Others are names like any other."""
        assert Engine().put(name).status == 201

    @pytest.mark.parametrize("method", ["PATCH", "TRACE", "CONNECT", "get", "PROPFIND", "X"])
    def test_unknown_method(self, method: str) -> None:
        """405 with what there is, in a header and as a problem; early too, for a body may follow."""
        engine = Engine()
        reply = engine.ask(method, "s")
        assert (reply.status, reply.code) == (405, "METHOD_NOT_ALLOWED")
        assert reply.headers["allow"] == "GET, HEAD, PUT, POST, DELETE, OPTIONS"
        early = engine.application.validate_head(engine.request(method, "s", None))
        assert early is not None
        assert early.head == reply.response.head

    @pytest.mark.parametrize(
        "name", ["", "a//b", "a/", "..", "a/../b", ".", "%2e%2e", "%00", "a%0Ab", "%", "%zz", "%FF"]
    )
    @pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"])
    def test_bad_names(self, name: str, method: str) -> None:
        """400 for what can't be a name, whatever the method."""
        assert Engine().ask(method, name).code == "INVALID_STREAM_NAME"

    def test_name_limits(self) -> None:
        """Names are bounded as configured."""
        engine = Engine(settings=HttpSettings(name_limits=NameLimits(max_bytes=5, max_segments=2)))
        assert engine.put("abcde").status == engine.put("a/b").status == 201
        assert engine.put("abcdef").code == engine.put("a/b/c").code == "INVALID_STREAM_NAME"


class ProblemTests:
    """Errors are problem documents (RFC 9457)."""

    CASES: tuple[tuple[str, str, dict[str, str], bytes, int, str], ...] = (
        ("GET", "missing", {}, b"", 404, "NOT_FOUND"),
        ("HEAD", "missing", {}, b"", 404, "NOT_FOUND"),
        ("DELETE", "missing", {}, b"", 404, "NOT_FOUND"),
        ("POST", "missing", {"content_type": "text/plain"}, b"x", 404, "NOT_FOUND"),
        ("GET", "gone", {}, b"", 410, "GONE"),
        ("POST", "gone", {}, b"x", 410, "GONE"),
        ("DELETE", "gone", {}, b"", 410, "GONE"),
        ("PUT", "gone", {}, b"", 409, "PATH_BLOCKED"),
        ("PUT", "f2", {"stream_forked_from": "gone"}, b"", 409, "FORK_FROM_TOMBSTONE"),
        ("PUT", "f2", {"stream_forked_from": "missing"}, b"", 404, "NOT_FOUND"),
        ("PUT", "f2", {"stream_forked_from": "s", "content_type": "a/b"}, b"", 409, "CONTENT_TYPE_MISMATCH"),
        ("PUT", "f2", {"stream_forked_from": "s", "stream_fork_offset": offset(9)}, b"", 400, "BAD_REQUEST"),
        ("PUT", "f2", {"stream_forked_from": "s", "stream_fork_offset": "x"}, b"", 400, "INVALID_OFFSET"),
        ("PUT", "f2", {"stream_forked_from": "s", "stream_fork_offset": "now"}, b"", 400, "BAD_REQUEST"),
        ("PUT", "f2", {"stream_forked_from": "s", "stream_fork_sub_offset": "-1"}, b"", 400, "BAD_REQUEST"),
        ("PUT", "f2", {"stream_fork_offset": START}, b"", 400, "BAD_REQUEST"),
        ("PUT", "s", {"content_type": "image/png"}, b"", 409, "ALREADY_EXISTS"),
        ("PUT", "new", {"content_type": "x"}, b"", 400, "BAD_REQUEST"),
        ("PUT", "new", {"content_type": ""}, b"", 400, "BAD_REQUEST"),
        ("PUT", "new", {"stream_ttl": "01"}, b"", 400, "BAD_REQUEST"),
        ("PUT", "new", {"stream_expires_at": "tomorrow"}, b"", 400, "BAD_REQUEST"),
        ("PUT", "new", {"stream_ttl": "1", "stream_expires_at": "2030-01-01T00:00:00Z"}, b"", 400, "BAD_REQUEST"),
        ("PUT", "new", {"content_type": JSON}, b"{", 400, "INVALID_JSON"),
        ("PUT", "new", {}, b"x" * 2000, 413, "PAYLOAD_TOO_LARGE"),
        ("POST", "s", {}, b"x", 400, "BAD_REQUEST"),
        ("POST", "s", {"content_type": "image/png"}, b"x", 409, "CONTENT_TYPE_MISMATCH"),
        ("POST", "s", {"content_type": "text/plain"}, b"", 400, "EMPTY_BODY"),
        ("POST", "s", {"content_type": "text/plain"}, b"x" * 2000, 413, "PAYLOAD_TOO_LARGE"),
        ("POST", "json", {"content_type": JSON}, b"[]", 400, "EMPTY_ARRAY"),
        ("POST", "json", {"content_type": JSON}, b"[1,]", 400, "INVALID_JSON"),
        ("POST", "json", {"content_type": JSON}, b"[" * 600 + b"]" * 600, 400, "INVALID_JSON"),
        ("POST", "json", {"content_type": JSON}, b'"\xff"', 400, "INVALID_JSON"),
        ("POST", "closed", {"content_type": "text/plain"}, b"x", 409, "STREAM_CLOSED"),
        ("POST", "s", {"producer_id": "p"}, b"x", 400, "BAD_REQUEST"),
        ("PATCH", "s", {}, b"", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "a//b", {}, b"", 400, "INVALID_STREAM_NAME"),
        ("GET", "__ds/x", {}, b"", 404, "NOT_FOUND"),
    )
    QUERIES = (
        ("offset=x", "INVALID_OFFSET"),
        ("offset=", "INVALID_OFFSET"),
        (f"offset={offset(99)}", "INVALID_OFFSET"),
        (f"offset={START}&offset={START}", "BAD_REQUEST"),
        ("live=sse", "BAD_REQUEST"),
        ("offset=now&live=x", "BAD_REQUEST"),
        ("offset=now&live=sse&live=sse", "BAD_REQUEST"),
        ("offset=now&live=long-poll&cursor=1&cursor=2", "BAD_REQUEST"),
        ("offset=%zz", "BAD_REQUEST"),
    )

    @pytest.fixture
    def engine(self) -> Engine:
        engine = Engine(limits=StoreLimits(1_000_000, 1000))
        engine.put("s", b"abc")
        engine.put_json("json")
        engine.put("closed", stream_closed="true")
        engine.put("gone")
        engine.fork("f", "gone")
        engine.delete("gone")
        return engine

    def check(self, reply: Reply, status: int, code: str, instance: str) -> None:
        assert reply.status == status
        problem = reply.problem
        assert list(problem) == ["type", "title", "status", "code", "detail", "instance"]
        assert (problem["status"], problem["code"], problem["instance"]) == (status, code, instance)
        assert re.fullmatch(r"/errors/[a-z-]+", str(problem["type"]))
        assert problem["title"]
        assert str(problem["detail"])
        headers = reply.headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "cross-origin"
        assert "etag" not in headers

    @pytest.mark.parametrize(("method", "name", "headers", "body", "status", "code"), CASES)
    def test_document(
        self, engine: Engine, method: str, name: str, headers: dict[str, str], body: bytes, status: int, code: str
    ) -> None:
        """Every refusal has its status, its code, all members, and the headers of any answer."""
        reply = engine.ask(method, name, body, "", **headers)
        self.check(reply, status, code, f"/v1/stream/{name}")

    @pytest.mark.parametrize(("query", "code"), QUERIES)
    def test_query(self, engine: Engine, query: str, code: str) -> None:
        """So has every refusal of a query, which is part of the instance as it was sent."""
        reply = engine.ask("GET", "s", query=query)
        self.check(reply, 400, code, f"/v1/stream/s?{query}")

    def test_unknown_parameters(self, engine: Engine) -> None:
        """Parameters that mean nothing here are ignored."""
        assert engine.ask("GET", "s", query="x=1&x=2&Offset=9&offset=-1&%ff=%zz").body == b"abc"

    def test_protocol_headers_on_errors(self, engine: Engine) -> None:
        """What a client needs to go on stands in the headers."""
        closed = engine.post("closed", b"x").headers
        assert (closed["stream-closed"], closed["stream-next-offset"]) == ("true", START)
        engine.produce("s", "p", 3, 0)
        gap = engine.produce("s", "p", 3, 2).headers
        assert (gap["producer-expected-seq"], gap["producer-received-seq"]) == ("1", "2")
        assert engine.produce("s", "p", 2, 0).headers["producer-epoch"] == "3"

    def test_mounted_instance(self, engine: Engine) -> None:
        """The instance is the path that the client asked for, also below a mount point."""
        reply = ask(engine, "GET", "/v1/stream/missing", "a=b", root=b"/api")
        assert reply.problem["instance"] == "/api/v1/stream/missing?a=b"

    @pytest.mark.parametrize("status", [400, 408, 413, 414, 417, 431, 500, 501, 503, 505])
    @pytest.mark.parametrize("known", [True, False])
    def test_refuse(self, engine: Engine, status: int, known: bool) -> None:
        """So are the errors that the transport finds, whether it could read the request or not."""
        request = engine.request("GET", "s") if known else None
        reply = Reply(engine.application.refuse(request, status, "Because."))
        assert reply.status == reply.problem["status"] == status
        assert reply.problem["detail"] == "Because."
        assert ("instance" in reply.problem) == known
        assert reply.headers["x-content-type-options"] == "nosniff"

    def test_secrets_stay_inside(self, engine: Engine, failures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """A fault of ours is a 500 that says nothing of its cause; the log has it."""

        def broken(*_: object) -> Response:
            raise RuntimeError("/var/lib/secret")

        monkeypatch.setitem(application_module.METHODS, b"GET", Route("read", broken))
        monkeypatch.setitem(application_module.METHODS, b"POST", Route("append", broken, broken))
        reply = engine.get("s")
        self.check(reply, 500, "INTERNAL_ERROR", "/v1/stream/s")
        assert b"secret" not in reply.body
        assert engine.application.validate_head(engine.request("POST", "s", None)) is None
        assert len(failures) == 2
        assert all("secret" in failure for failure in failures)
        failures.clear()

    def test_late_fault(self, failures: list[str]) -> None:
        """So is one that comes later."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("s", b"x")
        reply = engine.get("s")
        storage.failing = True
        storage.fetch_all()
        self.check(reply, 500, "INTERNAL_ERROR", "/v1/stream/s")
        failures.clear()

    @pytest.mark.parametrize("at_once", [True, False])
    def test_damage(self, at_once: bool) -> None:
        """Damaged bytes have a code of their own; the storage logs them, and the answer doesn't repeat its text."""
        storage = FetchingStorage(error=StorageDamaged("/data/secret is damaged", 1, "here"))
        engine = Engine(storage)
        engine.put("s", b"x")
        storage.failing, storage.at_once = True, at_once
        reply = engine.get("s")
        storage.fetch_all()
        self.check(reply, 500, "DATA_DAMAGED", "/v1/stream/s")
        assert b"secret" not in reply.body


class CommonHeaderTests:
    """What every answer carries."""

    def replies(self, engine: Engine) -> list[Reply]:
        return [
            engine.put("s", b"abc"),
            engine.put("s"),
            engine.get("s"),
            engine.get("s", "now"),
            engine.get("s", if_none_match="*"),
            engine.head("s"),
            engine.post("s", b"x"),
            engine.poll("s", "-1"),
            engine.sse("s"),
            engine.ask("OPTIONS", "s"),
            engine.ask("OPTIONS", "a//b"),
            engine.get("missing"),
            engine.delete("s"),
            ask(engine, "OPTIONS", "/"),
            ask(engine, "GET", "/"),
        ]

    def test_security(self) -> None:
        """Nothing is sniffed, and scripts of other origins may read it (PROTOCOL 12.7)."""
        for reply in self.replies(Engine()):
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cross-origin-resource-policy"] == "cross-origin"

    def test_framing_is_the_transport_s(self) -> None:
        """Framing, date and connection are nobody's but the transport's."""
        for reply in self.replies(Engine()):
            framing = {"content-length", "transfer-encoding", "connection", "date"}
            assert not framing & set(reply.headers)

    def test_bodies_that_may_not_be(self) -> None:
        """204 and 304 have no body."""
        for reply in self.replies(Engine()):
            if reply.status in {204, 304}:
                assert reply.body == b""


class SandboxTests:
    """Stored pages."""

    @pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "application/xml"])
    def test_page(self, content_type: str) -> None:
        """Every answer with the content type of a page puts it into a sandbox, whoever asks and however."""
        engine = Engine()
        replies = [
            engine.put("s", b"<script>", content_type),
            engine.head("s"),
            engine.get("s"),
            engine.get("s", "now"),
            engine.ask("GET", "s", b"", "offset=-1&live=long-poll"),
        ]
        for reply in replies:
            assert reply.headers["content-type"] == content_type
            assert reply.headers["content-security-policy"] == "sandbox; default-src 'none'"
        for reply in [engine.sse("s"), engine.post("s", b"", content_type), engine.get("missing")]:
            assert "content-security-policy" not in reply.headers

    def test_others(self) -> None:
        """Other types have no policy."""
        engine = Engine()
        assert "content-security-policy" not in engine.put("s", b"x", "text/plain").headers
        assert "content-security-policy" not in engine.get("s").headers


class CachingTests:
    """Who may keep an answer (PROTOCOL 10.1)."""

    def settings(self, cache: str) -> HttpSettings:
        return HttpSettings(cache=cache)

    def test_nobody_by_default(self) -> None:
        """Unless the operator says so nothing is kept."""
        engine = Engine()
        for reply in CommonHeaderTests().replies(engine):
            if reply.status != 204 or "allow" not in reply.headers:
                assert reply.headers["cache-control"] in {"no-store", "no-cache, no-transform"}

    @pytest.mark.parametrize("scope", ["private", "public"])
    def test_reads(self, scope: str) -> None:
        """Catch-up answers and long-polls with data carry the protocol's value, 304 as well."""
        engine = Engine(settings=self.settings(scope))
        engine.put("s", b"abc")
        expected = f"{scope}, max-age=60, stale-while-revalidate=300"
        first = engine.get("s")
        for reply in [
            first,
            engine.get("s", offset(3)),
            engine.poll("s", "-1"),
            engine.get("s", if_none_match=first.headers["etag"]),
        ]:
            assert reply.headers["cache-control"] == expected

    @pytest.mark.parametrize("scope", ["private", "public"])
    def test_never_kept(self, scope: str) -> None:
        """HEAD, ``now``, 204, answers to writes, and errors are kept by nobody."""
        engine = Engine(settings=self.settings(scope))
        waits = [engine.put("s", b"abc")]
        waits.append(engine.poll("s"))
        engine.pass_time(31)
        for reply in [
            *waits,
            engine.put("s"),
            engine.post("s", b"x"),
            engine.head("s"),
            engine.get("s", "now"),
            engine.get("s", "x"),
            engine.get("s", offset(99)),
            engine.close("s"),
            engine.poll("s"),
            engine.delete("s"),
            engine.get("s"),
        ]:
            assert reply.headers["cache-control"] == "no-store"

    @pytest.mark.parametrize(
        ("life", "age"),
        [
            ({"stream_ttl": "0"}, None),
            ({"stream_ttl": "7"}, 7),
            ({"stream_ttl": "3600"}, 60),
            ({"stream_expires_at": "2027-01-15T08:00:30.75Z"}, 30),
            ({"stream_expires_at": "2040-01-01T00:00:00Z"}, 60),
        ],
    )
    def test_not_longer_than_the_stream(self, life: dict[str, str], age: int | None) -> None:
        """An answer isn't fresh for longer than its stream may live, nor served stale after that."""
        assert WALL == 1_800_000_000  # 2027-01-15T08:00:00Z
        engine = Engine(settings=self.settings("public"))
        engine.put("s", b"abc", "text/plain", **life)
        reply = engine.get("s")
        if age is None:
            assert reply.status == 404
        else:
            assert reply.headers["cache-control"] == f"public, max-age={age}, stale-while-revalidate=0"

    def test_etag(self) -> None:
        """The tag changes with the range, with the closure, and with the stream's life; never else."""
        engine = Engine()
        engine.put("s", b"abc")
        tags = [engine.get("s").headers["etag"]]
        assert engine.get("s").headers["etag"] == tags[0]
        assert engine.get("s", START).headers["etag"] == tags[0]
        tags.append(engine.get("s", offset(1)).headers["etag"])
        tags.append(engine.get("s", offset(3)).headers["etag"])
        engine.close("s")
        tags.append(engine.get("s").headers["etag"])
        tags.append(engine.get("s", offset(3)).headers["etag"])
        engine.delete("s")
        engine.put("s", b"abc")
        tags.append(engine.get("s").headers["etag"])
        assert len(set(tags)) == 6
        assert "etag" not in engine.get("s", "now").headers

    def test_not_modified(self) -> None:
        """304 keeps what a client needs to go on, and hides no closure."""
        engine = Engine()
        engine.put("s", b"abc")
        etag = engine.get("s").headers["etag"]
        for known in (etag, f'"x", {etag}', f"W/{etag}", "*"):
            reply = engine.get("s", if_none_match=known)
            assert (reply.status, reply.body) == (304, b"")
            assert (reply.next_offset, reply.headers["stream-up-to-date"]) == (offset(3), "true")
            assert reply.headers["etag"] == etag
            assert "content-type" not in reply.headers
        assert engine.get("s", if_none_match='"x"').status == 200
        engine.close("s")
        reply = engine.get("s", if_none_match=etag)
        assert (reply.status, reply.headers["stream-closed"]) == (200, "true")


class LocationTests:
    """Where a stream is."""

    @pytest.mark.parametrize(
        ("host", "scheme", "root", "location"),
        [
            ("example.org", b"http", b"", "http://example.org/v1/stream/a/b"),
            ("example.org:4437", b"https", b"", "https://example.org:4437/v1/stream/a/b"),
            ("[::1]:80", b"http", b"/api", "http://[::1]:80/api/v1/stream/a/b"),
            (None, b"http", b"/x/y", "/x/y/v1/stream/a/b"),
        ],
    )
    def test_url(self, host: str | None, scheme: bytes, root: bytes, location: str) -> None:
        """The URL by which the client reached it; only the path when it named no host."""
        engine = Engine()
        request = engine.request("PUT", "a/b", b"", "", **({} if host is None else {"host": host}))
        request.scheme, request.root = scheme, root
        assert Reply(engine.application.respond(request)).headers["location"] == location

    @pytest.mark.parametrize(
        ("sent", "location"),
        [
            ("a%20b", "a%20b"),
            ("caf%C3%A9", "caf%C3%A9"),
            ("a%2Fb", "a/b"),
            ("%E2%82%AC", "%E2%82%AC"),
            ("a%25b", "a%25b"),
            ("a%3Fb%23c", "a%3Fb%23c"),
            ("a:b@c", "a:b@c"),
        ],
    )
    def test_encoded(self, sent: str, location: str) -> None:
        """Percent-encoded where it must be, so that it can be asked for."""
        engine = Engine()
        told = engine.put(sent, b"x").headers["location"]
        assert told == f"/v1/stream/{location}"
        assert ask(engine, "GET", told).body == b"x"

    def test_only_for_new_ones(self) -> None:
        """A stream that was there already isn't announced again."""
        engine = Engine()
        engine.put("s")
        assert "location" not in engine.put("s").headers


class ForkedFromTests:
    """How a fork names its source."""

    @pytest.mark.parametrize("source", ["/v1/stream/a/b", "a/b", "/v1/stream/a%2Fb", "/v1/stream/%61/b"])
    def test_forms(self, source: str) -> None:
        """By the path of its URL, or by its name, percent-encoded as any path."""
        engine = Engine()
        engine.put("a/b", b"x")
        assert engine.ask("PUT", "f", stream_forked_from=source).status == 201
        assert engine.get("f").body == b"x"

    @pytest.mark.parametrize("source", ["/v1/stream/", "/a", "", "a//b", "/v1/stream/a/../a", "%zz"])
    def test_no_name(self, source: str) -> None:
        """400 for what can't be a name."""
        engine = Engine()
        engine.put("a", b"x")
        assert engine.ask("PUT", "f", stream_forked_from=source).status == 400

    def test_below_a_mount_point(self) -> None:
        """Below a mount point the path is the one that clients see, which is the one in Location."""
        engine = Engine()
        asked = engine.request("PUT", "s", b"x")
        asked.root = b"/api"
        location = Reply(engine.application.respond(asked)).headers["location"]
        fork = engine.request("PUT", "f", stream_forked_from=location)
        fork.root = b"/api"
        assert Reply(engine.application.respond(fork)).status == 201
        assert engine.get("f").body == b"x"


class CreateTests:
    """PUT."""

    def test_answer(self) -> None:
        """201 with type, tail and place; 200 for the same again."""
        engine = Engine()
        made = engine.put("s", b"abc", "Text/Plain; charset=utf-8")
        assert (made.status, made.body) == (201, b"")
        assert made.headers["content-type"] == "Text/Plain; charset=utf-8"
        assert made.next_offset == offset(3)
        again = engine.put("s", b"ignored", "text/plain")
        assert (again.status, again.next_offset) == (200, offset(3))
        assert again.headers["content-type"] == "Text/Plain; charset=utf-8"

    def test_default_type(self) -> None:
        """Without a type it is one of bytes."""
        engine = Engine()
        assert engine.ask("PUT", "s").headers["content-type"] == "application/octet-stream"
        assert engine.put("s", b"", "application/octet-stream").status == 200

    @pytest.mark.parametrize("closed", [True, False])
    @pytest.mark.parametrize("again", [True, False])
    def test_closure_is_compared(self, closed: bool, again: bool) -> None:
        """What counts is whether the stream is closed now (PROTOCOL 5.1)."""
        engine = Engine()
        engine.put("s")
        if closed:
            engine.close("s")
        reply = engine.put("s", stream_closed=str(again))
        assert reply.status == (200 if closed == again else 409)
        if reply.status == 200 and closed:
            assert reply.headers["stream-closed"] == "true"

    def test_closed_with_data(self) -> None:
        """Data and closure at once."""
        engine = Engine()
        made = engine.put_json("s", b"[1,2]", stream_closed="true")
        assert made.headers["stream-closed"] == "true"
        read = engine.get("s")
        assert (read.body, read.headers["stream-closed"]) == (b"[1,2]", "true")

    def test_empty_array(self) -> None:
        """An empty array makes an empty stream."""
        engine = Engine()
        assert engine.put_json("s", b"[]").next_offset == START
        assert engine.get("s").body == b"[]"


class HeadTests:
    """HEAD."""

    def test_metadata(self) -> None:
        """Type, tail, closure, and the life that was asked for."""
        engine = Engine()
        engine.put_json("s", b"[1,2]", stream_ttl="3600", stream_closed="true")
        head = engine.head("s")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == JSON
        assert head.next_offset == offset(4)
        assert (head.headers["stream-ttl"], head.headers["stream-closed"]) == ("3600", "true")
        engine.put("t", stream_expires_at="2030-01-01T12:00:00.5+01:00")
        assert engine.head("t").headers["stream-expires-at"] == "2030-01-01T11:00:00.500Z"


NAMES = st.sampled_from(
    [
        "text",
        "json",
        "closed",
        "source",
        "fork",
        "ttl",
        "new",
        "__ds/x",
        "a//b",
        "",
        "%",
        "%2e%2e",
        "%00",
        "caf%C3%A9",
        "%FF",
    ]
)
NUMBERS = st.sampled_from(["0", "1", "2", "-1", "+1", "01", "1e3", "9" * 16, "9" * 40, "", " ", "²", "1, 1"])
OFFSETS = st.sampled_from(
    ["-1", "now", START, offset(1), offset(2), offset(10**15), "0_0", "9" * 33, "", "NOW", "x" * 300]
)
VALUES: dict[str, st.SearchStrategy[str]] = {
    "content-type": st.sampled_from(
        [JSON, "text/plain", "APPLICATION/JSON;a=b", "x", "", "a/b, c/d", 'a/b; c="', "a/b" + "; " * 40 + "@"]
    ),
    "stream-ttl": NUMBERS,
    "stream-expires-at": st.sampled_from(
        [
            "2030-01-01T00:00:00Z",
            "0001-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59.999999999Z",
            "2016-12-31T23:59:60Z",
            "1",
            "",
        ]
    ),
    "stream-closed": st.sampled_from(["true", "TRUE", "false", ""]),
    "stream-seq": st.sampled_from(["a", "b", "", "é", "x" * 3000]),
    "stream-forked-from": st.one_of(NAMES, NAMES.map("/v1/stream/".__add__)),
    "stream-fork-offset": OFFSETS,
    "stream-fork-sub-offset": NUMBERS,
    "producer-id": st.sampled_from(["p", "", "é" * 20, "x" * 600]),
    "producer-epoch": NUMBERS,
    "producer-seq": NUMBERS,
    "if-none-match": st.sampled_from(["*", '"x"', "W/", '"', "," * 50, '"a", W/"b"' * 20]),
    "host": st.sampled_from(["h", "", "h:1", "[::1]", "ü", "a b"]),
    "origin": st.sampled_from(["null", "http://a", ""]),
}
ANY_TEXT = st.text(st.characters(min_codepoint=9, max_codepoint=255, exclude_characters="\n\x0b\x0c\r"), max_size=40)
BODIES = st.one_of(
    st.sampled_from(
        [b"", b"x", b"1", b"[]", b"[1,2]", b"[1,", b"{}", b"[" * 2000, b'"\xff"', b"x" * 3000, b"nul", b"\xef\xbb\xbf1"]
    ),
    st.binary(max_size=30),
)
QUERIES = st.lists(
    st.one_of(
        OFFSETS.map("offset=".__add__),
        st.sampled_from(
            ["live=sse", "live=long-poll", "live=", "live", "live=SSE", "%6cive=sse", "cursor=%zz", "&", "="]
        ),
        NUMBERS.map("cursor=".__add__),
        ANY_TEXT,
    ),
    max_size=4,
).map("&".join)


@define
class Prepared:
    """A server with a stream of every sort."""

    engine: Engine = field(factory=lambda: Engine(limits=StoreLimits(200_000, 1000)))

    def __attrs_post_init__(self) -> None:
        engine = self.engine
        engine.put("text", b"abc")
        engine.produce("text", "p", 1, 0)
        engine.post("text", b"x", stream_seq="a")
        engine.put_json("json", b"[1,2]")
        engine.put("closed", b"x", stream_closed="true")
        engine.put("source", b"abc")
        engine.fork("fork", "source")
        engine.delete("source")
        engine.put("ttl", stream_ttl="60")


class AnyInputTests:
    """Nothing that a client may send breaks the application."""

    @settings(max_examples=600)
    @given(
        method=st.sampled_from(["GET", "GET", "HEAD", "PUT", "PUT", "POST", "POST", "DELETE", "OPTIONS", "PATCH"]),
        name=st.one_of(NAMES, NAMES, ANY_TEXT),
        query=QUERIES,
        headers=st.fixed_dictionaries({}, optional={k: st.one_of(v, v, ANY_TEXT) for k, v in VALUES.items()}),
        body=BODIES,
        known=st.booleans(),
    )
    def test_answered(
        self, method: str, name: str, query: str, headers: dict[str, str], body: bytes, known: bool
    ) -> None:
        """Any request gets a well-formed answer below 500, and its head alone no other one."""
        engine = Prepared().engine
        request = Request(
            method.encode(),
            b"/v1/stream/" + name.encode("latin-1", "replace"),
            query.encode("latin-1", "replace"),
            {key.encode(): value.strip(" \t").encode("latin-1") for key, value in headers.items()},
            content_length=len(body) if known else None,
            body=None,
        )
        early = engine.application.validate_head(request)
        request.body = body
        outcome = engine.application.respond(request)
        if isinstance(outcome, Deferred):
            reply = Reply(outcome)
            reply.cancel()
            assert reply.status == 503
        else:
            reply = Reply(outcome)
            assert reply.status < 500, reply.body
            if early is not None:
                assert (early.status, early.head, early.body) == (reply.status, reply.response.head, reply.body)
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", reply.response.head)
        if reply.status >= 400:
            assert reply.problem["status"] == reply.status
            assert json.loads(reply.body)["code"]
        elif not isinstance(reply.response.body, bytes):
            sink = FakeSink()
            reply.live.start(sink)
            reply.live.stop()
        assert engine.streams.statistics().live_readers == 0
        engine.pass_time(2)
