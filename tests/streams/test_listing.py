"""Pages through the streams: in order, complete, and without holding up the reactor."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from dstreams.model.catalog import Catalog
from dstreams.runtime.timers import TimerWheel
from dstreams.streams import listing
from dstreams.streams.limits import StoreLimits
from dstreams.streams.listing import KEEP_SECONDS, Page
from tests.support.engine import DelayedStorage, Engine

pytestmark = pytest.mark.usefixtures("failures")

HUGE = StoreLimits(total_bytes=1 << 40)


def page(engine: Engine, prefix: str = "", after: str | None = None, limit: int = 100) -> Page:
    """A page, after as many turns of the reactor as it takes."""
    found = engine.streams.page(prefix, after, limit)
    if not isinstance(found, Deferred):
        return found
    results: list[Page] = []
    found.addCallback(results.append)
    for _ in range(1000):
        if results:
            return results[0]
        engine.turn()
    raise AssertionError("the page never came")


def everything(engine: Engine, prefix: str = "", limit: int = 100) -> list[str]:
    """The names on all pages."""
    names: list[str] = []
    after = None
    while True:
        found = page(engine, prefix, after, limit)
        names += [state.name for state in found.streams]
        if found.after is None:
            return names
        after = found.after


def with_streams(*names: str, limits: StoreLimits = HUGE) -> Engine:
    engine = Engine(limits=limits)
    for name in names:
        assert engine.put(name).status == 201
    return engine


class ListingTests:
    """What is on the pages."""

    def test_in_order(self) -> None:
        """Streams come in the order of their names' characters."""
        assert everything(with_streams("b", "a/b", "a", "Z", "ä")) == ["Z", "a", "a/b", "b", "ä"]

    def test_empty(self) -> None:
        """A store without streams has one page without any."""
        assert page(Engine()) == Page([], None)

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    @pytest.mark.parametrize("run", [2, 3, 100])
    def test_every_stream_once(self, limit: int, run: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """All pages together hold every stream once, whatever their size."""
        monkeypatch.setattr(listing, "RUN_NAMES", run)
        names = [f"s{number:02}" for number in range(20)]
        random.Random(1).shuffle(names)
        assert everything(with_streams(*names), limit=limit) == sorted(names)

    @given(
        st.lists(st.text("ab/", min_size=1, max_size=4), unique=True),
        st.text("ab/", max_size=3),
        st.integers(1, 5),
        st.integers(1, 6),
    )
    def test_like_sorting(self, names: list[str], prefix: str, limit: int, run: int) -> None:
        """The pages are what sorting and filtering all names gives."""
        engine = Engine()
        catalog = engine.streams._durable
        engine.put("model")
        state = catalog.names.pop("model")
        catalog.names.update(dict.fromkeys(names, state))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(listing, "RUN_NAMES", run)
            patch.setattr(Catalog, "find", lambda self, name: type("State", (), {"name": name})())
            patch.setattr(engine.streams._listing, "_shown", lambda state: True)
            assert everything(engine, prefix, limit) == sorted(name for name in names if name.startswith(prefix))

    def test_not_there_for_clients(self) -> None:
        """Expired and soft-deleted streams aren't listed."""
        engine = with_streams("kept", "source")
        engine.put("brief", stream_ttl="10")
        engine.fork("fork", "source")
        engine.delete("source")
        engine.clock.rightNow += 11
        assert everything(engine) == ["fork", "kept"]

    def test_only_durable(self) -> None:
        """A stream is listed once its creation is durable."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s")
        assert everything(engine) == []
        storage.finish()
        assert everything(engine) == ["s"]


class ManyNamesTests:
    """More names than are sorted in one go."""

    @pytest.fixture(autouse=True)
    def small_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(listing, "RUN_NAMES", 3)

    def test_one_run_a_turn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A turn of the reactor sorts one run."""
        engine = with_streams(*"abcdefgh")
        turns: list[Callable[[], object]] = []
        monkeypatch.setattr(TimerWheel, "soon", lambda wheel, callback: turns.append(callback))
        found = engine.streams.page("", None, 100)
        assert isinstance(found, Deferred)
        pages: list[Page] = []
        found.addCallback(pages.append)
        turns.pop()()
        assert not pages
        turns.pop()()
        assert not turns
        assert len(pages[0].streams) == 8

    def test_later_pages_come_at_once(self) -> None:
        """The pages after the first come from what was sorted for it, and skip what has gone since."""
        engine = with_streams(*"abcdefgh")
        first = page(engine, limit=2)
        engine.delete("c")
        engine.put("cc")
        found = engine.streams.page("", first.after, 2)
        assert isinstance(found, Page)
        assert [state.name for state in found.streams] == ["d", "e"]

    def test_a_new_listing_is_fresh(self) -> None:
        """A first page shows what there is when it is asked for."""
        engine = with_streams(*"abcdefgh")
        page(engine)
        engine.put("aa")
        assert "aa" in everything(engine)

    def test_snapshot_forgotten(self) -> None:
        """The sorted names are let go of when nobody has asked for a while; the next page sorts them again."""
        engine = with_streams(*"abcdefgh")
        first = page(engine, limit=2)
        engine.pass_time(KEEP_SECONDS - 1)
        assert isinstance(engine.streams.page("", first.after, 2), Page)
        engine.pass_time(KEEP_SECONDS - 1)
        assert isinstance(engine.streams.page("", first.after, 2), Page)
        engine.pass_time(2 * KEEP_SECONDS)
        assert engine.streams._listing._runs is None
        assert [state.name for state in page(engine, after=first.after, limit=2).streams] == ["c", "d"]

    def test_bounded_looks(self) -> None:
        """Where most streams have gone since the first page, a page may be short, but the listing goes on."""
        names = [f"s{number:03}" for number in range(100)]
        engine = with_streams(*names)
        first = page(engine, limit=1)
        for name in names[1:99]:
            engine.delete(name)
        engine.put("another")  # more than one run
        engine.put("yet-another")
        short = page(engine, after=first.after, limit=1)
        assert short.streams == []
        assert short.after == "s010"
        assert everything_after(engine, short.after) == ["s099"]

    def test_client_gone(self) -> None:
        """A client that leaves while names are sorted takes nothing away from another."""
        engine = with_streams(*"abcdefgh")
        first, second = engine.streams.page("", None, 1), engine.streams.page("", None, 1)
        assert isinstance(first, Deferred)
        assert isinstance(second, Deferred)
        first.addErrback(lambda _: None)
        first.cancel()
        pages: list[Page] = []
        second.addCallback(pages.append)
        engine.turn()
        engine.turn()
        assert [state.name for state in pages[0].streams] == ["a"]


def everything_after(engine: Engine, after: str) -> list[str]:
    names = []
    position: str | None = after
    while position is not None:
        found = page(engine, after=position, limit=1)
        names += [state.name for state in found.streams]
        position = found.after
    return names
