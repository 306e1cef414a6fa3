"""The demo's viewers of whole pages: what they send, what comes back as rewards, and how each layer
is judged.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from topbill.catalog import Catalog, Picture
from topbill.pages import CompiledPage, PageAnswer, PageRequest, compose
from topbill.simulation.driver import Driver
from topbill.simulation.page_driver import JUDGED, PageDriver, page_drivers


def toned(catalog: Catalog) -> Catalog:
    """The catalogue with pictures whose tones policies and viewers can tell."""
    found = copy.copy(catalog)
    found.pictures = tuple(
        tuple(Picture(p.id, {"tone": p.id.rpartition("/")[2], "faces": 1}, p.payload) for p in own)
        for own in catalog.pictures
    )
    return found


@pytest.fixture
def compiled_page(home: Any) -> CompiledPage:
    return CompiledPage(home.file(), home.compiled_page().engine, toned(home.catalog()))


@pytest.fixture
def pager(home: Any) -> PageDriver:
    return PageDriver(
        CompiledPage(home.file(), home.compiled_page().engine, toned(home.catalog())),
        "run-home",
        seed=1,
    )


def served(compiled_page: CompiledPage, pager: PageDriver, number: int) -> PageAnswer:
    """The page that a service would answer with."""
    asked = pager.request(number)
    request = msgspec.json.decode(msgspec.json.encode(asked), type=PageRequest)
    viewer = compiled_page.viewer(request, asked["page_id"])
    return compose(compiled_page, request, viewer, asked["page_id"], 1_790_000_000.0).answer


def test_what_happens_on_a_page_is_sent_for_its_title_within_the_windows(
    compiled_page: CompiledPage, pager: PageDriver
) -> None:
    sent = []
    for number in range(40):
        answer = served(compiled_page, pager, number)
        shown = {tile.title for row in answer.rows for tile in row.titles}
        for delay, event in pager.react(number, answer):
            sent.append((number, event))
            assert event["decision_id"] == f"run-home-{number}"
            assert event["action"] in shown
            assert 0.0 < delay < 1.0  # the windows are one second
            assert 0.0 < event["value"] <= 1.0
    assert {event["event"] for _, event in sent} == {"play", "watch_fraction"}
    plays = [event for _, event in sent if event["event"] == "play"]
    assert 0 < len(plays) < 40
    viewer = pager.request(sent[0][0])["profile"]
    assert (
        plays[0]["action"]
        in [asked for n in range(40) if (asked := pager.request(n))["profile"] == viewer][-1][
            "watched"
        ]
    )


def test_who_comes_back_credits_the_page_before(home: Any, compiled_page: CompiledPage) -> None:
    rows = home.folder / "pages" / "home" / "rows.yaml"
    rows.write_text(
        rows.read_text().replace(
            "window: 1s}",
            "window: 1s}\n  returned: {event: session_start, kind: binary, window: 9s}",
        )
    )
    (pager,) = page_drivers(home.folder, "run")
    last: dict[str, str] = {}
    for number in range(120):
        profile, answer = pager.request(number)["profile"], served(compiled_page, pager, number)
        back = [
            event for _, event in pager.react(number, answer) if event["event"] == "session_start"
        ]
        assert [event["decision_id"] for event in back] == (
            [last[profile]] if profile in last else []
        )
        assert all("action" not in event for event in back)
        last[profile] = answer.page_id
    assert len(last) < 120


def test_every_layer_has_a_best_that_uniform_choices_fall_short_of(
    compiled_page: CompiledPage, pager: PageDriver
) -> None:
    """Titles and pictures are drawn without knowledge here, so they come nowhere near the best."""
    for number in range(0, 80 * JUDGED, JUDGED):
        pager.react(number, served(compiled_page, pager, number))
    lines = {line.experiment: line for line in pager.scoreboard.lines()}
    assert set(lines) == {"rows", "titles", "artwork"}
    for line in lines.values():
        assert line.decisions == 80
        assert line.best > line.uniform > 0.0
        assert line.gap_closed is not None
        assert abs(line.gap_closed) < 0.5


def test_the_best_pictures_are_the_best_of_all_there_are(
    compiled_page: CompiledPage, pager: PageDriver
) -> None:
    answer = served(compiled_page, pager, 0)
    viewer = int(pager.request(0)["profile"].removeprefix("viewer-"))
    worth = pager._artwork(viewer, answer)
    luck = np.random.default_rng(0)
    catalog = pager.viewers.catalog

    def shuffled(tile: Any) -> Any:
        own = catalog.pictures[catalog.index[tile.title]]
        return msgspec.structs.replace(tile, picture=own[luck.integers(len(own))].id)

    def other() -> PageAnswer:
        rows = [
            msgspec.structs.replace(r, titles=tuple(map(shuffled, r.titles))) for r in answer.rows
        ]
        return msgspec.structs.replace(answer, rows=tuple(rows))

    found = np.array([pager._artwork(viewer, other()).value for _ in range(400)])
    assert found.max() <= worth.best + 1e-12
    assert abs(found.mean() - worth.uniform) < 4 * found.std() / 20.0
    assert {round(pager._artwork(viewer, other()).best, 12) for _ in range(5)} == {
        round(worth.best, 12)
    }


def test_the_driver_sends_pages_and_their_rewards(
    compiled_page: CompiledPage, pager: PageDriver
) -> None:
    rewards: list[dict[str, Any]] = []

    async def service(request: httpx.Request) -> httpx.Response:
        body = msgspec.json.decode(await request.aread())
        if request.url.path == "/v1/page":
            asked = msgspec.json.decode(msgspec.json.encode(body), type=PageRequest)
            made = compose(
                compiled_page,
                asked,
                compiled_page.viewer(asked, body["page_id"]),
                body["page_id"],
                1_790_000_000.0,
            )
            return httpx.Response(200, content=msgspec.json.encode(made.answer))
        rewards.extend(body.get("rewards", ()))
        return httpx.Response(200, json={"decisions": [], "results": []})

    async def go() -> Driver:
        driver = Driver({}, "run", [pager])
        async with httpx.AsyncClient(
            base_url="http://x", transport=httpx.MockTransport(service)
        ) as client:
            await driver.run(client, 1.5, 50.0)
        return driver

    driver = asyncio.run(go())
    assert driver.whole_pages >= 5
    assert driver.rewards == len(rewards) > 0


def test_only_pages_that_run_have_viewers(home: Any) -> None:
    assert [found.key for found in page_drivers(home.folder, "run")] == ["home"]
    rows = home.folder / "pages" / "home" / "rows.yaml"
    rows.write_text(rows.read_text() + "\nstatus: paused\n")
    assert page_drivers(home.folder, "run") == []
