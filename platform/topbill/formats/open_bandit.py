"""The Open Bandit Dataset's CSV (Saito et al. 2021), read and written a batch at a time.

A row is one shown item: the decision's slate of one, its position and the user's features the
context, as text.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.csv

from topbill.domain.chance import at_most_one
from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats.compressed import TORN, open_bytes
from topbill.formats.obp import OPEN_BANDIT_COLUMNS, USER_FEATURE, only_placement
from topbill.formats.obp_columns import POSITION, ObpColumns, context_features, take_position
from topbill.formats.rows import Progress, ReadNotes, Row, timestamp
from topbill.formats.writers import Export, ExportNote, LinesWriter

_UNREADABLE = "unreadable rows"
_FLOAT = re.compile(r"[0-9]+\.0")


def read_rows(
    source: Path,
    key: str,
    skip: int,
    progress: Progress,
    notes: ReadNotes,
) -> Iterator[Row]:
    """The rows of a file after the first `skip`, in two passes: the first finds which items there
    are. Positions count from 0 here, and from 1 in the file, or from 0 where some are 0. Rows that
    cannot be read are left out, and counted, as the notes allow.
    """
    survey = _survey(source)
    number = rows = 0
    for batch in _batches(source, None):
        names = [name for name in batch.schema.names if name.startswith(USER_FEATURE)]
        times = _times(batch, source)
        for decided_at, fields in zip(times, batch.to_pylist(), strict=True):
            number += 1
            try:
                row = _row(key, number, decided_at, fields, names, survey)
            except BadData as error:
                notes.leave_out(_UNREADABLE, error)
                continue
            rows += 1
            if rows > skip:
                yield row
        progress(number, None)


class _Survey(NamedTuple):
    """What the whole file says: the items, the number of the first position, and whether items are
    numbers that a column of floats has written with a fraction of 0 (`7.0`).
    """

    items: tuple[str, ...]
    first: int
    are_floats: bool


def _survey(source: Path) -> _Survey:
    items: set[str] = set()
    positions: set[str] = set()
    for batch in _batches(source, ["item_id", "position"]):
        items.update(batch.column("item_id").unique().to_pylist())
        positions.update(batch.column("position").unique().to_pylist())
    items.discard("")
    are_floats = bool(items) and all(_FLOAT.fullmatch(item) for item in items)
    if are_floats:
        items = {item.removesuffix(".0") for item in items}
    # Items are numbers in the dataset: in their order, and not in that of their digits.
    ordered = tuple(sorted(items, key=lambda item: (len(item), item)))
    return _Survey(ordered, 0 if positions & {"0", "0.0"} else 1, are_floats)


def open_writer(export: Export) -> LinesWriter:
    """A CSV file, its header first."""
    note = ExportNote(export.target, export.survey)
    columns = note.columns

    def dump(row: Row) -> bytes:
        return csv_line(row, columns)

    return LinesWriter(export.target, note, dump, csv_line(None, columns))


def csv_line(row: Row | None, columns: ObpColumns) -> bytes:
    """A decision with one placement as a line, or the header for None; ends included.

    An item is its number in the columns, positions count from 1, the context's features are columns
    `user_feature_…`.
    """
    return _csv(_header(columns) if row is None else _fields(row, columns))


def _header(columns: ObpColumns) -> list[str]:
    features = (n if n.startswith(USER_FEATURE) else f"{USER_FEATURE}_{n}" for n in columns.names)
    return [*OPEN_BANDIT_COLUMNS, *features]


def _fields(row: Row, columns: ObpColumns) -> list[Any]:
    decision, events = row
    placed = only_placement(decision)
    context = context_features(decision)
    position = take_position(decision, context) or 0
    click = sum(event.value for event in events)
    return [
        # As the dataset writes them: a blank in place of T, and the zone as numbers.
        timestamp(decision.decided_at).replace("T", " ").replace("Z", "+00:00"),
        columns.number(decision, placed.action),
        position + 1,
        # 17 digits bring every double back.
        f"{click:.17g}",
        f"{placed.propensity:.17g}",
        *(context.get(name, "") for name in columns.names),
    ]


def _csv(fields: list[Any]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(fields)
    return out.getvalue().encode()


def _times(batch: pa.RecordBatch, source: Path) -> list[int | None]:
    """The rows' times in µs since the epoch."""
    try:
        times = batch.column("timestamp").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    except pa.ArrowException as error:
        raise BadData(
            f"{source.name}.timestamp", f"{error}; expected times as 2019-11-24 00:00:00+00:00"
        ) from None
    microseconds: list[int | None] = times.to_pylist()
    return microseconds


def _batches(source: Path, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    """The file's batches: these columns, or all."""
    try:
        with open_bytes(source) as raw:
            # Spreadsheets put a mark of byte order before the first name.
            file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            header = next(csv.reader(file), [])
        for name in columns or OPEN_BANDIT_COLUMNS:
            if name not in header:
                raise BadData(
                    f"{source.name}.{name}",
                    f"no such column; expected {', '.join(OPEN_BANDIT_COLUMNS)}",
                )
        # What looks like a number is text all the same: an item 007 is not item 7.
        types = {"click": pa.float64(), "propensity_score": pa.float64()}
        for name in header:
            if name in ("item_id", "position") or name.startswith(USER_FEATURE):
                types[name] = pa.string()
        with (
            open_bytes(source) as content,
            pyarrow.csv.open_csv(
                content,
                pyarrow.csv.ReadOptions(block_size=1 << 20, use_threads=False),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=columns, column_types=types
                ),
            ) as reader,
        ):
            yield from reader
    except (*TORN, csv.Error, pa.ArrowException) as error:
        raise BadData(
            str(source), f"cannot be read ({error}); expected an Open Bandit CSV"
        ) from None


def _row(
    key: str,
    number: int,
    decided_at: int | None,
    fields: Mapping[str, Any],
    names: list[str],
    survey: _Survey,
) -> Row:
    """One row of the file, `number` counted from 1."""
    where = f"row {number}"
    propensity, click = fields["propensity_score"], fields["click"]
    item, position = fields["item_id"], fields["position"].removesuffix(".0")
    if not item:
        raise BadData(where, "got no item_id; expected the item that was shown")
    if survey.are_floats:
        item = item.removesuffix(".0")
    propensity = None if propensity is None else at_most_one(propensity)
    if propensity is None or not 0.0 < propensity <= 1.0:
        raise BadData(where, f"got propensity_score {propensity}; expected one in (0, 1]")
    if click is None or not math.isfinite(click) or decided_at is None:
        got = f"got click {click} at {fields['timestamp']}"
        raise BadData(where, f"{got}; expected a number and a time")
    # Digits that int() would take too, such as Arabic ones, are no position.
    if not (position.isascii() and position.isdigit() and int(position) >= survey.first):
        raise BadData(where, f"got position {position!r}; expected 1, 2, …")
    decision_id = f"{key}-{number}"
    context = {POSITION: str(int(position) - survey.first)}
    context |= {name: fields[name] for name in names}
    decision = Decision(
        decision_id=decision_id,
        experiment=key,
        revision="",
        variant="logged",
        unit=decision_id,
        context=msgspec.Raw(msgspec.json.encode(context)),
        eligible=survey.items,
        slate=(Placement(0, item, propensity),),
        propensity=propensity,
        policy="imported",
        reason="policy",
        decided_at=decided_at,
    )
    if not click:
        return decision, []
    event = RewardEvent(
        decision_id=decision_id,
        event_id="click",
        event="reward",
        value=click,
        received_at=decided_at,
    )
    return decision, [event]
