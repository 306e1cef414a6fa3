"""Every number of the reference (tests/data/reference/ab) by its path, and ours for it: `expected`
and `ours`.

`NOT_COMPARED` lists, with reasons, the paths that have no number of ours, `CLOSE` those that the
peer itself does not know to 1e-6.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from math import ceil, exp, floor, isinf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from topbill.ab import sequential_srm, srm
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
from topbill.ab.power.runtime import Aim, units_needed
from topbill.domain.records import Floats
from topbill.stats import bounded, intervals, moments, quantiles, sequential
from topbill.stats.moments import Moments

REFERENCE = Path(__file__).parents[2] / "data" / "reference" / "ab"
Z = float(stats.norm.isf(0.025))
ARMS, METRICS = (1, 2), ("mean", "proportion", "ratio", "cuped")
COUNTS = ((207, 2000), (238, 2100), (202, 1950))

_OWN = "Topbill has its own: "
NOT_COMPARED = {
    "mean/gbstats_onesided/onesided_lesser_mean_abs_BUG/*": "marked wrong: a sign bug",
    "ratio/own_and_statsmodels/*/se_naive_rows_iid_WRONG": "marked wrong: rows as independent",
    "*/spotify/ztest_*_rel_*/ci_*": "marked wrong: ignores the control's noise",
    "*/spotify/ztest_*_rel_*/adjusted ci_*": "marked wrong: ignores the control's noise",
    "*/gbstats/*_relative_?v0/[csp]*": f"{_OWN}Fieller's interval of a lift",
    "sequential/gbstats/*_relative_?v0_*/[csp]*": f"{_OWN}Fieller's interval of a lift",
    "*/gbstats/*_relative_?v0_bayes_flat/[csr]*": f"{_OWN}Fieller's interval of a lift",
    "*/gbstats/*_relative_?v0_bayes_N(*": f"{_OWN}the posterior is of the difference",
    "*/tea_tasting/*/rel_effect_size_ci_*": f"{_OWN}Fieller's interval of a lift",
    "mean/statsmodels/*/delta_se": f"{_OWN}Fieller's interval of a lift",
    "mean/statsmodels/*/log_ratio_ci/*": f"{_OWN}Fieller's interval of a lift",
    "ratio/own_and_statsmodels/*/rel_se_delta": f"{_OWN}Fieller's interval of a lift",
    "cuped/own_and_statsmodels/*/ancova/*": f"{_OWN}CUPED, or Lin's interacted regression",
    "proportion/statsmodels/*/?_pooled": f"{_OWN}Welch's t, or counts where they are few",
    "proportion/statsmodels/*/chi2_p_no_yates": f"{_OWN}Welch's t, or counts where they are few",
    "proportion/spotify/chi2_*/*p-value": f"{_OWN}Welch's t, or counts where they are few",
    "proportion/statsmodels/*/fisher_p": f"{_OWN}exact tails of both counts (`core.rates`)",
    "proportion/statsmodels/*/ci_diff_[nas]*": f"{_OWN}exact tails of both counts (`core.rates`)",
    "proportion/statsmodels/*/ci_ratio_*": f"{_OWN}Fieller's, or exact tails of both counts",
    "proportion/tea_tasting/*/proportion/*": f"{_OWN}exact tails of both counts, not Yates'",
    "bayes/best_of_3_exact_beta11/*": "each variant is compared with the control, not with all",
    "bayes/spotify_MC/*/difference": "the difference is of what was seen, not of posterior means",
    "bayes/spotify_MC/*/ci_*": f"{_OWN}intervals of counts hold whatever the prior",
    "power/statsmodels/n_per_arm_ttest*": "whole units (see test_power for statsmodels beside it)",
    "power/statsmodels/mde_d_n2000": "by the normal from 1,000 units on (see test_power)",
    "power/statsmodels/n_prop_*": f"{_OWN}each arm's own variance of a rate",
    "sequential/looks_own_formula/*/msprt_tau0.5_LR": f"{_OWN}asymptotic confidence sequences",
    "sequential/confseq/normal_mixture_bound/*": f"{_OWN}asymptotic confidence sequences",
    "sequential/confseq/poly_stitching_bound*": f"{_OWN}asymptotic confidence sequences",
    "sequential/confseq/predmix_hoeffding_cs/*": f"{_OWN}empirical Bernstein's, and betting",
    "sequential/confseq/conjmix_empbern_twosided_cs*": f"{_OWN}the predictable plug-in's",
    "sequential/confseq/*/s": "seconds that the peer took",
    "sequential/confseq_ope_on_obd/*/secs_betting": "seconds that the peer took",
    "sequential/confseq_ope_on_obd/2/*": "its log (campaign women) is not part of the reference",
}

CLOSE = {
    "bayes/spotify_MC/*/P(*": (2.1e-3, "500,000 draws: four standard errors"),
    "bayes/spotify_MC/*/level_*": (5e-5, "500,000 draws: four standard errors"),
    "sequential/spotify_group_sequential/*": (
        6e-5,
        "the peer's solver stops early (see test_ours_spend_alpha_exactly)",
    ),
    "power/statsmodels/n_per_arm_norm_d0.1": (
        3e-6,
        "the peer counts a call in the wrong direction as power",
    ),
}
"""Where the peer's own number is not good to 1e-6: the tolerance that it is good to, and why."""

