"""`estimate`: laws that every estimator obeys, clustering, refusals, and errors that name the
rows.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.errors import BadData, BadRequest
from topbill.ope import ESTIMATORS, OPEN, REASONS, Gates, delta_ope, estimate

ALL = tuple(ESTIMATORS)


def made(n: int = 2000, seed: int = 0, actions: int = 4) -> dict[str, Any]:
    """A log of n decisions by a soft policy, with a sharper target and a fair reward model."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, actions))
    p = np.exp(0.5 * logits) / np.exp(0.5 * logits).sum(axis=1, keepdims=True)
    pi = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = 1 / (1 + np.exp(1.5 - logits))
    a = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    q = np.clip(truth + 0.05 * rng.normal(size=truth.shape), 0, 1)
    row = np.arange(n)
    return {
        "rewards": (rng.random(n) < truth[row, a]).astype(float),
        "propensities": p[row, a],
        "target_propensities": pi[row, a],
        "q_logged": q[row, a],
        "q_target": (pi * q).sum(axis=1),
        "embedding_propensities": p[row, a] + p[row, (a + 1) % actions],
        "target_embedding_propensities": pi[row, a] + pi[row, (a + 1) % actions],
        "weight_moments": (pi**2 / p).sum(axis=1).mean() * np.ones(n),
    }


def run(data: dict[str, Any], names: tuple[str, ...] = ALL, **options: Any) -> dict[str, Any]:
    given_ = dict(data)
    columns = [given_.pop(k) for k in ("rewards", "propensities", "target_propensities")]
    return dict(estimate(*columns, **given_, estimators=names, **options))


def take(data: dict[str, Any], rows: Any) -> dict[str, Any]:
    return {name: column[rows] for name, column in data.items()}


@pytest.mark.parametrize("name", ALL)
def test_the_logging_policy_itself_is_worth_what_it_earned(name: str) -> None:
    data = made()
    data |= {"target_propensities": data["propensities"], "q_target": data["q_logged"]}
    data |= {"target_embedding_propensities": data["embedding_propensities"]}
    earned, modelled = data["rewards"].mean(), data["q_logged"].mean()
    expected = {"dm": modelled, "dros": modelled + 0.5 / 1.5 * (earned - modelled)}.get(
        name, earned
    )
    lam = {"dros": 0.5, "clipped-ips": 2.0, "switch-dr": 2.0, "sg-ips": 0.5, "sg-dr": 0.5}
    assert run(data, (name,), lam=lam)[name].value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(name: str, seed: int) -> None:
    data = made(300)
    shuffled = take(data, np.random.default_rng(seed).permutation(300))
    a, b = run(data, (name,), gates=OPEN)[name], run(shuffled, (name,), gates=OPEN)[name]
    assert (a.value, a.se) == (pytest.approx(b.value, rel=1e-9), pytest.approx(b.se, rel=1e-9))


@pytest.mark.parametrize("name", ALL)
def test_a_log_repeated_by_the_same_units_teaches_nothing_more(name: str) -> None:
    data = made(400)
    twice = take(data, np.tile(np.arange(400), 2))
    once = run(data, (name,), lam=0.5, gates=OPEN)[name]
    clustered = run(twice, (name,), lam=0.5, units=np.tile(np.arange(400), 2), gates=OPEN)[name]
    naive = run(twice, (name,), lam=0.5, gates=OPEN)[name]
    assert clustered.value == pytest.approx(once.value, rel=1e-9)
    assert clustered.se == pytest.approx(once.se, rel=1e-9)
    assert naive.se < 0.75 * once.se


@pytest.mark.parametrize("interval", ["normal", "bootstrap", "sequence"])
def test_more_data_narrows_the_interval_and_its_method_is_stated(interval: Any) -> None:
    small, large = (run(made(n), ("dr",), interval=interval)["dr"] for n in (2000, 32000))
    assert (large.high - large.low) < 0.5 * (small.high - small.low)
    assert small.low < small.value < small.high
    assert small.method


def test_self_normalised_estimates_follow_a_shift_of_rewards() -> None:
    data = made()
    raised = {**data, "rewards": data["rewards"] + 3.0}
    assert run(raised, ("snips",))["snips"].value == pytest.approx(
        run(data, ("snips",))["snips"].value + 3.0
    )


