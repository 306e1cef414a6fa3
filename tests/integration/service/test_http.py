"""Over HTTP: what is answered is stored, the same id gets the same answer, and bad input gets a
name, never a 500.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from topbill import process_log
from topbill.domain.errors import LogError, TopbillError
from topbill.engine import Engine
from topbill.log import Log, open_log
from topbill.log.sqlite import SqliteLog
from topbill.service import auth, fast_path
from topbill.service.app import create_app
from topbill.service.follower import Follower
from topbill.service.keys import Keys
from topbill.service.settings import Settings

from ...local_client import LocalClient


def decide(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/decide", json={"experiment": "art", **body})


def reward(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/reward", json=body)


def meter(client: TestClient, line: str) -> float:
    """The value of a line of /metrics; 0 where it is not there yet."""
    return next(
        (
            float(x.split()[-1])
            for x in client.get("/metrics").text.splitlines()
            if x.startswith(line)
        ),
        0.0,
    )


def stored(log: Log) -> int:
    return len(log.read_decisions(0, 10_000))


# ---------------------------------------------------------------------- decide


def test_an_answered_decision_is_in_the_log_with_the_propensity_that_was_answered(
    client: TestClient, log: Log
) -> None:
    answer = decide(client, unit="u1", context={"device": "tv", "hour": 21}).json()
    held = log.decision(answer["decision_id"])
    assert held is not None
    item = answer["slate"][0]
    assert (held.slate[0].action, held.slate[0].propensity) == (item["action"], item["propensity"])
    assert item["payload"] == {"image": f"{item['action']}.svg"}
    assert answer["propensity"] == item["propensity"]
    assert answer["reason"] == "policy"
    assert json.loads(bytes(held.context)) == {"device": "tv", "hour": 21}


def test_a_repeated_decide_returns_the_stored_decision(client: TestClient, log: Log) -> None:
    first = decide(
        client, unit="u", decision_id="once", context={"device": "tv", "hour": 1}, slots=2
    )
    again = decide(
        client, unit="u", decision_id="once", slots=2, context={"hour": 1, "device": "tv"}
    )
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert stored(log) == 1


def test_the_same_id_with_another_body_is_a_conflict(client: TestClient, log: Log) -> None:
    decide(client, unit="u", decision_id="once")
    answer = decide(client, unit="someone else", decision_id="once")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    batch = {
        "decisions": [
            {"experiment": "art"},
            {"experiment": "art", "unit": "v", "decision_id": "once"},
        ]
    }
    assert client.post("/v1/decide/batch", json=batch).status_code == 409
    assert stored(log) == 1


def test_a_repeated_decide_is_the_same_after_the_file_has_changed(
    client: TestClient, settings: Settings, folder: Path
) -> None:
    first = decide(client, unit="u", decision_id="once").json()
    file = folder / "art.yaml"
    file.write_text(file.read_text().replace(".svg", ".png"))
    with LocalClient(create_app(settings)) as later:
        assert decide(later, unit="u", decision_id="once").json() == first
        assert ".png" in decide(later, unit="u").text


def test_a_batch_is_decided_in_order_and_stored_whole(client: TestClient, log: Log) -> None:
    batch = [{"experiment": "art", "unit": f"u{i}", "slots": 1 + i % 3} for i in range(40)]
    answers = client.post("/v1/decide/batch", json={"decisions": batch}).json()["decisions"]
    assert [len(a["slate"]) for a in answers] == [1 + i % 3 for i in range(40)]
    assert stored(log) == 40


def test_one_bad_request_refuses_the_whole_batch(client: TestClient, log: Log) -> None:
    batch = [{"experiment": "art"}, {"experiment": "art", "context": {"hour": "noon"}}]
    answer = client.post("/v1/decide/batch", json={"decisions": batch})
    assert answer.status_code == 422
    assert answer.json()["error"]["path"] == "$.decisions[1].context.hour"
    twice = [{"experiment": "art", "decision_id": "d"}, {"experiment": "art", "decision_id": "d"}]
    assert client.post("/v1/decide/batch", json={"decisions": twice}).status_code == 422
    assert (
        client.post(
            "/v1/decide/batch", json={"decisions": [*batch[:1], {"experiment": "no"}]}
        ).status_code
        == 404
    )
    assert stored(log) == 0


# ---------------------------------------------------------------------- reward


def test_a_reward_is_stored_once_and_retried_as_a_duplicate(client: TestClient, log: Log) -> None:
    decision_id = decide(client, unit="u").json()["decision_id"]
    body = {
        "decision_id": decision_id,
        "event": "play",
        "event_id": "e1",
        "at": "2026-11-20T10:00:00+01:00",
    }
    assert reward(client, **body).json() == {
        "status": "stored",
        "decision_id": decision_id,
        "event_id": "e1",
    }
    assert reward(client, **body).json()["status"] == "duplicate"
    (event,) = log.events(decision_id)
    assert (event.event, event.value, event.occurred_at) == ("play", 1.0, 1_795_165_200_000_000)


def test_events_without_an_id_are_different_events(client: TestClient, log: Log) -> None:
    decision_id = decide(client, unit="u").json()["decision_id"]
    for _ in range(2):
        assert reward(client, decision_id=decision_id, event="play").json()["status"] == "stored"
    assert len(log.events(decision_id)) == 2


def test_a_reward_of_an_unknown_decision_is_not_stored_and_says_so(
    client: TestClient, log: Log
) -> None:
    answer = reward(client, decision_id="never made", event="play")
    assert (answer.status_code, answer.json()["status"]) == (200, "unknown_decision")
    assert log.read_events(0, 10) == []


def test_an_item_of_the_slate_is_named_by_action_or_position(client: TestClient, log: Log) -> None:
    answer = decide(client, unit="u", slots=3).json()
    decision_id, shown = answer["decision_id"], [item["action"] for item in answer["slate"]]
    reward(client, decision_id=decision_id, event="play", action=shown[2])
    reward(client, decision_id=decision_id, event="play", position=1)
    assert [(e.action, e.position) for e in log.events(decision_id)] == [
        (shown[2], 2),
        (shown[1], 1),
    ]
    missing = next(a for a in "abcd" if a not in shown)
    for wrong, path in (
        ({"action": missing}, "$.action"),
        ({"position": 3}, "$.position"),
        ({"action": shown[0], "position": 1}, "$.position"),
    ):
        refused = reward(client, decision_id=decision_id, event="play", **wrong)
        assert (refused.status_code, refused.json()["error"]["path"]) == (422, path)


def test_an_event_that_no_metric_reads_is_stored_with_a_warning(
    client: TestClient, log: Log
) -> None:
    decision_id = decide(client).json()["decision_id"]
    unread = 'topbill_unread_rewards_total{experiment="art"}'
    assert "warning" not in reward(client, decision_id=decision_id, event="play").json()
    before = meter(client, unread)
    answer = reward(client, decision_id=decision_id, event="plays", event_id="e").json()
    again = reward(client, decision_id=decision_id, event="plays", event_id="e").json()
    assert (answer["status"], again["status"]) == ("stored", "duplicate")
    assert again["warning"].startswith("not stored again, and no metric of art reads event 'plays'")
    assert (
        answer["warning"] == "stored, but no metric of art reads event 'plays'; did you mean play?"
    )
    assert {event.event for event in log.events(decision_id)} == {"play", "plays"}
    assert meter(client, unread) == before + 1


@pytest.mark.parametrize(
    "context", ['{"device":"tv","device":"mobile"}', '{"hour": 3, "device": "tv", "hour" : 4}']
)
def test_a_name_that_is_twice_in_a_context_is_refused(
    client: TestClient, log: Log, context: str
) -> None:
    answer = client.post("/v1/decide", content=f'{{"experiment":"art","context":{context}}}')
    assert (answer.status_code, answer.json()["error"]["path"]) == (422, "$.context")
    assert "is there twice" in answer.json()["error"]["message"]
    assert stored(log) == 0


def test_a_batch_of_rewards_answers_each_and_stores_all_or_none(
    client: TestClient, log: Log
) -> None:
    decision_id = decide(client, unit="u").json()["decision_id"]
    event = {"decision_id": decision_id, "event": "play", "event_id": "e"}
    batch = [event, event, {"decision_id": "never", "event": "play"}]
    results = client.post("/v1/reward/batch", json={"rewards": batch}).json()["results"]
    assert [r["status"] for r in results] == ["stored", "duplicate", "unknown_decision"]
    bad = [{**event, "event_id": "f"}, {**event, "event_id": "g", "position": 7}]
    refused = client.post("/v1/reward/batch", json={"rewards": bad})
    assert (refused.status_code, refused.json()["error"]["path"]) == (422, "$.rewards[1].position")
    assert [e.event_id for e in log.events(decision_id)] == ["e"]


# ---------------------------------------------------------------------- events of units


def happened(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/event", json={"unit": "7", "event": "session_start", **body})


def test_an_event_of_a_unit_is_stored_once_whatever_is_sent_again(
    client: TestClient, log: Log
) -> None:
    before = meter(client, 'topbill_events_total{status="duplicate"}')
    unread = meter(client, "topbill_unread_events_total")
    first = happened(client, event_id="e", value=3, action="a", at="2026-01-01T10:00:00Z")
    again = happened(client, event_id="e", value=4)
    assert (first.status_code, first.json()["status"]) == (200, "stored")
    assert again.json() == {
        "status": "duplicate",
        "unit": "7",
        "unit_type": "profile_id",
        "event_id": "e",
        "warning": (
            "not stored again, and no metric of scope: unit reads event 'session_start' of a "
            "profile_id"
        ),
    }
    assert first.json()["warning"].startswith("stored, but no metric of scope: unit reads")
    assert meter(client, 'topbill_events_total{status="duplicate"}') == before + 1
    assert meter(client, "topbill_unread_events_total") == unread + 1
    (row,) = log.read_unit_events(0, 9)
    event = row[1]
    assert (event.unit_type, event.unit, event.event, event.value, event.action) == (
        "profile_id",
        "7",
        "session_start",
        3.0,
        "a",
    )
    assert event.occurred_at == 1_767_261_600_000_000
    assert event.received_at > event.occurred_at
    own = happened(client).json()
    assert own["status"] == "stored"
    assert own["event_id"] != happened(client).json()["event_id"]


def test_a_batch_of_events_answers_each_and_stores_all_or_none(
    client: TestClient, log: Log
) -> None:
    event = {"unit": "7", "event": "back", "event_id": "e"}
    other = {**event, "unit_type": "account_id"}
    batch = client.post("/v1/event/batch", json={"events": [event, event, other]}).json()
    assert [r["status"] for r in batch["results"]] == ["stored", "duplicate", "stored"]
    assert "no experiment has 'account_id' as its unit" in batch["results"][2]["warning"]
    bad = [{**event, "event_id": "f"}, {**event, "event_id": "g", "at": "0001-01-01T00:00:00Z"}]
    refused = client.post("/v1/event/batch", json={"events": bad})
    assert (refused.status_code, refused.json()["error"]["path"]) == (422, "$.events[1].at")
    assert [e.unit_type for _, e in log.read_unit_events(0, 9)] == ["profile_id", "account_id"]


@pytest.mark.parametrize(
    ("units", "word"),
    [(("profile_id", "account_id"), "account_id, profile_id"), ((None,), "no experiment says")],
)
def test_a_unit_whose_type_is_left_open_is_refused_by_name(
    folder: Path, tmp_path: Path, units: tuple[str | None, ...], word: str
) -> None:
    text = next(folder.glob("*.yaml")).read_text()
    for number, unit in enumerate(units):
        line = f"unit: {unit}" if unit else ""
        changed = text.replace("unit: profile_id", line)
        changed = changed.replace("experiment: art", f"experiment: art{number}")
        (folder / f"art{number}.yaml").write_text(changed)
    (folder / "art.yaml").unlink()
    app = create_app(Settings(folder, tmp_path / "several"))
    with LocalClient(app, raise_server_exceptions=False) as client:
        refused = happened(client)
        error = refused.json()["error"]
        assert (refused.status_code, error["path"]) == (422, "$.unit_type")
        assert word in error["message"]
        assert happened(client, unit_type="account_id").status_code == 200


def test_an_event_that_no_metric_of_its_units_reads_is_stored_and_told(
    folder: Path, tmp_path: Path
) -> None:
    text = (folder / "art.yaml").read_text()
    returned = "{event: session_start, kind: binary, scope: unit, window: 7d}"
    changed = text.replace("metrics:\n", f"metrics:\n  returned: {returned}\n")
    (folder / "art.yaml").write_text(changed)
    with LocalClient(create_app(Settings(folder, tmp_path / "other"))) as client:
        assert "warning" not in happened(client).json()
        before = meter(client, "topbill_unread_events_total")
        answer = happened(client, event="session_starts").json()
        assert (answer["status"], answer["warning"].partition("; ")[2]) == (
            "stored",
            "did you mean session_start?",
        )
        # What is a reward's name is no event of a unit.
        assert "no metric of scope: unit" in happened(client, event="play").json()["warning"]
        assert meter(client, "topbill_unread_events_total") == before + 2


def test_events_of_units_ask_for_the_key_too(settings: Settings) -> None:
    keyed = replace(settings, keys=Keys.plain(["a-key-of-some-length"]))
    with LocalClient(create_app(keyed)) as client:
        assert happened(client).status_code == 401
        assert client.post("/v1/event/batch", json={"events": []}).status_code == 401


# ---------------------------------------------------------------------- bad input

BAD: tuple[tuple[str, bytes, int, str | None], ...] = (
    ("/v1/decide", b"", 400, None),
    ("/v1/decide", b"{", 400, None),
    ("/v1/decide", b"\xff\xfe", 400, None),
    ("/v1/decide", b"[" * 50_000, 422, "$"),
    (
        "/v1/decide",
        b'{"experiment":"art","context":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        422,
        "$",
    ),
    ("/v1/decide", b"[]", 422, "$"),
    ("/v1/decide", b"null", 422, "$"),
    ("/v1/decide", b"{}", 422, "$"),
    ("/v1/decide", b'{"experiment":"art","slots":"3"}', 422, "$.slots"),
    ("/v1/decide", b'{"experiment":"art","slots":0}', 422, "$.slots"),
    ("/v1/decide", b'{"experiment":"art","slots":1e999}', 422, "$.slots"),
    ("/v1/decide", b'{"experiment":"art","unit":7}', 422, "$.unit"),
    ("/v1/decide", b'{"experiment":"art","unit":""}', 422, "$.unit"),
    (
        "/v1/decide",
        b'{"experiment":"art","decision_id":"' + b"x" * 129 + b'"}',
        422,
        "$.decision_id",
    ),
    ("/v1/decide", b'{"experiment":"art","colour":1}', 422, "$"),
    ("/v1/decide", b'{"experiment":"art","context":{"hour":NaN}}', 422, "$.context.hour"),
    ("/v1/decide", b'{"experiment":"art","context":{"hour":-Infinity}}', 422, "$.context.hour"),
    ("/v1/decide", b'{"experiment":"art","context":{"hour":1e999}}', 422, "$.context.hour"),
    ("/v1/decide", b'{"experiment":"art","context":7}', 422, "$.context"),
    ("/v1/decide", b'{"experiment":"art","actions":{}}', 422, "$.actions"),
    ("/v1/decide", b'{"experiment":"art","actions":[{"id":"x","colour":1}]}', 422, "$.actions[0]"),
    ("/v1/decide", b'{"experiment":"art","exclude":[1]}', 422, "$.exclude[0]"),
    ("/v1/decide", b'{"experiment":"none"}', 404, None),
    ("/v1/decide/batch", b'{"decisions":[]}', 422, "$.decisions"),
    ("/v1/reward", b'{"decision_id":"d"}', 422, "$"),
    ("/v1/reward", b'{"decision_id":"d","event":"play","value":NaN}', 422, "$.value"),
    ("/v1/reward", b'{"decision_id":"d","event":"play","value":1e999}', 422, "$.value"),
    ("/v1/reward", b'{"decision_id":"d","event":"play","value":"1"}', 422, "$.value"),
    ("/v1/reward", b'{"decision_id":"d","event":"play","value":true}', 422, "$.value"),
    ("/v1/reward", b'{"decision_id":"d","event":"play","at":"yesterday"}', 422, "$.at"),
    ("/v1/reward", b'{"decision_id":"d","event":""}', 422, "$.event"),
    ("/v1/reward/batch", b'{"rewards":[{"decision_id":"d"}]}', 422, "$.rewards[0]"),
    ("/v1/event", b'{"event":"back"}', 422, "$"),
    ("/v1/event", b'{"unit":7,"event":"back"}', 422, "$.unit"),
    ("/v1/event", b'{"unit":"","event":"back"}', 422, "$.unit"),
    ("/v1/event", b'{"unit":"7","event":""}', 422, "$.event"),
    ("/v1/event", b'{"unit":"7","event":"back","unit_type":"a b"}', 422, "$.unit_type"),
    ("/v1/event", b'{"unit":"7","event":"back","value":NaN}', 422, "$.value"),
    ("/v1/event", b'{"unit":"7","event":"back","at":"tomorrow"}', 422, "$.at"),
    ("/v1/event", b'{"unit":"7","event":"back","decision_id":"d"}', 422, "$"),
    ("/v1/event/batch", b'{"events":[]}', 422, "$.events"),
)


@pytest.mark.parametrize(
    ("path", "body", "status", "where"), BAD, ids=[f"{b[:48]!r}" for _, b, _, _ in BAD]
)
def test_bad_input_is_refused_with_its_path(
    client: TestClient, log: Log, path: str, body: bytes, status: int, where: str | None
) -> None:
    answer = client.post(path, content=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"]
    if where is not None:
        assert error["path"] == where
    assert stored(log) == 0


def test_a_body_over_a_megabyte_is_refused(client: TestClient) -> None:
    body = b'{"experiment":"art","unit":"' + b"x" * fast_path.LARGEST_BODY + b'"}'
    assert client.post("/v1/decide", content=body).status_code == 413


def test_only_post_decides_and_unknown_paths_are_not_found(client: TestClient) -> None:
    assert client.get("/v1/decide").status_code == 405
    answer = client.get("/v1/decisions/never")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert client.get("/v2").json()["error"]["code"] == "not_found"


def test_a_log_that_fails_is_a_503_and_stores_nothing(
    client: TestClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise LogError("disk full; nothing of this batch was stored")

    monkeypatch.setattr(SqliteLog, "commit", full)
    answer = decide(client, unit="u")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
    monkeypatch.undo()
    assert stored(log) == 0
    assert decide(client, unit="u").status_code == 200


@pytest.mark.parametrize(
    "at", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z"]
)
def test_a_time_that_not_every_reader_of_the_lake_can_hold_is_refused(
    client: TestClient, at: str
) -> None:
    decide(client, decision_id="d")
    refused = reward(client, decision_id="d", event="play", at=at)
    assert (refused.status_code, refused.json()["error"]["path"]) == (422, "$.at")


@pytest.mark.parametrize("value", [1e308, -1e13])
def test_a_value_whose_sums_would_overflow_is_refused(client: TestClient, value: float) -> None:
    decide(client, decision_id="d")
    refused = reward(client, decision_id="d", event="play", value=value)
    assert (refused.status_code, refused.json()["error"]["path"]) == (422, "$.value")


# ---------------------------------------------------------------------- the rest


def test_a_stored_decision_is_explained(client: TestClient) -> None:
    made = decide(client, unit="u", context={"device": "tv"}, slots=2, decision_id="a/b c").json()
    reward(client, decision_id="a/b c", event="play", position=0)
    told = client.get("/v1/decisions/a/b c").json()
    assert [p["action"] for p in told["slate"]] == [i["action"] for i in made["slate"]]
    assert told["context"] == {"device": "tv"}
    assert told["rewards"][0]["event"] == "play"
    assert set(told["scores"]) == {"a", "b", "c", "d"}
    assert len(told["probabilities"]) == 2
    assert (told["policy_version"], told["actions"], told["page"]) == (0, None, "")


def test_to_look_a_decision_up_opens_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(client, decision_id="d")

    def opened(_: Settings) -> Log:
        raise AssertionError("another handle on the log")

    monkeypatch.setattr(Settings, "open_log", opened)
    for _ in range(3):
        assert client.get("/v1/decisions/d").status_code == 200
        assert client.get("/v1/decisions/never").status_code == 404


def test_experiments_are_listed_and_shown_whole(client: TestClient) -> None:
    (line,) = client.get("/v1/experiments").json()["experiments"]
    assert (line["key"], line["variants"]["editorial"]["control"]) == ("art", True)
    assert client.get("/v1/experiments/art").json()["spec"]["surface"] == "artwork"
    assert client.get("/v1/experiments/nope").status_code == 404


def test_it_says_that_it_is_alive_and_ready_and_counts_what_it_did(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").json()["status"] == "ready"
    decide(client, unit="u")
    page = client.get("/metrics").text
    assert 'topbill_decisions_total{experiment="art"' in page
    assert "topbill_request_seconds_bucket" in page


def test_the_openapi_document_describes_the_fast_path(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    paths = {"/v1/decide", "/v1/reward", "/v1/event", "/healthz"}
    paths |= {f"{path}/batch" for path in paths - {"/healthz"}}
    assert paths <= set(document["paths"])
    request = document["components"]["schemas"]["DecideRequest"]
    assert request["required"] == ["experiment"]
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"], f"{name} is referred to and not there"


def test_keys_are_asked_for_where_they_are_set(settings: Settings) -> None:
    key = "a-key-of-some-length"
    keyed = replace(settings, keys=Keys.plain([key]))
    with LocalClient(create_app(keyed)) as client:
        assert decide(client).status_code == 401
        assert client.get("/v1/experiments").status_code == 401
        assert client.get("/healthz").status_code == 200
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-Api-Key": key}):
            assert (
                client.post("/v1/decide", json={"experiment": "art"}, headers=headers).status_code
                == 200
            )
        assert client.get("/v1/experiments", headers={"X-Api-Key": key + "x"}).status_code == 401


def test_a_host_that_others_reach_needs_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOPBILL_KEYS", raising=False)
    assert auth.load_keys("127.0.0.1", None) == Keys()
    with pytest.raises(TopbillError, match=r"0\.0\.0\.0 can be reached"):
        auth.load_keys("0.0.0.0", None)  # noqa: S104
    file = tmp_path / "keys"
    file.write_text("short\n")
    file.chmod(0o600)
    with pytest.raises(TopbillError, match="shorter than 16"):
        auth.load_keys("0.0.0.0", file)  # noqa: S104
    monkeypatch.setenv("TOPBILL_KEYS", "a-key-of-some-length,another-key-of-length")
    assert len(auth.load_keys("example.org", None).entries) == 2
    assert "TOPBILL_KEYS" not in os.environ


NewFollower = Callable[[Engine], Follower]


@pytest.fixture
def new_follower(settings: Settings) -> Iterator[NewFollower]:
    """Makes followers that are closed at the end."""
    with ExitStack() as stack:
        yield lambda engine: stack.enter_context(closing(Follower(settings, engine)))


def test_a_changed_file_is_taken_over_and_noted_and_a_broken_one_is_not(
    client: TestClient, log: Log, settings: Settings, folder: Path, new_follower: NewFollower
) -> None:
    app = create_app(settings)
    follower = new_follower(app.engine)
    follower.step()
    file = folder / "art.yaml"
    text = file.read_text()
    file.write_text(text.replace("slots", "slotz") + "slots: 2\n")
    follower.step()
    assert app.engine.find("art").experiment.slots == 2
    file.write_text(text + "slotz: 2\n")
    follower.step()
    assert app.engine.find("art").experiment.slots == 2
    assert len(log.revisions("art")) == 2


def test_shares_that_change_are_told_in_the_log_and_in_the_list(
    log: Log, settings: Settings, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, process_log.CHANGES)
    app = create_app(settings)
    with LocalClient(app) as client:
        assert "shares_changed" not in client.get("/v1/experiments").json()["experiments"][0]
        file = folder / "art.yaml"
        raw = yaml.safe_load(file.read_text())
        names = list(raw["variants"])
        rest = 100 // len(names)
        for name in names:
            raw["variants"][name]["share"] = f"{rest}%"
        raw["variants"][names[0]]["share"] = f"{100 - rest * (len(names) - 1) - 1}%"
        raw["variants"][names[-1]]["share"] = f"{rest + 1}%"
        file.write_text(yaml.safe_dump(raw, sort_keys=False))
        until(lambda: len(log.revisions("art")) == 2)
        until(lambda: "shares_changed" in client.get("/v1/experiments").json()["experiments"][0])
        (line,) = [
            e for e in client.get("/v1/experiments").json()["experiments"] if e["key"] == "art"
        ]
        assert any("→" in change for change in line["shares_changed"]["changed"])
    # In one line: what differs, and what follows.
    (told,) = [said for said in caplog.messages if said.startswith("art: ")]
    assert told.startswith("art: is running in revision ")
    assert "→" in told
    assert told.endswith("the report takes what comes from now on for a phase of its own")


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_page_of_the_api_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "/openapi.json" in page
    linked = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert any(link.endswith(".js") for link in linked)
    assert any(link.endswith(".css") for link in linked)
    for link in linked:
        assert link.startswith("/"), link
        assert client.get(link).status_code == 200
    assert "://" not in page


def test_a_refused_edit_is_told_until_it_is_mended(client: TestClient, folder: Path) -> None:
    assert (
        client.get("/v1/experiments").json()["problems"]
        == client.get("/readyz").json()["problems"]
        == []
    )
    file = folder / "art.yaml"
    text = file.read_text()
    file.write_text(text + "slotz: 2\n")
    until(lambda: client.get("/readyz").json()["problems"] == [{"file": "art.yaml"}])
    assert client.get("/readyz").status_code == 200  # what was there before is served
    answer = client.get("/v1/experiments").json()
    assert [line["key"] for line in answer["experiments"]] == ["art"]
    (refused,) = answer["problems"]
    assert (refused["file"], refused["path"]) == ("art.yaml", "slotz")
    assert "did you mean slots?" in refused["message"]
    file.write_text(text)
    until(lambda: not client.get("/v1/experiments").json()["problems"])


def test_what_editors_leave_beside_a_file_changes_nothing(
    settings: Settings, folder: Path, new_follower: NewFollower
) -> None:
    app = create_app(settings)
    follower = new_follower(app.engine)
    follower.step()
    (folder / ".#art.yaml").symlink_to(
        "somebody@host.1"
    )  # the lock that Emacs sets while one types
    (folder / "._art.yaml").write_bytes(b"\x00\x05\x16\x07")
    (folder / "art.yaml").write_text((folder / "art.yaml").read_text() + "slots: 2\n")
    follower.step()
    assert app.engine.find("art").experiment.slots == 2


def test_a_file_with_the_shorter_ending_is_followed_too(
    settings: Settings, folder: Path, new_follower: NewFollower
) -> None:
    file = (folder / "art.yaml").rename(folder / "art.yml")
    app = create_app(settings)
    follower = new_follower(app.engine)
    follower.step()
    file.write_text(file.read_text() + "slots: 2\n")
    follower.step()
    assert app.engine.find("art").experiment.slots == 2


def test_a_revision_that_the_log_could_not_take_is_noted_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, new_follower: NewFollower
) -> None:
    def full(*_: object) -> bool:
        raise LogError("the disk is full")

    follower = new_follower(create_app(settings).engine)
    with monkeypatch.context() as broken:
        broken.setattr(SqliteLog, "revise", full)
        with pytest.raises(LogError):
            follower.step()
    follower.step()
    with open_log(settings.log_path) as log:
        assert len(log.revisions("art")) == 1


def test_a_log_that_cannot_be_read_is_503(client: TestClient, settings: Settings) -> None:
    decide(client)
    with closing(sqlite3.connect(settings.log_path)) as database:
        database.execute("ALTER TABLE decisions RENAME TO elsewhere")
    answers = [decide(client, decision_id="d"), client.get("/v1/decisions/d")]
    event = "/personalizer/v1.0/events/d/reward"
    answers.append(client.post(event, json={"value": 1.0}))
    assert [(a.status_code, a.headers["retry-after"]) for a in answers] == [(503, "1")] * 3


def test_a_data_folder_that_is_gone_or_another_one_is_noticed_and_nothing_acknowledged(
    client: TestClient, settings: Settings
) -> None:
    assert decide(client).status_code == 200
    aside = settings.data.rename(settings.data.with_name("aside"))
    for _ in range(2):
        answer = decide(client)
        assert (answer.status_code, "deleted, moved or replaced" in answer.text) == (503, True)
        answer = client.get("/readyz")
        assert (answer.status_code, "deleted, moved or replaced" in answer.text) == (503, True)
        assert not settings.log_path.exists()  # nobody made an empty one in its place
    open_log(settings.log_path).close()
    assert decide(client).status_code == client.get("/readyz").status_code == 503
    shutil.rmtree(settings.data)
    aside.rename(settings.data)
    assert decide(client).status_code == client.get("/readyz").status_code == 200


def test_it_is_not_ready_while_it_cannot_store_and_ready_when_it_can_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("topbill.log.journal.os.fdatasync", full)
        assert decide(client).status_code == 503
        unready = client.get("/readyz")
        assert (unready.status_code, unready.headers["retry-after"]) == (503, "1")
    ready = client.get("/readyz")
    assert (ready.status_code, "retry-after" in ready.headers) == (200, False)
    assert decide(client).status_code == 200
