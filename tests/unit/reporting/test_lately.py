"""How a policy explores now is told by its latest decisions, and not by all of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.reporting.queries.exposure import explored_lately, latest_buckets, shares_lately


def buckets(decisions: list[int], effective: list[float], explored: list[float]) -> pd.DataFrame:
    till = pd.date_range("2026-11-01", periods=len(decisions), freq="h")
    columns = {"till": till, "decisions": decisions, "effective": effective, "explored": explored}
    return pd.DataFrame(columns)


def test_a_warm_up_that_is_over_does_not_count() -> None:
    over_time = buckets([100, 100, 50], [8.0, 1.0, 1.0], [0.875, 0.0, 0.0])
    assert explored_lately(over_time) == (1.0, 0.0)
    all_time = explored_lately(over_time, 1.0)
    # e to the mean entropy: 100 of 250 decisions have ln 8.
    assert all_time == pytest.approx((8.0**0.4, 0.35))


def test_nothing_on_record_is_nothing() -> None:
    assert explored_lately(buckets([], [], [])) is None
    shown = pd.DataFrame({"till": [], "name": [], "shown": []})
    assert shares_lately(shown).empty


def test_shares_of_the_latest_decisions_sum_to_one() -> None:
    till = pd.to_datetime(["2026-11-01", "2026-11-01", "2026-11-02", "2026-11-02"])
    shown = pd.DataFrame({"till": till, "name": ["a", "b", "a", "b"], "shown": [0, 90, 8, 2]})
    assert shares_lately(shown).to_dict() == {"a": 0.8, "b": 0.2}


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=40), st.floats(0.001, 1.0))
def test_the_latest_buckets_have_their_share_and_would_not_without_the_oldest_of_them(
    counts: list[int], share: float
) -> None:
    series = pd.Series(counts, index=np.arange(len(counts)))
    latest = latest_buckets(series, share)
    assert list(latest) == sorted(latest, reverse=True)
    assert latest[0] == len(counts) - 1
    assert series[latest].sum() >= share * series.sum() * (1 - 1e-12)
    assert series[latest[:-1]].sum() < share * series.sum()
