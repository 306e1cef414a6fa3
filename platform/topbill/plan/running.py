"""What runs, by the audit of revisions in a data folder, and what its record knows of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from msgspec import json

from topbill.domain.errors import SpecError
from topbill.lake import is_published
from topbill.log import has_log, open_log_of
from topbill.log.former import former_of
from topbill.log.orders import as_its_file, in_force
from topbill.log.protocol import Order, Revision
from topbill.log.unit_ids import UnitIds, known_unit_ids
from topbill.reporting.queries.database import AnalyticsDatabase, open_database
from topbill.spec import Experiment, from_audit, in_layers

MOST_UNITS = 20_000
"""Of more units an even sample is looked at."""
MADE_UP_UNITS = 5_000
_REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class RecordedUnit:
    """A unit's id as it is stored, and the context that it sent last, as JSON text."""

    unit: str
    context: str


@dataclass(frozen=True, slots=True)
class RecordedExperiment:
    """What the record knows of an experiment.

    Attributes:
        exposed: Units that were in a variant.
        asked: Units that asked, in a variant or not.
        units: Those, or an even sample of them.
        first_at, last_at: Of decisions in a variant.
        events: The names of reward events and events of units that ever came.
        is_made_up: Whether the units are nobody's: files are compared without a record.
    """

    exposed: int = 0
    asked: int = 0
    units: tuple[RecordedUnit, ...] = ()
    first_at: datetime | None = None
    last_at: datetime | None = None
    events: frozenset[str] = frozenset()
    is_made_up: bool = False


NOTHING_RECORDED = RecordedExperiment()


@dataclass(frozen=True, slots=True)
class WhatRuns:
    """What runs on a data folder, and what its record knows of it.

    Attributes:
        experiments: As they run, by key.
        records: What the record knows of each of them.
        files: The same as their files said, without orders.
        in_force: The orders that hold.
        orders: All orders, those for files as they once were among them.
        revisions: The audit of what runs, oldest first.
        ids: How the folder stores ids of units.
        data: The folder, where it has a record.
        source: Where all of this is from, in a few words.
    """

    experiments: Mapping[str, Experiment] = field(default_factory=dict)
    records: Mapping[str, RecordedExperiment] = field(default_factory=dict)
    files: Mapping[str, Experiment] = field(default_factory=dict)
    in_force: tuple[Order, ...] = ()
    orders: tuple[Order, ...] = ()
    revisions: tuple[Revision, ...] = ()
    ids: UnitIds = field(default_factory=UnitIds)
    data: Path | None = None
    source: str = "nothing: all is new"

    def recorded(self, key: str) -> RecordedExperiment:
        """What the record knows of an experiment; nothing where nothing was published."""
        return self.records.get(key, NOTHING_RECORDED)

    def file(self, key: str) -> Experiment | None:
        """An experiment as its file said when it was last taken over; None where none runs."""
        return self.files.get(key) or self.experiments.get(key)

    def beside_its_launch(self, file: Experiment) -> Experiment:
        """A file with what would go on beside its launch if it were saved now."""
        if file.key not in self.experiments:
            return file
        return replace(file, former=former_of(file, self.revisions, self.orders))

    @property
    def logs(self) -> dict[str, bool]:
        """The experiments whose variants had units, and whether some variant of each explores, so
        that its log can speak for other policies."""
        logs = {}
        for key, record in self.records.items():
            if record.exposed and not record.is_made_up and key in self.experiments:
                logs[key] = any(v.policy != "fixed" for v in self.experiments[key].variants)
        return logs


