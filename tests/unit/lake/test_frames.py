"""Rows come in whatever people keep them in, and are the same rows in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from topbill import ab, lake, ope
from topbill.domain.errors import BadData, BadRequest
from topbill.lake.frames import relation_of

ROWS: dict[str, list[Any]] = {
    "u": [*range(200)],
    "arm": ["c", "t"] * 100,
    "y": [1.0, 2.0, 3.0, 2.5, 2.0, 4.0, 2.0, 3.5] * 25,
}
FRAME = pd.DataFrame(ROWS)
TABLE = pa.table(ROWS)


class Stream:
    """A frame of a library that speaks Arrow and that nobody here has heard of."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


class OneBatch:
    """The same in one array."""

    def __init__(self, table: pa.Table) -> None:
        self.batch = table.to_batches()[0]

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.batch.__arrow_c_array__(requested_schema)


CONTAINERS: dict[str, Callable[[], Any]] = {
    "pandas": lambda: FRAME,
    "pandas, backwards twice": lambda: FRAME[::-1][::-1],
    "pandas with Arrow's types": lambda: FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "table": lambda: TABLE,
    "record batch": lambda: TABLE.to_batches()[0],
    "record batch reader": lambda: TABLE.to_reader(max_chunksize=30),
    "stream": lambda: Stream(TABLE),
    "array": lambda: OneBatch(TABLE),
    "narwhals frame": lambda: nw.from_native(FRAME),
    "narwhals lazy frame": lambda: nw.from_native(TABLE).lazy(),
    "relation": lambda: lake.connect().from_arrow(TABLE),
    "dict of lists": lambda: ROWS,
    "dict of arrays": lambda: {name: np.array(values) for name, values in ROWS.items()},
    "dict of Series": lambda: dict(FRAME.items()),
    "dict of Arrow": lambda: {name: TABLE[name] for name in ROWS},
    "dict of a matrix's column": lambda: {**ROWS, "y": np.array(ROWS["y"]).reshape(-1, 1)},
}


@pytest.fixture(params=CONTAINERS.values(), ids=CONTAINERS.keys())
def data(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_every_container_holds_the_same_rows(data: Any) -> None:
    relation = relation_of(data)
    assert relation.columns == ["u", "arm", "y"]
    assert relation.fetchall() == list(zip(*ROWS.values(), strict=True))
    # Twice, as an analysis looks several times.
    assert relation.query("unit_rows", "SELECT sum(y) FROM unit_rows").fetchall() == [(500.0,)]


def test_compare_reads_every_container(data: Any) -> None:
    table = ab.compare(data, unit="u", variant="arm", control="c", metrics={"y": ab.Mean("y")})
    assert table.loc[0, ["value", "control_value", "n"]].tolist() == [3.0, 2.0, 100]


def test_analyse_reads_every_container(data: Any) -> None:
    design = ab.Design(
        key="k",
        control="c",
        shares={"c": 0.5, "t": 0.5},
        metrics=(ab.MetricDesign(name="y", weight=1.0),),
    )
    result = ab.analyse(data, design, unit="u", variant="arm", day=None)
    assert result.comparisons[0].difference == 1.0


def test_off_policy_estimates_read_every_container(data: Any) -> None:
    by_column = {"reward": "y", "propensity": "0.5", "target": "CAST(arm = 't' AS DOUBLE)"}
    result = ope.estimate_table(data, **by_column, estimators=("ips", "snips"))
    assert {name: e.value for name, e in result.items()} == {"ips": 3.0, "snips": 3.0}


def test_what_is_no_table_is_refused_by_name() -> None:
    for value, name in [([1, 2], "list"), (3, "int"), (None, "NoneType"), ("a.csv", "str")]:
        with pytest.raises(BadRequest, match=f"data: got {name}; expected a pandas or polars"):
            relation_of(value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, 2], "b": [1]}, r"data.b: got 1 values; expected 2, as many as a has"),
        ({"a": 3}, r"data.a: got int; expected a column"),
        ({"a": "text"}, r"data.a: got str; expected a column"),
        ({"a": [1, "x"]}, r"data.a: got list that is no column"),
        ({"a": np.zeros((2, 2))}, r"data.a: got ndarray that is no column"),
        ({"a": pd.Series([1, 2]), "b": pd.Series([1, 2], index=[1, 0])}, "data.b.*another index"),
        ({}, "data: got no columns"),
        (pa.chunked_array([[1, 2]]), "data: got ChunkedArray, which is no table"),
    ],
)
def test_columns_that_are_none_are_named(columns: Any, message: str) -> None:
    with pytest.raises(BadData, match=message):
        relation_of(columns)


def test_arrow_columns_that_cannot_be_read_are_named() -> None:
    odd = pa.array([b"1", b"2"]).cast(pa.binary())
    extension = pa.table({"a": [1, 2], "odd": pa.array([None, None], pa.month_day_nano_interval())})
    assert relation_of(extension).columns == ["a", "odd"]
    with pytest.raises(BadData, match=r"data.odd: got a column of decimal256"):
        relation_of(pa.table({"a": [1], "odd": pa.array([None], pa.decimal256(60, 2))}))
    assert relation_of({"odd": odd}).fetchall() == [(b"1",), (b"2",)]
