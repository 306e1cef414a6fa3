"""`estimate_table`: one pass of DuckDB gives the numbers of `estimate`, shards add up, and bad rows
are named.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from topbill.domain.errors import BadData, BadRequest
from topbill.ope import ESTIMATORS, OPEN, estimate, estimate_table, evaluate

from .conftest import World

REFERENCE = Path(__file__).parents[2] / "data" / "reference" / "obd" / "all_random_log.parquet"
COLUMNS = {
    "propensity": "pscore",
    "target": "pi_e_logged_action",
    "q_logged": "q_hat_logged_action",
    "q_target": "dm_term",
}
NAMES = tuple(name for name in ESTIMATORS if name not in ("mips", "adaptive-dr"))


def arrays() -> dict[str, Any]:
    d = duckdb.execute("SELECT * FROM read_parquet(?)", [str(REFERENCE)]).fetchnumpy()
    return {
        "rewards": d["reward"],
        "propensities": d["pscore"],
        "target_propensities": d["pi_e_logged_action"],
        "q_logged": d["q_hat_logged_action"],
        "q_target": d["dm_term"],
    }


def test_every_number_is_that_of_estimate() -> None:
    table, rows = (
        estimate_table(REFERENCE, **COLUMNS, estimators=NAMES),
        estimate(**arrays(), estimators=NAMES),
    )
    for name in NAMES:
        a, b = table[name], rows[name]
        assert (a.value, a.se, a.low, a.high) == pytest.approx(
            (b.value, b.se, b.low, b.high), rel=1e-9
        ), name
        assert a.lam == b.lam
        assert (a.reason, a.method) == (b.reason, b.method)
    a, b = table["ips"].diagnostics, rows["ips"].diagnostics
    assert (a.rows, a.units, a.hits) == (b.rows, b.units, b.hits)
    assert (a.ess, a.mean_weight, a.largest_weight) == pytest.approx(
        (b.ess, b.mean_weight, b.largest_weight), rel=1e-9
    )


def test_units_cluster_as_in_estimate() -> None:
    table = estimate_table(REFERENCE, **COLUMNS, unit='epoch_us("at") // 600000000')
    at = duckdb.execute(
        'SELECT epoch_us("at") // 600000000 AS unit FROM read_parquet(?)', [str(REFERENCE)]
    ).fetchnumpy()
    rows = estimate(**arrays(), units=at["unit"])
    assert table["dr"].diagnostics.units == rows["dr"].diagnostics.units < 2000
    for name, e in rows.items():
        assert (table[name].value, table[name].se) == pytest.approx((e.value, e.se), rel=1e-9), name


@pytest.mark.parametrize("unit", [None, '"at"'])
def test_the_bootstrap_agrees_with_the_linearised_error(unit: str | None) -> None:
    common: dict[str, Any] = {**COLUMNS, "unit": unit, "estimators": ("dm", "dros"), "lam": 1.0}
    boot = estimate_table(REFERENCE, **common, interval="bootstrap", replicates=2000)
    for name, e in estimate_table(REFERENCE, **common).items():
        assert [boot[name].low, boot[name].high] == pytest.approx(
            [e.low, e.high], abs=0.3 * (e.se or 0)
        )


def test_several_files_and_any_relation_are_one_log(tmp_path: Path) -> None:
    whole = pq.read_table(REFERENCE)
    for i in range(3):
        pq.write_table(whole.slice(i * 4000, 4000), tmp_path / f"{i}.parquet")
    expected = estimate_table(REFERENCE, **COLUMNS)["dr"].value
    assert estimate_table(tmp_path / "*.parquet", **COLUMNS)["dr"].value == pytest.approx(
        expected, rel=1e-12
    )
    query = f"(SELECT * FROM read_parquet('{REFERENCE}') WHERE position = 0)"  # noqa: S608
    assert estimate_table(query, **COLUMNS)["dr"].diagnostics.rows < 5000


def test_a_delta_table_is_read_as_it_is_now(tmp_path: Path) -> None:
    whole = pq.read_table(REFERENCE)
    folder = tmp_path / "log"
    write_deltalake(folder, whole.slice(0, 5000).drop_columns("at"))
    write_deltalake(folder, whole.slice(5000).drop_columns("at"), mode="append")
    assert estimate_table(folder, **COLUMNS)["dr"].value == pytest.approx(
        estimate_table(REFERENCE, **COLUMNS)["dr"].value
    )
    DeltaTable(folder).delete("position = 0")
    kept = estimate_table(
        f"(SELECT * FROM read_parquet('{REFERENCE}') WHERE position > 0)",  # noqa: S608
        **COLUMNS,
    )
    assert estimate_table(folder, **COLUMNS)["dr"].value == pytest.approx(kept["dr"].value)


def test_a_small_memory_limit_is_kept_to_and_spills(tmp_path: Path) -> None:
    """Two million rows by half a million units within 300 MB: the units' sums alone would need
    more.
    """
    path = tmp_path / "log.parquet"
    duckdb.execute(
        f"""COPY (SELECT (hash(i) % 20 = 0)::INT AS reward, 0.5 AS propensity,
            CASE WHEN hash(i + 7) % 2 = 0 THEN 0.7 ELSE 0.3 END AS target_propensity,
            hash(i * 3) % 500000 AS unit
            FROM range(2000000) t(i)) TO '{path}'"""  # noqa: S608
    )
    few = estimate_table(path, unit="unit", estimators=("ips", "snips"), memory_limit="300MB")
    plenty = estimate_table(path, unit="unit", estimators=("ips", "snips"))
    assert few["snips"].value == pytest.approx(plenty["snips"].value, rel=1e-12)
    assert few["snips"].se == pytest.approx(plenty["snips"].se, rel=1e-9)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("propensity", 0.0, r"propensity: rows 3, 5: got 0, 0; expected a probability in \(0, 1\]"),
        ("propensity", 1.2, "rows 3, 5: got 1.2, 1.2"),
        ("propensity", np.nan, "rows 3, 5: got missing, missing"),
        ("propensity", None, "rows 3, 5: got missing, missing"),
        (
            "target_propensity",
            -1.0,
            r"target: rows 3, 5: got -1, -1; expected a probability in \[0, 1\]",
        ),
        ("reward", None, "reward: rows 3, 5: got missing, missing; expected a finite number"),
    ],
)
def test_bad_values_are_named_with_their_rows(
    tmp_path: Path, column: str, value: float | None, says: str
) -> None:
    columns: dict[str, list[float | None]] = {"reward": [0.0, 1.0] * 10, "propensity": [0.5] * 20}
    columns["target_propensity"] = [0.5] * 20
    columns[column][3] = columns[column][5] = value
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(BadData, match=says):
        estimate_table(path)


def test_many_bad_rows_are_counted_and_no_rewards_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    log = {"reward": [0.0, 1.0] * 10, "propensity": [0.0] * 20, "target_propensity": [0.5] * 20}
    pq.write_table(pa.table(log), path)
    with pytest.raises(
        BadData, match=r"rows 0, 1, 2, 3, 4 and 15 more: got 0, 0, 0, 0, 0; expected"
    ):
        estimate_table(path)
    empty = pa.table(log | {"reward": pa.nulls(20, pa.float64()), "propensity": [0.5] * 20})
    pq.write_table(empty, path)
    with pytest.raises(BadData, match="rows 0 to 19: got no reward at all"):
        estimate_table(path)
    pq.write_table(empty.slice(0, 0), path)
    with pytest.raises(BadData, match="got no rows"):
        estimate_table(path)
    with pytest.raises(BadRequest, match="betting needs each row"):
        estimate_table(path, interval="betting")
    with pytest.raises(BadData, match="q_target: got nothing"):
        estimate_table(path, q_logged="q")


def test_what_duckdb_cannot_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="cannot be read"):
        estimate_table(tmp_path / "none.parquet")
    with pytest.raises(BadData, match="nosuch"):
        estimate_table(REFERENCE, **{**COLUMNS, "q_target": "nosuch"})


def test_the_published_record_is_a_table_too(published: Callable[..., World]) -> None:
    """`always d` needs no model and no walk: the database's own views hold all that ips needs."""
    world = published(n=2000)
    query = """(SELECT f.objective AS reward, d.propensities[1] AS propensity, d.unit,
        (d.slate[1] = 'd')::DOUBLE AS target_propensity
        FROM decisions d JOIN feedback f USING (decision_id) WHERE d.variant = 'chance')"""
    table = estimate_table(
        query, unit="unit", database=world.data / "topbill.duckdb", estimators=("ips", "snips")
    )
    walked = evaluate("home", "always d", world.data, estimators=("ips", "snips")).targets[
        "always d"
    ]
    for name, e in walked.items():
        assert (table[name].value, table[name].se) == pytest.approx((e.value, e.se), rel=1e-9)


