"""The twistd plugin: its options, its errors, and real processes that start, fail and stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from zope.interface.verify import verifyObject

from dstreams import tap
from dstreams.services import ServerService
from tests.support.servers import TWISTD, child_environment, child_server, twistd_server


class PluginTests:
    """twistd finds the service, and finding it decides nothing."""

    def test_found(self) -> None:
        """Exactly one plugin is called durable-streams, and it names this package."""
        (plugin,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "durable-streams"]
        assert verifyObject(IServiceMaker, plugin)
        assert plugin.module == "dstreams.tap"

    @pytest.mark.slow
    def test_installs_no_reactor(self, tmp_path: Path) -> None:
        """Loading the plugin and its options imports neither klein nor a reactor."""
        program = (
            "import sys; from twisted.application.service import IServiceMaker\n"
            "from twisted.plugin import getPlugins\n"
            "(plugin,) = [p for p in getPlugins(IServiceMaker) if p.tapname == 'durable-streams']\n"
            "plugin.options(); plugin.makeService\n"
            "print([name for name in ('klein', 'twisted.internet.reactor') if name in sys.modules])"
        )
        printed = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=child_environment(),
            capture_output=True,
            check=True,
        )
        assert printed.stdout == b"[]\n"


class OptionsTests:
    """The options after the word durable-streams."""

    def test_defaults(self) -> None:
        """Without options there is neither a file nor a profile."""
        options = tap.Options()
        options.parseOptions([])
        assert [options[name] for name in ("config", "config-dir", "profile")] == [None, None, None]

    @pytest.mark.parametrize("arguments", [["--config", "a", "--profile", "b"], ["-c", "a", "-p", "b"]])
    def test_values(self, arguments: list[str]) -> None:
        """Both have a long and a short form."""
        options = tap.Options()
        options.parseOptions(arguments)
        assert (options["config"], options["profile"]) == ("a", "b")

    @pytest.mark.parametrize("arguments", [["--port", "80"], ["--config"], ["serve"]])
    def test_unknown(self, arguments: list[str]) -> None:
        """Anything else is a usage error."""
        with pytest.raises(UsageError):
            tap.Options().parseOptions(arguments)

    def test_help(self) -> None:
        """The help explains the options and shows commands that can be copied."""
        text = tap.Options().getUsage()
        assert "--config=" in text
        assert "--profile=" in text
        assert "\n  twistd -n durable-streams --config server.toml\n" in text
        assert max(map(len, text.splitlines())) <= 100


class MakeServiceTests:
    """The options become a service, or a line for everything that is wrong."""

    @pytest.fixture(autouse=True)
    def _environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in [name for name in os.environ if name.startswith("DS_")]:
            monkeypatch.delenv(name)

    def test_service(self) -> None:
        """A valid configuration gives the server, which hasn't opened anything yet."""
        service = tap.makeService(tap.Options())
        assert isinstance(service, ServerService)
        assert not service.running

    def test_problems(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """Everything that is wrong goes to stderr, a line each, and the status is 1."""
        monkeypatch.setenv("DS_LIMITS__MAX_STREAM_BYTES", "0")
        options = tap.Options()
        options.parseOptions(["--profile", "nowhere"])
        with pytest.raises(SystemExit) as caught:
            tap.makeService(options)
        assert caught.value.code == 1
        assert capsys.readouterr().err.splitlines() == [
            (
                "[load_config] unknown profile 'nowhere' (--profile): the built-in ones are default, dev, prod,"
                " prod-tls, prod-mtls; a custom profile needs the file config/nowhere.toml"
            ),
            "[validate_config] limits.max_stream_bytes = 0 (DS_LIMITS__MAX_STREAM_BYTES): must be at least 1",
        ]


def get(url: str) -> bytes:
    """The body at a URL."""
    with urllib.request.urlopen(url, timeout=30) as response:
        body: bytes = response.read()
    return body


def create(url: str) -> bytes:
    """Create an empty text stream; its tail."""
    request = urllib.request.Request(url, headers={"Content-Type": "text/plain"}, method="PUT")
    with urllib.request.urlopen(request, timeout=30) as response:
        tail: str = response.headers["Stream-Next-Offset"]
    return tail.encode()


def receive_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.fixture
def taken_address() -> Iterator[str]:
    """An address on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.slow
class ProcessTests:
    """The server as an operator sees it."""

    def twistd(self, directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run twistd to its end."""
        return subprocess.run(
            [str(TWISTD), *arguments],
            cwd=directory,
            env=child_environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def test_serves(self, tmp_path: Path) -> None:
        """It says where it listens, answers there, and leaves no pid file."""
        with twistd_server(tmp_path) as server:
            assert get(f"{server.url}/healthz") == b"ok\n"
            lines = server.log.read_text().splitlines()
        said = [line.split("] ", 1)[-1] for line in lines if "[dstreams.services." in line and "#info]" in line]
        assert re.fullmatch(r"up to \d+ connections at a time: the process may have \d+ file descriptors", said[1])
        assert said[2:] == [
            "storage: memory, up to 104857600 bytes, 10485760 bytes per stream",
            f"listening on 127.0.0.1:{server.port}",
            f"health: {server.url}/healthz",
            f"readiness: {server.url}/readyz",
            f"protocol: {server.url}/v1/stream",
        ]
        assert [path.name for path in tmp_path.iterdir()] == ["server.log"]

    def test_as_module(self, tmp_path: Path) -> None:
        """``python -m dstreams`` is the same server, with the same options."""
        config = tmp_path / "server.toml"
        config.write_text('[server]\nbind_address = "127.0.0.1:0"\n[http]\nstream_base_path = "/"\n')
        command = [sys.executable, "-m", "dstreams", "--config", str(config)]
        with child_server(tmp_path, command, {}) as server:
            assert get(f"{server.url}/readyz") == b"ready\n"
            request = urllib.request.Request(f"{server.url}/room/1", b"hello", method="PUT")
            request.add_header("Content-Type", "text/plain")
            with urllib.request.urlopen(request, timeout=30) as response:
                assert response.status == 201
            assert get(f"{server.url}/room/1") == b"hello"
            assert get(f"{server.url}/healthz") == b"ok\n"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_stops(self, tmp_path: Path, number: signal.Signals) -> None:
        """SIGTERM and SIGINT end it without a traceback, and what it was doing is brought to an end."""
        with twistd_server(tmp_path) as server:
            tail = create(f"{server.url}/v1/stream/s")
            with (
                socket.create_connection(("127.0.0.1", server.port), 30) as sse,
                socket.create_connection(("127.0.0.1", server.port), 30) as long_poll,
                socket.create_connection(("127.0.0.1", server.port), 30) as upload,
                socket.create_connection(("127.0.0.1", server.port), 30) as idle,
            ):
                head = b"Host: a\r\nContent-Type: text/plain\r\n"
                sse.sendall(b"GET /v1/stream/s?offset=%b&live=sse HTTP/1.1\r\n%b\r\n" % (tail, head))
                long_poll.sendall(b"GET /v1/stream/s?offset=%b&live=long-poll HTTP/1.1\r\n%b\r\n" % (tail, head))
                upload.sendall(b"POST /v1/stream/s HTTP/1.1\r\n%bContent-Length: 8\r\n\r\nhalf" % head)
                events = sse.recv(65_536)
                # One more answer, so that the server has read what the others sent before it.
                assert get(f"{server.url}/healthz") == b"ok\n"
                server.process.send_signal(number)
                # The end of this one shows that the server has begun to stop.
                assert receive_all(idle) == b""
                upload.sendall(b"half")
                events += receive_all(sse)
                polled, uploaded = receive_all(long_poll), receive_all(upload)
            server.process.wait(60)
            log = server.log.read_text()
        assert events.startswith(b"HTTP/1.1 200 ")
        assert events.endswith(b"\r\n0\r\n\r\n")
        assert polled.startswith(b"HTTP/1.1 204 ")
        assert uploaded.startswith(b"HTTP/1.1 204 ")
        assert "Server Shut Down." in log
        assert "Traceback" not in log

    def test_grace_time(self, tmp_path: Path) -> None:
        """A request that isn't finished within the grace time is cut."""
        environ = {"DS_SERVER__SHUTDOWN_GRACE_SECS": "1"}
        with twistd_server(tmp_path, environ=environ) as server:
            create(f"{server.url}/v1/stream/s")
            with socket.create_connection(("127.0.0.1", server.port), 30) as upload:
                upload.sendall(b"PUT /v1/stream/t HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
                assert get(f"{server.url}/healthz") == b"ok\n"
                server.process.terminate()
                with pytest.raises(ConnectionResetError):
                    receive_all(upload)
            server.process.wait(60)
            assert "aborting the remaining connections after 1 s" in server.log.read_text()

    def test_bad_configuration(self, tmp_path: Path) -> None:
        """A bad configuration is one line on stderr and status 1, before anything else is done."""
        ended = self.twistd(tmp_path, "-n", "durable-streams", "--config", "none.toml")
        assert ended.returncode == 1
        assert ended.stdout == ""
        assert ended.stderr == (
            "[load_config] configuration file not found: 'none.toml' (--config): give the path of an existing file\n"
        )

    def test_port_in_use(self, tmp_path: Path, taken_address: str) -> None:
        """A port in use is one line on stderr and status 1; the pid file is removed again."""
        ended = self.twistd(tmp_path, "-n", "durable-streams", DS_SERVER__BIND_ADDRESS=taken_address)
        assert ended.returncode == 1
        assert ended.stderr == f"[bind_listener] failed to bind {taken_address}: Address already in use\n"
        assert "Traceback" not in ended.stdout
        assert list(tmp_path.iterdir()) == []

    def test_port_in_use_by_daemon(self, tmp_path: Path, taken_address: str) -> None:
        """A daemon that can't bind tells the process that waits for it, and the log."""
        ended = self.twistd(tmp_path, "durable-streams", DS_SERVER__BIND_ADDRESS=taken_address)
        assert ended.returncode == 1
        assert "[bind_listener] failed to bind" in ended.stderr
        log = (tmp_path / "twistd.log").read_text()
        assert f"[bind_listener] failed to bind {taken_address}: Address already in use" in log
