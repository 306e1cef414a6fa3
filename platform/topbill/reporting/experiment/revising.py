"""What an edit of an experiment's file changes, and what follows from it: what a plan says of files
before they are saved, and the list of revisions afterwards."""

from __future__ import annotations

import msgspec

from topbill.domain.assignment import Assignment, assignment_changes
from topbill.domain.formatting import listing
from topbill.reporting.experiment.differences import spec_differences
from topbill.reporting.experiment.planned import changes as planned_changes
from topbill.spec import Experiment, renames

STATELESS = ("fixed", "uniform", "scored")
"""Policies that learn nothing."""
_MOST_CLAUSES = 20


class RevisionChange(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two revisions of an experiment.

    Attributes:
        clauses: What differs in the file, a clause each.
        phase: What begins a new phase; empty where none begins.
        reweighed: What is read otherwise, for all of history.
        learns_anew: The variants whose policies begin anew.
    """

    clauses: list[str] = []
    phase: list[str] = []
    reweighed: list[str] = []
    learns_anew: list[str] = []

    def sentences(self) -> list[str]:
        """What changed, and what follows."""
        text = []
        if self.clauses:
            more = len(self.clauses) - _MOST_CLAUSES
            rest = f"; and {more} more" if more > 0 else ""
            text.append(f"{'; '.join(self.clauses[:_MOST_CLAUSES])}{rest}.")
        if self.phase:
            text.append(f"A new phase begins: {', '.join(self.phase)}.")
        if self.reweighed:
            text.append(f"Read anew for all of history: {'; '.join(self.reweighed)}.")
        if self.learns_anew:
            text.append(f"Begin to learn anew: {listing(self.learns_anew)}.")
        return text


def revision_change(before: Experiment, after: Experiment) -> RevisionChange:
    """What differs, and what follows from it."""
    one, other = renames.modern(before.raw), renames.modern(after.raw)
    anew = []
    if before.learning_content != after.learning_content:
        anew = [v.name for v in after.variants if v.policy not in STATELESS]
    return RevisionChange(
        clauses=spec_differences(one, other),
        phase=assignment_changes(_assignment(before), _assignment(after)),
        reweighed=planned_changes(one, other),
        learns_anew=anew,
    )


def _assignment(experiment: Experiment) -> Assignment:
    traffic = experiment.traffic_in_force
    return Assignment(experiment.shares_in_force, experiment.control.name, traffic)
