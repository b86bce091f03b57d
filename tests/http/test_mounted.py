"""twisted.web sites behind our channel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.server import Request as WebRequest

from dstreams.http import mounted
from dstreams.http.messages import Request, Response
from dstreams.http.mounted import MountedSite
from tests.http.fakes import Connected, FakeApplication, errors_logged, get


@pytest.fixture(autouse=True)
def errors() -> Iterator[list[LogEvent]]:
    """What was logged as an error. A test that provokes errors takes them out."""
    with errors_logged() as found:
        yield found
    assert not found


class Page(Resource):
    """A resource that answers as a test says."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[WebRequest] = []
        self.gone: list[Failure] = []

    def render(self, request: WebRequest) -> bytes | int:
        self.requests.append(request)
        assert request.postpath is not None
        name = request.postpath[0].decode()
        answer: bytes | int = getattr(self, f"answer_{name}")(request)
        return answer

    def answer_echo(self, request: WebRequest) -> bytes:
        assert request.content is not None
        assert request.args is not None
        request.setResponseCode(201)
        request.setHeader(b"X-Page", b"yes")
        request.responseHeaders.addRawHeader(b"X-Twice", b"1")
        request.responseHeaders.addRawHeader(b"X-Twice", b"2")
        parts = [
            request.method,
            request.uri,
            request.content.read(),
            repr(sorted(request.args.items())).encode(),
        ]
        return b" ".join(parts)

    def answer_where(self, request: WebRequest) -> bytes:
        url: bytes = request.prePathURL()
        return b"%b %b" % (url, str(request.getClientAddress().host).encode())

    def answer_parts(self, request: WebRequest) -> int:
        request.write(b"one ")
        request.write(b"two")
        request.finish()
        return NOT_DONE_YET

    def answer_later(self, request: WebRequest) -> int:
        request.notifyFinish().addErrback(self.gone.append)
        return NOT_DONE_YET

    def answer_broken(self, request: WebRequest) -> bytes:
        raise ZeroDivisionError

    def answer_much(self, request: WebRequest) -> bytes:
        return b"x" * 101

    def answer_cut(self, request: WebRequest) -> int:
        request.loseConnection()
        return NOT_DONE_YET

    def answer_nothing(self, request: WebRequest) -> bytes:
        request.setResponseCode(204)
        return b""

    def answer_cookie(self, request: WebRequest) -> bytes:
        request.addCookie(b"new", b"2")
        cookie: bytes = request.getCookie(b"old")
        return cookie

    def answer_pulled(self, request: WebRequest) -> int:
        request.registerProducer(Pulled(request), False)
        return NOT_DONE_YET


class Pulled:
    """A producer that writes when it is asked."""

    def __init__(self, request: WebRequest) -> None:
        self.request = request
        self.left = 2000

    def resumeProducing(self) -> None:
        self.left -= 1
        self.request.write(b"piece ")
        if not self.left:
            self.request.unregisterProducer()
            self.request.finish()


class Mounted:
    """A site with one page, and a clock."""

    def __init__(self) -> None:
        self.page = Page()
        self.clock = Clock()
        self.site = MountedSite(Site(self.page, reactor=self.clock))

    def ask(self, path: bytes, **changes: object) -> Deferred[Response]:
        """Ask the site."""
        values: dict[str, object] = {
            "method": b"GET",
            "path": path,
            "query": b"",
            "headers": {b"host": b"example.org:8080"},
            "peer": "192.0.2.1",
            "body": b"",
        }
        return self.site.respond(Request(**{**values, **changes}))  # type: ignore[arg-type]

    def answer(self, path: bytes, **changes: object) -> Response:
        """Ask the site, which answers at once."""
        found: list[Response] = []
        self.ask(path, **changes).addCallback(found.append)
        assert found, "no answer yet"
        return found[0]


