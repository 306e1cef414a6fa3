"""Poison cannot enter: what is stored was looked at whole, at every door alike, and what every
reader cannot read is refused by name.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from topbill.log import Log
from topbill.service.settings import Settings

from ...small_page import Home, home, home_class

__all__ = ["home", "home_class"]
PERSONALIZER = Path(__file__).parents[3] / "experiments" / "personalizer.yaml"


@pytest.fixture
def settings(home: Home, tmp_path: Path) -> Settings:
    """A service with every door: an experiment, a page, and Personalizer's."""
    shutil.copy(PERSONALIZER, home.folder)
    return Settings(home.folder, tmp_path / "data")


FLAWS: dict[str, bytes] = {
    "not UTF-8": b'"\xff"',
    "an encoded surrogate": b'"\xed\xa0\x80"',
    "half a pair": b'"\\ud800"',
    "a number past every double": b"1e999",
    "NaN": b"NaN",
    "a name twice": b'{"x":1,"x":2}',
    "900 levels": b"[" * 900 + b"]" * 900,
    "65 levels": b"[" * 65 + b"]" * 65,
}
DOORS: dict[str, tuple[str, str]] = {
    "payload": ("/v1/decide", '{"experiment":"art","actions":[{"id":"a","payload":%s}]}'),
    "payload, keyed": (
        "/v1/decide",
        '{"decision_id":"d","experiment":"art","actions":[{"id":"a","payload":%s}]}',
    ),
    "inside a payload": (
        "/v1/decide",
        '{"experiment":"art","actions":[{"id":"a","payload":{"image":[%s]}}]}',
    ),
    "context": ("/v1/decide", '{"experiment":"art","context":{"device":%s}}'),
    "unit": ("/v1/decide", '{"experiment":"art","unit":%s}'),
    "batch": (
        "/v1/decide/batch",
        '{"decisions":[{"experiment":"art"},'
        '{"experiment":"art","actions":[{"id":"a","payload":%s}]}]}',
    ),
    "reward": ("/v1/reward", '{"decision_id":%s,"event":"play"}'),
    "rewards": ("/v1/reward/batch", '{"rewards":[{"decision_id":"d","event":%s}]}'),
    "event": ("/v1/event", '{"unit":%s,"event":"back"}'),
    "events": ("/v1/event/batch", '{"events":[{"unit":"u","event":"back","event_id":%s}]}'),
    "page": ("/v1/page", '{"page":"home","context":{"taste":%s}}'),
    "page, keyed": ("/v1/page", '{"page":"home","page_id":"p","context":{"taste":%s}}'),
    "rank": (
        "/personalizer/v1.0/rank",
        '{"actions":[{"id":"a","features":[{"x":%s}]}],"contextFeatures":[]}',
    ),
    "multislot": (
        "/personalizer/v1.1-preview.3/multislot/rank",
        '{"actions":[{"id":"a","features":[{"x":%s}]}],"slots":[{"id":"s","baselineAction":"a"}]}',
    ),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_poison_is_refused_at_every_door_with_its_place(
    client: TestClient, log: Log, flaw: str
) -> None:
    for door, (path, body) in DOORS.items():
        before, _, after = body.encode().partition(b"%s")
        answer = client.post(path, content=before + FLAWS[flaw] + after)
        assert answer.status_code in (400, 422), (door, answer.text)
        error = answer.json()["error"]
        assert error["message"]
        assert (error.get("path") or error.get("target")).startswith("$"), door
    assert log.read_decisions(0, 10) == log.read_events(0, 10) == log.read_unit_events(0, 10) == []


def test_the_same_request_is_judged_alike_with_and_without_an_id(client: TestClient) -> None:
    for flaw in FLAWS.values():
        answers = []
        for key in (b"", b'"decision_id":"d",'):
            body = b'{%s"experiment":"art","actions":[{"id":"a","payload":%s}]}' % (key, flaw)
            answer = client.post("/v1/decide", content=body)
            answers.append((answer.status_code, answer.json()["error"].get("path")))
        assert answers[0] == answers[1]
