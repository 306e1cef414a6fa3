"""The client: decides within its deadline whatever happens, never decides twice, and loses no
reward it can deliver.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import msgspec
import pytest

from topbill import engine, pages
from topbill.cli.supervise import free_port
from topbill.domain.errors import BadRequest, Conflict, NotFound, Unavailable
from topbill.service import bodies, profiles
from topbill_client import AsyncClient, Choice, Client, Item, Merged, Page, Row, Tile, requests
from topbill_client.testing import FakeService
from topbill_client.wire import Breaker, PageBody, Remaining, backoff

ORDERS = {"home": ["a", "b", "c"]}
PAGES = {"home": {"new": ["heat", "alien"], "crime": ["fargo"]}}


@pytest.fixture
def fake() -> FakeService:
    return FakeService(ORDERS, pages=PAGES)


@pytest.fixture
def client(fake: FakeService) -> Iterator[Client]:
    with Client(transport=fake) as client:
        yield client


# ---------------------------------------------------------------------- decide


def test_a_choice_has_every_field_of_the_services_answer() -> None:
    own = {field.name for field in msgspec.structs.fields(Choice)}
    assert own - {"fallback", "problem"} == set(engine.Answer.__struct_fields__)
    assert set(Item.__struct_fields__) == set(engine.AnswerItem.__struct_fields__)


def _form(struct: type[msgspec.Struct]) -> dict[str, object]:
    """A struct's JSON Schema without what a reader is told in words."""
    _, components = msgspec.json.schema_components([struct])
    fields = components[struct.__name__]["properties"]
    return {
        name: {key: value for key, value in field.items() if key not in ("default", "$ref")}
        for name, field in fields.items()
    }


def test_a_developers_header_is_passed_on_with_that_request_alone() -> None:
    sent: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("topbill-override"))
        return httpx.Response(403, json={"error": {"message": "expired"}})

    with Client(transport=httpx.MockTransport(answer)) as client:
        choice = client.decide("home", override="home=a;exp=1;sig=0", default=["a"])
        # Whoever sent it, the viewer gets something.
        assert (choice.action, choice.fallback) == ("a", True)
        client.page("home", override="home=a;exp=1;sig=0")
        client.decide("home")
        client.decide("home", override="ä \udc80")
    assert sent[:3] == ["home=a;exp=1;sig=0"] * 2 + [None]
    assert len(sent) == 4


@pytest.mark.parametrize(
    ("own", "of_the_service"),
    [
        (requests.DecideRequest, engine.DecideRequest),
        (requests.OfferedAction, engine.OfferedAction),
        (requests.PageRequest, pages.PageRequest),
        (requests.RewardRequest, bodies.RewardRequest),
        (requests.RewardResult, bodies.RewardAnswer),
        (requests.EventRequest, bodies.EventRequest),
        (requests.EventResult, bodies.EventAnswer),
    ],
)
def test_the_stand_in_reads_what_the_service_reads(
    own: type[msgspec.Struct], of_the_service: type[msgspec.Struct]
) -> None:
    assert _form(own) == _form(of_the_service)
    assert own.__struct_config__.forbid_unknown_fields == (
        of_the_service.__struct_config__.forbid_unknown_fields
    )


def test_decide_says_what_was_asked_and_returns_what_was_decided(
    client: Client, fake: FakeService
) -> None:
    choice = client.decide(
        "home", unit="u", context={"hour": 3}, slots=2, exclude=["a"], decision_id="d"
    )
    assert (choice.actions, choice.action, choice.fallback, choice.reason) == (
        ["b", "c"],
        "b",
        False,
        "policy",
    )
    asked = fake.decisions["d"]
    assert (asked.experiment, asked.unit, asked.context, asked.slots) == (
        "home",
        "u",
        {"hour": 3},
        2,
    )


def test_actions_of_the_callers_own_are_offered_and_are_the_default(
    client: Client, fake: FakeService
) -> None:
    own = [{"id": "x", "features": {"tone": "warm"}, "payload": {"url": "x.svg"}}, {"id": "y"}]
    choice = client.decide("home", actions=own)
    assert (choice.action, choice.slate[0].payload) == ("x", {"url": "x.svg"})
    fake.down = True
    assert client.decide("home", actions=own, slots=5).actions == ["x", "y"]


def test_a_failed_attempt_is_tried_again_with_the_same_id(
    client: Client, fake: FakeService
) -> None:
    fake.failures = 2
    choice = client.decide("home")
    assert not choice.fallback
    assert (fake.requests, list(fake.decisions)) == (3, [choice.decision_id])


