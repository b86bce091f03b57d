"""Settings for all tests.

``HYPOTHESIS_PROFILE=thorough`` draws many more examples, new ones in every run; the everyday profile draws
the same ones every time and has no deadlines, so that a slow machine doesn't fail.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from bench.turns import LongTurn
from tests.support.turn_guard import GUARD, LIMIT_MS

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _no_long_turns(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test during which a turn of a reactor takes too long."""
    marker = request.node.get_closest_marker("long_turns")
    if marker is not None:
        assert marker.kwargs.get("reason"), "the marker long_turns needs a reason"
        yield
        GUARD.collect()
        return
    _fail_on(GUARD.collect(), "between the test before and this one")
    with GUARD.measuring(reactor=inspect.iscoroutinefunction(request.function)):
        yield
    _fail_on(GUARD.collect(), "during the test")


def _fail_on(turns: list[LongTurn], when: str) -> None:
    if turns:
        pytest.fail(f"turns over {LIMIT_MS:.0f} ms {when}:\n" + "\n".join(map(str, turns)), pytrace=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The servers of the last module have ended, too."""
    turns = GUARD.collect()
    GUARD.close()
    if turns:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"turns over {LIMIT_MS:.0f} ms after the last test:", *turns, sep="\n")  # noqa: T201
