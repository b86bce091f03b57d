"""Damaged write-ahead logs are told from those that a crash cut off."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from attrs import define

from dstreams.storage.disk import OsDisk
from dstreams.storage.interface import StorageError
from dstreams.storage.wal import WalDamage, check_wal
from tests.storage.acid_stores import engine

FRAME = 24 + 4096
HEADER = 32


@define(eq=False)
class Database:
    """A database that was left without being closed.

    :param path: of the database; the WAL is beside it.
    """

    path: Path

    @property
    def wal(self) -> bytes:
        return Path(f"{self.path}-wal").read_bytes()

    @wal.setter
    def wal(self, content: bytes) -> None:
        Path(f"{self.path}-wal").write_bytes(content)

    def check(self) -> None:
        disk = OsDisk()
        check_wal(disk.open(f"{self.path}-wal", write=False), disk.open(str(self.path), write=False))

    def flip(self, at: int) -> None:
        content = bytearray(self.wal)
        content[at] ^= 0x10
        self.wal = bytes(content)

    def rows(self) -> int:
        """How many SQLite sees."""
        with closing(sqlite3.connect(self.path)) as database:
            return int(database.execute("SELECT count(*) FROM t").fetchone()[0])

    def insert(self, *, new_round: bool = False) -> bytes:
        """Add a row; the WAL as it is then."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as database:
            if new_round:
                database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            database.execute("INSERT INTO t (data) VALUES (?)", (b"x" * 5000,))
            return self.wal


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Database]:
    """Makes one by some steps, each a number of rows to add in one transaction, or ``checkpoint``."""

    def made(*steps: int | str) -> Database:
        random = Random(7)
        database = sqlite3.connect(tmp_path / "live.db", isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = OFF", "wal_autocheckpoint = 0"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
        for step in steps:
            if isinstance(step, str):
                database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                continue
            database.execute("BEGIN")
            for _ in range(step):
                database.execute("INSERT INTO t (data) VALUES (?)", (random.randbytes(5000),))
            database.execute("COMMIT")
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"live.db{suffix}", tmp_path / f"left.db{suffix}")
        database.close()
        return Database(tmp_path / "left.db")

    return made


Make = Callable[..., Database]


class DamageTests:
    """What no crash leaves behind."""

    @pytest.mark.parametrize("seed", range(30))
    def test_flipped_bit(self, make: Make, seed: int) -> None:
        """A wrong bit before the last two commits is found: SQLite would drop what follows."""
        random = Random(seed)
        left = make(*(random.randint(1, 4) for _ in range(10)), 1, 1)
        at = random.randrange(len(left.wal) - 12 * FRAME)
        left.check()
        left.flip(at)
        with pytest.raises(WalDamage, match="restore the directory from a backup") as raised:
            left.check()
        assert raised.value.end <= max(at, HEADER)

    @pytest.mark.parametrize("at", range(HEADER))
    def test_header(self, make: Make, at: int) -> None:
        """A wrong byte in the header is found: SQLite would drop the whole file."""
        left = make(1, 2, 3)
        left.flip(at)
        with pytest.raises(WalDamage):
            left.check()

    @pytest.mark.parametrize("begin", [0, 4096, 8192])
    def test_zeros(self, make: Make, begin: int) -> None:
        """So is a block of zeros, at the begin of the file too."""
        left = make(3, 3, 3, 3)
        left.wal = left.wal[:begin] + bytes(4096) + left.wal[begin + 4096 :]
        with pytest.raises(WalDamage):
            left.check()

    def test_end_of_what_is_used(self, make: Make) -> None:
        """The damage says how much of the file SQLite would use: it ends with the last commit before."""
        left = make(1, 1, 1, 1, 1, 1)
        size = len(left.wal)
        left.flip(size - 9 * FRAME)
        with pytest.raises(WalDamage) as raised:
            left.check()
        left.wal = left.wal[: raised.value.end]
        left.check()
        before = left.rows()
        assert 0 < before < 6


class CrashTests:
    """What a crash may leave behind is read without complaint."""

    def test_whole(self, make: Make) -> None:
        """A WAL that was left as it was."""
        left = make(1, 2, 3)
        left.check()
        assert left.rows() == 6

    @pytest.mark.parametrize("seed", range(20))
    def test_cut(self, make: Make, seed: int) -> None:
        """A file that ends anywhere."""
        left = make(2, 2, 2, 2)
        left.wal = left.wal[: Random(seed).randrange(len(left.wal))]
        left.check()

    @pytest.mark.parametrize("seed", range(20))
    def test_torn_transaction(self, make: Make, seed: int) -> None:
        """The last transaction may have been written in any order: what is missing is old or zero."""
        random = Random(seed)
        left = make(1, 1, 8)
        whole = left.wal
        content = bytearray(whole)
        for sector in range(len(whole) - 15 * FRAME, len(whole), 512):
            if random.random() < 0.3:
                content[sector : sector + 512] = bytes(len(content[sector : sector + 512]))
        left.wal = bytes(content)
        left.check()

    def test_torn_twice(self, make: Make) -> None:
        """What follows a torn transaction is written over it, and may be torn too: one commit of each may be left."""
        left = make(1, 8)
        before, torn = left.wal, bytearray(left.wal)
        first = len(torn) - 14 * FRAME
        torn[first : first + 4096] = bytes(4096)
        left.wal = bytes(torn)
        left.check()
        again = bytearray(left.insert())
        assert again[-FRAME:] == before[-FRAME:]
        changed = next(at for at in range(first, len(again)) if again[at] != torn[at])
        again[changed + 100] ^= 1
        left.wal = bytes(again)
        left.check()

    def test_earlier_round(self, make: Make) -> None:
        """Frames of an earlier round, behind those of the newest, are of no use to anybody."""
        left = make(8, 8, "checkpoint", 1)
        assert len(left.wal) > 15 * FRAME
        left.check()
        left.flip(HEADER + 12 * FRAME)
        left.check()

    @pytest.mark.parametrize("written", range(HEADER))
    def test_torn_header_of_a_new_round(self, make: Make, written: int) -> None:
        """The header of a new round may be torn: the database has all of the round before."""
        left = make(8, 8, "checkpoint")
        old, copied = left.wal, left.path.read_bytes()
        new = left.insert(new_round=True)
        left.path.write_bytes(copied)
        assert old[:HEADER] != new[:HEADER]
        left.wal = new[:written] + old[written:]
        left.check()

    @pytest.mark.parametrize("content", [b"", b"x" * 31, bytes(10_000), b"x" * 10_000])
    def test_no_wal_at_all(self, make: Make, content: bytes) -> None:
        """Nor is something that never was a WAL."""
        left = make(1)
        left.wal = content
        left.check()


class StoreTests:
    """A store doesn't open with less than it had."""

    def test_refused(self, tmp_path: Path) -> None:
        """It says which file is damaged and what to do, and leaves the file as it is."""
        served = engine(tmp_path / "store")
        for number in range(8):
            served.put(f"s{number}", b"x" * 100)
            for _ in range(5):
                served.post(f"s{number}", b"y" * 3000)
        shutil.copytree(tmp_path / "store", tmp_path / "left")
        left = max((tmp_path / "left/acid").glob("*-wal"), key=lambda each: each.stat().st_size)
        content = bytearray(left.read_bytes())
        content[HEADER + 10 * FRAME] ^= 1
        left.write_bytes(content)
        with pytest.raises(StorageError, match=rf"{left.name} is damaged behind byte \d+, and at least \d+ commits"):
            engine(tmp_path / "left")
        assert left.read_bytes() == content
