"""Every registered log keeps what `topbill.log.Log` promises; and each law of this contract can be
broken: for each there is a log that breaks it, and is caught.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests import postgres_server

from topbill.domain.alarm import AlarmLine, AlarmMessage, AlarmState, AlarmWatch
from topbill.domain.chance import is_learned
from topbill.domain.errors import AlreadyDecided, Conflict, LogError, NotFound
from topbill.domain.profile import Merge, MergedProfile, ProfileChange, ProfileLimits
from topbill.domain.records import (
    Decision,
    Placement,
    QuarantinedRow,
    RewardEvent,
    Snapshot,
    SnapshotHead,
    UnitEvent,
)
from topbill.log import SCHEMES, Clock, Entry, Heartbeat, Log, Matured, Receipt, open_log
from topbill.log.memory import MemoryLog
from topbill.log.protocol import ConclusionLine, Duty, Ends, Lease, Named, Order
from topbill.spec import Conclusion

from ...processes import python

FRESH: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite://{folder}/data/log.sqlite",
    "memory": lambda folder: f"memory:{folder.name}-{uuid4()}",
    "postgresql": lambda _: postgres_server.fresh_url(),
}
"""A URL of a new log for each scheme."""


class World:
    """Handles on one log, and the clock that they share."""

    def __init__(self, opener: Callable[[Clock], Log]) -> None:
        self.now = 1_000_000
        self._opener = opener
        self._handles: list[Log] = []

    def log(self) -> Log:
        """A new handle."""
        log = self._opener(lambda: self.now)
        self._handles.append(log)
        return log

    def close(self) -> None:
        for log in self._handles:
            log.close()
        self._handles = []


Law = Callable[[World], None]
LAWS: dict[str, Law] = {}


def law(check: Law) -> Law:
    """Part of the contract."""
    LAWS[check.__name__] = check
    return check


def decision(
    decision_id: str, experiment: str = "home", request_hash: str = "h", variant: str = "a"
) -> Decision:
    return Decision(
        decision_id=decision_id,
        experiment=experiment,
        revision="r1",
        variant=variant,
        unit="u",
        context=msgspec.Raw(b'{"hour":3}'),
        slate=(Placement(0, "close-up", 0.25),),
        policy="uniform",
        reason="policy",
        request_hash=request_hash,
    )


def event(decision_id: str, event_id: str, value: float = 1.0) -> RewardEvent:
    return RewardEvent(decision_id=decision_id, event_id=event_id, event="play", value=value)


def of_unit(
    event_id: str, unit: str = "7", unit_type: str = "profile_id", value: float = 1.0
) -> UnitEvent:
    return UnitEvent(
        unit=unit, unit_type=unit_type, event_id=event_id, event="session_start", value=value
    )


def snapshot(version: int, experiment: str = "home", states: bytes = b"\x00s") -> Snapshot:
    return Snapshot(
        experiment=experiment,
        version=version,
        watermark=version * 10,
        fingerprint="f",
        states={"a": states},
        start=3,
        refit_at=7,
    )


def ids(rows: Sequence[tuple[int, Decision]]) -> list[str]:
    return [row.decision_id for _, row in rows]


def event_ids(rows: Sequence[tuple[int, RewardEvent]]) -> list[tuple[str, str]]:
    return [(row.decision_id, row.event_id) for _, row in rows]


def stamp(row: Decision | RewardEvent) -> int:
    return row.decided_at if isinstance(row, Decision) else row.received_at


# ---------------------------------------------------------------------- intake


@law
def what_was_committed_is_read_back_equal(world: World) -> None:
    one, other = world.log(), world.log()
    receipts = one.commit(
        [Entry([decision("d1")], [event("d1", "e1", 0.5)]), Entry([decision("d2")])]
    )
    assert [(dict(r.stored), r.duplicates, r.conflict) for r in receipts] == [
        ({}, (False,), None),
        ({}, (), None),
    ]
    for log in (one, other):
        stored = log.decision("d1")
        assert stored is not None
        assert stored.slate == (Placement(0, "close-up", 0.25),)
        assert stored.context == msgspec.Raw(b'{"hour":3}')
        assert stamp(stored) == world.now
        assert [(e.event_id, e.value, stamp(e)) for e in log.events("d1")] == [
            ("e1", 0.5, world.now)
        ]
        assert ids(log.read_decisions(0, 9)) == ["d1", "d2"]
        assert event_ids(log.read_events(0, 9)) == [("d1", "e1")]


@law
def a_look_up_gives_what_is_there_and_leaves_out_the_rest(world: World) -> None:
    log = world.log()
    log.append([decision(f"d{i}") for i in range(600)])
    log.tend(thorough=True)
    log.append([decision("waiting")])
    wanted = [f"d{i}" for i in range(0, 600, 2)] + ["waiting", "unknown"]
    found = log.decisions(wanted)
    assert sorted(found) == sorted(wanted[:-1])
    assert all(found[name].decision_id == name for name in found)
    assert log.decision("unknown") is None
    assert log.events("unknown") == []
    assert log.decisions([]) == {}


@law
def the_same_id_again_returns_the_first_and_stores_nothing(world: World) -> None:
    one, other = world.log(), world.log()
    one.append([decision("d1", variant="first")])
    assert other.append([decision("d1", variant="second")]).stored["d1"].variant == "first"
    one.tend()
    assert other.append([decision("d1", variant="third")]).stored["d1"].variant == "first"
    assert [d.variant for _, d in one.read_decisions(0, 9)] == ["first"]


@law
def another_request_under_a_used_id_is_a_conflict_and_its_entry_is_not_stored(
    world: World,
) -> None:
    log = world.log()
    log.append([decision("d1", request_hash="one")])
    with pytest.raises(Conflict, match="d1"):
        log.append([decision("d0"), decision("d1", request_hash="two")], [event("d1", "e1")])
    keyed = frozenset({"d1"})
    receipts = log.commit(
        [
            Entry([decision("before")]),
            Entry([decision("d1", request_hash="two")], [event("d1", "e2")], keyed),
            Entry([decision("after")]),
        ]
    )
    assert [receipt.conflict for receipt in receipts] == [None, "d1", None]
    assert ids(log.read_decisions(0, 9)) == ["d1", "before", "after"]
    assert log.events("d1") == []


@law
def entries_of_a_group_take_effect_in_their_order(world: World) -> None:
    log = world.log()
    keyed = frozenset({"d"})
    receipts = log.commit(
        [Entry([decision("d", variant=v)], keyed_decisions=keyed) for v in ("first", "second")]
    )
    assert receipts[0].stored == {}
    assert receipts[1].stored["d"].variant == "first"
    assert [d.variant for _, d in log.read_decisions(0, 9)] == ["first"]


@law
def of_a_whole_entry_nothing_is_stored_where_its_key_was_before(world: World) -> None:
    """Within one group and in a later one: a page that lost the race leaves none of its rows."""
    log = world.log()
    keyed = frozenset({"page"})
    first, second, third = (
        Entry([decision("page"), decision(row)], keyed_decisions=keyed, whole=True)
        for row in ("a", "b", "c")
    )
    receipts = [*log.commit([first, second]), *log.commit([third])]
    assert [list(receipt.stored) for receipt in receipts] == [[], ["page"], ["page"]]
    assert ids(log.read_decisions(0, 9)) == ["page", "a"]


@law
def an_event_is_a_duplicate_only_under_the_same_decision(world: World) -> None:
    log = world.log()
    log.append([decision("d1"), decision("d2")], [event("d1", "e"), event("d2", "e")])
    receipt = log.append([], [event("d1", "e", 9.0), event("d1", "f"), event("d1", "f", 8.0)])
    assert receipt.duplicates == (True, False, True)
    assert [(e.event_id, e.value) for e in log.events("d1")] == [("e", 1.0), ("f", 1.0)]
    log.tend()
    assert log.append([], [event("d2", "e")]).duplicates == (True,)


@law
def an_event_of_a_unit_is_a_duplicate_only_under_the_same_unit_of_its_type(world: World) -> None:
    one, other = world.log(), world.log()
    world.now = 5_000_000
    first = one.append(
        [decision("d1")],
        [event("d1", "e")],
        [of_unit("e"), of_unit("e", "8"), of_unit("e", unit_type="account_id"), of_unit("e")],
    )
    assert first.duplicates == (False,)
    assert first.unit_duplicates == (False, False, False, True)
    assert other.append([], [], [of_unit("e", value=9.0)]).unit_duplicates == (True,)
    one.tend()
    again = other.append([], [], [of_unit("f"), of_unit("e", "8")])
    assert again.unit_duplicates == (False, True)
    read = one.read_unit_events(0, 9)
    assert [(e.unit_type, e.unit, e.event_id) for _, e in read] == [
        ("profile_id", "7", "e"),
        ("profile_id", "8", "e"),
        ("account_id", "7", "e"),
        ("profile_id", "7", "f"),
    ]
    assert [(e.value, e.received_at) for _, e in read] == [(1.0, 5_000_000)] * 4


# ---------------------------------------------------------------------- feed


@law
def events_of_units_are_read_and_forgotten_in_their_order(world: World) -> None:
    log = world.log()
    for i, now in enumerate([3_000_000, 2_000_000, 4_000_000]):
        world.now = now
        log.append([], [], [of_unit(f"e{i}"), of_unit(f"f{i}")])
    rows = log.read_unit_events(0, 4)
    assert [e.event_id for _, e in rows] == ["e0", "f0", "e1", "f1"]
    assert rows[0][1].received_at == rows[1][1].received_at == 3_000_000
    assert rows[2][1].received_at == rows[3][1].received_at
    assert 3_000_000 <= rows[2][1].received_at < 3_010_000
    assert [e.event_id for _, e in log.read_unit_events(rows[-1][0], 9)] == ["e2", "f2"]
    seqs = [seq for seq, _ in log.read_unit_events(0, 9)]
    assert seqs == sorted(set(seqs))
    assert log.forget_unit_events(seqs[-1], older_than=3_000_000) == 0
    assert log.forget_unit_events(0, older_than=9_000_000) == 0
    assert log.forget_unit_events(seqs[-1], older_than=4_000_000, limit=3) == 3
    assert log.forget_unit_events(seqs[-1], older_than=4_000_000) == 1
    assert [e.event_id for _, e in log.read_unit_events(0, 9)] == ["e2", "f2"]
    assert log.append([], [], [of_unit("e0"), of_unit("e2")]).unit_duplicates == (False, True)
    assert log.read_unit_events(0, 9)[-1][0] > seqs[-1]
    barrier = log.barrier()
    world.now = 10_000
    log.append([], [], [of_unit("late")])
    assert log.read_unit_events(0, 9)[-1][1].received_at > barrier


@law
def a_reader_who_remembers_the_last_seq_meets_every_row_once_and_in_order(world: World) -> None:
    log = world.log()
    names = [f"d{i:04d}" for i in range(1_000)]
    log.append([decision(name) for name in names[:700]], [event(n, "e") for n in names[:700]])
    for name in names[700:]:
        log.commit([Entry([decision(name)], [event(name, "e")])])
    for read, expected in (
        (log.read_decisions, names),
        (log.read_events, [(name, "e") for name in names]),
    ):
        after, met, seqs = 0, [], []
        while rows := read(after, 77):
            assert len(rows) <= 77
            assert rows[0][0] > after
            met += ids(rows) if read == log.read_decisions else event_ids(rows)  # type: ignore[arg-type]
            seqs += [row[0] for row in rows]
            after = seqs[-1]
        assert met == expected
        assert seqs == sorted(set(seqs))


@law
def stamps_never_fall_even_when_the_clock_does(world: World) -> None:
    one, other = world.log(), world.log()
    for i, now in enumerate([1_000_000, 3_000_000, 2_000_000, 500]):
        world.now = now
        (one if i % 2 else other).append([decision(f"d{i}")], [event(f"d{i}", "e")])
    decisions, events = one.read_decisions(0, 9), one.read_events(0, 9)
    assert ids(decisions) == ["d0", "d1", "d2", "d3"]
    stamps = [stamp(d) for _, d in decisions]
    assert stamps == [stamp(e) for _, e in events] == sorted(stamps)
    assert stamps[:2] == [1_000_000, 3_000_000]
    assert stamps[3] < 3_010_000, "what the clock says no more is as little later as may be"


@law
def what_is_there_at_a_barrier_ends_before_what_comes_later(world: World) -> None:
    one, other = world.log(), world.log()
    assert all_within(one) == ([], [], [])
    one.append([decision("a"), decision("b")], [event("a", "1")], [of_unit("1")])
    world.now = 6_000_000
    one.barrier()
    ends = one.ends()
    there = (["a", "b"], ["1"], ["1"])
    assert all_within(one) == there
    world.now = 7_000_000
    other.append([decision("c")], [event("c", "2")], [of_unit("2")])
    assert all_within(one, ends) == there, "whatever comes meanwhile"
    one.barrier()
    assert all_within(one) == (["a", "b", "c"], ["1", "2"], ["1", "2"])
    assert all(last >= first for first, last in zip(ends, one.ends(), strict=True))


@law
def who_does_not_hurry_reads_all_up_to_the_last_barrier(world: World) -> None:
    one, other = world.log(), world.log()
    world.now = 5_000_000
    one.append([decision("a")], [event("a", "1")], [of_unit("1")])
    world.now = 6_000_000
    barrier = other.barrier()
    world.now = 7_000_000
    one.append([decision("b")])
    with one.unhurried():
        own = one.barrier()
        assert barrier <= own <= 7_000_000
        assert ids(one.read_decisions(0, 9))[:1] == ["a"]
        assert [row.event_id for _, row in one.read_events(0, 9)] == ["1"]
        assert [row.event_id for _, row in one.read_unit_events(0, 9)] == ["1"]
        assert [row.decision_id for row in one.named("home", 0, own, 9)][:1] == ["a"]
    assert ids(one.read_decisions(0, 9)) == ["a", "b"], "all, once it is over"


def all_within(log: Log, ends: Ends | None = None) -> tuple[list[str], list[str], list[str]]:
    """The ids of a log's decisions, events and events of units up to its ends."""
    decisions, events, unit_events = log.ends() if ends is None else ends
    return (
        [row.decision_id for seq, row in log.read_decisions(0, 99) if seq <= decisions],
        [row.event_id for seq, row in log.read_events(0, 99) if seq <= events],
        [row.event_id for seq, row in log.read_unit_events(0, 99) if seq <= unit_events],
    )


