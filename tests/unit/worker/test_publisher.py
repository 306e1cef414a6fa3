"""The publisher: every committed row reaches the lake once, whatever dies, and only what is safe
there is forgotten.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.errors import LogError
from topbill.domain.records import (
    Action,
    Decision,
    RewardEvent,
    Snapshot,
    UnitEvent,
)
from topbill.lake import DATABASE, Lake, sql
from topbill.log import Log, open_log
from topbill.policies.uniform import FixedParams
from topbill.spec import Experiment, Metric, Variant
from topbill.testing import a_decision
from topbill.worker import publisher as module
from topbill.worker.publisher import Publisher

from ... import processes


def experiment() -> Experiment:
    return Experiment(
        key="home",
        surface="artwork",
        actions=(Action("x"), Action("y")),
        metrics=(Metric("play", "play", "binary", 3600.0),),
        objective={"play": 1.0},
        variants=(Variant("editorial", "fixed", FixedParams(), 1.0, control=True),),
    )


def decision(number: int) -> Decision:
    return a_decision(
        f"d{number}",
        variant="editorial",
        unit=f"u{number}",
        eligible=("x", "y"),
        policy="fixed",
    )


def play(number: int, event_id: str = "e") -> RewardEvent:
    return RewardEvent(decision_id=f"d{number}", event_id=event_id, event="play")


def back(number: int, event_id: str = "e") -> UnitEvent:
    return UnitEvent(
        unit=f"u{number}", unit_type="profile_id", event_id=event_id, event="session_start"
    )


def publisher(folder: Path, log: Log, **options: Any) -> Publisher:
    return Publisher(log, Lake(folder), lambda: [experiment()], **options)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with open_log(tmp_path / "log.sqlite") as log:
        yield log


def count(folder: Path, what: str) -> int:
    return int(sql(folder / DATABASE, f"SELECT count(*) AS n FROM {what}").to_pylist()[0]["n"])  # noqa: S608


def test_each_step_publishes_what_was_committed_since_the_last(tmp_path: Path, log: Log) -> None:
    worker = publisher(tmp_path, log)
    assert worker.step() == 0
    log.append([decision(1), decision(2)], [play(1)])
    assert worker.step() == 3
    assert worker.step() == 0
    log.append([decision(3)], [play(2), play(1, "again")])
    assert worker.step() == 3
    assert (count(tmp_path, "decisions"), count(tmp_path, "rewards")) == (3, 3)
    assert count(tmp_path, "feedback WHERE objective = 1") == 2


def test_a_step_does_not_wait_for_a_log_that_goes_on_growing(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(module, "BATCH", 6)
    worker = publisher(tmp_path, log)
    log.append([decision(n) for n in range(7)], [play(n) for n in range(7)], [back(0)])
    numbers = itertools.count(7)

    def grow(read: Callable[[int, int], Any]) -> Callable[[int, int], Any]:
        def read_and_grow(after_seq: int, limit: int) -> Any:
            rows = read(after_seq, limit)
            # More than any read takes away.
            new = [next(numbers) for _ in range(10)]
            assert new[-1] < 200, "goes on and on"
            log.append([decision(n) for n in new], [play(n) for n in new], [back(new[0])])
            return rows

        return read_and_grow

    for name in ("read_decisions", "read_events", "read_unit_events"):
        monkeypatch.setattr(log, name, grow(getattr(log, name)))
    assert worker.publish() == 15, "what was there when it began"
    assert (count(tmp_path, "decisions"), count(tmp_path, "rewards")) == (7, 7)
    monkeypatch.undo()
    worker.publish()
    assert count(tmp_path, "decisions") == count(tmp_path, "rewards") == next(numbers)


def test_a_new_publisher_goes_on_where_the_lake_stands(tmp_path: Path, log: Log) -> None:
    log.append([decision(1)], [play(1)])
    publisher(tmp_path, log).step()
    log.append([decision(2)], [play(2)])
    assert publisher(tmp_path, log).step() == 2
    assert (count(tmp_path, "decisions"), count(tmp_path, "rewards")) == (2, 2)


def test_more_rows_than_a_batch_are_published_in_one_step(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    log.append(
        [decision(n) for n in range(10)], [play(n) for n in range(9)], [back(n) for n in range(13)]
    )
    assert publisher(tmp_path, log).step() == 32
    counts = [count(tmp_path, view) for view in ("decisions", "rewards", "events")]
    assert counts == [10, 9, 13]


def test_a_late_reward_finds_its_decision(tmp_path: Path, log: Log) -> None:
    worker = publisher(tmp_path, log)
    log.append([decision(1)])
    worker.step()
    log.append([], [play(1)])
    worker.step()
    assert sql(
        tmp_path / DATABASE, "SELECT experiment, variant, unit, item FROM rewards"
    ).to_pylist() == [{"experiment": "home", "variant": "editorial", "unit": "u1", "item": "x"}]


def test_a_late_reward_finds_its_decision_before_there_is_an_analytics_database(
    tmp_path: Path, log: Log
) -> None:
    worker = publisher(tmp_path, log, keep_log=-1.0)
    log.append([decision(1)])
    worker.step()
    log.append([], [play(1)])
    (tmp_path / DATABASE).unlink()  # as after a restore
    worker.step()
    assert sql(tmp_path / DATABASE, "SELECT experiment, unit FROM rewards").to_pylist() == [
        {"experiment": "home", "unit": "u1"}
    ]


def test_a_reward_whose_decision_is_unknown_is_kept(tmp_path: Path, log: Log) -> None:
    log.append([], [play(404)])
    publisher(tmp_path, log).step()
    found = sql(tmp_path / DATABASE, "SELECT decision_id, experiment FROM rewards").to_pylist()
    assert found == [{"decision_id": "d404", "experiment": None}]


class Dies(Exception):
    """Stands for the process ending at that point."""


def dying(step: Callable[..., Any], after: bool) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        if after:
            step(*args, **options)
        raise Dies

    return call


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", [1, 2], ids=["first append", "second append"])
def test_a_death_at_an_append_neither_loses_nor_doubles_rows(
    tmp_path: Path, log: Log, nth: int, after: bool
) -> None:
    log.append([decision(n) for n in range(5)], [play(n) for n in range(5)])
    lake = Lake(tmp_path)
    whole, calls = lake.append, itertools.count(1)
    lake.append = lambda *a: dying(whole, after)(*a) if next(calls) == nth else whole(*a)  # type: ignore[method-assign]
    with pytest.raises(Dies):
        Publisher(log, lake, lambda: [experiment()]).step()
    publisher(tmp_path, log).step()
    assert (count(tmp_path, "decisions"), count(tmp_path, "rewards")) == (5, 5)
    assert count(tmp_path, "(SELECT DISTINCT decision_id FROM decisions)") == 5


def test_a_death_while_showing_is_made_good_by_the_next_step(tmp_path: Path, log: Log) -> None:
    lake = Lake(tmp_path)
    lake.write_database = dying(lake.write_database, after=False)  # type: ignore[method-assign]
    log.append([decision(1)], [play(1)])
    with pytest.raises(Dies):
        Publisher(log, lake, lambda: [experiment()]).step()
    publisher(tmp_path, log).step()
    assert (count(tmp_path, "decisions"), count(tmp_path, "rewards")) == (1, 1)


def test_compaction_runs_beside_publishing(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MINOR", 1)
    lake, go = Lake(tmp_path), threading.Event()
    whole = lake.compact
    lake.compact = lambda **options: go.wait(10) and whole(**options)  # type: ignore[method-assign]
    worker = Publisher(log, lake, lambda: [experiment()])
    for n in range(3):
        log.append([decision(n)], [play(n)])
        worker.step()
        assert count(tmp_path, "decisions") == n + 1
    assert len(lake.files("decisions")) == 3
    go.set()
    deadline = time.monotonic() + 10
    while len(lake.files("decisions")) > 1 and time.monotonic() < deadline:
        worker.step()
    assert len(lake.files("decisions")) == 1
    assert count(tmp_path, "decisions") == 3


def test_a_compaction_that_failed_is_told_and_tried_again(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MINOR", 1)
    lake = Lake(tmp_path)
    whole, calls = lake.compact, itertools.count(1)
    lake.compact = lambda **o: dying(whole, after=False)() if next(calls) == 1 else whole(**o)  # type: ignore[method-assign]
    worker = Publisher(log, lake, lambda: [experiment()])
    log.append([decision(1)])
    worker.step()
    wait(worker._compaction)
    with pytest.raises(Dies):
        worker.step()
    worker.step()
    wait(worker._compaction)
    assert worker.step() == 0
    assert next(calls) > 2
    assert count(tmp_path, "decisions") == 1


def test_what_merges_replaced_is_deleted_by_the_clock_however_long_steps_take(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MINOR", 2)
    monkeypatch.setattr(module, "VACUUM_EVERY", 0.0)
    lake = Lake(tmp_path, keep_for=0.0)
    # Nothing is kept for readers, so it must not tidy up before the step has read its files.
    stepped, compact = threading.Event(), lake.compact
    monkeypatch.setattr(lake, "compact", lambda **how: stepped.wait(60) and compact(**how))
    worker = Publisher(log, lake, lambda: [experiment()])
    for n in range(2):
        log.append([decision(n)])
        worker.step()
    stepped.set()
    wait(worker._compaction)
    left = (tmp_path / "lake" / "decisions").rglob("*.parquet")
    assert sorted(left) == sorted(map(Path, lake.files("decisions")))


def wait(compaction: Future[int] | None) -> None:
    assert compaction is not None
    compaction.exception(timeout=10)


ENDLESS = """
import sys
from pathlib import Path
from topbill.worker import publisher
from topbill.lake import Lake
from topbill.log import open_log
publisher.BATCH, publisher.MINOR, publisher.MAJOR = 7, 2, 4
folder = Path(sys.argv[1])
log = open_log(folder / "log.sqlite")
worker = publisher.Publisher(log, Lake(folder), lambda: [], keep_log=0.0)
while True:
    worker.step()
    print("step", flush=True)
