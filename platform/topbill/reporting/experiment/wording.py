"""What a report says in words, once for the terminal, HTML and the dashboards: where the experiment
stands, what is alarming, and the cells of its tables. All of it from its numbers alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Literal, NamedTuple

import msgspec

from topbill import ab
from topbill.ab import (
    HUGE,
    Analysis,
    Comparison,
    ExposureSpan,
    GuardrailResult,
    Novelty,
    Phase,
    SegmentEffect,
)
from topbill.ab import REASONS as AB_REASONS
from topbill.ab.phases import shares_changed
from topbill.domain import formatting
from topbill.domain.margin import MarginUnit, amount
from topbill.domain.reasons import EXCLUDED, HOLDOUT_EXCLUDED, OUTSIDE
from topbill.domain.suggestion import nearest
from topbill.reporting.experiment.model import (
    REASONS,
    Health,
    HoldoutReadout,
    MeanEstimate,
    MetricLine,
    Note,
    PropensityLine,
    Report,
    VariantLine,
)

Tone = Literal["good", "promising", "neutral", "warning", "bad"]
JOINED, FELL_BACK = 0.9, 0.01
"""Fewer of every reward event in its window than the first, or more fallbacks than the second, are
alarming.
"""
CALLS = {"better": "better", "worse": "worse", "no_call": "inconclusive"}
GUARDRAILS = {
    "not_worse": "passed",
    "worse": "failed",
    "undecided": "inconclusive",
    "unknown": "unknown",
}
COLOURS: dict[Tone, str] = {
    "good": "green",
    "promising": "blue",
    "neutral": "yellow",
    "warning": "red",
    "bad": "red",
}
"""The colour of a tone in a report: green to ship, red to stop, yellow to wait."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where something stands: in a word (and its tone), in a sentence, and the next step in
    another.
    """

    word: str
    tone: Tone
    sentence: str
    next: str


_NO_TRAFFIC = Standing(
    word="No traffic",
    tone="neutral",
    sentence="No decision has been made in this experiment yet.",
    next="Send decide requests to the service, then look here again.",
)
_DRAFT = Standing(
    word="Draft",
    tone="neutral",
    sentence="It is a draft: everybody gets the control's order.",
    next="Set status: running in its file to launch it.",
)
_UNASKED = {
    "draft": _DRAFT,
    "paused": msgspec.structs.replace(
        _NO_TRAFFIC,
        sentence="It is paused, and no decision has been made in it yet.",
        next="Set status: running in its file to go on.",
    ),
    "stopped": msgspec.structs.replace(
        _NO_TRAFFIC,
        sentence="It was stopped before any decision was made in it.",
        next="Nothing to do: everybody gets the control's order.",
    ),
}
"""What keeps an experiment without decisions from having any, by its status."""
_NO_CONTROL = Standing(
    word="Not compared",
    tone="neutral",
    sentence="There is no control to compare with.",
    next="Add a second variant to learn what this one is worth.",
)
_ONE_VARIANT = msgspec.structs.replace(
    _NO_CONTROL, sentence="There is one variant, and nothing to compare it with."
)
_CONCLUDED = Standing(
    word="Concluded",
    tone="neutral",
    sentence="",
    next="Build the winner in, then move the file out of the folder: the report stays in the "
    "library. To take the experiment up again: topbill resume.",
)
_WAIT = "Keep it running; looking early costs nothing here."
_WITHHELD = "sample_ratio_mismatch"
_FIND_OUT = "Find the cause of the sample ratio mismatch (SRM): bots, redirects, lost logs."
_BY_CODE: dict[str, tuple[str, Tone, str]] = {
    _WITHHELD: ("Not trustworthy (SRM)", "warning", f"{_FIND_OUT} Read no lift before."),
    "other_control": (
        "Compared",
        "neutral",
        "Read the report against the control before anything is shipped.",
    ),
    "guardrail_worse": (
        "Guardrail failed",
        "bad",
        "Don't ship a variant that fails a guardrail, whatever it wins. Viewers still get it: "
        "pause the experiment, or set the variant's share to 0%.",
    ),
    "beats_control": (
        "Leading, guardrails pending",
        "promising",
        "Keep it running until every guardrail has passed (non-inferiority).",
    ),
    "call_lost_to_multiplicity": (
        "Inconclusive",
        "neutral",
        f"With several variants, one interval beyond zero is not proof yet. {_WAIT}",
    ),
    "no_call": ("Inconclusive", "neutral", _WAIT),
    "worse_than_control": (
        "Worse",
        "bad",
        "Stop it, and look at segments and artwork for the reason.",
    ),
}
"""Word, tone and next step by the verdict's code; of several codes the first here counts."""
_HARM_IN_DOUBT: tuple[str, Tone, str] = (
    "Guardrail failed",
    "bad",
    f"Stop the variant that fails its guardrail. {_FIND_OUT}",
)
"""Beside a split that went wrong nothing is won, but the harm may be real."""
_TOO_EARLY: tuple[str, Tone, str] = (
    "Too early",
    "neutral",
    "Wait until the first decisions' reward windows have passed.",
)