def test_when_the_service_is_down_the_default_comes_flagged(
    client: Client, fake: FakeService
) -> None:
    fake.down = True
    choice = client.decide("home", default=["c", "a"], slots=1)
    assert (choice.actions, choice.fallback, choice.reason) == (["c"], True, "")
    assert choice.problem is not None
    assert "ConnectError" in choice.problem
    assert client.decide("home").slate == ()


def test_a_slow_service_costs_no_more_than_the_deadline(fake: FakeService) -> None:
    fake.delay = 5.0
    with Client(transport=fake, deadline=0.1) as client:
        start = time.monotonic()
        assert client.decide("home", default=["c"]).fallback
        assert time.monotonic() - start < 0.2
        assert client.decide("home", default=["c"], deadline=0.01).fallback


def test_a_service_that_keeps_failing_is_left_alone_for_a_while(fake: FakeService) -> None:
    fake.down = True
    with Client(transport=fake, retries=0) as client:
        for _ in range(50):
            assert client.decide("home", default=["c"]).actions == ["c"]
        assert fake.requests == client.settings.trips
        fake.down = False
        time.sleep(client.settings.rest)
        assert client.decide("home").action == "a"
        assert client.decide("home").action == "a"


def test_after_a_rest_one_caller_tries_and_the_others_wait_for_its_news() -> None:
    breaker = Breaker(trips=2, rest=0.02)
    for _ in range(2):
        assert breaker.closed()
        breaker.tell(answered=False)
    assert not breaker.closed()
    time.sleep(0.025)
    assert [breaker.closed() for _ in range(3)] == [True, False, False]
    breaker.tell(answered=True)
    assert all(breaker.closed() for _ in range(3))


def test_only_a_strict_client_raises_and_says_what_was_wrong(fake: FakeService) -> None:
    with Client(transport=fake, strict=True) as client:
        client.decide("home", decision_id="d")
        with pytest.raises(Conflict):
            client.decide("home", decision_id="d", slots=2)
        with pytest.raises(NotFound, match="no experiment 'none'"):
            client.decide("none")
        with pytest.raises(BadRequest) as wrong:
            client.decide("home", slots=-1)
        assert wrong.value.path == "$.slots"
        with pytest.raises(BadRequest, match="JSON"):
            client.decide("home", context={"x": object()})
        fake.down = True
        with pytest.raises(Unavailable, match="did not answer"):
            client.decide("home")


