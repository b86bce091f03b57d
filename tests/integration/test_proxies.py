"""nginx and Envoy in front of a real server, on the very configurations that the guide shows."""

from __future__ import annotations

import hashlib
import re
import shutil
import ssl
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path

import pytest
from attrs import frozen

from dstreams.config import ConfigLoadOptions, load_config
from tests.config.test_documents import block
from tests.conformance.suite import missing, run_suite
from tests.conformance.test_conformance import PASSING
from tests.integration.proxies import (
    CLIENT_ADDRESS,
    EXAMPLES,
    KINDS,
    MUTUAL,
    PLAIN,
    START,
    Certificates,
    Edge,
    asked,
    program,
    upstream_of,
)
from tests.support.certificates import Authority
from tests.support.servers import ROOT, ChildServer, twistd_server

pytestmark = pytest.mark.slow

GUIDE = (ROOT / "docs" / "how-to" / "behind-a-proxy.md").read_text()

LIMIT = 64 * 1024 * 1024
LARGE = hashlib.shake_256(b"large").digest(32 * 1024 * 1024)

SPOOFED = {
    "X_Forwarded_For": "198.51.100.66",
    "X_Forwarded_Host": "evil.example",
    "X_Forwarded_Proto": "javascript",
    "X_Forwarded_Port": "666",
    "Forwarded": "for=198.51.100.66;host=evil.example;proto=http",
    "X_Client_Identity": "CN=mallory",
}
"""What a client sends that wants to be another one."""


@frozen
class Stack:
    """A server and the proxy in front of it."""

    server: ChildServer
    edge: Edge

    def logged(self, stream: str, operation: str) -> str:
        """The log line of a request. It is written within a tenth of a second: another request would be later."""
        found = ""
        pattern = re.compile(rf"^.*ds\.operation={operation} .*ds\.stream_id={stream} .*$", re.MULTILINE)
        for _ in range(200):
            match = pattern.search(self.server.log.read_text())
            if match is not None:
                found = match[0]
                break
            threading.Event().wait(0.05)
        return found


def stack(kind: str, directory: Path, *, mutual: bool = False, unix: bool = False, **variables: str) -> Iterator[Stack]:
    """A server with the example's own configuration, and the proxy with its."""
    program(kind)
    certificates = Certificates.issue(directory)
    environ = {"DS_LIMITS__MAX_STREAM_BYTES": str(LIMIT), "DS_LIMITS__MAX_MEMORY_BYTES": str(8 * LIMIT), **variables}
    if mutual:
        environ["DS_TRANSPORT__TLS__CERT_PATH"] = str(certificates.server.certificate)
        environ["DS_TRANSPORT__TLS__KEY_PATH"] = str(certificates.server.key)
        environ["DS_TRANSPORT__TLS__CLIENT_CA_PATH"] = str(certificates.proxies.path)
    path = directory / "http.sock"
    if unix:
        environ["DS_SERVER__ENDPOINTS"] = f"unix:{path},tcp:0:interface=127.0.0.1"
        environ["DS_PROXY__TRUSTED_PROXIES"] = "unix"
    config = EXAMPLES / ("mtls.toml" if mutual else "plain.toml")
    with twistd_server(directory, "--config", str(config), environ=environ) as server:
        upstream = f"unix:{path}" if unix else upstream_of(server)
        name = (MUTUAL if mutual else PLAIN)[kind]
        with START[kind](directory, name, upstream, certificates) as edge:
            yield Stack(server, edge)


@pytest.fixture(scope="module", params=KINDS)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """TLS at the edge, plain HTTP behind it; a long-poll takes 17 s, longer than what Envoy lets pass by itself."""
    poll = {"DS_TRANSPORT__CONNECTION__LONG_POLL_TIMEOUT_SECS": "17"}
    yield from stack(request.param, tmp_path_factory.mktemp(request.param), **poll)


