"""Layers of pages are evaluated like any experiment: under the rules that held when the page was
made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from topbill.domain.decision import decision_of, decision_rows
from topbill.domain.errors import TopbillError
from topbill.domain.records import Decision, RewardEvent
from topbill.ope import OPEN, Gates, evaluate, evaluate_page
from topbill.ope.page_evaluation import _Draws
from topbill.ope.replay.logged_data import Offers
from topbill.ope.replay.targets import VariantPolicy, uniform

from ...processes import topbill
from ...small_page import PAGE, lay

SECOND = 1_000_000
PAGES = 250
RULES = """
rules:
  - {rule: at_most, count: 2, of: genre, per: row, except: [fun, tension]}
  - {rule: pin, title: t07, row: best, position: 2}
  - {rule: fresh, count: 2, within: 60d, rows: [best]}
"""


def laid(home: Any, data: Path, layer: str, title: str) -> list[Decision]:
    """A lake of one layer of pages, each a second after the other, on which this title alone is
    played, surely.
    """
    compiled_page = home.compiled_page()
    decisions: list[Decision] = []
    for number in range(PAGES):
        for decision in home.compose(compiled_page, number).decisions:
            if decision.layer == layer:
                at = round(home.now * SECOND) + number * SECOND
                decisions.append(decision.__class__(**{**fields(decision), "decided_at": at}))
    events = [
        RewardEvent(
            decision_id=d.decision_id,
            event_id="e",
            event="play",
            action=p.action,
            position=p.position,
            received_at=d.decided_at + 1,
        )
        for d in decisions
        for p in d.slate
        if p.action.split("/")[0] == title
    ]
    experiment = next(e for e in home.experiments() if e.key == layer)
    lay(data, [experiment], decisions, events, decisions[-1].decided_at + 9 * SECOND)
    return decisions


def fields(decision: Decision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in decision.__struct_fields__}


@pytest.mark.parametrize("layer", ["titles", "artwork"])
def test_the_policy_that_decided_is_worth_what_it_earned_whatever_the_rules(
    home: Any, tmp_path: Path, layer: str
) -> None:
    """Uniform over what the rules left is what decided, so every weight is 1; over all eligible it
    would not be.
    """
    home.write(rules=RULES, policy="policy: uniform")
    decisions = laid(home, tmp_path / "data", layer, "t00")
    assert any(d.masks for d in decisions)
    found = evaluate(layer, "uniform", tmp_path / "data", estimators=("sips", "rips")).targets[
        "uniform"
    ]
    for estimate in found.values():
        assert estimate.value == pytest.approx(np.mean([earned(d, "t00") for d in decisions]))
        assert estimate.diagnostics.mean_weight == pytest.approx(1.0)


def earned(decision: Decision, title: str) -> int:
    return sum(p.action.split("/")[0] == title for p in decision.slate)


CLICKS = {"warm": 0.15, "cold": 0.3, "dark": 0.6}
"""P(play | picture); lower places of a row, and rows further down, are played less."""


def play(row: int, position: int, picture: str) -> float:
    return CLICKS[picture.rpartition("/")[2]] * 0.8**row * 0.9**position


def favour(best: str, share: float) -> Any:
    """The picture of that tone with this probability, the others alike; where there is none of it,
    all alike.
    """

    def choose(_context: Any, offer: Sequence[str]) -> list[float]:
        liked = [name.endswith(best) for name in offer]
        if not any(liked) or len(offer) == 1:
            return [1.0 / len(offer)] * len(offer)
        return [share if good else (1.0 - share) / (len(offer) - 1) for good in liked]

    return choose


def shelf(best: str) -> Any:
    """This row first half of the time it can be."""

    def choose(_context: Any, offer: Sequence[str]) -> list[float]:
        if best not in offer or len(offer) == 1:
            return [1.0 / len(offer)] * len(offer)
        return [0.5 if name == best else 0.5 / (len(offer) - 1) for name in offer]

    return choose


INSTEAD = {"artwork": favour("dark", 0.6), "rows": shelf("fun")}


def logged_pages(compiled_page: Any, home: Any, pages: int, first: int) -> list[Any]:
    return [home.compose(compiled_page, first + number, region="de") for number in range(pages)]


def lay_pages(home: Any, data: Path, made: list[Any], rng: np.random.Generator) -> None:
    """A lake of whole pages whose titles are played as `play` says, with all that belongs to
    them.
    """
    decisions: list[Decision] = []
    events: list[RewardEvent] = []
    for number, page in enumerate(made):
        at = round(home.now * SECOND) + number * SECOND
        decisions += [
            decision.__class__(**{**fields(decision), "decided_at": at})
            for decision in page.decisions
        ]
        for i, row in enumerate(page.answer.rows):
            for k, tile in enumerate(row.titles):
                if rng.random() < play(i, k, tile.picture):
                    events.append(
                        RewardEvent(
                            decision_id=f"{page.answer.page_id}:{row.row}",
                            event_id=f"e{k}",
                            event="play",
                            action=tile.title,
                            position=k,
                            received_at=at + 1,
                        )
                    )
    lay(data, home.experiments(), decisions, events, decisions[-1].decided_at + 9 * SECOND)


def expected(compiled_page: Any, page: Any, layers: Sequence[str]) -> float:
    """Plays of one logged page in expectation, its pictures by `favour` where artwork is
    replaced.
    """
    total = 0.0
    for i, row in enumerate(page.answer.rows):
        for k, tile in enumerate(row.titles):
            own = [
                picture.id
                for picture in compiled_page.catalog.pictures[
                    compiled_page.catalog.index[tile.title]
                ]
            ]
            shares = (
                INSTEAD["artwork"]({}, own) if "artwork" in layers else [1.0 / len(own)] * len(own)
            )
            total += sum(p * play(i, k, name) for p, name in zip(shares, own, strict=True))
    return total


def truth(compiled_page: Any, layers: Sequence[str], made: list[Any]) -> float:
    """What pages would earn: the mean of what each is expected to, weighed by how much likelier its
    rows would be.
    """
    values = []
    for page in made:
        rows = next(d for d in page.decisions if d.layer == "rows")
        ratio, rest = 1.0, list(rows.eligible)
        for placed in rows.slate:
            if "rows" in layers:
                ratio *= INSTEAD["rows"]({}, rest)[rest.index(placed.action)] / placed.propensity
            rest.remove(placed.action)
        values.append(ratio * expected(compiled_page, page, layers))
    return float(np.mean(values))


def test_replacing_a_layer_by_itself_changes_nothing(home: Any, tmp_path: Path) -> None:
    home.write(rules=RULES, policy="policy: uniform")
    made = logged_pages(home.compiled_page(), home, 60, 0)
    lay_pages(home, tmp_path / "data", made, np.random.default_rng(3))
    layers = {"rows": "uniform", "titles": "uniform", "artwork": "uniform"}
    found = evaluate_page("home", layers, tmp_path / "data")
    assert (found.decisions, found.left_out) == (60, {})
    assert found.logged.value is not None
    for estimate in found.targets["rows: uniform, titles: uniform, artwork: uniform"].values():
        assert estimate.value == pytest.approx(found.logged.value)


def test_a_page_counts_for_as_many_as_it_stands_for(home: Any, tmp_path: Path) -> None:
    """Pages twice over in the log, and each of them once with a weight of two, are the same."""
    home.write(policy="policy: uniform")
    made = logged_pages(home.compiled_page(), home, 40, 0)
    again = [page for page in made[:20] for _ in range(2)] + made[20:]
    whole = lay_played(home, tmp_path / "whole", again, weights=[None] * 60)
    thinned = lay_played(home, tmp_path / "thinned", made, weights=[2.0] * 20 + [None] * 20)
    for name in ("iips", "snrips", "sips"):
        assert thinned.targets["artwork: favour"][name].value == pytest.approx(
            whole.targets["artwork: favour"][name].value
        )
    assert thinned.logged.value == pytest.approx(whole.logged.value)


def lay_played(home: Any, data: Path, made: list[Any], weights: Sequence[float | None]) -> Any:
    """The evaluation of other pictures on pages on which one title is always played."""
    decisions: list[Decision] = []
    events: list[RewardEvent] = []
    for number, (page, weight) in enumerate(zip(made, weights, strict=True)):
        at = round(home.now * SECOND) + number * SECOND
        for decision in page.decisions:
            # The ids of a page that is there again, and of its layers, begin with another number.
            named = f"{number}-{decision.decision_id}"
            own: dict[str, Any] = {"decision_id": named, "decided_at": at, "row_weight": weight}
            if decision.page:
                own["page"] = f"{number}-{decision.page}"
            decisions.append(decision.__class__(**{**fields(decision), **own}))
        for row in page.answer.rows:
            for k, tile in enumerate(row.titles):
                if tile.picture and tile.picture.endswith("warm"):
                    events.append(
                        RewardEvent(
                            decision_id=f"{number}-{page.answer.page_id}:{row.row}",
                            event_id=f"e{k}",
                            event="play",
                            action=tile.title,
                            position=k,
                            received_at=at + 1,
                        )
                    )
    lay(data, home.experiments(), decisions, events, decisions[-1].decided_at + 9 * SECOND)

    def favoured(context: Any, offer: Sequence[str]) -> list[float]:
        return list(favour("dark", 0.6)(context, offer))

    favoured.__name__ = "favour"
    return evaluate_page("home", {"artwork": favoured}, data, gates=OPEN)


def dark_pictures(page: Any) -> int:
    """How many of them a page shows."""
    tiles = [tile for row in page.answer.rows for tile in row.titles]
    return sum(tile.picture is not None and tile.picture.endswith("dark") for tile in tiles)


def test_rare_weights_that_are_missing_are_poor_overlap_and_no_untrue_propensities(
    home: Any, tmp_path: Path
) -> None:
    """Of forty pages none has as many dark pictures, five and more, as a dark page would have: the
    mean weight is far below 1, as far as the logged probabilities foresee.
    """
    home.write(policy="policy: uniform")
    made = logged_pages(home.compiled_page(), home, 40, 500)
    assert max(dark_pictures(page) for page in made) < 5
    lay_pages(home, tmp_path / "data", made, np.random.default_rng(3))
    dark = {"artwork": favour("dark", 0.8)}
    gates = Gates(effective_sample=0.0, largest_share=float("inf"), unsupported=1.0)
    (estimates,) = evaluate_page("home", dark, tmp_path / "data", gates=gates).targets.values()
    assert estimates["sips"].reason == "poor_overlap"


def test_what_a_page_foresees_is_the_variance_of_its_weight() -> None:
    """Draws one after the other, the second's chances by the first's: Σ π²/p over whole paths."""
    p, q = (0.3, 0.7), ((0.5, 0.5), (0.1, 0.9))
    pi, rho = (0.6, 0.4), ((0.2, 0.8), (0.7, 0.3))

    def layer(ratio: float, moment: float) -> Any:
        ratios, moments = {"d": np.array([np.log(ratio)])}, {"d": np.array([moment])}
        return SimpleNamespace(ratios=ratios, moments=moments)

    foreseen = known = 0.0
    for i, j in np.ndindex(2, 2):
        draws = _Draws()
        draws.add(layer(pi[i] / p[i], sum(a * a / b for a, b in zip(pi, p, strict=True))), "d", 0)
        below = sum(a * a / b for a, b in zip(rho[i], q[i], strict=True))
        draws.add(layer(rho[i][j] / q[i][j], below), "d", 0)
        assert draws.add(None, "d", 0) == 0.0
        chance = p[i] * q[i][j]
        foreseen += chance * draws.moment
        known += chance * (pi[i] * rho[i][j] / chance) ** 2
        assert np.exp(draws.log_weight) == pytest.approx(pi[i] * rho[i][j] / chance)
    assert foreseen == pytest.approx(known)


@pytest.mark.parametrize(
    ("instead", "says"),
    [
        ({}, "expected LAYER=POLICY"),
        ({"covers": "uniform"}, "got layer 'covers'; expected some of rows, titles, artwork"),
        ({"artwork": "snapshot"}, "no log there"),
        ({"artwork": "nowhere.yaml"}, "no such file"),
    ],
)
def test_what_cannot_be_replaced_is_named(
    home: Any, tmp_path: Path, instead: dict[str, str], says: str
) -> None:
    made = logged_pages(home.compiled_page(), home, 3, 0)
    lay_pages(home, tmp_path / "data", made, np.random.default_rng(3))
    with pytest.raises(TopbillError, match=says):
        evaluate_page("home", instead, tmp_path / "data")


def test_the_command_tells_value_interval_and_refusals(home: Any, tmp_path: Path) -> None:
    home.write(policy="policy: uniform")
    lay_pages(
        home,
        tmp_path / "data",
        logged_pages(home.compiled_page(), home, 120, 0),
        np.random.default_rng(3),
    )
    command = ["report", "home", "--data", tmp_path / "data"]
    done = topbill(*command, "--instead", "artwork=always t02/dark")
    assert done.returncode == 0, done.stderr
    assert "artwork: always t02/dark" in done.stdout
    assert "iips" in done.stdout
    assert "effective sample" in done.stdout
    wrong = topbill(*command, "--instead", "artwork")
    assert wrong.returncode != 0
    assert "expected LAYER=POLICY" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    whole = topbill(*command, "--json")
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout)["page"] == "home"
    other = topbill(*command, "--method", "bayes")
    assert other.returncode == 1
    assert "home is a page, of which there is no --method" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "estimators"), [(("artwork",), ("iips", "sniips")), (("rows",), ("rips", "sips"))]
)
def test_the_truth_lies_in_the_intervals_of_95_percent(
    home: Any, tmp_path: Path, layers: tuple[str, ...], estimators: tuple[str, ...]
) -> None:
    """Over 200 logs of 150 pages, within the binomial band of 95% (its 0.1% and 99.9% quantiles).
    One in a hundred at most is refused, for weights that by chance are far from 1."""
    home.write(rules=RULES, policy="policy: uniform")
    compiled_page = home.compiled_page()
    known = truth(compiled_page, layers, logged_pages(compiled_page, home, 6_000, 1_000_000))
    instead = {layer: INSTEAD[layer] for layer in layers}
    logs, given, hits = 200, dict.fromkeys(estimators, 0), dict.fromkeys(estimators, 0)
    for log in range(logs):
        made = logged_pages(compiled_page, home, 150, 1_000 * log)
        data = tmp_path / f"data{log}"
        lay_pages(home, data, made, np.random.default_rng(log))
        (found,) = evaluate_page("home", instead, data, estimators=estimators).targets.values()
        for name, estimate in found.items():
            if estimate.low is not None and estimate.high is not None:
                given[name] += 1
                hits[name] += estimate.low <= known <= estimate.high
        shutil.rmtree(data)
    for name, count in given.items():
        assert count >= 0.99 * logs
        low, high = stats.binom.ppf([0.001, 0.999], count, 0.95)
        assert low <= hits[name] <= high, hits


TERMS = """
boosts:
  - {genre: drama, by: 1.5}
  - {title: t12, by: -3}
