"""Does one caller keep the others waiting? Half-open connections, and the largest valid requests.

    python -m benchmarks.attack [--connections 5000] [--seconds 10]

First a service in a process of its own, on the examples: viewers decide at an even pace, without
and with so many connections open that each sent half of a head and no more; one that is dropped is
opened again. Printed is how long the viewers waited, before, during and after, in one run.

Then the application in this process: to each door goes the largest request that it takes, while
another caller asks for its health. Printed is the longest turn that the event loop spent on it (in
processor time of its thread, which other programs on the machine do not lengthen), how long the
other caller waited at most, and the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from asyncio import events
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.service import running

from topbill.cli.supervise import free_port
from topbill.domain.json_text import MOST_CONTAINERS
from topbill.engine.api import MOST_ACTIONS
from topbill.service.app import create_app
from topbill.service.asgi import LARGEST_BODY
from topbill.service.bodies import LARGEST_BATCH
from topbill.service.fast_path import FastPath
from topbill.service.personalizer.bodies import LARGEST_RANK, LARGEST_WORK
from topbill.service.settings import Settings

EXAMPLES = Path(__file__).parents[1] / "experiments"
VIEWERS = 4
PACE = 0.005
"""Seconds between two requests of a viewer."""
HEAD = b"POST /v1/decide HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


# ------------------------------------------------------------------ half-open connections


class Viewer(threading.Thread):
    """Decides at an even pace; how long each decision took."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self._port, self._number = port, number
        self.stopped = threading.Event()
        self.seconds: list[float] = []
        self.failed = 0

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        made = 0
        while not self.stopped.is_set():
            made += 1
            body = {"experiment": "home-artwork", "unit": f"u{self._number}-{made}"}
            started = time.perf_counter()
            try:
                connection.request("POST", "/v1/decide", json.dumps(body), _JSON)
                answer = connection.getresponse()
                answer.read()
                self.failed += answer.status != 200
            except OSError:
                self.failed += 1
                connection.close()
            self.seconds.append(time.perf_counter() - started)
            time.sleep(PACE)


_JSON = {"content-type": "application/json"}


def hold_open(port: int, connections: int) -> None:
    """Keep so many half-open connections, until this process ends; prints when they are open."""
    raise_limit()
    selector = selectors.DefaultSelector()
    told = False
    while True:
        while len(selector.get_map()) < connections:
            try:
                half = socket.create_connection(("127.0.0.1", port), timeout=5)
                half.sendall(HEAD)
            except OSError:
                time.sleep(0.01)
                continue
            half.setblocking(False)
            selector.register(half, selectors.EVENT_READ)
            if len(selector.get_map()) % 500 == 0:
                _drop_closed(selector, 0.0)
        if not told:
            print("open", flush=True)
            told = True
        _drop_closed(selector, 0.2)


def _drop_closed(selector: selectors.BaseSelector, seconds: float) -> None:
    for key, _ in selector.select(seconds):
        half = key.fileobj
        assert isinstance(half, socket.socket)
        with suppress(OSError):
            half.recv(4_096)
        selector.unregister(half)
        half.close()


def raise_limit() -> int:
    """Allow as many open files as can be; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def load(port: int, seconds: float) -> tuple[list[float], int]:
    """How long viewers waited within so many seconds, and how many were not answered."""
    viewers = [Viewer(port, number) for number in range(VIEWERS)]
    for viewer in viewers:
        viewer.start()
    time.sleep(seconds)
    for viewer in viewers:
        viewer.stopped.set()
    for viewer in viewers:
        viewer.join(60)
    return [s for viewer in viewers for s in viewer.seconds], sum(v.failed for v in viewers)


def tell(name: str, waited: list[float], failed: int) -> None:
    """One line."""
    p50, p99, most = np.percentile(np.array(waited) * 1e3, [50, 99, 100])
    print(
        f"{name:<24}{len(waited):>7,} decides  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms"
        f"  longest {most:6.1f} ms  {failed} failed",
        flush=True,
    )


def slow_connections(folder: Path, connections: int, seconds: float) -> None:
    """The first part."""
    port = free_port("127.0.0.1", 0)
    where = ["--experiments", str(EXAMPLES), "--data", str(folder / "slow")]
    serve = [sys.executable, "-m", "topbill", "serve", *where, "--port", str(port)]
    attack = [sys.executable, "-m", "benchmarks.attack", "--hold", str(port)]
    with running(serve, port):
        load(port, 2.0)  # what is imported and compiled at first use
        tell("without an attack", *load(port, seconds))
        with subprocess.Popen(
            [*attack, "--connections", str(connections)], stdout=subprocess.PIPE, text=True
        ) as attacker:
            assert attacker.stdout is not None
            attacker.stdout.readline()
            tell(f"{connections:,} half-open", *load(port, seconds))
            attacker.kill()
        tell("afterwards", *load(port, seconds))


# ------------------------------------------------------------------ the largest requests


class Turns:
    """The longest turn of the event loop since `begin`, in processor time of its thread."""

    def __init__(self) -> None:
        self.longest = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure each callback of asyncio's loop within the block."""
        run = events.Handle._run

        def timed(handle: events.Handle) -> None:
            started = time.thread_time()
            run(handle)
            self.longest = max(self.longest, time.thread_time() - started)

        setattr(events.Handle, "_run", timed)  # noqa: B010 (no attribute that may be set)
        try:
            yield
        finally:
            setattr(events.Handle, "_run", run)  # noqa: B010