@law
def after_a_barrier_nothing_is_added_at_or_before_it(world: World) -> None:
    one, other = world.log(), world.log()
    world.now = 5_000_000
    one.append([decision("early")])
    world.now = 6_000_000
    barrier = one.barrier()
    assert 5_000_000 <= barrier <= 6_000_000, "what is older than now can be read"
    assert ids(one.read_decisions(0, 9)) == ["early"]
    world.now = 4_000_000
    other.append([decision("late")], [event("early", "late")])
    assert stamp(other.read_decisions(0, 9)[-1][1]) > barrier
    assert stamp(other.read_events(0, 9)[-1][1]) > barrier


@law
def of_a_share_matured_gives_the_decisions_that_it_draws(world: World) -> None:
    log = world.log()
    ids = [f"d{i}" for i in range(40)]
    world.now = 1_000_000
    log.append([decision(i) for i in ids], [event(i, "e") for i in ids])
    world.now = 2_000_000
    log.append([decision("young")])
    barrier = log.barrier()
    rows, after = list[Matured](), 0
    while more := log.matured("home", after, 900_000, barrier, 7, share=0.25):
        rows += more
        after = more[-1].seq
    drawn = [row.decision.decision_id for row in rows]
    assert drawn == [i for i in ids if is_learned(i, 0.25)]
    assert 4 <= len(drawn) <= 18
    assert all([e.decision_id for e in row.events] == [row.decision.decision_id] for row in rows)
    everything = log.matured("home", 0, 900_000, barrier, 100)
    assert log.last_matured("home", 0, 900_000, barrier) == everything[-1].seq
    assert log.last_matured("home", everything[-1].seq, 900_000, barrier) is None
    assert log.last_matured("elsewhere", 0, 0, barrier) is None


