"""A composed page: exact propensities under rules, reproducible choices, nothing on it that a rule
bars.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from topbill.candidates import SOURCES
from topbill.domain.chance import hash64
from topbill.domain.records import Decision
from topbill.domain.slate import choices, distribution
from topbill.engine import DecisionInput, Engine, logged_actions, offered
from topbill.log.bundles import bundle_of, decisions_of
from topbill.pages import CompiledPage, PageRequest, compose
from topbill.pages.features import TitlesOnPage
from topbill.pages.viewing_history import KnownViewer

from ...small_page import PAGE
from ...small_page import layer as experiment


def of(decisions: tuple[Decision, ...], layer: str) -> list[Decision]:
    return [d for d in decisions if d.layer == layer]


def replayed(compiled_page: CompiledPage, decision: Decision) -> list[dict[str, float]]:
    """Each position's probabilities, worked out again from the decision alone: its masks, its
    actions, its policy.
    """
    live = compiled_page.engine.find(decision.experiment)
    x = live.encoder.encode(json.loads(bytes(decision.context)))
    actions = logged_actions(live, decision)
    rows = [actions.ids.index(action) for action in decision.eligible]
    variant = next(v for v in live.experiment.variants if v.name == decision.variant)
    scored = live.policies[variant.name].score(x, actions, hash64(decision.decision_id))
    found, above = [], []
    for placed in decision.slate:
        may = choices(decision.masks, len(rows), placed.position, above)
        p = distribution(scored, np.array(rows)[may], variant.min_probability)
        found.append({decision.eligible[j]: float(q) for j, q in zip(may, p, strict=True)})
        above.append(decision.eligible.index(placed.action))
    return found


def test_a_page_is_rows_of_titles_with_a_picture_each(home: Any) -> None:
    made = home.compose(home.compiled_page())
    assert len(made.answer.rows) == 3
    assert all(len(row.titles) == 6 and row.missing == 0 for row in made.answer.rows)
    assert all(
        tile.picture and tile.picture.startswith(tile.title + "/")
        for r in made.answer.rows
        for tile in r.titles
    )
    assert [d.layer for d in made.decisions] == ["page", "rows", *["titles", "artwork"] * 3]
    assert made.answer.fallbacks == ()


def test_every_propensity_can_be_had_again_from_its_decision_alone(home: Any) -> None:
    compiled_page = home.compiled_page()
    for number in range(20):
        for decision in home.compose(compiled_page, number, watched=["t02", "t08"]).decisions[1:]:
            again = replayed(compiled_page, decision)
            assert [p.propensity for p in decision.slate] == [
                pytest.approx(again[p.position][p.action], abs=1e-12) for p in decision.slate
            ]
            assert decision.propensity == pytest.approx(
                math.prod(p.propensity for p in decision.slate)
            )


def test_the_page_s_own_decision_carries_the_joint_propensity_cell_by_cell(home: Any) -> None:
    made = home.compose(home.compiled_page(), 3)
    page, *layers = made.decisions
    joint = math.prod(p.propensity for d in layers for p in d.slate)
    assert page.propensity == pytest.approx(joint)
    assert math.prod(cell.propensity for cell in page.slate) == pytest.approx(joint)
    assert sum(layer.log_propensity for layer in made.answer.layers) == pytest.approx(
        math.log(joint)
    )
    assert [cell.action for cell in page.slate] == [
        tile.title for row in made.answer.rows for tile in row.titles
    ]


def test_logged_propensities_are_the_frequencies_of_the_draws_with_rules_on(home: Any) -> None:
    """Chi-square of shown titles against the sum of their logged probabilities, position by
    position.
    """
    compiled_page = home.compiled_page()
    seen: dict[tuple[str, int], Counter[str]] = {}
    expected: dict[tuple[str, int], Counter[str]] = {}
    for number in range(1500):
        for decision in home.compose(compiled_page, number).decisions[1:]:
            if decision.layer == "artwork":
                continue
            for placed, p in zip(decision.slate, replayed(compiled_page, decision), strict=True):
                spot = (decision.place or "rows", placed.position)
                seen.setdefault(spot, Counter())[placed.action] += 1
                expected.setdefault(spot, Counter()).update(p)
    chances = []
    for spot, counts in seen.items():
        names = [name for name, e in expected[spot].items() if e >= 5]
        if len(names) > 1:
            rest = [name for name in expected[spot] if name not in names]
            o = np.array(
                [counts[n] for n in names] + [sum(counts[n] for n in rest)] * bool(rest),
                dtype=float,
            )
            e = np.array(
                [expected[spot][n] for n in names]
                + [sum(expected[spot][n] for n in rest)] * bool(rest)
            )
            keep = e > 0
            chances.append(stats.chisquare(o[keep], e[keep] * o[keep].sum() / e[keep].sum()).pvalue)
    assert len(chances) >= 18
    assert min(chances) > 1e-3 / len(
        chances
    )  # Bonferroni: a sound build fails once in a thousand seeds


def test_what_policies_are_told_is_what_the_log_says(home: Any) -> None:
    compiled_page = home.compiled_page()
    live = compiled_page.engine.find("titles")
    pool = np.arange(12)
    sight = compiled_page.candidate_model.candidates_for(
        "us", (3, 5), np.ones(60, dtype=bool), home.now, "seed"
    )
    match = compiled_page.catalog.match({"comedy": 0.25, "drama": 1})
    sheet = compiled_page.title_features(live).on_page(
        *(sight, compiled_page.candidate_model.trending, match, np.arange(60.0), home.now),
        lambda _: {},
    )
    actions, told = sheet.of(pool, "best")
    decoded, _ = offered(live, told)
    assert decoded.ids == actions.ids
    assert np.array_equal(decoded.features, actions.features)
    column = dict(zip(live.action_encoder.names, actions.features.T, strict=True))
    assert all(
        np.unique(column[name]).size > 1 for name in ("similar", "new", "match", "popularity")
    )


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_compiled_call_says_of_titles_what_plain_code_says(home: Any, data: Any) -> None:
    """To the last bit, and to the last byte of JSON; of numbers that it does not write, plain code
    does.
    """
    compiled_page = home.compiled_page()
    features = compiled_page.title_features(compiled_page.engine.find("titles"))
    assert features.parts is not None
    numbers = st.one_of(
        st.floats(-20.0, 20.0),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([0.0, -0.0, -0.004, 0.005, 0.015, 9.995, 99.999, 1e7, math.inf, math.nan]),
    )
    size = len(compiled_page.catalog)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = rng.normal(0.0, 3.0, (len(features.number_names), size))
    for _ in range(data.draw(st.integers(0, 5))):
        values[rng.integers(len(values)), rng.integers(size)] = data.draw(numbers)
    pool = rng.permutation(size)[: data.draw(st.integers(0, size))]
    sources = rng.random((size, len(SOURCES))) < 0.5
    row = data.draw(st.sampled_from(["best", "fun", "no such row"]))
    on_page = TitlesOnPage(features, values, sources, home.now, lambda _: {})
    actions, told = on_page.of(pool, row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topbill.pages.features.load", lambda: None)
        plain, plainly_told = on_page.of(pool, row)
    assert actions.ids == plain.ids
    assert actions.features.tobytes() == plain.features.tobytes()
    assert bytes(told) == bytes(plainly_told)


@pytest.mark.parametrize("asked", [{}, {"kids": True, "maturity": 0}, {"region": "nowhere"}])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_page_is_stored_the_same_whether_its_answer_is_read_from_it_or_known(
    home: Any, asked: dict[str, Any], is_late: bool
) -> None:
    compiled_page = home.compiled_page()
    if is_late:
        ticks = iter(range(10_000))
        compiled_page.engine._clock = lambda: 10.0 * next(ticks)
    made = home.compose(compiled_page, **asked)
    known = bundle_of(made.decisions, made.answer)
    assert known == bundle_of(made.decisions)
    assert decisions_of(known) == list(made.decisions)


class Asked:
    """Counts what an engine's artwork layer is asked for: one picture choice after the other, or
    several at once.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, together: bool = True) -> None:
        self.each = self.together = 0
        choose, choose_turns = Engine.choose, Engine.choose_turns

        def one(engine: Engine, compiled: Any, inputs: DecisionInput, *rest: Any, **of: Any) -> Any:
            self.each += inputs.layer == "artwork"
            return choose(engine, compiled, inputs, *rest, **of)

        def several(engine: Engine, *asked: Any) -> Any:
            self.together += 1
            return choose_turns(engine, *asked) if together else None

        monkeypatch.setattr(Engine, "choose", one)
        monkeypatch.setattr(Engine, "choose_turns", several)


