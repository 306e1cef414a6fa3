"""`estimate_slate`: policies over rankings, from a log with a row per slate and position.

Rows are spread to one per slate, so that values, standard errors, intervals and refusals are those
of single choices. A slate shorter than the longest has reward 0 and weight 0 below its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topbill.domain.errors import BadData, BadRequest
from topbill.domain.records import Floats, Indices
from topbill.ope.diagnostics import Diagnostics, Gates, refusal
from topbill.ope.estimate import check_options, summarise
from topbill.ope.estimators.formula import Env, Symbols
from topbill.ope.estimators.slate import SLATE_ESTIMATORS, SlateEstimator
from topbill.ope.inputs import (
    FINITE,
    PROBABILITY,
    PROPENSITY,
    column,
    grouped,
    rewards_column,
    rows_text,
    unit_codes,
)
from topbill.ope.intervals import Interval, Planned, assess, columns_of
from topbill.ope.result import Estimate, refused

SLATE_DEFAULT = tuple(SLATE_ESTIMATORS)
_LEVELS = {"slate": "", "item": "item_", "cascade": "cascade_"}


def estimate_slate(
    rewards: Any,
    *,
    slate_id: Any,
    position: Any,
    propensities: Any = None,
    target_propensities: Any = None,
    item_propensities: Any = None,
    target_item_propensities: Any = None,
    cascade_propensities: Any = None,
    target_cascade_propensities: Any = None,
    q_logged: Any = None,
    q_target: Any = None,
    units: Any = None,
    estimators: Sequence[str] = SLATE_DEFAULT,
    alpha: float = 0.05,
    interval: Interval = "normal",
    replicates: int = 1000,
    facts: Mapping[str, Any] | None = None,
    gates: Gates | None = None,
) -> dict[str, Estimate]:
    """What the target policy would have earned per slate. One-dimensional columns of n rows, a row
    per shown item.

    - `slate_id` groups rows into slates, `position` is 0 for the first; each pair occurs once.
    - `propensities` (0, 1]: of the whole slate, the same on its rows; `item_propensities`: of this item at this
      position, whatever stands above; `cascade_propensities`: of the items down to this one.
      `target_…` likewise of the target policy, [0, 1]. A level that is not given refuses its
      estimators.
    - `q_logged` = q̂_k of the shown item, `q_target` = Σ_a π(a|x, items above) q̂_k(a) (cascade-dr).
    - `units` (n): whatever is independent; None takes the slates. `facts`, `gates`: as in `estimate`.

    Raises BadData naming the rows, BadRequest for an unknown estimator or option.
    """
    check_options(alpha, interval)
    if interval not in ("normal", "bootstrap", "sequence"):
        raise BadRequest(
            "interval",
            f"got {interval!r}; expected 'normal', 'bootstrap' or 'sequence' for rankings",
        )
    unknown = [name for name in estimators if name not in SLATE_ESTIMATORS]
    if unknown:
        raise BadRequest(
            "estimators",
            f"got {', '.join(map(repr, unknown))}; expected some of {', '.join(SLATE_ESTIMATORS)}",
        )
    given = {
        "slate": (propensities, target_propensities),
        "item": (item_propensities, target_item_propensities),
        "cascade": (cascade_propensities, target_cascade_propensities),
    }
    r = rewards_column(rewards)
    table = _Wide(slate_id, position, r.size)
    env = table.columns(r, _weights(given, r.size), q_logged, q_target)
    codes = None if units is None else table.units(units)
    return {
        name: _one(
            SLATE_ESTIMATORS[name],
            env,
            table.positions,
            codes,
            alpha,
            interval,
            gates or Gates(),
            replicates,
            facts or {},
        )
        for name in estimators
    }


def _weights(given: dict[str, tuple[Any, Any]], rows: int) -> dict[str, Floats]:
    """(rows,) weights π/p of each level that was given, checked."""
    weights = {}
    for level, (logged, target) in given.items():
        if logged is None and target is None:
            continue
        name = f"{_LEVELS[level]}propensities"
        for half, data in ((name, logged), (f"target_{name}", target)):
            if data is None:
                raise BadData(
                    half, "got nothing; expected it with its other half; give both, or neither"
                )
        p = column(name, logged, PROPENSITY, rows)
        weights[level] = column(f"target_{name}", target, PROBABILITY, rows) / p
    return weights


class _Wide:
    """Where each row belongs: its slate (0…S−1, in order of first appearance) and its position
    (0…K−1).
    """

    def __init__(self, slate_id: Any, position: Any, rows: int) -> None:
        place = column("position", position, FINITE, rows)
        if (bad := np.flatnonzero((place < 0) | (place % 1 != 0))).size:
            raise BadData(
                "position",
                f"{rows_text(bad)}: got no position; expected 0, 1, 2, …; the first is 0",
            )
        codes, self.slates = grouped(slate_id)
        if codes.size != rows:
            raise BadData("slate_id", f"got {codes.size} rows; expected {rows}, as many as rewards")
        if (bad := np.flatnonzero(codes < 0)).size:
            raise BadData("slate_id", f"{rows_text(bad)}: got no slate; expected an id on each row")
        self.slate, self.position = codes, place.astype(np.intp)
        self.positions = int(place.max()) + 1
        cell = self.slate * self.positions + self.position
        if (bad := np.flatnonzero(_repeated(cell))).size:
            raise BadData(
                "position",
                f"{rows_text(bad)}: got a position twice in a slate; expected each once; drop one",
            )

    def spread(self, values: Floats) -> Floats:
        """(K × S) the values at their position and slate, 0 where nothing was shown."""
        wide = np.zeros((self.positions, self.slates))
        wide[self.position, self.slate] = values
        return wide

    def units(self, units: Any) -> Indices | None:
        """Unit codes by slate: the unit of a slate's first row."""
        first = np.flatnonzero(~_repeated(self.slate))
        data = np.asarray(units)
        if data.size != self.slate.size:
            raise BadData(
                "units", f"got {data.size} rows; expected {self.slate.size}, as many as rewards"
            )
        return unit_codes(data[first], self.slates)

    def columns(self, r: Floats, weights: dict[str, Floats], q_logged: Any, q_target: Any) -> Env:
        """The columns that the formulas speak of, one row per slate."""
        blocks = {"r": self.spread(r), "shown": self.spread(np.ones(r.size))}
        blocks |= {level: self.spread(w) for level, w in weights.items() if level != "slate"}
        if q_logged is not None and q_target is not None:
            blocks["q"] = self.spread(column("q_logged", q_logged, FINITE, r.size))
            blocks["dm"] = self.spread(column("q_target", q_target, FINITE, r.size))
        env = {
            f"{name}{k}": block[k] for name, block in blocks.items() for k in range(self.positions)
        }
        env["r"] = env["reward"] = blocks["r"].sum(axis=0)
        if "slate" in weights:
            env["slate"] = self._of_slate(weights["slate"])
        return env

    def _of_slate(self, weight: Floats) -> Floats:
        whole = np.zeros(self.slates)
        whole[self.slate] = weight
        if (
            bad := np.flatnonzero(~np.isclose(whole[self.slate], weight, rtol=1e-9, atol=0.0))
        ).size:
            raise BadData(
                "propensities",
                f"{rows_text(bad)}: got another weight than the slate's other rows; expected one",
            )
        return whole


