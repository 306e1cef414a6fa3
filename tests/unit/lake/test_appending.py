"""Files that Arrow writes and Delta commits are as Delta's own writer would have made them."""

from __future__ import annotations

import datetime
import re
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.decision import DECISION_COLUMNS, schema
from topbill.lake.appending import WRITER
from topbill.lake.buckets import FIELD
from topbill.lake.delta import TablePlace, files_of
from topbill.lake.files import LocalFiles
from topbill.lake.handle import CHECKPOINT_EVERY, TableHandle

TIME = pa.timestamp("us", tz="UTC")
COLUMNS = pa.schema(
    {"seq": pa.int64(), "experiment": pa.string(), "at": TIME, "eligible": pa.list_(pa.string())}
)
KEYS = [None, "", "a b", "a/b", "é%20=x", "home-artwork", "a:b?c#d&e+f'g\"h\\", "~!@$*()[]{}|<>,;`"]


def table_in(folder: Path, columns: pa.Schema = COLUMNS, *partitions: str) -> TablePlace:
    """A new table, partitioned by experiment if by nothing else."""
    place = TablePlace("t", LocalFiles(str(folder)))
    by = list(partitions) or ["experiment"]
    DeltaTable.create(place.root, schema=columns, partition_by=by)
    return place


def handle(place: TablePlace) -> TableHandle:
    """Whoever appends to the table."""
    return TableHandle(place, place.open())


def rows(keys: list[str | None], start: int = 1) -> pa.Table:
    """A row of each experiment, in that order."""
    moments = [
        datetime.datetime(2026, 1, 1, 0, 0, i % 60, i, datetime.UTC) for i in range(len(keys))
    ]
    return pa.table(
        [
            range(start, start + len(keys)),
            keys,
            moments,
            [[key] * (i % 3) for i, key in enumerate(keys)],
        ],
        schema=COLUMNS,
    )


def content(place: TablePlace) -> list[dict[str, Any]]:
    """The rows of a table as Delta itself reads them."""
    found = pa.table(place.open().to_pyarrow_table())
    rows: list[dict[str, Any]] = found.select(COLUMNS.names).sort_by("seq").to_pylist()
    return rows


def commit(place: TablePlace, version: int) -> list[dict[str, Any]]:
    """The lines of a commit."""
    text = Path(place.root, "_delta_log", f"{version:020}.json").read_bytes()
    return [msgspec.json.decode(line) for line in text.splitlines()]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from(KEYS), min_size=1, max_size=40))
def test_what_is_appended_is_what_the_table_has(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str | None]
) -> None:
    place = table_in(tmp_path_factory.mktemp("table"))
    table = handle(place)
    appended = rows(keys)
    added = table.append(appended, Transaction("log", len(keys)))
    # To Delta, a partition of an empty text has none.
    expected = [row | {"experiment": row["experiment"] or None} for row in appended.to_pylist()]
    assert content(place) == expected
    assert table.version == 1
    assert place.open().transaction_version("log") == table.position("log") == len(keys)
    assert added is not None
    counts = {file.partition["experiment"]: file.rows for file in added}
    assert counts == {key: keys.count(key) for key in keys}
    paths = [f"{place.root}/{file.path}" for file in added]
    assert sorted(paths) == table.files() == files_of(place.open(), place.root)
    assert table.values("experiment") == set(keys) - {None}


def test_folders_statistics_and_the_commit_are_as_deltas_writer_makes_them(tmp_path: Path) -> None:
    own, theirs = table_in(tmp_path / "own"), table_in(tmp_path / "theirs")
    both = rows([*KEYS, *KEYS])
    handle(own).append(both, Transaction("log", 7))
    mark = CommitProperties(app_transactions=[Transaction("log", 7)])
    write_deltalake(theirs.open(), both, mode="append", commit_properties=mark)
    ours, expected = commit(own, 1), commit(theirs, 1)
    assert folders(ours) == folders(expected)
    for folder, statistics in folders(expected).items():
        assert statistics == folders(ours)[folder]
    assert [line["txn"] for line in ours if "txn" in line] == [{"appId": "log", "version": 7}]
    (made,) = [line["commitInfo"] for line in ours if "commitInfo" in line]
    assert made["operation"] == "WRITE"
    assert made["operationParameters"]["mode"] == "Append"
    for path in files_of(own.open(), own.root):
        assert Path(path).exists()


