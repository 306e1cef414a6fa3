"""How many rows a page has and how many titles a row: decided per viewer, drawn, logged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topbill.domain.chance import uniforms
from topbill.domain.decision import decision_of, decision_rows
from topbill.domain.errors import SpecError
from topbill.domain.records import Actions, Decision, Example, RewardEvent
from topbill.domain.slate import Length, Stopping, choices, rank
from topbill.engine import examples, logged_actions
from topbill.pages import CompiledPage
from topbill.pages.layers import PinnedRows
from topbill.policies import KINDS
from topbill.policies.linucb import LinUCB, LinUCBParams

from ...small_page import PAGE, RULES, layer

LENGTHS = PAGE.replace("count: 3}", "count: {min: 2, max: 4}, row_cost: 0.01}").replace(
    "count: 6, candidates", "count: {min: 3, max: 10}, title_cost: 0.02, candidates"
)
ROWS = "[{id: best}, {id: fun}, {id: tension}, {id: fresh}]"
POLICY = "policy: linucb, min_probability: 2%, model: shared"


def write(home: Any, page: str = LENGTHS, rules: str = RULES) -> CompiledPage:
    home.write(page=page, rules=rules, policy=POLICY)
    rows = layer("rows", "rows", POLICY.replace(", model: shared", ""), actions=ROWS)
    (home.folder / "pages" / "home" / "rows.yaml").write_text(rows)
    return home.compiled_page()


class Fixed:
    """Scores and probabilities that are given."""

    width = None

    def __init__(self, mean: list[float], p: list[float]) -> None:
        self.mean, self.p = np.array(mean), np.array(p)

    def probabilities(self, remaining: Any) -> Any:
        own = self.p[remaining]
        return own / own.sum()


@given(
    mean=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    p=st.lists(st.floats(0.1, 1), min_size=3, max_size=3),
    least=st.integers(1, 3),
    cost=st.floats(0.01, 1),
)
@settings(max_examples=20, deadline=None)
def test_the_probabilities_of_all_slates_of_all_lengths_are_one(
    mean: list[float], p: list[float], least: int, cost: float
) -> None:
    scored, eligible = Fixed(mean, p), np.arange(3)
    found: dict[tuple[int, ...], float] = {}
    # The uniforms are driven through all that can happen: which of what remains, and to stop or to
    # go on, at every position.
    grid = np.arange(0.5, 24) / 24
    for a in grid:
        for b in grid[::2]:
            for stops in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)):
                stopping = Stopping(
                    Length(least, cost),
                    scored.mean,
                    lambda k, z: 0.9**k * z,
                    lambda k, s=stops: s[k - 1],
                )
                slate = rank(
                    scored, eligible, 3, 0.02, [a, b, 0.5], PinnedRows(eligible, 3, {}), None,
                    stopping,
                )  # fmt: skip
                assert least <= len(slate.rows) <= 3
                found[slate.rows] = slate.propensity
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-9)


def test_stops_are_drawn_as_often_as_logged() -> None:
    scored, eligible = Fixed([0.5, 0.3, 0.2], [0.5, 0.3, 0.2]), np.arange(3)
    counts: dict[tuple[int, ...], int] = {}
    chances: dict[tuple[int, ...], float] = {}
    for number in range(4_000):
        stopping = Stopping(
            Length(1, 0.3), scored.mean, lambda k, z: 0.9**k * z, uniforms("stop", str(number))
        )
        draws = uniforms("draw", str(number))
        rules = PinnedRows(eligible, 3, {})
        slate = rank(scored, eligible, 3, 0.0, draws, rules, None, stopping)
        counts[slate.rows] = counts.get(slate.rows, 0) + 1
        chances[slate.rows] = slate.propensity
    expected = np.array([4_000 * chances[rows] for rows in counts])
    chi2 = ((np.array(list(counts.values())) - expected) ** 2 / expected).sum()
    assert len(counts) == 15
    assert chi2 < 36.1  # 14 degrees of freedom, p = 0.001


def teach(compiled_page: CompiledPage, rewards: float, pages: int, home: Any) -> None:
    """Let the page's policies learn from pages on which every title earned so much."""
    for number in range(pages):
        page = home.compose(compiled_page, 1_000 + number)
        for decision in page.decisions[1:]:
            live = compiled_page.engine.find(decision.experiment)
            events = [
                RewardEvent(decision_id=decision.decision_id, event_id=str(k), event="play",
                            action=placed.action, position=k, value=1.0)
                for k, placed in enumerate(decision.slate)
                if (number + k) % 10 < 10 * rewards
            ]  # fmt: skip
            if decision.variant is not None:
                live.policies[decision.variant].update(list(examples(live, decision, events)))


