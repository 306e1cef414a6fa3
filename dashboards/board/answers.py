"""What a page comes down to, in a word, a sentence and a next step; made of its numbers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd
from msgspec import structs

from board import words
from board.terms import ENDED
from topbill.ab import without_outlook
from topbill.ope import REASONS, REMEDIES, Estimate
from topbill.reporting import LayerVariant, Note, PageReport, Report
from topbill.reporting.experiment.wording import FELL_BACK, Standing, Tone, alarms, standing
from topbill.reporting.page import OBJECTIVE
from topbill.reporting.queries.decisions import DecisionDetails
from topbill.reporting.queries.exposure import Exploration, effective_actions
from topbill.reporting.queries.launches import LaunchStanding
from topbill.reporting.queries.preview import PreviewedVariant

HARM, NOT_TRUSTWORTHY, LEADING = (
    "Guardrail failed",
    "Not trustworthy (SRM)",
    "Leading, guardrails pending",
)
STILL = 300.0
"""Seconds without a publication after which the worker is missed."""
_SPOKEN = {
    "No traffic": "without traffic",
    "Winner": "with a winner",
    HARM: "with a failed guardrail",
    LEADING: "leading with guardrails pending",
    NOT_TRUSTWORTHY: "not trustworthy (SRM)",
    "Waits for approval": "waiting for approval",
}
"""How a standing's word goes on after a number of experiments, where not as it is."""
WAITS = "Waits for approval"
_BACK = ("Rolled back", "Stopped at its gate")
_URGENT = (*_BACK, "Worse", NOT_TRUSTWORTHY, WAITS, "Winner", LEADING)
"""What the morning asks for first, where nothing does harm."""
_FEW, _MANY = 0.005, 0.25
"""Exploring less than the first is hardly any; more than the second, and the policy is still
looking.
"""
OF_THEN = "everything here is of then"
_START_WORKER = "If it should be running, look at its messages, or start topbill worker."
_WAIT = "Wait until the first decisions' reward windows have passed."


def is_still(age: float) -> bool:
    """Whether the record stands still; `age` in seconds since it was published."""
    return age > STILL


def stillness(age: float) -> str:
    """That the record stands still, and since when."""
    return f"The worker last published {words.duration(age)} ago: {OF_THEN}."


def while_still(where: Standing, age: float) -> Standing:
    """Where something stands, with what to do first when nothing newer comes: to keep running what
    does not run is no advice.
    """
    if not is_still(age):
        return where
    # Viewers are harmed, and units split wrongly, whether anybody publishes or not.
    first = f"{where.next} " if where.tone in ("bad", "warning") else ""
    return structs.replace(where, next=f"{first}{stillness(age)} {_START_WORKER}")


def with_launch(report: Report, launch: LaunchStanding | None) -> Standing:
    """Where an experiment stands, its launch included: numbers of what was rolled back are nothing
    to wait for, and what waits for somebody is told to them.
    """
    where = standing(report)
    if report.conclusion is not None:
        return where
    if launch is not None and launch.stage == "over":
        others = launch.goes_on or "everybody gets the control's order"
        sentence = f"{launch.sentence[:1].upper()}{launch.sentence[1:].rstrip('.')}."
        return Standing(
            word=launch.state,
            tone="bad",
            sentence=sentence,
            next=f"{others[:1].upper()}{others[1:]}. Change its file, and it is launched anew; or "
            f"end it: topbill conclude {launch.experiment}.",
        )
    if launch is not None and launch.needs_approval and where.tone != "bad":
        return structs.replace(
            where,
            word=launch.state,
            tone="warning",
            next=f"Its launch waits: {launch.sentence.rstrip('.')}. Look at its numbers; topbill "
            f"approve {launch.experiment} lets it go on.",
        )
    if report.status in ("stopped", "paused") and report.decisions:
        return structs.replace(
            where,
            sentence=without_outlook(where.sentence),
            next=f"It is {report.status}, so nothing more comes. End it: topbill conclude "
            f"{report.experiment}.",
        )
    return where


