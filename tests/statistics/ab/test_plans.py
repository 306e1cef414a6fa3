"""Planned power is the power of the report's own rule, simulated: Holm over the treatments,
boundaries, CUPED, guardrails.

A run draws the moments of its arms (normal means with Wishart scatter, or counts of a multinomial),
which is all of the data that the rule reads, and hands them to the very functions that `analyse`
calls.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import brentq

from topbill import ab
from topbill.ab.analysis import prepare
from topbill.ab.core.effect import Pair, Rule, checked_rule, effect_of, estimate_pair
from topbill.ab.core.units import ArmMoments, MetricTerms, gather
from topbill.ab.metrics import Mean, Proportion
from topbill.ab.parts import Columns
from topbill.ab.results import Comparison, SampleRatio
from topbill.ab.verdict import called, guardrail, verdict
from topbill.domain.records import Floats
from topbill.stats import sequential
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
        return ArmMoments(Moments(self.terms.names, n, centre, scatter), n, 0, covered, n)


@dataclass(frozen=True)
class Capped:
    """Units with log-normal values, of which those above `cap` count as it; a lift is one of what
    counts."""

    terms: MetricTerms
    cap: float = 3.0

    def values(self, rng: np.random.Generator, n: int, lift: float) -> Floats:
        return np.minimum(np.exp(rng.normal(size=n)) * factor_for(self.cap, lift), self.cap)

    def arm(self, rng: np.random.Generator, n: int, lift: float) -> ArmMoments:
        y = self.values(rng, n, lift)
        scatter = np.array([[n * y.var()]])
        return ArmMoments(Moments(self.terms.names, n, np.array([y.mean()]), scatter), n, 0, (), n)


def mean_of_capped(factor: float, cap: float) -> float:
    """The mean of a factor times standard log-normal values that count as `cap` at most."""
    end = np.log(cap / factor)
    return float(factor * np.exp(0.5) * stats.norm.cdf(end - 1.0) + cap * stats.norm.sf(end))


@lru_cache
def factor_for(cap: float, lift: float) -> float:
    """By what values must be larger for their capped mean to be larger by `lift`."""
    aim = (1.0 + lift) * mean_of_capped(1.0, cap)
    return float(brentq(lambda factor: mean_of_capped(factor, cap) - aim, 0.9, 2.0))


def terms_of_one(covariate: bool = False) -> MetricTerms:
    """The columns that the rule reads of a metric with one value a unit."""
    frame = pd.DataFrame({"unit": range(8), "variant": ["c", "t"] * 4, "y": np.arange(8.0) % 5})
    frame["x"] = frame.y + [0.0, 1.0] * 4
    chosen = design(1)
    covariates = {"y": "x"} if covariate else {}
    prepared = prepare(frame, chosen, columns=COLUMNS, covariates=covariates)
    return gather(prepared.rows, prepared.metrics, covariates).terms["y"]


def design(
    treatments: int, guardrail: ab.Margin | None = None, cap: float | None = None
) -> ab.Design:
    names = ["c", *(f"t{i}" for i in range(1, treatments + 1))] if treatments > 1 else ["c", "t"]
    metrics = [ab.MetricDesign(name="y", weight=1.0, binary=guardrail is not None, cap=cap)]
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


def power_of_calls(world: Normal | Capped, rule: Rule, n: int, treatments: int) -> float:
    """How often the one treatment that has the lift is called better at any of the rule's looks, n
    units an arm by the last."""
    rng = np.random.default_rng(treatments)
    return sum(is_found(rng, world, rule, n, treatments) for _ in range(RUNS)) / RUNS


def is_found(
    rng: np.random.Generator, world: Normal | Capped, rule: Rule, n: int, treatments: int
) -> bool:
    """Whether the treatment with the lift is called better at any look of one run."""
    lifts = [0.0, LIFT, *[0.0] * (treatments - 1)]
    arms: list[ArmMoments] = []
    came = 0
    for k, fraction in enumerate(rule.looks, 1):
        new = [world.arm(rng, round(n * fraction) - came, lift) for lift in lifts]
        arms = [one + more for one, more in zip(arms, new, strict=True)] if arms else new
        came = round(n * fraction)
        control, *treated = ({(): arm} for arm in arms)
        pairs = [estimate_pair(world.terms, own, control) for own in treated]
        if is_called(pairs, replace(rule, looks=rule.looks[:k]))[0].call == "better":
            return True
    return False


@pytest.fixture
def quick_p_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The p-values of several looks read off a table of the product's own, each of which is the
    root of an integral."""
    z = np.linspace(0.0, 9.0, 91)
    exact = sequential.repeated_p

    @lru_cache
    def table(looks: tuple[float, ...]) -> Floats:
        return np.log([exact(float(each), looks) for each in z])

    def read(one: float, looks: tuple[float, ...], _: sequential.Spending) -> float:
        return float(np.exp(np.interp(abs(one), z, table(looks))))

    assert read(2.23, (0.5, 1.0), "obrien-fleming") == pytest.approx(
        exact(2.23, (0.5, 1.0)), rel=0.01
    )
    monkeypatch.setattr(sequential, "repeated_p", read)
    # The same few boundaries are asked for ten thousand times.
    monkeypatch.setattr(sequential, "boundaries", lru_cache(sequential.boundaries))