_INPUTS = (
    *("*/inputs/*", "*/z", "proportion/statsmodels/*/counts/*", "proportion/statsmodels/*/n/*"),
    *(
        "srm/chi2/*/observed/*",
        "srm/*/weights/*",
        "srm/*/users/*",
        "srm/sequential/null/*",
        "srm/sequential/daily/*",
    ),
    *("sequential/confseq/times/*", "sequential/confseq/normal_mixture_bound/v/*"),
    *(
        "sequential/confseq/normal_mixture_bound/v_opt",
        "sequential/confseq/normal_mixture_bound/alpha*",
    ),
    *("sequential/confseq_ope_on_obd/*/n", "sequential/confseq_ope_on_obd/*/at/*"),
    *("sequential/looks_own_formula/*/n[01]", "*/result/*/day"),
    *(
        "bayes/exact_beta_binomial/*/[kn][ab]",
        "bayes/exact_beta_binomial/*/prior/*",
        "*/absolute_difference",
    ),
)
"""Numbers that are inputs of a case, not answers."""


def expected() -> dict[str, float]:
    """Path to number, of all eight files. Booleans count as numbers; texts, and inputs repeated
    there, do not.
    """
    found: dict[str, float] = {}
    for file in sorted(REFERENCE.glob("ab_*.json")):
        found |= dict(
            leaves(file.stem.removeprefix("ab_"), json.loads(file.read_text())["expected"])
        )
    return {path: x for path, x in found.items() if not _given(path)}


def leaves(path: str, value: Any) -> Iterator[tuple[str, float]]:
    """(path, number) of everything below; "inf" is a number, and so are the integers that a text of
    NumPy holds.
    """
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from leaves(f"{path}/{name}", below)
    elif isinstance(value, (list, tuple, np.ndarray)):
        for i, below in enumerate(value):
            yield from leaves(f"{path}/{i}", below)
    elif isinstance(value, (bool, int, float, np.integer, np.floating)) or value in ("inf", "-inf"):
        yield path, float(value)
    elif isinstance(value, str) and value.startswith("(np.int64("):
        yield path, float(value.removeprefix("(np.int64(").partition(")")[0])


def _given(path: str) -> bool:
    """Whether a number is an input of the case, not an answer."""
    return any(fnmatchcase(path, pattern) for pattern in _INPUTS)


def ours() -> dict[str, float]:
    """Path to our number."""
    parts = (_mean, _proportion, _ratio, _cuped, _bayes, _multiple, _power, _sequential, _srm)
    return {
        path: x for part in parts for path, x in leaves(part.__name__.removeprefix("_"), part())
    }