def unsaid_alarms(report: Report) -> list[Note]:
    """What must be repaired before numbers are believed, but for what the verdict has said."""
    said = set(report.ab.verdict.codes) if report.ab is not None else set[str]()
    return [alarm for alarm in alarms(report) if alarm.code not in said]


def without_file(where: Standing) -> Standing:
    """Where a concluded experiment stands whose file is gone: nothing is left to be done with
    it."""
    step = "Nothing to do: its file is gone, and its report stays. To ask the same again, start a "
    return structs.replace(where, next=f"{step}new experiment with a key of its own.")


def all_experiments(
    reports: Sequence[tuple[str, Report]],
    age: float = 0.0,
    launches: Mapping[str, LaunchStanding] = MappingProxyType({}),
) -> Standing:
    """All experiments at a glance: title and report of each. What cannot wait comes first. `age`
    is that of the record in seconds, `launches` are by experiment.
    """
    standings = [
        (title, with_launch(report, launches.get(report.experiment))) for title, report in reports
    ]
    sentence = _counted([where.word for _, where in standings])
    # What is shown to do harm is stopped first, whatever else cannot be believed.
    for title, where in standings:
        if where.word == HARM:
            word = where.word if is_still(age) else "Decide today"
            step = f"{title}: {where.next}"
            return structs.replace(where, word=word, sentence=sentence, next=step)
    # A number that cannot be believed is worse news than a bad one, so alarms come before verdicts.
    alarmed = [(title, alarms(report)) for title, report in reports if alarms(report)]
    if alarmed:
        title, worst = alarmed[0][0], alarmed[0][1][0]
        raising = words.several(len(alarmed), "raises", "raise")
        return Standing(
            word="Look into it",
            tone="warning",
            sentence=f"{sentence} {raising} an alarm.",
            next=f"{title}: {worst.sentence} Believe none of its numbers before that is explained.",
        )
    # By urgency first and only then in the list's order: one harm counts more than ten winners.
    for word in _URGENT:
        for title, where in standings:
            if where.word == word:
                # Of a record that stands still nothing is to be decided today.
                is_due = where.tone in ("good", "bad") and not is_still(age)
                return Standing(
                    word="Decide today" if is_due else where.word,
                    tone=where.tone,
                    sentence=sentence,
                    next=f"{title}: {where.next}",
                )
    step = "Let them run; looking early costs nothing here, and deciding early is not needed."
    if not any(report.decisions for _, report in reports):
        step = "Send decide requests to the service; a draft is launched by status: running."
    return Standing(word="Nothing to decide", tone="neutral", sentence=sentence, next=step)


_ORDER = (HARM, *_URGENT)
"""Words of what somebody has to do something about, the most urgent first."""
_CALM = ("Concluded", "No traffic", "Draft")
"""Those of what nothing is to be done about."""


def urgency(where: Standing, report: Report) -> int:
    """By which experiments stand in a list, the most urgent first."""
    if where.word in _ORDER:
        return _ORDER.index(where.word)
    if where.word in _CALM:
        return len(_ORDER) + 2 + _CALM.index(where.word)
    # Numbers that somebody has to explain come before those that only take their time.
    return len(_ORDER) + (0 if alarms(report) else 1)


def _counted(standing_words: Sequence[str]) -> str:
    """`3 experiments: 2 undecided and 1 with a winner.`"""
    # The most common first, as one would say it.
    counts = Counter(_SPOKEN.get(word, word.lower()) for word in standing_words)
    parts = [f"{number} {word}" for word, number in counts.most_common()]
    return f"{words.several(len(standing_words), 'experiment')}: {words.listing(parts, 8)}."


