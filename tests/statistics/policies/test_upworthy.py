"""What the benchmark on tests of titles takes for sound, for true, and for a share."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks import upworthy


def file_of(path, rows):
    names = ("test_id", "impressions", "clicks", "week")
    pq.write_table(
        pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path
    )
    return path


def test_broken_weeks_mismatches_and_tests_of_one_title_are_left_out(tmp_path):
    rows = [
        ("sound", 4_000, 80, "201410"),
        ("sound", 4_050, 40, "201410"),
        ("cached", 4_000, 80, "201340"),
        ("cached", 4_050, 40, "201340"),
        ("mismatched", 4_000, 80, "201410"),
        ("mismatched", 6_000, 80, "201410"),
        ("alone", 4_000, 80, "201410"),
    ]
    (test,) = upworthy.sound_tests(file_of(tmp_path / "tests.parquet", rows))
    rate = 120 / 8_050
    # The posterior mean lies between the observed rate and that of the test.
    assert 40 / 4_050 < test.rates[1] < rate < test.rates[0] < 80 / 4_000


@pytest.mark.parametrize("rate", [0.002, 0.015, 0.3])
def test_the_prior_has_the_mean_and_the_variation_that_it_says(rate):
    a, b = upworthy.prior_of(rate)
    variance = a * b / ((a + b) ** 2 * (a + b + 1.0))
    assert a / (a + b) == pytest.approx(rate)
    assert variance**0.5 / rate == pytest.approx(upworthy.VARIATION)


def test_a_share_of_proportional_gains_has_no_error():
    gap = np.array([0.01, 0.02, 0.005])
    value, error = upworthy.share(0.4 * gap, gap)
    assert value == pytest.approx(0.4)
    assert error == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", upworthy.PLAYS)
def test_each_way_to_choose_finds_a_title_that_is_far_better(name):
    titles = upworthy.Titles(np.array([0.02, 0.4, 0.02]), (2.0, 20.0))
    earned = upworthy.PLAYS[name](titles, 1_000, np.random.default_rng(0))
    best_of_ab = 0.3 * titles.rates.mean() + 0.7 * 0.4
    assert earned >= 0.9 * best_of_ab
    assert earned <= 0.4
