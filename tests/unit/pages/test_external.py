"""Candidates and scores that a request brings: their order, what policies are told of them, what is
set aside, and that rules hold.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from topbill import pages
from topbill.domain.errors import BadRequest, SpecError
from topbill.engine import Engine
from topbill.engine.compiled import logged_actions
from topbill.pages import CompiledPage, ComposedPage, PageRequest, compose
from topbill.pages.candidate_table import CandidateTable, LastGoodTables, read_tables

from ...small_page import NOW, PAGE, ROWS, TITLE_FEATURES, Home, layer

RULES = "rules:\n  - {rule: block, titles: [t01]}\n"
FEATURES = TITLE_FEATURES[:-1] + ", score: {type: number, min: -2, max: 2}}"


def their_page(home: Home, policy: str = "policy: fixed, order: []") -> CompiledPage:
    """The small page with two rows of the team's own candidates; the titles' order is the
    editors'."""
    own = "sources:\n  theirs: {source: external}\n  other: {source: external}\n"
    home.write(RULES, PAGE.replace("sources:\n", own).replace("count: 3}", "count: 6}"), policy)
    folder = home.folder / "pages" / "home"
    actions = ROWS[:-1] + ", {id: theirs}, {id: other}]"
    (folder / "rows.yaml").write_text(layer("rows", "rows", "policy: uniform", actions=actions))
    (folder / "titles.yaml").write_text(layer("titles", "titles", policy, FEATURES))
    return home.compiled_page()


def composed(page: CompiledPage, **asked: Any) -> ComposedPage:
    request = msgspec.convert({"page": "home", "profile": "u", **asked}, PageRequest)
    return compose(page, request, page.viewer(request, "page-1"), "page-1", NOW)


def shown(made: ComposedPage) -> dict[str, list[str]]:
    return {row.row: [tile.title for tile in row.titles] for row in made.answer.rows}


def scored(**scores: float) -> list[dict[str, Any]]:
    return [{"title": title, "score": score} for title, score in scores.items()]


def test_the_order_is_the_teams_and_its_candidates_stand_in_their_row(home: Home) -> None:
    page = their_page(home, "policy: uniform")
    theirs = [*scored(t00=-3.0, t02=1.5, t06=0.25), {"title": "t08"}]
    made = composed(page, candidates={"theirs": theirs, "other": scored(t12=1.0)})
    assert sorted(shown(made)["theirs"]) == ["t00", "t02", "t06", "t08"]
    (decision,) = [d for d in made.decisions if d.decision_id == "page-1:theirs"]
    # What a control without an order of its own shows, and what /why and the log speak of.
    assert decision.eligible == ("t02", "t06", "t00", "t08")
    facts = json.loads(bytes(made.decisions[0].context))
    assert facts["made_of"] == {"theirs": ["t02", "t06", "t00", "t08"], "other": ["t12"]}


def test_policies_are_told_the_score_that_the_log_keeps(home: Home) -> None:
    page = their_page(home, "policy: uniform")
    scores = {"t08": 0.123456789, "t02": -5.0, "t14": 1.0}
    made = composed(
        page, candidates={"theirs": [*scored(t02=1.5), {"title": "t08"}]}, scores=scores
    )
    titles = page.engine.find("titles")
    for decision in [d for d in made.decisions if d.layer == "titles"]:
        offered = {a["id"]: a["features"]["score"] for a in json.loads(bytes(decision.actions))}
        own = {"t02": 1.5} if decision.place == "theirs" else {}
        for title, score in offered.items():
            assert score == {"t08": 0.123457, "t02": -5.0, "t14": 1.0, **own}.get(title, 0.0)
        encoded = logged_actions(titles, decision)
        column = encoded.features[:, titles.action_encoder.names.index("score")]
        expected = np.clip([offered[title] / 2 for title in encoded.ids], -1, 1)
        assert column == pytest.approx(expected)