def bandit(
    variant: str,
    policy: str,
    first: pd.Series,
    now: pd.Series,
    explored: Exploration | None,
    values: pd.DataFrame,
) -> Standing:
    """What a variant's policy does.

    Args:
        variant: its name.
        policy: the kind of its policy.
        first: each action's share of the first position, of all its decisions.
        now: the same of its latest decisions.
        explored: how open the draw is now; None where no probabilities are kept.
        values: the off-policy value of each action, as `action_values` has it.
    """
    if not len(first):
        return Standing(
            word="Nothing shown",
            tone="neutral",
            sentence=f"{variant} has decided nothing yet.",
            next=_WAIT,
        )
    favourite = str(now.idxmax())
    share = words.share(float(now.max()), digits=0)
    ever = words.share(float(first.get(favourite, 0.0)), digits=0)
    sentence = (
        f"{variant} now shows {favourite} first most: in {share} of its latest decisions, {ever} "
        "of all"
    )
    # These two learn nothing, so there is no choice of theirs to be judged.
    if policy == "fixed":
        return Standing(
            word="Fixed",
            tone="neutral",
            sentence=f"{sentence}; its order never changes.",
            next="Compare the others with it: a fixed order learns nothing, it is what they must "
            "beat.",
        )
    if policy == "uniform":
        return Standing(
            word="Pure chance",
            tone="neutral",
            sentence=f"{sentence}: it draws evenly.",
            next="Ask What if: a log of pure chance can speak for any other policy.",
        )
    judged = _favourite_against_values(favourite, values)
    step = judged.next
    # Large slates keep no probabilities, and nothing is known of how they were drawn.
    if explored is not None:
        sentence += f", and explores in {words.share(explored.explored)} of the latest"
        if explored.explored < _FEW:
            step = (
                "It hardly explores any more, so what it knows of the others stays as it is: a "
                "higher exploration floor (min_probability) would find a new favourite sooner."
            )
    return Standing(
        word=_openness(now, explored),
        tone=judged.tone,
        sentence=f"{sentence}. {judged.sentence}",
        next=step,
    )


def _openness(now: pd.Series, explored: Exploration | None) -> str:
    if explored is not None and explored.explored > _MANY:
        return "Still exploring"
    return "Settled" if effective_actions(now) < 1.5 else "Choosing"


def _favourite_against_values(favourite: str, values: pd.DataFrame) -> Standing:
    """Is what is shown most also worth most? The word is that of artwork's page."""
    # Without an interval an action has too few draws to be the best for certain, or ruled out.
    certain = values.dropna(subset=["value"]).sort_values("value", ascending=False)
    if certain.empty:
        return Standing(
            word="Too early",
            tone="neutral",
            sentence="No off-policy value can be told yet.",
            next=_WAIT,
        )
    best, others = certain.iloc[0], certain.iloc[1:]
    interval = words.interval(best["low"], best["high"])
    basis = rests_on({str(column): part for column, part in best.items()})
    sentence = (
        f"The best off-policy value has {best['action']}: always shown first it would earn "
        f"{words.value(best['value'])} per decision ({interval}; {basis})"
    )
    unknown = len(values) - len(certain)
    if unknown and others.empty:
        return Standing(
            word="Too early",
            tone="neutral",
            sentence=f"Only {best['action']} has an off-policy value yet: always shown first it "
            f"would earn {words.value(best['value'])} per decision ({interval}; {basis}).",
            next="Let it run: the others need more draws before they can be compared.",
        )
    if unknown:
        sentence += f", of {len(certain)} of {len(values)} that can be told"
    # Others whose interval reaches into the best one's may be as good.
    rivals = int((others["high"] >= best["low"]).sum())
    if rivals:
        return Standing(
            word="Inconclusive",
            tone="neutral",
            sentence=f"{sentence}, though {words.several(rivals, 'other')} may be as good.",
            next="Let it run: intervals that still overlap need more decisions.",
        )
    if str(best["action"]) != favourite:
        return Standing(
            word="Not its best",
            tone="warning",
            sentence=f"{sentence}.",
            next=f"See below who is shown {favourite}: it suits some viewers better, or the policy "
            "is wrong about it.",
        )
    return Standing(
        word="Clear favourite",
        tone="good",
        sentence=f"{sentence}.",
        next="Nothing to do: what is shown most is also the best. New actions would give it "
        "more to learn.",
    )


