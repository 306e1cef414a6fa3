"""What may be evaluated: a variant of an experiment file, a stored snapshot, uniform, "always X", a
Python callable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec
import numpy as np

from topbill.domain.chance import hash64
from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.records import (
    NULL,
    Actions,
    Decision,
    Floats,
    Indices,
    RewardEvent,
    Snapshot,
)
from topbill.domain.slate import choices, distribution, shifted, tilted
from topbill.domain.suggestion import nearest
from topbill.engine import CompiledExperiment, examples, logged_actions
from topbill.entities import NO_TABLES, EntityStore, MissingVersion
from topbill.ope.inputs import vector
from topbill.ope.replay.logged_data import LoggedData, Offers, weight_of
from topbill.ope.replay.shadows import ShadowPolicy
from topbill.policies.registry import KINDS
from topbill.spec import Experiment, Variant, load

Chooser: TypeAlias = Callable[[Mapping[str, Any], Sequence[str]], Any]
"""A policy as a function: from context and the actions that remain to their probabilities, in that
order.
"""


@runtime_checkable
class TargetPolicy(Protocol):
    """A policy to evaluate."""

    name: str
    reward_delay: float | None
    """Seconds after which a decision may teach it; None for a policy that does not learn here."""
    since: int
    """Only decisions with a greater `seq` may be scored: it learned from the others."""

    def probabilities(self, decision: Decision) -> list[Floats]:
        """For each position of the logged slate, the probabilities (len(eligible)) that this policy
        would have given, given the logged items above; 0 for those. What they lack to 1 goes to
        actions that nobody could be shown. Raises BadData or BadRequest for what it cannot decide
        about."""
        ...

    def learn(self, decision: Decision, events: Sequence[RewardEvent]) -> None:
        """Take in one matured decision of the log."""
        ...


@dataclass(frozen=True)
class VariantOf:
    """One variant of an experiment, as a candidate beside others of the same file."""

    experiment: Experiment
    variant: str


Policy: TypeAlias = str | Path | Experiment | VariantOf | Chooser | TargetPolicy
"""What names targets: see `resolve`."""


class FunctionPolicy:
    """Uniform, "always X" and callables: nothing is learned, each position is asked for with what
    remains.
    """

    reward_delay: float | None = None
    since = 0

    def __init__(self, name: str, choose: Chooser, *notes: str) -> None:
        self.name, self._choose, self.notes = name, choose, notes

    def probabilities(self, decision: Decision) -> list[Floats]:
        context = msgspec.json.decode(decision.context)

        def over(candidates: Indices) -> Floats:
            names = [decision.eligible[i] for i in candidates]
            return _checked(self._choose(context, names), names)

        return _by_position(decision, over)

    def learn(self, decision: Decision, events: Sequence[RewardEvent]) -> None:
        """Nothing."""


def _checked(answer: Any, names: Sequence[str]) -> Floats:
    """What a callable answered, as a distribution over the actions of these names: in their order,
    or by name, as a mapping or a pandas object whose index are names.
    """
    if hasattr(answer, "iloc") and hasattr(answer, "to_dict") and set(answer.index) & {*names}:
        answer = answer.to_dict()
    if isinstance(answer, Mapping):
        unknown = [str(name) for name in answer if name not in names]
        if unknown:
            hint = nearest(unknown[0], names)
            raise BadData(
                "policy",
                f"got a probability for {unknown[0]!r}; expected some of {_some(names)}"
                + f"; {hint}" * bool(hint),
            )
        answer = [answer.get(name, 0.0) for name in names]
    try:
        p = vector("policy", np.asarray(answer, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise BadData(
            "policy", f"got {type(answer).__name__}; expected a probability for each action"
        ) from error
    actions = len(names)
    if p.shape != (actions,):
        raise BadData(
            "policy", f"got {p.shape} probabilities; expected {actions}, one for each action"
        )
    if not (np.all(p >= 0) and abs(float(p.sum()) - 1.0) <= 1e-6):
        raise BadData(
            "policy",
            f"got probabilities that sum to {p.sum():g}; expected none below 0 and sum 1",
        )
    return p


class VariantPolicy:
    """A variant's policy: learning from the log as it goes, or frozen as a snapshot has it.

    Its file's actions that the log had not (see `Offers`) are offered to it beside those of each
    decision: what it would show of them is not the answer of the next one.
    """

    def __init__(
        self,
        experiment: Experiment,
        variant: str,
        offers: Offers,
        snapshot: Snapshot | None = None,
        tables: EntityStore = NO_TABLES,
    ) -> None:
        self._compiled = CompiledExperiment(experiment, tables)
        by_name = {v.name: v for v in experiment.variants}
        if variant not in by_name:
            raise NotFound(
                f"{experiment.source or experiment.key}: no variant {variant!r}; expected "
                f"{', '.join(by_name)}"
            )
        self._variant = by_name[variant]
        self._unseen = _never_seen(self._compiled, self._variant, offers)
        self._weighted = 0
        self._notes: tuple[str, ...] = ()
        if self._unseen.ids:
            hint = nearest(self._unseen.ids[0], offers.counts)
            asks = f" ({hint})" if hint else ""
            self._notes = (f"the log never offered {_some(self._unseen.ids)}{asks}",)
        self.name = f"{experiment.key}/{variant}"
        self.reward_delay: float | None = experiment.reward_delay
        self.since = 0
        if snapshot is not None:
            if not self._compiled.adopt(snapshot):
                raise BadRequest(
                    "policy",
                    f"snapshot {snapshot.version} is of other features, metrics or policies",
                )
            self.name += f" v{snapshot.version}"
            # It learned what is before its watermark and learns nothing more: what comes after is
            # new to it, and only that may judge it.
            self.reward_delay, self.since = None, snapshot.watermark

    def probabilities(self, decision: Decision) -> list[Floats]:
        compiled, variant = self._compiled, self._variant
        x = self.encoded(decision)
        actions = self._offered(decision)
        row_of = {action: row for row, action in enumerate(actions.ids)}
        unknown = [action for action in decision.eligible if action not in row_of]
        if unknown:
            raise BadData(
                "policy",
                f"got unknown action {unknown[0]!r}; expected one of {', '.join(actions.ids[:8])}",
            )
        rows = np.array([row_of[action] for action in decision.eligible], dtype=np.intp)
        unseen = np.array([row_of[action] for action in self._unseen.ids], dtype=np.intp)
        # Sampled once per decision, as when serving: positions share one draw of the parameters.
        scored = compiled.policies[variant.name].score(x, actions, hash64(decision.decision_id))
        none = unseen[:0]
        positions = []
        for k, candidates in enumerate(remaining(decision)):
            # Where rules let only some actions stand, another one could not.
            others = none if _narrowed(decision, k) else unseen
            together = np.concatenate([rows[candidates], others])
            now = scored
            if decision.terms is not None:
                # What editors add to scores they add to this policy's too.
                by = np.zeros(len(actions.ids))
                by[rows] = decision.terms.at(k, len(rows))
                now = shifted(scored, by)
            p = distribution(now, together, variant.min_probability)
            probabilities = np.zeros(len(decision.eligible))
            probabilities[candidates] = p[: candidates.size]
            positions.append(probabilities)
        return positions

    def encoded(self, decision: Decision) -> Floats:
        """(d,) the context as its experiment encodes it. Raises BadRequest where it cannot."""
        return self._compiled.encoder.encode(msgspec.json.decode(decision.context))

    def _offered(self, decision: Decision) -> Actions:
        """What the decision offered, and the file's own that the log had not."""
        actions = logged_actions(self._compiled, decision)
        if decision.actions == NULL or not self._unseen.ids:
            return actions
        lookup = self._compiled.lookup
        # With what the tables said of them when it was decided.
        unseen, _ = lookup.own_actions(self._unseen, lookup.of_actions_at(decision.entities))
        return Actions(
            (*actions.ids, *unseen.ids), np.concatenate([actions.features, unseen.features])
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be known beside its numbers, so far."""
        if not self._weighted:
            return self._notes
        once = (
            f"{self._weighted:,} of the decisions that it learned from stand for several "
            "(row_weight), and taught it once each"
        )
        return (*self._notes, once)

    def learn(self, decision: Decision, events: Sequence[RewardEvent]) -> None:
        # Policies have no weights of examples; what was learned otherwise than it happened is told.
        self._weighted += weight_of(decision) != 1.0
        policy = self._compiled.policies[self._variant.name]
        try:
            policy.update(list(examples(self._compiled, decision, events)))
        except MissingVersion:
            return  # not scored either, which is counted


def _never_seen(compiled: CompiledExperiment, variant: Variant, offers: Offers) -> Actions:
    """The actions that the candidate knows and the log never offered: of its file, or, where
    requests bring the actions, of a fixed order.
    """
    known = compiled.actions
    if not known.ids:
        ordered = tuple(dict.fromkeys(getattr(variant.params, "order", ())))
        known = Actions(ordered, np.zeros((len(ordered), compiled.action_encoder.size)))
    return known.take([row for row, name in enumerate(known.ids) if not offers.has(name)])


def _narrowed(decision: Decision, position: int) -> bool:
    """Whether a rule says which actions alone may stand there, as a pin does."""
    return any(mask.only and mask.start <= position < mask.stop for mask in decision.masks)


def _by_position(decision: Decision, over: Callable[[Indices], Floats]) -> list[Floats]:
    """Position by position: ask for what could be drawn there below the logged items, under the
    decision's rules, and with what was added to scores there.
    """
    size = len(decision.eligible)
    positions = []
    for k, candidates in enumerate(remaining(decision)):
        probabilities = np.zeros(size)
        p = over(candidates)
        if decision.terms is not None:
            p = tilted(p, decision.terms.at(k, size)[candidates])
        probabilities[candidates] = p
        positions.append(probabilities)
    return positions


def remaining(decision: Decision) -> Iterator[Indices]:
    """For each position of the logged slate, which of the eligible could be drawn there below the
    logged items.
    """
    size = len(decision.eligible)
    above: list[int] = []
    for k, placement in enumerate(decision.slate):
        yield choices(decision.masks, size, k, above)
        above.append(decision.eligible.index(placement.action))


def uniform() -> TargetPolicy:
    """Every action that remains is equally likely."""
    return FunctionPolicy("uniform", lambda _context, names: np.full(len(names), 1.0 / len(names)))


def always(action: str, offers: Offers) -> TargetPolicy:
    """`action` wherever it may be shown, else (and below it) every other one with equal chance.

    Raises BadData where the log never offered it: the answer would be that of chance.
    """
    count = offers.counts.get(action, 0)
    if not count:
        raise _never_offered(action, offers)

    def choose(_context: Mapping[str, Any], names: Sequence[str]) -> Floats:
        if action in names:
            return np.array([float(name == action) for name in names])
        return np.full(len(names), 1.0 / len(names))

    notes = []
    if count < offers.decisions:
        notes.append(
            f"{action} was offered in {count:,} of {offers.decisions:,} decisions; in the others "
            "each action has the same chance"
        )
    return FunctionPolicy(f"always {action}", choose, *notes)


def _never_offered(action: str, offers: Offers) -> BadData:
    names = list(offers.counts)
    hint = nearest(action, names)
    return BadData(
        "policy",
        f"got unknown action {action!r}; expected one of {_some(names)}; "
        f"it was offered in none of {offers.decisions:,} decisions" + f"; {hint}" * bool(hint),
    )


def _some(names: Sequence[str]) -> str:
    """The first eight names."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def resolve(
    policy: Policy,
    *,
    variant: str | None,
    data: LoggedData,
    snapshot: Callable[[int | None], Snapshot | None],
) -> list[TargetPolicy]:
    """The targets that `policy` names.

    An experiment or its file gives one for each variant (or `variant`, or the one that stands
    behind an @, as in `other.yaml@greedy`); "snapshot" (or "snapshot:VERSION") the stored policies
    of the evaluated experiment; "shadow" its variants by what they logged unseen; "uniform" and
    "always X" what they say.

    Args:
        policy: what to resolve.
        variant: the only variant to take; None takes all.
        data: the log that is evaluated.
        snapshot: gives the stored state of a version, or the latest for None.

    Raises:
        NotFound: for a file, variant or snapshot that is not there.
        BadData: for an action that the log did not offer.
        BadRequest: for what names no policy.
        SpecError: for a file that is no experiment.
    """
    if isinstance(policy, str) and policy:
        return _named(policy, variant, data, snapshot)
    if isinstance(policy, Path):
        return _of_file(policy, variant, data)
    if isinstance(policy, Experiment):
        return _of_experiment(policy, variant, data)
    if isinstance(policy, VariantOf):
        return _of_experiment(policy.experiment, policy.variant, data)
    # A target may be callable too, so what it can do is asked before what it is.
    if isinstance(policy, TargetPolicy):
        return [policy]
    if callable(policy):
        return [FunctionPolicy(getattr(policy, "__name__", "callable"), policy)]
    raise BadRequest(
        "policy",
        f"got {policy!r}; expected a file, an experiment, a callable, uniform or 'always ACTION'",
    )


