"""Metrics of a report against pandas: per decision, per unit, and with values cut off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from topbill import reporting
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.metric import METRIC_KINDS, Metric, event_kinds
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, RewardEvent
from topbill.lake import Lake

from .test_report import NOW, SECOND, SPEC, decision, text

pytestmark = pytest.mark.usefixtures("engine")

KINDS = [kind for kind in event_kinds() if not METRIC_KINDS[kind].of_a_day]


def world(seed: int) -> tuple[list[Decision], list[RewardEvent], pd.DataFrame, pd.DataFrame]:
    """Decisions of units that come one to four times, some too young for any window, and their
    events, some of them too late; as records and as frames."""
    g = np.random.default_rng(seed)
    decisions, events = [], []
    for n in range(400):
        unit = int(g.integers(150))
        variant = ("editorial", "bandit")[unit % 2]
        at = NOW + n * SECOND + (3500 * SECOND if n > 380 else 0)
        decisions.append(decision(n, unit=f"u{unit}", variant=variant, decided_at=at))
        for i in range(int(g.poisson(0.8))):
            occurred = at + int(g.integers(1, 900)) * SECOND
            value = float(np.round(g.gamma(2.0, 3.0), 2))
            events.append(
                RewardEvent(
                    decision_id=f"d{n}",
                    event_id=f"e{n}-{i}",
                    event="watch",
                    value=value,
                    action="xy"[int(value) % 2],
                    occurred_at=occurred,
                    received_at=occurred,
                )
            )
    rows = pd.DataFrame([(d.decision_id, d.unit, d.variant, d.decided_at) for d in decisions])
    rows.columns = ["decision_id", "unit", "variant", "at"]
    came = pd.DataFrame([(e.decision_id, e.value, e.occurred_at, e.action) for e in events])
    came.columns = ["decision_id", "value", "occurred", "item"]
    return decisions, events, rows, came


def report(folder: Path, metrics: tuple[Metric, ...], seed: int) -> tuple[Any, Any, Any]:
    decisions, events, rows, came = world(seed)
    lake = Lake(folder)
    lake.append("decisions", decision_rows(list(enumerate(decisions, 1))), len(decisions))
    by_id = {d.decision_id: Origin.of(d) for d in decisions}
    lines = [(seq, e, by_id[e.decision_id]) for seq, e in enumerate(events, 1)]
    lake.append("rewards", reward_rows(lines), len(lines))
    spec = replace(
        SPEC, metrics=(*SPEC.metrics[:1], *metrics), objective={"play": 1.0}, guardrails=()
    )
    lake.write_database([spec], NOW + 3600 * SECOND)
    return reporting.load("home", folder), rows, came


@pytest.mark.parametrize("per", ["decision", "unit"])
def test_every_kind_is_what_pandas_makes_of_the_events(tmp_path: Path, per: Any) -> None:
    window = 600.0
    metrics = tuple(
        Metric(kind, "watch", kind, window, per=per, default=2.0 if kind == "last" else 0.0)
        for kind in KINDS
    )
    found, rows, came = report(tmp_path, metrics, 3)
    mature = rows[rows["at"] + window * SECOND < NOW + 3600 * SECOND]
    assert 0 < len(mature) < len(rows)
    inside = came.merge(mature, on="decision_id")
    inside = inside[inside.occurred <= inside["at"] + window * SECOND]
    key = "decision_id" if per == "decision" else "unit"
    of = mature.groupby(key).variant.first()
    groups = inside.sort_values("occurred", kind="stable").groupby(key).value
    expected = {
        "binary": (groups.size() > 0).astype(float),
        "count": groups.size(),
        "sum": groups.sum(),
        "max": groups.max(),
        "mean": groups.mean(),
        "last": groups.last(),
        "earliest": groups.first(),
        "distinct": inside.groupby(key).item.nunique(),
    }
    assert found.ab is not None
    for metric in metrics:
        values = expected[metric.name].reindex(of.index).fillna(metric.default)
        means = values.groupby(of).mean()
        for line in found.metrics:
            if line.metric == metric.name:
                assert line.per == per
                assert line.estimate.value == pytest.approx(means[line.variant]), metric.name
        (c,) = [c for c in found.ab.comparisons if c.metric == metric.name]
        assert (c.value, c.control_value) == pytest.approx((means.bandit, means.editorial))
        assert c.per == per
    assert ("count per unit" in text(found)) == (per == "unit")
    assert ("count per unit" in reporting.to_html(found)) == (per == "unit")


@pytest.mark.parametrize("per", ["decision", "unit"])
def test_ratios_quantiles_and_winsorised_metrics_are_what_pandas_makes(
    tmp_path: Path, per: Any
) -> None:
    metrics = (
        Metric("minutes", "watch", "sum", 600.0, per=per),
        Metric("count", "watch", "count", 300.0, per=per),
        Metric("cut", "watch", "sum", 600.0, per=per, winsorise=0.95),
        Metric("rate", "watch", "ratio", 600.0, per=per, numerator="minutes", denominator="count"),
        Metric("p80", "watch", "quantile", 600.0, per=per, of="minutes", of_kind="sum", q=0.8),
    )
    found, rows, came = report(tmp_path, metrics, 5)
    mature = rows[rows["at"] + 600 * SECOND < NOW + 3600 * SECOND]
    inside = came.merge(mature, on="decision_id")
    lag = inside.occurred - inside["at"]
    minutes = inside[lag <= 600 * SECOND].groupby("decision_id").value.sum()
    counts = inside[lag <= 300 * SECOND].groupby("decision_id").size()
    wide = mature.set_index("decision_id").assign(minutes=minutes, count=counts)
    wide["had"] = wide.minutes.notna()
    wide = wide.fillna(0.0)
    key = "unit" if per == "unit" else "decision_id"
    numbers = wide.groupby(key).agg(
        {"variant": "first", "minutes": "sum", "count": "sum", "had": "any"}
    )
    cut = numbers.minutes.clip(upper=numbers.minutes.quantile(0.95))
    by_variant = numbers.groupby("variant")
    expected = {
        "cut": cut.groupby(numbers.variant).mean(),
        "rate": by_variant.minutes.sum() / by_variant["count"].sum(),
        "p80": numbers[numbers.had].groupby("variant").minutes.quantile(0.8),
    }
    assert found.ab is not None
    for name, values in expected.items():
        for line in found.metrics:
            if line.metric == name:
                assert line.estimate.value == pytest.approx(values[line.variant]), name
                assert line.estimate.low is not None
        (c,) = [c for c in found.ab.comparisons if c.metric == name]
        assert (c.value, c.control_value) == pytest.approx((values.bandit, values.editorial))
        assert c.per == ("count" if name == "rate" else per)
    assert reporting.to_html(found)
    assert "cut: values above" in text(found)


def test_a_ratio_of_nothing_has_a_reason(tmp_path: Path) -> None:
    metrics = (
        Metric("minutes", "watch", "sum", 600.0),
        Metric("never", "none", "count", 600.0),
        Metric("rate", "watch", "ratio", 600.0, numerator="minutes", denominator="never"),
        Metric("p50", "none", "quantile", 600.0, of="never", of_kind="count", q=0.5),
    )
    found, _, _ = report(tmp_path, metrics, 6)
    assert found.ab is not None
    reasons = {c.metric: c.reason for c in found.ab.comparisons}
    assert (reasons["rate"], reasons["p50"]) == ("no_values", "no_values")
    assert {m.estimate.reason for m in found.metrics if m.metric == "rate"} == {"no_values"}
    assert text(found)


def test_a_cap_of_the_file_is_the_reports_too(tmp_path: Path) -> None:
    metrics = (Metric("watched", "watch", "sum", 600.0, cap=5.0, capped=True),)
    found, rows, came = report(tmp_path, metrics, 4)
    mature = rows[rows["at"] + 600 * SECOND < NOW + 3600 * SECOND]
    inside = came.merge(mature, on="decision_id")
    sums = inside[inside.occurred <= inside["at"] + 600 * SECOND].groupby("decision_id").value.sum()
    values = sums.reindex(mature.decision_id).fillna(0.0).to_numpy()
    assert found.ab is not None
    for cut, value in ((5.0, found.ab.comparisons[-1]), (np.inf, found.ab.as_they_came[0])):
        means = pd.Series(np.minimum(values, cut)).groupby(mature.variant.to_numpy()).mean()
        assert (value.value, value.control_value) == pytest.approx((means.bandit, means.editorial))
    assert "watched: values above 5 count as 5 (" in text(found)
