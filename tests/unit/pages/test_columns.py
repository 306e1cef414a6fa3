"""Any column of a page's catalogue as a feature of its titles: what fits, what is told, and that
training sees what serving saw.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
import yaml

from topbill import pages, spec
from topbill.catalog import Catalog
from topbill.catalog.column_features import MOST_WORDS, read_column
from topbill.domain.errors import BadData
from topbill.domain.features import Feature
from topbill.domain.records import Actions
from topbill.engine import CompiledExperiment, DecisionInput, Engine, logged_actions
from topbill.pages import CompiledPage
from topbill.pages.last_good_catalogs import LastGoodCatalogs

from ...small_page import PAGE, Home, layer

DOCS = (Path(__file__).parents[3] / "docs" / "pages.md").read_text()
FEATURES = (
    "{runtime: {type: number, min: 0, max: 240}, language: {type: category, values: [en, de]}, "
    "cast: {type: hashed, size: 16}, mood-of: {type: vector, keys: [sad, tense]}, "
    "plot: {type: hashed, size: 16}, live: {type: flag}, year: {type: number}, "
    "look: {type: embedding, length: 4, dimension: 2}, match: {type: number}}"
)


def with_columns(home: Home, seed: int = 1, features: str = FEATURES, **columns: Any) -> None:
    """The small page over a catalogue of more columns, and a titles experiment that declares them
    or those of `features`."""
    home.write(rules="", page=PAGE.replace("titles.csv", "own.parquet"))
    plain = home.catalog()
    rng, size = np.random.default_rng(seed), len(plain)
    more: dict[str, Any] = {
        "runtime": rng.integers(20, 200, size).tolist(),
        "language": rng.choice(["en", "de", "it"], size).tolist(),
        "cast": ["Tom Hanks|Meg Ryan" if one else "Ida Lupino" for one in rng.integers(0, 2, size)],
        "mood-of": [["sad"] if one else [] for one in rng.integers(0, 2, size)],
        "plot": [f"A {word}, lost." for word in rng.choice(["dog", "cat"], size)],
        "live": [bool(one) for one in rng.integers(0, 2, size)],
        "look": rng.standard_normal((size, 4)).tolist(),
    }
    table = pa.Table.from_pylist(
        [
            {"id": title, "title": title, "year": 2000 + row % 20, "genres": "comedy|drama|action"}
            for row, title in enumerate(plain.ids)
        ]
    )
    for name, column in (more | columns).items():
        table = table.append_column(name, pa.array(column))
    pa_parquet.write_table(table, home.folder / "pages" / "own.parquet")
    own = home.folder / "pages" / "home" / "titles.yaml"
    own.write_text(layer("titles", "titles", "policy: thompson, model: shared", features))


def made(home: Home, engine: Engine) -> CompiledPage:
    file = home.file()
    return CompiledPage(file, engine, file.read_catalog())


def problems(home: Home) -> str:
    ((_, verdict),) = pages.validate(home.folder, home.experiments())
    return "" if isinstance(verdict, pages.PageFile) else str(verdict)


def test_training_sees_what_serving_saw_though_the_catalogue_has_changed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Actions] = {}
    choose = Engine.choose

    def spy(
        engine: Engine, compiled: CompiledExperiment, inputs: DecisionInput, *others: Any
    ) -> Any:
        seen[inputs.decision_id] = inputs.actions
        return choose(engine, compiled, inputs, *others)

    monkeypatch.setattr(Engine, "choose", spy)
    with_columns(home)
    engine = Engine(home.experiments(), clock=lambda: 0.0)
    pages_made = [home.compose(made(home, engine), 1)]
    # Other values, and a hole in each column.
    with_columns(home, seed=2, runtime=[None, *range(59)], plot=[None] + ["a cat"] * 59)
    pages_made.append(home.compose(made(home, engine), 2))
    decisions = [d for page in pages_made for d in page.decisions if d.layer == "titles"]
    compiled = engine.find("titles")
    names = compiled.action_encoder.names
    for decision in decisions:
        again, actions = logged_actions(compiled, decision), seen[decision.decision_id]
        assert again.ids == actions.ids
        assert np.array_equal(again.features, actions.features)
        columns = dict(zip(names, np.abs(actions.features).sum(axis=0), strict=True))
        assert min(columns["runtime"], columns["language=en"], columns["mood-of:sad"]) > 0.0
        assert columns["look:0"] + columns["look:1"] > 0.0
        assert columns["mood-of:tense"] == 0.0
    logged = json.loads(bytes(decisions[-1].actions))[0]["features"]
    assert list(logged) == [feature.name for feature in compiled.experiment.action_features]
    assert len(logged["look"]) == 2
    first, last = (json.loads(bytes(decisions[i].actions)) for i in (0, -1))
    values = [{a["id"]: a["features"]["runtime"] for a in actions} for actions in (first, last)]
    assert any(values[0][title] != values[1].get(title, values[0][title]) for title in values[0])


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ("{runtme: {type: number}}", "runtme (number); expected a column of the catalogue "),
        ("{runtme: {type: number}}", "did you mean runtime?"),
        ("{'*': {type: hashed, size: 8}}", "action feature * (hashed); expected a column"),
        (
            "{plot: {type: number}}",
            "plot (number) with 60 of 60 cells that do not fit: row 1: 'A ",
        ),
        (
            "{look: {type: embedding, length: 3}}",
            "with 60 of 60 cells that do not fit: row 1: 4 numbers; expected 3",
        ),
        ("{cast: {type: category, values: [en]}}", "lists are of type vector, or hashed"),
    ],
)
def test_what_cannot_be_read_is_named(home: Home, features: str, says: str) -> None:
    with_columns(home, features=features)
    assert says in problems(home)


def test_one_cell_that_does_not_fit_is_told_and_unknown(home: Home) -> None:
    texts = [str(number) for number in range(60)]
    look = [[0.0, 1.0, 2.0, 3.0]] * 59 + [[0.5]]
    with_columns(home, runtime=["1e7", "", "long", *texts[3:]], look=look, language=["fr"] * 60)
    own = home.folder / "pages" / "home" / "titles.yaml"
    own.write_text(own.read_text().replace("number, min: 0, max: 240", "number"))
    assert problems(home) == ""
    page = made(home, Engine(home.experiments(), clock=lambda: 0.0))
    assert [note for note in page.notes if note.startswith("titles: ")] == [
        "titles: runtime is unknown of 3 of 60 titles: row 1: got 10000000.0; expected a number "
        "within ±1,000,000; row 3: got 'long'; expected a number",
        "titles: language: the column has none of en, de but fr, so that it tells no titles apart",
        "titles: look is unknown of 1 of 60 titles: row 60: got 1 numbers; expected 4",
    ]
    assert home.compose(page).answer.fallbacks == ()


def test_a_catalogue_that_loses_a_declared_column_leaves_the_last_good_one(
    home: Home, tmp_path: Path
) -> None:
    with_columns(home)
    catalogs = LastGoodCatalogs(tmp_path / "data")
    engine = Engine(home.experiments(), clock=lambda: 0.0)
    assert catalogs.compile(home.file(), engine, None).stale is None
    path = home.folder / "pages" / "own.parquet"
    pa_parquet.write_table(pa_parquet.read_table(path).drop_columns(["runtime"]), path)
    page = catalogs.compile(home.file(), engine, None)
    assert page.stale is not None
    assert "action feature runtime (number)" in page.stale.got
    assert page.title_features(engine.find("titles")).static["runtime"][0] is not None


WORDS = " ".join(f"w{number}" for number in range(100))


@pytest.mark.parametrize(
    ("feature", "cells", "expected"),
    [
        (Feature("f", "category", values=("7", "a|b")), [7, "a|b", "", None], ["7", "a|b"]),
        (
            Feature("f", "hashed", size=4),
            ["Ein Wort, ein Satz", 7],
            [["ein", "wort", "satz"], ["7"]],
        ),
        (
            Feature("f", "hashed", size=4),
            ["Ida Lupino", "A B | C||A B"],
            [["Ida Lupino"], ["A B", "C"]],
        ),
        (Feature("f", "hashed", size=4), [WORDS], [WORDS.split()[:MOST_WORDS]]),
        (
            Feature("f", "vector", keys=("a", "b")),
            ["a|c", ["b", None], '{"a": 0.5, "c": 1}', [("b", 2.0)], {"b": None}],
            [{"a": 1}, {"b": 1}, {"a": 0.5}, {"b": 2}, {}],
        ),
        (
            Feature("f", "embedding", length=2, dimension=2),
            ["[1, 0.5]", [1, 0.5], "[1]", "x", [1, None], [1, float("nan")]],
            [[1.0, 0.5]] * 2,
        ),
        (Feature("f", "flag"), ["true", False, "yes"], [True, False]),
        (Feature("f", "cycle", period=24.0), ["23", 1.5, "1_0", [1], float("inf")], [23, 1.5]),
    ],
)
def test_cells_are_read_as_declared(
    feature: Feature, cells: list[Any], expected: list[Any]
) -> None:
    column = read_column(feature, cells, range(1, len(cells) + 1))
    known = [value for value in column.values if value is not None]
    assert known == expected
    empty = sum(cell in (None, "") for cell in cells)
    assert len(column.wrong) == len(cells) - empty - len(known)


def test_csv_cells_of_a_declared_column_are_what_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "titles.csv"
    path.write_text("title,year,genres,studio,popularity\nA,2000,x,007,0.5\nB,2001,x,1e5,0.4\n")
    studio = Feature("studio", "category", values=("007",))
    assert Catalog.read(path).column(studio).values == ("007", "1e5")
    path.write_text('title,year,"genres\n' + "x" * 200_000)
    with pytest.raises(BadData, match=r"titles\.csv: "):
        Catalog.read(path)


def test_the_example_of_the_docs_is_read(home: Home) -> None:
    (shown,) = re.findall(r"```yaml\n(action_features:\n.*?)```", DOCS, flags=re.DOTALL)
    (csv,) = re.findall(r"```csv\n(.*?)```", DOCS, flags=re.DOTALL)
    features = json.dumps(yaml.safe_load(shown)["action_features"])
    with_columns(home, features=features)
    page = home.folder / "pages" / "home.yaml"
    page.write_text(
        page.read_text().replace("own.parquet", "docs.csv").replace("action, drama", "crime")
    )
    (home.folder / "pages" / "docs.csv").write_text(csv)
    assert problems(home) == ""
    titles = spec.load(home.folder / "pages" / "home" / "titles.yaml")
    catalog = Catalog.read(home.folder / "pages" / "docs.csv")
    for feature in titles.sent_action_features:
        column = catalog.column(feature)
        assert column.wrong == ()
        assert not column.is_unlisted
        assert f"`{feature.name}`" in DOCS or f"{feature.name}:" in DOCS
