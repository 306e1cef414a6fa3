"""Who moves the journal into the log: the service alone, or mostly the worker beside it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from topbill.log.sqlite import SqliteLog
from topbill.service import follower as following
from topbill.service.app import create_app
from topbill.service.follower import Follower
from topbill.service.settings import Settings


def test_beside_a_worker_the_service_tends_the_log_less_often(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tended: list[SqliteLog] = []
    tend = SqliteLog.tend

    def counting(log: SqliteLog, *, thorough: bool = False) -> None:
        tended.append(log)
        tend(log, thorough=thorough)

    settings = Settings(folder, tmp_path / "data")
    engine = create_app(settings).engine
    with closing(Follower(settings, engine)) as follower, closing(settings.open_log()) as log:
        monkeypatch.setattr(SqliteLog, "tend", counting)
        for _ in range(5):
            follower.step()
        assert len(tended) == 5
        log.beat(0)
        follower.step()  # which sees the worker for the first time
        tended.clear()
        for _ in range(2 * following._TEND_EVERY):
            follower.step()
        assert len(tended) == 2
