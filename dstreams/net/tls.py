"""TLS on the server's side: the context of connections, and the transport.

Twisted's TLS does the work. Added here are the limit on how long a handshake may take, certificates that can be
exchanged while connections live, and an end that doesn't wait for clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from attrs import frozen
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IDelayedCall,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from dstreams.net.tls_files import TlsFiles, TlsMaterial, build_error, read_tls_files

_log = Logger()

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
"""The versions that can be configured. Older ones are insecure (RFC 8996)."""

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""The ciphers of TLS 1.2: those with forward secrecy and authenticated encryption (RFC 9325 section 4.2), which are
also those that HTTP/2 allows (RFC 9113 section 9.2.2). Those of TLS 1.3 are all good."""

HANDSHAKE_TIMEOUT = 10.0
"""Maximum seconds of a handshake, by default."""

REFUSAL_SECONDS = 1.0
"""Maximum seconds for a client that was rejected in the handshake to read the reason and close."""

QUIET_SECONDS = 5.0
"""Seconds after a logged failed handshake during which others are only counted, because scanners fail all day."""


@frozen
class TlsOptions:
    """The TLS options of a listener.

    :param files: its certificate, key, and the authorities of client certificates.
    :param min_version: ``"1.2"`` or ``"1.3"``.
    :param max_version: the same.
    :param protocols: the application protocols that are spoken, the best first (ALPN names, RFC 7301). A client
        that offers only others is refused; one that offers none gets the default.
    :param handshake_timeout: how many seconds a client may take to complete the handshake.
    """

    files: TlsFiles
    min_version: str = "1.2"
    max_version: str = "1.3"
    protocols: Sequence[bytes] = (b"http/1.1",)
    handshake_timeout: float = HANDSHAKE_TIMEOUT


@implementer(IOpenSSLServerConnectionCreator)
class TlsContext:
    """Makes the TLS part of new connections, from the files as last read.

    :param options: how TLS is spoken.
    :raise StartupError: of the phase ``build_tls_context``, when the files can't be used.
    """

    def __init__(self, options: TlsOptions) -> None:
        self.options = options
        self.warnings: Sequence[str] = ()
        self.reload()

    def reload(self) -> None:
        """Read the files again. Open connections keep the previous ones.

        :raise StartupError: when the files can't be used; those that were read last stay in use.
        """
        material = read_tls_files(self.options.files)
        self._context = build_context(self.options, material)
        self.warnings = material.warnings

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002, N802
        """Return the TLS part of one connection."""
        return SSL.Connection(self._context, None)


def build_context(options: TlsOptions, material: TlsMaterial) -> SSL.Context:
    """Return an OpenSSL context for a server.

    :raise StartupError: of the phase ``build_tls_context``, when OpenSSL doesn't take it.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(VERSIONS[options.min_version])
    context.set_max_proto_version(VERSIONS[options.max_version])
    # A resumed session would go on with a client certificate, and with authorities, that a reload has replaced.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    # Idle connections keep no buffers: 30 KB less for each waiting reader.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    try:
        context.set_cipher_list(CIPHERS)
        context.use_certificate(material.chain[0])
        for certificate in material.chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(cast("Any", material.key))
        context.check_privatekey()
        if material.client_cas:
            _require_client_certificates(context, material.client_cas)
    except (SSL.Error, crypto.Error, TypeError) as error:
        raise build_error(f"{options.files.certificate}: {describe(error)}") from error
    context.set_alpn_select_callback(_selector(options.protocols))
    return context


def describe(error: BaseException) -> str:
    """Return OpenSSL's error on one line."""
    queue = error.args[0] if error.args else ()
    if isinstance(queue, list) and queue:
        return "; ".join(str(entry[-1]) for entry in queue)
    return " ".join(str(error).split()) or type(error).__name__


def _require_client_certificates(context: SSL.Context, authorities: Sequence[Any]) -> None:
    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)
    # An organisation may trust one of its intermediate authorities and not the whole tree.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _accept_verified)


def _accept_verified(
    connection: SSL.Connection,  # noqa: ARG001 (pyOpenSSL's arguments)
    certificate: crypto.X509,  # noqa: ARG001
    error: int,  # noqa: ARG001
    depth: int,  # noqa: ARG001
    verified: int,
) -> bool:
    return bool(verified)