"""


def test_kill_9_at_any_moment_leaves_every_row_in_the_lake_once(tmp_path: Path, log: Log) -> None:
    """The victim appends, compacts and forgets without pause while rows come in; it is killed six
    times over.
    """
    number = itertools.count(1)
    for round_ in range(6):
        said = tmp_path / f"said-{round_}"
        victim = processes.start(ENDLESS, tmp_path, said=said)
        while not (said.exists() and said.read_text().startswith("step\n")):
            assert victim.is_alive(), said.read_text()
            time.sleep(0.005)
        deadline = time.monotonic() + 0.05 + 0.037 * round_
        while time.monotonic() < deadline:
            new = next(number)
            log.append([decision(new)], [play(new)], [back(new)])
        victim.kill()
        victim.join()
    last = next(number) - 1
    publisher(tmp_path, log).step()
    for view, key in (("decisions", "decision_id"), ("rewards", "decision_id"), ("events", "unit")):
        assert count(tmp_path, view) == last
        assert count(tmp_path, f"(SELECT DISTINCT {key} FROM {view})") == last  # noqa: S608


def test_the_log_forgets_what_is_published_and_past_every_window(tmp_path: Path, log: Log) -> None:
    log.append([decision(1)], [play(1)])
    publisher(tmp_path, log).step()
    assert log.decision("d1") is not None, "within the longest window and an hour"
    publisher(tmp_path, log, keep_log=0.0).step()
    assert log.decision("d1") is None
    assert log.events("d1") == []
    assert (count(tmp_path, "decisions"), count(tmp_path, "rewards")) == (1, 1)


def test_an_event_of_a_unit_is_known_by_its_id_for_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No decision tells a retry from a new event, so the log keeps it beyond every window."""
    now = [1_000_000]
    with open_log("memory:", clock=lambda: now[0]) as log:
        worker = Publisher(log, Lake(tmp_path), lambda: [experiment()])
        log.append([decision(1)], [], [back(1)])
        for day, is_known in ((0, True), (6, True), (8, False)):
            now[0] = 1_000_000 + day * 86_400_000_000
            worker.step()
            assert (len(log.read_unit_events(0, 9)) == 1) is is_known
        assert log.decision("d1") is None
    assert count(tmp_path, "events") == 1


