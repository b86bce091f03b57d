"""Shared by ``python -m bench`` and its variants: options, the plan of runs, saving and resuming."""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen

from bench import facts, report
from bench.results import Results
from bench.runs import Schedule, Suits, Turn, run_all, suits, turns
from bench.servers import Server, Target, dstreams_server, dstreams_with_logs, installed_peers
from bench.texts import duration_text
from bench.workload import Workload

RESULTS = Path(__file__).resolve().parent / "results"
"""The directory of the results."""

DATA = Path(__file__).resolve().parent / ".data"
"""The default directory of the servers' data."""


@frozen
class Suite:
    """A benchmark with its command line.

    :param name: the first part of its files' names.
    :param module: the module for ``python -m``.
    :param catalogue: returns its workloads, all or the quick ones.
    :param rounds: the number of rounds; each workload is measured for ``seconds`` after ``warm`` seconds of load.
    :param peers: whether the peers are measured too.
    :param more: servers of ours that take part beside the usual one.
    :param suits: which server gets which workload.
    :param render: the report, in Markdown.
    :param verdict: what is to be said at the end, as lines; the exit status is 1 if there are any.
    """

    name: str
    module: str
    description: str
    catalogue: Callable[..., list[Workload]]
    rounds: int
    warm: int
    seconds: int
    peers: bool
    more: Callable[[], Sequence[Server]] = lambda: (dstreams_with_logs(),)
    suits: Suits = suits
    render: Callable[[Results], str] = report.render
    verdict: Callable[[Results], Sequence[str]] = lambda _: ()

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run it.

        :return: the exit status: 1 when a run of ours is void or left out, or there is a verdict; 2 for nothing to run.
        """
        options = self._options(arguments)
        schedule = Schedule(options.rounds, options.warm, options.seconds, options.directory)
        workloads = [each for each in self.catalogue(quick=options.quick) if is_wanted(each, options.only)]
        plan = list(turns(self._targets(options.servers), workloads, schedule.rounds, self.suits))
        try:
            results, path = self._results(options, schedule)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"{error}\n")
            return 2
        todo = [turn for turn in plan if not results.has(turn.workload.key, turn.target.key, turn.round)]
        if options.list:
            return _list(todo, schedule)
        if not plan:
            sys.stderr.write("no server or no workload has that name; see --help and --list\n")
            return 2
        _allow_open_files()
        sys.stderr.write(f"{len(todo)} runs, {_estimate(todo, schedule)}; results: {path}\n")
        try:
            run_all(todo, schedule, results, lambda: results.save(path))
        except KeyboardInterrupt:
            sys.stderr.write(f"\nstopped; `--resume {path}` goes on\n")
            return 130
        status = _tell(results, path, self.render(results))
        lines = self.verdict(results)
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return 1 if lines else status

    def _options(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(prog=f"python -m {self.module}", description=self.description)
        parser.add_argument("--quick", action="store_true", help="one round, short runs, fewer and smaller workloads")
        parser.add_argument("--rounds", type=int, help=f"number of rounds ({self.rounds}; quick: 1)")
        parser.add_argument("--warm", type=int, help=f"seconds under load before the measured ones ({self.warm})")
        parser.add_argument("--seconds", type=int, help=f"seconds measured ({self.seconds}; quick: 1)")
        servers = "only these: dstreams, rust, electric, node, or one mode as in rust:acid"
        parser.add_argument("--servers", nargs="+", default=[], metavar="KEY", help=servers)
        only = "only workloads whose key or group begins with KEY: append-100-c32, create; --list shows them"
        parser.add_argument("--only", nargs="+", default=[], metavar="KEY", help=only)
        resume = "continue the results in FILE, by default the newest; complete runs that are not void are skipped"
        parser.add_argument("--resume", nargs="?", type=Path, const=Path(), metavar="FILE", help=resume)
        parser.add_argument("--output", type=Path, metavar="FILE", help="where to save (bench/results/…)")
        parser.add_argument("--list", action="store_true", help="only list what would be run")
        directory = "directory of the servers' data, on the disk to be measured (bench/.data)"
        parser.add_argument("--directory", type=Path, default=DATA, help=directory)
        options = parser.parse_args(arguments)
        for name, usual, quick in (("rounds", self.rounds, 1), ("warm", self.warm, 1), ("seconds", self.seconds, 1)):
            if getattr(options, name) is None:
                setattr(options, name, quick if options.quick else usual)
            if getattr(options, name) < 1:
                parser.error(f"--{name} must be 1 or more")
        return options

    def _targets(self, wanted: Sequence[str]) -> list[Target]:
        """Return the servers and modes to run, sorted so that those that are compared follow each other."""
        servers = [dstreams_server(), *((*installed_peers(), *self.more()) if self.peers else ())]
        targets = [Target(server, mode) for server in servers for mode in server.modes]
        modes = list(dict.fromkeys(mode for target in targets for mode in target.mode.promises))
        return sorted(
            (each for each in targets if not wanted or each.key in wanted or each.server.key in wanted),
            key=lambda target: modes.index(target.mode.promises[0]),
        )

    def _results(self, options: argparse.Namespace, schedule: Schedule) -> tuple[Results, Path]:
        """Return the results so far, and the file to save them in.

        :raise OSError: if the file to resume cannot be read.
        :raise ValueError: if it is not a file of results.
        """
        if options.resume is not None:
            path = newest(self.name) if options.resume == Path() else options.resume
            results = Results.load(path)
            # Retry the servers that did not start.
            results.absent.clear()
            return results, path
        path = options.output or RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{self.name}.json"
        schedule.directory.mkdir(parents=True, exist_ok=True)
        timing = {"rounds": schedule.rounds, "warm": schedule.warm, "seconds": schedule.seconds}
        runs = {"runs": "quick: fewer or smaller than those of a full run"} if options.quick else {}
        return Results(facts.machine(schedule.directory) | runs, timing), path


def newest(suite: str) -> Path:
    """Return the file of the newest results.

    :raise FileNotFoundError: if there are no results.
    """
    found = sorted(RESULTS.glob(f"*-{suite}.json"))
    if not found:
        raise FileNotFoundError(f"there are no results of {suite} in {RESULTS}")
    return found[-1]


def is_wanted(workload: Workload, prefixes: Sequence[str]) -> bool:
    """Whether a workload is selected."""
    return not prefixes or any(workload.key.startswith(each) or workload.group.startswith(each) for each in prefixes)


def _list(todo: Sequence[Turn], schedule: Schedule) -> int:
    seen: dict[tuple[str, str], list[str]] = {}
    for turn in todo:
        targets = seen.setdefault((turn.workload.key, turn.workload.title), [])
        if turn.target.key not in targets:
            targets.append(turn.target.key)
    for (key, title), targets in seen.items():
        sys.stdout.write(f"{key:24} {title:44} {' '.join(targets)}\n")
    sys.stdout.write(f"{len(todo)} runs, {_estimate(todo, schedule)}\n")
    return 0


def _estimate(todo: Sequence[Turn], schedule: Schedule) -> str:
    seconds = sum(turn.workload.estimate(schedule.warm, schedule.seconds) for turn in todo)
    return f"about {duration_text(seconds)}"


def _tell(results: Results, path: Path, text: str) -> int:
    """Print and save the report."""
    sys.stdout.write(f"{text}\n")
    path.with_suffix(".md").write_text(text)
    sys.stderr.write(f"saved as {path} and {path.with_suffix('.md').name}\n")
    ours = [each for each in results.subjects.values() if each.ours]
    voids = any(results.is_void(workload, each.key) for workload in results.topics for each in ours)
    return 1 if voids or any(each.key in results.absent for each in ours) else 0


def _allow_open_files() -> None:
    """Raise the limit on open files as far as possible, because some servers keep every stream's file open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
