"""Events as Segment, RudderStack, Jitsu and Snowplow send them on: what each becomes, and that what
comes again changes nothing.

The shapes in `tests/data/intake` were written after the published descriptions of the forms.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from starlette.testclient import TestClient

from topbill.log import Log
from topbill.service.settings import Settings

SHAPES = json.loads((Path(__file__).parents[2] / "data" / "intake" / "shapes.json").read_text())
_EXPERIMENT = """
experiment: art
surface: artwork
unit: profile_id
actions: [{id: one}, {id: two}]
metrics:
  play: {event: play, kind: binary, window: 30m}
  watched: {event: watch_fraction, kind: max, window: 6h}
  started: {event: play, kind: count, scope: unit, window: 7d, cap: 50}
objective: {play: 1.0}
variants:
  control: {policy: fixed, order: [one, two], share: 50%, control: true}
  other: {policy: fixed, order: [one, two], share: 50%}
"""
_STATUSES = {"stored", "duplicate", "unknown_decision", "erased", "ignored", "refused"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "art.yaml").write_text(_EXPERIMENT)
    return Settings(folder, tmp_path / "data")


def _sent(client: TestClient, form: str, body: Any) -> list[dict[str, Any]]:
    answer = client.post(f"/v1/intake/{form}", json=body)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_there_are_shapes_of_each_tool() -> None:
    tools = [shape["name"].split(",")[0] for shape in SHAPES]
    assert len(tools) >= 20
    assert set(tools) >= {"segment", "rudderstack", "jitsu", "snowplow"}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["name"])
def test_a_shape_becomes_what_it_says(client: TestClient, log: Log, shape: dict[str, Any]) -> None:
    # Given a decision that was shown
    decided = client.post("/v1/decide", json={"experiment": "art", "unit": "mia"}).json()
    body = json.loads(json.dumps(shape["body"]).replace("DECISION", decided["decision_id"]))
    if shape["form"] == "snowplow":
        body = _with_decision(body, decided["decision_id"])

    # When it is sent on, twice
    first, again = (_sent(client, shape["form"], body) for _ in range(2))

    # Then each message became what it says, once
    expected = shape["results"]
    statuses = ["stored" if isinstance(one, list) else one for one in expected]
    assert [result["status"] for result in first] == statuses
    repeated = ["duplicate" if status == "stored" else status for status in statuses]
    assert [result["status"] for result in again] == repeated
    rewards = [(e.event, e.value) for e in log.events(decided["decision_id"])]
    units = [(e.event, e.value, e.unit) for _, e in log.read_unit_events(-1, 10)]
    stored = [one for one in expected if isinstance(one, list)]
    assert rewards == [tuple(one[1:]) for one in stored if one[0] == "reward"]
    assert units == [tuple(one[1:]) for one in stored if one[0] == "event"]
    for result, status in zip(first, statuses, strict=True):
        assert bool(result.get("reason")) or status in ("stored", "unknown_decision")


def _with_decision(body: Any, decision_id: str) -> Any:
    """Snowplow's entities are in base64: the decision's id stands inside."""
    import base64

    for event in body["data"]:
        if (encoded := event.get("cx")) is not None:
            padded = encoded + "=" * (-len(encoded) % 4)
            text = base64.urlsafe_b64decode(padded).replace(b"DECISION", decision_id.encode())
            event["cx"] = base64.urlsafe_b64encode(text).decode()
    return body


def test_when_it_happened_is_kept(client: TestClient, log: Log) -> None:
    message = {"type": "track", "userId": "mia", "event": "play", "messageId": "m"}
    _sent(client, "segment", {**message, "timestamp": "2026-11-28T15:23:31.909+05:30"})
    ((_, event),) = log.read_unit_events(-1, 10)
    assert event.occurred_at == 1_795_859_611_909_000


def test_it_is_counted_by_what_it_became(client: TestClient) -> None:
    _sent(client, "segment", {"batch": [{"type": "page"}, {"type": "track"}]})
    meters = client.get("/metrics").text
    for status in ("ignored", "refused"):
        assert f'topbill_intake_total{{source="segment",status="{status}"}}' in meters


@pytest.mark.parametrize(
    ("form", "key"), [("segment", "batch"), ("snowplow", "data")], ids=["segment", "snowplow"]
)
@pytest.mark.parametrize("other", [None, 3, "play", [], [{}], {}, {"batch": 3, "data": "x"}])
def test_a_message_of_no_form_stops_no_other(
    client: TestClient, form: str, key: str, other: Any
) -> None:
    good = {
        "segment": {"type": "track", "event": "play", "userId": "mia", "messageId": "m"},
        "snowplow": {"e": "se", "se_ac": "play", "uid": "mia", "eid": "m"},
    }[form]
    results = _sent(client, form, {key: [other, good]})
    assert [result["status"] for result in results] in (
        ["refused", "stored"],
        ["ignored", "stored"],  # an object that says of no event
    )
    assert results[0]["reason"]


@pytest.mark.parametrize(
    ("form", "said", "place"),
    [
        ("segment", {"userId": 7}, "$.userId: "),
        ("segment", {"messageId": [1]}, "$.messageId: "),
        ("segment", {"timestamp": "yesterday"}, "$.timestamp: "),
        ("segment", {"timestamp": []}, "$.timestamp: "),
        ("segment", {"timestamp": "1969-01-01T00:00:00Z"}, "$.timestamp: "),
        ("segment", {"properties": {"value": "1_000"}}, "$.value: "),
        ("segment", {"properties": {"value": "nan"}}, "$.value: "),
        ("segment", {"properties": {"decision_id": "DECISION", "action": "x"}}, "$.action: "),
        ("snowplow", {"uid": 7}, "$.uid: "),
        ("snowplow", {"eid": 7}, "$.eid: "),
        ("snowplow", {"dtm": True}, "$.dtm: "),
        ("snowplow", {"dtm": "-1"}, "$.dtm: "),
        ("snowplow", {"se_ac": ""}, "$.se_ac: "),
        ("snowplow", {"se_ac": "x" * 65}, "$.se_ac: "),
    ],
)
def test_a_refusal_names_the_place_as_the_tool_does(
    client: TestClient, form: str, said: dict[str, Any], place: str
) -> None:
    decided = client.post("/v1/decide", json={"experiment": "art", "unit": "mia"}).json()
    message = {
        "segment": {"type": "track", "event": "play", "userId": "mia"},
        "snowplow": {"e": "se", "se_ac": "play", "uid": "mia"},
    }[form]
    text = json.dumps(message | said).replace("DECISION", decided["decision_id"])
    key = {"segment": "batch", "snowplow": "data"}[form]
    (result,) = _sent(client, form, {key: [json.loads(text)]})
    assert result["status"] == "refused"
    assert result["reason"].startswith(place)
    assert "xpected" in result["reason"] or "Invalid RFC3339" in result["reason"]


@pytest.mark.parametrize("body", [b"[]", b'{"batch": 3}', b'{"batch": {}}', b"{"])
def test_what_is_no_body_of_that_form_is_refused(client: TestClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/intake/segment", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["code"] in ("malformed", "invalid")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_KEYS = {
    "segment": ("type", "event", "userId", "messageId", "properties", "context", "timestamp"),
    "snowplow": ("e", "se_ac", "se_va", "ue_pr", "ue_px", "co", "cx", "uid", "eid", "dtm"),
}


@pytest.mark.parametrize("form", _KEYS)
@given(data=st.data())
@settings_of_hypothesis(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
def test_any_message_has_a_result(client: TestClient, form: str, data: st.DataObject) -> None:
    kinds = st.sampled_from(["track", "se", "ue"]) | _JSON
    message = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(_KEYS[form], _JSON)))
    message |= {"type" if form == "segment" else "e": data.draw(kinds)}
    other = data.draw(_JSON)
    key = "batch" if form == "segment" else "data"
    results = _sent(client, form, {key: [other, message]})
    assert len(results) == 2
    for result in results:
        assert result["status"] in _STATUSES