def pictures(names: Mapping[str, str], values: pd.DataFrame, whose: str) -> Standing:
    """Which picture, title or row is shown most, and which is worth most. `names` are what people
    call them, `whose` says of which decisions: `thompson's`.
    """
    # By name from here on: sentences are read by people who never saw an id.
    named = values.assign(action=[names.get(action, action) for action in values["action"]])
    favourite = named.sort_values("share", ascending=False).iloc[0]
    judged = _favourite_against_values(str(favourite["action"]), named)
    share = words.share(favourite["share"], digits=0)
    return Standing(
        word=judged.word,
        tone=judged.tone,
        sentence=f"{favourite['action']} is shown first most, in {share} of {whose} decisions. "
        f"{judged.sentence}",
        next=judged.next,
    )


def shown_alone(favourite: str, shown: pd.DataFrame, variant: str) -> Standing:
    """What stood where most, where nobody can tell what each is worth. `shown` is what
    `exposure.most_shown` has, the `favourite` its first.
    """
    first = shown.iloc[0]
    event = words.label(shown.attrs["event"])
    return Standing(
        word="Shown",
        tone="neutral",
        sentence=f"Of {words.count(shown.attrs['actions'])} that {variant} showed, {favourite} "
        f"stood there most, at {words.several(int(first['shown']), 'place')}; an event {event} "
        f"named it at {words.share(first['rate'])} of them.",
        next="No off-policy value can be told of these decisions: they lack the probabilities of "
        "all that could have been drawn (those of a page never do), or none is mature yet. Whole "
        "page compares the variants.",
    )


def rests_on(row: Mapping[Any, Any]) -> str:
    """What an action's worth was worked out from: `model-based, 52 shows`.

    Where the plain mean lies outside the interval, it is the draws of other variants and the
    estimates of earlier stages that speak, which the number alone would not let anybody guess.
    """
    if row["reason"]:
        return words.MISSING
    shows = words.several(int(row["shown"]), "show")
    plain = row["plain"]
    if pd.isna(plain) or not row["low"] <= plain <= row["high"]:
        return f"model-based, {shows}"
    return shows


def evaluation(
    name: str,
    estimates: Mapping[str, Estimate],
    estimate: Estimate | None,
    logged: Estimate,
    difference: Estimate | None,
) -> Standing:
    """What the log says of a policy.

    Args:
        name: the policy's.
        estimates: by estimator.
        estimate: the one that is spoken of, None where every estimator refused.
        logged: what was shown has earned.
        difference: of the estimate to it, on the same decisions.
    """
    if estimate is None:
        return _refused(name, estimates)
    sentence = (
        f"{name} would have earned {words.value(estimate.value)} per decision "
        f"({words.interval(estimate.low, estimate.high)}, by {estimate.estimator}); "
        f"the logged policy earned {words.value(logged.value)} "
        f"({words.interval(logged.low, logged.high)})."
    )
    word, tone, step = _compared(difference)
    if difference is not None and difference.value is not None:
        size = words.metric_difference(difference.value, False)
        bounds = words.metric_difference_interval(difference.low, difference.high, False)
        sentence += f" On the same decisions the difference is {size} ({bounds})."
    return Standing(word=word, tone=tone, sentence=sentence, next=step)


def _refused(name: str, estimates: Mapping[str, Estimate]) -> Standing:
    # Estimators often refuse for one and the same reason: it is told once.
    codes = dict.fromkeys(e.reason for e in estimates.values() if e.reason)
    reasons = [_continued(REASONS.get(code, code)) for code in codes]
    return Standing(
        word="No verdict",
        tone="warning",
        sentence=f"The log cannot tell what {name} would have earned: {'; '.join(reasons)}.",
        next=" ".join(dict.fromkeys(REMEDIES[code] for code in codes)),
    )


