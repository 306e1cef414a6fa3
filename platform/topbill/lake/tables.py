"""The Delta tables of the lake: append each batch exactly once, compact, and show them through the
face.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    Schema,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError
from msgspec.structs import asdict

from topbill.domain.errors import LogError
from topbill.domain.records import NULL, Decision, RewardEvent
from topbill.lake import views
from topbill.lake.database import DATABASE
from topbill.lake.delta import files_of
from topbill.spec import Experiment

Table = Literal["decisions", "rewards"]

_TIME = pa.timestamp("us", tz="UTC")
_WORDS = pa.list_(pa.string())
_NUMBERS = pa.list_(pa.float64())
_MASK = pa.struct(
    {
        "rule": pa.string(),
        "start": pa.int64(),
        "stop": pa.int64(),
        "rows": pa.list_(pa.int64()),
        "only": pa.bool_(),
    }
)
SCHEMAS: dict[str, pa.Schema] = {
    "decisions": pa.schema(
        {
            "seq": pa.int64(),
            "decision_id": pa.string(),
            "decided_at": _TIME,
            "experiment": pa.string(),
            "revision": pa.string(),
            "variant": pa.string(),
            "unit": pa.string(),
            "context": pa.string(),
            "actions": pa.string(),
            "eligible": _WORDS,
            "slate": _WORDS,
            "propensities": _NUMBERS,
            "propensity": pa.float64(),
            "probabilities": pa.list_(_NUMBERS),
            "policy": pa.string(),
            "policy_version": pa.int64(),
            "reason": pa.string(),
            "latency_us": pa.int64(),
            "page": pa.string(),
            "layer": pa.string(),
            "place": pa.string(),
            "masks": pa.list_(_MASK),
        }
    ),
    # A reward carries what is asked of its decision most: so metrics by variant and unit need no
    # join of millions.
    "rewards": pa.schema(
        {
            "seq": pa.int64(),
            "decision_id": pa.string(),
            "event_id": pa.string(),
            "event": pa.string(),
            "value": pa.float64(),
            "action": pa.string(),
            "position": pa.int64(),
            "occurred_at": _TIME,
            "received_at": _TIME,
            "experiment": pa.string(),
            "variant": pa.string(),
            "unit": pa.string(),
            "decided_at": _TIME,
            "item": pa.string(),
        }
    ),
}
_APP = "topbill.log"
"""Delta's application id: its transaction version is the last `seq` of the log that the table
holds.
"""
_WIDENED = "topbill.widened"
"""Property of a table whose older files lack columns: only then need DuckDB look into each file for
its columns.
"""
_SETTINGS: dict[str, str | None] = {
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 1 days",
    "delta.enableExpiredLogCleanup": "true",
}
_WRITER = WriterProperties(compression="ZSTD", max_row_group_size=250_000)
_TIERS = (8 << 20, 128 << 20)
"""Compaction targets in bytes: small files often, large files rarely, so that no row is rewritten
every minute.
"""


class Origin(NamedTuple):
    """What a reward's row says of its decision. `decided_at` in µs since the epoch."""

    decided_at: int
    experiment: str | None = None
    variant: str | None = None
    unit: str | None = None
    slate: tuple[str, ...] = ()

    @classmethod
    def of(cls, decision: Decision) -> Origin:
        shown = tuple(placed.action for placed in decision.slate)
        return cls(decision.decided_at, decision.experiment, decision.variant, decision.unit, shown)

    def item(self, event: RewardEvent) -> str | None:
        """The action that the event speaks of: the one it names, or the one at its position, or the
        only one.
        """
        if event.action is not None:
            return event.action
        if event.position is not None:
            return self.slate[event.position] if 0 <= event.position < len(self.slate) else None
        return self.slate[0] if len(self.slate) == 1 else None


def decision_rows(rows: Sequence[tuple[int, Decision]]) -> pa.Table:
    """Decisions with their `seq` as the columns of the lake's `decisions`."""
    seqs = [seq for seq, _ in rows]
    items = [decision for _, decision in rows]
    columns = {
        "seq": seqs,
        "decision_id": [d.decision_id for d in items],
        "decided_at": [d.decided_at for d in items],
        "experiment": [d.experiment for d in items],
        "revision": [d.revision for d in items],
        "variant": [d.variant for d in items],
        "unit": [d.unit for d in items],
        "context": [bytes(d.context) for d in items],
        "actions": [None if d.actions == NULL else bytes(d.actions) for d in items],
        "eligible": [d.eligible for d in items],
        "slate": [[placed.action for placed in d.slate] for d in items],
        "propensities": [[placed.propensity for placed in d.slate] for d in items],
        "propensity": [d.propensity for d in items],
        "probabilities": [d.probabilities for d in items],
        "policy": [d.policy for d in items],
        "policy_version": [d.policy_version for d in items],
        "reason": [d.reason for d in items],
        "latency_us": [d.latency_us for d in items],
        "page": [d.page or None for d in items],
        "layer": [d.layer or None for d in items],
        "place": [d.place or None for d in items],
        "masks": [[asdict(mask) for mask in d.masks] for d in items],
    }
    return pa.table(columns, schema=SCHEMAS["decisions"])