@law
def matured_gives_each_decision_the_events_that_had_come_at_that_age(world: World) -> None:
    log = world.log()
    world.now = 1_000_000
    log.append([decision("old"), decision("other", "elsewhere")], [event("other", "e")])
    world.now = 1_500_000
    log.append([decision("young")], [event("old", "in-time")])
    world.now = 2_000_000
    log.append([], [event("old", "at-the-last-moment")])
    world.now = 2_001_000
    log.append([], [event("old", "too-late")])

    def plain(rows: list[Matured]) -> list[tuple[str, list[str]]]:
        return [(row.decision.decision_id, [e.event_id for e in row.events]) for row in rows]

    first = log.matured("home", 0, age=1_000_000, barrier=2_499_000, limit=10)
    assert plain(first) == [("old", ["in-time", "at-the-last-moment"])]
    world.now = 9_000_000
    log.append([], [event("old", "much-too-late"), event("young", "too-late")])
    again = log.matured("home", 0, age=1_000_000, barrier=2_500_000, limit=10)
    assert again[:1] == first
    assert plain(again[1:]) == [("young", [])]
    assert (
        log.matured("home", first[0].seq, age=1_000_000, barrier=2_500_000, limit=10) == again[1:]
    )
    assert log.matured("home", 0, age=1_000_000, barrier=2_500_000, limit=1) == first
    assert log.matured("home", 0, age=1_000_000, barrier=1_999_000, limit=10) == []


@law
def decisions_are_named_in_order_as_they_mature_at_once(world: World) -> None:
    log = world.log()
    for number in range(5):
        world.now = 1_000_000 + 1_000 * number
        log.append([decision(f"d{number}"), decision(f"e{number}", "elsewhere")], [])
    world.now = 2_000_000
    barrier = log.barrier()
    last = log.matured("home", 0, 0, barrier, limit=2)[-1].seq
    for after, limit, until in [(0, 9, barrier), (0, 3, barrier), (last, 2, barrier)]:
        matured = log.matured("home", after, 0, until, limit)
        expected = [(seq, d.decision_id, d.decided_at) for seq, d, *_ in matured]
        assert len(expected) == min(limit, 5 if after == 0 else 3)
        assert log.named("home", after, until, limit) == expected
    assert [each.decision_id for each in log.named("home", 0, 1_001_999, 9)] == ["d0", "d1"]


@law
def forgetting_takes_only_what_is_old_and_safe_elsewhere_with_its_events(world: World) -> None:
    log = world.log()
    world.now = 1_000_000
    log.append(
        [decision("a"), decision("b"), decision("c", "elsewhere")],
        [event("a", "e"), event("b", "e")],
    )
    seqs = [seq for seq, _ in log.read_decisions(0, 9)]
    first_event = log.read_events(0, 9)[0][0]
    assert log.forget(seqs[2], first_event, older_than=1_000_000) == 0
    assert log.forget(0, first_event, older_than=1_001_000) == 0
    assert log.forget(seqs[2], first_event, older_than=1_001_000, limit=2) == 1
    assert log.first_seq() == seqs[1]
    assert log.next_seq("elsewhere", 0) == seqs[2]
    assert log.next_seq("elsewhere", seqs[2]) is None
    assert ids(log.read_decisions(0, 9)) == ["b", "c"]
    assert event_ids(log.read_events(0, 9)) == [("b", "e")]
    assert log.decision("a") is None
    assert log.events("a") == []


@law
def what_was_let_go_is_remembered_and_is_not_stored_again(world: World) -> None:
    one, other = world.log(), world.log()
    world.now = 1_000_000
    one.append([decision("a"), decision("b")], [event("a", "e")])
    other.append([], [event("a", "f")])
    seqs = [seq for seq, _ in one.read_decisions(0, 9)]
    assert one.places(["a", "b"]) == {}
    assert one.forget(seqs[0], 2**62, older_than=1_001_000) == 1
    for log in (one, other):
        assert log.places(["a", "b", "c"]) == {"a": seqs[0]}
        with pytest.raises(AlreadyDecided, match="a"):
            log.append([decision("new"), decision("a")])
        with pytest.raises(AlreadyDecided, match="a"):
            log.append([decision("a", request_hash="other")])
        again = log.append([], [event("a", "e"), event("b", "e"), event("a", "f")])
        assert again.duplicates == (True, log is other, True)
    assert ids(other.read_decisions(0, 9)) == ["b"]
    assert event_ids(other.read_events(0, 9)) == [("b", "e")]


@law
def an_event_that_came_after_its_decision_was_let_go_is_let_go_and_remembered_too(
    world: World,
) -> None:
    log = world.log()
    world.now = 1_000_000
    log.append([decision("a"), decision("b")], [event("a", "e")])
    first = log.read_decisions(0, 1)[0][0]
    assert log.forget(first, 2**62, older_than=1_001_000) == 1
    world.now = 2_000_000
    assert log.append([], [event("a", "late"), event("b", "own")]).duplicates == (False, False)
    late = log.read_events(0, 1)[0][0]
    assert log.forget(first, 2**62, older_than=2_000_000) == 0
    assert event_ids(log.read_events(0, 9)) == [("a", "late"), ("b", "own")]
    assert log.forget(first, late - 1, older_than=2_001_000) == 0
    assert event_ids(log.read_events(0, 9)) == [("a", "late"), ("b", "own")]
    assert log.forget(first, 2**62, older_than=2_001_000) == 0
    assert event_ids(log.read_events(0, 9)) == [("b", "own")]
    assert log.append([], [event("a", "late"), event("b", "own")]).duplicates == (True, True)


@law
def ids_are_remembered_until_they_are_old_and_new_afterwards(world: World) -> None:
    one, other = world.log(), world.log()
    for i in range(3):
        world.now = 1_000_000 * (i + 1)
        one.append([decision(f"d{i}")], [event(f"d{i}", "e")])
    assert one.forget(2**62, 2**62, older_than=9_000_000) == 3
    assert other.append([], [event("d0", "e")]).duplicates == (True,)
    assert one.forget_ids(older_than=1_000_000) == 0
    assert one.forget_ids(older_than=9_000_000, limit=1) == 1
    assert sorted(one.places(["d0", "d1", "d2"])) == ["d1", "d2"]
    # All three were let go at once, decisions first: events are kept as long, or a little longer.
    assert one.forget_ids(older_than=3_000_000) == 1
    assert other.append([decision("d0"), decision("d1")]).stored == {}
    with pytest.raises(AlreadyDecided):
        other.append([decision("d2")])
    assert other.append([], [event("d0", "e")]).duplicates == (True,)
    assert one.forget_ids(older_than=9_000_000) == 4
    assert one.append([], [event("d0", "e")]).duplicates == (False,)


@law
def a_seq_is_never_given_twice(world: World) -> None:
    log = world.log()
    world.now = 1_000_000
    assert log.first_seq() is None
    log.append([decision("a"), decision("b")], [event("a", "e")])
    last, last_event = log.read_decisions(0, 9)[-1][0], log.read_events(0, 9)[-1][0]
    assert log.forget(last, last_event, older_than=2_000_000) == 2
    assert log.first_seq() is None
    log.append([decision("c")], [event("c", "e")])
    assert [seq > last for seq, _ in log.read_decisions(0, 9)] == [True]
    assert [seq > last_event for seq, _ in log.read_events(0, 9)] == [True]


