"""Long vectors made shorter by a sparse random projection, which keeps inner products and distances
up to a few percent (Johnson and Lindenstrauss 1984; Achlioptas 2003, theorem 1.1, eq. 2).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from topbill.domain.chance import hash64
from topbill.domain.records import Floats

LONGEST_UNPROJECTED = 64
"""Vectors up to this length stay as they are where nothing else is said."""
DIGITS = 5
"""Significant digits of a projected number: more would be noise of the projection, written out."""


def project(vectors: Floats, dimension: int) -> Floats:
    """(N × dimension) of N vectors (N × length), each number rounded to DIGITS significant digits;
    only rounded where they have that length already.

    The projection follows from the two lengths alone, so that vectors of several tables that could
    be compared before (a viewer's and a title's of one model) can be compared afterwards.
    """
    length = vectors.shape[1]
    if length != dimension:
        vectors = vectors @ _matrix(length, dimension)
    return rounded(vectors)


@lru_cache(maxsize=32)
def _matrix(length: int, dimension: int) -> Floats:
    """(length × dimension) of ±√(3/dimension), each with probability 1/6, and 0."""
    # Raw bits of a generator whose algorithm is fixed; NumPy promises no more of its distributions.
    generator = np.random.PCG64(hash64("embedding", str(length), str(dimension)))
    dice = generator.random_raw(length * dimension) % 6
    signs = np.where(dice == 0, 1.0, np.where(dice == 1, -1.0, 0.0))
    return np.asarray(signs.reshape(length, dimension) * np.sqrt(3.0 / dimension))


def rounded(values: Floats) -> Floats:
    """The values with DIGITS significant digits."""
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        places = np.where(size > 0.0, DIGITS - 1 - np.floor(np.log10(size)), 0.0)
    # Scaled by whole powers of ten, up or down, so that a result is the double nearest to its
    # decimal and JSON writes no more than its digits. 0.0 is added for the sign of -0.0.
    up, down = 10.0 ** np.clip(places, 0.0, 300.0), 10.0 ** np.clip(-places, 0.0, 300.0)
    return np.asarray(np.rint(values * up / down) / up * down + 0.0)