def _named(
    text: str,
    variant: str | None,
    data: LoggedData,
    snapshot: Callable[[int | None], Snapshot | None],
) -> list[TargetPolicy]:
    if text == "uniform":
        return [uniform()]
    if text.startswith(("always ", "always:")):
        return [always(text[len("always ") :].strip(), data.offers)]
    if "@" in text and not Path(text).exists():
        text, _, variant = text.rpartition("@")
    if text == "shadow":
        return _in_shadow(variant, data)
    word, _, version = text.partition(":")
    if word == "snapshot":
        return _of_snapshot(text, version, variant, data, snapshot)
    return _of_file(Path(text), variant, data)


def _of_snapshot(
    text: str,
    version: str,
    variant: str | None,
    data: LoggedData,
    snapshot: Callable[[int | None], Snapshot | None],
) -> list[TargetPolicy]:
    if version and not version.isdigit():
        raise BadRequest("policy", f"got {text!r}; expected snapshot:VERSION, as snapshot:3")
    stored = snapshot(int(version) if version else None)
    if stored is None:
        which = f"no policy version {version}" if version else "no policy version in the log yet"
        raise NotFound(f"{data.key}: {which}; start `topbill worker` and send rewards")
    names = [variant] if variant else list(stored.states)
    return [
        VariantPolicy(data.experiment, name, data.offers, stored, data.tables) for name in names
    ]


