"""Sample-ratio mismatch: are units (or a bandit's choices) split as intended? Overall, as days go
by, per day and segment, and per decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from topbill import late
from topbill.ab.core.effect import adjusted
from topbill.ab.core.units import UnitRows, resolve
from topbill.ab.results import SampleRatio, Split
from topbill.domain.errors import BadRequest
from topbill.domain.records import Floats

if TYPE_CHECKING:
    from scipy import stats
    from scipy.special import gammaln
else:
    stats = late.name("scipy.stats")
    gammaln = late.name("scipy.special", "gammaln")

ALPHA = 0.01
"""The chance that a sound split raises the alarm, however often one looks."""
CONCENTRATION = 100.0
"""Weight of the intended shares in the sequential test's prior: smaller suspects larger
mismatches.
"""


ByPhase = dict[int, list[int]]
"""Units by phase (or stratum), in the order of the variants' names."""


@dataclass(frozen=True, slots=True)
class Intended:
    """The shares that units were to be split by: `shares` (in the order of `names`) by stratum, of
    which there is one, 0, unless they changed; all 0 where nobody knows them.

    `column` holds each row's phase and `stratum_of` says which stratum that belongs to; None where
    there is one stratum.
    """

    names: tuple[str, ...]
    shares: Mapping[int, Sequence[float]]
    column: str | None = None
    stratum_of: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def always(cls, shares: Mapping[str, float]) -> Intended:
        """The same shares all the time."""
        return cls(tuple(shares), {0: tuple(shares.values())})

    def by_stratum(self, counts: ByPhase) -> ByPhase:
        """Counts of phases (by number, each in the order of `names`) added up by stratum."""
        totals: ByPhase = {}
        for phase, row in counts.items():
            stratum = self.stratum_of.get(phase, 0)
            before = totals.get(stratum, [0] * len(row))
            totals[stratum] = [n + more for n, more in zip(before, row, strict=True)]
        return totals

    def p_value(self, counts: ByPhase) -> float:
        """That `counts` of phases were split so, strata of unknown shares left out."""
        totals = self.by_stratum(counts)
        testable = [s for s in totals if any(self.shares[s])]
        return srm_of_phases([totals[s] for s in testable], [self.shares[s] for s in testable])

    def expected(self, counts: ByPhase) -> dict[str, float]:
        """The share of units that each variant was to have of all that came."""
        totals = self.by_stratum(counts)
        testable = [s for s, row in totals.items() if any(self.shares[s]) and any(row)]
        if len(testable) < 2:
            only = testable[0] if testable else max(self.shares)
            return dict(zip(self.names, self.shares[only], strict=True))
        parts = []
        for s in testable:
            shares = np.asarray(self.shares[s])
            parts.append(sum(totals[s]) * shares / shares.sum())
        expected = np.sum(parts, axis=0)
        return dict(zip(self.names, (expected / expected.sum()).tolist(), strict=True))


def sample_ratio(
    rows: UnitRows,
    shares: Mapping[str, float] | Intended,
    *,
    day: str | None,
    segments: Sequence[str] = (),
    alpha: float = ALPHA,
) -> SampleRatio:
    """The split of units, each counted on its first day, beside the `shares` in force when it came:
    the same for all by variant name, or those of phases.

    Units of variants that the shares do not name are not counted.
    """
    intended = shares if isinstance(shares, Intended) else Intended.always(shares)
    by_day = _counts(rows, intended, day) if day else {}
    # A unit counts on its first day only, so days add up to the units.
    total = _added(by_day or _counts(rows, intended, None))
    p_value = intended.p_value(total)
    p_sequential = _p_sequential(by_day, intended)
    # With days the report is read each day, so only the sequential test may raise the alarm.
    p_alarm = p_value if p_sequential is None else p_sequential
    splits: list[Split] = []
    for segment in segments:
        splits += _splits(segment, _counts(rows, intended, segment), intended)
    return SampleRatio(
        counts=_by_name(total, intended),
        shares=intended.expected(total),
        p_value=p_value,
        p_sequential=p_sequential,
        alpha=alpha,
        alarm=p_alarm <= alpha,
        mixed=rows.mixed_units(),
        days=_splits("day", by_day, intended),
        segments=splits,
    )


