"""`evaluate`: what another policy would have earned in a published experiment, progressively and
position by position.

The log is walked once, in its order, in batches. Within a batch the target and the reward model
only score; what has matured before the batch began has taught them. So nothing is ever scored by a
model that has seen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.records import Floats, Indices, Snapshot
from topbill.log import LOG_FILE, open_log
from topbill.ope.diagnostics import Diagnostics, Gates
from topbill.ope.estimation import estimate
from topbill.ope.estimators import DEFAULT
from topbill.ope.intervals import Interval, Lam
from topbill.ope.replay.logged_data import LoggedData
from topbill.ope.replay.progressive import Progress, ProgressivePass, TargetColumns
from topbill.ope.replay.reward_model import Link
from topbill.ope.replay.targets import (
    FunctionPolicy,
    Policy,
    TargetPolicy,
    VariantPolicy,
    resolve,
)
from topbill.ope.result import TEXT, Estimate, Estimates, refused, row_of
from topbill.ope.slate_estimation import estimate_slate
from topbill.policies import KINDS
from topbill.spec import Experiment
from topbill.stats.frames import frame_of, html_of

if TYPE_CHECKING:
    import pandas as pd

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
    were used; `sampled`, the share of all units that were looked at; `clipped`, how many of the
    scored decisions had a metric outside [0, cap], which counts as that end.
    """

    experiment: str
    variants: tuple[str, ...]
    decisions: int
    units: int
    first_at: int
    last_at: int
    left_out: dict[str, int]
    logged: Estimate
    targets: dict[str, Estimates]
    sampled: float = 1.0
    clipped: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        fields = [name for name in self.__dataclass_fields__ if name not in ("logged", "targets")]
        plain: dict[str, Any] = {name: getattr(self, name) for name in fields}
        plain["variants"] = list(self.variants)
        plain["logged"] = self.logged.as_dict()
        plain["targets"] = {name: each.as_dict() for name, each in self.targets.items()}
        return plain

    def to_frame(self) -> pd.DataFrame:
        """A row per target and estimator, the log itself first as target "the log", with the
        columns of `Estimates.to_frame`.
        """
        rows = [{"target": "the log", **row_of(self.logged)}]
        for target, estimates in self.targets.items():
            rows += [{"target": target, **row_of(each)} for each in estimates.values()]
        return frame_of(rows, text=("target", *TEXT))

    def _repr_html_(self) -> str:
        summary = f"{self.experiment}: {self.decisions:,} decisions of {self.units:,} units"
        return html_of(self.to_frame(), summary)


def evaluate(
    key: str,
    policy: Policy,
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

    Rewards are the objective of the experiment as published, in [0, 1] per item; a slate's is their
    sum. Fallbacks, immature decisions and other revisions' undecodable contexts are left out and
    counted.

    Args:
        key: the experiment's key.
        policy: an experiment file or Experiment (each of its variants, or `variant`), learning as
            it goes from the log's past only; "snapshot" or "snapshot:VERSION" (a stored state,
            scored on what came after it); "uniform"; "always ACTION"; or a callable from context
            and remaining actions to their probabilities.
        data_dir: the data folder of `topbill serve`.
        variant: the only variant of `policy` to evaluate.
        log_variants: whose decisions to use; by default every variant that explores.
        estimators: names of `ESTIMATORS` for one slot, of `SLATE_ESTIMATORS` for rankings.
        lam, alpha, interval, gates: as in `estimate`.
        link: the reward model's, "linear" or "logistic".
        progress: called now and then with the decisions done and the decisions in all.
        most: where there are more decisions, those of a sample of units are read, about so many:
            estimates stay unbiased and intervals are wider. A policy that learns as it goes then
            learns from the sample alone.
        memory_limit: what DuckDB may hold.

    Raises:
        NotFound: for a lake, experiment, file or snapshot that is not there.
        SpecError: for a file that is no experiment.
        BadRequest: for arguments that cannot be meant.
        BadData: naming decisions that cannot be used.

    Examples:
        >>> import tempfile, topbill
        >>> from topbill.testing import example_data
        >>> data = example_data(tempfile.mkdtemp(), visits=300)
        >>> result = topbill.evaluate("home-artwork", "uniform", data)
        >>> list(result.targets), result.targets["uniform"]["ips"].estimator
        (['uniform'], 'ips')
    """
    folder = Path(data_dir)
    data = LoggedData(folder, key, most=most, memory_limit=memory_limit)
    try:
        if data.events == 0:
            raise BadData(
                "rewards",
                f"decisions 0 to {data.decisions - 1} of {key}: got no reward event; send rewards",
            )
        snapshot = partial(stored_snapshot, folder, key)
        targets = resolve(policy, variant=variant, data=data, snapshot=snapshot)
        used = explorers(data.experiment) if log_variants is None else tuple(log_variants)
        scored = ProgressivePass(data, targets, used, link)
        scored.run(progress)
    finally:
        data.close()
    # What was found on the way decides: only the log knows whether its slates have several items.
    names = estimators or (RANKING if scored.ranking else SINGLE)
    options = _Options(alpha, interval, gates)
    if scored.decisions:
        logged, by_target = _estimates(scored, names, lam, options)
    elif scored.left_out["immature"]:
        logged, by_target = _immature(scored, names, alpha)
    else:
        raise _nothing_to_score(scored, used)
    warnings = clipped_notes(scored.clipped, scored.decisions)
    return Evaluation(
        experiment=key,
        variants=used,
        decisions=scored.decisions,
        units=logged.diagnostics.units,
        first_at=scored.first_at,
        last_at=scored.last_at,
        left_out=dict(scored.left_out),
        logged=replace(logged, estimator="mean"),
        targets={name: each.noted(*warnings) for name, each in by_target.items()},
        sampled=data.sampled,
        clipped=dict(scored.clipped),
    )


class _Options(NamedTuple):
    """What every estimate of one evaluation is made with."""

    alpha: float
    interval: Interval
    gates: Gates | None


def _estimates(
    scored: ProgressivePass, names: Sequence[str], lam: Any, options: _Options
) -> tuple[Estimate, dict[str, Estimates]]:
    """What the log itself earned per decision, and the estimates of each target."""
    units = np.array(scored.units, dtype=object)
    totals = np.bincount(scored.log.slate.whole, weights=scored.log.reward.values).astype(float)
    by_target = {}
    for target, columns in zip(scored.targets, scored.of_target, strict=True):
        if scored.ranking:
            estimates = _ranking(scored, columns, units, names, options)
        else:
            estimates = _single(scored, columns, totals, units, names, lam, options)
        by_target[target.name] = estimates.noted(*notes_of(target))
    # The log's own mean is the estimate of the policy that chose it: every weight is one.
    certain = np.ones(totals.size)
    logged = estimate(
        totals,
        certain,
        certain,
        units=units,
        estimators=("ips",),
        facts=scored.facts(),
        **options._asdict(),
    )
    return logged["ips"], by_target


def clipped_notes(clipped: Mapping[str, int], decisions: int) -> list[str]:
    """A sentence for each end of the objective that some decisions were beyond."""
    notes = []
    for side, count in sorted(clipped.items()):
        remedy = "declare a lower floor" if " below " in side else "raise the cap"
        notes.append(
            f"{count:,} of {decisions:,} decisions have {side} and count as that end, which may "
            f"turn a ranking round: {remedy}"
        )
    return notes


def notes_of(target: TargetPolicy) -> tuple[str, ...]:
    """What must be known of a target beside its numbers; a caller's own says nothing."""
    return target.notes if isinstance(target, FunctionPolicy | VariantPolicy) else ()


