"""The collector of cyclic garbage in a server's process."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from dstreams.services.garbage import YOUNG_OBJECTS, GarbageService


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The collector is afterwards what it was."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class GarbageServiceTests:
    """What is done once the storage is open."""

    def test_what_is_there_is_put_aside(self) -> None:
        """The collector doesn't look at the streams that were recovered."""
        kept = [[] for _ in range(1000)]  # type: ignore[var-annotated]
        GarbageService().startService()
        assert gc.get_freeze_count() > len(kept)

    def test_the_young_are_looked_at_less_often(self) -> None:
        """The older generations are looked at as Python thinks right."""
        older = gc.get_threshold()[1:]
        GarbageService().startService()
        assert gc.get_threshold() == (YOUNG_OBJECTS, *older)
