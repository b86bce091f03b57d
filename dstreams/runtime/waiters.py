"""Those who wait until something is over."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred


@define(eq=False)
class Waiters:
    """Any number of them; one who goes away harms nobody."""

    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def wait(self) -> Deferred[None]:
        """Fires at the next :meth:`tell`."""
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        return done

    def tell(self) -> None:
        """It is over. Whoever begins to wait now waits for the next time."""
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)
