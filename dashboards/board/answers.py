"""What a page comes down to, in a word, a sentence and a next step; made of its numbers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from board import words
from board.terms import ENDED
from topbill.ope import REASONS, Estimate
from topbill.reporting import Report
from topbill.reporting.experiment.wording import FELL_BACK, Standing, alarms, standing
from topbill.reporting.page import OBJECTIVE, LayerVariant, PageReport
from topbill.reporting.queries.decisions import DecisionDetails
from topbill.reporting.queries.exposure import effective_actions
from topbill.reporting.queries.preview import Shown

STILL = 300.0
"""Seconds without a publication after which the worker is missed."""
_SAID = {"No traffic": "without traffic", "Winner": "with a winner", "Harm": "harmful"}
_URGENT = ("Harm", "Worse", "Withheld", "Winner", "Ahead")
_FEW, _MANY = 0.005, 0.25
"""Exploring less than the first is hardly any; more than the second, and the policy is still
looking.
"""


def several(number: int, one: str, more: str = "") -> str:
    """`1 experiment`, `3 experiments`."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def listing(names: Sequence[str], most: int = 4) -> str:
    """`a, b and c`; the rest beyond `most` as a number."""
    kept = list(names[:most]) + ([f"{len(names) - most} more"] if len(names) > most else [])
    return " and ".join([*([", ".join(kept[:-1])] if kept[:-1] else []), *kept[-1:]])


def morning(reports: Sequence[tuple[str, Report]]) -> Standing:
    """All experiments at a glance: title and report of each. What cannot wait comes first."""
    states = [(title, standing(found)) for title, found in reports]
    counts = Counter(_SAID.get(found.word, found.word.lower()) for _, found in states)
    said = listing([f"{n} {word}" for word, n in counts.most_common()], 8)
    sentence = f"{several(len(reports), 'experiment')}: {said}."
    alarming = [(title, found) for title, report in reports for found in alarms(report)[:1]]
    if alarming:
        title, alarm = alarming[0]
        return Standing(
            word="Look into it",
            tone="warning",
            sentence=f"{sentence} {several(len(alarming), 'raises', 'raise')} an alarm.",
            next=f"{title}: {alarm.sentence} Believe none of its numbers before that is explained.",
        )
    for word in _URGENT:
        for title, found in states:
            if found.word == word:
                to_do = "Decide today" if found.tone in ("good", "bad") else found.word
                return Standing(
                    word=to_do, tone=found.tone, sentence=sentence, next=f"{title}: {found.next}"
                )
    return Standing(
        word="Nothing to decide",
        tone="neutral",
        sentence=sentence,
        next="Let them run; looking early costs nothing here, and deciding early is not needed.",
    )


def bandit(
    variant: str, policy: str, first: pd.Series, explored: float | None, worth: pd.DataFrame
) -> Standing:
    """What a variant's policy does: `first` is each action's share of the first position, `worth`
    as the report's.
    """
    if not len(first):
        return Standing(
            word="Nothing shown",
            tone="neutral",
            sentence=f"{variant} has decided nothing yet.",
            next=_WAIT,
        )
    top = str(first.idxmax())
    sentence = f"{variant} shows {top} first most, in {words.share(float(first.max()), digits=0)} of its decisions"
    if policy == "fixed":
        then = (
            "Compare the others with it: a fixed order learns nothing, it is what they must beat."
        )
        return Standing(
            word="Fixed",
            tone="neutral",
            sentence=f"{sentence}; its order never changes.",
            next=then,
        )
    if policy == "uniform":
        then = "Ask What if: a log of pure chance can speak for any other policy."
        return Standing(
            word="Pure chance", tone="neutral", sentence=f"{sentence}: it draws evenly.", next=then
        )
    if explored is not None:
        sentence += f", and explores in {words.share(explored)}"
    known = worth.dropna(subset=["value"]).sort_values("value", ascending=False)
    word = "Still exploring" if explored is not None and explored > _MANY else "Choosing"
    word = "Settled" if word == "Choosing" and effective_actions(first) < 1.5 else word
    tone, told, then = _judged(top, known)
    if explored is not None and explored < _FEW:
        then += " It hardly explores: with a higher min_probability it would find a new favourite sooner."
    return Standing(word=word, tone=tone, sentence=f"{sentence}. {told}", next=then)


