"""Real servers on a real file system of a few megabytes, filled to the last page."""

from __future__ import annotations

import http.client
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import ChildServer, twistd_server

PATIENCE = 60.0
"""Seconds until what must happen has happened."""

BODY = b"x" * 100_000


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, of the size that the test asks for."""
    place = tmp_path / "disk"
    place.mkdir()
    options = f"size={request.param}"
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def ask(server: ChildServer, method: str, path: str, body: bytes | None = None) -> int:
    """The status of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def fill(server: ChildServer) -> int:
    """Create streams of 100 KB until there is no room; how many."""
    for number in range(10_000):
        status = ask(server, "PUT", f"/v1/stream/s{number}", BODY)
        if status == 507:
            return number
        assert status == 201
    raise AssertionError("the disk is never full")


def take_the_rest(disk: Path) -> None:
    """Another program writes until nothing goes in any more."""
    with (disk / "other").open("ab", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def wait_for_room(server: ChildServer) -> None:
    """Append until it is taken."""
    deadline = time.monotonic() + PATIENCE
    while (status := ask(server, "POST", "/v1/stream/s0", b"y" * 50_000)) != 204:
        assert status == 507
        assert time.monotonic() < deadline, "deletes give nothing back"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["8m"], indirect=True)
@pytest.mark.parametrize("mode", ["file-fast", "file-durable"])
def test_without_a_free_page(mode: str, disk: Path, tmp_path: Path) -> None:
    """On a disk that others have filled, too, a delete is acknowledged, makes room, and appends are taken again."""
    environ = {"DS_STORAGE__MODE": mode, "DS_STORAGE__DATA_DIR": str(disk / "data")}
    with twistd_server(tmp_path, environ=environ | {"DS_STORAGE__CHECKPOINT_BYTES": "500000"}) as server:
        count = fill(server)
        assert count > 10
        # A checkpoint that was under way may have given something back.
        deadline = time.monotonic() + PATIENCE
        status = 204
        while status != 507:
            assert status == 204
            assert time.monotonic() < deadline, "the disk is never full"
            take_the_rest(disk)
            status = ask(server, "POST", "/v1/stream/s0", BODY)
        assert ask(server, "GET", "/readyz") == 200
        for number in range(1, count):
            assert ask(server, "DELETE", f"/v1/stream/s{number}") == 204
        wait_for_room(server)
    with twistd_server(tmp_path, environ=environ) as server:
        assert [ask(server, "HEAD", f"/v1/stream/s{number}") for number in range(3)] == [200, 404, 404]


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["8m"], indirect=True)
@pytest.mark.parametrize("mode", ["file-fast", "file-durable"])
def test_start_without_a_free_page(mode: str, disk: Path, tmp_path: Path) -> None:
    """A server that is killed on a full disk starts again there, so that streams can be deleted."""
    environ = {"DS_STORAGE__MODE": mode, "DS_STORAGE__DATA_DIR": str(disk / "data")}
    environ["DS_STORAGE__CHECKPOINT_BYTES"] = "500000"
    with twistd_server(tmp_path, environ=environ) as server:
        count = fill(server)
        server.process.kill()
        server.process.wait()
    take_the_rest(disk)
    with twistd_server(tmp_path, environ=environ) as server:
        assert ask(server, "HEAD", "/v1/stream/s0") == 200
        for number in range(1, count):
            assert ask(server, "DELETE", f"/v1/stream/s{number}") == 204
        wait_for_room(server)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "disk", "said"),
    [
        ("file-fast", "8m", "no room for a checkpoint; the journal keeps what it was to write"),
        ("file-durable", "8m", "no room for a checkpoint; the journal keeps what it was to write"),
        ("acid", "48m", "no room to copy the WALs of 4 shards; they have it all"),
    ],
    indirect=["disk"],
)
def test_stop_without_a_free_page(mode: str, disk: Path, said: str, tmp_path: Path) -> None:
    """A stop on a full disk says so in one line, and the next start has everything."""
    environ = {
        "DS_STORAGE__MODE": mode,
        "DS_STORAGE__DATA_DIR": str(disk / "data"),
        "DS_STORAGE__ACID_SHARD_COUNT": "4",
        "DS_STORAGE__CHECKPOINT_BYTES": "500000",
        "DS_OBSERVABILITY__RUST_LOG": "info,dstreams.requests=off",
    }
    with twistd_server(tmp_path, environ=environ) as server:
        count = fill(server)
        take_the_rest(disk)
        ask(server, "POST", "/v1/stream/s0", BODY)
        take_the_rest(disk)
    stopping = server.log.read_text().partition("SIGTERM: stopping")[2].splitlines()[1:]
    [line] = [line for line in stopping if "[dstreams." in line]
    assert f"#error] {said}: " in line
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in stopping), "a traceback"
    (disk / "other").unlink()
    with twistd_server(tmp_path, environ=environ) as server:
        assert {ask(server, "HEAD", f"/v1/stream/s{number}") for number in range(count)} == {200}


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["48m"], indirect=True)
def test_acid(disk: Path, tmp_path: Path) -> None:
    """The last room of a disk is for deletes, which give back what appends then take."""
    environ = {"DS_STORAGE__MODE": "acid", "DS_STORAGE__DATA_DIR": str(disk / "data")}
    with twistd_server(tmp_path, environ=environ) as server:
        count = fill(server)
        assert count > 10
        for number in range(1, count):
            assert ask(server, "DELETE", f"/v1/stream/s{number}") == 204
        wait_for_room(server)
    with twistd_server(tmp_path, environ=environ) as server:
        assert [ask(server, "HEAD", f"/v1/stream/s{number}") for number in range(3)] == [200, 404, 404]
