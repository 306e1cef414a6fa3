"""Vowpal Wabbit's contextual bandits with action-dependent features, any exploration of
`--cb_explore_adf`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec
import numpy as np

from topbill.domain.chance import draws_of
from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.domain.slate import Slate, SlatesRequest, rank
from topbill.policies import codec
from topbill.policies.vw.engine import VwEngine, engine
from topbill.policies.vw.learner import VwLearner
from topbill.policies.vw.model_file import DIGEST_SIZE, digest
from topbill.policies.vw.options import AMONG_FEW, AMONG_MANY, FEW_ACTIONS, RARELY, VWParams

_FEW = 24
"""Positions times actions of decisions that are predicted for together: some 30 µs each."""
TOLERANCE = 1e-2
"""How far probabilities, and weights in units of the largest, of one state may lie apart between
builds of VW."""
_PROBES = 200
"""Contexts in which two states are compared."""
RARE = 0.2
"""Below it rewards are rare: twice what a choice among ten classes earns by chance, and more than
what 5% of clicks become."""
_BEFORE = (100.0, 50.0, 0.0)
"""Examples that count as learned before the first one, and their rewards: some 250 say that rewards
are rare, and till then who learns fast from common ones has learned. The third are all rewards."""
_MEMORY = 0.998
"""What an example leaves of the count of those before it: where rewards become rare, that is soon
seen."""
_EARLY, _MOST_EARLY = 2.0, 0.5
"""Where rewards are rare chance alone decides in a share of `_EARLY` ÷ (1 + all rewards), at most
`_MOST_EARLY`: a few dozen rewards do not tell which action is best in which context, and 3% of
chance bring what would contradict them only after thousands of decisions."""
_REWARDS = "rewards"
"""What a state calls how many examples there were, what they earned, and what all ever earned."""


class _Scored:
    __slots__ = ("_actions", "_policy", "_x")
    mean: Floats | None = None
    width: Floats | None = None

    def __init__(self, policy: VW, x: Floats, actions: Actions) -> None:
        self._policy, self._x, self._actions = policy, x, actions

    def probabilities(self, remaining: Indices) -> Floats:
        return self._policy.predict(self._x, self._actions, remaining)


class VW:
    """Vowpal Wabbit (Agarwal et al. 2014; Bietti, Agarwal and Langford 2021) as a policy.

    One learner of VW, or, where the parameters name no exploration, several side by side that all
    learn everything; which of them decides follows from how rare rewards are, and among how many
    actions. `bag`, `cover` and `rnd` draw random numbers while they learn, whose state VW does not
    save: restored in mid-stream they go on from equal weights, but not to equal ones.
    """

    kind: ClassVar[str] = "vw"
    Params: ClassVar[type[msgspec.Struct]] = VWParams
    deterministic: ClassVar[bool] = False
    default_spread: ClassVar[float] = 0.0

    @staticmethod
    def own_spread(params: VWParams) -> float:
        """The uniform share of its exploration."""
        return params.uniform_share

    def __init__(
        self,
        params: VWParams,
        *,
        context_size: int,
        action_size: int,
        seed: int = 0,
        build: VwEngine | None = None,
    ) -> None:
        self.params = params
        self.d, self.da = context_size, action_size
        self._engine = engine() if build is None else build
        self.learners = {}
        for name, setting in params.settings(context_size).items():
            self.learners[name] = VwLearner(setting, self._engine, context_size, action_size, seed)
        self._rewards = np.array(_BEFORE)

    def continue_from(self, model: bytes, names: tuple[Sequence[str], Sequence[str]]) -> None:
        """Go on with a model that VW wrote elsewhere, with the options that it carries: see
        `VwLearner.continue_from`.
        """
        name, learner = next(iter(self.learners.items()))
        learner = VwLearner(self.params, self._engine, self.d, self.da, seed=0)
        learner.continue_from(model, names)
        self.learners = {name: learner}

    @property
    def engine(self) -> str:
        """Package and version of what decides and learns."""
        return self._engine.name

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:  # noqa: ARG002
        return _Scored(self, x, actions)

    def slates(self, xs: Floats, actions: Actions, request: SlatesRequest) -> list[Slate] | None:
        """What `rank` draws of each context (n × d). VW predicts for one after the other; what else
        a decision takes is there once for all. None where all together would take so long that
        somebody should look at the clock meanwhile.
        """
        eligible, slots, least = request.eligible, request.slots, request.least
        if slots * len(eligible) > _FEW:
            return None
        slates = []
        for decision_id, x in zip(request.decision_ids, xs, strict=True):
            scored = _Scored(self, x, actions)
            slates.append(rank(scored, eligible, slots, least, draws_of(decision_id)))
        return slates

    def acting(self, candidates: int) -> VwLearner:
        """The learner that decides among so many actions."""
        if len(self.learners) == 1:
            return next(iter(self.learners.values()))
        if self._rewards[1] < RARE * self._rewards[0]:
            return self.learners[RARELY]
        return self.learners[AMONG_FEW if candidates <= FEW_ACTIONS else AMONG_MANY]

    def predict(self, x: Floats, actions: Actions, remaining: Indices) -> Floats:
        """(len(remaining),) the probabilities over those actions."""
        learner = self.acting(len(actions))
        p = learner.predict(x, actions, remaining)
        # One that was asked for, or is another's model, explores as it is told.
        if len(self.learners) == 1 or learner is not self.learners[RARELY]:
            return p
        share = min(_MOST_EARLY, _EARLY / (1.0 + float(self._rewards[2])))
        return (1.0 - share) * p + share / len(p)

    def update(self, examples: Sequence[Example]) -> None:
        # Each is put together when it is asked for, and here several learners do.
        examples = list(examples)
        for learner in self.learners.values():
            learner.learn(examples)
        count, total, earned = self._rewards.tolist()
        for example in examples:
            count = _MEMORY * count + 1.0
            total = _MEMORY * total + example.reward
            earned += example.reward
        self._rewards = np.array([count, total, earned])

    def dump(self) -> bytes:
        commands = [" ".join(learner.command) for learner in self.learners.values()]
        models = [learner.model() for learner in self.learners.values()]
        if len(models) == 1:
            return codec.dump(self.kind, ids=commands, raw=digest(models[0]) + models[0])
        packed = msgspec.msgpack.encode(models)
        arrays = {_REWARDS: self._rewards}
        return codec.dump(self.kind, ids=commands, arrays=arrays, raw=digest(packed) + packed)

    def load(self, blob: bytes) -> None:
        models, rewards = self._models(blob)
        for learner, model in zip(self.learners.values(), models, strict=True):
            learner.restore(model)
        self._rewards = rewards

    def _models(self, blob: bytes) -> tuple[list[bytes], Floats]:
        """Each learner's file in a state, and what was earned. PolicyError where it is not one that
        was written here.
        """
        state = codec.load(
            self.kind, blob, arrays={}, numbers=(), optional={_REWARDS: (len(_BEFORE),)}
        )
        said, packed = state.raw[:DIGEST_SIZE], state.raw[DIGEST_SIZE:]
        commands = [" ".join(learner.command) for learner in self.learners.values()]
        # VW may crash on a damaged model, so it never sees one.
        if state.ids != commands or said != digest(packed):
            raise PolicyError(
                f"state of vw: damaged, or made with other options; {codec.LEARN_ANEW}"
            )
        if len(commands) == 1:
            return [packed], self._rewards
        try:
            models = msgspec.msgpack.decode(packed, type=list[bytes])
        except msgspec.DecodeError as error:
            raise PolicyError(f"state of vw: {error}; {codec.LEARN_ANEW}") from error
        rewards = state.arrays.get(_REWARDS)
        if len(models) != len(commands) or rewards is None:
            raise PolicyError(f"state of vw: {len(models)} models; {codec.LEARN_ANEW}")
        return models, rewards

    def difference(self, one: bytes, other: bytes, actions: Actions) -> str:
        """What differs between two states, by what they predict and weigh; "" for nothing.

        VW's own counters are no part of it: a state that was stored and loaded again counts
        otherwise, and decides the same. Another build of VW adds up in another order, so that
        numbers may differ by `TOLERANCE`.

        Args:
            one: A state of this policy.
            other: Another.
            actions: What predictions are compared over, in contexts drawn at random; some of no
                meaning where there are none.
        """
        models, rewards = self._models(one)
        others, other_rewards = self._models(other)
        if not np.array_equal(rewards, other_rewards):
            return f"rewards {rewards[1]:g} of {rewards[0]:g}, and {other_rewards[1]:g}"
        for learner, model, another in zip(self.learners.values(), models, others, strict=True):
            different = _difference(learner.other(model), learner.other(another), actions)
            if different:
                return different
        return ""

    @property
    def reproducible(self) -> bool:
        """Whether a state that was stored and loaded in between learns to the same weights."""
        return all(learner.reproducible for learner in self.learners.values())

    def explain(
        self,
        x: Floats,  # noqa: ARG002
        actions: Actions,
        names: tuple[Sequence[str], Sequence[str]],  # noqa: ARG002
    ) -> list[dict[str, float]]:
        """VW's hashed weights have no names."""
        return [{} for _ in actions.ids]


