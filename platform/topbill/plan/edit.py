"""One experiment as it runs and as the files say, with what the record knows of it: what every
check of a plan looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from topbill.ab import Plan as PowerPlan
from topbill.domain.formatting import several
from topbill.log.protocol import Order
from topbill.plan.model import PlanFinding, Severity, UnitMovement
from topbill.plan.running import NOTHING_RECORDED, RecordedExperiment
from topbill.reporting.experiment.revising import STATELESS
from topbill.spec import Experiment, Variant


@dataclass(frozen=True, slots=True)
class ExperimentEdit:
    """One experiment as it runs (`before`) and as the files say (`after`); None where there is
    none.

    Attributes:
        file: The name of its file, as it is or as it was.
        record: What the record knows of it.
        movement: What becomes of the record's units; None where there are none.
        power: How long it must run by the new file and the record's traffic; None where that is not
            known.
        file_before: As its file says that runs, where orders made something else of it (`before`).
        orders: The orders that hold on it.
        units_at_full: New units a day if all traffic took part.
        logs: The keys of experiments with a record, and whether some variant of each explores.
    """

    key: str
    file: str
    before: Experiment | None
    after: Experiment | None
    record: RecordedExperiment = NOTHING_RECORDED
    movement: UnitMovement | None = None
    power: PowerPlan | None = None
    file_before: Experiment | None = None
    orders: tuple[Order, ...] = ()
    units_at_full: float | None = None
    logs: Mapping[str, bool] = field(default_factory=dict)

    @property
    def both(self) -> tuple[Experiment, Experiment] | None:
        """As it runs and as it will, where viewers were in its variants: only then is there
        anything that an edit could spoil."""
        if self.before is None or self.after is None or not self.record.exposed:
            return None
        return self.before, self.after

    @property
    def whoever(self) -> str:
        """Who was in its variants: 1,204 units."""
        return "viewers" if self.record.is_made_up else several(self.record.exposed, "unit")

    @property
    def is_launching(self) -> bool:
        """Whether a launch was begun: its file has one, and what runs is a step of it."""
        before, file = self.before, self.file_before
        if before is None or file is None or file.launch is None:
            return False
        return before.launch is None and before.conclusion is None and before.status == "running"

    @property
    def ends(self) -> bool:
        """Whether the file ends the experiment by a conclusion."""
        return self.after is not None and self.after.conclusion is not None

    @property
    def units_a_day(self) -> float:
        """New units a day by the file's traffic; 0 where nobody knows."""
        return 0.0 if self.after is None else self.after.traffic * (self.units_at_full or 0.0)

    def finding(
        self, code: str, severity: Severity, path: str, got: str, sentence: str, instead: str = ""
    ) -> PlanFinding:
        """A finding about this experiment."""
        return PlanFinding(
            code=code,
            severity=severity,
            experiment=self.key,
            file=self.file,
            path=path,
            got=got,
            sentence=sentence,
            instead=instead,
        )

    def harm(self, code: str, path: str, got: str, sentence: str, instead: str) -> PlanFinding:
        """Something that would harm."""
        return self.finding(code, "harm", path, got, sentence, instead)

    def note(self, code: str, path: str, got: str, sentence: str, instead: str = "") -> PlanFinding:
        """Something to be known."""
        return self.finding(code, "note", path, got, sentence, instead)

    def as_it_runs(self) -> ExperimentEdit:
        """As if the file said again what runs."""
        return replace(self, after=self.before, movement=None)


Check = Callable[[ExperimentEdit], Iterator[PlanFinding]]


def served(variant: Variant) -> bool:
    """Whether the variant gets units."""
    return variant.share > 0.0


def learners(experiment: Experiment) -> list[Variant]:
    """The variants whose policies learn."""
    return [v for v in experiment.variants if v.policy not in STATELESS]


def shown_surely(experiment: Experiment, variant: Variant) -> tuple[str, ...] | None:
    """The actions that a fixed order shows, in its places; None for a policy that draws, or where
    requests bring the actions."""
    if variant.policy != "fixed" or not experiment.actions:
        return None
    order = [str(action) for action in getattr(variant.params, "order", ())]
    every = dict.fromkeys([*order, *(action.id for action in experiment.actions)])
    return tuple(every)[: experiment.slots]
