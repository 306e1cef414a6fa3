"""That every id is in a table of the lake once, whatever was appended to it: rows whose id an
earlier row has are found before anybody is shown them, and taken out.

What is appended by the log's position is there once. But a client may use an id again when the log
has forgotten it, a file may be appended twice, and others than we may write to a Delta table. So
the hashes of all ids are kept beside the tables, sorted, a file of them for each Parquet file:

    lake/ids/TABLE/….ids     CRC-32 | hash | hash | …

A publication hashes the ids of its own rows alone and looks them up in what is kept. Hashes that
are alike only raise the question; the ids themselves answer it. What is lost or damaged of them is
made anew from the Parquet files.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, write_deltalake
from numpy.typing import NDArray

from topbill.domain.decision import SEQ
from topbill.domain.sql import identifier, quoted
from topbill.lake.appending import AddedFile
from topbill.lake.database import Connection
from topbill.lake.delta import TablePlace

IDS = "ids"
"""The folder of the hashes, beside the tables."""
KEYS: Mapping[str, tuple[str, ...]] = {
    "decisions": ("decision_id",),
    "rewards": ("decision_id", "event_id"),
    "events": ("unit_type", "unit", "event_id"),
}
"""By which columns a row of each table is known."""
_TOGETHER = 100
"""Files that one query hashes."""
_MANY = 5_000
"""Rows from which on DuckDB hashes ids in less time than Python, query and all."""
_Hashes: TypeAlias = NDArray[np.uint64]


class RepeatedRow(NamedTuple):
    """A row whose id an earlier one has: where it lies, its id, its `seq` and that of the earlier
    one, and the whole row as JSON.
    """

    file: str
    place: int
    key: tuple[str, ...]
    experiment: str | None
    seq: int
    first: int
    body: bytes


class IdHashes:
    """The hashes of the ids of one table. For one writer at a time.

    Args:
        folder: Where they are kept.
        table: The table's name.
        connection: Gives the connection that computes them, the same one each time.
    """

    def __init__(self, folder: Path, table: str, connection: Callable[[], Connection]) -> None:
        self._folder = folder
        self._connection = connection
        self._keys = KEYS[table]
        # An event of a unit belongs to no experiment.
        self._is_partitioned = table != "events"
        self._known: dict[str, _Hashes] = {}

    def repeated(self, files: Sequence[str]) -> list[RepeatedRow]:
        """The rows of these Parquet files, which make up the table, whose id an earlier row has.

        Files without such rows are known from then on, and read no more.
        """
        for gone in self._known.keys() - set(files):
            del self._known[gone]
            self._path(gone).unlink(missing_ok=True)
        unknown = [file for file in files if file not in self._known]
        if not unknown:
            return []
        new = self._hashes(unknown)
        suspects, suspected = self._alike(new)
        rows: list[RepeatedRow] = []
        if len(suspects):
            rows = self._read([*suspected, *unknown], suspects)
        if not rows:
            self._known |= new
        return rows

    def without_known(self, rows: pa.Table) -> pa.Table:
        """The rows, which have a `seq` each that falls, but those whose id an earlier one of them
        has, or a row of the files in which `repeated` has found none.
        """
        connection = self._connection()
        connection.register("fresh", rows)
        query = f"SELECT {self._hash()} AS h FROM fresh"  # noqa: S608 (own names)
        hashes: _Hashes = np.sort(connection.sql(query).fetchnumpy()["h"])
        suspects, suspected = self._alike({"": hashes})
        if not len(suspects):
            return rows
        connection.register("suspects", pa.table({"h": suspects}))
        keys = ", ".join(map(identifier, self._keys))
        known = ""
        if suspected:
            known = f"""OR ({keys}) IN (
                SELECT ({keys}) FROM read_parquet([{", ".join(map(quoted, suspected))}])
                WHERE {self._hash()} IN (SELECT h FROM suspects))"""  # noqa: S608
        query = f"""
            SELECT {SEQ} FROM (
                SELECT {SEQ}, {keys},
                    row_number() OVER (PARTITION BY {keys} ORDER BY {SEQ} DESC) AS number
                FROM fresh WHERE {self._hash()} IN (SELECT h FROM suspects)
            ) WHERE number > 1 {known}"""  # noqa: S608
        repeated = pa.array(connection.sql(query).fetchnumpy()[SEQ], pa.int64())
        return rows.filter(pc.invert(pc.is_in(rows[SEQ], repeated)))

    def keep(self, files: Sequence[AddedFile], rows: pa.Table) -> None:
        """Keep the hashes of the rows that one commit put into these files, so that nobody has to
        read them there. What cannot be told apart is left to `repeated`.
        """
        if any(rows[name].null_count for name in self._keys):
            return
        hashes = self._hashes_of(rows)
        for file in files:
            is_own = np.ones(len(rows), dtype=bool)
            for column, value in file.partition.items():
                # A commit has every value as text.
                texts = rows[column].cast(pa.string())
                alike = pc.is_null(texts) if value is None else pc.equal(texts, value)
                is_own &= pc.fill_null(alike, False).to_numpy()
            if is_own.sum() == file.rows:
                _save(self._path(file.path), np.sort(hashes[is_own]))

    def _hashes_of(self, rows: pa.Table) -> _Hashes:
        """The hashes of the ids of rows, none of which is missing, in their order."""
        if len(rows) < _MANY:
            return _hashed([rows[name].to_pylist() for name in self._keys])
        connection = self._connection()
        connection.register("added", rows.select(list(self._keys)))
        query = f"SELECT {self._hash()} AS h FROM added"  # noqa: S608 (own names)
        hashes: _Hashes = connection.sql(query).fetchnumpy()["h"]
        connection.unregister("added")
        return hashes

    def _hashes(self, files: Sequence[str]) -> dict[str, _Hashes]:
        """The hashes of the ids of each file: those that are kept, or made anew."""
        hashes = {}
        for file in files:
            kept = _load(self._path(file))
            if kept is not None:
                hashes[file] = kept
        missing = [file for file in files if file not in hashes]
        for start in range(0, len(missing), _TOGETHER):
            for file, made in self._made(missing[start : start + _TOGETHER]).items():
                hashes[file] = _save(self._path(file), made)
        return hashes

    def _made(self, files: Sequence[str]) -> dict[str, _Hashes]:
        """The hashes of the ids of each file, computed by one query: what it does beside that takes
        as long as thousands of ids.
        """
        names = ", ".join(map(quoted, files))
        query = f"""SELECT filename, {self._hash()} AS h
            FROM read_parquet([{names}], filename = true)"""  # noqa: S608
        rows = self._connection().sql(query).to_arrow_table()
        hashes = rows["h"].to_numpy()
        places = pc.index_in(rows["filename"], pa.array(files)).to_numpy()
        # By file, and sorted in each.
        hashes = hashes[np.lexsort((hashes, places))]
        ends = np.cumsum(np.bincount(places, minlength=len(files)))
        return dict(zip(files, np.split(hashes, ends[:-1]), strict=True))

    def _hash(self) -> str:
        # MD5, since it is the same in every version of every library. Lengths keep (a, bc) from
        # (ab, c).
        parts = [f"length({identifier(name)}), {identifier(name)}" for name in self._keys]
        return f"(md5_number(concat_ws('|', {', '.join(parts)})) & 18446744073709551615)::UBIGINT"

    def _alike(self, new: Mapping[str, _Hashes]) -> tuple[_Hashes, list[str]]:
        """The hashes of new files that several rows have, and the known files that have some."""
        together: _Hashes = np.sort(np.concatenate(list(new.values())))
        found = [together[1:][together[1:] == together[:-1]]]
        files = []
        for file, known in self._known.items():
            both = _in_both(together, known)
            if len(both):
                found.append(both)
                files.append(file)
        return np.unique(np.concatenate(found)), files

    def _read(self, files: Sequence[str], suspects: _Hashes) -> list[RepeatedRow]:
        """The rows of these hashes whose id an earlier row has, in the order of their `seq`."""
        keys = ", ".join(map(identifier, self._keys))
        options = "union_by_name = true, filename = true, file_row_number = true"
        experiment = "NULL"
        if self._is_partitioned:
            experiment = "experiment"
            options += ", hive_partitioning = true, hive_types = {'experiment': VARCHAR}"
        connection = self._connection()
        connection.register("suspects", pa.table({"h": suspects}))
        query = f"""
            SELECT filename, file_row_number, [{keys}], {experiment}, {SEQ}, first, body
            FROM (
                SELECT *, to_json(r)::VARCHAR AS body,
                    row_number() OVER same AS number, first_value({SEQ}) OVER same AS first
                FROM read_parquet([{", ".join(map(quoted, files))}], {options}) r
                WHERE {self._hash()} IN (SELECT h FROM suspects)
                WINDOW same AS (PARTITION BY {keys} ORDER BY {SEQ}, filename, file_row_number)
            )
            WHERE number > 1 ORDER BY {SEQ}"""  # noqa: S608 (own names, quoted)
        rows = []
        for file, place, key, partition, seq, first, body in connection.sql(query).fetchall():
            rows.append(RepeatedRow(file, place, tuple(key), partition, seq, first, body.encode()))
        return rows

    def _path(self, file: str) -> Path:
        return self._folder / f"{hashlib.sha256(Path(file).name.encode()).hexdigest()[:32]}.ids"


def _hashed(columns: Sequence[Sequence[str]]) -> _Hashes:
    """The hashes of ids, column by column, as `IdHashes._hash` says them."""
    # Column by column, for there are thousands of rows and at most three of these.
    parts = [[f"{len(text)}|{text}" for text in column] for column in columns]
    texts = parts[0] if len(parts) == 1 else map("|".join, zip(*parts, strict=True))
    md5 = hashlib.md5
    digests = [md5(text.encode(), usedforsecurity=False).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype="<u8")[::2].astype(np.uint64)


def _in_both(first: _Hashes, second: _Hashes) -> _Hashes:
    """What both have, which are sorted: the fewer are looked up among the more."""
    few, many = sorted((first, second), key=len)
    if not len(few):
        return few
    places = np.searchsorted(many, few)
    places[places == len(many)] = 0
    both: _Hashes = few[many[places] == few]
    return both


def _load(path: Path) -> _Hashes | None:
    """What is kept at a path; None where nothing sound is."""
    try:
        size = path.stat().st_size
        if size < 4 or size % 8 != 4:
            return None
        if size == 4:
            return np.empty(0, dtype=np.uint64)  # which no memory can be mapped to
        with path.open("rb") as file:
            crc = int.from_bytes(file.read(4), "little")
        hashes = np.memmap(path, dtype=np.uint64, mode="r", offset=4)
    except OSError:
        return None
    return hashes if _crc(hashes) == crc else None


def _save(path: Path, hashes: _Hashes) -> _Hashes:
    """Keep hashes; returns them as they are kept, outside of memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_bytes(_crc(hashes).to_bytes(4, "little") + hashes.tobytes())
    draft.replace(path)
    kept = _load(path)
    return hashes if kept is None else kept


