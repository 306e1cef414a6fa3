"""Azure Personalizer's API as its reference has it: bodies, codes, ids, deferred events, slots and
rewards.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from topbill import lake, spec
from topbill.log import Log
from topbill.service.app import create_app
from topbill.service.keys import Keys
from topbill.service.personalizer.matching import unsafe
from topbill.service.settings import Settings
from topbill.service.turns import Turn
from topbill.worker.loop import Worker
from topbill.worker.policy_fold import PolicyFold

from ...local_client import LocalClient

SHIPPED = Path(__file__).parents[3] / "experiments" / "personalizer.yaml"
V1, PREVIEW = "/personalizer/v1.0", "/personalizer/v1.1-preview.3"
ACTIONS = [
    {"id": name, "features": [{"type": name}, {"length": {"minutes": 90}}]}
    for name in ("news", "sports", "film")
]
CONTEXT = [{"user": {"profileType": "AnonymousUser"}}, {"device": {"mobile": True, "_ignored": 1}}]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "experiments").mkdir()
    shutil.copy(SHIPPED, tmp_path / "experiments")
    return Settings(tmp_path / "experiments", tmp_path / "data")


def rank(client: TestClient, **body: Any) -> Any:
    return client.post(f"{V1}/rank", json={"contextFeatures": CONTEXT, "actions": ACTIONS, **body})


def slots(*ids: str, **first: Any) -> list[dict[str, Any]]:
    """Slots whose baselines are the actions in their order; `first` is said of the first slot."""
    found = [{"id": i, "baselineAction": a["id"]} for i, a in zip(ids, ACTIONS, strict=False)]
    return [{**found[0], **first}, *found[1:]]


def rank_slots(client: TestClient, **body: Any) -> Any:
    return client.post(
        f"{PREVIEW}/multislot/rank", json={"contextFeatures": CONTEXT, "actions": ACTIONS, **body}
    )


def test_slots_of_too_much_work_are_refused_and_others_have_their_turn(
    client: TestClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0

    async def end_if_long(_: Turn) -> None:
        nonlocal turns
        turns += 1

    monkeypatch.setattr(Turn, "end_if_long", end_if_long)
    allowed = rank_slots(client, slots=slots("top", "side"))
    assert (allowed.status_code, turns) == (201, 2)
    stored = len(log.read_decisions(0, 100))
    features = [{f"f{i}": "x" * 1_000} for i in range(200)]
    actions = [{"id": f"a{i}", "features": []} for i in range(30)]
    many = [{"id": f"s{i}", "baselineAction": f"a{i}"} for i in range(30)]
    refused = rank_slots(client, contextFeatures=features, actions=actions, slots=many)
    error = refused.json()["error"]
    assert (refused.status_code, error["target"]) == (400, "$.slots")
    assert "bytes × slots of at most 5,000,000" in error["message"]
    assert len(log.read_decisions(0, 100)) == stored


def learned(log: Log) -> int:
    """How many examples the log teaches, once everything in it is old enough."""
    fold = PolicyFold(spec.load(SHIPPED))
    while fold.step(log, log.barrier() + 10_000_000):
        pass
    return fold.learned


def decisions(log: Log) -> list[Any]:
    return [d for _, d in log.read_decisions(0, 1_000) if d.experiment == "personalizer"]


# ---------------------------------------------------------------------- one slot


def test_a_rank_answers_201_with_the_probabilities_it_was_drawn_from(
    client: TestClient, log: Log
) -> None:
    answer = rank(client, eventId="e1")
    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == {"ranking", "eventId", "rewardActionId"}
    assert body["eventId"] == "e1"
    assert body["ranking"][0]["id"] == body["rewardActionId"]
    assert sum(a["probability"] for a in body["ranking"]) == pytest.approx(1.0)
    (held,) = decisions(log)
    assert held.slate[0].action == body["rewardActionId"]
    assert held.propensity == body["ranking"][0]["probability"]


def test_the_same_event_gets_the_same_answer_and_another_request_is_refused(
    client: TestClient, log: Log
) -> None:
    answers = {rank(client, eventId="e1").text for _ in range(5)}
    assert len(answers) == 1
    assert len(decisions(log)) == 1
    refused = rank(client, eventId="e1", excludedActions=["news"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "InvalidRankRequest")
    assert refused.json()["error"]["target"] == "$.eventId"


def test_events_without_an_id_get_one_each(client: TestClient) -> None:
    assert len({rank(client).json()["eventId"] for _ in range(20)}) == 20


def test_excluded_actions_keep_their_place_with_probability_0(client: TestClient) -> None:
    for i in range(20):
        body = rank(client, eventId=f"e{i}", excludedActions=["sports", "unknown"]).json()
        assert body["ranking"][1] == {"id": "sports", "probability": 0.0}
        assert body["rewardActionId"] == body["ranking"][0]["id"] != "sports"


def test_the_first_action_that_is_not_excluded_is_the_baseline(
    client: TestClient, log: Log
) -> None:
    for i in range(60):
        rank(client, eventId=f"e{i}", excludedActions=["news"])
    shown = {d.slate[0].action for d in decisions(log) if d.variant == "baseline"}
    assert shown == {"sports"}


def test_rewards_are_events_of_the_decision(client: TestClient, log: Log) -> None:
    rank(client, eventId="a/b c")
    answer = client.post(f"{V1}/events/a%2Fb%20c/reward", json={"value": 0.5})
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers
    client.post(f"{V1}/events/a%2Fb%20c/reward", json={"value": -1})
    assert [(e.event, e.value) for e in log.events("a/b c")] == [("reward", 0.5), ("reward", -1.0)]


@pytest.mark.parametrize(
    ("kind", "expected"), [("earliest", 0.2), ("sum", 0.8), ("mean", 0.4), ("max", 0.6)]
)
def test_wait_time_default_reward_and_aggregation_are_the_metrics(
    tmp_path: Path, kind: str, expected: float
) -> None:
    text = (
        SHIPPED.read_text()
        .replace("kind: earliest ", f"kind: {kind}\n    cap: 1 ")
        .replace("default: 0 ", "default: 0.3 ")
    )
    (tmp_path / "personalizer.yaml").write_text(text)
    (metric,) = spec.load(tmp_path / "personalizer.yaml").metrics
    values = [(0.2, 0.1), (0.6, 0.5), (1.0, 1.1)]
    assert metric.value(values) == pytest.approx(expected), "1.1 s is past the wait of 1 s"
    assert metric.value(values[2:]) == 0.3


def test_the_default_reward_is_what_is_learned_and_reported_where_none_came(
    client: TestClient, settings: Settings
) -> None:
    file = settings.experiments / "personalizer.yaml"
    file.write_text(file.read_text().replace("default: 0 ", "default: 0.25 "))
    rank(client, eventId="unrewarded")
    rank(client, eventId="rewarded")
    client.post(f"{V1}/events/rewarded/reward", json={"value": 1})
    worker = Worker(settings.experiments, settings.data)
    worker.finish()
    connection = lake.connect(settings.data / lake.DATABASE)
    found = connection.execute(
        "SELECT decision_id, objective, metrics['reward'] FROM feedback"
    ).fetchall()
    connection.close()
    assert sorted(found) == [("rewarded", 1.0, 1.0), ("unrewarded", 0.25, 0.25)]


# ---------------------------------------------------------------------- deferred events


def test_a_deferred_event_is_learned_only_once_it_is_activated(
    client: TestClient, log: Log
) -> None:
    ids = [f"later{i}" for i in range(20)]
    first = [rank(client, eventId=i, deferActivation=True).json() for i in ids]
    for i in ids:
        assert client.post(f"{V1}/events/{i}/reward", json={"value": 1}).status_code == 204
    assert decisions(log) == []
    assert learned(log) == 0
    for i in ids + ids:
        assert client.post(f"{V1}/events/{i}/activate").status_code == 204
    assert [rank(client, eventId=i, deferActivation=True).json() for i in ids] == first
    assert [d.slate[0].action for d in decisions(log)] == [body["rewardActionId"] for body in first]
    assert learned(log) == sum(d.reason == "policy" for d in decisions(log)) == 20


def test_activating_what_is_active_changes_nothing_and_what_is_not_there_is_404(
    client: TestClient, log: Log
) -> None:
    rank(client, eventId="e")
    assert client.post(f"{V1}/events/e/activate").status_code == 204
    assert len(decisions(log)) == 1
    for verb, body in (("activate", None), ("reward", {"value": 1})):
        for path in (f"{V1}/events/none/{verb}", f"{PREVIEW}/multislot/events/e/{verb}"):
            sent = (
                {"reward": [{"slotId": "a", "value": 1}]} if body and "multislot" in path else body
            )
            answer = client.post(path, json=sent)
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                404,
                "ResourceNotFound",
            ), path


# ---------------------------------------------------------------------- several slots


def test_each_slot_is_a_decision_of_its_own_and_no_action_is_shown_twice(
    client: TestClient, log: Log
) -> None:
    for i in range(20):
        answer = rank_slots(
            client, slots=slots("main", "side", features=[{"size": "large"}]), eventId=f"m{i}"
        )
        assert answer.status_code == 201
        body = answer.json()
        assert [slot["id"] for slot in body["slots"]] == ["main", "side"]
        assert len({slot["rewardActionId"] for slot in body["slots"]}) == 2
        again = rank_slots(
            client, slots=slots("main", "side", features=[{"size": "large"}]), eventId=f"m{i}"
        )
        assert again.json() == body
    held = decisions(log)
    assert len(held) == 40
    assert all(
        d.probabilities[0][d.eligible.index(d.slate[0].action)] == d.propensity for d in held
    )
    assert [len(d.eligible) for d in held] == [3, 2] * 20
    assert all(len({d.variant for d in held if d.unit == f"m{i}"}) == 1 for i in range(20))


def test_rewards_of_slots_belong_to_their_decisions(client: TestClient, log: Log) -> None:
    rank_slots(client, slots=slots("main", "side"), eventId="m")
    path = f"{PREVIEW}/multislot/events/m/reward"
    sent = {"reward": [{"slotId": "side", "value": 0.5}, {"slotId": "main", "value": 0.25}]}
    assert client.post(path, json=sent).status_code == 204
    values = {d.decision_id: [e.value for e in log.events(d.decision_id)] for d in decisions(log)}
    assert values == {"m\x1fmain": [0.25], "m\x1fside": [0.5]}
    refused = client.post(path, json={"reward": [{"slotId": "other", "value": 1}]})
    assert (refused.status_code, refused.json()["error"]["target"]) == (400, "$.reward[0].slotId")


def test_slots_can_be_deferred(client: TestClient, log: Log) -> None:
    first = rank_slots(
        client, slots=slots("main", "side"), eventId="m", deferActivation=True
    ).json()
    assert decisions(log) == []
    path = f"{PREVIEW}/multislot/events/m"
    assert (
        client.post(f"{path}/reward", json={"reward": [{"slotId": "main", "value": 1}]}).status_code
        == 204
    )
    assert client.post(f"{path}/activate").status_code == 204
    assert [d.slate[0].action for d in decisions(log)] == [
        slot["rewardActionId"] for slot in first["slots"]
    ]
    assert learned(log) == 2


def test_a_slot_never_takes_what_another_needs(client: TestClient) -> None:
    wanted = slots("a", "b", "c")
    wanted[2]["excludedActions"] = ["news", "sports"]
    for i in range(20):
        body = rank_slots(client, slots=wanted, eventId=f"m{i}").json()
        assert body["slots"][2] == {"id": "c", "rewardActionId": "film"}


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=4, unique=True), min_size=1, max_size=4))
def test_unsafe_choices_are_those_after_which_no_assignment_is_left(
    allowed: list[list[str]],
) -> None:
    def fillable(slots: list[list[str]]) -> bool:
        return not slots or any(
            fillable([[b for b in s if b != a] for s in slots[1:]]) for a in slots[0]
        )

    lost = {a for a in allowed[0] if not fillable([[b for b in s if b != a] for s in allowed[1:]])}
    assert unsafe(allowed) & set(allowed[0]) == lost


# ---------------------------------------------------------------------- refusals

REFUSED: tuple[tuple[str, str, bytes, int, str, str | None], ...] = (
    ("POST", f"{V1}/rank", b"", 400, "InvalidRankRequest", None),
    ("POST", f"{V1}/rank", b"[", 400, "InvalidRankRequest", None),
    ("POST", f"{V1}/rank", b"[" * 50_000, 400, "InvalidRankRequest", None),
    ("POST", f"{V1}/rank", b"{}", 400, "InvalidRankRequest", "$"),
    ("POST", f"{V1}/rank", b'{"actions":[{"id":"a"}]}', 400, "InvalidRankRequest", "$.actions[0]"),
    (
        "POST",
        f"{V1}/rank",
        b'{"actions":[{"id":"","features":[]}]}',
        400,
        "InvalidRankRequest",
        "$.actions[0].id",
    ),
    (
        "POST",
        f"{V1}/rank",
        b'{"actions":[{"id":"a","features":{}}]}',
        400,
        "InvalidRankRequest",
        None,
    ),
    (
        "POST",
        f"{V1}/rank",
        b'{"actions":[{"id":"a","features":[]},{"id":"a","features":[]}]}',
        400,
        "InvalidRankRequest",
        "$.actions",
    ),
    (
        "POST",
        f"{V1}/rank",
        b'{"excludedActions":["a"],"actions":[{"id":"a","features":[]}]}',
        400,
        "InvalidRankRequest",
        "$.excludedActions",
    ),
    ("POST", f"{V1}/rank", b"x" * 500_001, 400, "PayloadSizeExceeded", None),
    ("POST", f"{V1}/events/e/reward", b'{"value":2}', 400, "InvalidRewardRequest", "$.value"),
    ("POST", f"{V1}/events/e/reward", b'{"value":"1"}', 400, "InvalidRewardRequest", "$.value"),
    ("POST", f"{V1}/events/e/reward", b"{}", 400, "InvalidRewardRequest", "$"),
    (
        "POST",
        f"{V1}/events/{'x' * 257}/reward",
        b'{"value":1}',
        400,
        "InvalidRewardRequest",
        "eventId",
    ),
    ("POST", f"{V1}/events/a%0Ab/activate", b"", 400, "InvalidEventIdToActivate", "eventId"),
    ("POST", f"{V1}/events/%C2%C2/reward", b'{"value":1}', 400, "InvalidRewardRequest", "eventId"),
    ("GET", f"{V1}/rank", b"", 405, "BadRequest", None),
    ("POST", f"{V1}/multislot/rank", b"", 404, "ResourceNotFound", None),
    ("POST", "/personalizer/v2.0/rank", b"", 404, "ResourceNotFound", None),
    ("GET", f"{V1}/configurations/service", b"", 404, "ResourceNotFound", None),
)


@pytest.mark.parametrize(("method", "path", "body", "status", "code", "target"), REFUSED)
def test_bad_requests_are_refused_in_personalizers_own_shape(
    client: TestClient,
    method: str,
    path: str,
    body: bytes,
    status: int,
    code: str,
    target: str | None,
) -> None:
    answer = client.request(method, path, content=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    if target is not None:
        assert error["target"] == target


def test_slots_must_differ_and_have_their_own_baselines(client: TestClient) -> None:
    for wanted, target in (
        (slots("a", "a"), "$.slots[1].id"),
        ([*slots("a"), {"id": "b", "baselineAction": "news"}], "$.slots[1].baselineAction"),
        (slots("a", baselineAction="none"), "$.slots[0].baselineAction"),
        (slots("a", excludedActions=["news"]), "$.slots[0].baselineAction"),
    ):
        refused = rank_slots(client, slots=wanted)
        assert (refused.status_code, refused.json()["error"]["target"]) == (400, target)


def test_the_subscription_key_is_a_key_like_any_other(settings: Settings) -> None:
    keyed = replace(settings, keys=Keys.plain(["0123456789abcdef"]))
    body = {"actions": ACTIONS}
    with LocalClient(create_app(keyed)) as client:
        refused = client.post(f"{V1}/rank", json=body)
        assert refused.status_code == 401
        assert refused.json()["error"]["message"]
        key = {"Ocp-Apim-Subscription-Key": "0123456789abcdef"}
        assert client.post(f"{V1}/rank", json=body, headers=key).status_code == 201


def test_without_a_personalizer_experiment_there_is_nothing_to_rank_with(
    folder: Path, tmp_path: Path
) -> None:
    with LocalClient(create_app(Settings(folder, tmp_path / "data"))) as client:
        answer = rank(client)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ResourceNotFound")
        assert "personalizer: true" in answer.json()["error"]["message"]
