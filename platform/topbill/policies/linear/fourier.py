"""Random Fourier features of a context, in which any smooth taste is nearly linear (Rahimi and
Recht 2007).
"""

from __future__ import annotations

import numpy as np

from topbill.domain.records import Floats

BANDWIDTH = 0.7
"""Contexts of unit scale that lie this far apart, per √d, look different."""


class Fourier:
    """`count` random frequencies of a context (d), each a cosine and a sine: 2·count features,
    `count` in square.
    """

    __slots__ = ("count", "frequencies")

    def __init__(self, random: np.random.Generator, count: int, d: int) -> None:
        self.count = count
        self.frequencies: Floats = random.standard_normal((count, d)) / (
            BANDWIDTH * max(d, 1) ** 0.5
        )

    def into(self, out: Floats, x: Floats) -> None:
        """Write the features of x (d) to `out` (2·count)."""
        phase = self.frequencies @ x
        np.cos(phase, out=out[: self.count])
        np.sin(phase, out=out[self.count :])