def folders(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """By the folder of each file of a commit, what it says of the rows."""
    found = {}
    for line in lines:
        if "add" in line:
            said = msgspec.json.decode(line["add"]["stats"])
            for ends in (said["minValues"], said["maxValues"]):
                if "at" in ends:  # of which Delta's writer has but milliseconds
                    at = datetime.datetime.fromisoformat(ends["at"])
                    ends["at"] = at.replace(microsecond=at.microsecond // 1000 * 1000)
            said["nullCount"] = {n: c for n, c in said["nullCount"].items() if n in ("seq", "at")}
            found[line["add"]["path"].rpartition("/")[0]] = said
            assert unquote(line["add"]["path"]).startswith("experiment=")
    return found


def test_a_table_that_is_partitioned_twice_has_a_file_for_each_pair(tmp_path: Path) -> None:
    place = table_in(tmp_path, COLUMNS.append(FIELD), "experiment", "bucket")
    buckets = pa.array([1, 2, 1, 2], pa.int32())
    handle(place).append(
        rows(["a", "a", "b", "a"]).append_column(FIELD, buckets),
        Transaction("log", 4),
    )
    folder = re.compile(r"experiment=(.)/bucket=(.)/")
    found = [folder.search(path) for path in files_of(place.open(), place.root)]
    assert [match.groups() for match in found if match] == [("a", "1"), ("a", "2"), ("b", "1")]
    assert content(place) == rows(["a", "a", "b", "a"]).to_pylist()


def test_rows_as_a_stream_and_no_rows_at_all_are_a_commit_too(tmp_path: Path) -> None:
    place = table_in(tmp_path)
    table = handle(place)
    stream = rows(["a", "b"]).to_reader()
    assert table.append(stream, Transaction("log", 2)) is None
    assert table.append(rows([]), Transaction("log", 9)) == []
    assert place.open().transaction_version("log") == 9
    assert content(place) == rows(["a", "b"]).to_pylist()


@pytest.mark.parametrize("way", ["by a link", "by Delta", "as a stream"])
def test_of_two_that_set_the_same_applications_version_one_is_refused(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever commits, and whatever it reads before: it may see what the other has committed."""
    place = table_in(tmp_path)
    first, second = handle(place), handle(place)
    first.append(rows(["a"]), Transaction("log", 1))
    if way == "by Delta":
        monkeypatch.setattr("os.link", no_link)
    again = rows(["a"]).to_reader() if way == "as a stream" else rows(["a"])
    with pytest.raises(DeltaError):
        second.append(again, Transaction("log", 1))
    second.append(rows(["b"], start=2), Transaction("other", 1))
    assert [row["seq"] for row in content(place)] == [1, 2]


def no_link(*_: object) -> None:
    """As folders that take none do."""
    raise PermissionError("no links here")


def test_a_merge_beside_an_append_keeps_neither_from_its_commit(tmp_path: Path) -> None:
    place = table_in(tmp_path)
    table = handle(place)
    for seq in (1, 2):
        table.append(rows(["a"], start=seq), Transaction("log", seq))
    stale = place.open()
    table.append(rows(["a"], start=3), Transaction("log", 3))
    stale.optimize.compact(writer_properties=WRITER)
    table.append(rows(["a"], start=4), Transaction("log", 4))
    assert [row["seq"] for row in content(place)] == [1, 2, 3, 4]


def test_a_decisions_file_has_what_deltas_writer_would_have_in_it(tmp_path: Path) -> None:
    """The same columns of the same kinds, compressed alike, and no dictionaries of ids."""
    columns = schema(DECISION_COLUMNS)
    empty = {field.name: [None] for field in columns} | {"seq": [1], "decision_id": ["d"]}
    one = pa.table(empty, schema=columns)
    found = []
    for folder, is_own in (("own", True), ("theirs", False)):
        place = table_in(tmp_path / folder, columns)
        handle(place).append(one if is_own else one.to_reader(), Transaction("log", 1))
        (path,) = files_of(place.open(), place.root)
        file = pq.ParquetFile(path)
        group = file.metadata.row_group(0)
        chunks = [group.column(i) for i in range(group.num_columns)]
        found.append(
            {
                chunk.path_in_schema: (
                    str(file.schema.column(i)).split("logical_type")[0].split("max_", 1)[1],
                    chunk.compression,
                )
                for i, chunk in enumerate(chunks)
            }
        )
        by_name = {chunk.path_in_schema: chunk for chunk in chunks}
        assert not by_name["decision_id"].has_dictionary_page
        assert by_name["seq"].statistics is not None
        assert by_name["context"].statistics is None
    assert found[0] == found[1]


def test_a_handle_that_appends_knows_what_a_new_one_reads(tmp_path: Path) -> None:
    """Across checkpoints, merges by others, and what the library itself commits."""
    place = table_in(tmp_path)
    table, checkpoint = handle(place), Path(place.root, "_delta_log", "_last_checkpoint")
    for seq in range(1, 2 * CHECKPOINT_EVERY + 3):
        table.refresh()
        table.append(rows(["a" if seq % 3 else "b"], start=seq), Transaction("log", seq))
        if seq == 7:
            place.open().optimize.compact(writer_properties=WRITER)
        if seq == 11:
            table.table().delete("seq = 3")
        if seq in (7, 8, 11, 12, CHECKPOINT_EVERY, 2 * CHECKPOINT_EVERY + 2):
            table.refresh()
            new = handle(place)
            assert (table.version, table.files()) == (new.version, new.files())
            assert table.position("log") == new.position("log") == seq
    newest = msgspec.json.decode(checkpoint.read_bytes())["version"]
    assert 0 <= table.version - newest < CHECKPOINT_EVERY
    assert [row["seq"] for row in content(place)] == [1, 2, *range(4, 2 * CHECKPOINT_EVERY + 3)]


def test_where_a_folder_takes_no_links_delta_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = table_in(tmp_path)
    table = handle(place)
    monkeypatch.setattr("os.link", no_link)
    for seq in (1, 2):
        table.append(rows(["a b"], start=seq), Transaction("log", seq))
    assert (table.version, table.position("log")) == (2, 2)
    assert table.files() == handle(place).files()
    assert [row["seq"] for row in content(place)] == [1, 2]
    assert not list(Path(place.root, "_delta_log").glob("_commit_*"))


def test_a_crowd_that_commits_leaves_each_row_once(tmp_path: Path) -> None:
    place = table_in(tmp_path)
    handles = {name: handle(place) for name in ("x", "y", "z")}

    def fill(name: str, start: int) -> None:
        for seq in range(start, start + 8):
            while True:  # others were faster again and again
                with suppress(CommitFailedError):
                    handles[name].append(rows([name], start=seq), Transaction(name, seq))
                    break

    threads = [Thread(target=fill, args=(name, 10 * i)) for i, name in enumerate(handles)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [*range(8), *range(10, 18), *range(20, 28)]
    assert [row["seq"] for row in content(place)] == expected
