"""What the numbers say: the call of each comparison, whether guardrails were kept, and one sentence
that a product manager understands, made only from them, with the codes it was made by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import copysign, sqrt
from typing import Literal

from msgspec.structs import replace

from topbill.ab import reasons
from topbill.ab.core.effect import (
    ArmEstimate,
    Effect,
    Pair,
    Rule,
    adjusted,
    effect_of,
    facing,
    rate_pair,
    welch_df,
)
from topbill.ab.core.rates import RatePair
from topbill.ab.phases import Phase, shares_changed
from topbill.ab.power.runtime import Progress, days_to_decision
from topbill.ab.results import (
    Call,
    Comparison,
    GuardrailResult,
    GuardrailStatus,
    SampleRatio,
    Verdict,
)
from topbill.domain.formatting import (
    change,
    label,
    listing,
    metric_difference,
    several,
)
from topbill.domain.margin import Margin, amount

SAMPLE_RATIO_MISMATCH = "sample_ratio_mismatch"
BEATS_CONTROL = "beats_control"
WORSE_THAN_CONTROL = "worse_than_control"
NO_CALL = "no_call"
GUARDRAIL_WORSE = "guardrail_worse"
GUARDRAIL_UNDECIDED = "guardrail_undecided"
GUARDRAIL_UNKNOWN = "guardrail_unknown"
GUARDRAILS_KEPT = "guardrails_kept"
PAST_PHASE = "past_phase"
OTHER_CONTROL = "other_control"
ONE_OF_SEVERAL = "call_lost_to_multiplicity"

HUGE = 10.0
"""A lift (as a fraction) above which an upper bound tells nobody anything: the sentence says "at
least" then.
"""


# --- Calls and guardrails


def called(
    comparisons: Sequence[Comparison],
    alpha: float,
    doubts: Mapping[object, Sequence[Effect]] | None = None,
) -> list[Comparison]:
    """The comparisons of one metric, one per variant, with their calls: better or worse where the
    interval is on one side of zero and, there being several variants, the p-value adjusted by Holm
    is at most alpha too (without p-values, as in bayes, twice the smaller chance stands for it).
    `p_adjusted` is the p-value that decided.

    Of the effects that `doubts` has of a variant, one must show the difference too; where a call is
    lost to that, `reason` says so."""
    p_values = [_two_sided(c) for c in comparisons]
    results = _by_holm(comparisons, p_values, alpha)
    if not doubts:
        return results
    doubted = [_doubted(c, doubts.get(c.variant, ())) for c in comparisons]
    final = _by_holm(comparisons, doubted, alpha)
    for i, (before, after) in enumerate(zip(results, final, strict=True)):
        if before.call != after.call and p_values[i] != doubted[i]:
            final[i] = replace(after, reason=reasons.DENOMINATOR_DOUBTFUL)
    return final


def _doubted(c: Comparison, others: Sequence[Effect]) -> float | None:
    """The p-value of a comparison, or the least of the others' that agree with it, if larger."""
    p, least = _two_sided(c), 1.0
    if p is None or not others:
        return p
    for other in others:
        if (other.difference or 0.0) * (c.difference or 0.0) > 0.0:
            own = _two_sided(other)
            least = least if own is None else min(least, own)
    return max(p, least)


def _by_holm(
    comparisons: Sequence[Comparison], p_values: Sequence[float | None], alpha: float
) -> list[Comparison]:
    results = []
    for c, p in zip(comparisons, adjusted(p_values, "holm"), strict=True):
        sure = p is not None and p <= alpha
        call = _call_alone(c) if sure else "no_call"
        results.append(replace(c, call=call, p_adjusted=None if c.p_value is None else p))
    return results


def _call_alone(c: Comparison) -> Call:
    """The call of an interval by itself."""
    if c.se is None or c.difference_low is None or c.difference_high is None:
        return "no_call"
    above, below = c.difference_low > 0.0, c.difference_high < 0.0
    if not above and not below:
        return "no_call"
    return "better" if above == (c.better == "higher") else "worse"


def _two_sided(c: Effect) -> float | None:
    if c.p_value is not None or c.chance_to_win is None:
        return c.p_value
    # With a flat prior this is the two-sided p-value of the same normal.
    return 2.0 * min(c.chance_to_win, 1.0 - c.chance_to_win)


