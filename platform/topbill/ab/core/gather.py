"""Moments of every metric, per variant (and segment), from rows in one DuckDB pass grouped by unit
first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topbill.ab.core.rows import Rows, quoted
from topbill.ab.metrics import Mean, Metric, Proportion, Quantile, Ratio, Sum, columns_of
from topbill.stats.moments import Moments, Statistic, mean, product_columns, ratio

Key = tuple[Any, ...]
"""(variant, segment values…)"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a metric is read off its unit-level columns: its statistic, to which `shift` is added
    back.

    `terms` are (name, SQL over one row, SQL aggregating a unit's rows); `derived` are (name, SQL
    over terms). `empty` says that a column it reads has no value at all.
    """

    metric: Metric
    terms: tuple[tuple[str, str, str], ...]
    statistic: Statistic
    shift: float = 0.0
    covariate: str | None = None
    derived: tuple[tuple[str, str], ...] = ()
    empty: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return (*(t[0] for t in self.terms), *(d[0] for d in self.derived))

    @property
    def binomial(self) -> bool:
        """A proportion of units: its variance is p(1 − p)/n, with divisor n."""
        return isinstance(self.metric, Proportion)


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant's (or one segment of a variant's) moments of one metric; `n` units have a value,
    `infinite` of their values are not finite."""

    moments: Moments
    n: int
    infinite: int

    def __add__(self, other: Arm) -> Arm:
        return Arm(self.moments + other.moments, self.n + other.n, self.infinite + other.infinite)


@dataclass(frozen=True, slots=True)
class Gathered:
    """All arms: `arms[metric][key]`; `units[key]` counts units, `mixed` those seen in several
    variants (left out).
    """

    plans: dict[str, Plan]
    arms: dict[str, dict[Key, Arm]]
    units: dict[Key, int]
    mixed: int

    def over_segments(self) -> Gathered:
        """The same with segments added up."""
        arms: dict[str, dict[Key, Arm]] = {}
        for name, by_key in self.arms.items():
            merged: dict[Key, Arm] = {}
            for key, arm in by_key.items():
                old = merged.get(key[:1])
                merged[key[:1]] = arm if old is None else old + arm
            arms[name] = merged
        units: dict[Key, int] = {}
        for key, n in self.units.items():
            units[key[:1]] = units.get(key[:1], 0) + n
        return Gathered(self.plans, arms, units, self.mixed)


def plan(
    name: str,
    metric: Metric,
    rows: Rows,
    covariate: tuple[str, float] | None,
    *,
    products: bool = False,
) -> Plan:
    """The unit-level columns that `metric` needs, `name` being an SQL prefix of its own.

    `covariate` is (column, its mean); units without a value of it count as having the mean.
    """
    empty = any(rows.columns[c].missing == rows.count for c in columns_of(metric))
    a, b, x = f"{name}_a", f"{name}_b", f"{name}_x"
    shift, statistic = 0.0, mean(a)
    if isinstance(metric, Ratio):
        over, under = rows.value(metric.numerator), rows.value(metric.denominator)
        terms = [(a, _or0(over), _or0(f"sum({over})")), (b, _or0(under), _or0(f"sum({under})"))]
        statistic = ratio(a, b)
    elif isinstance(metric, Sum):
        value = rows.value(metric.column)
        shift = rows.columns[metric.column].low if rows.one_row_a_unit else 0.0
        terms = [(a, f"{_or0(value)} - {_literal(shift)}", _or0(f"sum({value})"))]
    else:
        shift = rows.columns[metric.column].shift
        terms, counted = _averaged(metric, rows, a, b, shift)
        if counted:
            statistic = ratio(a, b)
    if covariate is None:
        return Plan(metric, tuple(terms), statistic, shift, empty=empty)
    column, centre = covariate
    away = f"{rows.value(column)} - {_literal(centre)}"
    terms.append((x, _or0(away), _or0(f"avg({away})")))
    derived = tuple((product, product) for product in product_columns(a, x)) if products else ()
    return Plan(metric, tuple(terms), statistic, shift, x, derived, empty)


def _averaged(
    metric: Mean | Proportion | Quantile, rows: Rows, a: str, b: str, shift: float
) -> tuple[list[tuple[str, str, str]], bool]:
    """Terms of a mean, and whether it needs a count column: not when each unit has exactly one
    value.
    """
    value = rows.value(metric.column)
    away = f"{value} - {_literal(shift)}" if shift else value
    present = f"CAST({value} IS NOT NULL AS DOUBLE)"
    complete = not (rows.columns[metric.column].missing or rows.columns[metric.column].infinite)
    if metric.per == "row":
        terms = [
            (a, away if complete else _or0(away), _or0(f"sum({away})")),
            (b, present, f"CAST(count({value}) AS DOUBLE)"),
        ]
        plain = complete and rows.one_row_a_unit
    else:
        of_unit = f"max({away})" if isinstance(metric, Proportion) else f"avg({away})"
        terms = [
            (a, away if complete else _or0(away), _or0(of_unit)),
            (b, present, f"CAST(count({value}) > 0 AS DOUBLE)"),
        ]
        plain = complete
    return (terms[:1], False) if plain else (terms, True)


