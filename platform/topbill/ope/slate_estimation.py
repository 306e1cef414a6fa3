"""`estimate_slate`: policies over rankings, from a log with a row per slate and position.

Rows are spread to one per slate, so that values, standard errors, intervals and refusals are those
of single choices. What a slate shorter than the longest has below its end, `estimators.slate` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topbill.domain.errors import BadData, BadRequest
from topbill.domain.records import Floats, Indices
from topbill.ope.diagnostics import Diagnostics, Gates, foreseen_se, refusal
from topbill.ope.estimation import summarise
from topbill.ope.estimators.formula import Env, Formula, Symbols
from topbill.ope.estimators.slate import SLATE_ESTIMATORS, SlateEstimator
from topbill.ope.inputs import (
    FINITE,
    POSITIVE,
    PROBABILITY,
    PROPENSITY,
    column,
    grouped,
    probabilities,
    refuse_misaligned,
    rewards_column,
    row_weights,
    rows_text,
    unit_codes,
    vector,
)
from topbill.ope.intervals import Interval, Planned, assess, check_options, columns_of
from topbill.ope.result import Estimate, Estimates, refused

SLATE_DEFAULT = tuple(SLATE_ESTIMATORS)


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
    weights: Any = None,
    estimators: Sequence[str] = SLATE_DEFAULT,
    alpha: float = 0.05,
    interval: Interval = "normal",
    replicates: int = 1000,
    facts: Mapping[str, Any] | None = None,
    gates: Gates | None = None,
) -> Estimates:
    """What the target policy would have earned per slate.

    Columns of n rows, of shape (n,) or (n, 1), a row per shown item. Those of pandas must have one
    index.

    Args:
        rewards: of the item, finite.
        slate_id: groups rows into slates.
        position: 0, 1, … or 1, 2, … from the top; each pair of slate and position occurs once.
            Slates may be of different lengths, and lack positions.
        propensities: (0, 1], of the whole slate, the same on its rows.
        item_propensities: (0, 1], of this item at this position, whatever stands above.
        cascade_propensities: (0, 1], of the items down to this one.
        target_propensities, target_item_propensities, target_cascade_propensities: [0, 1], likewise
            of the target policy. A level that is not given refuses its estimators.
        q_logged: q̂_k of the shown item (cascade-dr).
        q_target: Σ_a π(a|x, items above) q̂_k(a) (cascade-dr).
        units: whatever is independent, n rows; None takes the slates.
        weights: how many slates each row's slate stands for, the same on its rows; see `estimate`.
        estimators: names from `SLATE_ESTIMATORS`.
        alpha, replicates, facts, gates: as in `estimate`.
        interval: "normal", "bootstrap" or "sequence".

    Raises:
        BadData: naming the rows of a column that cannot be used.
        BadRequest: for an unknown estimator or option.
    """
    selected = chosen_slate(estimators)
    columns = slate_columns(
        rewards,
        slate_id=slate_id,
        position=position,
        propensities=propensities,
        target_propensities=target_propensities,
        item_propensities=item_propensities,
        target_item_propensities=target_item_propensities,
        cascade_propensities=cascade_propensities,
        target_cascade_propensities=target_cascade_propensities,
        q_logged=q_logged,
        q_target=q_target,
        units=units,
        weights=weights,
    )
    return from_slate_columns(
        columns,
        selected,
        alpha=alpha,
        interval=interval,
        replicates=replicates,
        facts=facts,
        gates=gates,
    )


def from_slate_columns(
    columns: SlateColumns,
    estimators: Iterable[SlateEstimator],
    *,
    alpha: float = 0.05,
    interval: Interval = "normal",
    replicates: int = 1000,
    facts: Mapping[str, Any] | None = None,
    gates: Gates | None = None,
) -> Estimates:
    """`estimate_slate` on columns already checked.

    Raises:
        BadRequest: for an option that cannot be meant.
    """
    check_options(alpha, interval)
    if interval == "betting":
        raise BadRequest(
            "interval",
            f"got {interval!r}; expected 'normal', 'bootstrap' or 'sequence' for rankings",
        )
    gates = gates or Gates()
    estimates = Estimates()
    for each in estimators:
        estimates[each.name] = one_estimate(
            each, columns, alpha, interval, gates, replicates, facts or {}
        )
    return estimates


def chosen_slate(names: str | Iterable[str]) -> list[SlateEstimator]:
    """The estimators of those names, in that order. Raises BadRequest for one that rankings have
    not.
    """
    wanted = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in SLATE_ESTIMATORS]
    if unknown:
        raise BadRequest(
            "estimators",
            f"got {', '.join(map(repr, unknown))}; expected some of {', '.join(SLATE_ESTIMATORS)}, "
            "which are those of rankings",
        )
    return [SLATE_ESTIMATORS[name] for name in wanted]


class SlateColumns(NamedTuple):
    """What rankings are estimated from: columns with a row per slate, named as the formulas say,
    how many positions there are, and the slates' units.
    """

    env: Env
    positions: int
    units: Indices | None


def slate_columns(
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
    weights: Any = None,
    weight_moments: Any = None,
) -> SlateColumns:
    """The columns of `estimate_slate`'s arguments, checked.

    `weight_moments` (n,) is Σ_a π²/p at each position given the items above, where the log has all
    probabilities: how far from 1 true propensities may leave the mean weight.
    """
    refuse_misaligned(
        rewards=rewards,
        slate_id=slate_id,
        position=position,
        propensities=propensities,
        target_propensities=target_propensities,
        item_propensities=item_propensities,
        target_item_propensities=target_item_propensities,
        cascade_propensities=cascade_propensities,
        target_cascade_propensities=target_cascade_propensities,
        q_logged=q_logged,
        q_target=q_target,
        units=units,
        weights=weights,
    )
    r = rewards_column(rewards)
    table = _SlateTable(slate_id, position, r.size)
    ratios: dict[str, Floats] = {}
    for level, prefix, logged, target in (
        ("slate", "", propensities, target_propensities),
        ("item", "item_", item_propensities, target_item_propensities),
        ("cascade", "cascade_", cascade_propensities, target_cascade_propensities),
    ):
        if logged is not None or target is not None:
            ratios[level] = _weight(f"{prefix}propensities", logged, target, r.size)
    env = table.columns(r, ratios, q_logged, q_target)
    if weights is not None:
        own = column("weights", weights, POSITIVE, r.size)
        env["weight"] = row_weights(table.of_slate("weights", own), table.slates)
    if weight_moments is not None:
        moments = column("weight_moments", weight_moments, FINITE, r.size)
        env |= table.foreseen(moments, env)
    codes = None if units is None else table.units(units)
    return SlateColumns(env, table.positions, codes)


def _weight(name: str, logged: Any, target: Any, rows: int) -> Floats:
    """(rows,) weights π/p of one level, checked."""
    for half, data in ((name, logged), (f"target_{name}", target)):
        if data is None:
            raise BadData(
                half, "got nothing; expected it with its other half; give both, or neither"
            )
    p = probabilities(name, logged, PROPENSITY, rows)
    return probabilities(f"target_{name}", target, PROBABILITY, rows) / p


class _SlateTable:
    """Where each row belongs: its slate (0…S−1, in order of first appearance) and its position
    (0…K−1).
    """

    def __init__(self, slate_id: Any, position: Any, rows: int) -> None:
        place = column("position", position, FINITE, rows)
        _refuse_rows(
            "position",
            (place < 0) | (place % 1 != 0),
            "got no position; expected 0, 1, 2, … or 1, 2, 3, … from the top",
        )
        _refuse_rows(
            "position",
            (place == place.min()) & (place.min() > 1),
            f"got {place.min():g} as the first of all; expected 0 or 1; number them from the top",
        )
        codes, self.slates = grouped("slate_id", slate_id)
        if codes.size != rows:
            raise BadData("slate_id", f"got {codes.size} rows; expected {rows}, as many as rewards")
        _refuse_rows("slate_id", codes < 0, "got no slate; expected an id on each row")
        # By rank, so that they may be counted from 1, and one that no slate has costs nothing.
        taken, ranks = np.unique(place, return_inverse=True)
        self.slate, self.position = codes, ranks.astype(np.intp)
        self.positions = taken.size
        cell = self.slate * self.positions + self.position
        _refuse_rows(
            "position",
            _repeated(cell),
            "got a position twice in a slate; expected each once; drop one",
        )

    def spread(self, values: Floats) -> Floats:
        """(K × S) the values at their position and slate, 0 where nothing was shown."""
        wide = np.zeros((self.positions, self.slates))
        wide[self.position, self.slate] = values
        return wide

    def units(self, units: Any) -> Indices | None:
        """Unit codes by slate: the unit of a slate's first row."""
        first = np.flatnonzero(~_repeated(self.slate))
        data = vector("units", np.asarray(units))
        if data.size != self.slate.size:
            raise BadData(
                "units", f"got {data.size} rows; expected {self.slate.size}, as many as rewards"
            )
        return unit_codes(data[first], self.slates)

    def columns(self, r: Floats, weights: dict[str, Floats], q_logged: Any, q_target: Any) -> Env:
        """The columns that the formulas speak of, one row per slate."""
        blocks = {"r": self.spread(r), "shown": self.spread(np.ones(r.size))}
        for level, weight in weights.items():
            if level == "item":
                blocks[level] = self.spread(weight)
            elif level == "cascade":
                blocks[level] = _carried(self.spread(weight), blocks["shown"])
        if q_logged is not None and q_target is not None:
            blocks["q"] = self.spread(column("q_logged", q_logged, FINITE, r.size))
            blocks["dm"] = self.spread(column("q_target", q_target, FINITE, r.size))
        env: Env = {}
        for name, block in blocks.items():
            for k in range(self.positions):
                env[f"{name}{k}"] = block[k]
        env["r"] = env["reward"] = blocks["r"].sum(axis=0)
        if "slate" in weights:
            env["slate"] = self.of_slate("propensities", weights["slate"])
        return env

    def foreseen(self, moments: Floats, env: Env) -> Env:
        """(S,) by position, the variance of the cascade's weight that was to be foreseen along each
        slate: Σ_{j≤k} w_{1:j−1}² (Σ_a π²/p at j − 1).
        """
        at = self.spread(moments)
        sums: Env = {}
        total, above = np.zeros(self.slates), np.ones(self.slates)
        for k in range(self.positions):
            own = np.where(env[f"shown{k}"] > 0, np.maximum(at[k] - 1.0, 0.0), 0.0)
            # So large that it is no number says enough: nothing is foreseen.
            with np.errstate(over="ignore"):
                total = sums[f"foreseen{k}"] = total + above * above * own
            above = env.get(f"cascade{k}", above)
        return sums

    def of_slate(self, name: str, weight: Floats) -> Floats:
        """(S,) what is the same on all rows of a slate. Raises BadData where it is not."""
        whole = np.zeros(self.slates)
        whole[self.slate] = weight
        _refuse_rows(
            name,
            ~np.isclose(whole[self.slate], weight, rtol=1e-9, atol=0.0),
            "got another weight than the slate's other rows; expected one",
        )
        return whole


