"""`topbill import events`: histories of before in the lake, each event once, whatever dies and
whatever is imported again; what can be no event is named by row and column.
"""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from topbill import lake
from topbill.cli import app
from topbill.domain.errors import BadData, BadRequest, NotFound, TopbillError
from topbill.domain.records import UnitEvent
from topbill.formats import event_rows
from topbill.formats.event_import import import_events
from topbill.lake import Lake
from topbill.log import LOG_FILE, open_log
from topbill.worker.damage import damage
from topbill.worker.erasure import erase_unit, find_unit
from topbill.worker.only_worker import only_worker
from topbill.worker.publisher import Publisher

from ...processes import python
from ...traces import traces

HEADER = "unit,event,action,value,at"


def write(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def stored(data: Path, columns: str = "unit, event, action, value, occurred_at") -> list[Any]:
    query = f"SELECT {columns} FROM events ORDER BY seq DESC"  # noqa: S608 (a test's own)
    return [tuple(row.values()) for row in lake.sql(data / lake.DATABASE, query).to_pylist()]


def test_rows_are_events_and_each_time_means_what_it_says(tmp_path: Path) -> None:
    noon = datetime(2021, 3, 1, 12)
    times = (
        *("2021-03-01T12:00:00Z", "2021-03-01 12:00", "2021-03-01T14:00:00.000+02:00"),
        *("1614600000", "1614600000000", "1614600000000000", "2021-03-01T12:00:00z"),
    )
    lines = [f"u{i},play,t,,{time}" for i, time in enumerate(times)]
    done = import_events(write(tmp_path / "e.csv", *lines), tmp_path / "data")
    assert (done.rows, done.new, done.known, done.bad) == (7, 7, 0, {})
    assert stored(tmp_path / "data") == [
        (f"u{i}", "play", "t", 1.0, noon) for i in range(len(times))
    ]


def test_parquet_of_numbers_and_times_is_read_as_text_would_be(tmp_path: Path) -> None:
    at = datetime(2021, 3, 1, tzinfo=UTC)
    texts = write(tmp_path / "e.csv", "7,play,12,0.5,2021-03-01", "8,stop,,1,2021-03-01")
    table = pa.table(
        {
            "at": pa.array([at, at], pa.timestamp("ns", tz="Europe/Paris")),
            "unit": pa.array([7, 8]),
            "event": pa.array(["play", "stop"]).dictionary_encode(),
            "action": pa.array([12.0, None]),
            "value": pa.array([0.5, None]),
        }
    )
    pq.write_table(table, tmp_path / "e.parquet")
    import_events(tmp_path / "e.parquet", tmp_path / "data")
    # The same rows are the same events, whatever the file's form.
    done = import_events(texts, tmp_path / "data")
    assert (done.new, done.known, len(stored(tmp_path / "data"))) == (0, 2, 2)


def test_what_can_be_no_event_is_named_by_row_and_column_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "x" * 300
    source = write(
        tmp_path / "e.csv",
        "a,play,t,1,2021-03-01",
        "b,play,t,1",
        f"{long},play,t,1,2021-03-01",
        "c,,t,1,2021-03-01",
        "d,play,t,many,2021-03-01",
        "e,play,t,1e13,2021-03-01",
        "f,play,t,1,2021-02-29",
        "g,play,t,1,1969-12-31",
        "h,play,t,1,",
        f"i,play,{long},1,2021-03-01",
        '"j\nj",play,t,1,2021-03-01',
        "k,play,t,1,2999-03-01",
    )
    command = ["import", "events", str(source), "--data", str(tmp_path / "data")]
    app(command, result_action="return_value")
    said = capsys.readouterr()
    assert "2 events of 12 rows" in said.out
    assert "left out: 4 rows, at: expected a time from 1970 to now" in said.out
    for number, what in (
        (2, "got 4 columns; expected 5"),
        (3, "unit: got 'xxx"),
        (4, "event: got nothing; expected 1 to 64"),
        (5, "value: got 'many'; expected a number"),
        (6, "value: got '1e13'"),
        (7, "at: got '2021-02-29'"),
        (8, "at: got '1969-12-31'"),
        (9, "at: got nothing"),
        (10, "action: got 'xxx"),
        (12, "at: got '2999-03-01'"),
    ):
        assert f"{source}: row {number}: {what}" in said.err
    assert [unit for unit, *_ in stored(tmp_path / "data")] == ["a", "j\nj"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"unit,event,acton,value,at\n", "expected 'action' too .did you mean acton"),
        (b"unit,event,action,value,at,at\n", "two columns 'at'"),
        (b"", "expected 'unit' too"),
        (HEADER.encode() + b"\n\xff\xfe,play,t,1,2021-03-01\n", "cannot be read"),
        (HEADER.encode() + b"\n,play,t,1,2021-03-01\n", "no row can be an event: .*row 1: unit"),
        (b"PAR1 and no more", "cannot be read"),
        (HEADER.encode("utf-16"), "cannot be read"),
    ],
)
def test_a_file_that_holds_no_events_is_a_named_error(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "e.csv").write_bytes(content)
    with pytest.raises(BadData, match=message):
        import_events(tmp_path / "e.csv", tmp_path / "data")
    with pytest.raises(NotFound, match="no such file"):
        import_events(tmp_path / "none.csv", tmp_path / "data")