"""


@pytest.mark.parametrize("policy", ["thompson, model: shared", "uniform"])
def test_what_editors_add_to_scores_other_policies_have_too(home: Any, policy: str) -> None:
    """The policy that decided, asked again of its own log, says what it was drawn with; and so it
    does after log and lake."""
    page = PAGE.replace("candidates: 16", "candidates: 16, diversity: 1.7") + TERMS
    home.write(page=page, rules=RULES, policy=f"policy: {policy}")
    compiled_page = home.compiled_page()
    (experiment,) = [each for each in home.experiments() if each.key == "titles"]
    offers = Offers({}, 0, frozenset())
    targets: list[Any] = [VariantPolicy(experiment, "only", offers)]
    if policy == "uniform":
        targets.append(uniform())
    for number in range(6):
        for decision in home.compose(compiled_page, number).decisions:
            if decision.layer != "titles":
                continue
            assert decision.terms is not None
            assert decision.terms.boosts
            assert decision.terms.diversity == 1.7
            again = msgspec.json.decode(msgspec.json.encode(decision), type=Decision)
            assert again.terms == decision.terms
            (row,) = decision_rows([(1, decision)]).to_pylist()
            assert decision_of({**row, "decided_at": 0}).terms == decision.terms
            for target in targets:
                for placed, p in zip(decision.slate, target.probabilities(again), strict=True):
                    place = decision.eligible.index(placed.action)
                    assert p[place] == pytest.approx(placed.propensity, rel=1e-12)