def test_lambda_leads_from_the_model_to_the_doubly_robust_estimate() -> None:
    data = made()
    plain = run(data, ("dm", "dr", "ips"))
    for name in ("switch-dr", "dros"):
        assert run(data, (name,), lam=0.0)[name].value == pytest.approx(plain["dm"].value)
        assert run(data, (name,), lam=float("inf"))[name].value == pytest.approx(plain["dr"].value)
    assert run(data, ("sg-dr",), lam=0.0)["sg-dr"].value == pytest.approx(plain["dr"].value)
    assert run(data, ("clipped-ips",), lam=float("inf"))["clipped-ips"].value == pytest.approx(
        plain["ips"].value
    )


def test_a_mapping_gives_each_estimator_its_own_lambda() -> None:
    got = run(
        made(), ("dros", "sg-dr", "switch-dr"), lam={"dros": 5.0, "sg-dr": 0.3, "switch-dr": "mse"}
    )
    assert (got["dros"].lam, got["sg-dr"].lam) == (5.0, 0.3)
    assert got["switch-dr"].lam in ESTIMATORS["switch-dr"].lambdas


def test_a_paired_difference_is_the_difference_and_surer_than_two_values() -> None:
    data = made(8000)
    near = 0.9 * data["target_propensities"] + 0.1 * data["propensities"]
    columns = (data["rewards"], data["propensities"])
    got = delta_ope(*columns, data["target_propensities"], near, estimators=("ips", "snips"))
    for name in ("ips", "snips"):
        ours = estimate(*columns, data["target_propensities"], estimators=(name,))[name]
        theirs = estimate(*columns, near, estimators=(name,))[name]
        assert ours.value is not None
        assert theirs.value is not None
        assert got[name].value == pytest.approx(ours.value - theirs.value, abs=1e-12)
        assert got[name].se is not None
        assert got[name].se < 0.2 * np.hypot(ours.se, theirs.se)


def test_a_policy_differs_from_itself_by_nothing() -> None:
    data = made()
    same = (
        data["rewards"],
        data["propensities"],
        data["target_propensities"],
        data["target_propensities"],
    )
    got = delta_ope(
        *same, q_logged=data["q_logged"], q_target=data["q_target"], q_baseline=data["q_target"]
    )
    # A standard error is the root of terms that cancel: rounding of 1e-16 in them is 1e-8 of their
    # size in the root.
    assert all(
        e.value == pytest.approx(0, abs=1e-12) and e.se == pytest.approx(0, abs=1e-9)
        for e in got.values()
    )


@pytest.mark.parametrize("name", ["ips", "clipped-ips"])
def test_betting_bounds_surround_the_truth_and_others_refuse_to_bet(name: str) -> None:
    data = made(20000)
    got = run(data, (name, "snips"), lam=2.0, interval="betting")
    assert 0 < got[name].low < got[name].value < got[name].high < 1
    assert (got["snips"].value, got["snips"].reason) == (None, "no_finite_sample_interval")


def test_a_known_weight_bound_narrows_the_upper_end() -> None:
    rng = np.random.default_rng(1)
    n, p = 20_000, 0.5
    w_logged = rng.random(n) < p
    rewards = (rng.random(n) < 0.01).astype(float)
    target = np.where(w_logged, 0.9, 0.1)
    free, bounded = (
        estimate(
            rewards, np.full(n, p), target, estimators=("ips",), interval="betting", max_weight=m
        )["ips"]
        for m in (None, 2.0)
    )
    assert free.high is not None
    assert bounded.high is not None
    assert bounded.high < free.high
    assert bounded.low == free.low
    with pytest.raises(
        BadData, match=r"max_weight: row \d+: got weight 1\.8; expected at most 1\.5"
    ):
        estimate(
            rewards, np.full(n, p), target, estimators=("ips",), interval="betting", max_weight=1.5
        )


# Refusals
# ------------------------------------------------------------


def refusal_of(**columns: Any) -> str | None:
    data = {k: columns.pop(k) for k in ("rewards", "propensities", "target_propensities")}
    got = estimate(**data, estimators=("ips", "snips"), **columns)
    reasons = {e.reason for e in got.values()}
    assert len(reasons) == 1
    for e in got.values():
        assert (
            (e.value is None)
            == (e.low is None)
            == (e.high is None)
            == (e.se is None)
            == (e.reason is not None)
        )
        json.dumps(e.as_dict(), allow_nan=False)
    return reasons.pop()


