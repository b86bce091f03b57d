"""Converts configuration keys to the endpoints that the server listens on.

This runs in ``makeService``, before twistd forks and redirects stderr, so that the operator sees errors about paths and
certificates. Nothing is bound yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IStreamServerEndpoint
from twisted.logger import Logger

from dstreams.config import BindAddress, Config, parse_bind_address
from dstreams.config.endpoints import on_loopback
from dstreams.net.endpoint import PREFIX, TlsServerEndpoint, describe_tls_endpoint
from dstreams.net.tls import TlsContext, TlsOptions
from dstreams.net.tls_files import TlsFiles, check_tls_files
from dstreams.runtime.startup import StartupError, StartupPhase

_log = Logger()

_OWN_TLS = ("ssl", PREFIX)
"""Endpoint types with their own TLS."""


@frozen
class Listener:
    """An endpoint to listen on.

    :param name: the operator's text for it: an address or an endpoint string.
    :param endpoint: the endpoint, not bound yet.
    """

    name: str
    endpoint: IStreamServerEndpoint

    @property
    def tls(self) -> TlsContext | None:
        """The TLS context of its connections; ``None`` if there is no TLS or if it is not this server's."""
        return self.endpoint.context if isinstance(self.endpoint, TlsServerEndpoint) else None

    @property
    def is_secure(self) -> bool:
        """Whether its connections use TLS, this server's or Twisted's."""
        return self.tls is not None or _kind(self.name) in _OWN_TLS

    def reload(self) -> None:
        """Read the TLS files again. If they cannot be used, log why and keep using the old ones."""
        context = self.tls
        if context is None:
            return
        try:
            check_tls_files(context.options.files)
            context.reload()
        except StartupError as error:
            _log.error("keeping the current TLS certificates of {name}: {why}", name=self.name, why=error.cause)
            return
        _log.info("reloaded the TLS certificates for new connections to {name}", name=self.name)
        for warning in context.warnings:
            _log.warn("{warning}", warning=warning)


def resolve_listeners(config: Config, reactor: object) -> list[Listener]:
    """Return all endpoints for clients.

    :raise StartupError: in the phases ``resolve_transport``, ``check_tls_files`` and ``build_tls_context``.
    """
    return [_resolve(name, description, reactor) for name, description in describe_listeners(config)]


def resolve_admin_listener(config: Config, reactor: object) -> Listener | None:
    """Return the endpoint of the admin pages, or ``None`` if there is none.

    :raise StartupError: in the phase ``resolve_transport``.
    """
    given = config.admin.endpoint
    if given is None:
        return None
    try:
        description = _tcp(parse_bind_address(given))
    except ValueError:
        description = on_loopback(given)
    return _resolve(given, description, reactor)


def check_listeners(config: Config) -> list[str]:
    """Do the checks of the same phases without a reactor, as far as possible, on a machine that will not listen.

    Endpoints other than ``ssl`` and ``dstls`` have no files, and may need the reactor or inherited sockets.

    :return: warnings about certificates.
    :raise StartupError: as for :func:`resolve_listeners`.
    """
    warnings: list[str] = []
    described = describe_listeners(config)
    if config.transport.mode != "http":
        # Check the TLS files directly, because the endpoints below TLS may need the reactor or inherited sockets.
        options = tls_options(config)
        check_tls_files(options.files)
        warnings += TlsContext(options).warnings
        described = []
    if config.admin.endpoint is not None:
        described.append((config.admin.endpoint, on_loopback(config.admin.endpoint)))
    for name, description in described:
        if _kind(description) in _OWN_TLS and "systemd" not in description:
            tls = _resolve(name, description, None).tls
            warnings += [] if tls is None else tls.warnings
    return warnings


BACKLOG = 1024
"""Maximum number of connections that wait to be accepted on ``server.bind_address``.

With Twisted's default of 50, thousands of readers that reconnect at once after a restart would wait a second for every
fifty of them, because the kernel drops the others and clients retry after a second."""


