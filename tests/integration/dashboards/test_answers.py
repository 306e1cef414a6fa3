"""What pages open with: the urgent first, no word that the numbers don't bear, and always a next
step.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from msgspec.structs import replace

from topbill import reporting
from topbill.ab import GuardrailResult
from topbill.reporting import page
from topbill.reporting.experiment.wording import Standing, standing
from topbill.reporting.queries import action_values, exposure
from topbill.reporting.queries.exposure import Exploration
from topbill.reporting.queries.launches import LaunchStanding

KEY, ROWS = "home-artwork", "home-rows"
SOME, NONE = Exploration(1.4, 0.1), Exploration(1.0, 0.0)
"""How open a draw is: somewhat, and not at all."""


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "dashboards"))
    from board import answers as found

    return found


def test_a_list_is_read_out_and_ends() -> None:
    from topbill.domain.formatting import listing

    assert [listing(list("abc")[:n]) for n in (0, 1, 2, 3)] == ["", "a", "a and b", "a, b and c"]
    assert listing(list("abcdef"), 2) == "a, b and 4 more"


LAUNCH = LaunchStanding(
    experiment=KEY,
    stage="ramp",
    step=3,
    traffic=0.25,
    since=None,
    reason="approval",
    sentence="50% of traffic begins when somebody approves",
    until=None,
    next_traffic=0.5,
    needs_approval=True,
    ramp=[0.25, 0.5, 1.0],
)


def test_what_did_not_come_is_drawn_as_nothing(answers: Any) -> None:
    from board import pieces

    days = pd.to_datetime(["2026-01-01", "2026-01-01", "2026-01-02"])
    counted = pd.DataFrame({"till": days, "name": ["play", "abandon", "play"], "events": [3, 1, 2]})
    came = pieces.filled(counted, "events").set_index(["name", "till"])["events"]
    assert came["abandon"].tolist() == [1.0, 0.0]
    so_far = pieces.filled(counted[1:], "events", is_running_total=True)
    assert so_far[so_far["name"] == "abandon"]["events"].tolist() == [1.0, 1.0]
    assert len(so_far[so_far["name"] == "play"]) == 1, "no total before the first"


def test_a_launch_is_part_of_where_an_experiment_stands(answers: Any, demo: Path) -> None:
    report = reporting.load_experiment_report(KEY, demo)
    asks = answers.with_launch(report, LAUNCH)
    assert (asks.word, asks.tone) == ("Waits for approval", "warning")
    assert "topbill approve home-artwork" in asks.next
    over = replace(LAUNCH, stage="over", needs_approval=False, sentence="it is over: harm")
    back = answers.with_launch(report, over)
    assert (back.word, back.sentence) == ("Rolled back", "It is over: harm.")
    gated = answers.with_launch(report, replace(over, traffic=None))
    assert gated.word == "Stopped at its gate"
    stopped = answers.with_launch(replace(report, status="stopped"), None)
    assert "nothing more comes" in stopped.next
    assert "at the current rate" not in stopped.sentence
    assert answers.with_launch(report, None) == standing(report)
    found = answers.all_experiments([("Art", report)], launches={KEY: LAUNCH})
    assert found.sentence == "1 experiment: 1 waiting for approval."
    assert found.next.startswith("Art: Its launch waits: 50% of traffic begins")


def test_the_morning_asks_for_the_urgent_first(answers: Any, demo: Path, uneven: Path) -> None:
    calm, alarming = (
        reporting.load_experiment_report(KEY, demo),
        reporting.load_experiment_report(KEY, uneven),
    )
    assert calm.ab is not None
    won = replace(calm.ab.verdict, codes=["beats_control"], winner="linucb", safe_to_ship=True)
    winner = replace(calm, ab=replace(calm.ab, verdict=won))
    lost = replace(calm.ab.verdict, codes=["worse_than_control"])
    loser = replace(calm, ab=replace(calm.ab, verdict=lost))
    quiet = replace(calm, decisions=0)
    found = answers.all_experiments([("Calm", calm), ("Quiet", quiet)])
    assert (found.word, found.sentence) == (
        "Nothing to decide",
        "2 experiments: 1 inconclusive and 1 without traffic.",
    )
    found = answers.all_experiments([("Calm", calm), ("Won", winner)])
    assert found.tone == "good"
    assert found.next.startswith("Won: Ship linucb")
    assert answers.all_experiments([("Won", winner), ("Lost", loser)]).next.startswith(
        "Lost: Stop it"
    )
    # What stands still for hours has nothing to be decided today.
    old = answers.all_experiments([("Won", winner)], answers.STILL + 1.0)
    assert (found.word, old.word, old.tone) == ("Decide today", "Winner", "good")
    found = answers.all_experiments([("Won", winner), ("Lost", loser), ("Split", alarming)])
    assert found.word == "Look into it"
    assert "1 raises an alarm" in found.sentence
    assert found.next.startswith("Split: Sample ratio mismatch (SRM): units were not split")
    broken = GuardrailResult(metric="abandon", variant="linucb", margin=0.02, status="worse")
    harm = replace(calm.ab.verdict, codes=["guardrail_worse"])
    harmful = replace(calm, ab=replace(calm.ab, verdict=harm, guardrails=[broken]))
    found = answers.all_experiments([("Split", alarming), ("Broken", harmful)])
    assert (found.word, found.tone) == ("Decide today", "bad")
    assert found.next.startswith("Broken: Don't ship a variant that fails a guardrail")


def test_a_bandit_is_spoken_of_by_what_it_does(answers: Any, demo: Path) -> None:
    kinds = {v.variant: v.policy for v in reporting.load_experiment_report(KEY, demo).variants}
    words = {}
    for name, policy in kinds.items():
        positions = exposure.positions(demo, KEY, name)
        first = positions[positions["position"] == 1].set_index("action")["share"]
        values = action_values.action_values(demo, KEY, name)
        found = answers.bandit(name, policy, first, first, SOME, values)
        assert found.sentence.startswith(f"{name} now shows {first.idxmax()} first most")
        assert found.next
        words[policy] = found.word
    assert words["fixed"] == "Fixed"
    assert words["uniform"] == "Pure chance"
    nothing = pd.Series(dtype=float)
    empty = answers.bandit(
        "a", "linucb", nothing, nothing, None, pd.DataFrame(columns=action_values.COLUMNS)
    )
    assert empty.word == "Nothing shown"


def test_a_bandit_is_judged_by_what_it_does_now_beside_what_it_did(answers: Any) -> None:
    """After a warm-up of pure chance it has settled, and says both."""
    values = pd.DataFrame([("a", 90, 0.9, 0.5, 90, 0.5, 0.4, 0.6, "")])
    values.columns = pd.Index(action_values.COLUMNS)
    ever, now = pd.Series({"b": 0.51, "a": 0.49}), pd.Series({"a": 0.99, "b": 0.01})
    found = answers.bandit("v", "linucb", ever, now, SOME, values)
    assert found.word == "Settled"
    assert "a first most: in 99% of its latest decisions, 49% of all" in found.sentence
    assert "explores in 10.0% of the latest" in found.sentence
    still = answers.bandit("v", "linucb", ever, now, Exploration(5.0, 0.6), values)
    assert still.word == "Still exploring"


def test_what_is_shown_most_is_praised_only_where_it_is_surely_worth_most(answers: Any) -> None:
    def lines(low: float) -> pd.DataFrame:
        rows = [
            ("a", 90, 0.9, 0.5, 90, 0.5, low, 0.6, ""),
            ("b", 10, 0.1, 0.2, 10, 0.2, 0.1, 0.3, ""),
        ]
        return pd.DataFrame(rows, columns=action_values.COLUMNS)

    first = pd.Series({"a": 0.9, "b": 0.1})
    assert answers.bandit("v", "linucb", first, first, SOME, lines(0.4)).tone == "good"
    assert answers.bandit("v", "linucb", first, first, SOME, lines(0.25)).tone == "neutral"
    other = pd.Series({"b": 0.9, "a": 0.1})
    assert answers.bandit("v", "linucb", other, other, SOME, lines(0.4)).tone == "warning"
    assert "hardly explores" in answers.bandit("v", "linucb", first, first, NONE, lines(0.4)).next
    assert answers.pictures({"a": "Picture A"}, lines(0.4), "v's").sentence.startswith(
        "Picture A is shown first most, in 90% of v's decisions"
    )


def test_what_is_known_of_one_action_alone_is_no_praise(answers: Any) -> None:
    """Of others nothing can be told, so nobody knows whether it is the best."""
    known = ("a", 90, 0.9, 0.5, 90, 0.5, 0.4, 0.6, "")
    unknown = ("b", 10, 0.1, 0.2, 10, None, None, None, "few")
    values = pd.DataFrame([known, unknown], columns=action_values.COLUMNS)
    told = answers.pictures({}, values, "v's")
    assert (told.word, told.tone) == ("Too early", "neutral")
    assert "Only a has an off-policy value yet" in told.sentence
    worse = ("c", 5, 0.05, 0.1, 5, 0.1, 0.0, 0.2, "")
    values = pd.DataFrame([known, worse, unknown], columns=action_values.COLUMNS)
    told = answers.pictures({}, values, "v's")
    assert told.tone == "good"
    assert "of 2 of 3 that can be told" in told.sentence


def test_a_whole_page_names_who_helps_and_who_hurts(answers: Any, demo: Path) -> None:
    found = page.load_page_report("home", demo)
    assert answers.whole_page(found).word == "Leading"
    worse = [
        page.LayerVariant(
            **{**vars(arm), "against_control": {page.OBJECTIVE: page.PageMean(-0.2, -0.3, -0.1)}}
        )
        if (arm.layer, arm.variant) == ("rows", "any")
        else arm
        for arm in found.arms
    ]
    told = answers.whole_page(page.PageReport(**{**vars(found), "arms": tuple(worse)}))
    assert told.tone == "bad"
    assert "rows' any hurts" in told.sentence
    assert "titles' any and artwork's any help" in told.sentence
    assert "Most does rows' any: −0.200 per page (" in told.sentence
    few = [page.LayerVariant(**{**vars(arm), "against_control": {}}) for arm in found.arms]
    assert (
        answers.whole_page(page.PageReport(**{**vars(found), "arms": tuple(few)})).word
        == "Too early"
    )


def test_a_record_that_stands_still_is_not_called_well(
    answers: Any, demo: Path, uneven: Path
) -> None:
    calm = reporting.load_experiment_report(KEY, demo)
    assert answers.healthy(calm, 5.0).word == "All well"
    assert answers.healthy(calm, answers.STILL + 1).word == "Stale data"
    assert (
        answers.healthy(reporting.load_experiment_report(KEY, uneven), 5.0).word == "Look into it"
    )


def test_a_record_that_stands_still_is_told_before_any_advice(answers: Any) -> None:
    where = Standing(word="Inconclusive", tone="neutral", sentence="No.", next="Keep it running.")
    assert answers.while_still(where, answers.STILL) is where
    still = answers.while_still(where, 1_740.0)
    assert (still.word, still.sentence) == ("Inconclusive", "No.")
    assert "29 min ago" in still.next
    assert "Keep it running" not in still.next
    # What is wrong is wrong whether anybody publishes or not.
    wrong = Standing(word="Not trustworthy", tone="warning", sentence="No.", next="Find the cause.")
    assert answers.while_still(wrong, 1_740.0).next.startswith("Find the cause. ")
    assert "29 min ago" in answers.while_still(wrong, 1_740.0).next


def test_no_record_is_younger_than_0_s_where_its_clock_is_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from board import data

    now = datetime.now(UTC).replace(tzinfo=None)
    for hours, age in ((-1, 0.0), (1, 3_600.0)):
        monkeypatch.setattr(data, "ask", lambda _, at=now - timedelta(hours=hours): at)
        assert data.age() == pytest.approx(age, abs=60.0)
        assert data.age() >= 0.0


def test_a_value_says_whether_it_rests_on_the_actions_own_shows(answers: Any) -> None:
    def told(plain: float, reason: str = "") -> str:
        row = {"shown": 52, "plain": plain, "low": 0.02, "high": 0.06, "reason": reason}
        return str(answers.rests_on(row))

    assert told(0.0) == told(float("nan")) == "model-based, 52 shows"
    assert told(0.04) == "52 shows"
    assert told(0.04, "too_few_draws") == "–"
