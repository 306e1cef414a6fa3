"""Files of logged decisions, read a row at a time and in bounded memory."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats import arrays, arrow, ccb, dsjson, eppo
from topbill.formats.registry import Progress, quiet
from topbill.formats.validate_row import sound
from topbill.lake.exchange import read_delta

Row = tuple[Decision, list[RewardEvent]]
Names = tuple[str, ...]
_AT_ONCE = 2_000
_LARGEST_LINE = 64_000_000
_OPEN_BANDIT = ("timestamp", "item_id", "position", "click", "propensity_score")


def read(
    source: Path, chosen: str, key: str, *, skip: int = 0, progress: Progress = quiet
) -> Iterator[Row]:
    """The rows of a file or folder after the first `skip`. Raises BadData naming the line or row
    that is wrong.
    """
    if chosen == "dsjson":
        return _lines(source, _dsjson, key, skip, progress)
    if chosen == "eppo":
        return _lines(source, eppo.parse_line, key, skip, progress)
    if chosen == "open-bandit":
        return _open_bandit(source, key, skip, progress)
    if chosen in ("obp", "obp-slate"):
        return arrays.read(source, key, skip, progress)
    return _columns(source, chosen, skip, progress)


def _dsjson(line: bytes, *, experiment: str, number: int) -> Row:
    parse = ccb.parse_line if b'"_outcomes"' in line else dsjson.parse_line
    return parse(line, experiment=experiment, number=number)


def _lines(
    source: Path, parse: Callable[..., Row], key: str, skip: int, progress: Progress
) -> Iterator[Row]:
    """A row a line; blank lines, and the first `skip` others, are passed over."""
    if source.is_dir():
        raise BadData(str(source), "is a folder; expected a file of lines")
    total = source.stat().st_size
    done = rows = number = 0
    with source.open("rb", buffering=1 << 20) as file:
        while line := file.readline(_LARGEST_LINE):
            number += 1
            done += len(line)
            if not line.strip():
                continue
            rows += 1
            if rows % _AT_ONCE == 0:
                progress(done, total)
            if rows > skip:
                yield sound(parse(line, experiment=key, number=number), f"line {number}")
    progress(total, total)


def _columns(source: Path, chosen: str, skip: int, progress: Progress) -> Iterator[Row]:
    done = 0
    total = None
    if chosen == "delta":
        batches = read_delta(source, _AT_ONCE)
    else:
        batches, total = _parts(source, chosen)
    while (batch := _next(batches, source, chosen)) is not None:
        if done + batch.num_rows > skip:
            rows = enumerate(arrow.from_table(batch, done), done)
            yield from (sound(row, f"row {number}") for number, row in rows if number >= skip)
        done += batch.num_rows
        progress(done, total)


def _parts(source: Path, chosen: str) -> tuple[Iterator[pa.RecordBatch], int]:
    """The batches of a file, or of a folder's parts in order, and how many rows there are."""
    try:
        parts = sorted(source.glob(f"*.{chosen}")) if source.is_dir() else [source]
        if not parts:
            raise BadData(str(source), f"has no file called *.{chosen}; expected an export's parts")
        dataset = pyarrow.dataset.dataset(
            [str(p) for p in parts], format="ipc" if chosen == "arrow" else "parquet"
        )
        batches = dataset.to_batches(batch_size=_AT_ONCE, batch_readahead=1, fragment_readahead=1)
        return batches, dataset.count_rows()
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(source, chosen, error) from None


def _next(batches: Iterator[pa.RecordBatch], source: Path, chosen: str) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(source, chosen, error) from None


def _unreadable(source: Path, chosen: str, error: Exception) -> BadData:
    return BadData(str(source), f"cannot be read ({error}); expected {chosen}")


def _open_bandit(source: Path, key: str, skip: int, progress: Progress) -> Iterator[Row]:
    """The Open Bandit Dataset's CSV (Saito et al. 2021), in two passes: the first finds which items
    there are.

    A row is one shown item; its position (0 is the first) and the user's features are the context,
    as text.
    """
    items: set[str] = set()
    for batch in _csv(source, ["item_id"]):
        items.update(str(item) for item in batch.column(0).unique().to_pylist())
    eligible = tuple(sorted(items, key=lambda item: (len(item), item)))
    number = 0
    for batch in _csv(source, None):
        names = [n for n in batch.schema.names if n.startswith("user_feature")]
        try:
            micros = (
                batch.column("timestamp")
                .cast(pa.timestamp("us", tz="UTC"))
                .cast(pa.int64())
                .to_pylist()
            )
        except pa.ArrowException as error:
            raise BadData(
                f"{source.name}.timestamp", f"{error}; expected times as 2019-11-24 00:00:00+00:00"
            ) from None
        for at, row in zip(micros, batch.to_pylist(), strict=True):
            number += 1
            if number > skip:
                yield _shown(key, number, at, row, names, eligible)
        progress(number, None)


def _csv(source: Path, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    try:
        with source.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), [])
        missing = [name for name in columns or _OPEN_BANDIT if name not in header]
        if missing:
            raise BadData(
                f"{source.name}.{missing[0]}", f"no such column; expected {', '.join(_OPEN_BANDIT)}"
            )
        text = [n for n in header if n in ("item_id", "position") or n.startswith("user_feature")]
        kinds = {
            **dict.fromkeys(text, pa.string()),
            "click": pa.float64(),
            "propensity_score": pa.float64(),
        }
        options = pyarrow.csv.ConvertOptions(include_columns=columns, column_types=kinds)
        with pyarrow.csv.open_csv(
            source,
            pyarrow.csv.ReadOptions(block_size=1 << 20, use_threads=False),
            convert_options=options,
        ) as reader:
            yield from reader
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise BadData(
            str(source), f"cannot be read ({error}); expected an Open Bandit CSV"
        ) from None


def _shown(
    key: str, number: int, at: int | None, row: Mapping[str, Any], names: list[str], eligible: Names
) -> Row:
    p, click, place = row["propensity_score"], row["click"], row["position"]
    if p is None or not 0.0 < p <= 1.0:
        raise BadData(f"row {number}", f"got propensity_score {p}; expected one in (0, 1]")
    if click is None or not math.isfinite(click) or at is None:
        raise BadData(
            f"row {number}",
            f"got click {click} at {row['timestamp']}; expected a number and a time",
        )
    if not (place.isascii() and place.isdigit() and int(place) > 0):
        raise BadData(f"row {number}", f"got position {place!r}; expected 1, 2, …")
    item, name = row["item_id"], f"{key}-{number}"
    context = {"position": str(int(place) - 1), **{n: row[n] for n in names}}
    decision = Decision(
        decision_id=name,
        experiment=key,
        revision="",
        variant="logged",
        unit=name,
        context=msgspec.Raw(msgspec.json.encode(context)),
        eligible=eligible,
        slate=(Placement(0, item, p),),
        propensity=p,
        policy="imported",
        reason="policy",
        decided_at=at,
    )
    event = RewardEvent(
        decision_id=name, event_id="click", event="reward", value=click, received_at=at
    )
    return decision, [event] if click else []


def write_parquet(table: pa.Table, path: Path) -> None:
    """A table as a Parquet file."""
    pyarrow.parquet.write_table(table, path, compression="zstd")


def write_arrow(table: pa.Table, path: Path) -> None:
    """A table as an Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
