"""How long one client waits while others make the server work: ``make bench-fairness``.

Each row puts a load on the server (``bench/loads.py``) while a pinger in a process of its own (``bench/pinger.py``)
sends a HEAD each 25 ms and notes how long it waits. Ours is also measured from inside: the longest turn of its reactor,
in processor time (``bench/turns.py``), which a busy machine doesn't lengthen.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from attrs import asdict, evolve, field, frozen

from bench import loads, waits
from bench.load import START_SECONDS
from bench.pinger import pinging
from bench.runs import suits
from bench.servers import Launch, Mode, RunningServer, Server, Target, dstreams_server, free_port, running
from bench.suite import RESULTS, Suite
from bench.turns import LongTurn, measured_environment, read_report
from bench.workload import PEAK_MB, PING_MAX, PING_P50, PING_P99, TURN, Figures, LoadFailure, Measure, Run, Workload

_BOTH = ("memory", "file-durable")
_REACTORS = (*_BOTH, "epoll")
_DISK = ("file-durable", "acid")
_PINGED = "pinged"

_REPORT = "turns.jsonl"

STOPPED_SECONDS = 3.0
"""How long a server's output isn't read."""


@frozen
class Row:
    """A load beside the pinger (a ``Workload``).

    :param key: the load's name in :data:`bench.loads.LOADS`.
    :param settings: environment variables of the server.
    :param share: a part of the full size; ``quick``: what quick runs make of it.
    :param seconds: about how long it takes at full size, for estimates.
    :param admin: whether the server needs its admin listener.
    :param stops_output: whether the server's standard output is a pipe that isn't read for a while.
    :param ours_only: whether the peers have nothing of the kind.
    """

    key: str
    title: str
    group: str = "hostile"
    modes: tuple[str, ...] = _BOTH
    settings: dict[str, str] = field(factory=dict)
    share: float = 1.0
    seconds: float = 6.0
    admin: bool = False
    stops_output: bool = False
    ours_only: bool = False
    quick: float = 0.5
    rounds: int = 99
    log_levels: bool = False
    measures: tuple[Measure, ...] = (PING_MAX, PING_P99, PING_P50, TURN, PEAK_MB)

    def estimate(self, warm: int, seconds: int) -> float:  # noqa: ARG002 (it takes as long as it takes)
        """See :class:`~bench.workload.Workload`."""
        return START_SECONDS + 1 + self.seconds * self.share

    def measure(self, run: Run) -> Figures:
        """Start a server, prepare the load, put it on, and see how the pinger fares."""
        report = run.directory / _REPORT
        settings = dict(self.settings)
        if self.admin:
            port = free_port()
            (run.directory / "admin-port").write_text(str(port))
            settings["DS_ADMIN__ENDPOINT"] = f"127.0.0.1:{port}"
        target = with_environment(run.target, settings | measured_environment(report))
        tls = "http2" in run.target.mode.promises
        with _output(self.stops_output) as output, running(target, run.directory, output=output.server_end) as server:
            _create_pinged(server, tls=tls)
            place = loads.Place(server.port, server.path(""), server.process.pid, tls, str(run.directory), self.share)
            run.step("preparing")
            with _load(self.key, place) as load, pinging(server, _PINGED, tls=tls) as pinger:
                pinger.await_quiet()
                _reset_peak(server)
                turns_before = len(read_report(report))
                output.pause()
                pinger.reset()
                run.step("measuring")
                load.go()
                pinger.await_quiet()
                pings = pinger.report()
                peak = _peak_bytes(server)
            turns = read_report(report)[turns_before:]
        figures = {PING_MAX.key: pings.max_ms, PING_P99.key: pings.p99_ms, PING_P50.key: pings.p50_ms}
        figures["pings"] = pings.count
        if peak is not None:
            figures[PEAK_MB.key] = peak / 1e6
        if run.target.server.ours:
            longest = max(turns, key=lambda turn: turn.ms, default=LongTurn(0.0, ()))
            # Shorter turns than bench.turns.FLOOR_MS aren't reported: they count as 0.
            figures[TURN.key] = longest.ms
            _keep(run.target, self.key, longest)
        return figures


# --- what a row needs --------------------------------------------------------------------------------------


@frozen
class _Output:
    """Where a server prints to: a pipe that is read, but for pauses; or its log.

    :param server_end: the descriptor for the server; ``None`` for the log.
    """

    server_end: int | None = None
    _pause: threading.Event = field(factory=threading.Event)

    def pause(self) -> None:
        """Read nothing for ``STOPPED_SECONDS``, if it is a pipe."""
        self._pause.set()

    def drain(self, reading_end: IO[bytes]) -> None:
        """Read until the end (in a thread of its own)."""
        while reading_end.read1(65536):  # type: ignore[attr-defined]
            if self._pause.is_set():
                self._pause.clear()
                time.sleep(STOPPED_SECONDS)


@contextmanager
def _output(piped: bool) -> Iterator[_Output]:
    if not piped:
        yield _Output()
        return
    reading, writing = os.pipe()
    output = _Output(writing)
    with os.fdopen(reading, "rb") as reading_end:
        thread = threading.Thread(target=output.drain, args=(reading_end,), daemon=True)
        thread.start()
        try:
            yield output
        finally:
            os.close(writing)
            thread.join(60)


@frozen
class _Load:
    """A load's process, prepared."""

    _process: subprocess.Popen[str]
    _errors: Path

    def await_line(self, expected: str) -> None:
        """Wait until it prints a line.

        :raise LoadFailure: it ends instead.
        """
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != expected:
            words = self._errors.read_text().strip().split("\n")[-1]
            raise LoadFailure(f"the load failed: {words}")

    def go(self) -> None:
        """Have it do its work, and wait for the end of it.

        :raise LoadFailure:
        """
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.await_line("done")