def guardrail(
    metric: str,
    variant: str,
    pair: Pair,
    rule: Rule,
    *,
    margin: Margin,
    better: Literal["higher", "lower"] = "higher",
    units_a_day: float = 0.0,
    worth: float | None = None,
) -> GuardrailResult:
    """Judge one variant on one guardrail: is it shown to be worse by no more than its margin?

    With a relative margin m the tested quantity is t − (1 − m)c (or (1 + m)c − t where lower is
    better), with an absolute one t − c + m (or c + m − t): positive when the variant is worse by
    less than m. No division, so the control's noise is in and a control near zero is no problem.
    "not_worse" when its whole interval is positive, "worse" when it is negative, else "undecided".
    `units_a_day` are the new units of both arms, `worth` as in `Progress`.
    """
    t, c = pair.treated, pair.control
    effect = effect_of(metric, variant, pair, rule)
    result = GuardrailResult(
        metric=metric,
        variant=variant,
        margin=margin.value,
        margin_unit=margin.unit,
        status="unknown",
    )
    rates = rate_pair(pair, rule, equal=True)
    if rates is not None and effect.se is None:
        return _of_equal_rates(result, rates, rule, margin, better)
    if effect.se is None or t is None or c is None:
        return replace(result, reason=effect.reason)
    days: float | None = None
    if rates is None:
        room, _ = room_of(t, c, margin, better)
        t, c = facing(t, c, room if better == "higher" else -room)
        room, se = room_of(t, c, margin, better)
        status, p_value = _status(t, c, room, se, rule)
        if status == "undecided":
            days = days_to_decision(Progress(room, se, t.n + c.n, units_a_day, worth), rule)
    else:
        status, p_value = _status_of_rates(rates, rule, margin, better)
    result = replace(result, status=status, p_value=p_value, days_to_decision=days)
    worse_by, low, high = effect.relative, effect.relative_low, effect.relative_high
    if not margin.is_relative:
        worse_by, low, high = effect.difference, effect.difference_low, effect.difference_high
    if worse_by is None or low is None or high is None:
        # The status stands, as it divides by nothing; only by how much cannot be said.
        return replace(result, reason=reasons.CONTROL_NEAR_ZERO)
    if better == "higher":
        low, high, worse_by = -high, -low, -worse_by
    return replace(result, worse_by=worse_by, worse_by_low=low, worse_by_high=high)


def room_of(t: ArmEstimate, c: ArmEstimate, margin: Margin, better: str) -> tuple[float, float]:
    """By how much the variant is better than the margin allows at worst, and the standard error."""
    direction = 1.0 if better == "higher" else -1.0
    if not margin.is_relative:
        return direction * (t.value - c.value) + margin.value, sqrt(t.variance + c.variance)
    # The margin is relative to the control's size, so that of a negative control it points outward.
    k = 1.0 - direction * margin.value * copysign(1.0, c.value)
    return direction * (t.value - k * c.value), sqrt(t.variance + k * k * c.variance)


def _status(
    t: ArmEstimate, c: ArmEstimate, room: float, se: float, rule: Rule
) -> tuple[GuardrailStatus, float | None]:
    # Welch's degrees of freedom of what is tested: the variant's variance, and what of `se` is the
    # control's.
    limit = ArmEstimate(c.value, max(se * se - t.variance, 0.0), c.n)
    n, df = t.n + c.n, welch_df(t, limit)
    reach = rule.reach(n, df)
    status: GuardrailStatus = "undecided"
    if room > reach * se:
        status = "not_worse"
    elif room < -reach * se:
        status = "worse"
    return status, rule.p_value(room / se, n, df)


def _of_equal_rates(
    result: GuardrailResult, rates: RatePair, rule: Rule, margin: Margin, better: str
) -> GuardrailResult:
    """The guardrail where each unit of both variants has an event: enough of them show that the
    rates differ by less than the margin."""
    low, high = rates.difference_interval(rule.evidence_limit)
    if margin.is_relative:
        ratios = rates.ratio_interval(rule.evidence_limit)
        if ratios is None:
            return replace(result, status="undecided", reason=reasons.TOO_FEW_UNITS)
        low, high = ratios[0] - 1.0, ratios[1] - 1.0
    if better == "higher":
        low, high = -high, -low
    status, p_value = _status_of_rates(rates, rule, margin, better)
    return replace(
        result,
        status=status,
        p_value=p_value,
        worse_by=0.0,
        worse_by_low=low,
        worse_by_high=high,
    )