@law
def what_was_acknowledged_is_there_when_the_log_is_opened_again(world: World) -> None:
    log = world.log()
    log.append([decision("d1")], [event("d1", "e1")], [of_unit("u1")])
    log.tend()
    log.append([decision("d2")], [], [of_unit("u2")])
    log.write_snapshot(snapshot(1))
    log.revise("home", "r1", "pm", "{}")
    world.close()
    log = world.log()
    assert ids(log.read_decisions(0, 9)) == ["d1", "d2"]
    assert event_ids(log.read_events(0, 9)) == [("d1", "e1")]
    assert [e.event_id for _, e in log.read_unit_events(0, 9)] == ["u1", "u2"]
    assert log.append([], [], [of_unit("u1"), of_unit("u2")]).unit_duplicates == (True, True)
    assert log.append([decision("d2", variant="again")]).stored["d2"].variant == "a"
    assert log.version("home") == 1
    assert len(log.revisions()) == 1


@law
def upkeep_changes_nothing_that_can_be_read(world: World) -> None:
    log = world.log()
    log.append([decision("d1")], [event("d1", "e1")])
    before = (log.read_decisions(0, 9), log.read_events(0, 9), log.versions(), log.revisions())
    log.probe()
    log.tend()
    log.tend(thorough=True)
    log.check()
    after = (log.read_decisions(0, 9), log.read_events(0, 9), log.versions(), log.revisions())
    assert after == before


@law
def writers_at_once_store_every_row_once_and_a_reader_skips_none(world: World) -> None:
    handles = {name: world.log() for name in "xyz"}
    reader = world.log()
    ticks = itertools.count(1_000)
    clock_lock = threading.Lock()
    failures: list[BaseException] = []

    def writes(name: str, log: Log) -> None:
        try:
            for i in range(60):
                with clock_lock:
                    world.now = next(ticks)
                log.commit([Entry([decision(f"{name}-{i}-{k}") for k in range(3)])])
                log.append([decision(f"shared-{i}", variant=name)])
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=writes, args=item) for item in handles.items()]
    for writer in writers:
        writer.start()
    met: list[tuple[int, Decision]] = []
    writing = True
    while writing:
        # Asked first: what is written after the last look is read by the one after it.
        writing = any(writer.is_alive() for writer in writers)
        barrier = reader.barrier()
        at_barrier = reader.read_decisions(0, 10_000)
        after = met[-1][0] if met else 0
        while rows := reader.read_decisions(after, 50):
            seqs = [seq for seq, _ in rows]
            assert seqs == sorted(seqs)
            assert seqs[0] > after
            met += rows
            after = seqs[-1]
        later = [row for _, row in met if row.decision_id not in set(ids(at_barrier))]
        assert all(stamp(row) > barrier for row in later)
    for writer in writers:
        writer.join()
    assert failures == []
    expected = [f"{name}-{i}-{k}" for name in "xyz" for i in range(60) for k in range(3)]
    expected += [f"shared-{i}" for i in range(60)]
    assert sorted(ids(met)) == sorted(expected)
    assert met == reader.read_decisions(0, 10_000)
    stamps = [stamp(row) for _, row in met]
    assert stamps == sorted(stamps)


# ---------------------------------------------------------------------- snapshots and audit


@law
def a_snapshot_must_succeed_the_newest(world: World) -> None:
    one, other = world.log(), world.log()
    world.now = 77
    one.write_snapshot(snapshot(1))
    other.write_snapshot(snapshot(2, states=b"second"))
    for late in (2, 1, 4):
        with pytest.raises(Conflict, match="another worker"):
            one.write_snapshot(snapshot(late, states=b"overtaken"))
    newest = one.snapshot("home")
    assert newest is not None
    assert newest == msgspec.structs.replace(snapshot(2, states=b"second"), at=77)
    first = one.snapshot("home", 1)
    assert first is not None
    assert (first.watermark, first.start, first.refit_at) == (10, 3, 7)
    assert one.snapshot("home", 3) is None
    assert one.snapshot("elsewhere") is None
    one.write_snapshot(snapshot(1, "second"))
    assert one.versions() == {"home": 2, "second": 1}
    assert (one.version("home"), one.version("elsewhere")) == (2, 0)


