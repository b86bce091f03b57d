from __future__ import annotations

import pytest

from tests.crash.history import Violation
from tests.crash.planted import PLANTED
from tests.crash.simulation import run

BLOCKS, BLOCK = 12, 20

FOUND_WITHIN = 150
"""Seeds; most planted bugs are found by one of the first five."""


class SimulationTests:
    @pytest.mark.parametrize("block", range(BLOCKS))
    def test_no_crash_breaks_the_promise(self, block: int) -> None:
        """Whatever crash a seed brings, recovery finds a state between all acknowledged and all accepted."""
        for seed in range(block * BLOCK, (block + 1) * BLOCK):
            run(seed)

    def test_seed_repeats_itself(self) -> None:
        """The same seed does the same again, so that what a long run finds can be looked into."""
        assert run(7) == run(7)


class PlantedBugTests:
    @pytest.mark.parametrize("name", PLANTED)
    def test_planted_bug_is_found(self, name: str) -> None:
        """The simulation sees: a bug that breaks a promise is found within a few seeds."""

        def search() -> None:
            with PLANTED[name]() as sabotage:
                for seed in range(FOUND_WITHIN):
                    run(seed, sabotage)

        with pytest.raises(Violation):
            search()