def _status_of_rates(
    rates: RatePair, rule: Rule, margin: Margin, better: str
) -> tuple[GuardrailStatus, float | None]:
    """The same of rates that are too few for the normal distribution."""
    direction = 1.0 if better == "higher" else -1.0
    treated, control = rates.treated.value, rates.control.value
    if margin.is_relative:
        limit = 1.0 - direction * margin.value
        room = direction * (treated - limit * control)
        evidence = rates.against_ratio(limit)
    else:
        room = direction * (treated - control) + margin.value
        # No two rates differ by more than 1.
        evidence = rates.against_difference(max(-1.0, min(1.0, -direction * margin.value)))
    status: GuardrailStatus = "undecided"
    if evidence > rule.evidence_limit:
        status = "not_worse" if room > 0.0 else "worse"
    return status, rule.p_of_evidence(evidence)


# --- The verdict


def verdict(
    primary: Sequence[Comparison],
    guardrails: Sequence[GuardrailResult],
    sample_ratio: SampleRatio,
    control: str,
    *,
    ended: str | None = None,
    decides: bool = True,
) -> Verdict:
    """The verdict on the primary metric's comparisons, one per variant.

    Where only one variant is left, the verdict is on the last phase that had several, which `ended`
    then, and says so.

    Where `control` is another variant than the one in use, `decides` is False: variants are told
    apart, but nothing is advised, as what beats one of them may still lose to what is in use.

    Its calls are those of the comparisons (see `called`), so that sentence and table never differ.
    A guardrail that is worse, undecided or unknown keeps the winner from being safe to ship. A
    sample-ratio mismatch withholds the verdict; but a variant that breaks a guardrail is named
    first, whatever else can be said: to stop it costs little, to go on may cost much.
    """
    result = _verdict(primary, guardrails, sample_ratio, control, decides)
    if not decides:
        result = replace(result, codes=[*result.codes, OTHER_CONTROL])
    if ended is None:
        return result
    when = f", until {_moment(ended)}" if ended else ""
    return replace(
        result,
        sentence=f"In the last phase with several variants{when}: {result.sentence}",
        codes=[*result.codes, PAST_PHASE],
    )


def _verdict(
    primary: Sequence[Comparison],
    guardrails: Sequence[GuardrailResult],
    sample_ratio: SampleRatio,
    control: str,
    decides: bool,
) -> Verdict:
    # To be worse than another treatment is no harm to those who would get the control.
    broken = [g for g in guardrails if g.status == "worse" and decides]
    # Where units went astray, no difference between them means anything.
    if sample_ratio.alarm:
        return _with_harm(_withheld(sample_ratio), broken)
    best = _best(primary)
    if best is None:
        return _with_harm(_without_winner(primary, control, decides), broken)
    own = [g for g in guardrails if g.variant == best.variant]
    others = [g for g in broken if g.variant != best.variant]
    return _with_harm(_winner(best, own, control, decides), others)


def _best(primary: Sequence[Comparison]) -> Comparison | None:
    """The variant that beats the control by most; None where none does."""
    winners = [c for c in primary if c.call == "better" and c.se is not None]
    return max(winners, key=lambda c: abs(c.difference or 0.0), default=None)


def _with_harm(result: Verdict, broken: Sequence[GuardrailResult]) -> Verdict:
    """The verdict after what must be stopped."""
    if not broken:
        return result
    clauses: dict[str, list[str]] = {}
    for g in broken:
        clauses.setdefault(g.variant, []).append(_worse(g))
    stops = [f"Stop {variant}: {' and '.join(harms)}." for variant, harms in clauses.items()]
    codes = [GUARDRAIL_WORSE, *(code for code in result.codes if code != GUARDRAIL_WORSE)]
    return replace(result, sentence=" ".join([*stops, result.sentence]), codes=codes)


def _without_winner(primary: Sequence[Comparison], control: str, decides: bool) -> Verdict:
    """The verdict where no variant beats the control."""
    readable = [c for c in primary if c.se is not None]
    if not readable:
        return _unreadable(primary)
    undecided = [c for c in readable if c.call == "no_call"]
    if undecided:
        return _undecided(undecided, [c for c in readable if c.call == "worse"], control)
    clauses = [f"{c.variant} is worse than {control}: {_numbers(c)}" for c in readable]
    clauses += ["do not ship"] if decides else []
    return Verdict(sentence=f"{'; '.join(clauses)}.", codes=[WORSE_THAN_CONTROL])