def _in_shadow(variant: str | None, data: LoggedData) -> list[TargetPolicy]:
    names = data.shadows
    if not names:
        raise NotFound(f"{data.key}: no variant was in shadow; expected one with launch: shadow")
    if variant is not None and variant not in names:
        raise NotFound(f"{data.key}: {variant!r} was not in shadow; expected {', '.join(names)}")
    return [ShadowPolicy(data.key, name) for name in names if variant in (None, name)]


def _hint(word: str) -> str:
    """Of a kind of policy, and of what is nearly one of the words: what to write instead."""
    if word in KINDS:
        return f"; a variant of {word} in a file is FILE@VARIANT"
    hint = nearest(word, ("uniform", "snapshot", "shadow", *KINDS))
    return f"; {hint}" if hint else ""


def _of_file(path: Path, variant: str | None, data: LoggedData) -> list[TargetPolicy]:
    if not path.exists():
        raise NotFound(
            f"{path}: no such file; expected an experiment file, uniform, 'always ACTION' or "
            f"snapshot{_hint(str(path))}"
        )
    return _of_experiment(load(path), variant, data)


def _of_experiment(
    experiment: Experiment, variant: str | None, data: LoggedData
) -> list[TargetPolicy]:
    names = [variant] if variant else [v.name for v in experiment.variants]
    if "click_model" not in experiment.raw:
        # At what viewers looked is of the log, and on pages said in the page's file.
        experiment = replace(experiment, click_model=data.experiment.click_model)
    return [VariantPolicy(experiment, name, data.offers, tables=data.tables) for name in names]
