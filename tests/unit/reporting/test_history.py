"""What changed when, told by the file or by the order that made the revision; and the same moments
as lines on charts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from topbill.lake import Lake
from topbill.log import Revision
from topbill.log.protocol import Order
from topbill.reporting.queries.history import revision_lines
from topbill.reporting.queries.milestones import milestones
from topbill.spec import Experiment
from topbill.testing import an_experiment

AT, HOUR = 1_790_000_000_000_000, 3_600_000_000


def revision(experiment: Experiment, hours: int, who: str) -> Revision:
    text = msgspec.json.encode(experiment.raw).decode()
    return Revision(experiment.key, experiment.fingerprint, AT + hours * HOUR, who, text)


def test_a_revision_is_told_by_its_order_or_by_what_its_file_says(tmp_path: Path) -> None:
    launch = {"shadow": "1h", "ramp": ["25%", "100%"]}
    file, step = an_experiment(launch=launch), an_experiment(traffic="25%")
    shares = {
        "a": {"policy": "uniform", "share": "20%", "control": True},
        "b": {"policy": "uniform", "share": "80%"},
    }
    edited = an_experiment(traffic="25%", variants=shares)
    audit = [
        revision(file, 0, "ann"),
        revision(step, 1, "launch"),
        revision(edited, 2, "bo"),
    ]
    orders = [
        # Says where the launch stands, and makes nothing of the file.
        Order("home", "r", file.fingerprint, AT, "launch", None, "unseen", None, "shadow", 1),
        Order(
            *("home", "r", step.fingerprint, AT + HOUR, "launch", None, "the first step.", None),
            *("traffic", 2, 0.25),
        ),
    ]
    Lake(tmp_path).write_database([edited], AT + 3 * HOUR, audit, orders=orders)

    edit, ramp, first = revision_lines(tmp_path, "home")
    assert first.sentences == ["Its first revision."]
    assert ramp.sentences == [
        "25% of traffic: the first step.",
        "A new phase begins: traffic 0% → 25%.",
    ]
    assert edit.order == ""
    assert edit.sentences[0].startswith("variants.")

    labels = [mark.label for mark in milestones(tmp_path, "home")]
    assert labels[:2] == ["unseen", "25% of traffic"]
    assert len(labels) == 3