@cache
def users() -> pd.DataFrame:
    return pd.read_parquet(REFERENCE / "ab_users.parquet")


@cache
def of_arm(arm: int) -> Moments:
    y, pre, *rest = (
        users()
        .loc[users().arm == arm, ["y", "pre", "conv", "clicks", "sessions"]]
        .to_numpy(np.float64)
        .T
    )
    names = ["y", "pre", "conv", "clicks", "sessions", *moments.product_columns("y", "pre")]
    return Moments.of(names, np.column_stack([y, pre, *rest, y * pre, pre**2, y * pre**2, pre**3]))


def pair(metric: str, arm: int) -> tuple[ArmEstimate, ArmEstimate]:
    """The arm's and the control's estimate from moments; "cuped" is the mean adjusted,
    "cuped-ratio" the ratio.
    """
    statistic = moments.mean({"proportion": "conv"}.get(metric, "y"))
    if metric in ("ratio", "cuped-ratio"):
        statistic = moments.ratio("clicks", "sessions")
    found = []
    merged = of_arm(arm) + of_arm(0)
    for m in (of_arm(arm), of_arm(0)):
        linear = statistic(m)
        if metric.startswith("cuped"):
            linear = moments.cuped(
                m, merged, statistic, "pre", moments.cuped_theta(merged, statistic, "pre")
            )
        divisor = m.n if metric == "proportion" else None
        found.append(ArmEstimate(linear.value, linear.variance(m, divisor=divisor), m.n))
    return found[0], found[1]


def lift(metric: str, arm: int) -> float:
    """The relative lift; gbstats divides CUPED's by the raw control mean."""
    t, c = pair(metric, arm)
    base = pair("mean", arm)[1].value if metric == "cuped" else c.value
    return (t.value - c.value) / base


def difference_of(metric: str, arm: int) -> tuple[float, float, float]:
    """The difference, its standard error and Welch's degrees of freedom."""
    t, c = pair(metric, arm)
    return t.value - c.value, sqrt(t.variance + c.variance), welch_df(t, c)


def _gbstats(metric: str) -> dict[str, Any]:
    found = {}
    for arm in ARMS:
        estimate, se, df = difference_of(metric, arm)
        reach = float(stats.t.isf(0.025, df))
        slope = {"theta": theta(arm)} if metric == "cuped" else {}
        found[f"{metric}_absolute_{arm}v0"] = {
            "estimate": estimate,
            "ci": [estimate - reach * se, estimate + reach * se],
            "se": se,
            "dof": df,
            "p_value": 2.0 * stats.t.sf(abs(estimate / se), df),
        } | slope
        found[f"{metric}_relative_{arm}v0"] = {"estimate": lift(metric, arm), "dof": df} | slope
    return found


def theta(*arms: int) -> float:
    merged = of_arm(0)
    for arm in arms:
        merged = merged + of_arm(arm)
    return moments.cuped_theta(merged, moments.mean("y"), "pre")


def _tea(metric: str, arm: int) -> dict[str, float]:
    return _welch(*pair(metric, arm))


def _spotify(
    difference: float, half: float, p: float, *, relative: bool = False
) -> dict[str, float]:
    bounds = {} if relative else {"ci_lower": difference - half, "ci_upper": difference + half}
    found = {"difference": difference, "p-value": p, **bounds}
    return found | {f"adjusted {k}": v for k, v in found.items() if k != "difference"}


def _z_tests(metric: str, label: str) -> dict[str, Any]:
    found = {}
    for arm in ARMS:
        difference, se, df = difference_of(metric, arm)
        p = 2.0 * stats.norm.sf(abs(difference / se))
        found[f"ztest_{label}_abs_{arm}v0"] = _spotify(difference, Z * se, p)
        found[f"ztest_{label}_rel_{arm}v0"] = _spotify(lift(metric, arm), 0.0, p, relative=True)
        if arm == 1:
            p = 2.0 * stats.t.sf(abs(difference / se), df)
            found[f"ttest_{label}_abs_{arm}v0"] = _spotify(
                difference, float(stats.t.isf(0.025, df)) * se, p
            )
    return found


