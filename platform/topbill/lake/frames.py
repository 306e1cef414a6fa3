"""Whatever people keep their rows in, as one DuckDB relation: pandas, polars and every other frame,
Arrow tables, batches and streams, columns in a dict.

Arrow's PyCapsule interface (https://arrow.apache.org/docs/format/CDataInterface) is what most
libraries speak; narwhals knows those that don't, and those that put their work off.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from topbill.domain.errors import BadData, BadRequest
from topbill.lake.database import connect

EXPECTED = (
    "a pandas or polars frame, an Arrow table, batch or stream, a dict of columns, or a DuckDB "
    "relation"
)
"""What `relation_of` takes, in words."""
_VALUES = "numbers, booleans, text, dates or times"


def relation_of(data: Any) -> Any:
    """`data` as a DuckDB relation, which keeps what it reads alive. Nothing is copied but what
    cannot be read in place: columns of a dict, frames that were turned round, some text.

    Args:
        data: a pandas DataFrame; whatever has `__arrow_c_stream__` or `__arrow_c_array__` (polars,
            pyarrow's Table, RecordBatch and RecordBatchReader, ibis, …), which is read to its end;
            a dict of columns (lists, arrays, Series) of one length; a frame of another library that
            narwhals knows (a polars LazyFrame, Dask, Modin); or a DuckDB relation.

    Raises:
        BadRequest: for anything else.
        BadData: naming the first column that cannot be read.
    """
    if hasattr(data, "sql_query") and hasattr(data, "query"):
        return data
    if isinstance(data, pd.DataFrame):
        return _of_frame(data)
    if isinstance(data, Mapping):
        return _of_table(_columns(data))
    table = _arrow(data)
    if table is None:
        table = _through_narwhals(data)
    return _of_table(table)


def worked_out(relation: Any) -> Any:
    """The relation's answer as a relation: each question after this one would work it out again."""
    if hasattr(relation, "worked_out"):
        return relation.worked_out()
    return connect().from_arrow(relation.to_arrow_table())


def _arrow(data: Any) -> pa.Table | None:
    """What speaks Arrow as a table; None for what does not.

    A stream can be read but once, and an analysis looks several times, so it is read to its end.
    """
    if isinstance(data, pa.Table):
        return data
    try:
        if hasattr(data, "__arrow_c_stream__"):
            return pa.RecordBatchReader.from_stream(data).read_all()
        if hasattr(data, "__arrow_c_array__"):
            return pa.Table.from_batches([pa.record_batch(data)])
    except (pa.ArrowException, TypeError, ValueError) as error:
        # A Series or an array is a stream too, but of values instead of rows.
        raise BadData(
            "data",
            f"got {type(data).__name__}, which is no table to Arrow ({error}); expected {EXPECTED}",
        ) from error
    return None


def _through_narwhals(data: Any) -> pa.Table:
    # Here, as nobody else needs it.
    import narwhals as nw

    frame = nw.from_native(data, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect(backend="pyarrow")
    if not isinstance(frame, nw.DataFrame):
        raise BadRequest("data", f"got {type(data).__name__}; expected {EXPECTED}")
    return frame.to_arrow()


# --- Columns by name


def _columns(columns: Mapping[Any, Any]) -> pa.Table:
    """The columns as a table.

    Raises:
        BadData: for a column that is none, or of another length or index than the first.
    """
    arrays: dict[str, Any] = {}
    index: pd.Index[Any] | None = None
    for key, values in columns.items():
        name = str(key)
        arrays[name] = _column(name, values)
        if isinstance(values, pd.Series):
            # By place, rows of one Series would stand beside those of another unit.
            if index is not None and not index.equals(values.index):
                raise BadData(
                    f"data.{name}",
                    "got a Series of another index than the columns before; expected one index: "
                    "put them into one DataFrame first",
                )
            index = values.index
    lengths = {name: len(array) for name, array in arrays.items()}
    first = next(iter(lengths), "")
    for name, length in lengths.items():
        if length != lengths[first]:
            raise BadData(
                f"data.{name}",
                f"got {length} values; expected {lengths[first]}, as many as {first} has",
            )
    return pa.table(arrays)


def _column(name: str, values: Any) -> Any:
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise BadData(
            f"data.{name}", f"got {type(values).__name__}; expected a column, a value a row"
        )
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]  # a column of a matrix is a vector
    try:
        if hasattr(values, "__arrow_c_stream__") and not isinstance(values, pd.Series):
            return pa.chunked_array(values)
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise BadData(
            f"data.{name}",
            f"got {type(values).__name__} that is no column ({reason}); expected {_VALUES}, "
            "of one kind",
        ) from error


# --- Tables and frames that DuckDB reads


def _of_table(table: pa.Table) -> Any:
    """The table as a relation.

    Raises:
        BadData: naming the first column that DuckDB cannot read.
    """
    if not table.num_columns:
        raise BadData("data", "got no columns; expected some, and a row each for what was seen")
    try:
        return _seen(connect().from_arrow(table))
    except duckdb.Error:
        for i, field in enumerate(table.schema):
            try:
                _seen(connect().from_arrow(table.select([i])))
            except duckdb.Error as error:
                raise _unreadable(field.name, field.type) from error
        raise


def _of_frame(frame: pd.DataFrame) -> Any:
    """The frame as a relation.

    Raises:
        BadData: naming the first column that DuckDB cannot read.
    """
    frame = _of_one_kind(frame)
    try:
        return _seen(connect().from_df(_in_order(frame)))
    except duckdb.Error:
        for i in range(frame.shape[1]):
            column = frame.iloc[:, [i]]
            try:
                _seen(connect().from_df(_in_order(column)))
            except duckdb.Error as error:
                raise _unreadable(column.columns[0], column.dtypes.iloc[0]) from error
        raise


def _of_one_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, with each column of Python objects that are of several kinds as one of numbers or
    of text: DuckDB guesses what such a column holds from some rows, and fails in the others.
    """
    changed: dict[int, pd.Series[Any]] = {}
    for i in range(frame.shape[1]):
        column = frame.iloc[:, i]
        if column.dtype == object:
            kind = pd.api.types.infer_dtype(column, skipna=True)
            if kind == "boolean":
                changed[i] = column.astype("boolean")
            elif kind.startswith("mixed") and kind != "mixed-integer-float":
                changed[i] = _as_one_kind(column)
    if not changed:
        return frame
    frame = frame.copy(deep=False)
    for i, column in changed.items():
        frame.isetitem(i, column.array)
    return frame


def _as_one_kind(column: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers and truths as floats, all else as text; what holds several values as it is."""
    present = column.dropna()
    kinds = set(present.map(type))
    if all(issubclass(kind, Number | np.bool_) for kind in kinds):
        return column.astype("Float64")
    if any(issubclass(kind, list | dict | set | tuple | np.ndarray | bytes) for kind in kinds):
        return column
    return column.map(str, na_action="ignore")


def _unreadable(name: object, kind: object) -> BadData:
    return BadData(f"data.{name}", f"got a column of {kind}; expected {_VALUES}")


def _seen(relation: Any) -> Any:
    """The relation, whose types DuckDB has seen, which older ones put off."""
    relation.query("unit_rows", "SELECT * FROM unit_rows LIMIT 0").fetchall()
    return relation


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame; a copy where a column is read backwards, as after `frame[::-1]`, which DuckDB
    cannot."""
    for i in range(frame.shape[1]):
        column = frame.iloc[:, i]
        # Of the columns that are no NumPy arrays, only moments are read as they lie in memory.
        is_array = isinstance(column.dtype, np.dtype)
        values = column.values if is_array else getattr(column.array, "asi8", None)
        if any(step < 0 for step in getattr(values, "strides", ())):
            return frame.copy()
    return frame
