"""TLS, client certificates and HTTP/2 with the clients that people use, against the real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from attrs import evolve, frozen
from twisted.internet import reactor
from twisted.internet.ssl import (
    Certificate,
    KeyPair,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from tests.support.certificates import DAY, Authority, Identity
from tests.support.servers import TWISTD, ChildServer, child_environment, child_server, twistd_server

pytestmark = pytest.mark.slow

WAIT_SECONDS = 60
"""How long anything may take on a busy machine."""


@frozen
class Secured:
    """A server with TLS, and what its clients need."""

    server: ChildServer
    authority: Authority
    identity: Identity

    @property
    def url(self) -> str:
        """Where the streams are."""
        return f"{self.server.secure_url}/v1/stream"

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return self.server.log.read_text()

    def context(self, client: Identity | None = None) -> ssl.SSLContext:
        """What a Python client believes."""
        context = ssl.create_default_context(cafile=str(self.authority.path))
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        return context

    def connect(self, client: Identity | None = None) -> ssl.SSLSocket:
        """A connection."""
        plain = socket.create_connection(("127.0.0.1", self.server.port), WAIT_SECONDS)
        return self.context(client).wrap_socket(plain, server_hostname="localhost")


def tls_settings(identity: Identity, *, client_ca: Path | None = None, **others: str) -> dict[str, str]:
    """The variables of a server with TLS."""
    settings = {
        "DS_TRANSPORT__MODE": "tls" if client_ca is None else "mtls",
        "DS_TRANSPORT__HTTP__VERSIONS": "http1,http2",
        "DS_TRANSPORT__TLS__CERT_PATH": str(identity.certificate),
        "DS_TRANSPORT__TLS__KEY_PATH": str(identity.key),
    }
    if client_ca is not None:
        settings["DS_TRANSPORT__TLS__CLIENT_CA_PATH"] = str(client_ca)
    return settings | others


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A server with TLS, HTTP/1.1 and HTTP/2."""
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory)
    identity = authority.issue("server")
    with twistd_server(directory, environ=tls_settings(identity)) as server:
        yield Secured(server, authority, identity)


@pytest.fixture(scope="module")
def mtls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A server that asks for client certificates, and speaks TLS 1.3 only."""
    directory = tmp_path_factory.mktemp("mtls")
    authority = Authority(directory)
    identity = authority.issue("server")
    settings = tls_settings(identity, client_ca=authority.path, DS_TRANSPORT__TLS__MIN_VERSION="1.3")
    with twistd_server(directory, environ=settings) as server:
        yield Secured(server, authority, identity)


def needs(program: str) -> str:
    """The path of a program; the test is left out, with that reason, where it isn't installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


@frozen
class Fetched:
    """What curl has to tell.

    :param code: its exit status.
    """

    code: int
    status: int
    version: str
    headers: dict[str, list[str]]
    body: str
    error: str


def curl(secured: Secured, path: str, *options: str, client: Identity | None = None) -> Fetched:
    """Fetch something below the streams' URL."""
    certificate = [] if client is None else ["--cert", str(client.certificate), "--key", str(client.key)]
    told = '\n{"status": "%{http_code}", "version": "%{http_version}", "headers": %{header_json}}'
    command = [needs("curl"), "-sS", "--cacert", str(secured.authority.path), *certificate, "-w", told, *options]
    ended = subprocess.run([*command, f"{secured.url}{path}"], capture_output=True, text=True, check=False, timeout=60)
    body, _, facts = ended.stdout.rpartition('\n{"status"')
    known: dict[str, Any] = json.loads('{"status"' + facts)
    return Fetched(ended.returncode, int(known["status"]), known["version"], known["headers"], body, ended.stderr)


HTTP_VERSIONS = [("--http1.1", "1.1"), ("--http2", "2")]
TLS_VERSIONS = [("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")]


