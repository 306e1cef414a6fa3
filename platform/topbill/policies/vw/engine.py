"""What is asked of a build of Vowpal Wabbit, and which build is here.

`vowpal-wabbit-next` has wheels for x86-64 up to Python 3.12; where it has none, pip installs
mainline `vowpalwabbit` instead. They predict the same from the same state, and each continues from
what the other stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module, util
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topbill.domain.errors import PolicyError

Hashes = NDArray[np.uint64]
Values = NDArray[np.float32]
Features = Mapping[int, tuple[Hashes, Values]]
"""Namespace (a character's number) → hashes of its features, and their values."""

MODULES = {
    "vowpal-wabbit-next": ("vowpal_wabbit_next", "topbill.policies.vw.next_engine"),
    "vowpalwabbit": ("vowpalwabbit", "topbill.policies.vw.mainline"),
}
"""Each build's package: the module that it installs, and ours that speaks to it. The first that is
installed is taken."""


class Workspace(Protocol):
    """A model of VW in memory, with what it needs to learn on. Not thread-safe."""

    def encode(self, features: Features, *, shared: bool = False) -> Any:
        """An example without a label, to be used in any number of calls below."""
        ...

    def predict(self, shared: Features, actions: Sequence[Any]) -> Sequence[tuple[int, float]]:
        """(place among `actions`, probability) of each action, in any order, in a context of these
        features. Weights stay."""
        ...

    def learn(
        self, shared: Any, actions: Sequence[Any], chosen: int, cost: float, probability: float
    ) -> None:
        """Learn that the action at place `chosen`, chosen with `probability`, had that cost."""
        ...

    def serialize(self) -> bytes:
        """The model as a file of VW has it, with all that later learning depends on."""
        ...

    def weights(self) -> dict[int, list[float]]:
        """Each weight that is not zero, with what is stored beside it for its learning rate."""
        ...


def read_weights(text: str) -> dict[int, list[float]]:
    """The weights in VW's readable form of a model: lines such as `18588:-4.12 0.34 0.65`."""
    weights: dict[int, list[float]] = {}
    for line in text.splitlines():
        match = re.match(r"(\d+):(\S.*)", line)
        if match:
            weights[int(match[1])] = [float(number) for number in match[2].split()]
    return weights


class VwEngine(Protocol):
    """A build of VW."""

    name: str
    """Its package and versions, such as "vowpalwabbit 9.11.9"."""

    def open(self, command: list[str], model: bytes | None) -> Workspace:
        """A workspace with these options, or one that continues from `model`, which carries its
        own.

        Raises PolicyError for options or a model that VW refuses.
        """
        ...


@lru_cache
def engine(package: str | None = None) -> VwEngine:
    """The engine of a package, by default the first that is installed.

    Raises:
        PolicyError: None is.
    """
    for name, (module, adapter) in MODULES.items():
        if package in (None, name) and util.find_spec(module) is not None:
            chosen: VwEngine = import_module(adapter).ENGINE
            return chosen
    wanted = package or " or ".join(MODULES)
    raise PolicyError(f"vw: {wanted} is not installed here; pip install vowpalwabbit")
