"""One bad row is one bad row: what cannot be published or learned is set aside with its reason, is
told, and everything else goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.records import Decision, RewardEvent, UnitEvent
from topbill.engine import DecideRequest, Engine
from topbill.lake import DATABASE, Lake, sql
from topbill.log import Log, open_log
from topbill.policies.thompson import Thompson
from topbill.spec import Experiment
from topbill.worker import archive
from topbill.worker.learner import Learner
from topbill.worker.publisher import Publisher
from topbill.worker.setting_aside import convertible
from topbill.worker.verification import fold_again, verify

SECOND = 1_000_000
POISON = msgspec.Raw(b'[{"id":"a","payload":"\xff"}]')
"""Actions as 0.1.0 stored them: no JSON, and no text."""


class Clock:
    """The log's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 2_000_000 * SECOND


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[Log]:
    with open_log(tmp_path / "log.sqlite", clock=lambda: clock.now) as log:
        yield log


def decided(art: Experiment, clock: Clock, log: Log, count: int, **changed: Any) -> list[Decision]:
    """Decisions a second apart, with a play each; `changed` are fields of each."""
    engine = Engine([art], clock=lambda: 0.0)  # no budget is overrun, however busy the machine
    decisions = []
    for number in range(count):
        clock.now += SECOND
        decision = engine.decide(DecideRequest(experiment=art.key, unit=f"u{number}"))
        decision = msgspec.structs.replace(decision, **changed)
        play = RewardEvent(decision_id=decision.decision_id, event_id="e", event="play")
        log.append([decision], [play])
        decisions.append(decision)
    clock.now += 5 * SECOND
    return decisions


def rows(folder: Path, query: str) -> list[dict[str, Any]]:
    return sql(folder / DATABASE, query).to_pylist()


# ---------------------------------------------------------------------- finding them


@given(st.lists(st.booleans(), max_size=60))
def test_exactly_the_bad_rows_are_found_and_the_others_keep_their_order(bad: list[bool]) -> None:
    asked = []

    def convert(rows: Any) -> pa.Table:
        asked.append(len(rows))
        if any(is_bad for _, is_bad in rows):
            raise pa.ArrowInvalid("one of them")
        return pa.table({"n": pa.array([n for n, _ in rows], pa.int64())})

    numbered = list(enumerate(bad))
    table, refused = convertible(numbered, convert)
    assert table["n"].to_pylist() == [n for n, is_bad in numbered if not is_bad]
    assert [row for row, _ in refused] == [row for row in numbered if row[1]]
    if not any(bad):
        assert len(asked) == 1


def test_memory_that_is_short_is_no_rows_fault() -> None:
    def convert(_rows: Any) -> pa.Table:
        raise MemoryError

    with pytest.raises(MemoryError):
        convertible([1, 2], convert)


# ---------------------------------------------------------------------- publishing


def test_rows_that_cannot_be_published_are_set_aside_and_the_others_are_published(
    art: Experiment, log: Log, clock: Clock, tmp_path: Path
) -> None:
    decided(art, clock, log, 3)
    (poison,) = decided(art, clock, log, 1, actions=POISON)
    decided(art, clock, log, 2)

    log.append(
        [],
        [RewardEvent(decision_id=poison.decision_id, event_id="far", event="play", position=2**70)],
        [
            UnitEvent(unit="u", unit_type="p", event_id="good", event="back"),
            UnitEvent(unit="u", unit_type="p", event_id="far", event="back", occurred_at=2**70),
        ],
    )

    publisher = Publisher(log, Lake(tmp_path), lambda: [art])
    publisher.step()
    decided(art, clock, log, 1)
    publisher.step()
    assert [row["seq"] for row in rows(tmp_path, "SELECT seq FROM decisions ORDER BY seq")] == [
        *(1, 2, 3),
        *(5, 6, 7),
    ]
    (counted,) = rows(
        tmp_path, "SELECT (SELECT count(*) FROM rewards) r, (SELECT count(*) FROM events) e"
    )
    assert counted == {"r": 7, "e": 1}
    shown = rows(tmp_path, "SELECT * FROM quarantine ORDER BY kind")
    assert [(r["kind"], r["stage"], r["experiment"], r["id"], r["belongs_to"]) for r in shown] == [
        ("decision", "publish", "art", poison.decision_id, ""),
        ("event", "publish", "", "far", "u"),
        ("reward", "publish", "art", "far", poison.decision_id),
    ]
    assert "utf8" in shown[0]["reason"].lower()
    told = rows(tmp_path, "FROM problems ORDER BY subject")
    assert [(p["kind"], p["subject"], p["path"]) for p in told] == [
        ("quarantine", "decision", "publish"),
        ("quarantine", "event", "publish"),
        ("quarantine", "reward", "publish"),
    ]


