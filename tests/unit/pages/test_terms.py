"""Diversity and boosts: added to the scores before the draw, so that propensities stay exact."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from topbill.domain.errors import SpecError
from topbill.domain.records import Actions, Example
from topbill.domain.slate import ScoreTerms, rank, shifted
from topbill.pages.explain import explain_title
from topbill.pages.layers import PinnedRows
from topbill.policies import KINDS

from ...small_page import PAGE

KINDS_WITH_SCORES = ("linucb", "thompson", "auto", "epsilon_greedy", "squarecb")
GREEDY = "policy: epsilon_greedy, model: shared, epsilon: 0.02"


def trained(kind: str) -> Any:
    policy: Any = KINDS[kind](KINDS[kind].Params(), context_size=1, action_size=2, seed=0)
    actions = Actions(["a", "b", "c"], np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
    for number in range(90):
        reward = float(number % 3 == 0 or number % 7 == 0)
        policy.update([Example(np.ones(1), actions, number % 3, 0.5, reward)])
    return policy.score(np.ones(1), actions, 5)


@pytest.mark.parametrize("kind", [*KINDS_WITH_SCORES, "uniform", "fixed"])
def test_a_shift_raises_what_it_is_given_to_and_keeps_a_simplex(kind: str) -> None:
    everything = np.arange(3)
    scored = trained(kind)
    before = scored.probabilities(everything).copy()
    for j in range(3):
        by = np.zeros(3)
        by[j] = 30.0
        p = shifted(scored, by).probabilities(everything)
        assert p.sum() == pytest.approx(1.0)
        assert p[j] >= before[j] - 1e-9
        if kind in KINDS_WITH_SCORES:
            assert p[j] > 0.5
    assert shifted(scored, np.zeros(3)).probabilities(everything) == pytest.approx(before)
    assert scored.probabilities(everything) == pytest.approx(before)


def test_the_probabilities_of_all_slates_are_one_with_terms() -> None:
    scored, eligible = trained("thompson"), np.arange(3)
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    found: dict[tuple[int, ...], float] = {}
    for a in np.arange(0.5, 60) / 60:
        for b in np.arange(0.5, 60) / 60:
            terms = ScoreTerms(np.array([0.5, 0.0, -0.5]), 2.0, vectors)
            rules = PinnedRows(eligible, 3, {})
            slate = rank(scored, eligible, 3, 0.02, [a, b, 0.5], rules, terms=terms)
            found[slate.rows] = slate.propensity
    assert len(found) == 6
    assert sum(found.values()) == pytest.approx(1.0)


def likeness(home: Any, diversity: float) -> float:
    page = PAGE.replace("candidates: 16", f"candidates: 16, diversity: {diversity}")
    home.write(page=page, rules="", policy=GREEDY)
    compiled_page = home.compiled_page()
    content, index = compiled_page.candidate_model.content, compiled_page.catalog.index
    found = []
    for number in range(12):
        for row in home.compose(compiled_page, number).answer.rows:
            if row.row in ("best", "fresh"):
                vectors = content[[index[tile.title] for tile in row.titles]]
                cosines = vectors @ vectors.T
                found.append(cosines[np.triu_indices(len(vectors), 1)].mean())
    return float(np.mean(found))


def test_rows_are_more_diverse_with_diversity(home: Any) -> None:
    assert likeness(home, 4.0) < likeness(home, 0.0) - 0.05


BOOSTS = """
boosts:
  - {title: t55, by: 5, from: 2026-09-01, until: 2026-12-01}
  - {genre: drama, by: -5, until: 2026-01-01}
"""


def test_a_boost_brings_a_title_up_while_it_lasts(home: Any) -> None:
    home.write(page=PAGE + BOOSTS, rules="", policy=GREEDY)
    compiled_page = home.compiled_page()
    for number in range(5):
        page = home.compose(compiled_page, number)
        shown = [tile.title for row in page.answer.rows for tile in row.titles]
        # Another row is not made of it.
        assert ("t55" in shown) == any(row.row == "best" for row in page.answer.rows)
        assert b'"boosts":[{"title":"t55","by":5.0}]' in bytes(page.decisions[0].context)
    # The log would have stamped it.
    stamped = msgspec.structs.replace(page.decisions[0], decided_at=int(home.now * 1e6))
    told = explain_title(compiled_page, stamped, page.decisions[2:3], "t55")
    assert told["rows"][0]["boost"] == 5.0
    # Neither before nor after.
    assert compiled_page.boosts.at(0.0) is not None
    assert compiled_page.boosts.at(1.9e9) is None
    own = compiled_page.boosts.at(home.now)
    assert own is not None
    assert np.flatnonzero(own).tolist() == compiled_page.catalog.rows_of(["t55"])


def test_boosts_are_for_any_column(home: Any) -> None:
    boost = "boosts:\n  - {column: provider, value: North & Co, by: -2, until: 2026-12-01}\n"
    home.write(page=PAGE + boost, rules="")
    file = home.folder / "pages" / "titles.csv"
    header, *lines = file.read_text().splitlines()
    providers = ("North & Co", "South|North & Co", "South", "")
    lines = [f"{line},{providers[number % 4]}" for number, line in enumerate(lines)]
    file.write_text("\n".join([f"{header},provider", *lines]) + "\n")
    compiled_page = home.compiled_page()
    own = compiled_page.boosts.at(home.now)
    assert own is not None
    buried = {f"t{number:02d}" for number in range(60) if number % 4 < 2}
    assert {compiled_page.catalog.ids[row] for row in np.flatnonzero(own == -2.0)} == buried
    page = home.compose(compiled_page)
    told = b'"boosts":[{"column":"provider","value":"North & Co","by":-2.0}]'
    assert told in bytes(page.decisions[0].context)


@pytest.mark.parametrize(
    ("boost", "path", "expected"),
    [
        ("{by: 1}", "boosts[0]", "one of title, genre"),
        ("{title: t01, genre: drama, by: 1}", "boosts[0]", "one of title, genre"),
        ("{title: t01}", "boosts[0].by", "required"),
        ("{title: t01, by: 50}", "boosts[0].by", "-5 to 5"),
        ("{title: t01, by: 1, from: soon}", "boosts[0].from", "a date or time"),
        ("{title: t01, by: 1, from: 2026-02-01, until: 2026-01-01}", "boosts[0].until", "after"),
        ("{title: t99, by: 1}", "boosts[0].title", "a title of the catalogue"),
        ("{genre: dramma, by: 1}", "boosts[0].genre", "a genre of the catalogue"),
        ("{column: provider, value: acme, by: 1}", "boosts[0].column", "a column of the catalogue"),
        ("{column: franchise, by: 1}", "boosts[0].value", "a column and its value"),
        ("{title: t01, value: acme, by: 1}", "boosts[0].value", "a column and its value"),
        ("{column: franchise, value: saga, by: 1}", "boosts[0].value", "did you mean saga"),
    ],
)
def test_what_is_wrong_with_boosts_is_named(
    home: Any, boost: str, path: str, expected: str
) -> None:
    home.write(page=PAGE + f"boosts:\n  - {boost}\n", rules="")
    with pytest.raises(SpecError) as error:
        home.compiled_page()
    (problem,) = error.value.problems
    assert problem.path == path
    assert expected in f"{problem.expected} {problem.hint}"
