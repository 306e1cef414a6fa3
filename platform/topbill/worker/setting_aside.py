"""Rows that cannot be published or learned, found among the others and set aside in the log's
quarantine, so that one bad row is one bad row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec
import pyarrow as pa

from topbill.domain.records import (
    Decision,
    QuarantinedRow,
    QuarantineStage,
    RewardEvent,
    RowKind,
    UnitEvent,
)
from topbill.log import Log

if TYPE_CHECKING:
    from topbill.lake import Problem, RepeatedRow
    from topbill.lake.tables import Table

_logger = logging.getLogger("topbill")
_Row = TypeVar("_Row")
_encode = msgspec.json.Encoder().encode


def convertible(
    rows: Sequence[_Row], convert: Callable[[Sequence[_Row]], pa.Table]
) -> tuple[pa.Table, list[tuple[_Row, Exception]]]:
    """The table of all rows that can be converted, in order, and those that can't, each with why.

    As a rule all can, and this costs one conversion. Else halves are tried, and halves of those: of
    n rows one that is bad is found in some 2·log₂ n conversions.
    """
    try:
        return convert(rows), []
    except MemoryError:
        raise  # no row's fault
    except Exception as error:
        if len(rows) == 1:
            return convert([]), [(rows[0], error)]
    middle = len(rows) // 2
    first, refused = convertible(rows[:middle], convert)
    second, more = convertible(rows[middle:], convert)
    return pa.concat_tables([first, second]), refused + more


def quarantined(
    seq: int,
    record: Decision | RewardEvent | UnitEvent,
    stage: QuarantineStage,
    error: Exception,
    experiment: str = "",
) -> QuarantinedRow:
    """A row of the log as it is set aside. What is not published is lost to the lake, so its body
    is kept; `experiment` is that of a reward's decision.
    """
    reason = f"{type(error).__name__}: {error}"
    body = _encode(record) if stage == "publish" else b""
    if isinstance(record, Decision):
        row_id, key = record.decision_id, record.experiment
        return QuarantinedRow("decision", stage, key, row_id, "", seq, reason, body)
    if isinstance(record, RewardEvent):
        row_id, decision_id = record.event_id, record.decision_id
        return QuarantinedRow("reward", stage, experiment, row_id, decision_id, seq, reason, body)
    return QuarantinedRow("event", stage, "", record.event_id, record.unit, seq, reason, body)


def repeated_rows(repeated: Mapping[Table, Sequence[RepeatedRow]]) -> list[QuarantinedRow]:
    """Rows of the lake's tables that repeat an id, as they are set aside."""
    kinds: dict[Table, RowKind] = {"decisions": "decision", "rewards": "reward", "events": "event"}
    aside = []
    for table, rows in repeated.items():
        for row in rows:
            belongs_to, row_id = (row.key[-2] if len(row.key) > 1 else ""), row.key[-1]
            seq, experiment = row.seq, row.experiment or ""
            reason = f"its id was published before, with row {row.first}, which counts"
            if row.seq == row.first:
                # The row itself is sound and stays, so nothing here may be taken for it.
                seq, experiment = -row.seq, ""
                reason = f"it is a copy of row {row.first}, which was published once more"
            aside.append(
                QuarantinedRow(
                    kinds[table], "publish", experiment, row_id, belongs_to, seq, reason, row.body
                )
            )
    return aside


def set_aside(log: Log, rows: Sequence[QuarantinedRow]) -> None:
    """Note rows in the log, and say so of each that is new."""
    if rows and log.set_aside(rows):
        for row in rows:
            _logger.warning(
                "%s %s (seq %d) was set aside, it could not be %s: %s; see view quarantine",
                row.kind,
                row.id,
                row.seq,
                _DONE[row.stage],
                row.reason[:500],
            )


def set_aside_decisions(log: Log, experiment: str) -> set[int]:
    """The `seq` of an experiment's decisions that are set aside: nobody learns from them, whatever
    it was that could not be done with them. So a fold of the log and one of the lake, where they
    are missing, reach the same.
    """
    return {row.seq for row in log.quarantine(experiment) if row.kind == "decision"}


def problems(log: Log, shown: Sequence[QuarantinedRow]) -> list[Problem]:
    """What is to be said of the quarantine as a whole, a line for each kind of row and stage; of
    the rows that are `shown` the last one is named.
    """
    # Only who publishes asks, and has the record's libraries.
    from topbill.lake import Problem

    last = {(row.kind, row.stage): row for row in shown}
    lines = []
    for (kind, stage), count in sorted(log.quarantine_counts().items()):
        message = f"{count:,} could not be {_DONE[stage]}; the others went on"
        row = last.get((kind, stage))
        if row is not None:
            message += f". The last one is {row.id} ({row.reason})"
        lines.append(Problem("quarantine", kind, stage, f"{message}. All: FROM quarantine"))
    return lines


_DONE: dict[QuarantineStage, str] = {
    "read": "read from the log",
    "publish": "published",
    "learn": "learned from",
}
