"""Estimators for rankings, as formulas over one row per slate whose columns are named by position:
`r0`, `item0`, `cascade0`, `q0`, `dm0`, `shown0`, … and `slate`, `reward` for the whole.

They differ in how a viewer is assumed to browse: the more is assumed, the less variance.

Slates may be of different lengths. Where one has no position k, its reward there is 0, its item's
weight 0, and its cascade weight that of what stands above: the slate was drawn with it to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Column, Formula, mean, named, ratio, ratio_within


@dataclass(frozen=True)
class SlateEstimator:
    """A formula over K positions, from weights of one `level` (slate, item or cascade); `model`
    says it needs q̂. `assumptions` and `check` are as in `Estimator`; the check needs weights of
    `check_level`.
    """

    name: str
    title: str
    paper: str
    assumes: str
    formula: Callable[[int], Formula]
    level: str
    model: bool = False
    assumptions: tuple[str, ...] = ("propensities", "positivity")
    check: Callable[[int], Formula] | None = None
    check_name: str = ""
    check_level: str = ""

    def at(self, positions: int) -> Estimator:
        """The estimator for slates of at most that many positions."""
        # Positions are known only with the data, λ there is none: the formula no longer depends on
        # either.
        formula = self.formula(positions)
        return Estimator(
            self.name,
            self.title,
            self.paper,
            self.assumes,
            lambda _x, _lam: formula,
            assumptions=self.assumptions,
            check_name=self.check_name,
        )


def _over(positions: int, term: Callable[[int], Formula]) -> Formula:
    """The sum of a term over positions."""
    total = term(0)
    for k in range(1, positions):
        total = total + term(k)
    return total


def _r(k: int) -> Column:
    return named(f"r{k}")


def _w(level: str, k: int) -> Column:
    return named(f"{level}{k}")


def _sips(_: int) -> Formula:
    return mean(named("slate") * named("reward"))


def _snsips(_: int) -> Formula:
    return ratio(named("slate") * named("reward"), named("slate"))


def _by_position(level: str) -> Callable[[int], Formula]:
    """Σ_k mean(w_k r_k)."""

    def formula(positions: int) -> Formula:
        return _over(positions, lambda k: mean(_w(level, k) * _r(k)))

    return formula


def _normalised_items(positions: int) -> Formula:
    """Σ_k (Σ w_k r_k / Σ w_k) · (share of slates with a position k).

    An item's weight says nothing of slates that end above it, so that they are no part of its mean.
    """

    def term(k: int) -> Formula:
        weight = _w("item", k)
        return ratio_within(weight * _r(k), weight, named(f"shown{k}"))

    return _over(positions, term)


def _normalised_cascades(positions: int) -> Formula:
    """Σ_k (Σ w_{1:k} r_k / Σ w_{1:k}): each position by its own weights."""
    # Over all slates, as the items above may decide how long a slate is: a target that shows other
    # items has other lengths, which a share of the log's would not tell.
    return _over(positions, lambda k: ratio(_w("cascade", k) * _r(k), _w("cascade", k)))


def _pseudo_inverse(positions: int) -> Formula:
    """R · (1 + Σ_k (w_k − 1)), the sum over those positions that the slate has."""
    # Of a shorter slate both are 0 below its end, so that nothing is taken off there.
    excess = _w("item", 0) - named("shown0")
    for k in range(1, positions):
        excess = excess + (_w("item", k) - named(f"shown{k}"))
    return mean((excess + 1.0) * named("reward"))


def _cascade_dr(positions: int) -> Formula:
    """Σ_k w_{1:k}(r_k − q̂_k) + w_{1:k−1} Σ_a π(a|x, above) q̂_k(a), with w_{1:0} = 1."""

    def term(k: int) -> Formula:
        # What comes next is judged where the items above are what the target would have shown.
        model = named(f"dm{k}")
        if k > 0:
            model = _w("cascade", k - 1) * model
        return mean(_w("cascade", k) * (_r(k) - named(f"q{k}")) + model)

    return _over(positions, term)


_FAMILY = (
    SlateEstimator(
        name="sips",
        title="Standard IPS",
        paper="Li et al. 2018: mean(w_{1:K} Σ_k r_k)",
        assumes="nothing about how users browse",
        formula=_sips,
        level="slate",
    ),
    SlateEstimator(
        name="iips",
        title="Independent IPS",
        paper="Li et al. 2018 (item-position model): mean(Σ_k w_k r_k)",
        assumes="a position's reward depends on its own item only",
        formula=_by_position("item"),
        level="item",
        assumptions=("propensities", "positivity", "item_alone"),
        check=_by_position("cascade"),
        check_name="rips",
        check_level="cascade",
    ),
    SlateEstimator(
        name="rips",
        title="Reward-interaction IPS",
        paper="McInerney et al. 2020: mean(Σ_k w_{1:k} r_k)",
        assumes="users go from top to bottom; a reward depends on items above and its own",
        formula=_by_position("cascade"),
        level="cascade",
        assumptions=("propensities", "positivity", "top_down"),
        check=_sips,
        check_name="sips",
        check_level="slate",
    ),
    SlateEstimator(
        name="snsips",
        title="Self-normalised SIPS",
        paper="Li et al. 2018: Σ wR / Σ w",
        assumes="as sips",
        formula=_snsips,
        level="slate",
    ),
    SlateEstimator(
        name="sniips",
        title="Self-normalised IIPS",
        paper="McInerney et al. 2020: Σ_k (Σ w_k r_k / Σ w_k), by the share of slates with a k",
        assumes="as iips; how long a slate is does not depend on its items",
        formula=_normalised_items,
        level="item",
        assumptions=("propensities", "positivity", "any_length", "item_alone"),
        check=_normalised_cascades,
        check_name="snrips",
        check_level="cascade",
    ),
    SlateEstimator(
        name="snrips",
        title="Self-normalised RIPS",
        paper="McInerney et al. 2020: Σ_k (Σ w_{1:k} r_k / Σ w_{1:k})",
        assumes="as rips",
        formula=_normalised_cascades,
        level="cascade",
        assumptions=("propensities", "positivity", "top_down"),
        check=_snsips,
        check_name="snsips",
        check_level="slate",
    ),
    SlateEstimator(
        name="pseudo-inverse",
        title="Pseudo-inverse",
        paper="Swaminathan et al. 2017, positions drawn independently: mean((1 + Σ_k (w_k − 1)) R)",
        assumes="the slate's reward is a sum of per-position effects",
        formula=_pseudo_inverse,
        level="item",
        assumptions=("propensities", "positivity", "additive"),
        check=_sips,
        check_name="sips",
        check_level="slate",
    ),
    SlateEstimator(
        name="cascade-dr",
        title="Cascade doubly robust",
        paper="Kiyohara et al. 2022: mean(Σ_k w_{1:k}(r_k − q̂_k) + w_{1:k−1} Σ_a π(a) q̂_k(a))",
        assumes="as rips; q̂ narrows it",
        formula=_cascade_dr,
        level="cascade",
        model=True,
        assumptions=("propensities", "positivity", "own_past", "top_down"),
        check=_sips,
        check_name="sips",
        check_level="slate",
    ),
)

SLATE_ESTIMATORS: dict[str, SlateEstimator] = {e.name: e for e in _FAMILY}
