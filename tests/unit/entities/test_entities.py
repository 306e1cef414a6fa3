"""Tables of features by id: what is read comes back by id, what is broken is named by row and
column, and a broken version leaves the last good one in force.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.embedding import project, rounded
from topbill.domain.entity import EntitySource
from topbill.domain.errors import BadData
from topbill.domain.features import Feature
from topbill.entities import (
    EntityStore,
    EntityTable,
    KeptTables,
    MissingVersion,
    erase_ids,
    read_table,
)
from topbill.entities.table import rows_of, table_of, to_bytes

FEATURES = (
    Feature("plan", "category", values=("basic", "premium")),
    Feature("minutes", "number", low=0.0, high=100.0),
    Feature("kids", "flag"),
    Feature("moods", "vector", keys=("calm", "tense")),
    Feature("taste", "embedding", length=3, dimension=3),
)
TABLE: dict[str, list[Any]] = {
    "profile_id": ["u2", "u1", "u3"],
    "plan": ["basic", "premium", None],
    "minutes": [12.0, 80.5, None],
    "kids": [True, False, None],
    "moods": [{"calm": 0.5, "tense": None}, {"calm": 1.0, "tense": 2.0}, None],
    "taste": [[0.1, 0.2, 0.3], [1.0, -1.0, 0.0], None],
}


def source(file: str = "viewers.parquet", table: str | None = None) -> EntitySource:
    return EntitySource("viewers", file, "profile_id", "unit", FEATURES, table)


def write(data: Path, columns: dict[str, Any], file: str = "viewers.parquet") -> None:
    path = data / "tables" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    pa_parquet.write_table(pa.table(columns), draft)
    draft.replace(path)


def looked_up(table: EntityTable, name: str) -> dict[str, Any] | None:
    row = int(table.rows([name])[0])
    return None if row < 0 else table.values(row)


def test_every_kind_of_value_is_found_by_id_and_what_is_unknown_stays_unknown(
    tmp_path: Path,
) -> None:
    write(tmp_path, TABLE)
    rows = read_table(source(), tmp_path)
    table = table_of(rows.ids, rows.texts, "v")
    assert looked_up(table, "u2") == {
        "plan": "basic",
        "minutes": 12.0,
        "kids": True,
        "moods": {"calm": 0.5},
        "taste": [0.1, 0.2, 0.3],
    }
    assert looked_up(table, "u3") == {}
    assert looked_up(table, "u4") is None
    encoded = table.encoded(FEATURES)
    assert encoded[table.rows(["u1"])[0]].tolist() == pytest.approx(
        [0, 1, 0.61, 0, 1, 2, 1, -1, 0], rel=1e-6
    )
    assert encoded[table.rows(["u4"])[0]].tolist() == [0.0] * 9


def test_csv_duckdb_and_delta_give_the_same_version_as_parquet(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    from topbill import lake

    write(tmp_path, TABLE)
    whole = read_table(source(), tmp_path)
    folder = tmp_path / "tables"
    table = pa_parquet.read_table(folder / "viewers.parquet")
    write_deltalake(folder / "delta", table)
    assert read_table(source("delta"), tmp_path) == whole
    connection = lake.connect()
    connection.execute(f"ATTACH '{folder / 'all.duckdb'}' AS own")
    connection.execute(f"CREATE TABLE own.viewers AS FROM '{folder / 'viewers.parquet'}'")
    connection.close()
    assert read_table(source("all.duckdb", table="viewers"), tmp_path) == whole
    texts = {}
    for name, values in TABLE.items():
        column: list[str | None] = []
        for value in values:
            is_json = isinstance(value, bool | list | dict)
            text = msgspec.json.encode(value).decode() if is_json else value
            column.append(None if value is None else str(text))
        texts[name] = pa.array(column, pa.string())
    pa_csv.write_csv(pa.table(texts), folder / "viewers.csv")
    assert read_table(source("viewers.csv"), tmp_path) == whole


def test_texts_are_texts_however_they_are_stored(tmp_path: Path) -> None:
    write(tmp_path, TABLE)
    whole = read_table(source(), tmp_path)
    for name in ("profile_id", "plan"):
        write(tmp_path, {**TABLE, name: pa.array(TABLE[name]).dictionary_encode()})
        assert read_table(source(), tmp_path) == whole
        write(tmp_path, {**TABLE, name: pa.array(TABLE[name], pa.large_string())})
        assert read_table(source(), tmp_path) == whole


def changed(**columns: Any) -> Callable[[Path], None]:
    return lambda data: write(data, {**TABLE, **columns})


def as_csv(text: str) -> Callable[[Path], None]:
    def make(data: Path) -> None:
        (data / "tables").mkdir()
        (data / "tables" / "viewers.csv").write_text(text)

    return make


def junk(data: Path) -> None:
    (data / "tables").mkdir()
    (data / "tables" / "viewers.parquet").write_bytes(b"PAR1 is what it begins with")


HEAD = "profile_id,plan,minutes,kids,moods,taste\n"
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "duplicate": (
        changed(profile_id=["u1", "u2", "u1"]),
        "row 3: profile_id: got 'u1'; expected every id once: row 1 has it already",
    ),
    "no key": (changed(profile_id=["u1", None, "u3"]), "row 2: profile_id: got nothing"),
    "empty key": (changed(profile_id=["u1", "u2", ""]), "row 3: profile_id: got nothing"),
    "long key": (changed(profile_id=["u1", "u" * 300, "u3"]), "row 2: profile_id: got an id of 3"),
    "fraction as key": (changed(profile_id=[1.5, 2.5, 3.5]), "profile_id: got double; expected te"),
    "NaN": (changed(minutes=[1.0, math.nan, 2.0]), "row 2: minutes: got nan; expected a finite"),
    "infinite": (changed(minutes=[1.0, 2.0, math.inf]), "row 3: minutes: got inf; expected a fini"),
    "text for a number": (changed(minutes=["1", "x", "2"]), "row 2: minutes: got 'x'; expected a"),
    "Python's number": (changed(minutes=["1", "1_0", "2"]), "row 2: minutes: got '1_0'; expected"),
    "truth for a number": (changed(minutes=[True, True, None]), "row 1: minutes: got True; expect"),
    "number for a category": (changed(plan=[1, 2, 3]), "row 1: plan: got 1; expected text"),
    "text for a truth": (changed(kids=["true", "no", None]), "row 2: kids: got 'no'; expected tru"),
    "number for a mapping": (changed(moods=[1.0, None, None]), "row 1: moods: got 1.0; expected a"),
    "NaN in a mapping": (
        changed(moods=[{"calm": math.nan}, None, None]),
        "row 1: moods: got {'calm': nan}; expected a finite",
    ),
    "short vector": (
        changed(taste=[[1.0, 2.0, 3.0], [1.0, 2.0], None]),
        "row 2: taste: got 2 numbers; expected 3",
    ),
    "NaN in a vector": (
        changed(taste=[None, [1.0, 2.0, math.nan], None]),
        "row 2: taste: got nan as number 3; expected finite",
    ),
    "null in a vector": (
        changed(taste=[None, None, [1.0, None, 2.0]]),
        "row 3: taste: got nan as number 2; expected finite",
    ),
    "huge number in a vector": (
        changed(taste=[[1.0, 2e9, 3.0], None, None]),
        "row 1: taste: got 2e+09 as number 2; expected finite",
    ),
    "numbers for vectors": (changed(taste=[1.0, 2.0, 3.0]), "taste: got double; expected lists of"),
    "mixed types": (
        as_csv(HEAD + "u1,basic,12,true,,\nu2,basic,a lot,true,,\n"),
        "viewers.csv: row 2: minutes: got 'a lot'; expected a number",
    ),
    "no JSON": (
        as_csv(HEAD + 'u1,basic,12,true,,"[1, 2"\n'),
        "viewers.csv: row 1: taste: got '[1, 2'; expected a list of 3 numbers as JSON",
    ),
    "no column": (
        lambda data: write(data, {n: v for n, v in TABLE.items() if n != "taste"}),
        "got no column 'taste'; expected it once, among profile_id, plan",
    ),
    "no row": (
        lambda data: write(data, pa.table(TABLE).slice(0, 0).to_pydict()),
        "got",
    ),
    "not a table": (junk, "expected a table as Parquet, CSV, DuckDB or Delta"),
    "no file": (lambda _: None, "got no such file; expected one in tables/"),
    "lines of two lengths": (as_csv(HEAD + "u1,basic\n"), "expected a table as Parquet, CSV"),
    "too many rows": (
        lambda data: write(
            data,
            {"profile_id": pa.array(range(2_000_001))}
            | {name: pa.nulls(2_000_001) for name in TABLE if name != "profile_id"},
        ),
        "got 2,000,001 rows; expected at most 2,000,000",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_named_by_row_and_column(name: str, tmp_path: Path) -> None:
    make, message = BROKEN[name]
    make(tmp_path)
    file = "viewers.csv" if (tmp_path / "tables" / "viewers.csv").exists() else "viewers.parquet"
    with pytest.raises(BadData) as caught:
        read_table(source(file), tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(file)


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, TABLE)
    monkeypatch.setattr("topbill.entities.reading.MOST_BYTES", 100)
    with pytest.raises(BadData, match="bytes; expected at most 100"):
        read_table(source(), tmp_path)


def store_of(data: Path) -> EntityStore:
    store = EntityStore(data)
    store.follow({("home.yaml", "viewers"): source()})
    return store


def test_a_changed_table_is_taken_over_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    write(tmp_path, TABLE)
    store = store_of(tmp_path)
    first = store.current(source())
    write(tmp_path, {**TABLE, "minutes": [99.0, 1.0, 2.0]})
    assert store.follow({("home.yaml", "viewers"): source()})
    second = store.current(source())
    assert second.version != first.version
    assert (looked_up(second, "u2") or {})["minutes"] == 99.0
    write(tmp_path, {**TABLE, "profile_id": ["u1", "u1", "u2"]})
    assert not store.follow({("home.yaml", "viewers"): source()})
    assert store.current(source()) is second
    (problem,) = store.problems.values()
    assert problem.file == "home.yaml"
    assert "row 2: profile_id: got 'u1'" in problem.message
    # After a restart, too.
    again = store_of(tmp_path)
    assert again.current(source()).version == second.version
    assert len(again.problems) == 1
    # What was in force before can still be read, and is what it was.
    assert again.at(first.version).values(0) == first.values(0)
    write(tmp_path, TABLE)
    again.follow({("home.yaml", "viewers"): source()})
    assert again.current(source()).version == first.version
    assert again.problems == {}
    lines = KeptTables(tmp_path).history()
    assert [bool(line.refused) for line in lines] == [False, False, True, False]
    assert lines[1].drift["minutes"].told
    assert not lines[1].drift["plan"].told


def test_of_several_processes_one_reads_a_file_and_the_others_take_what_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, TABLE)
    first = store_of(tmp_path)
    with monkeypatch.context() as without:
        without.delattr("topbill.entities.store.read_table")
        second = store_of(tmp_path)
    assert second.current(source()).version == first.current(source()).version
    assert looked_up(second.current(source()), "u1") == looked_up(first.current(source()), "u1")
    write(tmp_path, {**TABLE, "profile_id": ["u1", "u1", "u2"]})
    with KeptTables(tmp_path).reading(source().declaration):
        assert not first.follow({("home.yaml", "viewers"): source()})
        assert first.problems == {}
    for store in (first, second):
        store.follow({("home.yaml", "viewers"): source()})
    assert first.problems == second.problems != {}
    assert (
        first.places
        == second.places
        == {("home.yaml", "viewers"): "viewers.parquet: row 2: profile_id"}
    )


def test_ids_of_units_are_kept_as_the_data_folder_stores_them(tmp_path: Path) -> None:
    write(tmp_path, TABLE)
    store = EntityStore(tmp_path, lambda unit: f"hash of {unit}")
    store.follow({("home.yaml", "viewers"): source()})
    assert looked_up(store.current(source()), "u1") is None
    assert looked_up(store.current(source()), "hash of u1")
    for path in (tmp_path / "entities").iterdir():
        assert b'"u1"' not in path.read_bytes()
    version = store.current(source()).version
    assert KeptTables(tmp_path).rows(version)[0] == ["hash of u1", "hash of u2", "hash of u3"]


def test_only_what_no_decision_names_is_removed(tmp_path: Path) -> None:
    store = EntityStore(tmp_path)
    versions = []
    for minutes in (1.0, 2.0, 3.0, 4.0):
        write(tmp_path, {**TABLE, "minutes": [minutes, 5.0, 6.0]})
        store.follow({("home.yaml", "viewers"): source()})
        versions.append(store.current(source()).version)
    kept = KeptTables(tmp_path)
    now = kept.history()[-1].at
    assert kept.collect(set(), now + 60.0) == []
    assert kept.collect({versions[1]}, now + 90_000.0) == sorted([versions[0], versions[2]])
    assert kept.versions() == sorted([versions[1], versions[3]])
    with pytest.raises(MissingVersion, match="put it back from a backup"):
        EntityStore(tmp_path).at(versions[0])


def test_damage_is_noticed_and_mended_by_the_next_take_over(tmp_path: Path) -> None:
    write(tmp_path, TABLE)
    version = store_of(tmp_path).current(source()).version
    path = tmp_path / "entities" / f"{version}.sealed"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MissingVersion):
        EntityStore(tmp_path).at(version)
    store_of(tmp_path)
    assert len(EntityStore(tmp_path).at(version)) == 3
    # A line that was cut short is left out, and those after it are read.
    history = tmp_path / "entities" / "history.jsonl"
    history.write_bytes(history.read_bytes()[:-30])
    store_of(tmp_path)
    assert [line.version for line in KeptTables(tmp_path).history()] == [version]


def test_an_erased_id_is_in_no_kept_version(tmp_path: Path) -> None:
    write(tmp_path, TABLE)
    version = store_of(tmp_path).current(source()).version
    running = store_of(tmp_path)
    assert erase_ids(tmp_path, ["u1"]) == [version]
    running.forget()
    running.follow({("home.yaml", "viewers"): source()})
    # Neither in a service that runs, nor after a restart, as long as the file is as it was.
    for store in (running, store_of(tmp_path)):
        assert looked_up(store.current(source()), "u1") is None
        assert looked_up(store.current(source()), "u2")
    assert KeptTables(tmp_path).rows(version)[0] == ["u2", "u3"]
    assert erase_ids(tmp_path, ["u1"]) == []


def test_a_declaration_changes_with_what_it_reads(tmp_path: Path) -> None:
    other = EntitySource("audience", "viewers.parquet", "profile_id", "unit", FEATURES)
    assert other.declaration == source().declaration
    assert source("other.parquet").declaration != source().declaration


NUMBERS = st.floats(-1e6, 1e6).filter(lambda v: v == 0.0 or abs(v) > 1e-12)


@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_rounding_keeps_five_digits_and_is_done_once(values: list[float]) -> None:
    once = rounded(np.array(values))
    assert np.array_equal(rounded(once), once)
    assert np.allclose(once, values, rtol=1e-4, atol=0.0)
    assert all(float(f"{v:.5g}") == v for v in once.tolist())


def test_a_projection_keeps_likeness_and_is_the_same_everywhere() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 512))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[1] = 0.9 * vectors[0] + 0.1 * vectors[1]
    short = project(vectors, 64)
    cosine = short[0] @ short[1] / np.linalg.norm(short[0]) / np.linalg.norm(short[1])
    assert cosine == pytest.approx(0.99, abs=0.02)
    assert np.abs(short @ short.T - vectors @ vectors.T).mean() < 0.12
    # Pinned: another projection now would make nonsense of what was learned.
    assert project(np.eye(6), 2).tolist() == PINNED


PINNED = [
    [0.0, 1.2247],
    [0.0, 1.2247],
    [0.0, 0.0],
    [-1.2247, -1.2247],
    [-1.2247, 0.0],
    [1.2247, 0.0],
]

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ROWS = st.dictionaries(
    IDS,
    st.fixed_dictionaries(
        {},
        optional={
            "plan": st.sampled_from(["basic", "premium", "other", "ünï"]),
            "minutes": st.floats(-1e6, 1e6, allow_nan=False),
            "kids": st.booleans(),
            "moods": st.dictionaries(st.sampled_from(["calm", "x"]), st.floats(-9, 9), max_size=2),
            "taste": st.lists(st.floats(-9, 9).map(lambda v: round(v, 3)), min_size=3, max_size=3),
        },
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_what_is_kept_is_what_was_given(tmp_path_factory: Any, rows: dict[str, Any]) -> None:
    data = tmp_path_factory.mktemp("data")
    types = {
        "plan": pa.string(),
        "minutes": pa.float64(),
        "kids": pa.bool_(),
        "moods": pa.map_(pa.string(), pa.float64()),
        "taste": pa.list_(pa.float64()),
    }
    columns: dict[str, Any] = {"profile_id": pa.array(list(rows), pa.string())}
    for name, type_ in types.items():
        values = [row.get(name) for row in rows.values()]
        if name == "moods":
            values = [None if value is None else list(value.items()) for value in values]
        columns[name] = pa.array(values, type_)
    write(data, columns)
    read = read_table(source(), data)
    assert rows_of(to_bytes(read.ids, read.texts)) == (read.ids, read.texts)
    store = store_of(data)
    for table in (store.current(source()), store.at(store.current(source()).version)):
        for name, row in rows.items():
            assert looked_up(table, name) == row
        assert np.array_equal(table.encoded(FEATURES), store.current(source()).encoded(FEATURES))
