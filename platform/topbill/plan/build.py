"""`plan_folder`: a folder's files against what runs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from topbill import pages
from topbill.domain.errors import FileProblem, NotFound, SpecError
from topbill.lake import is_published
from topbill.log import has_log
from topbill.log.orders import obeyed
from topbill.plan.edit import ExperimentEdit
from topbill.plan.launching import LAUNCHES, check_restart, launch_steps
from topbill.plan.model import ExperimentKind, ExperimentPlan, FolderPlan, PlanFinding
from topbill.plan.movement import unit_movement
from topbill.plan.outlook import (
    TrafficOutlook,
    decision_outlook,
    new_policies,
    policy_outlook,
    traffic_outlook,
)
from topbill.plan.running import WhatRuns, as_files_ran, what_runs
from topbill.plan.standing import STANDING, describes, standing
from topbill.plan.under_way import UNDER_WAY
from topbill.reporting.experiment.revising import revision_change
from topbill.spec import Experiment, readable
from topbill.spec.checkout import author_in, folder_at
from topbill.spec.fields import percent


def plan_folder(
    folder: Path,
    data: Path | None = None,
    *,
    base: str | None = None,
    evaluates: bool = True,
    now: float | None = None,
) -> FolderPlan:
    """What the files of a folder would change against what runs.

    Args:
        folder: The experiments' folder.
        data: The data folder of what runs; None, or one that holds nothing yet: all is new.
        base: A commit, branch or tag of the checkout that the folder is in: where no data folder
            says what runs, its files are taken to run.
        evaluates: Whether new policies are evaluated on the record, which takes longest.
        now: Seconds since the epoch, from which launches are dated; the clock's where left out.

    Raises:
        NotFound: The folder is not there, or no such commit has it.
        LogError: The log or the record cannot be read.
    """
    _check(folder)
    holds = data is not None and (is_published(data) or has_log(data))
    if data is not None and holds:
        runs = what_runs(data)
    elif base is not None:
        with folder_at(folder, base) as before:
            runs = as_files_ran(readable_files(before), f"the files at {base}")
    else:
        runs = WhatRuns()
    return plan_against(folder, runs, evaluates=evaluates, now=now)


def plan_against(
    folder: Path, runs: WhatRuns, *, evaluates: bool = True, now: float | None = None
) -> FolderPlan:
    """What the files of a folder would change against what is known to run.

    Args:
        folder: The experiments' folder.
        runs: What runs.
        evaluates: Whether new policies are evaluated on the record, which takes longest.
        now: Seconds since the epoch, from which launches are dated.

    Raises:
        NotFound: The folder is not there.
    """
    _check(folder)
    now = time.time() if now is None else now
    files, refused = _read(folder, runs)
    after = {experiment.key: experiment for experiment in files}
    # With a file that is refused services go on with what runs: what is not read is not gone.
    gone = [] if refused else [key for key in runs.experiments if key not in after]
    plans = []
    for key in sorted({*after, *gone}):
        edit, traffic = _edit(key, after.get(key), runs)
        plan = _described(edit, traffic)
        if plan.kind in ("new", "changed"):
            plan = _expected(plan, edit, runs.data if evaluates else None)
            plan = _dated(plan, edit, folder, now)
        plans.append(plan)
    return FolderPlan(record=runs.source, experiments=plans, refused=refused)


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such folder; expected a folder of experiment files")


def _read(folder: Path, runs: WhatRuns) -> tuple[list[Experiment], list[PlanFinding]]:
    """The experiments under the orders that hold, and what is wrong with other files."""
    try:
        read = pages.experiments_of(folder)
        pages.load_all(folder, read)
        problems: Iterable[FileProblem] = ()
    except SpecError as error:
        problems = error.problems
        read = readable_files(folder)
    experiments = obeyed(runs.ids.in_experiments(read), runs.orders)
    return experiments, [_refusal(problem) for problem in problems]


def readable_files(folder: Path) -> list[Experiment]:
    """The experiments of those files that can be read."""
    return readable(pages.experiment_folders(folder))


def _refusal(problem: FileProblem) -> PlanFinding:
    return PlanFinding(
        code="invalid",
        severity="harm",
        experiment="",
        file=problem.file,
        line=problem.line,
        path=problem.path,
        got=problem.got,
        sentence=f"expected {problem.expected}; services refuse it, and leave all as it is",
        instead=problem.hint,
    )


def _edit(
    key: str, after: Experiment | None, runs: WhatRuns
) -> tuple[ExperimentEdit, TrafficOutlook]:
    """All that checks look at, and what the record's traffic says."""
    before, record = runs.experiments.get(key), runs.recorded(key)
    traffic, movement = TrafficOutlook(), None
    if after is not None and before is not None:
        after = runs.beside_its_launch(after)
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
        file_before=runs.file(key),
        orders=tuple([order for order in runs.in_force if order.experiment == key]),
        units_at_full=traffic.units_at_full,
        logs=runs.logs,
    )
    return edit, traffic