@contextmanager
def _load(name: str, place: loads.Place) -> Iterator[_Load]:
    command = [sys.executable, "-m", "bench.loads", name, json.dumps(asdict(place))]
    errors = Path(place.directory, "load.log")
    with errors.open("wb") as error_file:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=error_file, text=True)
    try:
        load = _Load(process, errors)
        load.await_line("ready")
        yield load
    finally:
        process.kill()
        process.communicate()


def _keep(target: Target, row: str, turn: LongTurn) -> None:
    """Save where the longest turn spent its time, for one who wants to shorten it."""
    folder = RESULTS / "turns"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{target.key.replace(':', '-')}-{row}.txt").write_text(f"{turn}\n")


def with_environment(target: Target, more: dict[str, str]) -> Target:
    """The same server with more environment variables."""
    launch = target.server.launch

    def launch_with_more(mode: str, directory: Path) -> Launch:
        found = launch(mode, directory)
        return evolve(found, environ=found.environ | more)

    return evolve(target, server=evolve(target.server, launch=launch_with_more))


def _create_pinged(server: RunningServer, *, tls: bool) -> None:
    place = loads.Place(server.port, server.path(""), server.process.pid, tls, "", 1.0)
    try:
        loads.create(place, _PINGED, "application/octet-stream")
    except (OSError, SystemExit) as error:
        raise LoadFailure(f"the pinger's stream can't be created: {error}") from error


def _reset_peak(server: RunningServer) -> None:
    """Have the kernel forget the peak of a process's memory: proc(5), clear_refs."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


def _peak_bytes(server: RunningServer) -> int | None:
    """The peak of its memory since then; ``None`` when it has ended."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text(), re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


# --- which rows there are ----------------------------------------------------------------------------------

_DEFAULT_LOGS = {"DS_OBSERVABILITY__RUST_LOG": "info"}


def rows(*, quick: bool) -> list[Row]:
    """All of them, or the same at a fraction of the size."""
    found = [*_HOSTILE, *_HEAVY]
    return [evolve(row, share=row.share * row.quick) for row in found] if quick else found


_HOSTILE = (
    Row("idle", "nothing beside the pinger", modes=tuple(waits.MODES), seconds=3),
    Row("head-pipelined", "1 connection pipelines HEAD for 3 s", modes=_REACTORS),
    Row("head-pipelined-10", "10 connections pipeline HEAD for 3 s", modes=_REACTORS, seconds=20),
    Row("health-pipelined", "1 connection pipelines GET /healthz for 3 s"),
    Row("missing-pipelined", "1 connection pipelines GET of a stream that isn't there for 3 s"),
    Row("chunks", "1 connection sends chunks of 1 byte for 3 s", modes=_REACTORS),
    Row("json-ones", "POST of a JSON array of 4.5 M numbers, 9 MB", modes=(*_BOTH, "acid")),
    Row("json-arrays", "POST of a JSON array of 3 M empty arrays, 9 MB"),
    Row("json-nested", "POST of JSON arrays nested 500 deep, 9 MB"),
    Row("json-object", "POST of a JSON object with 750,000 keys, 9 MB"),
    Row("json-ones-50mb", "POST of a JSON array of 25 M numbers, 50 MB", seconds=30, quick=0.4),
    Row("append-100mb", "append of 100 MB", modes=_REACTORS),
    Row("append-10mb", "8 appends of 9 MB", modes=(*_BOTH, "acid", "http2")),
    Row("stalled-text", "200 SSE readers that don't read, of 9 MB of text", modes=_REACTORS, seconds=20, quick=0.25),
    Row("stalled-binary", "200 SSE readers that don't read, of 9 MB of bytes", seconds=20, quick=0.25),
    Row("stalled-newlines", "200 SSE readers that don't read, of 9 MB of newlines", seconds=20, quick=0.25),
    Row("catch-up", "SSE catch-up of 96 MB"),
    Row("catch-up-newlines", "SSE catch-up of 9 MB of newlines"),
    Row("fan-out-sse", "3 appends to a stream with 8,000 SSE readers", modes=_REACTORS, seconds=10),
    Row("fan-out-long-poll", "an append to a stream with 8,000 long-poll readers", seconds=10),
    *(
        Row(f"h2-{name}", f"200,000 {title} frames on one HTTP/2 connection", modes=("http2",))
        for name, title in (
            ("ping", "PING"),
            ("settings", "SETTINGS"),
            ("data", "empty DATA"),
            ("priority", "PRIORITY"),
            ("window", "WINDOW_UPDATE"),
        )
    ),
    Row("connects", "10,000 connects at once", modes=_REACTORS),
    Row("producers", "400,000 new producers of one stream", seconds=40, quick=0.25),
    Row("creates", "600,000 streams created", modes=("memory",), seconds=60, quick=0.15),
    Row("deletes", "100,000 streams deleted", modes=(*_BOTH, "acid"), seconds=20, quick=0.25),
    Row("log-stopped", "standard output isn't read for 3 s", settings=_DEFAULT_LOGS, stops_output=True, ours_only=True),
)

