"""`evaluate`: what another policy would have earned in a published experiment, progressively and
position by position.

The log is walked once, in its order, in batches. Within a batch the target and the reward model
only score; what has matured before the batch began has taught them. So nothing is ever scored by a
model that has seen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.records import Snapshot
from topbill.log import LOG_FILE, open_log
from topbill.ope.diagnostics import Diagnostics, Gates
from topbill.ope.estimate import estimate
from topbill.ope.estimate_slate import estimate_slate
from topbill.ope.estimators import DEFAULT
from topbill.ope.intervals import Interval, Lam
from topbill.ope.replay.logged_data import Record
from topbill.ope.replay.progressive import Progress, Walk
from topbill.ope.replay.reward_model import Link
from topbill.ope.replay.targets import Chooser, Target, resolve
from topbill.ope.result import Estimate, refused
from topbill.policies import KINDS
from topbill.spec import Experiment

SINGLE = (*DEFAULT, "adaptive-dr")
"""Estimators of an experiment with one slot, unless told."""
RANKING = ("sips", "rips", "snsips", "snrips", "cascade-dr")
"""Estimators of rankings, unless told: those that a log with propensities given the items above can
feed.
"""


@dataclass(frozen=True)
class Evaluation:
    """Targets' estimates by name and estimator, beside what the log itself earned (`logged`), per
    decision.

    `decisions` that were scored, `left_out` how many others and why; `variants` whose decisions
    were used; `sampled`, the share of all units that were looked at.
    """

    experiment: str
    variants: tuple[str, ...]
    decisions: int
    units: int
    first_at: int
    last_at: int
    left_out: dict[str, int]
    logged: Estimate
    targets: dict[str, dict[str, Estimate]]
    sampled: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("logged", "targets")
        }
        plain["variants"] = list(self.variants)
        plain["logged"] = self.logged.as_dict()
        plain["targets"] = {
            name: {estimator: e.as_dict() for estimator, e in found.items()}
            for name, found in self.targets.items()
        }
        return plain


def evaluate(
    key: str,
    policy: str | Path | Experiment | Chooser | Target,
    data_dir: Path | str = "data",
    *,
    variant: str | None = None,
    log_variants: Sequence[str] | None = None,
    estimators: Sequence[str] | None = None,
    lam: Lam | Mapping[str, Lam] = None,
    alpha: float = 0.05,
    interval: Interval = "normal",
    link: Link = "linear",
    gates: Gates | None = None,
    progress: Progress | None = None,
    most: int | None = None,
    memory_limit: str = "4GB",
) -> Evaluation:
    """What `policy` would have earned per decision in experiment `key`, from the lake in
    `data_dir`.

    - `policy`: an experiment file or Experiment (each of its variants, or `variant`), learning as it goes from the
      log's past only; "snapshot" or "snapshot:VERSION" (a stored state, scored on what came after
      it); "uniform"; "always ACTION"; or a callable from context and remaining actions to their
      probabilities.
    - `log_variants`: whose decisions to use; by default every variant that explores. Fallbacks, immature decisions
      and other revisions' undecodable contexts are left out and counted.
    - Rewards are the objective of the experiment as published, in [0, 1] per item; a slate's is their sum.
    - `most`: where there are more decisions, those of a sample of units are read, about so many: estimates stay
      unbiased and intervals are wider. A policy that learns as it goes then learns from the sample
      alone.
    - `estimators`: of `ESTIMATORS` for one slot, of `SLATE_ESTIMATORS` for rankings. `link` of the reward model.

    Raises NotFound, SpecError, BadRequest, and BadData naming decisions.
    """
    data = Path(data_dir)
    record = Record(data, key, most=most, memory_limit=memory_limit)
    try:
        if record.events == 0:
            raise BadData(
                "rewards",
                f"decisions 0 to {record.decisions - 1} of {key}: got no reward event; send rewards",
            )
        stored = partial(stored_snapshot, data, key)
        targets = resolve(policy, variant=variant, logged=record.experiment, snapshot=stored)
        used = explorers(record.experiment) if log_variants is None else tuple(log_variants)
        walk = Walk(record, targets, used, link)
        walk.run(progress)
    finally:
        record.close()
    options = {"alpha": alpha, "interval": interval, "gates": gates}
    return replace(_summarised(walk, used, estimators, lam, options), sampled=record.sampled)


def _summarised(
    walk: Walk,
    used: tuple[str, ...],
    estimators: Sequence[str] | None,
    lam: Any,
    options: dict[str, Any],
) -> Evaluation:
    names = estimators or (RANKING if walk.ranking else SINGLE)
    if walk.decisions:
        units = np.array(walk.units, dtype=object)
        total = np.bincount(walk.column("slate").astype(np.intp), weights=walk.column("r"))
        sure = np.ones(total.size)
        found = {
            target.name: (
                _ranking(walk, i, units, names, options)
                if walk.ranking
                else _single(walk, i, total, units, names, lam, options)
            )
            for i, target in enumerate(walk.targets)
        }
        logged = estimate(
            total, sure, sure, units=units, estimators=("ips",), facts=walk.facts(), **options
        )["ips"]
    elif walk.left_out["immature"]:
        young = Diagnostics(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, mature_share=0.0)
        found = {
            t.name: {n: refused(n, "rewards_immature", young, options["alpha"]) for n in names}
            for t in walk.targets
        }
        logged = refused("ips", "rewards_immature", young, options["alpha"])
    else:
        causes = (
            ", ".join(f"{count} {cause}" for cause, count in walk.left_out.items()) or "nothing"
        )
        raise BadData(
            "decisions",
            f"got none of {walk.key} to score; left out: {causes}; expected some by {used}",
        )
    return Evaluation(
        experiment=walk.key,
        variants=used,
        decisions=walk.decisions,
        units=logged.diagnostics.units,
        first_at=walk.first_at,
        last_at=walk.last_at,
        left_out=dict(walk.left_out),
        logged=replace(logged, estimator="mean"),
        targets=found,
    )


def _single(
    walk: Walk,
    i: int,
    total: Any,
    units: Any,
    estimators: Sequence[str],
    lam: Any,
    options: dict[str, Any],
) -> dict[str, Estimate]:
    return estimate(
        total,
        walk.column("p"),
        walk.column(f"pi{i}"),
        q_logged=walk.column("q"),
        q_target=walk.column(f"dm{i}"),
        units=units,
        estimators=estimators,
        lam=lam,
        eligible=walk.column("support"),
        unsupported=walk.column(f"unsupported{i}"),
        weight_moments=walk.predictable(walk.column(f"moment{i}")),
        embedding_propensities=walk.complete("embedded"),
        target_embedding_propensities=walk.complete(f"embedded{i}"),
        facts=walk.facts(),
        **options,
    )


def _ranking(
    walk: Walk, i: int, units: Any, estimators: Sequence[str], options: dict[str, Any]
) -> dict[str, Estimate]:
    """The logged propensities are given the items above, so slate and cascade levels are their
    products.
    """
    slate, place = walk.column("slate").astype(np.intp), walk.column("position")
    logged, target = _cascade(walk.column("p"), place), _cascade(walk.column(f"pi{i}"), place)
    last = (
        np.append(np.flatnonzero(place == 0)[1:], place.size) - 1
    )  # the row of each slate's last position
    return estimate_slate(
        walk.column("r"),
        slate_id=slate,
        position=place,
        propensities=logged[last][slate],
        target_propensities=target[last][slate],
        cascade_propensities=logged,
        target_cascade_propensities=target,
        q_logged=walk.column("q"),
        q_target=walk.column(f"dm{i}"),
        units=units[slate],
        estimators=estimators,
        facts=walk.facts() | {"unsupported": float(walk.column(f"unsupported{i}").mean())},
        **options,
    )


def _cascade(p: Any, place: Any) -> Any:
    """(n,) products of `p` from each slate's first position down; rows are in the order of slates
    and positions.
    """
    out = p.copy()
    for k in range(1, int(place.max()) + 1):
        rows = np.flatnonzero(place == k)
        out[rows] *= out[rows - 1]
    return out


def stored_snapshot(data: Path, key: str, version: int | None) -> Snapshot | None:
    """One blob from the log: the only thing that evaluation reads there, as the lake does not keep
    policies.
    """
    path = data / LOG_FILE
    if not path.exists():
        raise NotFound(f"{path}: no log there; expected the data folder of `topbill serve`")
    log = open_log(path)
    try:
        return log.snapshot(key, version)
    finally:
        log.close()


def explorers(experiment: Experiment) -> tuple[str, ...]:
    """The variants whose log can speak for others: those that don't always show one order."""
    found = tuple(
        v.name
        for v in experiment.variants
        if v.evaluable
        and (v.min_probability > 0 or not getattr(KINDS[v.policy], "deterministic", False))
    )
    if not found:
        raise BadRequest(
            "log_variants",
            f"{experiment.key}: no variant explores; expected one with min_probability or chance",
        )
    return found