class MountedSiteTests:
    """Answers of a site."""

    def test_request_and_answer(self) -> None:
        """Method, path, query and body arrive; status, headers and body come back."""
        response = Mounted().answer(b"/echo/a%20b", method=b"POST", query=b"c=d", body=b"hello")
        assert response.status == 201
        assert response.body == b"POST /echo/a%20b?c=d hello [(b'c', [b'd'])]"
        lines = response.head.split(b"\r\n")
        assert {b"X-Page: yes", b"X-Twice: 1", b"X-Twice: 2", b"Content-Type: text/html"} <= set(lines)

    def test_framing_is_left_to_the_channel(self) -> None:
        """None of the headers that the channel writes is in the answer."""
        head = Mounted().answer(b"/parts").head.lower()
        for name in (b"content-length", b"transfer-encoding", b"date", b"server", b"connection"):
            assert name + b":" not in head

    def test_urls_lead_back(self) -> None:
        """The site knows how it was reached, and by whom."""
        assert Mounted().answer(b"/where").body == b"http://example.org:8080/ 192.0.2.1"
        secure = Mounted().answer(b"/where", scheme=b"https", headers={b"host": b"example.org"})
        assert secure.body == b"https://example.org/ 192.0.2.1"
        six = Mounted().answer(b"/where", headers={b"host": b"[::1]:80"}, peer="2001:db8::1")
        assert six.body == b"http://::1/ 2001:db8::1"  # twisted.web forgets the brackets

    def test_written_in_parts(self) -> None:
        """What is written in parts is collected."""
        assert Mounted().answer(b"/parts").body == b"one two"

    def test_cookies(self) -> None:
        """Cookies go both ways."""
        response = Mounted().answer(b"/cookie", headers={b"host": b"h", b"cookie": b"old=1"})
        assert response.body == b"1"
        assert b"Set-Cookie: new=2\r\n" in response.head

    def test_a_form(self) -> None:
        """Forms are parsed, by twisted.web's own means."""
        headers = {b"host": b"h", b"content-type": b"application/x-www-form-urlencoded"}
        response = Mounted().answer(b"/echo", method=b"POST", body=b"a=b", headers=headers)
        assert isinstance(response.body, bytes)
        assert response.body.endswith(b"[(b'a', [b'b'])]")

    def test_a_malformed_form(self) -> None:
        """What twisted.web can't parse is a bad request."""
        headers = {
            b"host": b"h",
            b"content-type": b"multipart/form-data; boundary=x",
            b"content-length": b"3",
        }
        mounted_site = Mounted()
        response = mounted_site.answer(b"/echo", method=b"POST", body=b"abc", headers=headers)
        assert response.status == 400
        assert mounted_site.page.requests == []

    def test_head(self) -> None:
        """HEAD has the length that GET has, and no body."""
        connected = Connected(SiteApplication(Mounted().site))
        sent = connected.send(get(b"/echo", method=b"HEAD"))
        assert sent.startswith(b"HTTP/1.1 201 Created\r\n")
        assert b"\r\nContent-Length: 14\r\n" in sent
        assert sent.endswith(b"\r\n\r\n")
        assert connected.send(get(b"/nothing", method=b"HEAD")).startswith(b"HTTP/1.1 204")

    def test_through_the_channel(self) -> None:
        """The channel frames the answer and goes on."""
        connected = Connected(SiteApplication(Mounted().site))
        sent = connected.send(get(b"/parts") * 2)
        assert sent.count(b"\r\nContent-Length: 7\r\n") == 2
        assert sent.endswith(b"\r\n\r\none two")

    def test_an_exception(self, errors: list[LogEvent]) -> None:
        """A page that fails is a 500, logged by twisted.web."""
        assert Mounted().answer(b"/broken").status == 500
        assert len(errors) == 1
        errors.clear()

    def test_a_site_that_fails_altogether(self, errors: list[LogEvent]) -> None:
        """Even a site that can't make a request answers with a 500."""
        mounted_site = Mounted()
        site = Site(mounted_site.page, requestFactory=lambda channel: 1 / 0, reactor=mounted_site.clock)
        found: list[Response] = []
        MountedSite(site).respond(Request(b"GET", b"/", b"", {}, body=b"")).addCallback(found.append)
        assert found[0].status == 500
        assert len(errors) == 1
        errors.clear()

    def test_a_page_that_cuts_its_connection(self, errors: list[LogEvent]) -> None:
        """A page that gives up is a 500, too."""
        assert Mounted().answer(b"/cut").status == 500
        errors.clear()

    def test_too_much_output(self, monkeypatch: pytest.MonkeyPatch, errors: list[LogEvent]) -> None:
        """More than the bound is a 500."""
        monkeypatch.setattr(mounted, "MAX_OUTPUT_BYTES", 100)
        assert Mounted().answer(b"/much").status == 500
        errors.clear()
        monkeypatch.setattr(mounted, "MAX_OUTPUT_BYTES", 101)
        assert Mounted().answer(b"/much").status == 200

    def test_the_client_goes(self) -> None:
        """Cancelling tells the page, and whatever it writes afterwards is dropped."""
        mounted_site = Mounted()
        answer = mounted_site.ask(b"/later")
        failed: list[Failure] = []
        answer.addErrback(failed.append)
        answer.cancel()
        assert len(failed) == 1
        assert len(mounted_site.page.gone) == 1
        mounted_site.page.requests[0].write(b"too late")

    def test_a_producer_that_is_pulled(self) -> None:
        """Pull producers are asked until they have written everything."""
        mounted_site = Mounted()
        found: list[Response] = []
        mounted_site.ask(b"/pulled").addCallback(found.append)
        assert found == []  # a site with much to say doesn't hold up the others
        mounted_site.clock.pump([0] * 2000)
        assert found[0].body == b"piece " * 2000

    def test_a_klein_application(self) -> None:
        """The way it is meant: routes of klein's, with coroutines."""
        from klein import Klein

        app = Klein()
        waiting: Deferred[bytes] = Deferred()

        @app.route("/health", methods=["GET"])
        def health(request: WebRequest) -> bytes:
            request.setHeader(b"Content-Type", b"application/json")
            return b"{}"

        @app.route("/slow/<name>")
        async def slow(request: WebRequest, name: str) -> bytes:
            return await waiting + name.encode()

        site = MountedSite(Site(app.resource(), reactor=Clock()))
        connected = Connected(SiteApplication(site))
        sent = connected.send(get(b"/health"))
        assert b"Content-Type: application/json\r\n" in sent
        assert sent.endswith(b"\r\n\r\n{}")
        assert connected.send(get(b"/health", method=b"POST")).startswith(b"HTTP/1.1 405")
        assert connected.send(get(b"/other")).startswith(b"HTTP/1.1 404")
        assert connected.send(get(b"/slow/er")) == b""
        waiting.callback(b"bett")
        assert connected.sent().endswith(b"better")


class SiteApplication(FakeApplication):
    """Hands every request to a mounted site."""

    def __init__(self, site: MountedSite) -> None:
        super().__init__()
        self.site = site

    def respond(self, request: Request) -> Deferred[Response]:
        return self.site.respond(request)
