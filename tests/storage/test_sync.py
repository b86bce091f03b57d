"""Syncing without making the reactor wait, on real files with the real reactor."""

from __future__ import annotations

import errno
import gc
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from dstreams.runtime.threads import run_inline
from dstreams.storage import kernel_queues
from dstreams.storage.disk import OsDisk, OsFile
from dstreams.storage.kernel_queues import AioQueue, KernelQueue, UringQueue
from dstreams.storage.sync import KernelSyncer, Syncer, ThreadSyncer, choose_syncer


def reactor() -> Any:
    """The reactor that the tests run on."""
    from twisted.internet import reactor

    return reactor


QUEUES: dict[str, Callable[[int], KernelQueue]] = {"io_uring": UringQueue, "kernel AIO": AioQueue}


def make(kind: str) -> KernelSyncer:
    """A syncer of that kind, where it is to be had."""
    try:
        return KernelSyncer(reactor(), QUEUES[kind])
    except OSError as error:
        pytest.skip(f"no {kind} here: {error}")


@define(eq=False)
class FakeQueue:
    """A queue whose syncs end as they are told to; it writes to the eventfd at once.

    :param submitted: what submitting fails with.
    :param ended: what the kernel says at the end.
    """

    eventfd: int
    submitted: int = 0
    ended: int = 0
    name: str = "fake"

    def submit(self, descriptor: int) -> None:
        if self.submitted:
            raise OSError(self.submitted, os.strerror(self.submitted))
        os.eventfd_write(self.eventfd, 1)

    def result(self) -> int | None:
        return -self.ended

    def close(self) -> None:
        """Nothing to release."""


def a_file(directory: Path) -> OsFile:
    return OsDisk().open(f"{directory}/f", create=True)


def mappings() -> int:
    """How many mappings this process has that belong to one queue or the other."""
    maps = Path("/proc/self/maps").read_text()
    return maps.count("[aio]") + maps.count("[io_uring]")