_WAIT = "Wait until the first decisions' reward windows have passed."


def _judged(top: str, known: pd.DataFrame) -> tuple[Any, str, str]:
    """Tone, sentence and next step: is what is shown most also worth most?"""
    if not len(known):
        return "neutral", "What each is worth cannot be told yet.", _WAIT
    best = known.iloc[0]
    rivals = known.iloc[1:][known["high"].iloc[1:] >= best.low]
    worth = f"{words.value(best.value)} per decision ({words.interval(best.low, best.high)})"
    told = f"Always shown first, {best.action} would be worth most, {worth}"
    if len(rivals):
        may = f"{told}, though {several(len(rivals), 'other')} may be as good."
        return "neutral", may, "Let it run: intervals that still overlap need more decisions."
    if str(best.action) != top:
        then = f"See below who is shown {top}: it suits some viewers better, or the policy is wrong about it."
        return "warning", f"{told}.", then
    return (
        "good",
        f"{told}.",
        "Nothing to do: most shown is worth most. New actions would give it more to learn.",
    )


def pictures(names: Mapping[str, str], found: pd.DataFrame) -> Standing:
    """Which picture, title or row is shown most, and which is worth most. `names` are what people
    call them.
    """
    named = found.assign(action=[names.get(a, a) for a in found["action"]])
    top = named.sort_values("share", ascending=False).iloc[0]
    tone, told, then = _judged(
        str(top.action), named.dropna(subset=["value"]).sort_values("value", ascending=False)
    )
    word = {"good": "Clear favourite", "warning": "Not its best"}.get(tone, "Too close to call")
    word = "Too early" if then == _WAIT else word
    sentence = f"{top.action} is shown first most, in {words.share(top.share, digits=0)} of decisions. {told}"
    return Standing(word=word, tone=tone, sentence=sentence, next=then)


def evaluation(
    name: str, estimates: Mapping[str, Estimate], e: Estimate | None, logged: Estimate
) -> Standing:
    """What the log says of a policy; `e` is the estimate that is spoken of, None where every
    estimator refused.
    """
    if e is None:
        reasons = list(dict.fromkeys(x.reason for x in estimates.values() if x.reason))
        why = "; ".join(_lowered(REASONS.get(reason, reason)) for reason in reasons)
        return Standing(
            word="No verdict",
            tone="warning",
            sentence=f"The log cannot tell what {name} would have earned: {why}.",
            next="Let a variant explore more (min_probability, or uniform), or collect more decisions.",
        )
    sentence = (
        f"{name} would have earned {words.value(e.value)} per decision ({words.interval(e.low, e.high)}); "
        f"what was shown earned {words.value(logged.value)} ({words.interval(logged.low, logged.high)})."
    )
    if e.low is None or e.high is None or logged.low is None or logged.high is None:
        return Standing(
            word="Estimated", tone="neutral", sentence=sentence, next="Collect more decisions."
        )
    if e.low > logged.high:
        then = (
            "Give it a variant: this says that it is worth an A/B test, and the test is the proof."
        )
        return Standing(
            word="Better than what was shown", tone="good", sentence=sentence, next=then
        )
    if e.high < logged.low:
        then = "Leave it out, or try other parameters."
        return Standing(word="Worse than what was shown", tone="bad", sentence=sentence, next=then)
    then = "Collect more decisions, or try a policy that differs more from what was shown."
    return Standing(word="Cannot be told apart", tone="neutral", sentence=sentence, next=then)


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def previewed(shown: Sequence[Shown], name: Mapping[str, str]) -> Standing:
    """What the variants would show to one viewer."""
    tops: dict[str, list[str]] = {}
    for one in shown:
        tops.setdefault(one.slate[0], []).append(words.label(one.variant))
    told = listing([f"{name.get(a, a)} ({listing(who)})" for a, who in tops.items()], 6)
    agree = len(tops) == 1
    return Standing(
        word="All agree" if agree else "They differ",
        tone="neutral",
        sentence=f"This viewer would see first: {told}.",
        next="Change what is known of the viewer, and see who changes with it; Why? tells what weighed.",
    )


