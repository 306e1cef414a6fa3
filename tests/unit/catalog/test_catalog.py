"""A catalogue is read from CSV, Parquet or DuckDB; what is missing is unknown, and made up in
demonstrations only, always the same; nonsense is named.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import pytest

from topbill.catalog import Catalog, slug
from topbill.domain.errors import BadData, NotFound
from topbill.pages.candidate_table import read_table

FILMS = Path(__file__).parents[3] / "experiments" / "catalogue.csv"


def test_the_same_titles_come_from_csv_parquet_and_duckdb(home: Any, tmp_path: Path) -> None:
    csv = home.folder / "pages" / "titles.csv"
    pa_parquet.write_table(pa_csv.read_csv(csv), tmp_path / "titles.parquet")
    with duckdb.connect(str(tmp_path / "titles.duckdb")) as connection:
        connection.execute(f"CREATE TABLE films AS FROM read_parquet('{tmp_path}/titles.parquet')")
    found = [
        Catalog.read(csv),
        Catalog.read(tmp_path / "titles.parquet"),
        Catalog.read(tmp_path / "titles.duckdb", "films"),
    ]
    assert found[0].made_up == ()
    for other in found[1:]:
        assert (other.ids, other.names, other.genre_names) == (
            found[0].ids,
            found[0].names,
            found[0].genre_names,
        )
        for column in (
            "genres",
            "regions",
            "maturity",
            "added",
            "available_until",
            "popularity",
            "franchise",
        ):
            assert np.array_equal(getattr(other, column), getattr(found[0], column))
        assert other.pictures == found[0].pictures


def test_a_demonstration_makes_up_what_a_plain_list_of_films_lacks_the_same_way_every_time() -> (
    None
):
    first, again = Catalog.read(FILMS, demo=True), Catalog.read(FILMS, demo=True)
    assert len(first) == 2004
    assert {"maturity", "regions", "added", "popularity", "pictures"} <= set(first.made_up)
    assert first.ids == again.ids
    assert np.array_equal(first.added, again.added)
    assert (np.diff(first.popularity) <= 0).all()
    assert first.maturity[first.genre(["family"])].max() <= 7
    assert (first.maturity[first.genre(["horror"])] >= 12).mean() > 0.9
    assert "midnight-run-1988" in first.index


def test_region_age_and_dates_are_told_apart(home: Any) -> None:
    catalog = home.catalog()
    lets = catalog.legal("us", 7, home.now)
    assert not lets["region"][catalog.index["t04"]]
    assert not lets["maturity"][catalog.index["t03"]]
    assert not lets["availability"][catalog.index["t05"]]
    assert all(let[catalog.index["t00"]] for let in lets.values())
    assert not catalog.legal("nowhere", 99, home.now)["region"].any()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title,year\nA,1990\n", "no column genres"),
        ("title,year,genres\n", "no title"),
        ("id,title,year,genres\na,A,1990,x\na,B,1991,y\n", "'a' is there 2 times"),
        (
            "title,year,genres,popularity\nA,1990,x,much\n",
            "popularity: got 'much'; expected a number",
        ),
        ("title,year,genres,added\nA,1990,x,soon\n", "added: got 'soon'; expected a date"),
        (
            "title,year,genres,popularity\nA,1990,x,inf\n",
            "popularity: got inf; expected a number from 0 to 1",
        ),
        ("title,year,genres,maturity\nA,1990,x,-1\n", "maturity: got -1; expected a number from 0"),
        ("title,year,genres\nA,19900,x\n", "year: got 19900; expected a number from 1800"),
        ("title,year,genres\nA,,x\n", "year: got None; expected a number"),
        ("id,title,year,genres\n,A,1990,x\n", "id: got ''; expected 1 to 128 characters"),
        ("title,year,genres,year\nA,1990,x,1991\n", "'year' is there twice"),
    ],
)
def test_a_file_that_is_no_catalogue_is_told_why(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "titles.csv"
    file.write_text(text)
    with pytest.raises(BadData, match=says):
        Catalog.read(file)


MESSY = """\
id,title,year,genres,maturity,regions,popularity,added
fine,Fine,1990,drama,12,us,0.5,2026-01-01
rated,Rated,1990,drama,PG,us,0.5,2026-01-01
old,Old,,drama,12,us,0.5,2026-01-01
soon,Soon,1990,drama,12,us,0.5,soon
loud,Loud,1990,drama,12,us,11,2026-01-01
twin,One,1990,drama,0,us,0.5,2026-01-01
twin,Two,1990,drama,18,us,0.5,2026-01-01
bare,Bare,1990,,,us,,
"""


def test_a_row_that_can_be_no_title_is_set_aside_and_told(tmp_path: Path) -> None:
    file = tmp_path / "titles.csv"
    file.write_text(MESSY)
    catalog = Catalog.read(file)
    assert sorted(catalog.ids) == ["bare", "fine"]
    assert sorted(catalog.set_aside) == [
        "row 2: maturity: got 'PG'; expected a number from 0 to 99",
        "row 3: year: got None; expected a number from 1800 to 2200",
        "row 4: added: got 'soon'; expected a date such as 2026-05-01",
        "row 5: popularity: got 11.0; expected a number from 0 to 1",
        "row 6: id: got 'twin'; expected an id of its own: 'twin' is there 2 times",
        "row 7: id: got 'twin'; expected an id of its own: 'twin' is there 2 times",
    ]
    bare = catalog.features(catalog.index["bare"])
    assert bare["maturity"] is None
    assert bare["popularity"] is None


def test_pictures_that_could_be_taken_for_another_title_s_are_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "titles.csv"
    file.write_text("id,title,year,genres,pictures\na/b,A,1990,x,c\na,B,1990,x,b/c\n")
    catalog = Catalog.read(file)
    assert catalog.ids == ("a/b", "a")
    assert [len(pictures) for pictures in catalog.pictures] == [1, 0]
    assert "pictures[0]: got 'b/c'; expected a name" in catalog.without_pictures[0]


def test_nothing_is_invented(tmp_path: Path) -> None:
    """Without a column: everywhere, always, and never for kids."""
    file = tmp_path / "titles.csv"
    file.write_text("title,year,genres\nHeat,1995,crime\nToy Story,1995,family\n")
    catalog = Catalog.read(file)
    assert catalog.made_up == ()
    assert catalog.ids == ("heat-1995", "toy-story-1995")
    for region, now in (("us", 0.0), ("nowhere", 4e9)):
        grown_up, kid = catalog.legal(region, 16, now), catalog.legal(region, 15, now)
        assert all(let.all() for let in grown_up.values())
        assert not kid["maturity"].any()
    assert catalog.pictures == ((), ())
    assert catalog.franchise_names == ()
    assert catalog.features(0)["popularity"] is None


@pytest.mark.parametrize("name", ["titles.csv", "titles.parquet", "titles.duckdb"])
def test_damaged_files_are_refused_whatever_the_damage(
    home: Any, tmp_path: Path, name: str
) -> None:
    """Cut anywhere, or with bytes changed: a catalogue, or BadData that names the file, and nothing
    else.
    """
    csv = home.folder / "pages" / "titles.csv"
    file, table = tmp_path / name, "films" if name.endswith(".duckdb") else None
    if name.endswith(".csv"):
        file.write_bytes(csv.read_bytes())
    elif table is None:
        pa_parquet.write_table(pa_csv.read_csv(csv), file)
    else:
        with duckdb.connect(str(file)) as connection:
            connection.execute(f"CREATE TABLE films AS FROM read_csv('{csv}')")
    whole = file.read_bytes()
    rng = np.random.default_rng(5)
    for trial in range(60):
        damaged = bytearray(whole)
        if trial % 2:
            damaged = damaged[: int(rng.integers(0, len(whole)))]
        else:
            for at in rng.integers(0, len(whole), 12):
                damaged[at] = int(rng.integers(0, 256))
        file.write_bytes(damaged)
        with contextlib.suppress(BadData):
            assert len(Catalog.read(file, table)) > 0


def test_lists_may_be_lists(home: Any, tmp_path: Path) -> None:
    """Parquet and DuckDB have columns of lists; a CSV file has bars."""
    plain = pa_csv.read_csv(home.folder / "pages" / "titles.csv").to_pylist()
    rows = [
        {**row, **{n: row[n].split("|") for n in ("genres", "regions", "pictures")}}
        for row in plain
    ]
    pa_parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "titles.parquet")
    found, catalog = Catalog.read(tmp_path / "titles.parquet"), home.catalog()
    assert (found.genre_names, found.region_names) == (catalog.genre_names, catalog.region_names)
    assert np.array_equal(found.genres, catalog.genres)
    assert found.pictures == catalog.pictures


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="expected a catalogue"):
        Catalog.read(tmp_path / "titles.csv")


def test_ids_are_made_of_plain_letters() -> None:
    assert slug("  Amélie & Co.: Part II ") == "amelie-co-part-ii"
    assert slug("???") == "x"


PLAIN = "title,year,genres\n" + "".join(f"Film {n},{1990 + n},drama\n" for n in range(6))


def test_a_row_of_too_few_or_too_many_cells_is_set_aside_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    text = PLAIN.replace("Film 1,1991,drama", "Film 1,1991").replace("1993", "1993,a,b")
    file.write_text(text.replace("1995", "soon"))
    catalog = Catalog.read(file)
    assert catalog.names == ("Film 0", "Film 2", "Film 4")
    told = "; ".join(catalog.set_aside)
    assert "row 2: got 2 cells ('Film 1,1991'); expected 3" in told
    assert "row 4: got 5 cells" in told
    assert "row 6: year: got 'soon'" in told


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (PLAIN.replace("genres", "genres,more").encode(), "6 of 6 rows: row 1: got 3 cells"),
        (PLAIN.replace("Film 2", '"Film 2').encode(), "CSV parse error"),
        (PLAIN.encode()[:-8], "it is cut off: row 6: got 2 cells"),
        (PLAIN.replace(",", ";").encode(), "among 'title;year;genres'.*commas, and not by ';'"),
        (PLAIN.replace("Film 2", "Fête").encode("latin-1"), r"line 4: b'F\\xeate.* no UTF-8"),
        (PLAIN.encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        (PLAIN.replace("title", "Title").encode(), "no column title among 'Title', 'year'"),
    ],
)
def test_a_file_that_has_not_come_apart_as_it_should_is_told(
    tmp_path: Path, data: bytes, told: str
) -> None:
    (tmp_path / "films.csv").write_bytes(data)
    with pytest.raises(BadData, match=told):
        Catalog.read(tmp_path / "films.csv")


def test_a_column_that_is_there_twice_is_told_of_parquet_too(tmp_path: Path) -> None:
    columns = [pa.array(["A"]), pa.array(["B"]), pa.array([1990]), pa.array(["drama"])]
    names = ["title", "title", "year", "genres"]
    pa_parquet.write_table(pa.Table.from_arrays(columns, names), tmp_path / "films.parquet")
    with pytest.raises(BadData, match="column 'title' is there twice"):
        Catalog.read(tmp_path / "films.parquet")


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("genres", [None, [{"name": "comedy"}]], "row 2: genres: got [{'name': 'comedy'}]; "),
        ("genres", [None, [["comedy"]]], "a list of texts"),
        ("regions", [{"c": "us"}, None], "row 1: regions: got {'c': 'us'}; expected texts"),
        ("title", [{"en": "A"}, None], "row 1: title: got {'en': 'A'}; expected a text"),
        ("title", ["A", "x" * 10**6], "row 2: title: got 'xxx"),
        ("genres", ["drama", "x" * 10**6], "expected words of at most 256 characters"),
        ("id", [b"a", None], "row 1: id: got b'a'; expected a text"),
        ("franchise", [["saga"], None], "row 1: franchise: got ['saga']; expected a text"),
        (
            "added",
            pa.array([2**62, 0], pa.timestamp("us")),
            "row 1: added: got 'date value out of range'; expected a date",
        ),
    ],
)
def test_what_parquet_can_hold_and_a_catalogue_cannot_is_told_by_row(
    tmp_path: Path, column: str, values: Any, says: str
) -> None:
    sound = {"id": ["a", "b"], "title": ["A", "B"], "year": [1990, 2000], "genres": ["x", "y"]}
    pa_parquet.write_table(pa.table({**sound, column: values}), tmp_path / "titles.parquet")
    try:
        told = "; ".join(Catalog.read(tmp_path / "titles.parquet").set_aside)
    except BadData as error:
        told = str(error)
    assert says in told


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("c.csv", b"title,title,score\na,b,1\n", "column 'title' is there twice"),
        ("c.csv", "title,score\n\xe9,1\n".encode("latin-1"), "line 2: .* is no UTF-8"),
        ("c.parquet", {"title": ["a"], "score": pa.array([2**62], pa.timestamp("us"))}, None),
    ],
)
def test_tables_of_candidates_are_told_likewise(
    tmp_path: Path, name: str, data: Any, says: str | None
) -> None:
    if isinstance(data, bytes):
        (tmp_path / name).write_bytes(data)
    else:
        pa_parquet.write_table(pa.table(data), tmp_path / name)
    if says is None:
        (told,) = read_table(tmp_path / name, None).set_aside
        assert told.startswith("row 1: score is 'date value out of range'; expected a number")
        return
    with pytest.raises(BadData, match=says):
        read_table(tmp_path / name, None)