LOOKS = (0.25, 0.5, 0.75, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("treatments", [1, 5])
@pytest.mark.usefixtures("quick_p_values")
def test_planned_power_of_several_looks_is_the_power_of_the_report(treatments: int) -> None:
    chosen = design(treatments)
    plan = ab.plan(pilot(chosen), chosen, relative=[LIFT], method="group-sequential", looks=LOOKS)
    world = Normal(terms_of_one(), 10.0, 5.0)
    rule = checked_rule("group-sequential", 0.05, looks=LOOKS)
    simulated = power_of_calls(world, rule, (plan.runtimes[0].units or 0) // 2, treatments)
    assert simulated == pytest.approx(0.8, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("treatments", [1, 5])
@pytest.mark.parametrize("method", ["fixed", "sequential", "group-sequential"])
@pytest.mark.usefixtures("quick_p_values")
def test_planned_power_of_a_capped_metric_is_that_of_what_counts(
    method: ab.Method, treatments: int
) -> None:
    world = Capped(terms_of_one())
    rng = np.random.default_rng(4)
    chosen = design(treatments, cap=world.cap)
    names = list(chosen.shares)
    rows = pd.DataFrame({"unit": np.arange(60_000), "variant": rng.choice(names, 60_000), "day": 1})
    # As they come: what is above the cap is the plan's to cut.
    rows["y"] = np.exp(rng.normal(size=60_000))
    looks = LOOKS if method == "group-sequential" else (1.0,)
    plan = ab.plan(rows, chosen, relative=[LIFT], method=method, looks=looks)
    rule = checked_rule(method, 0.05, looks=looks)
    simulated = power_of_calls(world, rule, (plan.runtimes[0].units or 0) // 2, treatments)
    assert simulated == pytest.approx(0.8, abs=0.04)


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
    return ArmMoments(Moments(terms.names, n, np.array([mean]), scatter), n, 0, (), n)


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


def test_a_capped_metric_is_called_by_what_counts() -> None:
    world = Capped(terms_of_one())
    rng = np.random.default_rng(5)
    rows = pd.DataFrame({"unit": range(4_000), "variant": ["c", "t"] * 2_000})
    rows["y"] = np.exp(rng.normal(size=4_000)) * np.where(rows.variant == "t", 1.2, 1.0)
    result = ab.analyse(rows, design(1, cap=world.cap), day=None, method="fixed")
    counts = rows.y.clip(upper=world.cap)
    arms = []
    for name in ("t", "c"):
        own = counts[rows.variant == name].to_numpy()
        scatter = np.array([[own.size * own.var()]])
        moments = Moments(world.terms.names, own.size, np.array([own.mean()]), scatter)
        arms.append({(): ArmMoments(moments, own.size, 0, (), own.size)})
    (call,) = is_called([estimate_pair(world.terms, *arms)], checked_rule("fixed", 0.05))
    (shown,) = result.comparisons
    assert (call.call, call.p_value) == (shown.call, pytest.approx(shown.p_value))
