"""One damaged store, by a seed."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import Final

from attrs import define, field
from twisted.internet.task import Clock

from dstreams.cli import main
from dstreams.runtime.threads import run_inline
from dstreams.storage.acid import AcidStorage
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import Storage, StorageError
from dstreams.storage.sync import ThreadSyncer
from tests.support.engine import Engine, Reply

MODES: Final = ("file-fast", "file-durable", "acid")

SHARDS: Final = 2

CHECKPOINT_BYTES: Final = 1 << 17
"""More than all appends, so that no checkpoint is taken but those that are asked for."""

CHECKPOINT_AT: Final = 6
"""Before which round of changes one is taken: it lies in the WAL of the catalog then."""

BINARY: Final = "application/octet-stream"

View = tuple[object, ...]
"""What a client sees of a stream: statuses, headers, bytes."""


class Failed(AssertionError):
    """A promise that was broken."""


@define(eq=False)
class Template:
    """A store as a killed process leaves it, and all that clients have ever seen of its streams.

    :param views: of each stream all that it ever was since the last checkpoint; the last one is what it is.
    """

    mode: str
    directory: Path
    views: dict[str, list[View]] = field(factory=dict)


def storage(mode: str, directory: Path) -> Storage:
    """A store in a directory, without threads."""
    if mode == "acid":
        return AcidStorage(str(directory), SHARDS, run_inline, parallel=1)
    syncer: Callable[[], ThreadSyncer] | None = (lambda: ThreadSyncer(run_inline)) if mode == "file-durable" else None
    return FileStorage(str(directory), syncer, run_inline, CHECKPOINT_BYTES, spare_after=CHECKPOINT_BYTES // 8)


def make(mode: str, directory: Path) -> Template:
    """A store with streams of all kinds: partly in data files or databases, partly in journals or WALs."""
    live = directory / "live"
    engine = Engine(storage(mode, live), clock=Clock())
    template = Template(mode, directory / "template")
    engine.put("text", b"some text", stream_ttl="1000000")
    engine.put("binary", bytes(range(256)) * 40, BINARY)
    engine.put_json("json", b'[{"a":1},{"b":[2,3]},"four"]')
    engine.put("closed", b"closed ")
    engine.close("closed", b"for ever")
    engine.put("gone", b"deleted")
    for number in range(30):
        engine.post("binary", bytes([number]) * (number * 97), BINARY)
        engine.produce("text", "p", 0, number, b"%d " % number)
    engine.fork("fork", "binary", b"own")
    engine.delete("gone")
    engine.storage.close()
    engine = Engine(storage(mode, live), clock=Clock())
    for number in range(12):
        if number == CHECKPOINT_AT and isinstance(engine.storage, FileStorage):
            engine.storage.checkpoint()
            template.views.clear()
        for step in _changes(engine, number):
            _note_views(template, engine)
            step()
    for name in _names(engine):
        view = see(engine, name)
        assert view is not None
        template.views.setdefault(name, [])
        template.views[name] = [each for each in template.views[name] if each != view] + [view]
    shutil.copytree(live, template.directory)
    engine.storage.close()
    return template


def _changes(engine: Engine, number: int) -> Iterator[Callable[[], object]]:
    """Steps of one commit each: a damaged end of a journal or WAL may take one of them, and leave those before."""
    yield lambda: engine.produce("text", "p", 0, 30 + number, b"later %d " % number)
    yield lambda: engine.post("binary", bytes([number]) * 3000, BINARY, stream_seq=f"{number:04}")
    yield lambda: engine.post_json("json", b'[{"later":%d}]' % number)
    if number == 5:
        yield lambda: engine.close("json")
    if number == 8:
        yield lambda: engine.put(f"late {number}", b"a stream of the journal")


def _note_views(template: Template, engine: Engine) -> None:
    for name in _names(engine):
        view = see(engine, name)
        if view is not None and view not in template.views.setdefault(name, []):
            template.views[name].append(view)


def _names(engine: Engine) -> list[str]:
    return [state.name for state in engine.streams._durable.streams.values()]


def see(engine: Engine, name: str) -> View | None:
    """What a client sees of a stream; ``None`` when an answer says that it is damaged."""
    head, read = engine.head(name), engine.get(name)
    if read.status == 500:
        if read.code != "DATA_DAMAGED":
            raise Failed(f"{name}: a read ends in {read.code}")
        return None
    return (head.status, _headers(head), read.status, _headers(read), read.body if read.status == 200 else b"")


def _headers(reply: Reply) -> tuple[tuple[str, str], ...]:
    wanted = ("content-type", "stream-next-offset", "stream-closed", "stream-ttl", "stream-expires-at", "etag")
    return tuple((name, reply.headers[name]) for name in wanted if name in reply.headers)


def kind_of(path: Path) -> str:
    """What kind of file it is: all of a kind are damaged as often as all of another."""
    return re.sub("[0-9a-f]{16}|(?<=shard_)[0-9a-f]{2}", "", path.name)


def damage(directory: Path, random: Random) -> Path:
    """Damage one file; which."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)
    kinds: dict[str, list[Path]] = {}
    for path in files:
        if path.name not in ("lock", "reserve") and not path.name.endswith("-shm"):
            kinds.setdefault(kind_of(path), []).append(path)
    path = random.choice(kinds[random.choice(sorted(kinds))])
    content = bytearray(path.read_bytes())
    kind = random.choice(("flip", "flip", "zero", "truncate"))
    at = random.randrange(len(content))
    if kind == "flip":
        content[at] ^= 1 << random.randrange(8)
    elif kind == "zero":
        size = min(random.choice((1, 16, 512, 4096)), len(content) - at)
        content[at : at + size] = bytes(size)
    else:
        del content[at:]
    path.write_bytes(content)
    return path.relative_to(directory)


