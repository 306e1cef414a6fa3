"""Poison cannot enter: what is stored was looked at whole, at every door alike, and what every
reader cannot read is refused by name.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from topbill import lake
from topbill.domain.records import QuarantinedRow
from topbill.engine import Engine
from topbill.log import LOG_FILE, Duty, Log, now_micros, open_log, protocol
from topbill.pages import experiment_folders
from topbill.service.app import create_app
from topbill.service.follower import Follower
from topbill.service.settings import Settings
from topbill.spec import load_all
from topbill.worker.learner import Learner
from topbill.worker.loop import Worker
from topbill.worker.policy_fold import PolicyFold

from ...local_client import LocalClient
from ...processes import topbill
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


# ---------------------------------------------------------------------- and cannot spread


def bodies() -> st.SearchStrategy[tuple[str, bytes]]:
    """A request to some door with some of its bytes changed, left out or put in."""
    good = st.sampled_from(
        [(path, body.replace("%s", good)) for path, body in DOORS.values() for good in GOOD]
    )
    change = st.tuples(st.integers(0, 10_000), st.integers(0, 2), st.binary(max_size=3))
    return st.tuples(good, st.lists(change, max_size=3)).map(_changed)


GOOD = ('"tv"', "{}", '{"image":"a.svg"}', '"é\\ud83d\\ude00"', "1.5", '"\\u0000"')


def _changed(drawn: tuple[tuple[str, str], list[tuple[int, int, bytes]]]) -> tuple[str, bytes]:
    (path, text), changes = drawn
    body = text.encode()
    for place, width, fresh in changes:
        at = place % (len(body) + 1)
        body = body[:at] + fresh + body[at + width :]
    return path, body


@hypothesis_settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(requests=st.lists(bodies(), min_size=10, max_size=10))
@seed(15)
def _send(client: TestClient, counts: Counter[int], requests: list[tuple[str, bytes]]) -> None:
    for path, body in requests:
        answer = client.post(path, content=body)
        assert answer.status_code < 500, (path, body, answer.text)
        assert answer.status_code // 100 == 2 or answer.json()["error"]["message"], body
        counts[answer.status_code // 100] += 1


def learn_all(settings: Settings) -> None:
    """Learn everything in the log, as if it were old enough."""
    later = now_micros() + 3_600_000_000
    with open_log(settings.log_path, clock=lambda: later) as log:
        learner = Learner(log, load_all(experiment_folders(settings.experiments)))
        while learner.step():
            pass
        assert not list(learner.failures)


def test_whatever_was_stored_is_published_and_nothing_stops_the_rest(
    client: TestClient, log: Log, settings: Settings
) -> None:
    """Bytes changed at random: refused, or stored and in the record for every reader."""
    counts = Counter[int]()
    _send(client, counts)
    assert min(counts[2], counts[4]) > 100
    worker = Worker(settings.experiments, settings.data)
    worker.step()
    worker.finish()
    database = settings.data / lake.DATABASE
    (published,) = lake.sql(
        database,
        """SELECT (SELECT count(*) FROM decisions) AS decisions,
            (SELECT count(*) FROM rewards) AS rewards, (SELECT count(*) FROM events) AS events,
            (SELECT count(context::JSON) FROM decisions) AS contexts,
            (SELECT count(*) FROM problems WHERE kind <> 'page')
                + (SELECT count(*) FROM quarantine) AS wrong""",
    ).to_pylist()
    stored = len(log.read_decisions(0, 100_000))
    assert published == {
        "decisions": stored,
        "contexts": stored,
        "rewards": len(log.read_events(0, 100_000)),
        "events": len(log.read_unit_events(0, 100_000)),
        "wrong": 0,
    }
    assert stored > 50
    learn_all(settings)
    assert log.quarantine() == []


def test_poison_of_an_earlier_version_stops_nobody(
    client: TestClient, log: Log, settings: Settings
) -> None:
    """The attack on 0.1.0: a payload that is no UTF-8, stored as it came then."""

    def decide() -> None:
        answer = client.post("/v1/decide", json={"experiment": "art", "unit": "u"})
        assert answer.status_code == 200

    decide()
    (_, good), *_ = log.read_decisions(0, 1)
    poison = msgspec.Raw(b'[{"id":"a","payload":"\xff"}]')
    log.append([msgspec.structs.replace(good, decision_id="poison", actions=poison)])
    for _ in range(5):
        decide()
    worker = Worker(settings.experiments, settings.data)
    worker.step()
    worker.finish()
    database = settings.data / lake.DATABASE
    count = "SELECT count(*) AS n FROM decisions"
    assert lake.sql(database, count).to_pylist() == [{"n": 6}]
    (aside,) = lake.sql(database, "FROM quarantine").to_pylist()
    assert (aside["id"], aside["stage"], aside["experiment"]) == ("poison", "publish", "art")
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["worker"]["quarantined"] == 1
    assert "rows_quarantined" in [trouble["code"] for trouble in ready.json()["troubles"]]


# ---------------------------------------------------------------------- the worker, as it is seen


def test_a_worker_is_seen_alive_dead_and_lagging(
    client: TestClient, log: Log, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ready() -> tuple[dict[str, Any], list[str]]:
        answer = client.get("/readyz")
        assert answer.status_code == 200  # it decides and stores without a worker
        body = answer.json()
        return body["worker"], [trouble["code"] for trouble in body["troubles"]]

    never = {"alive": False, "lag_seconds": None, "quarantined": 0}
    assert ready() == (never, ["worker_not_alive"])
    worker = Worker(settings.experiments, settings.data)
    worker.step()
    worker._publishing._beat_at = 0.0
    worker.step()
    told, codes = ready()
    assert (told["alive"], codes) == (True, [])
    assert 0.0 <= told["lag_seconds"] < 60.0
    now = log.now()
    log.beat(now - 90_000_000)
    told, codes = ready()
    assert (told["alive"], codes) == (True, ["worker_lagging"])
    assert 90.0 <= told["lag_seconds"] < 120.0
    monkeypatch.setattr(protocol, "now_micros", lambda: now + 60_000_000)
    told, codes = ready()
    assert (told["alive"], codes) == (False, ["worker_not_alive"])
    worker.finish()


def test_how_experiments_are_learned_is_told_wherever_that_is(
    client: TestClient, log: Log, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(**duty: Any) -> list[dict[str, str]]:
        log.note_duties([Duty(name="learn:art", worker="another machine:7", **duty)])
        troubles: list[dict[str, str]] = client.get("/readyz").json()["troubles"]
        return troubles

    log.beat(log.now())
    assert told() == []
    (trouble,) = told(failing="ValueError: what stands in a file")
    assert trouble["code"] == "learning_fails"
    assert "what stands" not in trouble["message"], "anybody may ask"
    (trouble,) = told(behind="it learns decisions that have waited for 26 s", lag=26.0)
    assert trouble == {
        "code": "learning_behind",
        "message": "art: it learns decisions that have waited for 26 s",
    }
    Follower(settings, Engine(load_all([settings.experiments]))).step()
    lines = client.get("/metrics").text.splitlines()
    assert 'topbill_learning_lag_seconds{experiment="art"} 26.0' in lines
    now = log.now()
    monkeypatch.setattr(protocol, "now_micros", lambda: now + 60_000_000)
    log.beat(now)
    (trouble,) = client.get("/readyz").json()["troubles"]
    assert trouble["code"] == "worker_not_alive", "then nobody learns anyway"
    with open_log(settings.data / LOG_FILE, clock=lambda: now + 60_000_000) as later:
        later.beat(now + 60_000_000)
    (trouble,) = client.get("/readyz").json()["troubles"]
    assert trouble["code"] == "learned_by_nobody"
    assert "art: no worker has said that it learns it for 60 s" in trouble["message"]


def test_what_is_known_of_the_worker_is_among_the_metrics(
    client: TestClient, log: Log, settings: Settings
) -> None:
    row = QuarantinedRow("decision", "learn", "art", "d", "", 1, "because")
    log.set_aside([row, row._replace(seq=2)])
    log.beat(log.now())
    Follower(settings, Engine([])).step()
    lines = client.get("/metrics").text.splitlines()
    assert "topbill_quarantined_total 2.0" in lines
    assert "topbill_worker_alive 1.0" in lines
    assert any(line.startswith("topbill_worker_lag_seconds ") for line in lines)


# ---------------------------------------------------------------------- what was learned, damaged


DAMAGE = {
    "no msgpack": "x'c1'",
    "a policy's bytes cut": "x'81a46f6e6c79c40100'",
    "another type": "'text'",
    "nothing": "x''",
}
"""What may stand in the place of a stored state, as SQL; the second is a map from some variant to
one byte."""


def damage(data: Path, blob: str, versions: str = "max(version)") -> None:
    """Write over stored states of experiment art."""
    with closing(sqlite3.connect(data / "log.sqlite")) as connection, connection:
        connection.execute(
            f"""UPDATE policy_snapshots SET blob = {blob} WHERE experiment = 'art' AND version IN
            (SELECT {versions} FROM policy_snapshots WHERE experiment = 'art')"""  # noqa: S608
        )


def learned(settings: Settings, versions: int) -> None:
    """So many versions of every experiment."""
    with open_log(settings.log_path) as log:
        for experiment in load_all(experiment_folders(settings.experiments)):
            fold = PolicyFold(experiment)
            for _ in range(versions):
                fold.publish(log)


@pytest.mark.parametrize("blob", DAMAGE.values(), ids=list(DAMAGE))
def test_a_service_starts_over_a_damaged_state_with_the_one_before_and_says_so(
    settings: Settings, blob: str
) -> None:
    learned(settings, 2)
    damage(settings.data, blob)
    with LocalClient(create_app(settings)) as client:
        ready = client.get("/readyz")
        assert ready.status_code == 200
        codes = {trouble["code"]: trouble["message"] for trouble in ready.json()["troubles"]}
        assert "art" in codes["snapshot_unreadable"]
        listed = client.get("/v1/experiments").json()["experiments"]
        assert {line["key"]: line["policy_version"] for line in listed if line["key"] != "art"} == {
            line["key"]: 2 for line in listed if line["key"] != "art"
        }
        answer = client.post("/v1/decide", json={"experiment": "art", "unit": "u"}).json()
        assert answer["policy_version"] == 1
        told = client.get(f"/v1/decisions/{answer['decision_id']}").json()
        assert told["scores"]  # the version that decided can be read


def test_where_no_version_can_be_read_a_service_begins_with_what_it_knew_at_first(
    settings: Settings,
) -> None:
    learned(settings, 2)
    with LocalClient(create_app(settings)) as client:
        before = client.post("/v1/decide", json={"experiment": "art", "unit": "u"}).json()
        assert before["policy_version"] == 2
        damage(settings.data, "x'c1'", "version")
        told = client.get(f"/v1/decisions/{before['decision_id']}")
        assert (told.status_code, told.json()["scores"]) == (200, None)
    with LocalClient(create_app(settings)) as client:
        answer = client.post("/v1/decide", json={"experiment": "art", "unit": "u"}).json()
        assert (answer["policy_version"], answer["reason"]) == (0, "policy")


def test_a_running_service_keeps_what_it_has_and_takes_what_is_written_again(
    settings: Settings,
) -> None:
    learned(settings, 1)
    engine = Engine(load_all(experiment_folders(settings.experiments)))
    follower = Follower(settings, engine)
    follower.step()
    fold = PolicyFold(engine.experiments["art"].experiment)
    with open_log(settings.log_path) as log:
        fold.version = 1
        fold.publish(log)
        damage(settings.data, "x'c1'")
        follower.step()
        assert engine.experiments["art"].version == 1
        assert "version 1 is used" in follower.unreadable["art"]
        assert "topbill verify art --repair" in follower.unreadable["art"]
        fold.publish(log)
        follower.step()
    assert engine.experiments["art"].version == 3
    assert follower.unreadable == {}
    follower.close()


def test_verify_repairs_what_cannot_be_read(settings: Settings) -> None:
    learned(settings, 1)
    damage(settings.data, "x'c1'")
    with open_log(settings.log_path) as log:
        experiment = next(
            e for e in load_all(experiment_folders(settings.experiments)) if e.key == "art"
        )
        log.revise("art", experiment.fingerprint, "tests", json.dumps(experiment.raw))

    def verify(*options: str) -> tuple[int, str]:
        done = topbill("verify", "art", *options, "--data", settings.data)
        return done.returncode, done.stdout + done.stderr

    status, output = verify()
    assert (status, "nothing that can be read is stored" in output) == (1, True), output
    status, output = verify("--repair")
    assert (status, "written again as version 2" in output) == (0, True), output
    status, output = verify()
    assert (status, "equals" in output) == (0, True), output
    status, output = verify("--repair")
    assert (status, "written again" in output) == (0, False), output
