"""Rows of a candidate signal that an installed package brings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.installed_package import on_the_path, write_package

from topbill import pages
from topbill.domain.errors import SpecError
from topbill.pages import CompiledPage

from ...small_page import PAGE, ROWS, TITLE_FEATURES, Home, layer

CODE = '''
import time
import msgspec, numpy as np
from topbill.plugins import OwnSignal


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sign: float = 1.0


class Near(OwnSignal):
    """Titles of years near those that were watched."""

    Params = Params
    how = ""

    def scores(self, viewer):
        if Near.how == "raises":
            raise KeyError("embedding")
        if Near.how == "slow":
            time.sleep(0.05)
        years = np.array(self.titles.years)
        if not viewer.watched:
            return np.full(len(years), np.nan)
        scores = -self.params.sign * np.abs(years - years[list(viewer.watched)].mean())
        answers = {"short": scores[1:], "inf": np.full(len(years), np.inf), "none": None}
        return answers.get(Near.how, scores)
'''
RULES = "rules:\n  - {rule: block, titles: [t01]}\n"


@pytest.fixture(autouse=True)
def package(tmp_path: Path) -> Iterator[None]:
    write_package(tmp_path, CODE, {"near": "acme_models:Near"}, "topbill.signals")
    with on_the_path(tmp_path):
        yield


def their_page(home: Home, row: str = "signal: near", budget: int = 9000) -> CompiledPage:
    own = f"sources:\n  theirs: {{source: external, {row}}}\n"
    text = PAGE.replace("sources:\n", own).replace("count: 3}", "count: 5}")
    home.write(RULES, text.replace("budget_ms: 9000", f"budget_ms: {budget}"))
    folder = home.folder / "pages" / "home"
    actions = ROWS[:-1] + ", {id: theirs}]"
    (folder / "rows.yaml").write_text(layer("rows", "rows", "policy: uniform", actions=actions))
    features = TITLE_FEATURES[:-1] + ", score: {type: number}}"
    (folder / "titles.yaml").write_text(
        layer("titles", "titles", "policy: fixed, order: []", features)
    )
    return home.compiled_page()


def row_of(page: CompiledPage, home: Home, **asked: object) -> list[str]:
    made = home.compose(page, **asked)
    rows = {row.row: [tile.title for tile in row.titles] for row in made.answer.rows}
    return rows.get("theirs", [])


def test_the_row_has_the_best_that_rules_allow_and_policies_are_told_the_score(home: Home) -> None:
    page = their_page(home)
    made = home.compose(page, watched=["t02"])
    (decision,) = [d for d in made.decisions if d.decision_id == "page-0:theirs"]
    # t01 is blocked, and t04 German.
    assert decision.eligible[:2] == ("t03", "t00")
    assert not {"t01", "t02", "t04"} & set(decision.eligible)
    offered = {a["id"]: a["features"]["score"] for a in json.loads(bytes(decision.actions))}
    assert offered["t00"] == -2.0
    assert made.answer.fallbacks == ()
    assert row_of(page, home, watched=["t02"], candidates={"theirs": [{"title": "t50"}]}) == ["t50"]
    far = their_page(home, "signal: near, with: {sign: -1}")
    assert row_of(far, home, watched=["t02"])[0] > "t50"
    assert row_of(page, home) == [], "it says nothing of a viewer who watched nothing"


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("raises", "acme-models 1.2: near: scores: KeyError: 'embedding'"),
        ("short", "scores: shape (59,); expected (60,), one per title"),
        ("inf", "scores: a number beyond 1e9"),
        ("none", "scores: shape (); expected (60,)"),
    ],
)
def test_one_that_fails_leaves_its_row_out_and_is_told(home: Home, how: str, why: str) -> None:
    page = their_page(home)
    import acme_models

    acme_models.Near.how = how
    made = home.compose(page, watched=["t02"])
    assert made.answer.fallbacks == ("candidates",)
    assert any(why in note for note in made.answer.notes)
    assert why in page.own_signals["theirs"].problem
    assert {row.row for row in made.answer.rows} == {"best", "fun", "tension", "fresh"}
    assert made.decisions[1].reason == "policy", "what the layers draw is theirs"
    acme_models.Near.how = ""
    assert home.compose(page, watched=["t02"]).answer.fallbacks == ()
    assert page.own_signals["theirs"].problem == ""


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("signal: nearest", "no installed package brings it; installed are near .acme-models 1.2."),
        ("signal: near, with: {sing: 1}", "near: with: ValidationError: .*`sing`"),
        ("with: {sign: 1}", "sources.theirs.with: got no signal"),
    ],
)
def test_a_page_file_that_names_none_is_told(home: Home, row: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        their_page(home, row)
    ((_, verdict),) = pages.validate(home.folder, home.experiments())
    assert isinstance(verdict, SpecError)