def test_scores_by_title_are_the_order_of_all_rows(home: Home) -> None:
    page = their_page(home)
    scores = {"t44": 5.0, "t20": -3.0, "t08": 4.0, "t10": 0.0}
    found = set()
    for decision in composed(page, scores=scores).decisions:
        if decision.layer == "titles":
            known = [title for title in decision.eligible if title in scores]
            assert known == sorted(known, key=scores.__getitem__, reverse=True)
            assert list(decision.eligible[: len(known)]) == known
            found.update(known)
    assert len(found) > 2


def test_rules_hold_for_what_comes_from_outside(home: Home) -> None:
    page = their_page(home)
    # t01 is blocked, t03 for adults, t13 German only (and t04 too), t05 gone, t06 watched.
    candidates = {"theirs": scored(t01=9.0, t03=8.0, t04=7.0, t05=6.0, t06=5.0, t08=4.0)}
    made = composed(page, candidates=candidates, maturity=12, watched=["t06"])
    assert shown(made)["theirs"] == ["t08"]
    (row,) = [row for row in made.answer.rows if row.row == "theirs"]
    assert row.removed == {"block": 1, "maturity": 1, "region": 1, "availability": 1, "seen": 1}
    assert all(title != "t01" for titles in shown(made).values() for title in titles)


def test_what_the_catalogue_does_not_have_is_set_aside_and_told(home: Home) -> None:
    page = their_page(home)
    made = composed(
        page,
        candidates={"theirs": scored(gone=1.0, t08=0.5) + scored(t08=0.75), "other": scored(ж=1.0)},
        scores={"t02": 1.0, "a": 1, "b": 1, "c": 1, "d": 1},
    )
    assert shown(made)["theirs"] == ["t08"]
    assert "other" not in shown(made)
    assert made.answer.notes == (
        "scores: 4 ids are not in the catalogue and set aside: a, b, c, …",
        "row theirs: 1 id is not in the catalogue and set aside: gone",
        "row other: 1 id is not in the catalogue and set aside: ж",
        "row other: there is no candidate for this viewer that the catalogue has",
    )