@pytest.mark.parametrize("policy", ["linucb, model: shared", "squarecb", "epsilon_greedy"])
def test_pictures_drawn_together_are_those_drawn_row_by_row(home: Any, policy: str) -> None:
    artwork = experiment("artwork", "artwork", f"policy: {policy}, min_probability: 2%")
    (home.folder / "pages" / "home" / "artwork.yaml").write_text(artwork)
    compiled_page = home.compiled_page()
    with pytest.MonkeyPatch.context() as patch:
        asked = Asked(patch)
        together = [home.compose(compiled_page, number) for number in range(6)]
    assert asked.together == 6
    with pytest.MonkeyPatch.context() as patch:
        asked = Asked(patch, together=False)
        assert [home.compose(compiled_page, number) for number in range(6)] == together
    assert asked.each == sum(len(of(made.decisions, "artwork")) for made in together) > 6


def test_pictures_that_are_drawn_too_late_are_not_shown(home: Any) -> None:
    artwork = experiment("artwork", "artwork", "policy: linucb, min_probability: 2%")
    (home.folder / "pages" / "home" / "artwork.yaml").write_text(artwork)
    compiled_page = home.compiled_page()
    clock = [0.0]
    compiled_page.engine._clock = lambda: clock[0]
    drawn = 0
    for policy in compiled_page.engine.find("artwork").policies.values():
        draw = getattr(policy, "turns", None)
        if draw is None:
            continue

        def late(*asked: Any, draw: Any = draw) -> Any:
            nonlocal drawn
            drawn += 1
            clock[0] += 3_600.0
            return draw(*asked)

        policy.turns = late
    made = [home.compose(compiled_page, number) for number in range(8)]
    assert drawn
    late_pages = [page for page in made if "artwork" in page.answer.fallbacks]
    assert len(late_pages) == drawn
    for page in late_pages:
        assert {decision.reason for decision in of(page.decisions, "artwork")} == {"fallback"}
        assert {decision.reason for decision in of(page.decisions, "titles")} == {"policy"}


