"""Which version of a table is its newest."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from topbill.lake.delta import TablePlace, is_newest
from topbill.lake.files import LocalFiles

ROWS = pa.table({"experiment": ["a b", "a b", None], "seq": [1, 2, 3]})


@pytest.fixture
def place(tmp_path: Path) -> TablePlace:
    """A table with a checkpoint every two commits."""
    place = TablePlace("t", LocalFiles(str(tmp_path)))
    DeltaTable.create(
        place.root,
        schema=ROWS.schema,
        partition_by=["experiment"],
        configuration={"delta.checkpointInterval": "2"},
    )
    return place


def append(place: TablePlace, through: int) -> DeltaTable:
    table = place.open()
    mark = CommitProperties(app_transactions=[Transaction("log", through)])
    write_deltalake(table, ROWS, mode="append", commit_properties=mark)
    return table


def test_the_version_of_a_handle_is_the_newest_until_somebody_commits(place: TablePlace) -> None:
    assert is_newest(place, 0)
    for through in range(1, 5):
        version = append(place, through).version()
        assert is_newest(place, version)
        assert not is_newest(place, version - 1)


def test_a_commit_that_a_checkpoint_has_taken_the_place_of_is_seen_too(place: TablePlace) -> None:
    for through in range(1, 4):
        append(place, through)
    (Path(place.root) / "_delta_log" / f"{1:020}.json").unlink()
    assert not is_newest(place, 0)


def test_a_damaged_checkpoint_says_nothing(place: TablePlace) -> None:
    version = append(place, 1).version()
    (Path(place.root) / "_delta_log" / "_last_checkpoint").write_bytes(b"{")
    assert not is_newest(place, version)