def describe_listeners(config: Config) -> list[tuple[str, str]]:
    """Return the name and the endpoint string of every listener for clients.

    ``server.endpoints`` replaces ``server.bind_address``. ``transport.mode`` applies to all of them: with ``tls`` or
    ``mtls`` nothing is served in plain text.

    :raise StartupError: in the phase ``resolve_transport``.
    """
    options = None if config.transport.mode == "http" else tls_options(config)
    given: Sequence[str] = config.server.endpoints
    if not given:
        address = parse_bind_address(config.server.bind_address)
        where = f"{_tcp(address)}:backlog={BACKLOG}"
        tls = None if options is None else describe_tls_endpoint(where.removeprefix("tcp:"), options)
        return [(str(address), tls or where)]
    if options is None:
        return [(endpoint, endpoint) for endpoint in given]
    for endpoint in given:
        if _kind(endpoint) in _OWN_TLS:
            raise _unresolved(
                f"server.endpoints has {endpoint!r}, which brings its own TLS, but transport.mode is"
                f" {config.transport.mode}: give a plain endpoint such as tcp:4437, or set transport.mode = http"
            )
    wrapped = [describe_tls_endpoint(f"endpoint={quoteStringArgument(endpoint)}", options) for endpoint in given]
    return list(zip(given, wrapped, strict=True))


def _tcp(address: BindAddress) -> str:
    return f"tcp:{address.port}:interface={quoteStringArgument(address.host)}"


def tls_options(config: Config) -> TlsOptions:
    """Return the TLS options of a configuration whose mode is ``tls`` or ``mtls``."""
    tls = config.transport.tls
    assert tls.cert_path is not None
    assert tls.key_path is not None
    return TlsOptions(
        files=TlsFiles(tls.cert_path, tls.key_path, tls.client_ca_path),
        min_version=tls.min_version,
        max_version=tls.max_version,
        protocols=[name.encode("ascii") for name in tls.alpn_protocols],
        handshake_timeout=float(tls.handshake_timeout_secs),
    )


@frozen
class Place:
    """The address of a bound listener, for messages.

    :param text: an address and a port, or ``unix:`` and a path.
    :param root: the URL without a path for a client on this machine.
    :param note: what the client needs besides the URL; usually empty.
    """

    text: str
    root: str
    note: str = ""


def place(address: IAddress, *, secure: bool) -> Place:
    """Describe where clients can reach a bound listener.

    :param address: the address of the bound port.
    :param secure: whether it uses TLS.
    """
    scheme = "https" if secure else "http"
    if isinstance(address, IPv4Address | IPv6Address):
        bound = BindAddress(address.host, address.port)
        return Place(str(bound), f"{scheme}://{reachable(bound)}")
    if isinstance(address, UNIXAddress):
        name = address.name or b""
        path = "unix:" + ("@" + name[1:].decode() if name.startswith(b"\0") else name.decode())
        return Place(path, f"{scheme}://localhost", f" over {path}")
    return Place(str(address), f"{scheme}://localhost", f" over {address}")


def reachable(address: BindAddress) -> BindAddress:
    """Return an address that a client on this machine can connect to: loopback if all interfaces are bound."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, not bound)
    return BindAddress(loopback.get(address.host, address.host), address.port)


def reason(error: CannotListenError | OSError) -> str:
    """Return the operating system's message for an error."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    return getattr(cause, "strerror", None) or str(cause)


def _resolve(name: str, description: str, reactor: object) -> Listener:
    try:
        endpoint = serverFromString(cast("Any", reactor), description)
    except StartupError:
        raise
    # Parsers of Twisted and of plugins raise any exception that the text, or a file that it names, causes.
    except Exception as error:
        if isinstance(error, LookupError) and _kind(name) == "systemd":
            raise _unresolved(
                f"{name!r} was not found: no such socket was inherited; start the server with its socket unit"
            ) from None
        raise _unresolved(f"{name!r} is not a usable endpoint: {error}") from error
    return Listener(name, cast("IStreamServerEndpoint", endpoint))


def _kind(endpoint: str) -> str:
    return endpoint.partition(":")[0].lower()


def _unresolved(cause: str) -> StartupError:
    return StartupError(StartupPhase.RESOLVE_TRANSPORT, cause)