def standing(report: Report) -> Standing:
    """Where the experiment stands. The word never says more than the verdict does."""
    if not report.decisions:
        return _UNASKED.get(report.status, _NO_TRAFFIC)
    if report.ab is None:
        return _NO_CONTROL
    if len(report.ab.units) < 2:
        return _ONE_VARIANT
    verdict = report.ab.verdict
    if report.conclusion is not None:
        return msgspec.structs.replace(_CONCLUDED, sentence=ab.without_outlook(verdict.sentence))
    # The one word that no code stands for: what is safe has beaten the control and kept all
    # guardrails.
    if verdict.safe_to_ship:
        return Standing(
            word="Winner",
            tone="good",
            sentence=verdict.sentence,
            next=f"Ship {verdict.winner}: give it all traffic, keep a small holdout.",
        )
    word, tone, step = _meaning(verdict.codes)
    changes = shares_changed(report.ab.phases)
    if changes and _WITHHELD in verdict.codes:
        # A cause on record is looked at before those that can only be guessed.
        step = step.replace(_FIND_OUT, _after_changes(changes))
    return Standing(word=word, tone=tone, sentence=verdict.sentence, next=step)


def _meaning(codes: Sequence[str]) -> tuple[str, Tone, str]:
    """Word, tone and next step of a verdict that says nothing is safe to ship."""
    if {ab.GUARDRAIL_WORSE, ab.SAMPLE_RATIO_MISMATCH} <= set(codes):
        return _HARM_IN_DOUBT
    for code, meaning in _BY_CODE.items():
        if code in codes:
            return meaning
    return _TOO_EARLY


def _after_changes(changes: Sequence[tuple[str, list[str]]]) -> str:
    """What to look at where shares were changed and units still are not split by those in force."""
    # Each change by its day; some are made on the same one.
    days = list(dict.fromkeys(since[:10] for since, _ in changes))
    return (
        f"Shares were changed on {formatting.listing(days)}, and there is a sample ratio mismatch "
        "even by the shares in force when they came. Look at the phase that is off: did all "
        "services take up the change at once? Or read another phase alone."
    )


def notes(
    variants: Sequence[VariantLine],
    health: Health,
    objective_window: float,
    known_events: Iterable[str],
) -> list[Note]:
    """What a reader must know before reading numbers.

    Args:
        variants: the report's lines of variants.
        health: the report's health.
        objective_window: seconds until a decision's objective is whole.
        known_events: the events that some metric reads.
    """
    # Without decisions nothing else can be said, and every other note would only repeat that.
    if not any(v.decisions for v in variants):
        sentence = "No decision has been published yet; is the service being asked?"
        return [Note(code="no_traffic", sentence=sentence)]
    noted = []
    # Not an error: the windows must pass before any number is final.
    if all(v.reward.reason in ("immature", "no_decisions") for v in variants):
        longest = formatting.window(objective_window)
        sentence = (
            f"No decision is older than the objective's longest window ({longest}) yet. The first "
            "rewards per variant appear then."
        )
        noted.append(Note(code="immature", sentence=sentence))
    return noted + health_notes(health, known_events)