@law
def of_learners_that_write_one_version_at_once_a_single_one_succeeds(world: World) -> None:
    handles = [world.log() for _ in range(4)]
    start = threading.Barrier(len(handles))
    outcomes: list[str] = []

    def write(log: Log, name: bytes, version: int) -> None:
        start.wait()
        try:
            log.write_snapshot(snapshot(version, states=name))
            outcomes.append("written")
        except Conflict:
            outcomes.append("conflict")

    for version in range(1, 11):
        outcomes.clear()
        threads = [
            threading.Thread(target=write, args=(log, b"%d" % i, version))
            for i, log in enumerate(handles)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["conflict"] * 3 + ["written"]


@law
def snapshots_that_nothing_was_decided_from_are_forgotten(world: World) -> None:
    log = world.log()
    for version, now in enumerate((100, 200, 300, 400), 1):
        world.now = now
        log.write_snapshot(snapshot(version))
    world.now = 50
    log.write_snapshot(snapshot(1, "quiet"))
    assert log.forget_snapshots(350) == 2
    kept = [log.snapshot("home", version) is not None for version in (1, 2, 3, 4)]
    assert kept == [False, False, True, True]
    assert log.version("quiet") == 1, "however old, it is the one that decides"
    assert log.forget_snapshots(10_000) == 1
    assert log.versions() == {"home": 4, "quiet": 1}


@law
def heads_of_snapshots_are_there_newest_first(world: World) -> None:
    one, other = world.log(), world.log()
    assert one.snapshot_heads("home") == []
    for version in (1, 2, 3):
        one.write_snapshot(snapshot(version))
    one.write_snapshot(snapshot(1, "row"))
    heads = other.snapshot_heads("home")
    assert [head.version for head in heads] == [3, 2, 1]
    newest = snapshot(3)
    assert heads[0] == SnapshotHead(
        3, newest.watermark, newest.fingerprint, newest.start, newest.refit_at
    )


@law
def a_row_is_set_aside_once_for_each_stage(world: World) -> None:
    one, other = world.log(), world.log()
    world.now = 70
    first = QuarantinedRow("decision", "publish", "home", "d1", "", 4, "because", b"{}")
    reward = QuarantinedRow("reward", "read", "", "e1", "d1", 4, "half a pair: \ud800", b"\xff")
    assert one.set_aside([first, reward]) == 2
    world.now = 90
    again = first._replace(stage="learn", reason="again")
    assert other.set_aside([first._replace(reason="other"), again]) == 1
    rows = other.quarantine()
    assert [(row.kind, row.stage, row.id, row.belongs_to) for row in rows] == [
        ("decision", "publish", "d1", ""),
        ("reward", "read", "e1", "d1"),
        ("decision", "learn", "d1", ""),
    ]
    assert [row.quarantined_at for row in rows] == [70, 70, 90]
    assert [row.reason for row in rows] == ["because", "half a pair: \\ud800", "again"]
    assert one.quarantine("home", limit=1) == [rows[2]]
    assert one.quarantine_counts() == {
        ("decision", "publish"): 1,
        ("reward", "read"): 1,
        ("decision", "learn"): 1,
    }
    assert one.set_aside([]) == 0


@law
def the_last_sign_of_life_is_known_to_all(world: World) -> None:
    one, other = world.log(), world.log()
    assert other.heartbeat() is None
    for now, published_at in ((50, 0), (80, 60)):
        world.now = now
        one.beat(published_at)
        assert other.heartbeat() == Heartbeat(now, published_at)


@law
def what_workers_do_is_known_to_all_as_it_was_said_last(world: World) -> None:
    one, other = world.log(), world.log()
    assert other.duties() == {}
    for world.now, through in ((50, 7), (80, 3)):
        home = Duty(name="learn:home", worker="a:1", through=through, lag=0.5, failing="é\0")
        one.note_duties([home, Duty(name="publish", worker="b:2")])
        expected = msgspec.structs.replace(home, at=world.now)
        assert other.duties()["learn:home"] == expected
    one.note_duties([Duty(name="publish", worker="c:3")])
    found = other.duties()
    assert found == {"learn:home": expected, "publish": Duty(name="publish", worker="c:3", at=80)}


def alarm_line(alarm: str, state: AlarmState = "raised", at: int = 5) -> AlarmLine:
    return AlarmLine(alarm, state, "sample_ratio", "home", "", "units_lost", "Few.", at)


@law
def an_alarm_is_raised_once_and_stays_known_while_it_stands(world: World) -> None:
    one, other = world.log(), world.log()
    assert (other.alarms(), other.alarm_watch("home")) == ([], None)
    watch = AlarmWatch("home", 7, b"{}")
    for _ in range(2):
        one.note_alarms([alarm_line("old")], watch)
    assert other.alarms() == [alarm_line("old")]
    assert other.alarm_watch("home") == watch
    one.note_alarms([], AlarmWatch("home", 8, b"[]"))
    assert other.alarm_watch("home") == AlarmWatch("home", 8, b"[]")
    later = [alarm_line("new"), alarm_line("new", "resolved", 6)]
    one.note_alarms(later)
    assert other.alarms() == [alarm_line("old"), *later]
    assert other.alarms(limit=2) == [alarm_line("old"), *later]
    one.note_alarms([alarm_line("old", "resolved", 9)])
    assert other.alarms(limit=1) == [alarm_line("old", "resolved", 9)]


@law
def what_a_channel_took_is_noted_once(world: World) -> None:
    one, other = world.log(), world.log()
    message = AlarmMessage("a", "raised", "ops", 5)
    for _ in range(2):
        one.note_message(message)
    one.note_message(message._replace(state="resolved", at=7))
    assert other.alarm_messages() == [message, message._replace(state="resolved", at=7)]
    assert other.alarm_messages(limit=1) == [message._replace(state="resolved", at=7)]


@law
def what_a_profile_may_see_is_known_to_all_and_changes_by_what_is_said(world: World) -> None:
    one, other = world.log(), world.log()
    assert other.profile("7") is None
    one.change_profile("7", "profile_id", ProfileChange(kids=True, region="de"))
    changed = other.change_profile("7", "profile_id", ProfileChange(maturity=12, region=None))
    assert changed == one.profile("7") == ProfileLimits(kids=True, maturity=12)
    assert (other.profile("a/7"), other.remove_profile("a/7")) == (None, False)
    assert one.remove_profile("7")
    assert other.profile("7") is None


@law
def a_merge_is_known_to_all_once_and_the_strictest_limits_hold_with_it(world: World) -> None:
    one, other = world.log(), world.log()
    one.change_profile("g", "profile_id", ProfileChange(kids=True, maturity=12, region="de"))
    one.change_profile("7", "profile_id", ProfileChange(maturity=16, region="us"))
    strictest = ProfileLimits(kids=True, maturity=12, region="us")
    assert one.merge_profile("7", "profile_id", "g", ["g", "x"]) == (strictest, True)
    assert other.profile("7") == strictest
    # Lifted since: the same merge again sets nothing anew.
    lifted = other.change_profile("7", "profile_id", ProfileChange(kids=False, maturity=None))
    assert other.merge_profile("7", "profile_id", "g", ["g"]) == (lifted, False)
    assert other.merge_profile("8", "profile_id", "g", []) == (None, True)
    assert one.merges() == [Merge(1, "7", "profile_id", "g"), Merge(2, "8", "profile_id", "g")]
    assert [merge.unit for merge in other.merges(1, 9)] == ["8"]
    assert (len(one.merges(0, 1)), one.merges(2), one.profile("8")) == (1, [], None)


@law
def the_audit_notes_a_revision_only_when_it_changed(world: World) -> None:
    one, other = world.log(), world.log()
    noted = []
    for i, (log, revision) in enumerate(
        [(one, "r1"), (other, "r1"), (one, "r2"), (other, "r1"), (one, "r1")]
    ):
        world.now = i
        noted.append(log.revise("home", revision, "pm", f'{{"i":{i}}}'))
    assert noted == [True, False, True, True, False]
    assert one.revise("elsewhere", "r1", "pm", "{}")
    assert [(r.revision, r.at, r.who, r.spec) for r in one.revisions("home")] == [
        ("r1", 0, "pm", '{"i":0}'),
        ("r2", 2, "pm", '{"i":2}'),
        ("r1", 3, "pm", '{"i":3}'),
    ]
    assert [r.experiment for r in other.revisions()] == ["home"] * 3 + ["elsewhere"]
    assert other.newest_revisions() == {"home": "r1", "elsewhere": "r1"}
    one.revise("elsewhere", "r2", "pm", "{}")
    assert other.newest_revisions() == {"home": "r1", "elsewhere": "r2"}


@law
def a_conclusion_and_its_order_are_stored_together_and_known_to_all(world: World) -> None:
    one, other = world.log(), world.log()
    world.now = 7
    stop = Order("home", "r1", "r2", 0, "pm", "stopped", "slow")
    one.give_order(stop)
    world.now = 8
    line = ConclusionLine("home", "r1", "r3", 0, "pm", "b", "more plays", b"\x00report")
    order = Order("home", "r1", "r3", 0, "pm", None, "", Conclusion("b", "more plays", "pm"))
    other.conclude(line, order)
    by_file = line._replace(experiment="rows", winner=None)
    one.conclude(by_file)
    assert other.orders() == [stop._replace(at=7), order._replace(at=8)]
    assert other.conclusions() == [line._replace(at=8), by_file._replace(at=8)]
    assert one.conclusions("home") == [line._replace(at=8)]


@law
def a_step_of_a_launch_is_given_once_and_only_by_whoever_knows_all_orders(world: World) -> None:
    one, other = world.log(), world.log()
    world.now = 7
    step = Order("home", "r1", "r2", 0, "launch", None, "first", None, "traffic", 1, 0.05)
    one.give_order(step, after=0)
    with pytest.raises(Conflict, match="expected step 2: it was given already"):
        other.give_order(step)
    with pytest.raises(Conflict, match="expected one that follows from 1"):
        other.give_order(step._replace(step=2), after=0)
    # Another state of the file has a launch of its own.
    other.give_order(step._replace(revision="r5"), after=0)
    harm = step._replace(kind="pause", step=2, status="paused", about=("abandon:b", "play:c"))
    other.give_order(harm, after=1)
    expected = [step, step._replace(revision="r5"), harm]
    assert one.orders() == [order._replace(at=7) for order in expected]


@law
def a_lease_has_one_holder_at_a_time(world: World) -> None:
    one, other = world.log(), world.log()
    with one.lease("learn") as lease:
        for log in (one, other):
            with pytest.raises(Conflict, match="learn"):
                log.lease("learn")
        other.lease("publish").release()
        lease.check()
    with other.lease("learn") as lease:
        lease.check()


@law
def a_lease_may_be_shared_but_not_with_who_wants_it_alone(world: World) -> None:
    one, other = world.log(), world.log()
    with one.lease("worker", shared=True), other.lease("worker", shared=True) as lease:
        lease.check()
        with pytest.raises(Conflict, match="worker"):
            one.lease("worker")
    with one.lease("worker"), pytest.raises(Conflict, match="worker"):
        other.lease("worker", shared=True)


# ---------------------------------------------------------------------- all logs, all laws


def test_every_registered_log_is_held_to_the_contract() -> None:
    assert FRESH.keys() == SCHEMES.keys()


def new_world(url: str) -> World:
    return World(lambda clock: open_log(url, clock=clock))


@pytest.fixture(params=sorted(SCHEMES))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = new_world(FRESH[request.param](tmp_path))
    yield world
    world.close()


@pytest.mark.parametrize("name", LAWS)
def test_the_law_holds(world: World, name: str) -> None:
    LAWS[name](world)


KILLED = """
import os, sys
from topbill.domain.records import Decision, UnitEvent
from topbill.log import open_log

log = open_log(sys.argv[1])
names = dict(experiment="e", revision="r", variant="v", unit="u", policy="p", reason="policy")
log.append([Decision(decision_id="drained", **names)])
log.tend()
log.append(
    [Decision(decision_id="acknowledged", **names)],
    unit_events=[UnitEvent(unit="7", unit_type="profile_id", event_id="e", event="back")],
)
os._exit(9)
"""


@pytest.mark.parametrize("scheme", sorted(name for name, kind in SCHEMES.items() if kind.durable))
def test_what_was_acknowledged_outlives_the_process(scheme: str, tmp_path: Path) -> None:
    url = FRESH[scheme](tmp_path)
    killed = python(KILLED, url)
    assert killed.returncode == 9
    with open_log(url, create=False) as log:
        assert ids(log.read_decisions(0, 9)) == ["drained", "acknowledged"]
        assert [e.event_id for _, e in log.read_unit_events(0, 9)] == ["e"]


# ---------------------------------------------------------------------- opening


def test_a_path_and_its_url_are_one_log(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "log.sqlite"
    with open_log(path) as log:
        log.append([decision("d1")])
    for place in (str(path), f"sqlite://{path}", f"sqlite://{path}".replace(" ", "%20")):
        with open_log(place, create=False) as log:
            assert log.decision("d1") is not None


def test_an_unknown_scheme_is_a_named_error_with_those_that_are_known() -> None:
    with pytest.raises(LogError, match=r"postgres.*sqlite:///.*memory:NAME") as raised:
        open_log("postgres://somewhere/topbill")
    for kind in SCHEMES.values():
        assert kind.example in str(raised.value)
    with pytest.raises(LogError, match="sqlite:///ABSOLUTE/PATH"):
        open_log("sqlite:log.sqlite")


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_log_that_must_exist_is_not_made(scheme: str, tmp_path: Path) -> None:
    url = FRESH[scheme](tmp_path)
    with pytest.raises(NotFound, match="no log there"):
        open_log(url, create=False)
    with pytest.raises(NotFound, match="no log there"):
        open_log(tmp_path / "log.sqlite", create=False)
    assert list(tmp_path.iterdir()) == []
    open_log(url).close()
    open_log(url, create=False).close()


# ---------------------------------------------------------------------- logs that break a law


class StoresAgain(MemoryLog):
    """Takes no id for a caller's."""

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        nothing: dict[str, Any] = {
            "keyed_decisions": frozenset(),
            "keyed_events": frozenset(),
            "keyed_unit_events": frozenset(),
        }
        return super().commit([entry._replace(**nothing) for entry in entries])


class RoundsValues(MemoryLog):
    """Stores something else than it was given."""

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        rounded = []
        for entry in entries:
            events = [msgspec.structs.replace(e, value=round(e.value)) for e in entry.events]
            rounded.append(entry._replace(events=events))
        return super().commit(rounded)


class TakesWhatConflicts(MemoryLog):
    """Stores the rest of an entry whose id was used for another request."""

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        receipts = super().commit(entries)
        for entry, receipt in zip(entries, receipts, strict=True):
            if receipt.conflict is not None:
                rest = [d for d in entry.decisions if d.decision_id != receipt.conflict]
                super().commit([Entry(rest, entry.events)])
        return receipts


class ForgetsToBeWhole(MemoryLog):
    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        return super().commit([entry._replace(whole=False) for entry in entries])


class OneKeyForAllDecisions(MemoryLog):
    """Takes an event id for a duplicate under whichever decision."""

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        receipts = super().commit(entries)
        known = [key[1] for key in self._store.event_keys]
        return [
            receipt._replace(duplicates=tuple(known.count(e.event_id) > 1 for e in entry.events))
            for entry, receipt in zip(entries, receipts, strict=True)
        ]


class OneTypeOfUnit(MemoryLog):
    """Takes profile 7 for account 7."""

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        alike = []
        for entry in entries:
            events = [
                msgspec.structs.replace(event, unit_type="unit") for event in entry.unit_events
            ]
            keys = frozenset(event.key for event in events)
            alike.append(entry._replace(unit_events=events, keyed_unit_events=keys))
        return super().commit(alike)


class ForgetsYoungEvents(MemoryLog):
    def forget_unit_events(self, through: int, older_than: int, limit: int = 2_000) -> int:
        return super().forget_unit_events(through, older_than + 1, limit)


class ReversesGroups(MemoryLog):
    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        return super().commit(entries[::-1])[::-1]


class LosesRows(MemoryLog):
    """Acknowledges, and keeps the first of every entry only."""

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        return super().commit([e._replace(decisions=e.decisions[:1]) for e in entries])


class ReadsWithoutLimit(MemoryLog):
    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]:
        return super().read_events(after_seq, limit * 1_000)


class LooksUpTooMuch(MemoryLog):
    def decisions(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        return super().decisions({*decision_ids, *self._store.by_id})


class TrustsTheClock(MemoryLog):
    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        with self._store.lock:
            self._store.newest_stamp = 0
            return super().commit(entries)


class PromisesTheFuture(MemoryLog):
    def barrier(self) -> int:
        return super().barrier() + 10_000


class EndsTooSoon(MemoryLog):
    def ends(self) -> Ends:
        return super().ends()._replace(events=0)


class IsLazyForEver(MemoryLog):
    is_lazy = False

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        self.is_lazy = True
        yield

    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]:
        return [] if self.is_lazy else super().read_events(after_seq, limit)


class NeverEnds(MemoryLog):
    def ends(self) -> Ends:
        return super().ends()._replace(decisions=2**62)


class CommitsOutOfOrder(MemoryLog):
    """A bare sequence: the number is drawn before the row can be read, as in a database whose
    transactions end in another order than they began. A reader skips rows.
    """

    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        with self._store.lock:
            receipts = super().commit(entries)
            rows = self._store.decisions
            if len(rows) > 4 and rows[-1][0] % 3 == 0:
                rows[-1], rows[-2] = rows[-2], rows[-1]
        return receipts


class CountsLateEvents(MemoryLog):
    def matured(
        self,
        experiment: str,
        after_seq: int,
        age: int,
        barrier: int,
        limit: int,
        share: float = 1.0,
    ) -> list[Matured]:
        rows = super().matured(experiment, after_seq, age, barrier, limit, share)
        return [row._replace(events=self.events(row.decision.decision_id)) for row in rows]


class LearnsEverything(MemoryLog):
    def matured(
        self,
        experiment: str,
        after_seq: int,
        age: int,
        barrier: int,
        limit: int,
        share: float = 1.0,  # noqa: ARG002
    ) -> list[Matured]:
        return super().matured(experiment, after_seq, age, barrier, limit)


class NamesAllExperiments(MemoryLog):
    def named(self, experiment: str, after_seq: int, barrier: int, limit: int) -> list[Named]:
        every = [
            each
            for key in (experiment, "elsewhere")
            for each in super(NamesAllExperiments, self).named(key, after_seq, barrier, limit)
        ]
        return sorted(every)[:limit]


class ForgetsTooMuch(MemoryLog):
    def forget(
        self, decisions_through: int, events_through: int, older_than: int, limit: int = 2_000
    ) -> int:
        return super().forget(decisions_through, events_through + 1, older_than, limit)


class RemembersNothing(MemoryLog):
    """Takes what it has let go for new."""

    def forget(
        self, decisions_through: int, events_through: int, older_than: int, limit: int = 2_000
    ) -> int:
        forgotten = super().forget(decisions_through, events_through, older_than, limit)
        self._store.remembered.clear()
        return forgotten


class RemembersForEver(MemoryLog):
    def forget_ids(self, older_than: int, limit: int = 20_000) -> int:  # noqa: ARG002 (the contract's)
        return 0


class GivesSeqsTwice(MemoryLog):
    def forget(
        self, decisions_through: int, events_through: int, older_than: int, limit: int = 2_000
    ) -> int:
        forgotten = super().forget(decisions_through, events_through, older_than, limit)
        if not self._store.decisions:
            self._store.next_decision = self._store.next_event = 1
        return forgotten


class IsNewEachTime(MemoryLog):
    """Closing it loses what was acknowledged."""

    def close(self) -> None:
        self.discard(self.name.removeprefix("memory:"))
        super().close()


class ProbesWithARow(MemoryLog):
    def probe(self) -> None:
        self.append([decision("probe")])


class WritesOver(MemoryLog):
    """No fence: who writes last is right."""

    def write_snapshot(self, snapshot: Snapshot) -> None:
        with self._store.lock:
            versions = self._store.snapshots.setdefault(snapshot.experiment, {})
            versions[snapshot.version] = msgspec.structs.replace(snapshot, at=self._clock())


class ForgetsTheOneInUse(MemoryLog):
    def forget_snapshots(self, before: int) -> int:
        return super().forget_snapshots(before + 100)


class HidesVersions(MemoryLog):
    def snapshot_heads(self, experiment: str) -> list[SnapshotHead]:
        return super().snapshot_heads(experiment)[:1]


class SetsAsideAgain(MemoryLog):
    def set_aside(self, rows: Sequence[QuarantinedRow]) -> int:
        for row in rows:
            self._store.quarantine.pop((row.kind, row.stage, row.seq), None)
        return super().set_aside(rows)


class SeemsAlive(MemoryLog):
    def heartbeat(self) -> Heartbeat | None:
        return Heartbeat(self._clock(), 0)


class RaisesTwice(MemoryLog):
    """Takes a line that it has for another one."""

    def note_alarms(self, lines: Sequence[AlarmLine], watch: AlarmWatch | None = None) -> None:
        super().note_alarms([], watch)
        self._store.alarms += lines


class ForgetsWhatStands(MemoryLog):
    def alarms(self, limit: int = 1_000) -> list[AlarmLine]:
        return super().alarms(limit)[-limit:]


class TellsAgain(MemoryLog):
    def note_message(self, message: AlarmMessage) -> None:
        self._store.alarm_messages.pop(message[:3], None)
        super().note_message(message._replace(at=message.at + len(self._store.alarm_messages)))


class LiftsByMerging(MemoryLog):
    """Whoever signs in may see what the guest may not."""

    def merge_profile(
        self,
        unit: str,
        unit_type: str,
        merged: str,
        limited_by: Iterable[str],  # noqa: ARG002 (the contract's)
    ) -> MergedProfile:
        return super().merge_profile(unit, unit_type, merged, ())


class ForgetsTheKids(MemoryLog):
    def change_profile(self, unit: str, unit_type: str, change: ProfileChange) -> ProfileLimits:
        self.remove_profile(unit)
        return super().change_profile(unit, unit_type, change)


class NotesEverything(MemoryLog):
    def revise(self, experiment: str, revision: str, who: str, spec: str) -> bool:
        super().revise(experiment, f"{revision}?", who, spec)
        return super().revise(experiment, revision, who, spec)


class LeasesToAnybody(MemoryLog):
    def lease(self, name: str, *, shared: bool = False) -> Lease:
        self._store.leases.pop(name, None)
        return super().lease(name, shared=shared)


class SharesNothing(MemoryLog):
    def lease(self, name: str, *, shared: bool = False) -> Lease:  # noqa: ARG002 (the contract's)
        return super().lease(name)


class KeepsTheFirstWord(MemoryLog):
    def note_duties(self, duties: Sequence[Duty]) -> None:
        super().note_duties([duty for duty in duties if duty.name not in self._store.duties])


class ConcludesInSilence(MemoryLog):
    def conclude(self, line: ConclusionLine, order: Order | None = None) -> None:  # noqa: ARG002 (the contract's)
        super().conclude(line)


class ObeysTwice(MemoryLog):
    def give_order(self, order: Order, after: int | None = None) -> None:  # noqa: ARG002 (the contract's)
        self._store.orders.append(order._replace(at=self._clock()))


BROKEN: dict[type[MemoryLog], set[str]] = {
    StoresAgain: {
        "the_same_id_again_returns_the_first_and_stores_nothing",
        "an_event_is_a_duplicate_only_under_the_same_decision",
        "an_event_of_a_unit_is_a_duplicate_only_under_the_same_unit_of_its_type",
        "what_was_acknowledged_is_there_when_the_log_is_opened_again",
    },
    RoundsValues: {"what_was_committed_is_read_back_equal"},
    TakesWhatConflicts: {
        "another_request_under_a_used_id_is_a_conflict_and_its_entry_is_not_stored"
    },
    ForgetsToBeWhole: {"of_a_whole_entry_nothing_is_stored_where_its_key_was_before"},
    OneKeyForAllDecisions: {"an_event_is_a_duplicate_only_under_the_same_decision"},
    OneTypeOfUnit: {"an_event_of_a_unit_is_a_duplicate_only_under_the_same_unit_of_its_type"},
    ForgetsYoungEvents: {"events_of_units_are_read_and_forgotten_in_their_order"},
    ReversesGroups: {"entries_of_a_group_take_effect_in_their_order"},
    LosesRows: {"writers_at_once_store_every_row_once_and_a_reader_skips_none"},
    ReadsWithoutLimit: {"a_reader_who_remembers_the_last_seq_meets_every_row_once_and_in_order"},
    LooksUpTooMuch: {"a_look_up_gives_what_is_there_and_leaves_out_the_rest"},
    TrustsTheClock: {
        "stamps_never_fall_even_when_the_clock_does",
        "after_a_barrier_nothing_is_added_at_or_before_it",
    },
    PromisesTheFuture: {"after_a_barrier_nothing_is_added_at_or_before_it"},
    EndsTooSoon: {"what_is_there_at_a_barrier_ends_before_what_comes_later"},
    IsLazyForEver: {"who_does_not_hurry_reads_all_up_to_the_last_barrier"},
    NeverEnds: {"what_is_there_at_a_barrier_ends_before_what_comes_later"},
    CommitsOutOfOrder: {"writers_at_once_store_every_row_once_and_a_reader_skips_none"},
    CountsLateEvents: {"matured_gives_each_decision_the_events_that_had_come_at_that_age"},
    LearnsEverything: {"of_a_share_matured_gives_the_decisions_that_it_draws"},
    NamesAllExperiments: {"decisions_are_named_in_order_as_they_mature_at_once"},
    ForgetsTooMuch: {"forgetting_takes_only_what_is_old_and_safe_elsewhere_with_its_events"},
    RemembersNothing: {
        "what_was_let_go_is_remembered_and_is_not_stored_again",
        "an_event_that_came_after_its_decision_was_let_go_is_let_go_and_remembered_too",
    },
    RemembersForEver: {"ids_are_remembered_until_they_are_old_and_new_afterwards"},
    GivesSeqsTwice: {"a_seq_is_never_given_twice"},
    IsNewEachTime: {"what_was_acknowledged_is_there_when_the_log_is_opened_again"},
    ProbesWithARow: {"upkeep_changes_nothing_that_can_be_read"},
    WritesOver: {
        "a_snapshot_must_succeed_the_newest",
        "of_learners_that_write_one_version_at_once_a_single_one_succeeds",
    },
    ForgetsTheOneInUse: {"snapshots_that_nothing_was_decided_from_are_forgotten"},
    HidesVersions: {"heads_of_snapshots_are_there_newest_first"},
    SetsAsideAgain: {"a_row_is_set_aside_once_for_each_stage"},
    RaisesTwice: {"an_alarm_is_raised_once_and_stays_known_while_it_stands"},
    ForgetsWhatStands: {"an_alarm_is_raised_once_and_stays_known_while_it_stands"},
    TellsAgain: {"what_a_channel_took_is_noted_once"},
    SeemsAlive: {"the_last_sign_of_life_is_known_to_all"},
    ForgetsTheKids: {"what_a_profile_may_see_is_known_to_all_and_changes_by_what_is_said"},
    LiftsByMerging: {"a_merge_is_known_to_all_once_and_the_strictest_limits_hold_with_it"},
    NotesEverything: {"the_audit_notes_a_revision_only_when_it_changed"},
    ObeysTwice: {"a_step_of_a_launch_is_given_once_and_only_by_whoever_knows_all_orders"},
    LeasesToAnybody: {"a_lease_has_one_holder_at_a_time"},
    SharesNothing: {"a_lease_may_be_shared_but_not_with_who_wants_it_alone"},
    KeepsTheFirstWord: {"what_workers_do_is_known_to_all_as_it_was_said_last"},
    ConcludesInSilence: {"a_conclusion_and_its_order_are_stored_together_and_known_to_all"},
}


def breaks(kind: type[MemoryLog], name: str) -> bool:
    """Whether a log of this kind is caught by a law."""
    url = str(uuid4())
    world = World(lambda clock: kind(url, clock))
    try:
        LAWS[name](world)
    except (AssertionError, pytest.fail.Exception, LogError, Conflict, KeyError, IndexError):
        return True
    finally:
        world.close()
    return False


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in BROKEN.items() for name in sorted(names)]
)
def test_a_log_that_breaks_the_law_is_caught(kind: type[MemoryLog], name: str) -> None:
    assert breaks(kind, name)
    assert not breaks(MemoryLog, name)


