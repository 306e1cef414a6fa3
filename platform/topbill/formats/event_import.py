"""Histories from before Topbill into a data folder's lake: events of units, each once, whatever
dies in between and whatever is imported again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from topbill import lake
from topbill.domain.durable import size_and_hash
from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.profile import PROFILE_TYPE
from topbill.formats.event_rows import EventRows
from topbill.lake.tables import schemas
from topbill.log import now_micros, open_log_of
from topbill.log.unit_ids import UnitIds, unit_ids
from topbill.spec import Experiment
from topbill.spec.fields import listed
from topbill.worker.only_worker import only_worker
from topbill.worker.publisher import Publisher

_MOST_NAMED = 10
_SEPARATOR = "\x1f"
"""Between the fields of a row that an id is made of: in no id."""


class ImportedEvents(NamedTuple):
    """What became of a file: rows read, events that are new, by reason the rows that were left out
    and the first of these row by row, and columns that no event has.
    """

    rows: int
    new: int
    bad: dict[str, int]
    named: list[str]
    unread: list[str]

    @property
    def known(self) -> int:
        """Rows that were events of the folder already."""
        return self.rows - sum(self.bad.values()) - self.new


def import_events(
    source: Path,
    data: Path,
    experiments: Callable[[], Sequence[Experiment]] = tuple,
    progress: Callable[[int], None] = lambda _: None,
) -> ImportedEvents:
    """Put the events of a CSV or Parquet file into the lake of the folder `data`: columns `unit`,
    `event`, `action`, `value`, `at`, and where there are any `unit_type` and `event_id`.

    An event without an id gets one made of its row, so that the same row is the same event. Killed
    at any moment, run it again: a batch and how far it goes are one commit. No worker may be at
    work; a service knows what was imported when it starts.

    Args:
        source: The file.
        data: A data folder, new or a service's.
        experiments: Say of which type units are whose row says none, and are shown in the analytics
            database.
        progress: Called with how many rows are read.

    Raises:
        NotFound: There is no such file.
        BadData: It cannot be read, lacks a column, or has no row that can be an event.
        BadRequest: Nothing says of which type units are.
        TopbillError: A worker is at work.
        LogError: Something cannot be written.
    """
    if not source.is_file():
        raise NotFound(f"{source}: no such file")
    rows = EventRows(source)
    unit_type = None if rows.has_types else _unit_type(source, experiments())
    _, digest = size_and_hash(source)
    new = 0
    with only_worker(data):
        ids = unit_ids(data)
        with closing(open_log_of(data)) as log:
            into = lake.Lake(data)
            for batch in rows.batches():
                events = _events(batch, unit_type, ids)
                new += into.append_history(events, digest, rows.rows)
                progress(rows.rows)
            Publisher(log, into, experiments).publish()
            into.note()
    read = rows.rows + len(rows.torn)
    if rows.bad.total() == read > 0:
        raise BadData(str(source), f"no row can be an event: {'; '.join(rows.named)}")
    return ImportedEvents(read, new, dict(rows.bad), rows.named, rows.unread)


def _unit_type(source: Path, experiments: Sequence[Experiment]) -> str:
    """Of which type units are where no row says it: profile 7 is not account 7."""
    types = sorted({e.unit for e in experiments if e.unit is not None})
    if len(types) > 1:
        raise BadRequest(
            f"{source}: unit_type",
            "no such column, and the experiments have units of several types; expected one of "
            f"{listed(types, _MOST_NAMED)} in each row",
        )
    return types[0] if types else PROFILE_TYPE


def _events(batch: pa.Table, unit_type: str | None, ids: UnitIds) -> pa.Table:
    """The batch as the lake's `events`. Rows that no log gave count downwards from 0, so that none
    is taken for one of its.
    """
    units = batch["unit"].combine_chunks()
    if ids.hashed:
        # Each unit once: a hash costs more than all the rest of a row.
        encoded = units.dictionary_encode()
        stored = [ids.stored(unit) for unit in encoded.dictionary.to_pylist()]
        units = pa.array(stored, pa.string()).take(encoded.indices)
    columns = {name: batch[name] for name in ("event", "value", "action")}
    columns |= {
        "seq": pc.negate(batch["number"]),
        "unit": units,
        "unit_type": batch["unit_type"] if unit_type is None else pa.repeat(unit_type, len(batch)),
        "occurred_at": batch["at"],
        "received_at": pa.repeat(pa.scalar(now_micros(), pa.int64()), len(batch)),
    }
    made = _ids_of_rows(columns)
    given = batch["event_id"] if "event_id" in batch.column_names else None
    columns["event_id"] = made if given is None else pc.coalesce(given, made)
    schema = schemas()["events"]
    return pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)


def _ids_of_rows(columns: dict[str, pa.Array]) -> pa.Array:
    """An id for each row, the same whenever a row says the same."""
    fields = [columns[name] for name in ("unit_type", "unit", "event", "action")]
    fields += [columns["value"].cast(pa.string()), columns["occurred_at"].cast(pa.int64())]
    texts = [pc.fill_null(field.cast(pa.string()), "") for field in fields]
    joined = pc.binary_join_element_wise(*texts, _SEPARATOR)
    made = [blake2b(row.encode(), digest_size=16).hexdigest() for row in joined.to_pylist()]
    return pa.array(made, pa.string())
