"""The benchmark as one starts it: what is run, what is saved, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import comparison, scale, suite
from bench.results import Results
from bench.runs import Schedule, turns
from bench.servers import Target, dstreams_server
from bench.suite import Suite, is_wanted
from bench.workload import RATE, Workload
from tests.bench.samples import FakeWorkload


def _suite(*workloads: Workload) -> Suite:
    return Suite("fake", "bench.fake", "", lambda *, quick: list(workloads), rounds=2, warm=1, seconds=1, peers=False)


class MainTests:
    def test_saves(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The figures are printed, and saved as JSON and Markdown."""
        workload = FakeWorkload(outcomes=[100.0, 300.0])
        path = tmp_path / "results.json"
        assert _suite(workload).main(["--output", str(path), "--directory", str(tmp_path)]) == 0
        assert Results.load(path).median("append", "dstreams:memory", RATE) == 200
        assert "append: 256 B" in path.with_suffix(".md").read_text()
        assert "append: 256 B" in capsys.readouterr().out

    def test_goes_on(self, tmp_path: Path) -> None:
        """A benchmark that was stopped goes on where it was, and tries again what was void."""
        path = tmp_path / "results.json"
        workload = FakeWorkload(outcomes=["1 x refused", 300.0])
        assert _suite(workload).main(["--output", str(path), "--directory", str(tmp_path)]) == 1
        workload.outcomes = [100.0]
        assert _suite(workload).main(["--resume", str(path), "--directory", str(tmp_path)]) == 0
        assert len(workload.runs) == 3
        assert Results.load(path).median("append", "dstreams:memory", RATE) == 200

    def test_stopped(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Ctrl-C keeps what there is and says how to go on."""

        class Stopping(FakeWorkload):
            def measure(self, run: object) -> dict[str, float]:
                if len(self.outcomes) < 2:
                    raise KeyboardInterrupt
                return super().measure(run)  # type: ignore[arg-type, return-value]

        path = tmp_path / "results.json"
        workload = Stopping(outcomes=[100.0, 300.0])
        assert _suite(workload).main(["--output", str(path), "--directory", str(tmp_path)]) == 130
        assert f"--resume {path}" in capsys.readouterr().err
        assert len(json.loads(path.read_text())["runs"]) == 1

    def test_nothing_wanted(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A name that nothing has is a mistake."""
        assert _suite(FakeWorkload()).main(["--only", "fan-out", "--directory", str(tmp_path)]) == 2
        assert "--list" in capsys.readouterr().err

    def test_nothing_to_resume(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without results there is nothing to go on with, and a sentence says so."""
        monkeypatch.setattr(suite, "RESULTS", tmp_path)
        assert _suite(FakeWorkload()).main(["--resume", "--directory", str(tmp_path)]) == 2
        assert "no results of fake" in capsys.readouterr().err

    def test_list(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A list of what would be run, and nothing is."""
        workload = FakeWorkload()
        assert _suite(workload).main(["--list", "--directory", str(tmp_path)]) == 0
        assert "dstreams:memory" in capsys.readouterr().out
        assert workload.runs == []


class CatalogueTests:
    @pytest.mark.parametrize("quick", [False, True])
    def test_keys(self, quick: bool) -> None:
        """No two workloads have the same key, nor the same name within a group."""
        for catalogue in (comparison.workloads, scale.workloads):
            found = catalogue(quick=quick)
            assert len({each.key for each in found}) == len(found)
            assert len({(each.group, each.title) for each in found}) == len(found)

    def test_wanted(self) -> None:
        """Workloads are chosen by the beginning of their key or group."""
        workload = comparison.appends(100, 32)
        assert is_wanted(workload, [])
        assert is_wanted(workload, ["fan", "append-100-c3"])
        assert is_wanted(workload, ["app"])
        assert not is_wanted(workload, ["append-256"])

    def test_time(self) -> None:
        """Everything is measured in less than an hour, the quick way in ten minutes, with two peers in every mode."""
        server = dstreams_server()
        targets = [Target(server, mode) for mode in server.modes] * 3
        for quick, most in ((False, 3600), (True, 600)):
            schedule = Schedule(1 if quick else 3, 1, 1 if quick else 2, Path())
            todo = turns(targets, comparison.workloads(quick=quick), schedule.rounds)
            assert sum(turn.workload.estimate(schedule.warm, schedule.seconds) for turn in todo) < most
