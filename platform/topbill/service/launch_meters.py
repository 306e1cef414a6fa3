"""Where launches stand, among the metrics: as the worker last published it in this data folder."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from topbill.domain.errors import TopbillError
from topbill.service import telemetry

if TYPE_CHECKING:
    from topbill.reporting.queries.launches import LaunchStanding

READ_EVERY = 15.0
"""Seconds between two looks, as often as Prometheus asks."""


class LaunchMeters:
    """Puts the launches of a data folder among the metrics."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._due = 0.0
        self._told: set[tuple[str, str, str]] = set()
        """What launches waited for: experiment, stage and reason."""

    def step(self, is_launched: bool) -> None:
        """Look again where that is due. Nothing is read while no file has a launch and none was
        told; of a record that cannot be read nothing is told anew."""
        if not (is_launched or self._told) or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + READ_EVERY
        # What reads the record is waited for only where there are launches.
        from topbill.reporting.queries.launches import launches

        with suppress(TopbillError):
            self._count(launches(self._data))

    def _count(self, standing: Iterable[LaunchStanding]) -> None:
        now = set()
        for launch in standing:
            now.add((launch.experiment, launch.stage, launch.reason))
            telemetry.LAUNCH_STEP.labels(launch.experiment).set(launch.step)
            taking_part = 0.0 if launch.stage == "over" else launch.traffic or 0.0
            telemetry.LAUNCH_TRAFFIC.labels(launch.experiment).set(taking_part)
        # Of several processes none can take a label back: what is over is 0.
        for labels in self._told | now:
            telemetry.LAUNCH_WAITS.labels(*labels).set(float(labels in now))
        self._told |= now
