"""The server as a part of another process: as a twisted.web resource, or as a site with its own ports.

Both are open when they are returned, and close in the same steps: live readers end, requests in flight may finish, and
then the storage is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.task import deferLater
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as WebRequest

from dstreams.config.schema import Config
from dstreams.http.resource import StreamsResource, read_request, write_response
from dstreams.runtime.shutdown import ShutdownDeadline, finish
from dstreams.server import Server, assemble, build_storage
from dstreams.storage.interface import Storage
from dstreams.streams.streams import Streams

FLUSH_SECONDS = 0.1
"""Seconds that the last responses get to be sent. twisted.web reports when a response is written, not when it has been
sent, and a reactor that stops drops what is still buffered."""


def build_resource(
    storage: Storage | None = None,
    config: Config | None = None,
    *,
    reactor: Any = None,
    ready: Callable[[], bool] = lambda: True,
    shutdown: Deferred[Any] | None = None,
) -> MountedStreams:
    """Build the server as a twisted.web resource, to be mounted in another site or klein application.

    It serves the streams under ``http.stream_base_path`` and the health pages, both relative to where it is mounted.
    Keys about the process, its listeners and TLS have no effect, because the application controls those.

    :param storage: the storage of the streams, not opened yet; default: the storage that ``config.storage`` describes.
    :param config: default: all defaults, including memory storage. It is not validated here: see
        :func:`dstreams.validate_config`.
    :param reactor: default: the installed reactor.
    :param ready: whether the application is ready for traffic, for ``/readyz``, which is also 503 if the storage has
        failed.
    :param shutdown: fires when the application begins to stop; live readers then end, as with
        :meth:`MountedStreams.end_live`. The caller must still call :meth:`MountedStreams.close`.
    :raise StorageError: if the storage cannot be opened; the message says what to do.
    """
    reactor, config = _reactor(reactor), config or Config()
    server = _open(storage, config, reactor, ready)
    resource = MountedStreams(server, config.server.shutdown_grace_secs, reactor)
    _on(shutdown, resource.end_live)
    return resource


def build_site(
    storage: Storage | None = None,
    config: Config | None = None,
    *,
    reactor: Any = None,
    ready: Callable[[], bool] = lambda: True,
    shutdown: Deferred[Any] | None = None,
) -> StreamsSite:
    """Build the server with its own HTTP channel, which is several times as fast as twisted.web's, for separate ports.

    The arguments are those of :func:`build_resource`.

    :raise StorageError: if the storage cannot be opened; the message says what to do.
    """
    reactor, config = _reactor(reactor), config or Config()
    server = _open(storage, config, reactor, ready)
    site = StreamsSite(server, config.server.shutdown_grace_secs, reactor)
    _on(shutdown, site.end_live)
    return site


class MountedStreams(StreamsResource):
    """The result of :func:`build_resource`: answers all requests below the path where it is mounted.

    :param server: the server's parts; the storage is open.
    :param grace: maximum seconds that requests may take to finish at shutdown.
    """

    def __init__(self, server: Server, grace: float, reactor: IReactorTime) -> None:
        super().__init__(server.application, server.streams, server.instruments.observer)
        self._grace = grace
        self._reactor = reactor
        self._requests = _Requests()
        self._is_closing = False
        self._is_closed = False

    def render(self, request: WebRequest) -> int:
        """Answer a request; the application handles all methods."""
        if self._is_closed:
            write_response(request, self._exchange.refuse(read_request(request), 503, "The server has stopped"))
            return NOT_DONE_YET
        self._requests.add(request)
        return super().render(request)

    def end_live(self) -> None:
        """Answer all waiting long-polls and end all SSE streams. Later ones get the available data and do not wait."""
        self.streams.end_live()

    def close(self) -> Deferred[None]:
        """End live readers, let requests finish within ``server.shutdown_grace_secs``, and close the storage.

        Requests get 503 from the time when the storage begins to close.

        :return: fires when everything acknowledged has been stored. A second call does nothing.
        """
        if self._is_closing:
            return succeed(None)
        self._is_closing = True
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await finish(self._requests, self._grace, ShutdownDeadline(self._reactor), self.end_live)
        await deferLater(self._reactor, FLUSH_SECONDS)
        self._is_closed = True
        await maybeDeferred(self.streams.close)


class _Requests:
    """The requests in flight of a mounted resource; at shutdown they stand for the connections, which are not ours."""

    def __init__(self) -> None:
        self._requests: set[WebRequest] = set()
        self._waiting: list[Deferred[None]] = []

    def add(self, request: WebRequest) -> None:
        """Note a request until it is finished."""
        self._requests.add(request)
        request.notifyFinish().addBoth(self._finished, request)

    def drain(self) -> Deferred[None]:
        """Fire when no request is in flight."""
        if not self._requests:
            return succeed(None)
        done: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(done)
        return done

    def abort(self) -> None:
        """Abort the connections of the requests in flight."""
        for request in list(self._requests):
            _abort(request)

    def _finished(self, _: object, request: WebRequest) -> None:
        self._requests.discard(request)
        if not self._requests:
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)


class StreamsSite:
    """The result of :func:`build_site`: factories for the application's endpoints.

    :ivar factory: speaks HTTP/1.1, for ports without TLS.
    :ivar streams: the engine.
    """

    def __init__(self, server: Server, grace: float, reactor: IReactorTime) -> None:
        self.streams: Streams = server.streams
        self._site = server.site
        self.factory: IProtocolFactory = self._site.http1
        self._grace = grace
        self._reactor = reactor
        self._is_closed = False

    def over_tls(self, protocols: Sequence[bytes] = (b"h2", b"http/1.1")) -> IProtocolFactory:
        """Return a factory for ports that do TLS themselves; it speaks the protocol that the handshake selects.

        :param protocols: the names that the port offers with ALPN.
        """
        return self._site.over_tls(protocols)

    def end_live(self) -> None:
        """Answer all waiting long-polls and end all SSE streams; each connection's next response is its last."""
        self._site.retire()
        self.streams.end_live()

    def close(self) -> Deferred[None]:
        """End live readers, let requests finish within ``server.shutdown_grace_secs``, and close the storage.

        The caller must close the ports first.

        :return: fires when everything acknowledged has been stored. A second call does nothing.
        """
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        await finish(self._site, self._grace, ShutdownDeadline(self._reactor), self.streams.end_live)
        await maybeDeferred(self.streams.close)


def _open(storage: Storage | None, config: Config, reactor: Any, ready: Callable[[], bool]) -> Server:
    server = assemble(storage or build_storage(config, reactor), config, reactor, ready)
    server.streams.open()
    return server


def _reactor(given: Any) -> Any:
    if given is not None:
        return given
    from twisted.internet import reactor

    return reactor


def _on(shutdown: Deferred[Any] | None, end_live: Callable[[], None]) -> None:
    def begun(result: object) -> object:
        end_live()
        return result  # other callbacks of the Deferred get its result unchanged

    if shutdown is not None:
        shutdown.addCallback(begun)


def _abort(request: WebRequest) -> None:
    abort = getattr(request.transport, "abortConnection", None)  # the transport of an HTTP/2 stream has no such method
    (abort or request.loseConnection)()
