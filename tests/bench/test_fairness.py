"""Rows of fairness, for real and very small."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from bench import fairness
from bench.fairness import more_servers, rows
from bench.servers import Target, dstreams_server
from bench.workload import PEAK_MB, PING_MAX, PING_P99, TURN, Figures, LoadFailure, Run


def _measure(key: str, target: Target, directory: Path, share: float = 0.005) -> Figures:
    (row,) = [each for each in rows(quick=False) if each.key == key]
    return evolve(row, share=share).measure(Run(target, directory, 1, 1, lambda _: None))


def _ours(mode: str = "memory") -> Target:
    server = dstreams_server()
    return Target(server, next(each for each in server.modes if each.name == mode))


@pytest.fixture(autouse=True)
def _results_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "RESULTS", tmp_path / "results")


@pytest.mark.slow
class RowTests:
    @pytest.mark.parametrize("key", ["head-pipelined", "json-ones", "catch-up", "deletes", "listing", "drain"])
    def test_figures(self, tmp_path: Path, key: str) -> None:
        """A row finds waits, turns and, unless the server has ended, its memory."""
        figures = _measure(key, _ours(), tmp_path)
        assert 0 < figures[PING_P99.key] <= figures[PING_MAX.key]
        assert figures[TURN.key] >= 0
        assert key == "drain" or figures[PEAK_MB.key] > 10

    def test_other_servers(self, tmp_path: Path) -> None:
        """The same over HTTP/2, and on Twisted's reactor."""
        for server, key in zip(more_servers(), ("idle", "h2-ping"), strict=True):
            directory = tmp_path / server.key
            directory.mkdir()
            assert _measure(key, Target(server, server.modes[0]), directory)[PING_MAX.key] > 0

    def test_refused_load(self, tmp_path: Path) -> None:
        """A load that the server refuses is void, and the reason is told."""
        target = fairness.with_environment(_ours(), {"DS_LIMITS__MAX_STREAM_BYTES": "10"})
        with pytest.raises(LoadFailure, match="POST was answered with 413"):
            _measure("append-10mb", target, tmp_path)