def _last(env: Env) -> int:
    """The last position that any slate has."""
    return sum(name.startswith("shown") for name in env) - 1


def _carried(weights: Floats, shown: Floats) -> Floats:
    """(K × S) the weights; where nothing was shown that of the position above, 1 at the top."""
    above = np.ones(weights.shape[1])
    for k, present in enumerate(shown > 0):
        above = weights[k] = np.where(present, weights[k], above)
    return weights


def _refuse_rows(name: str, bad: NDArray[np.bool_], message: str) -> None:
    rows = np.flatnonzero(bad)
    if rows.size:
        raise BadData(name, f"{rows_text(rows)}: {message}")


def _repeated(codes: Indices) -> NDArray[np.bool_]:
    """True where a code occurred before."""
    repeated = np.ones(codes.size, dtype=bool)
    repeated[np.unique(codes, return_index=True)[1]] = False
    return repeated


def one_estimate(
    estimator: SlateEstimator,
    columns: SlateColumns,
    alpha: float,
    interval: Interval,
    gates: Gates,
    replicates: int,
    facts: Mapping[str, Any],
) -> Estimate:
    """What one estimator says, or why it says nothing."""
    env, positions, units = columns
    # The weights that it uses, by the names of their columns, the lowest position last.
    if estimator.level == "slate":
        names = [_first_of("slate")]
    else:
        names = [f"{estimator.level}{k}" for k in range(positions)]
    reason = None
    if names[0] not in env:
        names, reason = [], "needs_propensity_level"
    elif estimator.model and "q0" not in env:
        reason = "needs_reward_model"
    diagnostics = _diagnose(names, env, units, gates, facts)
    if reason:
        return refused(estimator.name, reason, diagnostics, alpha)
    check = check_of(estimator, columns)
    formula = estimator.formula(positions)
    planned = [Planned(estimator.at(positions), {0.0: formula}, None, check)]
    scored = {**env, "w": env[names[-1]]}
    summary = summarise(
        scored, units, columns_of(planned, Symbols()), bootstrap=interval == "bootstrap"
    )
    results = assess(
        planned,
        summary,
        diagnostics,
        alpha=alpha,
        interval=interval,
        gates=gates,
        replicates=replicates,
    )
    return results[estimator.name]


