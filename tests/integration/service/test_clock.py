"""A service whose machine's clock was set says so, is not ready for a minute, and serves on."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from starlette.testclient import TestClient

from topbill.domain.records import Decision
from topbill.log import Log, now_micros, open_log
from topbill.log.log_time import SETTLED
from topbill.service.app import create_app
from topbill.service.settings import Settings

DAY = 86_400_000_000


def test_a_clock_that_was_ahead_makes_it_unready_for_a_minute_and_no_longer(
    folder: Path, tmp_path: Path
) -> None:
    settings = Settings(folder, tmp_path / "data")
    ahead = Decision(
        decision_id="ahead",
        experiment="art",
        revision="r",
        variant=None,
        unit="u",
        policy="fixed",
        reason="policy",
    )
    with open_log(settings.log_path, clock=lambda: now_micros() + DAY) as log:
        log.append([ahead])
        log.tend()
    with TestClient(create_app(settings), base_url="http://localhost:8600") as client:
        unready = client.get("/readyz")
        assert unready.status_code == 503
        (trouble,) = unready.json()["troubles"]
        assert trouble["code"] == "clock_jumped"
        assert "went back by 23:59:" in trouble["message"]
        for number in range(3):
            body = {"experiment": "art", "decision_id": f"d{number}"}
            assert client.post("/v1/decide", json=body).status_code == 200
        with open_log(settings.log_path) as log:
            assert_stamped_now(log)
        with closing(sqlite3.connect(settings.log_path)) as connection, connection:
            connection.execute("UPDATE clock_steps SET at = at - ?", (SETTLED,))
        assert client.get("/readyz").status_code == 200


def assert_stamped_now(log: Log) -> None:
    times = [decision.decided_at / 1e6 for _, decision in log.read_decisions(0, 9)]
    assert times[0] > time.time() + 80_000
    assert all(abs(at - time.time()) < 60 for at in times[1:])
    assert times[1:] == sorted(set(times[1:]))
