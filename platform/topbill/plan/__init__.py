"""What the files of a folder would change against what runs, before anybody saves them there."""

from topbill.plan.build import plan_against, plan_folder
from topbill.plan.model import (
    ExperimentPlan,
    FolderPlan,
    PlanFinding,
    PolicyOutlook,
    UnitMovement,
)
from topbill.plan.running import WhatRuns, what_runs
from topbill.plan.text import lines, markdown

__all__ = [
    "ExperimentPlan",
    "FolderPlan",
    "PlanFinding",
    "PolicyOutlook",
    "UnitMovement",
    "WhatRuns",
    "lines",
    "markdown",
    "plan_against",
    "plan_folder",
    "what_runs",
]
