"""What an edit would spoil of an experiment that viewers have been in: its verdict, what it means,
and what its policies learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from topbill.domain.margin import Margin
from topbill.plan.edit import Check, ExperimentEdit, learners, served, shown_surely
from topbill.plan.model import PlanFinding, UnitMovement
from topbill.reporting.experiment.differences import spec_differences
from topbill.spec import Experiment, Metric, Variant
from topbill.spec.canonical import in_any_order
from topbill.spec.fields import percent

_WORDS = {"title", "owner", "hypothesis"}
"""Keys of a file that change nothing of what it does."""
_LEFT_OUT = {
    "not_in_audience": "audience",
    "excluded_context": "exclude.context",
    "excluded_unit": "exclude.units",
    "override": "overrides",
}
"""Reason of a decision → the key of the file that brings it about."""
FEW = 0.05
"""Share of the units that may be left out while it runs: a bot here, a tester there."""
NEW_KEY = "stop this experiment and start a new one, with a key of its own"


def check_status(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Whoever is asked for must be there, and say what it is."""
    before, after = edit.before, edit.after
    if before is None or before.status not in ("running", "paused"):
        return
    if after is None:
        yield edit.harm(
            "experiment_removed",
            "experiment",
            "no file any more",
            f"it is {before.status}, and services that ask for it would get an error",
            "write status: stopped, wait until no service asks for it, and remove the file then",
        )
    elif after.status == "draft" and edit.record.exposed:
        yield edit.harm(
            "back_to_draft",
            "status",
            "draft",
            f"{edit.whoever} were in its variants: nobody reads a draft's result",
            "write status: stopped to end it, or paused to go on later",
        )


