"""Buckets of units: the same for rows that come at once and for rows that come as a stream."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from topbill.lake.buckets import BUCKET, bucket, with_buckets

_UNITS = st.lists(st.none() | st.text(max_size=5), max_size=20)


@given(units=_UNITS, size=st.integers(1, 7))
def test_a_stream_has_the_buckets_that_a_table_has(units: list[str | None], size: int) -> None:
    ids = [f"d{i}" for i in range(len(units))]
    rows = pa.table(
        {"unit": pa.array(units, pa.string()), "decision_id": pa.array(ids, pa.string())}
    )
    stream = pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=size))

    table = with_buckets(rows)

    expected = [bucket(id_ if unit is None else unit) for unit, id_ in zip(units, ids, strict=True)]
    assert table[BUCKET].to_pylist() == expected
    assert with_buckets(stream).read_all().equals(table)
