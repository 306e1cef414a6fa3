"""A unit, and what is older than is kept, are taken out of a log in PostgreSQL as they are out of
the one in a data folder.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import psycopg
import pytest
from tests.unit.worker import test_erasure, test_retention

from topbill.domain.errors import AlreadyDecided, Conflict
from topbill.domain.profile import ProfileChange
from topbill.domain.records import Decision
from topbill.log import Entry, Log
from topbill.log.bundles import LEAST, decisions_of
from topbill.log.erasing import find_in_log, units_in_log
from topbill.log.tombstones import TOMBSTONES, read_tombstones
from topbill.worker.erasure import erase_again, erase_unit, find_unit, unit_data
from topbill.worker.retention import find_aged

VIEWER, MARK = test_erasure.VIEWER, test_erasure.MARK


def holders(url: str) -> list[str]:
    """The tables in which the viewer stands, in whatever bytes."""
    found = []
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(f"SELECT t.* FROM {table} t".encode()).fetchall()  # noqa: S608
            if any(MARK in _text(table, value) for row in rows for value in row):
                found.append(table)
    return sorted(found)


def _text(table: str, value: object) -> str:
    if not isinstance(value, bytes):
        return str(value)
    # A bundle is packed.
    return str(decisions_of(value)) if table == "bundles" else value.decode(errors="replace")


def page_of(unit: str) -> list[Decision]:
    """Decisions that are stored as a bundle, the last one of an experiment on accounts."""
    many = LEAST // 8
    actions = msgspec.Raw(msgspec.json.encode([{"id": f"a{i}"} for i in range(many)]))
    return [
        Decision(
            decision_id=f"p{i}",
            experiment=experiment,
            revision="r1",
            variant="ours",
            unit=unit,
            policy="linucb",
            reason="policy",
            actions=actions,
            eligible=tuple(f"a{i}" for i in range(many)),
        )
        for i, experiment in enumerate(["art", "art", "of accounts"])
    ]


def test_nothing_of_an_erased_unit_is_left_in_the_tables(
    url: str, log: Log, tmp_path: Path
) -> None:
    world = test_erasure.World(tmp_path, url)
    log.commit([Entry(page_of(VIEWER))])
    log.change_profile(VIEWER, "profile_id", ProfileChange(kids=True))
    log.merge_profile(VIEWER, "profile_id", f"guest {MARK}", [])
    assert holders(url) == [
        *("bundles", "decision_rows", "merges", "profiles", "quarantine", "stubs", "unit_events")
    ]
    assert VIEWER in units_in_log(url)
    before = find_unit(world.data, VIEWER)
    assert "p0" in before.decisions
    assert len(unit_data(world.data, VIEWER)["decisions"]) == len(before.decisions)
    world.erase()
    assert holders(url) == []
    assert find_in_log(url, VIEWER, None, []).decisions == {}
    assert log.quarantine("art") == []
    (line,) = log.erasures("art")
    decisions, rewards = before.by_experiment()["art"]
    assert line[2:5] == (log.version("art"), decisions, rewards)
    assert world.is_verified()
    with pytest.raises((AlreadyDecided, Conflict)):
        log.append(page_of(VIEWER)[:1])
    assert erase_again(world.data, read_tombstones(world.data / TOMBSTONES)) == 0


def test_nothing_is_left_of_what_was_let_go_either(url: str, log: Log, tmp_path: Path) -> None:
    """Of a decision that is no longer whole there is a stub, and its row until the hour is over."""
    world = test_erasure.World(tmp_path, url)
    log.commit([Entry(page_of(VIEWER))])
    assert log.forget(2**62, 2**62, 2**62) > 3
    assert log.first_seq() is None
    assert {"bundles", "stubs"} <= set(holders(url))
    found = find_unit(world.data, VIEWER)
    assert {"p0", "p1", "p2"} <= found.decisions.keys()
    assert VIEWER in units_in_log(url)
    world.erase()
    assert holders(url) == []
    assert find_unit(world.data, VIEWER).decisions == {}
    with pytest.raises(AlreadyDecided):
        log.append(page_of(VIEWER)[:1])


def test_what_is_spared_of_a_bundle_is_read_as_it_was(url: str, log: Log, tmp_path: Path) -> None:
    log.revise("of accounts", "r1", "us", '{"unit": "account_id"}')
    log.commit([Entry(page_of(VIEWER))])
    stored = log.decisions(["p0", "p1", "p2"])
    erase_unit(tmp_path, VIEWER, "profile_id")
    assert log.decisions(["p0", "p1", "p2"]) == {"p2": stored["p2"]}
    assert holders(url) == ["decision_rows", "stubs"], "and no bundle"


@pytest.mark.slow
def test_what_is_older_than_is_kept_goes(url: str, log: Log, tmp_path: Path) -> None:
    world = test_retention.World(tmp_path, url)
    aged = find_aged(world.data, test_retention.KEEP)
    assert aged.decisions > 0
    assert aged.quarantined == 1
    removed = world.retain()
    assert removed[2:] == aged[2:]
    assert log.quarantine() == []
    assert log.retention() == removed
    assert [line.by_age for line in log.erasures("art")] == [True]
    assert find_aged(world.data, test_retention.KEEP).decisions == 0