_SENT = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from("ef"), st.sampled_from(["profile_id", "account"])),
    min_size=1,
    max_size=8,
)


@settings(max_examples=15)
@given(_SENT, st.randoms(use_true_random=False), st.integers(1, 4))
def test_any_order_and_repeats_of_events_give_the_same_view(
    tmp_path_factory: pytest.TempPathFactory,
    sent: list[tuple[int, str, str]],
    chance: Any,
    parts: int,
) -> None:
    """With steps of the publisher and of upkeep between, and a log that is opened anew."""

    def view(order: list[tuple[int, str, str]]) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("events")
        name = folder / "log.sqlite"
        for start in range(0, len(order), -(-len(order) // parts)):
            with open_log(name, clock=lambda: 5_000_000) as log:
                for number, event_id, unit_type in order[start : start + -(-len(order) // parts)]:
                    event = UnitEvent(
                        unit=str(number), unit_type=unit_type, event_id=event_id, event="back"
                    )
                    log.append([], [], [event])
                publisher(folder, log).step()
        # All but the order in which they came.
        query = "SELECT * EXCLUDE (seq) FROM events ORDER BY ALL"
        return sql(folder / DATABASE, query).to_pylist()

    once = sorted(set(sent))
    again = [*sent, *sent[: len(sent) // 2], *once]
    chance.shuffle(again)
    assert view(again) == view(once)
    assert len(view(once)) == len(once)


def test_the_log_keeps_what_a_learner_still_needs(tmp_path: Path, log: Log) -> None:
    log.append([decision(1), decision(2), decision(3)])
    publisher(tmp_path, log, keep_log=0.0, learned=lambda: 2).step()
    assert [log.decision(f"d{n}") is None for n in (1, 2, 3)] == [True, True, False]


def test_numbers_stay_unique_after_the_log_forgot_everything(tmp_path: Path, log: Log) -> None:
    worker = publisher(tmp_path, log, keep_log=0.0)
    for n in (1, 2, 3):
        log.append([decision(n)], [play(n)])
        worker.step()
    assert (count(tmp_path, "decisions"), count(tmp_path, "rewards")) == (3, 3)
    assert count(tmp_path, "(SELECT DISTINCT seq FROM decisions)") == 3


def test_old_policy_versions_go_with_the_decisions_made_from_them(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MINOR", 1)
    for version in (1, 2, 3):
        log.write_snapshot(
            Snapshot(
                experiment="home",
                version=version,
                watermark=version,
                fingerprint="f",
                states={"a": b"s"},
            )
        )
    publisher(tmp_path, log).step()
    assert log.snapshot("home", 1) is not None  # a decision that is still in the log may be of it
    publisher(tmp_path, log, keep_log=-3_600.0).step()  # as if an hour had passed
    assert [log.snapshot("home", version) is None for version in (1, 2, 3)] == [True, True, False]


def test_a_step_that_failed_is_made_up_for_by_the_next(tmp_path: Path, log: Log) -> None:
    lake = Lake(tmp_path)
    whole, calls = lake.append, itertools.count(1)

    def flaky(*args: Any) -> bool:
        if next(calls) == 1:
            raise LogError("disk full")
        return whole(*args)

    lake.append = flaky  # type: ignore[method-assign]
    worker = Publisher(log, lake, lambda: [experiment()])
    log.append([decision(1)])
    with pytest.raises(LogError, match="disk full"):
        worker.step()
    log.append([decision(2)])
    worker.step()
    assert count(tmp_path, "decisions") == 2


def test_an_id_that_comes_again_after_the_horizon_is_there_once_and_told(
    tmp_path: Path, log: Log
) -> None:
    worker = publisher(tmp_path, log, keep_log=0.0, remember=0.0)
    log.append([decision(1)], [play(1)], [back(1)])
    worker.step()
    worker.step()
    log.forget_ids(1 << 60)
    assert log.append([decision(1), decision(2)], [play(1)]).let_go is None
    worker.step()
    assert (count(tmp_path, "decisions"), count(tmp_path, "rewards")) == (2, 1)
    aside = log.quarantine()
    assert sorted((row.kind, row.id, row.belongs_to) for row in aside) == [
        ("decision", "d1", ""),
        ("reward", "e", "d1"),
    ]
    worker.step()
    assert len(log.quarantine()) == 2