def _crc(hashes: _Hashes) -> int:
    return zlib.crc32(hashes.data)


def take_out(table: DeltaTable, place: TablePlace, rows: Iterable[RepeatedRow]) -> None:
    """Take rows out of the table: what lies around them is written anew without them. Raises
    DeltaError.
    """
    by_partition: dict[str | None, list[RepeatedRow]] = {}
    for row in rows:
        by_partition.setdefault(row.experiment, []).append(row)
    for experiment, own in by_partition.items():
        for together in _of_one_commit(own, _files(table, place, experiment)):
            _rewrite(table, place, experiment, together)


def _of_one_commit(
    rows: Iterable[RepeatedRow], files: Mapping[str, Mapping[str, Any]]
) -> list[list[RepeatedRow]]:
    """The rows, those together that lie in files whose spans of the log overlap: one commit writes
    all of these files anew, and a second one would look for its rows where they were before.
    """
    by_file: dict[str, list[RepeatedRow]] = {}
    for row in rows:
        by_file.setdefault(row.file, []).append(row)
    spans = {file: _span(files.get(file, {})) for file in by_file}
    together: list[list[RepeatedRow]] = []
    end = -inf
    for file in sorted(by_file, key=spans.__getitem__):
        first, last = spans[file]
        if not together or first > end:
            together.append([])
        together[-1] += by_file[file]
        end = max(end, last)
    return together


