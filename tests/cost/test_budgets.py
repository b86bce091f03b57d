"""What requests cost is within its budget, and the guard notices when it isn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.house import house
from dstreams.http.application import StreamApplication
from tests.cost import counting
from tests.cost.budgets import TOLERANCES, complaints, load, measure, measurements
from tests.cost.counting import PACKAGE, count_calls, count_lines, measure_kept, measure_peak
from tests.cost.scenarios import append, fan_out

pytestmark = pytest.mark.long_turns(reason="calls are counted, those of the guard too, and counting takes long")

MEASUREMENTS = measurements()


class BudgetTests:
    @pytest.mark.parametrize("name", MEASUREMENTS)
    def test_cost(self, name: str) -> None:
        """A request costs what was agreed: not more, and not so much less that the budget guards nothing."""
        assert list(complaints(name, MEASUREMENTS[name](), load()[name])) == []

    def test_table(self) -> None:
        """The table has everything that is measured, and nothing else."""
        assert list(load()) == list(MEASUREMENTS)


def _planted(source: str) -> dict[str, object]:
    """Functions that count as the server's own."""
    names: dict[str, object] = {"original": StreamApplication.respond}
    exec(compile(source, PACKAGE + "planted.py", "exec"), names)
    return names


AN_OBJECT = """
class Note:
    def __init__(self, request):
        self.request = request

def respond(self, request):
    Note(request)
    return original(self, request)
"""

A_SCAN = """
def respond(self, request):
    for connection in everybody:
        if connection is None:
            break
    return original(self, request)
"""

A_COPY = """
def respond(self, request):
    request.body = bytes(bytearray(request.body))
    copy = bytearray(request.body)
    answer = original(self, request)
    del copy
    return answer
"""


LINES = """
def one(a):
    if (
        a
        and a
    ):
        return [
            each for each in a
        ]

def loop(a):
    for each in a:
        pass
"""


class GuardTests:
    """Slower servers are found out."""

    def test_object(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One more object for each request exceeds the budget of calls, and of lines."""
        name = "append 100 B, memory"
        budget = MEASUREMENTS[name]()
        monkeypatch.setattr(StreamApplication, "respond", _planted(AN_OBJECT)["respond"])
        found = "\n".join(complaints(name, MEASUREMENTS[name](), budget))
        assert "calls has grown" in found
        assert "make cost-budgets" in found

    def test_scan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A look at every reader for each request exceeds the budget of lines."""
        with house("memory") as at:
            work = fan_out(100)(at)
            budget = measure(at, work)
            names = _planted(A_SCAN)
            names["everybody"] = at.connections
            monkeypatch.setattr(StreamApplication, "respond", names["respond"])
            assert any("lines has grown" in each for each in complaints("fan-out", measure(at, work), budget))

    def test_copy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One more copy of a large body exceeds the budget of memory."""
        name = "append 256 KiB, memory"
        budget = MEASUREMENTS[name]()
        monkeypatch.setattr(StreamApplication, "respond", _planted(A_COPY)["respond"])
        assert any("peak_bytes has grown" in each for each in complaints(name, MEASUREMENTS[name](), budget))

    def test_gain(self) -> None:
        """What became much cheaper must be kept: the budget is to be lowered."""
        [found] = complaints("x", {"calls": 30.0}, {"calls": 40.0})
        assert "shrunk from 40 to 30" in found

    @pytest.mark.parametrize("key", TOLERANCES)
    def test_tolerance(self, key: str) -> None:
        """The agreed figure itself is never complained about, and twice as much always is."""
        assert list(complaints("x", {key: 10_000.0}, {key: 10_000.0})) == []
        assert len(list(complaints("x", {key: 20_000.0}, {key: 10_000.0}))) == 1

    def test_other_counts(self) -> None:
        """A table of an older guard is to be written anew."""
        [found] = complaints("x", {"calls": 1.0}, {"instructions": 1.0})
        assert "make cost-budgets" in found


class CountingTests:
    def test_deterministic(self) -> None:
        """The same work costs the same, in another server too."""
        found = []
        for _ in range(2):
            with house("memory") as at:
                work = append(at)
                work()
                found.append((count_calls(work), count_lines(work)))
        assert found[0] == found[1]

    def test_calls(self) -> None:
        """Functions of others are counted apart, comprehensions not at all."""
        calls, others = count_calls(lambda: [each + 1 for each in (1, 2, 3)])
        assert calls == 0
        assert others == pytest.approx(1, abs=0.1)

    def test_lines(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A statement over several lines counts once, each round of a loop or comprehension by itself."""
        path = tmp_path / "example.py"
        path.write_text(LINES)
        monkeypatch.setattr(counting, "PACKAGE", str(tmp_path))
        names: dict[str, Any] = {}
        exec(compile(LINES, str(path), "exec"), names)
        assert count_lines(lambda: names["one"](())) == 1
        assert count_lines(lambda: names["one"]((1,))) >= 2
        assert count_lines(lambda: names["one"](range(1, 100))) >= 50
        assert count_lines(lambda: names["loop"](range(100))) == 201

    def test_peak(self) -> None:
        """Memory that is gone at the end of a turn counts."""
        assert 100_000 <= measure_peak(lambda: len(bytearray(100_000))) < 101_000

    def test_kept(self) -> None:
        """Only memory that stays counts as kept."""
        kept: list[bytes] = []
        assert 500 < measure_kept(lambda _: kept.append(bytes(bytearray(500)))) < 600
        assert measure_kept(lambda _: len(bytearray(500))) < 10