def what_runs(data: Path) -> WhatRuns:
    """What runs on a data folder: of each experiment the newest line of the audit, in the log or,
    in a copy of the record alone, in the lake. Those whose files were taken away run no more.

    Raises:
        LogError: The log or the record cannot be read.
    """
    audit: dict[str, tuple[str, str]] = {}
    gone: set[str] = set()
    records: dict[str, RecordedExperiment] = {}
    published = is_published(data)
    if published:
        with open_database(data) as database:
            for row in database.rows("SELECT * FROM experiments"):
                audit[row["key"]] = (row["spec"], row["revision"])
                records[row["key"]] = _recorded(database, row["key"])
                if row["status"] == _REMOVED:
                    gone.add(row["key"])
    of_record = [Revision(key, line[1], 0, "", line[0]) for key, line in audit.items()]
    noted: list[Revision] = []
    files: dict[str, Experiment] = {}
    holding: tuple[Order, ...] = ()
    orders: tuple[Order, ...] = ()
    if has_log(data):
        with open_log_of(data) as log:
            noted = log.revisions()
            for line in noted:
                audit[line.experiment] = (line.spec, line.revision)
            holding, orders = tuple(in_force(log)), tuple(log.orders())
            for key in {order.experiment for order in orders}:
                with suppress(SpecError):
                    files[key] = as_its_file(log, key)
    keys = {line.experiment for line in noted}
    revisions = [line for line in of_record if line.experiment not in keys] + noted
    running = _readable({key: line for key, line in audit.items() if key not in gone})
    return WhatRuns(
        experiments={experiment.key: experiment for experiment in in_layers(running)},
        records=records,
        files=files,
        in_force=holding,
        orders=orders,
        revisions=tuple(revisions),
        ids=known_unit_ids(data),
        data=data if published else None,
        source=f"what runs in {data}",
    )


def as_files_ran(experiments: Iterable[Experiment], source: str) -> WhatRuns:
    """What runs by other files, such as those of the branch that a change is to go into, where
    nobody has the record at hand: of what is not a draft viewers are taken to have been in it, and
    units are made up."""
    units = tuple([RecordedUnit(f"unit-{number}", "{}") for number in range(MADE_UP_UNITS)])
    record = RecordedExperiment(
        exposed=MADE_UP_UNITS, asked=MADE_UP_UNITS, units=units, is_made_up=True
    )
    placed = in_layers(experiments)
    audit = [(one.key, one.fingerprint, json.encode(one.raw).decode()) for one in placed]
    return WhatRuns(
        experiments={experiment.key: experiment for experiment in placed},
        records={one.key: record for one in placed if one.status != "draft"},
        revisions=tuple([Revision(key, revision, 0, "", spec) for key, revision, spec in audit]),
        source=source,
    )


def _readable(audit: Mapping[str, tuple[str, str]]) -> Iterable[Experiment]:
    """The experiments of the audit; one that this version cannot read is as if it were new."""
    for key, (spec, revision) in audit.items():
        try:
            yield from_audit(spec, f"{key} (as it runs)", revision)
        except SpecError:
            continue


def _recorded(database: AnalyticsDatabase, key: str) -> RecordedExperiment:
    counts = database.row(
        """SELECT count(DISTINCT unit) AS asked,
            count(DISTINCT unit) FILTER (variant IS NOT NULL) AS exposed,
            min(decided_at) FILTER (variant IS NOT NULL) AS first_at,
            max(decided_at) FILTER (variant IS NOT NULL) AS last_at
        FROM decisions WHERE experiment = $key""",
        key=key,
    )
    rows = database.rows(
        """SELECT unit, arg_max(context, seq) AS context FROM decisions
        WHERE experiment = $key AND unit IS NOT NULL AND md5(unit) <= $highest
        GROUP BY unit ORDER BY unit""",
        key=key,
        # MD5 is even over units, and the same on every engine.
        highest=f"{(1 << 128) // max(1, -(-int(counts['asked']) // MOST_UNITS)) - 1:032x}",
    )
    units = tuple(RecordedUnit(row["unit"], row["context"] or "{}") for row in rows)
    # A database of an earlier version has no events of units until the worker publishes.
    names = {row["name"] for row in database.rows("SHOW TABLES")}
    of_units = " UNION SELECT DISTINCT event FROM events" if "events" in names else ""
    events = database.rows(
        f"SELECT DISTINCT event FROM rewards WHERE experiment = $key{of_units}",  # noqa: S608  (our own text)
        key=key,
    )
    return RecordedExperiment(
        exposed=int(counts["exposed"]),
        asked=int(counts["asked"]),
        units=units,
        first_at=counts["first_at"],
        last_at=counts["last_at"],
        events=frozenset(str(row["event"]) for row in events),
    )
