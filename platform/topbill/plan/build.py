"""`plan_folder`: a folder's files against what runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from topbill import pages
from topbill.domain.assignment import Assignment, assignment_changes
from topbill.domain.errors import FileProblem, NotFound, SpecError
from topbill.lake import DATABASE
from topbill.log import LOG_FILE
from topbill.log.orders import obeyed
from topbill.log.protocol import Order
from topbill.plan.edit import ExperimentEdit, learners
from topbill.plan.model import ExperimentKind, ExperimentPlan, FolderPlan, PlanFinding
from topbill.plan.movement import unit_movement
from topbill.plan.outlook import (
    TrafficOutlook,
    decision_outlook,
    new_policies,
    policy_outlook,
    traffic_outlook,
)
from topbill.plan.running import NOTHING_RECORDED, WhatRuns, what_runs
from topbill.plan.standing import describes, standing
from topbill.plan.under_way import UNDER_WAY
from topbill.reporting.experiment.differences import spec_differences
from topbill.reporting.experiment.planned import changes as planned_changes
from topbill.spec import Experiment, validate
from topbill.spec.authors import author_of
from topbill.spec.renames import modern


def plan_folder(folder: Path, data: Path | None = None, *, evaluates: bool = True) -> FolderPlan:
    """What the files of a folder would change against what runs.

    Args:
        folder: The experiments' folder.
        data: The data folder of what runs; None, or one that holds nothing yet: all is new.
        evaluates: Whether new policies are evaluated on the record, which takes longest.

    Raises:
        NotFound: The folder is not there.
        LogError: The log or the record cannot be read.
    """
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such folder; expected one of experiment files")
    holds = data is not None and ((data / LOG_FILE).exists() or (data / DATABASE).exists())
    runs = what_runs(data) if holds and data is not None else WhatRuns()
    files, refused = _read(folder, runs)
    after = {experiment.key: experiment for experiment in files}
    # With a file that is refused services go on with what runs: what is not read is not gone.
    gone = [] if refused else [key for key in runs.experiments if key not in after]
    plans = []
    for key in sorted({*after, *gone}):
        plans.append(_plan_of(key, after.get(key), runs, folder, evaluates=evaluates))
    record = "nothing: all is new" if not runs.experiments else f"what runs in {data}"
    return FolderPlan(record=record, experiments=plans, refused=refused)


def _read(folder: Path, runs: WhatRuns) -> tuple[list[Experiment], list[PlanFinding]]:
    """The experiments under the orders that hold, and what is wrong with other files."""
    places = pages.experiment_folders(folder)
    try:
        read = pages.experiments_of(folder)
        pages.load_all(folder, read)
        problems: Iterable[FileProblem] = ()
    except SpecError as error:
        problems = error.problems
        read = [v for _, v in validate(places) if isinstance(v, Experiment)]
    experiments = obeyed(runs.ids.in_experiments(read), runs.orders)
    return experiments, [_refusal(problem) for problem in problems]


def _refusal(problem: FileProblem) -> PlanFinding:
    return PlanFinding(
        code="invalid",
        severity="harm",
        experiment="",
        file=problem.file,
        path=problem.path,
        got=problem.got,
        sentence=f"expected {problem.expected}; services refuse it, and leave all as it is",
        instead=problem.hint,
    )


def _plan_of(
    key: str,
    after: Experiment | None,
    runs: WhatRuns,
    folder: Path,
    *,
    evaluates: bool,
) -> ExperimentPlan:
    before = runs.experiments.get(key)
    record = runs.recorded(key) if before is not None else NOTHING_RECORDED
    traffic = TrafficOutlook()
    movement = None
    if after is not None and before is not None:
        movement = unit_movement(before, after, record)
        if before.fingerprint != after.fingerprint:
            traffic = traffic_outlook(after, before, record, runs.data)
    edit = ExperimentEdit(
        key=key,
        file=_file_of(before, after),
        before=before,
        after=after,
        record=record,
        movement=movement,
        power=traffic.power,
        units_at_full=traffic.units_at_full,
        logs=runs.logs,
    )
    return _described(edit, traffic, runs, folder, evaluates=evaluates)


def _described(
    edit: ExperimentEdit, traffic: TrafficOutlook, runs: WhatRuns, folder: Path, *, evaluates: bool
) -> ExperimentPlan:
    before, after = edit.before, edit.after
    plan = ExperimentPlan(
        experiment=edit.key,
        file=edit.file,
        kind=_kind(before, after),
        runs="" if before is None else before.status,
        becomes="" if after is None else after.status,
        revision="" if before is None else before.fingerprint,
        new_revision="" if after is None else after.fingerprint,
        units=edit.record.exposed,
        orders=_orders(edit, runs),
        movement=edit.movement,
        findings=_findings(edit),
    )
    if after is None or plan.kind == "same":
        return plan
    plan = msgspec.structs.replace(plan, author=_author(folder, edit.file))
    if before is None:
        return msgspec.structs.replace(plan, changes=[describes(after)])
    plan = _with_changes(plan, before, after)
    if not edit.record.exposed:
        return plan
    policies = []
    if evaluates and runs.data is not None:
        for variant in new_policies(after, before):
            policies.append(policy_outlook(after, variant, runs.data))
    return msgspec.structs.replace(
        plan, policies=policies, decision=decision_outlook(traffic, after)
    )


def _kind(before: Experiment | None, after: Experiment | None) -> ExperimentKind:
    if before is None:
        return "new"
    if after is None:
        return "removed"
    return "same" if before.fingerprint == after.fingerprint else "changed"


def _with_changes(plan: ExperimentPlan, before: Experiment, after: Experiment) -> ExperimentPlan:
    one, other = modern(before.raw), modern(after.raw)
    anew = []
    if before.learning_fingerprint != after.learning_fingerprint:
        anew = [variant.name for variant in learners(after)]
    return msgspec.structs.replace(
        plan,
        changes=spec_differences(one, other),
        phase=assignment_changes(_assignment(before), _assignment(after)),
        reweighed=planned_changes(one, other),
        learns_anew=anew,
    )


def _assignment(experiment: Experiment) -> Assignment:
    shares = {variant.name: variant.share for variant in experiment.variants}
    return Assignment(shares, experiment.control.name, experiment.traffic)


def _findings(edit: ExperimentEdit) -> list[PlanFinding]:
    findings = standing(edit)
    for check in UNDER_WAY:
        findings += check(edit)
    return sorted(findings, key=lambda finding: finding.severity != "harm")


def _file_of(before: Experiment | None, after: Experiment | None) -> str:
    # What runs comes from the audit, which holds no file's name.
    if after is not None:
        return after.source
    return "" if before is None else f"{before.key}.yaml"


def _author(folder: Path, file: str) -> str:
    for place in pages.experiment_folders(folder):
        if (place / file).is_file():
            return author_of(place / file) or ""
    return ""


def _orders(edit: ExperimentEdit, runs: WhatRuns) -> list[str]:
    """The orders on an experiment, and what becomes of them."""
    sentences = []
    for order in runs.in_force:
        if order.experiment != edit.key:
            continue
        because = f" ({order.because})" if order.because else ""
        holds = edit.after is not None and _is_obeyed(edit.after, order)
        what = "holds on: the file is as it was" if holds else "ends: the file is another one"
        sentences.append(f"the order of {order.who} that it is {order.status}{because} {what}")
    return sentences


def _is_obeyed(after: Experiment, order: Order) -> bool:
    return after.fingerprint == order.made