def health_notes(health: Health, known_events: Iterable[str]) -> list[Note]:
    """What a reader must know of the record's health."""
    noted = _log_notes(health)
    if health.fallback_share is not None and health.fallback_share > FELL_BACK:
        sentence = (
            f"{health.fallback_share:.1%} of decisions fell back to the control's order; look at "
            "the service's log."
        )
        noted.append(Note(code="many_fallbacks", sentence=sentence))
    # Before a window has passed none is missed.
    if health.reward_events == 0 and health.mature_share:
        sentence = "No reward event has come yet; are rewards being sent?"
        noted.append(Note(code="no_rewards", sentence=sentence))
    if health.unread_events:
        sentence = _unread_events(health.unread_events, known_events)
        noted.append(Note(code="unread_events", sentence=sentence))
    return noted


def _log_notes(health: Health) -> list[Note]:
    """Whether the logged probabilities are those that were drawn with."""
    mismatches = []
    if health.propensity_ok is False:
        off = sum(line.ok is False for line in health.propensity)
        sentence = (
            f"{formatting.several(off, 'action was', 'actions were')} not drawn as often as the "
            "logged probabilities say; don't evaluate from this log."
        )
        mismatches.append(Note(code="propensity_mismatch", sentence=sentence))
    for ratio in health.choices:
        if ratio.alarm:
            why = f"p = {ratio.p_sequential:.2g}"
            if ratio.impossible:
                why = f"{ratio.impossible:,} draws of probability 0"
            sentence = (
                f"The choices of {ratio.variant} do not match its summed logged probabilities "
                f"({why}); don't evaluate from this log."
            )
            mismatches.append(Note(code="choice_mismatch", sentence=sentence))
    return mismatches


def _unread_events(events: Mapping[str, int], known: Iterable[str]) -> str:
    """Which events came for nothing so far, and which names may have been meant."""
    # The metric's event may only be spelt otherwise than what the service sends.
    names = []
    for event, times in events.items():
        hint = nearest(event, known)
        names.append(f"{times:,} {event} ({hint})" if hint else f"{times:,} {event}")
    listing = ", ".join(names[:5])
    if len(names) > 5:
        listing += f" and {len(names) - 5} more names"
    return (
        f"No metric reads these reward events: {listing}; they are kept, and count as soon as a "
        "metric reads them."
    )


IN_VARIANTS = "(variants)"
"""What all variants together are called in a holdout's readout; no variant has such a name."""


def outside(health: Health) -> str:
    """What the experiment was asked beside its own decisions, by reason; empty where nothing:
    `6,986 more outside the experiment`.
    """
    parts = []
    for reason, words in OUTSIDE.items():
        if health.reasons.get(reason):
            parts.append(f"{health.reasons[reason]:,} more {words}")
    return formatting.listing(parts)


def side(c: Comparison) -> str:
    """What is compared with the holdout, as a table names it."""
    return "all variants" if c.variant == IN_VARIANTS else str(c.variant)


def against_holdout(holdout: HoldoutReadout) -> list[Comparison]:
    """The comparisons as a table has them: metric by metric, all variants first."""
    metrics = [c.metric for c in holdout.together]
    return sorted([*holdout.together, *holdout.each], key=lambda c: metrics.index(c.metric))


def span_of_days(span: ExposureSpan) -> str:
    """`day 0`, `days 7 to 13`."""
    if span.since == span.until:
        return f"day {span.since}"
    return f"days {span.since} to {span.until}"


PROBABILITY = "probability to beat control"
RESULT = "result"
"""What columns of comparisons are called, wherever they stand."""
EFFECT_HEADINGS = ("difference", "interval", "lift", "interval of lift")
"""What the columns of `effect_cells` are called."""


