"""The library of past experiments: what each was decided by, and what its lifts are to be believed
at, beside all others.

The lifts of all treatments of all of them are drawn towards each other (`shrink`): not of the
winners alone, since what was picked because it looked best is what flatters.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import msgspec

from topbill.ab import Analysis, Comparison
from topbill.ab.core.shrinkage import FEWEST, ShrunkenEffect, shrink
from topbill.domain import formatting
from topbill.reporting.experiment.conclusion import standing_conclusion
from topbill.reporting.experiment.model import Report
from topbill.reporting.queries.database import AnalyticsDatabase, concluded_keys, open_database


class PastLift(msgspec.Struct, frozen=True, kw_only=True):
    """A treatment's lift on the primary metric over the control, as fractions: as the report has
    it, with its interval and standard error, and as it is to be believed (`shrunken`, with its 95%
    interval), which is missing where the library holds too few.
    """

    variant: str
    relative: float
    relative_low: float | None = None
    relative_high: float | None = None
    se: float | None = None
    shrunken: float | None = None
    shrunken_low: float | None = None
    shrunken_high: float | None = None


class PastExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment that was concluded, from the report that was kept.

    `lifts` has a line for each treatment whose lift can be said. `worth` is that of all variants
    together over the units held out, on the same metric.
    """

    key: str
    title: str
    hypothesis: str
    concluded_at: str
    who: str
    winner: str | None
    control: str
    because: str
    metric: str
    verdict: str
    first_at: str | None
    last_at: str | None
    units: int
    lifts: list[PastLift] = []
    worth: float | None = None
    worth_low: float | None = None
    worth_high: float | None = None

    @property
    def lift(self) -> PastLift | None:
        """That of the winner; where the control or nobody won, of the treatment that looked
        best."""
        for lift in self.lifts:
            if lift.variant == self.winner:
                return lift
        return max(self.lifts, key=lambda lift: lift.relative, default=None)


class ExperimentLibrary(msgspec.Struct, frozen=True, kw_only=True):
    """All past experiments, the last concluded first, and what their lifts have in common: the mean
    and the standard deviation of the true ones; None where they are fewer than `FEWEST`.
    """

    experiments: list[PastExperiment]
    lifts: int = 0
    mean: float | None = None
    spread: float | None = None

    def of(self, key: str) -> PastExperiment | None:
        """One of them."""
        return next((past for past in self.experiments if past.key == key), None)


_NAMED = 6
"""So many experiments are named in a sentence."""


def experiment_library(data: Path | str) -> ExperimentLibrary:
    """The experiments that were concluded and whose report was kept.

    Raises:
        NotFound: nothing was published yet.
        LogError: the lake cannot be read.
    """
    with open_database(data) as database:
        past = _past(database)
    past.sort(key=lambda line: line.concluded_at, reverse=True)
    return _shrunken(past)


def _past(database: AnalyticsDatabase) -> list[PastExperiment]:
    past = []
    for key in concluded_keys(database):
        standing = standing_conclusion(database, key)
        report = None if standing is None else standing.frozen
        if report is not None:
            past.append(_line(report))
    return past


def _line(report: Report) -> PastExperiment:
    ended, analysis = report.conclusion, report.ab
    if ended is None:
        raise ValueError(f"{report.experiment} was not concluded")
    lifts, metric, verdict, control = [], "", "", ""
    if analysis is not None:
        metric, verdict = analysis.primary, analysis.verdict.sentence
        control = analysis.control
        for comparison in _primary(analysis):
            lift = _lift(comparison)
            if lift is not None:
                lifts.append(lift)
    worth = _worth(report)
    return PastExperiment(
        key=report.experiment,
        title=report.title,
        hypothesis=report.hypothesis,
        concluded_at=ended.concluded_at,
        who=ended.who,
        winner=ended.winner,
        control=control,
        because=ended.because,
        metric=metric,
        verdict=verdict,
        first_at=report.first_at,
        last_at=report.last_at,
        units=report.units,
        lifts=lifts,
        worth=None if worth is None else worth.relative,
        worth_low=None if worth is None else worth.relative_low,
        worth_high=None if worth is None else worth.relative_high,
    )


def _primary(analysis: Analysis) -> list[Comparison]:
    """Each treatment on the metric that the verdict is of; where it moves what that divides by, as
    units counted once."""
    once = {c.variant: c for c in analysis.per_unit if c.metric == analysis.primary}
    own = [c for c in analysis.comparisons if c.metric == analysis.primary]
    return [once.get(c.variant, c) for c in own]


def _lift(effect: Comparison) -> PastLift | None:
    """None where no lift can be said."""
    if effect.relative is None:
        return None
    return PastLift(
        variant=str(effect.variant),
        relative=effect.relative,
        relative_low=effect.relative_low,
        relative_high=effect.relative_high,
        se=_standard_error(effect),
    )


