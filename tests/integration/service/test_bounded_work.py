"""The work of one request is bounded, others have their turn in between, and who has waited too
long is told so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from topbill.domain.errors import LogError
from topbill.engine.api import MOST_ACTIONS
from topbill.log import Entry, Log
from topbill.log.memory import MemoryLog
from topbill.service import bodies, decisions, queue_age, turns
from topbill.service.app import create_app
from topbill.service.fast_path import FastPath
from topbill.service.queue_age import QueueAge
from topbill.service.settings import Settings
from topbill.service.writer import GroupWriter

from ...local_client import LocalClient

Post = Callable[[str, Any], Awaitable[int]]


def batch(decisions: int, actions: int, slots: int) -> dict[str, Any]:
    offered = [{"id": f"a{i}"} for i in range(actions)]
    one = {"experiment": "art", "slots": slots, "actions": offered}
    return {"decisions": [one | {"unit": f"u{i}"} for i in range(decisions)]}


def test_a_batch_of_too_much_work_is_refused_and_nothing_of_it_is_stored(
    client: TestClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "LARGEST_WORK", 5 * 10 * 3)
    allowed = client.post("/v1/decide/batch", json=batch(5, 10, 3))
    assert allowed.status_code == 200
    refused = client.post("/v1/decide/batch", json=batch(6, 10, 3))
    error = refused.json()["error"]
    assert (refused.status_code, error["path"]) == (422, "$.decisions[5]")
    assert "180 up to here; expected at most 150" in error["message"]
    assert len(log.read_decisions(0, 100)) == 5


def test_the_largest_single_decision_is_allowed_in_a_batch() -> None:
    assert bodies.LARGEST_WORK >= MOST_ACTIONS * 200


async def serve(app: FastPath, use: Callable[[Post], Awaitable[None]]) -> None:
    """Run the application in this loop, and `use` with what posts to it."""
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    started = asyncio.Event()

    async def on_lifespan(_: Any) -> None:
        started.set()

    async def post(path: str, body: Any) -> int:
        statuses = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        scope = {"type": "http", "method": "POST", "path": path, "headers": []}
        await app(scope, receive, send)
        return int(statuses[0])

    messages.put_nowait({"type": "lifespan.startup"})
    running = asyncio.create_task(app({"type": "lifespan"}, messages.get, on_lifespan))
    await started.wait()
    try:
        await use(post)
    finally:
        messages.put_nowait({"type": "lifespan.shutdown"})
        await running


def test_others_have_their_turn_between_the_decisions_of_a_batch(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LONGEST", 0.0)
    others_turns = 0

    async def use(post: Post) -> None:
        async def others() -> None:
            nonlocal others_turns
            while True:
                others_turns += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(others())
        assert await post("/v1/decide/batch", batch(50, 5, 2)) == 200
        ticking.cancel()

    asyncio.run(serve(create_app(settings), use))
    assert others_turns >= 50


def test_who_has_waited_too_long_is_told_to_come_later(settings: Settings) -> None:
    app = create_app(settings)
    with LocalClient(app) as client:
        now = 0.0
        app._admission.queue = queue = QueueAge(lambda: now)
        queue._due = 0.0
        assert client.post("/v1/decide", json={"experiment": "art"}).status_code == 200
        now = queue_age.LONGEST + 0.1
        for path in ("/v1/decide", "/v1/reward/batch", "/personalizer/v1.0/rank"):
            refused = client.post(path, json={})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"]["code"] == "overloaded"
        assert client.get("/healthz").status_code == 200


def test_the_age_of_the_queue_is_that_of_the_loops_turn() -> None:
    now = 0.0
    age = QueueAge(lambda: now)
    assert age.seconds == 0.0

    async def measure() -> None:
        nonlocal now
        age.start(asyncio.get_running_loop())
        assert age.seconds <= 0.0
        now = 5.0  # a turn that takes long
        assert age.seconds == pytest.approx(5.0 - queue_age._BEAT)
        await asyncio.sleep(2 * queue_age._BEAT)  # the next one
        assert age.seconds <= 0.0

    asyncio.run(measure())


def test_a_disk_that_stands_still_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        log = MemoryLog()
        writer = GroupWriter(log, asyncio.get_running_loop())
        first = writer.put(Entry())
        monkeypatch.setattr("topbill.service.writer._LONGEST_WRITE", -1.0)
        with pytest.raises(LogError, match="not taken a write"):
            writer.put(Entry())
        await first
        # What was under way is done: the next one begins.
        await writer.put(Entry())
        writer.close()

    asyncio.run(use())