def _mean() -> dict[str, Any]:
    by_statsmodels: dict[str, Any] = {}
    for arm in ARMS:
        t, c = pair("mean", arm)
        difference, se, df = difference_of("mean", arm)
        reach, z = float(stats.t.isf(0.025, df)), difference / se
        by_statsmodels[f"welch_abs_y_{arm}v0"] = {
            "estimate": difference,
            "t": z,
            "p_value": 2.0 * stats.t.sf(abs(z), df),
            "dof": df,
            "ci": [difference - reach * se, difference + reach * se],
        }
        by_statsmodels[f"relative_y_{arm}v0"] = {
            "lift": lift("mean", arm),
            "fieller_ci": fieller(t, c, Z),
        }
    difference, se, df = difference_of("mean", 1)
    low = difference - float(stats.t.isf(0.05, df)) * se
    one_sided = {
        "estimate": difference,
        "ci": [low, "inf"],
        "se": se,
        "p_value": stats.t.sf(difference / se, df),
    }
    return {
        "gbstats": _gbstats("mean"),
        "gbstats_onesided": {"onesided_greater_mean_abs": one_sided},
        "statsmodels": by_statsmodels,
        "spotify": _z_tests("mean", "y"),
        "tea_tasting": {f"{arm}v0": _tea("mean", arm) for arm in ARMS},
    }


def _proportion() -> dict[str, Any]:
    tea = {f"{arm}v0": {"mean": _tea_of_conv(arm)} for arm in ARMS}
    difference, se, _ = difference_of("proportion", 1)
    chi2 = {"difference": difference, "ci_lower": difference - Z * se}
    chi2 |= {"ci_upper": difference + Z * se}
    chi2 |= {f"adjusted {end}": chi2[end] for end in ("ci_lower", "ci_upper")}
    one_rate = {}
    for arm in ARMS:
        one_rate[f"proportion_{arm}v0"] = {
            "wilson_arm_b": rate_interval(Rate(*COUNTS[arm])),
            "wilson_arm_0": rate_interval(Rate(*COUNTS[0])),
            # Wald's is the product's where there is no want of counts.
            "ci_diff_wald": _wald(*difference_of("proportion", arm)),
        }
    return {
        "gbstats": _gbstats("proportion"),
        "statsmodels": one_rate,
        "spotify": _z_tests("proportion", "conv") | {"chi2_conv_abs_1v0": chi2},
        "tea_tasting": tea,
    }


def _wald(difference: float, se: float, _: float) -> tuple[float, float]:
    return difference - Z * se, difference + Z * se


def _tea_of_conv(arm: int) -> dict[str, float]:
    """The 0/1 column taken as a mean: variance with n − 1."""
    t, c = pair("proportion", arm)
    t, c = (ArmEstimate(e.value, e.variance * e.n / (e.n - 1), e.n) for e in (t, c))
    return _welch(t, c)


def _welch(t: ArmEstimate, c: ArmEstimate) -> dict[str, float]:
    difference, se, df = t.value - c.value, sqrt(t.variance + c.variance), welch_df(t, c)
    reach = float(stats.t.isf(0.025, df))
    return {
        "control": c.value,
        "treatment": t.value,
        "effect_size": difference,
        "effect_size_ci_lower": difference - reach * se,
        "effect_size_ci_upper": difference + reach * se,
        "rel_effect_size": t.value / c.value - 1.0,
        "pvalue": 2.0 * stats.t.sf(abs(difference / se), df),
        "statistic": difference / se,
    }


