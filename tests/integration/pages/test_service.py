"""`POST /v1/page`: what is answered is durable, a session keeps its page, and a play is credited to
every layer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from topbill.log import Log, open_log
from topbill.pages import lake_history
from topbill.pages.compose import session_page_ids
from topbill.service.app import create_app
from topbill.service.page import AGAIN
from topbill.service.settings import Settings
from topbill.worker.loop import Worker

from ...local_client import LocalClient
from ...small_page import PAGE, ROWS, layer


@pytest.fixture
def log(settings: Settings, client: TestClient) -> Iterator[Log]:
    log = open_log(settings.log_path)
    yield log
    log.close()


def ask(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/page", json={"page": "home", **body})


def test_an_answered_page_is_in_the_log_with_all_its_decisions(
    client: TestClient, log: Log
) -> None:
    answer = ask(client, profile="7", account="a", context={"taste": {"drama": 1}}).json()
    stored = [decision for _, decision in log.read_decisions(0, 100)]
    assert {d.page for d in stored} == {answer["page_id"]}
    assert [d.layer for d in stored] == ["page", "rows", *["titles", "artwork"] * 3]
    assert {d.unit for d in stored} == {"a/7"}
    assert len({d.decided_at for d in stored}) == 1
    shown = [tile["propensity"] for row in answer["rows"] for tile in row["titles"]]
    assert shown == [p.propensity for d in stored if d.layer == "titles" for p in d.slate]


def test_a_session_keeps_its_page_and_the_log_says_so_once_a_call(
    home: Any, settings: Settings
) -> None:
    home.write(page=PAGE_STICKY)
    with LocalClient(create_app(settings)) as client:
        first = ask(client, profile="7", session="s").json()
        again = ask(client, profile="7", session="s", context={"taste": {"action": 1}}).json()
        other = ask(client, profile="7", session="another").json()
        kids = ask(client, profile="7", session="s", kids=True).json()
    log = open_log(settings.log_path)
    assert (first["again"], again["again"], other["again"], kids["again"]) == (
        False,
        True,
        False,
        False,
    )
    assert {**again, "again": False} == first
    assert other["page_id"] != first["page_id"] != kids["page_id"]
    assert len([d for _, d in log.read_decisions(0, 999) if d.layer == "page"]) == 3
    assert [e.event for e in log.events(first["page_id"])] == [AGAIN]
    assert log.events(first["page_id"] + ":rows") == []
    log.close()


def test_calls_of_one_session_at_once_get_one_page_and_leave_no_other_in_the_log(
    home: Any, settings: Settings
) -> None:
    """Each call has another taste, so that each would be another page."""
    home.write(
        page=PAGE_STICKY.replace(
            "rows: {experiment: rows, count: 3}", "rows: {experiment: rows, count: 2}"
        )
    )
    tastes = [{"taste": {"drama": n / 24, "comedy": 1 - n / 24}} for n in range(24)]
    with LocalClient(create_app(settings)) as client, ThreadPoolExecutor(24) as crowd:
        answers = list(
            crowd.map(lambda c: ask(client, profile="7", session="s", context=c).json(), tastes)
        )
    assert len({answer["page_id"] for answer in answers}) == 1
    assert all(answer["rows"] == answers[0]["rows"] for answer in answers)
    assert sum(not answer["again"] for answer in answers) == 1
    log = open_log(settings.log_path)
    stored = [d.decision_id for _, d in log.read_decisions(0, 999)]
    page_id = answers[0]["page_id"]
    rows = [f"{page_id}:{row['row']}" for row in answers[0]["rows"]]
    assert sorted(stored) == sorted(
        [page_id, f"{page_id}:rows", *rows, *(f"{row}:artwork" for row in rows)]
    )
    assert [e.event for e in log.events(page_id)] == [AGAIN] * 23
    log.close()


PAGE_STICKY = """
page: home
catalogue: titles.csv
region: us
budget_ms: 9000
session_ttl: 30m
rows: {experiment: rows, count: 3}
titles: {experiment: titles, count: 6, candidates: 16}
artwork: {experiment: artwork}
sources:
  best: {source: popular}
  fun: {source: genre, genres: [comedy]}
  tension: {source: genre, genres: [action, drama]}
  fresh: {source: new}