@given(number=st.integers(0, 10_000), kids=st.booleans(), worth=st.sampled_from([0.0, 0.2, 0.6]))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_lengths_lie_between_min_and_max(home: Any, number: int, kids: bool, worth: float) -> None:
    pages = getattr(home, "taught", None)
    if pages is None:
        pages = home.taught = {}
    if worth not in pages:
        pages[worth] = write(home)
        teach(pages[worth], worth, 12, home)
    page = home.compose(pages[worth], number, kids=kids)
    titles = [tile.title for row in page.answer.rows for tile in row.titles]
    assert 2 <= len(page.answer.rows) <= 4
    assert len(set(titles)) == len(titles)
    for row in page.answer.rows:
        assert len(row.titles) <= 10
        # Less than the least only where rules left fewer, and then they say so.
        assert len(row.titles) + row.missing >= 3
    own, *layers = page.decisions
    joint = np.prod([decision.propensity for decision in layers])
    assert own.propensity == pytest.approx(joint, rel=1e-9)
    assert np.prod([cell.propensity for cell in own.slate]) == pytest.approx(joint, rel=1e-9)


def test_worthy_pages_are_longer_and_stops_can_be_had_again_from_the_decision(home: Any) -> None:
    sizes = {}
    for worth in (0.0, 0.6):
        compiled_page = write(home)
        teach(compiled_page, worth, 15, home)
        pages = [home.compose(compiled_page, number) for number in range(20)]
        sizes[worth] = np.mean([len(page.answer.rows) for page in pages])
        for page in pages:
            for decision in page.decisions:
                if decision.layer == "titles":
                    check_again(compiled_page, decision)
    assert sizes[0.0] < 2.5 < 3.5 < sizes[0.6]


def check_again(compiled_page: CompiledPage, decision: Decision) -> None:
    """Every stop's worth and probability follow from the decision and the policy's version, and the
    draw from the decision's id."""
    live = compiled_page.engine.find(decision.experiment)
    (example, *_) = examples(live, decision, [])
    policy: Any = live.policies["only"]
    actions = logged_actions(live, decision)
    scored = policy.score(example.x, actions, 0)
    placed = [decision.eligible.index(one.action) for one in decision.slate]
    for stop in decision.stops:
        may = choices(decision.masks, len(actions), stop.position, placed[: stop.position])
        p = scored.probabilities(may)
        least = min(0.02, 1 / len(may))
        p = (1 - len(may) * least) * p + least
        worth = policy.places.worth(stop.position, p @ scored.mean[may] * stop.reach)
        assert stop.worth == pytest.approx(worth, rel=1e-9)
        assert stop.probability == pytest.approx(Length(3, 0.02).stop_probability(worth))
        ended = uniforms("stop", decision.decision_id)(stop.position) < stop.probability
        assert ended == (stop.position == len(decision.slate))


def test_a_pin_is_never_cut_off(home: Any) -> None:
    rules = RULES.replace("position: 2", "position: 8")
    compiled_page = write(home, rules=rules)
    teach(compiled_page, 0.0, 10, home)
    for number in range(10):
        for row in home.compose(compiled_page, number).answer.rows:
            if row.row == "best":
                assert row.titles[8].title == "t07"


def test_new_titles_stand_among_the_least(home: Any) -> None:
    compiled_page = write(home)
    teach(compiled_page, 0.0, 10, home)
    for number in range(10):
        for row in home.compose(compiled_page, number).answer.rows:
            if row.row == "best":
                new = {f"t{i:02d}" for i in range(60) if i % 5 == 2}
                assert sum(tile.title in new for tile in row.titles[:3]) >= 2