def _selector(protocols: Sequence[bytes]) -> Any:
    """Return a callback that chooses the server's first protocol that the client offers (RFC 7301 section 3.2)."""

    def select(connection: SSL.Connection, offered: Sequence[bytes]) -> bytes:  # noqa: ARG001 (pyOpenSSL's)
        for protocol in protocols:
            if protocol in offered:
                return protocol
        # pyOpenSSL sends the alert that the RFC asks for, and gives the error back to Twisted, which closes.
        raise SSL.Error([("SSL routines", "", "no application protocol")])

    return select


class TlsConnection(BufferingTLSTransport):
    """Twisted's TLS transport, with a time limit for the handshake, and a close that does not wait for the client."""

    factory: TlsFactory
    _limit: IDelayedCall | None = None
    _refused: bool = False
    _gone: bool = False
    """Whether the connection below is lost."""

    def makeConnection(self, transport: ITransport) -> None:
        """Start the handshake and its timer."""
        limit = self.factory.handshake_timeout
        self._limit = self.factory.clock.callLater(limit, self._time_out)
        super().makeConnection(transport)

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802
        """See ITCPTransport, which Twisted's TLS claims to be, whatever it runs over."""
        below: Any = self.transport
        if ITCPTransport.providedBy(below):
            below.setTcpNoDelay(enabled)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Log from time to time why handshakes fail."""
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        error = self._reason
        if not self._handshakeDone and error is not None and error.check(SSL.Error):
            self.factory.handshake_failed(self, describe(error.value))
        self._gone = True
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """Process the received bytes, unless the client was rejected."""
        if not self._refused:
            super().dataReceived(data)

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:  # noqa: N802
        """Handle the end of TLS. If the handshake has failed, give the client time to read the reason.

        A client of TLS 1.3 sends its first request before it can know that its certificate was refused. Were the
        connection closed at once, that request would make the system reset it, and the client lose the alert.
        """
        below: Any = self.transport
        half_close = getattr(below, "loseWriteConnection", None)
        if self._handshakeDone or reason is None or half_close is None or self._gone:
            super()._tlsShutdownFinished(reason)
            return
        self._refused = self._lostTLSConnection = True
        self._reason = reason
        self._flushSendBIO()
        half_close()
        if self._limit is not None:
            self._limit.cancel()
        self._limit = self.factory.clock.callLater(REFUSAL_SECONDS, self._lose_refused)

    def _lose_refused(self) -> None:
        self._limit = None
        cast("ITransport", self.transport).loseConnection()

    def _time_out(self) -> None:
        self._limit = None
        if not self._handshakeDone:
            limit = self.factory.handshake_timeout
            self.factory.handshake_failed(self, f"not complete after {limit:g} s")
            self.abortConnection()

    def _shutdownTLS(self) -> None:  # noqa: N802
        """Send a close notification, and close without waiting for the client's.

        Twisted's waits: an idle client that doesn't look would hold up the end of a connection, and of the server,
        for as long as it likes. Nobody has to wait (RFC 8446 section 6.1).
        """
        super()._shutdownTLS()
        if self._handshakeDone:
            cast("ITransport", self.transport).loseConnection()


class TlsFactory(TLSMemoryBIOFactory):
    """Puts TLS between a listener and another factory's protocols.

    :param context: makes the TLS side of connections.
    :param factory: makes the protocols that speak inside.
    :param clock: the reactor.
    """

    protocol = TlsConnection

    def __init__(self, context: TlsContext, factory: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(cast("Any", context), False, factory, clock)
        self.handshake_timeout = context.options.handshake_timeout
        self.clock = clock
        self._quiet_until = 0.0
        self._not_logged = 0

    def handshake_failed(self, connection: TlsConnection, why: str) -> None:
        """Log a failed handshake; others soon after it are only counted."""
        now = self.clock.seconds()
        if now < self._quiet_until:
            self._not_logged += 1
            return
        self._quiet_until = now + QUIET_SECONDS
        peer: Any = cast("ITransport", connection.transport).getPeer()
        client = getattr(peer, "host", None) or "a local client"
        _log.info("TLS handshake failed: {client}: {why}", client=client, why=why)
        if self._not_logged:
            _log.info("{count} other TLS handshakes have failed since the last message", count=self._not_logged)
            self._not_logged = 0