def test_rules_hold_on_every_page(home: Any) -> None:
    compiled_page = home.compiled_page()
    catalog = compiled_page.catalog
    for number in range(300):
        kids = number % 3 == 0
        made = home.compose(compiled_page, number, kids=kids, region="us")
        page = made.answer
        titles = [tile.title for row in page.rows for tile in row.titles]
        rows = [catalog.index[t] for t in titles]
        assert len(titles) == len(set(titles))
        assert "t01" not in titles
        lets = compiled_page.rules.allowed_by_rule("us", 7 if kids else 99, home.now)
        assert all(let[rows].all() for let in lets.values())
        franchises = Counter(int(catalog.franchise[r]) for r in rows)
        assert max(franchises.values()) <= 2
        for row in page.rows:
            places = [catalog.index[t.title] for t in row.titles]
            if row.row not in ("fun", "tension"):
                assert catalog.genres[places].sum(axis=0).max() <= 3
            if row.row == "best":
                assert row.titles[2].title == "t07"
                (decision,) = [
                    d for d in made.decisions if d.place == "best" and d.layer == "titles"
                ]
                ids, new = decision.eligible, home.now - catalog.added < 60 * 86_400
                above = [ids.index(p.action) for p in decision.slate[:-1]]
                open_ = [ids[j] for j in choices(decision.masks, len(ids), len(above), above)]
                assert new[places].sum() >= 2 or not any(
                    new[catalog.index[title]] for title in open_
                )


