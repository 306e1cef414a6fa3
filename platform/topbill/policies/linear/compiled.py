"""How a function is compiled.

Each function has one signature, its annotations. It is taken from the `library` where that is
there; else Numba compiles it, or reads it from its cache on disk, when its module is imported. So
no request ever waits for a compiler, and processes that compile at the same time write the same
files. Floating point is strict (no fastmath): a machine gives the same bits in every process.

Numba may be missing, where it has no wheel or nobody wants a compiler. Then `numpy_kernels` stands
in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from topbill.domain.records import Floats, Indices
from topbill.policies.linear import library

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIBRARY = library.load()
numba: Any = None
if LIBRARY is None:
    try:
        import numba
    except ImportError:
        # Only then: SciPy, which it needs, takes a third of the time that Numba does.
        from topbill.policies.linear import numpy_kernels
IS_COMPILED = LIBRARY is not None or numba is not None

F = TypeVar("F", bound=Callable[..., Any])

Vector: TypeAlias = Floats
Matrix: TypeAlias = Floats
Cube: TypeAlias = Floats
Cubes: TypeAlias = Floats
"""Float64 arrays of one to four dimensions in C order, writable: what the policies hold
themselves.
"""
Given: TypeAlias = Floats
"""Float64 of one dimension, read-only and of any stride: whoever made them."""
Places: TypeAlias = Indices
"""Integers in C order, writable."""
Text: TypeAlias = "bytes | NDArray[np.uint8]"
"""A text, encoded; compiled code may cut it out of several."""
Bytes: TypeAlias = "NDArray[np.uint8]"
"""A text that is written."""
Flags: TypeAlias = "NDArray[np.bool_]"
FlagMatrix: TypeAlias = "NDArray[np.bool_]"
"""Truths of one and of two dimensions in C order, read-only."""
Singles: TypeAlias = "NDArray[np.float32]"
"""Float32 of one dimension in C order, read-only."""


def _types() -> dict[str, Any]:
    """What an annotation means to Numba."""
    return {
        "Vector": numba.float64[::1],
        "Matrix": numba.float64[:, ::1],
        "Cube": numba.float64[:, :, ::1],
        "Cubes": numba.float64[:, :, :, ::1],
        "Given": numba.types.Array(numba.float64, 1, "A", readonly=True),
        "Places": numba.intp[::1],
        "Text": numba.types.Bytes(numba.uint8, 1, "C"),
        "Bytes": numba.uint8[::1],
        "Flags": numba.types.Array(numba.boolean, 1, "C", readonly=True),
        "FlagMatrix": numba.types.Array(numba.boolean, 2, "C", readonly=True),
        "Singles": numba.types.Array(numba.float32, 1, "C", readonly=True),
        # Read-only and of any stride: whoever made them.
        "Indices": numba.types.Array(numba.intp, 1, "A", readonly=True),
        "float": numba.float64,
        "int": numba.intp,
        "bool": numba.boolean,
        "None": numba.void,
        "tuple[float, float]": numba.types.UniTuple(numba.float64, 2),
    }


_TYPES = _types() if numba is not None else {}


def compiled(function: F) -> F:
    """Compile for the annotated types, and keep the result beside the source or in NUMBA_CACHE_DIR;
    where neither that nor a home can be written, in memory only.

    Without Numba: the function of the same name in `numpy_kernels`, or this one as it is.
    """
    if LIBRARY is not None:
        return cast(F, getattr(LIBRARY, function.__name__))
    if numba is None:
        return cast(F, getattr(numpy_kernels, function.__name__, function))
    annotations = dict(function.__annotations__)
    returned = _TYPES[annotations.pop("return")]
    signature = returned(*(_TYPES[name] for name in annotations.values()))
    try:
        return cast(F, numba.njit(signature, cache=True, error_model="numpy")(function))
    except (RuntimeError, OSError):  # no writable folder, or no space left in it
        return cast(F, numba.njit(signature, error_model="numpy")(function))


def part(function: F) -> F:
    """A part of compiled functions: compiled with each that calls it, and read from its cache with
    it, so that no start waits for the part alone. From Python only tests call one, which set
    TOPBILL_JIT.
    """
    if LIBRARY is not None:
        return function
    if numba is None:
        return cast(F, getattr(numpy_kernels, function.__name__, function))
    return cast(F, numba.njit(error_model="numpy")(function))
