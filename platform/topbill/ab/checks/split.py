"""Were units split between variants as intended: overall, as days go by, per day and per
segment?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from topbill.ab.checks.srm import sequential_srm, srm
from topbill.ab.core.rows import Rows, quoted
from topbill.ab.power import textbook
from topbill.ab.results import SampleRatio, Split

ALPHA = 0.01
"""The chance that a sound split raises the alarm, however often one looks."""


def sample_ratio(
    rows: Rows,
    shares: Mapping[str, float],
    *,
    day: str | None,
    segments: Sequence[str] = (),
    alpha: float = ALPHA,
) -> SampleRatio:
    """The split of units, each counted on its first day. `shares` are the intended ones by variant
    name.

    Units of variants that `shares` does not name are not counted.
    """
    names = list(shares)
    by_day = _counts(rows, names, day) if day else {}
    counts = dict.fromkeys(names, 0)
    for split in (by_day or _counts(rows, names, None)).values():
        for name, n in split.items():
            counts[name] += n
    weights = list(shares.values())
    p_value = srm(list(counts.values()), weights)
    p_sequential = None
    if by_day:
        p_sequential = float(
            sequential_srm([list(split.values()) for split in by_day.values()], weights)[-1]
        )
    p_alarm = p_value if p_sequential is None else p_sequential
    return SampleRatio(
        counts=counts,
        shares=dict(shares),
        p_value=p_value,
        p_sequential=p_sequential,
        alpha=alpha,
        alarm=p_alarm <= alpha,
        mixed=_mixed(rows),
        days=_splits("day", by_day, weights),
        segments=[
            s for name in segments for s in _splits(name, _counts(rows, names, name), weights)
        ],
    )


def _counts(rows: Rows, names: Sequence[str], by: str | None) -> dict[str, dict[str, int]]:
    """Units per variant by a column's (first) value, in its order; under "" without a column."""
    inner = rows.by_unit([], [by] if by else [])
    key = "CAST(s0 AS VARCHAR)" if by else "''"
    order = "min(s0)" if by else "1"
    answer = rows.ask(
        f"SELECT {key} AS k, CAST(variant AS VARCHAR) AS v, count(*), {order} AS o FROM ({inner}) "  # noqa: S608
        "WHERE NOT mixed GROUP BY k, v ORDER BY o, k"
    )
    table: dict[str, dict[str, int]] = {}
    for value, variant, n, _ in answer:
        if variant in names:
            table.setdefault("(none)" if value is None else value, dict.fromkeys(names, 0))[
                variant
            ] = int(n)
    return table


def _splits(
    by: str, table: Mapping[str, Mapping[str, int]], weights: Sequence[float]
) -> list[Split]:
    p_values = [srm(list(split.values()), weights) for split in table.values()]
    return [
        Split(
            by=by,
            value=value,
            counts=dict(split),
            p_value=p,
            p_adjusted=a if a is not None else 1.0,
        )
        for (value, split), p, a in zip(
            table.items(), p_values, textbook.adjusted(p_values, "holm"), strict=True
        )
    ]


def _mixed(rows: Rows) -> int:
    if rows.one_row_a_unit:
        return 0
    unit, variant = quoted(str(rows.unit)), quoted(rows.variant)
    found = rows.ask(
        f"SELECT count(*) FROM (SELECT {unit} FROM unit_rows GROUP BY {unit} "  # noqa: S608
        f"HAVING min({variant}) <> max({variant}))"
    )
    return int(found[0][0])