def counts_by_phase(rows: UnitRows, intended: Intended) -> ByPhase:
    """Units by the phase that they came in first."""
    return _added(_counts(rows, intended, None))


def _added(table: Mapping[str, ByPhase]) -> ByPhase:
    totals: ByPhase = {}
    for split in table.values():
        for phase, row in split.items():
            before = totals.get(phase, [0] * len(row))
            totals[phase] = [n + more for n, more in zip(before, row, strict=True)]
    return totals


def _by_name(counts: ByPhase, intended: Intended) -> dict[str, int]:
    by_name = dict.fromkeys(intended.names, 0)
    for row in counts.values():
        for name, n in zip(intended.names, row, strict=True):
            by_name[name] += n
    return by_name


def _p_sequential(by_day: Mapping[str, ByPhase], intended: Intended) -> float | None:
    """The p-value of the last day. Each stratum's Bayes factor is a martingale of its own units, so
    that their product is one of all."""
    if not by_day:
        return None
    days = [intended.by_stratum(split) for split in by_day.values()]
    evidence = np.zeros(len(days))
    impossible = np.zeros(len(days), dtype=bool)
    for stratum, shares in intended.shares.items():
        if not any(shares):
            continue
        table = np.array([day.get(stratum, [0] * len(shares)) for day in days], dtype=np.float64)
        # Once a unit was where none should be, that stays proved.
        of_none = np.asarray(shares) == 0.0
        impossible |= np.cumsum(table[:, of_none].sum(axis=1)) > 0.0
        possible = np.asarray(shares)[~of_none]
        evidence += log_bayes_factor(np.cumsum(table[:, ~of_none], axis=0), possible)
    return float(np.where(impossible, 0.0, np.minimum(1.0, np.exp(-evidence))).min())


def _counts(rows: UnitRows, intended: Intended, by: str | None) -> dict[str, ByPhase]:
    """Units by a column's (first) value, in its order, and by phase and variant; under "" without
    a column."""
    columns = [column for column in (by, intended.column) if column]
    units = rows.by_unit([], columns)
    key = rows.label(by, "s0") if by else "''"
    phase = f"s{len(columns) - 1}" if intended.column else "0"
    order = "min(s0), k" if by else "k"
    answer = rows.ask(
        f"SELECT {key} AS k, variant, {phase} AS p, count(*) FROM ({units}) "  # noqa: S608  (our own query)
        f"WHERE NOT mixed GROUP BY k, variant, p ORDER BY {order}"
    )
    present = dict.fromkeys(variant for _, variant, _, _ in answer)
    place_of = {resolve(name, present): i for i, name in enumerate(intended.names)}
    table: dict[str, ByPhase] = {}
    for value, variant, number, n in answer:
        if variant not in place_of:
            continue
        split = table.setdefault("(none)" if value is None else value, {})
        # Every variant in every row: one that got nobody is what the test is to see.
        row = split.setdefault(int(number), [0] * len(intended.names))
        row[place_of[variant]] += int(n)
    return table


def _splits(by: str, table: Mapping[str, ByPhase], intended: Intended) -> list[Split]:
    p_values = [intended.p_value(split) for split in table.values()]
    splits = []
    for (value, counts), p, p_holm in zip(
        table.items(), p_values, adjusted(p_values, "holm"), strict=True
    ):
        splits.append(
            Split(
                by=by,
                value=value,
                counts=_by_name(counts, intended),
                shares=intended.expected(counts),
                p_value=p,
                p_adjusted=1.0 if p_holm is None else p_holm,
            )
        )
    return splits


