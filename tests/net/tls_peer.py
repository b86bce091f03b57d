"""A TLS client without a socket, against a server's factory on a fake transport."""

from __future__ import annotations

import ssl
from pathlib import Path

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dstreams.net.tls import TlsConnection, TlsContext, TlsFactory, TlsOptions
from dstreams.net.tls_files import TlsFiles
from tests.support.certificates import Identity


class Recorder(Protocol):
    """Speaks inside TLS: notes what it is told."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: list[Failure] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason)


def options(identity: Identity, *, client_ca: Path | None = None, **others: object) -> TlsOptions:
    """A listener's TLS options."""
    files = TlsFiles(str(identity.certificate), str(identity.key), None if client_ca is None else str(client_ca))
    return TlsOptions(files, **others)  # type: ignore[arg-type]


def client_context(
    authority: Path,
    *,
    identity: Identity | None = None,
    lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    protocols: tuple[str, ...] = (),
) -> ssl.SSLContext:
    """What a client believes and offers."""
    context = ssl.create_default_context(cafile=str(authority))
    context.minimum_version, context.maximum_version = lowest, highest
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@define(eq=False)
class Meeting:
    """One connection: a client's side, and the server's.

    :param context: the server's.
    :param client: the client's.
    """

    context: TlsContext
    client: ssl.SSLContext
    factory: IProtocolFactory = field(factory=lambda: Factory.forProtocol(Recorder))
    clock: Clock = field(factory=Clock)
    tls: TlsFactory = field(init=False)
    transport: StringTransport = field(init=False)
    server: TlsConnection = field(init=False)
    _incoming: ssl.MemoryBIO = field(factory=ssl.MemoryBIO, init=False)
    _outgoing: ssl.MemoryBIO = field(factory=ssl.MemoryBIO, init=False)
    peer: ssl.SSLObject = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tls = TlsFactory(self.context, self.factory, self.clock)
        self.connect()

    def connect(self) -> None:
        """The client has connected; nothing is said yet."""
        address = IPv4Address("TCP", "192.0.2.7", 50_000)
        self.transport = StringTransport(peerAddress=address)
        server = self.tls.buildProtocol(address)
        assert isinstance(server, TlsConnection)
        self.server = server
        server.makeConnection(self.transport)
        self.peer = self.client.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    @property
    def inside(self) -> Recorder:
        """What speaks inside TLS."""
        inner = self.server.wrappedProtocol
        assert isinstance(inner, Recorder)
        return inner

    def shake_hands(self) -> None:
        """Complete the handshake; raises the client's error when it doesn't come about."""
        while True:
            try:
                self.peer.do_handshake()
            except ssl.SSLWantReadError:
                if not self.turn():
                    raise
            else:
                break
        self.turn()

    def turn(self) -> bool:
        """Carry what either side has to say to the other; whether the server said anything."""
        data = self._outgoing.read()
        if data and not self.transport.disconnected:
            self.server.dataReceived(data)
        self.clock.advance(0)  # small writes leave in the next turn
        said: bytes = self.transport.value()
        self.transport.clear()
        self._incoming.write(said)
        return bool(said)

    def read(self) -> bytes:
        """What the client reads; ``b""`` at a proper end."""
        self.turn()
        return self.peer.read(65_536)

    def say(self, data: bytes) -> None:
        """Let the client send something."""
        self.peer.write(data)
        self.turn()

    def lose(self) -> None:
        """The server's transport is gone, as it has asked for."""
        self.server.connectionLost(connectionDone)
