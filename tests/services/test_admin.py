"""The admin listener of the service tree, and of a real server."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from dstreams.config import Config
from dstreams.runtime.shutdown import ShutdownDeadline
from dstreams.runtime.startup import StartupError, StartupPhase
from dstreams.services.admin import GRACE_SECONDS, AdminService
from dstreams.services.listeners import resolve_admin_listener
from dstreams.services.parts import AdminParts
from tests.support.servers import ChildServer, twistd_server


class FakeConnections:
    """Connections that are gone when the test says so."""

    def __init__(self) -> None:
        self.gone: list[Deferred[None]] = []
        self.aborted = False

    def retire(self) -> None:
        raise AssertionError("nobody asks that")

    def drain(self) -> Deferred[None]:
        self.gone.append(Deferred())
        return self.gone[-1]

    def abort(self) -> None:
        self.aborted = True


class RefusingReactor(MemoryReactorClock):
    """Can't listen anywhere."""

    def listenTCP(self, *args: Any, **kwargs: Any) -> IListeningPort:
        raise CannotListenError("127.0.0.1", 80, OSError(13, "Permission denied"))


def configured(endpoint: str | None) -> Config:
    return evolve(Config(), admin=evolve(Config().admin, endpoint=endpoint))


class AdminServiceTests(SynchronousTestCase):
    """Starting and stopping the listener."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.connections = FakeConnections()
        self.shutdown = ShutdownDeadline(cast("Any", self.reactor))

    def service(self, endpoint: str = "127.0.0.1:9090") -> AdminService:
        listener = resolve_admin_listener(configured(endpoint), self.reactor)
        assert listener is not None
        return AdminService(listener, AdminParts(Factory(), self.connections), self.shutdown)

    def test_listens(self) -> None:
        """It binds where it is told to, an address and port or an endpoint string, and says where."""
        for endpoint in ("127.0.0.1:9090", "tcp:9090:interface=127.0.0.1"):
            with capturedLogs() as events:
                self.successResultOf(self.service(endpoint).startService())
            port, _, _, interface = self.reactor.tcpServers.pop()
            assert (interface, port) == ("127.0.0.1", 9090)
            assert [formatEvent(event) for event in events if event["log_namespace"].startswith("dstreams")] == [
                "admin pages: http://127.0.0.1:9090/"
            ]

    def test_refused(self) -> None:
        """A port that can't be bound is an error of that phase which names the key."""
        self.reactor = RefusingReactor()
        error = self.failureResultOf(self.service().startService(), StartupError).value
        assert str(error) == "[bind_listener] failed to bind admin.endpoint 127.0.0.1:9090: Permission denied"

    def test_stops(self) -> None:
        """It closes its port, waits a little for answers under way, and cuts what is left then."""
        service = self.service()
        self.successResultOf(service.startService())
        stopping = service.stopService()
        self.assertNoResult(stopping)
        self.reactor.advance(GRACE_SECONDS)
        assert self.connections.aborted
        self.connections.gone[-1].callback(None)
        self.successResultOf(stopping)

    def test_stops_at_once(self) -> None:
        """Without connections there is nothing to wait for."""
        service = self.service()
        self.successResultOf(service.startService())
        stopping = service.stopService()
        self.connections.gone[-1].callback(None)
        self.successResultOf(stopping)
        assert not self.connections.aborted


class ResolvingTests:
    """What ``admin.endpoint`` means."""

    def test_none(self) -> None:
        """Without the key there is no listener."""
        assert resolve_admin_listener(configured(None), MemoryReactorClock()) is None

    def test_like_any_endpoint(self) -> None:
        """An address is the endpoint that Twisted would make of the same words."""
        reactor = MemoryReactorClock()
        listener = resolve_admin_listener(configured("[::1]:9090"), reactor)
        assert listener is not None
        expected = serverFromString(cast("Any", reactor), "tcp:9090:interface=\\:\\:1")
        assert vars(listener.endpoint) == vars(expected)

    def test_loopback(self) -> None:
        """TCP that names no interface is opened for this machine only."""
        listener = resolve_admin_listener(configured("tcp:9090"), MemoryReactorClock())
        assert listener is not None
        assert vars(listener.endpoint)["_interface"] == "127.0.0.1"

    def test_unusable(self) -> None:
        """An endpoint that nothing can be made of is an error before the server starts."""
        with pytest.raises(StartupError, match="not a usable endpoint") as raised:
            resolve_admin_listener(configured("nonsense:1"), MemoryReactorClock())
        assert raised.value.phase is StartupPhase.RESOLVE_TRANSPORT


def fetch(url: str, host: str | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={} if host is None else {"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def admin_url(server: ChildServer) -> str:
    match = re.search(r"admin pages: (http://\S+)/$", server.log.read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


@pytest.mark.slow
def test_real_server(tmp_path: Path) -> None:
    """Operators get metrics, health and the streams there; clients get none of it but health."""
    variables = {"DS_ADMIN__ENDPOINT": "127.0.0.1:0", "DS_ADMIN__BASE_PATH": "/ops"}
    with twistd_server(tmp_path, environ=variables) as server:
        request = urllib.request.Request(f"{server.url}/v1/stream/a/b", b"x", method="PUT")
        request.add_header("Content-Type", "text/plain")
        urllib.request.urlopen(request, timeout=30).close()
        url = admin_url(server)
        assert fetch(f"{url}/readyz") == (200, b"ready\n")
        status, metrics = fetch(f"{url}/metrics")
        assert status == 200
        assert b'dstreams_http_requests_total{operation="create",status_class="2xx"} 1.0\n' in metrics
        assert b"process_open_fds" in metrics or not Path("/proc/self/fd").exists()
        status, listed = fetch(f"{url}/ops/streams")
        assert [stream["name"] for stream in json.loads(listed)["streams"]] == ["a/b"]
        assert fetch(f"{url}/v1/stream/a/b")[0] == 404
        assert fetch(url.replace("127.0.0.1", "localhost") + "/readyz")[0] == 200
        assert fetch(f"{url}/readyz", "evil.example")[0] == 421
        assert fetch(f"{server.url}/readyz", "evil.example")[0] == 200
        for path in ("/metrics", "/ops/streams"):
            assert fetch(f"{server.url}{path}")[0] == 404
        server.process.terminate()
        assert server.process.wait(60) == 0