def _unreadable(primary: Sequence[Comparison]) -> Verdict:
    # One reason is enough to read: that of the first variant.
    code = primary[0].reason if primary else reasons.NO_TRAFFIC
    why = reasons.REASONS.get(code, code)
    return Verdict(sentence=f"Nothing to say yet: {why}.", codes=[code])


def _withheld(ratio: SampleRatio) -> Verdict:
    when, counts, shares = _astray(ratio)
    total, weight = sum(counts.values()), sum(shares.values())
    observed, intended = [], []
    for variant, share in shares.items():
        observed.append(f"{variant} {counts.get(variant, 0) / max(total, 1):.1%}")
        intended.append(f"{variant} {share / weight:.1%}")
    sentence = (
        f"Sample ratio mismatch (SRM): units were not split as intended{when} "
        f"(got {', '.join(observed)}; meant {', '.join(intended)}); find out why before "
        "reading any difference."
    )
    return Verdict(sentence=sentence, codes=[SAMPLE_RATIO_MISMATCH])


def _astray(ratio: SampleRatio) -> tuple[str, dict[str, int], dict[str, float]]:
    """When units were split otherwise than intended, with their counts then and the shares that
    they were to have: in the phase or, where each looks as intended, on the day that is furthest
    from it, unless it is so over all."""
    if len(ratio.phases) > 1:
        phase = min(ratio.phases, key=lambda split: split.p_value)
        if phase.p_value <= ratio.alpha:
            return f" in the phase since {_moment(phase.value)}", phase.counts, phase.shares
    if ratio.p_value <= ratio.alpha or not ratio.days:
        return "", ratio.counts, ratio.shares
    day = min(ratio.days, key=lambda split: split.p_value)
    return f" on {day.value}", day.counts, day.shares or ratio.shares


def _winner(
    best: Comparison, guardrails: Sequence[GuardrailResult], control: str, decides: bool
) -> Verdict:
    clauses = [f"{best.variant} beats {control}: {_numbers(best)}"]
    codes = [BEATS_CONTROL]
    by_status: dict[GuardrailStatus, list[GuardrailResult]] = {
        "not_worse": [],
        "worse": [],
        "undecided": [],
        "unknown": [],
    }
    for g in guardrails:
        by_status[g.status].append(g)
    for clause, code in _guardrail_clauses(by_status):
        clauses.append(clause)
        codes += [code] if code else []
    # Only what is shown to be harmless lets a winner ship: silence of the data does not.
    safe = len(by_status["not_worse"]) == len(guardrails)
    advice = "safe to ship"
    if not safe:
        advice = "do not ship" if by_status["worse"] else "keep it running"
    elif guardrails:
        codes.append(GUARDRAILS_KEPT)
    if not decides:
        return Verdict(sentence="; ".join(clauses) + ".", codes=codes)
    return Verdict(
        sentence="; ".join([*clauses, advice]) + ".",
        codes=codes,
        winner=str(best.variant) if safe else None,
        safe_to_ship=safe,
    )


_OUTLOOK = re.compile(
    r" \(about [^()]* at the current rate\)|; about [^;]* at the current rate"
    r"|; (safe to ship|do not ship|keep it running)(?=\.$)"
)


def without_outlook(sentence: str) -> str:
    """A verdict's sentence once nothing more comes: without advice, and without how long it would
    have taken."""
    return _OUTLOOK.sub("", sentence)


def _guardrail_clauses(
    by_status: dict[GuardrailStatus, list[GuardrailResult]],
) -> Iterator[tuple[str, str]]:
    """What is to be said of guardrails, each with its code; a guardrail that was kept has none."""
    if by_status["not_worse"]:
        yield f"{_labels(by_status['not_worse'])} not worse", ""
    for g in by_status["worse"]:
        yield _worse_clause(g), GUARDRAIL_WORSE
    if by_status["undecided"]:
        labels = _labels(by_status["undecided"])
        wait = _wait(by_status["undecided"])
        yield f"non-inferiority of {labels} not shown yet{wait}", GUARDRAIL_UNDECIDED
    if by_status["unknown"]:
        code = by_status["unknown"][0].reason
        why = reasons.REASONS.get(code, code)
        yield f"{_labels(by_status['unknown'])} cannot be judged ({why})", GUARDRAIL_UNKNOWN


