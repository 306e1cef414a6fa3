"""`POST /v1/profiles/{id}/merge`: a guest who signs in brings along what is known of them, to every
process, after a restart too, and no limit is lifted by it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from topbill.log import LOG_FILE, open_log
from topbill.log.tombstones import read_tombstones
from topbill.service.app import create_app
from topbill.service.auth import is_about_people, scope_of
from topbill.service.settings import Settings
from topbill.worker.candidate_signals import plays
from topbill.worker.erasure import erase_unit, find_unit, unit_data
from topbill.worker.loop import Worker

from ...local_client import LocalClient
from ...traces import traces

PROFILE, GUEST = "profile 84f1c0", "guest/session 9d2e07"


def merge(client: TestClient, profile: str = PROFILE, guest: str = GUEST) -> Any:
    return client.post(f"/v1/profiles/{profile}/merge", json={"from": guest})


def event(client: TestClient, unit: str, name: str, title: str) -> None:
    body = {"unit": unit, "unit_type": "profile_id", "event": name, "action": title}
    assert client.post("/v1/event", json=body).json()["status"] == "stored"


def shown(client: TestClient, **asked: Any) -> set[str]:
    """The titles of some pages: which rows each has is drawn."""
    titles = set()
    for _ in range(6):
        page = client.post("/v1/page", json={"page": "home", "region": "de", **asked}).json()
        titles |= {tile["title"] for row in page["rows"] for tile in row["titles"]}
    return titles


def wait_until_gone(client: TestClient, titles: set[str], **asked: Any) -> None:
    """Other processes know within a second or so."""
    until = time.monotonic() + 20.0
    while shown(client, **asked) & titles:
        assert time.monotonic() < until, "what the guest watched still stands on the page"
        time.sleep(0.2)


def stands_sometime(title: str, client: TestClient, **asked: Any) -> bool:
    return any(title in shown(client, **asked) for _ in range(20))


def published(settings: Settings) -> None:
    worker = Worker(settings.experiments, settings.data)
    while worker.step():
        pass
    worker.finish()


def test_a_profile_knows_what_its_guest_watched_everywhere_and_after_a_restart(
    home: Any, settings: Settings
) -> None:
    with LocalClient(create_app(settings)) as one, LocalClient(create_app(settings)) as other:
        # On their page, and elsewhere.
        page = one.post("/v1/page", json={"page": "home", "session": "session 9d2e07"}).json()
        # None of those of which more is told below.
        shown = [tile["title"] for row in page["rows"] for tile in row["titles"]]
        watched = next(title for title in shown if title not in {"t02", "t06", "t08"})
        played = {"decision_id": page["page_id"], "event": "play", "action": watched}
        assert one.post("/v1/reward", json=played).status_code == 200
        event(one, GUEST, "thumbs_down", "t02")
        event(one, GUEST, "onboarding_pick", "t08")
        known = {"status": "merged", "profile": PROFILE, "from": GUEST}
        limits = {"kids": False, "maturity": None, "region": None}
        assert merge(one).json() == known | limits
        assert merge(other).json() == known | limits | {"status": "known"}
        assert merge(other, "in chain", PROFILE).status_code == 200
        for client in (one, other):
            wait_until_gone(client, {watched, "t02"}, profile=PROFILE)
            wait_until_gone(client, {watched, "t02"}, profile="in chain")
        assert stands_sometime("t02", one, profile="somebody else")
    published(settings)
    with LocalClient(create_app(settings)) as again:
        wait_until_gone(again, {watched, "t02"}, profile=PROFILE)
        # A guest is not shown what the profile did since.
        event(again, PROFILE, "thumbs_down", "t06")
        wait_until_gone(again, {"t06"}, profile=PROFILE)
        assert stands_sometime("t06", again, session="session 9d2e07")
    with open_log(settings.data / LOG_FILE) as log:
        found = plays(settings.data, home.file(), {"profile_id"}, log.merges())
    # What is liked is of one viewer, the picks of the start with it.
    assert {(play.unit, play.title) for play in found} == {
        ("in chain", watched),
        ("in chain", "t08"),
    }


def test_no_limit_is_lifted_by_signing_in(home: Any, settings: Settings) -> None:
    def ages(client: TestClient) -> set[int]:
        catalog = home.catalog()
        titles = shown(client, profile=PROFILE)
        return {int(catalog.maturity[catalog.index[title]]) for title in titles}

    with LocalClient(create_app(settings)) as client:
        client.put("/v1/profiles/kid", json={"kids": True, "region": "de"})
        client.put(f"/v1/profiles/{PROFILE}", json={"maturity": 12})
        # The limits of the kid hold for the kid of any account.
        answer = merge(client, guest="account/kid").json()
        assert (answer["kids"], answer["maturity"], answer["region"]) == (True, 12, "de")
        assert max(ages(client)) <= 7
        # Lifted by whoever may, and the same call again sets nothing anew.
        client.put(f"/v1/profiles/{PROFILE}", json={"kids": False, "maturity": None})
        assert merge(client, guest="account/kid").json()["kids"] is False
        assert max(ages(client)) == 18
        # A kid stays one, whoever is merged into it.
        assert merge(client, "kid", PROFILE).json()["kids"] is True


@pytest.mark.parametrize(
    ("profile", "body", "status", "path"),
    [
        (PROFILE, f'{{"from": "{PROFILE}"}}', 422, "$.from"),
        (PROFILE, "{}", 422, "$"),
        (PROFILE, '{"from": ""}', 422, "$.from"),
        (PROFILE, '{"from": "a/"}', 422, "$.from"),
        (PROFILE, '{"from": 7}', 422, "$.from"),
        (PROFILE, '{"from": "g", "kids": false}', 422, "$"),
        (PROFILE, f'{{"from": "{"x" * 129}"}}', 422, "$.from"),
        (PROFILE, f'{{"from": "{"x" * 2_000_000}"}}', 413, None),
        (PROFILE, "[]", 422, "$"),
        (PROFILE, "{", 400, "$"),
        ("k" * 129, '{"from": "g"}', 422, "profile"),
    ],
)
def test_what_is_no_merge_is_a_named_error_and_nothing_is_stored(
    client: TestClient, settings: Settings, profile: str, body: str, status: int, path: str | None
) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post(f"/v1/profiles/{profile}/merge", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"].get("path")) == (status, path)
    with open_log(settings.data / LOG_FILE) as log:
        assert log.merges() == []


def test_merging_takes_admin_is_audited_and_described() -> None:
    path = f"/v1/profiles/{PROFILE}/merge"
    assert scope_of("POST", path) == "admin"
    assert is_about_people(path)


def merged(settings: Settings) -> Path:
    with LocalClient(create_app(settings)) as client:
        event(client, GUEST, "play", "t00")
        event(client, PROFILE, "play", "t02")
        assert merge(client).json()["status"] == "merged"
        event(client, GUEST, "play", "t04")
    published(settings)
    return settings.data


def test_a_guest_is_erased_without_a_trace_and_the_profile_stays(
    home: Any, settings: Settings
) -> None:
    data = merged(settings)
    pair = {"profile": PROFILE, "merged": GUEST}
    assert unit_data(data, GUEST)["merges"] == unit_data(data, PROFILE)["merges"] == [pair]
    assert find_unit(data, GUEST, "account_id").merges == frozenset()
    assert erase_unit(data, GUEST).merges == {(PROFILE, GUEST)}
    assert list(traces(data, GUEST)) == []
    assert len(find_unit(data, PROFILE).events) == 1


def test_with_a_profile_goes_what_it_was_before_it_signed_in(home: Any, settings: Settings) -> None:
    data = merged(settings)
    assert len(find_unit(data, PROFILE).events) == 3
    assert len(erase_unit(data, PROFILE).events) == 3
    assert list(traces(data, PROFILE)) == list(traces(data, GUEST)) == []
    assert len(read_tombstones(data / "tombstones.jsonl")) == 2


def test_units_of_a_folder_that_hashes_are_hashed_here_too(home: Any, settings: Settings) -> None:
    settings.data.mkdir()
    (settings.data / "settings.yaml").write_text("hash_units: true\n")
    with LocalClient(create_app(settings)) as client:
        event(client, GUEST, "thumbs_down", "t02")
        assert merge(client).json()["from"] == GUEST
        wait_until_gone(client, {"t02"}, profile=PROFILE)
    assert list(traces(settings.data, GUEST)) == list(traces(settings.data, PROFILE)) == []
