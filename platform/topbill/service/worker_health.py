"""What a service can say of the worker beside it: whether it lives, keeps up, and had to set rows
aside.

A service decides and stores without a worker, so none of this makes it unready: a load balancer
that took it away would turn a late record into an outage. It is told by name, and is there to be
alarmed about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from topbill.domain.alarm import AlarmLine, standing
from topbill.log import Duty, Log
from topbill.service import telemetry
from topbill.worker.work_share import learning_lease

ALIVE_WITHIN = 30.0
"""Seconds since its last sign of life after which a worker is taken for dead or stuck. It gives one
every second, and between the parts of anything that takes longer."""
LAGGING_AFTER = 60.0
"""Seconds of lag after which it is a trouble; two or three are usual."""


class WorkerHealth(msgspec.Struct, frozen=True):
    """The worker as `/readyz` shows it.

    `lag_seconds` is how old the record in the lake is, from the last row that is sure to be there
    to now; None where nothing was published yet. `quarantined` is how many rows were set aside.
    """

    alive: bool
    lag_seconds: float | None
    quarantined: int


class Trouble(msgspec.Struct, frozen=True):
    """Something that does not keep a service from deciding: a code that stays, and a sentence."""

    code: str
    message: str


def worker_health(log: Log) -> WorkerHealth:
    """The worker's health by what it left in the log. Raises LogError."""
    quarantined = sum(log.quarantine_counts().values())
    beat = log.heartbeat()
    if beat is None:
        return WorkerHealth(alive=False, lag_seconds=None, quarantined=quarantined)
    now = log.now()
    lag = None
    if beat.published_at:
        lag = round(max(0.0, (now - beat.published_at) / 1e6), 1)
    # A sign of life from the future is one: clocks that differ are no reason to call it dead.
    alive = (now - beat.at) / 1e6 <= ALIVE_WITHIN
    return WorkerHealth(alive=alive, lag_seconds=lag, quarantined=quarantined)


def troubles(health: WorkerHealth) -> list[Trouble]:
    """What of it somebody should look at."""
    lines = []
    lag = health.lag_seconds
    if not health.alive:
        last = "nothing was ever published" if lag is None else f"the record is {lag:,.0f} s old"
        lines.append(
            Trouble(
                "worker_not_alive",
                f"no sign of life for {ALIVE_WITHIN:.0f} s, and {last}; start `topbill worker`",
            )
        )
    elif lag is not None and lag > LAGGING_AFTER:
        lines.append(
            Trouble("worker_lagging", f"the record is {lag:,.0f} s old; the worker's log says why")
        )
    if health.quarantined:
        lines.append(
            Trouble(
                "rows_quarantined",
                f"rows set aside: {health.quarantined:,}; see `topbill sql 'from quarantine'`",
            )
        )
    return lines


class Duties(NamedTuple):
    """What workers last said of what they do, and when it is now (µs)."""

    said: dict[str, Duty]
    now: int

    @property
    def current(self) -> dict[str, Duty]:
        """Those that somebody does now."""
        since = self.now - ALIVE_WITHIN * 1e6
        return {name: duty for name, duty in self.said.items() if duty.at >= since}


def duties(log: Log) -> Duties:
    """What workers do. Raises LogError."""
    return Duties(log.duties(), log.now())


def learning_troubles(duties: Duties, experiments: Iterable[str]) -> list[Trouble]:
    """What somebody should look at of how experiments are learned. Of one that nobody has learned
    yet nothing is said. Not what goes wrong: anybody may read this.
    """
    lines = []
    for key in experiments:
        name = learning_lease(key)
        duty = duties.said.get(name)
        if duty is None:
            continue
        if name not in duties.current:
            seconds = (duties.now - duty.at) / 1e6
            message = f"{key}: no worker has said that it learns it for {seconds:,.0f} s"
            lines.append(Trouble("learned_by_nobody", message))
        elif duty.failing:
            message = f"{key} learns nothing for now; the worker's log and `topbill status` say why"
            lines.append(Trouble("learning_fails", message))
        elif duty.behind:
            lines.append(Trouble("learning_behind", f"{key}: {duty.behind}"))
    return lines


def count_learning(duties: Duties, experiments: Iterable[str]) -> None:
    """Put how long decisions wait to be learned among the metrics."""
    for key in experiments:
        duty = duties.said.get(learning_lease(key))
        if duty is not None:
            telemetry.LEARNING_LAG.labels(key).set(duty.lag)


def count_alarms(lines: Iterable[AlarmLine]) -> None:
    """Put the alarms of the log among the metrics: how many stand of each kind, 0 once it is
    over."""
    lines = list(lines)
    counts = Counter((line.kind, line.experiment) for line in standing(lines))
    for kind, experiment in {(line.kind, line.experiment) for line in lines}:
        telemetry.ALARMS.labels(kind, experiment).set(counts[kind, experiment])


def count(health: WorkerHealth) -> None:
    """Put it among the metrics."""
    telemetry.QUARANTINED.set(health.quarantined)
    telemetry.WORKER_ALIVE.set(float(health.alive))
    if health.lag_seconds is not None:
        telemetry.WORKER_LAG.set(health.lag_seconds)