class EffectCells(NamedTuple):
    """An effect as a table has it: the difference and the lift, each with its interval."""

    difference: str
    interval: str
    lift: str
    lift_interval: str


def effect_cells(
    effect: Comparison | ExposureSpan | ab.EffectWithin, is_proportion: bool
) -> EffectCells:
    """The effect's cells; in place of an interval the reason where there is none."""
    difference = formatting.metric_difference(effect.difference, is_proportion)
    low, high = effect.difference_low, effect.difference_high
    interval = formatting.metric_difference_interval(low, high, is_proportion)
    if low is None or high is None:
        interval = AB_REASONS.get(effect.reason, effect.reason)
    # A lift needs a control that can be told from zero; a difference does not.
    lift = formatting.MISSING if effect.relative is None else formatting.change(effect.relative)
    bounds = relative_interval(effect.relative_low, effect.relative_high)
    return EffectCells(difference, interval, lift, bounds or formatting.MISSING)


def effect_in_words(effect: Comparison | ExposureSpan, is_proportion: bool) -> tuple[str, str]:
    """The lift and its interval, or the difference where no lift can be said."""
    cells = effect_cells(effect, is_proportion)
    if effect.relative_low is None:
        return cells.difference, cells.interval
    return cells.lift, cells.lift_interval


def changes(found: Novelty, alpha: float) -> bool:
    """Whether the effect changes with the days since the first exposure."""
    return found.p_adjusted is not None and found.p_adjusted <= alpha


def spans_told(found: Novelty) -> list[ExposureSpan]:
    """The days of which an effect can be told."""
    # Without a lift there is a difference still, where the control cannot be told from zero.
    return [span for span in found.spans if span.difference_low is not None]


def novelty_sentence(found: Novelty) -> str:
    """How the effect goes with the days since the first exposure, from the first to the last that
    could be told.
    """
    told = spans_told(found)
    if found.p_adjusted is None or not told:
        why = AB_REASONS[found.reason]
        return f"{found.variant}: no trend can be tested yet ({why})."
    first, last = told[0], told[-1]
    # Both ends as lifts or both as differences: of one each nobody can tell which is larger.
    is_lift = first.relative_low is not None and last.relative_low is not None
    parts = []
    for span in (first, last):
        cells = effect_cells(span, found.is_proportion)
        size = cells.lift if is_lift else cells.difference
        parts.append(f"{size} on {span_of_days(span)}")
    return (
        f"The effect of {found.variant} on {formatting.label(found.metric)} by days since a unit's "
        f"first exposure: {', '.join(parts)} (trend: p = {found.p_adjusted:.3g})."
    )


def holdout_sentences(
    holdout: HoldoutReadout, whom: str = "All variants together against the holdout"
) -> list[str]:
    """What all variants together do against the holdout, and what must be known of it."""
    (first,) = [c for c in holdout.together if c.metric == holdout.primary]
    size, interval = effect_in_words(first, first.is_proportion)
    name, call = formatting.label(first.metric), call_of(first, holdout.sample_ratio)
    sentence = f"{whom}: {size} {name}, {interval} ({call})."
    if not call:
        sentence = f"Nothing to say of the holdout yet: {interval}."
    if holdout.sample_ratio.alarm:
        sentence = (
            "Held-out units are not as many as intended (got "
            f"{_held(holdout):.2%} of those compared, meant {holdout.share:.2%}); find out why "
            "before reading any difference."
        )
    sentences = [sentence]
    for reason, units in holdout.excluded.items():
        sentences.append(f"{units:,} units {HOLDOUT_EXCLUDED[reason]}; they are on neither side.")
    return sentences


def since_conclusion_sentence(report: Report) -> str:
    """What the winner was worth since the conclusion; "" where nobody is held out."""
    readout, ended = report.since_conclusion, report.conclusion
    if readout is None or ended is None:
        return ""
    whom = f"Since then, {ended.winner} against the {readout.units:,} units held out"
    return holdout_sentences(readout, whom)[0]


