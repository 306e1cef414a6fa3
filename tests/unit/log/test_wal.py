"""A bit that is flipped in the write-ahead log of the log's SQLite file is named before anything is
read from it; what a kill leaves there is no damage.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from topbill.domain.errors import LogError
from topbill.log import open_log
from topbill.log.database import LogDatabase
from topbill.log.wal import wal_damage


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "t.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA cache_size=10")
        connection.execute("CREATE TABLE t (a BLOB)")
        yield connection


def insert(connection: sqlite3.Connection, rows: int) -> None:
    values = [(os.urandom(300),) for _ in range(rows)]
    connection.executemany("INSERT INTO t VALUES (?)", values)


def test_a_flipped_bit_is_named(connection: sqlite3.Connection, tmp_path: Path) -> None:
    insert(connection, 60)
    content = (tmp_path / "t.sqlite-wal").read_bytes()
    shutil.copy(tmp_path / "t.sqlite-shm", tmp_path / "flipped-shm")
    chance, flipped = random.Random(1), tmp_path / "flipped-wal"
    for _ in range(60):
        copy = bytearray(content)
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
        flipped.write_bytes(copy)
        assert "damaged" in wal_damage(flipped)


def test_what_others_leave_is_no_damage(connection: sqlite3.Connection, tmp_path: Path) -> None:
    wal = tmp_path / "t.sqlite-wal"
    insert(connection, 50)
    assert wal_damage(wal) == ""
    # Begun anew over what is left of before.
    connection.execute("PRAGMA wal_checkpoint(RESTART)")
    insert(connection, 3)
    assert wal_damage(wal) == ""
    # Written in the middle of a transaction, and not committed.
    connection.execute("BEGIN")
    insert(connection, 2_000)
    assert wal_damage(wal) == ""
    connection.execute("ROLLBACK")
    insert(connection, 1)
    assert wal_damage(wal) == ""
    # Torn by a power cut.
    wal.write_bytes(wal.read_bytes()[:-5_000])
    assert wal_damage(wal) == ""
    wal.write_bytes(bytes(40_000))
    assert wal_damage(wal) == ""


def test_what_a_killed_writer_leaves_behind_the_next_ones_commit_is_no_damage(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    """Killed between its commit and the index, it is overwritten from where the index ends."""
    insert(connection, 20)
    parts = ("t.sqlite", "t.sqlite-wal")
    before = [(tmp_path / name).read_bytes() for name in parts]
    insert(connection, 60)
    left = (tmp_path / "t.sqlite-wal").read_bytes()

    other = tmp_path / "other"
    other.mkdir()
    for name, content in zip(parts, before, strict=True):
        (other / name).write_bytes(content)
    wal = other / "t.sqlite-wal"
    with closing(sqlite3.connect(other / "t.sqlite", isolation_level=None)) as next_writer:
        next_writer.execute("PRAGMA wal_autocheckpoint=0")
        insert(next_writer, 1)
        written = wal.read_bytes()
        assert written[24:32] == left[24:32]
        assert len(written) < len(left)
        wal.write_bytes(written + left[len(written) :])
        assert wal_damage(wal) == ""
        # What the index knows to be committed is not given up.
        flipped = bytearray(wal.read_bytes())
        flipped[len(written) - 100] ^= 1
        wal.write_bytes(flipped)
        assert "damaged" in wal_damage(wal)


def test_a_log_over_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with open_log(path) as log:
        log.revise("home", "r1", "me", "{}")
        wal = tmp_path / "log.sqlite-wal"
        killed = tmp_path / "killed"
        killed.mkdir()
        for file in (path, wal):
            shutil.copy(file, killed)
    content = bytearray((killed / wal.name).read_bytes())
    content[len(content) // 2] ^= 1
    (killed / wal.name).write_bytes(content)
    with pytest.raises(LogError, match=r"log\.sqlite-wal: damaged at frame"):
        open_log(killed / "log.sqlite")


LOCKED = """
import fcntl, sys
with open(sys.argv[1], "r+b") as index:
    fcntl.lockf(index, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)
"""
"""Takes the lock by which SQLite knows that nobody has the index of a WAL open."""


def test_a_second_handle_leaves_the_first_its_locks(tmp_path: Path) -> None:
    """Without them another process takes itself for the only one and cuts the index, which ends
    this one by SIGBUS.
    """
    path = tmp_path / "log.sqlite"
    with closing(LogDatabase(path)):
        LogDatabase(path).close()
        another = [sys.executable, "-c", LOCKED, f"{path}-shm"]
        done = subprocess.run(another, capture_output=True, text=True, check=False)
        assert "BlockingIOError" in done.stderr


def test_a_table_whose_name_is_damaged_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    LogDatabase(path).close()
    content = path.read_bytes().replace(b"CREATE TABLE decisions", b"CREATE TABLE dacisions")
    path.write_bytes(content)
    with pytest.raises(LogError, match=r"log\.sqlite"):
        LogDatabase(path)
