"""Agreement with the peers' numbers (tests/data/reference/ab) to 1e-6, wherever they are right."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from topbill.ab import Mean, Proportion, Ratio, compare, sequential_srm, srm
from topbill.ab.checks.srm import log_bayes_factor
from topbill.ab.core.bayes import beta_binomial
from topbill.ab.core.effect import (
    ArmEstimate,
    Rule,
    fieller,
    gaussian,
    welch_df,
)
from topbill.ab.core.effect import (
    adjusted as adjusted_for,
)
from topbill.ab.core.rates import rate_interval
from topbill.ab.core.units import Rate
from topbill.ab.power.runtime import Aim, detectable_effect, units_needed
from topbill.stats import moments, sequential
from topbill.stats.moments import Moments

REFERENCE = Path(__file__).parents[2] / "data" / "reference" / "ab"
USERS = pd.read_parquet(REFERENCE / "ab_users.parquet")
METRICS = {
    "mean": Mean("y"),
    "proportion": Proportion("conv"),
    "ratio": Ratio("clicks", "sessions"),
}


def expected(name: str) -> Any:
    return json.loads((REFERENCE / f"ab_{name}.json").read_text())["expected"]


def near(x: Any) -> Any:
    return pytest.approx(x, abs=1e-6, rel=1e-6)


def row(metric: str, arm: int, **arguments: Any) -> pd.Series:
    """The row of one metric ("cuped" is the mean with its covariate) and arm."""
    name = "mean" if metric == "cuped" else metric
    covariates = {"mean": "pre"} if metric == "cuped" else None
    metrics = {name: METRICS[name]}
    table = compare(
        USERS,
        unit="user_id",
        variant="arm",
        control=0,
        metrics=metrics,
        covariates=covariates,
        **arguments,
    )
    return table[table.variant == arm].iloc[0]


def estimates(metric: str, arm: int) -> tuple[ArmEstimate, ArmEstimate]:
    """The arm's and the control's estimate, from moments made without SQL."""
    columns = ["y", "conv", "clicks", "sessions"]
    found = []
    for a in (arm, 0):
        m = Moments.of(columns, USERS.loc[USERS.arm == a, columns].to_numpy(float))
        statistic = {
            "mean": moments.mean("y"),
            "proportion": moments.mean("conv"),
            "ratio": moments.ratio("clicks", "sessions"),
        }[metric](m)
        divisor = m.n if metric == "proportion" else None
        found.append(ArmEstimate(statistic.value, statistic.variance(m, divisor=divisor), m.n))
    return found[0], found[1]


@pytest.mark.parametrize("arm", [1, 2])
@pytest.mark.parametrize("metric", ["mean", "proportion", "ratio", "cuped"])
def test_the_difference_agrees_with_gbstats(metric: str, arm: int) -> None:
    wanted = expected(metric)["gbstats"][f"{metric}_absolute_{arm}v0"]
    got = row(metric, arm, method="fixed")
    assert got.difference == near(wanted["estimate"])
    assert [got.difference_low, got.difference_high] == near(wanted["ci"])
    assert got.se == near(wanted["se"])
    assert got.p_value == pytest.approx(wanted["p_value"], abs=1e-9)
    assert got.reason == ""


@pytest.mark.parametrize("arm", [1, 2])
def test_the_mean_agrees_with_statsmodels_spotify_and_tea_tasting(arm: int) -> None:
    wanted = expected("mean")
    got = row("mean", arm, method="fixed")
    t, c = estimates("mean", arm)
    welch, relative = (
        wanted["statsmodels"][f"welch_abs_y_{arm}v0"],
        wanted["statsmodels"][f"relative_y_{arm}v0"],
    )
    assert [got.difference_low, got.difference_high] == near(welch["ci"])
    assert (got.p_value, got.difference / got.se) == near((welch["p_value"], welch["t"]))
    assert welch_df(t, c) == near(welch["dof"])
    assert got.relative == near(relative["lift"])
    # The lift by the statistic of the difference, which is Welch's; the reference by the normal's.
    bounds = fieller(t, c, float(stats.t.isf(0.025, welch["dof"])))
    assert [got.relative_low, got.relative_high] == near(list(bounds or ()))
    assert list(fieller(t, c, relative["z"]) or ()) == near(relative["fieller_ci"])
    z_test = wanted["spotify"][f"ztest_y_abs_{arm}v0"]
    assert got.difference - 1.959963984540054 * got.se == near(z_test["ci_lower"])
    assert 2.0 * stats.norm.sf(abs(got.difference / got.se)) == near(z_test["p-value"])
    tea = wanted["tea_tasting"][f"{arm}v0"]
    assert (got.value, got.control_value) == near((tea["treatment"], tea["control"]))


def test_one_side_of_a_wider_interval_is_gbstats_one_sided_bound() -> None:
    wanted = expected("mean")["gbstats_onesided"]["onesided_greater_mean_abs"]
    got = row("mean", 1, method="fixed", alpha=0.10)
    assert got.difference_low == near(wanted["ci"][0])
    assert got.p_value / 2.0 == pytest.approx(wanted["p_value"], abs=1e-12)


@pytest.mark.parametrize("arm", [1, 2])
def test_proportions_agree_with_statsmodels_and_spotify(arm: int) -> None:
    wanted = expected("proportion")
    known = wanted["statsmodels"][f"proportion_{arm}v0"]
    treated, control = ((k, n) for k, n in zip(known["counts"], known["n"], strict=True))
    assert list(rate_interval(Rate(*treated))) == near(known["wilson_arm_b"])
    assert list(rate_interval(Rate(*control))) == near(known["wilson_arm_0"])
    spotify = wanted["spotify"][f"ztest_conv_abs_{arm}v0"]
    wald = row("proportion", arm, method="group-sequential")  # a single look: the normal's interval
    assert (wald.difference_low, wald.difference_high) == near(
        (spotify["ci_lower"], spotify["ci_upper"])
    )
    assert wald.p_value == near(spotify["p-value"])
    as_mean = compare(
        USERS,
        unit="user_id",
        variant="arm",
        control=0,
        metrics={"conv": Mean("conv")},
        method="fixed",
    ).set_index("variant")
    tea = wanted["tea_tasting"][f"{arm}v0"]["mean"]
    assert as_mean.difference_low[arm] == near(tea["effect_size_ci_lower"])
    assert as_mean.p_value[arm] == near(tea["pvalue"])


@pytest.mark.parametrize("arm", [1, 2])
def test_ratios_agree_with_the_delta_method_and_tea_tasting(arm: int) -> None:
    wanted = expected("ratio")
    own = wanted["own_and_statsmodels"][f"ratio_{arm}v0"]
    got = row("ratio", arm, method="fixed")
    t, c = estimates("ratio", arm)
    assert (got.control_value, got.value) == near((own["ratio_0"], own["ratio_b"]))
    assert (got.difference, got.se) == near((own["diff"], own["se_delta"]))
    assert got.se > own["se_naive_rows_iid_WRONG"] or arm == 2
    assert row("ratio", arm, method="group-sequential").p_value == near(own["p_norm"])
    hc0 = sqrt(sum(e.variance * (e.n - 1) / e.n for e in (t, c)))
    assert hc0 == near(own["se_wls_hc0"])
    tea = wanted["tea_tasting"][f"{arm}v0"]
    adjusted = compare(
        USERS,
        unit="user_id",
        variant="arm",
        control=0,
        metrics={"r": METRICS["ratio"]},
        covariates={"r": "pre"},
        method="fixed",
    ).set_index("variant")
    cuped = tea["cuped_numer_pre"]
    assert adjusted.value[arm] == near(cuped["treatment"])
    assert adjusted.control_value[arm] == near(cuped["control"])
    assert adjusted.difference_low[arm] == near(cuped["effect_size_ci_lower"])
    assert adjusted.relative[arm] == near(cuped["rel_effect_size"])
    assert adjusted.p_value[arm] == near(cuped["pvalue"])


@pytest.mark.parametrize("arm", [1, 2])
def test_cuped_agrees_with_the_closed_form_gbstats_and_tea_tasting(arm: int) -> None:
    wanted = expected("cuped")
    own, tea = wanted["own_and_statsmodels"][f"cuped_{arm}v0"], wanted["tea_tasting"][f"{arm}v0"]
    got = row("cuped", arm, method="fixed")
    assert (got.difference, got.se) == near((own["diff_cuped"], own["se_cuped"]))
    assert (got.value, got.control_value) == near((tea["treatment"], tea["control"]))
    assert got.relative == near(tea["rel_effect_size"])
    plain = row("mean", arm, method="fixed")
    assert (plain.difference, plain.se) == near(
        (own["unadjusted"]["coef"], own["unadjusted"]["se_hc2"])
    )
    treated, control = (cross_moments(a) for a in (arm, 0))
    merged = treated + control
    theta = moments.cuped_theta(merged, moments.mean("y"), "pre")
    assert theta == near(own["theta_pooled"])
    # gbstats divides by the raw control mean, and scales the control's adjusted variance by the raw
    # ratio.
    relative = wanted["gbstats"][f"cuped_relative_{arm}v0"]
    base, ratio = plain.control_value, plain.value / plain.control_value
    variances = [
        moments.cuped(m, merged, moments.mean("y"), "pre", theta).variance(m)
        for m in (treated, control)
    ]
    se = sqrt(variances[0] + ratio**2 * variances[1]) / base
    assert (got.difference / base, se) == near((relative["estimate"], relative["se"]))


def cross_moments(arm: int) -> Moments:
    y, x = USERS.loc[USERS.arm == arm, ["y", "pre"]].to_numpy(float).T
    names = ["y", "pre", *moments.product_columns("y", "pre")]
    return Moments.of(names, np.column_stack([y, x, y * x, x**2, y * x**2, x**3]))


@pytest.mark.parametrize("arm", [1, 2])
def test_regression_adjustment_from_moments_agrees_with_statsmodels_hc2(arm: int) -> None:
    own = expected("cuped")["own_and_statsmodels"][f"cuped_{arm}v0"]
    found = moments.lin(cross_moments(arm), cross_moments(0), "y", "pre")
    lin = own["lin_interacted"]
    assert found.treated - found.control == near(lin["coef"])
    assert sqrt(found.treated_variance + found.control_variance) == near(lin["se_hc2"])
    got = row("cuped", arm, method="fixed", adjust="lin")
    assert (got.difference, got.se) == near(
        (own["lin_interacted"]["coef"], own["lin_interacted"]["se_hc2"])
    )
    assert 1.0 - (got.se / row("mean", arm, method="fixed").se) ** 2 == near(
        own["variance_reduction"]
    )


@pytest.mark.parametrize("tuning", [500, 5000])
@pytest.mark.parametrize("arm", [1, 2])
@pytest.mark.parametrize("metric", ["mean", "proportion", "ratio", "cuped"])
def test_confidence_sequences_agree_with_gbstats(metric: str, arm: int, tuning: int) -> None:
    wanted = expected("sequential")["gbstats"][f"{metric}_absolute_{arm}v0_seq{tuning}"]
    got = row(metric, arm, tuning=tuning)
    assert sequential.mixture_scale(0.05, tuning) == near(wanted["rho"])
    assert (got.difference, got.se) == near((wanted["estimate"], wanted["se"]))
    assert [got.difference_low, got.difference_high] == near(wanted["ci"])
    assert got.p_value == near(wanted["p_value"])


def test_looks_on_the_way_agree_with_the_closed_form() -> None:
    for look in expected("sequential")["looks_own_formula"]:
        n = look["n0"] + look["n1"]
        half = sequential.multiplier(n) * look["se"]
        assert [look["diff"] - half, look["diff"] + half] == near(look["asympcs_N5000"])
        z = look["diff"] / look["se"]
        assert np.exp(sequential.log_e_value(z, n)) == near(look["e_value"])
        assert float(sequential.always_valid_p(z, n)) == near(look["p"])


def test_group_sequential_boundaries_are_those_of_the_literature_and_near_spotifys() -> None:
    fifths = [0.2, 0.4, 0.6, 0.8, 1.0]
    # Lan & DeMets' O'Brien-Fleming type, five equal looks, two-sided 0.05, as every textbook prints
    # them.
    assert list(sequential.boundaries(fifths)) == pytest.approx(
        [4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=1e-3
    )
    wanted = expected("sequential")["spotify_group_sequential"]
    peer = wanted["gst_bounds_alpha.05_power2spending_two_sided"]
    assert list(sequential.boundaries(fifths, 0.05, "quadratic")) == pytest.approx(peer, abs=1e-4)


def test_the_sample_ratio_test_agrees_and_a_zero_share_is_no_degree_of_freedom() -> None:
    wanted = expected("srm")
    for case in wanted["chi2"]:
        assert srm(case["observed"], case["weights"]) == near(case["p"])
    for case in wanted["gbstats"]["cases"]:
        assert srm(case["users"], case["weights"]) == near(case["p"])
    assert srm([5000, 5219, 0], [0.5, 0.5, 0.0]) == near(srm([5000, 5219], [0.5, 0.5]))
    daily = wanted["sequential"]
    for concentration in (100, 10_000):
        looks = daily[f"concentration_{concentration}"]
        running = pd.DataFrame(daily["daily"]).cumsum().to_numpy()
        assert list(log_bayes_factor(running, daily["null"], concentration)) == near(
            [x["log_bf"] for x in looks]
        )
        assert list(sequential_srm(daily["daily"], daily["null"], concentration)) == near(
            [x["p"] for x in looks]
        )


@pytest.mark.parametrize("prior", [None, 0.3])
@pytest.mark.parametrize("arm", [1, 2])
@pytest.mark.parametrize("metric", ["mean", "proportion", "ratio", "cuped"])
def test_the_posterior_of_the_difference_agrees_with_gbstats(
    metric: str, arm: int, prior: float | None
) -> None:
    name = "flat" if prior is None else "N(0,0.3^2)_relative"
    wanted = expected("bayes")["gbstats"][f"{metric}_absolute_{arm}v0_bayes_{name}"]
    got = row(metric, arm, method="bayes", prior=prior)
    if metric == "cuped" and prior is not None:
        # The peer scales the prior by the raw control mean, we by the adjusted one; given the
        # peer's we agree.
        plain, flat = row("mean", arm, method="fixed"), row(metric, arm, method="bayes")
        posterior = gaussian(flat.difference, flat.se, prior * plain.control_value)
        assert (posterior.mean, posterior.chance_to_win) == near(
            (wanted["estimate"], wanted["chance_to_win"])
        )
        assert [*posterior.interval(), posterior.loss_of_treatment] == near(
            [*wanted["ci"], wanted["risk"][1]]
        )
        return
    assert got.difference == near(wanted["estimate"])
    assert [got.difference_low, got.difference_high] == near(wanted["ci"])
    assert got.chance_to_win == near(wanted["chance_to_win"])
    assert got.expected_loss == near(wanted["risk"][1])
    assert got.p_value is None


def test_binomial_posteriors_agree_with_quadrature_elsewhere() -> None:
    wanted = expected("bayes")
    for case in wanted["exact_beta_binomial"]:
        control, treated = Rate(case["ka"], case["na"]), Rate(case["kb"], case["nb"])
        got = beta_binomial(control, treated, tuple(case["prior"]))
        assert got.chance_to_win == near(case["chance_to_beat"])
        assert got.loss_of_treatment == near(case["expected_loss_choose_b"])
        assert got.loss_of_control == near(case["expected_loss_choose_a"])


def test_adjusted_p_values_agree_with_statsmodels() -> None:
    inputs = json.loads((REFERENCE / "ab_multiple.json").read_text())
    for correction, wanted in inputs["expected"]["statsmodels"].items():
        assert adjusted_for(inputs["inputs"]["p"], correction) == near(wanted["adjusted"])


def test_power_agrees_with_statsmodels() -> None:
    wanted = expected("power")["statsmodels"]
    assert Aim(0.1, (1.0, 1.0)).power(3_000, 0.05) == near(wanted["power_d0.1_n1500"])
    # From 1,000 units an arm on by the normal distribution, which asks for some two units fewer.
    per_arm = wanted["n_per_arm_ttest_d0.1_a.05_p.8"]
    assert units_needed(0.1, 1.0, Rule("fixed")) == pytest.approx(2 * per_arm, rel=2e-3)
    assert detectable_effect(1.0, 4_000, Rule("fixed")) == pytest.approx(
        wanted["mde_d_n2000"], rel=2e-3
    )
    spotify = expected("power")["spotify"]
    assert "np.int64(29132)" in spotify["samplesize_binomial_mde0.01_base.1035"][0]
    assert units_needed(0.01, sqrt(0.1035 * 0.8965), Rule("fixed")) == pytest.approx(29_132, abs=1)
    assert "np.int64(5828)" in spotify["samplesize_cont_mde0.5_var46.4"][0]
    assert units_needed(0.5, sqrt(46.4), Rule("fixed")) == pytest.approx(5_828, abs=1)
