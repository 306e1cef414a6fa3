"""Launches with planted truth: how soon is harm rolled back, and how often without reason?

    python -m benchmarks.launches [--launches 4000] [--seed 2] [--only ramp|gate]

A quarter of the launches each is harmful by four times the margin of its guardrail, harmful by
twice the margin, harmless, and better by the margin. Half of them have a rate for a guardrail
(abandoned: 10% of units, margin 2%), half a mean of numbers (minutes watched: exponential, margin
0.7%). Rates move by the hour (15%), from day to day (3%) and with the weeks (up to 10% a month). A
unit counts once its window is over: half an hour for the one, six hours for the other. Each launch
is that of the issue: steps of 1%, 5%, 25%, 50% and 100% of 40,000 new units a day, each for a day
and 5,000 units at least. Once an hour `ab.harm` judges the sums, and `launch.ramp` says what
follows; what happens in the world is drawn apart from who is in which variant. A launch is watched
until 1.5 fixed-horizon samples are exposed.

The fixed-horizon sample is that of a non-inferiority test at the margin which looks once, two-sided
at 5% with 80% power: `topbill power`, method fixed. Shares of launches have 95% intervals
(Clopper & Pearson). Bars are for one guardrail and one variant; of several each is judged more
strictly.

How many launches: worked out by the normal distribution with these exposures and looks, 97% of
those harmful by four margins are rolled back in time, 97% of those by two, and 3.8% of the harmless
ones. To have more of the one is to have less of the other: levels that fall within their stage gain
0.2%, since when 15% are exposed, 12% to 17% may be known, by the window and the hour. With such
shares three hundred launches of each truth meet the bars in 83 tries of a hundred, a thousand in
97: so a thousand are the default.

The log's gate (`launch.gate`) is asked the same of candidates whose objective is planted, on a log
that explored and on one that always showed the same.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from math import exp, sqrt
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from scipy.stats import binomtest

from topbill.ab import ArmEstimate, Margin, harm
from topbill.ab.checks.srm import log_bayes_factor
from topbill.ab.core.effect import RATE, Pair
from topbill.ab.core.units import Rate
from topbill.ab.harm import fixed_horizon
from topbill.ab.planning import Outlook
from topbill.domain.records import Floats, Indices
from topbill.launch.evidence import LaunchEvidence
from topbill.launch.gate import GateResult, judge
from topbill.launch.launch_state import LaunchState, state_of
from topbill.launch.ramp import MICROS, Look, Wait, next_step
from topbill.log.protocol import Order
from topbill.ope import delta_ope, estimate
from topbill.spec import Gate, Hold, Launch

UNITS_A_DAY = 40_000
LAUNCH = Launch(ramp=(0.01, 0.05, 0.25, 0.5, 1.0), hold=Hold(at_least=86_400.0, units=5_000))
HORIZONS = 1.5
"""How many fixed horizons it may take until all traffic takes part; and how many fixed-horizon
samples are exposed while it is watched."""
SPLIT_ALPHA = 0.01


class Guardrail(NamedTuple):
    """What is guarded: a rate of which less is better, or a mean of numbers of which more is."""

    name: str
    is_rate: bool
    base: float
    margin: Margin
    window: int
    """Hours until a unit counts, by the hour: those of the example file."""

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Which direction is good."""
        return "lower" if self.is_rate else "higher"

    def fixed_horizon(self) -> int:
        """The units of a fixed-horizon test, both variants together."""
        sd = sqrt(self.base * (1.0 - self.base)) if self.is_rate else self.base
        units = fixed_horizon(Outlook(self.base, sd), self.margin, self.better)
        if units is None:
            raise ValueError(f"{self.name}: no number of units would do")
        return units


GUARDRAILS = (
    Guardrail("abandoned", True, 0.1, Margin(0.02), 1),
    Guardrail("minutes", False, 1.0, Margin(0.007), 6),
)


class Truth(NamedTuple):
    """What a launch's variant does to its guardrail, in margins; more is worse."""

    name: str
    margins: float


TRUTHS = (
    Truth("harmful 4x", 4.0),
    Truth("harmful 2x", 2.0),
    Truth("harmless", 0.0),
    Truth("better", -1.0),
)


# ------------------------------------------------------------------ the world


