"""Asking the code of a package: whatever it raises or answers is told with the package's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from topbill.domain.errors import PolicyError

_T = TypeVar("_T")


class Asked(NamedTuple):
    """A model of a package, as what is wrong with it is said: `acme-models 1.2: ranker`."""

    package: str
    name: str

    def ask(self, what: str, call: Callable[[], _T]) -> _T:
        """What the call gives. Raises PolicyError for whatever it raises but want of memory."""
        try:
            return call()
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:
            raise self.wrong(what, f"{type(error).__name__}: {error}") from error

    def numbers(
        self, what: str, call: Callable[[], Any], size: int, of: str
    ) -> NDArray[np.float64]:
        """The call's answer as (size,) numbers of its own, one per `of`. Raises PolicyError."""
        answer = self.ask(what, call)
        try:
            numbers = np.array(answer, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self.wrong(what, f"{type(answer).__name__}: {error}") from error
        if numbers.shape != (size,):
            raise self.wrong(what, f"shape {numbers.shape}; expected ({size},), one per {of}")
        return numbers

    def wrong(self, what: str, why: str) -> PolicyError:
        """That something of it is not as it must be."""
        return PolicyError(f"{self.package}: {self.name}: {what}: {why}")