def test_every_law_catches_some_log() -> None:
    assert set().union(*BROKEN.values()) == LAWS.keys()


# ---------------------------------------------------------------------- all logs answer alike

_ID = st.sampled_from("abcdef")
_ENTRY = st.builds(
    lambda decisions, events, whole, unit_events: Entry(
        [decision(i, experiment, request) for i, experiment, request in decisions],
        [event(i, e) for i, e in events],
        frozenset(i for i, _, _ in decisions),
        frozenset(events),
        whole,
        [of_unit(e, unit, unit_type) for unit_type, unit, e in unit_events],
        frozenset(unit_events),
    ),
    st.lists(
        st.tuples(_ID, st.sampled_from(["home", "row"]), st.sampled_from(["h", "h", "other"])),
        max_size=3,
        unique_by=lambda row: row[0],
    ),
    st.lists(st.tuples(_ID, st.sampled_from("xy")), max_size=3),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from("pa"), _ID, st.sampled_from("xy")), max_size=3),
)
_STEP = st.one_of(
    st.tuples(st.just("commit"), st.lists(_ENTRY, max_size=3)),
    st.tuples(st.just("clock"), st.integers(-500, 3_000)),
    st.tuples(st.just("tend"), st.booleans()),
    st.tuples(st.just("barrier"), st.just(0)),
    st.tuples(st.just("forget"), st.integers(0, 6)),
    st.tuples(st.just("forget ids"), st.integers(0, 3)),
)