def test_what_is_set_aside_is_said_once_and_kept_whole(
    art: Experiment, log: Log, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decided(art, clock, log, 1, actions=POISON)
    for _ in range(3):
        Publisher(log, Lake(tmp_path), lambda: [art]).step()
    assert caplog.text.count("was set aside") == 1
    assert len(log.quarantine("art")) == 1


# ---------------------------------------------------------------------- learning


@pytest.fixture
def poisonous(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets Thompson's update raise, half way through a batch, where `is_bad` says so."""
    update = Thompson.update

    def poison(is_bad: Callable[[Any], bool]) -> None:
        def raises(policy: Thompson, examples: Any) -> None:
            for example in examples:
                update(policy, [example])
                if is_bad(example):
                    raise ValueError("singular")

        monkeypatch.setattr(Thompson, "update", raises)

    return poison


def learn_all(learner: Learner) -> None:
    """Until nothing is to be read any more."""
    for _ in range(20):
        if learner.step() == 0 and not list(learner.failures):
            return
    raise AssertionError(list(learner.failures))


def test_a_decision_that_a_policy_cannot_learn_is_set_aside_and_the_rest_is_learned(
    art: Experiment,
    log: Log,
    clock: Clock,
    poisonous: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decisions = decided(art, clock, log, 30)
    of_thompson = [n for n, d in enumerate(decisions) if d.variant == "thompson"]
    monkeypatch.setattr("topbill.worker.retry._FIRST_PAUSE", 0.0)
    times = {log.read_decisions(n, 1)[0][1].decided_at / 1e6 for n in range(0, 30, 7)}
    poisonous(lambda example: example.at in times)
    learn_all(Learner(log, [art]))
    bad = {row.seq for row in log.quarantine("art")}
    assert bad == {n + 1 for n in range(0, 30, 7) if n in of_thompson}
    assert {(row.kind, row.stage) for row in log.quarantine()} <= {("decision", "learn")}
    held = log.snapshot("art")
    assert held is not None
    assert held.watermark == 30
    # The fold of the log leaves them out too, and so does a worker that begins anew.
    assert fold_again(log, art, lambda *_: [])[1] == held.states
    decided(art, clock, log, 5)
    learn_all(Learner(log, [art]))
    assert verify(log, art, lambda *_: []).same


def test_where_nothing_can_be_learned_no_decision_is_set_aside(
    art: Experiment,
    log: Log,
    clock: Clock,
    poisonous: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A policy that is broken is no decision's fault: they are learned when it is mended."""
    decided(art, clock, log, 12)
    monkeypatch.setattr("topbill.worker.retry._FIRST_PAUSE", 0.0)
    learner = Learner(log, [art])
    with monkeypatch.context():
        poisonous(lambda _example: True)
        for _ in range(4):
            learner.step()
        assert dict(learner.failures) == {"art": "ValueError: singular"}
    assert log.quarantine() == []
    monkeypatch.undo()
    monkeypatch.setattr("topbill.worker.retry.time.monotonic", lambda: 1e9)
    learn_all(learner)
    assert verify(log, art, lambda *_: []).same


def test_what_was_not_published_is_not_learned_either(
    art: Experiment, log: Log, clock: Clock, tmp_path: Path
) -> None:
    """So that a fold of the lake, where it is missing, reaches what a fold of the log does."""
    decided(art, clock, log, 4)
    decided(art, clock, log, 1, actions=POISON, variant="thompson", unit="u1")
    decided(art, clock, log, 4)
    Publisher(log, Lake(tmp_path), lambda: [art]).step()
    learner = Learner(log, [art])
    learn_all(learner)
    held = log.snapshot("art")
    assert held is not None
    assert log.forget(9, 9, clock.now) == 9
    assert fold_again(log, art, archive.reader(tmp_path))[1] == held.states
