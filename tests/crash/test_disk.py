from __future__ import annotations

import errno
from random import Random

import pytest

from tests.crash.disk import Fault, MachineOff, Mount, Platter, SimFile


def outcomes(platter_of: object, count: int = 300) -> set[object]:
    """What many power losses leave; ``platter_of`` makes a platter and says how to look at it."""
    found = set()
    for seed in range(count):
        platter, look = platter_of()  # type: ignore[operator]
        platter.lose_power(Random(seed))
        found.add(look())
    return found


def written(platter: Platter, *, sync: bool) -> SimFile:
    """A durable file ``/f`` with ``old``, over which ``newer`` is written."""
    mount = Mount(platter)
    file = mount.open("/f", create=True)
    file.pwrite(b"old", 0)
    file.sync()
    mount.sync_directory("/")
    file.pwrite(b"newer", 0)
    if sync:
        file.sync()
    return file


class PowerLossTests:
    def test_synced_bytes_stay(self) -> None:
        """What was synced, under a synced entry, is there after every power loss."""

        def make() -> object:
            platter = Platter()
            written(platter, sync=True)
            return platter, lambda: Mount(platter).open("/f").pread(99, 0)

        assert outcomes(make) == {b"newer"}

    def test_unsynced_bytes_are_kept_lost_torn_or_zeroed(self) -> None:
        """An un-synced write has every fate that power loss knows, and never touches the bytes beside it."""

        def make() -> object:
            platter = Platter()
            written(platter, sync=False)
            return platter, lambda: Mount(platter).open("/f").pread(99, 0)

        found = outcomes(make)
        assert {b"newer", b"old", b"new", b"newe", b"old\0\0"} <= found
        assert all(each[:1] in (b"o", b"n") and len(each) in (3, 4, 5) for each in found if isinstance(each, bytes))

    def test_later_write_may_survive_an_earlier_one(self) -> None:
        """Nothing but a sync orders writes."""

        def make() -> object:
            platter = Platter()
            mount = Mount(platter)
            file = mount.open("/f", create=True)
            mount.sync_directory("/")
            file.pwrite(b"a" * 512, 0)
            file.pwrite(b"b" * 512, 512)
            return platter, lambda: Mount(platter).open("/f").pread(2000, 0)

        assert bytes(512) + b"b" * 512 in outcomes(make)

    def test_unsynced_entries_are_kept_or_undone(self) -> None:
        """Creations, renames and unlinks without a directory sync may be undone, each on its own."""

        def make() -> object:
            platter = Platter()
            mount = Mount(platter)
            for name in ("gone", "moved"):
                mount.open(f"/{name}", create=True)
            mount.sync_directory("/")
            mount.unlink("/gone")
            mount.rename("/moved", "/there")
            mount.open("/new", create=True)
            return platter, lambda: tuple(Mount(platter).list("/"))

        found = outcomes(make)
        assert ("new", "there") in found
        assert ("gone", "moved") in found
        assert ("gone", "new", "there") in found
        assert not any("moved" in names and "there" in names for names in found if isinstance(names, tuple))

    def test_synced_directory_stays(self) -> None:
        """A directory sync makes what was done in it durable."""

        def make() -> object:
            platter = Platter()
            mount = Mount(platter)
            mount.make_directories("/a/b")
            mount.open("/a/b/f", create=True)
            for path in ("/", "/a", "/a/b"):
                mount.sync_directory(path)
            mount.unlink("/a/b/f")
            mount.sync_directory("/a/b")
            return platter, lambda: tuple(Mount(platter).list("/a/b"))

        assert outcomes(make) == {()}

    def test_killed_process_loses_nothing(self) -> None:
        """Another mount sees what the one before wrote, synced or not; a power loss after that may still take it."""
        platter = Platter()
        written(platter, sync=False)
        assert Mount(platter).open("/f").pread(99, 0) == b"newer"

        def make() -> object:
            platter = Platter()
            written(platter, sync=False)
            Mount(platter).open("/f").pread(99, 0)
            return platter, lambda: Mount(platter).open("/f").pread(99, 0)

        assert b"old" in outcomes(make)

    def test_sync_all_makes_a_tree_durable(self) -> None:
        """Files and entries below a path survive after ``sync_all``, those elsewhere may not."""

        def make() -> object:
            platter = Platter()
            mount = Mount(platter)
            for path in ("/a", "/b"):
                mount.make_directories(path)
                mount.sync_directory("/")
                mount.open(f"{path}/f", create=True).pwrite(b"x", 0)
            mount.sync_all("/a")
            after = Mount(platter)
            return platter, lambda: (tuple(after.list("/a")), tuple(after.list("/b")))

        assert outcomes(make) == {(("f",), ("f",)), (("f",), ())}


class ProcessTests:
    def test_crash_ends_the_process_at_its_step(self) -> None:
        """A process that crashes before a step doesn't do it, nor anything after."""
        mount = Mount(Platter(), crash_at=2, crash_how="before")
        file = mount.open("/f", create=True)
        with pytest.raises(MachineOff):
            file.pwrite(b"x", 0)
        with pytest.raises(MachineOff):
            mount.list("/")
        assert Mount(mount.platter).open("/f").size() == 0

    @pytest.mark.parametrize(("how", "size"), [("during", 2), ("after", 4)])
    def test_crash_in_a_write(self, how: str, size: int) -> None:
        """A process killed in a write has written a part; one killed after it, everything."""
        mount = Mount(Platter(), crash_at=2, crash_how=how)
        file = mount.open("/f", create=True)
        with pytest.raises(MachineOff):
            file.pwrite(b"four", 0)
        assert Mount(mount.platter).open("/f").size() == size


class FaultTests:
    def test_failed_sync_has_thrown_away_what_it_was_to_write(self) -> None:
        """After a sync that failed, the next one succeeds without the bytes: readers see them, the platter doesn't."""
        platter = Platter()
        mount = Mount(platter, fault=lambda step: Fault(errno.EIO) if step.number == 3 else None)
        file = mount.open("/f", create=True)
        file.pwrite(b"lost", 0)
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        file.sync()
        mount.sync_directory("/")
        assert file.pread(4, 0) == b"lost"
        platter.lose_power(Random(0))
        assert Mount(platter).open("/f").pread(4, 0) == b""

    def test_failed_write_may_have_written_a_part(self) -> None:
        """A disk that fills up takes what fits, and a short write doesn't even complain."""
        faults = {2: Fault(errno.ENOSPC, 2), 3: Fault(0, 1)}
        mount = Mount(Platter(), fault=lambda step: faults.get(step.number))
        file = mount.open("/f", create=True)
        with pytest.raises(OSError, match="No space"):
            file.pwrite(b"four", 0)
        assert file.size() == 2
        assert file.pwrite(b"four", 0) == 1
