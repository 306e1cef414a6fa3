"""An id counts once for as long as the horizon says, whatever the log has let go meanwhile: what
comes again gets the stored answer, or is refused by name.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from starlette.testclient import TestClient

from topbill.domain.errors import LogError
from topbill.engine import new_id
from topbill.lake import DATABASE, Lake, sql
from topbill.log import open_log
from topbill.log.horizon import read_horizon
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.spec import load_all
from topbill.worker.loop import Worker
from topbill.worker.publisher import Publisher

from ...small_page import PAGE, Home, home

__all__ = ["home"]
ORDER = {"experiment": "artwork", "decision_id": "order-1", "unit": "u7"}
EXAMPLES = Path(__file__).parents[3] / "experiments"
OFFERED = [{"id": "warm"}, {"id": "cold"}, {"id": "dark"}]
MORE_THAN_A_DAY = -3_600.0
"""A log that keeps rows for less than no time lets go of all that is published."""


@pytest.fixture
def settings(home: Home, tmp_path: Path) -> Settings:
    return Settings(home.folder, tmp_path / "data")


def caller(settings: Settings) -> TestClient:
    """A process of the service, and who calls it."""
    return TestClient(create_app(settings), base_url="http://localhost:8600")


def publish(settings: Settings, *, keep: float | None = None, **options: Any) -> None:
    """One step of a publisher whose log keeps rows for `keep` seconds."""
    experiments = load_all([settings.experiments])
    with open_log(settings.log_path) as log:
        Publisher(log, Lake(settings.data), lambda: experiments, keep_log=keep, **options).step()


def decide(client: TestClient, **more: Any) -> Any:
    return client.post("/v1/decide", json={**ORDER, "actions": OFFERED, **more})


def reward(client: TestClient, decision_id: str, event_id: str, **more: Any) -> str:
    body = {"decision_id": decision_id, "event_id": event_id, "event": "play", **more}
    answer = client.post("/v1/reward", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["status"])


def rows(settings: Settings, query: str) -> list[dict[str, Any]]:
    return sql(settings.data / DATABASE, query).to_pylist()


def test_what_the_log_has_let_go_is_not_counted_a_second_time(settings: Settings) -> None:
    with caller(settings) as first, caller(settings) as other:
        assert decide(first).status_code == 200
        assert reward(first, "order-1", "e1") == "stored"
        assert reward(other, "order-1", "e1") == "duplicate"
        publish(settings, keep=MORE_THAN_A_DAY)
        # One process still knows what the decision showed, the other never did.
        with caller(settings) as restarted:
            for client in (first, other, restarted):
                assert reward(client, "order-1", "e1") == "duplicate"
                again = decide(client)
                assert again.status_code == 409
                assert again.json()["error"]["code"] == "already_decided"
                assert decide(client, unit="zz").status_code == 409
            assert reward(restarted, "order-1", "late") == "stored"
            assert reward(first, "order-1", "late") == "duplicate"
            assert reward(first, "nobody's", "e1") == "unknown_decision"
        publish(settings, keep=MORE_THAN_A_DAY)
        assert reward(first, "order-1", "late") == "duplicate"
    assert rows(settings, "SELECT count(*) AS n FROM decisions") == [{"n": 1}]
    stored = rows(settings, "SELECT event_id, experiment, unit FROM rewards ORDER BY event_id")
    # The late one too belongs to its experiment, though the log no longer knew the decision.
    assert stored == [
        {"event_id": "e1", "experiment": "artwork", "unit": "u7"},
        {"event_id": "late", "experiment": "artwork", "unit": "u7"},
    ]
    assert rows(settings, "SELECT decisions FROM units") == [{"decisions": 1}]


def test_until_the_lake_can_be_read_a_late_reward_is_refused_not_called_unknown(
    settings: Settings,
) -> None:
    """A restored folder, and one that was migrated, has no analytics database until its worker
    publishes.
    """
    with caller(settings) as client:
        decide(client)
        assert reward(client, "order-1", "e1") == "stored"
    publish(settings, keep=MORE_THAN_A_DAY)
    (settings.data / DATABASE).unlink()
    with caller(settings) as client:
        event = {"decision_id": "order-1", "event_id": "e1", "event": "play"}
        answer = client.post("/v1/reward", json=event)
        assert answer.status_code == 503
        assert "the worker writes it" in answer.text
        publish(settings, keep=MORE_THAN_A_DAY)
        assert reward(client, "order-1", "e1") == "duplicate"


def test_a_decision_that_was_let_go_is_shown_with_its_rewards(settings: Settings) -> None:
    with caller(settings) as client:
        decide(client)
        reward(client, "order-1", "e1", value=0.5)
        before = client.get("/v1/decisions/order-1").json()
        publish(settings, keep=MORE_THAN_A_DAY)
        assert client.get("/v1/decisions/order-1").json() == before | {"request_hash": ""}
        reward(client, "order-1", "late")
        after = client.get("/v1/decisions/order-1").json()["rewards"]
        assert [event["event_id"] for event in after] == ["e1", "late"]
        page = client.post("/v1/page", json={"page": "home", "profile": "7"}).json()
        title = page["rows"][0]["titles"][0]["title"]
        why = f"/v1/pages/{page['page_id']}/why?title={title}"
        told = client.get(why).json()
        publish(settings, keep=MORE_THAN_A_DAY)
        assert client.get(why).json() == told


def test_rewards_of_personalizers_events_may_come_late(settings: Settings) -> None:
    shutil.copy(EXAMPLES / "personalizer.yaml", settings.experiments)
    v1, preview = "/personalizer/v1.0", "/personalizer/v1.1-preview.3"
    actions = [{"id": name, "features": []} for name in ("news", "sports")]
    slots = {"actions": actions, "slots": [{"id": "top", "baselineAction": "news"}]}
    with caller(settings) as client:
        for event, more in (("one", {}), ("deferred", {"deferActivation": True})):
            body = {"actions": actions, "eventId": event, **more}
            assert client.post(f"{v1}/rank", json=body).status_code == 201
        body = {**slots, "eventId": "many"}
        assert client.post(f"{preview}/multislot/rank", json=body).status_code == 201
        publish(settings, keep=MORE_THAN_A_DAY)
        for event in ("one", "deferred"):
            late = client.post(f"{v1}/events/{event}/reward", json={"value": 1.0})
            assert late.status_code == 204, late.text
        body = {"reward": [{"slotId": "top", "value": 1.0}]}
        late = client.post(f"{preview}/multislot/events/many/reward", json=body)
        assert late.status_code == 204, late.text
        for event in ("one", "deferred"):
            again = client.post(f"{v1}/events/{event}/activate", json={})
            assert again.status_code == 204, again.text
        nobodys = client.post(f"{v1}/events/other/reward", json={"value": 1.0})
        assert nobodys.status_code == 404


def test_services_go_by_the_horizon_of_the_worker(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    decision_id = new_id()
    with caller(settings) as client:
        assert decide(client, decision_id=decision_id).status_code == 200
        assert reward(client, decision_id, "e1") == "stored"
        publish(settings, keep=MORE_THAN_A_DAY)
        Worker(settings.experiments, settings.data, remember=1e-6).finish()
    with caller(settings) as client:
        assert reward(client, decision_id, "e1") == "unknown_decision"
    assert "as the worker says" in caplog.text
    (settings.data / "remember").write_text("soon")
    with pytest.raises(LogError, match="expected seconds"):
        read_horizon(settings.data)


def test_a_batch_with_a_used_id_is_refused_whole(settings: Settings) -> None:
    with caller(settings) as client:
        decide(client)
        publish(settings, keep=MORE_THAN_A_DAY)
        new = {**ORDER, "decision_id": "order-2", "actions": OFFERED}
        batch = {"decisions": [new, {**ORDER, "actions": OFFERED}]}
        answer = client.post("/v1/decide/batch", json=batch)
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "already_decided"
        assert decide(client, decision_id="order-2").status_code == 200
        publish(settings)
    assert rows(settings, "SELECT count(*) AS n FROM decisions") == [{"n": 2}]


def test_after_the_horizon_a_reward_is_of_nobody_at_a_process_that_remembers_the_decision_too(
    home: Home, tmp_path: Path
) -> None:
    settings = Settings(home.folder, tmp_path / "data", remember=1e-6)
    with caller(settings) as client:
        decide(client)
        assert reward(client, "order-1", "e1") == "stored"
        publish(settings, keep=MORE_THAN_A_DAY, remember=-3_600.0)
        assert reward(client, "order-1", "e1") == "unknown_decision"


def test_a_page_that_was_let_go_is_refused_by_name_and_its_late_reward_reaches_every_layer(
    settings: Settings,
) -> None:
    asked = {"page": "home", "profile": "7", "page_id": "S1"}
    with caller(settings) as client:
        page = client.post("/v1/page", json=asked).json()
        title = page["rows"][0]["titles"][0]["title"]
    publish(settings, keep=MORE_THAN_A_DAY)
    with caller(settings) as client:
        again = client.post("/v1/page", json=asked)
        assert again.status_code == 409
        assert again.json()["error"]["code"] == "already_decided"
        for status in ("stored", "duplicate"):
            assert reward(client, page["page_id"], "e", action=title) == status
    publish(settings)
    got = rows(settings, "SELECT experiment, unit FROM rewards ORDER BY experiment")
    assert [row["experiment"] for row in got] == ["artwork", "home", "rows", "titles"]
    assert {row["unit"] for row in got} == {"7"}


def test_a_session_gets_its_page_from_the_lake_when_the_log_has_let_it_go(
    home: Home, settings: Settings
) -> None:
    home.write(page=f"{PAGE}session_ttl: 12h\n")
    asked = {"page": "home", "profile": "7", "session": "s"}
    with caller(settings) as client:
        first = client.post("/v1/page", json=asked).json()
        publish(settings, keep=MORE_THAN_A_DAY)
        again = client.post("/v1/page", json=asked).json()
    assert again["page_id"] == first["page_id"]
    assert again["rows"] == first["rows"]


@pytest.mark.parametrize("layer", ["", ":rows", ":best"])
def test_a_page_of_which_one_id_is_taken_is_refused_whole(settings: Settings, layer: str) -> None:
    with caller(settings) as client:
        assert decide(client, decision_id=f"page-S1{layer}").status_code == 200
        asked = {"page": "home", "profile": "7", "page_id": "S1"}
        for _ in range(2):
            refused = client.post("/v1/page", json=asked)
            assert refused.status_code == 409
            assert f"page-S1{layer}" in refused.json()["error"]["message"]
        assert client.post("/v1/page", json={**asked, "page_id": "S2"}).status_code == 200
        assert decide(client, decision_id="page-S2:rows").status_code == 409
        publish(settings, keep=MORE_THAN_A_DAY)
        assert client.post("/v1/page", json=asked).json()["error"]["code"] == "already_decided"
    stored = rows(settings, "SELECT decision_id FROM decisions WHERE decision_id LIKE 'page-S1%'")
    assert stored == [{"decision_id": f"page-S1{layer}"}]


@pytest.mark.parametrize("age", [47.0, 49.0, 10_000.0])
def test_an_id_that_says_that_it_is_older_than_the_horizon_is_refused(
    settings: Settings, age: float
) -> None:
    made = f"{int((time.time() - age * 3_600) * 1_000):012x}"
    uuid = f"{made[:8]}-{made[8:]}-7abc-8def-0123456789ab"
    page = {"page": "home", "profile": "7"}
    with caller(settings) as client:
        for answer in (
            decide(client, decision_id=uuid),
            client.post("/v1/page", json={**page, "page_id": uuid}),
        ):
            if age < 48:
                assert answer.status_code == 200
            else:
                assert answer.status_code == 409
                assert answer.json()["error"]["code"] == "already_decided"
                assert "48 h" in answer.json()["error"]["message"]
        # Of any other id nobody can tell.
        assert decide(client, decision_id=uuid.replace("-", "")).status_code == 200


# ---------------------------------------------------------------------- any order of requests

_ID = st.sampled_from("abc")
_STEP = st.one_of(
    st.tuples(st.just("decide"), _ID, st.sampled_from(["u", "v"])),
    st.tuples(st.just("page"), _ID, st.just("")),
    st.tuples(st.sampled_from(["reward", "page reward"]), _ID, st.sampled_from("xy")),
    st.tuples(st.just("event"), _ID, st.sampled_from("xy")),
    st.tuples(st.sampled_from(["publish", "let go", "restart"]), st.just(""), st.just("")),
)


class Counted:
    """Sends requests, and knows of each id whether it was acknowledged as new: a model that has
    never heard of a log.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.answers: dict[str, Any] = {}
        self.stored: Counter[tuple[str, ...]] = Counter()
        self.client = caller(settings).__enter__()

    def close(self) -> None:
        self.client.__exit__(None, None, None)

    def step(self, what: str, one: str, other: str) -> None:
        match what:
            case "decide":
                self._once(one, decide(self.client, decision_id=one, unit=other))
            case "page":
                asked = {"page": "home", "profile": "7", "page_id": one}
                self._once(f"page-{one}", self.client.post("/v1/page", json=asked))
            case "reward" | "page reward":
                name = one if what == "reward" else f"page-{one}"
                status = reward(self.client, name, other)
                self._status(("reward", name, other), status, name in self.answers)
            case "event":
                body = {"unit": one, "unit_type": "profile_id", "event": "e", "event_id": other}
                status = self.client.post("/v1/event", json=body).json()["status"]
                self._status(("event", one, other), status, known=True)
            case "restart":
                self.close()
                self.client = caller(self.settings).__enter__()
            case _:
                publish(self.settings, keep=MORE_THAN_A_DAY if what == "let go" else None)

    def _once(self, name: str, answer: Any) -> None:
        """An id has one answer; what isn't that answer says why."""
        if answer.status_code == 200:
            slate = msgspec.json.decode(answer.content)
            slate.pop("again", None)
            assert self.answers.setdefault(name, slate) == slate
        else:
            assert answer.status_code == 409, answer.text
            assert answer.json()["error"]["code"] in ("conflict", "already_decided")
            assert name in self.answers

    def _status(self, key: tuple[str, ...], status: str, known: bool) -> None:
        expected = "duplicate" if self.stored[key] else "stored"
        assert status == (expected if known else "unknown_decision")
        self.stored[key] += status == "stored"

    def check(self) -> None:
        """What is in the lake is what was acknowledged, once each."""
        publish(self.settings)
        ids = [row["decision_id"] for row in rows(self.settings, "FROM decisions")]
        assert len(ids) == len(set(ids))
        assert {i for i in ids if ":" not in i} == self.answers.keys()
        rewards = "SELECT decision_id, event_id FROM rewards WHERE NOT contains(decision_id, ':')"
        got = Counter(
            ("reward", row["decision_id"], row["event_id"]) for row in rows(self.settings, rewards)
        )
        for row in rows(self.settings, "SELECT unit, event_id FROM events"):
            got["event", row["unit"], row["event_id"]] += 1
        assert got == +self.stored


def count_once(folder: Path, steps: Sequence[tuple[str, str, str]]) -> None:
    """Take the steps, and look whether each id was counted once."""
    counted = Counted(Settings(Home(folder / "experiments").folder, folder / "data"))
    try:
        for step in steps:
            counted.step(*step)
        counted.check()
    finally:
        counted.close()


def test_each_id_is_counted_once_before_and_after_it_was_let_go_and_after_a_restart(
    tmp_path: Path,
) -> None:
    sent = [
        ("decide", "a", "u"),
        ("reward", "a", "x"),
        ("page", "a", ""),
        ("page reward", "a", "x"),
        ("event", "a", "x"),
    ]
    late = [("reward", "a", "y"), ("page reward", "a", "y"), ("decide", "a", "v")]
    let_go, restart = ("let go", "", ""), ("restart", "", "")
    count_once(tmp_path, [*sent, *sent, let_go, *sent, restart, *sent, *late, let_go, *late, *sent])


@pytest.mark.slow
@profile(max_examples=30, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(_STEP, min_size=6, max_size=24))
def test_each_id_is_counted_once_whatever_is_sent_in_whatever_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str]]
) -> None:
    count_once(tmp_path_factory.mktemp("home"), steps)