def _or0(sql: str) -> str:
    return f"coalesce({sql}, 0)"


def _literal(x: float) -> str:
    return f"CAST('{x!r}' AS DOUBLE)"


def gather(
    rows: Rows,
    metrics: Mapping[str, Metric],
    covariates: Mapping[str, str] | None = None,
    *,
    segments: Sequence[str] = (),
    products: bool = False,
) -> Gathered:
    """Moments of all metrics but quantiles, per variant and values of `segments`, in one pass.

    `products` adds the columns that HC2 needs. Units seen in more than one variant are counted and
    left out.
    """
    centres = _centres(rows, (covariates or {}).values())
    plans = {}
    for i, (name, metric) in enumerate(metrics.items()):
        column = (covariates or {}).get(name)
        plans[name] = plan(
            f"m{i}", metric, rows, (column, centres[column]) if column else None, products=products
        )
    infinite = {
        name: _infinite(rows, f"i{i}", metric) for i, (name, metric) in enumerate(metrics.items())
    }
    terms = [t for p in plans.values() for t in p.terms] + [t for t in infinite.values() if t]
    keys = ["variant", *(f"s{i}" for i in range(len(segments)))]
    picked = ["count(*)"]
    for name, p in plans.items():
        sums, products_of = _aggregates(p)
        counted = (
            f"count(*) FILTER (WHERE {p.terms[1][0]} <> 0)"
            if len(p.terms) > 1 and _counts(p)
            else "count(*)"
        )
        odd = infinite[name]
        picked += [*sums, *products_of, counted, f"sum({odd[0]})" if odd else "0"]
    derived = [f"{sql} AS {quoted(name)}" for p in plans.values() for name, sql in p.derived]
    inner = rows.by_unit(terms, segments)
    middle = f"SELECT *, {', '.join(derived)} FROM ({inner})" if derived else inner  # noqa: S608
    by = keys if rows.one_row_a_unit else ["mixed", *keys]
    mixed = "FALSE" if rows.one_row_a_unit else "mixed"
    answer = rows.ask(
        f"SELECT {', '.join([mixed, *keys, *picked])} FROM ({middle}) GROUP BY {', '.join(by)}"  # noqa: S608
    )
    answer.sort(
        key=lambda line: [str(value) for value in line[: 1 + len(keys)]]
    )  # the same sums, bit for bit, always
    return _collect(answer, plans, len(keys))


def _counts(p: Plan) -> bool:
    return isinstance(p.metric, Mean | Proportion) and p.terms[1][0].endswith("_b")


def _infinite(rows: Rows, name: str, metric: Metric) -> tuple[str, str, str] | None:
    tests = [
        f"isinf(CAST({quoted(c)} AS DOUBLE))"
        for c in columns_of(metric)
        if rows.columns[c].infinite
    ]
    if not tests:
        return None
    found = f"CAST(({' OR '.join(tests)}) AS INTEGER)"
    return name, _or0(found), _or0(f"sum({found})")


def _aggregates(p: Plan) -> tuple[list[str], list[str]]:
    names = [quoted(n) for n in p.names]
    pairs = [
        f"sum({names[i]} * {names[j]})" for i in range(len(names)) for j in range(i, len(names))
    ]
    return [f"sum({n})" for n in names], pairs


def _collect(answer: list[tuple[Any, ...]], plans: dict[str, Plan], keys: int) -> Gathered:
    arms: dict[str, dict[Key, Arm]] = {name: {} for name in plans}
    units: dict[Key, int] = {}
    mixed = 0
    for line in answer:
        n = int(line[1 + keys])
        if line[0]:
            mixed += n
            continue
        key = tuple(line[1 : 1 + keys])
        units[key] = n
        at = 2 + keys
        for name, p in plans.items():
            k = len(p.names)
            sums = np.array(line[at : at + k], dtype=np.float64)
            upper = np.zeros((k, k))
            upper[np.triu_indices(k)] = line[at + k : at + k + k * (k + 1) // 2]
            at += k + k * (k + 1) // 2
            squares = upper + np.triu(upper, 1).T
            with_value = 0 if p.empty else int(line[at])
            arms[name][key] = Arm(
                Moments.from_sums(p.names, n, sums, squares), with_value, int(line[at + 1])
            )
            at += 2
    return Gathered(plans, arms, units, mixed)


def _centres(rows: Rows, columns: Iterable[str]) -> dict[str, float]:
    names = list(dict.fromkeys(columns))
    if not names:
        return {}
    seen = rows.ask(f"SELECT {', '.join(f'avg({rows.value(c)})' for c in names)} FROM unit_rows")[0]  # noqa: S608
    return {c: float(mid) if mid is not None else 0.0 for c, mid in zip(names, seen, strict=True)}