def _described(edit: ExperimentEdit, traffic: TrafficOutlook) -> ExperimentPlan:
    """What differs, and what is wrong with it."""
    before, after = edit.before, edit.after
    plan = ExperimentPlan(
        experiment=edit.key,
        file=edit.file,
        kind=_kind(before, after),
        runs="" if before is None else before.status,
        becomes="" if after is None else after.status,
        revision="" if before is None else before.fingerprint,
        new_revision="" if after is None else after.fingerprint,
        units=0 if edit.record.is_made_up else edit.record.exposed,
        orders=_orders(edit),
        movement=edit.movement,
        findings=_findings(edit),
    )
    if after is None:
        return plan
    if before is None:
        return replace(plan, says=describes(after))
    if plan.kind == "same":
        return plan
    decision = decision_outlook(traffic, after) if plan.units else None
    return replace(plan, change=revision_change(before, after), decision=decision)


def _expected(plan: ExperimentPlan, edit: ExperimentEdit, data: Path | None) -> ExperimentPlan:
    """The plan with what the log expects of new policies; none where there is no log to ask."""
    after = edit.after
    if after is None or data is None or not edit.record.exposed:
        return plan
    policies = []
    for variant in new_policies(after, edit.before):
        policies.append(policy_outlook(after, variant, data))
    return replace(plan, policies=policies)


def _dated(plan: ExperimentPlan, edit: ExperimentEdit, folder: Path, now: float) -> ExperimentPlan:
    """The plan with who wrote the file, and the steps of its launch from now on."""
    if edit.after is None:
        return plan
    author = author_in(pages.experiment_folders(folder), edit.file) or ""
    steps = launch_steps(edit.after, edit.units_at_full, now)
    former = edit.after.former if steps else None
    return replace(
        plan,
        author=author,
        launch=steps,
        launched=[variant.name for variant in edit.after.launched] if steps else [],
        beside="" if former is None else former.fingerprint,
    )


def _kind(before: Experiment | None, after: Experiment | None) -> ExperimentKind:
    if before is None:
        return "new"
    if after is None:
        return "removed"
    return "same" if before.fingerprint == after.fingerprint else "changed"


def _findings(edit: ExperimentEdit) -> list[PlanFinding]:
    findings = standing(edit, (*STANDING, *LAUNCHES))
    for check in (*UNDER_WAY, check_restart):
        findings += check(edit)
    return sorted(findings, key=lambda finding: finding.severity != "harm")


def _file_of(before: Experiment | None, after: Experiment | None) -> str:
    # What runs comes from the audit, which holds no file's name.
    if after is not None:
        return after.source
    return "" if before is None else f"{before.key}.yaml"


def _orders(edit: ExperimentEdit) -> list[str]:
    """The orders on an experiment, and what becomes of them."""
    is_same = _kind(edit.before, edit.after) == "same"
    becomes = "holds on" if is_same else "ends, since the file is another one"
    sentences = []
    for order in edit.orders:
        said = f"that it is {order.status}"
        if order.conclusion is not None:
            said = f"that it ended with {order.conclusion.winner or 'nobody'} as the winner"
        because = f" ({order.because})" if order.because else ""
        sentences.append(f"The order of {order.who} {said}{because} {becomes}.")
    if edit.is_launching and edit.before is not None:
        goes_on = "goes on" if is_same else "begins anew, since the file is another one"
        traffic = percent(edit.before.traffic)
        sentences.append(f"Its launch, at {traffic} of traffic, {goes_on}.")
    return sentences