"""


@pytest.mark.parametrize("made", [0.0, 5.0, 1799.0])
def test_a_sticky_page_lasts_its_whole_time_and_no_longer(made: float) -> None:
    """The id made at one moment is among the two that are looked up until the time is over."""
    start = 1_790_000_000.0 // 1800 * 1800 + made
    id_ = session_page_ids("home", "u", "s", 1800.0, start)[0]
    for later in (0.0, 900.0, 1799.9):
        assert id_ in session_page_ids("home", "u", "s", 1800.0, start + later)
    assert id_ not in session_page_ids("home", "u", "s", 1800.0, start + 3600.0)


def test_a_repeated_page_id_answers_what_is_stored_and_another_request_is_a_conflict(
    client: TestClient,
) -> None:
    first = ask(client, profile="7", page_id="once")
    again = ask(client, profile="7", page_id="once")
    assert first.json() == again.json()
    assert ask(client, profile="8", page_id="once").status_code == 409


def test_a_play_is_credited_to_row_title_and_picture(client: TestClient, log: Log) -> None:
    answer = ask(client, profile="7").json()
    row = answer["rows"][1]
    tile = row["titles"][3]
    body = {
        "decision_id": answer["page_id"],
        "event": "play",
        "action": tile["title"],
        "event_id": "e1",
    }
    assert client.post("/v1/reward", json=body).json()["status"] == "stored"
    assert client.post("/v1/reward", json=body).json()["status"] == "duplicate"
    page = answer["page_id"]
    found = {
        decision_id: [(e.action, e.position) for e in log.events(decision_id)]
        for decision_id in (
            page,
            f"{page}:rows",
            f"{page}:{row['row']}",
            f"{page}:{row['row']}:artwork",
        )
    }
    assert list(found.values()) == [
        [(tile["title"], 9)],
        [(row["row"], 1)],
        [(tile["title"], 3)],
        [(tile["picture"], 3)],
    ]
    elsewhere = f"{page}:{answer['rows'][0]['row']}"
    assert log.events(elsewhere) == []


def test_an_event_without_a_title_belongs_to_every_decision_of_the_page(
    client: TestClient, log: Log
) -> None:
    answer = ask(client, profile="7").json()
    client.post("/v1/reward", json={"decision_id": answer["page_id"], "event": "abandon"})
    stored = [d.decision_id for _, d in log.read_decisions(0, 100)]
    assert all(len(log.events(decision_id)) == 1 for decision_id in stored)


def test_rewards_of_a_page_are_credited_after_a_restart_too(
    client: TestClient, settings: Settings
) -> None:
    answer = ask(client, profile="7").json()
    title = answer["rows"][0]["titles"][0]["title"]
    with LocalClient(create_app(settings)) as later:
        body = {"decision_id": answer["page_id"], "event": "play", "action": title}
        assert later.post("/v1/reward", json=body).json()["status"] == "stored"
    log = open_log(settings.log_path)
    assert len(log.events(answer["page_id"] + ":rows")) == 1
    log.close()


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ({"page": "nope"}, 404, None),
        ({"page": "home", "context": {"x": 1}}, 422, "$.context.x"),
        ({"page": "home", "context": [1]}, 422, "$.context"),
        ({"page": "home", "context": {"taste": {"drama": "much"}}}, 422, "$.context.taste.drama"),
        ({"page": "home", "maturity": 40}, 422, "$.maturity"),
        ({"page": "home", "colour": "red"}, 422, "$"),
        ({"page": "home", "page_id": "a:b"}, 422, "$.page_id"),
    ],
)
def test_bad_input_gets_a_name_and_never_a_500(
    client: TestClient, body: dict[str, Any], status: int, path: str | None
) -> None:
    answer = client.post("/v1/page", json=body)
    assert (answer.status_code, answer.json()["error"]["path"]) == (status, path)


def test_profiles_of_an_account_are_apart_and_guests_are_their_session(
    client: TestClient, log: Log
) -> None:
    asked = [
        {"account": "a", "profile": "1"},
        {"account": "b", "profile": "1"},
        {"session": "s"},
        {},
    ]
    pages = [ask(client, **body).json()["page_id"] for body in asked]
    units = [decision.unit for page in pages if (decision := log.decision(page)) is not None]
    assert units == ["a/1", "b/1", "guest/s", pages[3]]


def test_a_kids_profile_and_a_guest_have_their_age_limit(client: TestClient, home: Any) -> None:
    catalog = home.catalog()

    def oldest(**body: Any) -> int:
        shown = [ask(client, **body, session=str(n)).json() for n in range(20)]
        return max(
            int(catalog.maturity[catalog.index[t["title"]]])
            for p in shown
            for r in p["rows"]
            for t in r["titles"]
        )

    assert oldest(profile="k", kids=True) <= 7
    assert oldest() <= 16
    assert oldest(profile="p", maturity=0) == 0
    assert oldest(profile="p") == 18


def test_shown_often_without_a_play_a_title_rests(home: Any, settings: Settings) -> None:
    home.write(rules="rules:\n  - {rule: fatigue, shown: 2, rest: 7d}\n", policy="policy: fixed")
    shown: Counter[str] = Counter()
    with LocalClient(create_app(settings)) as client:
        for _ in range(5):
            answer = ask(client, profile="7").json()
            shown.update(tile["title"] for row in answer["rows"] for tile in row["titles"])
            time.sleep(0.5)  # the memory follows the log every 0.3 s
    assert max(shown.values()) == 2


def test_what_was_watched_or_disliked_stays_away(home: Any, settings: Settings) -> None:
    home.write(rules="", policy="policy: fixed")
    with LocalClient(create_app(settings)) as client:
        answer = ask(client, profile="7").json()
        titles = [tile["title"] for tile in answer["rows"][0]["titles"]]
        events = {"play": titles[0], "thumbs_down": titles[1], "not_interested": titles[2]}
        for event, title in events.items():
            reward = {"decision_id": answer["page_id"], "event": event, "action": title}
            assert client.post("/v1/reward", json=reward).json()["status"] == "stored"
        deadline, shown = time.monotonic() + 10.0, set(titles)
        while shown & set(events.values()) and time.monotonic() < deadline:
            time.sleep(0.2)  # the memory follows the log every 0.3 s
            later = ask(client, profile="7").json()
            shown = {tile["title"] for row in later["rows"] for tile in row["titles"]}
        assert not shown & set(events.values())

        def ever_shown(profile: str) -> set[str]:
            """On some pages: each has three of the four rows, drawn at random."""
            pages = [ask(client, profile=profile).json() for _ in range(20)]
            rows = [row for page in pages for row in page["rows"]]
            return {tile["title"] for row in rows for tile in row["titles"]}

        own = ever_shown("7")
        assert titles[3] in own
        assert not own & set(events.values())
        assert ever_shown("8") >= set(titles)
        why = client.get(f"/v1/pages/{later['page_id']}/why", params={"title": titles[1]}).json()
        assert why["barred"] == ["disliked"]


def test_events_of_a_viewer_from_elsewhere_count_in_each_process_and_after_a_restart(
    home: Any, settings: Settings
) -> None:
    home.write(rules="", policy="policy: fixed")

    def shown(client: TestClient, profile: str = "7") -> set[str]:
        later = ask(client, profile=profile).json()
        return {tile["title"] for row in later["rows"] for tile in row["titles"]}

    with LocalClient(create_app(settings)) as client, LocalClient(create_app(settings)) as other:
        titles = sorted(shown(client))
        gone = {"play": titles[0], "thumbs_down": titles[1]}
        for event, title in gone.items():
            body = {"unit": "7", "event": event, "action": title}
            # The one type that the page's experiments name; and a page reads what no metric does.
            expected = {"status": "stored", "unit": "7", "unit_type": "profile_id"}
            answer = client.post("/v1/event", json=body).json()
            assert expected | {"event_id": answer["event_id"]} == answer
        # Account 7 is not profile 7.
        of_account = {"unit": "7", "unit_type": "account_id", "event": "play", "action": titles[2]}
        assert "warning" in client.post("/v1/event", json=of_account).json()
        for process in (client, other):
            deadline = time.monotonic() + 10.0
            while shown(process) & set(gone.values()) and time.monotonic() < deadline:
                time.sleep(0.2)
            assert not shown(process) & set(gone.values())
            assert titles[2] in shown(process)
            assert shown(process, "8") >= set(gone.values())
    worker = Worker(settings.experiments, settings.data)
    while worker.step():
        pass
    worker.finish()
    log = open_log(settings.log_path)
    while log.forget_unit_events(2**62, 2**62):
        pass
    log.close()
    with LocalClient(create_app(settings)) as later:
        deadline = time.monotonic() + 10.0
        while shown(later) & set(gone.values()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not shown(later) & set(gone.values())


def test_what_a_viewer_began_and_listed_stands_in_each_process_and_after_a_restart(
    home: Any, settings: Settings
) -> None:
    rows = "  go-on: {source: unfinished}\n  mine: {source: list}\n"
    page = PAGE_STICKY.replace("session_ttl: 30m\n", "").replace("sources:\n", f"sources:\n{rows}")
    home.write(rules="", page=page.replace("count: 3}", "count: 6}"))
    actions = ROWS[:-1] + ", {id: go-on}, {id: mine}]"
    own = home.folder / "pages" / "home" / "rows.yaml"
    own.write_text(layer("rows", "rows", "policy: uniform", actions=actions))

    def expected(client: TestClient) -> bool:
        answer = ask(client, profile="7").json()
        shown = {row["row"]: [tile["title"] for tile in row["titles"]] for row in answer["rows"]}
        return (shown.get("go-on"), shown.get("mine")) == (["t06", "t00"], ["t02"])

    def follow(client: TestClient) -> None:
        deadline = time.monotonic() + 10.0
        while not expected(client) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert expected(client)

    told = [
        ("watch_fraction", "t00", 0.2, 2),
        ("watch_fraction", "t06", 0.5, 1),
        ("watchlist_add", "t02", 1.0, 2),
        ("watchlist_add", "t08", 1.0, 2),
        ("watchlist_remove", "t08", 1.0, 1),
    ]
    with LocalClient(create_app(settings)) as client, LocalClient(create_app(settings)) as other:
        for event, title, value, days_ago in told:
            at = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
            body = {"unit": "7", "event": event, "action": title, "value": value, "at": at}
            assert "warning" not in client.post("/v1/event", json=body).json()
        follow(client)
        follow(other)
    with LocalClient(create_app(settings)) as later:
        follow(later)


def test_what_rests_goes_on_resting_after_a_restart_though_the_log_has_forgotten_it(
    home: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lake has kept it, and is read in three parts. Four pages after the restart are too few
    for anything to tire anew.
    """
    monkeypatch.setattr(lake_history, "_PAGES_AT_ONCE", 2)
    home.write(rules="rules:\n  - {rule: fatigue, shown: 5, rest: 7d}\n", policy="policy: fixed")
    shown: Counter[str] = Counter()
    with LocalClient(create_app(settings)) as client:
        for _ in range(5):
            answer = ask(client, profile="7").json()
            shown.update(tile["title"] for row in answer["rows"] for tile in row["titles"])
        played = answer["rows"][0]["titles"][0]["title"]
        ask_play = {"decision_id": answer["page_id"], "event": "play", "action": played}
        assert client.post("/v1/reward", json=ask_play).status_code == 200
    tired = {title for title, count in shown.items() if count == 5} - {played}
    assert tired
    worker = Worker(settings.experiments, settings.data)
    while worker.step():
        pass
    worker.finish()
    log = open_log(settings.log_path)
    while log.forget(2**62, 2**62, 2**62):
        pass
    assert log.read_decisions(0, 9) == []
    log.close()
    with LocalClient(create_app(settings)) as later:
        for _ in range(4):
            time.sleep(1.0)  # the memory begins and follows in the background
            answer = ask(later, profile="7").json()
            titles = {tile["title"] for row in answer["rows"] for tile in row["titles"]}
            if not tired & titles:
                return
    raise AssertionError(f"{tired & titles} are shown all the same")


