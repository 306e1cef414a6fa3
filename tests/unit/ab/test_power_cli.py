"""`topbill power`: how long an experiment must run, from its own traffic in the lake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from topbill import cli
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.lake import Lake
from topbill.spec import Experiment

NOW = 1_700_000_000_000_000
DAY = 86_400_000_000
UNITS = 600


def decision(number: int, art: Experiment) -> Decision:
    names = ["editorial", *["thompson"] * 3, "uniform"]
    return Decision(
        decision_id=f"d{number}",
        experiment="art",
        revision=art.fingerprint,
        variant=names[number % len(names)],
        unit=f"u{number}",
        eligible=("a", "b"),
        slate=(Placement(0, "a", 0.5),),
        propensity=0.5,
        probabilities=((0.5, 0.5),),
        policy="uniform",
        reason="policy",
        decided_at=NOW + (number % 4) * DAY,
    )


@pytest.fixture
def data(tmp_path: Path, art: Experiment) -> Path:
    """A lake with a decision each of 600 units, at four moments over three days. A third of them
    led to a play."""
    decisions = [decision(i, art) for i in range(UNITS)]
    plays = np.flatnonzero(np.random.default_rng(0).random(UNITS) < 1 / 3)
    lake, by_id = Lake(tmp_path / "data"), {d.decision_id: Origin.of(d) for d in decisions}
    lake.append("decisions", decision_rows(list(enumerate(decisions, 1))), UNITS)
    events = [
        RewardEvent(
            decision_id=f"d{i}", event_id="e", event="play", received_at=decisions[i].decided_at + 1
        )
        for i in plays
    ]
    lake.append(
        "rewards",
        reward_rows([(i, e, by_id[e.decision_id]) for i, e in enumerate(events, 1)]),
        len(events),
    )
    lake.write_database([art], NOW + 5 * DAY)
    return tmp_path / "data"


@pytest.fixture
def topbill(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What the command prints on a page of 80 columns."""

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(cli.out, "width", 80)
        cli.app([str(a) for a in arguments], result_action="return_value")
        return capsys.readouterr().out

    return run


def test_the_text_fits_80_columns_and_says_what_a_lift_needs_and_what_shows_when(
    data: Path, topbill: Callable[..., str]
) -> None:
    said = topbill("power", "art", "--data", data)
    assert max(map(len, said.splitlines())) <= 80
    for told in (
        "600 units so far, 200 a day",
        "play of the control",
        "thompson",
        "uniform",
        "+5%",
        "in 14 days",
    ):
        assert told in said


def test_the_json_carries_sample_size_days_and_detectable_effect(
    data: Path, topbill: Callable[..., str]
) -> None:
    found = json.loads(topbill("power", "art", "--data", data, "--metric", "play", "--json"))
    assert (found["metric"], found["units"], found["units_a_day"]) == ("play", UNITS, 200.0)
    run = next(r for r in found["runtimes"] if (r["variant"], r["relative"]) == ("thompson", 0.1))
    assert run["days"] == pytest.approx(
        run["units"] / (200.0 * 0.8)
    )  # editorial's 20% and thompson's 60%
    now, *later = [d for d in found["detectable"] if d["variant"] == "thompson"]
    assert (now["days"], now["units"]) == (0, 480)
    assert [d["units"] for d in later] == [480 + 160 * d["days"] for d in later]
    assert now["relative"] > later[0]["relative"] > later[-1]["relative"] > 0.0


def test_what_is_not_there_is_named_with_what_is(data: Path, topbill: Callable[..., str]) -> None:
    with pytest.raises(NotFound, match="expected one of: art"):
        topbill("power", "arts", "--data", data)
    with pytest.raises(BadRequest, match="expected one of play"):
        topbill("power", "art", "--data", data, "--metric", "plays")


def test_an_experiment_without_traffic_says_so(
    tmp_path: Path, art: Experiment, topbill: Callable[..., str]
) -> None:
    Lake(tmp_path / "none").write_database([art], NOW)
    assert "Nothing can be planned yet: the variant has no units yet" in topbill(
        "power", "art", "--data", tmp_path / "none"
    )


def test_lifts_days_power_level_and_method_are_the_askers_choice(
    data: Path, topbill: Callable[..., str]
) -> None:
    asked = (
        "power",
        "art",
        "--data",
        data,
        "--json",
        "--lift",
        "3%",
        "--lift=-2.5%",
        "--days",
        "1",
        "--days",
        "90",
    )
    found = json.loads(topbill(*asked))
    assert {run["relative"] for run in found["runtimes"]} == {0.03, -0.025}
    assert {one["days"] for one in found["detectable"]} == {1, 90}
    units = {
        run["relative"]: run["units"] for run in found["runtimes"] if run["variant"] == "thompson"
    }
    assert units[-0.025] > units[0.03]
    for more, fewer in (
        (("--power", "0.95"), False),
        (("--alpha", "0.2"), True),
        (("--method", "fixed"), True),
    ):
        other = json.loads(topbill(*asked, *more))
        assert (other["runtimes"][0]["units"] < found["runtimes"][0]["units"]) == fewer
    said = topbill(
        "power",
        "art",
        "--data",
        data,
        "--lift",
        "2.5%",
        "--days",
        "1",
        "--method",
        "fixed",
        "--power",
        "0.9",
    )
    for told in ("90% power at 95%, looking once", "+2.5%", "in 1 day"):
        assert told in said


