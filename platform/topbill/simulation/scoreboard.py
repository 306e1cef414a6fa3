"""What came of a simulation so far: reward, action shares and regret of each variant, and the table
that shows it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from topbill.domain.metric import TimedValue
from topbill.domain.records import Floats
from topbill.simulation.environment import Response, Truth
from topbill.spec import Experiment, Variant
from topbill.stats.moments import Moments, ratio

RECENT = 2000.0
"""How many decisions count as recent, or so."""


LEGEND = """\
reward: objective per decision · regret: what the best choices would have
earned more · closed: how much of the way from a uniform choice (0%) to the
known best (100%) · lately: over the last 2,000 decisions or so, and of
whole pages over the last 60 or so that were judged"""


class ExpectedReward(NamedTuple):
    """What a decision is expected to earn, and what the best and a uniform one would, in units of
    the objective.
    """

    value: float
    best: float
    uniform: float


class ScoreLine(msgspec.Struct, frozen=True):
    """One variant's result. Rewards and regret are per decision, in units of the objective.

    `interval` is the 95% interval of the reward, clustered by unit, None for fewer than two units.
    `gap_closed` is how much of the way from a uniform choice to the known best the choices came, on
    average, and `gap_closed_recently` over the last 2,000 decisions or so; None where every choice
    is equally good.
    """

    experiment: str
    variant: str
    policy: str
    decisions: int
    reward: float
    interval: tuple[float, float] | None
    regret: float
    uniform: float
    best: float
    gap_closed: float | None
    gap_closed_recently: float | None
    shares: dict[str, float]


@dataclass
class _Sums:
    decisions: int = 0
    value: float = 0.0
    best: float = 0.0
    uniform: float = 0.0
    recent_gain: float = 0.0
    recent_gap: float = 0.0
    actions: Counter[str] = field(default_factory=Counter)
    # By unit, its decisions and what they earned: intervals must be clustered by whoever was
    # randomised, for the visits of one viewer are alike.
    units: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))


class Scoreboard:
    """Adds decisions up by experiment and variant. A decision's reward is counted with the
    decision: it is known here what the viewer will do, also where the event is still on its way."""

    def __init__(self, experiments: Iterable[Experiment], recent: float = RECENT) -> None:
        self._recent = 1.0 / recent
        self.experiments = {experiment.key: experiment for experiment in experiments}
        self._sums: dict[tuple[str, str], _Sums] = {}

    @property
    def decisions(self) -> int:
        """Decisions of all variants so far."""
        return sum(sums.decisions for sums in self._sums.values())

    def add(
        self,
        experiment: str,
        variant: str | None,
        unit: str,
        slate: Sequence[int],
        truth: Truth,
        responses: Iterable[Response],
    ) -> None:
        """Count a decision that placed the actions at these rows; one that no variant made is left
        out.
        """
        if variant is None:
            return
        spec = self.experiments[experiment]
        expected = ExpectedReward(truth.value(slate), truth.best(), truth.uniform())
        actions = [spec.actions[row].id for row in slate]
        self.count(experiment, variant, unit, expected, reward(spec, responses), actions)

    def count(
        self,
        experiment: str,
        variant: str,
        unit: str,
        expected: ExpectedReward,
        earned: float,
        actions: Iterable[str],
    ) -> None:
        """Count a decision that showed these actions, with what was expected of it and what it
        earned.
        """
        sums = self._sums.get((experiment, variant))
        if sums is None:
            sums = self._sums[experiment, variant] = _Sums()
        sums.decisions += 1
        sums.value += expected.value
        sums.best += expected.best
        sums.uniform += expected.uniform
        # Exponential averages of both parts, not of their ratio: where a choice hardly matters the
        # ratio is noise, and would drown what counts.
        gain, gap = expected.value - expected.uniform, expected.best - expected.uniform
        sums.recent_gain += (gain - sums.recent_gain) * self._recent
        sums.recent_gap += (gap - sums.recent_gap) * self._recent
        sums.actions.update(actions)
        unit_sums = sums.units[unit]
        unit_sums[0] += 1.0
        unit_sums[1] += earned

    def lines(self) -> list[ScoreLine]:
        """A line for each variant that has decided, in the order of the experiments' files."""
        lines = []
        for key, experiment in self.experiments.items():
            for variant in experiment.variants:
                sums = self._sums.get((key, variant.name))
                if sums is not None:
                    lines.append(_line(key, variant, sums))
        return lines