def _continued(sentence: str) -> str:
    """The sentence as it goes on after a colon."""
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _compared(difference: Estimate | None) -> tuple[str, Tone, str]:
    """Word, tone and next step of a paired difference to what was shown."""
    # What both have in common cancels, so that this tells more than two intervals beside each
    # other; a difference of points is not enough.
    if difference is None or difference.low is None or difference.high is None:
        return "Estimated", "neutral", "Collect more decisions."
    if difference.low > 0.0:
        step = "Give it a variant: this says that it is worth an A/B test, and that is the proof."
        return "Better than the logged policy", "good", step
    if difference.high < 0.0:
        return "Worse than the logged policy", "bad", "Leave it out, or try other parameters."
    step = "Collect more decisions, or try a policy that differs more from the logged one."
    return "Inconclusive", "neutral", step


def previewed(variants: Sequence[PreviewedVariant], names: Mapping[str, str]) -> Standing:
    """What the variants would show to one viewer. `names` are what people call the actions."""
    variants_by_first: dict[str, list[str]] = {}
    # Variants that agree are named together.
    for variant in variants:
        variants_by_first.setdefault(variant.slate[0], []).append(words.label(variant.variant))
    parts = []
    for action, showing in variants_by_first.items():
        parts.append(f"{names.get(action, action)} ({words.listing(showing)})")
    return Standing(
        word="All agree" if len(parts) == 1 else "They differ",
        tone="neutral",
        sentence=f"This viewer would see first: {words.listing(parts, 6)}.",
        next="Change what is known of the viewer, and see who changes with it; Why? tells what "
        "weighed.",
    )


def decision(details: DecisionDetails) -> Standing:
    """One decision: what was shown to whom, and what came of it."""
    row, rewards = details.decision, details.rewards
    events = []
    for event, seconds in zip(rewards["event"], rewards["seconds_after"], strict=True):
        # A caller's clock may be a little behind, so that an event seems to come before.
        events.append(f"{words.label(event)} after {words.duration(max(0.0, seconds))}")
    slate = words.listing(row["slate"] or ["nothing"], 8)
    return Standing(
        word="Rewarded" if events else "No reward yet",
        tone="good" if events else "neutral",
        sentence=f"{row['unit']} was shown {slate} on {words.moment(row['decided_at'])}; "
        f"what came of it: {words.listing(events or ['nothing so far'])}.",
        next=f"{ENDED.get(row['reason'], row['reason'])} See below what else could have been "
        "drawn.",
    )


def latest_decisions(decisions: pd.DataFrame, whose: str) -> Standing:
    """Decisions of an experiment or a unit, as the report lists them."""
    rewarded = int((decisions["events"] > 0).sum())
    fallbacks = int((decisions["reason"] == "fallback").sum())
    fell_back = (
        f"; {words.several(fallbacks, 'is a fallback', 'are fallbacks')}" if fallbacks else ""
    )
    number = words.several(len(decisions), "decision")
    return Standing(
        word="The latest",
        tone="neutral",
        sentence=f"{rewarded:,} of the latest {number} for {whose} brought an event{fell_back}.",
        next="Choose one by its time to see everything about it, or enter an id or a unit.",
    )


def missing(what: str) -> Standing:
    """Nothing of that name in the record."""
    return Standing(
        word="Not found",
        tone="neutral",
        sentence=f"No {what} in the record.",
        next="Look at the spelling; what was decided a moment ago may not be published yet.",
    )


def none_of_those(key: str) -> Standing:
    """No decision of an experiment is as was asked for."""
    return Standing(
        word="Not found",
        tone="neutral",
        sentence=f"No decision for {key} is of that kind.",
        next="Choose another variant, or decisions without events too.",
    )