def _ratio() -> dict[str, Any]:
    own, tea = {}, {}
    for arm in ARMS:
        t, c = pair("ratio", arm)
        difference, se, _ = difference_of("ratio", arm)
        own[f"ratio_{arm}v0"] = {
            "ratio_0": c.value,
            "ratio_b": t.value,
            "diff": difference,
            "se_delta": se,
            "p_norm": 2.0 * stats.norm.sf(abs(difference / se)),
            "rel": t.value / c.value - 1.0,
            "se_wls_hc0": sqrt(sum(e.variance * (e.n - 1) / e.n for e in (t, c))),
        }
        tea[f"{arm}v0"] = {"plain": _tea("ratio", arm), "cuped_numer_pre": _tea("cuped-ratio", arm)}
    return {"gbstats": _gbstats("ratio"), "own_and_statsmodels": own, "tea_tasting": tea}


def _cuped() -> dict[str, Any]:
    own, linreg = {}, {}
    for arm in ARMS:
        difference, se, _ = difference_of("cuped", arm)
        plain, plain_se, _ = difference_of("mean", arm)
        case: dict[str, Any] = {
            "theta_pooled": theta(arm),
            "diff_cuped": difference,
            "se_cuped": se,
        }
        case["unadjusted"] = {"coef": plain, "se_hc2": plain_se}
        a = moments.lin(of_arm(arm), of_arm(0), "y", "pre")
        case["lin_interacted"] = {
            "coef": a.treated - a.control,
            "se_hc2": sqrt(a.treated_variance + a.control_variance),
        }
        case["variance_reduction"] = 1.0 - (case["lin_interacted"]["se_hc2"] / plain_se) ** 2
        own[f"cuped_{arm}v0"] = case
        linreg[f"linreg_y_abs_{arm}v0"] = _linreg(arm, theta(1, 2))
    linreg["linreg_y_abs_1v0_two_arms_only"] = _linreg(1, theta(1))
    tea = {f"{arm}v0": _tea("cuped", arm) for arm in ARMS}
    return {
        "gbstats": _gbstats("cuped"),
        "own_and_statsmodels": own,
        "spotify": linreg,
        "tea_tasting": tea,
    }


def _linreg(arm: int, slope: float) -> dict[str, float]:
    """Spotify's: CUPED with the slope of all arms; its variance has divisor n − 1 for y but n for
    the covariate.
    """
    value, variance = 0.0, 0.0
    for sign, m in ((1.0, of_arm(arm)), (-1.0, of_arm(0))):
        y, x, n = m.columns.index("y"), m.columns.index("pre"), m.n
        value += sign * (m.mean[y] - slope * m.mean[x])
        spread = (
            m.scatter[y, y] / (n - 1)
            + (slope**2 * m.scatter[x, x] - 2.0 * slope * m.scatter[x, y]) / n
        )
        variance += spread / n
    se = sqrt(variance)
    return _spotify(value, Z * se, 2.0 * stats.norm.sf(abs(value / se)))


def _bayes() -> dict[str, Any]:
    posterior: dict[str, Any] = {}
    for metric in METRICS:
        for arm in ARMS:
            estimate, se, _ = difference_of(metric, arm)
            base = pair("mean" if metric == "cuped" else metric, arm)[1].value
            for name, prior in (("flat", None), ("N(0,0.3^2)_relative", 0.3 * base)):
                found = gaussian(estimate, se, prior)
                posterior[f"{metric}_absolute_{arm}v0_bayes_{name}"] = {
                    "estimate": found.mean,
                    "ci": found.interval(),
                    "sd": found.sd,
                    "chance_to_win": found.chance_to_win,
                    "risk": [found.loss_of_control, found.loss_of_treatment],
                }
            posterior[f"{metric}_relative_{arm}v0_bayes_flat"] = {"estimate": lift(metric, arm)}
    exact = []
    for case in json.loads((REFERENCE / "ab_bayes.json").read_text())["expected"][
        "exact_beta_binomial"
    ]:
        control, treated = Rate(case["ka"], case["na"]), Rate(case["kb"], case["nb"])
        b = beta_binomial(control, treated, tuple(case["prior"]))
        losses = {
            "expected_loss_choose_b": b.loss_of_treatment,
            "expected_loss_choose_a": b.loss_of_control,
        }
        exact.append({"chance_to_beat": b.chance_to_win, **losses})
    return {
        "gbstats": posterior,
        "exact_beta_binomial": exact,
        "spotify_MC": {"betabinomial_conv_1v0_MC500k": _monte_carlo()},
    }


