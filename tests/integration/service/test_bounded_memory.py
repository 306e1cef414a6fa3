"""What a process remembers is bounded in bytes, and what it no longer remembers it reads from the
log.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from topbill.domain.records import Decision, Placement
from topbill.log import Log
from topbill.service import app as application
from topbill.service import rewards
from topbill.service.page_memory import PageMemory
from topbill.service.rewards import Rewards
from topbill.service.settings import Settings


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.binary(max_size=400)), max_size=60))
def test_pages_are_remembered_whole_and_within_their_bytes(pages: list[tuple[str, bytes]]) -> None:
    memory = PageMemory(most_bytes=1_500)
    newest: dict[str, bytes] = {}
    for page_id, answer in pages:
        memory.add(page_id, answer)
        newest[page_id] = answer
        assert 0 <= memory.bytes <= 1_500
        assert memory.get(page_id) == answer
    for page_id, answer in newest.items():
        assert memory.get(page_id) in (answer, None)
    assert (memory.bytes == 0) == (len(memory) == 0)


def test_a_page_that_is_larger_than_all_there_is_room_for_is_not_kept() -> None:
    memory = PageMemory(most_bytes=100)
    memory.add("a", b"x")
    assert (memory.get("a"), memory.bytes) == (None, 0)


class FakeBackend:
    def __init__(self) -> None:
        self.on_erasure: list[Any] = []

    def decision(self, _: str) -> None:
        return None

    def is_remembered(self, _: int) -> bool:
        return True


def test_slates_are_remembered_within_a_number_of_items(monkeypatch: Any) -> None:
    monkeypatch.setattr(rewards, "_MOST_ITEMS", 100)
    known = Rewards(FakeBackend(), lambda event: [event])  # type: ignore[arg-type]
    slate = tuple([Placement(i, f"a{i}", 1.0) for i in range(30)])
    for name in "abcabcdee":
        decision = Decision(
            decision_id=name,
            experiment="art",
            revision="r",
            variant=None,
            unit="u",
            context=msgspec.Raw(b"{}"),
            policy="fixed",
            reason="policy",
            slate=slate,
        )
        known.remember(decision)
        assert sum(len(slate[1]) for slate in known._slates.values()) == known._items <= 100
    assert list(known._slates) == ["c", "d", "e"]


def test_a_look_at_a_decision_opens_nothing(
    client: TestClient, settings: Settings, monkeypatch: Any
) -> None:
    made = client.post("/v1/decide", json={"experiment": "art"}).json()["decision_id"]
    client.post("/v1/reward", json={"decision_id": made, "event": "play"})

    def refuse(_: Settings) -> Log:
        raise AssertionError("the log was opened")

    monkeypatch.setattr(Settings, "open_log", refuse)
    for _ in range(3):
        answer = client.get(f"/v1/decisions/{made}")
        assert (answer.status_code, len(answer.json()["rewards"])) == (200, 1)


def test_who_has_no_key_learns_no_path(settings: Settings) -> None:
    for sentence, told in (
        (
            f"{settings.data}/log.sqlite: cannot open the log",
            "data/log.sqlite: cannot open the log",
        ),
        ("unable to open '/srv/top bill/x.sqlite'", "unable to open '… bill/x.sqlite'"),
        ("rate 3/4 of /tmp/a/b.c; and/or", "rate 3/4 of …; and/or"),
        ("nothing of it", "nothing of it"),
    ):
        assert application._without_paths(sentence, settings.data) == told


def test_readyz_says_why_and_not_where(client: TestClient, settings: Settings) -> None:
    settings.log_path.rename(settings.data / "away.sqlite")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert str(settings.data) not in answer.text
    assert "log.sqlite" in answer.json()["log"]
    (settings.data / "away.sqlite").rename(settings.log_path)
