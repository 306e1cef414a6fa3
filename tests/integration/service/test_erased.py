"""What comes late of an erased viewer is answered by name, and does not bring them back."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from topbill.lake import DATABASE, Lake, sql
from topbill.log import open_log
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.spec import load_all
from topbill.worker.erasure import erase_unit, find_unit
from topbill.worker.publisher import Publisher

from ...small_page import Home, home

__all__ = ["home"]
ORDER = {
    "experiment": "artwork",
    "decision_id": "order-1",
    "unit": "u7",
    "actions": [{"id": "warm"}, {"id": "cold"}],
}
PLAY = {"decision_id": "order-1", "event": "play", "event_id": "late"}
START = {"unit": "u7", "unit_type": "profile_id", "event": "session_start"}


@pytest.fixture
def settings(home: Home, tmp_path: Path) -> Settings:
    return Settings(home.folder, tmp_path / "data")


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def caller(settings: Settings) -> TestClient:
    return TestClient(create_app(settings), base_url="http://localhost:8600")


def test_a_running_service_drops_what_it_has_in_memory(settings: Settings) -> None:
    app = create_app(settings)
    pages: Any = app._pages

    def plays(unit: str) -> tuple[str, ...]:
        page = pages.compiled_pages["home"]
        watched: tuple[str, ...] = (
            pages._histories["home"].known(unit, page.file.rules, 0.0).watched
        )
        return watched

    with TestClient(app, base_url="http://localhost:8600") as client:
        assert client.post("/v1/decide", json=ORDER).status_code == 200
        for viewer in ("u7", "u8"):
            page = {"page": "home", "profile": viewer, "page_id": f"p-{viewer}"}
            first = client.post("/v1/page", json=page).json()["rows"][0]["titles"][0]["title"]
            play = {"decision_id": f"page-p-{viewer}", "event": "play", "action": first}
            assert client.post("/v1/reward", json=play).json()["status"] == "stored"
        until(lambda: plays("u7") != ())
        erase_unit(settings.data, "u7")
        until(lambda: plays("u7") == ())
        assert plays("u8") != ()
        assert not app.rewards._slates
        for decision_id in ("page-p-u7", "order-1"):
            late = {"decision_id": decision_id, "event": "play", "event_id": "late"}
            assert client.post("/v1/reward", json=late).json()["status"] == "unknown_decision"


def test_what_comes_late_of_an_erased_viewer_is_not_stored(settings: Settings) -> None:
    before = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    with caller(settings) as client:
        assert client.post("/v1/decide", json=ORDER).status_code == 200
        started = client.post("/v1/event", json={**START, "event_id": "e1", "at": before})
        assert started.json()["status"] == "stored"
        erase_unit(settings.data, "u7")
        # The running service knows it too, alone and among others.
        event = {**START, "event_id": "e2", "at": before}
        assert client.post("/v1/event", json=event).json()["status"] == "erased"
        events = [event, {**event, "unit": "u8"}, {**START, "unit": "u9"}]
        answer = client.post("/v1/event/batch", json={"events": events}).json()
        assert [each["status"] for each in answer["results"]] == ["erased", "stored", "stored"]
        assert 'topbill_events_total{status="erased"} 2.0' in client.get("/metrics").text
    with caller(settings) as client:
        assert client.post("/v1/reward", json=PLAY).json()["status"] == "unknown_decision"
        again = client.post("/v1/decide", json=ORDER)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "already_decided")
    rows = find_unit(settings.data, "u7")
    assert (rows.decisions, rows.rewards, rows.events) == ({}, {}, set())
    with caller(settings) as client:
        # Who comes back is a new viewer.
        assert client.post("/v1/event", json=START).json()["status"] == "stored"
    experiments = load_all([settings.experiments])
    with open_log(settings.log_path) as log:
        Publisher(log, Lake(settings.data), lambda: experiments).step()
    counted = sql(settings.data / DATABASE, "SELECT unit FROM events ORDER BY unit").to_pylist()
    assert [row["unit"] for row in counted] == ["u7", "u8", "u9"]
