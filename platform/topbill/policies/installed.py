"""The policies of installed packages as policies among the others: what they return is checked
before anything is drawn from it, and what they keep becomes bytes here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import msgspec
import numpy as np

from topbill.domain.chance import ROUNDING
from topbill.domain.errors import PolicyError
from topbill.domain.features import FeatureColumns
from topbill.domain.records import Actions, Example, Floats, Indices, Policy
from topbill.plugins.asking import Asked
from topbill.plugins.discovery import POLICIES, checked_params, installed, load
from topbill.plugins.policy import OwnPolicy, readonly
from topbill.policies.codec import LEARN_ANEW

MOST_BYTES = 256_000_000
"""The largest state: every version of it goes into the log."""
_DTYPES = ("<f8", "<f4", "<i8", "<i4", "|u1", "|b1")


class _Scored:
    __slots__ = ("_actions", "_policy", "_seed", "_x")
    mean: Floats | None = None
    width: Floats | None = None

    def __init__(self, policy: InstalledPolicy, x: Floats, actions: Actions, seed: int) -> None:
        self._policy, self._x, self._actions, self._seed = policy, x, actions, seed

    def probabilities(self, remaining: Indices) -> Floats:
        return self._policy.probabilities(self._x, self._actions, remaining, self._seed)


class InstalledPolicy:
    """A package's policy, as a policy. Whatever it raises is a PolicyError that names the package.

    `own` is the package's own object, `engine` the package with its version.
    """

    kind: ClassVar[str]
    Params: ClassVar[type[msgspec.Struct]]
    deterministic: ClassVar[bool]
    # Nobody knows how sure of itself it may become, so a little chance is kept unless a file says
    # otherwise; where it is deterministic, the file must say how much.
    default_spread: ClassVar[float]
    engine: ClassVar[str]
    _class: ClassVar[type[OwnPolicy]]

    @staticmethod
    def own_spread(params: Any) -> float:  # noqa: ARG004
        """Nothing that is known of."""
        return 0.0

    def __init__(
        self,
        params: Any,
        *,
        context_size: int,
        action_size: int,
        seed: int = 0,
        columns: FeatureColumns | None = None,
    ) -> None:
        known = columns or FeatureColumns.unnamed(context_size, action_size)
        self._asked = Asked(self.engine, self.kind)
        self.own = self._asked.ask("building it", lambda: self._class(params, known, seed))
        self._last: tuple[Actions, Actions] | None = None

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:
        return _Scored(self, readonly(x), actions, seed)

    def probabilities(self, x: Floats, actions: Actions, remaining: Indices, seed: int) -> Floats:
        """Its probabilities over what remains, checked to be a simplex. Raises PolicyError."""
        asked = self._of(actions, remaining)
        p = self._asked.numbers(
            "probabilities",
            lambda: self.own.probabilities(x, asked, seed),
            len(remaining),
            "action",
        )
        total = float(p.sum())
        # NaN fails both comparisons, which is why they are not turned round.
        if not (p.min() >= 0.0 and abs(total - 1.0) <= ROUNDING):
            raise self._asked.wrong(
                "probabilities",
                f"sum {total:g}, least {p.min():g}; expected sum 1 within 1e-6, least at least 0",
            )
        return np.asarray(p / total)

    def _of(self, actions: Actions, remaining: Indices) -> Actions:
        """What remains, with features that can't be written to; one object for all of an
        experiment's own actions, so that a policy can keep what it derives from them.
        """
        if len(remaining) != len(actions) or (remaining[1:] < remaining[:-1]).any():
            taken = actions.take(remaining)
            return Actions(taken.ids, readonly(taken.features))
        if self._last is None or self._last[0] is not actions:
            self._last = actions, Actions(actions.ids, readonly(actions.features))
        return self._last[1]

    def update(self, examples: Sequence[Example]) -> None:
        self._asked.ask("update", lambda: self.own.update(list(examples)))

    def dump(self) -> bytes:
        state = self._asked.ask("state", self.own.state)
        if not isinstance(state, Mapping):
            raise self._asked.wrong("state", f"{type(state).__name__}; expected a mapping")
        arrays = {}
        values = {}
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                arrays[str(name)] = self._packed(str(name), value)
            else:
                values[str(name)] = value
        try:
            text = msgspec.json.encode(values, order="deterministic")
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise self._asked.wrong("state", f"{error}; expected arrays and JSON") from error
        blob = _encode(_Blob(self.kind, arrays, text))
        if len(blob) > MOST_BYTES:
            raise self._asked.wrong(
                "state", f"{len(blob):,} bytes; expected at most {MOST_BYTES:,}"
            )
        return blob

    def _packed(self, name: str, array: np.ndarray[Any, Any]) -> _PackedArray:
        array = np.ascontiguousarray(array)
        dtype = array.dtype.str
        if dtype not in _DTYPES:
            raise self._asked.wrong(
                "state",
                f"array {name} of {array.dtype}; expected float64, float32, int64, int32, uint8 or "
                "bool",
            )
        if not np.isfinite(array).all():
            raise self._asked.wrong(
                "state", f"array {name} holds NaN or infinity; expected finite ones"
            )
        return _PackedArray(dtype, array.shape, array.tobytes())

    def load(self, blob: bytes) -> None:
        try:
            parsed = _decode(blob)
            if parsed.kind != self.kind:
                raise ValueError(f"it is one of {parsed.kind[:40]!r}")
            state: dict[str, Any] = msgspec.json.decode(parsed.values, type=dict[str, Any])
            for name, packed in parsed.arrays.items():
                state[name] = packed.array()
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise PolicyError(
                f"state of {self.kind} is not readable ({error}); {LEARN_ANEW}"
            ) from error
        self._asked.ask("restore", lambda: self.own.restore(state))

    def explain(
        self,
        x: Floats,  # noqa: ARG002
        actions: Actions,
        names: tuple[Sequence[str], Sequence[str]],  # noqa: ARG002
    ) -> list[dict[str, float]]:
        """Nothing is known of what adds to its probabilities."""
        return [{} for _ in actions.ids]


class _PackedArray(msgspec.Struct, frozen=True, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def array(self) -> np.ndarray[Any, Any]:
        """A copy that can be written to. Raises ValueError where it holds no such array."""
        if self.dtype not in _DTYPES:
            raise ValueError(f"an array of {self.dtype[:10]!r}")
        if any(size < 0 for size in self.shape):
            raise ValueError("an array of a shape that can't be")
        return np.frombuffer(self.data, dtype=self.dtype).reshape(self.shape).copy()


class _Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    arrays: dict[str, _PackedArray]
    values: bytes


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(_Blob).decode


@cache
def policy_of(name: str) -> type[Policy]:
    """The policy that an installed package names so. Raises PolicyError where the package can't be
    loaded.
    """
    own = load(POLICIES, name, OwnPolicy)
    package = installed(POLICIES)[name].package
    params = checked_params(package, name, own.Params)
    members = {
        "kind": name,
        "Params": params,
        "deterministic": bool(own.deterministic),
        "default_spread": 0.0 if own.deterministic else 0.02,
        "engine": package,
        "_class": own,
    }
    return type(f"{own.__name__}Policy", (InstalledPolicy,), members)