def decision(found: DecisionDetails) -> Standing:
    """One decision: what was shown to whom, and what came of it."""
    d, late = found.decision, found.rewards["seconds_after"]
    came = [
        f"{words.label(event)} after {words.duration(max(0.0, after))}"
        for event, after in zip(found.rewards["event"], late, strict=True)
    ]
    return Standing(
        word="Rewarded" if came else "No reward yet",
        tone="good" if came else "neutral",
        sentence=f"{d['unit']} was shown {listing(d['slate'] or ['nothing'], 8)} on {words.moment(d['at'])}; "
        f"what came of it: {listing(came or ['nothing so far'])}.",
        next=f"{ENDED.get(d['reason'], d['reason'])} See below what else could have been drawn.",
    )


def listed(found: pd.DataFrame, whose: str) -> Standing:
    """Decisions of an experiment or a unit, as the report lists them."""
    rewarded, fell_back = (
        int((found["events"] > 0).sum()),
        int((found["reason"] == "fallback").sum()),
    )
    stepped = f"; in {fell_back:,} of them the control stepped in" if fell_back else ""
    return Standing(
        word="The latest",
        tone="neutral",
        sentence=f"{rewarded:,} of the latest {several(len(found), 'decision')} for {whose} brought an event{stepped}.",
        next="Choose one by its time to see everything about it, or enter an id or a unit.",
    )


def missing(what: str) -> Standing:
    """Nothing of that name in the record."""
    then = "Look at the spelling; what was decided a moment ago may not be published yet."
    return Standing(
        word="Not found", tone="neutral", sentence=f"No {what} in the record.", next=then
    )


def healthy(found: Report, age: float) -> Standing:
    """Whether the record can be believed; `age` in seconds since it was published."""
    problems = [alarm.sentence for alarm in alarms(found)]
    if problems:
        then = "Explain this before any number of the experiment is believed; the charts below tell since when."
        return Standing(word="Look into it", tone="warning", sentence=" ".join(problems), next=then)
    if age > STILL:
        return Standing(
            word="Standing still",
            tone="warning",
            sentence=f"The worker last published {words.duration(age)} ago: everything here is of then.",
            next="If it should be running, look at its messages, or start topbill worker.",
        )
    return Standing(
        word="All well",
        tone="good",
        sentence="The record can be trusted: actions were drawn as often as logged, rewards find their decisions, "
        f"fallbacks are below {words.share(FELL_BACK, digits=0)}.",
        next="Nothing to do.",
    )


def whole(found: PageReport) -> Standing:
    """What the layers' variants do to the whole page."""
    told = [(arm, arm.against_control.get(OBJECTIVE)) for arm in found.arms if not arm.control]
    up = [arm for arm, gap in told if gap is not None and gap.low > 0.0]
    down = [arm for arm, gap in told if gap is not None and gap.high < 0.0]
    if not any(gap for _, gap in told):
        sentence = "No layer's variant has enough viewers yet to be compared with its control."
        return Standing(
            word="Too early",
            tone="neutral",
            sentence=sentence,
            next="Serve more pages; windows must pass.",
        )
    said = [
        f"{listing([_named(arm) for arm in which])} {verb if len(which) == 1 else verb[:-1]}"
        for which, verb in ((up, "helps"), (down, "hurts"))
        if which
    ]
    sentence = (
        f"For the whole page, {'; '.join(said)}; the rest cannot be told from its control."
        if said
        else ("No layer's variant can be told from its control on the whole page yet.")
    )
    if down:
        then = f"Look at {_named(down[0])} first: the layers are drawn apart, so it is to blame for what it loses."
        return Standing(word="One hurts", tone="bad", sentence=sentence, next=then)
    if up:
        then = f"Look at {up[0].experiment} for the verdict that holds at every look; these intervals are for one look."
        return Standing(word="Ahead", tone="promising", sentence=sentence, next=then)
    return Standing(
        word="Undecided",
        tone="neutral",
        sentence=sentence,
        next="Keep serving; intervals narrow with viewers.",
    )


def _named(arm: LayerVariant) -> str:
    return (
        f"{arm.layer}' {words.label(arm.variant)}"
        if arm.layer.endswith("s")
        else f"{arm.layer}'s {arm.variant}"
    )