def _monte_carlo() -> dict[str, float]:
    """Exact answers to what the peer drew 500,000 times, under its Beta(½, ½) prior."""
    found = beta_binomial(Rate(*COUNTS[0]), Rate(*COUNTS[1]), (0.5, 0.5))
    gain, loss = found.loss_of_control, found.loss_of_treatment
    return {
        "P(level_2 > level_1)": found.chance_to_win,
        "level_1 potential loss": -gain,
        "level_1 potential gain": loss,
        "level_2 potential loss": -loss,
        "level_2 potential gain": gain,
    }


def _multiple() -> dict[str, Any]:
    p = json.loads((REFERENCE / "ab_multiple.json").read_text())["inputs"]["p"]
    adjusted = {}
    for name in (
        "bonferroni",
        "sidak",
        "holm",
        "holm-sidak",
        "simes-hochberg",
        "hommel",
        "fdr_bh",
        "fdr_by",
    ):
        adjusted[name] = adjusted_for(p, name)  # type: ignore[arg-type]
    adjusted |= {
        "fdr_tsbh": adjusted_for(p, "fdr_tsbh"),
        "fdr_tsbky": adjusted_for(p, "fdr_tsbky"),
    }
    tables = {}
    for label, metric in (("y", "mean"), ("conv", "proportion")):
        z = [difference_of(metric, arm) for arm in ARMS]
        raw = [float(2.0 * stats.norm.sf(abs(d / se))) for d, se, _ in z]
        for name in ("holm", "hommel", "simes-hochberg", "fdr_bh", "bonferroni", "sidak"):
            both = zip(raw, adjusted_for(raw, name), strict=True)  # type: ignore[arg-type]
            tables[f"multi_{label}_{name}"] = [{"p": one, "adj_p": other} for one, other in both]
    return {
        "statsmodels": {
            name: {"adjusted": found, "reject": [a is not None and a <= 0.05 for a in found]}
            for name, found in adjusted.items()
        },
        "spotify": tables,
    }


def _power() -> dict[str, Any]:
    per_arm = [
        ceil((units_needed(effect, sd, Rule("fixed")) or 0) / 2)
        for effect, sd in ((0.01, sqrt(0.1035 * 0.8965)), (0.5, sqrt(46.4)))
    ]
    reach = float(stats.norm.isf(0.025) + stats.norm.isf(0.2))
    assert units_needed(0.1, 1.0, Rule("fixed")) == ceil(2 * 2 * (reach / 0.1) ** 2)
    return {
        "statsmodels": {
            "n_per_arm_norm_d0.1": 2.0 * (reach / 0.1) ** 2,
            "power_d0.1_n1500": Aim(0.1, (1.0, 1.0)).power(3_000, 0.05),
        },
        "spotify": {
            "samplesize_binomial_mde0.01_base.1035": [2 * per_arm[0]],
            "samplesize_cont_mde0.5_var46.4": [2 * per_arm[1]],
        },
    }