def _difference(one: VwLearner, other: VwLearner, actions: Actions) -> str:
    """What differs between two learners; "" for nothing."""
    different = _different_weights(one.workspace.weights(), other.workspace.weights())
    if different:
        return f"{different:,} weights differ"
    largest = 0.0
    rng = np.random.default_rng(0)
    if not len(actions):
        actions = Actions(("a", "b", "c"), rng.normal(size=(3, one.da)))
    everything = np.arange(len(actions))
    for _ in range(_PROBES):
        x = rng.normal(size=one.d)
        p, q = (learner.predict(x, actions, everything) for learner in (one, other))
        largest = max(largest, float(np.abs(p - q).max()))
    return f"probabilities differ by up to {largest:.2g}" if largest > TOLERANCE else ""


def _different_weights(one: dict[int, list[float]], other: dict[int, list[float]]) -> int:
    """How many weights lie apart by more than `TOLERANCE` of the largest one."""
    scale = max((abs(values[0]) for values in (*one.values(), *other.values())), default=0.0)
    different = 0
    for index in one.keys() | other.keys():
        # One that is not stored is zero.
        values = one.get(index, [0.0])
        others = other.get(index, [0.0])
        far = abs(values[0] - others[0]) > TOLERANCE * scale
        # What lies beside a weight, for its learning rate, is compared by its own size.
        elsewhere = len(values) != len(others) or not np.allclose(
            values[1:], others[1:], rtol=TOLERANCE
        )
        different += far or elsewhere
    return different