def _immature(
    scored: ProgressivePass, names: Sequence[str], alpha: float
) -> tuple[Estimate, dict[str, Estimates]]:
    """Refusals for a log whose every decision is too young."""
    young = Diagnostics(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, mature_share=0.0)
    by_target = {}
    for target in scored.targets:
        by_target[target.name] = Estimates(
            {name: refused(name, "rewards_immature", young, alpha) for name in names}
        )
    return refused("ips", "rewards_immature", young, alpha), by_target


def _nothing_to_score(scored: ProgressivePass, used: tuple[str, ...]) -> BadData:
    causes = ", ".join(f"{count} {cause}" for cause, count in scored.left_out.items()) or "nothing"
    misfit = f"; the first of another schema is {scored.first_misfit}" * bool(scored.first_misfit)
    return BadData(
        "decisions",
        f"got none of {scored.key} to score; left out: {causes}; expected some by "
        f"{', '.join(used)}{misfit}",
    )


def _single(
    scored: ProgressivePass,
    columns: TargetColumns,
    totals: Floats,
    units: Any,
    names: Sequence[str],
    lam: Any,
    options: _Options,
) -> Estimates:
    # One slot: a row a decision, so that the placements' columns are the decisions'.
    log = scored.log
    return estimate(
        totals,
        log.propensity.values,
        columns.propensity.values,
        q_logged=log.modelled.values,
        q_target=columns.modelled.values,
        units=units,
        estimators=names,
        lam=lam,
        eligible=log.choices.values,
        unsupported=columns.unsupported.values,
        weight_moments=scored.predictable_moments(columns.weight_moment.values),
        embedding_propensities=scored.complete(log.feature_propensity),
        target_embedding_propensities=scored.complete(columns.feature_propensity),
        facts=scored.facts(),
        **options._asdict(),
    )


def _ranking(
    scored: ProgressivePass,
    columns: TargetColumns,
    units: Any,
    names: Sequence[str],
    options: _Options,
) -> Estimates:
    """The logged propensities are given the items above, so slate and cascade levels are their
    products.
    """
    log = scored.log
    slate, position = log.slate.whole, log.position.whole
    logged = _cascade(log.propensity.values, position)
    target = _cascade(columns.propensity.values, position)
    # The product down to a slate's last position is the slate's own propensity.
    last_rows = np.append(np.flatnonzero(position == 0)[1:], position.size) - 1
    unsupported = float(columns.unsupported.values.mean())
    return estimate_slate(
        log.reward.values,
        slate_id=slate,
        position=position,
        propensities=logged[last_rows][slate],
        target_propensities=target[last_rows][slate],
        cascade_propensities=logged,
        target_cascade_propensities=target,
        q_logged=log.modelled.values,
        q_target=columns.modelled.values,
        units=units[slate],
        estimators=names,
        facts=scored.facts() | {"unsupported": unsupported},
        **options._asdict(),
    )


def _cascade(p: Floats, position: Indices) -> Floats:
    """(n,) products of `p` from each slate's first position down; rows are in the order of slates
    and positions.
    """
    products = p.copy()
    for k in range(1, int(position.max()) + 1):
        rows = np.flatnonzero(position == k)
        products[rows] *= products[rows - 1]
    return products


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
    names = []
    for variant in experiment.variants:
        deterministic = getattr(KINDS[variant.policy], "deterministic", False)
        explores = variant.min_probability > 0 or not deterministic
        if variant.evaluable and explores:
            names.append(variant.name)
    if not names:
        raise BadRequest(
            "log_variants",
            f"{experiment.key}: no variant explores; expected one with min_probability or chance",
        )
    return tuple(names)
