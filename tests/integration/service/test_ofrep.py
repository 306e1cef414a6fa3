"""OFREP: experiments evaluated as flags, one at a time and all at once, and what counts of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from topbill.log import Log, open_log
from topbill.log.unit_ids import SETTINGS
from topbill.service.app import create_app
from topbill.service.deferred import row_id
from topbill.service.settings import Settings

from ...local_client import LocalClient

FLAGS = "/ofrep/v1/evaluate/flags"
_EXPERIMENT = """
experiment: {key}
title: A banner
owner: web
hypothesis: It pays.
surface: artwork
unit: profile_id
status: {status}
slots: {slots}
context:
  device: {{type: category, values: [tv, web]}}
  taste: {{type: vector, keys: [action, drama]}}
actions:
  - {{id: one, payload: {one}}}
  - {{id: two}}
metrics:
  play: {{event: play, kind: binary, window: 30m}}
objective: {{play: 1.0}}
variants:
  control: {{policy: fixed, order: [one, two], share: 50%, control: true}}
  other: {{policy: uniform, share: 50%}}
"""


def _write(folder: Path, key: str, **said: str) -> None:
    filled = {"status": "running", "slots": "1", "one": "{image: one.svg}"} | said
    (folder / f"{key}.yaml").write_text(_EXPERIMENT.format(key=key, **filled))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "experiments"
    folder.mkdir()
    _write(folder, "banner")
    _write(folder, "paused", status="paused", one="true")
    _write(folder, "row", slots="2")
    return Settings(folder, tmp_path / "data")


def _context(**more: Any) -> dict[str, Any]:
    return {"context": {"targetingKey": "mia", **more}}


def _one(client: TestClient, key: str, **more: Any) -> Any:
    return client.post(f"{FLAGS}/{key}", json=_context(**more))


def _all(client: TestClient, etag: str = "", **more: Any) -> Any:
    return client.post(FLAGS, json=_context(**more), headers={"if-none-match": etag})


def test_a_flag_is_a_decision_like_any_other(client: TestClient, log: Log) -> None:
    # Given a context with more than the experiment declares, its vector in flat keys
    sent = {"device": "web", "taste.action": 0.5, "email": "m@example.org", "tasteful": 1}

    # When its flag is evaluated
    answer = _one(client, "banner", **sent)

    # Then the decision is in the log with what was declared, and the answer names it
    assert answer.status_code == 200
    flag = answer.json()
    decision = log.decision(flag["metadata"]["decisionId"])
    assert decision is not None
    assert decision.unit == "mia"
    assert bytes(decision.context) == b'{"taste":{"action":0.5},"device":"web"}'
    assert flag["key"] == "banner"
    assert flag["reason"] == "SPLIT"
    assert flag["variant"] == decision.slate[0].action
    assert flag["value"] == ({"image": "one.svg"} if flag["variant"] == "one" else "two")
    assert flag["metadata"]["propensity"] == decision.propensity
    assert flag["metadata"]["experimentVariant"] == decision.variant


def test_a_viewer_has_one_variant_at_every_door(client: TestClient) -> None:
    decided = client.post("/v1/decide", json={"experiment": "banner", "unit": "mia"}).json()
    assert _one(client, "banner").json()["metadata"]["experimentVariant"] == decided["variant"]


def test_more_slots_are_an_object_with_the_slate(client: TestClient) -> None:
    flag = _one(client, "row").json()
    slate = flag["value"]["slate"]
    assert sorted(item["action"] for item in slate) == ["one", "two"]
    assert flag["variant"] == ",".join(item["action"] for item in slate)
    payloads = {item["action"]: item.get("payload") for item in slate}
    assert payloads == {"one": {"image": "one.svg"}, "two": None}


def test_what_does_not_run_is_disabled_and_has_the_controls_value(client: TestClient) -> None:
    flag = _one(client, "paused").json()
    assert (flag["reason"], flag["value"]) == ("DISABLED", True)


@pytest.mark.parametrize(
    ("key", "body", "status", "code"),
    [
        ("nothing", b'{"context": {"targetingKey": "mia"}}', 404, "FLAG_NOT_FOUND"),
        ("banner", b'{"context": {}}', 400, "TARGETING_KEY_MISSING"),
        ("banner", b'{"context": {"targetingKey": ""}}', 400, "TARGETING_KEY_MISSING"),
        ("banner", b'{"context": {"targetingKey": 7}}', 400, "INVALID_CONTEXT"),
        ("banner", b'{"context": {"targetingKey": "m", "device": 3}}', 400, "INVALID_CONTEXT"),
        ("banner", b'{"context": {"targetingKey": "m", "taste.action": "x"}}', 400, None),
        ("banner", b'{"context": []}', 400, "INVALID_CONTEXT"),
        ("banner", b"{}", 400, "INVALID_CONTEXT"),
        ("banner", b"{", 400, "PARSE_ERROR"),
        ("banner", b'{"context": {"a": ' + b"9" * 1_000_001 + b"}}", 400, "PARSE_ERROR"),
    ],
)
def test_a_refusal_is_in_the_protocols_words(
    client: TestClient, key: str, body: bytes, status: int, code: str | None
) -> None:
    answer = client.post(
        f"{FLAGS}/{key}", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status
    refusal = answer.json()
    assert refusal["key"] == key
    assert refusal["errorCode"] == (code or "INVALID_CONTEXT")
    assert refusal["errorDetails"]


def test_all_flags_are_evaluated_at_once(client: TestClient) -> None:
    flags = {flag["key"]: flag for flag in _all(client, device="tv").json()["flags"]}
    assert flags.keys() == {"banner", "paused", "row"}
    assert "decisionId" not in flags["paused"]["metadata"]


def test_a_flag_that_cannot_be_had_stops_no_other(client: TestClient, settings: Settings) -> None:
    answer = client.post(FLAGS, json={"context": {"device": "tv"}})
    assert answer.status_code == 200
    codes = {flag["errorCode"] for flag in answer.json()["flags"]}
    assert codes == {"TARGETING_KEY_MISSING"}


def test_the_tag_of_all_flags_follows_the_context(client: TestClient) -> None:
    first = _all(client, device="tv")
    etag = first.headers["etag"]

    again = _all(client, etag, device="tv")
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    assert _all(client, f'"x", W/{etag}', device="tv").status_code == 304
    assert _all(client, etag, device="web").status_code == 200


def test_what_was_evaluated_for_later_counts_once_it_is_shown(client: TestClient, log: Log) -> None:
    # Given all flags of a page
    flags = {flag["key"]: flag for flag in _all(client, device="tv").json()["flags"]}
    shown, other = (flags[key]["metadata"]["decisionId"] for key in ("banner", "row"))
    assert log.decision(shown) is None

    # When one of them is told to be seen, twice, and then played
    events = ("seen", "seen", "play")
    answers = []
    for event in events:
        reward = {"decision_id": shown, "event": event, "event_id": event}
        answers.append(client.post("/v1/reward", json=reward).json()["status"])

    # Then it is a decision of its experiment, with its propensity, and has its rewards once
    assert answers == ["stored", "duplicate", "stored"]
    decision = log.decision(shown)
    assert decision is not None
    assert decision.experiment == "banner"
    assert decision.propensity == flags["banner"]["metadata"]["propensity"]
    assert [event.event for event in log.events(shown)] == ["seen", "play"]

    # And the other is none
    assert log.decision(other) is None


def test_a_viewers_id_is_stored_hashed_where_all_are(settings: Settings) -> None:
    # Given a data folder whose units are hashed
    settings.data.mkdir(parents=True)
    (settings.data / SETTINGS).write_text("hash_units: true\n")
    with LocalClient(create_app(settings)) as client, closing(open_log(settings.log_path)) as log:
        # When all flags are evaluated, and one is shown
        (flag, *_) = _all(client).json()["flags"]
        shown = flag["metadata"]["decisionId"]
        client.post("/v1/reward", json={"decision_id": shown, "event": "seen"})

        # Then neither the decision nor what stood for it before has the id
        rows = [log.decision(shown), log.decision(row_id(shown))]
    for row in rows:
        assert row is not None
        assert row.unit != "mia"
        assert b"mia" not in bytes(row.context)
