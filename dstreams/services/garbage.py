"""Python's collector of cyclic garbage, told what a server's memory is like."""

from __future__ import annotations

import gc

from twisted.application.service import Service

YOUNG_OBJECTS = 10_000
"""How many objects more than before make the collector look at the young ones: Python's 700 are what one group of
appends leaves behind, and next to nothing of it is garbage in cycles."""


class GarbageService(Service):
    """Keeps the collector away from what stays.

    The streams that recovery has read, and the program itself, are never garbage. Looking through a million streams
    takes the collector more than a second, in which nobody is answered; put aside, they cost nothing. To be started
    when the storage is open. It changes the whole process, so that an embedded server goes without it.
    """

    name: str | None = "garbage"

    def startService(self) -> None:
        """Put aside what there is, and look at new objects less often."""
        super().startService()
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
