"""Policy state as bytes and back: msgpack of named float64 arrays, ids and numbers; validated,
never pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from topbill.domain.errors import PolicyError
from topbill.domain.records import Floats


class _Array(msgspec.Struct, frozen=True, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class _Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    ids: list[str]
    arrays: dict[str, _Array]
    numbers: dict[str, float]
    raw: bytes = b""


class State(msgspec.Struct, frozen=True):
    """What a policy has learned: action ids, named float64 arrays, named numbers, and bytes of a
    foreign library.
    """

    ids: list[str]
    arrays: dict[str, Floats]
    numbers: dict[str, float]
    raw: bytes = b""


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(_Blob).decode


def dump(
    kind: str,
    *,
    ids: Sequence[str] = (),
    arrays: Mapping[str, Floats] | None = None,
    numbers: Mapping[str, float] | None = None,
    raw: bytes = b"",
) -> bytes:
    """The state of a policy of `kind`; equal states give equal bytes."""
    packed = {name: _Array(a.dtype.str, a.shape, a.tobytes()) for name, a in (arrays or {}).items()}
    return _encode(_Blob(kind, list(ids), packed, dict(numbers or {}), raw))


def load(
    kind: str, blob: bytes, *, arrays: Mapping[str, tuple[int | None, ...]], numbers: Sequence[str]
) -> State:
    """The state in `blob`, writable; raises PolicyError unless it is a finite state of `kind`.

    `arrays` gives the expected shapes, with None for the sizes that the state itself decides;
    `numbers` the expected names. Nothing else may be there, nothing may be missing.
    """
    try:
        parsed = _decode(blob)
    except (
        msgspec.DecodeError,
        ValueError,
        TypeError,
    ) as error:  # ValueError: ids that are not UTF-8
        raise PolicyError(
            f"state of {kind} is not readable ({error}); rebuild it from the log"
        ) from error
    if parsed.kind != kind:
        raise PolicyError(
            f"state of {kind} expected, got one of {parsed.kind[:40]!r}; rebuild it from the log"
        )
    if set(parsed.arrays) != set(arrays) or set(parsed.numbers) != set(numbers):
        wanted, got = sorted({*arrays, *numbers}), sorted({*parsed.arrays, *parsed.numbers})
        raise PolicyError(f"state of {kind} must hold {wanted}, got {got}; rebuild it from the log")
    if (
        len(set(parsed.ids)) != len(parsed.ids)
        or not np.isfinite([0.0, *parsed.numbers.values()]).all()
    ):
        raise PolicyError(
            f"state of {kind} holds repeated ids or numbers that are not finite; rebuild it from the log"
        )
    found = {name: _array(kind, name, parsed.arrays[name], shape) for name, shape in arrays.items()}
    return State(parsed.ids, found, parsed.numbers, parsed.raw)


def _array(kind: str, name: str, packed: _Array, expected: tuple[int | None, ...]) -> Floats:
    fits = len(packed.shape) == len(expected) and all(
        want is None or want == got for want, got in zip(expected, packed.shape, strict=True)
    )
    size = 8
    for n in packed.shape:
        size *= n
    if (
        not fits
        or packed.dtype != "<f8"
        or min(packed.shape, default=0) < 0
        or size != len(packed.data)
    ):
        raise PolicyError(
            f"state of {kind}: array {name} is {packed.dtype}{list(packed.shape)} in {len(packed.data)} bytes; "
            f"expected <f8{list(expected)}; rebuild it from the log"
        )
    array = np.frombuffer(packed.data, dtype="<f8").reshape(packed.shape).copy()
    if not np.isfinite(array).all():
        raise PolicyError(
            f"state of {kind}: array {name} holds NaN or infinity; rebuild it from the log"
        )
    return array


def number(state: State, name: str, *, low: float = 0.0) -> float:
    """The number `name` of a state, at least `low`; PolicyError otherwise."""
    value: Any = state.numbers[name]
    if not value >= low:
        raise PolicyError(
            f"state: {name} is {value}, expected at least {low}; rebuild it from the log"
        )
    return float(value)


def check_rows(state: State, kind: str) -> None:
    """PolicyError unless every `…own…` array has one row for the prior and one per id, and
    variances are positive.
    """
    for name, array in state.arrays.items():
        if "own_" in name and len(array) != len(state.ids) + 1:
            raise PolicyError(
                f"state of {kind}: {len(state.ids)} ids need {len(state.ids) + 1} rows in {name}; rebuild it"
            )
        if name.endswith("_cov") and np.einsum("...pp->...p", array).min(initial=1.0) <= 0.0:
            raise PolicyError(
                f"state of {kind}: {name} holds variances that are not positive; rebuild it from the log"
            )
