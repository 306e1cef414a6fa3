"""Kill -9 under mixed load: is what was acknowledged there, once, and as it was answered?

    python -m benchmarks.kill [--kills 1000] [--ups 10] [--seed 1] [--folder DIR]

Two services and a worker share one data folder. Viewers decide (with ids of their own, without, and
in batches), ask for whole pages, and send rewards and events; what was not answered is sent again
until it is. Meanwhile one process, both services or all three are killed and started again, and
then `topbill up` as a whole. Publication, compaction and forgetting are sped up, so that kills hit
them. In the end the processes end in order and the record is read: of what was acknowledged nothing
may be lost, doubled or different, and `topbill verify` must exit with 0 for every experiment.

Prints what was killed and what was acknowledged, then the problems; exits 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from topbill import lake
from topbill.cli.supervise import free_port
from topbill.domain.errors import TopbillError
from topbill.worker.loop import only_worker

EXAMPLES = Path(__file__).parents[1] / "experiments"
VIEWERS = 4
KEPT_IN_LOG = 120.0
"""Seconds until the log may forget what is published; rewards come within half of it."""
FORKS = multiprocessing.get_context("forkserver")
"""Processes are forks of one that has imported what takes long: a start takes a second, not five.
`deltalake` is not among it, as its threads do not survive a fork."""
PRELOADED = ["topbill.service.app", "topbill.service.run", "topbill.cli"]
ERROR_LINES = 15


def command(*arguments: str) -> None:
    """The command line with these arguments, in this process."""
    from topbill.cli import main

    sys.argv = ["topbill", *arguments]
    main()


def hasty_worker(*arguments: str) -> None:
    """`topbill worker` that publishes, compacts and forgets as often as it can."""
    from topbill.worker import loop, publisher

    loop.PUBLISH_EVERY = 0.3
    publisher.MINOR, publisher.MAJOR = 2, 6
    vars(loop)["Publisher"] = partial(publisher.Publisher, keep_log=KEPT_IN_LOG)
    command(*arguments)


class Part:
    """One process that is killed and started again."""

    def __init__(self, name: str, run: Callable[..., None], *arguments: str) -> None:
        self.name, self._run, self._arguments = name, run, arguments
        self._process: Any = None

    def start(self) -> None:
        self._process = FORKS.Process(target=self._run, args=self._arguments)
        self._process.start()

    def alive(self) -> bool:
        return bool(self._process.is_alive())

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> None:
        self._process.join()

    def end(self) -> None:
        """In order, as a stop of the machine would."""
        self._process.terminate()
        self._process.join(60)


@dataclass
class Ledger:
    """What was acknowledged, and what no client may ever see."""

    shown: dict[str, list[str]] = field(default_factory=dict)
    """By decision id what the viewer was shown."""
    rewards: set[tuple[str, str]] = field(default_factory=set)
    """Decision id and event id."""
    events: set[tuple[str, str]] = field(default_factory=set)
    """Unit and event id."""
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def show(self, decision_id: str, actions: list[str]) -> None:
        """A repeated answer must be the one that was given before."""
        if (before := self.shown.setdefault(decision_id, actions)) != actions:
            self.problems.append(f"different: {decision_id} was {before}, then {actions}")


class Viewer(threading.Thread):
    """A client of one of the services at a time; turns to the next where one does not answer."""

    def __init__(self, number: int, ports: list[int], seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.ledger = Ledger()
        self._number, self._ports, self._stop_asked = number, ports, stop
        self._chance = random.Random(f"{seed} {number}")
        self._connection: HTTPConnection | None = None
        self._recent: deque[tuple[float, str, str | None]] = deque(maxlen=200)
        self._steps = 0

    def run(self) -> None:
        doings = [
            (self.decide, 30),
            (self.decide_keyed, 25),
            (self.decide_batch, 5),
            (self.page, 4),
            (self.reward, 25),
            (self.event, 11),
        ]
        names, weights = zip(*doings, strict=True)
        while not self._stop_asked.is_set():
            self._steps += 1
            self._chance.choices(names, weights)[0]()

    def decide(self) -> None:
        """Without an id, and so not sent again: what was not answered may be there or not."""
        answer = self._ask("/v1/decide", self._request())
        if answer is not None:
            self._decided(answer)

    def decide_keyed(self) -> None:
        request = {**self._request(), "decision_id": f"k{self._number}-{self._steps}"}
        for _ in range(self._chance.choice([1, 1, 2])):
            answer = self._ask_until("/v1/decide", request)
            if answer is not None:
                self._decided(answer)

    def decide_batch(self) -> None:
        request = self._request()
        answer = self._ask("/v1/decide/batch", {"decisions": [request] * 5})
        for one in [] if answer is None else answer["decisions"]:
            self._decided(one)

    def page(self) -> None:
        unit, page_id = self._unit(), f"{self._number}-{self._steps}"
        request = {"page": "home", "profile": unit, "page_id": page_id}
        answer = self._ask_until("/v1/page", request)
        if answer is None:
            return
        page, rows = answer["page_id"], answer["rows"]
        self.ledger.show(page, [tile["title"] for row in rows for tile in row["titles"]])
        self.ledger.show(f"{page}:rows", [row["row"] for row in rows])
        for row in rows:
            if row["titles"]:  # nothing was decided for a row left empty
                titles = [tile["title"] for tile in row["titles"]]
                self.ledger.show(f"{page}:{row['row']}", titles)
        self._recent.append((time.monotonic(), page, rows[0]["titles"][0]["title"]))
        self.ledger.counts["page"] += 1

    def reward(self) -> None:
        if not self._recent:
            return
        at, decision_id, action = self._chance.choice(self._recent)
        if time.monotonic() - at > KEPT_IN_LOG / 2:
            return
        event_id = f"e{self._chance.randrange(3)}"
        reward = {"decision_id": decision_id, "event": "play", "event_id": event_id}
        if action is not None:
            reward["action"] = action
        answer = self._ask_until("/v1/reward", reward)
        if answer is not None and self._told(answer, reward):
            self.ledger.rewards.add((decision_id, event_id))

    def event(self) -> None:
        unit, event_id = self._unit(), f"s{self._number}-{self._steps}"
        event = {"unit": unit, "unit_type": "profile_id", "event": "session_start"}
        event["event_id"] = event_id
        for _ in range(self._chance.choice([1, 1, 2])):
            answer = self._ask_until("/v1/event", event)
            if answer is not None and self._told(answer, event):
                self.ledger.events.add((unit, event_id))

    def _unit(self) -> str:
        return f"u{self._chance.randrange(500)}"

    def _request(self) -> dict[str, Any]:
        experiment = self._chance.choice(["home-artwork", "home-titles", "home-rows"])
        context = {"device": "tv"} if experiment == "home-artwork" else {}
        return {"experiment": experiment, "unit": self._unit(), "context": context}

    def _decided(self, answer: dict[str, Any]) -> None:
        decision_id = answer["decision_id"]
        self.ledger.show(decision_id, [shown["action"] for shown in answer["slate"]])
        self._recent.append((time.monotonic(), decision_id, None))
        self.ledger.counts["decide"] += 1

    def _told(self, answer: dict[str, Any], sent: dict[str, str]) -> bool:
        status = answer["status"]
        self.ledger.counts[f"{'reward' if 'decision_id' in sent else 'event'} {status}"] += 1
        if status in ("stored", "duplicate"):
            return True
        self.ledger.problems.append(f"{status}: {sent}")
        return False

    def _ask_until(self, path: str, body: dict[str, Any]) -> Any:
        """The answer, however often it must be asked for; None where the run ends before."""
        while not self._stop_asked.is_set():
            answer = self._ask(path, body)
            if answer is not None:
                return answer
        return None

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        """The answer, None where none came."""
        try:
            if self._connection is None:
                port = self._chance.choice(self._ports)
                self._connection = HTTPConnection("127.0.0.1", port, timeout=20)
            headers = {"content-type": "application/json"}
            self._connection.request("POST", path, json.dumps(body), headers)
            response = self._connection.getresponse()
            content = response.read()
            if response.status == 200:
                return json.loads(content)
            self.ledger.counts[f"status {response.status}"] += 1
            if response.status != 503:  # "not now" is an answer that a start may give
                self.ledger.problems.append(f"{path} {response.status}: {content[:200]!r}")
        except (OSError, HTTPException):
            self.ledger.counts["not answered"] += 1
            if self._connection is not None:
                self._connection.close()
            self._connection = None
        time.sleep(0.02)
        return None


@dataclass
class Stage:
    """A data folder, and the processes at work on it."""

    folder: Path
    ports: list[int]
    chance: random.Random
    killed: Counter[str] = field(default_factory=Counter)

    @property
    def places(self) -> list[str]:
        """The options that say where the files lie."""
        return ["--experiments", str(self.folder / "experiments"), "--data", str(self.data)]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def parts(self) -> list[Part]:
        services = [
            Part("service", command, "serve", *self.places, "--port", str(port))
            for port in self.ports
        ]
        return [*services, Part("worker", hasty_worker, "worker", *self.places)]

    def strike(self, parts: list[Part], kills: int) -> None:
        """Kill and start again until so many have been killed."""
        while self.killed.total() < kills:
            time.sleep(self.chance.random() * self.chance.choice([0.2, 1.0, 3.0, 10.0]))
            struck = self.chance.choices(
                [parts[:1], parts[1:2], parts[2:], parts[:2], parts], [2, 2, 4, 1, 1]
            )[0]
            for part in struck:
                if not part.alive():
                    self.killed[f"{part.name} ended by itself"] += 1
                part.kill()
            for part in struck:
                part.wait()
                part.start()
                self.killed[part.name] += 1

    def strike_ups(self, ups: int) -> None:
        """The same with `topbill up`, whose children must end with it."""
        for _ in range(ups):
            with _up(self.places, self.ports[0]) as up:
                time.sleep(8 + 4 * self.chance.random())
                up.kill()
            self.killed["up"] += 1
            _until(lambda: free_port("127.0.0.1", self.ports[0]) == self.ports[0], "port free")
            _until(lambda: _no_worker(self.data), "the worker ended with its parent")


@contextmanager
def _up(places: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    line = [sys.executable, "-m", "topbill", "up", *places, "--port", str(port)]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, process_group=0) as process:
        yield process


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after two minutes: {what}")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    with suppress(OSError), closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


def _no_worker(data: Path) -> bool:
    with suppress(TopbillError), only_worker(data):
        return True
    return False


def judged(stage: Stage, ledgers: list[Ledger]) -> tuple[Counter[str], list[str]]:
    """What was acknowledged, counted, and what is wrong with the record of it."""
    counts: Counter[str] = Counter()
    problems: list[str] = []
    shown: dict[str, list[str]] = {}
    for ledger in ledgers:
        counts += ledger.counts
        problems += ledger.problems
        shown |= ledger.shown
    rewards = set().union(*(ledger.rewards for ledger in ledgers))
    events = set().union(*(ledger.events for ledger in ledgers))
    counts |= {
        "acknowledged decisions": len(shown),
        "acknowledged rewards": len(rewards),
        "acknowledged events": len(events),
    }

    slates = _recorded(stage.data, "SELECT decision_id AS id, slate FROM decisions")
    stored = {row["id"]: row["slate"] for row in slates}
    problems += _twice("decision", [row["id"] for row in slates])
    problems += [f"lost: decision {key}" for key in shown.keys() - stored.keys()]
    problems += [
        f"different: {key} was answered {shown[key]}, the record has {stored[key]}"
        for key in shown.keys() & stored.keys()
        if shown[key] != stored[key]
    ]
    problems += _missing(stage.data, "reward", rewards, "decision_id, event_id FROM rewards")
    problems += _missing(stage.data, "event", events, "unit, event_id FROM events")
    return counts, problems


def _recorded(data: Path, statement: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.sql(data / lake.DATABASE, statement).to_pylist()
    return rows


def _missing(data: Path, what: str, acknowledged: set[tuple[str, str]], of: str) -> list[str]:
    stored = [tuple(row.values()) for row in _recorded(data, f"SELECT {of}")]
    lost = acknowledged - set(stored)
    return [*_twice(what, stored), *(f"lost: {what} {key}" for key in lost)]


def _twice(what: str, keys: list[Any]) -> list[str]:
    return [f"doubled: {what} {key}, {n} times" for key, n in Counter(keys).items() if n > 1]


def verified(stage: Stage) -> list[str]:
    """The experiments that `topbill verify` does not reach again."""
    problems = []
    # A page's own decision is of no experiment.
    of = _recorded(
        stage.data, "SELECT DISTINCT experiment FROM decisions WHERE layer <> 'page' ORDER BY ALL"
    )
    for experiment in [row["experiment"] for row in of]:
        line = [sys.executable, "-m", "topbill", "verify", experiment, *stage.places]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            problems.append(f"verify {experiment}: {(done.stdout + done.stderr).strip()[-300:]}")
    return problems


def run(folder: Path, *, kills: int, ups: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Everything in `folder`, which is emptied: what was killed and acknowledged, and the
    problems.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLES, folder / "experiments")
    first = free_port("127.0.0.1", 0)
    stage = Stage(folder, [first, free_port("127.0.0.1", 0)], random.Random(seed))
    FORKS.set_forkserver_preload(PRELOADED)
    stop = threading.Event()
    viewers = [Viewer(number, stage.ports, seed, stop) for number in range(VIEWERS)]
    parts = stage.parts()
    for part in parts:
        part.start()
    for viewer in viewers:
        viewer.start()
    for port in stage.ports:
        _until(partial(_answers, port), "both services answer")
    stage.strike(parts, kills)
    for part in parts:
        part.end()
    stage.strike_ups(ups)
    for part in parts:
        part.start()
    for port in stage.ports:
        _until(partial(_answers, port), "both services answer")
    time.sleep(10)  # what was not answered is asked again
    stop.set()
    for viewer in viewers:
        viewer.join(60)
    time.sleep(5)
    for part in parts:
        part.end()
    counts, problems = judged(stage, [viewer.ledger for viewer in viewers])
    return stage.killed + counts, problems + verified(stage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--ups", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-"))
    started = time.monotonic()
    counts, problems = run(folder, kills=options.kills, ups=options.ups, seed=options.seed)
    for name, count in sorted(counts.items()):
        print(f"{count:>9,}  {name}")
    sort = Counter(problem.partition(":")[0] for problem in problems)
    told = ", ".join(f"{sort[kind]} {kind}" for kind in ("lost", "doubled", "different"))
    print(f"{told}; {len(problems)} problems in {time.monotonic() - started:,.0f} s, in {folder}")
    for problem in problems[:ERROR_LINES]:
        print("  ", problem[:400])
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