def _held(holdout: HoldoutReadout) -> float:
    return holdout.units / max(1, holdout.units + holdout.units_in_variants)


def worsening(guardrail: GuardrailResult) -> tuple[str, str]:
    """How a guardrail's metric changed, and between what: "11.6% better", "20.3% better to 3.0%
    better".

    Each number says by a word which way it is: whether less of a metric is better is nothing that a
    sign can tell.
    """
    by, low, high = guardrail.worse_by, guardrail.worse_by_low, guardrail.worse_by_high
    if by is None or low is None or high is None:
        return formatting.MISSING, ""
    unit = guardrail.margin_unit
    return _worse_or_better(by, unit), (
        f"{_worse_or_better(low, unit)} to {_worse_or_better(high, unit)}"
    )


def _worse_or_better(worse_by: float, unit: MarginUnit) -> str:
    if abs(worse_by) < formatting.NOTHING:
        return "unchanged"
    return f"{amount(abs(worse_by), unit)} {'worse' if worse_by > 0.0 else 'better'}"


def alarms(report: Report) -> list[Note]:
    """What must be repaired before numbers are believed, worst first; empty when all is well, and
    where an experiment is over.
    """
    if report.conclusion is not None:
        return []
    raised = [] if report.ab is None else _broken_guardrails(report.ab)
    if report.ab is not None and report.ab.sample_ratio.alarm:
        sentence = "Sample ratio mismatch (SRM): units were not split between variants as intended."
        raised.append(Note(code="sample_ratio_mismatch", sentence=sentence))
    return raised + health_alarms(report.notes, report.health)


def health_alarms(noted: Iterable[Note], health: Health) -> list[Note]:
    """What must be repaired of the record itself, worst first."""
    # What a reader was told already is alarming in the same words.
    by_code: dict[str, list[Note]] = {}
    for note in noted:
        by_code.setdefault(note.code, []).append(note)
    raised = by_code.get("propensity_mismatch", []) + by_code.get("choice_mismatch", [])
    raised += by_code.get("no_rewards", [])
    # Events that no metric reads are alarming only where no other comes.
    if health.reward_join_rate is None:
        raised += by_code.get("unread_events", [])
    raised += _late_rewards(health) + by_code.get("many_fallbacks", [])
    return raised


def _broken_guardrails(analysis: Analysis) -> list[Note]:
    broken = []
    for guardrail in analysis.guardrails:
        if guardrail.status == "worse":
            sentence = (
                f"{guardrail.variant} makes {guardrail.metric} worse by more than the "
                f"{amount(guardrail.margin, guardrail.margin_unit)} allowed."
            )
            broken.append(Note(code="guardrail_worse", sentence=sentence))
    return broken


def _late_rewards(health: Health) -> list[Note]:
    """One event may be late by its nature, as of a viewer who comes back next week; slow messages
    are all late.
    """
    if not health.joined:
        return []
    # The event that does best: where even that one is late, the messages are.
    event, most = max(health.joined.items(), key=lambda item: item[1])
    if most >= JOINED:
        return []
    sentence = (
        f"Rewards come late: within its metric's window only {most:.0%} of {event}, and no event "
        "does better."
    )
    return [Note(code="late_rewards", sentence=sentence)]


def metric_name(name: str, per: str) -> str:
    """A metric's name, with what it is a number of where that is not the decision."""
    return f"{name} per unit" if per == "unit" else name


def rows_of(analysis: Analysis) -> list[Comparison]:
    """The rows of the table of effects: each metric's, and after them those that count each unit
    once because a variant moves what the metric divides by."""
    rows: list[Comparison] = []
    for metric, group in groupby(analysis.comparisons, key=lambda c: c.metric):
        rows += group
        rows += [c for c in analysis.per_unit if c.metric == metric]
    return rows


