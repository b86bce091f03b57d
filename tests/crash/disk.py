"""A disk in memory that loses power, fills up and fails (a ``dstreams.storage.disk.Disk``).

The platter keeps for every file the bytes that are durable and, in order, what was done to it since its last sync; for
every directory likewise its entries. A mount is what one process sees: all of it. When the process is killed, the
next mount sees the same. When power is lost, each thing that was not synced is kept, lost, torn or zeroed on its own.

Modelled after POSIX, without what only some file systems promise: syncing a file doesn't make its entry durable, an
entry may become durable before the file's bytes, and nothing is ordered but by a sync. A rename is atomic. A write
never harms bytes beside it. A sync that fails has thrown away what it was to write, and the next one succeeds
without it (as Linux does).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

from attrs import define, field

_T = TypeVar("_T")

SECTOR = 512


class MachineOff(OSError):
    """The process that does this is dead already."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the machine is off")


@define(eq=False)
class Write:
    """Bytes written since the last sync."""

    offset: int
    data: bytes


@define(eq=False)
class Truncate:
    """The length set since the last sync."""

    size: int


@define(eq=False)
class Inode:
    """A file's content.

    :param durable: what a power loss leaves at least; ``current`` is what processes see.
    """

    durable: bytes = b""
    current: bytearray = field(factory=bytearray)
    pending: list[Write | Truncate] = field(factory=list)
    # Whether writing back has failed and nobody has been told yet.
    failed: bool = False

    def write(self, data: bytes, offset: int) -> None:
        _put(self.current, data, offset)
        self.pending.append(Write(offset, data))

    def truncate(self, size: int) -> None:
        _resize(self.current, size)
        self.pending.append(Truncate(size))

    def sync(self) -> None:
        if self.pending:
            self.durable = bytes(self._applied())
            self.pending.clear()

    def fail_sync(self) -> None:
        """The kernel marks the pages clean although they are not on the disk: no later sync writes them."""
        kept: list[Write | Truncate] = [each for each in self.pending if isinstance(each, Truncate)]
        self.failed = self.failed or len(kept) < len(self.pending)
        self.pending = kept

    def take_failure(self) -> None:
        """Tell of a failure, once.

        :raise OSError:
        """
        if self.failed:
            self.failed = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _applied(self) -> bytearray:
        content = bytearray(self.durable)
        for each in self.pending:
            if isinstance(each, Truncate):
                _resize(content, each.size)
            else:
                _put(content, each.data, each.offset)
        return content


@define(eq=False)
class Folder:
    """A directory's entries."""

    durable: dict[str, Inode | Folder] = field(factory=dict)
    current: dict[str, Inode | Folder] = field(factory=dict)
    # What was done since the last sync: names taken away, and names given to something.
    pending: list[tuple[tuple[str, ...], dict[str, Inode | Folder]]] = field(factory=list)

    def change(self, gone: tuple[str, ...] = (), new: dict[str, Inode | Folder] | None = None) -> None:
        self.pending.append((gone, new or {}))
        _relink(self.current, gone, new or {})

    def sync(self) -> None:
        for gone, new in self.pending:
            _relink(self.durable, gone, new)
        self.pending.clear()


@define(eq=False)
class Platter:
    """What outlives processes: a tree of directories and files."""

    root: Folder = field(factory=Folder)
    # What freed blocks still hold; a file that grew without its bytes being written may show it.
    freed: list[bytes] = field(factory=list)

    def lose_power(self, random: Random) -> None:
        """Leave only what power loss leaves; no process runs."""
        _Outage(random, self).folder(self.root)

    def files(self) -> Iterator[tuple[str, Inode]]:
        """Every file with its path."""
        yield from _walk(self.root, "")

    def free(self, content: bytes) -> None:
        """Remember the bytes of a file that is gone."""
        if content:
            self.freed = [*self.freed[-7:], content]


@define(eq=False)
class _Outage:
    """One power loss. Half of the time each file or directory keeps or loses all alike."""

    random: Random
    platter: Platter

    def folder(self, folder: Folder) -> None:
        keep = self._keeper()
        for gone, new in folder.pending:
            if keep():
                _relink(folder.durable, gone, new)
        folder.pending.clear()
        folder.current = dict(folder.durable)
        for node in folder.durable.values():
            if isinstance(node, Folder):
                self.folder(node)
            else:
                self.file(node)

    def file(self, inode: Inode) -> None:
        keep = self._keeper()
        content = bytearray(inode.durable)
        for each in inode.pending:
            if isinstance(each, Truncate):
                if keep():
                    _resize(content, each.size)
            else:
                self._write(content, each, keep)
        inode.pending.clear()
        inode.durable, inode.current = bytes(content), content

    def _keeper(self) -> Callable[[], bool]:
        chance = self.random.choice((0.0, 0.5, 0.5, 0.9, 1.0))
        return lambda: self.random.random() < chance

    def _write(self, content: bytearray, write: Write, keep: Callable[[], bool]) -> None:
        """Apply an un-synced write: whole, not at all, or in part."""
        if keep():
            fate = self.random.choice(("whole", "whole", "prefix", "sectors"))
        else:
            fate = self.random.choice(("lost", "lost", "lost", "prefix", "sectors", "grown"))
        if fate == "lost":
            return
        if fate == "whole":
            _put(content, write.data, write.offset)
        elif fate == "prefix":
            size = self.random.randint(0, len(write.data))
            _put(content, write.data[:size], write.offset)
        elif fate == "sectors":
            for offset, data in _sectors(write):
                if self.random.random() < 0.5:
                    _put(content, data, offset)
        else:
            self._grow(content, write)

    def _grow(self, content: bytearray, write: Write) -> None:
        """The file is as long as if it had been written, but the new part is zeros or somebody's old bytes."""
        begin, end = len(content), write.offset + len(write.data)
        if end <= begin:
            return
        _resize(content, end)
        if self.platter.freed and self.random.random() < 0.5:
            stale = self.random.choice(self.platter.freed)[begin:end]
            content[begin : begin + len(stale)] = stale


