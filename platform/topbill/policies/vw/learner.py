"""One workspace of Vowpal Wabbit, as a policy asks of it: features in, probabilities out, rewards
learned.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import copy
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from topbill.domain.chance import hash64
from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example, Floats, Indices, TakenActions
from topbill.policies.vw.engine import Features, Hashes, Values, VwEngine
from topbill.policies.vw.model_file import VwModelFile, digest, feature_hash, read_head, text_name
from topbill.policies.vw.options import EXPLORATIONS, VWParams

_CONTEXT, _ACTION, _FEATURES, _POSITION = (ord(c) for c in "safp")
"""Namespaces, one character each."""
_MOST_EXAMPLES = 20_000
"""Examples of actions that are kept."""
_LAST_POSITION = 31
"""Positions from here on count as one."""
_PLACES = [np.array([position], dtype=np.uint64) for position in range(_LAST_POSITION + 1)]
_ONE = np.ones(1, dtype=np.float32)


class VwLearner:
    """A model of VW with one exploration.

    Context, action id and action features are namespaces s, a and f with the interactions s×a and
    s×f; the position is p. VW minimises costs: rewards are negated here, and only here. A workspace
    is not thread-safe: a lock guards it. Predictions leave the weights alone.
    """

    def __init__(
        self, params: VWParams, build: VwEngine, context_size: int, action_size: int, seed: int
    ) -> None:
        self.params = params
        self.d, self.da = context_size, action_size
        self.command = params.command(seed)
        self._engine = build
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
        self.command = ["--initial_regressor", digest(model).hex()]
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

    def _open(self, model: bytes | None) -> None:
        self.workspace = self._engine.open(self.command, model)
        self._blob: bytes | None = None
        # Examples belong to the workspace that they were made for.
        self._by_features: dict[tuple[str, bytes], Any] = {}
        self._by_actions: WeakKeyDictionary[Actions, list[Any]] = WeakKeyDictionary()

    def _encode(self, actions: Actions) -> list[Any]:
        """VW's examples of the actions, built once per Actions object."""
        if isinstance(actions, TakenActions):
            # What a slate could still draw at each of its positions is some of the same actions.
            whole = self._encode(actions.of)
            return [whole[row] for row in actions.rows]
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
            example = self.workspace.encode(features)
            if len(self._by_features) >= _MOST_EXAMPLES:
                self._by_features.clear()
            self._by_features[key] = example
        return example

    def _shared(self, x: Floats) -> Features:
        """What actions have in common at the first position: the context."""
        values = x.astype(np.float32)
        if values.shape != (self.d,) or not _is_finite(values):
            raise PolicyError(f"vw: context must be finite and ({self.d},), got {values.shape}")
        if self._file is not None:
            return self._named(0, self._context_hashes, values)
        return {_CONTEXT: (self._context_hashes, values)} if self.d else {}

    def _at(self, position: int, shared: Features) -> Features:
        """The same at another position, for learning."""
        if not position or self._file is not None:
            return shared
        return {**shared, _POSITION: (_PLACES[min(position, _LAST_POSITION)], _ONE)}

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
            pairs = self.workspace.predict(self._shared(x), eligible)
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
        share = 0.0 if self.params.own_exploration == "epsilon" else self.params.uniform_share
        if self._file is not None:
            # It explores as its own options say; more only where the file asks for it.
            share = self.params.epsilon or 0.0
        scale, least = (1.0 - share) / total, share / len(values)
        return np.array([value * scale + least for value in values])

    def learn(self, examples: Sequence[Example]) -> None:
        """Learn their rewards, in order."""
        with self._lock:
            x: Floats | None = None
            for example in examples:
                encoded = self._encode(example.actions)
                if example.x is not x:
                    # Those of one slate have the very same context.
                    x, context = example.x, self._shared(example.x)
                shared = self._at(example.position, context)
                self.workspace.learn(
                    self.workspace.encode(shared, shared=True),
                    encoded,
                    example.index,
                    -example.reward,
                    example.propensity,
                )
                self._blob = None

    def model(self) -> bytes:
        """What was learned, as VW's own file."""
        with self._lock:
            # VW counts predictions in its model; what it learned does not change with them, nor
            # does this.
            if self._blob is None:
                self._blob = self.workspace.serialize()
            return self._blob

    def restore(self, model: bytes) -> None:
        """Go on with what `model` gave."""
        with self._lock:
            self._open(model)
            self._blob = model

    def other(self, model: bytes) -> VwLearner:
        """One of these options with that model."""
        learner = copy(self)
        learner._lock = threading.Lock()
        learner.restore(model)
        return learner

    @property
    def reproducible(self) -> bool:
        """Whether a state that was stored and loaded in between learns to the same weights."""
        if self._file is not None:
            return self._file.reproducible
        return EXPLORATIONS[self.params.own_exploration].reproducible


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
