"""A log whose clock is moved by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from topbill.log import Log, open_log


class Clock:
    """The log's clock, in µs."""

    def __init__(self) -> None:
        self.now = 2_000_000 * 1_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[Log]:
    log = open_log(tmp_path / "log.sqlite", clock=lambda: clock.now)
    yield log
    log.close()
