"""How a function is compiled: the only module that imports Numba.

Each function has one signature, its annotations, and is compiled, or read from the cache on disk,
when its module is imported. So no request ever waits for a compiler, and processes that compile at
the same time write the same files. Floating point is strict (no fastmath): a machine gives the same
bits in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numba

from topbill.domain.records import Floats

F = TypeVar("F", bound=Callable[..., Any])

Vector: TypeAlias = Floats
Matrix: TypeAlias = Floats
Cube: TypeAlias = Floats
Cubes: TypeAlias = Floats
"""Float64 arrays of one to four dimensions in C order, writable: what the policies hold
themselves.
"""

_TYPES: dict[str, Any] = {
    "Vector": numba.float64[::1],
    "Matrix": numba.float64[:, ::1],
    "Cube": numba.float64[:, :, ::1],
    "Cubes": numba.float64[:, :, :, ::1],
    "Indices": numba.types.Array(numba.intp, 1, "A", readonly=True),  # whoever made them
    "float": numba.float64,
    "int": numba.intp,
    "bool": numba.boolean,
    "None": numba.void,
    "tuple[float, float]": cast(Any, numba.types).UniTuple(numba.float64, 2),
}


def compiled(function: F) -> F:
    """Compile for the annotated types, and keep the result beside the source or in NUMBA_CACHE_DIR;
    where neither that nor a home can be written, in memory only."""
    told = dict(function.__annotations__)
    returned = _TYPES[told.pop("return")]
    signature = returned(*(_TYPES[name] for name in told.values()))
    try:
        return cast(F, numba.njit(signature, cache=True, error_model="numpy")(function))
    except (RuntimeError, OSError):  # no writable folder, or no space left in it
        return cast(F, numba.njit(signature, error_model="numpy")(function))
