"""The order of the runs, and what becomes of each."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from bench.results import Results
from bench.runs import Progress, Schedule, folder, limited, run_all, suits, turns
from bench.servers import Launch, Mode, Server, Target, running
from bench.workload import RATE, LoadFailure, Run
from tests.bench.samples import FakeWorkload, target

A, B = target("a"), target("b")
ONE, TWO = FakeWorkload("one"), FakeWorkload("two")


class TurnsTests:
    def test_turns(self) -> None:
        """Servers take turns within a workload, and each second round goes backwards."""
        runs = [(turn.round, turn.workload.key, turn.target.server.key) for turn in turns([A, B], [ONE, TWO], 2)]
        assert runs == [
            (1, "one", "a"),
            (1, "one", "b"),
            (1, "two", "a"),
            (1, "two", "b"),
            (2, "one", "b"),
            (2, "one", "a"),
            (2, "two", "b"),
            (2, "two", "a"),
        ]

    def test_few_rounds(self) -> None:
        """A workload that isn't worth several rounds has as many as it says."""
        once = FakeWorkload("once", rounds=1)
        assert [turn.workload.key for turn in turns([A], [ONE, once], 3)] == ["one", "once", "one", "one"]

    def test_modes(self) -> None:
        """A workload goes to those who promise what one of its modes does."""
        durable = FakeWorkload(modes=("file-durable", "acid"))
        assert suits(durable, target("a", "wal", ("file-durable",)))
        assert not suits(durable, target("a", "memory", ("memory", "file-fast")))

    def test_log_levels(self) -> None:
        """Ours with its logs runs only where that is asked for."""
        logging = target("ours", ours=True, apart="default log level")
        assert not suits(FakeWorkload(), logging)
        assert suits(FakeWorkload(log_levels=True), logging)


def _schedule(directory: Path) -> Schedule:
    return Schedule(1, 1, 1, directory)


class RunAllTests:
    def test_outcomes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Figures and void runs are noted and told, and saved after each run."""
        workload = FakeWorkload(outcomes=[100.0, "1 x refused"])
        results, saved = Results(), []
        run_all(
            list(turns([A, B], [workload], 1)), _schedule(tmp_path), results, lambda: saved.append(len(list(results)))
        )
        assert results.median("append", "a:memory", RATE) == 100
        assert results.is_void("append", "b:memory")
        assert saved == [1, 2]
        told = capsys.readouterr().err
        assert "100 answers/s" in told
        assert "void: 1 x refused" in told

    def test_refusing_server(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A server that doesn't start is left out with its reason, tried once, and leaves nothing behind."""

        def launch(mode: str, directory: Path) -> Launch:
            return Launch([sys.executable, "-c", "raise SystemExit('refused')"], {}, 1)

        class Starting(FakeWorkload):
            def measure(self, run: Run) -> dict[str, float]:
                with running(run.target, run.directory):
                    raise NotImplementedError

        refusing = Target(Server("a", "a", "/", (), launch), Mode("memory", ("memory",)))
        results = Results()
        run_all(list(turns([refusing], [Starting()], 3)), _schedule(tmp_path / "data"), results, lambda: None)
        assert "refused" in results.absent["a:memory"]
        assert list((tmp_path / "data").iterdir()) == []
        assert capsys.readouterr().err.count("left out:") == 1


class LimitedTests:
    def test_broken_off(self) -> None:
        """What waits too long is broken off; what doesn't, isn't, then or later."""
        with pytest.raises(LoadFailure, match="longer than 0 s"), limited(0.05):
            time.sleep(60)
        with limited(0.05):
            pass
        time.sleep(0.1)


class ProgressTests:
    def test_left(self) -> None:
        """What is left is what was expected, corrected by what it has taken so far."""
        clock = iter((0.0, 120.0))
        progress = Progress([60.0, 60.0, 60.0], lambda: next(clock))
        assert progress.left() == 180
        progress.begin("first")
        progress.end("done")
        assert progress.left() == 120 * 180 / 120


class FolderTests:
    def test_removed(self, tmp_path: Path) -> None:
        """A run's folder is gone afterwards, also when the run failed."""

        def fail() -> None:
            with folder(tmp_path) as place:
                (place / "file").write_text("x")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert list(tmp_path.iterdir()) == []
