"""One sentence that a product manager understands, made only from the numbers, with the codes it
was made by.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from topbill.ab.power import textbook
from topbill.ab.reasons import REASONS
from topbill.ab.results import Call, Comparison, GuardrailResult, SampleRatio, Verdict

SAMPLE_RATIO_MISMATCH = "sample_ratio_mismatch"
BEATS_CONTROL = "beats_control"
WORSE_THAN_CONTROL = "worse_than_control"
NO_CALL = "no_call"
GUARDRAIL_WORSE = "guardrail_worse"
GUARDRAIL_UNDECIDED = "guardrail_undecided"
GUARDRAIL_UNKNOWN = "guardrail_unknown"
GUARDRAILS_KEPT = "guardrails_kept"
ONE_OF_SEVERAL = "call_lost_to_multiplicity"

HUGE = 10.0
"""A lift (as a fraction) above which an upper bound tells nobody anything: the sentence says "at
least" then.
"""


def verdict(
    primary: Sequence[Comparison],
    guardrails: Sequence[GuardrailResult],
    sample_ratio: SampleRatio,
    control: str,
) -> Verdict:
    """The verdict on the primary metric's comparisons, one per variant.

    Its calls are those of the comparisons (see `called`), so that sentence and table never differ.
    A guardrail that is worse, undecided or unknown keeps the winner from being safe to ship. A
    sample-ratio mismatch withholds the verdict altogether.
    """
    if sample_ratio.alarm:
        return _withheld(sample_ratio)
    readable = [c for c in primary if c.se is not None]
    if not readable:
        code = primary[0].reason if primary else "no_traffic"
        return Verdict(sentence=f"Nothing to say yet: {REASONS.get(code, code)}.", codes=[code])
    winners = [c for c in readable if c.call == "better"]
    if winners:
        best = max(winners, key=lambda c: abs(c.difference or 0.0))
        return _winner(best, [g for g in guardrails if g.variant == best.variant], control)
    losers = [c for c in readable if c.call == "worse"]
    if len(losers) == len(readable):
        parts = [f"{c.variant} is worse than {control}: {_numbers(c)}" for c in losers]
        return Verdict(sentence=f"{'; '.join(parts)}; do not ship.", codes=[WORSE_THAN_CONTROL])
    return _undecided(readable, losers, control)


def called(comparisons: Sequence[Comparison], alpha: float) -> list[Comparison]:
    """The comparisons of one metric, one per variant, with their calls: better or worse where the
    interval is on one side of zero and, there being several variants, the p-value adjusted by Holm
    is at most alpha too (without p-values, as in bayes, twice the smaller chance stands for it)."""
    p = [c.p_value if c.p_value is not None else _tail(c) for c in comparisons]
    sure = [a is not None and a <= alpha for a in textbook.adjusted(p, "holm")]
    return [
        replace(c, call=_alone(c) if s else "no_call")
        for c, s in zip(comparisons, sure, strict=True)
    ]


def _alone(c: Comparison) -> Call:
    """The call of an interval by itself."""
    if c.se is None or c.difference_low is None or c.difference_high is None:
        return "no_call"
    sign = 1.0 if c.better == "higher" else -1.0
    low, high = sorted((sign * c.difference_low, sign * c.difference_high))
    return "better" if low > 0.0 else "worse" if high < 0.0 else "no_call"


def _tail(c: Comparison) -> float | None:
    return None if c.chance_to_win is None else 2.0 * min(c.chance_to_win, 1.0 - c.chance_to_win)


def _withheld(ratio: SampleRatio) -> Verdict:
    total, weight = sum(ratio.counts.values()), sum(ratio.shares.values())
    got = ", ".join(f"{v} {ratio.counts.get(v, 0) / max(total, 1):.1%}" for v in ratio.shares)
    meant = ", ".join(f"{v} {s / weight:.1%}" for v, s in ratio.shares.items())
    sentence = (
        f"Verdict withheld: units were not split as intended (got {got}; meant {meant}); "
        "find out why before reading any difference."
    )
    return Verdict(sentence=sentence, codes=[SAMPLE_RATIO_MISMATCH])


def _winner(best: Comparison, guardrails: Sequence[GuardrailResult], control: str) -> Verdict:
    clauses, codes = [f"{best.variant} beats {control}: {_numbers(best)}"], [BEATS_CONTROL]
    kept = [g for g in guardrails if g.status == "not_worse"]
    if kept:
        clauses.append(f"{_and([_label(g.metric) for g in kept])} not worse")
    for g in guardrails:
        if g.status == "worse":
            much = "" if g.worse_by is None else f" by {percent(g.worse_by, sign='')}"
            allowed = f"{g.margin:.1%} allowed" if g.margin else "none allowed"
            clauses.append(f"but {_label(g.metric)} is worse{much} ({allowed})")
            codes.append(GUARDRAIL_WORSE)
    undecided = [g for g in guardrails if g.status == "undecided"]
    if undecided:
        clauses.append(
            f"{_and([_label(g.metric) for g in undecided])} not yet known to be harmless"
        )
        codes.append(GUARDRAIL_UNDECIDED)
    unknown = [g for g in guardrails if g.status == "unknown"]
    if unknown:
        clauses.append(
            f"{_and([_label(g.metric) for g in unknown])} cannot be judged ({unknown[0].reason})"
        )
        codes.append(GUARDRAIL_UNKNOWN)
    safe = len(kept) == len(guardrails)
    if safe:
        clauses.append("safe to ship")
        codes += [GUARDRAILS_KEPT] if guardrails else []
    else:
        clauses.append("do not ship" if GUARDRAIL_WORSE in codes else "keep it running")
    winner = str(best.variant) if safe else None
    return Verdict(sentence="; ".join(clauses) + ".", codes=codes, winner=winner, safe_to_ship=safe)


def _undecided(
    readable: Sequence[Comparison], losers: Sequence[Comparison], control: str
) -> Verdict:
    open_ones = [c for c in readable if c not in losers]
    first = max(open_ones, key=lambda c: (c.chance_to_win or 0.0, str(c.variant)))
    codes, clauses = (
        [NO_CALL],
        [f"No difference shown yet between {first.variant} and {control}: {_numbers(first)}"],
    )
    if (alone := _alone(first)) != "no_call":
        codes.append(ONE_OF_SEVERAL)
        luck = f"which one of {len(readable)} variants can show by luck"
        clauses = [
            f"Not yet sure that {first.variant} is {alone} than {control}: {_numbers(first)}, {luck}"
        ]
    if first.days_to_decision:
        days = max(1, round(first.days_to_decision))
        clauses.append(
            f"about {days} more {'day' if days == 1 else 'days'} to decide if it stays so"
        )
    clauses += [f"{c.variant} is worse: {_numbers(c)}" for c in losers]
    if losers:
        codes.append(WORSE_THAN_CONTROL)
    return Verdict(sentence="; ".join(clauses) + ".", codes=codes)


def _numbers(c: Comparison) -> str:
    label = _label(c.metric)
    if c.relative is None or c.relative_low is None or c.relative_high is None:
        shown = [
            signed(x) for x in (c.difference, c.difference_low, c.difference_high) if x is not None
        ]
        return f"{shown[0]} {label}, between {shown[1]} and {shown[2]}"
    low, high, lift = c.relative_low, c.relative_high, f"{percent(c.relative)} {label}"
    if high <= HUGE:
        return f"{lift}, between {percent(low)} and {percent(high)}"
    return f"{lift}, at least {percent(low)}" if low > 0.0 else f"{lift}, {percent(low)} or more"


def percent(x: float, *, sign: str = "+") -> str:
    """+6.2%, −0.31%, +1,234.5%; without the plus where `sign` is empty."""
    return f"{x:{sign},.{2 if abs(x) < 0.01 else 1}%}".replace("-", "−")


def signed(x: float) -> str:
    """A difference that is no percentage."""
    return f"{x:+,.3g}".replace("-", "−")


def _label(metric: str) -> str:
    return metric.replace("_", " ")


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