def test_a_pin_does_not_tire(home: Any) -> None:
    compiled_page = home.compiled_page()
    request = PageRequest(page="home", profile="p")
    known = KnownViewer(resting={"fatigue": ["t07", "t02"], "seen": [], "disliked": []})
    seen = known._replace(resting={**known.resting, "seen": ["t07"]})
    for number in range(4):
        pages = []
        for of_viewer in (known, seen):
            viewer = compiled_page.viewer(request, f"page-{number}", of_viewer)
            pages.append(compose(compiled_page, request, viewer, f"page-{number}", home.now).answer)
        tired, watched = ({tile.title for r in page.rows for tile in r.titles} for page in pages)
        assert ("t07" in tired) == any(row.row == "best" for row in pages[0].rows)
        assert not {"t02"} & tired
        assert "t07" not in watched


def test_too_few_titles_serve_fewer_and_say_which_rule_took_them(home: Any) -> None:
    home.write(rules="rules:\n  - {rule: block, genres: [comedy]}\n", page=home_page_without_fun())
    made = home.compose(home.compiled_page(), kids=True, maturity=0)
    short = [row for row in made.answer.rows if row.missing]
    assert short
    assert all(row.missing == 6 - len(row.titles) and row.removed["maturity"] > 0 for row in short)
    assert any(row.removed.get("block", 0) > 0 for row in short)


def test_a_cap_that_leaves_too_few_says_how_many_it_took(home: Any) -> None:
    """A row on top, of seven comedies, at most four of which may stand there."""
    page = home_page_without_fun().replace("count: 4}", "count: 4, pinned: {fun: 0}}")
    listed = "{source: titles, titles: [t00, t08, t12, t20, t24, t28, t32]}"
    rules = "rules:\n  - {rule: at_most, count: 4, of: genre, value: comedy, per: row}\n"
    home.write(rules=rules, page=page.replace("{source: mixed}", listed))
    row = home.compose(home.compiled_page()).answer.rows[0]
    assert (row.row, len(row.titles), row.missing) == ("fun", 4, 2)
    assert row.removed["at most 4 comedy a row"] == 3


def home_page_without_fun() -> str:
    return """
page: home
catalogue: titles.csv
region: us
rows: {experiment: rows, count: 4}
titles: {experiment: titles, count: 6, candidates: 16}
artwork: {experiment: artwork}
sources:
  best: {source: popular}
  fun: {source: mixed}
  tension: {source: genre, genres: [action, drama]}
  fresh: {source: new}
"""


def test_nothing_at_all_to_show_is_an_empty_page_and_no_error(home: Any) -> None:
    made = home.compose(home.compiled_page(), region="nowhere")
    assert all(row.titles == () for row in made.answer.rows)
    assert all(row.removed["region"] > 0 for row in made.answer.rows)


def test_a_policy_that_fails_leaves_the_editors_order_under_the_same_rules(
    home: Any, caplog: Any
) -> None:
    compiled_page = home.compiled_page()

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    live = compiled_page.engine.find("titles")
    live.policies["only"] = SimpleNamespace(score=fail)
    made = home.compose(compiled_page)
    assert made.answer.fallbacks == ("titles",)
    assert all(d.reason == "fallback" and d.propensity == 1.0 for d in of(made.decisions, "titles"))
    best = next(
        row
        for number in range(9)
        for row in home.compose(compiled_page, number).answer.rows
        if row.row == "best"
    )
    assert best.titles[2].title == "t07"
    assert made.decisions[0].reason == "fallback"