def descriptors() -> int:
    """How many descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


@define
class Descriptor:
    """A file that is nothing but a descriptor."""

    number: int

    def fileno(self) -> int:
        return self.number

    def sync(self) -> None:
        os.fdatasync(self.number)


@pytest.fixture(params=[*QUEUES, "thread"])
def syncer(request: pytest.FixtureRequest) -> Iterator[Syncer]:
    """Each way to sync."""
    made = make(request.param) if request.param in QUEUES else ThreadSyncer(deferToThread)
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


@pytest.mark.parametrize("kind", QUEUES)
class KernelSyncerTests:
    @pytest_twisted.ensureDeferred
    async def test_close_releases_everything(self, kind: str, tmp_path: Path) -> None:
        """Closing gives back the queue, the eventfd and the reactor's reader."""
        make(kind).close()
        file = a_file(tmp_path)
        gc.collect()
        before = descriptors(), mappings(), len(reactor().getReaders())
        syncer = make(kind)
        assert mappings() > before[1]
        await syncer.sync(file)
        syncer.close()
        assert (descriptors(), mappings(), len(reactor().getReaders())) == before

    def test_spurious_wake_up(self, kind: str) -> None:
        """A wake-up without an event is harmless."""
        syncer = make(kind)
        syncer.doRead()
        os.eventfd_write(syncer.fileno(), 1)
        syncer.doRead()
        syncer.close()

    def test_elsewhere(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """On another system there is none."""
        monkeypatch.setattr(platform, "system", lambda: "Darwin")
        with pytest.raises(OSError, match=f"no .*{kind.rpartition(' ')[2]} on this system"):
            KernelSyncer(reactor(), QUEUES[kind])

    @pytest_twisted.ensureDeferred
    async def test_failed_submission(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sync that the kernel doesn't take fails, and isn't done later beside another."""
        syncer, file = make(kind), a_file(tmp_path)

        def refuse(*_: Any) -> int:
            raise OSError(errno.EIO, "Input/output error")

        try:
            with monkeypatch.context() as patches:
                patches.setattr(kernel_queues, "_syscall", refuse)
                with pytest.raises(OSError, match="Input/output error"):
                    await syncer.sync(file)
            for _ in range(3):
                await syncer.sync(file)
            assert syncer._queue.result() is None
        finally:
            syncer.close()


class OutcomeTests:
    """What a syncer makes of what the kernel says."""

    @pytest.mark.parametrize(("kind", "after"), [("io_uring", 0), ("io_uring", 1), ("kernel AIO", 0)])
    def test_refusal_leaves_nothing_behind(self, kind: str, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the kernel or a sandbox refuses a part of it, the other parts are given back."""
        make(kind).close()
        calls, call = 0, kernel_queues._syscall

        def refuse(*arguments: Any) -> int:
            nonlocal calls
            calls += 1
            if calls > after:
                raise OSError(errno.ENOSYS, "Function not implemented")
            return call(*arguments)

        monkeypatch.setattr(kernel_queues, "_syscall", refuse)
        gc.collect()
        before = descriptors(), mappings()
        with pytest.raises(OSError, match="not implemented"):
            KernelSyncer(reactor(), QUEUES[kind])
        gc.collect()
        assert (descriptors(), mappings()) == before

    @pytest.mark.parametrize("when", ["submitted", "ended"])
    @pytest_twisted.ensureDeferred
    async def test_error(self, when: str, tmp_path: Path) -> None:
        """An I/O error fails the Deferred."""
        syncer = KernelSyncer(reactor(), lambda eventfd: FakeQueue(eventfd, **{when: errno.EIO}))
        try:
            with pytest.raises(OSError, match="Input/output error") as caught:
                await syncer.sync(a_file(tmp_path))
            assert caught.value.errno == errno.EIO
        finally:
            syncer.close()

    @pytest.mark.parametrize("when", ["submitted", "ended"])
    @pytest.mark.parametrize("code", [errno.EAGAIN, errno.ECANCELED])
    @pytest_twisted.ensureDeferred
    async def test_not_tried(self, when: str, code: int, tmp_path: Path) -> None:
        """A sync for which the kernel had no thread is done all the same, and fails as it would have."""
        syncer = KernelSyncer(reactor(), lambda eventfd: FakeQueue(eventfd, **{when: code}))
        file, synced = a_file(tmp_path), []

        @define
        class Watched(Descriptor):
            def sync(self) -> None:
                super().sync()
                synced.append(self)

        try:
            await syncer.sync(Watched(file.fileno()))  # type: ignore[arg-type]
            assert len(synced) == 1
            reading, writing = os.pipe()
            with pytest.raises(OSError, match="Invalid argument"):
                await syncer.sync(Watched(writing))  # type: ignore[arg-type]
            os.close(reading)
            os.close(writing)
        finally:
            syncer.close()


class ChoiceTests:
    """Which way is taken."""

    @pytest.mark.parametrize(
        ("refused", "name"), [((), "io_uring"), (("UringQueue",), "kernel AIO"), (("UringQueue", "AioQueue"), "thread")]
    )
    def test_best(self, refused: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The best way that isn't refused."""
        for kind, queue in (("io_uring", "UringQueue"), ("kernel AIO", "AioQueue")):
            if queue not in refused and name == kind:
                make(kind).close()

        def refuse(_: int) -> KernelQueue:
            raise OSError(errno.EPERM, "Operation not permitted")

        for each in refused:
            monkeypatch.setattr(kernel_queues, each, refuse)
        syncer = choose_syncer(reactor(), run_inline)
        assert syncer.name == name
        syncer.close()


class RunInlineTests:
    def test_result_and_error(self) -> None:
        """What is run inline has its result, or its failure, at once."""
        results: list[Any] = []
        run_inline(lambda a, b: a + b, 1, 2).addCallback(results.append)
        run_inline(lambda: 1 / 0).addErrback(lambda failure: results.append(failure.type))
        assert results == [3, ZeroDivisionError]