class CurlTests:
    """curl, in both versions of TLS and of HTTP."""

    @pytest.mark.parametrize(("tls_option", "tls_version"), TLS_VERSIONS)
    @pytest.mark.parametrize(("option", "version"), HTTP_VERSIONS)
    def test_round_trip(self, tls: Secured, option: str, version: str, tls_option: str, tls_version: str) -> None:
        """What was put is read back, and the Location is one that the client can use."""
        options = [option, f"--tlsv{tls_option}", "--tls-max", tls_option]
        name = f"/curl-{version}-{tls_option}"
        put = curl(tls, name, *options, "-v", "-X", "PUT", "-H", "Content-Type: text/plain", "-d", "hello")
        assert (put.status, put.version) == (201, version)
        assert put.headers["location"] == [f"{tls.url}{name}"]
        assert f"SSL connection using {tls_version}" in put.error
        got = curl(tls, name, *options)
        assert (got.status, got.version, got.body) == (200, version, "hello")
        missing = curl(tls, f"{name}-not", *options)
        assert missing.status == 404
        assert json.loads(missing.body)["instance"] == f"/v1/stream{name}-not"

    @pytest.mark.parametrize(("option", "version"), HTTP_VERSIONS)
    def test_authority(self, tls: Secured, option: str, version: str) -> None:
        """The Location names the host that the client used, by its :authority or Host."""
        put = curl(
            tls, f"/authority-{version}", option, "-X", "PUT", "-H", "Content-Type: text/plain", "-H", "Host: x.example"
        )
        assert put.headers["location"] == [f"https://x.example/v1/stream/authority-{version}"]

    @pytest.mark.parametrize(("option", "version"), HTTP_VERSIONS)
    def test_large_upload(self, tls: Secured, option: str, version: str, tmp_path: Path) -> None:
        """Megabytes go up and come down, and what is too large is refused without being read to its end."""
        data = tmp_path / "data"
        data.write_bytes(os.urandom(5_000_000))
        put = ["-X", "PUT", "-H", "Content-Type: application/octet-stream", "-T", str(data)]
        assert curl(tls, f"/large-{version}", option, *put).status == 201
        received = tmp_path / "received"
        curl(tls, f"/large-{version}?offset=-1", option, "-o", str(received))
        assert data.read_bytes().startswith(received.read_bytes())
        assert received.stat().st_size >= 4 << 20
        data.write_bytes(bytes(11_000_000))
        assert curl(tls, f"/too-large-{version}", option, *put).status == 413

    @pytest.mark.parametrize(("option", "version"), HTTP_VERSIONS)
    def test_sse(self, tls: Secured, option: str, version: str) -> None:
        """Events arrive when they happen, not when a buffer is full."""
        name = f"/sse-{version}"
        append = ["-H", "Content-Type: text/plain", "-d"]
        assert curl(tls, name, option, "-X", "PUT", *append, "first").status == 201
        command = [needs("curl"), "-sSN", option, "--cacert", str(tls.authority.path)]
        reader = subprocess.Popen([*command, f"{tls.url}{name}?offset=-1&live=sse"], stdout=subprocess.PIPE, text=True)
        try:
            assert reader.stdout is not None
            for word in ("first", "second", "third"):
                if word != "first":
                    assert curl(tls, name, option, "-X", "POST", *append, word).status == 204
                assert f"data:{word}\n" in iter(reader.stdout.readline, "")
        finally:
            reader.kill()
            reader.communicate()

    def test_old_version(self, mtls: Secured) -> None:
        """Where TLS 1.3 is the least, a client that stops at 1.2 isn't served."""
        client = mtls.authority.issue("old-fashioned", client=True)
        refused = curl(mtls, "/a", "--tls-max", "1.2", client=client)
        assert refused.code == 35
        assert "protocol version" in refused.error


class MutualTests:
    """Client certificates."""

    @pytest.mark.parametrize(("option", "version"), HTTP_VERSIONS)
    def test_accepted(self, mtls: Secured, option: str, version: str) -> None:
        """A certificate of the authority lets a client in."""
        client = mtls.authority.issue("client", client=True)
        put = curl(mtls, f"/{version}", option, "-X", "PUT", "-H", "Content-Type: text/plain", client=client)
        assert (put.status, put.version) == (201, version)

    def test_rejected(self, mtls: Secured, tmp_path: Path) -> None:
        """Without one, with one of somebody else, and with one that has expired, there is no answer."""
        stranger = Authority(tmp_path, "strangers").issue("stranger", client=True)
        expired = mtls.authority.issue("expired", client=True, start=-2 * DAY, end=-DAY)
        for client, alert in [(None, "certificate required"), (stranger, "unknown ca"), (expired, "expired")]:
            refused = curl(mtls, "/a", client=client)
            assert (refused.code, refused.status) == (56, 0)
            assert alert in refused.error


class H2loadTests:
    """nghttp2's load generator."""

    @pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
    def test_load(self, tls: Secured, protocol: str) -> None:
        """Thousands of requests on a few connections all succeed."""
        name = f"/load-{protocol[0:2]}"
        curl(tls, name, "-X", "PUT", "-H", "Content-Type: text/plain", "-d", "x" * 1000)
        streams = "20" if protocol == "h2" else "1"
        command = [needs("h2load"), "-n", "2000", "-c", "5", "-m", streams, f"--npn-list={protocol}"]
        ended = subprocess.run([*command, f"{tls.url}{name}"], capture_output=True, text=True, check=True, timeout=120)
        assert f"Application protocol: {protocol}" in ended.stdout
        assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in ended.stdout