def _line(experiment: str, variant: Variant, sums: _Sums) -> ScoreLine:
    n = sums.decisions
    mean, interval = _clustered(sums.units.values())
    placements = sums.actions.total()
    gap = sums.best - sums.uniform
    # Without a gap every choice is equally good, and none of them can close it.
    recently = sums.recent_gain / sums.recent_gap if sums.recent_gap > 0.0 else None
    return ScoreLine(
        experiment=experiment,
        variant=variant.name,
        policy=variant.policy,
        decisions=n,
        reward=mean,
        interval=interval,
        regret=(sums.best - sums.value) / n,
        uniform=sums.uniform / n,
        best=sums.best / n,
        gap_closed=(sums.value - sums.uniform) / gap if gap > 0.0 else None,
        gap_closed_recently=recently,
        shares={action: k / placements for action, k in sums.actions.most_common()},
    )


def reward(experiment: Experiment, responses: Iterable[Response]) -> float:
    """The objective of a decision whose viewer did this, once every window has passed."""
    events: dict[str, list[TimedValue]] = {}
    for response in responses:
        events.setdefault(response.event, []).append((response.value, response.delay))
    return experiment.goal.of_events(events)


def worth_of_play(experiment: Experiment, completed: Floats) -> Floats:
    """(cells,) the expected objective of a title of a page that is played, by the probability that
    it is completed: 70% to all of it watched, or 2 to 60%.
    """
    # The means of the two ranges: exact for an objective that is linear in between, and near
    # enough for one with a cap.
    full, part = (
        reward(experiment, [Response("play", 1.0, 0.0), Response("watch_fraction", share, 0.0)])
        for share in (0.85, 0.31)
    )
    return part + (full - part) * completed


def table(lines: Iterable[ScoreLine], title: str = "") -> Table:
    """The lines as a table, 80 columns or wider: reward with its interval, regret against the known
    best, and the share of each action, the most shown first, as far as the width goes."""
    rows = Table(
        title=title or None,
        title_justify="left",
        caption=LEGEND,
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
    rows.padding = (0, 0, 0, 0)
    rows.add_column("variant", no_wrap=True, min_width=18)
    for heading, width in _NUMBERS.items():
        rows.add_column(heading, justify="right", no_wrap=True, min_width=width)
    rows.add_column("shown", overflow="fold")  # the one column that gives way on a narrow terminal
    experiment = ""
    for line in lines:
        if line.experiment != experiment:
            rows.add_row(f"[bold]{line.experiment}[/]")
            experiment = line.experiment
        rows.add_row(*_cells(line))
    return rows


_NUMBERS = {"decisions": 9, "reward ± 95%": 15, "regret": 6, "closed": 6, "lately": 6}
"""Headings of the table's columns of numbers, and how wide each is at least."""


def _cells(line: ScoreLine) -> tuple[str | _AsFits, ...]:
    """A line's cells of the table."""
    name = line.variant if line.policy == line.variant else f"{line.variant} ({line.policy})"
    half = ""
    if line.interval is not None:
        low, high = line.interval
        half = f" ± {(high - low) / 2.0:.4f}"
    shares = [f"{action} {share:.0%}" for action, share in line.shares.items()]
    return (
        f" {name}",
        f"{line.decisions:,}",
        f"{line.reward:.4f}{half}",
        f"{line.regret:.4f}",
        _percent(line.gap_closed),
        _percent(line.gap_closed_recently),
        _AsFits(shares),
    )


@dataclass(frozen=True)
class _AsFits:
    """As many words of a list as fit a line, each of them whole; the first one always."""

    words: Sequence[str]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        most = len(", ".join(self.words))
        least = len(self.words[0]) if self.words else 0
        return Measurement(least, max(least, most))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = len(self.words)
        while count > 1 and len(", ".join(self.words[:count])) > options.max_width:
            count -= 1
        yield Text(", ".join(self.words[:count]))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _clustered(units: Iterable[Sequence[float]]) -> tuple[float, tuple[float, float] | None]:
    """Reward per decision over units (decisions, reward), and its 95% interval where there are two
    units.
    """
    moments = Moments.of(("decisions", "reward"), np.array(list(units)))
    estimate = ratio("reward", "decisions")(moments)
    half = 1.96 * math.sqrt(estimate.variance(moments))
    return estimate.value, (estimate.value - half, estimate.value + half) if moments.n > 1 else None
