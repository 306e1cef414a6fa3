"""`PUT /v1/profiles/{id}`: what is set of a profile holds for each of its pages, whatever a request
forgets.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from topbill.backup import back_up, restore
from topbill.log import LOG_FILE
from topbill.log.database import LogDatabase
from topbill.service.app import create_app
from topbill.service.auth import scope_of
from topbill.service.settings import Settings
from topbill.worker.erasure import erase_again, erase_unit, find_unit, unit_data

from ...local_client import LocalClient
from ...traces import traces

KID = "kid 84f1c0"


def put(client: TestClient, profile: str, **limits: Any) -> Any:
    return client.put(f"/v1/profiles/{profile}", json=limits)


def ages(home: Any, client: TestClient, **asked: Any) -> set[int]:
    """Of all titles on some pages: which rows each has is drawn."""
    catalog = home.catalog()
    found = set()
    for _ in range(8):
        answer = client.post("/v1/page", json={"page": "home", **asked}).json()
        titles = [tile["title"] for row in answer["rows"] for tile in row["titles"]]
        assert titles
        found |= {int(catalog.maturity[catalog.index[title]]) for title in titles}
    return found


def test_a_kids_profile_stays_one_whatever_is_forgotten_in_every_process_and_after_a_restart(
    home: Any, settings: Settings
) -> None:
    with LocalClient(create_app(settings)) as one, LocalClient(create_app(settings)) as other:
        assert max(ages(home, other, profile=KID)) == 18
        answer = put(one, KID, kids=True)
        assert (answer.status_code, answer.json()) == (
            200,
            {"profile": KID, "kids": True, "maturity": None, "region": None},
        )
        assert max(ages(home, other, profile=KID)) <= 7
        # What a change leaves out stays; a request may only be stricter.
        assert put(other, KID, maturity=12).json()["kids"]
        assert max(ages(home, one, profile=KID, kids=False, maturity=18)) <= 7
        assert max(ages(home, one, profile=KID, maturity=0)) == 0
        # A limit holds however it was set: with an account or without one.
        assert max(ages(home, one, profile=KID, account="a")) <= 7
        put(one, "a/other", kids=True)
        assert max(ages(home, one, profile="other", account="a")) <= 7
        assert max(ages(home, one, profile="other", account="b")) == 18
        assert max(ages(home, one, profile="other")) == 18
    with LocalClient(create_app(settings)) as again:
        assert max(ages(home, again, profile=KID)) <= 7
        # Lifting it takes saying so.
        assert put(again, KID, kids=False).json()["maturity"] == 12
        assert max(ages(home, again, profile=KID)) == 7
        assert again.delete(f"/v1/profiles/{KID}").status_code == 204
        assert again.get(f"/v1/profiles/{KID}").status_code == 404
        assert max(ages(home, again, profile=KID)) == 18


def test_the_region_is_the_requests_else_the_profiles_else_the_files(
    home: Any, client: TestClient
) -> None:
    put(client, f"a/{KID}", region="de")

    def region(**asked: Any) -> str:
        page = client.post("/v1/page", json={"page": "home", "profile": KID, **asked}).json()
        stored = client.get(f"/v1/decisions/{page['page_id']}").json()
        return str(stored["context"]["region"])

    assert region(account="a") == "de"
    assert region(account="a", region="us") == "us"
    assert region() == "us"


def test_a_session_that_became_a_kids_gets_no_page_of_before(home: Any, settings: Settings) -> None:
    page = (home.folder / "pages" / "home.yaml").read_text()
    (home.folder / "pages" / "home.yaml").write_text(f"session_ttl: 30m\n{page}")
    with LocalClient(create_app(settings)) as client:
        of_session = {"page": "home", "profile": KID, "session": "s"}
        named = {**of_session, "page_id": "p"}
        before = client.post("/v1/page", json=of_session).json()["page_id"]
        assert client.post("/v1/page", json=named).status_code == 200
        assert client.post("/v1/page", json=of_session).json()["page_id"] == before
        put(client, KID, kids=True)
        assert max(ages(home, client, profile=KID, session="s")) <= 7
        assert client.post("/v1/page", json=of_session).json()["page_id"] != before
        assert client.post("/v1/page", json=named).status_code == 409


@pytest.mark.parametrize(
    ("profile", "body", "status", "path"),
    [
        ("k", '{"kids": 1}', 422, "$.kids"),
        ("k", '{"kids": null}', 422, "$.kids"),
        ("k", '{"maturity": 22}', 422, "$.maturity"),
        ("k", '{"region": ""}', 422, "$.region"),
        ("k", '{"age": 7}', 422, "$"),
        ("k", "[]", 422, "$"),
        ("k", "{", 400, "$"),
        ("k" * 129, '{"kids": true}', 422, "profile"),
        ("a/", '{"kids": true}', 422, "profile"),
        ("k", '{"region": "' + "x" * 1_000_000 + '"}', 413, None),
    ],
)
def test_what_is_no_limit_is_a_named_error_and_nothing_is_set(
    client: TestClient, profile: str, body: str, status: int, path: str | None
) -> None:
    headers = {"content-type": "application/json"}
    answer = client.put(f"/v1/profiles/{profile}", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"].get("path")) == (status, path)
    assert client.get("/v1/profiles/k").status_code == 404
    assert client.delete("/v1/profiles/k").status_code == 404


def test_setting_and_removing_takes_admin_and_looking_takes_read() -> None:
    scopes = {method: scope_of(method, "/v1/profiles/k") for method in ("PUT", "GET", "DELETE")}
    assert scopes == {"PUT": "admin", "GET": "read", "DELETE": "admin"}


def test_limits_are_backed_up_given_out_and_erased_without_a_trace(
    settings: Settings, tmp_path: Path
) -> None:
    with LocalClient(create_app(settings)) as client:
        put(client, KID, kids=True, region="de")
    data = settings.data
    back_up(data, tmp_path / "backups")
    assert unit_data(data, KID)["profiles"] == [{"kids": True, "maturity": None, "region": "de"}]
    assert not find_unit(data, KID, "account_id").profiles
    assert erase_unit(data, KID, "profile_id").profiles == {KID}
    assert list(traces(data, KID)) == []
    # A backup brings nothing back.
    restore(tmp_path / "backups", tmp_path / "restored")
    tombstones = (data / "tombstones.jsonl", tmp_path / "restored")
    from topbill.log.tombstones import read_tombstones

    assert find_unit(tombstones[1], KID).profiles == {KID}
    assert erase_again(tombstones[1], read_tombstones(tombstones[0])) == 1
    assert not find_unit(tombstones[1], KID).profiles


def test_units_of_a_folder_that_hashes_are_hashed_here_too(home: Any, settings: Settings) -> None:
    settings.data.mkdir()
    (settings.data / "settings.yaml").write_text("hash_units: true\n")
    with LocalClient(create_app(settings)) as client:
        put(client, KID, kids=True)
        assert max(ages(home, client, profile=KID)) <= 7
        assert client.get(f"/v1/profiles/{KID}").json()["profile"] == KID
    assert list(traces(settings.data, KID)) == []


def test_a_damaged_limit_is_told_and_shows_nobody_more(home: Any, settings: Settings) -> None:
    with LocalClient(create_app(settings)) as client:
        put(client, KID, kids=True)
        with closing(sqlite3.connect(settings.data / LOG_FILE)) as file:
            file.execute("UPDATE profiles SET kids = 0")
            file.commit()
        answer = client.post("/v1/page", json={"page": "home", "profile": KID})
        assert answer.status_code == 503
        assert "limits of a profile" in answer.json()["error"]["message"]
        assert client.post("/v1/page", json={"page": "home", "profile": "x"}).status_code == 200
        with closing(LogDatabase(settings.data / LOG_FILE)) as database:
            assert "profiles" in database.damage()[0]
        assert put(client, KID, kids=True).status_code == 503
        assert put(client, KID, kids=True, maturity=None, region=None).status_code == 200
        assert max(ages(home, client, profile=KID)) <= 7
