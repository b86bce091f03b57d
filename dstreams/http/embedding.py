"""The server as a part of another process: as a twisted.web resource, or as a site with its own ports.

Both are open when they are returned, and close in the same steps: live readers end, requests in flight may finish, and
then the storage is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.task import deferLater
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as WebRequest

from dstreams.config.schema import Config
from dstreams.http.assembly import Assembly, assemble, build_storage, http_limits
from dstreams.http.resource import StreamsResource, read_request, write_response
from dstreams.http.site import HttpSite
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
    assembly = _open(storage, config, reactor, ready)
    resource = MountedStreams(assembly, config.server.shutdown_grace_secs, reactor)
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
    assembly = _open(storage, config, reactor, ready)
    site = StreamsSite(assembly, config, reactor)
    _on(shutdown, site.end_live)
    return site


class MountedStreams(StreamsResource):
    """The result of :func:`build_resource`: answers all requests below the path where it is mounted.

    :param assembly: the server's parts; the storage is open.
    :param grace: maximum seconds that requests may take to finish at shutdown.
    """

    def __init__(self, assembly: Assembly, grace: float, reactor: IReactorTime) -> None:
        super().__init__(assembly.application, assembly.streams, assembly.instruments.observer)
        self._grace = grace
        self._reactor = reactor
        self._under_way: set[WebRequest] = set()
        self._idle: Deferred[None] | None = None
        self._is_closing = False
        self._is_closed = False

    def render(self, request: WebRequest) -> int:
        """Answer a request; the application handles all methods."""
        if self._is_closed:
            write_response(request, self._application.refuse(read_request(request), 503, "The server has stopped"))
            return NOT_DONE_YET
        self._under_way.add(request)
        request.notifyFinish().addBoth(self._finished, request)
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
        self.end_live()
        if self._under_way:
            self._idle = Deferred()
            try:
                await _within(self._idle, self._grace, self._reactor)
            except DeferredTimeout:
                for request in list(self._under_way):
                    _cut(request)
        await deferLater(self._reactor, FLUSH_SECONDS)
        self._is_closed = True
        await maybeDeferred(self.streams.close)

    def _finished(self, _: object, request: WebRequest) -> None:
        self._under_way.discard(request)
        if not self._under_way and self._idle is not None:
            idle, self._idle = self._idle, None
            idle.callback(None)


class StreamsSite:
    """The result of :func:`build_site`: factories for the application's endpoints.

    :ivar factory: speaks HTTP/1.1, for ports without TLS.
    :ivar streams: the engine.
    """

    def __init__(self, assembly: Assembly, config: Config, reactor: IReactorTime) -> None:
        self.streams: Streams = assembly.streams
        instruments = assembly.instruments
        self._site = HttpSite(assembly.application, assembly.wheel, http_limits(config), instruments.observer)
        if instruments.sources is not None:
            instruments.sources.connections.append(self._site.statistics)
        self.factory: IProtocolFactory = self._site.http1
        self._grace = config.server.shutdown_grace_secs
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
        drained = self._site.drain()
        self.streams.end_live()
        try:
            await _within(drained, self._grace, self._reactor)
        except DeferredTimeout:
            self._site.abort()
            await self._site.drain()
        await maybeDeferred(self.streams.close)


def _open(storage: Storage | None, config: Config, reactor: Any, ready: Callable[[], bool]) -> Assembly:
    def is_ready() -> bool:
        return ready() and assembly.streams.failure is None

    assembly = assemble(storage or build_storage(config, reactor), config, reactor, is_ready)
    assembly.streams.open()
    return assembly


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


def _cut(request: WebRequest) -> None:
    abort = getattr(request.transport, "abortConnection", None)  # the transport of an HTTP/2 stream has no such method
    (abort or request.loseConnection)()


def _within(event: Deferred[None], seconds: float, reactor: IReactorTime) -> Deferred[None]:
    return event.addTimeout(seconds, cast("Any", reactor))
