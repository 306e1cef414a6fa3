"""What the log forgets is on the disk before; a file of the lake that is missing or cut is written
anew from the log, once, and one that is damaged is named.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from topbill.domain.errors import LogError
from topbill.domain.records import RewardEvent, UnitEvent
from topbill.lake import DATABASE, Lake, healing, sql
from topbill.log import Log, open_log
from topbill.testing import a_decision, an_experiment
from topbill.worker import archive
from topbill.worker.damage import damage, repair
from topbill.worker.publisher import Publisher

DAY = 86_400.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with open_log(tmp_path / "log.sqlite") as log:
        yield log


def store(log: Log, *numbers: int) -> None:
    for number in numbers:
        name = f"d{number}"
        event = RewardEvent(decision_id=name, event_id="e", event="play")
        back = UnitEvent(unit="u", unit_type="profile_id", event_id=name, event="back")
        log.append([a_decision(name, experiment=("home", "other")[number % 2])], [event], [back])


def publisher(folder: Path, log: Log, keep_log: float = DAY) -> Publisher:
    keys = ("home", "other")
    return Publisher(log, Lake(folder), lambda: [an_experiment(k) for k in keys], keep_log=keep_log)


def published(folder: Path) -> dict[str, list[str]]:
    """Every row of each table by its id, doubled ones twice."""
    queries = {
        "decisions": "SELECT decision_id AS id FROM lake.main.decisions",
        "rewards": "SELECT decision_id || experiment AS id FROM lake.main.rewards",
        "events": "SELECT event_id AS id FROM lake.main.events",
    }
    return {
        name: sorted(row["id"] for row in sql(folder / DATABASE, query).to_pylist())
        for name, query in queries.items()
    }


def files(folder: Path, table: str) -> list[Path]:
    return [Path(path) for path in Lake(folder).files(table)]


def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("table", ["decisions", "rewards", "events"])
@pytest.mark.parametrize("broken", [removed, emptied, cut])
def test_a_broken_file_is_written_anew_from_the_log(
    broken: Callable[[Path], None], table: str, tmp_path: Path, log: Log
) -> None:
    worker = publisher(tmp_path, log)
    for numbers in ((1, 2, 3), (4, 5), (6, 7, 8)):
        store(log, *numbers)
        worker.step()
    before = published(tmp_path)
    for path in files(tmp_path, table)[:2]:
        broken(path)
    publisher(tmp_path, log).step()
    assert published(tmp_path) == before
    publisher(tmp_path, log).step()
    store(log, 9)
    publisher(tmp_path, log).step()
    assert len(published(tmp_path)[table]) == 9


def test_killed_in_the_middle_it_heals_nothing_twice(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(log, 1, 2, 3)
    publisher(tmp_path, log).step()
    before = published(tmp_path)
    for path in files(tmp_path, "decisions"):
        path.unlink()
    for died_in in ("write_anew", "remove"):
        with monkeypatch.context() as patched:
            patched.setattr(healing, died_in, _dies)
            dying = publisher(tmp_path, log)
            with pytest.raises(KeyboardInterrupt):
                dying.step()
    publisher(tmp_path, log).step()
    assert published(tmp_path) == before


def _dies(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_file_whose_rows_the_log_has_let_go_of_is_named_and_nothing_changes(
    tmp_path: Path, log: Log
) -> None:
    store(log, 1, 2)
    publisher(tmp_path, log, keep_log=-1.0).step()
    assert log.read_decisions(0, 10) == []
    (lost, *_) = files(tmp_path, "decisions")
    lost.unlink()
    for _ in range(2):
        again = publisher(tmp_path, log)
        with pytest.raises(LogError, match=r"let go of 1 of its 1 rows; put it back"):
            again.step()
    assert str(lost) in [str(path) for path in files(tmp_path, "decisions")]


def test_nothing_is_forgotten_before_it_is_on_the_disk(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    really = os.fsync

    def noted(handle: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{handle}"))
        really(handle)

    monkeypatch.setattr(os, "fsync", noted)
    forgotten: list[set[str]] = []
    forget = log.forget

    def watched(*arguments: int) -> int:
        gone = forget(*arguments)
        if gone:
            forgotten.append(set(synced))
        return gone

    monkeypatch.setattr(log, "forget", watched)
    worker = publisher(tmp_path, log, keep_log=-1.0)
    for numbers in ((1, 2), (3,)):
        store(log, *numbers)
        worker.step()
    assert len(forgotten) == 2
    lake = tmp_path / "lake"
    needed = set()
    for path in lake.rglob("*"):
        # The hashes of ids are made anew where they are lost.
        if path.suffix != ".tmp" and lake / "ids" not in (path, *path.parents):
            needed.add(str(path.resolve()))
    assert needed <= forgotten[-1] | {str(lake.resolve())}


def test_every_flipped_bit_of_the_lake_is_named(tmp_path: Path, log: Log) -> None:
    worker = publisher(tmp_path, log)
    for number in range(4):
        store(log, 2 * number, 2 * number + 1)
        worker.step()
    lake = Lake(tmp_path)
    lake.seal()
    lake.compact()
    lake.seal()
    assert lake.damage() == []
    chance = random.Random(4)
    sealed = [
        path for path in (tmp_path / "lake").rglob("*") if path.suffix in (".parquet", ".json")
    ]
    assert len(sealed) > 20
    for path in [*sealed, *chance.choices(sealed, k=40)]:
        content = path.read_bytes()
        byte = chance.randrange(len(content))
        changed = bytearray(content)
        changed[byte] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        assert lake.damaged() == [str(path.resolve())]
        path.write_bytes(content)
    assert lake.damage() == []
    (gone, *_) = files(tmp_path, "rewards")
    gone.unlink()
    assert [str(gone) in sentence for sentence in lake.damage()] == [True]


def test_a_damaged_file_is_healed_where_it_is_said_to_be_damaged(tmp_path: Path, log: Log) -> None:
    store(log, 1, 2, 3)
    worker = publisher(tmp_path, log)
    worker.step()
    before = published(tmp_path)
    (path, *_) = files(tmp_path, "decisions")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)
    assert worker.heal([str(path)]) > 0
    worker.step()
    assert published(tmp_path) == before
    assert path.with_name(f"{path.name}.damaged").read_bytes() == content


def test_the_command_names_and_repairs(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log:
        store(log, 1, 2, 3)
        publisher(tmp_path, log).step()
        before = published(tmp_path)
    Lake(tmp_path).seal()
    assert damage(tmp_path) == []
    (path, *_) = files(tmp_path, "decisions")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    (sentence,) = damage(tmp_path)
    assert sentence.startswith(str(path))
    (done,) = repair(tmp_path)
    assert "written anew" in done
    assert damage(tmp_path) == []
    with open_log(tmp_path / "log.sqlite") as log:
        publisher(tmp_path, log).step()
    assert published(tmp_path) == before


def test_lines_that_a_killed_writer_left_do_no_harm(tmp_path: Path, log: Log) -> None:
    store(log, 1)
    publisher(tmp_path, log, keep_log=-1.0).step()
    seals = tmp_path / "lake" / "seals.jsonl"
    seals.write_bytes(seals.read_bytes() + b'{"path": "decis')
    store(log, 2)
    publisher(tmp_path, log, keep_log=-1.0).step()
    assert Lake(tmp_path).damage() == [f"{seals.resolve()}: damaged: 1 lines are no seals"]


def test_the_archive_asks_again_until_the_next_publication_knows_where_rows_lie(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(log, 0, 2)
    publishing = publisher(tmp_path, log)
    publishing.step()
    for file in files(tmp_path, "decisions"):
        file.unlink()
    read, span = archive.reader(tmp_path), archive.Span("home", 0, 9, 0, log.barrier())
    monkeypatch.setattr(archive.time, "sleep", lambda _: None)
    with pytest.raises(LogError, match=r"cannot be read: .*No files found.*run it again"):
        read(span, [])
    monkeypatch.setattr(archive.time, "sleep", lambda _: publisher(tmp_path, log).step())
    assert [row.decision.decision_id for row in read(span, [])] == ["d0", "d2"]
