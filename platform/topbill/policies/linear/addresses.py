"""Arrays that a compiled call finds by their addresses. What Numba does with each argument adds up
where there are thirty: those that are the same from call to call are looked at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from topbill.policies.linear.compiled import (
    Cube,
    Cubes,
    Matrix,
    Places,
    Vector,
    compiled,
    numba,
    part,
)

MODELS, MORE_MODELS = 15, 35
"""Where those of the models begin among all that are packed."""


def _pointer(_: Any, address: Any) -> Any:
    """What lies at an address."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.inttoptr(arguments[0], numba.core.cgutils.voidptr_t)

    return numba.types.voidptr(address), generate


pointer: Any = None if numba is None else numba.extending.intrinsic(_pointer)


@part
def vector_at(arrays: Places, i: int) -> Vector:
    """The array of one dimension whose address is at i."""
    array: Vector = numba.carray(pointer(arrays[i]), (arrays[i + 1],), np.float64)
    return array


@part
def places_at(arrays: Places, i: int) -> Places:
    """The same of integers."""
    array: Places = numba.carray(pointer(arrays[i]), (arrays[i + 1],), np.intp)
    return array


@part
def matrix_at(arrays: Places, i: int) -> Matrix:
    """The array of two dimensions whose address is at i."""
    array: Matrix = numba.carray(pointer(arrays[i]), (arrays[i + 1], arrays[i + 2]), np.float64)
    return array


@part
def cube_at(arrays: Places, i: int) -> Cube:
    """The array of three dimensions whose address is at i."""
    shape = (arrays[i + 1], arrays[i + 2], arrays[i + 3])
    array: Cube = numba.carray(pointer(arrays[i]), shape, np.float64)
    return array


@part
def cubes_at(arrays: Places, i: int) -> Cubes:
    """The array of four dimensions whose address is at i."""
    shape = (arrays[i + 1], arrays[i + 2], arrays[i + 3], arrays[i + 4])
    array: Cubes = numba.carray(pointer(arrays[i]), shape, np.float64)
    return array


@part
def put(arrays: Places, i: int, array: Any) -> int:
    """Put an array's address at i and its shape behind it; where the next one begins."""
    arrays[i] = array.ctypes.data
    i += 1
    for size in array.shape:
        arrays[i] = size
        i += 1
    return i


@compiled
def packed(
    settings: Vector,
    before: Vector,
    action_rows: Places,
    rank: Places,
    Z: Matrix,
    normals: Cube,
    weights: Vector,
    own_mean: Cube,
    own_cov: Cubes,
    shared_mean: Cube,
    shared_cov: Cubes,
    more_weights: Vector,
    more_own_mean: Cube,
    more_own_cov: Cubes,
    more_shared_mean: Cube,
    more_shared_cov: Cubes,
) -> Places:
    """The address and the shape of each array, one after the other. Whoever calls with them keeps
    the arrays, which are those of `Drawing.arrays`.
    """
    out = np.empty(MORE_MODELS + (MORE_MODELS - MODELS), np.intp)
    i = put(out, put(out, 0, settings), before)
    i = put(out, put(out, i, action_rows), rank)
    i = put(out, put(out, i, Z), normals)
    i = put(out, put(out, put(out, i, weights), own_mean), own_cov)
    i = put(out, put(out, i, shared_mean), shared_cov)
    i = put(out, put(out, put(out, i, more_weights), more_own_mean), more_own_cov)
    put(out, put(out, i, more_shared_mean), more_shared_cov)
    return out


@compiled
def packed_of_others(arrays: Places, before: Vector, action_rows: Places, Z: Matrix) -> Places:
    """What is `packed`, with other actions in it whose scores depend on no rank."""
    out = arrays.copy()
    i = put(out, 2, before)
    put(out, put(out, put(out, i, action_rows), action_rows), Z)
    return out
