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
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topbill.domain.errors import BadData, BadRequest, NotFound, PolicyError
from topbill.domain.objective import OBJECTIVE_RANGE
from topbill.domain.records import Snapshot
from topbill.domain.suggestion import nearest
from topbill.log import open_log_of
from topbill.ope.comparison import THE_LOG, EvaluationOptions, PairOfNames, compare_targets
from topbill.ope.diagnostics import Diagnostics, Gates
from topbill.ope.estimators import DEFAULT
from topbill.ope.intervals import Interval, Lam
from topbill.ope.replay.bucket_walks import walked
from topbill.ope.replay.logged_data import LoggedData
from topbill.ope.replay.progressive import Progress, ProgressivePass
from topbill.ope.replay.reward_model import Link
from topbill.ope.replay.selection import Moment, Selection
from topbill.ope.replay.targets import Policy, TargetPolicy, resolve
from topbill.ope.result import TEXT, Estimate, Estimates, refused, row_of
from topbill.policies import policy_class
from topbill.spec import Experiment
from topbill.stats.frames import frame_of, html_of

if TYPE_CHECKING:
    import pandas as pd

    from topbill.charts import Chart

THE_OBJECTIVE = "the objective"
"""What values are of, unless they are in a metric's own units."""
SINGLE = (*DEFAULT, "adaptive-dr")
"""Estimators of an experiment with one slot, unless told."""
RANKING = ("sips", "rips", "snsips", "snrips", "cascade-dr")
"""Estimators of rankings, unless told: those that a log with propensities given the items above can
feed.
"""


@dataclass(frozen=True)
class PairedDifference:
    """How much more one target earns than another (or the log), by estimator, on the same rows."""

    target: str
    baseline: str
    estimates: Estimates

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        names = {"target": self.target, "baseline": self.baseline}
        return {**names, "estimates": self.estimates.as_dict()}