def test_candidates_for_a_row_that_takes_none_are_refused(home: Home) -> None:
    page = their_page(home)
    with pytest.raises(BadRequest) as caught:
        composed(page, candidates={"their": scored(t08=1.0)})
    assert str(caught.value) == (
        "$.candidates.their: no row of source external; expected one of theirs, other; "
        "did you mean theirs?"
    )


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ('"candidates": {"theirs": [{"title": "t08", "score": 1e999}]}', "score"),
        ('"candidates": {"theirs": [{"title": "t08", "score": NaN}]}', ""),
        (
            '"candidates": {"theirs": [{"title": "t08", "score": "high"}]}',
            "$.candidates[...][0].score",
        ),
        ('"candidates": {"theirs": [{"title": "t08", "scores": 1}]}', "$.candidates[...][0]"),
        ('"candidates": {"theirs": ["t08"]}', "$.candidates[...][0]"),
        ('"scores": {"t08": 1e10}', "$.scores[...]"),
        ('"scores": {"": 1}', "in `$.scores`"),
        ('"scores": [1]', "$.scores"),
    ],
)
def test_what_is_no_score_is_refused_by_name(asked: str, path: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode('{"page": "home", ' + asked + "}", type=PageRequest)
    assert path in str(caught.value)


def test_lists_have_a_limit() -> None:
    many = [{"title": f"t{number}"} for number in range(501)]
    for asked in ({"candidates": {"theirs": many}}, {"scores": {str(i): 1.0 for i in range(5001)}}):
        with pytest.raises(msgspec.ValidationError, match="length <="):
            msgspec.convert({"page": "home", **asked}, PageRequest)


TABLE = """unit,title,score
,t00,0.5
,t02,1.5
u,t08,-1
u,t06,7
007,t12,1
u,gone,9
u,t14,high
u,,3
u,t20,inf
"""


def with_table(home: Home, text: str = TABLE, name: str = "picks.csv") -> CompiledPage:
    """The page, one of whose rows has a table of candidates."""
    their_page(home, "policy: uniform")
    file = home.folder / "pages" / "home.yaml"
    row = "{source: external, file: " + name + "}"
    file.write_text(file.read_text().replace("{source: external}", row, 1))
    (home.folder / "pages" / "picks.csv").write_text(text)
    page = home.file()
    tables = read_tables(page)
    return CompiledPage(page, Engine(home.experiments()), home.catalog(), tables=tables)


def test_a_table_has_candidates_for_each_viewer_or_for_everybody(home: Home) -> None:
    page = with_table(home)
    of = {"u": {"t06", "t08"}, "007": {"t12"}, "somebody": {"t00", "t02"}}
    for profile, titles in of.items():
        assert set(shown(composed(page, profile=profile))["theirs"]) == titles
    # A request that brings some stands before the table, and none is none.
    brought = composed(page, candidates={"theirs": scored(t10=1.0, t02=2.0)})
    assert set(shown(brought)["theirs"]) == {"t02", "t10"}
    assert "theirs" not in shown(composed(page, candidates={"theirs": []}))
    assert composed(page).answer.notes[0] == (
        "row theirs: 1 id is not in the catalogue and set aside: gone"
    )
    assert list(page.notes[-4:]) == [
        "row theirs: a candidate is set aside: row 8: title is ''; expected 1 to 128 characters",
        "row theirs: a candidate is set aside: row 7: score is 'high'; expected a number from "
        "-1e+09 to 1e+09",
        "row theirs: a candidate is set aside: row 9: score is 'inf'; expected a number from "
        "-1e+09 to 1e+09",
        "row theirs: 1 of 9 titles of its candidates are not in the catalogue and set aside: gone",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title,points\nt00,1\n", "no column score; expected title, score and, if any, unit"),
        ("title\n", "no column score"),
        ("", "expected candidates as CSV, Parquet or a table of a DuckDB file"),
        (None, "no such file; expected candidates as CSV, Parquet or DuckDB"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_and_the_last_good_one_goes_on(
    home: Home, text: str | None, says: str
) -> None:
    page = with_table(home).file
    kept = LastGoodTables()
    kept.read(page)
    path = home.folder / "pages" / "picks.csv"
    path.unlink()
    if text is not None:
        path.write_text(text)
    (_, verdict), *_ = pages.validate(home.folder, home.experiments())
    assert isinstance(verdict, SpecError)
    (problem,) = verdict.problems
    assert problem.line > 0
    assert str(verdict).startswith(f"home.yaml:{problem.line}: sources.theirs.file: got ")
    assert says in str(verdict)
    assert len(kept.read(page)["theirs"].of("u")) == 3
    assert says in kept.problems["home", "theirs"]
    path.write_text(TABLE.replace("u,t08,-1\n", ""))
    assert len(kept.read(page)["theirs"].of("u")) == 2
    assert not kept.problems


def test_parquet_and_numbers_are_read_as_they_are(home: Home) -> None:
    table = pa.table(
        {
            "title": pa.array(["t02", "t00", None, "t08"]).dictionary_encode(),
            "score": pa.array([1, 3, 5, None], pa.int32()),
            "unit": pa.array([7, None, 7, 7], pa.int64()),
        }
    )
    read = CandidateTable(table, "picks.parquet")
    assert [c.title for c in read.of("7")] == ["t02"]
    assert [c.title for c in read.of(None)] == ["t00"]
    assert len(read.set_aside) == 2
    many = pa.table({"title": [f"t{i}" for i in range(900)], "score": np.arange(900.0)})
    best = CandidateTable(many, "many").of("u")
    assert (len(best), best[0].title) == (500, "t899")
