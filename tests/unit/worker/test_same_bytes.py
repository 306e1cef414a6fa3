"""The same log gives the same policy bytes and propensities as it did in 0.1.0: what a reward
means, what a decision teaches, and how policies learn from it have not changed by a bit.
"""

from __future__ import annotations

import platform
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from topbill import spec
from topbill.domain.chance import uniform
from topbill.domain.records import Decision, RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.policies import codec
from topbill.policies.linear import recent
from topbill.worker.policy_fold import PolicyFold

EXPERIMENT = """
experiment: pinned
surface: titles
slots: 2
click_model: cascade
context:
  device: {type: category, values: [tv, mobile, web]}
  hour: {type: cycle, period: 24}
  taste: {type: vector, keys: [action, comedy, drama]}
action_features:
  year: {type: number, min: 1940, max: 2020}
  genres: {type: vector, keys: [action, comedy, drama]}
actions:
  - {id: a, features: {year: 1942, genres: {drama: 1}}}
  - {id: b, features: {year: 1959, genres: {comedy: 1}}}
  - {id: c, features: {year: 1972, genres: {action: 0.5, drama: 0.5}}}
  - {id: d, features: {year: 1988, genres: {action: 1, comedy: 1}}}
  - {id: e, features: {year: 2001, genres: {action: 1}}}
metrics:
  play: {event: play, kind: binary, window: 30m}
  watched: {event: watch, kind: max, window: 6h}
  seconds: {event: watch, kind: sum, window: 1h, cap: 2}
  rating: {event: rating, kind: mean, window: 6h, cap: 5, default: 2.5}
  finish: {event: rating, kind: last, window: 6h, cap: 5}
  leave: {event: leave, kind: binary, window: 30m}
objective: {play: 0.2, watched: 1.0, seconds: 0.3, rating: 0.1, finish: 0.1, leave: -0.2}
variants:
  first: {policy: fixed, order: [a, b], share: 10%, control: true}
  linucb: {policy: linucb, share: 30%, min_probability: 2%}
  thompson: {policy: thompson, share: 30%, training: shared, min_probability: 0%}
  epsilon: {policy: epsilon_greedy, share: 30%, epsilon: 0.1}
"""
STATES = {
    "first": "df477ab43ad2c8e8",
    "linucb": "b5b546ecfbb3b15c",
    "thompson": "021841eb2bcec3a8",
    "epsilon": "98d47b4c2b57f89c",
}
PROPENSITIES = "9f0486536061a881"
FINGERPRINTS = ("1231d38577e8", "de829a7b913e")
"""As 0.1.0 computed them: of the states, of what was decided, and of the file."""


def events(decision: Decision) -> list[RewardEvent]:
    """What came of a decision: everything follows from its id."""

    def u(*parts: str) -> float:
        return uniform(decision.decision_id, *parts)

    came = []
    for number, name in enumerate(("play", "watch", "watch", "rating", "leave")):
        if u("whether", str(number)) < 0.4:
            position = None if u("where", str(number)) < 0.2 else int(2 * u("at", str(number)))
            came.append(
                RewardEvent(
                    decision_id=decision.decision_id,
                    event_id=str(number),
                    event=name,
                    value=round(5 * u("value", str(number)), 3),
                    position=position,
                    occurred_at=decision.decided_at
                    + int(7 * 3600 * 1e6 * u("when", str(number)) ** 2),
                )
            )
    return came


def digest(state: bytes) -> str:
    return blake2b(state, digest_size=8).hexdigest()


@pytest.mark.skipif(
    platform.machine() != "x86_64" or find_spec("numba") is None,
    reason="other processors and NumPy alone may round the last bit otherwise",
)
def test_policies_learn_the_same_bytes_and_decide_with_the_same_propensities(
    tmp_path: Path,
) -> None:
    (tmp_path / "pinned.yaml").write_text(EXPERIMENT)
    (experiment,) = spec.load_all([tmp_path])
    assert (experiment.fingerprint, experiment.learning_fingerprint) == FINGERPRINTS
    fold = PolicyFold(experiment)
    # As 0.1.0 explored and learned: at the parameter for good, and in long memory alone.
    (tmp_path / "pinned.yaml").write_text(
        EXPERIMENT.replace("policy: linucb,", "policy: linucb, adaptive: false,").replace(
            "policy: thompson,", "policy: thompson, adaptive: false,"
        )
    )
    (as_ever,) = spec.load_all([tmp_path])
    plain = PolicyFold(as_ever)
    engine = Engine([as_ever], clock=lambda: 0.0)
    propensities = blake2b(digest_size=8)
    rows: list[tuple[int, Decision, list[RewardEvent]]] = []
    for n in range(600):
        taste = {
            genre: round(uniform("taste", genre, str(n % 40)), 3) for genre in ("action", "drama")
        }
        context = {"device": ("tv", "mobile", "web")[n % 3], "hour": n % 24, "taste": taste}
        decision = engine.decide(
            DecideRequest(
                experiment="pinned",
                context=msgspec.Raw(msgspec.json.encode(context)),
                decision_id=f"p-{n}",
            )
        )
        decision = msgspec.structs.replace(decision, decided_at=n * 60_000_000)
        slate = [(placed.action, placed.propensity) for placed in decision.slate]
        propensities.update(repr((decision.variant, slate, decision.probabilities)).encode())
        rows.append((n + 1, decision, events(decision)))
        if len(rows) == 1 + n // 20:  # ever larger batches
            fold.learn(rows)
            plain.learn(rows)
            rows = []
            # The engine decides with what was learned, so that the propensities depend on it too.
            for name, state in plain.states().items():
                engine.find("pinned").policies[name].load(state)
    assert {name: digest(state) for name, state in plain.states().items()} == STATES
    learned = {name: codec.without(state, *recent.NAMES) for name, state in fold.states().items()}
    assert {name: digest(state) for name, state in learned.items()} == STATES
    assert propensities.hexdigest() == PROPENSITIES