@dataclass(frozen=True)
class Evaluation:
    """Targets' estimates by name and estimator, beside what the log itself earned (`logged`), per
    decision.

    `decisions` that were scored, `left_out` how many others and why; `variants` whose decisions
    were used; `sampled`, the share of all units that were looked at; `clipped`, how many of the
    scored decisions had a metric outside [0, cap], which counts as that end; `looks`, with
    `click_model: examined`, how many of them came without impressions, and of all their places how
    many nobody looked at. `differences` are
    those of each target to the log and, where there are several, of each pair of them (with more
    than eight, to the first). `selection` is what was asked for of the log, where not all:
    `where`, `since`, `until`, and another `objective`. Values are of the objective in [0, 1], or
    in a metric's own units, of which `measured_in` tells the name: those of a metric with a `floor`
    that is the whole objective. `value_range` is the least and the most that a decision can earn,
    to which all intervals are cut (those of differences to how far two values can be apart); `se`
    is as it was. `buckets` is how many walks, each over units of its own, the log
    was taken through in.
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
    looks: dict[str, int] = field(default_factory=dict)
    differences: tuple[PairedDifference, ...] = ()
    selection: dict[str, Any] = field(default_factory=dict)
    measured_in: str = THE_OBJECTIVE
    value_range: tuple[float, float] = OBJECTIVE_RANGE
    buckets: int = 1

    def against(self, target: str, baseline: str = THE_LOG) -> Estimates:
        """The differences of a target to another, or to the log, by estimator. Raises NotFound for
        a pair that is not there.
        """
        for pair in self.differences:
            if (pair.target, pair.baseline) == (target, baseline):
                return pair.estimates
        pairs = ", ".join(f"{pair.target} to {pair.baseline}" for pair in self.differences)
        raise NotFound(f"no difference of {target} to {baseline}; expected one of {pairs}")

    def half_width_of_all(self, estimate: Estimate) -> float | None:
        """How far the interval of an estimate is to be expected to reach once all units are read
        instead of a sample; of all, what it is. None where there is no interval.

        Units are sampled by their hash, whoever they are, and an interval narrows as 1/√units.
        """
        if estimate.half_width is None:
            return None
        return estimate.half_width * sqrt(self.sampled)

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        apart = ("logged", "targets", "differences")
        fields = [name for name in self.__dataclass_fields__ if name not in apart]
        plain: dict[str, Any] = {name: getattr(self, name) for name in fields}
        plain["variants"] = list(self.variants)
        plain["value_range"] = list(self.value_range)
        plain["logged"] = self.logged.as_dict()
        plain["targets"] = {name: each.as_dict() for name, each in self.targets.items()}
        plain["differences"] = [pair.as_dict() for pair in self.differences]
        return plain

    def to_frame(self) -> pd.DataFrame:
        """A row per target and estimator, the log itself first as target "the log", with the
        columns of `Estimates.to_frame`.
        """
        rows = [{"target": THE_LOG, **row_of(self.logged)}]
        for target, estimates in self.targets.items():
            rows += [{"target": target, **row_of(each)} for each in estimates.values()]
        return frame_of(rows, text=("target", *TEXT))

    def differences_frame(self) -> pd.DataFrame:
        """A row per pair and estimator: target, baseline, and the columns of `Estimates.to_frame`,
        the value being target − baseline.
        """
        rows = []
        for pair in self.differences:
            names = {"target": pair.target, "baseline": pair.baseline}
            rows += [{**names, **row_of(each)} for each in pair.estimates.values()]
        return frame_of(rows, text=("target", "baseline", *TEXT))

    def chart(self, target: str = "") -> Chart:
        """Values with their intervals beside what the log earned, as an Altair chart.

        Args:
            target: One of the targets, by all its estimators; without it each target by the
                estimate to speak of (`Estimates.recommended`).

        Returns:
            A row for each estimate that the log bears; the title names those that it does not.

        Raises:
            NotFound: There is no such target.
        """
        from topbill import charts

        if target and target not in self.targets:
            raise NotFound(f"{target}: not evaluated; expected one of {', '.join(self.targets)}")
        chosen: dict[str, Estimate | None] = {}
        if target:
            chosen.update(self.targets[target])
        else:
            for name, estimates in self.targets.items():
                chosen[name] = estimates.recommended
        given: dict[str, Estimate] = {THE_LOG: self.logged}
        missing = []
        for name, estimate in chosen.items():
            if estimate is None or estimate.value is None:
                missing.append(name)
            else:
                given[name] = estimate
        title = target or self.experiment
        if missing:
            title += f" (the log cannot tell: {', '.join(missing)})"
        rows = [(name, each.value, each.low, each.high) for name, each in given.items()]
        return charts.estimates(
            charts.estimate_frame(rows), THE_LOG, f"{self.measured_in} per decision"
        ).properties(title=title, width=charts.WIDTH)

    def _repr_html_(self) -> str:
        summary = f"{self.experiment}: {self.decisions:,} decisions of {self.units:,} units"
        values = html_of(self.to_frame(), summary)
        return values + html_of(
            self.differences_frame(), "differences, paired on the same decisions"
        )


def evaluate(
    key: str,
    policy: Policy | list[Policy] | tuple[Policy, ...] = (),
    data_dir: Path | str = "data",
    *,
    policies: Sequence[Policy] = (),
    variant: str | None = None,
    log_variants: Sequence[str] | None = None,
    where: str | Sequence[str] = (),
    since: Moment = None,
    until: Moment = None,
    objective: str | Mapping[str, float] | None = None,
    estimators: Sequence[str] | None = None,
    of_rankings: Sequence[str] | None = None,
    lam: Lam | Mapping[str, Lam] = None,
    alpha: float = 0.05,
    interval: Interval = "normal",
    link: Link = "linear",
    gates: Gates | None = None,
    progress: Progress | None = None,
    most: int | None = None,
    buckets: int | None = None,
    memory_limit: str = "",
) -> Evaluation:
    """What `policy` would have earned per decision in experiment `key`, from the lake in
    `data_dir`, how much more than the log did, and, of several policies, than each other.

    Rewards are the objective of the experiment as published, in [0, 1] per item (or a metric's own
    units, see `Evaluation`); a slate's is their sum, to which a place that nobody looked at adds
    nothing. Decisions of which nothing was looked at (`click_model`), fallbacks, immature decisions
    and other revisions' undecodable contexts are left out and counted. Decisions of a sub-sampled
    log count as often as their `row_weight` says.

    Args:
        key: the experiment's key.
        policy: an experiment file or Experiment (each of its variants, or `variant`), learning as
            it goes from the log's past only; "snapshot" or "snapshot:VERSION" (a stored state,
            scored on what came after it); "shadow" (the experiment's own variants by what they
            logged in the shadow step of a launch); "uniform"; "always ACTION"; or a callable from
            context and remaining actions to their probabilities. A list holds several
            candidates.
        policies: further candidates, compared with each other on the same decisions.
        data_dir: the data folder of `topbill serve`.
        variant: the only variant of `policy` to evaluate.
        log_variants: whose decisions to use; by default every variant that explores.
        where: conditions on the decisions to score, all of which must hold: NAME=VALUE, or one of
            != > >= < <=, where NAME is a context feature (user.country of nested context),
            variant, unit or revision; commas separate values of which one suffices, as in
            `device=tv,web`. What has no value meets none; a name that no context has is refused.
            Policies and model still learn from all decisions.
        since, until: the first moment of those decisions, and the first after them; UTC where no
            zone is said.
        objective: judges by another one: weights by metric, or text such as "play=1,watched=0.5".
            Policies learn by the objective of their own file.
        estimators: names of `ESTIMATORS` for one slot, of `SLATE_ESTIMATORS` for rankings.
        of_rankings: where the log turns out to hold rankings, these in place of `estimators`.
        lam, alpha, interval, gates: as in `estimate`.
        link: the reward model's, "linear" or "logistic".
        progress: called now and then with the decisions done and the decisions in all.
        most: where there are more decisions, those of a sample of units are read, about so many:
            estimates stay unbiased and intervals are wider. A policy that learns as it goes then
            learns from the sample alone.
        buckets: into how many parts, by unit, the log is taken: each is a walk of its own, whose
            reward model and learning policies learn from its units alone. None takes those of the
            lake: 64 at a URL, 1 in a data folder.
        memory_limit: what DuckDB may hold, such as 500MB; else what TOPBILL_ENGINE_MEMORY says.

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
    candidates = _candidates(policy, policies)
    folder = Path(data_dir)
    data = LoggedData(
        folder, key, most=most, memory_limit=memory_limit, objective=objective, buckets=buckets
    )
    try:
        if data.events == 0:
            raise BadData(
                "rewards",
                f"decisions 0 to {data.decisions - 1} of {key}: got no reward event; send rewards",
            )
        selection = Selection(data.experiment, where, since, until)
        snapshot = partial(stored_snapshot, folder, key)
        targets: list[TargetPolicy] = []
        for candidate in candidates:
            targets += resolve(candidate, variant=variant, data=data, snapshot=snapshot)
        used = _variants(data, log_variants)
        scored = walked(data, targets, used, link, selection, progress)
    finally:
        data.close()
    selection.refuse_unseen()
    # What was found on the way decides: only the log knows whether its slates have several items.
    ranked, single = of_rankings or estimators or RANKING, estimators or SINGLE
    names = ranked if scored.ranking else single
    differences: dict[PairOfNames, Estimates] = {}
    if scored.decisions:
        options = EvaluationOptions(alpha, interval, gates, lam)
        logged, by_target, differences = compare_targets(scored, names, options)
    elif scored.left_out["immature"]:
        logged, by_target = _immature(scored, names, alpha)
    else:
        raise _nothing_to_score(scored, used)
    shift, factor = 0.0, 1.0
    own_units = data.judged.goal.own_units
    # A slate's reward is the sum of its items': each adds a floor.
    items = scored.items_per_decision if scored.decisions else 1.0
    if own_units is not None and scored.decisions:
        shift, factor = own_units.floor * items, own_units.range
    value_range = data.judged.goal.range_of_sum(items)
    # Two values can be no further apart.
    reach = value_range[1] - value_range[0]
    warnings = [*clipped_notes(scored.clipped, scored.decisions), *scored.looks.notes]
    asked_for = selection.says()
    if objective is not None:
        asked_for["objective"] = dict(data.judged.objective)
    of_targets = {}
    for name, each in by_target.items():
        estimates = each.rescaled(shift, factor).within(*value_range)
        of_targets[name] = estimates.told_beyond(*value_range).noted(*warnings)
    return Evaluation(
        experiment=key,
        variants=used,
        decisions=scored.decisions,
        units=logged.diagnostics.units,
        first_at=scored.first_at,
        last_at=scored.last_at,
        left_out=dict(scored.left_out),
        logged=replace(logged.rescaled(shift, factor).within(*value_range), estimator="mean"),
        targets=of_targets,
        sampled=data.sampled,
        clipped=dict(scored.clipped),
        looks=dict(scored.looks),
        # What is added to both sides is in no difference.
        differences=tuple(
            PairedDifference(*pair, each.rescaled(0.0, factor).within(-reach, reach))
            for pair, each in differences.items()
        ),
        selection=asked_for,
        measured_in=own_units.metric if own_units else THE_OBJECTIVE,
        value_range=value_range,
        buckets=data.buckets,
    )


