from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from unittest.mock import patch

import pytest

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Create, StreamConfig
from dstreams.protocol.content_types import DEFAULT
from dstreams.storage.collector import loading


@pytest.fixture(autouse=True)
def _thaw() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def fill(catalog: Catalog, count: int) -> None:
    for number in range(1, count + 1):
        catalog.apply(Create(number, f"s{number}", StreamConfig(DEFAULT), None, b"", (), False, 1.0))


class LoadingTests:
    def test_many_streams_are_not_gone_through_again(self) -> None:
        """While streams are loaded nothing is collected, and afterwards many of them are left out."""
        before, catalog = gc.get_freeze_count(), Catalog()
        with patch("dstreams.storage.collector.FREEZE_STREAMS", 10), loading(catalog):
            assert not gc.isenabled()
            fill(catalog, 10)
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + 10

    def test_few_streams_change_nothing(self) -> None:
        """A small store leaves the collector as it was, also when it was off, or loading has failed."""
        before, catalog = gc.get_freeze_count(), Catalog()
        gc.disable()
        with suppress(OSError), loading(catalog):
            fill(catalog, 10)
            raise OSError("broken")
        assert not gc.isenabled()
        assert gc.get_freeze_count() == before
