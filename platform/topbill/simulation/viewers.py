"""Simulated viewers: who comes, and what is known of them when they do, for any declared
context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from topbill.domain.chance import hash64
from topbill.domain.features import Feature
from topbill.domain.records import Floats

BLOCK = 512
"""Visits are generated in blocks of this many: fast, and visit n is the same however many are asked
for.
"""

_Observe: TypeAlias = Callable[[np.random.Generator, np.ndarray], list[Any]]


@dataclass(frozen=True, slots=True)
class Visit:
    """A viewer who opens the homepage: `number` counts visits, `unit` is the profile's id,
    `context` what the service is told. `patience` (mean 1 over visits, some 0.5 to 1.5) scales how
    much this viewer clicks at all, and `luck` are the uniform numbers from which what the viewer
    does is derived; both are told to nobody.
    """

    number: int
    unit: str
    context: dict[str, Any]
    patience: float
    luck: Floats


class Audience:
    """`size` viewers with lasting tastes, devices and hours, seeded.

    The same seed gives the same viewers and the same order of visits to every experiment, and the
    same taste to features of the same name and schema: one audience can be sent through many
    experiments. `luck` uniform numbers come with each visit.
    """

    def __init__(self, context: tuple[Feature, ...], size: int, seed: int, luck: int) -> None:
        self.size = size
        self._luck = luck
        self._seed = seed
        # By the feature's own declaration: another experiment that declares the same taste meets
        # the same viewers with the same taste.
        self._observers: dict[str, _Observe] = {}
        for feature in context:
            rng = _generator(seed, "lasting", repr(feature))
            self._observers[feature.name] = _OBSERVERS[feature.kind](feature, rng, size)
        rng = _generator(seed, "habits", str(size))
        activity = rng.gamma(0.8, size=size) + 0.05
        activity /= activity.sum()
        self._arrivals = np.cumsum(activity)
        self._patience = rng.uniform(0.5, 1.5, size)
        # Mean 1 over visits, not over viewers: who comes often counts as often.
        self._patience /= self._patience @ activity
        self._block = lru_cache(maxsize=4)(self._generate)

    def visit(self, number: int) -> Visit:
        """The visit with that number (≥ 0)."""
        return self._block(number // BLOCK)[number % BLOCK]

    def _generate(self, block: int) -> list[Visit]:
        rng = _generator(self._seed, "visits", str(block))
        spots = rng.random(BLOCK)
        # Rounding may leave the last sum a little below 1, and a spot above it.
        who = np.minimum(np.searchsorted(self._arrivals, spots, side="right"), self.size - 1)
        luck = rng.random((BLOCK, self._luck))
        # A generator for each feature: one more in an experiment doesn't change what others show.
        columns: dict[str, list[Any]] = {}
        for name, observe in self._observers.items():
            columns[name] = observe(_generator(self._seed, "visits", name, str(block)), who)
        visits = []
        for i, viewer in enumerate(who):
            visit = Visit(
                number=block * BLOCK + i,
                unit=f"viewer-{viewer:05d}",
                context={name: column[i] for name, column in columns.items()},
                patience=float(self._patience[viewer]),
                luck=luck[i],
            )
            visits.append(visit)
        return visits


def _generator(seed: int, *parts: str) -> np.random.Generator:
    return np.random.default_rng(hash64(str(seed), *parts))


def _category(feature: Feature, rng: np.random.Generator, size: int) -> _Observe:
    """A favourite value, met four times in five; earlier values are more usual."""
    values = list(feature.values)
    # Zipf's law, as devices and regions have it.
    usual = 1.0 / np.arange(1, len(values) + 1)
    usual /= usual.sum()
    favourite = rng.choice(len(values), size=size, p=usual)

    def observe(rng: np.random.Generator, who: np.ndarray) -> list[Any]:
        other = rng.choice(len(values), size=who.size, p=usual)
        at = np.where(rng.random(who.size) < 0.8, favourite[who], other)
        return [values[i] for i in at]

    return observe


def _cycle(feature: Feature, rng: np.random.Generator, size: int) -> _Observe:
    """Most come in the evening (at 5/6 of the period), each around an own time."""
    habit = rng.normal(5 / 6, 0.12, size)

    def observe(rng: np.random.Generator, who: np.ndarray) -> list[Any]:
        # Around the clock: shortly after midnight is shortly before, too.
        phase = (habit[who] + rng.normal(0.0, 0.06, who.size)) % 1.0
        return list((np.floor(phase * feature.period * 10.0) / 10.0).tolist())

    return observe


def _vector(feature: Feature, rng: np.random.Generator, size: int) -> _Observe:
    """A taste: shares that sum to 1, most of it in a few keys, rounded as a service would send
    it.
    """
    taste = rng.dirichlet(np.full(len(feature.keys), 0.4), size).round(3)
    rows = [dict(zip(feature.keys, row, strict=True)) for row in taste.tolist()]
    return lambda _, who: [rows[i] for i in who]


def _number(feature: Feature, rng: np.random.Generator, size: int) -> _Observe:
    """Uniform between declared bounds, else standard normal; a viewer's own level with a little
    noise.
    """
    low, high = feature.low, feature.high
    bounded = low is not None and high is not None
    level = rng.random(size) if bounded else rng.standard_normal(size)

    def observe(rng: np.random.Generator, who: np.ndarray) -> list[Any]:
        now = level[who] + rng.normal(0.0, 0.05, who.size)
        if low is None or high is None:
            return list(now.round(3).tolist())
        return list((low + (high - low) * np.clip(now, 0.0, 1.0)).round(3).tolist())

    return observe


def _flag(_: Feature, rng: np.random.Generator, size: int) -> _Observe:
    lasting = rng.random(size) < 0.3
    return lambda _, who: lasting[who].tolist()


def _embedding(feature: Feature, rng: np.random.Generator, size: int) -> _Observe:
    """A lasting vector of standard normal numbers, as a table would give it."""
    rows = rng.standard_normal((size, feature.dimension)).round(3).tolist()
    return lambda _, who: [rows[i] for i in who]


def _text(_: Feature, rng: np.random.Generator, size: int) -> _Observe:
    """Three of fifty words."""
    picked = rng.integers(0, 50, (size, 3)).tolist()
    texts = [" ".join(f"word{number}" for number in numbers) for numbers in picked]
    return lambda _, who: [texts[i] for i in who]


def _id(feature: Feature, rng: np.random.Generator, size: int) -> _Observe:
    """One of a hundred ids."""
    ids = [f"{feature.name}-{number}" for number in rng.integers(0, 100, size).tolist()]
    return lambda _, who: [ids[i] for i in who]


_OBSERVERS: dict[str, Callable[[Feature, np.random.Generator, int], _Observe]] = {
    "category": _category,
    "cycle": _cycle,
    "vector": _vector,
    "number": _number,
    "flag": _flag,
    "text": _text,
    "embedding": _embedding,
    "id": _id,
}
