"""What real servers write and tell: every line of a session, and the numbers of real transports."""

from __future__ import annotations

import fcntl
import gzip
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support.servers import ROOT, TWISTD, ChildServer, child_environment, child_server

pytestmark = pytest.mark.slow

REFERENCE = ROOT / "docs" / "reference" / "logs.md"

_PYTHON = {"string": str, "integer": int, "boolean": bool}


def listed(heading: str) -> dict[str, tuple[type, bool]]:
    """The fields that a section of the reference lists: type, and whether every event has them."""
    section = REFERENCE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.@*]+)` \| (\w+) \| (yes|) ?\| .+ \|$", section, re.MULTILINE)
    return {name: (_PYTHON[kind], always == "yes") for name, kind, always in rows}


COMMON, REQUESTS = listed("Every JSON line"), listed("Requests: the access log")


def check(line: str) -> dict[str, object]:
    """One line, held against the reference."""
    event = json.loads(line)
    assert isinstance(event, dict)
    is_request = event["log.logger"] == "dstreams.requests"
    known = COMMON | (REQUESTS if is_request else {})
    for name, value in event.items():
        if name.startswith("labels."):
            assert not is_request, line
            assert isinstance(value, str), line
            continue
        assert name in known, f"{name} isn't in the reference: {line}"
        assert type(value) is known[name][0], line
    missing = {name for name, (_, always) in known.items() if always} - set(event)
    assert not missing, line
    assert datetime.fromisoformat(str(event["@timestamp"])).tzinfo is not None
    assert event["log.level"] in {"debug", "info", "warn", "error", "critical"}
    return event


def json_log(text: str) -> list[dict[str, object]]:
    """Every line of a log in JSON."""
    return [check(line) for line in text.splitlines()]


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(url, body, method=method)
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def converse(server: ChildServer) -> None:
    """A session with all kinds of requests."""
    streams = f"{server.url}/v1/stream"
    assert ask(f"{streams}/a%2Fb", "PUT", b"one", Content_Type="text/plain", User_Agent="tester/1") == 201
    assert ask(f"{streams}/a/b", "POST", b"two", Content_Type="text/plain") == 204
    assert ask(f"{streams}/a/b?offset=-1") == 200
    assert ask(f"{streams}/a/b?offset=-1&live=long-poll") == 200
    assert ask(f"{streams}/a/b", "HEAD") == 200
    assert ask(f"{streams}/a/b", "OPTIONS") == 204
    assert ask(f"{streams}/none") == 404
    assert ask(f"{streams}/a/b?offset=x") == 400
    assert ask(f"{server.url}/healthz") == 200
    assert ask(f"{server.url}/readyz") == 200
    assert ask(f"{server.url}/metrics") == 200
    assert ask(f"{server.url}/elsewhere") == 404
    with socket.create_connection(("127.0.0.1", server.port), 30) as sse:
        sse.sendall(b"GET /v1/stream/a/b?offset=-1&live=sse HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200 OK" in sse.recv(65_536)
    with socket.create_connection(("127.0.0.1", server.port), 30) as waiting:
        waiting.sendall(b"GET /v1/stream/a/b?offset=now&live=long-poll HTTP/1.1\r\nHost: a\r\n\r\n")
        # One more answer, so that the server has read what came before it.
        assert ask(f"{server.url}/healthz") == 200
    with socket.create_connection(("127.0.0.1", server.port), 30) as garbage:
        garbage.sendall(b"\x00\r\n\r\n")
        assert b"400" in garbage.recv(65_536)
    assert ask(f"{streams}/a/b", "DELETE") == 204


COMMAND = [str(TWISTD), "--pidfile="]
JSON = {"DS_OBSERVABILITY__LOG_FORMAT": "json", "DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"}


def free_port() -> int:
    """A port that was free a moment ago: for servers that don't say in plain text which one they have."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def until_ready(port: int) -> None:
    def ready() -> bool:
        try:
            return ask(f"http://127.0.0.1:{port}/readyz") == 200
        except OSError:
            return False

    wait_for(ready)


class SchemaTests:
    """Lines in JSON."""

    def test_session(self, tmp_path: Path) -> None:
        """Every line of a session, from the start to the end, is as the reference says; every request has one."""
        port = free_port()
        environ = {"DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}", "DS_OBSERVABILITY__LOG_FORMAT": "auto"}
        log = tmp_path / "out.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, "-n", "durable-streams"],
                cwd=tmp_path,
                env=child_environment(**environ),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            until_ready(port)
            converse(ChildServer(process, port, log))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        events = json_log(log.read_text())
        requests = [event for event in events if event["log.logger"] == "dstreams.requests"]
        (left,) = [event for event in requests if event.get("url.query") == "offset=now&live=long-poll"]
        requests.remove(left)
        told = [(event["ds.operation"], event.get("http.response.status_code")) for event in requests]
        while told[0][0] == "readiness":
            told.pop(0)
        assert told == [
            ("create", 201),
            ("append", 204),
            ("read", 200),
            ("poll", 200),
            ("head", 200),
            ("preflight", 204),
            ("read", 404),
            ("read", 400),
            ("health", 200),
            ("readiness", 200),
            ("metrics", 200),
            ("request", 404),
            ("subscribe", 200),
            ("health", 200),
            ("request", 400),
            ("delete", 204),
        ]
        # What the client that left was still sent depends on how it left.
        assert left.get("http.response.status_code", left.get("error.type")) in (204, "client_gone")
        created = next(event for event in requests if event["ds.operation"] == "create")
        assert created["ds.stream_id"] == "a/b"
        assert created["url.path"] == "/v1/stream/a%2Fb"
        assert created["client.address"] == "127.0.0.1"
        assert created["user_agent.original"] == "tester/1"
        assert created["server.address"] == f"127.0.0.1:{port}"
        messages = [event["message"] for event in events]
        assert f"listening on 127.0.0.1:{port}" in messages
        assert messages[-1] == "Server Shut Down."

    def test_failure(self, tmp_path: Path) -> None:
        """A failing disk is told in the log, with its private detail; the client learns nothing of that."""
        port = free_port()
        variables = JSON | {
            "DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}",
            "DS_STORAGE__MODE": "file-durable",
            "DS_STORAGE__DATA_DIR": str(tmp_path / "data"),
        }
        log = tmp_path / "out.log"
        limited = "import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); "
        limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", limited, *COMMAND, "-n", "durable-streams"],
                cwd=tmp_path,
                env=child_environment(**variables),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            until_ready(port)
            url = f"http://127.0.0.1:{port}/v1/stream/s"
            assert ask(url, "PUT", b"", Content_Type="text/plain") == 201
            request = urllib.request.Request(url, bytes(400_000), {"Content-Type": "text/plain"}, method="POST")
            with pytest.raises(urllib.error.HTTPError) as raised:
                urllib.request.urlopen(request, timeout=30)
            with raised.value as error:
                assert error.code in (503, 507)
                assert str(tmp_path).encode() not in error.read()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        events = json_log(log.read_text())
        (failed,) = [event for event in events if event["message"] == "request failed"]
        assert failed["log.level"] == "error"
        assert failed["ds.error_class"] in ("unavailable", "insufficient_storage")
        assert str(tmp_path) in str(failed["error.message"])


class PlaceTests:
    """Where ``twistd``'s options send the log."""

    def test_file(self, tmp_path: Path) -> None:
        """``--logfile`` gets JSON, and stdout nothing."""
        port = free_port()
        environ = {"DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}", "DS_OBSERVABILITY__LOG_FORMAT": "auto"}
        process = subprocess.Popen(
            [*COMMAND, "-n", "--logfile=mine.log", "durable-streams"],
            cwd=tmp_path,
            env=child_environment(**environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        until_ready(port)
        process.terminate()
        printed, _ = process.communicate(timeout=60)
        assert printed == b""
        assert "readiness" in [event.get("ds.operation") for event in json_log((tmp_path / "mine.log").read_text())]

    def test_daemon(self, tmp_path: Path) -> None:
        """A daemon writes JSON to twistd.log, each line with the number of the process that lives on."""
        port = free_port()
        environ = {"DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}", "DS_OBSERVABILITY__LOG_FORMAT": "auto"}
        pidfile = tmp_path / "server.pid"
        subprocess.run(
            [str(TWISTD), f"--pidfile={pidfile}", "durable-streams"],
            cwd=tmp_path,
            env=child_environment(**environ),
            check=True,
            timeout=60,
        )
        until_ready(port)
        pid = int(pidfile.read_text())
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not pidfile.exists())
        events = json_log((tmp_path / "twistd.log").read_text())
        assert "listening on" in str([event["message"] for event in events])
        assert {event["process.pid"] for event in events if event["log.logger"] == "dstreams.requests"} == {pid}

    def test_own_observer(self, tmp_path: Path) -> None:
        """``--logger`` takes the operator's own observer instead."""
        (tmp_path / "mine.py").write_text(
            "from zope.interface import provider\n"
            "from twisted.logger import ILogObserver, formatEvent\n"
            "import sys\n"
            "out = sys.stdout\n"
            "@provider(ILogObserver)\n"
            "def observe(event):\n"
            "    operation = event.get('log_fields', {}).get('ds.operation', '')\n"
            "    out.write(f'mine: {formatEvent(event)} {operation}'.rstrip() + '\\n')\n"
            "    out.flush()\n"
            "def make():\n"
            "    return observe\n"
        )
        command = [*COMMAND, "-n", "--logger=mine.make", "durable-streams"]
        variables = {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"}
        path = f"{ROOT}:{tmp_path}"
        with child_server(tmp_path, command, variables | {"PYTHONPATH": path}) as server:
            ask(f"{server.url}/healthz")
            wait_for(lambda: "mine: request completed health" in server.log.read_text())
            assert all(line.startswith("mine: ") for line in server.log.read_text().splitlines())

    def test_level(self, tmp_path: Path) -> None:
        """Requests alone can be logged less."""
        variables = {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0", "RUST_LOG": "info,dstreams.requests=warn"}
        with child_server(tmp_path, [*COMMAND, "-n", "durable-streams"], variables) as server:
            ask(f"{server.url}/healthz")
            ask(f"{server.url}/elsewhere")
            wait_for(lambda: "request completed" in server.log.read_text())
            log = server.log.read_text()
        assert "request completed with client error" in log
        assert "ds.operation=health" not in log


@pytest.mark.parametrize("reactor", ["default", "epoll"])
def test_unread_output(tmp_path: Path, reactor: str) -> None:
    """A pipe that nobody reads holds up no request; its lines are whole and in order, and the lost ones counted."""
    requests, longest = 15_000, 0.0
    with unread_server(tmp_path, reactor) as (process, port, reading):
        with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as pinger:
            sock = socket.create_connection(("127.0.0.1", port), 20)
            with sock, sock.makefile("rb") as answers:
                for number in range(0, requests, 100):
                    head = b"HEAD /v1/stream/%d HTTP/1.1\r\nHost: a\r\n\r\n"
                    sock.sendall(b"".join(head % (number + each) for each in range(100)))
                    begin = time.perf_counter()
                    pinger.request("HEAD", "/v1/stream/pinger")
                    pinger.getresponse().read()
                    longest = max(longest, time.perf_counter() - begin)
                    ends = 0
                    while ends < 100:
                        ends += answers.readline() == b"\r\n"
        process.terminate()
        data = bytearray()
        while piece := os.read(reading, 65_536):
            data += piece
        assert process.wait(20) == 0
    assert longest < 1.0
    events = json_log(data.decode())
    [lost] = [event for event in events if "lines before this one could not be written" in str(event["message"])]
    paths = [str(event["url.path"]) for event in events if event.get("http.request.method") == "HEAD"]
    written = [path for path in paths if "pinger" not in path]
    assert written == [f"/v1/stream/{number}" for number in range(len(written))]
    assert requests <= len(paths) + int(str(lost["labels.lost"])) < requests + 200


def test_stop_with_unread_output(tmp_path: Path) -> None:
    """A pipe that nobody reads doesn't keep the process from ending, with the usual status."""
    with unread_server(tmp_path) as (process, port, _):
        for _ in range(50):
            ask(f"http://127.0.0.1:{port}/healthz")
        process.terminate()
        assert process.wait(20) == 0


@contextmanager
def unread_server(directory: Path, reactor: str = "default") -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """A server that logs to a pipe of a page: its process, its port, and the descriptor to read the pipe from."""
    port = free_port()
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [*COMMAND, "-n", *([] if reactor == "default" else [f"--reactor={reactor}"]), "durable-streams"],
        cwd=directory,
        env=child_environment(**JSON | {"DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}"}),
        stdout=writing,
        stderr=subprocess.STDOUT,
    )
    os.close(writing)
    try:
        until_ready(port)
        yield process, port, reading
    finally:
        process.kill()
        process.wait()
        os.close(reading)


@pytest.mark.parametrize("reactor", ["default", "epoll"])
def test_stalled_client(tmp_path: Path, reactor: str) -> None:
    """A client that takes nothing shows in the metrics, with the bytes that wait for it."""
    command = [*COMMAND, "-n", "durable-streams"]
    if reactor != "default":
        if sys.platform != "linux":
            pytest.skip("there is no epoll here")
        command.insert(1, f"--reactor={reactor}")
    with child_server(tmp_path, command, {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"}) as server:
        ask(f"{server.url}/v1/stream/s", "PUT", bytes(8 << 20), Content_Type="application/octet-stream")
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", server.port))
            stalled.sendall(b"GET /v1/stream/s HTTP/1.1\r\nHost: a\r\n\r\n")

            def value(name: str) -> float:
                with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as response:
                    found = re.search(rf"^{re.escape(name)} (\S+)$", response.read().decode(), re.MULTILINE)
                assert found is not None
                return float(found[1])

            wait_for(lambda: value("dstreams_http_stalled_clients") == 1)
            assert value("dstreams_http_unsent_bytes") > 0
            assert value('dstreams_readers{kind="catch-up"}') == 1
        wait_for(lambda: value("dstreams_http_stalled_clients") == 0)
        assert value("dstreams_http_unsent_bytes") == 0


class Collector(ThreadingHTTPServer):
    """Takes what is exported by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CollectorRequest)
        self.taken: list[tuple[str, bytes]] = []


class CollectorRequest(BaseHTTPRequestHandler):
    """One export."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        self.server.taken.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


needs_otel = pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry") is None,
    reason="OpenTelemetry isn't installed: pip install dstreams[otel]",
)


@needs_otel
class TraceTests:
    """Exported spans."""

    def test_export(self, tmp_path: Path, collector: Collector) -> None:
        """Spans reach a collector, the last ones when the server stops."""
        variables = {
            "DS_SERVER__BIND_ADDRESS": "127.0.0.1:0",
            "DS_OBSERVABILITY__TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        }
        with child_server(tmp_path, [*COMMAND, "-n", "durable-streams"], variables) as server:
            ask(f"{server.url}/v1/stream/one", "PUT", b"", Content_Type="text/plain")
            server.process.terminate()
            assert server.process.wait(60) == 0
        path, body = collector.taken[0]
        assert path == "/v1/traces"
        assert b"PUT /v1/stream/{name}" in body
        assert b"durable-streams" in body

    def test_nobody_there(self, tmp_path: Path) -> None:
        """Without a collector requests are answered as always, and the server stops soon."""
        variables = {
            "DS_SERVER__BIND_ADDRESS": "127.0.0.1:0",
            "DS_OBSERVABILITY__TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        }
        with child_server(tmp_path, [*COMMAND, "-n", "durable-streams"], variables) as server:
            assert ask(f"{server.url}/healthz") == 200
            began = time.monotonic()
            server.process.terminate()
            assert server.process.wait(60) == 0
            assert time.monotonic() - began < 30