def test_a_memory_limit_that_is_none_is_told() -> None:
    with pytest.raises(BadRequest, match="memory_limit: got 'much'; expected a size such as '4GB'"):
        estimate_table(REFERENCE, **COLUMNS, memory_limit="much")


@pytest.mark.parametrize("unit", [None, "u"])
@pytest.mark.parametrize("interval", ["normal", "bootstrap", "sequence"])
def test_rows_that_stand_for_several_count_so_often(
    tmp_path: Path, unit: str | None, interval: Any
) -> None:
    rng = np.random.default_rng(11)
    n = 4000
    columns = {
        "reward": (rng.random(n) < 0.3).astype(float),
        "propensity": rng.uniform(0.2, 0.8, n),
        "target_propensity": rng.uniform(0.0, 1.0, n),
        "u": rng.integers(0, 900, n),
        "pdrop": rng.choice([0.0, 0.5, 0.9], n),
    }
    file = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), file)
    weights = 1 / (1 - columns["pdrop"])
    found = estimate_table(
        file,
        unit=unit,
        weights="1 / (1 - pdrop)",
        estimators=("ips", "snips"),
        interval=interval,
        gates=OPEN,
    )
    right = estimate(
        columns["reward"],
        columns["propensity"],
        columns["target_propensity"],
        weights=weights,
        units=None if unit is None else columns["u"],
        estimators=("ips", "snips"),
        gates=OPEN,
        interval="normal" if interval == "bootstrap" else interval,
    )
    for name, e in right.items():
        assert found[name].value == pytest.approx(e.value, rel=1e-9)
        assert found[name].se == pytest.approx(e.se, rel=1e-9)
        for part in ("rows", "ess", "mean_weight", "largest_weight", "largest_share", "hits"):
            got, expected = getattr(found[name].diagnostics, part), getattr(e.diagnostics, part)
            assert got == pytest.approx(expected, rel=1e-9), part
    with pytest.raises(BadData, match=r"weights: row 3: got 0; expected a positive number"):
        estimate_table(file, weights="CASE WHEN row_number() OVER () = 4 THEN 0 ELSE 1 END")
