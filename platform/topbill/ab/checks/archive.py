"""Which weeks of an archive of tests have a broken split?

One test that was split badly has a fault of its own; where many of the same weeks were, what
assigns variants was broken. Each test's split is tested by itself (`srm`). A scan over all spans of
periods then looks for the one in which tests fail most out of proportion to the rest (Kulldorff's
scan statistic, 1997, in one dimension), to the period, however long the span is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from topbill import late
from topbill.ab.checks.srm import ALPHA, srm
from topbill.ab.core.effect import adjusted
from topbill.ab.core.units import check_columns
from topbill.domain.errors import BadData, BadRequest
from topbill.domain.formatting import several
from topbill.domain.records import Floats
from topbill.domain.sql import identifier
from topbill.lake.frames import relation_of
from topbill.stats.frames import frame_of, html_of

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = late.name("scipy.stats")

if TYPE_CHECKING:
    import pandas as pd

BROKEN = 0.25
"""From which share of failing tests on a span is called broken: fewer have faults of their own."""
MOST_PERIODS = 2_000
_FEWEST = 5.0
"""Units that each arm must expect for the chi-square to be one."""


class PeriodSplits(msgspec.Struct, frozen=True, kw_only=True):
    """The tests of one period: how many, how many of them failed, and whether the period lies in a
    span that is broken."""

    period: str
    tests: int
    failing: int
    broken: bool = False


class BrokenSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Periods in a row, `since` and `until` among them, in which more tests fail than elsewhere.

    `p_value` is the chance of such a span anywhere in an archive whose tests fail alike (Fisher's
    exact test, by Bonferroni over all spans). `broken` where at least `BROKEN` of the tests fail;
    else something milder is the matter, in single tests perhaps.
    """

    since: str
    until: str
    periods: int
    tests: int
    failing: int
    p_value: float
    broken: bool


class ArchiveTest(msgspec.Struct, frozen=True, kw_only=True):
    """One test's units by arm, in the order of its rows, with the chi-square p-value of the
    intended shares; `p_adjusted` (Benjamini-Hochberg) is over all tests."""

    test: str
    period: str
    counts: list[float]
    p_value: float
    p_adjusted: float


