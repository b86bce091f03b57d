"""A browser's own ``EventSource``, without any client library."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers import ChildServer, twistd_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",  # without it, headless Chromium ends when the page has loaded
]
SECONDS = 90
"""How long a browser may take; it waits 3 s before each reconnection."""

PAGE = """<!doctype html><script>
const numbers = []
let opened = 0
const source = new EventSource("URL/v1/stream/s?offset=-1&live=sse")
source.onopen = () => { opened += 1 }
source.addEventListener("data", event => numbers.push(...JSON.parse(event.data)))
source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) return
    const headers = {"Content-Type": "text/plain"}
    fetch("URL/v1/stream/result", {method: "PUT", headers, body: JSON.stringify({numbers, opened})})
}
</script>"""
"""Reads a stream until the browser stops reconnecting, then stores what it has received."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium isn't installed; make browser does that on Debian"),
]


def send(server: ChildServer, method: str, name: str, body: bytes = b"", **headers: str) -> bytes:
    """Send a request; returns the response's body."""
    named = {"Content-Type": "application/json"} | {key.replace("_", "-"): value for key, value in headers.items()}
    url = f"{server.url}/v1/stream/{name}"
    request = urllib.request.Request(url, body if method != "GET" else None, named, method=method)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return bytes(answer.read())


@contextmanager
def browser(directory: Path, server: ChildServer) -> Iterator[None]:
    """Chromium with the page that reads the stream."""
    assert CHROMIUM is not None
    page = directory / "page.html"
    page.write_text(PAGE.replace("URL", server.url))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={directory / 'profile'}", page.as_uri()]
    with (directory / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(SECONDS)


def result(server: ChildServer) -> dict[str, object]:
    """What the page has received when the browser has stopped."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            return dict(json.loads(send(server, "GET", "result?offset=-1")))
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        time.sleep(0.2)
    raise AssertionError("the browser did not stop reconnecting")


def test_closed_stream(tmp_path: Path) -> None:
    """21 messages of a closed stream arrive once; then the browser stops."""
    with twistd_server(tmp_path) as server:
        send(server, "PUT", "s", json.dumps(list(range(21))).encode(), Stream_Closed="true")
        with browser(tmp_path, server):
            assert result(server) == {"numbers": list(range(21)), "opened": 1}


def test_rotation(tmp_path: Path) -> None:
    """A live stream whose connections the server ends each second arrives without a gap or a repetition."""
    environ = {"DS_TRANSPORT__CONNECTION__SSE_RECONNECT_INTERVAL_SECS": "1"}
    with twistd_server(tmp_path, environ=environ) as server:
        send(server, "PUT", "s")
        with browser(tmp_path, server):
            for number in range(80):
                send(server, "POST", "s", b"%d" % number)
                time.sleep(0.1)
            send(server, "POST", "s", Stream_Closed="true")
            found = result(server)
    assert found["numbers"] == list(range(80))
    assert int(str(found["opened"])) > 1