def test_what_cannot_tell_its_worth_is_as_long_as_it_may_be(home: Any) -> None:
    home.write(page=LENGTHS, policy="policy: uniform")
    page = home.compose(home.compiled_page())
    assert len(page.answer.rows) == 4
    assert all(not decision.stops for decision in page.decisions)
    assert max(len(row.titles) for row in page.answer.rows) == 10


def test_stops_are_in_the_lake_as_in_the_log(home: Any) -> None:
    page = home.compose(write(home))
    logged = [decision for decision in page.decisions if decision.stops]
    assert logged
    for seq, decision in enumerate(logged):
        (row,) = decision_rows([(seq, decision)]).to_pylist()
        for text in ("context", "actions"):
            row[text] = None if row[text] is None else row[text]
        row["decided_at"] = 0
        assert decision_of(row).stops == decision.stops


@pytest.mark.parametrize("kind", ["linucb", "auto", "thompson"])
def test_what_places_earn_is_learned_and_survives_a_restart(kind: str) -> None:
    policy: Any = KINDS[kind](KINDS[kind].Params(), context_size=1, action_size=1, seed=0)
    actions = Actions(["a", "b"], np.array([[0.0], [1.0]]))
    plain = policy.dump()
    for number in range(400):
        k = number % 4
        reward = float(number // 4 % (2 ** (k + 1)) == 0)
        policy.update([Example(np.ones(1), actions, 0, 0.5, reward, position=k, reach=1.0)])
    worths = [policy.places.worth(k, 0.3) for k in range(6)]
    assert worths[0] > 1.3 * worths[1] > 1.5 * worths[2] > 1.7 * worths[3] > 0
    assert worths[5] > 0.9 * worths[3]  # nobody was there: as the place above
    assert policy.places.length == pytest.approx(4.0)
    assert policy.places.typical == pytest.approx(15 / 64, abs=0.02)
    again: Any = KINDS[kind](KINDS[kind].Params(), context_size=1, action_size=1, seed=0)
    again.load(policy.dump())
    assert [again.places.worth(k, 0.3) for k in range(6)] == worths
    assert again.dump() == policy.dump()
    # Slates of a fixed length teach nothing of places, and leave no trace in a state.
    again.load(plain)
    policy = LinUCB(LinUCBParams(), context_size=1, action_size=1)
    policy.update([Example(np.ones(1), actions, 0, 0.5, 1.0, position=1)])
    assert "places" not in policy.places.arrays()


@pytest.mark.parametrize(
    ("old", "new", "path", "expected"),
    [
        ("{min: 2, max: 4}", "{min: 4, max: 4}", "rows.count.max", "a number above min"),
        ("{min: 2, max: 4}", "{min: 2, max: 9}", "rows.count", "at most 4"),
        ("{min: 2, max: 4}", "{min: 2}", "rows.count.max", "required"),
        ("{min: 2, max: 4}", "{min: 2, max: 4, mex: 1}", "rows.count.mex", "one of min, max"),
        ("{min: 2, max: 4}", "many", "rows.count", "or {min, max}"),
        ("{min: 2, max: 4}", "3", "rows.row_cost", "none beside a fixed count"),
        (", title_cost: 0.02", "", "titles.title_cost", "what one more must be worth"),
        ("row_cost: 0.01", "row_cost: -1", "rows.row_cost", "a number above 0"),
        ("candidates: 16", "candidates: 9", "titles.candidates", "at least 10"),
    ],
)
def test_what_is_wrong_with_lengths_is_named(
    home: Any, old: str, new: str, path: str, expected: str
) -> None:
    home.write(page=LENGTHS.replace(old, new), rules="")
    with pytest.raises(SpecError) as error:
        home.file()
    assert [problem.path for problem in error.value.problems] == [path]
    (problem,) = error.value.problems
    assert expected in f"{problem.expected} {problem.hint}"
