"""The server as a part of another program: how it opens, ends, and what it says meanwhile."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.server import Site

import dstreams
from dstreams.config.schema import Config, Server
from dstreams.config.schema import Storage as StorageConfig
from dstreams.embedding import FLUSH_SECONDS, MountedStreams
from dstreams.storage.interface import StorageError
from tests.support.engine import DelayedStorage, failures  # noqa: F401

pytestmark = pytest.mark.usefixtures("failures")

HEAD = b"Host: h\r\nContent-Type: text/plain\r\n"
CONFIG = Config(server=Server(shutdown_grace_secs=5))


class Connection(StringTransport):
    """A client's connection."""

    def __init__(self, server: Embedded) -> None:
        super().__init__()
        self.protocol = server.factory.buildProtocol(None)
        self.protocol.makeConnection(self)

    def send(self, method: bytes, target: bytes, body: bytes = b"") -> None:
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        self.protocol.dataReceived(b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (method, target, HEAD, length, body))

    @property
    def status(self) -> int:
        """Of the first answer; 0 while there is none."""
        return int(self.value().split()[1]) if self.value() else 0

    def abortConnection(self) -> None:
        self.disconnecting = True


class Embedded:
    """A server in one of the two forms, over storage that commits when it is told to.

    :param build: ``dstreams.build_resource`` or ``dstreams.build_site``.
    """

    def __init__(self, build: Any) -> None:
        self.clock = Clock()
        self.storage = DelayedStorage()
        self.ready = True
        self.shutdown: Deferred[str] = Deferred()
        self.server = build(self.storage, CONFIG, reactor=self.clock, ready=lambda: self.ready, shutdown=self.shutdown)
        self.factory: Any = (
            Site(self.server, reactor=self.clock) if isinstance(self.server, MountedStreams) else self.server.factory
        )

    def ask(self, method: bytes, target: bytes, body: bytes = b"") -> Connection:
        """A new connection that asks for something."""
        connection = Connection(self)
        connection.send(method, target, body)
        self.clock.advance(0.1)
        return connection

    def create(self) -> None:
        """The stream ``s``."""
        made = self.ask(b"PUT", b"/v1/stream/s")
        self.storage.finish()
        assert made.status == 201
        self.lose(made)

    def close(self) -> list[None]:
        """Begin to close; ``[None]`` when that has ended."""
        closed: list[None] = []
        self.server.close().addCallback(closed.append)
        return closed

    def lose(self, *connections: Connection) -> None:
        """The connections are gone, as after an answer that was the last one."""
        for connection in connections:
            connection.protocol.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(FLUSH_SECONDS)


@pytest.fixture(params=["resource", "site"])
def embedded(request: pytest.FixtureRequest) -> Embedded:
    """The server in both forms."""
    return Embedded(dstreams.build_resource if request.param == "resource" else dstreams.build_site)


class EmbeddingTests:
    """What both forms promise."""

    def test_opens(self, embedded: Embedded) -> None:
        """It is open when it is returned."""
        embedded.create()
        assert embedded.server.streams.statistics().streams == 1

    def test_readiness(self, embedded: Embedded) -> None:
        """It is ready when the application says so and the storage hasn't failed."""
        assert embedded.ask(b"GET", b"/readyz").status == 200
        embedded.ready = False
        assert embedded.ask(b"GET", b"/readyz").status == 503
        embedded.ready, embedded.storage.failure = True, "No space left on device"
        assert embedded.ask(b"GET", b"/readyz").status == 503

    def test_shutdown(self, embedded: Embedded) -> None:
        """The application's shutdown ends waiting reads, keeps its own result, and leaves the storage open."""
        embedded.create()
        waiting = embedded.ask(b"GET", b"/v1/stream/s?offset=now&live=long-poll")
        results: list[str] = []
        embedded.shutdown.callback("result")
        embedded.shutdown.addCallback(results.append)
        assert results == ["result"]
        assert waiting.status == 204
        assert not embedded.storage.closed
        assert embedded.ask(b"GET", b"/v1/stream/s").status == 200

    def test_close(self, embedded: Embedded) -> None:
        """Closing ends waiting reads, then closes the storage."""
        embedded.create()
        waiting = embedded.ask(b"GET", b"/v1/stream/s?offset=now&live=long-poll")
        closed = embedded.close()
        assert waiting.status == 204
        embedded.lose(waiting)
        assert closed == [None]
        assert embedded.storage.closed
        assert embedded.close() == [None]

    def test_close_waits(self, embedded: Embedded) -> None:
        """What is being stored is answered before the storage closes."""
        embedded.create()
        appending = embedded.ask(b"POST", b"/v1/stream/s", b"x")
        closed = embedded.close()
        embedded.clock.advance(4)
        assert (appending.status, closed, embedded.storage.closed) == (0, [], False)
        embedded.storage.finish()
        assert appending.status == 204
        embedded.lose(appending)
        assert closed == [None]
        assert embedded.storage.closed

    def test_grace_time(self, embedded: Embedded) -> None:
        """A request that isn't answered within the grace time is cut; its commit is waited for all the same."""
        embedded.create()
        appending = embedded.ask(b"POST", b"/v1/stream/s", b"x")
        closed = embedded.close()
        embedded.clock.advance(5)
        assert appending.disconnecting
        embedded.lose(appending)
        assert closed == []
        embedded.storage.finish()
        assert closed == [None]


@pytest_twisted.ensureDeferred
async def test_site_on_a_port(tmp_path: Path) -> None:
    """On the real reactor, with files: what was stored by one site is there in the next."""

    async def ask(method: str, body: bytes | None = None) -> bytes:
        site = dstreams.build_site(dstreams.FileStorage.at(str(tmp_path / "data"), reactor))
        port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(site.factory)
        url = f"http://127.0.0.1:{port.getHost().port}/v1/stream/s"
        request = urllib.request.Request(url, body, {"Content-Type": "text/plain"}, method=method)

        def send() -> bytes:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found: bytes = answer.read()
            return found

        try:
            return await deferToThread(send)
        finally:
            await maybeDeferred(port.stopListening)
            await site.close()

    from twisted.internet import reactor

    assert await ask("PUT", b"kept") == b""
    assert await ask("GET") == b"kept"


class MountedTests:
    """What holds for the resource only."""

    def test_closed(self) -> None:
        """Requests that come after the end are refused, and don't touch the storage."""
        embedded = Embedded(dstreams.build_resource)
        embedded.create()
        closed = embedded.close()
        embedded.clock.advance(FLUSH_SECONDS)
        assert closed == [None]
        assert embedded.ask(b"GET", b"/v1/stream/s").status == 503


class BuildTests:
    """Where the storage comes from."""

    def test_default(self) -> None:
        """Without storage and configuration the streams are in memory."""
        assert dstreams.build_resource(reactor=Clock()).streams.statistics().streams == 0

    @pytest.mark.parametrize("build", [dstreams.build_resource, dstreams.build_site])
    def test_storage_of_the_configuration(self, build: Any, tmp_path: Any) -> None:
        """Without storage it is what the configuration describes, not memory; an error says what to do."""
        (tmp_path / "taken").write_text("")
        config = Config(storage=StorageConfig(mode="file-durable", data_dir=str(tmp_path / "taken" / "data")))
        with pytest.raises(StorageError):
            build(config=config)
