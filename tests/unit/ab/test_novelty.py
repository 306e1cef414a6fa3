"""Effects by days since the first exposure: the plain definition's numbers, cohorts that are whole,
and a trend only where there is one.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from topbill.ab import Novelty, novelty
from topbill.ab.novelty import SPANS
from topbill.domain.errors import BadData, BadRequest
from topbill.reporting.experiment.wording import novelty_sentence

COLUMNS: dict[str, Any] = {"unit": "unit", "variant": "variant", "control": "old", "value": "play"}


def world(
    rng: np.random.Generator,
    fade: float,
    *,
    units: int = 3_000,
    days: int = 14,
    effect: float = 0.5,
    drift: float = 0.0,
) -> pd.DataFrame:
    """Units that come anew each day and return on each with chance 0.7; the effect fades with the
    days since a unit's first, the base rate drifts with the calendar.
    """
    first = rng.integers(0, days - 2, units)
    is_new = rng.random(units) < 0.5
    parts = []
    for day in range(days):
        came = np.flatnonzero((first == day) | ((first < day) & (rng.random(units) < 0.7)))
        since = day - first[came]
        base = 0.15 * (1.0 + drift * day)
        chance = base * (1.0 + effect * np.exp(-fade * since) * is_new[came])
        parts.append(
            pd.DataFrame(
                {
                    "unit": came,
                    "variant": np.where(is_new[came], "new", "old"),
                    "moment": pd.Timestamp("2026-03-20") + pd.Timedelta(days=day, hours=12),
                    "play": (rng.random(came.size) < chance).astype(float),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def only(results: list[Novelty]) -> Novelty:
    (result,) = results
    return result


def test_each_span_has_the_units_and_means_of_the_definition() -> None:
    rows = world(np.random.default_rng(3), 0.5)
    found = only(novelty(rows, **COLUMNS, time="moment", method="fixed"))
    day = rows.moment.dt.normalize()
    first = rows.groupby("unit").moment.transform("min").dt.normalize()
    since, last = (day - first).dt.days, day.max() - pd.Timedelta(days=1)
    assert [span.since for span in found.spans] == [a for a, _ in SPANS[: len(found.spans)]]
    for span in found.spans:
        # A unit counts on a span only where all of its days were over for it.
        whole = first + pd.Timedelta(days=span.until) <= last
        here = rows[(since >= span.since) & (since <= span.until) & whole]
        by_variant = here.groupby("variant")
        means, units = by_variant.play.mean(), by_variant.unit.nunique()
        assert (span.n, span.n_control) == (units["new"], units["old"])
        assert span.value == pytest.approx(means["new"])
        assert span.difference == pytest.approx(means["new"] - means["old"])
        # Units count once a day here, so that the plain standard error is right but for n − 1.
        if span.since == span.until:
            se = sum(v.var() / len(v) for _, v in by_variant.play) ** 0.5
            assert span.difference_low is not None
            assert span.difference - span.difference_low == pytest.approx(1.96 * se, rel=0.02)


def test_an_effect_that_wears_off_is_told_and_one_that_stays_is_not() -> None:
    rng = np.random.default_rng(5)
    fading = only(novelty(world(rng, 0.6, units=8_000, effect=1.0), **COLUMNS, time="moment"))
    assert fading.slope is not None
    assert fading.slope < 0.0
    assert fading.p_adjusted is not None
    assert fading.p_adjusted < 0.01
    assert fading.spans[0].relative > fading.spans[5].relative  # type: ignore[operator]
    calls = 0
    for seed in range(12):
        rows = world(np.random.default_rng(100 + seed), 0.0, units=1_500, drift=0.1)
        p = only(novelty(rows, **COLUMNS, time="moment", method="fixed")).p_value
        assert p is not None
        calls += p < 0.05
    # A base rate that more than doubles meanwhile makes no trend. Of 12 looks at 5%, 3 or more
    # happen in 2 of 100 runs.
    assert calls < 3


def test_days_that_are_not_over_do_not_count() -> None:
    """Values that are not known yet end the last whole day, for both variants alike."""
    rows = world(np.random.default_rng(7), 0.0)
    end = rows.moment.max() - pd.Timedelta(days=3)
    known = rows.assign(play=rows.play.where(rows.moment < end))
    cut = rows[rows.moment <= end]
    ours = only(novelty(known, **COLUMNS, time="moment"))
    plain = only(novelty(cut, **COLUMNS, time="moment"))
    assert [s.value for s in ours.spans] == pytest.approx([s.value for s in plain.spans])


def test_days_are_the_zones() -> None:
    """Half past eleven in the evening in UTC is the next day in Oslo."""
    rows = world(np.random.default_rng(9), 0.0)
    late = rows.assign(moment=rows.moment + pd.Timedelta(hours=11, minutes=30))
    late.loc[late.unit % 2 == 0, "moment"] += pd.Timedelta(hours=1)
    found = only(novelty(late, **COLUMNS, time="moment", time_zone="Europe/Oslo"))
    expected = only(novelty(rows, **COLUMNS, time="moment"))
    assert found.spans == expected.spans


def test_weak_data_says_why_there_is_no_trend() -> None:
    rows = world(np.random.default_rng(11), 0.0, units=150)
    found = only(novelty(rows, **COLUMNS, time="moment"))
    assert found.reason == "too_early"
    assert found.p_value is None
    assert {span.reason for span in found.spans} <= {"", "thin_span"}
    nobody = rows[rows.variant == "new"]
    assert only(novelty(nobody, **COLUMNS, time="moment")).reason == "missing_control"
    same = world(np.random.default_rng(11), 0.0).assign(play=1.0)
    assert only(novelty(same, **COLUMNS, time="moment")).p_value is None


def test_without_any_lift_the_trend_is_told_in_differences() -> None:
    """Where nobody in the control ever does it, a lift divides by nothing."""
    rows = world(np.random.default_rng(17), 0.0)
    rows.loc[rows.variant == "old", "play"] = 0.0
    found = only(novelty(rows, **COLUMNS, time="moment"))
    sentence = novelty_sentence(msgspec.structs.replace(found, is_proportion=True))
    assert found.p_adjusted is not None
    assert re.search(r"\+[\d.]+ pp on day 0, \+[\d.]+ pp on day", sentence)


def test_of_a_share_nothing_is_told_that_cannot_be() -> None:
    rng = np.random.default_rng(19)
    rows = world(rng, 0.0, units=400)
    # Next to nobody in the variant does it: as much less as the interval allows would be below 0.
    rows.loc[rows.variant == "new", "play"] *= rng.random((rows.variant == "new").sum()) < 0.1
    wide = only(novelty(rows, **COLUMNS, time="moment"))
    cut = only(novelty(rows, **COLUMNS, time="moment", bounds=(0.0, 1.0)))
    lows = [span.relative_low for span in wide.spans if span.relative_low is not None]
    assert min(lows) < -1.0
    for free, bounded in zip(wide.spans, cut.spans, strict=True):
        if free.relative_low is not None:
            assert bounded.relative_low == max(free.relative_low, -1.0)
            assert bounded.difference_low == max(free.difference_low or 0.0, -1.0)
        assert (bounded.value, bounded.relative_high) == (free.value, free.relative_high)
    assert cut.p_value == wide.p_value


def test_both_ends_are_told_on_one_scale() -> None:
    """A lift and a difference beside each other cannot be compared."""
    rows = world(np.random.default_rng(21), 0.0)
    found = only(novelty(rows, **COLUMNS, time="moment"))
    last = msgspec.structs.replace(found.spans[-1], relative=None, relative_low=None)
    found = msgspec.structs.replace(found, is_proportion=True, spans=[*found.spans[:-1], last])
    sentence = novelty_sentence(found)
    assert sentence.count(" pp on day") == 2
    assert "% on day" not in sentence


def test_what_cannot_be_meant_is_refused_by_name() -> None:
    rows = world(np.random.default_rng(13), 0.0, units=200)
    with pytest.raises(BadRequest, match=r"data\.when"):
        novelty(rows, **COLUMNS, time="when")
    with pytest.raises(BadRequest, match="did you mean Europe/Oslo"):
        novelty(rows, **COLUMNS, time="moment", time_zone="Europe/Olso")
    with pytest.raises(BadData, match=r"data\.variant: got a column of VARCHAR"):
        novelty(rows, **COLUMNS, time="variant")


@pytest.mark.parametrize("time", ["moment", "date", "number"])
def test_looked_at_part_by_part_they_are_the_same(
    time: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever tells the day, and where one row tells none."""
    rows = world(np.random.default_rng(23), 0.5, units=600)
    rows["date"] = rows.moment.dt.date
    rows["number"] = (rows.moment - rows.moment.min()).dt.days.astype("Int64")
    rows.loc[5, ["moment", "date", "number"]] = None
    whole = only(novelty(rows, **COLUMNS, time="moment"))
    # The module, whose name in the package is that of its function.
    monkeypatch.setattr(import_module("topbill.ab.novelty"), "_ROWS", len(rows) // 7)
    parts = only(novelty(rows, **COLUMNS, time=time))
    assert [(s.n, s.n_control) for s in parts.spans] == [(s.n, s.n_control) for s in whole.spans]
    assert [s.value for s in parts.spans] == pytest.approx([s.value for s in whole.spans])
    assert parts.slope == pytest.approx(whole.slope)
    assert parts.p_value == pytest.approx(whole.p_value)


def test_without_any_day_there_is_no_span() -> None:
    rows = world(np.random.default_rng(25), 0.0, units=200).assign(moment=pd.NaT)
    rows["moment"] = rows.moment.astype("datetime64[us]")
    assert only(novelty(rows, **COLUMNS, time="moment")).reason == "too_early"
