"""Pictures with their features: as structs, as JSON text, or in a table of their own. What can't be
is one title's pictures set aside, by row and place, and never the file refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from topbill.catalog import Catalog, Picture, read_joined
from topbill.domain.errors import BadData

STRUCTS: list[dict[str, Any]] = [
    {"url": "a.jpg", "tone": "warm", "faces": 2, "mood": {"sad": 0.5}, "embedding": [0.25, 1.0]},
    {"url": "https://cdn.example.com/żółw.webp?w=2", "id": "turtle", "tone": "cold", "own": True},
]
EXPECTED = (
    Picture(
        "t/a.jpg",
        {"tone": "warm", "faces": 2, "mood": {"sad": 0.5}, "embedding": {"0": 0.25, "1": 1}},
        {"image": "a.jpg"},
    ),
    Picture(
        "t/turtle",
        {"tone": "cold", "own": True},
        {"image": "https://cdn.example.com/żółw.webp?w=2"},
    ),
)


def catalog_of(*cells: Any) -> Catalog:
    """A catalogue of a title `t` with the first cell, and of others."""
    ids = ["t", *(f"t{number}" for number in range(1, len(cells)))]
    return Catalog(table(ids, pictures=cells), "titles.parquet")


def table(ids: list[str], **columns: Any) -> pa.Table:
    plain = {"title": ids, "year": [2000] * len(ids), "genres": ["drama"] * len(ids)}
    return pa.table({"id": ids, **plain, **{name: list(own) for name, own in columns.items()}})


def test_structs_json_text_and_a_table_of_pictures_say_the_same(tmp_path: Path) -> None:
    assert catalog_of(STRUCTS).pictures == (EXPECTED,)
    assert catalog_of(json.dumps(STRUCTS)).pictures == (EXPECTED,)

    pa_parquet.write_table(table(["t", "u"]), tmp_path / "titles.parquet")
    rows = [{"title": "t", **struct} for struct in STRUCTS] + [{"title": "gone", "url": "x.jpg"}]
    rows[0] |= {"id": None, "own": None}
    pa_parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "pictures.parquet")
    csv = "title,url,id,tone,faces,mood,embedding,own\n"
    csv += 't,a.jpg,,warm,2,"{""sad"": 0.5}","[0.25, 1.0]",\n'
    csv += "t,https://cdn.example.com/żółw.webp?w=2,turtle,cold,,,,true\ngone,x.jpg,,,,,,\n"
    (tmp_path / "pictures.csv").write_text(csv)
    for name in ("pictures.parquet", "pictures.csv"):
        joined = read_joined(tmp_path / "titles.parquet", None, tmp_path / name, None)
        catalog = Catalog(joined, "titles.parquet")
        assert catalog.pictures == (EXPECTED, ())
        assert "pictures of 1 titles that are not in the catalogue: 'gone'" in catalog.lost_pictures


def test_pictures_lie_in_a_table_of_the_catalogue_s_database(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "films.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE films AS SELECT 't' AS id, 'T' AS title, 2000 AS year, '' AS genres"
        )
        connection.execute(
            "CREATE TABLE art AS SELECT 't' AS title, 'a.jpg' AS url, 'warm' AS tone, 2 AS faces, "
            "map {'sad': 0.5} AS mood, [0.25, 1.0] AS embedding"
        )
    joined = read_joined(tmp_path / "films.duckdb", "films", None, "art")
    assert Catalog(joined, "films.duckdb").pictures == (EXPECTED[:1],)


def test_what_each_feature_holds_is_what_most_pictures_have() -> None:
    fields = catalog_of(STRUCTS).picture_fields
    assert fields == {
        "tone": "text",
        "faces": "number",
        "mood": "numbers",
        "embedding": "numbers",
        "own": "flag",
    }


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("[", "pictures: got '['; expected JSON text"),
        ('{"url": "a.jpg"}', "expected a list of names, or of structs"),
        ("[1]", "pictures[0]: got 1; expected a list of names"),
        ("[" * 3000, "expected JSON text"),
        ('[{"tone": "warm"}]', "pictures[0].url: got None; expected https://"),
        ('[{"url": 7}]', "pictures[0].url: got 7"),
        ('[{"url": "a.jpg"}, {"url": "a.jpg"}]', "one of its own: pictures[0] is the same"),
        ('[{"url": "javascript:alert(1)"}]', "pictures[0].url: got 'javascript:alert(1)'"),
        ('[{"url": "data:text/html,x"}]', "pictures[0].url"),
        ('["java\\u000ascript:alert(1)"]', "pictures[0]: got 'java\\nscript"),
        ('[{"url": "//evil.example/x.png"}]', "pictures[0].url"),
        ('[{"url": "\\\\\\\\evil.example/x.png"}]', "pictures[0].url"),
        ('[{"url": "../../etc/passwd"}]', "pictures[0].url"),
        ('[{"url": "https://user:password@cdn.example/x.png"}]', "pictures[0].url"),
        ('[{"url": "x\\u202egpj.exe"}]', "pictures[0].url"),
        ('[{"url": "a.jpg", "id": ""}]', "pictures[0].id: got ''; expected text of 1 to 128"),
        ('[{"url": "a.jpg", "faces": "two"}]', "pictures[0].faces: got 'two'; expected a number"),
        ('[{"url": "a.jpg", "faces": 1e300}]', "expected a number within ±1,000,000"),
        ('[{"url": "a.jpg", "mood": "sad"}]', "pictures[0].mood: got 'sad'; expected numbers"),
        ('[{"url": "a.jpg", "embedding": [1]}]', "got '1 numbers'; expected 2, as most"),
        ('[{"url": "a.jpg", "embedding": [1, null]}]', "expected numbers without gaps"),
        ('[{"url": "a.jpg", "own": [[["x"]]]}]', "pictures[0].own"),
        (
            json.dumps([{"url": str(n)} for n in range(10_000)]),
            "'10,000 pictures'; expected at most",
        ),
    ],
)
def test_pictures_that_can_t_be_are_set_aside_by_row_and_place(cell: str, says: str) -> None:
    good = json.dumps(STRUCTS)
    others = [f'[{{"url": "{n}.jpg", "embedding": [0, {n}]}}]' for n in range(3)]
    catalog = catalog_of(good, cell, *others)
    assert catalog.ids == ("t", "t1", "t2", "t3", "t4")
    assert catalog.set_aside == ()
    assert [len(pictures) for pictures in catalog.pictures] == [2, 0, 1, 1, 1]
    (sentence,) = catalog.without_pictures
    assert sentence.startswith("row 2, 't1': pictures")
    assert says in sentence


@pytest.mark.parametrize(
    "column",
    [pa.array([1]), pa.array([[1.5]]), pa.array([b"x"]), pa.array([{"url": "a"}])],
    ids=["number", "numbers", "bytes", "struct"],
)
def test_a_column_of_another_type_is_told_of_each_title(column: pa.Array) -> None:
    titles = table(["t"]).append_column("pictures", column)
    catalog = Catalog(titles, "titles.parquet")
    assert catalog.pictures == ((),)
    assert len(catalog.without_pictures) == 1


def test_a_table_of_pictures_that_can_t_be_joined_is_named(tmp_path: Path) -> None:
    pa_parquet.write_table(table(["t"], pictures=["a"]), tmp_path / "titles.parquet")
    (tmp_path / "pictures.csv").write_text("film,url\nt,a.jpg\n")
    with pytest.raises(BadData, match="expected one of them"):
        read_joined(tmp_path / "titles.parquet", None, tmp_path / "pictures.csv", None)
    pa_parquet.write_table(table(["t"]), tmp_path / "titles.parquet")
    with pytest.raises(BadData, match=r"pictures\.csv.*no column title"):
        read_joined(tmp_path / "titles.parquet", None, tmp_path / "pictures.csv", None)


def test_a_long_address_has_a_short_id() -> None:
    (picture,) = catalog_of([{"url": "https://cdn.example.com/" + "x" * 1_000}]).pictures[0]
    assert len(picture.id) == 2 + 24
