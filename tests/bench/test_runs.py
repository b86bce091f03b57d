"""The order of the runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.load import Workload
from bench.runs import Progress, Schedule, folder, order, run_all
from bench.servers import Launch, Mode, Server, Target

ONE, TWO = Workload("one", "one", 1, 1, 1), Workload("two", "two", 1, 1, 1)


def _target(key: str) -> Target:
    def launch(mode: str, directory: Path) -> Launch:
        return Launch([sys.executable, "-c", "raise SystemExit('refused')"])

    return Target(Server(key, key, "/", (), launch), Mode("memory", ("memory",)))


A, B = _target("a"), _target("b")


class OrderTests:
    def test_turns(self) -> None:
        """Servers take turns within a workload, and each second round goes backwards."""
        runs = [(number, workload.key, target.server.key) for number, workload, target in order([A, B], [ONE, TWO], 2)]
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


class RunAllTests:
    def test_refusing_server(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A server that doesn't start is left out with its reason, tried once, and leaves nothing behind."""
        results = run_all([A], [ONE, TWO], Schedule(2, 1, 1, tmp_path / "data"), Progress(4))
        assert list(results.absent) == ["a:memory"]
        assert "refused" in results.absent["a:memory"]
        assert list((tmp_path / "data").iterdir()) == []
        assert capsys.readouterr().err.count("left out") == 1


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