def run(template: Template, seed: int, scratch: Path) -> str:
    """One trial.

    :return: what became of it: ``refused``, ``damaged`` or ``right``.
    :raise Failed: when a promise is broken.
    """
    random = Random(f"{template.mode} {seed}")
    directory = scratch / str(seed)
    shutil.copytree(template.directory, directory)
    try:
        path = damage(directory, random)
        return _validate_head(template, directory, path)
    except Failed as failure:
        raise Failed(f"{template.mode}, seed {seed}: {failure}") from failure
    finally:
        shutil.rmtree(directory)


def _validate_head(template: Template, directory: Path, path: Path) -> str:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        try:
            sound = main(["check", str(directory)]) == 0
        except Exception as error:
            raise Failed(f"{path}: check ends in {error!r}") from error
    try:
        engine = Engine(storage(template.mode, directory), clock=Clock())
    except StorageError as error:
        if sound:
            raise Failed(f"{path}: check finds nothing, but a start is refused: {error}") from error
        return "refused"
    except Exception as error:
        raise Failed(f"{path}: a start ends in {error!r}") from error
    try:
        sound_streams = [name for name in template.views if _read(template, engine, path, name)]
    finally:
        engine.storage.close()
    if len(sound_streams) == len(template.views):
        return "right"
    if sound:
        raise Failed(f"{path}: check finds nothing, but a read is answered with DATA_DAMAGED")
    return "damaged"


def _read(template: Template, engine: Engine, path: Path, name: str) -> bool:
    """Whether a stream is what it should be; else it says that it is damaged."""
    view = see(engine, name)
    if view is None:
        return False
    views = template.views[name]
    # What looks like the end that a crash has torn is dropped: a stream may be what it was then.
    torn = path.parts[0] == "journal" or path.name.endswith("-wal")
    if view == views[-1] or (torn and (view in views or (view[0] == 404 and name.startswith("late")))):
        return True
    raise Failed(f"{path}: the stream {name!r} is {view!r:.300}, not {views[-1]!r:.300}")
