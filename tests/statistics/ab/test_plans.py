"""Planned power is the power of the report's own rule, simulated: Holm over the treatments,
boundaries, CUPED, guardrails.

A run draws the moments of its arms (normal means with Wishart scatter, or counts of a multinomial),
which is all of the data that the rule reads, and hands them to the very functions that `analyse`
calls.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from topbill import ab
from topbill.ab.analysis import prepare
from topbill.ab.core.effect import Pair, Rule, checked_rule, effect_of, estimate_pair
from topbill.ab.core.units import ArmMoments, MetricTerms, gather
from topbill.ab.metrics import Mean, Proportion
from topbill.ab.parts import Columns
from topbill.ab.results import Comparison, SampleRatio
from topbill.ab.verdict import called, guardrail, verdict
from topbill.domain.records import Floats
from topbill.stats.moments import Moments

RUNS = 2_000
LIFT = 0.05
COLUMNS = Columns("unit", "variant", None)
ALL_IS_WELL = SampleRatio(
    counts={}, shares={}, p_value=1.0, p_sequential=None, alpha=0.001, alarm=False
)


@pytest.fixture(autouse=True, scope="module")
def nothing_to_collect() -> Iterator[None]:
    """statsmodels' `multipletests` collects garbage at each call, a hundred times the rule's own
    time where a test process holds many objects."""
    gc.freeze()
    yield
    gc.unfreeze()


@dataclass(frozen=True)
class Normal:
    """Units with normal values: the metric, and a covariate beside it where `correlation` is not
    0."""

    terms: MetricTerms
    mean: float
    sd: float
    correlation: float = 0.0

    def arm(self, rng: np.random.Generator, n: int, lift: float) -> ArmMoments:
        mean = np.array([self.mean * (1.0 + lift), 0.0])[: len(self.terms.names)]
        cross = self.correlation * self.sd
        covariance = np.array([[self.sd**2, cross], [cross, 1.0]])[: mean.size, : mean.size]
        root = np.linalg.cholesky(covariance)
        # Bartlett's decomposition of a Wishart matrix with n − 1 degrees of freedom.
        lower = np.diag(np.sqrt(rng.chisquare(n - 1 - np.arange(mean.size))))
        if mean.size == 2:
            lower[1, 0] = rng.normal()
        scatter = root @ lower @ lower.T @ root.T
        centre = mean + root @ rng.normal(size=mean.size) / np.sqrt(n)
        covered = (n,) * (mean.size - 1)
        return ArmMoments(Moments(self.terms.names, n, centre, scatter), n, 0, covered)


def terms_of_one(covariate: bool = False) -> MetricTerms:
    """The columns that the rule reads of a metric with one value a unit."""
    frame = pd.DataFrame({"unit": range(8), "variant": ["c", "t"] * 4, "y": np.arange(8.0) % 5})
    frame["x"] = frame.y + [0.0, 1.0] * 4
    chosen = design(1)
    covariates = {"y": "x"} if covariate else {}
    prepared = prepare(frame, chosen, columns=COLUMNS, covariates=covariates)
    return gather(prepared.rows, prepared.metrics, covariates).terms["y"]


def design(treatments: int, guardrail: ab.Margin | None = None) -> ab.Design:
    names = ["c", *(f"t{i}" for i in range(1, treatments + 1))] if treatments > 1 else ["c", "t"]
    metrics = [ab.MetricDesign(name="y", weight=1.0, binary=guardrail is not None)]
    if guardrail is not None:
        metrics.append(ab.MetricDesign(name="leave", binary=True, better="lower"))
    return ab.Design(
        key="k",
        control="c",
        shares=dict.fromkeys(names, 1.0 / len(names)),
        metrics=tuple(metrics),
        guardrails={} if guardrail is None else {"leave": guardrail},
    )


def is_called(pairs: Sequence[Pair], rule: Rule) -> list[Comparison]:
    """The comparisons of one metric as the report calls them."""
    comparisons = []
    for i, pair in enumerate(pairs):
        effect = effect_of("y", f"t{i}", pair, rule)
        comparisons.append(
            Comparison(**{name: getattr(effect, name) for name in effect.__struct_fields__})
        )
    return called(comparisons, rule.alpha)


def power_of_calls(world: Normal, rule: Rule, n: int, treatments: int) -> float:
    """How often the one treatment that has the lift is called better, n units an arm."""
    rng = np.random.default_rng(treatments)
    wins = 0
    for _ in range(RUNS):
        control = {(): world.arm(rng, n, 0.0)}
        pairs = []
        for i in range(treatments):
            treated = {(): world.arm(rng, n, 0.0 if i else LIFT)}
            pairs.append(estimate_pair(world.terms, treated, control))
        wins += is_called(pairs, rule)[0].call == "better"
    return wins / RUNS


def pilot(chosen: ab.Design, correlation: float = 0.0, units: int = 60_000) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    x = rng.normal(size=units)
    y = 10.0 + 5.0 * (correlation * x + np.sqrt(1.0 - correlation**2) * rng.normal(size=units))
    names = list(chosen.shares)
    return pd.DataFrame(
        {"unit": np.arange(units), "variant": rng.choice(names, units), "day": 1, "y": y, "x": x}
    )


@pytest.mark.slow
@pytest.mark.parametrize("treatments", [1, 5])
@pytest.mark.parametrize("method", ["fixed", "sequential"])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_planned_power_is_the_power_of_the_report(
    method: ab.Method, treatments: int, correlation: float
) -> None:
    chosen = design(treatments)
    covariates = {"y": "x"} if correlation else {}
    plan = ab.plan(
        pilot(chosen, correlation), chosen, relative=[LIFT], method=method, covariates=covariates
    )
    terms = terms_of_one(bool(correlation))
    world = Normal(terms, 10.0, 5.0, correlation)
    rule = checked_rule(method, 0.05)
    simulated = power_of_calls(world, rule, (plan.runtimes[0].units or 0) // 2, treatments)
    assert simulated == pytest.approx(0.8, abs=0.04)


# --- Guardrails: two rates of one unit


def counts(rng: np.random.Generator, n: int, play: float, leave: float) -> Floats:
    """Units that played and left, only played, only left, did neither; who plays seldom leaves."""
    both = 0.5 * play * leave
    return rng.multinomial(n, [both, play - both, leave - both, 1.0 - play - leave + both])


def of_rates(terms: MetricTerms, successes: float, n: int) -> ArmMoments:
    mean = successes / n
    scatter = np.array([[n * mean * (1.0 - mean)]])
    return ArmMoments(Moments(terms.names, n, np.array([mean]), scatter), n, 0, ())


def rate_terms() -> tuple[MetricTerms, MetricTerms]:
    frame = pd.DataFrame({"unit": range(8), "variant": ["c", "t"] * 4, "y": [0, 1] * 4})
    frame["leave"] = [1, 0, 0, 1] * 2
    chosen = design(1, ab.Margin(0.1))
    prepared = prepare(frame, chosen, columns=COLUMNS, covariates={})
    terms = gather(prepared.rows, prepared.metrics).terms
    return terms["y"], terms["leave"]


def power_to_ship(rule: Rule, n: int, treatments: int, margin: ab.Margin) -> tuple[float, float]:
    """How often the treatment with the lift ships, and how often it is known to be harmless."""
    play, leave = rate_terms()
    rng = np.random.default_rng(10 + treatments)
    ships = harmless = 0
    for _ in range(RUNS):
        pairs, guards = [], []
        control = counts(rng, n, 0.4, 0.3)
        reference = [{(): of_rates(play, sum(control[:2]), n)}]
        reference.append({(): of_rates(leave, control[0] + control[2], n)})
        for i in range(treatments):
            treated = counts(rng, n, 0.4 * (1.0 if i else 1.0 + LIFT), 0.3)
            own = {(): of_rates(play, sum(treated[:2]), n)}
            pairs.append(estimate_pair(play, own, reference[0]))
            own = {(): of_rates(leave, treated[0] + treated[2], n)}
            guards.append(estimate_pair(leave, own, reference[1]))
        results = [
            guardrail("leave", f"t{i}", pair, rule, margin=margin, better="lower")
            for i, pair in enumerate(guards)
        ]
        harmless += results[0].status == "not_worse"
        said = verdict(is_called(pairs, rule), results, ALL_IS_WELL, "c")
        ships += said.winner == "t0"
    return ships / RUNS, harmless / RUNS


@pytest.mark.slow
@pytest.mark.parametrize("treatments", [1, 5])
@pytest.mark.parametrize("method", ["fixed", "sequential"])
@pytest.mark.parametrize("margin", [ab.Margin(0.05), ab.Margin(0.02, "points")], ids=str)
def test_the_planned_power_to_ship_holds_with_a_guardrail(
    method: ab.Method, treatments: int, margin: ab.Margin
) -> None:
    chosen = design(treatments, margin)
    rng = np.random.default_rng(2)
    # As many units of each kind as there are, so that the pilot has no noise of its own.
    both, play, leave, none = 600, 3_400, 2_400, 3_600
    one = pd.DataFrame(
        {
            "y": np.repeat([1, 1, 0, 0], [both, play, leave, none]),
            "leave": np.repeat([1, 0, 1, 0], [both, play, leave, none]),
        }
    )
    rows = pd.concat([one.assign(variant=name, day=1) for name in chosen.shares])
    rows = rows.assign(unit=rng.permutation(len(rows)))
    plan = ab.plan(rows, chosen, relative=[LIFT], method=method)
    rule = checked_rule(method, 0.05)
    run, guard = plan.runtimes[0], plan.guardrails[0]
    ships, _ = power_to_ship(rule, (run.ship_units or 0) // 2, treatments, margin)
    assert ships == pytest.approx(0.8, abs=0.04)
    _, harmless = power_to_ship(rule, (guard.units or 0) // 2, 1, margin)
    assert harmless == pytest.approx(0.8, abs=0.04)


# --- What is simulated here is what `analyse` does


def test_the_runs_call_what_analyse_calls() -> None:
    chosen = design(5, ab.Margin(0.05))
    rng = np.random.default_rng(3)
    rows = pd.DataFrame({"unit": np.arange(6_000)})
    rows["variant"] = np.repeat(list(chosen.shares), 1_000)
    rows["y"] = (rng.random(6_000) < 0.4 + 0.08 * (rows.variant == "t1")).astype(int)
    rows["leave"] = (rng.random(6_000) < 0.3).astype(int)
    result = ab.analyse(rows, chosen, day=None, method="fixed")
    play, leave = rate_terms()
    assert (type(play.metric), type(terms_of_one().metric)) == (Proportion, Mean)
    by_variant = rows.groupby("variant")[["y", "leave"]].sum()
    pairs, guards = [], []
    for name in [v for v in chosen.shares if v != "c"]:
        for terms, column, into in ((play, "y", pairs), (leave, "leave", guards)):
            arms = [{(): of_rates(terms, by_variant.loc[v, column], 1_000)} for v in (name, "c")]
            into.append(estimate_pair(terms, *arms))
    rule = checked_rule("fixed", 0.05)
    calls = [c.call for c in is_called(pairs, rule)]
    assert calls == [c.call for c in result.comparisons if c.metric == "y"]
    assert calls[0] == "better"
    statuses = [
        guardrail("leave", "t", pair, rule, margin=ab.Margin(0.05), better="lower").status
        for pair in guards
    ]
    assert statuses == [g.status for g in result.guardrails]