def test_a_log_that_hardly_meets_the_policy_is_refused() -> None:
    n = 5000
    rng = np.random.default_rng(0)
    rewards = (rng.random(n) < 0.1).astype(float)
    target = np.zeros(n)
    target[:2] = 1.0
    rewards[:2] = 1.0
    assert refusal_of(
        rewards=rewards, propensities=np.full(n, 1e-4), target_propensities=target
    ) == ("low_effective_sample")


def test_one_dominating_weight_is_refused() -> None:
    n = 5000
    p, r = np.full(n, 0.5), np.tile([0.0, 1.0], n // 2)
    p[7] = 0.0005
    assert (
        refusal_of(rewards=r, propensities=p, target_propensities=np.full(n, 0.5))
        == "one_weight_dominates"
    )


def test_weights_that_do_not_average_one_are_refused() -> None:
    n = 5000
    r = np.tile([0.0, 1.0], n // 2)
    common = {"rewards": r, "target_propensities": np.full(n, 0.5)}
    assert refusal_of(**common, propensities=np.full(n, 0.25)) == "mean_weight_off"
    assert refusal_of(**common, propensities=np.full(n, 0.5)) is None


def test_support_and_calibration_are_refused_where_the_caller_knows() -> None:
    n = 5000
    rng = np.random.default_rng(0)
    p = np.full(n, 0.5)
    common = {"rewards": np.tile([0.0, 1.0], n // 2), "propensities": p, "target_propensities": p}
    assert refusal_of(**common, unsupported=np.full(n, 0.2)) == "no_support"
    assert refusal_of(**common, eligible=np.full(n, 3)) == "propensities_miscalibrated"
    assert refusal_of(**common, eligible=np.full(n, 2), units=rng.integers(0, 900, n)) is None


def test_weak_data_gets_reasons_not_numbers() -> None:
    n = 100
    p = np.full(n, 0.5)
    r = np.tile([0.0, 1.0], n // 2)
    assert refusal_of(rewards=np.zeros(n), propensities=p, target_propensities=p) == "no_rewards"
    assert refusal_of(rewards=r, propensities=p, target_propensities=np.zeros(n)) == "no_overlap"
    assert (
        refusal_of(rewards=r, propensities=p, target_propensities=p, units=np.zeros(n))
        == "too_few_units"
    )
    got = estimate(r, p, p, estimators=("dr", "mips", "adaptive-dr"))
    assert [e.reason for e in got.values()] == [
        "needs_reward_model",
        "needs_embedding_propensities",
        "needs_reward_model",
    ]


def test_gates_are_the_callers_to_move_and_every_reason_has_its_sentence() -> None:
    n = 20
    p, r = np.full(n, 0.5), np.tile([0.0, 1.0], n // 2)
    assert refusal_of(rewards=r, propensities=p, target_propensities=p) == "low_effective_sample"
    assert (
        refusal_of(
            rewards=r, propensities=p, target_propensities=p, gates=Gates(effective_sample=10)
        )
        is None
    )
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", code) for code in REASONS)
    assert not any(sentence.endswith(".") for sentence in REASONS.values())


def test_few_rewarded_rows_are_warned_of_until_one_does_what_the_warning_says() -> None:
    r, p = np.zeros(5000), np.full(5000, 0.5)
    r[:20] = 1
    (warning,) = estimate(r, p, p, estimators=("ips",))["ips"].diagnostics.warnings
    # Whoever reads it in a terminal or on a dashboard passes no arguments of Python.
    assert "--interval betting of topbill evaluate" in warning
    assert "in Python interval='betting'" in warning
    bet = estimate(r, p, p, estimators=("ips",), interval="betting")["ips"]
    assert bet.value is not None
    assert not bet.diagnostics.warnings


# Bad input
# ------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (
            "propensities",
            0.0,
            r"propensities: rows 3, 5: got 0, 0; expected a probability in \(0, 1\]",
        ),
        ("propensities", 1.2, r"rows 3, 5: got 1.2, 1.2"),
        ("propensities", np.nan, r"rows 3, 5: got missing, missing"),
        ("propensities", -0.1, r"rows 3, 5: got -0.1, -0.1"),
        (
            "target_propensities",
            1.5,
            r"target_propensities: rows 3, 5: got 1.5, 1.5; expected a probability in \[0, 1\]",
        ),
        ("rewards", np.nan, r"rewards: rows 3, 5: got missing, missing; expected a finite number"),
        ("rewards", np.inf, r"rewards: rows 3, 5: got inf, inf"),
        ("q_logged", np.nan, r"q_logged: rows 3, 5: got missing, missing"),
    ],
)
def test_bad_values_are_named_with_their_rows(column: str, value: float, says: str) -> None:
    data = made(50)
    data[column] = data[column].copy()
    data[column][[3, 5]] = value
    with pytest.raises(BadData, match=says):
        run(data)


def test_missing_propensities_are_named_whatever_their_form() -> None:
    with pytest.raises(BadData, match="propensities: row 1: got missing"):
        estimate([1, 0, 1], [0.5, None, 0.5], [0.5, 0.5, 0.5])
    with pytest.raises(BadData, match="propensities: row 2: got missing"):
        estimate([1, 0, 1], np.ma.masked_values([0.5, 0.5, 9.0], 9.0), [0.5, 0.5, 0.5])
    with pytest.raises(BadData, match="no numbers"):
        estimate([1, 0, 1], ["a", "b", "c"], [0.5, 0.5, 0.5])


def test_a_log_with_no_rewards_is_an_error() -> None:
    with pytest.raises(BadData, match="rewards: got no rows"):
        estimate([], [], [])
    with pytest.raises(BadData, match="rows 0 to 2: got no reward at all"):
        estimate([np.nan] * 3, [0.5] * 3, [0.5] * 3)


def test_columns_of_other_lengths_halves_and_unknown_names_are_errors() -> None:
    data = made(50)
    with pytest.raises(BadData, match="propensities: got 49 rows; expected 50"):
        run({**data, "propensities": data["propensities"][:-1]})
    with pytest.raises(BadData, match="units: got 3 rows"):
        run(data, units=[1, 2, 3])
    with pytest.raises(BadData, match="units: row 1: got no unit"):
        run(take(data, [0, 1]), units=["a", None])
    with pytest.raises(BadData, match="q_target: got nothing"):
        run({**data, "q_target": None})
    with pytest.raises(BadRequest, match="got 'drr'; expected some of ips, snips"):
        run(data, ("drr",))
    with pytest.raises(BadRequest, match="sg-ips; expected 'slope', 'mse' or a number from 0 to 1"):
        run(data, ("sg-ips",), lam=10.0)
    with pytest.raises(BadRequest, match="alpha: got 95"):
        run(data, alpha=95)
    with pytest.raises(BadRequest, match="interval: got 'exact'"):
        run(data, interval="exact")


# Untidy columns
# ----------------------------------------------------------------------------------------------


def test_columns_of_one_value_a_row_are_vectors_and_others_are_refused() -> None:
    data = made(200)
    plain = run(data, ("ips", "snips", "dr"), units=np.arange(200))
    tall = {name: column.reshape(-1, 1) for name, column in data.items()}
    assert run(tall, ("ips", "snips", "dr"), units=np.arange(200).reshape(-1, 1)) == plain
    for name in data:
        with pytest.raises(BadData, match=rf"{name}: got an array of shape \(1, 200\)"):
            run({**data, name: data[name].reshape(1, -1)})
    with pytest.raises(BadData, match=r"units: got an array of shape \(100, 2\)"):
        run(data, units=np.arange(200).reshape(-1, 2))
    with pytest.raises(BadData, match=r"units: got labels that cannot be compared"):
        run(take(data, [0, 1]), units=pd.Series([{}, {}]))


def test_what_would_lose_a_part_of_itself_as_a_number_is_refused() -> None:
    data = made(200)
    for kind in ("complex128", "datetime64[us]", "timedelta64[s]"):
        with pytest.raises(BadData, match=r"rewards: got values of .*; expected one number"):
            run({**data, "rewards": data["rewards"].astype("int64").astype(kind)})


def test_pandas_columns_of_other_indexes_are_refused() -> None:
    """Each alone sorts the rows anew; read by their places, the numbers would look sound."""
    data = made(200)
    series = {name: pd.Series(column) for name, column in data.items()}
    plain = run(data, ("ips", "dr"))
    assert run(series, ("ips", "dr")) == plain
    renamed = {name: column.set_axis(range(7, 207)) for name, column in series.items()}
    assert run(renamed, ("ips", "dr")) == plain, "one index for all, whatever it is"
    for name in series:
        if name == "rewards":
            continue
        turned = {**series, name: series[name].iloc[::-1]}
        with pytest.raises(BadData, match=rf"{name}: rows 0, 1, .* another index than .* rewards"):
            run(turned)
    with pytest.raises(BadData, match="units: rows 0, 1"):
        run(series, units=pd.Series(np.arange(200)).iloc[::-1])
    frame = pd.DataFrame(data)
    assert run({name: frame[[name]] for name in data}, ("ips", "dr")) == plain


def test_a_difference_wants_one_index_too() -> None:
    data = made(200)
    columns = [pd.Series(data[name]) for name in ("rewards", "propensities")]
    target = pd.Series(data["target_propensities"])
    with pytest.raises(BadData, match="baseline_propensities: rows 0, 1"):
        delta_ope(*columns, target, target.iloc[::-1])


def test_what_float32_takes_past_one_is_one() -> None:
    rewards, sure = np.array([1.0, 0.0] * 50), np.ones(100)
    hair = np.full(100, np.float32(1.0) + np.float32(1.2e-7))
    exact = estimate(rewards, sure, sure, estimators=("ips", "snips"))
    assert estimate(rewards, hair, hair, estimators=("ips", "snips")) == exact
    with pytest.raises(BadData, match=r"propensities: row 1: got 1\.00001; expected a probability"):
        estimate([1, 0], [1.0, 1.00001], [1.0, 1.0])


# Rows that stand for several
# ----------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=300, max_size=300))
def test_a_row_that_stands_for_several_is_as_those_of_one_unit(counts: list[int]) -> None:
    data = made(300)
    rows = np.repeat(np.arange(300), counts)
    weighted = run(data, weights=np.array(counts) * 0.1, gates=OPEN)
    repeated = run(take(data, rows), units=rows, gates=OPEN)
    for name, each in weighted.items():
        other = repeated[name]
        assert each.value == pytest.approx(other.value, rel=1e-9), name
        assert each.se == pytest.approx(other.se, rel=1e-6), name
        assert each.diagnostics.mean_weight == pytest.approx(other.diagnostics.mean_weight)
        assert each.diagnostics.rows == 300


def test_the_effective_sample_counts_rows_and_not_what_they_stand_for() -> None:
    data = made(400)
    w = data["target_propensities"] / data["propensities"]
    v = np.where(np.arange(400) < 200, 10.0, 1.0)
    got = run(data, ("ips",), weights=v, gates=OPEN)["ips"].diagnostics
    assert got.ess == pytest.approx((v * w).sum() ** 2 / ((v * w) ** 2).sum())
    assert got.largest_share == pytest.approx((v * w).max() / (v * w).sum())
    same = run(data, ("ips", "snips", "dr"), weights=np.full(400, 3.0))
    for name, plain in run(data, ("ips", "snips", "dr")).items():
        assert same[name].value == pytest.approx(plain.value)
        assert (same[name].low, same[name].high) == pytest.approx((plain.low, plain.high))


def test_the_log_that_was_thinned_out_has_its_own_mean_again() -> None:
    """Nine of ten later decisions were dropped: 600 at .8 and 6,000 at .2 earn .2545 together."""
    rewards = np.concatenate([np.arange(600) % 10 < 8, np.arange(600) % 10 < 2]).astype(float)
    weights = np.repeat([1.0, 1.0 / (1.0 - 0.9)], 600)
    sure = np.ones(1200)
    for each in estimate(
        rewards, sure, sure, weights=weights, estimators=("ips", "snips")
    ).values():
        assert each.value == pytest.approx((600 * 0.8 + 6000 * 0.2) / 6600)
    for each in delta_ope(
        rewards, sure, sure, sure, weights=weights, estimators=("ips", "snips")
    ).values():
        assert each.value == 0.0


def test_weights_that_are_none_are_refused_and_bets_want_none() -> None:
    data = made(100)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(BadData, match="weights: row 3: got"):
            run(data, weights=np.where(np.arange(100) == 3, bad, 1.0))
    with pytest.raises(BadData, match="weights: got 3 rows; expected 100"):
        run(data, weights=[1, 2, 3])
    options: dict[str, Any] = {"gates": OPEN, "weights": np.arange(1, 101)}
    assert run(data, ("ips",), interval="betting", **options)["ips"].reason == (
        "no_finite_sample_interval"
    )
    assert "asymptotic" in run(data, ("ips",), interval="sequence", **options)["ips"].method