class ArchiveSplits(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an archive: spans in which splits are broken, most evident first, and every
    period. `alpha` is the level at which a test fails, `rest_failing` the share of tests that fail
    outside of all spans, `excluded` counts tests that could not be tested, by reason.
    """

    tests: int
    failing: int
    alpha: float
    spans: list[BrokenSpan]
    periods: list[PeriodSplits]
    worst: list[ArchiveTest]
    rest_failing: float | None
    excluded: dict[str, int]

    @property
    def sentence(self) -> str:
        """What is broken, in a sentence."""
        clauses = []
        for span in self.spans:
            where = span.since if span.periods == 1 else f"{span.since} to {span.until}"
            share = f"{span.failing:,} of {several(span.tests, 'test')} fail"
            clauses.append(
                f"{'broken' if span.broken else 'more than elsewhere'}: {where} ({share})"
            )
        if not clauses:
            clauses = ["no span of periods in which splits are broken"]
        if self.rest_failing is not None:
            clauses.append(f"of the rest {self.rest_failing:.1%} fail ({self.alpha:.0%} by chance)")
        return "; ".join(clauses)

    def to_frame(self) -> pd.DataFrame:
        """The periods, a row each: period, tests, failing, broken."""
        return frame_of([msgspec.structs.asdict(p) for p in self.periods], text=("period",))

    def _repr_html_(self) -> str:
        return html_of(self.to_frame(), self.sentence)


def srm_archive(
    data: Any,
    *,
    test: str,
    units: str,
    period: str,
    share: str | None = None,
    alpha: float = ALPHA,
) -> ArchiveSplits:
    """Which periods of an archive of tests have a broken split?

    Args:
        data: a row per arm of each test, in whatever `compare` takes.
        test: the column that names the test.
        units: the column of how many units (or impressions) the arm got.
        period: the column of the week, or day, by which rows sort; a test counts in its first.
        share: the column of the arm's intended share, in any unit; None: all arms of a test alike.
        alpha: the level at which a single test fails, and at which a span is reported.

    Returns:
        The spans, the periods and the twenty worst tests. Impressions vary by more than chance
        alone where viewers return, so that some tests fail everywhere: a span is compared with the
        rest.

    Raises:
        BadRequest: for columns that are missing.
        BadData: for values that cannot be used.

    Examples:
        >>> from topbill.ab import srm_archive
        >>> rows = {"test": [], "week": [], "units": []}
        >>> for number in range(80):
        ...     week = number // 4
        ...     for arm in (0, 1):
        ...         rows["test"].append(number)
        ...         rows["week"].append(week)
        ...         rows["units"].append(1_300 if arm and 8 <= week <= 10 else 1_000 + number % 7)
        >>> srm_archive(rows, test="test", units="units", period="week").sentence
        'broken: 8 to 10 (12 of 12 tests fail); of the rest 0.0% fail (1% by chance)'
    """
    if not 0.0 < alpha < 0.5:
        raise BadRequest("alpha", f"got {alpha!r}; expected a number between 0 and 0.5")
    tests, excluded = _tests(relation_of(data), test, units, period, share)
    by_period: dict[str, list[ArchiveTest]] = {}
    for each in tests:
        by_period.setdefault(each.period, []).append(each)
    if len(by_period) > MOST_PERIODS:
        raise BadData(
            f"data.{period}",
            f"got {len(by_period):,} periods; expected at most {MOST_PERIODS:,}: make weeks of "
            "them",
        )
    names = list(by_period)
    sizes = np.array([len(by_period[name]) for name in names], dtype=np.float64)
    failing = np.array(
        [sum(t.p_value <= alpha for t in by_period[name]) for name in names], dtype=np.float64
    )
    spans, rest = _spans(names, sizes, failing, alpha)
    broken = np.zeros(len(names), dtype=bool)
    for span in spans:
        if span.broken:
            broken[names.index(span.since) : names.index(span.until) + 1] = True
    periods = []
    for i, name in enumerate(names):
        periods.append(
            PeriodSplits(
                period=name, tests=int(sizes[i]), failing=int(failing[i]), broken=bool(broken[i])
            )
        )
    return ArchiveSplits(
        tests=len(tests),
        failing=int(failing.sum()),
        alpha=alpha,
        spans=spans,
        periods=periods,
        worst=sorted(tests, key=lambda t: (t.p_value, t.test))[:20],
        rest_failing=rest,
        excluded=excluded,
    )


# --- Each test by itself


def _tests(
    relation: Any, test: str, units: str, period: str, share: str | None
) -> tuple[list[ArchiveTest], dict[str, int]]:
    """The tests in the order of their periods, and how many could not be tested, by reason."""
    wanted = [test, units, period, *([] if share is None else [share])]
    check_columns(relation.columns, wanted)
    names = [identifier(name) for name in (test, units, period)]
    intended = "1.0" if share is None else identifier(share)
    rows = relation.query(
        "arms",
        f"""SELECT CAST({names[0]} AS VARCHAR), list(TRY_CAST({names[1]} AS DOUBLE)),
            CAST(min({names[2]}) AS VARCHAR), list(TRY_CAST({intended} AS DOUBLE))
        FROM arms GROUP BY {names[0]} ORDER BY min({names[2]}), {names[0]}""",  # noqa: S608  (identifiers are quoted)
    ).fetchall()
    tests: list[ArchiveTest] = []
    excluded: dict[str, int] = {}
    for name, counts, first, shares in rows:
        reason = _untestable(name, first, counts, shares, units)
        if reason:
            excluded[reason] = excluded.get(reason, 0) + 1
            continue
        p_value = srm(counts, shares)
        tests.append(
            ArchiveTest(test=name, period=first, counts=counts, p_value=p_value, p_adjusted=p_value)
        )
    p_adjusted = adjusted([t.p_value for t in tests], "fdr_bh")
    replaced = []
    for each, p in zip(tests, p_adjusted, strict=True):
        replaced.append(msgspec.structs.replace(each, p_adjusted=1.0 if p is None else p))
    return replaced, excluded


def _untestable(
    name: str | None,
    period: str | None,
    counts: Sequence[float | None],
    shares: Sequence[float | None],
    units: str,
) -> str:
    """Why a test's split cannot be tested; "" where it can.

    Raises:
        BadData: for counts and shares that are no numbers from 0 on.
    """
    if name is None or period is None:
        return "no test or period"
    for value in [*counts, *shares]:
        if value is None or not 0.0 <= value < np.inf:
            raise BadData(
                f"data.{units}",
                f"got {value} in test {name}; expected numbers that are not negative in each row",
            )
    weights = np.array(shares, dtype=np.float64)
    if np.count_nonzero(weights) < 2:
        return "one arm"
    total = float(np.sum(np.array(counts, dtype=np.float64)))
    if total * float(weights[weights > 0.0].min()) / float(weights.sum()) < _FEWEST:
        return "too few units"
    return ""


# --- Spans of periods


class _Stretch(NamedTuple):
    """Periods in a row, from `start` to before `stop`."""

    start: int
    stop: int


def _spans(
    names: Sequence[str], sizes: Floats, failing: Floats, alpha: float
) -> tuple[list[BrokenSpan], float | None]:
    """All spans that stand out, most evident first, and the share of tests that fail elsewhere.

    Each is looked for in what the ones before left over, and compared with the rest of that.
    """
    count = len(names)
    windows = count * (count + 1) // 2
    open_stretches = [_Stretch(0, count)] if count else []
    spans: list[BrokenSpan] = []
    while True:
        best = _most_evident(open_stretches, sizes, failing, alpha)
        if best is None:
            break
        p_value = min(1.0, windows * _tail(best, open_stretches, sizes, failing))
        if p_value > alpha:
            break
        spans.append(_span(names, best, sizes, failing, p_value))
        open_stretches = _without(open_stretches, best)
    tests, failed = _totals(open_stretches, sizes, failing)
    by_chance = float(stats.binom.sf(failed - 1, tests, alpha)) if tests else 1.0
    if not spans and by_chance <= alpha and failed >= BROKEN * tests:
        # Broken from end to end, so that there is nothing to compare with but chance.
        return [_span(names, _Stretch(0, count), sizes, failing, by_chance)], None
    return spans, float(failed / tests) if tests else None


def _span(
    names: Sequence[str], span: _Stretch, sizes: Floats, failing: Floats, p_value: float
) -> BrokenSpan:
    tests, failed = _sums(span, sizes, failing)
    return BrokenSpan(
        since=names[span.start],
        until=names[span.stop - 1],
        periods=span.stop - span.start,
        tests=int(tests),
        failing=int(failed),
        p_value=p_value,
        broken=failed >= BROKEN * tests,
    )


def _most_evident(
    stretches: Iterable[_Stretch], sizes: Floats, failing: Floats, alpha: float
) -> _Stretch | None:
    """The span with the largest likelihood ratio of failing more often inside than outside."""
    stretches = list(stretches)
    tests, failed = _totals(stretches, sizes, failing)
    best, highest = None, 0.0
    for stretch in stretches:
        n = np.concatenate([[0.0], np.cumsum(sizes[stretch.start : stretch.stop])])
        k = np.concatenate([[0.0], np.cumsum(failing[stretch.start : stretch.stop])])
        for start in range(stretch.stop - stretch.start):
            inside_n, inside_k = n[start + 1 :] - n[start], k[start + 1 :] - k[start]
            ratio = _evidence(inside_k, inside_n, failed, tests, alpha)
            place = int(np.argmax(ratio))
            if ratio[place] > highest:
                highest = float(ratio[place])
                best = _Stretch(stretch.start + start, stretch.start + start + place + 1)
    return best


def _evidence(k: Floats, n: Floats, failed: float, tests: float, alpha: float) -> Floats:
    """ln of the likelihood ratio of two rates over one, for k failing of n inside a span; 0 where
    the span fails no more often than the rest.

    No rate outside is taken for less than `alpha`, at which sound tests fail: one failing test
    among few that do not is no evidence yet.
    """
    outside = np.maximum((failed - k) / np.maximum(tests - n, 1.0), alpha)
    inside = k / np.maximum(n, 1.0)
    overall = np.float64(max(failed / max(tests, 1.0), alpha))
    two = _log_likelihood(k, n, inside) + _log_likelihood(failed - k, tests - n, outside)
    one = _log_likelihood(np.float64(failed), np.float64(tests), overall)
    return np.where((inside > outside) & (n < tests), two - one, 0.0)


def _log_likelihood(k: Any, n: Any, rate: Any) -> Any:
    """k ln(rate) + (n − k) ln(1 − rate), with 0 ln 0 = 0."""
    p = np.clip(rate, 1e-300, 1.0 - 1e-16)
    return k * np.log(p) + (n - k) * np.log1p(-p)


def _tail(span: _Stretch, stretches: Iterable[_Stretch], sizes: Floats, failing: Floats) -> float:
    """The chance of as many failing tests in this very span, whichever of all those that were
    looked at fail: Fisher's exact test."""
    tests, failed = _totals(stretches, sizes, failing)
    n, k = _sums(span, sizes, failing)
    return float(stats.hypergeom.sf(k - 1, tests, failed, n))


def _sums(span: _Stretch, sizes: Floats, failing: Floats) -> tuple[float, float]:
    """The tests of a span, and those that fail."""
    inside = slice(span.start, span.stop)
    return float(sizes[inside].sum()), float(failing[inside].sum())


def _totals(stretches: Iterable[_Stretch], sizes: Floats, failing: Floats) -> tuple[float, float]:
    tests = failed = 0.0
    for stretch in stretches:
        n, k = _sums(stretch, sizes, failing)
        tests += n
        failed += k
    return tests, failed


def _without(stretches: Iterable[_Stretch], span: _Stretch) -> list[_Stretch]:
    """What a span leaves over."""
    rest = []
    for stretch in stretches:
        if stretch.start <= span.start and span.stop <= stretch.stop:
            pieces = (_Stretch(stretch.start, span.start), _Stretch(span.stop, stretch.stop))
            rest += [piece for piece in pieces if piece.stop > piece.start]
        else:
            rest.append(stretch)
    return rest