def _span(action: Mapping[str, Any]) -> tuple[float, float]:
    """The first `seq` and the last one of a file; anything where the table does not say."""
    first, last = action.get("min.seq"), action.get("max.seq")
    return (-inf, inf) if first is None or last is None else (first, last)


def _files(
    table: DeltaTable, place: TablePlace, experiment: str | None
) -> dict[str, dict[str, Any]]:
    """What the table says now of each file that may have rows of an experiment, by where it
    lies."""
    table.update_incremental()
    is_partitioned = "experiment" in table.metadata().partition_columns
    files = {}
    for action in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        if not is_partitioned or action["partition.experiment"] == experiment:
            files[f"{place.root}/{unquote(action['path'])}"] = action
    return files


def _rewrite(
    table: DeltaTable, place: TablePlace, experiment: str | None, rows: Sequence[RepeatedRow]
) -> None:
    first, last = min(row.seq for row in rows), max(row.seq for row in rows)
    condition = f"{SEQ} >= {first} AND {SEQ} <= {last}"
    columns = pa.schema(table.schema().to_arrow())
    partitions = table.metadata().partition_columns
    if "experiment" in partitions:
        own = "IS NULL" if experiment is None else f"= {quoted(experiment)}"
        condition = f"experiment {own} AND {condition}"
    places: dict[str, list[int]] = {}
    for row in rows:
        places.setdefault(row.file, []).append(row.place)
    kept = []
    for path, action in _files(table, place, experiment).items():
        begins, ends = _span(action)
        if begins > last or ends < first:
            continue
        name = path.removeprefix(f"{place.root}/")
        file = pq.ParquetFile(pa.BufferReader(place.files.read(f"{place.name}/{name}")))
        content = _without(file.read(), places.get(path, ()), first, last)
        for column in partitions:
            values = pa.array([action[f"partition.{column}"]] * len(content))
            content = content.append_column(column, values)
        kept.append(_with_columns(content, columns))
    write_deltalake(
        table,
        pa.concat_tables(kept),
        mode="overwrite",
        predicate=condition,
        commit_properties=CommitProperties(max_commit_retries=3),
    )


def _without(content: pa.Table, places: Collection[int], first: int, last: int) -> pa.Table:
    """The rows of a span of `seq` but for those at some places of their file."""
    is_kept = np.ones(len(content), dtype=bool)
    is_kept[list(places)] = False
    seq = content[SEQ]
    in_span = pc.and_(pc.greater_equal(seq, first), pc.less_equal(seq, last))
    return content.filter(pc.and_(in_span, pa.array(is_kept)))


def _with_columns(content: pa.Table, columns: pa.Schema) -> pa.Table:
    """With the table's columns in their order; older files lack some."""
    values: list[Any] = []
    for field in columns:
        if field.name in content.column_names:
            values.append(content[field.name].cast(field.type))
        else:
            values.append(pa.nulls(len(content), field.type))
    return pa.table(values, schema=columns)
