"""Values that are there at once, decided, or still to come."""

from __future__ import annotations

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred

from dstreams.runtime.pending import Pending, PendingCommit, as_deferred, map_result, then


@define(eq=False)
class Commit:
    """What decided values wait for (an ``Awaited``)."""

    waiting: list[PendingCommit[object]] = field(factory=list)
    over: bool = False
    error: Exception | None = None

    def succeed(self) -> None:
        self.over = True
        for each in self.waiting:
            each.committed()

    def fail(self, error: Exception) -> None:
        self.over, self.error = True, error
        for each in self.waiting:
            each.failed(error)


def outcome(value: Pending[object]) -> list[object]:
    """What comes of a value, once it does; a failure is given as its exception."""
    found: list[object] = []
    as_deferred(value).addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found


class DecidedTests:
    """Results that are known before they count."""

    def test_waits_for_its_commit(self) -> None:
        """Nobody is told before the commit has succeeded; then the result is."""
        commit = Commit()
        found = outcome(PendingCommit(5, commit))
        assert found == []
        commit.succeed()
        assert found == [5]

    def test_in_order(self) -> None:
        """Those who wait for one commit are told in the order in which they began to."""
        commit, found = Commit(), list[int]()
        for number in range(3):
            PendingCommit(number, commit).when(found.append)
        commit.succeed()
        assert found == [0, 1, 2]

    def test_failed_commit(self) -> None:
        """A failing commit's error takes the result's place."""
        commit, error = Commit(), OSError("no")
        found = outcome(PendingCommit(5, commit))
        commit.fail(error)
        assert found == [error]

    def test_rescue(self) -> None:
        """Who can make a result of an error is asked to."""
        commit, found = Commit(), list[str]()
        pending_commit = PendingCommit("good", commit, error_response=str)
        pending_commit.when(found.append)
        commit.fail(OSError("bad"))
        assert found == ["bad"]

    def test_refusal(self) -> None:
        """A refusal waits for what it rests on, too."""
        commit, error = Commit(), ValueError("refused")
        found = outcome(PendingCommit(None, commit, error))
        assert found == []
        commit.succeed()
        assert found == [error]

    @pytest.mark.parametrize("error", [None, OSError("no")])
    def test_too_late(self, error: OSError | None) -> None:
        """Who asks when the commit is over is told at once."""
        commit = Commit(over=True, error=error)
        assert outcome(PendingCommit(5, commit)) == [5 if error is None else error]

    def test_a_client_that_left(self) -> None:
        """A Deferred that was cancelled isn't fired again by the commit."""
        commit = Commit()
        done = as_deferred(PendingCommit(5, commit))
        done.addErrback(lambda _: None)
        done.cancel()
        commit.succeed()


class ThenTests:
    """Going on from a value."""

    def test_at_once(self) -> None:
        """A value that is there is used now."""
        assert then(1, lambda value: value + 1) == 2
        assert map_result(1, lambda value: value + 1) == 2

    def test_later(self) -> None:
        """A Deferred's value is used when it comes."""
        for go_on in (then, map_result):
            waiting: Deferred[int] = Deferred()
            found = outcome(go_on(waiting, lambda value: value + 1))  # type: ignore[operator]
            assert found == []
            waiting.callback(1)
            assert found == [2]

    def test_decided(self) -> None:
        """A decided value is used now, and what comes of it counts when the value does."""
        commit, seen = Commit(), list[int]()

        def use(value: int) -> str:
            seen.append(value)
            return f"<{value}>"

        found = outcome(map_result(PendingCommit(1, commit), use))
        assert (seen, found) == ([1], [])
        commit.succeed()
        assert found == ["<1>"]

    def test_refused(self) -> None:
        """What was refused isn't used."""
        commit, error = Commit(), ValueError("refused")
        found = outcome(map_result(PendingCommit(None, commit, error), lambda _: pytest.fail("used")))
        commit.succeed()
        assert found == [error]
