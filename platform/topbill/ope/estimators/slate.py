"""Estimators for rankings, as formulas over one row per slate whose columns are named by position:
`r0`, `item0`, `cascade0`, `q0`, `dm0`, `shown0`, … and `slate`, `reward` for the whole.

They differ in how a viewer is assumed to browse: the more is assumed, the less variance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Column, Formula, mean, named, ratio


@dataclass(frozen=True)
class SlateEstimator:
    """A formula over K positions, from weights of one `level` (slate, item or cascade); `model`
    says it needs q̂.
    """

    name: str
    title: str
    paper: str
    assumes: str
    formula: Callable[[int], Formula]
    level: str
    model: bool = False

    def at(self, positions: int) -> Estimator:
        """The estimator for slates of at most that many positions."""
        formula = self.formula(positions)
        return Estimator(self.name, self.title, self.paper, self.assumes, lambda _x, _lam: formula)


def _over(positions: int, term: Callable[[int], Formula]) -> Formula:
    return reduce(Formula.__add__, map(term, range(positions)))


def _r(k: int) -> Column:
    return named(f"r{k}")


def _w(level: str, k: int) -> Column:
    return named(f"{level}{k}")


def _sips(_: int) -> Formula:
    return mean(named("slate") * named("reward"))


def _snsips(_: int) -> Formula:
    return ratio(named("slate") * named("reward"), named("slate"))


def _by_position(level: str) -> Callable[[int], Formula]:
    return lambda positions: _over(positions, lambda k: mean(_w(level, k) * _r(k)))


def _normalised(level: str) -> Callable[[int], Formula]:
    return lambda positions: _over(positions, lambda k: ratio(_w(level, k) * _r(k), _w(level, k)))


def _pseudo_inverse(positions: int) -> Formula:
    """R · (1 + Σ_k (w_k − 1))."""
    excess = reduce(Column.__add__, [_w("item", k) - named(f"shown{k}") for k in range(positions)])
    return mean((excess + 1.0) * named("reward"))


def _cascade_dr(positions: int) -> Formula:
    """Σ_k w_{1:k}(r_k − q̂_k) + w_{1:k−1} Σ_a π(a|x, above) q̂_k(a), with w_{1:0} = 1."""

    def term(k: int) -> Formula:
        model = named(f"dm{k}") if k == 0 else _w("cascade", k - 1) * named(f"dm{k}")
        return mean(_w("cascade", k) * (_r(k) - named(f"q{k}")) + model)

    return _over(positions, term)


SLATE_ESTIMATORS: dict[str, SlateEstimator] = {
    e.name: e
    for e in (
        SlateEstimator(
            "sips",
            "Standard IPS",
            "Li et al. 2018: mean(w_{1:K} Σ_k r_k)",
            "nothing about how users browse",
            _sips,
            "slate",
        ),
        SlateEstimator(
            "iips",
            "Independent IPS",
            "Li et al. 2018 (item-position model): mean(Σ_k w_k r_k)",
            "a position's reward depends on its own item only",
            _by_position("item"),
            "item",
        ),
        SlateEstimator(
            "rips",
            "Reward-interaction IPS",
            "McInerney et al. 2020: mean(Σ_k w_{1:k} r_k)",
            "users go from top to bottom; a reward depends on items above and its own",
            _by_position("cascade"),
            "cascade",
        ),
        SlateEstimator(
            "snsips",
            "Self-normalised SIPS",
            "Li et al. 2018: Σ wR / Σ w",
            "as sips",
            _snsips,
            "slate",
        ),
        SlateEstimator(
            "sniips",
            "Self-normalised IIPS",
            "McInerney et al. 2020: Σ_k (Σ w_k r_k / Σ w_k)",
            "as iips",
            _normalised("item"),
            "item",
        ),
        SlateEstimator(
            "snrips",
            "Self-normalised RIPS",
            "McInerney et al. 2020: Σ_k (Σ w_{1:k} r_k / Σ w_{1:k})",
            "as rips",
            _normalised("cascade"),
            "cascade",
        ),
        SlateEstimator(
            "pseudo-inverse",
            "Pseudo-inverse",
            "Swaminathan et al. 2017, where positions are drawn independently: mean((1 + Σ_k (w_k − 1)) R)",
            "the slate's reward is a sum of per-position effects",
            _pseudo_inverse,
            "item",
        ),
        SlateEstimator(
            "cascade-dr",
            "Cascade doubly robust",
            "Kiyohara et al. 2022: mean(Σ_k w_{1:k}(r_k − q̂_k) + w_{1:k−1} Σ_a π(a) q̂_k(a))",
            "as rips; q̂ narrows it",
            _cascade_dr,
            "cascade",
            model=True,
        ),
    )
}
