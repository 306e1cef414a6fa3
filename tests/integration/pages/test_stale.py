"""A changed catalogue is taken over; a damaged one never stops pages, and is flagged, counted and
told.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from topbill.domain.errors import BadData
from topbill.service.app import create_app
from topbill.service.settings import Settings

from ...local_client import LocalClient


def ask(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/page", json={"page": "home", **body})


def test_a_changed_catalogue_is_taken_over_without_a_restart(client: TestClient, home: Any) -> None:
    file = home.folder / "pages" / "titles.csv"
    file.write_text(file.read_text().replace("Title 0,", "Renamed,"))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answer = ask(client, profile="7").json()
        if any(t["payload"]["title"] == "Renamed" for r in answer["rows"] for t in r["titles"]):
            return
        time.sleep(0.1)
    raise AssertionError("the new name never came")


def until(met: Any, what: str) -> Any:
    """What `met` gives as soon as it gives anything, within 10 s."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if found := met():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} never came")


BROKEN = [
    ("", "Empty CSV file"),
    ("id,title,year,genres\nt00,Title 0\n", "got 2 cells"),
    ("id,title,year,genres\nt00,Title 0,MMX,drama\n", "expected a number"),
    (
        "id,title,year,genres\nt00,Title 0,2000,drama\n",
        "a title of the catalogue",
    ),  # no t07, which is pinned
    (None, "no such file"),
]


@pytest.mark.parametrize(("text", "says"), BROKEN)
def test_a_damaged_catalogue_never_stops_pages_and_is_told(
    client: TestClient, home: Any, settings: Settings, text: str | None, says: str
) -> None:
    file, whole = (
        home.folder / "pages" / "titles.csv",
        (home.folder / "pages" / "titles.csv").read_text(),
    )
    assert ask(client, profile="7").json()["fallbacks"] == []
    file.unlink() if text is None else file.write_text(text)

    def flagged(of: TestClient) -> Any:
        answer = ask(of, profile="7")
        assert answer.status_code == 200
        # In 1 page of 600 the rows above have all of the few titles that are new.
        rows = [row for row in answer.json()["rows"] if row["row"] != "fresh"]
        assert all(row["titles"] for row in rows)
        return answer.json()["fallbacks"] == ["catalogue"]

    until(lambda: flagged(client), "the flag")
    told = until(lambda: client.get("/readyz").json().get("problems"), "the trouble")
    assert told == [{"file": "home.yaml"}]
    (told,) = client.get("/v1/experiments").json()["problems"]
    assert (told["file"], told["path"]) == ("home.yaml", "catalogue")
    assert says in told["message"]
    assert (
        'topbill_page_fallbacks_total{page="home",stage="catalogue"}' in client.get("/metrics").text
    )
    with LocalClient(
        create_app(settings)
    ) as later:  # a restart finds the damaged file and goes on all the same
        assert flagged(later)
        file.write_text(whole)
        until(lambda: not flagged(later), "the mended catalogue")
        until(lambda: later.get("/readyz").json().get("problems") == [], "the end of it")


def test_without_any_good_catalogue_a_service_says_why_it_does_not_start(
    home: Any, settings: Settings
) -> None:
    (home.folder / "pages" / "titles.csv").write_text("title,year\nA,1990\n")
    with pytest.raises(BadData, match="no column genres"):
        create_app(settings)


def test_a_bad_edit_of_the_files_leaves_pages_as_they_were(client: TestClient, home: Any) -> None:
    (home.folder / "pages" / "home" / "titles.yaml").unlink()
    until(lambda: client.get("/readyz").json().get("problems"), "the refusal")
    answer = ask(client, profile="7")
    assert (answer.status_code, answer.json()["fallbacks"]) == (200, [])


def test_a_feature_that_is_no_column_is_refused_and_pages_go_on(
    client: TestClient, home: Any
) -> None:
    titles = home.folder / "pages" / "home" / "titles.yaml"
    titles.write_text(
        titles.read_text().replace("new: {type", "runtime: {type: number}, new: {type")
    )
    until(lambda: client.get("/readyz").json().get("problems"), "the refusal")
    (problem,) = client.get("/v1/experiments").json()["problems"]
    assert (problem["file"], problem["path"]) == ("home.yaml", "titles.experiment")
    assert "runtime (number); expected a column of the catalogue" in problem["message"]
    answer = ask(client, profile="7")
    assert (answer.status_code, answer.json()["fallbacks"]) == (200, [])


def test_a_column_that_comes_after_the_experiment_that_declares_it_is_taken_over(
    client: TestClient, home: Any
) -> None:
    titles = home.folder / "pages" / "home" / "titles.yaml"
    titles.write_text(
        titles.read_text().replace("new: {type", "runtime: {type: number}, new: {type")
    )
    until(lambda: client.get("/readyz").json().get("problems"), "the refusal")
    file = home.folder / "pages" / "titles.csv"
    header, *lines = file.read_text().splitlines()
    lines = [f"{line},{90 + number}" for number, line in enumerate(lines)]
    file.write_text("\n".join([f"{header},runtime", *lines]) + "\n")
    until(lambda: client.get("/readyz").json().get("problems") == [], "the end of it")
    answer = ask(client, profile="7").json()
    decision = client.get(f"/v1/decisions/{answer['page_id']}:{answer['rows'][0]['row']}").json()
    assert all("runtime" in action["features"] for action in decision["actions"])
