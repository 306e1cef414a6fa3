"""Damage of what was made durable is an error for everybody until it is mended, and then what can
be read is there once.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.errors import LogError
from topbill.domain.records import Decision, Placement, RewardEvent, UnitEvent
from topbill.log import frames, open_log
from topbill.log.mending import journal_damage, log_damage, mend_journal
from topbill.log.sqlite import SqliteLog

GROUPS = 12


def decision(name: str) -> Decision:
    return Decision(
        decision_id=name,
        experiment="home",
        revision="r1",
        variant="a",
        unit="u",
        slate=(Placement(0, "close-up", 0.25),),
        policy="uniform",
        reason="policy",
    )


def store(log: SqliteLog, *names: str) -> None:
    for name in names:
        log.append([decision(name)])


def held(path: Path) -> list[str]:
    with open_log(path) as log:
        return [found.decision_id for _, found in log.read_decisions(0, 1_000)]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose journal holds `GROUPS` groups, and behind them what was drained."""
    data = tmp_path_factory.mktemp("full")
    with closing(SqliteLog(data / "log.sqlite")) as log:
        store(log, *(f"drained-{n}" for n in range(2 * GROUPS)))
        log.drain(whole=True)
        store(log, *(f"waiting-{n}" for n in range(GROUPS)))
    return data


NAMES = [f"drained-{n}" for n in range(2 * GROUPS)] + [f"waiting-{n}" for n in range(GROUPS)]


