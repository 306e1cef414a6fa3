"""A file that names its features, their values or its metrics in another order goes on learning in
that of before, to the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from topbill.domain.records import Decision, RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.log import Log, open_log
from topbill.log.learning import as_learned
from topbill.spec import Experiment, from_raw
from topbill.worker.policy_fold import PolicyFold

NOTHING = msgspec.Raw(b"{}")
METRICS = {
    "play": {"event": "play", "kind": "binary", "window": "1s"},
    "ends": {"event": "end", "kind": "binary", "window": "1s"},
}
OBJECTIVE = {"play": 1.0, "ends": 0.3}
CONTEXT = {
    "hour": {"type": "cycle", "period": 24},
    "device": {"type": "category", "values": ["mobile", "tv"]},
}


def file(art: Experiment, **more: Any) -> Experiment:
    return from_raw({**art.raw, "metrics": METRICS, "objective": OBJECTIVE, **more}, "art.yaml")


def reordered(art: Experiment, **more: Any) -> Experiment:
    variants = {name: dict(variant) for name, variant in art.raw["variants"].items()}
    variants["editorial"]["order"] = ["b", "a"]
    metrics = dict(reversed(METRICS.items()))
    return file(art, context=CONTEXT, metrics=metrics, variants=variants, **more)


def asked(unit: str, decision_id: str, context: msgspec.Raw = NOTHING) -> DecideRequest:
    return DecideRequest(experiment="art", context=context, unit=unit, decision_id=decision_id)


def rows(experiment: Experiment) -> list[tuple[int, Decision, list[RewardEvent]]]:
    """Decisions and what came of them."""
    engine = Engine([experiment], clock=lambda: 0.0)
    came = []
    for n in range(60):
        context = msgspec.json.encode({"device": ("tv", "mobile")[n % 2], "hour": n % 24})
        request = asked(f"u{n}", f"d{n}", msgspec.Raw(context))
        decision = engine.decide(request)
        names = [name for k, name in enumerate(("play", "end")) if n % (k + 2) == 0]
        events = [
            RewardEvent(decision_id=f"d{n}", event_id=f"{name}{n}", event=name, position=0)
            for name in names
        ]
        came.append((n + 1, decision, events))
    return came


@pytest.fixture
def log(art: Experiment) -> Iterator[Log]:
    """A log in which a version was learned from the first 30 of `rows`."""
    before = file(art)
    with open_log("memory:") as log:
        log.revise("art", before.fingerprint, "ann", msgspec.json.encode(before.raw).decode())
        fold = PolicyFold(before)
        fold.learn(rows(before)[:30])
        log.write_snapshot(fold.snapshot())
        yield log


def test_it_learns_on_in_the_order_of_before_to_the_same_bytes(art: Experiment, log: Log) -> None:
    before, after = file(art), reordered(art)
    assert after.learning_fingerprint != before.learning_fingerprint
    assert after.learning_content == before.learning_content
    learned = as_learned(after, log)
    assert learned.fingerprint == after.fingerprint
    assert learned.learning_fingerprint == before.learning_fingerprint
    plain = PolicyFold(before)
    plain.learn(rows(before))
    fold = PolicyFold(learned)
    fold.resume(log)
    assert fold.version == 1
    fold.learn(rows(before)[30:])
    assert fold.states() == plain.states()
    log.write_snapshot(fold.snapshot())
    # Whoever starts anew finds the same order, also once the version is the new revision's.
    log.revise("art", after.fingerprint, "ann", msgspec.json.encode(after.raw).decode())
    assert as_learned(after, log) == learned


def test_a_service_decides_on_with_what_was_learned(art: Experiment, log: Log) -> None:
    engine = Engine([file(art)], clock=lambda: 0.0)
    snapshot = log.snapshot("art")
    assert snapshot is not None
    assert engine.find("art").adopt(snapshot)
    policies = engine.find("art").policies
    decided = [engine.decide(asked(f"u{n}", "d")) for n in range(9)]
    engine.reload([as_learned(reordered(art), log)])
    compiled = engine.find("art")
    assert compiled.policies["thompson"] is policies["thompson"]
    for n, before in enumerate(decided):
        after = engine.decide(asked(f"u{n}", "d"))
        # The order that the file gives is another one; what draws draws the same.
        shown = "b" if before.variant == "editorial" else before.slate[0].action
        assert (after.variant, after.slate[0].action) == (before.variant, shown)


@pytest.mark.parametrize(
    "changed",
    [
        {"objective": {"play": 1.0, "ends": 0.5}},
        {"context": {**CONTEXT, "kids": {"type": "flag"}}},
        {"slots": 2},
    ],
)
def test_what_learns_something_else_begins_anew(
    changed: dict[str, Any], art: Experiment, log: Log
) -> None:
    after = file(art, **{"context": CONTEXT, **changed})
    assert after.learning_content != file(art).learning_content
    assert as_learned(after, log) == after


def test_a_file_as_it_was_learns_in_its_own_order(art: Experiment, log: Log) -> None:
    assert as_learned(file(art), log).learned_as is None
    with open_log("memory:") as empty:
        assert as_learned(reordered(art), empty).learned_as is None
