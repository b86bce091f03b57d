"""Starts and stops the servers that are compared, each in each of its modes.

All run under the same conditions: an empty directory, limits far beyond what a run can reach, logs of warnings only,
and the loopback address.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from attrs import frozen

from bench import peers
from bench.peers import Peer
from dstreams import __version__

ROOT = Path(__file__).resolve().parent.parent
"""The root of the checkout."""

START_SECONDS = 600
"""Maximum seconds until a server answers, including the recovery of a large store."""

STOP_SECONDS = 60
"""Maximum seconds for a shutdown; then the server is killed."""

_AMPLE_BYTES = str(1 << 40)


class StartFailure(Exception):
    """A server cannot be started; the text says why."""


class EndedFailure(Exception):
    """A server has ended during a run; the text has its last line of output."""


@frozen
class Launch:
    """A command that starts a server.

    :param port: the port that it listens on.
    """

    command: Sequence[str]
    environ: dict[str, str]
    port: int


@frozen
class Mode:
    """One way to run a server.

    :param name: the server's name for it.
    :param promises: the modes of this server that it is compared with, because it makes about the same promise.
    :param syncs: whether it syncs before it acknowledges.
    """

    name: str
    promises: tuple[str, ...]
    syncs: bool = False


@frozen
class Server:
    """A server to benchmark.

    :param key: a short name for the command line.
    :param title: its name and version.
    :param prefix: the path before a stream's name.
    :param launch: the command for a mode's name and a data directory.
    :param tells_mode: whether ``/health`` names the mode that is in effect.
    :param ours: whether it is this project's server.
    :param apart: why it is not compared with the others; empty if it is.
    """

    key: str
    title: str
    prefix: str
    modes: tuple[Mode, ...]
    launch: Callable[[str, Path], Launch]
    tells_mode: bool = False
    ours: bool = False
    apart: str = ""


@frozen
class Target:
    """A server in one of its modes."""

    server: Server
    mode: Mode

    @property
    def title(self) -> str:
        """The target's name for people."""
        apart = f", {self.server.apart}" if self.server.apart else ""
        return f"{self.server.title}, {self.mode.name}{apart}"

    @property
    def key(self) -> str:
        """The target's key for files and the command line."""
        return f"{self.server.key}:{self.mode.name}"


@frozen
class RunningServer:
    """A server's process.

    :param log: the file with its output.
    """

    target: Target
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def origin(self) -> str:
        """``http://127.0.0.1:49152``."""
        return f"http://127.0.0.1:{self.port}"

    def path(self, name: str) -> str:
        """The path of a stream."""
        return self.target.server.prefix + name

    def cpu_seconds(self) -> float:
        """Return the processor time of all its threads so far, including ended ones."""
        # The CPU clock of another process, computed as in clock_getcpuclockid(3). It has nanoseconds, while /proc has
        # ticks of 10 ms, which are too coarse for a server that is nearly idle.
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def check_alive(self) -> None:
        """Check that the server is still running.

        :raise EndedFailure: if it has ended.
        """
        if self.process.poll() is not None:
            raise EndedFailure(f"the server ended by itself: {last_words(self.log)}")

    def resident_bytes(self) -> int:
        """Return its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


# --- what there is -----------------------------------------------------------------------------------------


def dstreams_server() -> Server:
    """Return this project's server, as installed for the running Python."""
    modes = (
        Mode("memory", ("memory",)),
        Mode("file-fast", ("file-fast",)),
        Mode("file-durable", ("file-durable",), syncs=True),
        Mode("acid", ("acid",), syncs=True),
    )
    title = f"dstreams {__version__}"

    def launch(mode: str, directory: Path) -> Launch:
        return _launch_dstreams(mode, directory, {"DS_OBSERVABILITY__RUST_LOG": "warn"})

    return Server("dstreams", title, "/v1/stream/", modes, launch, tells_mode=True, ours=True)


def dstreams_with_logs() -> Server:
    """Return this project's server with its default log level."""
    modes = (Mode("memory", ("memory",)), Mode("file-durable", ("file-durable",), syncs=True))

    def launch(mode: str, directory: Path) -> Launch:
        return _launch_dstreams(mode, directory, {})

    title = f"dstreams {__version__}"
    apart = "default log level"
    return Server("dstreams-logs", title, "/v1/stream/", modes, launch, tells_mode=True, ours=True, apart=apart)


def _launch_dstreams(mode: str, directory: Path, logs: dict[str, str]) -> Launch:
    twistd = Path(sys.executable).with_name("twistd")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    port = free_port()
    environ = _storage_variables(mode, directory, f"127.0.0.1:{port}") | {
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "DS_HTTP__ALLOW_WILDCARD_CORS": "true",
    }
    return Launch([str(twistd), "--pidfile=", "-n", "durable-streams"], environ | logs, port)


def installed_peers() -> list[Server]:
    """Return the installed peers."""
    known = ((peers.RUST_SERVER, _rust_server), (peers.ELECTRIC, _electric), (peers.NODE, _node))
    found = ((peer, describe, peer.path()) for peer, describe in known)
    return [describe(peer, path) for peer, describe, path in found if path is not None]


def _title(peer: Peer, path: Path) -> str:
    return f"{peer.package} {peers.installed_version(peer, path)}"