def _wait(undecided: Sequence[GuardrailResult]) -> str:
    """How long until all of them are decided, where that can be said."""
    longest = 0.0
    for g in undecided:
        if g.days_to_decision is None:
            return ""
        longest = max(longest, g.days_to_decision)
    return f" (about {several(max(1, round(longest)), 'more day')} at the current rate)"


def _worse_clause(g: GuardrailResult) -> str:
    return f"but {_worse(g)}"


def _worse(g: GuardrailResult) -> str:
    by = "" if g.worse_by is None else f" by {amount(g.worse_by, g.margin_unit)}"
    allowed = f"{amount(g.margin, g.margin_unit)} allowed" if g.margin else "none allowed"
    return f"{label(g.metric)} is worse{by} ({allowed})"


def _undecided(
    undecided: Sequence[Comparison], losers: Sequence[Comparison], control: str
) -> Verdict:
    """What is to be said of the most promising variant; equals by name, so that the sentence does
    not change from one look to the next.
    """
    first = max(undecided, key=lambda c: (c.chance_to_win or 0.0, str(c.variant)))
    codes = [NO_CALL]
    alone = _call_alone(first)
    if alone == "no_call":
        clauses = [
            f"No difference shown yet between {first.variant} and {control}: {_numbers(first)}"
        ]
    elif first.reason == reasons.DENOMINATOR_DOUBTFUL:
        codes.append(first.reason)
        clauses = [
            f"Not yet sure that {first.variant} is {alone} than {control}: {_numbers(first)}, "
            "which units counted once do not show, and decisions per unit may differ"
        ]
    else:
        codes.append(ONE_OF_SEVERAL)
        clauses = [
            f"Not yet sure that {first.variant} is {alone} than {control}: {_numbers(first)}, "
            f"which one of {len(undecided) + len(losers)} variants can show by luck"
        ]
    if first.days_to_decision:
        days = max(1, round(first.days_to_decision))
        unit = "day" if days == 1 else "days"
        clauses.append(f"about {days} more {unit} to decide at the current rate")
    clauses += [f"{c.variant} is worse: {_numbers(c)}" for c in losers]
    if losers:
        codes.append(WORSE_THAN_CONTROL)
    return Verdict(sentence="; ".join(clauses) + ".", codes=codes)


# --- Phases


def phase_notes(phases: Sequence[Phase], control: str, thin: int, alone: int) -> list[str]:
    """What a reader must know of the phases: when shares were changed, and what was left out."""
    if len(phases) < 2:
        return []
    sentences = []
    changes = shares_changed(phases)
    for since, changed in changes:
        sentences.append(f"shares were changed on {_moment(since)}: {', '.join(changed)}")
    if changes:
        sentences.append(
            "the split is tested by the shares in force when a unit came, and effects are taken "
            "within phases of equal shares"
        )
    if any(not phase.shares for phase in phases):
        sentences.append("the record does not hold the shares of every phase; those are not tested")
    if thin:
        sentences.append(
            f"{thin:,} units were left out, as their phase has too few of {control} or of the "
            "variant"
        )
    if alone:
        sentences.append(f"{alone:,} units were left out: {reasons.REASONS[reasons.ONE_VARIANT]}")
    return sentences


def _moment(iso: str) -> str:
    """2026-03-02T10:00:00Z → 2026-03-02 10:00 UTC."""
    day, _, time = iso.removesuffix("Z").partition("T")
    return f"{day} {time[:5]} UTC" if time else day


# --- Words


def _numbers(c: Comparison) -> str:
    if c.relative is None or c.relative_low is None or c.relative_high is None:
        return _difference(c)
    lift = f"{change(c.relative)} {_name(c)}"
    low, high = change(c.relative_low), change(c.relative_high)
    if c.relative_high <= HUGE:
        return f"{lift}, between {low} and {high}"
    if c.relative_low > 0.0:
        return f"{lift}, at least {low}"
    return f"{lift}, {low} or more"


def _difference(c: Comparison) -> str:
    # Readable comparisons always have a difference with its interval.
    numbers = (c.difference, c.difference_low, c.difference_high)
    difference, low, high = (metric_difference(x, c.is_proportion) for x in numbers)
    return f"{difference} {_name(c)}, between {low} and {high}"


def _name(c: Comparison) -> str:
    """The metric's name, with what it is a number of where that is not the decision."""
    return f"{label(c.metric)} per unit" if c.per == "unit" else label(c.metric)


def _labels(guardrails: Sequence[GuardrailResult]) -> str:
    labels = [label(g.metric) for g in guardrails]
    return listing(labels, len(labels))