def denominators_sentence(analysis: Analysis) -> str:
    """Whether variants have as many decisions per unit, with the p-value; empty where nothing is
    divided by what could differ."""
    checks = analysis.denominators
    if not checks:
        return ""
    least = min(checks, key=lambda check: check.p_value)
    numbers = (
        f"{least.variant} {least.per_unit:.3g}, {analysis.control} {least.per_unit_control:.3g}"
    )
    verdict = "differ" if least.alarm else "as in the control"
    return f"{verdict} ({formatting.label(least.metric)}: {numbers}; p = {least.p_value:.3g})"


def value_cells(c: Comparison) -> tuple[str, str]:
    """The variant's value and the control's."""
    value = formatting.metric_value(c.value, c.is_proportion)
    return value, formatting.metric_value(c.control_value, c.is_proportion)


NOT_TRUSTWORTHY = "not trustworthy (SRM)"


def call_of(c: Comparison, ratio: ab.SampleRatio | None = None) -> str:
    """What the comparison says; empty where it has no interval to say it by. Where units were not
    split as intended no difference means anything.
    """
    if c.difference_low is None:
        return ""
    return NOT_TRUSTWORTHY if ratio is not None and ratio.alarm else CALLS[c.call]


def guardrail_result(guardrail: GuardrailResult, ratio: ab.SampleRatio) -> str:
    """What a guardrail says. Harm is told even where units were not split as intended; nothing else
    is then.
    """
    if ratio.alarm and guardrail.status != "worse":
        return NOT_TRUSTWORTHY
    return GUARDRAILS[guardrail.status]


def minute_of(at: str) -> str:
    """A report's time to the minute, as people read it: `2026-12-01 20:06 UTC`."""
    return formatting.minute(datetime.fromisoformat(at))


def span_of(report: Report) -> str:
    """From the first decision to the last."""
    if not report.first_at or not report.last_at:
        return "no decisions yet"
    return f"{minute_of(report.first_at)} to {minute_of(report.last_at)}"


def validity(analysis: Analysis) -> str:
    """For how many looks the 95% of an analysis' intervals holds."""
    if analysis.method == "sequential":
        return "valid at any look"
    return "valid at the planned looks" if analysis.method == "group-sequential" else "for one look"


def segment_scales(analysis: Analysis) -> dict[str, float]:
    """Variant → the control's mean of the primary metric, by which differences within segments are
    told as the lift above them is; empty where one of the lifts cannot be told.
    """
    primary = analysis.comparisons_of(analysis.primary)
    if any(c.relative is None or not c.control_value for c in primary):
        return {}
    return {str(c.variant): abs(c.control_value or 1.0) for c in primary}


def segment_cells(
    effect: SegmentEffect, scale: float | None, is_proportion: bool
) -> tuple[str, str]:
    """A segment's shrunken effect and its interval, in per cent of `scale` where there is one."""
    bounds = (effect.shrunken_low, effect.shrunken_high)
    if scale is None or effect.shrunken is None:
        difference = formatting.metric_difference(effect.shrunken, is_proportion)
        return difference, formatting.metric_difference_interval(*bounds, is_proportion)
    low, high = (None if bound is None else bound / scale for bound in bounds)
    return formatting.change(effect.shrunken / scale), formatting.lift_interval(low, high)


def relative_interval(low: float | None, high: float | None) -> str:
    """`+1.2% to +9.0%`, empty where a bound is missing; of lifts that may exceed +1,000% only
    `+1.2% or more`.
    """
    if low is None or high is None:
        return ""
    least = formatting.change(low)
    return f"{least} or more" if high > HUGE else f"{least} to {formatting.change(high)}"


def mean_cells(mean: MeanEstimate) -> tuple[str, str]:
    """Value and interval, or the reason why there is none."""
    if mean.low is None or mean.high is None:
        return formatting.fixed(mean.value), REASONS[mean.reason]
    return formatting.fixed(mean.value), fixed_interval(mean.low, mean.high)


