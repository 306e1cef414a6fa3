"""`train`: from a log a policy, and a certificate of what it earns on later decisions of that log.

The log is parted by time. On its earlier part settings are chosen (on its own last quarter, by
which lower bound is the highest) and the policy learns; on its later part, of which it has seen
nothing, its value is estimated off-policy, as `evaluate` does, with the same refusals. What the log
says of a decision's reward counts in full: a reward that came after the parting belongs to a
decision that is not scored, and nothing that is scored depends on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from topbill.domain.chance import uniform
from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.features import Feature
from topbill.domain.instants import instant
from topbill.domain.reasons import REASONS, REMEDIES
from topbill.domain.suggestion import nearest
from topbill.engine import CompiledExperiment, teach
from topbill.ope.comparison import THE_LOG, EvaluationOptions, PairOfNames, compare_targets
from topbill.ope.evaluation import THE_OBJECTIVE, explorers
from topbill.ope.replay.held_out import FrozenPolicy, HeldOutPass
from topbill.ope.replay.logged_data import LoggedData, LoggedDecision
from topbill.ope.replay.progressive import Progress, ProgressivePass
from topbill.ope.replay.selection import Moment
from topbill.ope.result import Estimate
from topbill.policies import KINDS, engine_of, learns, own_kinds, policy_class
from topbill.policies.trained import TrainedPolicy
from topbill.spec import Experiment, Variant, load
from topbill.spec.exploration import default_min_probability
from topbill.spec.fields import listed
from topbill.stats.frames import frame_of, html_of

if TYPE_CHECKING:
    import pandas as pd

MOST_HELD_OUT = 100_000
"""No more decisions are held out: what they leave undecided is too small to matter."""
MOST_TRIED = 40_000
"""Of so many decisions before the held-out ones settings are chosen,"""
TRIED_SHARE = 0.25
"""on so large a last part of them."""
MOST_MODELLED = 50_000
"""Of so many the reward model of dr learns."""
LARGEST_WEIGHT = 10.0
"""No decision teaches as if it were more than so many."""
CAREFUL = (0.0,)
"""Of a kind that has an `alpha`, what comes before its own: the mean, and nothing for what is not
known of an action. What a policy has learned is the same under each."""
MOST_SEGMENTS = 20
"""A feature with more values than these makes no segments."""
UNREAD = ("probabilities",)
"""Columns that teach nobody: how likely a decision was to show what it did not."""
_CHUNK = 2_000
_READ = 5_000


@dataclass(frozen=True)
class Certificate:
    """What a policy was found to earn on decisions that it has not seen, beside their logger.

    `low` is what the logger earned plus the lower bound (one-sided, at 1 − `alpha`) of how much
    more the policy earns, estimated as one difference on the same decisions: so `certified` is low
    > logger. `value` and `low` are None where the log cannot bear an answer. `reason` says why it
    is not certified: a code of `topbill.ope.REASONS`; None where it is.
    """

    value: float | None
    low: float | None
    logger: float | None
    certified: bool
    reason: str | None
    estimator: str = ""
    se: float | None = None
    decisions: int = 0
    units: int = 0
    ess: float = 0.0
    alpha: float = 0.05
    warnings: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Why it is not certified, and what to do; empty where it is."""
        if self.reason is None:
            return ""
        return f"{REASONS[self.reason]}. {REMEDIES[self.reason]}"

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["warnings"] = list(self.warnings)
        plain["remedy"] = REMEDIES[self.reason] if self.reason else None
        return plain


@dataclass(frozen=True)
class Segment:
    """The decisions whose context has one value of a feature, and what the policy earns there."""

    feature: str
    value: str
    certificate: Certificate