def srm_of_phases(counts: ArrayLike, shares: ArrayLike) -> float:
    """The chi-square p-value that units were split by the shares in force when each came.

    `counts` and `shares` (phases × arms): the totals of the arms are compared with the expected
    units Σ n_p q_p of phases p with n_p units and shares q_p, by their exact covariance
    Σ n_p (diag q_p − q_p q_pᵀ). Of one phase it is `srm`. A unit in an arm with share 0 cannot
    happen by chance, so then p is 0; without units it is 1. Raises BadRequest as `srm` does.
    """
    table, weights = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if table.size == 0:
        return 1.0
    if table.ndim != 2 or table.shape != weights.shape:
        raise BadRequest(
            "counts",
            f"got shape {table.shape} and shares of shape {weights.shape}; expected a row per "
            "phase and a column per variant of both",
        )
    if len(table) == 1:
        return srm(table[0], weights[0])
    for row, own in zip(table, weights, strict=True):
        _aligned(row, own)
    if np.any(table[weights == 0.0] > 0.0):
        return 0.0
    observed = table.sum(axis=0)
    q = weights / weights.sum(axis=1, keepdims=True)
    n = table.sum(axis=1)
    covariance = np.diag(n @ q) - (q * n[:, None]).T @ q
    return srm_of_sums(observed, n @ q, covariance)


def srm(
    counts: Mapping[object, float] | Sequence[float] | ArrayLike,
    shares: Mapping[object, float] | Sequence[float] | ArrayLike,
) -> float:
    """Pearson's chi-square p-value that `counts` of units were split by the intended `shares`.

    Both are sequences in one order, or dicts by variant; shares need not sum to 1. An arm with
    share 0 is no degree of freedom; a unit in one cannot happen by chance, so then p is 0. Without
    units p is 1. Raises BadRequest for lengths that differ, negative numbers, or shares that are
    all 0.
    """
    n, weights = _aligned(counts, shares)
    # A unit where none should be is not bad luck, and would be a division by zero.
    if np.any(n[weights == 0.0] > 0.0):
        return 0.0
    n, weights = n[weights > 0.0], weights[weights > 0.0]
    if n.size < 2 or n.sum() == 0.0:
        return 1.0
    expected = n.sum() * weights / weights.sum()
    statistic = float(np.sum((n - expected) ** 2 / expected))
    return float(stats.chi2.sf(statistic, n.size - 1))


def sequential_srm(
    counts: ArrayLike, shares: ArrayLike, concentration: float = CONCENTRATION
) -> Floats:
    """p-values (periods,) that stay valid however often one looks, from counts per period (periods
    × arms).

    The running minimum of 1/BF, BF the Dirichlet-multinomial Bayes factor against the intended
    shares with prior concentration · shares (Lindon & Malek 2022).
    """
    table = np.atleast_2d(np.asarray(counts, dtype=np.float64))
    weights = np.asarray(shares, dtype=np.float64)
    if table.shape[1] != weights.size:
        raise BadRequest(
            "counts",
            f"got {table.shape[1]} variants; expected {weights.size}, as many as there are shares",
        )
    # Once a unit was where none should be, that stays proved.
    impossible = np.cumsum(table[:, weights == 0.0].sum(axis=1)) > 0.0
    table, weights = table[:, weights > 0.0], weights[weights > 0.0]
    p = np.minimum(1.0, np.exp(-log_bayes_factor(np.cumsum(table, axis=0), weights, concentration)))
    return np.asarray(np.minimum.accumulate(np.where(impossible, 0.0, p)), dtype=np.float64)


def log_bayes_factor(
    totals: ArrayLike, shares: ArrayLike, concentration: float = CONCENTRATION
) -> Floats:
    """ln BF (periods,) of cumulative counts (periods × arms) against positive `shares`."""
    n = np.atleast_2d(np.asarray(totals, dtype=np.float64))
    p = np.asarray(shares, dtype=np.float64)
    p = p / p.sum()
    prior = concentration * p
    total = n.sum(axis=1)
    marginal = gammaln(prior.sum()) - gammaln(prior.sum() + total)
    marginal = marginal + (gammaln(prior + n) - gammaln(prior)).sum(axis=1)
    return np.asarray(marginal - n @ np.log(p), dtype=np.float64)