Post = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]


def fitting(make: Callable[[int], Any], most: int, size: int = LARGEST_BODY) -> bytes:
    """The largest body of up to `size` bytes that is made of a number up to `most`."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if len(_body(make(middle))) <= size:
            low = middle
        else:
            high = middle - 1
    return _body(make(low))


def _body(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _actions(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"{i:x}", **more} for i in range(count)]


def decide(count: int, slots: int) -> dict[str, Any]:
    """A request that offers so many actions for so many slots."""
    actions = _actions(count)
    return {"experiment": "home-titles", "unit": "u", "slots": slots, "actions": actions}


def largest(decisions: list[str]) -> Iterator[tuple[str, str, bytes]]:
    """By name, the path and the body of the largest requests that there are."""
    yield "decide, actions", "/v1/decide", _body(decide(MOST_ACTIONS, 200))
    yield "decide, payloads", "/v1/decide", fitting(_with_payloads, MOST_ACTIONS)
    yield "decide, lists", "/v1/decide", _many_lists()
    for count, each in ((LARGEST_BATCH, 5), (330, 200), (25, 2_000)):
        make = partial(_batch, actions=each)
        yield f"batch of {count} x {each}", "/v1/decide/batch", fitting(make, count)
    yield "page", "/v1/page", _body(_page(100))
    rewards = partial(_rewards, decisions)
    yield "reward batch", "/v1/reward/batch", fitting(rewards, LARGEST_BATCH)
    pages = partial(_rewards, [f"page-p{i}" for i in range(100)])
    yield "reward batch, pages", "/v1/reward/batch", fitting(pages, LARGEST_BATCH)
    yield "event batch", "/v1/event/batch", fitting(_events, LARGEST_BATCH)
    rank = fitting(_rank, 20_000, LARGEST_RANK)
    yield "Personalizer rank", "/personalizer/v1.0/rank", rank
    slots = fitting(_rank_slots, 20_000, LARGEST_WORK // 50)
    yield "Personalizer, 50 slots", "/personalizer/v1.1-preview.1/multislot/rank", slots


def _with_payloads(count: int) -> dict[str, Any]:
    return decide(0, 200) | {"actions": _actions(count, payload="x" * 150), "decision_id": "one"}


def _many_lists() -> bytes:
    """A request with as many lists as there may be, in a feature that nobody has declared."""
    lists = b"[" * 50 + b"]" * 50
    context = b",".join([lists] * ((MOST_CONTAINERS - 10) // 50))
    return _body(decide(2, 1))[:-1] + b',"context":{"a":[' + context + b"]}}"


def _batch(count: int, actions: int) -> dict[str, Any]:
    slots = max(1, min(200, 1_000_000 // (count * actions)))
    decisions = []
    for i in range(count):
        name = f"{count}-{actions}-{i}"
        decisions.append(decide(actions, slots) | {"unit": f"u{i}", "decision_id": name})
    return {"decisions": decisions}


def _page(watched: int) -> dict[str, Any]:
    plays = ["x" * 120] * watched
    return {"page": "home", "profile": "p", "page_id": "large", "watched": plays}


def _rewards(decisions: list[str], count: int) -> dict[str, Any]:
    rewards = []
    for i in range(count):
        decision_id = decisions[i % len(decisions)]
        rewards.append({"decision_id": decision_id, "event": "play", "event_id": f"{i:0100}"})
    return {"rewards": rewards}


def _events(count: int) -> dict[str, Any]:
    event = {"unit_type": "profile_id", "event": "session_start"}
    return {"events": [event | {"unit": f"u{i}", "event_id": f"{i:0100}"} for i in range(count)]}


def _rank(features: int) -> dict[str, Any]:
    own = [{f"f{j}": j for j in range(features)}]
    return {
        "actions": [{"id": f"{i}", "features": own} for i in range(50)],
        "contextFeatures": [{f"f{j}": f"value {j}" for j in range(100)}],
    }


def _rank_slots(features: int) -> dict[str, Any]:
    slots = [{"id": f"s{i}", "baselineAction": f"{i}"} for i in range(50)]
    return _rank(features) | {"slots": slots}


async def largest_requests(post: Post) -> None:
    """The second part, of a running application."""
    turns = Turns()
    waited = 0.0
    decisions = []
    for start in range(20):
        units = [f"u{start}-{i}" for i in range(50)]
        batch = [{"experiment": "home-titles", "unit": unit} for unit in units]
        _, answer = await post("/v1/decide/batch", _body({"decisions": batch}))
        decisions += [one["decision_id"] for one in json.loads(answer)["decisions"]]
    for i in range(100):
        page = {"page": "home", "profile": f"p{i}", "page_id": f"p{i}"}
        await post("/v1/page", _body(page))
    requests = list(largest(decisions))

    async def ask_for_health() -> None:
        nonlocal waited
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            await post("/healthz", b"")
            waited = max(waited, time.perf_counter() - due)

    asking = asyncio.create_task(ask_for_health())
    await asyncio.sleep(1)
    waited = 0.0
    await asyncio.sleep(2)
    print(f"\nthe other caller waits for {waited * 1e3:.0f} ms at most when nobody else calls")
    for name, path, body in requests:
        turns.longest = waited = 0.0
        started = time.perf_counter()
        with turns.measured():
            # A task of its own: the turn that this one is in began before it was measured.
            status, answer = await asyncio.create_task(post(path, body))
        took = time.perf_counter() - started
        await asyncio.sleep(0.1)
        print(
            f"{name:<24}{len(body):>9,} bytes  {status}  took {took * 1e3:6.0f} ms"
            f"  longest turn {turns.longest * 1e3:4.0f} ms  the other waited {waited * 1e3:5.0f} ms"
            f"  {answer[:80].decode() if status >= 300 else ''}",
            flush=True,
        )
    asking.cancel()


async def serve(app: FastPath, use: Callable[[Post], Awaitable[None]]) -> None:
    """Run the application in this loop, and `use` with what posts to it."""
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    started = asyncio.Event()

    async def on_lifespan(_: Any) -> None:
        started.set()

    async def post(path: str, body: bytes) -> tuple[int, bytes]:
        statuses: list[int] = []
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            if "status" in message:
                statuses.append(message["status"])
            parts.append(message.get("body", b""))

        headers = [(b"host", b"127.0.0.1:8600"), (b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST" if body else "GET",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 1),
        }
        await app(scope, receive, send)
        return statuses[0], b"".join(parts)

    messages.put_nowait({"type": "lifespan.startup"})
    lifespan = asyncio.create_task(app({"type": "lifespan", "app": app}, messages.get, on_lifespan))
    await started.wait()
    try:
        await use(post)
    finally:
        messages.put_nowait({"type": "lifespan.shutdown"})
        await lifespan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--hold", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["slow", "large"])
    options = parser.parse_args()
    if options.hold:
        hold_open(options.hold, options.connections)
    files = raise_limit()
    load_now = os.getloadavg()[0]
    print(f"{os.cpu_count()} processors, load {load_now:.1f}, {files:,} open files allowed")
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        if options.only != "large":
            slow_connections(Path(name), options.connections, options.seconds)
        if options.only != "slow":
            app = create_app(Settings(EXAMPLES, Path(name) / "large"))
            asyncio.run(serve(app, largest_requests))


if __name__ == "__main__":
    main()