def _rust_server(peer: Peer, program: Path) -> Server:
    modes = (
        Mode("memory", ("memory",)),
        Mode("file-fast", ("file-fast",)),
        Mode("file-durable", ("file-durable",), syncs=True),
        Mode("acid", ("acid",), syncs=True),
    )

    def launch(mode: str, directory: Path) -> Launch:
        port = free_port()
        environ = _storage_variables(mode, directory, f"127.0.0.1:{port}") | {"RUST_LOG": "warn"}
        return Launch([str(program)], environ, port)

    return Server("rust", _title(peer, program), "/v1/stream/", modes, launch)


def _electric(peer: Peer, program: Path) -> Server:
    modes = (
        # It writes into the page cache before it answers, so the data survives a killed process.
        Mode("memory", ("memory", "file-fast")),
        Mode("wal", ("file-durable",), syncs=True),
    )

    def launch(mode: str, directory: Path) -> Launch:
        port = free_port()
        options = ["--port", str(port), "--data-dir", str(directory), "--durability", mode]
        return Launch([str(program), *options], {"RUST_LOG": "warn"}, port)

    return Server("electric", _title(peer, program), "/", modes, launch)


def _node(peer: Peer, package: Path) -> Server:
    modes = (Mode("memory", ("memory",)), Mode("file", ("file-durable",), syncs=True))

    def launch(mode: str, directory: Path) -> Launch:
        port = free_port()
        script = str(Path(__file__).with_name("node_server.mjs"))
        where = [str(directory)] if mode == "file" else []
        return Launch(["node", script, str(package), str(port), *where], {}, port)

    return Server("node", _title(peer, package), "/", modes, launch)


def _storage_variables(mode: str, directory: Path, address: str) -> dict[str, str]:
    """Return the settings that this server and the Rust server have in common."""
    return {
        "DS_SERVER__BIND_ADDRESS": address,
        "DS_STORAGE__MODE": mode,
        "DS_STORAGE__DATA_DIR": str(directory),
        "DS_LIMITS__MAX_MEMORY_BYTES": _AMPLE_BYTES,
        "DS_LIMITS__MAX_STREAM_BYTES": _AMPLE_BYTES,
        # Let readers stay connected for the whole run.
        "DS_TRANSPORT__CONNECTION__SSE_RECONNECT_INTERVAL_SECS": "0",
    }


def free_port() -> int:
    """Return a port that is not in use now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- running one -------------------------------------------------------------------------------------------


Waiting = Callable[[float], object]
"""Called repeatedly with the seconds that a start has taken so far."""


@contextmanager
def running(
    target: Target, directory: Path, waiting: Waiting = lambda _: None, output: int | None = None
) -> Iterator[RunningServer]:
    """Run a server during the ``with`` statement.

    :param directory: the directory of its data (in ``data``) and its log; it may have data from an earlier run.
    :param waiting: called repeatedly while the server starts.
    :param output: a descriptor that it prints to; its log when it is ``None``.
    :raise StartFailure: if it ends, does not answer in time, or runs in another mode.
    """
    server = start(target, directory, waiting, output)
    try:
        yield server
    finally:
        stop(server)


def start(
    target: Target, directory: Path, waiting: Waiting = lambda _: None, output: int | None = None
) -> RunningServer:
    """Start a server and wait until it answers; as :func:`running`."""
    data, log = directory / "data", directory / "server.log"
    data.mkdir(parents=True, exist_ok=True)
    launch = target.server.launch(target.mode.name, data)
    if shutil.which(launch.command[0]) is None:
        raise StartFailure(f"there is no {launch.command[0]}")
    began = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(
            launch.command,
            cwd=directory,
            env=_clean_environ() | launch.environ,
            stdin=subprocess.DEVNULL,
            stdout=file if output is None else output,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_answer(process, launch.port, log, began, waiting)
        if target.server.tells_mode:
            _check_mode(target.mode.name, launch.port)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return RunningServer(target, process, launch.port, log)


def stop(server: RunningServer) -> None:
    """Stop a server; kill it if it does not stop."""
    server.process.terminate()
    try:
        server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        kill(server)


def kill(server: RunningServer) -> None:
    """Kill a server with SIGKILL."""
    server.process.kill()
    server.process.wait()


def _clean_environ() -> dict[str, str]:
    """Return this process's environment without variables that configure a server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DS_")}


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path, began: float, waiting: Waiting) -> None:
    """Wait until the port accepts connections."""
    while (spent := time.perf_counter() - began) < START_SECONDS:
        waiting(spent)
        if process.poll() is not None:
            raise StartFailure(f"it ended with status {process.returncode}: {last_words(log)}")
        if _takes_connections(port):
            return
        time.sleep(0.002)
    raise StartFailure(f"it didn't answer within {START_SECONDS} s: {last_words(log)}")


def _check_mode(mode: str, port: int) -> None:
    """Check that the server runs in the intended mode, so that no other mode is measured under its name."""
    with urlopen(f"http://127.0.0.1:{port}/health") as response:
        found = json.load(response)["storage"]
    if found != mode:
        raise StartFailure(f"it runs in mode {found} instead of {mode}")


def _takes_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def last_words(log: Path) -> str:
    """Return the last line of a server's output."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was printed")