@pytest.fixture(scope="module", params=KINDS)
def mutual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Certificates on both sides of the proxy."""
    yield from stack(request.param, tmp_path_factory.mktemp(request.param), mutual=True)


def create(edge: Edge, name: str, body: object = None, kind: str = "text/plain", **headers: str) -> HTTPResponse:
    """Create a stream; the response without its body."""
    with asked(edge.connect(), "PUT", f"/v1/stream/{name}", body, Content_Type=kind, **headers) as response:
        assert response.status == 201, response.read()
    return response


def append(edge: Edge, name: str, body: bytes, kind: str = "text/plain") -> None:
    with asked(edge.connect(), "POST", f"/v1/stream/{name}", body, Content_Type=kind) as response:
        assert response.status == 204, response.read()


def next_event(response: HTTPResponse, prefix: bytes) -> bytes:
    """The next line of an SSE stream that begins with ``prefix``; a proxy that holds it back is a time-out."""
    while True:
        line = response.readline()
        assert line, "the stream has ended"
        if line.startswith(prefix):
            return line.strip()


class ForwardingTests:
    """What the server learns of the client."""

    def test_location(self, plain: Stack) -> None:
        """Location is the URL that the client can use, port and all, percent-encoded."""
        response = create(plain.edge, "%E6%97%A5")
        assert response.getheader("Location") == f"https://localhost:{plain.edge.port}/v1/stream/%E6%97%A5"

    def test_spoofing(self, plain: Stack) -> None:
        """Nothing that a client sends stands in for what the proxy says; its address is in the log."""
        response = create(plain.edge, "spoofed", **SPOOFED)
        assert response.getheader("Location") == f"https://localhost:{plain.edge.port}/v1/stream/spoofed"
        line = plain.logged("spoofed", "create")
        assert f"client.address={CLIENT_ADDRESS} " in line
        assert "ds.proxy.peer_ip=127.0.0.1 " in line
        assert "ds.proxy.trusted=true " in line.lower()
        assert "user.id" not in line

    def test_nominated_headers(self, plain: Stack) -> None:
        """A client can't have the proxy's headers removed by calling them the connection's."""
        nominated = "close, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host"
        with asked(plain.edge.connect(), "PUT", "/v1/stream/nominated", None, Connection=nominated) as response:
            if response.status == 400:
                return  # Envoy doesn't even pass that on
            assert response.status == 201
        assert f"client.address={CLIENT_ADDRESS} " in plain.logged("nominated", "create")

    def test_past_the_proxy(self, plain: Stack) -> None:
        """Who connects from elsewhere isn't believed."""
        connection = HTTPConnection("localhost", plain.server.port, source_address=(CLIENT_ADDRESS, 0))
        with asked(connection, "PUT", "/v1/stream/past", None, **SPOOFED) as response:
            assert response.getheader("Location") == f"http://localhost:{plain.server.port}/v1/stream/past"
        line = plain.logged("past", "create")
        assert f"client.address={CLIENT_ADDRESS} " in line
        assert "ds.proxy.trusted=false " in line.lower()
        assert "which is not in proxy.trusted_proxies" in plain.server.log.read_text()

    @pytest.mark.skipif(shutil.which("curl") is None, reason="curl isn't installed")
    def test_http2(self, plain: Stack) -> None:
        """Clients that speak HTTP/2 to the proxy get the same."""
        url = f"https://localhost:{plain.edge.port}/v1/stream/two"
        told = subprocess.run(
            ["curl", "-sS", "-i", "--http2", "--cacert", str(plain.edge.certificates.servers.path), "--interface",
             CLIENT_ADDRESS, "-X", "PUT", "-H", "X-Forwarded-Host: evil.example", url],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        assert told.stdout.startswith("HTTP/2 201")
        assert f"location: {url}\n" in told.stdout
        assert f"client.address={CLIENT_ADDRESS} " in plain.logged("two", "create")


class StreamingTests:
    """What takes long, or is large."""

    def test_events_come_at_once(self, plain: Stack) -> None:
        """Every event reaches its reader before the next one is there."""
        create(plain.edge, "live")
        with asked(plain.edge.connect(timeout=20), "GET", "/v1/stream/live?offset=-1&live=sse") as response:
            assert response.status == 200
            next_event(response, b"event: control")
            for number in range(10):
                append(plain.edge, "live", b"event %d" % number)
                assert next_event(response, b"data:event") == b"data:event %d" % number

    def test_long_poll(self, plain: Stack) -> None:
        """A long-poll is answered when something is appended."""
        create(plain.edge, "polled")
        answers: list[tuple[int, bytes]] = []

        def poll() -> None:
            with asked(plain.edge.connect(), "GET", "/v1/stream/polled?offset=-1&live=long-poll") as response:
                answers.append((response.status, response.read()))

        waiting = threading.Thread(target=poll, daemon=True)
        waiting.start()
        append(plain.edge, "polled", b"news")
        waiting.join(30)
        assert answers == [(200, b"news")]

    def test_silence(self, plain: Stack) -> None:
        """A long-poll may wait for 17 s, and an SSE stream is kept open by its heartbeat after 15 s."""
        create(plain.edge, "silent")
        heartbeats: list[bytes] = []

        def listen() -> None:
            with asked(plain.edge.connect(), "GET", "/v1/stream/silent?offset=-1&live=sse") as response:
                heartbeats.append(next_event(response, b":"))
                next_event(response, b"data:after")
                heartbeats.append(b"after")

        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        with asked(plain.edge.connect(), "GET", "/v1/stream/silent?offset=-1&live=long-poll") as response:
            assert response.status == 204
        append(plain.edge, "silent", b"after")
        listening.join(30)
        assert heartbeats[-1:] == [b"after"]

    def test_reader_that_leaves(self, plain: Stack) -> None:
        """When a reader goes, the proxy lets go of its connection to the server."""
        create(plain.edge, "left")
        with asked(plain.edge.connect(), "GET", "/v1/stream/left?offset=-1&live=sse") as response:
            next_event(response, b"event: control")
            assert self.readers(plain.edge) == 1
        for _ in range(200):
            if self.readers(plain.edge) == 0:
                return
            threading.Event().wait(0.05)
        pytest.fail("the reader is still there")

    def readers(self, edge: Edge) -> int:
        with asked(edge.connect(), "GET", "/health") as response:
            found = re.search(rb'"live_readers": ?(\d+)', response.read())
        assert found is not None
        return int(found[1])

    @pytest.mark.parametrize("chunked", [False, True])
    def test_large_bodies(self, plain: Stack, chunked: bool) -> None:
        """32 MiB go up and come down as they were."""
        pieces = (LARGE[start : start + 65_536] for start in range(0, len(LARGE), 65_536))
        name = f"large-{chunked}"
        create(plain.edge, name, pieces if chunked else LARGE, "application/octet-stream")
        with asked(plain.edge.connect(), "GET", f"/v1/stream/{name}?offset=-1") as response:
            assert response.status == 200
            assert hashlib.sha256(response.read()).digest() == hashlib.sha256(LARGE).digest()

    def test_too_large(self, plain: Stack) -> None:
        """The server's own refusal reaches the client; the proxy has no limit of its own."""
        create(plain.edge, "full", kind="application/octet-stream")
        # Announced and not sent: a client that waits is told at once.
        connection = plain.edge.connect()
        connection.putrequest("POST", "/v1/stream/full")
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Content-Length", str(LIMIT + 1))
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 413
        assert b"PAYLOAD_TOO_LARGE" in response.read()
        connection.close()


class UnixSocketTests:
    """The server behind a UNIX socket."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_trusted(self, kind: str, tmp_path: Path) -> None:
        """With ``unix`` in the list whoever can open the socket is believed."""
        for up in stack(kind, tmp_path, unix=True):
            response = create(up.edge, "local", **SPOOFED)
            assert response.getheader("Location") == f"https://localhost:{up.edge.port}/v1/stream/local"
            line = up.logged("local", "create")
            assert f"client.address={CLIENT_ADDRESS} " in line
            assert "ds.proxy.peer_ip" not in line


class IdentityTests:
    """Client certificates at the edge, the proxy's certificate behind it."""

    def test_forwarded(self, mutual: Stack) -> None:
        """The subject of the client's certificate arrives, and not what the client says of itself."""
        edge = mutual.edge
        headers = {"Content_Type": "text/plain", **SPOOFED}
        with asked(edge.connect(edge.certificates.alice), "PUT", "/v1/stream/mine", None, **headers) as response:
            assert response.status == 201
            assert response.getheader("Location") == f"https://localhost:{edge.port}/v1/stream/mine"
        line = mutual.logged("mine", "create")
        assert "user.id=CN=alice " in line.replace('"', "") + " "
        assert f"client.address={CLIENT_ADDRESS} " in line

    def test_streaming(self, mutual: Stack) -> None:
        """Events come at once there, too."""
        edge = mutual.edge
        alice = edge.certificates.alice
        with asked(edge.connect(alice), "PUT", "/v1/stream/shared", b"", Content_Type="text/plain") as response:
            assert response.status == 201
        with asked(edge.connect(alice, 20), "GET", "/v1/stream/shared?offset=-1&live=sse") as response:
            next_event(response, b"event: control")
            for number in range(3):
                news = b"event %d" % number
                with asked(edge.connect(alice), "POST", "/v1/stream/shared", news, Content_Type="text/plain") as told:
                    assert told.status == 204
                assert next_event(response, b"data:event") == b"data:" + news

    def test_strangers(self, mutual: Stack, tmp_path: Path) -> None:
        """Without a certificate of the right authority nobody gets in, at the edge or past it."""
        edge = mutual.edge
        stranger = Authority(tmp_path, "clients").issue("mallory", client=True)
        for client in (None, stranger, edge.certificates.proxy):
            try:
                with asked(edge.connect(client), "PUT", "/v1/stream/no") as response:
                    assert response.status == 400, "nginx answers that way, in TLS"
            except OSError:
                pass  # the handshake has failed
        # An ordinary client's certificate opens the edge, but not the server behind it.
        connection = HTTPSConnection("localhost", mutual.server.port, context=edge.context(edge.certificates.alice))
        with pytest.raises((ssl.SSLError, ConnectionError)), asked(connection, "PUT", "/v1/stream/no"):
            pass

    def test_proxy_elsewhere(self, mutual: Stack) -> None:
        """A proxy's certificate isn't enough: it must also come from a listed address."""
        edge = mutual.edge
        connection = HTTPSConnection(
            "localhost",
            mutual.server.port,
            source_address=(CLIENT_ADDRESS, 0),
            context=edge.context(edge.certificates.proxy),
        )
        with asked(connection, "PUT", "/v1/stream/elsewhere", None, Content_Type="text/plain", **SPOOFED) as response:
            assert response.status == 201
            assert response.getheader("Location") == f"https://localhost:{mutual.server.port}/v1/stream/elsewhere"
        assert "user.id" not in mutual.logged("elsewhere", "create")


class ExampleTests:
    """The server's side of the examples."""

    @pytest.mark.parametrize("name", ["plain.toml", "mtls.toml"])
    def test_valid(self, name: str) -> None:
        """They are valid as they stand."""
        config = load_config(ConfigLoadOptions(config_override=str(EXAMPLES / name)), {})
        assert config.proxy.enabled

    @pytest.mark.parametrize(("start", "name"), [("[server]\n    bind", "plain.toml"), ("[transport]", "mtls.toml")])
    def test_guide(self, start: str, name: str) -> None:
        """The guide shows what is in them."""
        example = tomllib.loads((EXAMPLES / name).read_text())
        for section, keys in tomllib.loads(block(GUIDE, start)).items():
            assert keys.items() <= example[section].items()

    def test_all_named(self) -> None:
        """The guide knows every example."""
        assert [path.name for path in EXAMPLES.iterdir() if f"`{path.name}`" not in GUIDE] == []


class ConformanceTests:
    """The official conformance suite, through proxies."""

    # All four combinations have passed; one takes half a minute.
    @pytest.mark.parametrize(("kind", "version"), [("nginx", "2"), ("envoy", "1.1")])
    def test_suite(self, kind: str, version: str, tmp_path: Path) -> None:
        """All of it passes as if the proxy weren't there."""
        why = missing()
        if why is not None:
            pytest.skip(f"the conformance suite was left out: {why}")
        for up in stack(kind, tmp_path, DS_TRANSPORT__CONNECTION__LONG_POLL_TIMEOUT_SECS="3"):
            node = {
                "NODE_EXTRA_CA_CERTS": str(up.edge.certificates.servers.path),
                "CONFORMANCE_HTTP_VERSION": version,
            }
            outcome = run_suite(f"https://localhost:{up.edge.port}", tmp_path, node)
            assert outcome.failed == []
            assert len(outcome.passed) == PASSING