def check_of(estimator: SlateEstimator, columns: SlateColumns) -> Formula | None:
    """The formula that the estimator is checked against, where the log has its weights."""
    if estimator.check is None or _first_of(estimator.check_level) not in columns.env:
        return None
    return estimator.check(columns.positions)


def _first_of(level: str) -> str:
    """The column of a level's weights that is there where any is."""
    return "slate" if level == "slate" else f"{level}0"


def _diagnose(
    names: list[str], env: Env, units: Indices | None, gates: Gates, facts: Mapping[str, Any]
) -> Diagnostics:
    """Diagnostics of the position whose weights fail a gate, else of the one with the smallest
    effective sample.
    """
    candidates = []
    for k, name in enumerate(names):
        w = env[name]
        if name.startswith("item"):
            # A slate that ends above weighs as it was drawn: so a position counts by how many reach
            # it, and one that hardly any do cannot speak against all.
            w = np.where(env[f"shown{k}"] > 0, w, 1.0)
        part = {"r": env["r"], "w": w}
        for optional in ("weight", "unrewarded"):
            if optional in env:
                part[optional] = env[optional]
        summary = summarise(part, units, columns_of([], Symbols()), bootstrap=False)
        own = dict(facts)
        foreseen = env.get(f"foreseen{k if name != 'slate' else _last(env)}")
        if foreseen is not None and not name.startswith("item"):
            own["foreseen_se"] = foreseen_se(foreseen, env.get("weight"))
        candidates.append(summary.diagnose(Symbols(), own))
    if not candidates:
        n = env["r"].size
        hits = int(np.count_nonzero(env["r"]))
        return Diagnostics(n, n, 0.0, 0.0, 0.0, 0.0, 0.0, hits, **facts)
    return min(candidates, key=lambda d: (refusal(d, gates) is None, d.ess))
