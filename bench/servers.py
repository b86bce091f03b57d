"""The servers that are compared: how each is started in each of its modes, and a running one.

All get the same: a fresh directory, limits far beyond what a run can reach, logs of warnings only, and the
loopback address.
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
"""The checkout."""

START_SECONDS = 600
"""How long a server may take until it answers: recovery of a large store is a part of it."""

STOP_SECONDS = 60
"""How long one may take to stop; after that it is killed."""

_AMPLE_BYTES = str(1 << 40)


class StartFailure(Exception):
    """A server can't be started; the text says why."""


class EndedFailure(Exception):
    """A server has ended in the middle of a run; the text has its last words."""


@frozen
class Launch:
    """A command that starts a server.

    :param port: where it listens.
    """

    command: Sequence[str]
    environ: dict[str, str]
    port: int


@frozen
class Mode:
    """One way to run a server.

    :param name: the server's own word.
    :param promises: with which of our modes it is compared, because it promises about as much.
    :param syncs: whether it syncs before it acknowledges.
    """

    name: str
    promises: tuple[str, ...]
    syncs: bool = False


@frozen
class Server:
    """A server that can be started.

    :param key: a short name for the command line.
    :param title: its name and version.
    :param prefix: the path before a stream's name.
    :param launch: the command for a mode's name and a data directory.
    :param tells_mode: whether ``/health`` names the mode that it really runs in.
    :param ours: whether it is ours.
    :param apart: what is special about it, so that it isn't compared with the others; empty when nothing is.
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
        """Which one it is, for people."""
        apart = f", {self.server.apart}" if self.server.apart else ""
        return f"{self.server.title}, {self.mode.name}{apart}"

    @property
    def key(self) -> str:
        """The same, for files and the command line."""
        return f"{self.server.key}:{self.mode.name}"


@frozen
class RunningServer:
    """A server's process.

    :param log: the file with all that it prints.
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
        """The processor time that all its threads have taken so far, ended ones included."""
        # The clock of another process, as clock_getcpuclockid(3) makes it: nanoseconds, where /proc has ticks of
        # 10 ms, too coarse for a server that is nearly idle.
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def check_alive(self) -> None:
        """See that it still runs.

        :raise EndedFailure: it has ended by itself.
        """
        if self.process.poll() is not None:
            raise EndedFailure(f"the server ended by itself: {last_words(self.log)}")

    def resident_bytes(self) -> int:
        """The memory that it has."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


# --- what there is -----------------------------------------------------------------------------------------


def dstreams_server() -> Server:
    """Ours, as the running Python has it."""
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
    """Ours with the logs that it writes unless told otherwise."""
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
    """The peers that are there."""
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
        # It writes into the page cache before it answers, so it survives a killed process.
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
    """What ours and the Rust server are told alike."""
    return {
        "DS_SERVER__BIND_ADDRESS": address,
        "DS_STORAGE__MODE": mode,
        "DS_STORAGE__DATA_DIR": str(directory),
        "DS_LIMITS__MAX_MEMORY_BYTES": _AMPLE_BYTES,
        "DS_LIMITS__MAX_STREAM_BYTES": _AMPLE_BYTES,
        # Readers stay for the whole run.
        "DS_TRANSPORT__CONNECTION__SSE_RECONNECT_INTERVAL_SECS": "0",
    }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- running one -------------------------------------------------------------------------------------------


Waiting = Callable[[float], object]
"""Told again and again how many seconds a start has taken so far."""


@contextmanager
def running(
    target: Target, directory: Path, waiting: Waiting = lambda _: None, output: int | None = None
) -> Iterator[RunningServer]:
    """A server from its start to its end.

    :param directory: for its data (in ``data``) and its log; whatever a former run left there is its own.
    :param waiting: told how long the start takes.
    :param output: a descriptor that it prints to; its log when it is ``None``.
    :raise StartFailure: when it ends by itself, doesn't answer in time, or runs in another mode.
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
    """Stop a server; kill it when it doesn't."""
    server.process.terminate()
    try:
        server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        kill(server)


def kill(server: RunningServer) -> None:
    """End a server without giving it a chance to do anything."""
    server.process.kill()
    server.process.wait()


def _clean_environ() -> dict[str, str]:
    """This process's environment without what configures a server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DS_")}


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path, began: float, waiting: Waiting) -> None:
    """Wait until the port takes connections."""
    while (spent := time.perf_counter() - began) < START_SECONDS:
        waiting(spent)
        if process.poll() is not None:
            raise StartFailure(f"it ended with status {process.returncode}: {last_words(log)}")
        if _takes_connections(port):
            return
        time.sleep(0.002)
    raise StartFailure(f"it didn't answer within {START_SECONDS} s: {last_words(log)}")


def _check_mode(mode: str, port: int) -> None:
    """A mode that a server doesn't have yet must not be measured under its name."""
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
    """The last line that a server has printed."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was printed")
