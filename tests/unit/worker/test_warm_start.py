"""A variant that starts from a trained policy, or from another experiment's log: still a fold, that
verification reaches bit by bit.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from topbill import spec
from topbill.domain.errors import PolicyError, SpecError
from topbill.domain.records import RewardEvent
from topbill.engine import CompiledExperiment, DecideRequest, Engine
from topbill.log import Log, Matured
from topbill.policies.trained import TrainedPolicy
from topbill.spec import Experiment
from topbill.worker.archive import Span
from topbill.worker.learner import Learner
from topbill.worker.verification import verify

from .conftest import Clock

SECOND = 1_000_000
START = 2_000_000
FILE = """
experiment: KEY
surface: artwork
context: {hour: {type: cycle, period: 24}}
actions: [{id: face}, {id: chase}, {id: skyline}]
metrics: {play: {event: play, kind: binary, window: 5s}}
objective: {play: 1.0}
variants:
  control: {policy: uniform, share: 50%, control: true}
  ours: {policy: linucb, share: 50%, min_probability: 5%STARTS}
"""


def text_of(key: str, starts: str = "") -> str:
    return FILE.replace("KEY", key).replace("STARTS", f", start_from: {starts}" if starts else "")


def experiment(folder: Path, key: str, starts: str = "") -> Experiment:
    path = folder / f"{key}.yaml"
    path.write_text(text_of(key, starts))
    return spec.load(path)


def live_through(
    log: Log, clock: Clock, art: Experiment, decisions: int = 80, first: int = 0
) -> None:
    """Decisions of ever new viewers; who sees a face plays it."""
    deciding = Engine([art])
    for i in range(first, first + decisions):
        body = {"experiment": art.key, "unit": f"u{i}", "decision_id": f"{art.key}{i}"}
        request = json.dumps({**body, "context": {"hour": i % 24}})
        decision = deciding.decide(msgspec.json.decode(request, type=DecideRequest))
        log.append([decision])
        clock.now += SECOND // 10
        if decision.slate[0].action == "face":
            play = RewardEvent(decision_id=decision.decision_id, event_id="e", event="play")
            log.append([], [play])
    clock.now += 20 * SECOND


def run(log: Log, experiments: list[Experiment]) -> None:
    learner = Learner(log, experiments)
    while learner.step():
        pass


def nothing(_span: Span, _steps: object) -> list[Matured]:
    return []


def until(clock: Clock) -> str:
    return f"{{log: old, until: '{datetime.fromtimestamp(clock.now / 1e6, UTC).isoformat()}'}}"


def trained(art: Experiment, state: bytes, **changes: object) -> TrainedPolicy:
    own = TrainedPolicy(
        kind="linucb",
        params={},
        context=art.context,
        action_features=art.action_features,
        digest=sha256(state).hexdigest(),
        state=state,
    )
    return msgspec.structs.replace(own, **changes)  # type: ignore[arg-type]


def test_a_variant_that_starts_from_a_log_knows_it_and_is_verified_bit_by_bit(
    tmp_path: Path, log: Log, clock: Clock
) -> None:
    old = experiment(tmp_path, "old")
    live_through(log, clock, old)
    new = experiment(tmp_path, "new", until(clock))
    live_through(log, clock, new, 30)
    run(log, [old, new])
    verification = verify(log, new, nothing)
    assert verification.same
    cold = experiment(tmp_path, "cold")
    live_through(log, clock, cold, 1)
    before = CompiledExperiment(cold).policies["ours"].dump()
    stored = log.snapshot("new")
    assert stored is not None
    # All 80 decisions of the old log, whoever made them, and its own.
    own = log.matured("new", 0, 5 * SECOND, log.barrier(), 100)
    # A slow machine falls back, and nobody learns from that.
    learned = [row for row in own if row.decision.reason == "policy"]
    mine = sum(row.decision.variant == "ours" for row in learned if row.seq <= stored.watermark)
    state = msgspec.msgpack.decode(stored.states["ours"])
    old_ones = log.matured("old", 0, 5 * SECOND, log.barrier(), 100)
    taught = sum(row.decision.reason == "policy" for row in old_ones)
    assert taught >= 70
    assert state["numbers"]["learned"] == taught + mine
    assert stored.states["ours"] != before
    assert stored.states["control"] == CompiledExperiment(new).policies["control"].dump()


def test_it_starts_from_the_same_whatever_came_to_that_log_since(
    tmp_path: Path, log: Log, clock: Clock
) -> None:
    """Decisions after `until` are not of it."""
    old = experiment(tmp_path, "old")
    live_through(log, clock, old)
    new = experiment(tmp_path, "new", until(clock))
    live_through(log, clock, new, 20)
    run(log, [old, new])
    first = verify(log, new, nothing).states
    clock.now += SECOND
    live_through(log, clock, old, 40, first=80)
    assert verify(log, new, nothing).states == first
    assert verify(log, new, nothing).same


def test_nothing_is_learned_until_that_time_is_over(tmp_path: Path, log: Log, clock: Clock) -> None:
    old = experiment(tmp_path, "old")
    live_through(log, clock, old, 20)
    clock_then = clock.now
    clock.now += 3600 * SECOND
    starts = until(clock)
    clock.now = clock_then
    new = experiment(tmp_path, "new", starts)
    live_through(log, clock, new, 20)
    run(log, [new])
    assert log.snapshot("new") is None
    clock.now += 3700 * SECOND
    live_through(log, clock, experiment(tmp_path, "other"), 1)
    run(log, [new])
    assert verify(log, new, nothing).same


def test_a_variant_that_starts_from_a_file_decides_by_it_from_the_first_decision_on(
    tmp_path: Path, log: Log, clock: Clock
) -> None:
    old = experiment(tmp_path, "old")
    live_through(log, clock, old)
    run(log, [old])
    stored = log.snapshot("old")
    assert stored is not None
    trained(old, stored.states["ours"]).write(tmp_path / "better.policy")
    new = experiment(tmp_path, "new", "{snapshot: better.policy}")
    compiled = CompiledExperiment(new)
    assert compiled.policies["ours"].dump() == stored.states["ours"]
    live_through(log, clock, new, 30)
    run(log, [new])
    verification = verify(log, new, nothing)
    assert verification.same
    # Another file is another experiment, and other decisions.
    assert new.learning_fingerprint != experiment(tmp_path, "new").learning_fingerprint
    trained(old, stored.states["ours"], log="x").write(tmp_path / "better.policy")
    again = experiment(tmp_path, "new", "{snapshot: better.policy}")
    assert again.learning_fingerprint != new.learning_fingerprint


def problem(folder: Path, starts: str, policy: str = "linucb") -> str:
    path = folder / "bad.yaml"
    path.write_text(text_of("bad", starts).replace("policy: linucb", f"policy: {policy}"))
    with pytest.raises(SpecError) as raised:
        spec.load(path)
    (found,) = raised.value.problems
    return str(found)


@pytest.mark.parametrize(
    ("starts", "policy", "message"),
    [
        ("{}", "linucb", "start_from: got neither of them; expected one of snapshot"),
        ("{log: old}", "linucb", "start_from.until: got nothing; expected the time before which"),
        ("{log: old, until: soon}", "linucb", "start_from.until: got 'soon'; expected a date"),
        ("{snapshot: none.policy}", "linucb", "start_from.snapshot: got .*no such file"),
        ("{snapshot: bad.yaml}", "linucb", "start_from.snapshot: got .*is no trained policy"),
        ("{snapshot: ../x.policy}", "linucb", "start_from.snapshot: got .*a file beside"),
        (
            "{log: old, until: 2026-01-01, snapshot: a.policy}",
            "linucb",
            "start_from.snapshot: got .*no such file",
        ),
        ("{log: old, until: 2026-01-01}", "uniform", "start_from: got one of uniform; expected no"),
        ("{lag: old}", "linucb", "start_from.*lag"),
    ],
)
def test_a_wrong_start_is_told_by_its_place(
    tmp_path: Path, starts: str, policy: str, message: str
) -> None:
    path = tmp_path / "bad.yaml"
    params = text_of("bad", starts).replace("policy: linucb", f"policy: {policy}")
    path.write_text(params)
    with pytest.raises(SpecError, match=f"bad.yaml:10: variants.ours.{message}"):
        spec.load(path)


def test_a_snapshot_of_another_kind_or_other_features_is_refused(tmp_path: Path) -> None:
    old = experiment(tmp_path, "old")
    state = CompiledExperiment(old).policies["ours"].dump()
    trained(old, state).write(tmp_path / "a.policy")
    assert "of kind linucb; expected one of thompson" in problem(
        tmp_path, "{snapshot: a.policy}", "thompson"
    )
    assert "one of the same model and parameters" in problem(
        tmp_path, "{snapshot: a.policy}", "linucb, model: disjoint"
    )
    trained(old, state, context=()).write(tmp_path / "a.policy")
    assert "whose context is nothing; expected the file's own, in its order: hour (cycle" in (
        problem(tmp_path, "{snapshot: a.policy}")
    )
    pinned = "{snapshot: a.policy, sha256: " + "0" * 64 + "}"
    assert "it is another file" in problem(tmp_path, pinned)


def test_who_has_not_read_the_file_says_so(tmp_path: Path) -> None:
    old = experiment(tmp_path, "old")
    new = spec.from_raw(
        {
            **msgspec.json.decode(msgspec.json.encode(old.raw)),
            "variants": {
                "control": {"policy": "uniform", "share": "50%", "control": True},
                "ours": {
                    "policy": "linucb",
                    "share": "50%",
                    "min_probability": "5%",
                    "start_from": {"snapshot": "gone.policy", "sha256": "f" * 64},
                },
            },
        },
        "audit",
    )
    with pytest.raises(PolicyError, match="load the experiment from its file"):
        CompiledExperiment(new).policies["ours"].dump()


PRIOR = """
experiment: KEY
surface: titles
action_features: {funny: {type: number}}
actions: ACTIONS
metrics: {play: {event: play, kind: binary, window: 5s}}
objective: {play: 1.0}
variants:
  control: {policy: uniform, share: 50%, control: true}
  ours: {policy: linucb, share: 50%, min_probability: 5%MORE}
