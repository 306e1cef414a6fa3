"""Which experiments each of several workers learns: as many as every other, but for one, and those
of a worker that is gone at once.

Nobody tells anybody what to do. Every worker looks at who holds what, as the log's leases say, and
comes to the same numbers: it gives back what it has too much, and takes what is free.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection

from topbill.log.protocol import Leases

WORKER = "worker"
"""The lease that every worker shares with the others, and that whoever wants no worker at work
takes alone."""
PUBLISH = "publish"
"""The lease, and the duty, of whoever publishes."""
LOOK_EVERY = 0.25
"""Seconds between two looks at who holds what."""


def this_worker() -> str:
    """How this process is called by others: its host and its number there."""
    return f"{socket.gethostname()}:{os.getpid()}"


def learning_lease(experiment: str) -> str:
    """The name of the lease, and of the duty, of learning an experiment."""
    return f"learn:{experiment}"


class WorkShare:
    """The experiments that this worker holds, of those that there are.

    Args:
        leases: Its leases, among them `WORKER`.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._looked_at = 0.0
        self.held: frozenset[str] = frozenset()
        """The keys of the experiments that are its own."""
        self.workers = 1
        """How many workers were at work at the last look."""

    def look(self, keys: Collection[str]) -> frozenset[str]:
        """Give back and take, where it is time to look; returns what it holds then.

        Args:
            keys: All experiments.

        Raises LogError where all leases were lost, or nobody can tell.
        """
        if time.monotonic() - self._looked_at < LOOK_EVERY and self.held <= set(keys):
            return self.held
        self._looked_at = time.monotonic()
        for key in self.held - set(keys):
            self._give_back(key)
        names = {learning_lease(key): key for key in sorted(keys)}
        holders = self._leases.holders([WORKER, *names])
        workers = set(holders.pop(WORKER, [])) | {self._leases.me}
        self.workers = len(workers)
        counts = dict.fromkeys(workers, 0)
        for held_by in holders.values():
            for each in held_by:
                counts[each] = counts.get(each, 0) + 1
        share = fair_share(self._leases.me, counts, len(names))
        for key in sorted(self.held)[share:]:
            self._give_back(key)
        for name in names.keys() - holders.keys():
            if len(self.held) >= share:
                break
            # Another one may have been faster.
            if self._leases.take(name):
                self.held |= {names[name]}
        return self.held

    def _give_back(self, key: str) -> None:
        self._leases.give_back(learning_lease(key))
        self.held -= {key}


def fair_share(me: int, counts: dict[int, int], experiments: int) -> int:
    """How many of the experiments one of the workers should hold, by how many each holds now.

    Where they do not come out even, those have one more that hold most already: so as few as can be
    change hands.

    >>> [fair_share(worker, {1: 4, 2: 3, 3: 0}, 7) for worker in (1, 2, 3)]
    [3, 2, 2]
    """
    least, more = divmod(experiments, len(counts))
    order = sorted(counts, key=lambda worker: (-counts[worker], worker))
    return least + (order.index(me) < more)