@implementer(IPolicyForHTTPS)
@frozen
class Policy:
    """Whom a Twisted client trusts, and who it is."""

    authority: Authority
    client: Identity | None = None

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:  # noqa: N802
        """See IPolicyForHTTPS."""
        trusted = trustRootFromCertificates([Certificate.loadPEM(self.authority.path.read_bytes())])
        own = None
        if self.client is not None:
            own = PrivateCertificate.fromCertificateAndKeyPair(
                Certificate.loadPEM(self.client.certificate.read_bytes()),
                KeyPair.load(self.client.key.read_bytes(), 1),
            )
        return optionsForClientTLS(hostname.decode(), trustRoot=trusted, clientCertificate=own)


# Twisted's own client hands pyOpenSSL's objects to pyOpenSSL, which would rather have cryptography's.
ignore_old_objects = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


@ignore_old_objects
@pytest_twisted.ensureDeferred
async def test_treq(mtls: Secured) -> None:
    """treq, which is Twisted's client, creates, appends and reads, with its certificate."""
    client = mtls.authority.issue("treq", client=True)
    pool = HTTPConnectionPool(reactor, persistent=False)
    http = treq.client.HTTPClient(Agent(reactor, Policy(mtls.authority, client), pool=pool))
    url = f"https://localhost:{mtls.server.port}/v1/stream/treq"
    response = await http.put(url, headers={"Content-Type": "text/plain"}, data=b"one ")
    assert response.code == 201
    response = await http.post(url, headers={"Content-Type": "text/plain"}, data=b"two")
    assert response.code == 204
    response = await http.get(url)
    assert await response.content() == b"one two"


@ignore_old_objects
@pytest_twisted.ensureDeferred
async def test_treq_without_certificate(mtls: Secured) -> None:
    """Without one it gets an error and no answer."""
    http = treq.client.HTTPClient(Agent(reactor, Policy(mtls.authority)))
    with pytest.raises(Exception, match=r"certificate required|ResponseNeverReceived"):
        await http.get(f"https://localhost:{mtls.server.port}/v1/stream/treq", timeout=30)


def create(secured: Secured, name: str) -> None:
    """Create an empty stream."""
    assert curl(secured, name, "-X", "PUT", "-H", "Content-Type: text/plain").status == 201


def append(secured: Secured, name: str, data: str) -> None:
    """Append to a stream."""
    assert curl(secured, name, "-X", "POST", "-H", "Content-Type: text/plain", "-d", data).status == 204


def await_line(secured: Secured, text: str, count: int = 1) -> None:
    """Wait until the server has said something so many times."""
    deadline = time.monotonic() + WAIT_SECONDS
    while secured.log.count(text) < count:
        assert time.monotonic() < deadline, secured.log
        time.sleep(0.02)


