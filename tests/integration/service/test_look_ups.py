"""Look-ups over a network: what many ask for is one query, in another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from typing import cast

import pytest

from topbill.domain.errors import LogError
from topbill.domain.records import Decision
from topbill.log import Log
from topbill.service import look_ups
from topbill.service.look_ups import LookUps

LOOP_THREAD = threading.current_thread()


class SlowLog:
    """Answers when it is let, each query in its turn."""

    name = "postgresql://db/x"

    def __init__(self) -> None:
        self.queries: list[set[str]] = []
        self.may_answer = threading.Event()
        self.error: LogError | None = None

    def decisions(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        assert threading.current_thread() is not LOOP_THREAD
        self.queries.append(set(decision_ids))
        assert self.may_answer.wait(30.0)
        if self.error is not None:
            raise self.error
        return {each: decision(each) for each in decision_ids if each != "unknown"}


def decision(decision_id: str) -> Decision:
    return Decision(
        decision_id=decision_id,
        experiment="art",
        revision="r",
        variant="v",
        unit="u",
        policy="fixed",
        reason="policy",
    )


def opened() -> tuple[SlowLog, LookUps]:
    log = SlowLog()
    return log, LookUps(cast(Log, log))


async def begun(log: SlowLog, count: int) -> None:
    """Until so many queries have begun."""
    for _ in range(3_000):
        if len(log.queries) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(log.queries)


def test_who_asks_in_one_turn_or_while_a_query_is_under_way_shares_the_next() -> None:
    async def ask() -> list[dict[str, Decision]]:
        log, looking = opened()
        first = [asyncio.create_task(looking.decisions([name])) for name in "abc"]
        await begun(log, 1)
        later = [asyncio.create_task(looking.decisions([name, "unknown"])) for name in "ade"]
        await asyncio.sleep(0.05)
        assert log.queries == [{"a", "b", "c"}]
        log.may_answer.set()
        answers = await asyncio.gather(*first, *later)
        assert log.queries[1:] == [{"a", "d", "e", "unknown"}]
        return answers

    assert [list(answer) for answer in asyncio.run(ask())] == [[name] for name in "abcade"]


def test_an_error_reaches_all_who_wait_and_nobody_later() -> None:
    async def ask() -> None:
        log, looking = opened()
        log.error = LogError("gone")
        log.may_answer.set()
        waiting = [looking.decisions([name]) for name in "ab"]
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(error) for error in errors] == ["gone", "gone"]
        log.error = None
        assert list(await looking.decisions(["a"])) == ["a"]

    asyncio.run(ask())


def test_a_caller_who_is_gone_takes_no_answer_from_the_others() -> None:
    async def ask() -> None:
        log, looking = opened()
        gone, there = (asyncio.create_task(looking.decisions([name])) for name in "ab")
        await begun(log, 1)
        gone.cancel()
        log.may_answer.set()
        assert list(await there) == ["b"]

    asyncio.run(ask())


def test_a_server_that_stands_still_is_waited_for_no_longer_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(look_ups, "_LONGEST", 0.05)

    async def ask() -> None:
        log, looking = opened()
        with pytest.raises(LogError, match=r"postgresql://db/x: has not answered for 0\.05 s"):
            await looking.decisions(["a"])
        log.may_answer.set()
        monkeypatch.setattr(look_ups, "_LONGEST", 30.0)
        assert list(await looking.decisions(["b"])) == ["b"]

    asyncio.run(ask())
