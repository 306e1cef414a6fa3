"""One sentence that a product manager understands, made only from the numbers, with the codes it was made by."""

from __future__ import annotations

from collections.abc import Sequence

from topbill.ab import textbook
from topbill.ab.analysis import Comparison, GuardrailResult, SampleRatio, Verdict
from topbill.ab.reasons import REASONS

SAMPLE_RATIO_MISMATCH = "sample_ratio_mismatch"
BEATS_CONTROL = "beats_control"
WORSE_THAN_CONTROL = "worse_than_control"
NO_CALL = "no_call"
GUARDRAIL_WORSE = "guardrail_worse"
GUARDRAIL_UNDECIDED = "guardrail_undecided"
GUARDRAIL_UNKNOWN = "guardrail_unknown"
GUARDRAILS_KEPT = "guardrails_kept"
ONE_OF_SEVERAL = "call_lost_to_multiplicity"


def verdict(
    primary: Sequence[Comparison],
    guardrails: Sequence[GuardrailResult],
    sample_ratio: SampleRatio,
    control: str,
    alpha: float,
) -> Verdict:
    """The verdict on the primary metric's comparisons, one per variant.

    A variant wins when its own interval is on the good side and, with several variants, its p-value adjusted by
    Holm is at most alpha too. A guardrail that is worse, undecided or unknown keeps the winner from being safe to
    ship. A sample-ratio mismatch withholds the verdict altogether.
    """
    if sample_ratio.alarm:
        return _withheld(sample_ratio)
    readable = [c for c in primary if c.se is not None]
    if not readable:
        code = primary[0].reason if primary else "no_traffic"
        return Verdict(sentence=f"Nothing to say yet: {REASONS.get(code, code)}.", codes=[code])
    sure = _after_holm(readable, alpha)
    winners = [c for c in readable if c.call == "better" and sure[str(c.variant)]]
    if winners:
        best = max(winners, key=lambda c: abs(c.difference or 0.0))
        return _winner(best, [g for g in guardrails if g.variant == best.variant], control)
    losers = [c for c in readable if c.call == "worse" and sure[str(c.variant)]]
    if len(losers) == len(readable):
        parts = [f"{c.variant} is worse than {control}: {_numbers(c)}" for c in losers]
        return Verdict(sentence=f"{'; '.join(parts)}; do not ship.", codes=[WORSE_THAN_CONTROL])
    return _undecided(readable, losers, control)


def _after_holm(comparisons: Sequence[Comparison], alpha: float) -> dict[str, bool]:
    """Whether each variant's call survives there being several; without p-values (bayes) Holm works on tail chances."""
    p = [c.p_value if c.p_value is not None else _tail(c) for c in comparisons]
    adjusted = textbook.adjusted(p, "holm")
    return {str(c.variant): a is not None and a <= alpha for c, a in zip(comparisons, adjusted, strict=True)}


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
            much = "" if g.worse_by is None else f" by {_percent(g.worse_by, plain=True)}"
            allowed = f"{g.worse_by_at_most:.1%} allowed" if g.worse_by_at_most else "none allowed"
            clauses.append(f"but {_label(g.metric)} is worse{much} ({allowed})")
            codes.append(GUARDRAIL_WORSE)
    undecided = [g for g in guardrails if g.status == "undecided"]
    if undecided:
        clauses.append(f"{_and([_label(g.metric) for g in undecided])} not yet shown to be not worse")
        codes.append(GUARDRAIL_UNDECIDED)
    unknown = [g for g in guardrails if g.status == "unknown"]
    if unknown:
        clauses.append(f"{_and([_label(g.metric) for g in unknown])} cannot be judged ({unknown[0].reason})")
        codes.append(GUARDRAIL_UNKNOWN)
    safe = len(kept) == len(guardrails)
    if safe:
        clauses.append("safe to ship")
        codes += [GUARDRAILS_KEPT] if guardrails else []
    else:
        clauses.append("do not ship" if GUARDRAIL_WORSE in codes else "keep it running")
    winner = str(best.variant) if safe else None
    return Verdict(sentence="; ".join(clauses) + ".", codes=codes, winner=winner, safe_to_ship=safe)


def _undecided(readable: Sequence[Comparison], losers: Sequence[Comparison], control: str) -> Verdict:
    open_ones = [c for c in readable if c not in losers]
    first = max(open_ones, key=lambda c: (c.chance_to_win or 0.0, str(c.variant)))
    codes = [NO_CALL]
    if first.call != "no_call":
        codes.append(ONE_OF_SEVERAL)
    clauses = [f"No difference shown yet between {first.variant} and {control}: {_numbers(first)}"]
    if first.days_to_decision:
        days = max(1, round(first.days_to_decision))
        clauses.append(f"about {days} more {'day' if days == 1 else 'days'} to decide if it stays so")
    clauses += [f"{c.variant} is worse: {_numbers(c)}" for c in losers]
    if losers:
        codes.append(WORSE_THAN_CONTROL)
    return Verdict(sentence="; ".join(clauses) + ".", codes=codes)


def _numbers(c: Comparison) -> str:
    label = _label(c.metric)
    if c.relative is not None and c.relative_low is not None and c.relative_high is not None:
        low, high = _percent(c.relative_low), _percent(c.relative_high)
        return f"{_percent(c.relative)} {label}, between {low} and {high}"
    return f"{c.difference:+.3g} {label}, between {c.difference_low:+.3g} and {c.difference_high:+.3g}"


def _percent(x: float, *, plain: bool = False) -> str:
    digits = 2 if abs(x) < 0.01 else 1
    text = f"{x:.{digits}%}" if plain else f"{x:+.{digits}%}"
    return text.replace("-", "−")


def _label(metric: str) -> str:
    return metric.replace("_", " ")


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