def await_readers(secured: Secured, count: int) -> None:
    """Wait until so many live readers wait."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with urllib.request.urlopen(f"{secured.server.secure_url}/health", context=secured.context()) as response:
            if json.load(response)["live_readers"] == count:
                return
        assert time.monotonic() < deadline, secured.log
        time.sleep(0.02)


def read_until(connection: ssl.SSLSocket, text: bytes) -> bytes:
    """What arrives, until a text has come."""
    data = b""
    while text not in data:
        piece = connection.recv(65_536)
        assert piece, data
        data += piece
    return data


class ReloadTests:
    """SIGHUP."""

    def serial(self, secured: Secured) -> int:
        """The number of the certificate that a new connection sees."""
        with secured.connect() as connection:
            return int(str((connection.getpeercert() or {})["serialNumber"]), 16)

    def test_swap(self, tmp_path: Path) -> None:
        """The certificate is exchanged while an SSE reader stays connected, and a bad one isn't taken."""
        authority = Authority(tmp_path)
        identity = authority.issue("server")
        with twistd_server(tmp_path, environ=tls_settings(identity)) as server:
            secured = Secured(server, authority, identity)
            create(secured, "/s")
            with secured.connect() as reader:
                reader.sendall(b"GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
                read_until(reader, b"event: control")
                assert self.serial(secured) == identity.value.serial_number

                renewed = authority.issue("server")
                server.process.send_signal(signal.SIGHUP)
                await_line(secured, "reloaded the TLS certificates")
                assert self.serial(secured) == renewed.value.serial_number
                append(secured, "/s", "after")
                read_until(reader, b"data:after\n")

                identity.certificate.write_bytes(b"rubbish")
                server.process.send_signal(signal.SIGHUP)
                await_line(
                    secured, "keeping the current TLS certificates of 127.0.0.1:0: failed to build TLS context: "
                )
                assert self.serial(secured) == renewed.value.serial_number
                append(secured, "/s", "still")
                read_until(reader, b"data:still\n")
            assert "Traceback" not in secured.log

    def test_nothing_to_reload(self, tmp_path: Path) -> None:
        """A server without TLS survives the signal, and says that it has nothing to reload."""
        with twistd_server(tmp_path) as server:
            server.process.send_signal(signal.SIGHUP)
            secured = Secured(server, Authority(tmp_path), Authority(tmp_path).issue("unused"))
            await_line(secured, "there is nothing to reload")
            assert server.process.poll() is None

    def test_daemon(self, tmp_path: Path) -> None:
        """A daemon reloads at SIGHUP and still rotates its log at SIGUSR1, which is twistd's."""
        authority = Authority(tmp_path)
        identity = authority.issue("server")
        settings = {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"} | tls_settings(identity)
        log, pid_file = tmp_path / "twistd.log", tmp_path / "twistd.pid"
        subprocess.run(
            [str(TWISTD), "durable-streams"], cwd=tmp_path, env=child_environment(**settings), check=True, timeout=60
        )
        pid = int(pid_file.read_text())
        try:
            for number, text in [(signal.SIGHUP, "reloaded the TLS certificates"), (signal.SIGUSR1, None)]:
                os.kill(pid, number)
                deadline = time.monotonic() + WAIT_SECONDS
                while text not in log.read_text() if text else not (tmp_path / "twistd.log.1").exists():
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.02)
            assert text is None
        finally:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + WAIT_SECONDS
            while pid_file.exists():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)

    def test_closed_terminal(self, tmp_path: Path) -> None:
        """In a terminal that is closed, the server ends; it isn't left behind."""
        program = (
            "import os, pty, signal, sys\n"
            "pid, terminal = pty.fork()\n"
            "if not pid:\n"
            # It may be ignored where the tests run, below nohup; then it would be by the server, too.
            "    signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
            "    os.execv(sys.argv[1], sys.argv[1:])\n"
            "said = b''\n"
            "while b'listening on' not in said:\n"
            "    said += os.read(terminal, 65536)\n"
            "os.close(terminal)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)\n"
        )
        command = [sys.executable, "-c", program, str(TWISTD), "--pidfile=", "-n", "durable-streams"]
        environment = child_environment(DS_SERVER__BIND_ADDRESS="127.0.0.1:0")
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        assert re.fullmatch(r"-?\d+\n", ended.stdout)


class HandshakeTests:
    """Clients that don't complete the handshake."""

    def test_silent(self, tmp_path: Path) -> None:
        """One that says nothing, and one that stops in the middle of its ClientHello, are cut in time."""
        authority = Authority(tmp_path)
        identity = authority.issue("server")
        settings = tls_settings(identity, DS_TRANSPORT__TLS__HANDSHAKE_TIMEOUT_SECS="1")
        with twistd_server(tmp_path, environ=settings) as server:
            address = ("127.0.0.1", server.port)
            with socket.create_connection(address, 30) as silent, socket.create_connection(address, 30) as half:
                half.sendall(b"\x16\x03\x01\x02\x00\x01")
                begun = time.monotonic()
                for connection in (silent, half):
                    with suppress(ConnectionResetError):
                        assert connection.recv(1) == b""
                assert time.monotonic() - begun < 20
            assert "TLS handshake failed: 127.0.0.1: not complete after 1 s" in server.log.read_text()


class StopTests:
    """How long TLS connections hold up the end."""

    def test_clients_that_do_not_look(self, tmp_path: Path) -> None:
        """Idle clients that never answer a goodbye, and handshakes under way, don't use up the grace time."""
        authority = Authority(tmp_path)
        identity = authority.issue("server")
        with twistd_server(tmp_path, environ=tls_settings(identity)) as server:
            secured = Secured(server, authority, identity)
            with secured.connect() as idle, socket.create_connection(("127.0.0.1", server.port), 30):
                idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                read_until(idle, b"ok\n")
                begun = time.monotonic()
                server.process.terminate()
                assert server.process.wait(60) == 0
                assert time.monotonic() - begun < 15
            assert "cutting the connections" not in secured.log

    @pytest.mark.parametrize(("option", "version"), HTTP_VERSIONS)
    def test_live_readers(self, tmp_path: Path, option: str, version: str) -> None:
        """Live readers are ended in good order: curl finds nothing wrong with what it got."""
        authority = Authority(tmp_path)
        identity = authority.issue("server")
        with twistd_server(tmp_path, environ=tls_settings(identity)) as server:
            secured = Secured(server, authority, identity)
            create(secured, "/s")
            told = ["-w", "%{http_version}", "--cacert", str(authority.path)]
            command = [needs("curl"), "-sSN", option, *told]
            readers = [
                subprocess.Popen([*command, f"{secured.url}/s?offset={query}"], stdout=subprocess.PIPE, text=True)
                for query in ("-1&live=sse", "now&live=long-poll")
            ]
            assert readers[0].stdout is not None
            assert "event: control\n" in iter(readers[0].stdout.readline, "")
            await_readers(secured, 2)
            server.process.terminate()
            said = [reader.communicate(timeout=60)[0] for reader in readers]
            assert [reader.returncode for reader in readers] == [0, 0]
            assert [text.endswith(version) for text in said] == [True, True]
            assert server.process.wait(60) == 0