def test_a_time_beyond_the_calendar_is_named_like_any_other(tmp_path: Path) -> None:
    at = pa.array([2**62, 1_600_000_000_000_000], pa.timestamp("us"))
    columns = {"unit": ["a", "b"], "event": ["play"] * 2, "action": ["t"] * 2, "value": [1.0] * 2}
    pq.write_table(pa.table({**columns, "at": at}), tmp_path / "e.parquet")
    done = import_events(tmp_path / "e.parquet", tmp_path / "data")
    (named,) = done.named
    assert "row 1: at: got 'date value out of range'; expected a time" in named
    assert done.new == 1


def test_an_event_is_known_by_its_id_else_by_its_row(tmp_path: Path) -> None:
    first = write(tmp_path / "1.csv", "a,play,t,1,2021-03-01", "a,play,t,1,2021-03-01")
    assert import_events(first, tmp_path / "data").new == 1
    header = f"{HEADER},event_id,unit_type"
    second = write(
        tmp_path / "2.csv",
        "a,play,t,1,2021-03-01,,profile_id",
        "a,play,t,1,2021-03-01,,account_id",
        "a,play,t,1,2021-03-01,e1,profile_id",
        "b,play,t,1,2021-03-01,e1,profile_id",
        "a,stop,t,1,2021-03-02,e1,profile_id",
        header=header,
    )
    done = import_events(second, tmp_path / "data")
    assert (done.new, done.known) == (3, 2)
    found = stored(tmp_path / "data", "unit, unit_type, event, length(event_id)")
    assert sorted(found) == [
        ("a", "account_id", "play", 32),
        ("a", "profile_id", "play", 2),
        ("a", "profile_id", "play", 32),
        ("b", "profile_id", "play", 2),
    ]


KILLED = """
import os, sys
from pathlib import Path
from topbill.formats import event_rows
from topbill.formats.event_import import import_events
from topbill.lake import Lake

event_rows._BATCH = event_rows._BLOCK = 100
append, calls = Lake.append_history, 0

def dying(self, *given):
    global calls
    calls += 1
    if calls > 2 and sys.argv[3] == "before":
        os._exit(9)
    new = append(self, *given)
    if calls > 2:
        os._exit(9)
    return new

Lake.append_history = dying
import_events(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_in_the_middle_and_repeated_each_event_is_there_once(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"u{i % 7},play,t{i},1,2021-03-01" for i in range(1_000)]
    source, data = write(tmp_path / "e.csv", *lines), tmp_path / "data"
    assert python(KILLED, source, data, when).returncode == 9
    there = 200 if when == "before" else 300
    monkeypatch.setattr(event_rows, "_BATCH", 100)
    monkeypatch.setattr(event_rows, "_BLOCK", 100)
    done = import_events(source, data)
    assert 0 < 1_000 - done.new <= there + 200
    assert sorted(stored(data, "action")) == sorted((f"t{i}",) for i in range(1_000))
    assert import_events(source, data).new == 0
    assert damage(data) == []


def test_a_service_s_own_events_come_after_and_are_published(tmp_path: Path) -> None:
    data = tmp_path / "data"
    import_events(write(tmp_path / "e.csv", "a,play,t,1,2021-03-01", "b,play,t,1,2021-03-01"), data)
    with closing(open_log(data / LOG_FILE)) as log:
        live = [("a", "live"), ("c", "live")]
        events = [
            UnitEvent(unit=unit, unit_type="profile_id", event_id=event_id, event="play")
            for unit, event_id in live
        ]
        log.append([], [], events)
        Publisher(log, Lake(data), tuple).publish()
    assert stored(data, "unit, seq") == [("c", 2), ("a", 1), ("a", -1), ("b", -2)]
    with only_worker(data), pytest.raises(TopbillError, match="another worker"):
        import_events(tmp_path / "e.csv", data)
    assert len(find_unit(data, "a").events) == 2
    erase_unit(data, "a")
    assert stored(data, "unit, seq") == [("c", 2), ("b", -2)]
    assert damage(data) == []


def test_units_are_stored_as_the_folder_stores_them(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "settings.yaml").write_text("hash_units: true\n")
    import_events(write(tmp_path / "e.csv", "viewer-4711,play,t,1,2021-03-01"), data)
    assert list(traces(data, "viewer-4711")) == []
    assert len(find_unit(data, "viewer-4711").events) == 1


def test_of_which_type_units_are_is_said_by_the_experiments_else_by_each_row(
    tmp_path: Path,
) -> None:
    class Named:
        def __init__(self, unit: str | None) -> None:
            self.unit = unit

    source, data = write(tmp_path / "e.csv", "a,play,t,1,2021-03-01"), tmp_path / "data"
    types: Any = [Named("viewer_id"), Named("account_id"), Named(None)]
    with pytest.raises(BadRequest, match="expected one of account_id, viewer_id"):
        import_events(source, data, lambda: types)
