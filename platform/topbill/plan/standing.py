"""What a file says that can never work, whatever ran before: what needs more units than ever come,
what nobody sends, what nobody is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from topbill.domain.formatting import several
from topbill.domain.margin import Margin
from topbill.domain.suggestion import nearest
from topbill.plan.edit import Check, ExperimentEdit, served, shown_surely
from topbill.plan.model import PlanFinding
from topbill.plan.outlook import LARGEST_LIFT
from topbill.policies import policy_class
from topbill.spec import Experiment, Variant
from topbill.spec.exploration import may_vanish
from topbill.spec.fields import percent

NEVER_DAYS = 730.0
"""What takes two years at the traffic of today never comes."""
LEAST_BUDGET_MS = 1.0
"""Below that a policy hardly ever answers in time."""
MOST_REQUESTS = 300
"""So many of the record's contexts are tried on a new file."""
_SETTINGS = ("epsilon", "exploration", "alpha")
"""Parameters that say how much a policy tries what it does not favour."""


def check_guardrails_shown(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Each guardrail can be shown with the units that come."""
    if edit.after is None:
        return
    for index, guardrail in enumerate(edit.after.guardrails):
        margin = Margin(guardrail.margin, guardrail.margin_unit)
        path = f"guardrails[{index}].margin"
        if margin.value == 0.0:
            yield edit.harm(
                "guardrail_never_shown",
                path,
                str(margin),
                f"no number of units shows that {guardrail.metric} is not worse at all",
                "write the harm that you could live with, for example 5%",
            )
            continue
        units, days = _longest(edit, guardrail.metric)
        if days is not None and days > NEVER_DAYS:
            yield edit.harm(
                "guardrail_never_shown",
                path,
                str(margin),
                f"{guardrail.metric} takes {units:,} units to be known harmless, "
                f"{_years(days)} at {edit.units_a_day:,.0f} a day",
                _wider(edit, guardrail.metric),
            )


def _longest(edit: ExperimentEdit, metric: str) -> tuple[int, float | None]:
    """Units of all variants, and days, of the variant that takes longest; no days where that is not
    known."""
    if edit.power is None or not edit.units_a_day:
        return 0, None
    units = [g.all_units for g in edit.power.guardrails if g.metric == metric and not g.reason]
    if not units:
        return 0, None
    # None says that not even the largest number that is looked for would do.
    longest = max(10**13 if n is None else n for n in units)
    return longest, longest / edit.units_a_day


def _wider(edit: ExperimentEdit, metric: str) -> str:
    reachable = []
    for line in edit.power.guardrails if edit.power else ():
        if line.metric == metric and line.reachable is not None:
            reachable.append(Margin(line.reachable, line.margin_unit))
    hint = ""
    if reachable:
        widest = max(reachable, key=lambda margin: margin.value)
        margin = Margin(round(widest.value, 4), widest.unit)
        hint = f" ({margin} takes as many units as the smallest lift)"
    return f"write a wider margin{hint}, raise traffic, or guard a metric that varies less"


def check_decision(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """A lift that is large can be shown with the units that come."""
    after, power = edit.after, edit.power
    if after is None or power is None or not edit.units_a_day or after.status != "running":
        return
    units = [run.all_units for run in power.runtimes if run.relative == LARGEST_LIFT]
    days = max(((n or 10**13) / edit.units_a_day for n in units), default=0.0)
    # Of what took too long before, an edit that is not about it is not to blame.
    before = after.traffic if edit.before is None else edit.before.traffic
    was = days * after.traffic / before if before > 0.0 else 0.0
    if days > NEVER_DAYS and (was <= NEVER_DAYS or days > 2.0 * was):
        yield edit.harm(
            "never_decided",
            "traffic" if after.traffic < 1.0 else "variants",
            percent(after.traffic),
            f"to find a lift of {LARGEST_LIFT:.0%} takes {_years(days)} at "
            f"{edit.units_a_day:,.0f} units a day",
            "raise traffic, compare fewer variants, or give the smallest a larger share",
        )


def check_events(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """What is to be counted was sent at least once."""
    after, seen = edit.after, edit.record.events
    if after is None or not seen:
        return
    guarded = {guardrail.metric for guardrail in after.guardrails}
    for metric in (*after.metrics, *after.unit_metrics):
        if metric.table is not None or metric.event in seen:
            continue
        path, names = f"metrics.{metric.name}.event", sorted(seen)
        sentence = f"nobody ever sent it; events are {', '.join(names)}"
        if metric.name in after.objective or metric.name in guarded:
            hint = nearest(metric.event, names)
            instead = f"write one that is sent{f' ({hint})' if hint else ''}, or send it first"
            yield edit.harm("event_never_seen", path, metric.event, sentence, instead)
        else:
            yield edit.note("event_never_seen", path, metric.event, sentence, "send it")


def check_requests(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """What services send is still taken."""
    if edit.both is None:
        return
    after = edit.both[1]
    refused: Counter[str] = Counter()
    problems: dict[str, str] = {}
    asked = edit.record.units[:MOST_REQUESTS]
    for unit in asked:
        sent = msgspec.json.decode(unit.context)
        own = {name: value for name, value in sent.items() if name not in after.looked_up}
        for problem in after.context_encoder.problems(own):
            name = problem.path.lstrip(".").partition(".")[0]
            refused[name] += 1
            problems.setdefault(name, f"got {problem.got}; expected {problem.expected}")
    for name, count in refused.items():
        yield edit.harm(
            "requests_refused",
            f"context.{name}",
            f"{count:,} of {several(len(asked), 'request')}",
            f"services would refuse what is sent to them today: {problems[name]}",
            "let services stop sending it first, and take it out then",
        )


def check_actions_drawn(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Each action can be drawn by somebody who gets units."""
    after = edit.after
    if after is None or not after.actions or after.status == "stopped":
        return
    drawn: set[str] = set()
    for variant in after.variants:
        order = shown_surely(after, variant) if served(variant) else ()
        drawn.update((action.id for action in after.actions) if order is None else order)
    could = [v.name for v in after.variants if shown_surely(after, v) is None]
    for index, action in enumerate(after.actions):
        if action.id in drawn:
            continue
        cause = "all variants that get units show a fixed order without it"
        if could:
            cause += f", and {could[0]} has no share"
        yield edit.harm(
            "action_never_drawn",
            f"actions[{index}].id",
            action.id,
            cause,
            "give a share to a variant whose policy draws, name the action in an order, or leave "
            "it out",
        )


def check_exploration(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Policies try what they do not favour."""
    after = edit.after
    if after is None or after.status == "stopped":
        return
    for variant in after.variants:
        sentence = may_vanish(variant, len(after.actions))
        if sentence is None or not served(variant):
            continue
        path, got = _least_exploration(variant)
        args = ("explores_nothing", f"variants.{variant.name}.{path}", got)
        if got == "0":
            instead = f"leave {path} out, which takes the default, or write min_probability: 2%"
            text = "what looked worse at first is never tried again, and no log can speak for it"
            yield edit.harm(*args, text, instead)
        else:
            yield edit.note(*args, sentence.partition(": ")[2])


def _least_exploration(variant: Variant) -> tuple[str, str]:
    """The parameter that says that nothing is explored: its name, and `0`; else what keeps actions
    from vanishing."""
    for name in _SETTINGS:
        if getattr(variant.params, name, None) == 0.0:
            return name, "0"
    if policy_class(variant.policy).deterministic and variant.evaluable:
        return "min_probability", "0"
    return "min_probability", percent(variant.min_probability)


def check_participants(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Somebody takes part in what runs."""
    after, movement = edit.after, edit.movement
    if after is None or after.status != "running":
        return
    if after.traffic == 0.0:
        yield edit.harm(
            "nobody_takes_part",
            "traffic",
            "0%",
            "it runs, and everybody gets the control's order",
            "write status: paused, or a traffic above 0%",
        )
    elif movement is not None and movement.units and not movement.kept + movement.moved:
        if movement.entered or not movement.left:
            return
        reason = next(iter(movement.reasons), "not_in_experiment")
        path = {"not_in_audience": "audience", "excluded_context": "exclude.context"}.get(
            reason, {"excluded_unit": "exclude.units", "holdout": "holdout"}.get(reason, "traffic")
        )
        yield edit.harm(
            "nobody_takes_part",
            path,
            reason,
            f"none of the {several(movement.units, 'unit')} of the record would be in a variant",
            "look at what is sent with requests: conditions are met by exactly what is written",
        )


def check_variants(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """There are two to compare."""
    after = edit.after
    if after is None or after.status == "stopped" or edit.both is not None:
        return
    names = [variant.name for variant in after.variants if served(variant)]
    if len(names) < 2:
        yield edit.note(
            "nothing_to_compare", "variants", f"{names[0]} alone", "no lift can be told of it"
        )


def check_budget(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Policies have the time to answer."""
    if edit.after is not None and edit.after.budget_ms < LEAST_BUDGET_MS:
        yield edit.harm(
            "too_little_time",
            "budget_ms",
            f"{edit.after.budget_ms:g}",
            "nearly every decision would be the control's order, told as a fallback, and nothing "
            "is learned from those",
            "leave it out, which takes 50",
        )


def _years(days: float) -> str:
    return f"{days / 365.25:,.0f} years" if days < 365.25 * 1e6 else "longer than anybody waits"


def standing(edit: ExperimentEdit, checks: Iterable[Check]) -> list[PlanFinding]:
    """What checks of a file by itself find, but for what stands there already as it runs: no edit
    did that."""
    as_it_runs = edit.as_it_runs()
    findings: list[PlanFinding] = []
    for check in checks:
        before = [] if edit.before is None else [_place(one) for one in check(as_it_runs)]
        findings += [one for one in check(edit) if _place(one) not in before]
    return findings


def _place(finding: PlanFinding) -> tuple[str, str, str]:
    return finding.code, finding.path, finding.got


STANDING: tuple[Check, ...] = (
    check_guardrails_shown,
    check_decision,
    check_events,
    check_requests,
    check_actions_drawn,
    check_exploration,
    check_participants,
    check_variants,
    check_budget,
)
"""Checks of a file by itself, with the record's traffic."""


def describes(experiment: Experiment) -> str:
    """A file in a few words: artwork, 8 actions, editorial (fixed, 20%), …"""
    variants = ", ".join(f"{v.name} ({v.policy}, {percent(v.share)})" for v in experiment.variants)
    actions = several(len(experiment.actions), "action") if experiment.actions else "sent actions"
    return f"{experiment.surface}, {actions}, {variants}"