class EndpointTests:
    """Several listeners."""

    def test_several(self, tmp_path: Path) -> None:
        """TCP and a UNIX socket serve the same streams; both are gone at the end."""
        path = tmp_path / "s"
        environ = {"DS_SERVER__ENDPOINTS": f"tcp:0:interface=127.0.0.1,unix:{path}"}
        with twistd_server(tmp_path, environ=environ) as server:
            assert f"listening on unix:{path}" in server.log.read_text()
            command = [needs("curl"), "-sS", "--unix-socket", str(path), "http://localhost/v1/stream/a"]
            put = [*command, "-X", "PUT", "-H", "Content-Type: text/plain", "-d", "hello"]
            subprocess.run(put, check=True, timeout=60)
            got = subprocess.run(
                [needs("curl"), "-sS", f"{server.url}/v1/stream/a"], capture_output=True, check=True, timeout=60
            )
            assert got.stdout == b"hello"
        assert not path.exists()

    def test_tls_over_unix(self, tmp_path: Path) -> None:
        """With TLS, a UNIX socket speaks TLS, too."""
        authority = Authority(tmp_path)
        identity = authority.issue("server")
        path = tmp_path / "s"
        environ = tls_settings(identity) | {"DS_SERVER__ENDPOINTS": f"tcp:0:interface=127.0.0.1,unix:{path}"}
        with twistd_server(tmp_path, environ=environ):
            for option, version in HTTP_VERSIONS:
                told = ["-w", "%{http_version}", "--cacert", str(authority.path), "--unix-socket", str(path)]
                command = [needs("curl"), "-sS", option, *told, "https://localhost/healthz"]
                got = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
                assert got.stdout == f"ok\n{version}"

    def test_inherited(self, tmp_path: Path) -> None:
        """A socket that systemd has opened can be listened on, with TLS over it."""
        authority = Authority(tmp_path)
        identity = authority.issue("server")
        program = (
            "import os, socket, sys\n"
            "listener = socket.create_server(('127.0.0.1', 0))\n"
            "os.dup2(listener.fileno(), 9)\n"
            "os.dup2(9, 3)\n"
            "os.environ['LISTEN_PID'] = str(os.getpid())\n"
            "os.execv(sys.argv[1], sys.argv[1:])\n"
        )
        command = [sys.executable, "-c", program, str(TWISTD), "--pidfile=", "-n", "durable-streams"]
        environ = tls_settings(identity) | {
            "DS_SERVER__ENDPOINTS": "systemd:domain=INET:index=0",
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "http",
        }
        with child_server(tmp_path, command, environ) as server:
            secured = Secured(server, authority, identity)
            create(evolve(secured, server=server), "/a")

    def test_by_other_programs(self, tmp_path: Path) -> None:
        """The endpoint strings are for every Twisted program: here twisted.web's own server."""
        authority = Authority(tmp_path)
        identity = authority.issue("server")
        (tmp_path / "page.txt").write_text("a page")
        string = f"dstls:0:interface=127.0.0.1:cert={identity.certificate}:key={identity.key}:alpn=http/1.1"
        command = [str(TWISTD), "--pidfile=", "-n", "web", f"--listen={string}", f"--path={tmp_path}"]
        log = tmp_path / "web.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=tmp_path, env=child_environment(), stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            while (found := re.search(r"starting on (\d+)", log.read_text())) is None:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            command = [needs("curl"), "-sS", "--cacert", str(authority.path)]
            url = f"https://127.0.0.1:{found[1]}/page.txt"
            got = subprocess.run([*command, url], capture_output=True, check=True, timeout=60)
            assert got.stdout == b"a page"
        finally:
            process.terminate()
            process.wait(60)