def check_movement(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Units keep their variants."""
    # What a conclusion makes of units is meant: everybody gets what won.
    if edit.both is None or edit.movement is None or edit.ends:
        return
    before, after = edit.both
    if after.status == "stopped":
        return
    movement = edit.movement
    if movement.moved:
        flows = [f"{flow}: {n:,}" for flow, n in list(movement.flows.items())[:3]]
        yield edit.harm(
            "units_move",
            _cause_of_moves(before, after),
            _shares(after),
            f"{_part(movement.moved, movement)} of the units that have a variant get another one "
            f"({', '.join(flows)}), and the verdict so far ends with its phase",
            "leave shares and the order of variants as they are: raise traffic to reach more "
            f"units; to drop or add a variant, {NEW_KEY}",
        )
    yield from _leaving(edit, before, after, movement)


def _leaving(
    edit: ExperimentEdit, before: Experiment, after: Experiment, movement: UnitMovement
) -> Iterator[PlanFinding]:
    """Those who had a variant and get none."""
    out = movement.reasons.get("not_in_experiment", 0)
    is_elsewhere = (before.layer, before.layer_start) != (after.layer, after.layer_start)
    if out and (is_elsewhere or after.traffic >= before.traffic):
        yield edit.harm(
            "units_leave",
            "layer" if before.layer != after.layer else "traffic",
            f"layer {after.layer} from {percent(after.layer_start)} on",
            f"{_part(out, movement)} of the units that have a variant are outside its place in the "
            f"layer, which began at {percent(before.layer_start)}",
            "give the experiment that comes before it in this layer another layer, or a key that "
            "sorts behind this one's",
        )
    elif out:
        sentence = f"{_part(out, movement)} of the units that have a variant get none any more"
        yield edit.note("units_leave", "traffic", percent(after.traffic), sentence)
    for reason, path in _LEFT_OUT.items():
        count = movement.reasons.get(reason, 0)
        if not count:
            continue
        sentence = f"{_part(count, movement)} of the units that have a variant count no more"
        if count <= FEW * movement.assigned:
            yield edit.note("units_leave", path, reason, sentence)
            continue
        yield edit.harm(
            "units_leave",
            path,
            reason,
            f"{sentence}: the verdict would be of other viewers than it was planned for",
            f"say whom it is for before the launch; to ask of others, {NEW_KEY}",
        )


def check_holdout(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Who is held out stays so."""
    if edit.both is None or edit.both[0].holdout == edit.both[1].holdout:
        return
    before, after = edit.both
    yield edit.harm(
        "holdout_changed",
        "holdout",
        percent(after.holdout),
        f"it was {percent(before.holdout)}: units enter or leave the holdout of layer "
        f"{after.layer} after they were treated or spared, which its readout takes for an effect",
        "leave it as it is until the layer's experiments have ended",
    )


def check_unit(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Units are told apart as they were."""
    if edit.both is None or edit.both[0].unit == edit.both[1].unit:
        return
    before, after = edit.both
    yield edit.harm(
        "unit_changed",
        "unit",
        str(after.unit or "nothing"),
        f"units were told apart by {before.unit or 'decisions'}: every viewer becomes another unit "
        "and may get another variant",
        NEW_KEY,
    )


def check_goal(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """What is to be raised, and how it is read, stays as it was planned."""
    if edit.both is None:
        return
    before, after = edit.both
    if before.objective != after.objective:
        yield edit.harm(
            "objective_changed",
            "objective",
            _weights(after),
            f"it was {_weights(before)}: all of history is weighed anew, policies learn for "
            "another goal, and a call that this brings about is a new question",
            NEW_KEY,
        )
    if (before.method, before.looks) != (after.method, after.looks):
        yield edit.harm(
            "reading_changed",
            "method" if before.method != after.method else "looks",
            after.method,
            f"the result was to be read by method {before.method}, and {edit.whoever} have been in "
            "it: a method chosen after numbers were seen calls too often",
            "leave it as it was planned",
        )


def check_hypothesis(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """What was to be shown was written before anything was seen."""
    if edit.both is None or edit.both[0].hypothesis == edit.both[1].hypothesis:
        return
    yield edit.note(
        "plan_changed",
        "hypothesis",
        edit.both[1].hypothesis or "nothing",
        f"{edit.whoever} have been in it: the report will say what it was, who changed it and when",
    )


def check_metrics(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Metrics that the verdict reads count what they counted."""
    if edit.both is None:
        return
    before, after = edit.both
    now = {metric.name: metric for metric in _metrics(after)}
    guarded = {guardrail.metric for guardrail in after.guardrails}
    for metric in _metrics(before):
        other = now.get(metric.name)
        if other is None or other == metric:
            continue
        path = f"metrics.{metric.name}"
        if metric.name in guarded and other.better != metric.better:
            yield edit.harm(
                "guardrail_changed",
                f"{path}.better",
                other.better,
                f"{metric.better} was better: what the guardrail took for harm would be good",
                "leave the direction; if it was wrong from the start, " + NEW_KEY,
            )
        elif replace(other, covariate=metric.covariate) == metric:
            sentence = "what units did before adjusts it: intervals change, and what is counted not"
            got = _metric_parts(metric, other)
            yield edit.note("metric_changed", f"{path}.covariate", got, sentence)
        elif metric.name in guarded or metric.name in after.objective:
            yield edit.harm(
                "metric_changed",
                path,
                _metric_parts(metric, other),
                "the verdict reads it: decisions of before are counted by another rule than they "
                "were made under",
                f"add a metric of another name and compare both, or {NEW_KEY}",
            )
        else:
            yield edit.note(
                "metric_changed",
                path,
                _metric_parts(metric, other),
                "it is computed anew for all of history; neither objective nor guardrails read it",
            )


def check_guardrails(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """What is guarded stays guarded, as strictly."""
    if edit.both is None:
        return
    before, after = edit.both
    now = {guardrail.metric: guardrail for guardrail in after.guardrails}
    for index, guardrail in enumerate(before.guardrails):
        was = Margin(guardrail.margin, guardrail.margin_unit)
        other = now.pop(guardrail.metric, None)
        if other is None:
            yield edit.harm(
                "guardrail_removed",
                "guardrails",
                f"no {guardrail.metric}",
                f"{guardrail.metric} was guarded within {was}: harm to it stops nothing any more",
                "leave it; what is not to be guarded is left out before the launch",
            )
            continue
        margin = Margin(other.margin, other.margin_unit)
        if margin == was:
            continue
        path = f"guardrails[{index}].margin"
        if margin.unit == was.unit and margin.value < was.value:
            yield edit.note("guardrail_changed", path, str(margin), f"stricter: it was {was}")
            continue
        yield edit.harm(
            "guardrail_changed",
            path,
            str(margin),
            f"it was {was}: a margin that is widened after numbers were seen guards nothing",
            "leave the margin that was planned",
        )
    for name in now:
        sentence = "guarded from now on, by all of history"
        yield edit.note("guardrail_changed", "guardrails", name, sentence)


def check_control(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """What the others are compared with stays the same."""
    if edit.both is None or edit.both[0].control.name == edit.both[1].control.name:
        return
    before, after = edit.both
    yield edit.harm(
        "control_changed",
        f"variants.{after.control.name}.control",
        after.control.name,
        f"{before.control.name} was the control: every lift so far was against that, and its order "
        "is what viewers get who are in no variant",
        NEW_KEY,
    )


def check_treatments(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """A variant is what it was under its name."""
    if edit.both is None:
        return
    before, after = edit.both
    names = {variant.name: variant for variant in after.variants}
    for variant in before.variants:
        other = names.get(variant.name)
        if other is None or not (served(variant) or served(other)):
            continue
        for path, got, was in _changed_parts(before, variant, after, other):
            code = "control_changed" if variant.control else "treatment_changed"
            role = "the control" if variant.control else "a variant"
            yield edit.harm(
                code,
                f"variants.{variant.name}.{path}",
                got,
                f"it was {was}: {role} that becomes another thing under the same name has one "
                "number for two things",
                f"give it to a new experiment as a variant of another name: {NEW_KEY}",
            )
    if before.slots != after.slots:
        yield edit.harm(
            "treatment_changed",
            "slots",
            str(after.slots),
            f"it was {before.slots}: every variant shows another number of things",
            NEW_KEY,
        )


def _changed_parts(
    before: Experiment, variant: Variant, after: Experiment, other: Variant
) -> Iterator[tuple[str, str, str]]:
    """Where a variant differs in what it shows: path, what stands there, what stood there."""
    if variant.policy != other.policy:
        yield "policy", other.policy, variant.policy
        return
    one, two = shown_surely(before, variant), shown_surely(after, other)
    if one is not None and two is not None:
        # What was taken out of the actions is told there.
        gone = {a.id for a in before.actions} - {a.id for a in after.actions}
        if one != two and not gone & set(one):
            yield "order", ", ".join(two), ", ".join(one)
        return
    raw, new = _raw_variant(before, variant.name), _raw_variant(after, other.name)
    # A least probability that no file says follows the number of actions, which may change.
    for key in dict.fromkeys([*raw, *new]):
        if key in ("share", "control") or raw.get(key) == new.get(key):
            continue
        if key == "min_probability" and variant.min_probability == other.min_probability:
            continue
        if key in _parameters(variant) and _parameter(variant, key) == _parameter(other, key):
            continue
        yield key, str(new.get(key, "nothing")), str(raw.get(key, "nothing"))


def check_actions(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Actions that fixed orders show stay, and an id stands for one thing."""
    if edit.both is None:
        return
    before, after = edit.both
    now = {action.id: (index, action) for index, action in enumerate(after.actions)}
    shows = _shown_by_fixed_orders(before)
    for index, action in enumerate(before.actions):
        place = now.get(action.id)
        if place is None and (action.id in shows or before.control.policy == "uniform"):
            by = shows.get(action.id, before.control.name)
            yield edit.harm(
                "action_removed",
                "actions",
                f"no {action.id}",
                f"{by} shows it: its viewers would get something else under the same name",
                f"leave it while this runs, or {NEW_KEY}",
            )
        elif place is None and after.actions:
            yield edit.note("action_removed", "actions", f"no {action.id}", "never shown again")
        elif place is not None and (place[1].features, place[1].payload) != (
            action.features,
            action.payload,
        ):
            part = "payload" if place[1].payload != action.payload else "features"
            yield edit.harm(
                "action_redefined",
                f"actions[{place[0]}].{part}",
                action.id,
                f"its {part} was another one (actions[{index}]): what was learned and counted of "
                f"{action.id} speaks of something that nobody sees any more",
                "give what is new an id of its own, and leave the old one out",
            )


def check_learning(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """What was learned fits what is to learn on."""
    if edit.both is None:
        return
    before, after = edit.both
    names = [variant.name for variant in learners(after)]
    if before.learning_content == after.learning_content or not names:
        return
    yield edit.harm(
        "learns_anew",
        learning_cause(before, after),
        ", ".join(names),
        "what these policies learned fits no more: they begin anew, from what the log still holds",
        f"make changes of what is learned from before the launch; or {NEW_KEY}",
    )


def check_comparison(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """There is something to compare with."""
    if edit.both is None:
        return
    before, after = edit.both
    several_before = len([v for v in before.variants if served(v)]) > 1
    left = [v.name for v in after.variants if served(v)]
    if not several_before or len(left) > 1 or after.status == "stopped" or edit.ends:
        return
    yield edit.harm(
        "comparison_ends",
        "variants",
        f"{left[0]} alone",
        "the comparison ends, and nothing says what was decided and why",
        f'write `topbill conclude {edit.key} --winner {left[0]} --because "…"`, which freezes the '
        "result",
    )


def check_conclusion(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """What was decided stays decided."""
    before, after = edit.before, edit.after
    if before is None or after is None or before.conclusion is None:
        return
    if after.conclusion == before.conclusion:
        return
    said = before.conclusion.winner or "nobody"
    now = "no conclusion" if after.conclusion is None else after.conclusion.winner or "nobody"
    if after.conclusion is not None and said == now:
        text = "the words of the conclusion are others; the report stays as it was frozen"
        yield edit.note("conclusion_changed", "conclusion", now, text)
        return
    yield edit.harm(
        "conclusion_changed",
        "conclusion",
        now,
        f"it ended with {said} as the winner, whom everybody gets: viewers would get something "
        "else, and the report that was frozen would speak of what is no more",
        "write the conclusion into the file, as `topbill conclude` says it; to try again, start a "
        "new experiment with a key of its own",
    )


def check_orders(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """What somebody stopped or paused stays so until something of it is mended."""
    before, after, file = edit.before, edit.after, edit.file_before
    if before is None or after is None or file is None or after.status != "running":
        return
    for order in edit.orders:
        if order.status not in ("stopped", "paused") or order.made == after.fingerprint:
            continue
        because = f" because {order.because}" if order.because else ""
        sentence = f"{order.who} ordered it to be {order.status}{because}; it would run again"
        edited = {clause.partition(":")[0] for clause in spec_differences(file.raw, after.raw)}
        if edited <= _WORDS:
            yield edit.harm(
                "order_outranked",
                "status",
                "running",
                f"{sentence}, and the edit mends nothing",
                f"write status: {order.status} into the file as well, or mend it in this edit",
            )
        else:
            yield edit.note("order_outranked", "status", "running", sentence)


def learning_cause(before: Experiment, after: Experiment) -> str:
    """The first key of the file for which policies begin anew."""
    for name in ("context", "action_features"):
        if in_any_order(getattr(before, name)) != in_any_order(getattr(after, name)):
            return name
    for name in ("objective", "slots", "feedback", "click_model"):
        if getattr(before, name) != getattr(after, name):
            return name
    if before.reward_delay != after.reward_delay:
        return "reward_delay"
    learned = [
        {metric.name: metric for metric in one.metrics if metric.name in one.objective}
        for one in (before, after)
    ]
    return "metrics" if learned[0] != learned[1] else "variants"


def _part(count: int, movement: UnitMovement) -> str:
    """412 of 1,329 (31%)"""
    share = count / movement.assigned
    return f"{count:,} of {movement.assigned:,} ({100.0 * share:.3g}%)"


def _cause_of_moves(before: Experiment, after: Experiment) -> str:
    if before.key != after.key:
        return "experiment"
    names = {variant.name: variant for variant in after.variants}
    for variant in before.variants:
        other = names.get(variant.name)
        if other is None:
            return f"variants.{variant.name}"
        if other.share != variant.share:
            return f"variants.{variant.name}.share"
    return "variants"


def _shares(experiment: Experiment) -> str:
    return ", ".join(f"{v.name} {percent(v.share)}" for v in experiment.variants)


def _weights(experiment: Experiment) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in experiment.objective.items())


def _metrics(experiment: Experiment) -> tuple[Metric, ...]:
    return (*experiment.metrics, *experiment.unit_metrics)


def _metric_parts(one: Metric, other: Metric) -> str:
    parts = []
    for name in one.__dataclass_fields__:
        was, now = getattr(one, name), getattr(other, name)
        if was != now:
            parts.append(f"{name} {was} → {now}")
    return ", ".join(parts)


def _raw_variant(experiment: Experiment, name: str) -> dict[str, Any]:
    variants = experiment.raw.get("variants", {})
    parts: dict[str, Any] = variants.get(name, {})
    return parts


def _parameters(variant: Variant) -> tuple[str, ...]:
    return (*variant.params.__struct_fields__, "training", "evaluable")


def _parameter(variant: Variant, key: str) -> Any:
    return getattr(variant.params if hasattr(variant.params, key) else variant, key)


def _shown_by_fixed_orders(experiment: Experiment) -> dict[str, str]:
    """Action → the variant whose fixed order shows it."""
    shown: dict[str, str] = {}
    for variant in experiment.variants:
        order = shown_surely(experiment, variant) if served(variant) or variant.control else None
        for action in order or ():
            shown.setdefault(action, variant.name)
    return shown


UNDER_WAY: tuple[Check, ...] = (
    check_status,
    check_movement,
    check_holdout,
    check_unit,
    check_goal,
    check_hypothesis,
    check_metrics,
    check_guardrails,
    check_control,
    check_treatments,
    check_actions,
    check_learning,
    check_comparison,
    check_conclusion,
    check_orders,
)
"""Checks of an edit against what runs."""
