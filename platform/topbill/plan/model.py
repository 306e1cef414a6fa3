"""What a plan says, as values."""

from __future__ import annotations

from html import escape
from typing import Literal

import msgspec

from topbill import late
from topbill.reporting.experiment.revising import RevisionChange

# Made of plans, and so below them.
_lines = late.name("topbill.plan.text", "lines")

Severity = Literal["harm", "note"]
ExperimentKind = Literal["new", "changed", "removed", "same"]


class PlanFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that an edit would do, or that a file says and that cannot work.

    Attributes:
        code: One of `domain.reasons.PLAN_FINDINGS`.
        severity: `harm` fails `topbill plan --check`; a `note` is to be known.
        experiment: Its key; empty where a file could not be read.
        file: The file's name.
        path: Where in the file.
        got: What stands there.
        sentence: What follows from it.
        instead: What to do.
        line: Where in the file, of one that could not be read; else 0.
    """

    code: str
    severity: Severity
    experiment: str
    file: str
    path: str
    got: str
    sentence: str
    instead: str = ""
    line: int = 0


class UnitMovement(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the record's units, by assigning each of them twice: as it runs, and as the
    files say.

    Attributes:
        units: How many were looked at.
        of: How many the record has, of which those are an even sample.
        kept: In the same variant.
        moved: In another variant; `flows` says from where to where, as `old → new`.
        left: In none any more, `reasons` says by which reason of a decision.
        entered: In a variant, who were in none.
        is_made_up: Whether they are nobody's, for want of a record.
    """

    units: int
    of: int
    kept: int = 0
    moved: int = 0
    left: int = 0
    entered: int = 0
    flows: dict[str, int] = {}
    reasons: dict[str, int] = {}
    is_made_up: bool = False

    @property
    def assigned(self) -> int:
        """How many have a variant as it runs."""
        return self.kept + self.moved + self.left


class DecisionOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """How long until a decision: for the call on the objective and every guardrail at one look.

    Attributes:
        lift: The relative lift planned for.
        units: Of all variants, of the variant that takes longest; None where no number would do.
        days: From now; None where nobody knows how many come a day.
        units_a_day: New units a day of all variants, by the files' traffic.
        rough: Whether that is from less than a day of traffic.
        reason: Why there are no numbers, as a sentence.
    """

    lift: float
    units: int | None = None
    days: float | None = None
    units_a_day: float | None = None
    rough: bool = False
    reason: str = ""


class PolicyOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """What off-policy evaluation expects of a policy that is new, per decision.

    Attributes:
        variant: The variant's name.
        policy: Its kind.
        estimator: The one asked.
        value, low, high: The estimate and its interval; None where it is refused.
        difference: To what the log earned; None likewise.
        decisions: How many decisions were scored.
        reason: Why there is none, as a sentence.
    """

    variant: str
    policy: str
    estimator: str = "dr"
    value: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    decisions: int = 0
    reason: str = ""


class LaunchStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step that a launch would take: from when at the earliest, until when at least, and what
    it waits for. Times are ISO 8601, UTC, or `never`."""

    name: str
    earliest: str
    until: str
    traffic: float
    units: int | None = None
    waits_for: list[str] = []


class ExperimentPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the files would change of one experiment.

    Attributes:
        kind: `new`, `changed`, `removed`, or `same` where only others' files touch it or nothing.
        runs, becomes: The status as it runs and as the file says under the orders that hold; empty
            where there is none.
        revision, new_revision: Fingerprints likewise.
        author: Who last changed the file, where its folder is a git checkout.
        orders: The orders that hold as it runs, and whether they hold on, a sentence each.
        units: How many units the record has in its variants.
        says: Of one that is new: what it is.
        change: What differs, and what follows.
        launch: The steps of its launch, where it has one and that begins.
        launched: The variants that it brings.
        beside: The revision that goes on for whoever the launch has not come to; empty where none
            does, and they get the control's order.
    """

    experiment: str
    file: str
    kind: ExperimentKind
    runs: str = ""
    becomes: str = ""
    revision: str = ""
    new_revision: str = ""
    author: str = ""
    orders: list[str] = []
    units: int = 0
    says: str = ""
    change: RevisionChange = RevisionChange()
    movement: UnitMovement | None = None
    decision: DecisionOutlook | None = None
    policies: list[PolicyOutlook] = []
    launch: list[LaunchStep] = []
    launched: list[str] = []
    beside: str = ""
    findings: list[PlanFinding] = []

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to say of it."""
        moves = self.movement is not None and self.movement.moved + self.movement.left > 0
        return self.kind == "same" and not moves and not self.findings and not self.orders


class FolderPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder's files would change. `record` says against what; `refused` are findings of
    files that could not be read, with which services leave everything as it is."""

    record: str
    experiments: list[ExperimentPlan] = []
    refused: list[PlanFinding] = []

    @property
    def findings(self) -> list[PlanFinding]:
        """All findings, those that would harm first."""
        every = list(self.refused)
        for plan in self.experiments:
            every += plan.findings
        return sorted(every, key=lambda finding: finding.severity != "harm")

    @property
    def harms(self) -> list[PlanFinding]:
        """Those that would harm."""
        return [finding for finding in self.findings if finding.severity == "harm"]

    def _repr_html_(self) -> str:
        text = "\n".join(_lines(self))
        return f"<pre>{escape(text)}</pre>"
