"""Estimators as formulas: columns that can be computed by numpy or written as SQL, and sums of
ratios of their sums.

One formula, two machines: what `estimate` computes on arrays is what DuckDB computes in one pass
over files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from topbill.domain.records import Floats
from topbill.stats.moments import LinearEstimate, Moments

Env = dict[str, Floats]
Number = float | int


@dataclass(frozen=True)
class Column:
    """A scalar per logged decision. Two columns with the same `sql` are the same column."""

    # The text is what makes a column: two that were built apart but read alike are summed once.
    sql: str
    leaves: frozenset[str]
    compute: Callable[[Env], Floats] = field(compare=False, repr=False)

    def values(self, env: Env) -> Floats:
        """(n,) the column over the arrays of `env`; what was computed once is kept there under its
        SQL text.
        """
        # Formulas share columns (w·r, say), so each is computed once a chunk.
        if self.sql not in env:
            env[self.sql] = self.compute(env)
        return env[self.sql]

    def __add__(self, other: Column | Number) -> Column:
        return _combine("({} + {})", np.add, self, other)

    def __sub__(self, other: Column | Number) -> Column:
        return _combine("({} - {})", np.subtract, self, other)

    def __mul__(self, other: Column | Number) -> Column:
        return _combine("({} * {})", np.multiply, self, other)

    def __rmul__(self, other: Number) -> Column:
        return self * other

    def __truediv__(self, other: Column | Number) -> Column:
        return _combine("({} / {})", np.divide, self, other)

    def at_most(self, other: Number) -> Column:
        """1 where the column is ≤ other, else 0."""
        # A number on both machines, for what follows multiplies by it.
        return _combine("CAST({} <= {} AS DOUBLE)", np.less_equal, self, other)

    def clipped(self, other: Number) -> Column:
        """min(column, other)."""
        return _combine("least({}, {})", np.minimum, self, other)

    def under(self, prefix: str) -> Column:
        """The same of another policy, whose columns stand in the same arrays, named with a prefix.
        Of arrays only: SQL has no such names.
        """

        def compute(env: Env) -> Floats:
            own = {
                name[len(prefix) :]: each
                for name, each in env.items()
                if name[: len(prefix)] == prefix
            }
            return self.values({**own, "one": env["one"]})

        return Column(
            f"{prefix}({self.sql})", frozenset(prefix + leaf for leaf in self.leaves), compute
        )


def _combine(
    template: str, op: Callable[[Floats, Floats], object], left: Column, right: Column | Number
) -> Column:
    # SQL and NumPy side by side, operation by operation: in one order both round alike, so that a
    # table's estimate is that of its arrays.
    other = right if isinstance(right, Column) else constant(right)
    return Column(
        template.format(left.sql, other.sql),
        left.leaves | other.leaves,
        lambda env: np.asarray(op(left.values(env), other.values(env)), dtype=np.float64),
    )


def named(name: str) -> Column:
    """A column that the log itself provides."""
    return Column(name, frozenset([name]), lambda env: env[name])


def constant(value: Number) -> Column:
    """The same number on every row."""
    # No array of n: NumPy spreads it. The cast keeps DuckDB from taking 0.1 for a DECIMAL.
    number = np.asarray(float(value))
    return Column(f"{float(value)!r}::DOUBLE", frozenset(), lambda _: number)


ONE = named("one")


class Symbols(NamedTuple):
    """What a formula may speak of: weight w = π(a|x)/p, reward r, q̂(x, a) of the logged action, dm
    = Σ_a π(a|x) q̂(x, a), the marginal weight `we` of the embedding, the stabiliser h of an
    adaptive log."""

    w: Column = named("w")
    r: Column = named("r")
    q: Column = named("q")
    dm: Column = named("dm")
    we: Column = named("we")
    h: Column = named("h")


class SumRatio(NamedTuple):
    """sign · Σ numerator / Σ denominator · Σ share / Σ ONE.

    `share` says which rows the ratio speaks for, where that is not all of them.
    """

    sign: float
    numerator: Column
    denominator: Column
    share: Column = ONE


@dataclass(frozen=True)
class Formula:
    """A sum of signed ratios of sums: a mean is over ONE, a self-normalised estimate over the
    weights.
    """

    ratios: tuple[SumRatio, ...]

    def __add__(self, other: Formula) -> Formula:
        return Formula(self.ratios + other.ratios)

    def __sub__(self, other: Formula) -> Formula:
        negated = tuple(ratio._replace(sign=-ratio.sign) for ratio in other.ratios)
        return Formula(self.ratios + negated)

    def under(self, prefix: str) -> Formula:
        """The same formula of another policy's columns: see `Column.under`."""
        ratios = []
        for ratio in self.ratios:
            # A count is everybody's: over it stays the mean that it was.
            columns = [c if c is ONE else c.under(prefix) for c in ratio[1:]]
            ratios.append(SumRatio(ratio.sign, *columns))
        return Formula(tuple(ratios))

    @property
    def columns(self) -> tuple[Column, ...]:
        """The distinct columns whose sums the formula needs."""
        columns: list[Column] = []
        for ratio in self.ratios:
            columns += (ratio.numerator, ratio.denominator)
            if ratio.share is not ONE:
                columns += (ratio.share, ONE)
        return distinct(columns)

    @property
    def leaves(self) -> frozenset[str]:
        """Names of the log's columns that it needs."""
        return frozenset().union(*(column.leaves for column in self.columns))

    def value(self, sums: Floats, at: Mapping[Column, int]) -> Floats:
        """(…) the formula at `sums` (… × k), `at` giving the place of each column."""
        parts = []
        for sign, top, bottom, share in self.ratios:
            part = sign * sums[..., at[top]] / sums[..., at[bottom]]
            if share is not ONE:
                part = part * (sums[..., at[share]] / sums[..., at[ONE]])
            parts.append(part)
        return np.asarray(np.sum(parts, axis=0), dtype=np.float64)

    def linear(self, moments: Moments) -> LinearEstimate:
        """The value and its gradient with respect to the column means, for the linearised standard
        error.

        A ratio of sums is a ratio of means, so the formula may be evaluated at either.
        """
        at = {column: moments.columns.index(column.sql) for column in self.columns}
        means, slope = moments.mean, np.zeros_like(moments.mean)
        # d(Σa/Σb) = da/b − a·db/b²; columns that ratios share add their parts up.
        for sign, top, bottom, share in self.ratios:
            of_all = 1.0
            if share is not ONE:
                # d(a/b · s/n) = s/n · d(a/b) + a/b · (ds/n − s·dn/n²).
                of_all = means[at[share]] / means[at[ONE]]
                value = sign * means[at[top]] / means[at[bottom]]
                slope[at[share]] += value / means[at[ONE]]
                slope[at[ONE]] -= value * of_all / means[at[ONE]]
            slope[at[top]] += of_all * sign / means[at[bottom]]
            slope[at[bottom]] -= of_all * sign * means[at[top]] / means[at[bottom]] ** 2
        return LinearEstimate(float(self.value(means, at)), slope)


def mean(column: Column) -> Formula:
    """Σ column / n."""
    return Formula((SumRatio(1.0, column, ONE),))


def ratio(numerator: Column, denominator: Column) -> Formula:
    """Σ numerator / Σ denominator."""
    return Formula((SumRatio(1.0, numerator, denominator),))


def ratio_within(numerator: Column, denominator: Column, share: Column) -> Formula:
    """Σ numerator / Σ denominator, over the rows where `share` is 1, times how many of all they
    are.
    """
    return Formula((SumRatio(1.0, numerator, denominator, share),))


def distinct(columns: Iterable[Column]) -> tuple[Column, ...]:
    """The columns without repetition, in order of first appearance."""
    by_sql: dict[str, Column] = {}
    for column in columns:
        by_sql.setdefault(column.sql, column)
    return tuple(by_sql.values())


def stack(columns: Sequence[Column], env: Env, rows: int) -> Floats:
    """(k × rows) the columns over `env`."""
    # A column of constants alone has no rows of its own yet.
    return np.stack([np.broadcast_to(column.values(env), rows) for column in columns])