def copied(full: Path, to: Path) -> Path:
    """A copy of the folder; its log."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(full, to)
    return to / "log.sqlite"


def flip(path: Path, byte: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        (before,) = file.read(1)
        file.seek(byte)
        file.write(bytes([before ^ (1 << bit)]))


def end_of(path: Path) -> int:
    with closing(SqliteLog(path)) as log:
        return log._journal.position[1]


@settings(max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), keep_state=st.booleans())
def test_a_flipped_bit_is_refused_and_all_other_groups_are_taken_over(
    place: float, bit: int, keep_state: bool, full: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = copied(full, tmp_path_factory.getbasetemp() / "flipped")
    end = end_of(path)
    byte = int(place * end)
    struck = f"waiting-{int(place * GROUPS)}"  # all groups are of one length, but for two digits
    flip(path.with_suffix(".journal"), byte, bit)
    last_group = byte >= end * (GROUPS - 1) // GROUPS - GROUPS
    if not keep_state:
        path.with_suffix(".state").unlink()
        if last_group:
            return  # nothing tells it from one that was not written whole
    with pytest.raises(LogError, match=r"log\.journal: damaged at byte"):
        open_log(path)
    before = path.with_suffix(".journal").read_bytes()

    mended = mend_journal(path)
    assert mended is not None
    assert (mended.groups, mended.rows) == (GROUPS - 1, GROUPS - 1)
    assert mended.kept.read_bytes() == before
    now = held(path)
    assert len(now) == len(NAMES) - 1
    (lost,) = set(NAMES) - set(now)
    assert lost == struck or abs(int(lost[8:]) - int(struck[8:])) == 1
    assert [name for name in NAMES if name != lost] == now, "in the order in which they came"
    assert mend_journal(path) is None
    with open_log(path) as log:
        log.append([decision("after")])
    assert held(path) == [*now, "after"]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_journal_that_was_cut_is_refused(kept: float, full: Path, tmp_path: Path) -> None:
    path = copied(full, tmp_path / "data")
    with path.with_suffix(".journal").open("r+b") as file:
        file.truncate(int(kept * end_of(path)))
    with pytest.raises(LogError, match="damaged at byte"):
        open_log(path)
    mended = mend_journal(path)
    assert mended is not None
    assert mended.groups == int(kept * GROUPS)
    assert held(path) == NAMES[: 2 * GROUPS + mended.groups]


def test_a_missing_journal_is_refused_where_it_held_rows(full: Path, tmp_path: Path) -> None:
    path = copied(full, tmp_path / "data")
    path.with_suffix(".journal").unlink()
    with pytest.raises(LogError, match="damaged at byte 0"):
        open_log(path)


def test_a_journal_of_another_log_is_refused_and_taken_over_on_demand(
    full: Path, tmp_path: Path
) -> None:
    """As when log.sqlite was lost, or put back from a backup alone."""
    path = copied(full, tmp_path / "data")
    for name in ("log.sqlite", "log.sqlite-wal", "log.sqlite-shm"):
        (tmp_path / "data" / name).unlink(missing_ok=True)
    with pytest.raises(LogError, match="belongs to another log"):
        open_log(path)
    mended = mend_journal(path)
    assert mended is not None
    assert mended.rows == GROUPS
    assert held(path) == NAMES[2 * GROUPS :]


def test_a_sound_folder_is_left_alone(full: Path, tmp_path: Path) -> None:
    path = copied(full, tmp_path / "data")
    assert journal_damage(path) == ""
    assert mend_journal(path) is None
    assert held(path) == NAMES
    (path.with_suffix(".state")).unlink()
    assert held(path) == NAMES


@settings(max_examples=40, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), keep_state=st.booleans())
def test_damage_of_what_the_tables_hold_harms_nobody_and_other_damage_takes_one_group(
    place: float, bit: int, keep_state: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.getbasetemp() / "moved"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    path = data / "log.sqlite"
    with closing(SqliteLog(path)) as log:
        store(log, "a", "b", "c")
        log.drain()
        moved = log._journal.position[1]
        store(log, "d", "e", "f", "g")
        end = log._journal.position[1]
    byte = int(place * end)
    flip(path.with_suffix(".journal"), byte, bit)
    last_group = byte >= end - (end - moved) // 4
    if not keep_state:
        path.with_suffix(".state").unlink()
        if last_group:
            return  # nothing tells it from one that was not written whole
    if byte >= moved:
        with pytest.raises(LogError, match=r"log\.journal: damaged at byte"):
            open_log(path)
        mended = mend_journal(path)
        assert mended is not None
        assert (mended.groups, mended.rows) == (3, 3)
    lost = "" if byte < moved else "defg"[(byte - moved) * 4 // (end - moved)]
    assert held(path) == [name for name in "abcdefg" if name != lost]
    assert mend_journal(path) is None
    with open_log(path) as log:
        log.append([decision("after")])
    assert held(path)[-1] == "after"


def test_nobody_stores_into_a_journal_that_somebody_found_damaged(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path)) as writer, closing(SqliteLog(path)) as follower:
        store(writer, "a", "b", "c")
        flip(path.with_suffix(".journal"), 40)
        with pytest.raises(LogError, match="damaged"):
            follower.drain()
        for _ in range(2):
            with pytest.raises(LogError, match="nothing more is stored"):
                store(writer, "d")
        for asked in (writer.probe, writer.check):
            with pytest.raises(LogError, match="damaged"):
                asked()
        mended = mend_journal(path)
        assert mended is not None
        assert mended.groups == 2
        with pytest.raises(LogError):
            store(writer, "d")  # its file is not the one that lies there now
    assert held(path) == ["b", "c"]


def test_killed_while_mending_it_begins_anew(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(full, tmp_path / "data")
    flip(path.with_suffix(".journal"), 100)
    for died_in in ("_rewrite", "reset_state"):
        with monkeypatch.context() as patched:
            patched.setattr(f"topbill.log.mending.{died_in}", _dies)
            with pytest.raises(KeyboardInterrupt):
                mend_journal(path)
    assert mend_journal(path) is not None or journal_damage(path) == ""
    assert held(path) == [name for name in NAMES if name != "waiting-0"]


def _dies(*_: object) -> None:
    raise KeyboardInterrupt


def test_every_damaged_row_is_named(tmp_path: Path) -> None:
    """Whatever changed of it: what it is called, when it came, or what it says."""
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path)) as log:
        store(log, "a", "b")
        log.append(
            [],
            [RewardEvent(decision_id="a", event_id="e", event="play")],
            [UnitEvent(unit="u", unit_type="profile_id", event_id="e", event="back")],
        )
        log.drain()
    assert log_damage(path) == []
    changes = {
        "decisions": "body = replace(body, 'close-up', 'close-uq')",
        "reward_events": "at = at + 1",
        "unit_events": "unit = 'v'",
    }
    for table, change in changes.items():
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute(f"UPDATE {table} SET {change} WHERE seq = 1")  # noqa: S608
        found = log_damage(path)
        assert f"{path}: damaged: row 1 of {table} is not what was stored" in found
    assert len(found) == 3


def test_rows_of_an_earlier_version_have_no_checksum_and_stay_readable(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path)) as log:
        store(log, "a")
        log.drain()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("ALTER TABLE decisions DROP COLUMN checksum")
    assert held(path) == ["a"]
    with closing(SqliteLog(path)) as log:
        store(log, "b")
        log.drain()
    assert held(path) == ["a", "b"]
    assert log_damage(path) == []


def test_a_flipped_bit_of_the_tables_changes_nothing_or_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path)) as log:
        store(log, *(f"d{n}" for n in range(300)))
        log.tend(thorough=True)
        whole = log.read_decisions(0, 1_000)
    content = path.read_bytes()
    chance = random.Random(2)
    named = 0
    for _ in range(120):
        changed = bytearray(content)
        changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        for name in ("log.sqlite-wal", "log.sqlite-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        path.write_bytes(changed)
        try:
            damage = log_damage(path)
            with open_log(path) as log:
                read = log.read_decisions(0, 1_000)
        except LogError:
            damage, read = ["named at use"], []
        named += bool(damage)
        assert damage or read == whole
    assert named > 30  # the rest hits free pages and the file's unused bytes


def test_a_whole_frame_of_rows_that_nobody_here_knows_is_refused_by_name(tmp_path: Path) -> None:
    """A newer version's, say: its rows have a part more."""
    log = SqliteLog(tmp_path / "log.sqlite")
    generation, end = log._journal.position
    for payload in (b"\x95\x90\x90\x90\x90\x90", b"\x92\x91\x93\xa1\xff\xa1e\xc4\x00\x90", b"\xc1"):
        content = frames.pack(generation, end, 1_790_000_000_000_000, payload)
        frame = frames.Frame(len(content), generation, 1, payload)
        with pytest.raises(LogError, match="a newer Topbill"):
            _ = frame.rows
    (tmp_path / "log.journal").write_bytes(content)
    log.close()
    with pytest.raises(LogError, match="a newer Topbill"), closing(open_log(log.path)) as again:
        again.read_decisions(0, 10)