def _candidates(
    policy: Policy | list[Policy] | tuple[Policy, ...], policies: Sequence[Policy]
) -> list[Policy]:
    """All that is to be evaluated, in order."""
    if isinstance(policies, str):
        policies = (policies,)
    first: list[Policy] = [*policy] if isinstance(policy, list | tuple) else [policy]
    candidates = [*first, *policies]
    if not candidates:
        raise BadRequest(
            "policy",
            "got none; expected a file, an experiment, a callable, uniform or 'always ACTION'",
        )
    return candidates


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


def _variants(data: LoggedData, names: Sequence[str] | None) -> tuple[str, ...]:
    """Whose decisions to use. Raises BadRequest for a name that neither file nor log has."""
    if names is None:
        return explorers(data.experiment)
    wanted = (names,) if isinstance(names, str) else tuple(names)
    for name in wanted:
        if name not in data.variants:
            hint = nearest(name, data.variants)
            raise BadRequest(
                "log_variants",
                f"got {name!r}; expected some of {', '.join(sorted(data.variants))}"
                + f"; {hint}" * bool(hint),
            )
    return wanted


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


def stored_snapshot(data: Path, key: str, version: int | None) -> Snapshot | None:
    """One blob from the log: the only thing that evaluation reads there, as the lake does not keep
    policies.
    """
    with open_log_of(data, create=False) as log:
        return log.snapshot(key, version)


def explorers(experiment: Experiment) -> tuple[str, ...]:
    """The variants whose log can speak for others: those that don't always show one order."""
    names = []
    for variant in experiment.variants:
        explores = variant.min_probability > 0 or not _is_deterministic(variant.policy)
        if variant.evaluable and explores:
            names.append(variant.name)
    if not names:
        raise BadRequest(
            "log_variants",
            f"{experiment.key}: no variant explores; expected one with min_probability or chance",
        )
    return tuple(names)


def _is_deterministic(kind: str) -> bool:
    try:
        return policy_class(kind).deterministic
    except PolicyError:
        return True  # of a package that is not here any more: nothing is known of it