def _standard_error(effect: Comparison) -> float | None:
    """Of the lift, by the delta method; None where it cannot be told.

    A lift d/c varies by d and by c: its variance is (s_t² + (1 + lift)² s_c²) / c². Of the two
    arms' variances only the sum is on record; each arm's is taken to be as its units are many.
    """
    if not effect.se or not effect.control_value or effect.relative is None:
        return None
    of_control = effect.n / max(effect.n + effect.n_control, 1)
    varies = 1.0 - of_control + of_control * (1.0 + effect.relative) ** 2
    return effect.se / abs(effect.control_value) * sqrt(varies)


def _worth(report: Report) -> Comparison | None:
    """All variants together against the holdout."""
    readout = report.holdout
    if readout is None:
        return None
    return next((c for c in readout.together if c.metric == readout.primary), None)


def _shrunken(past: Sequence[PastExperiment]) -> ExperimentLibrary:
    effects, errors = [], []
    for experiment in past:
        for lift in experiment.lifts:
            if lift.se is not None:
                effects.append(lift.relative)
                errors.append(lift.se)
    common = shrink(effects, errors)
    if common is None:
        return ExperimentLibrary(experiments=list(past), lifts=len(effects))
    believed = iter(common.effects)
    experiments = []
    for experiment in past:
        lifts = [
            lift if lift.se is None else _with(lift, next(believed)) for lift in experiment.lifts
        ]
        experiments.append(msgspec.structs.replace(experiment, lifts=lifts))
    return ExperimentLibrary(
        experiments=experiments, lifts=len(effects), mean=common.mean, spread=common.spread
    )


def _with(lift: PastLift, believed: ShrunkenEffect) -> PastLift:
    return msgspec.structs.replace(
        lift,
        shrunken=believed.value,
        shrunken_low=believed.low,
        shrunken_high=believed.high,
    )


def year_sentence(library: ExperimentLibrary, year: int) -> str:
    """What the experiments that were concluded in a year (UTC) found: `In 2026, 3 experiments were
    concluded: crime-row (fresh won), … .`
    """
    of_year = [past for past in library.experiments if past.concluded_at.startswith(f"{year}-")]
    if not of_year:
        return f"No experiment was concluded in {year}."
    several = formatting.several(len(of_year), "experiment was", "experiments were")
    found = [f"{past.title or past.key} ({result(past)})" for past in of_year]
    return f"In {year}, {several} concluded: {formatting.listing(found, _NAMED)}."


def sentence(library: ExperimentLibrary) -> str:
    """What the library comes down to, for people."""
    several = formatting.several(len(library.experiments), "experiment")
    winners = [past for past in library.experiments if past.winner not in (None, past.control)]
    shipped = f"{len(winners)} of {several} ended with a new winner"
    if library.mean is None or library.spread is None:
        return (
            f"{shipped}. Lifts are as measured: it takes {FEWEST} of them at least to tell how "
            "much is luck."
        )
    mean, spread = formatting.lift(library.mean), formatting.share(library.spread)
    return (
        f"{shipped}. Over {library.lifts} lifts the true ones are {mean} on average and vary by "
        f"{spread}; each is shrunken towards that by as much as it may be luck (Morris 1983)."
    )


def result(past: PastExperiment) -> str:
    """Who won."""
    return "nobody won" if past.winner is None else f"{past.winner} won"


def measured(lift: PastLift) -> str:
    """thompson +3.2%"""
    return f"{lift.variant} {formatting.lift(lift.relative)}"


def believed(lift: PastLift) -> str:
    """+2.1% (+0.4% to +3.8%)"""
    if lift.shrunken is None:
        return formatting.MISSING
    bounds = formatting.lift_interval(lift.shrunken_low, lift.shrunken_high)
    return f"{formatting.lift(lift.shrunken)} ({bounds})"


def worth(past: PastExperiment) -> str:
    """What all variants were worth over the units held out."""
    if past.worth is None:
        return formatting.MISSING
    bounds = formatting.lift_interval(past.worth_low, past.worth_high)
    return f"{formatting.lift(past.worth)} ({bounds})"


def ended(past: PastExperiment) -> str:
    """How it ended, in a line."""
    parts = [f"concluded {past.concluded_at[:10]}: {result(past)}"]
    if past.lift is not None:
        lift = f"lift of {measured(past.lift)} as measured"
        if past.lift.shrunken is not None:
            lift += f", {believed(past.lift)} shrunken towards all others"
        parts.append(lift)
    if past.worth is not None:
        parts.append(f"worth {worth(past)} over the holdout")
    return f"{', '.join(parts)}; because: {past.because}"


def searchable(past: PastExperiment) -> str:
    """All that one may remember of it, in small letters."""
    variants = [lift.variant for lift in past.lifts]
    parts = (past.key, past.title, past.hypothesis, past.because, past.who, past.metric, *variants)
    return " ".join(parts).lower()
