"""The endpoint strings that begin with dstls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from zope.interface.verify import verifyObject

from dstreams.net.endpoint import TlsServerEndpoint, describe_tls_endpoint
from dstreams.net.tls import TlsFactory, TlsOptions
from dstreams.net.tls_files import TlsFiles
from dstreams.runtime.startup import StartupError
from tests.support.certificates import Authority, Identity


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    """The server's certificate, in a directory whose name has a colon."""
    (tmp_path / "a:b").mkdir()
    return Authority(tmp_path / "a:b").issue("server")


@pytest.fixture
def paths(identity: Identity) -> str:
    """The arguments for the files."""
    quoted = [str(path).replace(":", r"\:") for path in (identity.certificate, identity.key)]
    return f"cert={quoted[0]}:key={quoted[1]}"


def parse(description: str) -> TlsServerEndpoint:
    """The endpoint of a string, as every Twisted program gets it."""
    endpoint: Any = serverFromString(MemoryReactorClock(), description)
    assert isinstance(endpoint, TlsServerEndpoint)
    assert verifyObject(IStreamServerEndpoint, endpoint)
    return endpoint


class ParseTests:
    """Strings become endpoints."""

    def test_plugin(self) -> None:
        """Twisted finds the parser."""
        (found,) = [each for each in getPlugins(IStreamServerEndpointStringParser) if each.prefix == "dstls"]
        assert verifyObject(IStreamServerEndpointStringParser, found)

    def test_defaults(self, paths: str, identity: Identity) -> None:
        """Only a port and the files are needed."""
        files = TlsFiles(str(identity.certificate), str(identity.key))
        assert parse(f"dstls:443:{paths}").context.options == TlsOptions(files, "1.2", "1.3", (b"http/1.1",), 10.0)

    def test_everything(self, paths: str, identity: Identity) -> None:
        """All that may be said is understood."""
        authority = str(identity.certificate.parent / "authority.pem")
        quoted = authority.replace(":", r"\:")
        endpoint = parse(
            f"dstls:port=443:interface=127.0.0.1:backlog=7:{paths}:clientCA={quoted}:min=1.3:max=1.3"
            ":alpn=h2,http/1.1:handshakeTimeout=2.5"
        )
        files = TlsFiles(str(identity.certificate), str(identity.key), authority)
        assert endpoint.context.options == TlsOptions(files, "1.3", "1.3", (b"h2", b"http/1.1"), 2.5)

    @pytest.mark.parametrize(
        ("where", "listening"),
        [
            ("443", (443, "")),
            (r"443:interface=\:\:1", (443, "::1")),
            (r"endpoint=tcp\:443\:interface=127.0.0.1", (443, "127.0.0.1")),
        ],
    )
    def test_where(self, paths: str, where: str, listening: tuple[int, str]) -> None:
        """It listens where the port or the endpoint below says, with TLS over the factory's protocols."""
        reactor = MemoryReactorClock()
        endpoint: Any = serverFromString(reactor, f"dstls:{where}:{paths}")
        factory = Factory()
        assert isinstance(endpoint.listen(factory), Deferred)
        ((port, outer, _, interface),) = reactor.tcpServers
        assert (port, interface) == listening
        assert isinstance(outer, TlsFactory)
        assert outer.wrappedFactory is factory

    def test_unix(self, paths: str) -> None:
        """It listens on a UNIX socket, too."""
        reactor = MemoryReactorClock()
        endpoint: Any = serverFromString(reactor, rf"dstls:endpoint=unix\:/run/s:{paths}")
        endpoint.listen(Factory())
        assert reactor.unixServers[0][0] == "/run/s"

    @pytest.mark.parametrize(
        ("rest", "why"),
        [
            ("", "cert is missing"),
            ("443:key=k", "cert is missing"),
            ("443:cert=c", "key is missing"),
            ("443:cert=:key=k", "cert is missing"),
            ("cert=c:key=k", "port must be a number from 0 to 65535"),
            ("https:cert=c:key=k", "port must be a number from 0 to 65535"),
            ("65536:cert=c:key=k", "port must be a number from 0 to 65535"),
            ("443:127.0.0.1:cert=c:key=k", "only the port may be given without a name, not '127.0.0.1'"),
            ("443:cert=c:key=k:privateKey=k", "dstls has no argument 'privateKey'; it takes port, interface"),
            (r"443:endpoint=tcp\:443:cert=c:key=k", "endpoint says where to listen"),
            (r"interface=a:endpoint=tcp\:443:cert=c:key=k", "endpoint says where to listen"),
            ("443:cert=c:key=k:min=1.1", "min=1.1 must be one of 1.2, 1.3"),
            ("443:cert=c:key=k:max=TLSv1.3", "max=TLSv1.3 must be one of 1.2, 1.3"),
            ("443:cert=c:key=k:min=1.3:max=1.2", "min=1.3 is above max=1.2"),
            ("443:cert=c:key=k:alpn=", "must be names separated by single commas"),
            ("443:cert=c:key=k:alpn=h2,,http/1.1", "must be names separated by single commas"),
            ("443:cert=c:key=k:alpn=hä", "must be names separated by single commas"),
            ("443:cert=c:key=k:handshakeTimeout=soon", "must be a number of seconds above 0"),
            ("443:cert=c:key=k:handshakeTimeout=0", "must be a number of seconds above 0"),
            ("443:cert=c:key=k:handshakeTimeout=nan", "must be a number of seconds above 0"),
            (r"endpoint=pigeon\:1:cert=c:key=k", "Unknown endpoint type: 'pigeon'"),
        ],
    )
    def test_nonsense(self, rest: str, why: str) -> None:
        """A string without sense is told what is wrong with it, before any file is looked at."""
        with pytest.raises(ValueError, match=why):
            parse(f"dstls:{rest}")

    def test_files(self, paths: str) -> None:
        """Files that aren't there, and files that can't be used, are told at once, not at the first client."""
        with pytest.raises(StartupError, match="TLS file not found: none"):
            parse("dstls:443:cert=none:key=none")
        with pytest.raises(StartupError, match="no CA certificates in"):
            parse(f"dstls:443:{paths}:clientCA={paths.partition(':key=')[2]}")


class DescribeTests:
    """Options become strings."""

    @pytest.mark.parametrize("has_authority", [False, True])
    def test_round_trip(self, identity: Identity, has_authority: bool) -> None:
        """What a string says is what it was made of."""
        authority = str(identity.certificate.parent / "authority.pem") if has_authority else None
        files = TlsFiles(str(identity.certificate), str(identity.key), authority)
        options = TlsOptions(files, "1.3", "1.3", (b"h2", b"http/1.1"), 0.5)
        assert parse(describe_tls_endpoint("443", options)).context.options == options
