"""What a report comes down to: one word, what is alarming, and what to do next; all from its numbers alone."""

from __future__ import annotations

from typing import Literal

import msgspec
import pandas as pd

from topbill.report.model import Note, Report

Tone = Literal["good", "promising", "neutral", "warning", "bad"]
JOINED, FELL_BACK = 0.9, 0.01
"""Fewer reward events in a window than the first, or more fallbacks than the second, are alarming."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One word (and its tone) for where an experiment stands, and the next step in a sentence."""

    word: str
    tone: Tone
    next: str


def state(report: Report) -> State:
    """Where the experiment stands. The word never says more than the verdict does."""
    codes = set() if report.ab is None else set(report.ab.verdict.codes)
    if not report.decisions:
        return State(
            word="No traffic", tone="neutral", next="Send decide requests to the service, then look here again."
        )
    if report.ab is None:
        return State(word="Not compared", tone="neutral", next="Add a second variant to learn what this one is worth.")
    if "sample_ratio_mismatch" in codes:
        return State(
            word="Withheld",
            tone="warning",
            next="Find out why units were not split as intended: bots, redirects, lost logs. Read no lift before.",
        )
    if report.ab.verdict.safe_to_ship:
        return State(
            word="Winner",
            tone="good",
            next=f"Ship {report.ab.verdict.winner}: give it all traffic, keep a small holdout.",
        )
    if "beats_control" in codes:
        if "guardrail_worse" in codes:
            return State(
                word="Harm",
                tone="bad",
                next="Don't ship: it wins the objective at a guardrail's cost. Change the policy.",
            )
        return State(
            word="Ahead", tone="promising", next="Keep it running until the guardrails are shown to be safe too."
        )
    if "no_call" in codes:
        several = "With several variants, one interval beyond zero is not proof yet. "
        lead = several if "call_lost_to_multiplicity" in codes else ""
        return State(word="Undecided", tone="neutral", next=f"{lead}Keep it running; looking early costs nothing here.")
    if "worse_than_control" in codes:
        return State(word="Worse", tone="bad", next="Stop it, and look at segments and artwork for the reason.")
    return State(word="Too early", tone="neutral", next="Wait until the first decisions' reward windows have passed.")


def alarms(report: Report) -> list[Note]:
    """What must be repaired before numbers are believed, worst first; empty when all is well."""
    found = []
    if report.ab is not None and report.ab.sample_ratio.alarm:
        found.append(Note(code="sample_ratio", sentence="Units were not split between variants as intended."))
    health = report.health
    if health.propensity_ok is False:
        sentence = "Actions were not drawn as often as logged: off-policy numbers from this log are wrong."
        found.append(Note(code="propensity", sentence=sentence))
    off = [c.variant for c in health.choices if c.alarm]
    if off:
        sentence = f"What {' and '.join(off)} chose does not match the summed logged probabilities."
        found.append(Note(code="choice_ratio", sentence=sentence))
    if report.ab is not None:
        for g in report.ab.guardrails:
            if g.status == "worse":
                sentence = f"{g.variant} makes {g.metric} worse by more than the {g.worse_by_at_most:.1%} allowed."
                found.append(Note(code="guardrail", sentence=sentence))
    if report.decisions and not health.reward_events:
        found.append(Note(code="no_rewards", sentence="No reward event has come: nothing can be learned or compared."))
    elif health.unread_events and health.reward_join_rate is None:
        came = " and ".join(list(health.unread_events)[:3])
        found.append(Note(code="unread_events", sentence=f"No metric reads any reward event that comes: {came}."))
    elif health.reward_join_rate is not None and health.reward_join_rate < JOINED:
        sentence = f"Only {health.reward_join_rate:.0%} of reward events came within a metric's window."
        found.append(Note(code="reward_join", sentence=sentence))
    if health.fallback_share is not None and health.fallback_share > FELL_BACK:
        sentence = f"{health.fallback_share:.1%} of decisions fell back to the control's order."
        found.append(Note(code="fallbacks", sentence=sentence))
    return found


def regret(report: Report) -> pd.DataFrame:
    """Per variant: what its mature decisions earned less than the best variant's mean would have brought.

    Columns: variant, decisions, regret with low and high (95%, in units of the objective), and per_decision. The best
    is the one with the highest mean so far, which flatters it a little.
    """
    known = [v for v in report.variants if v.reward.value is not None and v.reward.se is not None]
    columns = ["variant", "decisions", "per_decision", "regret", "low", "high"]
    if len(known) < 2:
        return pd.DataFrame(columns=columns)
    best = max(known, key=lambda v: v.reward.value or 0.0).reward
    lines = []
    for v in known:
        gap = (best.value or 0.0) - (v.reward.value or 0.0)
        half = 0.0 if v.reward is best else 1.96 * float(((best.se or 0.0) ** 2 + (v.reward.se or 0.0) ** 2) ** 0.5)
        n = v.reward.decisions
        lines.append((v.variant, n, gap, n * gap, n * max(0.0, gap - half), n * (gap + half)))
    return pd.DataFrame(lines, columns=columns)