def metric_cells(line: MetricLine) -> tuple[str, str]:
    """The same of a metric."""
    mean = line.estimate
    value = formatting.metric_value(mean.value, line.is_proportion)
    if mean.low is None or mean.high is None:
        return value, REASONS[mean.reason]
    return value, formatting.metric_interval(mean.low, mean.high, line.is_proportion)


def fixed_interval(low: float, high: float, digits: int = 4) -> str:
    """0.0312 to 0.0440"""
    return f"{formatting.fixed(low, digits)} to {formatting.fixed(high, digits)}"


def split_sentence(analysis: Analysis) -> str:
    """Whether units are split as intended, with their numbers and the p-value."""
    ratio = analysis.sample_ratio
    # The one that stays valid while one looks each day, where days are known.
    p = ratio.p_value if ratio.p_sequential is None else ratio.p_sequential
    counts = ", ".join(f"{variant} {units:,}" for variant, units in ratio.counts.items())
    verdict = "not as intended" if ratio.alarm else "as intended"
    return f"{verdict} ({counts}; p = {p:.3g})"


PHASE_HEADINGS = ("since", "until", "shares", "units", "split", "what changed")


def phase_cells(phase: Phase) -> tuple[str, ...]:
    """A phase's span, shares, units, whether those were split by them, and what changed."""
    shares = [f"{name} {100.0 * share:.4g}%" for name, share in phase.shares.items()]
    units = [f"{name} {n:,}" for name, n in phase.units.items()]
    split = formatting.MISSING if phase.srm_p is None else f"p = {phase.srm_p:.3g}"
    return (
        _minute(phase.since),
        _minute(phase.until),
        ", ".join(shares) or "not on record",
        ", ".join(units) or "none",
        split,
        ", ".join(phase.changed),
    )


def _minute(iso: str | None) -> str:
    """2026-03-02T10:00:00Z → 2026-03-02 10:00"""
    return formatting.MISSING if iso is None else iso.removesuffix("Z").replace("T", " ")[:16]


def excluded_sentence(excluded: Mapping[str, int]) -> str:
    """How much no number is made of, and why; empty where everything counts."""
    parts = []
    for reason, n in excluded.items():
        parts.append(f"{n:,} {EXCLUDED.get(reason, formatting.label(reason))}")
    return f"Not counted: {', '.join(parts)}." if parts else ""


def health_cells(health: Health) -> list[tuple[str, str]]:
    """Each check of a report's health with its result."""
    reasons = [f"{reason} {n:,}" for reason, n in health.reasons.items()]
    latency = [f"{name} {ms:.2f}" for name, ms in health.latency_ms.items()]
    return [
        ("actions drawn as often as logged", _propensities(health)),
        ("choices against summed probabilities", _choices(health)),
        ("decisions by reason", ", ".join(reasons) or "none"),
        ("fallbacks", formatting.percent(health.fallback_share, digits=2)),
        ("mature decisions", formatting.percent(health.mature_share, digits=2)),
        (
            "reward events that joined in a window",
            formatting.percent(health.reward_join_rate, digits=2),
        ),
        (
            "mature decisions with a reward event",
            formatting.percent(health.rewarded_share, digits=2),
        ),
        ("engine time, ms", ", ".join(latency) or "none"),
    ]


def off_lines(health: Health) -> list[PropensityLine]:
    """The actions that were not drawn as often as logged."""
    return [line for line in health.propensity if line.ok is False]


def _propensities(health: Health) -> str:
    tested = sum(line.ok is not None for line in health.propensity)
    if not tested:
        return "cannot be tested yet"
    off = len(off_lines(health))
    return f"{off} of {tested} are off" if off else f"all {tested} tested are as logged"


def _choices(health: Health) -> str:
    """The sample-ratio check of choices, all variants in a line."""
    parts = []
    for ratio in health.choices:
        verdict = "NOT as logged" if ratio.alarm else "as logged"
        numbers = f"p = {ratio.p_sequential:.2g}, {ratio.decisions:,} decisions"
        parts.append(f"{ratio.variant} {verdict} ({numbers})")
    return "; ".join(parts) or "nothing was left to chance yet"
