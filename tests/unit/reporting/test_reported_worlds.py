"""Whole experiments of which a report said something wrong: a YAML file and a log, imported and
reported on by the commands that people type, each with what is right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from topbill import cli
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats.arrow_rows import to_table
from topbill.formats.rows import Row

SECOND = 1_000_000
DAY = 86_400 * SECOND
START = 1_764_000_000 * SECOND - 20 * DAY
SHOWN = {"old": "a", "new": "b"}
VARIANTS = """
variants:
  old: {policy: fixed, order: [a], share: 50%, control: true}
  new: {policy: fixed, order: [b], share: 50%}
"""


class World:
    """Decisions of two fixed variants, and what came of them."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._rows: list[Row] = []

    def show(
        self, variant: str, unit: int, at: int, context: dict[str, Any], **events: tuple[float, int]
    ) -> None:
        """One decision; `events`: name → value and µs after it."""
        name = f"d{len(self._rows)}"
        action = SHOWN[variant]
        decision = Decision(
            decision_id=name,
            experiment=self._key,
            revision="",
            variant=variant,
            unit=f"u{unit}",
            context=msgspec.Raw(msgspec.json.encode(context)),
            eligible=("a", "b"),
            slate=(Placement(0, action, 1.0),),
            propensity=1.0,
            probabilities=((float(action == "a"), float(action == "b")),),
            policy="fixed",
            reason="policy",
            decided_at=at,
        )
        rewards = [
            RewardEvent(
                decision_id=name,
                event_id=f"{name}-{event}",
                event=event,
                value=value,
                occurred_at=at + later,
                received_at=at + later,
            )
            for event, (value, later) in events.items()
        ]
        self._rows.append((decision, rewards))

    def report(self, folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> Any:
        """What `topbill import` and `topbill report --json` make of it with this file."""
        (folder / "exp").mkdir(parents=True)
        (folder / "exp" / f"{self._key}.yaml").write_text(text)
        self._rows.sort(key=lambda row: row[0].decided_at)
        pq.write_table(to_table(self._rows), folder / "log.parquet")
        run("import", folder / "log.parquet", "--key", self._key, "--data", folder / "data",
            "--experiments", folder / "exp")  # fmt: skip
        capsys.readouterr()
        run("report", self._key, "--data", folder / "data", "--json")
        return json.loads(capsys.readouterr().out)


def run(*command: str | Path) -> None:
    cli.app([str(part) for part in command], result_action="return_value")


def comparison(report: Any, metric: str) -> Any:
    (row,) = [row for row in report["ab"]["comparisons"] if row["metric"] == metric]
    return row


COVARIATE = f"""
experiment: art
surface: artwork
unit: user_id
context:
  minutes_last_month: {{type: number}}
actions: [{{id: a}}, {{id: b}}]
metrics:
  minutes: {{event: minutes, kind: sum, window: 6h, cap: 500, covariate: minutes_last_month}}
objective: {{minutes: 1.0}}
{VARIANTS}"""


@pytest.mark.parametrize("units", [300, pytest.param(2_500, marks=pytest.mark.slow)])
def test_a_covariate_that_the_new_app_alone_sends_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], units: int
) -> None:
    """There is no effect; those who watch more come more often. It was "+36.2%, safe to ship"."""
    world = World("art")
    rng = np.random.default_rng(1)
    for unit in range(units):
        variant = "old" if rng.random() < 0.5 else "new"
        past = rng.gamma(2, 20)
        context = {"minutes_last_month": round(float(past), 1)} if variant == "new" else {}
        for day in range(1 + min(6, rng.poisson(past / 20))):
            at = START + int(rng.integers(0, 86_400)) * SECOND + day * DAY
            minutes = round(max(0.0, float(past + rng.normal(0, 10))), 1)
            world.show(variant, unit, at, context, minutes=(minutes, 3_600 * SECOND))
    report = world.report(tmp_path / "one", COVARIATE, capsys)
    plain = COVARIATE.replace(", covariate: minutes_last_month", "")
    without = world.report(tmp_path / "two", plain, capsys)
    adjusted, right = comparison(report, "minutes"), comparison(without, "minutes")
    assert adjusted["reason"] == "covariate_missing"
    assert not report["ab"]["verdict"]["safe_to_ship"]
    for name in ("difference", "difference_low", "difference_high", "p_value"):
        assert adjusted[name] == pytest.approx(right[name], rel=1e-9)
    assert adjusted["difference_low"] < 0.0 < adjusted["difference_high"]


SHOP = f"""
experiment: shop
surface: artwork
unit: user_id
actions: [{{id: a}}, {{id: b}}]
metrics:
  revenue: {{event: revenue, kind: sum, window: 24h, cap: 100}}
  click: {{event: click, kind: binary, window: 24h}}
  buy: {{event: buy, kind: binary, window: 24h}}
objective: {{GOAL: 1.0}}
guardrails:
  - {{metric: buy, margin: 2%, better: higher}}
{VARIANTS}"""


