"""Quantiles per variant with standard errors by unit: Woodruff's interval turned into a standard
error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from topbill.ab.core.effect import ArmEstimate
from topbill.ab.core.rows import Rows, quoted
from topbill.ab.metrics import Quantile
from topbill.stats.moments import Moments, ratio

_Z = float(stats.norm.isf(0.025))


def quantiles(rows: Rows, metric: Quantile) -> dict[Any, ArmEstimate]:
    """The q-quantile of each variant. Variance 0 means that ties hide it.

    The share F of values at or below the quantile is a ratio over units, so its standard error s is
    clustered by unit. The quantiles at q ± 1.96 s bound the quantile (Woodruff 1952), and a quarter
    turn of that width, width / (2·1.96), is its standard error.
    """
    source = _source(rows, metric)
    answer = rows.ask(
        f"""WITH source AS ({source}),
        middle AS (SELECT variant, quantile_cont(v, {metric.q!r}) AS c FROM source GROUP BY variant),
        below AS (SELECT source.variant, any_value(c) AS c, count(*) AS b, count(*) FILTER (WHERE v <= c) AS a
                  FROM source JOIN middle ON source.variant = middle.variant GROUP BY source.variant, unit)
        SELECT variant, any_value(c), count(*), sum(a), sum(b), sum(a * a), sum(a * b), sum(b * b)
        FROM below GROUP BY variant ORDER BY variant"""  # noqa: S608
    )
    found: dict[Any, tuple[float, int, float]] = {}
    for variant, value, n, a, b, aa, ab, bb in answer:
        products = np.array([[aa, ab], [ab, bb]], dtype=np.float64)
        moments = Moments.from_sums(
            ("a", "b"), int(n), np.array([a, b], dtype=np.float64), products
        )
        found[variant] = (float(value), int(n), ratio("a", "b")(moments).variance(moments) ** 0.5)
    widths = _widths(rows, source, metric.q, {v: s for v, (_, _, s) in found.items()})
    return {
        v: ArmEstimate(value, (widths[v] / (2.0 * _Z)) ** 2, n)
        for v, (value, n, _) in found.items()
    }


def _source(rows: Rows, metric: Quantile) -> str:
    """SQL of `variant, unit, v`, a row per event or per unit, without missing values."""
    value = rows.value(metric.column)
    if metric.per == "unit" or rows.one_row_a_unit:
        inner = rows.by_unit([("v", value, f"avg({value})")])
        return f"SELECT variant, row_number() OVER () AS unit, v FROM ({inner}) WHERE NOT mixed AND v IS NOT NULL"  # noqa: S608
    unit, variant = quoted(str(rows.unit)), quoted(rows.variant)
    mixed = f"SELECT {unit} FROM unit_rows GROUP BY {unit} HAVING min({variant}) <> max({variant})"  # noqa: S608
    return (
        f"SELECT {variant} AS variant, {unit} AS unit, {value} AS v FROM unit_rows "  # noqa: S608
        f"WHERE {variant} IS NOT NULL AND {value} IS NOT NULL AND {unit} NOT IN ({mixed})"
    )


def _widths(rows: Rows, source: str, q: float, errors: dict[Any, float]) -> dict[Any, float]:
    picked = []
    for variant, s in errors.items():
        low, high = max(0.0, q - _Z * s), min(1.0, q + _Z * s)
        name = str(variant).replace("'", "''")
        picked.append(
            f"quantile_cont(v, [{low!r}, {high!r}]) FILTER (WHERE CAST(variant AS VARCHAR) = '{name}')"
        )
    if not picked:
        return {}
    answer = rows.ask(f"SELECT {', '.join(picked)} FROM ({source})")[0]  # noqa: S608
    return {v: float(pair[1] - pair[0]) for v, pair in zip(errors, answer, strict=True)}
