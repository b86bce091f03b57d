"""Keeping Python's garbage collector from going through a million streams again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dstreams.model.catalog import Catalog

FREEZE_STREAMS: Final = 50_000
"""From so many streams on they are left out of all later collections: each full one takes 60 ms for 100,000, in which
nothing else happens. Nothing in a state refers back to it, so none has to be found that way."""


@contextmanager
def loading(catalog: Catalog) -> Iterator[None]:
    """Around filling a catalog: what is made stays, so nothing is looked for meanwhile."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(catalog.streams) >= FREEZE_STREAMS:
            gc.freeze()
        if was_enabled:
            gc.enable()