def _repeated(codes: Indices) -> NDArray[np.bool_]:
    """True where a code occurred before."""
    repeated = np.ones(codes.size, dtype=bool)
    repeated[np.unique(codes, return_index=True)[1]] = False
    return repeated


def _one(
    estimator: SlateEstimator,
    env: Env,
    positions: int,
    units: Indices | None,
    alpha: float,
    interval: Interval,
    gates: Gates,
    replicates: int,
    facts: Mapping[str, Any],
) -> Estimate:
    names = (
        ["slate"]
        if estimator.level == "slate"
        else [f"{estimator.level}{k}" for k in range(positions)]
    )
    reason = None
    if names[0] not in env:
        names, reason = [], "needs_propensity_level"
    elif estimator.model and "q0" not in env:
        reason = "needs_reward_model"
    diagnostics = _diagnose(names, env, units, gates, facts)
    if reason:
        return refused(estimator.name, reason, diagnostics, alpha)
    planned = [Planned(estimator.at(positions), {0.0: estimator.formula(positions)}, None)]
    scored = {**env, "w": env[names[-1]]}
    summary = summarise(
        scored, units, columns_of(planned, Symbols()), bootstrap=interval == "bootstrap"
    )
    return assess(
        planned,
        summary,
        diagnostics,
        alpha=alpha,
        interval=interval,
        gates=gates,
        betting=lambda _estimator, _formula: "no_finite_sample_interval",
        replicates=replicates,
    )[estimator.name]


def _diagnose(
    names: list[str], env: Env, units: Indices | None, gates: Gates, facts: Mapping[str, Any]
) -> Diagnostics:
    """Diagnostics of the position whose weights fail a gate, else of the one with the smallest
    effective sample.
    """
    found = []
    for name in names:
        shown: NDArray[np.bool_] = (
            env[f"shown{name.removeprefix('item').removeprefix('cascade')}"] > 0
            if name != "slate"
            else np.ones(env["r"].size, dtype=bool)
        )
        part = {"r": env["r"][shown], "w": env[name][shown]}
        codes = None if units is None else grouped(units[shown])[0]
        summary = summarise(part, codes, columns_of([], Symbols()), bootstrap=False)
        found.append(summary.diagnose(Symbols(), facts))
    if not found:
        n = env["r"].size
        return Diagnostics(n, n, 0.0, 0.0, 0.0, 0.0, 0.0, int(np.count_nonzero(env["r"])), **facts)
    return min(found, key=lambda d: (refusal(d, gates) is None, d.ess))
