"""Every view has each id once, whatever was appended to the tables."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.decision import decision_rows, reward_rows, unit_event_rows
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, Placement, RewardEvent, UnitEvent
from topbill.lake import DATABASE, Lake, distinct, sql
from topbill.lake.distinct import KEYS

NOW = 1_790_000_000_000_000


def decision(decision_id: str, experiment: str, number: int) -> Decision:
    return Decision(
        decision_id=decision_id,
        experiment=experiment,
        revision="r",
        variant="a",
        unit=f"u{number}",
        slate=(Placement(0, "x", 0.5),),
        policy="uniform",
        reason="policy",
        decided_at=NOW + number,
    )


def reward(decision_id: str, event_id: str, value: float) -> RewardEvent:
    return RewardEvent(
        decision_id=decision_id, event_id=event_id, event="play", value=value, received_at=NOW
    )


def back(unit: str, event_id: str, value: float) -> UnitEvent:
    return UnitEvent(
        unit=unit, unit_type="p", event_id=event_id, event="back", value=value, received_at=NOW
    )


IDS = st.sampled_from(["a", "b", "c", "d"])
BATCHES = st.lists(
    st.lists(st.tuples(IDS, st.sampled_from(["one", "two"])), min_size=1, max_size=5),
    min_size=1,
    max_size=3,
)


@settings(max_examples=6, deadline=None)
@given(BATCHES, st.booleans())
def test_each_id_is_there_once_and_it_is_the_first(
    batches: list[list[tuple[str, str]]], compacts: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, seq = Path(name), 0
        lake = Lake(folder)
        first: dict[str, int] = {}
        for batch in batches:
            decisions, rewards, events = [], [], []
            for row_id, experiment in batch:
                seq += 1
                first.setdefault(row_id, seq)
                made = decision(row_id, experiment, seq)
                decisions.append((seq, made))
                rewards.append((seq, reward(row_id, "e", seq), Origin.of(made)))
                events.append((seq, back(row_id, "e", seq)))
            lake.append("decisions", decision_rows(decisions), seq)
            lake.append("rewards", reward_rows(rewards), seq)
            lake.append("events", unit_event_rows(events), seq)
            told = {table: len(rows) for table, rows in lake.repeated().items()}
            lake.write_database([], NOW)
            if compacts:
                lake.compact()
            there = sql(folder / DATABASE, "SELECT decision_id, seq FROM decisions").to_pylist()
            assert len(there) == len(first)
            assert {row["decision_id"]: row["seq"] for row in there} == first
            for query in (
                "SELECT decision_id, value FROM rewards",
                "SELECT unit, value FROM events",
                "SELECT decision_id, unit[2:]::BIGINT AS value FROM placements",
            ):
                found = [tuple(row.values()) for row in sql(folder / DATABASE, query).to_pylist()]
                assert sorted(found) == sorted(first.items())
            repeats = len(batch) - sum(place > seq - len(batch) for place in first.values())
            assert told == (
                dict.fromkeys(("decisions", "rewards", "events"), repeats) if repeats else {}
            )
            # Whoever starts anew knows the same.
            lake = Lake(folder)
            assert lake.repeated() == {}


@pytest.mark.parametrize("is_known", [True, False])
def test_a_file_that_was_appended_twice_counts_once(tmp_path: Path, is_known: bool) -> None:
    lake = Lake(tmp_path)
    rows = decision_rows([(seq, decision(f"d{seq}", "one", seq)) for seq in range(1, 301)])
    lake.append("decisions", rows, 300)
    if is_known:
        lake.write_database([], NOW)
    # The very rows once more, by somebody who knows nothing of positions.
    write_deltalake(str(tmp_path / "lake" / "decisions"), rows, mode="append")
    lake.write_database([], NOW)
    query = "SELECT count(*) AS n, count(DISTINCT decision_id) AS ids FROM decisions"
    assert sql(tmp_path / DATABASE, query).to_pylist() == [{"n": 300, "ids": 300}]
    assert lake.position("decisions") == 300


@settings(max_examples=10, deadline=None)
@given(
    ids=st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=1, max_size=4),
    many=st.sampled_from([1, 1_000]),
)
def test_an_append_keeps_the_hashes_that_are_made_of_its_files(ids: list[str], many: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        # From so many rows on another library hashes them.
        patch.setattr(distinct, "_MANY", many)
        lake, folder = Lake(Path(name)), Path(name) / "lake" / "ids"
        made = [decision(row_id, f"e{seq % 2}", seq) for seq, row_id in enumerate(ids)]
        decisions = list(enumerate(made, 1))
        rewards = [(seq, reward(m.decision_id, m.unit, 1.0), Origin.of(m)) for seq, m in decisions]
        events = [(seq, back(row_id, row_id, 1.0)) for seq, row_id in enumerate(ids, 1)]
        lake.append("decisions", decision_rows(decisions), len(ids))
        lake.append("rewards", reward_rows(rewards), len(ids))
        lake.append("events", unit_event_rows(events), len(ids))
        kept = {path: path.read_bytes() for path in folder.rglob("*.ids")}
        assert len(kept) == sum(len(lake.files(table)) for table in KEYS)

        for path in kept:
            path.unlink()
        lake.repeated()
        assert {path: path.read_bytes() for path in folder.rglob("*.ids")} == kept


def test_hashes_that_are_damaged_are_made_anew(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("decisions", decision_rows([(1, decision("a", "one", 1))]), 1)
    lake.write_database([], NOW)
    (kept,) = (tmp_path / "lake" / "ids" / "decisions").iterdir()
    content = bytearray(kept.read_bytes())
    content[6] ^= 1
    kept.write_bytes(bytes(content))
    lake = Lake(tmp_path)
    lake.append("decisions", decision_rows([(2, decision("a", "two", 2))]), 2)
    assert [row.seq for row in lake.repeated()["decisions"]] == [2]


def test_the_hashes_of_several_files_are_kept_a_file_of_them_for_each(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    made = [(n, decision(f"é{n}", ("one", "two")[n % 2], n)) for n in range(1, 8)]
    lake.append("decisions", decision_rows(made), 7)
    assert lake.repeated() == {}
    kept = []
    for file in (tmp_path / "lake" / "ids" / "decisions").iterdir():
        hashes = np.frombuffer(file.read_bytes()[4:], np.uint64)
        assert list(hashes) == sorted(hashes)
        kept.append(set(map(int, hashes)))
    expected: dict[str, set[int]] = {"one": set(), "two": set()}
    for _, each in made:
        text = f"{len(each.decision_id)}|{each.decision_id}".encode()
        digest = hashlib.md5(text, usedforsecurity=False).digest()
        expected[each.experiment].add(int.from_bytes(digest[:8], "little"))
    assert sorted(map(sorted, kept)) == sorted(map(sorted, expected.values()))


def test_what_two_writers_have_in_common_is_there_once(tmp_path: Path) -> None:
    """One that lost its lease had read fewer rows of the same part of the log than the next one."""
    first, second = Lake(tmp_path), Lake(tmp_path)
    rows = [(seq, decision(f"d{seq}", "one", seq)) for seq in range(1, 9)]
    assert first.append("decisions", decision_rows(rows[:5]), 5)
    assert second.append("decisions", decision_rows(rows), 8)
    assert not first.append("decisions", decision_rows(rows[:7]), 7)
    assert second.repeated() == {}
    assert second.position("decisions") == 8
    second.write_database([], NOW)
    query = "SELECT seq FROM decisions ORDER BY seq"
    assert [row["seq"] for row in sql(tmp_path / DATABASE, query).to_pylist()] == [*range(1, 9)]


def test_rows_of_one_file_are_taken_out_at_once_however_far_they_are_apart(tmp_path: Path) -> None:
    """In PostgreSQL a `seq` is a time: rows of a second are a thousand million apart."""
    lake = Lake(tmp_path)
    rows = [(n << 30, decision(f"d{n}", ("one", "two")[n % 2], n)) for n in range(1, 41)]
    later = [(seq + (1 << 36), row) for seq, row in rows[:30]]
    lake.append("decisions", decision_rows(rows), rows[-1][0])
    lake.append("decisions", decision_rows(later), later[-1][0])
    before = lake.position("decisions"), len(commits(tmp_path))
    assert {name: len(found) for name, found in lake.repeated().items()} == {"decisions": 30}
    lake.write_database([], NOW)
    assert lake.repeated() == {}
    query = "SELECT seq FROM decisions ORDER BY seq"
    there = [row["seq"] for row in sql(tmp_path / DATABASE, query).to_pylist()]
    assert there == [seq for seq, _ in rows]
    # A commit for each experiment.
    assert (lake.position("decisions"), len(commits(tmp_path))) == (before[0], before[1] + 2)


def commits(folder: Path) -> list[Path]:
    return list((folder / "lake" / "decisions" / "_delta_log").glob("*.json"))
