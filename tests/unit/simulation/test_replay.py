"""Rejection replay: right where the answer is known in closed form, and unwilling where it would be
biased.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from scipy import stats

from topbill.domain.errors import BadData, BadRequest
from topbill.policies import KINDS
from topbill.simulation.obd import read_obd
from topbill.simulation.replay import DEFAULT_KINDS, click_rate, reading, replay, replay_obd, table
from topbill.spec import Variant

ROWS = 1_000
OBD = Path(__file__).parents[2] / "data" / "obd"


def columns(rows: int = ROWS, items: int = 4, seed: int = 0) -> dict[str, Any]:
    """A uniform log in which item 2 is always clicked and item 1 at position 1 too; nothing else
    is.
    """
    rng = np.random.default_rng(seed)
    item, position = rng.integers(0, items, rows), rng.integers(1, 4, rows)
    return {
        "item_id": item,
        "position": position,
        "click": ((item == 2) | ((item == 1) & (position == 1))).astype(np.int64),
        "propensity_score": np.full(rows, 1 / items),
    }


def write(path: Path, **changes: Any) -> Path:
    pyarrow.parquet.write_table(
        pa.table({k: v for k, v in (columns() | changes).items() if v is not None}), path
    )
    return path


def test_a_fixed_order_is_worth_what_its_item_earned(tmp_path: Path) -> None:
    log = read_obd(write(tmp_path / "log.parquet"))
    for first, expected in (("2", 1.0), ("3", 0.0)):
        params = KINDS["fixed"].Params(order=[first])
        result = replay(log, Variant("fixed", "fixed", params, 1.0, control=True))
        matched = log.item.count(int(first))
        assert (result.matched.rows, result.matched.clicks) == (matched, matched * expected)
        assert result.weighted.rows == pytest.approx(matched)
        assert result.weighted.rate == pytest.approx(expected)


def test_a_uniform_policy_weights_every_row_alike_and_so_earns_the_logs_own_rate(
    tmp_path: Path,
) -> None:
    report = replay_obd(write(tmp_path / "log.parquet"), ["uniform"])
    uniform = report.policies[0]
    assert uniform.weighted.rows == pytest.approx(ROWS)
    assert uniform.weighted.rate == pytest.approx(report.log.rate)
    assert stats.binomtest(int(uniform.matched.rows), ROWS, 0.25).pvalue > 1e-4


@pytest.mark.parametrize("kind", ["epsilon_greedy", "thompson", "linucb"])
def test_a_learning_policy_finds_the_item_that_is_always_clicked(tmp_path: Path, kind: str) -> None:
    report = replay_obd(write(tmp_path / "log.parquet"), [kind])
    found = report.policies[0]
    assert report.log.rate == pytest.approx(1 / 3, abs=0.04)
    assert found.matched.rate is not None
    assert found.matched.rate > 0.8
    assert found.matched.interval[0] > report.log.interval[1]
    assert found.versions == found.matched.rows
    assert kind in reading(report)


def test_a_replay_is_reproducible(tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.parquet", **{name: column[:300] for name, column in columns().items()}
    )
    assert replay_obd(path, ["thompson"]) == replay_obd(path, ["thompson"])


def test_real_clicks_of_the_open_bandit_dataset_can_be_replayed() -> None:
    report = replay_obd(OBD / "random_all.parquet", ["uniform"])
    assert (report.items, report.log.rows, report.log.clicks) == (80, 10_000, 38)
    assert stats.binomtest(int(report.policies[0].matched.rows), 10_000, 1 / 80).pvalue > 1e-4
    assert "too few" in reading(report)


def test_csv_reads_like_parquet(tmp_path: Path) -> None:
    pyarrow.csv.write_csv(pa.table(columns()), tmp_path / "log.csv")
    assert read_obd(tmp_path / "log.csv").item == read_obd(write(tmp_path / "log.parquet")).item


def test_items_that_a_short_log_never_showed_are_still_actions(tmp_path: Path) -> None:
    short = {name: column[:3] for name, column in columns(items=80).items()}
    assert len(read_obd(write(tmp_path / "log.parquet", **short)).actions) == 80


def test_a_log_that_another_policy_wrote_is_refused() -> None:
    with pytest.raises(
        BadData, match=r"propensity_score: got values from .*; expected the same .* drawn uniformly"
    ):
        read_obd(OBD / "bts_all_1000.parquet")


def test_a_log_whose_items_belie_its_propensities_is_refused(tmp_path: Path) -> None:
    skewed = np.where(np.arange(ROWS) % 3 == 0, columns()["item_id"], 0)
    with pytest.raises(BadData, match=r"item_id: got items shown \d+ to \d+ times"):
        read_obd(write(tmp_path / "log.parquet", item_id=skewed))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no click column": (
        {"click": None},
        r"click: no such column; expected item_id, position, click, propensity_score",
    ),
    "click of 2": ({"click": np.full(ROWS, 2)}, r"click: got 2 in row 0; expected 0 or 1"),
    "click as text": ({"click": ["0"] * ROWS}, r"click: got string; expected integers 0 or 1"),
    "item as text": ({"item_id": ["a"] * ROWS}, r"item_id: got string; expected integers"),
    "null position": (
        {"position": [None] + [1] * (ROWS - 1)},
        r"position: got int64 with 1 nulls; expected integers",
    ),
    "propensity of 0": (
        {"propensity_score": np.zeros(ROWS)},
        r"propensity_score: got values from 0 to 0",
    ),
    "propensity NaN": (
        {"propensity_score": np.full(ROWS, np.nan)},
        r"propensity_score: got values from nan",
    ),
    "propensity of no count": (
        {"propensity_score": np.full(ROWS, 0.3)},
        r"propensity_score: got values from 0.3",
    ),
    "one item": (
        {"propensity_score": np.ones(ROWS)},
        r"propensity_score: got 1, that is 1 items; expected 2 to",
    ),
    "too many items": (
        {"item_id": np.arange(ROWS)},
        r"item_id: got 1000 different items; expected 4",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_refused_by_column(tmp_path: Path, fault: str) -> None:
    changes, message = BAD[fault]
    with pytest.raises(BadData, match=message) as raised:
        read_obd(write(tmp_path / "log.parquet", **changes))
    assert raised.value.path.startswith("log.parquet.")


def test_no_rows_and_no_parquet_are_refused(tmp_path: Path) -> None:
    empty = {name: column[:0] for name, column in columns().items()}
    with pytest.raises(BadData, match="got no rows"):
        read_obd(write(tmp_path / "log.parquet", **empty))
    (tmp_path / "text.parquet").write_text("not a table")
    for path in (tmp_path / "text.parquet", tmp_path / "missing.parquet", tmp_path):
        with pytest.raises(BadData, match="cannot be read"):
            read_obd(path)


def test_unknown_kinds_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"got 'thomson'; expected one of .*thompson"):
        replay_obd(tmp_path / "missing.parquet", ["uniform", "thomson"])


def test_intervals_hold_for_few_clicks_and_for_none() -> None:
    """Jeffreys' intervals as Brown, Cai and DasGupta (2001) print them in table 5."""
    assert click_rate(10, 0).interval == pytest.approx((0.0, 0.217), abs=5e-4)
    assert click_rate(10, 1).interval == pytest.approx((0.011, 0.381), abs=5e-4)
    assert click_rate(100, 0).interval[0] == 0.0
    assert 0.0 < click_rate(100, 0).interval[1] < 0.03
    assert click_rate(0, 0).rate is None


def test_the_table_names_every_policy_and_the_log() -> None:
    report = replay_obd(OBD / "random_all.parquet", DEFAULT_KINDS[:1])
    assert list(table(report).columns[0].cells) == ["the log itself", "uniform"]