def a_shop(seed: int) -> tuple[World, dict[str, list[float]]]:
    """Orders a quarter larger in `new`, purchases half as many, and one of 250,000 in `old`."""
    world = World("shop")
    rng = np.random.default_rng(seed)
    amounts: dict[str, list[float]] = {"old": [], "new": []}
    for unit in range(4_000):
        variant = "old" if rng.random() < 0.5 else "new"
        at = START + int(rng.integers(0, 10 * 86_400)) * SECOND
        amount = 0.0
        if rng.random() < 0.30:
            factor = 1.25 if variant == "new" else 1.0
            amount = float(np.round(rng.gamma(4, 5) * factor, 2))
        if unit == 1_001:
            variant, amount = "old", 250_000.0
        events: dict[str, tuple[float, int]] = {}
        if amount:
            events["revenue"] = (amount, 3_600 * SECOND)
        if rng.random() < (0.30 if variant == "old" else 0.40):
            events["click"] = (1.0, SECOND)
        if rng.random() < (0.10 if variant == "old" else 0.05):
            events["buy"] = (1.0, 7_200 * SECOND)
        amounts[variant].append(amount)
        world.show(variant, unit, at, {}, **events)
    return world, amounts


@pytest.mark.slow
def test_one_order_of_a_quarter_million_does_not_hide_a_win_that_a_cap_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was "no difference shown yet, −122 revenue"; capped, as policies learn, p is 1.3e-4."""
    world, amounts = a_shop(3)
    report = world.report(tmp_path, SHOP.replace("GOAL", "revenue"), capsys)
    old, new = (np.minimum(amounts[name], 100.0) for name in ("old", "new"))
    row = comparison(report, "revenue")
    assert (row["control_value"], row["value"]) == pytest.approx((old.mean(), new.mean()))
    run("report", "shop", "--data", tmp_path / "data", "--method", "fixed", "--json")
    fixed = comparison(json.loads(capsys.readouterr().out), "revenue")
    welch = stats.ttest_ind(new, old, equal_var=False).pvalue
    assert fixed["p_value"] == pytest.approx(welch, rel=1e-3) == pytest.approx(1.27e-4, rel=0.01)
    assert row["call"] == "better"
    # The raw metric stands beside it as a note.
    (raw,) = report["ab"]["as_they_came"]
    means = np.mean(amounts["new"]) - np.mean(amounts["old"])
    assert raw["difference"] == pytest.approx(means) == pytest.approx(-121.5, abs=0.1)
    assert "do not ship" in report["ab"]["verdict"]["sentence"]


@pytest.mark.slow
def test_a_win_that_halves_purchases_is_not_shipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world, _ = a_shop(4)
    report = world.report(tmp_path, SHOP.replace("GOAL", "click"), capsys)
    verdict = report["ab"]["verdict"]
    assert not verdict["safe_to_ship"]
    assert "buy is worse by 49.9%" in verdict["sentence"]
    assert verdict["sentence"].endswith("do not ship.")
    (guardrail,) = report["ab"]["guardrails"]
    assert (guardrail["metric"], guardrail["status"]) == ("buy", "worse")


def test_a_guardrail_that_says_no_direction_is_refused_before_the_launch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it, lower was taken for better: "buy not worse; safe to ship"."""
    text = SHOP.replace("GOAL", "click")
    (tmp_path / "shop.yaml").write_text(text)
    run("validate", tmp_path / "shop.yaml")
    assert "valid" in capsys.readouterr().out
    (tmp_path / "shop.yaml").write_text(text.replace(", better: higher", ""))
    with pytest.raises(SystemExit) as ended:
        run("validate", tmp_path / "shop.yaml")
    assert ended.value.code == 1
    said = capsys.readouterr().out
    line = 1 + text.splitlines().index(next(li for li in text.splitlines() if "buy:" in li))
    place = f"shop.yaml:{line}: metrics.buy.better"
    assert f"{place}: got nothing; expected higher or lower" in said


DEVICES = f"""
experiment: art
surface: artwork
unit: profile_id
context:
  device: {{type: category, values: [tv, mobile]}}
actions: [{{id: a}}, {{id: b}}]
metrics:
  play: {{event: play, kind: binary, window: 30m}}
objective: {{play: 1.0}}
{VARIANTS}"""


@pytest.mark.parametrize("units", [600, pytest.param(8_000, marks=pytest.mark.slow)])
def test_a_device_that_the_variant_brings_viewers_back_on_is_no_segment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], units: int
) -> None:
    """All are first seen on tv, and there is no effect. It was "−51% on tv, p 1e-58"."""
    world = World("art")
    rng = np.random.default_rng(5)
    counts = {"old": 0, "new": 0}
    for unit in range(units):
        variant = "old" if rng.random() < 0.5 else "new"
        heavy = rng.random() < 0.5
        chance = 0.6 if heavy else 0.2
        at = START + int(rng.integers(0, 7)) * DAY + int(rng.integers(0, 80_000)) * SECOND
        counts[variant] += 1
        visits = [(at, "tv")]
        if variant == "new" and heavy:
            visits.append((at + DAY, "mobile"))
        for moment, device in visits:
            played = {"play": (1.0, 60 * SECOND)} if rng.random() < chance else {}
            world.show(variant, unit, moment, {"device": device}, **played)
    report = world.report(tmp_path, DEVICES, capsys)
    (segment,) = report["ab"]["sample_ratio"]["segments"]
    assert (segment["by"], segment["value"], segment["counts"]) == ("device", "tv", counts)
    (segments,) = report["ab"]["heterogeneity"]
    (effect,) = segments["effects"]
    assert (effect["value"], effect["p_adjusted"]) == ("tv", 1.0)
    # Of the rate per visit, which moves by who comes how often, nothing is called.
    assert not report["ab"]["verdict"]["safe_to_ship"]
    assert any("divided by differs" in note for note in report["ab"]["notes"])
