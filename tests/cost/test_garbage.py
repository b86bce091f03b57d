"""Requests leave nothing that only Python's collector of cyclic garbage could find."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from bench.house import House, house, request
from tests.cost.scenarios import SCENARIOS

ROUNDS = 20

SEVERAL = pytest.mark.parametrize("mode", ["memory", "file-durable"])


def _cyclic_garbage(work: object, rounds: int = ROUNDS) -> Counter[str]:
    """The types of the objects that a full collection finds after some rounds of work."""
    assert callable(work)
    work()
    work()
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(rounds):
            work()
        gc.collect()
        return Counter(type(each).__name__ for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        if was_enabled:
            gc.enable()
        gc.collect()


class RequestTests:
    @SEVERAL
    def test_scenarios(self, mode: str) -> None:
        """No request of the budgets does, in any mode."""
        for scenario in SCENARIOS:
            with house(mode) as at:
                assert _cyclic_garbage(scenario.prepare(at)) == Counter(), scenario.title

    @SEVERAL
    def test_creates_and_deletes(self, mode: str) -> None:
        """Neither do streams that come and go."""
        with house(mode) as at:
            assert _cyclic_garbage(_come_and_go(at)) == Counter()

    @SEVERAL
    @pytest.mark.parametrize(
        ("method", "query", "status"),
        [(b"GET", b"", 404), (b"GET", b"?offset=x", 400), (b"POST", b"", 404), (b"DELETE", b"", 404)],
    )
    def test_refusals(self, mode: str, method: bytes, query: bytes, status: int) -> None:
        """Neither do refusals, of which a hostile client gets as many as it likes."""
        with house(mode) as at:
            connection = at.connect()
            asked = request(method, "missing", b"x" if method == b"POST" else b"", query=query)
            assert _cyclic_garbage(lambda: connection.ask(asked, status)) == Counter()

    def test_finds_garbage(self) -> None:
        """The test can tell."""

        def cycle() -> None:
            found: list[object] = []
            found.append(found)

        assert _cyclic_garbage(cycle)["list"] == ROUNDS


def _come_and_go(at: House) -> object:
    connection, numbers = at.connect(), iter(range(10**6))

    def work() -> None:
        name = f"s{next(numbers)}"
        connection.ask(request(b"PUT", name), 201)
        connection.ask(request(b"DELETE", name), 204)

    return work
