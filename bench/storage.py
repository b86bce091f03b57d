"""What durability costs: acknowledged appends and creates per second, in every mode, beside the peers.

Run ``python -m bench.storage`` from the checkout (``make bench-storage``). Every server that is installed
gets the same load, in turns, in several rounds. What comes out is printed, and saved in ``bench/results``.
See ``bench/README.md`` for what the figures say and what they don't.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from attrs import asdict, frozen

from bench import report, results, syncs
from bench.load import Workload
from bench.results import Measure, Results, comparison
from bench.runs import Progress, Schedule, run_all
from bench.servers import Target, dstreams_server, installed_peers
from bench.syncs import Shares, count_shares


def _appends(body_bytes: int, connections: int, streams: int = 1) -> Workload:
    many = "1 connection" if connections == 1 else f"{connections} connections"
    where = "" if streams == 1 else f", {streams:,} streams"
    return Workload(
        key=f"append-{body_bytes}-c{connections}-s{streams}",
        title=f"append {body_bytes} B, {many}{where}",
        connections=connections,
        streams=streams,
        body_bytes=body_bytes,
    )


_CREATES = Workload("create-c64", "create, 64 connections", 64, 0, 0)

WORKLOADS = (
    *(_appends(body_bytes, connections) for body_bytes in (256, 100) for connections in (1, 32, 128)),
    _appends(256, 64, 100),
    _appends(256, 64, 10_000),
    _CREATES,
)

QUICK = (*(_appends(256, connections) for connections in (1, 32, 128)), _appends(256, 64, 100), _CREATES)

SYNC_WORKLOADS = (_appends(256, 1), _appends(256, 32), _appends(256, 128), _appends(256, 64, 100))
"""For these, appends per sync are counted."""

QUICK_SYNC_WORKLOADS = (_appends(256, 32),)


@frozen
class Plan:
    """What is run.

    :param counted: the workloads for which appends per sync are counted.
    """

    targets: Sequence[Target]
    workloads: Sequence[Workload]
    counted: Sequence[Workload]
    schedule: Schedule

    @property
    def syncing(self) -> list[Target]:
        """The targets that sync before they acknowledge."""
        return [target for target in self.targets if target.mode.syncs]

    @property
    def runs(self) -> int:
        """How many runs that makes."""
        timed = len(self.workloads) * len(self.targets) * self.schedule.rounds
        return timed + len(self.counted) * len(self.syncing)


def main() -> int:
    """Run the benchmark; the exit status is 1 when a run of ours is void or left out."""
    plan = _plan(_options())
    if not plan.runs:
        sys.stderr.write("no server or no workload is called so; see --help\n")
        return 2
    _allow_open_files()
    plan.schedule.directory.mkdir(parents=True, exist_ok=True)
    facts = report.machine(plan.schedule.directory)
    progress = Progress(plan.runs)
    found = run_all(plan.targets, plan.workloads, plan.schedule, progress)
    started = [target for target in plan.syncing if target.key not in found.absent]
    shares = count_shares(started, plan.counted, plan.schedule, progress)
    text = render(plan, found, shares, facts)
    report.write(text)
    saved = report.save("storage", as_json(plan, found, shares, facts), text)
    sys.stderr.write(f"saved as {saved} and {saved.with_suffix('.json').name}\n")
    ours = [target for target in plan.targets if target.server.key == "dstreams"]
    voids = any(found.is_void(workload, target) for workload in plan.workloads for target in ours)
    return 1 if voids or any(target.key in found.absent for target in ours) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.storage", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round, short runs, fewer workloads")
    parser.add_argument("--rounds", type=int, help="how often everything is measured (3; quick: 1)")
    parser.add_argument("--warm", type=int, help="seconds under load before the measured ones (3; quick: 1)")
    parser.add_argument("--seconds", type=int, help="seconds measured (5; quick: 1)")
    servers = "only these: dstreams, rust, electric, node, or one mode as in rust:acid"
    parser.add_argument("--servers", nargs="+", default=[], metavar="KEY", help=servers)
    workloads = "only workloads whose key begins so: append-256-c32, create"
    parser.add_argument("--only", nargs="+", default=[], metavar="KEY", help=workloads)
    parser.add_argument("--no-syncs", dest="syncs", action="store_false", help="don't count appends per sync")
    parser.add_argument(
        "--directory",
        type=Path,
        default=report.DATA,
        help="where the servers keep their data: on the disk that is to be measured (bench/.data)",
    )
    options = parser.parse_args()
    for name, usual in (("rounds", 3), ("warm", 3), ("seconds", 5)):
        if getattr(options, name) is None:
            setattr(options, name, 1 if options.quick else usual)
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    return options


def _plan(options: argparse.Namespace) -> Plan:
    workloads: Sequence[Workload] = QUICK if options.quick else WORKLOADS
    counted: Sequence[Workload] = QUICK_SYNC_WORKLOADS if options.quick else SYNC_WORKLOADS
    if not options.syncs:
        counted = ()
    elif not syncs.available():
        sys.stderr.write("appends per sync aren't counted: perf isn't there, or may not count system calls\n")
        counted = ()
    return Plan(
        _targets(options.servers),
        [each for each in workloads if _is_wanted(each, options.only)],
        [each for each in counted if _is_wanted(each, options.only)],
        Schedule(options.rounds, options.warm, options.seconds, options.directory),
    )


def _targets(wanted: Sequence[str]) -> list[Target]:
    """The servers and modes to run; those that are compared with each other stand together."""
    servers = [dstreams_server(), *installed_peers()]
    targets = [Target(server, mode) for server in servers for mode in server.modes]
    modes = [mode.name for mode in dstreams_server().modes]
    return sorted(
        (each for each in targets if not wanted or each.key in wanted or each.server.key in wanted),
        key=lambda target: modes.index(target.mode.promises[0]),
    )


def _is_wanted(workload: Workload, prefixes: Sequence[str]) -> bool:
    return not prefixes or any(workload.key.startswith(prefix) for prefix in prefixes)


def _allow_open_files() -> None:
    """Let servers open as many files as the system allows: some keep every stream's file open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def render(plan: Plan, found: Results, shares: Shares, facts: dict[str, str]) -> str:
    """The report, as Markdown."""
    rounds, warm, seconds = plan.schedule.rounds, plan.schedule.warm, plan.schedule.seconds
    how = f"Medians of {rounds} round(s) of {seconds} s, each after {warm} s of the same load."
    parts = [
        "# Storage: acknowledged requests per second",
        f"{how} A ratio is ours by theirs, the median over the rounds: above 1, ours is faster.",
        report.described(facts),
        *_sections(plan, found, results.rate, ""),
    ]
    if plan.counted:
        parts += ["## Appends per sync", shares.table(plan.counted, plan.syncing)]
    parts += [
        "# Processor time of the server",
        "Microseconds for each request, all threads together: below 1, ours is cheaper.",
        *_sections(plan, found, results.cpu_us, ": processor time"),
    ]
    notes = [f"- {key} was left out: {why}" for key, why in found.absent.items()]
    notes += [f"- void: {text}" for text in found.voids()]
    if notes:
        parts += ["# What didn't work", "\n".join(notes)]
    return "\n\n".join(parts) + "\n"


def _sections(plan: Plan, found: Results, measure: Measure, suffix: str) -> list[str]:
    """A heading and a table for each of our modes."""
    parts = []
    for mode in dstreams_server().modes:
        alike = [each for each in plan.targets if mode.name in each.mode.promises]
        ours = [each for each in alike if each.server.key == "dstreams"]
        theirs = [each for each in alike if each.server.key != "dstreams" and each.key not in found.absent]
        if ours and ours[0].key not in found.absent:
            table = comparison(found, plan.workloads, ours[0], theirs, measure)
            parts += [f"## {mode.name}{suffix}", table]
    return parts


def as_json(plan: Plan, found: Results, shares: Shares, facts: dict[str, str]) -> dict[str, object]:
    """Everything that was found, each round for itself."""
    return {
        "benchmark": "storage",
        "machine": facts,
        "schedule": asdict(plan.schedule) | {"directory": str(plan.schedule.directory)},
        "targets": {target.key: target.title for target in plan.targets},
        "workloads": [asdict(workload) for workload in plan.workloads],
        "absent": found.absent,
        "runs": found.as_json(),
        "appends_per_sync": shares.as_json(),
    }


if __name__ == "__main__":
    sys.exit(main())