"""


def titles(folder: Path, key: str, more: str = "") -> Experiment:
    """Eight titles of its own; every other one is funny."""
    actions = ", ".join(f"{{id: {key}{i}, features: {{funny: {i % 2}}}}}" for i in range(8))
    path = folder / f"{key}.yaml"
    text = PRIOR.replace("KEY", key).replace("ACTIONS", f"[{actions}]").replace("MORE", more)
    path.write_text(text)
    return spec.load(path)


def note(log: Log, art: Experiment) -> None:
    log.revise(art.key, art.fingerprint, "tests", json.dumps(art.raw))


def laughed_through(log: Log, clock: Clock, art: Experiment, decisions: int) -> None:
    """Who sees a funny title plays it nine times of ten, and any other one in ten."""
    deciding = Engine([art])
    for i in range(decisions):
        body = {"experiment": art.key, "unit": f"u{i}", "decision_id": f"{art.key}{i}"}
        decision = deciding.decide(msgspec.json.decode(json.dumps(body), type=DecideRequest))
        log.append([decision])
        clock.now += SECOND // 10
        funny = int(decision.slate[0].action[-1]) % 2 == 1
        if funny == (i % 10 > 0):
            play = RewardEvent(decision_id=decision.decision_id, event_id="e", event="play")
            log.append([], [play])
    clock.now += 20 * SECOND


@pytest.mark.parametrize("policy", ["linucb", "auto"])
def test_a_prior_of_earlier_experiments_is_folded_bit_by_bit(
    tmp_path: Path, log: Log, clock: Clock, policy: str
) -> None:
    earlier = [titles(tmp_path, key) for key in ("spring", "summer")]
    for art in earlier:
        note(log, art)
        laughed_through(log, clock, art, 160)
    titles(tmp_path, "new", ", prior: {from: [spring, summer]}")
    path = tmp_path / "new.yaml"
    path.write_text(path.read_text().replace("policy: linucb", f"policy: {policy}"))
    new = spec.load(path)
    # Nobody knows when it began until it is in the audit.
    laughed_through(log, clock, new, 1)
    run(log, [new])
    assert log.snapshot("new") is None
    note(log, new)
    run(log, [new])
    stored = log.snapshot("new")
    assert stored is not None
    assert verify(log, new, nothing).same
    # What it believes of titles that nobody has seen.
    compiled = CompiledExperiment(new)
    ours = compiled.policies["ours"]
    ours.load(stored.states["ours"])
    eta = ours.score(compiled.encoder.encode({}), compiled.actions, 0).eta
    assert eta[1::2].min() > eta[::2].max() + 1.0
    # What was decided in an earlier one since then is not of it.
    laughed_through(log, clock, titles(tmp_path, "spring"), 1)
    laughed_through(log, clock, new, 30)
    run(log, [new])
    assert verify(log, new, nothing).same


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (", prior: {}", "variants.ours.prior.from: got nothing; expected this key, which"),
        (", prior: {from: []}", r"variants.ours.prior.from: got .*expected a list of 1 to 1,000"),
        (", prior: {from: [a, a]}", "every value once"),
        (", prior: {from: [a, bad]}", r"prior.from\[1\]: got 'bad'; expected earlier experiments"),
        (", prior: {from: [a], untl: 1}", "did you mean until"),
        (", prior: {from: [a], until: soon}", "prior.until: got 'soon'; expected a date"),
        (", model: disjoint, prior: {from: [a]}", "prior: got one of model: disjoint; expected a"),
        (", link: linear, prior: {from: [a]}", "prior: got one of link: linear; expected a"),
        (
            ", prior: {from: [a]}, start_from: {log: a, until: 2026-01-01}",
            "prior: got both prior and start_from; expected one of them",
        ),
    ],
)
def test_a_wrong_prior_is_told_by_its_place(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        titles(tmp_path, "bad", more)
    (found,) = raised.value.problems
    assert found.line == 10


def test_a_kind_without_a_prior_is_told(tmp_path: Path) -> None:
    titles(tmp_path, "bad")
    path = tmp_path / "bad.yaml"
    path.write_text(path.read_text().replace("policy: uniform", "prior: {from: [a]}, policy: vw"))
    with pytest.raises(SpecError, match="prior: got one of vw; expected none, or a variant"):
        spec.load(path)
