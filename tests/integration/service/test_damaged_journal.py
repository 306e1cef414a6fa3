"""A service that finds its journal damaged acknowledges nothing more, and says so."""

from __future__ import annotations

import time

from starlette.testclient import TestClient

from topbill.service.settings import Settings


def decide(client: TestClient, name: str) -> int:
    body = {"experiment": "art", "unit": "u", "decision_id": name}
    return client.post("/v1/decide", json=body).status_code


def test_nothing_is_acknowledged_into_a_damaged_journal(
    client: TestClient, settings: Settings
) -> None:
    journal = settings.log_path.with_suffix(".journal")
    # Within a third of a second somebody moves them into the tables; damage must come before that.
    for attempt in range(20):
        assert decide(client, f"d{attempt}") == 200
        with journal.open("r+b") as file:
            file.seek(40)
            (before,) = file.read(1)
            file.seek(40)
            file.write(bytes([before ^ 1]))
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and client.get("/readyz").status_code == 200:
            time.sleep(0.05)
        if client.get("/readyz").status_code == 503:
            break
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "damaged" in answer.text
    assert decide(client, "after") == 503
    assert client.get("/readyz").status_code == 503
