"""A data folder's own log moves into one that machines share: what was said, learned and recorded
goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import ARTWORK, write

from topbill import lake
from topbill.domain.errors import Conflict, LogError, NotFound
from topbill.domain.records import Decision, Placement, RewardEvent, Snapshot
from topbill.lake import Lake
from topbill.log import LOG_FILE, Entry, Log, open_log
from topbill.log.entries import all_keyed
from topbill.log.orders import give_order
from topbill.migration import FORMER_LOG, move_log
from topbill.spec import Experiment, load_all
from topbill.worker.publisher import Publisher


@pytest.fixture
def experiments(tmp_path: Path) -> list[Experiment]:
    return load_all([write(tmp_path / "experiments", ARTWORK)])


@pytest.fixture
def data(tmp_path: Path, experiments: list[Experiment]) -> Path:
    """A folder with a log of its own, in which something was said and learned."""
    folder = tmp_path / "data"
    folder.mkdir()
    (art,) = experiments
    with open_log(folder / LOG_FILE) as log:
        log.append([made("d1", art), made("d2", art)])
        log.revise("art", art.fingerprint, "me", msgspec.json.encode(art.raw).decode())
        give_order(log, "art", "stopped", "me", "it harms")
        learned = {"watermark": 1, "states": {"uniform": b"state"}}
        fingerprint = art.learning_fingerprint
        log.write_snapshot(
            Snapshot(experiment="art", version=1, fingerprint=fingerprint, **learned)
        )
    return folder


def made(decision_id: str, experiment: Experiment) -> Decision:
    return Decision(
        decision_id=decision_id,
        experiment=experiment.key,
        revision=experiment.fingerprint,
        variant=experiment.control.name,
        unit="u",
        context=msgspec.Raw(b"{}"),
        slate=(Placement(0, experiment.actions[0].id, 0.5),),
        policy="uniform",
        reason="policy",
        request_hash="h",
    )


def publish(log: Log, data: Path, experiments: list[Experiment]) -> None:
    Publisher(log, Lake(data), lambda: experiments).step()


def said(log: Log) -> tuple[Any, ...]:
    """What a log knows beside its rows."""
    return log.revisions(), log.orders(), log.snapshot("art"), log.versions()


def test_what_was_said_and_learned_goes_on_and_the_record_too(
    data: Path, experiments: list[Experiment], url: str, log: Log
) -> None:
    with pytest.raises(LogError, match="has rows that are not in the lake; expected none: stop"):
        move_log(data, url)
    assert log.revisions() == []
    with open_log(data / LOG_FILE) as own:
        publish(own, data, experiments)
        before = said(own)

    sentences = move_log(data, url)
    assert any("goes on from" in sentence for sentence in sentences)
    assert said(log) == before
    assert not list(data.glob("log.*"))
    assert (data / FORMER_LOG / LOG_FILE).exists()

    log.append([made("d3", experiments[0])])
    publish(log, data, experiments)
    rows = lake.sql(lake.database_of(data), "SELECT decision_id FROM decisions ORDER BY seq")
    assert rows["decision_id"].to_pylist() == ["d1", "d2", "d3"]
    with pytest.raises(NotFound):
        move_log(data, url)


def test_who_was_interrupted_goes_on_and_a_log_in_use_is_not_overwritten(
    data: Path, experiments: list[Experiment], url: str, log: Log
) -> None:
    with open_log(data / LOG_FILE) as own:
        publish(own, data, experiments)
        before = said(own)
    move_log(data, url)
    for file in (data / FORMER_LOG).iterdir():
        file.rename(data / file.name)
    move_log(data, url)
    assert said(log) == before, "all of it once"
    for file in (data / FORMER_LOG).iterdir():
        file.rename(data / file.name)
    log.revise("art", "another", "them", "{}")
    with pytest.raises(Conflict, match="has experiments of its own"):
        move_log(data, url)
    assert (data / LOG_FILE).exists()


def test_a_late_reward_finds_its_decision_and_nothing_is_stored_twice(
    data: Path, experiments: list[Experiment], url: str, log: Log
) -> None:
    """Of decisions that the folder's own log still has, and of one that it had let go."""
    (art,) = experiments
    early, first = made("early", art), RewardEvent(decision_id="d1", event_id="1", event="click")
    with open_log(data / LOG_FILE) as own:
        own.commit([Entry([early])])
        publish(own, data, experiments)
        own.forget(3, 0, 2**62)
        own.commit([Entry([made("d4", art)]), Entry(events=[first])])
        publish(own, data, experiments)
        assert set(own.places(["d1", "early", "d4"])) == {"d1", "early"}
    move_log(data, url)

    late = [first] + [
        RewardEvent(decision_id=decision_id, event_id="2", event="click")
        for decision_id in ("d1", "early", "d4", "nobody")
    ]
    for decision_id in ("d4", "early"):
        (receipt,) = log.commit([all_keyed([made(decision_id, art)], [])])
        assert receipt.let_go == decision_id
    (receipt,) = log.commit([all_keyed([], late)])
    assert receipt.duplicates == (True, False, False, False, False)
    publish(log, data, experiments)
    found = lake.sql(
        lake.database_of(data),
        "SELECT decision_id, event_id, variant FROM rewards ORDER BY decision_id, event_id",
    )
    control = art.control.name
    expected = [("d1", "1"), ("d1", "2"), ("d4", "2"), ("early", "2")]
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        *((*key, control) for key in expected),
        ("nobody", "2", None),
    ]
    decisions = lake.sql(lake.database_of(data), "SELECT count(*) AS n FROM decisions")
    assert decisions["n"].to_pylist() == [4]
