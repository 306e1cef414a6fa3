"""Which variant a unit is in, since when and why."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec

from topbill import pages, spec
from topbill.domain.errors import BadRequest, NotFound, SpecError
from topbill.domain.formatting import condition, minute
from topbill.domain.records import Reason
from topbill.engine.compiled import CompiledExperiment
from topbill.lake import is_published
from topbill.log import has_log, open_log_of
from topbill.log.former import with_formers
from topbill.log.orders import obeyed
from topbill.log.unit_ids import known_unit_ids
from topbill.reporting.queries.database import open_database
from topbill.spec import Experiment
from topbill.spec.fields import percent

WHY: dict[Reason, str] = {
    "policy": "that is where its id falls among the shares",
    "holdout": "it is held out of the layer",
    "excluded_unit": "the file lists it under exclude",
    "excluded_context": "its context is one that the file leaves out",
    "not_in_audience": "its context is not of the audience",
    "override": "the file gives it that variant for a look; what it does counts nowhere",
}


class SeenVariant(msgspec.Struct, frozen=True):
    """A unit's decisions of one variant and reason, as published; times in UTC."""

    variant: str | None
    reason: Reason
    first_at: datetime
    last_at: datetime
    decisions: int


class UnitAssignment(msgspec.Struct, frozen=True):
    """What a unit would get now, by today's file and the orders on it, and what it got.

    Attributes:
        variant: None where the unit takes no part and gets the control's order.
        since: Its first decision of that variant and reason, UTC; None where there is none yet.
        seen: All that it got, oldest first.
        why: The reason, as half a sentence.
    """

    experiment: str
    unit: str
    variant: str | None
    reason: Reason
    since: datetime | None
    seen: tuple[SeenVariant, ...]
    why: str

    @property
    def sentence(self) -> str:
        """Where the unit is, since when and why."""
        where = "in no variant" if self.variant is None else f"in {self.variant}"
        since = "not seen there yet"
        if self.since is not None:
            since = f"since {minute(self.since)}"
        return f"{self.unit} is {where} of {self.experiment}, {since}: {self.why}."


def experiments_beside(folder: Path, key: str) -> list[Experiment]:
    """The experiments of a folder, for `unit_assignment` in one of them. A file that is wrong
    keeps nobody from asking of another experiment.

    Raises:
        SpecError: With every problem, where the experiment's own file is wrong, or another may
            take a part of its layer.
    """
    try:
        return pages.load_experiments(folder)
    except SpecError:
        readable = spec.readable(pages.experiment_folders(folder))
        own = next((experiment for experiment in readable if experiment.key == key), None)
        if own is None or own.layer != own.key:
            raise
        return readable


def unit_assignment(
    experiments: Iterable[Experiment], data: Path, key: str, unit: str, context: str = "{}"
) -> UnitAssignment:
    """Where a unit stands.

    Args:
        experiments: All of the folder: those of one layer share its units.
        data: The data folder; what it has not published yet is not seen.
        key: The experiment's.
        unit: Its id as callers send it.
        context: What would be sent with a request, as JSON text: for conditions on it.

    Raises:
        NotFound: There is no such experiment.
        BadRequest: The context is no JSON object.
        LogError: The data folder cannot be read.
    """
    try:
        sent = msgspec.json.decode(context)
    except msgspec.DecodeError as error:
        raise BadRequest("context", f"is no JSON: {error}") from error
    if not isinstance(sent, dict):
        raise BadRequest("context", f"got {context}; expected an object of features")
    ids = known_unit_ids(data)
    running = ids.in_experiments(list(experiments))
    if has_log(data):
        with open_log_of(data) as log:
            running = with_formers(obeyed(running, log.orders()), running, log)
    by_key = {experiment.key: experiment for experiment in running}
    if key not in by_key:
        raise NotFound(f"experiment {key!r} is not there; expected one of {', '.join(by_key)}")
    stored = ids.stored(unit)
    compiled, raw = CompiledExperiment(by_key[key]), msgspec.Raw(context.encode())
    deciding = compiled.former_of(stored, raw) or compiled
    variant, reason = deciding.admit(stored, raw)
    name = None if variant is None else variant.name
    seen = _seen(data, key, stored)
    counted = name if reason == "policy" else None
    same = [part.first_at for part in seen if (part.variant, part.reason) == (counted, reason)]
    why = _why(by_key[key], reason)
    return UnitAssignment(key, unit, name, reason, min(same, default=None), seen, why)


def _why(experiment: Experiment, reason: Reason) -> str:
    if experiment.conclusion is not None and reason in ("policy", "not_in_experiment"):
        won = "nobody won" if experiment.winner is None else "everybody gets the winner"
        return f"the experiment is concluded, and {won}"
    if reason != "not_in_experiment":
        return WHY[reason]
    # What runs keeps no launch once its ramp has begun: see `topbill.log.orders.with_traffic`.
    if experiment.status != "running":
        return f"the experiment is {condition(experiment.status)}"
    if experiment.launch is not None:
        return "its launch is before the first step"
    return f"its id falls outside of the {percent(experiment.traffic)} of traffic that take part"


def _seen(data: Path, key: str, unit: str) -> tuple[SeenVariant, ...]:
    if not is_published(data):
        return ()
    with open_database(data, on_engine=False) as database:
        rows = database.rows(
            """SELECT variant, reason, min(decided_at) AS first_at, max(decided_at) AS last_at,
                count(*) AS decisions
            FROM decisions WHERE experiment = $key AND unit = $unit
            GROUP BY variant, reason ORDER BY first_at, variant, reason""",
            key=key,
            unit=unit,
        )
    return tuple([SeenVariant(**row) for row in rows])