def test_the_openapi_document_has_the_page(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["paths"]["/v1/page"]["post"]["operationId"] == "page"
    assert "PageAnswer" in document["components"]["schemas"]


def titles_of(page: Any) -> list[str]:
    return [tile["title"] for row in page["rows"] for tile in row["titles"]]


def test_more_on_scrolling_repeats_no_row_and_no_title(home: Any, settings: Settings) -> None:
    page = PAGE.replace("count: 3}", "count: 2}").replace("count: 6,", "count: 3,")
    cap = "rules:\n  - {rule: at_most, count: 2, of: franchise, per: page}\n"
    home.write(page=page, rules=cap)
    with LocalClient(create_app(settings)) as client:
        for who in ({"profile": "p1"}, {"session": "s1"}, {}):
            asked = {"page": "home", **who}
            pages = [client.post("/v1/page", json=asked).json()]
            for _ in range(2):
                body = {**asked, "after": pages[-1]["page_id"]}
                pages.append(client.post("/v1/page", json=body).json())
                again = client.post("/v1/page", json=body).json()
                assert again["page_id"] == pages[-1]["page_id"]
                assert again["rows"] == pages[-1]["rows"]
            assert [len(page["rows"]) for page in pages] == [2, 2, 0]
            assert [page["fallbacks"] for page in pages] == [[], [], []]
            rows = [row["row"] for page in pages for row in page["rows"]]
            assert sorted(rows) == ["best", "fresh", "fun", "tension"]
            titles = [title for page in pages for title in titles_of(page)]
            assert len(set(titles)) == len(titles)
            sagas = [int(title[1:]) % 20 for title in titles]
            assert max(map(sagas.count, sagas)) <= 2
            assert pages[1]["layers"][1]["variant"] == pages[0]["layers"][1]["variant"]
            # A reward on the second page is credited there.
            play = {"decision_id": pages[1]["page_id"], "event": "play", "event_id": "e",
                    "action": titles_of(pages[1])[0]}  # fmt: skip
            assert client.post("/v1/reward", json=play).status_code == 200
            why = client.get(
                f"/v1/pages/{pages[1]['page_id']}/why", params={"title": titles_of(pages[0])[0]}
            ).json()
            assert "above" in why["rows"][0]["because"]
        # Nobody goes on below another viewer's page.
        stranger = {"page": "home", "profile": "p2", "after": pages[0]["page_id"]}
        assert client.post("/v1/page", json=stranger).status_code == 404
        lost = client.post("/v1/page", json={"page": "home", "after": "page-none"})
        assert lost.status_code == 404
        assert "after: 'page-none'" in lost.text
        assert client.post("/v1/page", json={"page": "home", "after": "a:b"}).status_code == 422


def test_why_tells_which_rule_kept_a_title_out(client: TestClient) -> None:
    pages = [ask(client, profile=f"u{n}", maturity=7).json() for n in range(12)]
    page = next(page for page in pages if "best" in [row["row"] for row in page["rows"]])

    def why(title: str) -> Any:
        return client.get(f"/v1/pages/{page['page_id']}/why", params={"title": title}).json()

    assert why("t01")["barred"] == ["block"]
    assert why("t03")["barred"] == ["maturity"]
    assert why("t04")["barred"] == ["region"]
    assert {row["because"] for row in why("t04")["rows"]} == {"region bars it from the page"}
    unsaid = client.get(f"/v1/pages/{page['page_id']}/why")
    assert (unsaid.status_code, unsaid.json()["error"]["message"]) == (
        422,
        "query title: Field required",
    )
    pinned = next(row for row in why("t07")["rows"] if row["row"] == "best")
    assert (pinned["shown_at"], pinned["could_stand_at"]) == (2, [2])
    elsewhere = [row["because"] for row in why("t07")["rows"] if row["row"] != "best"]
    assert set(elsewhere) <= {"it is pinned in row best", "it stands in row best above"}
    assert (
        client.get(f"/v1/pages/{page['page_id']}/why", params={"title": "nope"}).status_code == 404
    )
    assert client.get("/v1/pages/page-nope/why", params={"title": "t01"}).status_code == 404