def test_a_plan_says_when_one_looks(topbill: Callable[..., str]) -> None:
    ahead = ("power", "--baseline", "12%", "--units-per-day", "40000", "--lift", "5%")
    said = topbill(*ahead, "--method", "group-sequential", "--looks", "33.3%,66.7%,100%")
    assert "at 95%, looking at 33.3%, 66.7%, 100% of the planned units" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80
    assert "looking at 100% of the planned units" in topbill(*ahead, "--method", "group-sequential")


def test_percentages_come_with_commas_or_a_sign_and_a_wrong_one_names_its_option(
    topbill: Callable[..., str],
) -> None:
    ahead = ("power", "--baseline", "12%", "--method", "group-sequential")
    found = json.loads(
        topbill(*ahead, "--looks", "50%,100%", "--lift", "-2.5%", "--lift", "3%,4%", "--json")
    )
    assert [run["relative"] for run in found["runtimes"]] == [-0.025, 0.03, 0.04]
    for option in ("baseline", "lift", "looks", "shares", "variance-saved"):
        for wrong in ("12", "nan%", "half"):
            given = {"baseline": "12%", option: wrong}
            options = [part for name, value in given.items() for part in (f"--{name}", value)]
            with pytest.raises(BadRequest, match=f"^{option}: got '{wrong}'; expected a percent"):
                topbill("power", *options)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (("--lift", "5"), "expected a percentage, such as 5%"),
        (("--lift", "0%"), "expected a relative change such as 0.05"),
        (("--lift", "much%"), "expected a percentage, such as 5%"),
        (("--days", "-1"), "expected whole days from now"),
        (("--power", "1"), "expected a number between 0 and 1"),
        (("--alpha", "0"), "expected a number between 0 and 0.5"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(
    data: Path, topbill: Callable[..., str], option: tuple[str, str], expected: str
) -> None:
    with pytest.raises(BadRequest, match=expected):
        topbill("power", "art", "--data", data, f"{option[0]}={option[1]}")


def test_the_report_is_read_by_the_method_that_was_asked_for(
    data: Path, topbill: Callable[..., str]
) -> None:
    def width(*options: str) -> float:
        told = json.loads(topbill("report", "art", "--data", data, "--json", *options))["ab"][
            "comparisons"
        ][0]
        return float(told["difference_high"] - told["difference_low"])

    once = width("--method", "fixed")
    early = width("--method", "group-sequential", "--looks", "50%")
    assert once < early < 2.0 * once
    assert width("--method", "group-sequential") == pytest.approx(once, rel=0.02)
    assert width() > once
    with pytest.raises(BadRequest, match="information fractions"):
        width("--method", "group-sequential", "--looks", "100%", "--looks", "50%")


# --- Before launch


def test_before_launch_a_baseline_stands_for_the_data(topbill: Callable[..., str]) -> None:
    asked = ("power", "--baseline", "12%", "--units-per-day", "40000", "--variants", "3")
    said = topbill(*asked, "--margin", "2pp", "--margin", "0.5%")
    assert max(map(len, said.splitlines())) <= 80
    for told in (
        "Before launch: how long must it run?",
        "3 variants, 40,000 units a day",
        "0.05/2 (Holm)",
        "each variant",
        "2pp",
        "in 14 days",
        "To know that metric is not worse by 0.5% takes",
    ):
        assert told in said
    found = json.loads(topbill(*asked, "--lift", "5%", "--json"))
    assert [run["units"] for run in found["runtimes"]] == [242_455]
    assert found["treatments"] == 2
    number = ("power", "--mean", "5", "--sd", "8", "--shares", "50%,30%", "--shares", "20%")
    found = json.loads(topbill(*number, "--margin", "0.1", "--json"))
    assert {run["variant"] for run in found["runtimes"]} == {"variant 1", "variant 2"}
    assert {guard["margin_unit"] for guard in found["guardrails"]} == {"absolute"}
    assert all(run["days"] is None for run in found["runtimes"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "expected the KEY of an experiment"),
        (("--baseline", "12%", "--mean", "3", "--sd", "1"), "expected the KEY of an experiment"),
        (("--mean", "3"), "expected the KEY of an experiment"),
        (("--baseline", "0.12"), "expected a percentage, such as 5%"),
        (("--baseline", "120%"), "expected a rate between 0 and 1"),
        (("--baseline", "12%", "--metric", "play"), "expected a KEY before it"),
        (("--baseline", "12%", "--variants", "3", "--shares", "50%,50%"), "one of the two"),
        (("--baseline", "12%", "--margin", "wide"), "expected a margin of the control's value"),
        (("--baseline", "12%", "--margin", "0.5"), "points \\(2pp\\) of a rate"),
    ],
)
def test_options_before_launch_that_do_not_go_together_are_refused(
    topbill: Callable[..., str], options: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(BadRequest, match=expected):
        topbill("power", *options)


def test_an_experiment_with_traffic_takes_no_baseline(
    data: Path, topbill: Callable[..., str]
) -> None:
    with pytest.raises(BadRequest, match="there is no --baseline"):
        topbill("power", "art", "--data", data, "--baseline", "12%")
