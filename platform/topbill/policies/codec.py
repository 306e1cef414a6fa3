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

LEARN_ANEW = "write it again: topbill verify KEY --repair"
"""What helps against a state that can't be loaded."""
_NO_ARRAYS: Mapping[str, tuple[int | None, ...]] = {}


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


class PolicyState(msgspec.Struct, frozen=True):
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
    packed = {}
    for name, array in (arrays or {}).items():
        packed[name] = _Array(array.dtype.str, array.shape, array.tobytes())
    return _encode(_Blob(kind, list(ids), packed, dict(numbers or {}), raw))


def load(
    kind: str,
    blob: bytes,
    *,
    arrays: Mapping[str, tuple[int | None, ...]],
    numbers: Sequence[str],
    optional: Mapping[str, tuple[int | None, ...]] = _NO_ARRAYS,
) -> PolicyState:
    """The state in `blob`, its arrays writable. Nothing else may be there, nothing may be missing.

    Args:
        kind: The policy's.
        blob: What `dump` gave, or whatever lies in its place.
        arrays: Expected shapes by name, with None for the sizes that the state itself decides.
        numbers: Expected names.
        optional: Shapes of arrays that may be there too.

    Raises:
        PolicyError: It is no finite state of `kind`.
    """
    try:
        parsed = _decode(blob)
    # ValueError: ids that are not UTF-8.
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise PolicyError(f"state of {kind} is not readable ({error}); {LEARN_ANEW}") from error
    if parsed.kind != kind:
        raise PolicyError(
            f"state of {kind} expected, got one of {parsed.kind[:40]!r}; {LEARN_ANEW}"
        )
    arrays = {**arrays, **{name: optional[name] for name in optional if name in parsed.arrays}}
    if set(parsed.arrays) != set(arrays) or set(parsed.numbers) != set(numbers):
        wanted = sorted({*arrays, *numbers})
        got = sorted({*parsed.arrays, *parsed.numbers})
        raise PolicyError(f"state of {kind} must hold {wanted}, got {got}; {LEARN_ANEW}")
    # An id that is there twice would give two actions the same weights.
    unique = len(set(parsed.ids)) == len(parsed.ids)
    if not unique or not np.isfinite([0.0, *parsed.numbers.values()]).all():
        raise PolicyError(
            f"state of {kind} holds repeated ids or numbers that are not finite; {LEARN_ANEW}"
        )
    checked = {}
    for name, shape in arrays.items():
        checked[name] = _array(kind, name, parsed.arrays[name], shape)
    return PolicyState(parsed.ids, checked, parsed.numbers, parsed.raw)


def without(blob: bytes, *names: str) -> bytes:
    """A state that `dump` gave, less its arrays of these names."""
    parsed = _decode(blob)
    arrays = {other: array for other, array in parsed.arrays.items() if other not in names}
    return _encode(msgspec.structs.replace(parsed, arrays=arrays))


def _array(kind: str, name: str, packed: _Array, expected: tuple[int | None, ...]) -> Floats:
    if not _fits(packed, expected):
        raise PolicyError(
            f"state of {kind}: array {name} is {packed.dtype}{list(packed.shape)} in "
            f"{len(packed.data)} bytes; expected <f8{list(expected)}; {LEARN_ANEW}"
        )
    # A copy, for what lies in the blob can't be written to.
    array = np.frombuffer(packed.data, dtype="<f8").reshape(packed.shape).copy()
    if not np.isfinite(array).all():
        raise PolicyError(f"state of {kind}: array {name} holds NaN or infinity; {LEARN_ANEW}")
    return array


def _fits(packed: _Array, expected: tuple[int | None, ...]) -> bool:
    """Whether an array has the expected shape, and the bytes that this shape needs."""
    if packed.dtype != "<f8" or len(packed.shape) != len(expected):
        return False
    # Python's integers: a shape that was made up must not wrap around.
    size = 8
    for got, want in zip(packed.shape, expected, strict=True):
        if got < 0 or want not in (None, got):
            return False
        size *= got
    return size == len(packed.data)


def number(state: PolicyState, name: str, *, low: float = 0.0) -> float:
    """The number `name` of a state, at least `low`; PolicyError otherwise."""
    value: Any = state.numbers[name]
    if not value >= low:
        raise PolicyError(f"state: {name} is {value}, expected at least {low}; {LEARN_ANEW}")
    return float(value)


def check_rows(state: PolicyState, kind: str) -> None:
    """PolicyError unless every `…own…` array has one row for the prior and one per id, and
    variances are positive.
    """
    rows = len(state.ids) + 1
    for name, array in state.arrays.items():
        if "own_" in name and len(array) != rows:
            raise PolicyError(
                f"state of {kind}: {len(state.ids)} ids need {rows} rows in {name}, "
                f"got {len(array)}; {LEARN_ANEW}"
            )
        if name.endswith("_cov") and np.einsum("...pp->...p", array).min(initial=1.0) <= 0.0:
            raise PolicyError(
                f"state of {kind}: {name} holds variances that are not positive; {LEARN_ANEW}"
            )
