"""Nothing that a request does is proportional to streams and readers that it doesn't concern."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.house import House, house, request
from dstreams.http.application import StreamApplication
from tests.cost.counting import PACKAGE, Work, count_calls, count_lines, measure_peak
from tests.cost.scenarios import SCENARIOS, append, fan_out

pytestmark = pytest.mark.long_turns(reason="calls are counted, those of the guard too, and counting takes long")

FEW, MANY = 10, 10_000

_SMALL = tuple(each for each in SCENARIOS if "100 SSE" not in each.title)


def _idle_streams(at: House, count: int) -> None:
    connection = at.connect()
    for number in range(count):
        connection.ask(request(b"PUT", f"idle-{number}"), 201)


def _idle_readers(at: House, count: int) -> None:
    """Readers of one stream, and of many."""
    connection = at.connect()
    connection.ask(request(b"PUT", "idle"), 201)
    for number in range(count // 2):
        at.listen("idle")
        connection.ask(request(b"PUT", f"idle-{number}"), 201)
        at.listen(f"idle-{number}")


def _cost(at: House, work: Work) -> tuple[tuple[float, float], float, float]:
    for _ in range(5):
        work()
    return count_calls(work, 10), count_lines(work, 10), measure_peak(work, 10)


def _costs(mode: str, add: Callable[[House, int], None], count: int) -> dict[str, tuple[object, ...]]:
    """The cost of each kind of request in a server with so many idle things."""
    with house(mode) as at:
        add(at, count)
        found = {}
        for scenario in _SMALL:
            work = scenario.prepare(at)
            (calls, others), lines, peak = _cost(at, work)
            # Half a KiB for numbers that have become longer.
            found[scenario.title] = (calls, others, lines, round(peak / 1024 / 2))
        found["a second passes"] = (*count_calls(lambda: at.clock.advance(1), 3), 0, 0)
        return found


@pytest.mark.slow
class IdleTests:
    @pytest.mark.parametrize("mode", ["memory", "file-durable"])
    def test_streams(self, mode: str) -> None:
        """A request costs exactly the same beside 10 idle streams and beside 10,000."""
        assert _costs(mode, _idle_streams, MANY) == _costs(mode, _idle_streams, FEW)

    def test_readers(self) -> None:
        """A request costs exactly the same beside 10 idle readers and beside 10,000; so does the passing of time."""
        assert _costs("memory", _idle_readers, MANY) == _costs("memory", _idle_readers, FEW)

    def test_planted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A look at every connection for each request is found out."""
        source = "def respond(self, request):\n for _ in everybody: pass\n return original(self, request)\n"
        names: dict[str, object] = {"original": StreamApplication.respond}
        exec(compile(source, PACKAGE + "planted.py", "exec"), names)
        monkeypatch.setattr(StreamApplication, "respond", names["respond"])
        found = []
        for count in (10, 100):
            with house("memory") as at:
                names["everybody"] = at.connections
                _idle_readers(at, count)
                found.append(_cost(at, append(at)))
        assert found[0] != found[1]


class FanOutTests:
    def test_per_reader(self) -> None:
        """Each further reader costs the same: the second hundred no more than the first."""
        costs = []
        for readers in (0, 100, 200):
            with house("memory") as at:
                (calls, _), lines, _ = _cost(at, fan_out(readers)(at))
                costs.append((calls, lines))
        none, hundred, two_hundred = costs
        for index in range(2):
            first, second = hundred[index] - none[index], two_hundred[index] - hundred[index]
            assert second <= first * 1.01