def srm_of_choices(chosen: ArrayLike, probabilities: ArrayLike) -> float:
    """p-value that choices were drawn with their logged probabilities, as under a bandit.

    `chosen` (n,) are column numbers of `probabilities` (n × K), a row per decision. Counts are
    compared with the summed probabilities by their exact covariance Σ (diag p − p pᵀ): statistic (O
    − E)ᵀ V⁺ (O − E), chi-square with rank V degrees of freedom. Decisions without a choice to make
    (a probability of 1) carry no information. A choice of an action with probability 0 gives p = 0.
    """
    picked, p = np.asarray(chosen, dtype=np.intp), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or picked.shape != p.shape[:1]:
        raise BadRequest(
            "probabilities",
            f"got shape {p.shape} for {picked.size} choices; expected a row per choice",
        )
    if picked.size and np.any(p[np.arange(picked.size), picked] <= 0.0):
        return 0.0
    observed = np.bincount(picked, minlength=p.shape[1]).astype(np.float64)
    return srm_of_sums(observed, p.sum(axis=0), np.diag(p.sum(axis=0)) - p.T @ p)


def srm_of_sums(observed: ArrayLike, expected: ArrayLike, covariance: ArrayLike) -> float:
    """The same from counts (K,), summed probabilities (K,) and their covariance (K × K), all of
    which shards add up.
    """
    gap = np.asarray(observed, dtype=np.float64) - np.asarray(expected, dtype=np.float64)
    # Counts sum to the number of decisions, so the covariance has no inverse: V⁺ by eigenvalues,
    # of which those that are 0 but for rounding are no degree of freedom.
    values, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    free = values > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)
    if not free.any():
        return 1.0
    scores = (gap @ vectors[:, free]) ** 2 / values[free]
    return float(stats.chi2.sf(scores.sum(), int(free.sum())))


def sequential_srm_of_sums(
    observed: ArrayLike,
    expected: ArrayLike,
    covariance: ArrayLike,
    concentration: float = CONCENTRATION,
) -> float:
    """The same, valid however often one looks while decisions are added: min(1, 1/e), e the normal
    mixture

        det(I + V/κ)^−½ · exp(½ gᵀ (V + κI)⁻¹ g),    g = O − E,

    of the martingale g with variance V (Robbins 1970; asymptotic as in Waudby-Smith et al. 2024). κ
    keeps a lucky draw of a rare action from being evidence. It is tightest where an action's count
    has a variance of some ten κ.
    """
    gap = np.asarray(observed, dtype=np.float64) - np.asarray(expected, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    values = np.maximum(values, 0.0)
    log_e = 0.5 * np.sum(
        (gap @ vectors) ** 2 / (values + concentration) - np.log1p(values / concentration)
    )
    return float(np.exp(min(0.0, -float(log_e))))


def _aligned(counts: object, shares: object) -> tuple[Floats, Floats]:
    """Counts and shares as arrays in one order, checked."""
    if isinstance(counts, Mapping) and isinstance(shares, Mapping):
        counts, shares = _in_order_of(shares, counts), list(shares.values())
    try:
        n, weights = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadRequest(
            "counts", "expected two sequences of numbers in one order, or two dicts by variant"
        ) from error
    if n.ndim != 1 or n.shape != weights.shape:
        raise BadRequest(
            "counts", f"got {n.size} counts and {weights.size} shares; expected as many of both"
        )
    _check_not_negative("counts", n)
    _check_not_negative("shares", weights)
    if not weights.sum() > 0.0:
        raise BadRequest("shares", "all are 0; expected at least one variant that should get units")
    return n, weights


def _in_order_of(shares: Mapping[object, object], counts: Mapping[object, object]) -> list[object]:
    """The counts in the order of the shares, 0 for an arm that got nobody."""
    unknown = [str(name) for name in counts if name not in shares]
    if unknown:
        raise BadRequest(
            "counts",
            f"got {', '.join(unknown)}, which `shares` does not name; expected {list(shares)}",
        )
    return [counts.get(name, 0.0) for name in shares]


def _check_not_negative(name: str, values: Floats) -> None:
    if not np.all(np.isfinite(values)) or np.any(values < 0.0):
        raise BadRequest(name, f"got {values.tolist()}; expected numbers that are not negative")
