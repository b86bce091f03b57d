"""What a restart costs, and an idle stream: the time until a large store answers again, and its memory.

Run ``python -m bench.restart`` from the checkout (``make bench-restart``). A store with many streams is
filled over HTTP, the server is killed (SIGKILL), started again, stopped in order, and started once more. The
pages of its files stay in the system's cache, so what is timed is the server's work, not the disk's.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from attrs import asdict, frozen

from bench import report
from bench.load import STREAM_PREFIX, LoadFailure, create_streams, expect_success
from bench.results import markdown_table
from bench.runs import Progress, folder
from bench.servers import StartFailure, Target, dstreams_server, kill, running, stop


@frozen
class Start:
    """One start of the server.

    :param seconds: from the start of the process until a stream's HEAD was answered.
    :param resident_bytes: its memory then.
    """

    seconds: float
    resident_bytes: int


@frozen
class Restart:
    """What was found.

    :param stored_bytes: what all streams hold together.
    :param fill_seconds: how long creating them took.
    :param filled_bytes: the server's memory when all had been created.
    :param stop_seconds: how long the orderly stop took: it leaves nothing in the journal.
    :param empty: the start with one empty stream.
    :param killed: the start after the kill.
    :param stopped: the start after the orderly stop.
    """

    streams: int
    stored_bytes: int
    fill_seconds: float
    filled_bytes: int
    stop_seconds: float
    empty: Start
    killed: Start
    stopped: Start

    @property
    def bytes_per_idle_stream(self) -> float:
        """The memory of a stream that nobody has used since the server was started."""
        return (self.stopped.resident_bytes - self.empty.resident_bytes) / self.streams


def measure(target: Target, streams: int, stored_bytes: int, place: Path, progress: Progress) -> Restart:
    """Fill a store, and start a server on it again and again.

    :param place: an empty folder.
    :raise StartFailure:
    :raise LoadFailure:
    """
    body = b"x" * (stored_bytes // streams)
    progress.begin("an empty store")
    with running(target, place / "empty") as server:
        create_streams(server, 1)
    empty = _start(target, place / "empty", 1)[0]
    progress.end(_told(empty))

    progress.begin("filling the store")
    began = time.perf_counter()
    with running(target, place / "store") as server:
        create_streams(
            server, streams, body, progress=lambda number: progress.step(f"{number:,} of {streams:,} streams")
        )
        fill_seconds, filled_bytes = time.perf_counter() - began, server.resident_bytes()
        kill(server)
    progress.end(f"{fill_seconds:.1f} s")

    progress.begin("the start after a kill")
    killed, stop_seconds = _start(target, place / "store", streams)
    progress.end(_told(killed))

    progress.begin("the start after an orderly stop")
    stopped, _ = _start(target, place / "store", streams)
    progress.end(_told(stopped))
    total = len(body) * streams
    return Restart(streams, total, fill_seconds, filled_bytes, stop_seconds, empty, killed, stopped)


def _start(target: Target, directory: Path, streams: int) -> tuple[Start, float]:
    """Start a server on what is there, and stop it.

    :return: the start, and how many seconds the stop took.
    """
    began = time.perf_counter()
    with running(target, directory) as server:
        expect_success(server, "HEAD", f"{STREAM_PREFIX}{streams - 1}")
        found = Start(time.perf_counter() - began, server.resident_bytes())
        began = time.perf_counter()
        stop(server)
        return found, time.perf_counter() - began


def _told(found: Start) -> str:
    return f"{found.seconds:.2f} s, {_mebibytes(found.resident_bytes)}"


def render(found: Restart, target: Target, facts: dict[str, str]) -> str:
    """The report, as Markdown."""
    rows = [
        ["one empty stream", f"{found.empty.seconds:.2f} s", _mebibytes(found.empty.resident_bytes)],
        ["filled over HTTP", f"{found.fill_seconds:.1f} s", _mebibytes(found.filled_bytes)],
        ["start after SIGKILL", f"{found.killed.seconds:.2f} s", _mebibytes(found.killed.resident_bytes)],
        ["orderly stop", f"{found.stop_seconds:.2f} s", ""],
        ["start after it", f"{found.stopped.seconds:.2f} s", _mebibytes(found.stopped.resident_bytes)],
    ]
    parts = [
        f"# Restart: {target.title}",
        f"{found.streams:,} streams, {found.stored_bytes / 1e6:,.0f} MB.",
        report.described(facts),
        markdown_table(["", "time", "memory"], rows),
        f"Memory per idle stream: {found.bytes_per_idle_stream:,.0f} bytes.",
    ]
    return "\n\n".join(parts) + "\n"


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.restart", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, help="how many streams (100,000; quick: 10,000)")
    parser.add_argument("--megabytes", type=int, help="what they hold together (1000; quick: 100)")
    parser.add_argument("--mode", default="file-durable", help="the storage mode (file-durable)")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--directory", type=Path, default=report.DATA, help="where the data is kept (bench/.data)")
    options = parser.parse_args()
    streams = options.streams or (10_000 if options.quick else 100_000)
    megabytes = options.megabytes or (100 if options.quick else 1000)
    server = dstreams_server()
    target = next((Target(server, mode) for mode in server.modes if mode.name == options.mode), None)
    if target is None:
        parser.error(f"there is no mode {options.mode}")
    with folder(options.directory) as place:
        facts = report.machine(place)
        try:
            found = measure(target, streams, megabytes * 1_000_000, place, Progress(4))
        except (StartFailure, LoadFailure) as failure:
            sys.stderr.write(f"\n{failure}\n")
            return 1
        _report(found, target, facts)
        sys.stderr.write("removing the store\n")
    return 0


def _report(found: Restart, target: Target, facts: dict[str, str]) -> None:
    text = render(found, target, facts)
    report.write(text)
    figures = asdict(found) | {"bytes_per_idle_stream": found.bytes_per_idle_stream}
    saved = report.save("restart", {"benchmark": "restart", "machine": facts, "target": target.key} | figures, text)
    sys.stderr.write(f"saved as {saved} and {saved.with_suffix('.json').name}\n")


if __name__ == "__main__":
    sys.exit(main())