def test_a_refused_decide_falls_back_once_and_is_said_in_the_log(
    client: Client, fake: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        choice = client.decide("none", default=["c"])
    assert choice.fallback
    assert fake.requests == 1, "asking again would not help"
    assert "no experiment 'none'" in caplog.text
    assert client.decide("home").action == "a", (
        "the service is not left alone because of a caller's mistake"
    )


def test_what_is_no_decision_is_not_taken_for_one() -> None:
    pages = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>"))
    with Client(transport=pages) as client:
        assert client.decide("home", default=["c"]).fallback


def test_every_phase_of_a_request_gets_what_is_left_of_the_deadline() -> None:
    remaining = Remaining(time.monotonic() + 0.05)
    assert 0.04 < remaining.get("connect") <= 0.05
    time.sleep(0.02)
    assert remaining.get("read") <= 0.03
    time.sleep(0.05)
    assert remaining.get("read") == 0.001


def test_pauses_are_spread_from_zero_to_a_limit_that_doubles() -> None:
    for attempt, limit in ((1, 0.04), (3, 0.16), (20, 1.0)):
        seen = [backoff(attempt) for _ in range(2_000)]
        assert 0.0 <= min(seen) < 0.05 * limit
        assert 0.95 * limit < max(seen) <= limit


# ---------------------------------------------------------------------- page


def test_a_page_has_every_field_of_the_services_answer() -> None:
    own = {field.name for field in msgspec.structs.fields(Page)}
    assert own - {"fallback", "problem"} == set(pages.PageAnswer.__struct_fields__)
    assert Row.__struct_fields__ == pages.RowAnswer.__struct_fields__
    assert Tile.__struct_fields__ == pages.Tile.__struct_fields__
    asked = {field.name for field in msgspec.structs.fields(PageBody)}
    assert asked == set(pages.PageRequest.__struct_fields__)


def test_a_page_comes_whole_and_a_play_on_it_names_the_title(
    client: Client, fake: FakeService
) -> None:
    page = client.page(
        "home", profile="p", account="a", region="us", kids=True, context={"device": "tv"}
    )
    assert {row.row: [tile.title for tile in row.titles] for row in page.rows} == PAGES["home"]
    assert not page.fallback
    asked = fake.page_requests[page.page_id]
    assert (asked.account, asked.profile, asked.region, asked.kids, asked.context) == (
        "a",
        "p",
        "us",
        True,
        {"device": "tv"},
    )
    client.reward(page, "play", action="fargo")
    client.reward(page, "play", action="never shown")
    assert client.flush()
    assert [(reward.decision_id, reward.action) for reward in fake.rewards] == [
        (page.page_id, "fargo")
    ]
    assert client.delivered.refused == 1


def test_a_page_is_asked_for_again_under_one_id(client: Client, fake: FakeService) -> None:
    fake.failures = 2
    page = client.page("home")
    assert (fake.requests, list(fake.page_requests)) == (3, [page.page_id])


def test_a_sessions_page_is_known_by_the_session(client: Client, fake: FakeService) -> None:
    first, second = (client.page("home", profile="p", session="s") for _ in range(2))
    assert (first.page_id, first.again, second.again) == (second.page_id, False, True)
    assert fake.page_requests[first.page_id].page_id is None, (
        "an id of its own would make every page a new one"
    )


def test_without_a_service_the_default_rows_come_flagged(client: Client, fake: FakeService) -> None:
    fake.down = True
    page = client.page("home", profile="p", default={"popular": ["heat", "fargo"]})
    assert [(row.row, [tile.title for tile in row.titles]) for row in page.rows] == [
        ("popular", ["heat", "fargo"])
    ]
    assert page.fallback
    assert page.problem is not None
    assert "ConnectError" in page.problem
    assert client.page("home").rows == ()
    with Client(transport=fake, strict=True) as strict, pytest.raises(Unavailable):
        strict.page("home")


# ---------------------------------------------------------------------- reward


def test_rewards_arrive_in_batches_with_ids_of_their_own(client: Client, fake: FakeService) -> None:
    choice = client.decide("home", slots=2)
    sent = [client.reward(choice, "play", action="b") for _ in range(700)]
    assert client.flush()
    assert [reward.event_id for reward in fake.rewards] == sent
    assert {(reward.event, reward.action, reward.value) for reward in fake.rewards} == {
        ("play", "b", 1.0)
    }
    assert fake.requests - 1 <= 5, "batches, not requests each"
    assert (client.delivered.stored, client.delivered.waiting) == (700, 0)


def test_rewards_wait_for_a_service_that_is_down_and_arrive_once(
    client: Client, fake: FakeService
) -> None:
    choice = client.decide("home")
    fake.down = True
    client.reward(choice, "play", event_id="e")
    assert not client.flush(0.1)
    assert client.delivered.waiting == 1
    fake.down = False
    assert client.flush()
    client.reward(choice, "play", event_id="e")
    assert client.flush()
    assert [reward.event_id for reward in fake.rewards] == ["e"]


def test_one_bad_reward_is_refused_alone(client: Client, fake: FakeService) -> None:
    choice = client.decide("home")
    for action in ("a", "never shown", "a"):
        client.reward(choice, "play", action=action)
    client.reward(choice, "play", value=float("nan"))
    client.reward("no such decision", "play")
    assert client.flush()
    done = client.delivered
    assert (done.stored, done.refused, done.unknown) == (2, 2, 1)
    assert len(fake.rewards) == 2


def test_what_the_service_says_of_an_event_is_said_in_the_log_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = [
        {"status": "stored", "warning": "home has no metric that reads 'plai'"},
        {"status": "stored"},
    ]
    service = httpx.MockTransport(lambda _: httpx.Response(200, json={"results": told}))
    with caplog.at_level(logging.WARNING), Client(transport=service) as client:
        for _ in range(2):
            client.reward("d", "plai")
            client.reward("d", "play")
            assert client.flush()
    assert caplog.text.count("no metric that reads 'plai'") == 1


def test_rewards_get_out_before_the_process_ends() -> None:
    program = """
        import atexit
        from topbill_client import Client
        from topbill_client.testing import FakeService
        fake = FakeService({"home": ["a"]})
        atexit.register(lambda: print(len(fake.rewards)))
        client = Client(transport=fake)
        choice = client.decide("home")
        for _ in range(1_234):
            client.reward(choice, "play")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1234"


# ---------------------------------------------------------------------- asyncio


def test_the_async_client_does_the_same(fake: FakeService) -> None:
    async def go() -> None:
        async with AsyncClient(transport=fake, deadline=0.1) as client:
            choices = await asyncio.gather(*(client.decide("home", slots=2) for _ in range(20)))
            assert all(choice.actions == ["a", "b"] for choice in choices)
            client.reward(choices[0], "play")
            assert await client.flush()
            assert client.delivered.stored == 1
            assert [row.row for row in (await client.page("home")).rows] == ["new", "crime"]
            fake.delay = 5.0
            start = time.monotonic()
            late = await asyncio.gather(*(client.decide("home", default=["c"]) for _ in range(20)))
            assert time.monotonic() - start < 1.0, (
                "one after the other they would wait for 2 seconds"
            )
            assert all(choice.fallback and choice.actions == ["c"] for choice in late)

    asyncio.run(go())


def test_an_async_decide_can_be_cancelled(fake: FakeService) -> None:
    async def go() -> None:
        fake.delay = 5.0
        async with AsyncClient(transport=fake, deadline=5.0) as client:
            task = asyncio.create_task(client.decide("home"))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(go())


# ---------------------------------------------------------------------- against real sockets


def test_events_of_units_are_queued_and_sent_as_rewards_are(fake: FakeService) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    with Client(transport=fake) as client:
        first = client.event("7", "session_start", event_id="e", at=moment)
        client.event("7", "session_start", 2.0, event_id="e")
        client.event("7", "nps", 9.0, unit_type="account_id", action="a")
        client.event("", "nps")
        client.event("7", "nps", at="yesterday")  # type: ignore[arg-type]
        assert client.flush()
        assert first == "e"
        assert client.delivered.stored == 3
        assert client.delivered.refused == 2
    assert [(e.unit, e.unit_type, e.event, e.value, e.at) for e in fake.events] == [
        ("7", "profile_id", "session_start", 1.0, moment),
        ("7", "account_id", "nps", 9.0, None),
    ]


def test_the_async_client_sends_events_of_units(fake: FakeService) -> None:
    async def run() -> None:
        async with AsyncClient(transport=fake) as client:
            client.event("7", "session_start", unit_type="profile_id")
            assert await client.flush()

    asyncio.run(run())
    assert [event.event for event in fake.events] == ["session_start"]


def test_nothing_listening_is_answered_at_once() -> None:
    with Client(f"http://127.0.0.1:{free_port('127.0.0.1', 8790)}", deadline=0.25) as client:
        took = []
        for _ in range(100):
            start = time.monotonic()
            assert client.decide("home", default=["c"]).actions == ["c"]
            took.append(time.monotonic() - start)
    assert sorted(took)[98] < 0.25


def test_the_fake_refuses_what_the_service_refuses(fake: FakeService) -> None:
    with httpx.Client(transport=fake, base_url="http://fake") as http:
        answer = http.post("/v1/decide", json={"experiment": "home", "colour": "red"})
    assert answer.status_code == 422
    assert msgspec.json.decode(answer.content, type=bodies.ProblemAnswer).error.code == "invalid"


# ---------------------------------------------------------------------- a guest signs in


def test_a_guest_is_merged_once_and_what_fails_is_raised(fake: FakeService, client: Client) -> None:
    fake.failures = 1
    merged = client.merge_profile("a 1/2", "guest/tv")
    assert (merged.status, merged.profile, merged.guest, merged.kids) == (
        "merged",
        "a 1/2",
        "guest/tv",
        False,
    )
    assert client.merge_profile("a 1/2", "guest/tv").status == "known"
    assert fake.merges == [("a 1/2", "guest/tv")]
    with pytest.raises(BadRequest, match="the profile itself"):
        client.merge_profile("7", "7")
    fake.down = True
    with pytest.raises(Unavailable):
        client.merge_profile("7", "guest/tv")


def test_a_merge_has_the_services_form() -> None:
    assert _form(requests.MergeRequest) == _form(profiles.MergeRequest)
    assert set(Merged.__struct_fields__) == {
        "guest" if name == "merged" else name for name in profiles.MergeAnswer.__struct_fields__
    }


async def merge_async(fake: FakeService) -> Merged:
    async with AsyncClient(transport=fake) as client:
        return await client.merge_profile("7", "guest/tv")


def test_the_async_client_merges_too(fake: FakeService) -> None:
    assert asyncio.run(merge_async(fake)).status == "merged"