def healthy(report: Report, age: float) -> Standing:
    """Whether the record can be believed; `age` in seconds since it was published."""
    # A guardrail that failed says nothing against the record.
    doubts = [alarm for alarm in alarms(report) if alarm.code != "guardrail_worse"]
    sentences = [alarm.sentence for alarm in doubts]
    if sentences:
        return Standing(
            word="Look into it",
            tone="warning",
            sentence=" ".join(sentences),
            next="Explain this before any number of the experiment is believed; the charts below "
            "tell since when.",
        )
    # Old numbers are not wrong, but whoever looks must know that they do not move.
    if is_still(age):
        return Standing(
            word="Stale data",
            tone="warning",
            sentence=f"{stillness(age)} What was published is sound.",
            next=_START_WORKER,
        )
    tested = any(line.ok is not None for line in report.health.propensity)
    drawn = "actions were drawn as often as logged, " if tested else ""
    untold = "" if tested else " Whether actions were drawn as often as logged is not known here."
    return Standing(
        word="All well",
        tone="good",
        sentence=f"The record can be trusted: {drawn}rewards find their decisions, fallbacks are "
        f"below {words.share(FELL_BACK, digits=0)}.{untold}",
        next="Nothing to do here; but a guardrail failed: see the Verdict."
        if alarms(report)
        else "Nothing to do.",
    )


def whole_page(report: PageReport) -> Standing:
    """What the layers' variants do to the whole page."""
    helping, hurting, compared = [], [], 0
    for arm in report.arms:
        # The control is what others are compared with: its own gap is nothing.
        gap = None if arm.control else arm.against_control.get(OBJECTIVE)
        if gap is None:
            continue
        compared += 1
        if gap.low > 0.0:
            helping.append(arm)
        elif gap.high < 0.0:
            hurting.append(arm)
    if not compared:
        return Standing(
            word="Too early",
            tone="neutral",
            sentence="No layer's variant has enough viewers yet to be compared with its control.",
            next="Serve more pages; windows must pass.",
        )
    word, tone, step = _page_verdict(helping, hurting)
    sentence = _page_sentence(helping, hurting, compared)
    return Standing(word=word, tone=tone, sentence=sentence, next=step)


def _page_verdict(
    helping: Sequence[LayerVariant], hurting: Sequence[LayerVariant]
) -> tuple[str, Tone, str]:
    # Harm first: what helps can wait a day.
    if hurting:
        step = (
            f"Look at {_possessive(hurting[0])} first: the layers are randomised apart, so "
            "the loss is its own."
        )
        return "Worse", "bad", step
    if helping:
        step = (
            f"Look at {helping[0].experiment} for the verdict that holds at every look; these "
            "intervals are for one look."
        )
        return "Leading", "promising", step
    return "Inconclusive", "neutral", "Keep serving; intervals narrow with viewers."


def _page_sentence(
    helping: Sequence[LayerVariant], hurting: Sequence[LayerVariant], compared: int
) -> str:
    parts = []
    for arms, one, several in ((helping, "helps", "help"), (hurting, "hurts", "hurt")):
        if arms:
            verb = one if len(arms) == 1 else several
            parts.append(f"{words.listing([_possessive(arm) for arm in arms])} {verb}")
    if not parts:
        return "No layer's variant can be told from its control on the whole page yet."
    if len(helping) + len(hurting) < compared:
        parts.append("the rest cannot be told from its control")
    # Of what hurts, where something does: that is what the page is about then.
    largest = max(hurting or helping, key=lambda arm: abs(arm.against_control[OBJECTIVE].mean))
    gap = largest.against_control[OBJECTIVE]
    size = f"{words.signed(gap.mean)} per page ({words.interval(gap.low, gap.high)})"
    return f"For the whole page, {'; '.join(parts)}. Most does {_possessive(largest)}: {size}."


def _possessive(arm: LayerVariant) -> str:
    """`rows' any`, `artwork's any`."""
    owner = f"{arm.layer}'" if arm.layer.endswith("s") else f"{arm.layer}'s"
    return f"{owner} {words.label(arm.variant)}"