def _sequential() -> dict[str, Any]:
    known = json.loads((REFERENCE / "ab_sequential.json").read_text())["expected"]
    asymptotic: dict[str, Any] = {}
    for metric in METRICS:
        for arm in ARMS:
            estimate, se, _ = difference_of(metric, arm)
            n = COUNTS[arm][1] + COUNTS[0][1]
            for tuning in (500, 5000):
                half = float(sequential.multiplier(n, 0.05, tuning)) * se
                rho = {"rho": sequential.mixture_scale(0.05, tuning)}
                asymptotic[f"{metric}_absolute_{arm}v0_seq{tuning}"] = {
                    "estimate": estimate,
                    "ci": [estimate - half, estimate + half],
                    "se": se,
                    "p_value": sequential.always_valid_p(estimate / se, n, 0.05, tuning).item(),
                } | rho
                asymptotic[f"{metric}_relative_{arm}v0_seq{tuning}"] = {
                    "estimate": lift(metric, arm)
                } | rho
    p, n = (
        np.mean(json.loads((REFERENCE / "ab_sequential.json").read_text())["inputs"]["confseq_x"]),
        500,
    )
    wald = Z * sqrt(p * (1.0 - p) / n)
    return {
        "gbstats": asymptotic,
        "looks_own_formula": [_look(look) for look in known["looks_own_formula"]],
        "confseq": {"wald_ci_n500": [p - wald, p + wald]} | _bounded() | _quantiles(),
        "confseq_ope_on_obd": [_off_policy(campaign) for campaign in ("men", "all")],
        "spotify_group_sequential": _group_sequential(
            known["spotify_group_sequential"]["gst_y_5looks"]["inputs"]
        ),
    }


def _bounded() -> dict[str, Any]:
    """Sequences for a mean in [0, 1]. The peer seeks some roots on a grid of 1,000 and answers the
    points next outside."""
    known = json.loads((REFERENCE / "ab_sequential.json").read_text())
    x, looks = (
        np.array(known["inputs"]["confseq_x"], dtype=np.float64),
        known["expected"]["confseq"]["times"],
    )
    whole = {
        "predmix_empbern_twosided_cs": bounded.bernstein_sequence(x),
    }
    found: dict[str, Any] = {
        name: {"ci": [(low[n - 1], high[n - 1]) for n in looks]}
        for name, (low, high) in whole.items()
    }
    by_grid = {
        "betting_cs": [betting(x[:n], anytime=True, running=False) for n in looks],
        "hedged_cs_breaks1000": [betting(x[:n], anytime=True, running=True) for n in looks],
        "conjmix_bernoulli_cs_topt500": [
            bounded.rate_sequence(int(x[:n].sum()), n, tuning=500.0) for n in looks
        ],
    }
    found |= {name: {"ci": [outside(*ci) for ci in cis]} for name, cis in by_grid.items()}
    found["betting_ci_n500"] = outside(*betting(x, anytime=False, running=True))
    return found


def betting(x: Floats, *, anytime: bool, running: bool) -> tuple[float, float]:
    """Bounds of the mean of x by our bets, cut as the peer's are: at half of what may be lost, or
    at all of it.
    """
    ones, how = (
        np.ones(x.size),
        {"anytime": anytime, "running": running, "cut": 0.5 if anytime else 1.0 - 1e-12},
    )
    low = intervals.betting_lower(x, ones, 0.025, **how)  # type: ignore[arg-type]
    return low, intervals.betting_upper(x, ones, 1.0, 0.025, **how)  # type: ignore[arg-type]


def outside(low: float, high: float, points: int = 1_000) -> tuple[float, float]:
    """The next points of a grid outside of both bounds, within [0, 1]."""
    return max(0.0, (ceil(low * points) - 1) / points), min(
        1.0, (floor(high * points) + 1) / points
    )


def _quantiles() -> dict[str, float]:
    arms = [
        quantiles.Ordered(np.sort(users().loc[users().arm == a, "y"].to_numpy()), COUNTS[a][1])
        for a in (1, 0)
    ]
    return {
        f"quantile_ab_p_value_p{round(100 * q)}_topt2000": quantiles.equal_quantiles_p(
            *arms, q, tuning=2_000.0
        )
        for q in (0.5, 0.9)
    }


