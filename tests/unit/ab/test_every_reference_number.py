"""No number of the reference escapes: each is compared to 1e-6, or is on a short list that says why
not.
"""

from __future__ import annotations

import importlib.util
import json
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from topbill.domain.records import Floats
from topbill.stats import intervals, sequential

_SPEC = importlib.util.spec_from_file_location(
    "ab_reference", Path(__file__).with_name("reference.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
book = importlib.util.module_from_spec(
    _SPEC
)  # tests are imported by path, so a helper beside them is too
_SPEC.loader.exec_module(book)

FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]
KNOWN = json.loads((book.REFERENCE / "ab_sequential.json").read_text())


@cache
def both() -> tuple[dict[str, float], dict[str, float]]:
    return book.expected(), book.ours()


def matched(path: str, patterns: object) -> list[str]:
    return [p for p in patterns if fnmatchcase(path, p)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "file",
    ["mean", "proportion", "ratio", "cuped", "bayes", "multiple", "power", "sequential", "srm"],
)
def test_every_number_that_is_compared_agrees(file: str) -> None:
    expected, ours = both()
    paths = [p for p in expected if p in ours and p.startswith(f"{file}/")]
    off = {
        p: (expected[p], ours[p])
        for p in paths
        if not book.agree(expected[p], ours[p], _tolerance(p))
    }
    assert len(paths) >= 4
    assert not off


def _tolerance(path: str) -> float:
    found = matched(path, book.CLOSE)
    return float(book.CLOSE[found[0]][0]) if found else 1e-6


def test_what_is_not_compared_is_exactly_the_list_that_says_why() -> None:
    expected, ours = both()
    left_out = {p for p in expected if p not in ours}
    unexplained = [p for p in left_out if not matched(p, book.NOT_COMPARED)]
    assert not unexplained
    assert not [p for p in ours if matched(p, book.NOT_COMPARED)]
    assert not [
        p for p in ours if p not in expected
    ]  # ours names no number that the reference does not have
    for patterns in (book.NOT_COMPARED, book.CLOSE):
        assert all(any(fnmatchcase(p, pattern) for p in expected) for pattern in patterns)
    assert (len(ours), len(left_out)) == (1_067, 373)


def spent(bounds: Floats, nodes: int = 4_001) -> Floats:
    """Error spent up to each of FIFTHS by two-sided bounds: Simpson's rule on a dense grid of the
    z-score's path.
    """
    total, found = 0.0, []
    grid = np.linspace(-bounds[0], bounds[0], nodes) * np.sqrt(FIFTHS[0])
    density = stats.norm.pdf(grid, scale=np.sqrt(FIFTHS[0]))
    total += 2.0 * stats.norm.sf(bounds[0])
    found.append(total)
    for k in range(1, len(FIFTHS)):
        step = np.sqrt(FIFTHS[k] - FIFTHS[k - 1])
        weights = _simpson(grid) * density
        edge = bounds[k] * np.sqrt(FIFTHS[k])
        total += float(
            weights @ (stats.norm.sf((edge - grid) / step) + stats.norm.cdf((-edge - grid) / step))
        )
        found.append(total)
        following = np.linspace(-edge, edge, nodes)
        kernel = np.exp(-0.5 * ((following[:, None] - grid[None, :]) / step) ** 2) / (
            step * np.sqrt(2.0 * np.pi)
        )
        grid, density = following, kernel @ weights
    return np.array(found)


def _simpson(grid: Floats) -> Floats:
    weights = np.full(grid.size, 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0
    return weights * (grid[1] - grid[0]) / 3.0


def test_ours_spend_alpha_exactly() -> None:
    """Where the group-sequential peer and we differ by 6e-5, another integration says who spends
    αt².
    """
    meant = 0.05 * np.square(FIFTHS)
    peer = KNOWN["expected"]["spotify_group_sequential"][
        "gst_bounds_alpha.05_power2spending_two_sided"
    ]
    ours = sequential.boundaries(FIFTHS, 0.05, "quadratic")
    error = np.abs(spent(ours, 801) - meant).max()
    assert error < 1e-9
    assert np.abs(spent(np.array(peer), 801) - meant).max() > 1_000 * error


def test_our_bounded_sequence_is_narrower_than_hoeffdings_at_every_look() -> None:
    known, x = (
        KNOWN["expected"]["confseq"],
        np.array(KNOWN["inputs"]["confseq_x"], dtype=np.float64),
    )
    for n, (low, high) in zip(known["times"], known["predmix_hoeffding_cs"]["ci"], strict=True):
        gains, counts = x[:n], np.ones(n)
        lower = intervals.betting_lower(gains, counts, 0.025, anytime=True)
        upper = intervals.betting_upper(gains, counts, 1.0, 0.025, anytime=True)
        assert lower <= gains.mean() <= upper
        assert upper - lower < high - low
