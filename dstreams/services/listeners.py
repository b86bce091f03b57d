"""Where the server listens: from configuration keys to endpoints.

This runs in ``makeService``, before twistd forks and redirects stderr, so that a wrong path or certificate is seen.
Nothing is bound yet.
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
from dstreams.startup import StartupError, StartupPhase

_log = Logger()

_OWN_TLS = ("ssl", PREFIX)
"""Endpoints that bring their own TLS."""


@frozen
class Listener:
    """One place to listen at.

    :param name: what the operator calls it: an address, or an endpoint string.
    :param endpoint: the endpoint, not bound yet.
    """

    name: str
    endpoint: IStreamServerEndpoint

    @property
    def tls(self) -> TlsContext | None:
        """What its connections' TLS is made of, ``None`` when it isn't ours."""
        return self.endpoint.context if isinstance(self.endpoint, TlsServerEndpoint) else None

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken there, ours or Twisted's."""
        return self.tls is not None or _kind(self.name) in _OWN_TLS

    def reload(self) -> None:
        """Read the TLS files anew; when they can't be used, log why and keep the ones in use."""
        context = self.tls
        if context is None:
            return
        try:
            check_tls_files(context.options.files)
            context.reload()
        except StartupError as error:
            _log.error("keeping the TLS certificates of {name}: {why}", name=self.name, why=error.cause)
            return
        _log.info("new TLS connections to {name} use the certificates as they are now", name=self.name)
        for warning in context.warnings:
            _log.warn("{warning}", warning=warning)


def resolve_listeners(config: Config, reactor: object) -> list[Listener]:
    """Everything that the server listens on.

    :raise StartupError: of the phases ``resolve_transport``, ``check_tls_files`` and ``build_tls_context``.
    """
    return [_resolve(name, description, reactor) for name, description in describe_listeners(config)]


def resolve_admin_listener(config: Config, reactor: object) -> Listener | None:
    """Where the admin pages are served, ``None`` when nowhere.

    :raise StartupError: of the phase ``resolve_transport``.
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
    """Go through the same phases on a machine where nothing will be listened on, as far as that goes.

    Endpoints of other kinds than ``ssl`` and ``dstls`` have no files, and may need the reactor or inherited sockets.

    :return: warnings about certificates.
    :raise StartupError: as :func:`resolve_listeners`.
    """
    warnings: list[str] = []
    described = describe_listeners(config)
    if config.transport.mode != "http":
        # Not by the endpoints: below TLS there may be one of those others.
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
"""How many connections may wait to be accepted on ``server.bind_address``.

With Twisted's 50, thousands of readers that come back at once, after a restart, wait a second for every
fifty of them: the kernel drops what doesn't fit, and clients try again after a second."""


def describe_listeners(config: Config) -> list[tuple[str, str]]:
    """The name of every listener, and its endpoint string.

    ``server.endpoints`` replaces ``server.bind_address``. ``transport.mode`` holds for all of them: with ``tls`` or
    ``mtls`` nothing is served in the clear.

    :raise StartupError: of the phase ``resolve_transport``.
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
    """How TLS is spoken, from a configuration whose mode is ``tls`` or ``mtls``."""
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
    """Where a listener can be reached once it is bound.

    :param text: for people: an address and a port, or ``unix:`` and a path.
    :param root: the URL without a path that a client on this machine can use.
    :param note: what the client needs besides the URL; empty when it needs nothing.
    """

    text: str
    root: str
    note: str = ""


def place(address: IAddress, *, secure: bool) -> Place:
    """Where clients find a bound listener.

    :param address: the port's.
    :param secure: whether TLS is spoken there.
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
    """An address that a client on this machine can connect to: the loopback one, where all are bound."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, not bound)
    return BindAddress(loopback.get(address.host, address.host), address.port)


def reason(error: CannotListenError | OSError) -> str:
    """What the operating system says."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    return getattr(cause, "strerror", None) or str(cause)


def _resolve(name: str, description: str, reactor: object) -> Listener:
    try:
        endpoint = serverFromString(cast("Any", reactor), description)
    except StartupError:
        raise
    # Twisted's parsers and others' raise whatever the text, or a file that it names, leads to.
    except Exception as error:
        if isinstance(error, LookupError) and _kind(name) == "systemd":
            raise _unresolved(
                f"{name!r} isn't there: no such socket was inherited; start the server by its socket unit"
            ) from None
        raise _unresolved(f"{name!r} is no usable endpoint: {error}") from error
    return Listener(name, cast("IStreamServerEndpoint", endpoint))


def _kind(endpoint: str) -> str:
    return endpoint.partition(":")[0].lower()


def _unresolved(cause: str) -> StartupError:
    return StartupError(StartupPhase.RESOLVE_TRANSPORT, cause)