_HEAVY = (
    Row(
        "checkpoint",
        "checkpoints of 50,000 streams and 48 MB",
        "heavy",
        ("file-durable",),
        settings={"DS_STORAGE__CHECKPOINT_BYTES": "10000000"},
        seconds=15,
        quick=0.4,
    ),
    Row("export", "export of 20 MB over HTTP", "heavy", (*_BOTH, "acid"), ours_only=True),
    Row("import", "import of 20 MB over HTTP", "heavy", (*_BOTH, "acid"), ours_only=True),
    Row("expiry", "100,000 streams expire", "heavy", (*_BOTH, "acid"), seconds=30, quick=0.25),
    Row(
        "listing",
        "100,000 streams listed",
        "heavy",
        (*_BOTH, "acid"),
        seconds=20,
        quick=0.25,
        admin=True,
        ours_only=True,
    ),
    Row("compaction", "240 MB deleted", "heavy", _DISK, seconds=15, quick=0.25),
    Row("drain", "SIGTERM with 5,000 SSE readers", "heavy", (*_BOTH, "epoll"), seconds=15),
)


def is_for(row: Workload, target: Target) -> bool:
    """Whether a server gets a row."""
    assert isinstance(row, Row)
    return suits(row, target) and (target.server.ours or not row.ours_only)


def more_servers() -> list[Server]:
    """Ours on Twisted's reactor on epoll, and over HTTP/2."""
    ours = dstreams_server()

    def launch_on_epoll(mode: str, directory: Path) -> Launch:
        found = ours.launch(mode, directory)
        program, *options = found.command
        return evolve(found, command=[program, "--reactor=epoll", *options])

    def launch_with_tls(mode: str, directory: Path) -> Launch:
        found = ours.launch(mode, directory)
        key, certificate = directory.parent / "tls.key", directory.parent / "tls.crt"
        make_certificate(key, certificate)
        tls = {
            "DS_TRANSPORT__MODE": "tls",
            "DS_TRANSPORT__TLS__KEY_PATH": str(key),
            "DS_TRANSPORT__TLS__CERT_PATH": str(certificate),
            "DS_TRANSPORT__TLS__ALPN_PROTOCOLS": "h2,http/1.1",
            "DS_TRANSPORT__HTTP__VERSIONS": "http1,http2",
        }
        return evolve(found, environ=found.environ | tls)

    epoll = evolve(ours, key="dstreams-epoll", modes=(Mode("memory", ("epoll",)),), launch=launch_on_epoll)
    http2 = evolve(
        ours, key="dstreams-http2", modes=(Mode("memory", ("http2",)),), launch=launch_with_tls, tells_mode=False
    )
    return [epoll, http2]


def make_certificate(key: Path, certificate: Path) -> None:
    """Make a certificate that nobody verifies."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(private.private_bytes(encoding, form, serialization.NoEncryption()))


FAIRNESS = Suite(
    "fairness",
    "bench.fairness",
    "How long one client waits while others make the server work; see bench/README.md.",
    rows,
    rounds=1,
    warm=1,
    seconds=1,
    peers=True,
    more=more_servers,
    suits=is_for,
    render=waits.render,
    verdict=waits.verdict,
)

if __name__ == "__main__":
    sys.exit(FAIRNESS.main())
