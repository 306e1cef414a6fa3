"""What a report comes down to: one word, what is alarming, and what to do next; all from its
numbers alone.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import pandas as pd

from topbill.reporting.experiment.model import Note, Report

Tone = Literal["good", "promising", "neutral", "warning", "bad"]
JOINED, FELL_BACK = 0.9, 0.01
"""Fewer of every reward event in its window than the first, or more fallbacks than the second, are
alarming.
"""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where something stands: in a word (and its tone), in a sentence, and the next step in
    another.
    """

    word: str
    tone: Tone
    sentence: str
    next: str


def state(report: Report) -> State:
    """Where the experiment stands. The word never says more than the verdict does."""
    if not report.decisions:
        sentence = "No decision has been made in this experiment yet."
    elif report.ab is None:
        sentence = "There is no control to compare with."
    elif len(report.ab.units) < 2:
        sentence = "There is one variant, and nothing to compare it with."
    else:
        sentence = report.ab.verdict.sentence
    word, tone, then = _word(report)
    return State(word=word, tone=tone, sentence=sentence, next=then)


def _word(report: Report) -> tuple[str, Tone, str]:
    codes = set() if report.ab is None else set(report.ab.verdict.codes)
    if not report.decisions:
        return "No traffic", "neutral", "Send decide requests to the service, then look here again."
    if report.ab is None or len(report.ab.units) < 2:
        return "Not compared", "neutral", "Add a second variant to learn what this one is worth."
    if "sample_ratio_mismatch" in codes:
        then = "Find out why units were not split as intended: bots, redirects, lost logs. Read no lift before."
        return "Withheld", "warning", then
    if report.ab.verdict.safe_to_ship:
        return (
            "Winner",
            "good",
            f"Ship {report.ab.verdict.winner}: give it all traffic, keep a small holdout.",
        )
    if "beats_control" in codes:
        if "guardrail_worse" in codes:
            return (
                "Harm",
                "bad",
                "Don't ship: it wins the objective at a guardrail's cost. Change the policy.",
            )
        return (
            "Ahead",
            "promising",
            "Keep it running until the guardrails are shown to be safe too.",
        )
    if "no_call" in codes:
        several = "With several variants, one interval beyond zero is not proof yet. "
        lead = several if "call_lost_to_multiplicity" in codes else ""
        return "Undecided", "neutral", f"{lead}Keep it running; looking early costs nothing here."
    if "worse_than_control" in codes:
        return "Worse", "bad", "Stop it, and look at segments and artwork for the reason."
    return "Too early", "neutral", "Wait until the first decisions' reward windows have passed."


def alarms(report: Report) -> list[Note]:
    """What must be repaired before numbers are believed, worst first; empty when all is well."""
    found = []
    if report.ab is not None and report.ab.sample_ratio.alarm:
        found.append(
            Note(code="sample_ratio", sentence="Units were not split between variants as intended.")
        )
    health = report.health
    if health.propensity_ok is False:
        sentence = (
            "Actions were not drawn as often as logged: off-policy numbers from this log are wrong."
        )
        found.append(Note(code="propensity", sentence=sentence))
    off = [c.variant for c in health.choices if c.alarm]
    if off:
        sentence = f"What {' and '.join(off)} chose does not match the summed logged probabilities."
        found.append(Note(code="choice_ratio", sentence=sentence))
    if report.ab is not None:
        for g in report.ab.guardrails:
            if g.status == "worse":
                sentence = (
                    f"{g.variant} makes {g.metric} worse by more than the {g.margin:.1%} allowed."
                )
                found.append(Note(code="guardrail", sentence=sentence))
    if report.decisions and not health.reward_events:
        found.append(
            Note(
                code="no_rewards",
                sentence="No reward event has come: nothing can be learned or compared.",
            )
        )
    elif health.unread_events and health.reward_join_rate is None:
        came = " and ".join(list(health.unread_events)[:3])
        found.append(
            Note(
                code="unread_events",
                sentence=f"No metric reads any reward event that comes: {came}.",
            )
        )
    elif health.joined and max(health.joined.values()) < JOINED:
        # One event may be late by its nature, as of a viewer who comes back next week; slow
        # messages are all late.
        event, most = max(health.joined.items(), key=lambda item: item[1])
        sentence = f"Rewards come late: within its metric's window only {most:.0%} of {event}, and no event does better."
        found.append(Note(code="reward_join", sentence=sentence))
    if health.fallback_share is not None and health.fallback_share > FELL_BACK:
        sentence = f"{health.fallback_share:.1%} of decisions fell back to the control's order."
        found.append(Note(code="fallbacks", sentence=sentence))
    return found


def regret(report: Report) -> pd.DataFrame:
    """Per variant: what its mature decisions earned less than the best variant's mean would have
    brought.

    Columns: variant, decisions, regret with low and high (95%, in units of the objective), and
    per_decision. The best is the one with the highest mean so far, which flatters it a little.
    """
    known = [v for v in report.variants if v.reward.value is not None and v.reward.se is not None]
    columns = ["variant", "decisions", "per_decision", "regret", "low", "high"]
    if len(known) < 2:
        return pd.DataFrame(columns=columns)
    best = max(known, key=lambda v: v.reward.value or 0.0).reward
    lines = []
    for v in known:
        gap = (best.value or 0.0) - (v.reward.value or 0.0)
        half = (
            0.0
            if v.reward is best
            else 1.96 * float(((best.se or 0.0) ** 2 + (v.reward.se or 0.0) ** 2) ** 0.5)
        )
        n = v.reward.decisions
        lines.append((v.variant, n, gap, n * gap, n * max(0.0, gap - half), n * (gap + half)))
    return pd.DataFrame(lines, columns=columns)