def reward_rows(rows: Sequence[tuple[int, RewardEvent, Origin]]) -> pa.Table:
    """Reward events with their `seq` and their decision's origin as the columns of the lake's
    `rewards`.

    `occurred_at` is when it happened: the caller's time where given, else the time of receipt.
    """
    columns = {
        "seq": [seq for seq, _, _ in rows],
        "decision_id": [e.decision_id for _, e, _ in rows],
        "event_id": [e.event_id for _, e, _ in rows],
        "event": [e.event for _, e, _ in rows],
        "value": [e.value for _, e, _ in rows],
        "action": [e.action for _, e, _ in rows],
        "position": [e.position for _, e, _ in rows],
        "occurred_at": [
            e.received_at if e.occurred_at is None else e.occurred_at for _, e, _ in rows
        ],
        "received_at": [e.received_at for _, e, _ in rows],
        "experiment": [o.experiment for _, _, o in rows],
        "variant": [o.variant for _, _, o in rows],
        "unit": [o.unit for _, _, o in rows],
        "decided_at": [o.decided_at for _, _, o in rows],
        "item": [o.item(e) for _, e, o in rows],
    }
    return pa.table(columns, schema=SCHEMAS["rewards"])


class Lake:
    """The lake in a data folder: `DIR/lake/decisions`, `DIR/lake/rewards` and the face
    `DIR/topbill.duckdb`.

    For one writer at a time; a second one that appends what was appended already is refused by
    Delta itself. `keep_hours`: how long files that compaction replaced stay for readers that opened
    the face before. Raises LogError where tables cannot be read or written.
    """

    def __init__(self, folder: Path, *, keep_hours: int = 24) -> None:
        self.folder = folder
        self.database_path = folder / DATABASE
        self._keep_hours = keep_hours
        self._folders = {name: (folder / "lake" / name).resolve() for name in SCHEMAS}
        self._tables = {
            name: self._open(where, SCHEMAS[name]) for name, where in self._folders.items()
        }

    def _open(self, where: Path, schema: pa.Schema) -> DeltaTable:
        try:
            where.mkdir(parents=True, exist_ok=True)
            table = DeltaTable.create(
                str(where),
                schema=schema,
                mode="ignore",
                partition_by=["experiment"],
                configuration=_SETTINGS,
            )
            _widen(table, schema)
            return table
        except (OSError, DeltaError) as error:
            raise LogError(
                f"{where}: cannot be opened: {error}; expected a Delta table or an empty folder"
            ) from error

    def position(self, name: Table) -> int:
        """The last `seq` of the log that the table holds, as the table itself says; 0 when it holds
        none.
        """
        table = self._tables[name]
        try:
            return table.transaction_version(_APP) or 0
        except (OSError, DeltaError) as error:
            raise LogError(f"{table.table_uri}: cannot be read: {error}") from error

    def append(self, name: Table, rows: pa.Table, through: int) -> bool:
        """Append the log's rows up to `seq` `through`; False when the table holds them already.

        Rows and position are one Delta commit: whatever dies, each row is there once.
        """
        table = self._tables[name]
        try:
            table.update_incremental()
            if through <= self.position(name):
                return False
            mark = CommitProperties(
                app_transactions=[Transaction(_APP, through)], max_commit_retries=3
            )
            write_deltalake(
                table, rows, mode="append", commit_properties=mark, writer_properties=_WRITER
            )
        except (OSError, DeltaError) as error:
            raise LogError(
                f"{table.table_uri}: cannot append rows through {through}: {error}"
            ) from error
        return True

    def compact(self, *, thorough: bool = False) -> int:
        """Merge small files (up to 8 MB, or 128 MB if `thorough`) and delete those replaced long
        ago.

        Returns how many files were merged. May run in a thread beside appends: Delta lets both
        commit.
        """
        merged = 0
        for where in self._folders.values():
            try:
                own = DeltaTable(str(where))
                done = own.optimize.compact(target_size=_TIERS[thorough], writer_properties=_WRITER)
                merged += int(done["numFilesRemoved"])
                if thorough:
                    own.vacuum(self._keep_hours, dry_run=False, enforce_retention_duration=False)
            except (OSError, DeltaError) as error:
                raise LogError(f"{where}: cannot be compacted: {error}") from error
        return merged

    def experiments(self) -> set[str]:
        """The keys of all experiments that have a decision in the lake."""
        try:
            return {part["experiment"] for part in self._tables["decisions"].partitions()}
        except (OSError, DeltaError) as error:
            raise LogError(f"{self._folders['decisions']}: cannot be read: {error}") from error

    def files(self, name: str) -> list[str]:
        """The absolute paths of the Parquet files that make up the table now."""
        table = self._tables[name]
        try:
            table.update_incremental()
            return files_of(table, self._folders[name])
        except (OSError, DeltaError) as error:
            raise LogError(f"{table.table_uri}: cannot be read: {error}") from error

    def write_database(
        self,
        experiments: Iterable[Experiment],
        at: int,
        revisions: Iterable[views.Revision] = (),
        problems: Iterable[views.Problem] = (),
        removed: Collection[str] = (),
    ) -> None:
        """Write a new face pinned to the tables as they are now, and rename it into place.

        `at` (µs since the epoch): every log row stamped up to then is in the tables; what is mature
        is judged by it. `removed`: keys of those `experiments` that have no file any more.
        """
        tables = {
            name: views.Table(
                self.files(name), table.version(), _WIDENED in table.metadata().configuration
            )
            for name, table in self._tables.items()
        }
        views.write(
            self.database_path,
            tables,
            list(experiments),
            at,
            list(revisions),
            list(problems),
            removed,
        )


def _widen(table: DeltaTable, schema: pa.Schema) -> None:
    """Give a table of an earlier version the columns that it lacks; its rows have nothing there."""
    held = {field.name for field in table.schema().fields}
    missing = [field for field in Schema.from_arrow(schema).fields if field.name not in held]
    if missing:
        table.alter.add_columns(missing)
        table.alter.set_table_properties({_WIDENED: "true"}, raise_if_not_exists=False)
