"""Syncing without making the reactor wait, on real files with the real reactor."""

from __future__ import annotations

import errno
import gc
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from dstreams.storage import sync as sync_module
from dstreams.storage.disk import OsDisk, OsFile
from dstreams.storage.sync import AioSyncer, Syncer, ThreadSyncer, run_inline


def reactor() -> Any:
    """The reactor that the tests run on."""
    from twisted.internet import reactor

    return reactor


def make_aio() -> AioSyncer:
    """Kernel AIO, where it is to be had."""
    try:
        return AioSyncer(reactor())
    except OSError as error:
        pytest.skip(f"no kernel AIO here: {error}")


def a_file(directory: Path) -> OsFile:
    return OsDisk().open(f"{directory}/f", create=True)


def contexts() -> int:
    """How many AIO contexts this process has: each is a mapping of its memory."""
    return Path("/proc/self/maps").read_text().count("[aio]")


@define
class Descriptor:
    """A file that is nothing but a descriptor."""

    number: int

    def fileno(self) -> int:
        return self.number

    def sync(self) -> None:
        os.fdatasync(self.number)


@pytest.fixture(params=["aio", "thread"])
def syncer(request: pytest.FixtureRequest) -> Iterator[Syncer]:
    """Either way to sync."""
    made = make_aio() if request.param == "aio" else ThreadSyncer(deferToThread)
    yield made
    made.close()


class SyncerTests:
    @pytest_twisted.ensureDeferred
    async def test_sync_completes(self, syncer: Syncer, tmp_path: Path) -> None:
        """A sync of a file that was written to comes to its end, not before the caller goes on."""
        file = a_file(tmp_path)
        file.pwrite(b"x" * 10_000, 0)
        done = syncer.sync(file)
        assert not done.called
        await done

    @pytest_twisted.ensureDeferred
    async def test_one_after_the_other(self, syncer: Syncer, tmp_path: Path) -> None:
        """Each sync may begin when the one before has ended, also from its very callback."""
        file, count = a_file(tmp_path), 0

        def again(_: None) -> Deferred[None] | None:
            nonlocal count
            count += 1
            file.pwrite(b"x", count)
            return syncer.sync(file).addCallback(again) if count < 50 else None

        await syncer.sync(file).addCallback(again)
        assert count == 50

    @pytest_twisted.ensureDeferred
    async def test_closed_descriptor(self, syncer: Syncer, tmp_path: Path) -> None:
        """A sync that can't be done fails with the system's error, and the next one is not in its way."""
        file = a_file(tmp_path)
        number = os.dup(file.fileno())
        os.close(number)
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            await syncer.sync(Descriptor(number))  # type: ignore[arg-type]
        assert caught.value.errno == errno.EBADF
        await syncer.sync(file)

    @pytest_twisted.ensureDeferred
    async def test_descriptor_that_has_nothing_to_sync(self, syncer: Syncer, tmp_path: Path) -> None:
        """So does one of something that is no file."""
        reading, writing = os.pipe()
        try:
            with pytest.raises(OSError, match="Invalid argument"):
                await syncer.sync(Descriptor(writing))  # type: ignore[arg-type]
            await syncer.sync(a_file(tmp_path))
        finally:
            os.close(reading)
            os.close(writing)

    @pytest_twisted.ensureDeferred
    async def test_file_let_go_meanwhile(self, syncer: Syncer, tmp_path: Path) -> None:
        """A segment that is replaced while its sync is under way is synced all the same."""
        file = a_file(tmp_path)
        file.pwrite(b"x" * 100_000, 0)
        done = syncer.sync(file)
        del file
        await done


class AioSyncerTests:
    @pytest_twisted.ensureDeferred
    async def test_close_releases_everything(self, tmp_path: Path) -> None:
        """Closing gives back the context, the eventfd and the reactor's reader."""
        make_aio().close()
        gc.collect()
        descriptors, room, readers = len(os.listdir("/proc/self/fd")), contexts(), len(reactor().getReaders())
        syncer = make_aio()
        assert contexts() > room
        assert len(os.listdir("/proc/self/fd")) == descriptors + 1
        await syncer.sync(a_file(tmp_path))
        syncer.close()
        assert (len(os.listdir("/proc/self/fd")), contexts()) == (descriptors, room)
        assert len(reactor().getReaders()) == readers

    @pytest_twisted.ensureDeferred
    async def test_kernel_reports_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An I/O error that the kernel finds while it syncs fails the Deferred."""
        syncer = make_aio()
        unpack = sync_module._EVENT.unpack_from

        class Broken:
            size = sync_module._EVENT.size

            def unpack_from(self, buffer: Any, offset: int) -> tuple[int, ...]:
                data, request, _, more = unpack(buffer, offset)
                return data, request, -errno.EIO, more

        monkeypatch.setattr(sync_module, "_EVENT", Broken())
        try:
            with pytest.raises(OSError, match="Input/output error") as caught:
                await syncer.sync(a_file(tmp_path))
            assert caught.value.errno == errno.EIO
        finally:
            syncer.close()

    def test_spurious_wake_up(self) -> None:
        """A wake-up without an event is harmless."""
        syncer = make_aio()
        syncer.doRead()
        os.eventfd_write(syncer.fileno(), 1)
        syncer.doRead()
        syncer.close()

    def test_unknown_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a processor whose numbers of system calls aren't known, there is none."""
        monkeypatch.setattr(platform, "machine", lambda: "mips")
        with pytest.raises(OSError, match="no Linux AIO on this system"):
            AioSyncer(reactor())

    @pytest.mark.parametrize("what", ["context", "eventfd"])
    def test_refusal_leaves_nothing_behind(self, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the kernel or a sandbox refuses a part of it, the other parts are given back."""
        make_aio().close()

        def refuse(*_: object) -> int:
            raise OSError(errno.ENOSYS, "Function not implemented")

        if what == "eventfd":
            monkeypatch.setattr(os, "eventfd", refuse)
        else:
            monkeypatch.setattr(AioSyncer, "_call", refuse)
        gc.collect()
        descriptors, room = len(os.listdir("/proc/self/fd")), contexts()
        with pytest.raises(OSError, match="not implemented"):
            AioSyncer(reactor())
        assert (len(os.listdir("/proc/self/fd")), contexts()) == (descriptors, room)


class RunInlineTests:
    def test_result_and_error(self) -> None:
        """What is run inline has its result, or its failure, at once."""
        results: list[Any] = []
        run_inline(lambda a, b: a + b, 1, 2).addCallback(results.append)
        run_inline(lambda: 1 / 0).addErrback(lambda failure: results.append(failure.type))
        assert results == [3, ZeroDivisionError]
