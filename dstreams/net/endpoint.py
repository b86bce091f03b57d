r"""The endpoint ``dstls``: TLS over any other stream endpoint, described by a string.

Twisted's own ``ssl:`` endpoint knows neither application protocols nor client certificates, and reads its files
once. The strings here are for ``twistd`` and everything else that takes Twisted's endpoint strings::

    dstls:4437:interface=127.0.0.1:cert=/etc/tls/cert.pem:key=/etc/tls/key.pem:alpn=h2,http/1.1
    dstls:endpoint=systemd\:domain=INET\:index=0:cert=cert.pem:key=key.pem:clientCA=clients.pem
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorTime, IStreamServerEndpoint
from zope.interface import implementer

from dstreams.net.tls import HANDSHAKE_TIMEOUT, VERSIONS, TlsContext, TlsFactory, TlsOptions
from dstreams.net.tls_files import TlsFiles, check_tls_files

PREFIX = "dstls"
"""The first part of the endpoint's strings."""

ARGUMENTS = (
    "port",
    "interface",
    "backlog",
    "endpoint",
    "cert",
    "key",
    "clientCA",
    "min",
    "max",
    "alpn",
    "handshakeTimeout",
)
"""The parameters of a string; the first may be given without its name."""


@implementer(IStreamServerEndpoint)
class TlsServerEndpoint:
    """Listens on another endpoint, with TLS.

    :param reactor: times the handshakes.
    :param endpoint: where to listen.
    :param context: makes the TLS side of the connections.
    """

    def __init__(self, reactor: IReactorTime, endpoint: IStreamServerEndpoint, context: TlsContext) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self.context = context

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: N803 (Twisted's name)
        """Start to listen.

        :return: fires with the port, whose address is that of the endpoint below.
        """
        factory = TlsFactory(self.context, protocolFactory, self._reactor)
        return self._endpoint.listen(factory)


def parse_tls_endpoint(reactor: Any, *given: str, **named: str) -> TlsServerEndpoint:
    """Return the endpoint described by the parts of a string.

    :raise ValueError: when the string has no sense.
    :raise StartupError: when the files aren't there or can't be used.
    """
    arguments = _arguments(given, named)
    options = TlsOptions(
        files=TlsFiles(_needed(arguments, "cert"), _needed(arguments, "key"), arguments.get("clientCA")),
        min_version=_version(arguments, "min", "1.2"),
        max_version=_version(arguments, "max", "1.3"),
        protocols=_protocols(arguments.get("alpn", "http/1.1")),
        handshake_timeout=_seconds(arguments, "handshakeTimeout", HANDSHAKE_TIMEOUT),
    )
    if options.min_version > options.max_version:
        raise ValueError(f"{PREFIX}: min={options.min_version} is above max={options.max_version}")
    below = cast("IStreamServerEndpoint", serverFromString(reactor, _below(arguments)))
    check_tls_files(options.files)
    return TlsServerEndpoint(reactor, below, TlsContext(options))


def describe_tls_endpoint(where: str, options: TlsOptions) -> str:
    """Return the string of an endpoint with TLS.

    :param where: the rest of the string, which says where it listens: ``4437:interface=127.0.0.1``, or
        ``endpoint=`` and another endpoint's string, quoted.
    """
    files = options.files
    parts = {"cert": files.certificate, "key": files.key}
    if files.client_ca is not None:
        parts["clientCA"] = files.client_ca
    parts |= {
        "min": options.min_version,
        "max": options.max_version,
        "alpn": ",".join(name.decode("ascii") for name in options.protocols),
        "handshakeTimeout": f"{options.handshake_timeout:g}",
    }
    return ":".join((PREFIX, where, *(f"{name}={quoteStringArgument(value)}" for name, value in parts.items())))


def _arguments(given: tuple[str, ...], named: dict[str, str]) -> dict[str, str]:
    if len(given) > 1:
        raise ValueError(f"{PREFIX}: only the port may be given without a name, not {given[1]!r}")
    arguments = dict(zip(ARGUMENTS, given, strict=False)) | named
    for name in arguments:
        if name not in ARGUMENTS:
            raise ValueError(f"{PREFIX} has no argument {name!r}; it takes {', '.join(ARGUMENTS)}")
    return arguments


def _below(arguments: dict[str, str]) -> str:
    """Return the string of the endpoint below TLS."""
    port, endpoint = arguments.get("port"), arguments.get("endpoint")
    tcp = {name: arguments[name] for name in ("interface", "backlog") if name in arguments}
    if endpoint is not None:
        if port is not None or tcp:
            raise ValueError(f"{PREFIX}: endpoint says where to listen; leave out port, interface and backlog")
        return endpoint
    if port is None or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{PREFIX}: port must be a number from 0 to 65535, or endpoint an endpoint string")
    return ":".join(("tcp", port, *(f"{name}={quoteStringArgument(value)}" for name, value in tcp.items())))


def _needed(arguments: dict[str, str], name: str) -> str:
    if not arguments.get(name):
        raise ValueError(f"{PREFIX}: {name} is missing; give the path of a PEM file")
    return arguments[name]


def _version(arguments: dict[str, str], name: str, default: str) -> str:
    version = arguments.get(name, default)
    if version not in VERSIONS:
        raise ValueError(f"{PREFIX}: {name}={version} must be one of {', '.join(VERSIONS)}")
    return version


def _protocols(text: str) -> tuple[bytes, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or not text.isascii():
        raise ValueError(f"{PREFIX}: alpn={text} must be names separated by single commas, such as h2,http/1.1")
    return tuple(name.encode("ascii") for name in names)


def _seconds(arguments: dict[str, str], name: str, default: float) -> float:
    text = arguments.get(name)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise ValueError(f"{PREFIX}: {name}={text} must be a number of seconds above 0")
    return seconds
