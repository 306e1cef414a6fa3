"""A table in a file, however it is written, is the same table; and what cannot be one is refused by
name.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.errors import BadData, NotFound, TopbillError
from topbill.lake.plain_files import Kind, read_table

WANTED: dict[str, Kind] = {"id": "label", "arm": "label", "minutes": "number"}
ROWS = [("007", "old", 1234.5), ("8", "new", -0.25), ("9", "old", None)]
FRAME = pd.DataFrame(ROWS, columns=["id", "arm", "minutes"])


def csv(**options: Any) -> bytes:
    return FRAME.to_csv(index=False, **options).encode(options.get("encoding", "utf-8"))


def parquet(path: Path) -> None:
    FRAME.to_parquet(path)


WRITTEN: dict[str, bytes | Callable[[Path], None]] = {
    "commas": csv(),
    "tabs": csv(sep="\t"),
    "bars": csv(sep="|"),
    "semicolons and decimal commas": csv(sep=";", decimal=","),
    "byte order mark": b"\xef\xbb\xbf" + csv(),
    "all quoted": csv(quoting=1, na_rep=""),
    "lines of Windows": csv(lineterminator="\r\n"),
    "UTF-16": csv(sep="\t").decode().encode("utf-16"),
    "packed": gzip.compress(csv(), mtime=0),
    "Excel's first line": b"sep=;\r\n" + csv(sep=";", decimal=","),
    "lines of two kinds": csv().replace(b"\n", b"\r\n", 2),
    "spaces around names": b"id , arm, minutes\n007, old, 1234.5\n8,new ,-0.25\n9,old,NA\n",
    "thousands": b'id,arm,minutes\n007,old,"1,234.5"\n8,new,-0.25\n9,old,\n',
    "thousands and decimals": b"id;arm;minutes\n007;old;1.234,5\n8;new;-0,25\n9;old;n/a\n",
    "no last line's end": csv().rstrip(b"\n"),
    "parquet": parquet,
    "arrow": lambda path: FRAME.to_feather(path),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN.keys())
def test_the_same_table_however_it_is_written(
    written: bytes | Callable[[Path], None], tmp_path: Path
) -> None:
    # The content says what it is, not the name.
    path = tmp_path / "table"
    if isinstance(written, bytes):
        path.write_bytes(written)
    else:
        written(path)
    table = read_table(path, WANTED)
    assert table.relation.fetchall() == ROWS
    assert table.rows == 3
    assert table.excluded == {}


@settings(max_examples=20)
@given(
    st.lists(
        st.floats(-1e12, 1e12, allow_nan=False, allow_infinity=False).map(lambda x: round(x, 4)),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from([(",", "."), (";", ","), (";", "."), ("\t", "."), ("\t", ",")]),
)
def test_numbers_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], marks: tuple[str, str]
) -> None:
    sep, decimal = marks
    path = tmp_path_factory.mktemp("numbers") / "t.csv"
    frame = pd.DataFrame({"id": range(len(values)), "y": values})
    frame.to_csv(path, index=False, sep=sep, decimal=decimal, float_format="%.4f")
    read = read_table(path, {"y": "number"}).relation.fetchall()
    assert [y for (y,) in read] == pytest.approx(values, abs=1e-4, rel=1e-12)


def test_rows_without_a_name_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('id,arm,minutes\n0,old,1\n,old,2\n"",new,3\nFalse,,4\n"a,b",new,5\n')
    table = read_table(path, WANTED, required=("id", "arm"))
    assert table.relation.fetchall() == [("0", "old", 1.0), ("a,b", "new", 5.0)]
    assert table.excluded == {"no id": 2, "no arm": 1}
    assert table.rows == 5


def test_numbers_of_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\nTRUE,1e5,inf\nfalse,-2E-3,NaN\nyes,+3,1e400\nNo,null,7\n")
    columns: dict[str, Kind] = {"a": "number", "b": "number", "c": "number"}
    rows = read_table(path, columns).relation.fetchall()
    assert [row[0] for row in rows] == [1.0, 0.0, 1.0, 0.0]
    assert [row[1] for row in rows] == [1e5, -2e-3, 3.0, None]
    assert [row[2] for row in rows] == [float("inf"), None, float("inf"), 7.0]


@pytest.mark.parametrize(
    ("written", "order"),
    [(["10", "9", "201"], [9, 10, 201]), (["2.5", "10", "2"], ["10", "2", "2.5"])],
)
def test_whole_numbers_come_in_their_order(
    written: list[str], order: list[object], tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["week", *written]))
    rows = read_table(path, {"week": "order"}).relation.order("week").fetchall()
    assert [week for (week,) in rows] == order


def test_ids_that_missing_ones_made_floats_are_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"id": [3.0, None, 4.0]}).to_parquet(path)
    table = read_table(path, {"id": "label"}, required=("id",))
    assert table.relation.fetchall() == [(3,), (4,)]


def test_times_count_their_offset(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("at,day,n\n2026-03-01T00:30:00+02:00,2026-03-01,5\n2026-03-01 12:00Z,,6\n")
    columns: dict[str, Kind] = {"at": "time", "day": "time", "n": "time"}
    rows = [[str(x) for x in row] for row in read_table(path, columns).relation.fetchall()]
    assert rows == [
        ["2026-02-28 22:30:00", "2026-03-01", "5.0"],
        ["2026-03-01 12:00:00", "None", "6.0"],
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"\n\n  \n", "got an empty file"),
        (b"id,arm,minutes\n", "got no rows below the header"),
        (b"user,arm,minutes\n1,old,2\n", "id: no such column; the file has user, arm, minutes$"),
        (b"1,old,2\n3,new,4\n", "id: no such column; the file has 1, old, 2"),
        (b"ids,arm,minutes\n1,old,2\n", "did you mean ids"),
        (b"id,arm,minutes,minutes\n1,old,2,3\n", "minutes: got 2 columns of that name"),
        (b"id,arm,minutes\n1,old,2\n2,new\n", "line 3: got 2 values; expected 3"),
        (b"id,arm,minutes\n1,old,2\n2,new,3,4\n", "line 3: got 4 values; expected 3"),
        (b'id,arm,minutes\n1,old,"2\n2,new,3\n', "a quotation mark that nothing closes"),
        (b"id,arm,minutes\n1,old,2\n2,new,12 min\n", "minutes: got row 2: '12 min' .*numbers"),
        (b"id;arm;minutes\n1;old;2,5\n2;new;3.5\n", "minutes: got row .*expected numbers"),
        (b'id,arm,minutes\n1,old,"1,234"\n2,new,"2,345"\n', "'1,234', whose comma may mark"),
        (bytes(range(256)) * 20, "bytes that are no text"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 20, "bytes that are no text"),
        (b"PK\x03\x04 whatever", "Excel workbook"),
        (b"PAR1 broken", "cannot be read"),
        (b"ARROW1 broken", "cannot be read"),
        (gzip.compress(csv(), mtime=0)[:-12], "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(TopbillError, match=message) as caught:
        read_table(path, WANTED).relation.fetchall()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="got a folder"):
        read_table(tmp_path, WANTED)
    with pytest.raises(NotFound, match="no such file"):
        read_table(tmp_path / "absent.csv", WANTED)


def test_columns_of_several_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"id": [[1], [2]]}), path)
    with pytest.raises(BadData, match=r"id: got a column of BIGINT\[\]; expected one value"):
        read_table(path, {"id": "label"})


@settings(max_examples=60)
@given(content=st.binary(max_size=300) | st.text("id,arm;minutes\n\t\"'1.5-eé\x00", max_size=80))
def test_no_bytes_make_a_traceback(
    content: bytes | str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "t"
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(b"id,arm,minutes\n" + raw if len(raw) % 2 else raw)
    with suppress(TopbillError):
        read_table(path, WANTED, required=("id", "arm")).relation.fetchall()