@dataclass(frozen=True)
class Training:
    """A policy that was trained from a log, and its certificate.

    Attributes:
        experiment: Whose log it is.
        policy: What was learned; `policy.write(path)` makes a file of it.
        weighted: Whether decisions taught as often as their propensities say, 1 ÷ (p · K).
        tried: By setting that was tried, how much more than the first it earned, less a standard
            error.
        certificate: On the decisions that were held out.
        segments: The same for parts of them.
        left_out: How many decisions taught nothing, by cause.
        measured_in: What values are of, as in `Evaluation`.
    """

    experiment: str
    policy: TrainedPolicy
    weighted: bool
    tried: dict[str, float]
    certificate: Certificate
    segments: tuple[Segment, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    measured_in: str = THE_OBJECTIVE

    def write(self, path: Path | str) -> None:
        """Put the policy into a file, with its certificate."""
        self.policy.write(Path(path))

    def to_frame(self) -> pd.DataFrame:
        """The certificate as a table, a row for all decisions that were held out and one for each
        segment.

        Returns:
            Columns decisions_of (`all`, or feature=value), policy (its value), policy_at_least (the
            lower bound), logger, certified, decisions, units, ess, reason.
        """
        rows = [_row_of("all", self.certificate)]
        for segment in self.segments:
            rows.append(_row_of(f"{segment.feature}={segment.value}", segment.certificate))
        return frame_of(rows, text=("decisions_of", "reason"))

    def _repr_html_(self) -> str:
        is_better = "is certified" if self.certificate.certified else "is not certified"
        sentence = (
            f"{self.policy.kind}, learned from {self.policy.decisions:,} decisions of "
            f"{self.experiment}, {is_better} to earn more than what was logged, judged by "
            f"{self.measured_in} on the later decisions. {self.certificate.sentence}"
        )
        return html_of(self.to_frame(), sentence.strip(), *self.certificate.warnings)

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON: those of the certificate, and what it is of."""
        policy = self.policy
        return {
            **self.certificate.as_dict(),
            "experiment": self.experiment,
            "policy": policy.kind,
            "params": policy.params,
            "weighted": self.weighted,
            "tried": self.tried,
            "learned": policy.decisions,
            "until": policy.until,
            "left_out": self.left_out,
            "measured_in": self.measured_in,
            "segments": [
                {"feature": each.feature, "value": each.value, **each.certificate.as_dict()}
                for each in self.segments
            ],
        }


def _row_of(decisions_of: str, certificate: Certificate) -> dict[str, Any]:
    return {
        "decisions_of": decisions_of,
        "policy": certificate.value,
        "policy_at_least": certificate.low,
        "logger": certificate.logger,
        "certified": certificate.certified,
        "decisions": certificate.decisions,
        "units": certificate.units,
        "ess": certificate.ess,
        "reason": certificate.reason or "",
    }


class _Setup(NamedTuple):
    """A policy with its parameters, and how decisions teach it."""

    experiment: Experiment
    variant: Variant
    weighted: bool
    name: str


class _Span(NamedTuple):
    """Where the log is parted: its usable decisions of `after` < seq ≤ `cut` are learned, as many
    as `learned`, and those of `cut` < seq ≤ `through` held out.
    """

    after: int
    tried: int
    chosen: int
    cut: int
    through: int
    learned: int
    until: int


def train(
    key: str,
    policy: str | Path | Experiment,
    data_dir: Path | str = "data",
    *,
    variant: str | None = None,
    log_variants: Sequence[str] | None = None,
    since: Moment = None,
    until: Moment = None,
    held_out: float = 0.3,
    by: Sequence[str] | None = None,
    objective: str | Mapping[str, float] | None = None,
    alpha: float = 0.05,
    progress: Progress | None = None,
    memory_limit: str = "",
) -> Training:
    """A policy trained on the earlier part of an experiment's log, and what it earns on the later.

    Args:
        key: The experiment's key.
        policy: A kind of policy, with its defaults (where it has an `alpha`, a careful one is
            preferred, unless another earns more), or an experiment's file, FILE@VARIANT for one of
            its variants.
        data_dir: The data folder, whose lake has the log.
        variant: The variant of the file to train.
        log_variants: Whose decisions are used; by default all teach, and those are held out of
            which the log can speak: every variant that explores.
        since, until: The first moment of those decisions, and the first after them; UTC where no
            zone is said.
        held_out: The share of the decisions, the last ones, that the certificate is of; never more
            than `MOST_HELD_OUT` decisions.
        by: Features of the context (category or flag) whose values are certified one by one; by
            default each that has at most `MOST_SEGMENTS`.
        objective: What the certificate judges by, as in `evaluate`.
        alpha: 1 − the level of the lower bound.
        progress: Called now and then with the decisions done and the decisions in all.
        memory_limit: What DuckDB may hold, such as 500MB; else what TOPBILL_ENGINE_MEMORY says.

    Raises:
        NotFound: for a lake, experiment or file that is not there.
        SpecError: for a file that is no experiment.
        BadRequest: for arguments that cannot be meant.
        BadData: for a log that has nothing to learn or to score.

    Examples:
        >>> import tempfile, topbill
        >>> from topbill.ope import train
        >>> from topbill.testing import example_data
        >>> data = example_data(tempfile.mkdtemp(), visits=300)
        >>> training = train("home-artwork", "linucb", data)
        >>> training.policy.kind, training.certificate.reason is None
        ('linucb', False)
    """
    if not 0.0 < held_out < 1.0:
        raise BadRequest("held_out", f"got {held_out}; expected a share between 0% and 100%")
    if not 0.0 < alpha < 0.5:
        raise BadRequest("alpha", f"got {alpha}; expected a number between 0 and 0.5, as 0.05")
    data = LoggedData(Path(data_dir), key, memory_limit=memory_limit, objective=objective)
    try:
        if data.events == 0:
            raise BadData("rewards", f"got no reward event of {key}; send rewards")
        return _Trainer(data, log_variants, alpha, progress).train(
            _setups(policy, variant, data), (since, until), held_out, by
        )
    finally:
        data.close()


class _Trainer:
    """Training on one log."""

    def __init__(
        self,
        data: LoggedData,
        log_variants: Sequence[str] | None,
        alpha: float,
        progress: Progress | None,
    ) -> None:
        self._data, self._alpha, self._progress = data, alpha, progress
        self._named = None if log_variants is None else tuple(log_variants)
        self._scored = explorers(data.experiment) if self._named is None else self._named
        for name in self._scored:
            if name not in data.variants:
                known = sorted(data.variants)
                raise BadRequest(
                    "log_variants", f"got {name!r}; expected some of {', '.join(known)}"
                )
        self._left_out: Counter[str] = Counter()
        self._done = 0

    def train(
        self,
        setups: list[_Setup],
        moments: tuple[Moment, Moment],
        held_out: float,
        by: Sequence[str] | None,
    ) -> Training:
        features = _segment_features(self._data.experiment, by)
        span = self._span(moments, held_out)
        setup, tried = self._choose(setups, span)
        self._left_out.clear()
        compiled = CompiledExperiment(setup.experiment, self._data.tables)
        target = self._frozen(compiled, setup)
        scored = HeldOutPass(self._data, [target], self._scored, features)
        learned = self._learn([(compiled, setup)], span, span.after, span.cut, scored)
        if not learned[0]:
            causes = ", ".join(f"{n:,} {cause}" for cause, n in self._left_out.items())
            raise BadData(
                "decisions",
                f"got none of {self._data.key} that teaches {setup.name}"
                + f"; left out: {causes}" * bool(causes)
                + "; expected its features, or those that the policy's file declares",
            )
        self._score(scored, span.cut, span.through)
        certificate = self._certificate(scored)
        segments = self._segments(scored, features)
        trained = _trained(self._data.key, setup, compiled, learned[0], span, certificate)
        own_units = self._data.judged.goal.own_units
        return Training(
            experiment=self._data.key,
            policy=trained,
            weighted=setup.weighted,
            tried=tried,
            certificate=certificate,
            segments=segments,
            left_out=dict(self._left_out + scored.left_out),
            measured_in=own_units.metric if own_units else THE_OBJECTIVE,
        )

    # Which decisions

    def _span(self, moments: tuple[Moment, Moment], held_out: float) -> _Span:
        low, high = (
            None if at is None else round(instant(name, at).timestamp() * 1e6)
            for name, at in zip(("since", "until"), moments, strict=True)
        )
        first, through, count = self._data.usable(self._scored, low, high)
        held = min(round(count * held_out), MOST_HELD_OUT)
        learned = count - held
        if held < 2 or learned < 2:
            raise BadData(
                "decisions",
                f"got {count} of {self._data.key} by {', '.join(self._scored)}; expected enough to "
                "learn from some and to score others",
            )
        tried = min(learned, MOST_TRIED)

        def seq(offset: int) -> int:
            return self._data.seq_at(self._scored, low, high, offset)

        cut = seq(learned - 1)
        return _Span(
            after=first - 1,
            tried=seq(learned - tried) - 1,
            chosen=seq(learned - 1 - round(tried * TRIED_SHARE)),
            cut=cut,
            through=through,
            learned=learned,
            until=self._data.decided_after(cut),
        )

    def _rows(self, after: int, through: int) -> Generator[LoggedDecision, None, None]:
        goal, published = self._data.judged.goal, self._data.published
        for logged in self._data.between(after, through, unread=UNREAD):
            decision = logged.decision
            if decision.reason != "policy":
                self._left_out[decision.reason] += 1
            elif self._named is not None and decision.variant not in self._named:
                self._left_out["other variants"] += 1
            elif not goal.is_mature(decision.decided_at, published):
                self._left_out["immature"] += 1
            else:
                yield logged

    # Learning

    def _choose(self, setups: list[_Setup], span: _Span) -> tuple[_Setup, dict[str, float]]:
        """The setup of the highest lower bound of how much more it earns than the first, on the
        last part of what is to be learned from; and these bounds.
        """
        # Closed at once: DuckDB gives one answer at a time.
        with closing(self._rows(span.tried, span.cut)) as rows:
            sample = list(islice(rows, _CHUNK))
        if all(abs(_weight(logged) - 1.0) < 1e-9 for logged in sample):
            # Who chose evenly left nothing to weigh.
            setups = [setup for setup in setups if not setup.weighted]
        if len(setups) == 1:
            return setups[0], {}
        learners: dict[tuple[int, bool], tuple[CompiledExperiment, _Setup]] = {}
        for setup in setups:
            if setup.weighted not in {one.weighted for _, one in learners.values()}:
                compiled = CompiledExperiment(setup.experiment, self._data.tables)
                learners[len(learners), setup.weighted] = compiled, setup
        own = list(learners.values())
        targets = []
        model: list[LoggedDecision] = []
        taught = self._learn(own, span, span.tried, span.chosen, keep=model)
        if not all(taught):
            return setups[0], {}
        for setup in setups:
            (compiled, first), *_ = [each for each in own if each[1].weighted == setup.weighted]
            other = compiled
            if setup is not first:
                # The same state, under other parameters.
                other = CompiledExperiment(setup.experiment, self._data.tables)
                state = compiled.policies[first.variant.name].dump()
                other.policies[setup.variant.name].load(state)
            targets.append(self._frozen(other, setup))
        scored = HeldOutPass(self._data, targets, self._scored)
        scored.teach(model)
        self._score(scored, span.chosen, span.cut)
        if not scored.decisions:
            return setups[0], {}
        name = _estimator(scored)
        _, _, differences = compare_targets(
            scored, (name,), EvaluationOptions(0.3173, "normal", None)
        )
        tried = {setups[0].name: 0.0}
        for setup, target in zip(setups[1:], targets[1:], strict=True):
            # At one standard error below: a log that is thin there must be convincing.
            e = differences[PairOfNames(target.name, targets[0].name)][name]
            if e.low is not None:
                tried[setup.name] = e.low
        best = max(tried, key=lambda one: tried[one])
        return next(setup for setup in setups if setup.name == best), tried

    def _frozen(self, compiled: CompiledExperiment, setup: _Setup) -> FrozenPolicy:
        data = self._data
        return FrozenPolicy(compiled, setup.variant.name, data.offers, data.tables, setup.name)

    def _learn(
        self,
        learners: Sequence[tuple[CompiledExperiment, _Setup]],
        span: _Span,
        after: int,
        through: int,
        model: HeldOutPass | None = None,
        keep: list[LoggedDecision] | None = None,
    ) -> list[int]:
        """How many decisions each learned, in the order of the log; the last ones teach the reward
        model too.
        """
        rows = self._rows(after, through)
        learned = [0 for _ in learners]
        seen = 0
        modelled: list[LoggedDecision] = []
        while chunk := list(islice(rows, _CHUNK)):
            seen += len(chunk)
            for place, (compiled, setup) in enumerate(learners):
                learned[place] += _teach(compiled, setup, chunk)
            if keep is not None:
                keep += chunk
            if model is not None and seen > span.learned - MOST_MODELLED:
                modelled += chunk
                if len(modelled) >= _READ:
                    model.teach(modelled)
                    modelled = []
            self._tell(len(chunk), span)
        if model is not None and modelled:
            model.teach(modelled)
        return learned

    def _score(self, scored: HeldOutPass, after: int, through: int) -> None:
        for logged in self._data.between(after, through):
            scored.take(logged)
        scored.finish()

    def _tell(self, done: int, span: _Span) -> None:
        self._done += done
        if self._progress is not None:
            self._progress(min(self._done, span.learned), span.learned)

    # Certificates

    def _certificate(self, scored: ProgressivePass) -> Certificate:
        if not scored.decisions:
            immature = bool(scored.left_out["immature"])
            reason = "rewards_immature" if immature else "too_few_units"
            return Certificate(None, None, None, False, reason, alpha=self._alpha)
        name = _estimator(scored)
        options = EvaluationOptions(2.0 * self._alpha, "normal", None)
        logged, by_target, differences = compare_targets(scored, (name,), options)
        ((target, estimates),) = by_target.items()
        difference = differences[PairOfNames(target, THE_LOG)][name]
        return self._judged(scored, logged, estimates[name], difference)

    def _judged(
        self, scored: ProgressivePass, logged: Estimate, value: Estimate, difference: Estimate
    ) -> Certificate:
        own_units = self._data.judged.goal.own_units
        shift, factor = 0.0, 1.0
        if own_units is not None:
            shift, factor = own_units.floor * scored.items_per_decision, own_units.range
        logged, value = logged.rescaled(shift, factor), value.rescaled(shift, factor)
        difference = difference.rescaled(0.0, factor)
        reason = value.reason or difference.reason
        low = None
        if reason is None and logged.value is not None and difference.low is not None:
            least, _ = self._data.judged.goal.range_of_sum(scored.items_per_decision)
            # No policy earns less than the least that there is.
            low = max(logged.value + difference.low, least)
            reason = None if difference.low > 0.0 else "gain_undecided"
        d = value.diagnostics
        return Certificate(
            value=value.value if low is not None else None,
            low=low,
            logger=logged.value,
            certified=reason is None,
            reason=reason,
            estimator=value.estimator,
            se=difference.se if low is not None else None,
            decisions=scored.decisions,
            units=d.units,
            ess=d.ess,
            alpha=self._alpha,
            warnings=d.warnings,
        )

    def _segments(self, scored: HeldOutPass, features: Sequence[Feature]) -> tuple[Segment, ...]:
        segments = []
        for feature in features:
            values = np.array(scored.segments[feature.name], dtype=object)
            names = sorted(set(values.tolist()))
            # One that is all of them says nothing of its own.
            for value in names if len(names) > 1 else ():
                part = scored.part(values == value)
                segments.append(Segment(feature.name, value, self._certificate(part)))
        return tuple(segments)


def _estimator(scored: ProgressivePass) -> str:
    """The estimator of certificates: unbiased whatever the reward model is."""
    return "cascade-dr" if scored.ranking else "dr"


def _weight(logged: LoggedDecision) -> float:
    """How much likelier chance would have been to show what was shown first, 1 ÷ (p · K)."""
    decision = logged.decision
    if not decision.slate:
        return 1.0
    p = decision.slate[0].propensity
    return min(1.0 / (p * len(decision.eligible)), LARGEST_WEIGHT)


def _teach(compiled: CompiledExperiment, setup: _Setup, chunk: Sequence[LoggedDecision]) -> int:
    """How many of these decisions taught the policy something."""
    name = setup.variant.name
    lessons = []
    for logged in chunk:
        # Whoever decided it, it teaches this one.
        decision = msgspec.structs.replace(logged.decision, variant=name)
        times = 1
        if setup.weighted:
            # A weight as a number of times, right on average: policies know no weights.
            weight = _weight(logged)
            times = int(weight + uniform("weight", decision.decision_id))
        lessons += [(decision, logged.events)] * times
    return teach(compiled, lessons)


def _trained(
    log: str,
    setup: _Setup,
    compiled: CompiledExperiment,
    learned: int,
    span: _Span,
    certificate: Certificate,
) -> TrainedPolicy:
    own = compiled.policies[setup.variant.name]
    features = setup.experiment.in_learning_order
    defaults = type(setup.variant.params)()
    params = {
        name: value
        for name, value in msgspec.to_builtins(setup.variant.params).items()
        if value != msgspec.to_builtins(getattr(defaults, name, None))
    }
    return TrainedPolicy(
        kind=setup.variant.policy,
        params=params,
        context=features.context,
        action_features=features.action_features,
        engine=engine_of(own) or "",
        log=log,
        decisions=learned,
        through=span.cut,
        until=span.until,
        certificate=certificate.as_dict(),
        state=own.dump(),
    )


def _segment_features(experiment: Experiment, by: Sequence[str] | None) -> list[Feature]:
    """The features whose values are segments. Raises BadRequest for a name that is none of them."""
    able = [f for f in experiment.context if f.kind in ("category", "flag")]
    if by is None:
        return [f for f in able if len(f.values) <= MOST_SEGMENTS]
    names = {feature.name: feature for feature in able}
    for name in by:
        if name not in names:
            hint = nearest(name, names)
            raise BadRequest(
                "by",
                f"got {name!r}; expected categories or flags of the context "
                f"({listed(names) or 'it has none'})" + f"; {hint}" * bool(hint),
            )
    return [names[name] for name in by]


# What may be trained


def _setups(policy: str | Path | Experiment, variant: str | None, data: LoggedData) -> list[_Setup]:
    """The policy, and what may be tried in its place, the most careful first."""
    if isinstance(policy, str) and (policy in KINDS or policy in own_kinds()):
        if variant is not None:
            raise BadRequest("variant", f"got {variant!r} of kind {policy}; expected a file's")
        return _of_kind(policy, data)
    if isinstance(policy, str | Path):
        path = Path(policy)
        if "@" in str(policy) and not path.exists():
            text, _, variant = str(policy).rpartition("@")
            path = Path(text)
        if not path.exists():
            kinds = [*KINDS, *own_kinds()]
            hint = nearest(str(policy), kinds)
            raise NotFound(
                f"{path}: no such file, and no kind of policy; expected an experiment's file or "
                f"one of {', '.join(kinds)}" + f"; {hint}" * bool(hint)
            )
        policy = load(path)
    return _of_file(policy, variant, data)


def _of_kind(kind: str, data: LoggedData) -> list[_Setup]:
    logged = data.experiment
    params_type = policy_class(kind).Params
    try:
        own = params_type()
    except (TypeError, ValueError) as error:
        raise BadRequest(
            "policy",
            f"got {kind}, which needs parameters ({error}); expected a file that says them",
        ) from error
    named: list[tuple[str, msgspec.Struct]] = []
    fields = {one.name: one for one in msgspec.structs.fields(params_type)}
    if "alpha" in fields:
        for value in CAREFUL:
            try:
                params = msgspec.convert({"alpha": value}, params_type)
            except msgspec.ValidationError:
                continue  # a package's own may have other bounds
            named.append((f" with alpha {value:g}", params))
    named.append(("", own))
    least = default_min_probability(kind, len(logged.actions))
    setups = []
    for weighted in (False, True):
        for suffix, params in named:
            variant = Variant(kind, kind, params, 1.0, control=True, min_probability=least)
            experiment = replace(
                logged, variants=(variant,), launch=None, former=None, conclusion=None, overrides=()
            )
            name = kind + suffix + " weighted" * weighted
            setups.append(_Setup(_learning(experiment), variant, weighted, name))
    return setups


def _of_file(experiment: Experiment, variant: str | None, data: LoggedData) -> list[_Setup]:
    by_name = {one.name: one for one in experiment.variants}
    source = experiment.source or experiment.key
    if variant is None:
        compiled = CompiledExperiment(experiment)
        able = [name for name, policy in compiled.policies.items() if learns(policy)]
        if len(able) != 1:
            got = "several that learn" if able else "none that learns"
            raise BadRequest(
                "policy",
                f"got {source} with {got} ({listed(able or list(by_name))}); expected one: "
                f"{source}@{(able or list(by_name))[0]}",
            )
        variant = able[0]
    if variant not in by_name:
        hint = nearest(variant, by_name)
        raise NotFound(
            f"{source}: no variant {variant!r}; expected {', '.join(by_name)}"
            + f"; {hint}" * bool(hint)
        )
    if "click_model" not in experiment.raw:
        experiment = replace(experiment, click_model=data.experiment.click_model)
    own = by_name[variant]
    # The certificate is of this one alone, whoever it was to be compared with.
    alone = replace(own, control=True)
    experiment = replace(experiment, variants=(alone,), launch=None, conclusion=None, overrides=())
    setups = []
    for weighted in (False, True):
        name = f"{experiment.key}/{variant}" + " weighted" * weighted
        setups.append(_Setup(_learning(experiment), alone, weighted, name))
    return setups


def _learning(experiment: Experiment) -> Experiment:
    """The experiment, if its one variant learns. Raises BadRequest for one that does not."""
    (variant,) = experiment.variants
    (policy,) = CompiledExperiment(experiment).policies.values()
    if not learns(policy):
        raise BadRequest(
            "policy",
            f"got {variant.policy}, which learns nothing; expected one that does, such as auto",
        )
    return experiment