class World:
    """One launch's viewers: how many come each hour, and what they do in either variant."""

    def __init__(self, guardrail: Guardrail, truth: Truth, hours: int, seed: Sequence[int]) -> None:
        self._guardrail = guardrail
        self._rng = np.random.default_rng([*seed, 0])
        self._change = 1.0 + truth.margins * guardrail.margin.value * (
            1.0 if guardrail.is_rate else -1.0
        )
        t = np.arange(hours)
        phase, slope = self._rng.uniform(0.0, 24.0), self._rng.uniform(-0.003, 0.003)
        by_day = self._rng.normal(0.0, 0.03, hours // 24 + 1)[t // 24]
        daily = np.sin(2.0 * np.pi * (t + phase) / 24.0)
        self.rates = guardrail.base * (1.0 + 0.15 * daily) * np.exp(by_day + slope * t / 24.0)
        """What a unit of the control does, by the hour in which it came."""
        self.arrivals = self._rng.poisson(UNITS_A_DAY / 24.0 * (1.0 + 0.5 * daily))

    def outcomes(self, hour: int, units: int, *, is_treated: bool) -> Moments:
        """What so many units did."""
        mean = self.rates[hour] * (self._change if is_treated else 1.0)
        if self._guardrail.is_rate:
            # Each unit does it or not: a binomial count is the sum of them.
            count = float(self._rng.binomial(units, mean))
            return Moments(units, count, count)
        values = self._rng.exponential(mean, units)
        return Moments(units, float(values.sum()), float(values @ values))


class Moments(NamedTuple):
    """Of one variant: units, the sum of what they did, and of its squares."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def plus(self, other: Moments) -> Moments:
        """Both together."""
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)


Arms = tuple[Moments, Moments]
"""The control's and the variant's."""


def pair_of(control: Moments, treated: Moments, *, is_rate: bool) -> Pair:
    """The two as `ab` has them."""
    if min(control.n, treated.n) < 2:
        return Pair(None, None, "too_few_units", treated.n, control.n)
    one, other = _estimate(treated, is_rate=is_rate), _estimate(control, is_rate=is_rate)
    if not is_rate:
        return Pair(one, other, "", treated.n, control.n)
    rates = (Rate(round(treated.total), treated.n), Rate(round(control.total), control.n))
    return Pair(one, other, "", treated.n, control.n, rates=rates, bounds=RATE, is_proportion=True)


def _estimate(arm: Moments, *, is_rate: bool) -> ArmEstimate:
    mean = arm.total / arm.n
    freedom = arm.n if is_rate else arm.n - 1
    variance = max(arm.squares - arm.n * mean * mean, 0.0) / freedom
    return ArmEstimate(mean, variance / arm.n, arm.n)


# ------------------------------------------------------------------ a launch


class Outcome(NamedTuple):
    """What became of a launch. `exposed` and `reached_at` (all of the traffic) are in fixed
    horizons; None where it was not rolled back, or never got there."""

    truth: Truth
    guardrail: Guardrail
    exposed: float | None
    reached_at: float | None


class Split:
    """The sequential test of the split, of units as they come."""

    def __init__(self) -> None:
        self._counts = np.zeros(2)
        self.p_value = 1.0

    def add(self, control: int, treated: int) -> None:
        """Some units more."""
        self._counts += (control, treated)
        evidence = float(log_bayes_factor(self._counts, (0.5, 0.5))[0])
        self.p_value = min(self.p_value, exp(-evidence))


class Launched:
    """One launch in its world, hour by hour."""

    def __init__(self, guardrail: Guardrail, truth: Truth, seed: Sequence[int]) -> None:
        self._guardrail, self._truth = guardrail, truth
        self._horizon = guardrail.fixed_horizon()
        # Steps before the last one take about a horizon, in which few are exposed.
        self._hours = round((HORIZONS + 1.5) * 24.0 * self._horizon / UNITS_A_DAY)
        self._world = World(guardrail, truth, self._hours, seed)
        # Who takes part and in which variant: another stream, which a change of the world leaves
        # as it is.
        self._assignment = np.random.default_rng([*seed, 1])
        self._ramp = Ramp()
        self._split = Split()
        self._young: deque[Arms] = deque()
        self._mature: Arms = (Moments(), Moments())
        self._exposed = 0
        self._in_step = 0

    def run(self) -> Outcome:
        """Until it is rolled back, or watched for long enough."""
        reached_at: float | None = None
        for hour in range(self._hours):
            if self._exposed >= HORIZONS * self._horizon:
                break
            self._expose(hour)
            before = self._ramp.traffic
            self._ramp.look(self._evidence(), hour + 1)
            if self._ramp.is_over:
                exposed = self._exposed / self._horizon
                return Outcome(self._truth, self._guardrail, exposed, reached_at)
            if self._ramp.traffic != before:
                self._in_step = 0
            if reached_at is None and self._ramp.traffic == LAUNCH.ramp[-1]:
                reached_at = (hour + 1) / 24.0 * UNITS_A_DAY / self._horizon
        return Outcome(self._truth, self._guardrail, None, reached_at)

    def _expose(self, hour: int) -> None:
        """An hour of viewers; those whose window is over count from now on."""
        units = int(self._assignment.binomial(self._world.arrivals[hour], self._ramp.traffic))
        treated = int(self._assignment.binomial(units, 0.5))
        self._exposed += units
        self._in_step += units
        self._split.add(units - treated, treated)
        self._young.append(
            (
                self._world.outcomes(hour, units - treated, is_treated=False),
                self._world.outcomes(hour, treated, is_treated=True),
            )
        )
        if len(self._young) > self._guardrail.window:
            control, variant = self._young.popleft()
            self._mature = (self._mature[0].plus(control), self._mature[1].plus(variant))

    def _evidence(self) -> LaunchEvidence:
        guardrail = self._guardrail
        judged = harm(
            guardrail.name,
            "new",
            pair_of(*self._mature, is_rate=guardrail.is_rate),
            margin=guardrail.margin,
            better=guardrail.better,
        )
        return LaunchEvidence(
            guardrails=(judged,),
            sample_ratio_ok=self._split.p_value > SPLIT_ALPHA,
            sample_ratio_p=self._split.p_value,
            units=self._exposed,
            units_in_step=self._in_step,
        )


class Ramp:
    """Where the launch stands, by its orders and what `next_step` says of them."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._state = LaunchState()
        self.look(LaunchEvidence(), 0)

    @property
    def traffic(self) -> float:
        """The part of all viewers that take part."""
        return self._state.traffic or 0.0

    @property
    def is_over(self) -> bool:
        """Whether it was rolled back."""
        return bool(self._state.over)

    def look(self, evidence: LaunchEvidence, hour: int) -> None:
        """Go on, go back, or wait."""
        now = hour * 3_600
        evidence = msgspec.structs.replace(evidence, published_us=now * MICROS)
        step = next_step(LAUNCH, self._state, Look(evidence=evidence), now)
        if isinstance(step, Wait):
            return
        order = Order("launched", "", "", now * MICROS, "launch", step.status, step.because)
        order = order._replace(
            kind=step.kind,
            step=len(self._orders) + 1,
            traffic=step.traffic,
            about=step.about,
        )
        self._orders.append(order)
        self._state = state_of(self._orders)


def launch_all(launches: int, seed: int) -> list[Outcome]:
    """So many launches, a quarter of each truth, half of each guardrail."""
    outcomes = []
    for number in range(launches):
        truth = TRUTHS[number % len(TRUTHS)]
        guardrail = GUARDRAILS[number // len(TRUTHS) % len(GUARDRAILS)]
        outcomes.append(Launched(guardrail, truth, (seed, number)).run())
    return outcomes


# ------------------------------------------------------------------ the bars


class Bar(NamedTuple):
    """What is asked of a share of launches, beside what was seen."""

    name: str
    least: float
    most: float
    hits: int
    tries: int

    @property
    def share(self) -> float:
        """The share that was seen."""
        return self.hits / self.tries if self.tries else 0.0

    @property
    def is_met(self) -> bool:
        """Whether that is within what is asked."""
        return self.tries > 0 and self.least <= self.share <= self.most

    def line(self) -> str:
        """Asked, seen, its interval."""
        if not self.tries:
            return f"{self.name:<62} no launch"
        low, high = binomtest(self.hits, self.tries).proportion_ci(0.95)
        asked = f">= {self.least:.0%}" if self.least > 0.0 else f"<= {self.most:.0%}"
        seen = f"{self.share:.1%} of {self.tries} ({low:.1%} to {high:.1%})"
        return f"{self.name:<62} {asked:>7}  {seen:<34} {'met' if self.is_met else 'MISSED'}"


def bars(outcomes: Sequence[Outcome]) -> list[Bar]:
    """The issue's bars over what became of launches."""
    by_truth: dict[str, list[Outcome]] = {truth.name: [] for truth in TRUTHS}
    for outcome in outcomes:
        by_truth[outcome.truth.name].append(outcome)

    def share(
        name: str, truth: str, hits: Callable[[Outcome], bool], least: float, most: float
    ) -> Bar:
        own = by_truth[truth]
        return Bar(name, least, most, sum(map(hits, own)), len(own))

    return [
        share(
            "harmful by 4 margins: rolled back before 15% was exposed",
            "harmful 4x",
            lambda o: o.exposed is not None and o.exposed < 0.15,
            0.95,
            1.0,
        ),
        share(
            "harmful by 2 margins: rolled back before 50% was exposed",
            "harmful 2x",
            lambda o: o.exposed is not None and o.exposed < 0.5,
            0.95,
            1.0,
        ),
        share("harmless: rolled back", "harmless", lambda o: o.exposed is not None, 0.0, 0.05),
        share(
            "better: at all traffic within 1.5 fixed horizons",
            "better",
            lambda o: o.reached_at is not None and o.reached_at <= HORIZONS,
            0.95,
            1.0,
        ),
        share("better: rolled back", "better", lambda o: o.exposed is not None, 0.0, 0.05),
    ]


def exposures(outcomes: Iterable[Outcome]) -> list[str]:
    """How much was exposed until harm was rolled back, and how long all traffic took."""
    lines = []
    for truth in TRUTHS:
        own = [o for o in outcomes if o.truth is truth]
        exposed = [o.exposed for o in own if o.exposed is not None]
        reached = [o.reached_at for o in own if o.reached_at is not None]
        parts = [f"{truth.name}:"]
        if exposed:
            median, most = np.quantile(exposed, [0.5, 0.95])
            parts.append(f"rolled back {len(exposed)}, exposed {median:.1%} (95%: {most:.1%})")
        if reached:
            parts.append(f"at all traffic {len(reached)}, after {np.median(reached):.2f} horizons")
        lines.append("  " + " ".join(parts))
    return lines


# ------------------------------------------------------------------ the gate

SEGMENTS, ACTIONS = 5, 4
DECISIONS = 300_000
"""Of the log that the gate reads: a week of the launch's viewers."""
GATE_MARGIN = Margin(0.02)


class GateOutcome(NamedTuple):
    """What the gate said of a candidate on a log that explored, and on one that showed the same."""

    truth: Truth
    explored: GateResult
    fixed: GateResult


def ask_gate(truth: Truth, seed: Sequence[int]) -> GateOutcome:
    """Whether an editor's order is to give way to another, by segment of viewers."""
    rng = np.random.default_rng([*seed, 2])
    segment = rng.integers(0, SEGMENTS, DECISIONS)
    chances = 0.1 + 0.6 * rng.dirichlet(np.full(ACTIONS, 3.0), SEGMENTS)
    usual = rng.integers(0, ACTIONS, SEGMENTS)
    candidate = (usual + rng.integers(1, ACTIONS, SEGMENTS)) % ACTIONS
    means = rng.uniform(0.2, 0.4, (SEGMENTS, ACTIONS))
    each = np.arange(SEGMENTS)
    means[each, candidate] = means[each, usual] * (1.0 - truth.margins * GATE_MARGIN.value)
    drift = np.exp(np.cumsum(rng.normal(0.0, 0.0005, DECISIONS // 1_000)))[:, None]
    policy = np.random.default_rng([*seed, 3])
    draws = policy.random(DECISIONS)[:, None]
    action = (draws > chances[segment].cumsum(axis=1)).sum(axis=1).clip(max=ACTIONS - 1)
    moved = (means[segment, action].reshape(-1, 1_000) * drift).ravel()
    reward = (rng.random(DECISIONS) < moved).astype(float)
    log = Log(segment, action, chances[segment, action], reward)
    always = (rng.random(DECISIONS) < means[segment, usual[segment]]).astype(float)
    only = Log(segment, usual[segment], np.ones(DECISIONS), always)
    return GateOutcome(truth, log.judged(candidate, usual), only.judged(candidate, usual))


class Log(NamedTuple):
    """Decisions of one slot, their propensities and rewards."""

    segment: Indices
    action: Indices
    propensity: Floats
    reward: Floats

    def judged(self, candidate: Indices, usual: Indices) -> GateResult:
        """The gate's judgement of the one order against the other."""
        terms = Gate("log", "candidate", "usual", GATE_MARGIN)
        model = self._model()
        target = (candidate[self.segment] == self.action).astype(float)
        baseline = (usual[self.segment] == self.action).astype(float)
        q_logged = model[self.segment, self.action]
        q_usual = model[self.segment, usual[self.segment]]
        options: dict[str, Any] = {"estimators": (terms.estimator,), "interval": "sequence"}
        difference = delta_ope(
            self.reward,
            self.propensity,
            target,
            baseline,
            q_logged=q_logged,
            q_target=model[self.segment, candidate[self.segment]],
            q_baseline=q_usual,
            **options,
        )
        versus = estimate(
            self.reward, self.propensity, baseline, q_logged=q_logged, q_target=q_usual, **options
        )
        return judge(terms, difference[terms.estimator], versus[terms.estimator])

    def _model(self) -> Floats:
        """What an action is worth in a segment, as a first tenth of the log has it."""
        first = slice(0, len(self.reward) // 10)
        cells = self.segment[first] * ACTIONS + self.action[first]
        counts = np.bincount(cells, minlength=SEGMENTS * ACTIONS)
        sums = np.bincount(cells, self.reward[first], SEGMENTS * ACTIONS)
        mean = float(self.reward[first].mean())
        return ((sums + mean) / (counts + 1.0)).reshape(SEGMENTS, ACTIONS)


def gate_bars(outcomes: Sequence[GateOutcome]) -> list[Bar]:
    """The issue's bars over what gates said."""
    harmful = [o for o in outcomes if o.truth.margins > 0.0]
    others = [o for o in outcomes if o.truth.margins <= 0.0]
    return [
        Bar(
            "log that explored: harmful ones shown to harm, nobody exposed",
            0.8,
            1.0,
            sum(o.explored.verdict == "harmful" for o in harmful),
            len(harmful),
        ),
        Bar(
            "log that explored: harmless and better ones called harmful",
            0.0,
            0.05,
            sum(o.explored.verdict == "harmful" for o in others),
            len(others),
        ),
        Bar(
            "log of one order: the gate says that it cannot judge",
            1.0,
            1.0,
            sum(o.fixed.verdict == "unknown" and o.fixed.reason != "" for o in outcomes),
            len(outcomes),
        ),
    ]


def gate_verdicts(outcomes: Sequence[GateOutcome]) -> list[str]:
    """What the gate said, by truth and kind of log."""
    lines = []
    for truth in TRUTHS:
        own = [o for o in outcomes if o.truth is truth]
        said = Counter(o.explored.verdict for o in own)
        reasons = Counter(o.fixed.reason for o in own)
        lines.append(f"  {truth.name}: explored {dict(said)}; one order: {dict(reasons)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--launches", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--only", choices=["ramp", "gate"])
    options = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}")
    seen: list[Bar] = []
    if options.only != "gate":
        for guardrail in GUARDRAILS:
            units = guardrail.fixed_horizon()
            print(f"{guardrail.name}, margin {guardrail.margin}: {units:,} units, ", end="")
            print(f"{units / UNITS_A_DAY:.1f} days of all traffic")
        began = time.monotonic()
        outcomes = launch_all(options.launches, options.seed)
        seen += bars(outcomes)
        print(*exposures(outcomes), sep="\n")
        print(f"  {options.launches} launches in {time.monotonic() - began:.0f} s")
    if options.only != "ramp":
        began = time.monotonic()
        gates = [
            ask_gate(TRUTHS[number % len(TRUTHS)], (options.seed, number))
            for number in range(options.launches)
        ]
        seen += gate_bars(gates)
        print(*gate_verdicts(gates), sep="\n")
        print(f"  {options.launches} gates in {time.monotonic() - began:.0f} s")
    for bar in seen:
        print(bar.line())
    sys.exit(0 if all(bar.is_met for bar in seen) else 1)


if __name__ == "__main__":
    main()
