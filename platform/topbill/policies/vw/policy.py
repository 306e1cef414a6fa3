"""Vowpal Wabbit's contextual bandits with action-dependent features, any exploration of
`--cb_explore_adf`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import copy
from hashlib import blake2b
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from topbill.domain.chance import draws_of, hash64
from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.domain.slate import Slate, SlatesRequest, rank
from topbill.policies import codec
from topbill.policies.vw.engine import Features, Hashes, Values, VwEngine, engine
from topbill.policies.vw.model_file import VwModelFile, feature_hash, read_head, text_name
from topbill.policies.vw.options import EXPLORATIONS, VWParams

_CONTEXT, _ACTION, _FEATURES, _POSITION = (ord(c) for c in "safp")
"""Namespaces, one character each."""
_DIGEST_SIZE = 16
_MOST_EXAMPLES = 20_000
"""Examples of actions that are kept."""
_FEW = 24
"""Positions times actions of decisions that are predicted for together: some 30 µs each."""
_LAST_POSITION = 31
"""Positions from here on count as one."""
TOLERANCE = 1e-2
"""How far probabilities, and weights in units of the largest, of one state may lie apart between
builds of VW."""
_PROBES = 200
"""Contexts in which two states are compared."""
_ONE = np.ones(1, dtype=np.float32)


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

    Context, action id and action features are namespaces s, a and f with the interactions s×a and
    s×f; the position is p. VW minimises costs: rewards are negated here, and only here. A workspace
    is not thread-safe: a lock guards it. Predictions leave the weights alone. `bag`, `cover` and
    `rnd` draw random numbers while they learn, whose state VW does not save: restored in mid-stream
    they go on from equal weights, but not to equal ones.
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
        self._command = params.command(seed)
        self._lock = threading.Lock()
        self._context_hashes = _hashes("s", context_size)
        self._feature_hashes = _hashes("f", action_size)
        # The model of VW's own that this one goes on with.
        self._file: VwModelFile | None = None
        self._open(None)

    def continue_from(self, model: bytes, names: tuple[Sequence[str], Sequence[str]]) -> None:
        """Go on with a model that VW wrote elsewhere, with the options that it carries.

        Its examples were `shared |User device=tv` and `|Action tone=warm`, in VW's text format:
        what is sent from here on are the columns of the context and of the actions under these
        names, in the namespaces that the parameters say, and nothing else: no action's id, and no
        position.

        Args:
            model: The file.
            names: Those of the columns of the context, and of the actions'.

        Raises:
            PolicyError: It is none to go on with.
        """
        self._file = found = read_head(model, "model")
        self._command = ["--initial_regressor", _digest(model).hex()]
        self._context_hashes, self._feature_hashes = (
            np.array(
                [feature_hash(namespace, text_name(name), found) for name in columns],
                dtype=np.uint64,
            )
            for namespace, columns in zip(self._namespaces, names, strict=True)
        )
        with self._lock:
            self._open(model)

    @property
    def _namespaces(self) -> tuple[str, str]:
        """Where a model of VW's own finds the context, and the actions."""
        return self.params.context_namespace, self.params.action_namespace

    @property
    def engine(self) -> str:
        """Package and version of what decides and learns."""
        return self._engine.name

    def _open(self, model: bytes | None) -> None:
        self._workspace = self._engine.open(self._command, model)
        self._blob: bytes | None = None
        # Examples belong to the workspace that they were made for.
        self._by_features: dict[tuple[str, bytes], Any] = {}
        self._by_actions: WeakKeyDictionary[Actions, list[Any]] = WeakKeyDictionary()

    def _encode(self, actions: Actions) -> list[Any]:
        """VW's examples of the actions, built once per Actions object."""
        examples = self._by_actions.get(actions)
        if examples is None:
            features = actions.features.astype(np.float32)
            if features.shape != (len(actions), self.da) or not np.isfinite(features).all():
                raise PolicyError(
                    f"vw: action features must be finite and {(len(actions), self.da)}, "
                    f"got {features.shape}"
                )
            examples = []
            for name, row in zip(actions.ids, features, strict=True):
                examples.append(self._example(name, row))
            self._by_actions[actions] = examples
        return examples

    def _example(self, name: str, row: Values) -> Any:
        """VW's example of one action; candidates recur in ever new sets, so it is kept."""
        key = name, row.tobytes()
        example = self._by_features.get(key)
        if example is None:
            features: dict[int, tuple[Hashes, Values]] = {}
            if self._file is not None:
                features = self._named(1, self._feature_hashes, row)
            else:
                features[_ACTION] = _hash("a", name), _ONE
            if self.da and self._file is None:
                features[_FEATURES] = self._feature_hashes, row
            example = self._workspace.encode(features)
            if len(self._by_features) >= _MOST_EXAMPLES:
                self._by_features.clear()
            self._by_features[key] = example
        return example

    def _shared(self, x: Floats, position: int = 0) -> Features:
        """What actions have in common: the context and, when learning, the position that was not
        the first.
        """
        values = x.astype(np.float32)
        if values.shape != (self.d,) or not _is_finite(values):
            raise PolicyError(f"vw: context must be finite and ({self.d},), got {values.shape}")
        features: Features = {}
        if self._file is not None:
            return self._named(0, self._context_hashes, values)
        if self.d:
            features = {_CONTEXT: (self._context_hashes, values)}
        if position:
            place = np.array([min(position, _LAST_POSITION)], dtype=np.uint64)
            features = {**features, _POSITION: (place, _ONE)}
        return features

    def _named(
        self, which: int, hashes: Hashes, values: Values
    ) -> dict[int, tuple[Hashes, Values]]:
        """Features as a model of VW's own knows them: those that are not 0, as VW's text format
        leaves out what is not there.
        """
        there = np.flatnonzero(values)
        if not len(there):
            return {}
        return {ord(self._namespaces[which][0]): (hashes[there], values[there])}

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

    def predict(self, x: Floats, actions: Actions, remaining: Indices) -> Floats:
        """(len(remaining),) VW's probabilities over those actions, float32 made exact by
        normalising.
        """
        # VW has no rule for a single action, and none is needed.
        if len(remaining) == 1:
            return np.ones(1)
        with self._lock:
            examples = self._encode(actions)
            eligible = [examples[i] for i in remaining.tolist()]
            pairs = self._workspace.predict(self._shared(x), eligible)
        values = [0.0] * len(remaining)
        for place, value in pairs:
            # NaN stays what it is, for the sum to tell.
            if not value <= 0.0:
                values[place] = value
        # Ties of regcbopt sum to more than one.
        total = sum(values)
        if not total > 0.0:
            raise PolicyError(
                f"vw: probabilities sum to {total}; was the model given infinite features?"
            )
        share = 0.0 if self.params.exploration == "epsilon" else self.params.uniform_share
        if self._file is not None:
            # It explores as its own options say; more only where the file asks for it.
            share = self.params.epsilon or 0.0
        scale, least = (1.0 - share) / total, share / len(values)
        return np.array([value * scale + least for value in values])

    def update(self, examples: Sequence[Example]) -> None:
        with self._lock:
            for example in examples:
                encoded = self._encode(example.actions)
                shared = self._shared(example.x, example.position)
                self._workspace.learn(
                    self._workspace.encode(shared, shared=True),
                    encoded,
                    example.index,
                    -example.reward,
                    example.propensity,
                )
                self._blob = None

    def dump(self) -> bytes:
        with self._lock:
            # VW counts predictions in its model; what it learned does not change with them, nor
            # does this.
            if self._blob is None:
                self._blob = self._workspace.serialize()
            model = self._blob
        return codec.dump(self.kind, ids=[" ".join(self._command)], raw=_digest(model) + model)

    def load(self, blob: bytes) -> None:
        model = self._model(blob)
        with self._lock:
            self._open(model)
            self._blob = model

    def _model(self, blob: bytes) -> bytes:
        """VW's own file in a state. PolicyError where it is not one that was written here."""
        state = codec.load(self.kind, blob, arrays={}, numbers=())
        digest, model = state.raw[:_DIGEST_SIZE], state.raw[_DIGEST_SIZE:]
        # VW may crash on a damaged model, so it never sees one.
        if state.ids != [" ".join(self._command)] or digest != _digest(model):
            raise PolicyError(
                f"state of vw: damaged, or made with other options; {codec.LEARN_ANEW}"
            )
        return model

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
        first, second = self._restored(one), self._restored(other)
        different = _different_weights(first._workspace.weights(), second._workspace.weights())
        if different:
            return f"{different:,} weights differ"
        largest = 0.0
        rng = np.random.default_rng(0)
        if not len(actions):
            actions = Actions(("a", "b", "c"), rng.normal(size=(3, self.da)))
        everything = np.arange(len(actions))
        for _ in range(_PROBES):
            x = rng.normal(size=self.d)
            p, q = (policy.predict(x, actions, everything) for policy in (first, second))
            largest = max(largest, float(np.abs(p - q).max()))
        return f"probabilities differ by up to {largest:.2g}" if largest > TOLERANCE else ""

    def _restored(self, blob: bytes) -> VW:
        """Another policy of this kind with that state."""
        policy = copy(self)
        policy._lock = threading.Lock()
        policy.load(blob)
        return policy

    @property
    def reproducible(self) -> bool:
        """Whether a state that was stored and loaded in between learns to the same weights."""
        if self._file is not None:
            return self._file.reproducible
        return EXPLORATIONS[self.params.exploration].reproducible

    def explain(
        self,
        x: Floats,  # noqa: ARG002
        actions: Actions,
        names: tuple[Sequence[str], Sequence[str]],  # noqa: ARG002
    ) -> list[dict[str, float]]:
        """VW's hashed weights have no names."""
        return [{} for _ in actions.ids]


def _is_finite(values: Values) -> bool:
    """Whether all numbers are. Each is looked at only where the sum of their squares is not."""
    return bool(np.isfinite(values.dot(values)) or np.isfinite(values).all())


def _hash(namespace: str, name: str) -> Hashes:
    """(1,) where VW finds a feature. Its first 32 bits, as VW's own hashes have."""
    return np.array([hash64(namespace, name) & 0xFFFFFFFF], dtype=np.uint64)


def _hashes(namespace: str, size: int) -> Hashes:
    out = np.empty(size, dtype=np.uint64)
    for i in range(size):
        out[i] = _hash(namespace, str(i))[0]
    return out


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


def _digest(model: bytes) -> bytes:
    return blake2b(model, digest_size=_DIGEST_SIZE).digest()
