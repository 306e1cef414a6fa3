"""A reward that comes when its decision is no longer whole in a shared log is checked against what
was shown, and stored with its experiment, without a look into the record.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.conftest import write
from tests.local_client import LocalClient

from topbill import lake, spec
from topbill.lake import Lake
from topbill.log import Log
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.spec import Experiment
from topbill.worker.publisher import Publisher


@pytest.fixture
def clients(url: str, folder: Path, tmp_path: Path) -> Iterator[list[TestClient]]:
    """Of two processes."""
    settings = Settings(folder, tmp_path / "data")
    with LocalClient(create_app(settings)) as one, LocalClient(create_app(settings)) as other:
        yield [one, other]


@pytest.fixture
def record(tmp_path: Path) -> Lake:
    (tmp_path / "data").mkdir(exist_ok=True)
    return Lake(tmp_path / "data")


@pytest.fixture(autouse=True)
def _no_look_into_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a decision was looked for in the record")

    monkeypatch.setattr(lake, "find_decisions", refuse)
    monkeypatch.setattr(Lake, "find_decisions", refuse)


def decide(client: TestClient, decision_id: str) -> str:
    """Decide, and give what was shown."""
    body = {"experiment": "art", "unit": "u", "decision_id": decision_id}
    return str(client.post("/v1/decide", json=body).json()["slate"][0]["action"])


def test_a_late_reward_is_attributed_from_a_stub(
    clients: list[TestClient], log: Log, record: Lake, folder: Path
) -> None:
    art = spec.load(folder / "art.yaml")
    publisher = Publisher(log, record, lambda: [art])
    decider, client = clients
    shown = decide(decider, "d")
    publisher.step()
    (seq, decision), *_ = log.read_decisions(0, 9)
    assert log.forget(seq, 2**62, 2**62) == 1
    reward = {"decision_id": "d", "event": "play", "action": "nothing that was shown"}
    assert client.post("/v1/reward", json=reward).status_code == 422
    for status in ("stored", "duplicate"):
        reward = {"decision_id": "d", "event": "play", "event_id": "e", "action": shown}
        assert client.post("/v1/reward", json=reward).json()["status"] == status
    publisher.step()
    (row,) = lake.sql(
        record.database_path,
        "SELECT experiment, variant, unit, item, epoch_us(decided_at) AS at FROM rewards",
    ).to_pylist()
    assert row == {
        "experiment": "art",
        "variant": decision.variant,
        "unit": "u",
        "item": shown,
        "at": decision.decided_at,
    }


def test_what_is_learned_and_published_goes_and_is_known_as_long_as_a_reward_may_count(
    log: Log, record: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows go an hour after they were learned; their stubs after the longest window."""
    asked: dict[str, float] = {}

    def note(name: str) -> None:
        def forget(*given: int) -> int:
            asked[name] = (time.time_ns() // 1_000 - given[-1]) / 3.6e9
            return 0

        monkeypatch.setattr(log, name, forget)

    for name in ("forget", "forget_ids"):
        note(name)
    text = (write(tmp_path / "e") / "art.yaml").read_text().replace("window: 1s", "window: 4d")
    arts: list[Experiment] = []
    for refit, whole in (("never", 25.0), ("daily", 97.0)):
        path = write(tmp_path / refit, f"{text}reward_delay: 24h\nrefit: {refit}\n") / "art.yaml"
        arts[:] = [spec.load(path)]
        publisher = Publisher(log, record, lambda: arts, learned=lambda: 0)
        publisher.step()
        assert asked["forget"] == pytest.approx(whole, abs=0.1)
        assert asked["forget_ids"] == pytest.approx(97.0, abs=0.1)
        assert publisher.known_for(arts) == 97.0 * 3_600.0, "and services are told so"
    Publisher(log, record, lambda: arts).step()
    assert asked["forget"] == pytest.approx(97.0, abs=0.1), "nobody says what is learned"