@pytest.mark.parametrize("failing", [("rows",), ("artwork",), ("rows", "titles", "artwork")])
def test_each_layer_s_failure_is_flagged_and_the_others_go_on(
    home: Any, failing: tuple[str, ...], caplog: Any
) -> None:
    compiled_page = home.compiled_page()

    def nonsense(*_: Any) -> Any:
        return SimpleNamespace(probabilities=lambda remaining: np.full(len(remaining), np.nan))

    for layer in failing:
        compiled_page.engine.find(layer).policies["only"] = SimpleNamespace(score=nonsense)
    made = home.compose(compiled_page)
    assert made.answer.fallbacks == failing
    for decision in made.decisions[1:]:
        assert (decision.reason == "fallback") == (decision.layer in failing)
    assert all(0.0 < p.propensity <= 1.0 for d in made.decisions for p in d.slate)
    assert all(row.titles for row in made.answer.rows)


def test_candidates_that_fail_leave_popular_titles(
    home: Any, monkeypatch: Any, caplog: Any
) -> None:
    compiled_page = home.compiled_page()
    monkeypatch.setattr(compiled_page.candidate_model, "candidates_for", lambda *_: 1 / 0)
    made = home.compose(compiled_page)
    assert made.answer.fallbacks == ("candidates",)
    assert sum(len(row.titles) for row in made.answer.rows) == 18


def test_a_page_that_cannot_be_composed_is_composed_plainly(
    home: Any, monkeypatch: Any, caplog: Any
) -> None:
    compiled_page = home.compiled_page()
    real, calls = type(compiled_page.rules).row_left, []

    def once(*args: Any) -> Any:
        calls.append(1)
        return 1 / 0 if len(calls) == 1 else real(*args)

    monkeypatch.setattr(type(compiled_page.rules), "row_left", once)
    made = home.compose(compiled_page)
    assert made.answer.fallbacks[0] == "page"
    assert sum(len(row.titles) for row in made.answer.rows) == 18
    assert {d.reason for d in made.decisions} == {"fallback"}


def test_past_its_budget_a_page_is_served_in_the_editors_order(home: Any) -> None:
    compiled_page = home.compiled_page()
    ticks = iter(range(10_000))
    compiled_page.engine._clock = lambda: 10.0 * next(ticks)
    made = home.compose(compiled_page)
    assert set(made.answer.fallbacks) == {"candidates", "rows", "titles", "artwork"}
    assert sum(len(row.titles) for row in made.answer.rows) == 18


def test_the_same_page_id_draws_the_same_page(home: Any) -> None:
    first, second = home.compose(home.compiled_page(), 7), home.compose(home.compiled_page(), 7)
    assert first.answer == second.answer


def test_a_page_without_exploration_is_the_same_whatever_its_id(home: Any) -> None:
    compiled_page = home.compiled_page()
    one, two = (home.compose(compiled_page, number, explore=False) for number in range(2))
    for decision in one.decisions[1:]:
        assert (decision.variant, decision.reason) == (None, "no_exploration")
        assert decision.propensity == 1.0
    shown = [[tile.title for row in made.answer.rows for tile in row.titles] for made in (one, two)]
    assert shown[0] == shown[1]


def test_a_row_of_which_rows_above_took_everything_says_so(home: Any) -> None:
    same = "{source: titles, titles: [t00, t08]}"
    page = PAGE.replace("{source: genre, genres: [comedy]}", same)
    home.write(page=page.replace("{source: genre, genres: [action, drama]}", same), rules="")
    compiled_page = home.compiled_page()
    empty = 0
    for number in range(20):
        answer = home.compose(compiled_page, number).answer
        below = [row for row in answer.rows if not row.titles]
        empty += len(below)
        told = [note for note in answer.notes if "is left for it" in note]
        assert [note.split(":")[0] for note in told] == [f"row {row.row}" for row in below]
        assert all("2 shown above" in note for note in told)
        assert answer.fallbacks == ()
    assert empty
