"""`estimate_slate`: what the browsing models imply, slates of unequal length, refusals, and named
errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.errors import BadData, BadRequest
from topbill.ope import OPEN, SLATE_ESTIMATORS, estimate, estimate_slate

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


def as_logged(data: dict[str, Any]) -> dict[str, Any]:
    """The same log, with the policy that wrote it as its target."""
    same = dict(data)
    for level in ("", "item_", "cascade_"):
        same[f"target_{level}propensities"] = same[f"{level}propensities"]
    return same | {"q_target": same["q_logged"]}


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=40, max_size=80),
    st.sampled_from((0, 1)),
)
def test_on_slates_of_any_lengths_the_logging_policy_is_worth_what_it_earned(
    filled: list[list[bool]], first: int
) -> None:
    """Fewer candidates than slots, empty slots between, and one long slate among short ones."""
    kept = np.array(filled)
    kept[:, 0] |= ~kept.any(axis=1)
    kept[:2] = True  # somebody has the first position, so that it is known where positions start
    rng = np.random.default_rng(len(filled))
    p = rng.uniform(0.2, 1.0, size=kept.shape)
    slate, position = np.nonzero(kept)
    cascade = np.where(kept, p, 1.0).cumprod(axis=1)
    rewards = rng.uniform(0.1, 1.0, size=slate.size)
    data = {
        "rewards": rewards,
        "slate_id": slate,
        "position": position + first,
        "propensities": cascade[slate, -1],
        "item_propensities": p[kept],
        "cascade_propensities": cascade[kept],
        "q_logged": rng.uniform(size=slate.size),
    }
    for estimate_ in estimate_slate(**as_logged(data)).values():
        assert estimate_.reason is None
        assert estimate_.value == pytest.approx(rewards.sum() / len(kept))


def test_self_normalised_estimates_of_unequal_slates_are_their_formulas() -> None:
    data = made()
    kept = (np.arange(1200) // K % 4 > 0) | (data["position"] < 1)
    d = {name: column[kept] for name, column in data.items()}
    position, r = d["position"], d["rewards"]
    w = d["target_item_propensities"] / d["item_propensities"]
    items = cascades = 0.0
    cascade = np.ones((400, K))
    cascade[d["slate_id"], position] = d["target_cascade_propensities"] / d["cascade_propensities"]
    short = np.arange(400) % 4 == 0
    cascade[short, 1:] = cascade[short, :1]
    for k in range(K):
        at = position == k
        items += (w[at] * r[at]).sum() / w[at].sum() * at.sum() / 400
        of_logged = cascade[d["slate_id"][at], k]
        cascades += (of_logged * r[at]).sum() / cascade[:, k].sum()
    got = estimate_slate(**d, estimators=("sniips", "snrips"))
    assert got["sniips"].value == pytest.approx(items, rel=1e-12)
    assert got["snrips"].value == pytest.approx(cascades, rel=1e-12)


@pytest.mark.parametrize("name", ["sips", "rips", "snsips", "snrips", "cascade-dr"])
def test_each_finds_the_value_where_the_first_item_decides_how_long_a_slate_is(name: str) -> None:
    """Action 1 on top leaves nothing below it, so that the target's slates are shorter than the
    log's. (The others assume that an item is shown whatever stands above.)"""
    data = made(20_000, seed=3)
    ends = data["q_logged"].reshape(-1, K)[:, 0] > 0.3
    kept = (data["position"] == 0) | ~np.repeat(ends, K)
    d = {column: values[kept] for column, values in data.items()}
    last = np.append(np.flatnonzero(d["position"] == 0)[1:], kept.sum()) - 1
    of_slate = np.repeat(last, np.diff(np.append(-1, last)))
    for half in ("", "target_"):
        d[f"{half}propensities"] = d[f"{half}cascade_propensities"][of_slate]
    each = 0.2 + 0.3 * 0.7
    truth = each + 0.3 * 2 * each
    got = estimate_slate(**d, estimators=(name,))[name]
    assert got.value is not None
    assert got.se is not None
    assert abs(got.value - truth) < 4 * got.se


def test_the_standard_error_counts_how_many_slates_are_long() -> None:
    """It is the bootstrap's, which draws slates with their lengths: 4,000 draws tell it to 5%."""
    data = made(600, seed=5)
    kept = (np.arange(1800) // K % 3 > 0) | (data["position"] < 1)
    d = {name: column[kept] for name, column in data.items()}
    options: dict[str, Any] = {"estimators": ("sniips", "snrips")}
    drawn = estimate_slate(**d, **options, interval="bootstrap", replicates=4000)
    for name, normal in estimate_slate(**d, **options).items():
        assert normal.low is not None
        assert normal.high is not None
        assert drawn[name].low == pytest.approx(normal.low, abs=0.1 * (normal.high - normal.low))
        assert drawn[name].high == pytest.approx(normal.high, abs=0.1 * (normal.high - normal.low))


def test_positions_may_be_counted_from_one_and_from_nothing_else() -> None:
    data = made()
    options: dict[str, Any] = {"estimators": ("iips", "rips", "snrips")}
    later = data | {"position": data["position"] + 1}
    assert estimate_slate(**later, **options) == estimate_slate(**data, **options)
    with pytest.raises(BadData, match=r"position: rows 0, 3, 6, 9, 12 and 395 more: got 2 as the"):
        estimate_slate(**(data | {"position": data["position"] + 2}))
    odd = np.where(np.arange(1200) == 4, 0.5, data["position"])
    with pytest.raises(BadData, match=r"position: row 4: got no position; expected 0, 1, 2"):
        estimate_slate(**(data | {"position": odd}))


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


def test_pandas_columns_of_other_indexes_and_other_shapes_are_refused() -> None:
    data = made(50)
    plain = estimate_slate(**data)
    series = {name: pd.Series(column) for name, column in data.items()}
    assert estimate_slate(**series) == plain
    assert estimate_slate(**{name: c.reshape(-1, 1) for name, c in data.items()}) == plain
    for name in series:
        if name != "rewards":
            with pytest.raises(BadData, match=f"{name}: rows 0, 1, .* another index than .*"):
                estimate_slate(**(series | {name: series[name].iloc[::-1]}))
    with pytest.raises(BadData, match=r"slate_id: got an array of shape \(50, 3\)"):
        estimate_slate(**(data | {"slate_id": data["slate_id"].reshape(50, 3)}))


def test_slates_that_stand_for_several_are_as_those_of_one_unit() -> None:
    data = made(120)
    counts = 1 + np.arange(120) % 5
    slates = np.repeat(np.arange(120), counts)
    rows = (slates[:, None] * K + np.arange(K)).ravel()
    repeated = {name: column[rows] for name, column in data.items()}
    repeated["slate_id"] = np.repeat(np.arange(slates.size), K)
    got = estimate_slate(**data, weights=np.repeat(counts, K), gates=OPEN)
    for name, other in estimate_slate(**repeated, units=data["slate_id"][rows], gates=OPEN).items():
        assert got[name].value == pytest.approx(other.value)
        assert got[name].se == pytest.approx(other.se)
    with pytest.raises(BadData, match=r"weights: rows .* got another weight than the slate"):
        estimate_slate(**data, weights=np.arange(1, 361))
