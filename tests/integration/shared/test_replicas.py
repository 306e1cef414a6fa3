"""Two API processes over one log in PostgreSQL: what one acknowledged, the other knows; and no
event loop waits for the network.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.testclient import TestClient
from tests.local_client import LocalClient
from tests.small_page import PAGE, Home

from topbill.log import Log
from topbill.log.orders import give_order
from topbill.service import other_files
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.spec import from_audit

pytest.importorskip("psycopg", reason="no psycopg: pip install -r requirements-dev.lock")

from topbill.log.postgres_database import PostgresDatabase


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The small page as of now: a service goes by its own clock."""
    home = Home(tmp_path / "experiments", time.time())
    home.write(page=f"{PAGE}session_ttl: 1h\n")
    return home


@pytest.fixture
def replicas(url: str, home: Home, tmp_path: Path) -> Iterator[tuple[TestClient, TestClient]]:
    """Two processes' applications."""
    settings = Settings(home.folder, tmp_path / "data")
    with (
        LocalClient(create_app(settings)) as one,
        LocalClient(create_app(settings)) as other,
    ):
        yield one, other


@pytest.fixture
def waits(replicas: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the server on an event loop's thread, from here on."""
    found: list[str] = []
    rows, append = PostgresDatabase.rows, PostgresDatabase.append

    def watched_rows(
        self: PostgresDatabase, query: str, values: Sequence[Any] = (), **options: Any
    ) -> Any:
        if asyncio._get_running_loop() is not None:
            found.append(query)
        return rows(self, query, values, **options)

    def watched_append(self: PostgresDatabase, values: Sequence[Any]) -> Any:
        if asyncio._get_running_loop() is not None:
            found.append("append")
        return append(self, values)

    monkeypatch.setattr(PostgresDatabase, "rows", watched_rows)
    monkeypatch.setattr(PostgresDatabase, "append", watched_append)
    return found


def post(client: TestClient, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return cast(dict[str, Any], response.json())


def shown(log: Log, decision_id: str) -> list[tuple[str, str | None]]:
    """The events of a decision: what they are, and of which title."""
    return [(event.event, event.action) for event in log.events(decision_id)]


def test_a_reward_may_go_to_another_replica_than_its_decision(
    replicas: tuple[TestClient, TestClient], waits: list[str], log: Log
) -> None:
    one, other = replicas
    made = post(one, "/v1/decide", {"experiment": "art", "unit": "u"})
    name, first = made["decision_id"], made["slate"][0]["action"]
    play = {"decision_id": name, "event": "play", "action": first, "event_id": "e"}
    assert post(other, "/v1/reward", play)["status"] == "stored"
    assert post(one, "/v1/reward", play)["status"] == "duplicate"
    wrong = {"decision_id": name, "event": "play", "action": "nothing"}
    assert "was not shown" in str(post(other, "/v1/reward", wrong, 422))
    batch = [play, {"decision_id": "nobody's", "event": "play"}]
    told = post(other, "/v1/reward/batch", {"rewards": batch})["results"]
    assert [each["status"] for each in told] == ["duplicate", "unknown_decision"]
    assert shown(log, name) == [("play", first)]
    assert waits == []


def test_a_decision_is_the_same_from_each_replica(
    replicas: tuple[TestClient, TestClient], waits: list[str], log: Log
) -> None:
    one, other = replicas
    body = {"experiment": "art", "unit": "u", "decision_id": "mine"}
    made = post(one, "/v1/decide", body)
    assert post(other, "/v1/decide", body) == made
    again = post(other, "/v1/decide/batch", {"decisions": [body]})
    assert again["decisions"] == [made]
    assert "another request" in str(post(other, "/v1/decide", {**body, "unit": "v"}, 409))
    # Nothing decides this one any more: what was is looked up.
    assert post(other, "/v1/decide", {**body, "experiment": "gone"}, 409)
    read = other.get("/v1/decisions/mine").json()
    assert [each["action"] for each in read["slate"]] == [each["action"] for each in made["slate"]]
    assert len(log.read_decisions(0, 99)) == 1
    assert waits == []


def test_a_session_has_one_page_whichever_replica_is_asked(
    replicas: tuple[TestClient, TestClient], waits: list[str], log: Log
) -> None:
    one, other = replicas
    asked = {"page": "home", "profile": "7", "session": "s"}
    page = post(one, "/v1/page", asked)
    again = post(other, "/v1/page", asked)
    assert again["page_id"] == page["page_id"]
    assert again["again"]
    title = page["rows"][0]["titles"][0]["title"]
    play = {"decision_id": page["page_id"], "event": "play", "action": title}
    assert post(other, "/v1/reward", play)["status"] == "stored"
    layers = [decision for _, decision in log.read_decisions(0, 999)]
    credited = {d.layer for d in layers if "play" in dict(shown(log, d.decision_id))}
    assert credited == {"page", "rows", "titles", "artwork"}, "as if it had made the page itself"
    below = {"page": "home", "profile": "7", "after": page["page_id"]}
    assert post(other, "/v1/page", below)["page_id"] == f"{page['page_id']}+2"
    assert one.put("/v1/profiles/7", json={"kids": True}).status_code == 200
    for_kids = post(other, "/v1/page", asked)
    assert for_kids["page_id"] != page["page_id"], "limits hold for every replica at once"
    assert one.get("/readyz").json()["status"] == "ready"
    assert waits == []


def test_what_two_replicas_are_sent_at_once_is_stored_once(
    replicas: tuple[TestClient, TestClient], log: Log
) -> None:
    bodies = [{"experiment": "art", "unit": f"u{i}", "decision_id": f"d{i}"} for i in range(20)]
    with ThreadPoolExecutor(8) as callers:
        calls = [(client, body) for body in bodies for client in replicas]
        answers = list(callers.map(lambda call: post(call[0], "/v1/decide", call[1]), calls))
    assert answers[::2] == answers[1::2]
    assert sorted(d.decision_id for _, d in log.read_decisions(0, 99)) == sorted(
        str(body["decision_id"]) for body in bodies
    )


def test_replicas_with_other_files_say_so_until_they_have_the_same(
    home: Home, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_files, "EVERY", 0.1)
    other = tmp_path / "other"
    shutil.copytree(home.folder, other)
    art = other / "art.yaml"
    same = art.read_text()
    art.write_text(same.replace("only:", "another:"))
    one = create_app(Settings(home.folder, tmp_path / "data"))
    with LocalClient(one) as first, LocalClient(create_app(Settings(other, tmp_path / "data"))):

        def differing() -> list[str]:
            troubles = first.get("/readyz").json()["troubles"]
            return [each["message"] for each in troubles if each["code"] == "files_differ"]

        until(differing)
        revision = log.newest_revisions()["art"]
        assert differing() == [
            f"art: runs by revision {revision} of another process: its files are others"
        ]
        art.write_text(same)
        until(lambda: not differing())


def test_what_was_taken_over_last_runs_everywhere_and_a_word_to_stop_reaches_all(
    home: Home, tmp_path: Path, log: Log
) -> None:
    other = tmp_path / "other"
    shutil.copytree(home.folder, other)
    art = other / "art.yaml"
    same = art.read_text()
    art.write_text(same.replace("only:", "another:"))

    def variant(client: TestClient) -> str:
        return str(post(client, "/v1/decide", {"experiment": "art", "unit": "u"})["variant"])

    one, two = (create_app(Settings(folder, tmp_path / "data")) for folder in (home.folder, other))
    with LocalClient(one) as first:
        assert variant(first) == "only"
        with LocalClient(two) as second:
            both = (first, second)
            until(lambda: [variant(each) for each in both] == ["another", "another"])
            noted = len(log.revisions("art"))

            give_order(log, "art", "stopped", "me", "it harms")
            until(lambda: [status(each) for each in both] == ["stopped"] * 2)
            give_order(log, "art", None, "me", "it does not")
            until(lambda: [status(each) for each in both] == ["running"] * 2)

            # Another file of the same folder changes: of this one the other's goes on.
            rows = home.folder / "pages" / "home" / "rows.yaml"
            rows.write_text(rows.read_text() + "title: Rows\n")
            until(lambda: log.revisions("rows")[-1].revision != log.revisions("rows")[0].revision)
            assert [variant(each) for each in both] == ["another", "another"]

            art.write_text(same)
            until(lambda: [variant(each) for each in both] == ["only", "only"])
            revisions = [line.revision for line in log.revisions("art")]
            assert len(revisions) == noted + 3, "stopped, going on, and the file as it was: once"
            assert revisions[-1] == revisions[0]


def test_a_file_that_decides_by_what_is_not_in_the_log_is_refused_elsewhere_by_name(
    home: Home, tmp_path: Path, log: Log
) -> None:
    mine = create_app(Settings(home.folder, tmp_path / "data"))
    with LocalClient(mine) as client:
        line = log.revisions("art")[-1]
        content = json.loads(line.spec)
        (name,) = content["variants"]
        content["variants"][name] = {"policy": "their-own", "control": True, "share": "100%"}
        text = json.dumps(content)
        log.revise("art", from_audit(text, "art").fingerprint, "them", text)

        def problems() -> Any:
            return client.get("/readyz").json()["problems"]

        until(lambda: problems() == [{"file": "art.yaml"}])
        assert status(client) == "running"
        assert len(log.revisions("art")) == 2, "what goes on here does not become the newest again"


def status(client: TestClient) -> str:
    """The experiment's, as a replica runs it."""
    return str(client.get("/v1/experiments/art").json()["status"])


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