def _off_policy(campaign: str) -> dict[str, Any]:
    """Bounds of a policy's value on a log of the Open Bandit sample, by empirical Bernstein and by
    bets.
    """
    log = pd.read_parquet(REFERENCE.parent / "obd" / f"{campaign}_random_log.parquet")
    w = (log.pi_e_logged_action / log.pscore).to_numpy()
    r = log.reward.to_numpy(np.float64)
    at = np.array([1_000, 5_000, 10_000]) - 1
    top = float(w.max())
    betting_ci = outside(*betting(w * r / top, anytime=False, running=True))
    return {
        "lower_eb": np.maximum(0.0, bounded.bernstein_lower(w * r, 0.025)[at]),
        "upper_eb": 1.0 - bounded.bernstein_lower(w * (1.0 - r), 0.025)[at],
        "betting_ci_scaled_by_wmax": [top * x for x in betting_ci],
        "wmax": top,
    }


def _look(look: Mapping[str, float]) -> dict[str, Any]:
    frame, arms = users(), []
    for arm, n in ((1, look["n1"]), (0, look["n0"])):
        y = frame.loc[frame.arm == arm, "y"].to_numpy()[: round(n)]
        arms.append((y.mean(), y.var(ddof=1) / y.size))
    difference, se = float(arms[0][0] - arms[1][0]), sqrt(arms[0][1] + arms[1][1])
    n = look["n0"] + look["n1"]
    half = float(sequential.multiplier(n)) * se
    return {
        "diff": difference,
        "se": se,
        "asympcs_N5000": [difference - half, difference + half],
        "e_value": exp(float(sequential.log_e_value(difference / se, n))),
        "p": float(sequential.always_valid_p(difference / se, n)),
    }


def _group_sequential(looks: list[dict[str, float]]) -> dict[str, Any]:
    table = pd.DataFrame(looks)
    times = table.groupby("day")["n"].sum() / table["final"].iloc[0]
    bounds = sequential.boundaries([float(t) for t in times], 0.05, "quadratic")
    result = []
    for (_, day), reach in zip(table.groupby("day"), bounds, strict=True):
        mean = (day.num / day.n).to_numpy()
        variance = ((day.sq - day.num**2 / day.n) / (day.n - 1) / day.n).to_numpy()
        difference, half = mean[1] - mean[0], float(reach) * sqrt(variance.sum())
        result.append(
            {"difference": difference, "adj_lo": difference - half, "adj_hi": difference + half}
        )
    fifths = sequential.boundaries([0.2, 0.4, 0.6, 0.8, 1.0], 0.05, "quadratic")
    return {
        "gst_y_5looks": {"result": result},
        "gst_bounds_alpha.05_power2spending_two_sided": fifths,
    }


def _srm() -> dict[str, Any]:
    known = json.loads((REFERENCE / "ab_srm.json").read_text())["expected"]
    daily, null = known["sequential"]["daily"], known["sequential"]["null"]
    running = np.cumsum(daily, axis=0)
    looks = {
        f"concentration_{c}": [
            {"log_bf": bf, "p": p}
            for bf, p in zip(
                log_bayes_factor(running, null, c), sequential_srm(daily, null, c), strict=True
            )
        ]
        for c in (100, 10_000)
    }
    pearson = []
    for case in known["chi2"]:
        p = srm(case["observed"], case["weights"])
        pearson.append({"p": p, "chi2": float(stats.chi2.isf(p, len(case["weights"]) - 1))})
    return {
        "chi2": pearson,
        "gbstats": {
            "cases": [
                {"p": srm(case["users"], case["weights"])} for case in known["gbstats"]["cases"]
            ]
        },
        "spotify_3arm_p": srm([2000, 2100, 1950], [1, 1, 1]),
        "sequential": looks,
    }


def agree(wanted: float, got: float, tolerance: float = 1e-6) -> bool:
    """Whether two numbers agree to the tolerance, relative to the larger of 1 and the number."""
    return (
        got == wanted if isinf(wanted) else abs(got - wanted) <= tolerance * max(1.0, abs(wanted))
    )
