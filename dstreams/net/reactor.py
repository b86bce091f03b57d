"""The reactor ``uvloop``: Twisted's asyncio reactor on uvloop's loop, with connections that are uvloop's own.

Everything but stream connections is inherited: UDP, processes, threads, timers, descriptors.
"""

from __future__ import annotations

import socket
from asyncio import set_event_loop
from collections import deque
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, cast

import uvloop
from twisted.internet import process
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.error import UnsupportedAddressFamily
from twisted.internet.interfaces import IConnector, IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.net.child_signals import Signals
from dstreams.net.connection import Connection
from dstreams.net.tcp import TcpConnector, TcpPort, adopt_tcp
from dstreams.net.unix import UnixConnector, UnixPort, adopt_unix

_log = Logger()

END_SECONDS = 0.005
"""Maximum seconds of one turn of the reactor for notifying protocols when many connections end at once."""

_INTERNET = (socket.AF_INET, socket.AF_INET6)


class UvloopReactor(AsyncioSelectorReactor):
    """Twisted's asyncio reactor on uvloop.

    :param loop: the loop to run on; a new one when it is ``None``.
    """

    def __init__(self, loop: uvloop.Loop | None = None) -> None:
        if loop is None:
            loop = uvloop.new_event_loop()
            set_event_loop(loop)
        loop.set_exception_handler(_report)
        self._connections: set[Connection] = set()
        self._ended: deque[tuple[Connection, Failure]] = deque()
        """Lost connections whose protocols have not been notified yet."""
        self._ending_until = 0.0
        """The time until which protocols are notified in this turn; 0 until the first connection ends."""
        self.soon: Callable[..., object] = loop.call_soon
        """Calls a function in the loop's next turn: 0.3 us, where ``callLater(0, ...)`` takes 5."""
        self._create_task: Callable[[Coroutine[Any, Any, None]], object] = loop.create_task
        self._accept: Callable[..., Any] = loop.connect_accepted_socket
        super().__init__(loop)

    # -- connections

    def adopt(self, connection: Connection) -> None:
        """Have uvloop take over a connection's socket, one turn later."""
        self._connections.add(connection)
        self._create_task(self._take_over(connection))

    def end(self, connection: Connection, reason: Failure) -> None:
        """Notify a connection's protocol that it is lost: now, or in a later turn if many end at once.

        uvloop reports all that the kernel knows of in one turn, and the end of a connection takes 50 us or more.
        """
        now = perf_counter()
        if not self._ending_until:
            self._ending_until = now + END_SECONDS
            self.soon(self._end_some)
        if now < self._ending_until and not self._ended:
            connection.connectionLost(reason)
        else:
            connection.await_end()
            self._ended.append((connection, reason))

    def _end_some(self) -> None:
        self._ending_until = perf_counter() + END_SECONDS
        while self._ended:
            connection, reason = self._ended.popleft()
            connection.connectionLost(reason)
            if self._ended and perf_counter() >= self._ending_until:
                self.soon(self._end_some)
                return
        self._ending_until = 0.0

    def forget(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self._connections.discard(connection)

    async def _take_over(self, connection: Connection) -> None:
        try:
            await self._accept(lambda: connection, connection.socket)
        except (OSError, RuntimeError, ValueError):
            connection.connectionLost(Failure())

    def removeAll(self) -> list[Any]:
        """Return Twisted's selectables and the connections, which all are notified when the reactor stops."""
        return [*super().removeAll(), *self._connections]

    def getReaders(self) -> list[Any]:
        """Return Twisted's readers and the connections that are read from."""
        return [*super().getReaders(), *(each for each in self._connections if each.is_reading)]

    def getWriters(self) -> list[Any]:
        """Return Twisted's writers and the connections with unsent bytes."""
        return [*super().getWriters(), *(each for each in self._connections if each.is_writing)]

    # -- IReactorTCP, IReactorSocket

    def listenTCP(self, port: Any, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> IListeningPort:
        listener = TcpPort(port, factory, backlog, interface, self)
        listener.startListening()
        return cast("IListeningPort", listener)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> IConnector:
        connector = TcpConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return cast("IConnector", connector)

    def adoptStreamPort(
        self,
        fileDescriptor: int,
        addressFamily: int,
        factory: IProtocolFactory,
    ) -> IListeningPort:
        port: Any
        if addressFamily == socket.AF_UNIX:
            port = UnixPort._fromListeningDescriptor(self, fileDescriptor, factory)  # noqa: SLF001
        elif addressFamily in _INTERNET:
            port = TcpPort._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)  # noqa: SLF001
        else:
            raise UnsupportedAddressFamily(addressFamily)
        port.startListening()
        return cast("IListeningPort", port)

    def adoptStreamConnection(
        self,
        fileDescriptor: int,
        addressFamily: int,
        factory: IProtocolFactory,
    ) -> Any:
        if addressFamily == socket.AF_UNIX:
            return adopt_unix(fileDescriptor, factory, self)
        if addressFamily in _INTERNET:
            return adopt_tcp(fileDescriptor, addressFamily, factory, self)
        raise UnsupportedAddressFamily(addressFamily)

    # -- IReactorUNIX

    def listenUNIX(
        self, address: Any, factory: IProtocolFactory, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> IListeningPort:
        port = UnixPort(address, factory, backlog, mode, self, wantPID)
        port.startListening()
        return cast("IListeningPort", port)

    def connectUNIX(self, address: Any, factory: Any, timeout: float = 30, checkPID: bool = False) -> IConnector:
        connector = UnixConnector(address, factory, timeout, self, checkPID)
        connector.connect()
        return cast("IConnector", connector)

    # -- IReactorFromThreads

    # Its classes don't agree on the name of the first argument.
    def callFromThread(self, f: Callable[..., object], *args: object, **kwargs: object) -> None:  # type: ignore[override]
        """Call a function on the reactor's thread. It may be called from any thread and from a signal handler."""
        self._asyncioEventloop.call_soon_threadsafe(_call, f, args, kwargs)

    # -- signals

    def _signalsFactory(self) -> Any:
        """Return a handler for SIGCHLD, because Twisted's uses ``signal.set_wakeup_fd``, which uvloop reserves."""
        return Signals(ReactorBase._signalsFactory(self), self._child_ended)  # noqa: SLF001

    def _child_ended(self) -> None:
        self.callFromThread(process.reapAllProcesses)


def _call(function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    try:
        function(*args, **kwargs)
    except BaseException:
        _log.failure("a call from a thread failed")


def _report(loop: Any, context: dict[str, Any]) -> None:  # noqa: ARG001 (uvloop's)
    """Log what uvloop reports: exceptions of protocols, callbacks and tasks."""
    exception, message = context.get("exception"), context.get("message", "uvloop reports an exception")
    if exception is None:
        _log.error("{message}", message=message)
    else:
        _log.failure("{message}", Failure(exception, type(exception), exception.__traceback__), message=message)


def install() -> None:
    """Install the reactor.

    :raise twisted.internet.error.ReactorAlreadyInstalledError: there is one.
    """
    from twisted.internet.main import installReactor

    installReactor(cast("Any", UvloopReactor()))
