"""What was ordered, concluded or launched, and an edit of the file beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from topbill import spec
from topbill.log import LOG_FILE, open_log
from topbill.log.orders import give_order, order_of, under
from topbill.log.protocol import Order
from topbill.plan import ExperimentPlan, FolderPlan, lines, plan_folder

KEY, FILE = "home-artwork", "home-artwork.yaml"
NOW = 1_790_500_000.0
LAUNCH = """\
launch:
  shadow: 24h
  ramp: [1%, 10%, 50%]
  hold: {at_least: 24h, units: 100}
  approve_at: 50%
"""

Take = Callable[[], None]


@pytest.fixture
def data(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the record, whose log is to be written to."""
    return Path(shutil.copytree(recorded, tmp_path / "data"))


def take_over(files: Path, data: Path) -> None:
    """What a service does with the files."""
    with closing(open_log(data / LOG_FILE)) as log:
        for experiment in spec.load_all([files]):
            raw = msgspec.json.encode(experiment.raw).decode()
            log.revise(experiment.key, experiment.fingerprint, "ann", raw)


def order(files: Path, data: Path, status: spec.Status, because: str) -> None:
    """Stop or pause it, as a service then obeys."""
    take_over(files, data)
    with closing(open_log(data / LOG_FILE)) as log:
        given = give_order(log, KEY, status, "bo", because)
        experiment = next(e for e in spec.load_all([files]) if e.key == KEY)
        raw = {**experiment.raw, "status": status}
        log.revise(KEY, given.made, "bo", msgspec.json.encode(raw).decode())


def edit(files: Path, old: str, new: str) -> None:
    text = (files / FILE).read_text()
    assert text.count(old) == 1
    (files / FILE).write_text(text.replace(old, new))


def planned(files: Path, data: Path) -> ExperimentPlan:
    plan = plan_folder(files, data, evaluates=False, now=NOW)
    return next(one for one in plan.experiments if one.experiment == KEY)


def codes(plan: ExperimentPlan, severity: str) -> list[str]:
    return [finding.code for finding in plan.findings if finding.severity == severity]


def test_an_order_holds_on_where_the_file_is_as_it_was(files: Path, data: Path) -> None:
    order(files, data, "stopped", "abandon is worse")
    plan = planned(files, data)
    assert (plan.kind, plan.runs, plan.becomes) == ("same", "stopped", "stopped")
    assert plan.orders == ["The order of bo that it is stopped (abandon is worse) holds on."]
    assert codes(plan, "harm") == []


def test_an_edit_that_mends_nothing_must_not_end_an_order(files: Path, data: Path) -> None:
    order(files, data, "stopped", "abandon is worse")
    edit(files, "owner: discovery", "owner: artwork")
    plan = planned(files, data)
    assert codes(plan, "harm") == ["order_outranked"]
    assert (plan.runs, plan.becomes) == ("stopped", "running")


def test_an_edit_that_mends_something_may(files: Path, data: Path) -> None:
    order(files, data, "paused", "abandon is worse")
    edit(files, "traffic: 50%", "traffic: 40%")
    plan = planned(files, data)
    assert codes(plan, "harm") == []
    assert "order_outranked" in codes(plan, "note")


def test_what_was_concluded_stays_so(files: Path, data: Path) -> None:
    conclusion = 'conclusion: {winner: thompson, because: "more plays"}\n'
    (files / FILE).write_text((files / FILE).read_text() + conclusion)
    plan = planned(files, data)
    # Everybody gets the winner, which is meant.
    assert codes(plan, "harm") == []
    take_over(files, data)
    edit(files, "more plays", "many more plays")
    assert codes(planned(files, data), "harm") == []
    edit(files, "winner: thompson", "winner: linucb")
    assert codes(planned(files, data), "harm") == ["conclusion_changed"]
    edit(files, conclusion.replace("thompson", "linucb").replace("more", "many more"), "")
    assert "conclusion_changed" in codes(planned(files, data), "harm")


def test_a_new_launch_is_told_step_by_step(files: Path) -> None:
    (files / FILE).write_text((files / FILE).read_text() + LAUNCH)
    plan = plan_folder(files, None, now=NOW)
    (artwork,) = [one for one in plan.experiments if one.experiment == KEY]
    assert [(s.name, s.earliest, s.until, s.waits_for) for s in artwork.launch] == [
        ("shadow", "2026-09-27T09:06Z", "2026-09-28T09:06Z", []),
        ("1%", "2026-09-28T09:06Z", "2026-09-29T09:06Z", []),
        ("10%", "2026-09-29T09:06Z", "2026-09-30T09:06Z", []),
        ("50%", "2026-09-30T09:06Z", "2026-10-01T09:06Z", ["an approval"]),
    ]
    assert any("50%: 2026-09-30T09:06Z" in line for line in lines(plan))


def test_steps_wait_for_their_units_at_the_records_traffic(files: Path, data: Path) -> None:
    edit(files, "status: running", "status: paused")
    take_over(files, data)
    edit(files, "status: paused", "status: running")
    (files / FILE).write_text((files / FILE).read_text() + LAUNCH.replace("100}", "40}"))
    steps = planned(files, data).launch
    # Some nine of a hundred units a day are in a step of 1%.
    assert steps[1].units == 40
    assert steps[2].units is not None
    assert steps[2].units > 40


def test_what_runs_goes_on_beside_a_launch(files: Path, data: Path) -> None:
    (files / FILE).write_text((files / FILE).read_text() + LAUNCH)
    plan = planned(files, data)
    assert codes(plan, "harm") == []
    assert (plan.launched, plan.beside) == ([], plan.revision)
    assert any(
        f"Its launch brings no variant that is new; whoever it has not come to stays with what ran "
        f"before (revision {plan.revision})." in line
        for line in lines(FolderPlan(record="", experiments=[plan]))
    )
    edit(files, "unit: profile_id", "unit: account_id")
    plan = planned(files, data)
    assert (codes(plan, "harm")[-1:], plan.beside) == (["launch_restarts"], "")


def test_a_launch_that_changes_begins_anew(files: Path, data: Path) -> None:
    take_over(files, data)
    runs = planned(files, data).revision
    (files / FILE).write_text((files / FILE).read_text() + LAUNCH)
    with closing(open_log(data / LOG_FILE)) as log:
        (file,) = [one for one in spec.load_all([files]) if one.key == KEY]
        step = Order(KEY, "", "", 0, "launch", None, "begun", kind="traffic", step=1, traffic=0.01)
        order = order_of(file, step)
        log.give_order(order)
        for running in (file, under(file, order)):
            text = msgspec.json.encode(running.raw).decode()
            log.revise(KEY, running.fingerprint, "ann", text)
    edit(files, "at_least: 24h", "at_least: 25h")
    plan = planned(files, data)
    assert codes(plan, "harm") == ["launch_restarts"]
    assert f"go back to what ran before ({runs})" in plan.findings[0].sentence
    assert plan.beside == runs


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("at_least: 24h", "at_least: 2s", "window_longer_than_hold"),
        ("units: 100", "units: 900000000", "hold_never_filled"),
        (
            "  shadow: 24h\n",
            "  gate: {log: home-rows, variant: thompson, margin: 2%}\n",
            "gate_without_log",
        ),
    ],
)
def test_what_of_a_launch_cannot_work(
    old: str, new: str, code: str, files: Path, data: Path
) -> None:
    (files / FILE).write_text((files / FILE).read_text() + LAUNCH)
    edit(files, old, new)
    assert code in codes(planned(files, data), "harm")