class Places:
    """The `seq`s that a log has given, in their order: logs count in numbers of their own."""

    def __init__(self, read: Callable[[int, int], Sequence[tuple[int, Any]]]) -> None:
        self._read = read
        self._seqs = [0]

    def look(self) -> None:
        self._seqs += [seq for seq, _ in self._read(self._seqs[-1], 1_000)]

    def seq(self, place: int) -> int:
        return self._seqs[min(place, len(self._seqs) - 1)]

    def place(self, seq: int | None) -> int | None:
        return None if seq is None else self._seqs.index(seq)


class Answers:
    """Whatever can be read from a log, with places for its `seq`s, and times in units of the clock:
    a log may stamp by the millisecond.
    """

    def __init__(self, log: Log, world: World, unit: int) -> None:
        self._log, self._world, self._unit = log, world, unit
        self._decisions = Places(log.read_decisions)
        self._events = Places(log.read_events)
        self._unit_events = Places(log.read_unit_events)

    def after(self, steps: Sequence[tuple[str, Any]]) -> Iterator[Any]:
        log, barrier = self._log, 0
        for step, value in steps:
            # No time that is asked for falls between stamps which a unit takes together.
            older_than = barrier - self._unit // 2
            if step == "commit":
                for receipt in log.commit(value):
                    yield sorted(receipt.stored), receipt.duplicates, receipt.conflict
                    yield receipt.unit_duplicates, receipt.let_go
            elif step == "clock":
                self._world.now = max(0, self._world.now + value * self._unit)
            elif step == "tend":
                log.tend(thorough=value)
            elif step == "forget ids":
                yield log.forget_ids(older_than - 1_000 * value * self._unit, 2)
            else:
                barrier = log.barrier()
                yield self._time(barrier)
                if step == "forget":
                    older_than = barrier - self._unit // 2
                    through = self._decisions.seq(value), self._events.seq(2 * value)
                    yield log.forget(*through, older_than)
                    yield log.forget_unit_events(self._unit_events.seq(value), older_than, 2)
            if self._unit > 1:
                # Readers of such a log close the past: so they do with the others.
                log.barrier()
            for places in (self._decisions, self._events, self._unit_events):
                places.look()
            yield from self._all(barrier)

    def _all(self, barrier: int) -> Iterator[Any]:
        log, decisions = self._log, self._decisions
        yield self._rows(decisions, log.read_decisions(0, 100))
        yield self._rows(self._events, log.read_events(self._events.seq(1), 2))
        yield self._rows(self._unit_events, log.read_unit_events(self._unit_events.seq(1), 4))
        yield decisions.place(log.first_seq())
        yield decisions.place(log.next_seq("row", decisions.seq(2)))
        yield {name: decisions.place(seq) for name, seq in log.places("abcdef").items()}
        yield [self._record(log.decision(name)) for name in "abc"]
        yield [self._record(event) for event in log.events("a")]
        age = 900 * self._unit + self._unit // 2
        for row in log.matured("home", 0, age, barrier, 3):
            yield decisions.place(row.seq), self._record(row.decision)
            yield [self._record(event) for event in row.events]

    def _rows(self, places: Places, rows: Sequence[tuple[int, Any]]) -> list[Any]:
        return [(places.place(seq), self._record(record)) for seq, record in rows]

    def _record(self, record: Any) -> Any:
        if record is None:
            return None
        name = "decided_at" if isinstance(record, Decision) else "received_at"
        return msgspec.structs.replace(record, **{name: self._time(getattr(record, name))})

    def _time(self, at: int) -> int:
        return (at + self._unit // 2) // self._unit


def assert_alike(folder: Path, schemes: Sequence[str], unit: int, steps: list[Any]) -> None:
    """Logs of these schemes answer as one in memory does."""
    answers = {}
    for scheme in ["memory", *schemes]:
        world = new_world(FRESH[scheme](folder / scheme))
        answers[scheme] = list(Answers(world.log(), world, unit).after(steps))
        world.close()
    for scheme in schemes:
        assert answers[scheme] == answers["memory"], scheme


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(_STEP, max_size=12))
def test_all_logs_answer_alike(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    """Whatever is done to them, in whatever order, and whatever the clock does meanwhile."""
    assert_alike(tmp_path_factory.mktemp("alike"), ["sqlite"], 1, steps)


@settings(
    max_examples=8, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(st.lists(_STEP, max_size=12))
def test_a_log_that_stamps_by_the_millisecond_answers_alike(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    """But for less than half a unit of a clock that goes by 40 ms."""
    assert_alike(tmp_path_factory.mktemp("alike"), ["postgresql"], 40_000, steps)