@define(eq=False)
class Fault:
    """What a call is to do instead of its work.

    :param code: the errno it fails with; 0 with ``short``.
    :param short: how many bytes a write writes before that.
    """

    code: int = 0
    short: int | None = None


@define(eq=False)
class Step:
    """One call that changes the disk or makes something durable.

    :param number: counted from 1 within the mount.
    :param kind: the method's name.
    """

    number: int
    kind: str
    path: str


@define(eq=False)
class Mount:
    """The disk as one process sees it (a ``Disk``).

    :param crash_at: the step at which the process ends, ``None`` for never.
    :param crash_how: whether ``before``, ``during`` or ``after`` the step; only writes know a during.
    :param fault: asked at every step what goes wrong.
    :param lies: asked at every sync whether it does nothing, though it says that it did.
    :param cold: asked at every read that must not wait whether it would have to.
    """

    platter: Platter
    crash_at: int | None = None
    crash_how: str = "before"
    fault: Callable[[Step], Fault | None] = lambda _: None
    lies: Callable[[Step], bool] = lambda _: False
    cold: Callable[[], bool] = lambda: False
    steps: int = 0
    off: bool = False
    room: int = 1 << 60
    """How many bytes it says that are free."""
    trace: list[Step] = field(factory=list)
    faults: int = 0
    """How often something failed."""

    # --- a Disk ---

    def open(self, path: str, *, create: bool = False, write: bool = True) -> SimFile:
        self.check_on()
        folder, name = self._place(path)
        node = folder.current.get(name)
        if isinstance(node, Folder):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        if node is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            return SimFile(self, path, self.step("open", path, lambda: _create(folder, name)), write)
        found = node
        kind = "open" if write else "open to read"
        return SimFile(self, path, self.step(kind, path, lambda: found), write)

    def make_directories(self, path: str) -> None:
        self.check_on()
        folder = self.platter.root
        for name in _names(path):
            node = folder.current.get(name)
            if node is None:
                node = self.step("mkdir", path, lambda parent=folder, new=name: _make(parent, new))  # type: ignore[misc]
            if not isinstance(node, Folder):
                raise FileExistsError(errno.EEXIST, "file exists", path)
            folder = node

    def list(self, path: str) -> list[str]:
        self.check_on()
        folder = self.find(path)
        return sorted(folder.current) if isinstance(folder, Folder) else []

    def unlink(self, path: str) -> None:
        self.check_on()
        node = self.find(path)
        if isinstance(node, Inode):
            folder, name = self._place(path)
            self.step("unlink", path, lambda: folder.change(gone=(name,)))
            self.platter.free(bytes(node.current))

    def rename(self, source: str, target: str) -> None:
        self.check_on()
        folder, name = self._place(source)
        into, new = self._place(target)
        assert folder is into, "a rename across directories isn't modelled"
        node = folder.current.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", source)
        moved = node
        self.step("rename", target, lambda: folder.change((name,), {new: moved}))

    def sync_directory(self, path: str) -> None:
        self.check_on()
        folder = self.find(path)
        if not isinstance(folder, Folder):
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        self.sync("sync_directory", path, folder.sync)

    def hold_directory(self, path: str) -> None:
        """There are always descriptors left here."""

    def sync_all(self, path: str) -> None:
        """As if ``path`` were the root of a file system of its own."""
        self.check_on()
        root = self.find(path)
        if not isinstance(root, Folder):
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        self.sync("sync_all", path, lambda: _sync_tree(root), lambda: _fail_tree(root))

    def free_bytes(self, path: str) -> int:
        self.check_on()
        return self.room

    # --- for the tests ---

    def find(self, path: str) -> Inode | Folder | None:
        """What is at a path."""
        node: Inode | Folder | None = self.platter.root
        for name in _names(path):
            node = node.current.get(name) if isinstance(node, Folder) else None
        return node

    def check_on(self) -> None:
        """A dead process does nothing."""
        if self.off:
            raise MachineOff

    def step(self, kind: str, path: str, action: Callable[[], _T], on_fault: Callable[[], object] = lambda: None) -> _T:
        """Do ``action``, unless the process ends or something fails here."""
        self.check_on()
        step = self._next(kind, path)
        crashes = step.number == self.crash_at
        if crashes and self.crash_how != "after":
            self._end()
        self._fail(step, on_fault)
        result = action()
        if crashes:
            self._end()
        return result

    def sync(
        self, kind: str, path: str, action: Callable[[], None], on_fault: Callable[[], object] = lambda: None
    ) -> None:
        """A step that makes something durable, unless it lies."""
        lies = self.lies(Step(self.steps + 1, kind, path))
        self.step(kind, path, (lambda: None) if lies else action, on_fault)

    def write(self, path: str, inode: Inode, data: bytes, offset: int) -> int:
        """A write: it may be cut off by a crash, or be short."""
        self.check_on()
        step = self._next("write", path)
        size = len(data)
        if step.number == self.crash_at:
            if self.crash_how != "before":
                inode.write(data[: size // 2 if self.crash_how == "during" else size], offset)
            self._end()
        fault = self.fault(step)
        if fault is not None:
            self.faults += 1
            # A call that fails can't have written everything.
            size = max(0, min(size - bool(fault.code), fault.short or 0))
            if size:
                inode.write(data[:size], offset)
            if fault.code:
                raise OSError(fault.code, os.strerror(fault.code), path)
            return size
        inode.write(data, offset)
        return size

    def _next(self, kind: str, path: str) -> Step:
        self.steps += 1
        step = Step(self.steps, kind, path)
        self.trace.append(step)
        return step

    def _fail(self, step: Step, on_fault: Callable[[], object] = lambda: None) -> None:
        fault = self.fault(step)
        if fault is not None and fault.code:
            self.faults += 1
            on_fault()
            raise OSError(fault.code, os.strerror(fault.code), step.path)

    def _end(self) -> None:
        self.off = True
        raise MachineOff

    def _place(self, path: str) -> tuple[Folder, str]:
        folder, _, name = path.rpartition("/")
        node = self.find(folder)
        if not isinstance(node, Folder):
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        return node, name


@define(eq=False)
class SimFile:
    """An open file of a mount (a ``File``)."""

    _mount: Mount
    path: str
    _inode: Inode
    _writable: bool

    def fileno(self) -> int:
        return -1

    def size(self) -> int:
        self._mount.check_on()
        return len(self._inode.current)

    def pwrite(self, data: bytes, offset: int) -> int:
        assert self._writable
        return self._mount.write(self.path, self._inode, bytes(data), offset)

    def pwritev(self, pieces: Sequence[bytes | bytearray], offset: int) -> int:
        return self.pwrite(b"".join(pieces), offset)

    def pread(self, size: int, offset: int) -> bytes:
        self._mount.check_on()
        return bytes(self._inode.current[offset : offset + size])

    def pread_nowait(self, size: int, offset: int) -> bytes | None:
        if self._mount.cold():
            return None
        data = self.pread(size, offset)
        return data if len(data) == size else None

    def truncate(self, size: int) -> None:
        assert self._writable
        self._mount.platter.free(bytes(self._inode.current))
        self._mount.step("truncate", self.path, lambda: self._inode.truncate(size))

    def sync(self) -> None:
        inode = self._inode
        if inode.failed:
            self._mount.faults += 1
        inode.take_failure()

        def fail() -> None:
            inode.fail_sync()
            inode.failed = False  # this is the one who is told

        self._mount.sync("sync", self.path, inode.sync, fail)


def _put(content: bytearray, data: bytes, offset: int) -> None:
    if data:
        if len(content) < offset:
            _resize(content, offset)
        content[offset : offset + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def _relink(entries: dict[str, Inode | Folder], gone: tuple[str, ...], new: dict[str, Inode | Folder]) -> None:
    for name in gone:
        entries.pop(name, None)
    entries.update(new)


def _create(folder: Folder, name: str) -> Inode:
    inode = Inode()
    folder.change(new={name: inode})
    return inode


def _make(parent: Folder, name: str) -> Folder:
    folder = Folder()
    parent.change(new={name: folder})
    return folder


def _sectors(write: Write) -> Iterator[tuple[int, bytes]]:
    """A write cut where sectors begin."""
    offset, end = write.offset, write.offset + len(write.data)
    while offset < end:
        after = min(end, (offset // SECTOR + 1) * SECTOR)
        yield offset, write.data[offset - write.offset : after - write.offset]
        offset = after


def _sync_tree(folder: Folder) -> None:
    folder.sync()
    for node in folder.current.values():
        _sync_tree(node) if isinstance(node, Folder) else node.sync()


def _fail_tree(folder: Folder) -> None:
    for node in folder.current.values():
        _fail_tree(node) if isinstance(node, Folder) else node.fail_sync()


def _walk(folder: Folder, path: str) -> Iterator[tuple[str, Inode]]:
    for name, node in folder.current.items():
        if isinstance(node, Folder):
            yield from _walk(node, f"{path}/{name}")
        else:
            yield f"{path}/{name}", node


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]
