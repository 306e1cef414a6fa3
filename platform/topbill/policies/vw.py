"""Vowpal Wabbit's contextual bandits with action-dependent features, any exploration of
`--cb_explore_adf`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from vowpal_wabbit_next import CLIError, Workspace
from vowpal_wabbit_next import _core as stubbed

from topbill.domain.chance import hash64
from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.policies import codec

# What each exploration needs to learn rewards in [0, 1] seen as costs in [-1, 0], and the uniform
# share mixed in where VW itself would give actions probability zero.
_EXPLORATIONS: dict[str, tuple[str, float]] = {
    "epsilon": ("--cb_type mtr --clip_p 0.2", 0.05),
    "softmax": ("--softmax --lambda 20 --cb_type mtr --clip_p 0.2", 0.0),
    "bag": ("--bag 5 --cb_type mtr --clip_p 0.2", 0.02),
    "cover": ("--cover 5 --cb_type mtr --clip_p 0.2", 0.02),
    "first": ("--first 500 --cb_type mtr --clip_p 0.2", 0.02),
    "squarecb": (
        "--squarecb --gamma_scale 100 --cb_type mtr --cb_min_cost -1 --cb_max_cost 0",
        0.0,
    ),
    "regcb": ("--regcb --mellowness 0.01 --cb_type mtr --cb_min_cost -1 --cb_max_cost 0", 0.02),
    "regcbopt": (
        "--regcbopt --mellowness 0.01 --cb_type mtr --cb_min_cost -1 --cb_max_cost 0",
        0.02,
    ),
    "rnd": ("--rnd 3 --cb_type mtr --clip_p 0.2", 0.02),
    "synthcover": ("--synthcover --cb_type mtr --clip_p 0.2", 0.02),
}
_NUMBER = r"-?\d+(\.\d+)?([eE]-?\d+)?"
_NUMERIC = (
    "lambda gamma_scale gamma_exponent mellowness cb_min_cost cb_max_cost bag cover first rnd rnd_alpha rnd_invlambda "
    "psi synthcoversize synthcoverpsi clip_p learning_rate l power_t initial_t l1 l2 bit_precision b"
)
_FLAGS = "softmax squarecb regcb regcbopt synthcover nounif greedify coin adaptive normalized sgd invariant noconstant"
_OPTIONS = {
    **dict.fromkeys(_NUMERIC.split(" "), _NUMBER),
    **dict.fromkeys(_FLAGS.split(" "), ""),
    "cb_type": "(ips|dr|mtr|dm)",
    "interactions": "[safp]{2,3}",
    "q": "[safp]{2}",
}
_CONTEXT, _ACTION, _FEATURES, _POSITION = (ord(c) for c in "safp")
_CHECK = 16
_KEEP = 20_000
_ONE = np.ones(1, dtype=np.float32)
_core: Any = stubbed  # its stubs predate NumPy 2


def check_args(args: str) -> list[str]:
    """The free options as a list, each known and of the right form; ValueError tells the first that
    is not.
    """
    words, out = args.split(), []
    while words:
        word = words.pop(0)
        match = re.fullmatch(r"--?([a-z]\w*)", word)
        if match is None or match[1] not in _OPTIONS:
            raise ValueError(
                f"args: {word!r} is not an option that may be set; known are {', '.join(sorted(_OPTIONS))}"
            )
        out.append(word)
        pattern = _OPTIONS[match[1]]
        if pattern:
            value = words.pop(0) if words else ""
            if not re.fullmatch(pattern, value):
                raise ValueError(f"args: {word} got {value!r}, expected {pattern}")
            out.append(value)
    return out


Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class VWParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`exploration` with costs and clipping that suit rewards in [0, 1]; `args` adds to VW's own
    options.
    """

    exploration: Annotated[
        Literal[
            "epsilon",
            "softmax",
            "bag",
            "cover",
            "first",
            "squarecb",
            "regcb",
            "regcbopt",
            "rnd",
            "synthcover",
        ],
        msgspec.Meta(description="exploration of --cb_explore_adf"),
    ] = "squarecb"
    epsilon: Annotated[
        Share | None,
        msgspec.Meta(description="uniform share; by default what the exploration needs"),
    ] = None
    args: Annotated[
        str,
        msgspec.Meta(
            description="further options, such as '--learning_rate 0.1 --power_t 0 --q aa'"
        ),
    ] = ""

    def __post_init__(self) -> None:
        check_args(self.args)

    def command(self, seed: int) -> list[str]:
        """The options of the workspace; the caller's come last and replace ours."""
        given = check_args(self.args)
        chosen = _EXPLORATIONS[self.exploration][0].split()
        kept: list[str] = []
        while chosen:
            word = chosen.pop(0)
            value = chosen.pop(0) if _OPTIONS[word.lstrip("-")] else None
            if word not in given:
                kept += [word] if value is None else [word, value]
        pairs = ["-q", "sa", "-q", "sf"]
        epsilon = ["--epsilon", str(self.uniform_share)] if self.exploration == "epsilon" else []
        # VW writes the options into the model, so that they are checked when it is loaded.
        return [
            "--cb_explore_adf",
            "--quiet",
            "--random_seed",
            str(seed % 2**31),
            *pairs,
            *epsilon,
            *kept,
            *given,
        ]

    @property
    def uniform_share(self) -> float:
        """The share of decisions that is uniform."""
        return _EXPLORATIONS[self.exploration][1] if self.epsilon is None else self.epsilon


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

    def __init__(
        self, params: VWParams, *, context_size: int, action_size: int, seed: int = 0
    ) -> None:
        self.params = params
        self.d, self.da = context_size, action_size
        self._command = params.command(seed)
        self._lock = threading.Lock()
        self._context_at = np.array(
            [hash64("s", str(i)) & 0xFFFFFFFF for i in range(context_size)], dtype=np.uint64
        )
        self._features_at = np.array(
            [hash64("f", str(i)) & 0xFFFFFFFF for i in range(action_size)], dtype=np.uint64
        )
        self._open(None)

    def _open(self, model: bytes | None) -> None:
        try:
            # A model carries its own options; only --quiet is not among them.
            workspace = (
                Workspace(self._command)
                if model is None
                else Workspace(["--quiet"], model_data=model)
            )
        except (CLIError, RuntimeError) as error:
            raise PolicyError(f"vw: {' '.join(self._command)}: {error}") from error
        self._workspace = workspace
        self._core = workspace._workspace
        self._blob: bytes | None = None
        self._kept: dict[tuple[str, bytes], Any] = {}
        self._examples: WeakKeyDictionary[Actions, list[Any]] = WeakKeyDictionary()

    def _encode(self, actions: Actions) -> list[Any]:
        """VW's examples of the actions, built once per Actions object."""
        found = self._examples.get(actions)
        if found is None:
            features = actions.features.astype(np.float32)
            if features.shape != (len(actions), self.da) or not np.isfinite(features).all():
                raise PolicyError(
                    f"vw: action features must be finite and {(len(actions), self.da)}, got {features.shape}"
                )
            found = [
                self._example(name, row) for name, row in zip(actions.ids, features, strict=True)
            ]
            self._examples[actions] = found
        return found

    def _example(self, name: str, features: Any) -> Any:
        """VW's example of one action; candidates recur in ever new sets, so it is kept."""
        key = name, features.tobytes()
        example = self._kept.get(key)
        if example is None:
            example = _core.Example()
            example[_ACTION].push_many_features(
                np.array([hash64("a", name) & 0xFFFFFFFF], dtype=np.uint64), _ONE
            )
            if self.da:
                example[_FEATURES].push_many_features(self._features_at, features)
            example._set_label(_core.CBLabel())
            if len(self._kept) >= _KEEP:
                self._kept.clear()
            self._kept[key] = example
        return example

    def _shared(self, x: Floats, position: int = 0) -> Any:
        """VW's shared example: the context and, when learning, the position that was not the
        first.
        """
        values = x.astype(np.float32)
        if values.shape != (self.d,) or not np.isfinite(values).all():
            raise PolicyError(f"vw: context must be finite and ({self.d},), got {values.shape}")
        example = _core.Example()
        if self.d:
            example[_CONTEXT].push_many_features(self._context_at, values)
        if position:
            example[_POSITION].push_many_features(
                np.array([min(position, 31)], dtype=np.uint64), _ONE
            )
        example._set_label(_core.CBLabel(shared=True))
        return example

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:  # noqa: ARG002
        return _Scored(self, x, actions)

    def predict(self, x: Floats, actions: Actions, remaining: Indices) -> Floats:
        """(len(remaining),) VW's probabilities over those actions, float32 made exact by
        normalising.
        """
        if len(remaining) == 1:
            return np.ones(1)
        with self._lock:
            examples = self._encode(actions)
            told = self._core.predict_multi_ex_one(
                [self._shared(x), *[examples[i] for i in remaining.tolist()]]
            )
        # VW tells the best first, as pairs of place and probability; ties of regcbopt sum to more
        # than one.
        pairs = np.array(told)
        p = np.zeros(len(remaining))
        p[pairs[:, 0].astype(np.intp)] = np.maximum(pairs[:, 1], 0.0)
        total = p.sum()
        if not total > 0.0:
            raise PolicyError(
                f"vw: probabilities sum to {total}; was the model given infinite features?"
            )
        share = 0.0 if self.params.exploration == "epsilon" else self.params.uniform_share
        return np.asarray(p * ((1.0 - share) / total) + share / len(remaining))

    def update(self, examples: Sequence[Example]) -> None:
        with self._lock:
            for example in examples:
                encoded = self._encode(example.actions)
                chosen = encoded[example.index]
                chosen._set_label(_core.CBLabel(label=(0, -example.reward, example.propensity)))
                try:
                    self._core.learn_multi_ex_one(
                        [self._shared(example.x, example.position), *encoded]
                    )
                finally:
                    chosen._set_label(_core.CBLabel())
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
        state = codec.load(self.kind, blob, arrays={}, numbers=())
        check, model = state.raw[:_CHECK], state.raw[_CHECK:]
        # VW may crash on a damaged model, so it never sees one.
        if state.ids != [" ".join(self._command)] or check != _digest(model):
            raise PolicyError(
                "state of vw: damaged, or made with other options; rebuild it from the log"
            )
        with self._lock:
            self._open(model)
            self._blob = model

    def explain(
        self,
        x: Floats,  # noqa: ARG002
        actions: Actions,
        names: tuple[Sequence[str], Sequence[str]],  # noqa: ARG002
    ) -> list[dict[str, float]]:
        """VW's hashed weights have no names."""
        return [{} for _ in actions.ids]


def _digest(model: bytes) -> bytes:
    return blake2b(model, digest_size=_CHECK).digest()
