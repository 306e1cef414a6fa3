"""A plan as people read it: in a terminal, and as a comment of a pull request."""

from __future__ import annotations

from collections.abc import Iterable

from topbill.domain import formatting
from topbill.domain.formatting import listing, several
from topbill.plan.model import (
    DecisionOutlook,
    ExperimentPlan,
    FolderPlan,
    LaunchStep,
    PlanFinding,
    PolicyOutlook,
    UnitMovement,
)

MARKER = "<!-- topbill plan -->"
"""Tells the comment of a pull request that is to be updated."""
_LONGEST = 60_000
"""Characters of a comment; GitHub takes 65,536."""


def lines(plan: FolderPlan) -> list[str]:
    """A plan in lines of text."""
    text = [f"Compared with {plan.record}."]
    quiet = [one.experiment for one in plan.experiments if one.is_quiet]
    for finding in plan.refused:
        text += ["", *_finding(finding)]
    for one in plan.experiments:
        if not one.is_quiet:
            text += ["", *_experiment(one)]
    if quiet:
        text += ["", f"Nothing changes for {listing(quiet)}."]
    return [*text, "", _summary(plan)]


def markdown(plan: FolderPlan) -> str:
    """A plan as a comment of a pull request, cut where that would be too long for one."""
    text = [MARKER, f"### topbill plan: {_summary(plan)}", "", f"Compared with {plan.record}.", ""]
    for finding in plan.refused:
        text += _bullets(_finding(finding))
    for one in plan.experiments:
        if not one.is_quiet:
            first, *rest = _experiment(one)
            text += [f"**{_escaped(first)}**", "", *_bullets(rest), ""]
    comment = "\n".join(text).rstrip() + "\n"
    if len(comment) <= _LONGEST:
        return comment
    whole = comment[:_LONGEST].rpartition("\n")[0]
    return f"{whole}\n\nThere is more: run `topbill plan` to read all of it.\n"


def _bullets(text: Iterable[str]) -> list[str]:
    bullets = []
    for line in text:
        depth = (len(line) - len(line.lstrip())) // 2
        bullets.append("  " * max(0, depth - 1) + "- " + _escaped(line.strip()))
    return bullets


def _escaped(text: str) -> str:
    """Text that Markdown shows as it stands: files may say anything."""
    for letter in "\\`*_[]<>|@#":
        text = text.replace(letter, f"\\{letter}" if letter != "@" else "@\u200b")
    return text


def _summary(plan: FolderPlan) -> str:
    harms = len(plan.harms)
    notes = len(plan.findings) - harms
    told = f", {several(notes, 'note')}" if notes else ""
    if not harms:
        return f"Nothing would harm{told}."
    return f"{harms:,} would harm{told}."


def _experiment(plan: ExperimentPlan) -> list[str]:
    text = [_heading(plan)]
    for sentence in sentences(plan):
        text.append(f"  {sentence}")
    for finding in plan.findings:
        text += [f"  {line}" for line in _finding(finding)]
    return text


def _heading(plan: ExperimentPlan) -> str:
    if plan.kind == "new":
        return f"{plan.experiment} is new ({plan.file}): {plan.becomes}"
    seen = f", {several(plan.units, 'unit')} in its variants" if plan.units else ""
    if plan.kind == "removed":
        return f"{plan.experiment} has no file any more: it is {plan.runs}{seen}"
    if plan.kind == "same":
        return f"{plan.experiment}'s file is as it was: it is {plan.becomes}{seen}"
    status = f"it is {plan.runs}"
    if plan.runs != plan.becomes:
        status = f"{plan.runs} → {plan.becomes}"
    return f"{plan.experiment} changes ({plan.file}): {status}{seen}"


def sentences(plan: ExperimentPlan) -> list[str]:
    """What changes and what follows from it."""
    text = list(plan.orders)
    if plan.author:
        text.append(f"By {plan.author}.")
    if plan.says:
        text.append(f"{plan.says}.")
    text += plan.change.sentences()
    if plan.movement is not None and plan.movement.assigned + plan.movement.entered:
        text.append(_movement(plan.movement))
    if plan.decision is not None:
        text.append(_decision(plan.decision))
    text += [_policy(policy) for policy in plan.policies]
    if plan.beside:
        brings = listing(plan.launched) if plan.launched else "no variant that is new"
        others = "whoever it has not come to stays with what ran before"
        text.append(f"Its launch brings {brings}; {others} (revision {plan.beside}).")
    return text + [_launch_step(step) for step in plan.launch]


def _movement(movement: UnitMovement) -> str:
    """Who moves, of the units that were looked at."""
    units = "made-up units" if movement.is_made_up else "units"
    sampled = ""
    if movement.units < movement.of:
        sampled = f" (of a sample of {movement.units:,} of {movement.of:,})"
    whose = f"{movement.assigned:,} {units} with a variant{sampled}"
    if not movement.moved + movement.left + movement.entered:
        return f"Of {whose} none moves."
    flows = [f"{flow} {n:,}" for flow, n in movement.flows.items()]
    told = f" ({listing(flows)})" if flows else ""
    return (
        f"Of {whose} {movement.moved:,} change it{told} and {movement.left:,} lose it; "
        f"{movement.entered:,} others get one."
    )


def _decision(outlook: DecisionOutlook) -> str:
    if outlook.reason:
        return f"How long until a decision cannot be told: {outlook.reason}."
    lift = f"a lift of {outlook.lift:.0%} and every guardrail"
    if outlook.units is None:
        return f"No number of units shows {lift}."
    rate = ""
    if outlook.units_a_day is not None:
        pace = "at the pace of its first hours" if outlook.rough else "at its traffic"
        rate = f", {_days(outlook.days)} {pace} ({outlook.units_a_day:,.0f} units a day)"
    return f"To show {lift} takes {outlook.units:,} units with 80% power{rate}."


def _days(days: float | None) -> str:
    if days is None:
        return "nobody knows how long"
    if days > 365_250.0:
        return "longer than anybody waits"
    if days > 730.0:
        return f"{days / 365.25:,.0f} years more"
    return f"{days:,.0f} days more" if days >= 1.0 else "less than a day more"


def _policy(policy: PolicyOutlook) -> str:
    name = f"{policy.variant} ({policy.policy})"
    if policy.value is None or policy.low is None or policy.high is None:
        return f"What {name} would earn cannot be told from the log: {policy.reason.rstrip('.')}."
    value, low, high = (formatting.value(x) for x in (policy.value, policy.low, policy.high))
    difference = ""
    if policy.difference is not None:
        sign = "+" if policy.difference >= 0.0 else "−"
        difference = f", {sign}{formatting.value(abs(policy.difference))} against the log"
    return (
        f"{name} would have earned {value} per decision ({low} to {high}){difference}, by "
        f"{policy.estimator} on {several(policy.decisions, 'decision')}."
    )


def _launch_step(step: LaunchStep) -> str:
    waits = f", waits for {listing(step.waits_for)}" if step.waits_for else ""
    units = "" if step.units is None else f", about {several(step.units, 'unit')}"
    return f"{step.name}: {step.earliest} to {step.until} at the earliest{units}{waits}."


def _finding(finding: PlanFinding) -> list[str]:
    file = f"{finding.file}:{finding.line}" if finding.line else finding.file
    where = ": ".join(part for part in (file, finding.path) if part)
    verb = "HARM" if finding.severity == "harm" else "Note"
    text = [f"{verb} {finding.code}, {where}: {finding.got}. {_sentence(finding.sentence)}"]
    if finding.instead:
        text.append(f"  Instead: {finding.instead.rstrip('.')}.")
    return text


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
