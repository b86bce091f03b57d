"""Under which names the admin listener answers."""

from __future__ import annotations

import json

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from dstreams.http.messages import Request, Response
from dstreams.http.pages.application import AllowedHosts, PagesApplication
from dstreams.http.pages.page import Page

LOOPBACK: IAddress = IPv4Address("TCP", "127.0.0.1", 9090)


@define(eq=False)
class Metrics:
    """A page that notes its requests."""

    asked: list[Request] = field(factory=list)

    def pages(self) -> dict[bytes, Page]:
        return {b"/metrics": Page(self._show)}

    def _show(self, request: Request) -> Response:
        self.asked.append(request)
        return Response(200)


def status(application: PagesApplication, host: bytes | None) -> int:
    response = application.respond(Request(b"GET", b"/metrics", b"", {} if host is None else {b"host": host}))
    assert isinstance(response, Response)
    return response.status


class AllowedHostsTests:
    """What is judged, and how."""

    @pytest.mark.parametrize(
        "host",
        [
            b"localhost",
            b"LocalHost:9090",
            b"127.0.0.1:9090",
            b"127.8.8.8",
            b"[::1]:9090",
            b"[::1]",
            b"[::ffff:127.0.0.1]",
            None,
        ],
    )
    def test_loopback(self, host: bytes | None) -> None:
        """On a loopback address it answers under the names that are always this machine's."""
        application = PagesApplication(Metrics().pages())
        application.hosts.bound(LOOPBACK)
        assert status(application, host) == 200

    @pytest.mark.parametrize(
        "host",
        [
            b"evil.example",
            b"evil.example:9090",
            b"localhost.evil.example",
            b"10.0.0.1",
            b"",
            b"127.0.0.1.evil",
            b"\xff",
        ],
    )
    def test_rebinding(self, host: bytes) -> None:
        """There it answers nothing under other names, and says in one sentence why; the pages aren't asked."""
        metrics = Metrics()
        application = PagesApplication(metrics.pages())
        application.hosts.bound(IPv6Address("TCP", "::1", 9090))
        response = application.respond(Request(b"GET", b"/metrics", b"a=b", {b"host": host}))
        assert isinstance(response, Response)
        assert response.status == 421
        assert b"Content-Type: application/problem+json\r\n" in response.head
        assert isinstance(response.body, bytes)
        assert json.loads(response.body) == {
            "type": "/errors/misdirected",
            "title": "Misdirected Request",
            "status": 421,
            "code": "MISDIRECTED",
            "detail": "The admin listener does not answer to this host name; see the key admin.allowed_hosts",
            "instance": "/metrics?a=b",
        }
        assert metrics.asked == []

    @pytest.mark.parametrize("address", [IPv4Address("TCP", "0.0.0.0", 1), UNIXAddress(b"/run/a"), None])
    def test_elsewhere(self, address: IAddress | None) -> None:
        """On other addresses any name will do."""
        application = PagesApplication(Metrics().pages())
        if address is not None:
            application.hosts.bound(address)
        assert status(application, b"evil.example") == 200

    @pytest.mark.parametrize("address", [LOOPBACK, IPv4Address("TCP", "10.0.0.1", 1), UNIXAddress(b"/run/a")])
    def test_listed(self, address: IAddress) -> None:
        """Where names are listed, they and this machine's are the only ones on any address."""
        application = PagesApplication(Metrics().pages(), AllowedHosts(("Metrics.example.org", "10.1.2.3")))
        application.hosts.bound(address)
        hosts = (b"metrics.example.org.:80", b"10.1.2.3:9090", b"localhost", b"evil.example", b"10.1.2.4")
        assert [status(application, host) for host in hosts] == [200, 200, 200, 421, 421]
