"""`estimate_slate`: what the browsing models imply, slates of unequal length, refusals, and named
errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topbill.domain.errors import BadData, BadRequest
from topbill.ope import SLATE_ESTIMATORS, estimate, estimate_slate

K = 3


def made(slates: int = 400, seed: int = 0) -> dict[str, Any]:
    """Independent choices of 2 actions at each of three positions, by a soft policy; the target
    prefers action 1.
    """
    rng = np.random.default_rng(seed)
    p1 = rng.uniform(0.4, 0.6, size=(slates, K))
    action = rng.random((slates, K)) < p1
    p, pi = np.where(action, p1, 1 - p1), np.where(action, 0.7, 0.3)
    return {
        "rewards": (rng.random((slates, K)) < 0.2 + 0.3 * action).astype(float).ravel(),
        "slate_id": np.repeat(np.arange(slates), K),
        "position": np.tile(np.arange(K), slates),
        "propensities": np.repeat(p.prod(axis=1), K),
        "target_propensities": np.repeat(pi.prod(axis=1), K),
        "item_propensities": p.ravel(),
        "target_item_propensities": pi.ravel(),
        "cascade_propensities": p.cumprod(axis=1).ravel(),
        "target_cascade_propensities": pi.cumprod(axis=1).ravel(),
        "q_logged": 0.2 + 0.3 * action.ravel(),
        "q_target": np.full(slates * K, 0.2 + 0.3 * 0.7),
    }


@pytest.mark.parametrize("name", SLATE_ESTIMATORS)
def test_each_finds_the_value_of_a_policy_whose_truth_is_known(name: str) -> None:
    got = estimate_slate(**made(20_000), estimators=(name,))[name]
    assert got.value is not None
    assert got.se is not None
    assert abs(got.value - 3 * (0.2 + 0.3 * 0.7)) < 4 * got.se


@pytest.mark.parametrize("name", SLATE_ESTIMATORS)
def test_the_logging_policy_itself_is_worth_what_it_earned(name: str) -> None:
    data = made()
    for level in ("", "item_", "cascade_"):
        data[f"target_{level}propensities"] = data[f"{level}propensities"]
    data["q_target"] = data["q_logged"]
    assert estimate_slate(**data, estimators=(name,))[name].value == pytest.approx(
        data["rewards"].sum() / 400
    )


@pytest.mark.parametrize(
    ("ours", "theirs"), [("sips", "ips"), ("snsips", "snips"), ("iips", "ips"), ("rips", "ips")]
)
def test_slates_of_one_are_single_choices(ours: str, theirs: str) -> None:
    data = {name: column.reshape(-1, K)[:, 0] for name, column in made().items()}
    data |= {
        "propensities": data["item_propensities"],
        "target_propensities": data["target_item_propensities"],
    }
    slate = estimate_slate(**data, estimators=(ours,))[ours]
    single = estimate(
        data["rewards"], data["propensities"], data["target_propensities"], estimators=(theirs,)
    )[theirs]
    assert (slate.value, slate.se) == (pytest.approx(single.value), pytest.approx(single.se))


def test_slates_may_have_unequal_lengths() -> None:
    data = made()
    keep = np.random.default_rng(1).random(data["rewards"].size) < 0.5
    keep |= data["position"] < 2
    d = {name: column[keep] for name, column in data.items()}
    w = d["target_item_propensities"] / d["item_propensities"]
    assert estimate_slate(**d, estimators=("iips",))["iips"].value == pytest.approx(
        (w * d["rewards"]).sum() / 400
    )


def test_units_of_several_slates_widen_the_interval() -> None:
    data = made()
    double = {name: np.concatenate([column, column]) for name, column in data.items()}
    double["slate_id"] = np.concatenate([data["slate_id"], data["slate_id"] + 10_000])
    units = np.concatenate([data["slate_id"], data["slate_id"]])
    once = estimate_slate(**data, estimators=("rips",))["rips"]
    assert estimate_slate(**double, units=units, estimators=("rips",))["rips"].se == pytest.approx(
        once.se
    )


def test_missing_levels_and_failing_positions_are_refused() -> None:
    data = made()
    few = {k: v for k, v in data.items() if "cascade" not in k and not k.startswith("q_")}
    got = estimate_slate(**few, estimators=("sips", "rips", "cascade-dr"))
    assert [e.reason for e in got.values()] == [
        None,
        "needs_propensity_level",
        "needs_propensity_level",
    ]
    assert estimate_slate(
        **(data | {"q_logged": None, "q_target": None}), estimators=("cascade-dr",)
    )["cascade-dr"].reason == ("needs_reward_model")
    data["target_item_propensities"] = np.where(
        data["position"] == 2, 0.01, data["target_item_propensities"]
    )
    assert estimate_slate(**data, estimators=("iips",))["iips"].reason == "mean_weight_off"


def test_bad_rows_are_named() -> None:
    data = made()
    with pytest.raises(BadData, match="position: row 1: got a position twice in a slate"):
        estimate_slate(**(data | {"position": np.where(np.arange(1200) == 1, 0, data["position"])}))
    zero = np.where(np.arange(1200) == 2, 0.0, data["cascade_propensities"])
    with pytest.raises(BadData, match="cascade_propensities: row 2: got 0"):
        estimate_slate(**(data | {"cascade_propensities": zero}))
    halved = np.where(np.arange(1200) == 0, data["propensities"] / 2, data["propensities"])
    with pytest.raises(BadData, match="another weight than the slate's other rows"):
        estimate_slate(**(data | {"propensities": halved}))
    with pytest.raises(BadData, match="target_item_propensities: got nothing"):
        estimate_slate(**(data | {"target_item_propensities": None}))
    with pytest.raises(BadRequest, match="got 'ips'; expected some of sips"):
        estimate_slate(**data, estimators=("ips",))
