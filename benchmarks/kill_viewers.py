"""The load of the kill benchmark: viewers who decide, ask for pages, send rewards and events, and
remember what was acknowledged.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple

UNITS = 500
_RECENT_SECONDS = 60.0
"""How old a decision may be that is rewarded as soon as it was made; older ones are rarer."""
_REMEMBERED = 400
_PAUSE = 0.01
"""Seconds between two requests: the load leaves processes time to start."""


def unit_name(number: int) -> str:
    """A unit's id, which is no part of any other id."""
    return f"viewer-{number:04d}"


class Marks(NamedTuple):
    """How much was acknowledged by some moment: the first so many rows of a ledger."""

    shown: int
    rewards: int
    events: int


@dataclass
class Ledger:
    """What was acknowledged, in order, and what no client may ever see."""

    shown: dict[str, list[str]] = field(default_factory=dict)
    """By decision id what the viewer was shown."""
    unit_of: dict[str, str] = field(default_factory=dict)
    """By decision id whose it is."""
    keyed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By decision id the request that had this id."""
    rewards: dict[tuple[str, str], None] = field(default_factory=dict)
    """Decision id and event id."""
    events: dict[tuple[str, str], None] = field(default_factory=dict)
    """Unit and event id."""
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def show(self, unit: str, decision_id: str, actions: list[str]) -> None:
        """A repeated answer must be the one that was given before."""
        self.unit_of.setdefault(decision_id, unit)
        if (before := self.shown.setdefault(decision_id, actions)) != actions:
            self.problems.append(f"different: {decision_id} was {before}, then {actions}")

    def marks(self) -> Marks:
        """What is in it now."""
        return Marks(len(self.shown), len(self.rewards), len(self.events))


class Recent(NamedTuple):
    """A decision that may be rewarded: when and for whom it was made, and one of its actions."""

    at: float
    unit: str
    decision_id: str
    action: str | None


class Refused(Exception):
    """A request of ours was called wrong."""


class Viewer(threading.Thread):
    """A client of one of the services at a time; turns to the next where one does not answer.

    `gone` are units that come no more: since they are about to be erased, or were. `busy` is the
    unit of the request under way.
    """

    def __init__(
        self, number: int, ports: list[int], seed: int, gone: set[str], stop: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self.ledger = Ledger()
        self.busy: str | None = None
        self._number, self._ports, self._stop_asked = number, ports, stop
        self._gone = gone
        self._chance = random.Random(f"{seed} {number}")
        self._connection: HTTPConnection | None = None
        self._recent: deque[Recent] = deque(maxlen=200)
        # A sample of all that was ever sent with an id, to be sent again much later.
        self._remembered: list[tuple[str, str, dict[str, Any]]] = []
        self._steps = 0

    def run(self) -> None:
        doings = [
            (self.decide, 30),
            (self.decide_keyed, 25),
            (self.decide_batch, 5),
            (self.page, 4),
            (self.reward, 25),
            (self.event, 11),
            (self.repeat, 3),
        ]
        names, weights = zip(*doings, strict=True)
        while not self._stop_asked.is_set():
            self._steps += 1
            try:
                self._chance.choices(names, weights)[0]()
            except Refused:
                continue  # it is among the problems
            except Exception as error:
                self.ledger.problems.append(f"viewer {self._number}: {error!r}")
            finally:
                self.busy = None
            time.sleep(_PAUSE)

    def decide(self) -> None:
        """Without an id, and so not sent again: what was not answered may be there or not."""
        request = self._request()
        answer = self._ask("/v1/decide", request)
        if answer is not None:
            self._decided(answer, request["unit"])

    def decide_keyed(self) -> None:
        request = {**self._request(), "decision_id": f"k{self._number}-{self._steps}"}
        for _ in range(self._chance.choice([1, 1, 2])):
            answer = self._ask_until("/v1/decide", request)
            if answer is not None:
                self._decided(answer, request["unit"])
                self.ledger.keyed[request["decision_id"]] = request
                self._remember("decide", request["unit"], request)

    def decide_batch(self) -> None:
        request = self._request()
        answer = self._ask("/v1/decide/batch", {"decisions": [request] * 5})
        for one in [] if answer is None else answer["decisions"]:
            self._decided(one, request["unit"])

    def page(self) -> None:
        unit, page_id = self._unit(), f"{self._number}-{self._steps}"
        request = {"page": "home", "profile": unit, "page_id": page_id}
        answer = self._ask_until("/v1/page", request)
        if answer is None:
            return
        page, rows = answer["page_id"], answer["rows"]
        self.ledger.show(unit, page, [tile["title"] for row in rows for tile in row["titles"]])
        self.ledger.show(unit, f"{page}:rows", [row["row"] for row in rows])
        for row in rows:
            if row["titles"]:  # nothing was decided for a row left empty
                key, tiles = f"{page}:{row['row']}", row["titles"]
                self.ledger.show(unit, key, [tile["title"] for tile in tiles])
                self.ledger.show(unit, f"{key}:artwork", [tile["picture"] for tile in tiles])
        first = rows[0]["titles"][0]["title"]
        self._recent.append(Recent(time.monotonic(), unit, page, first))
        self.ledger.counts["page"] += 1

    def reward(self) -> None:
        """Of a decision of the last minute; of one whose viewer is gone, it comes to nothing."""
        if not self._recent:
            return
        chosen = self._chance.choice(self._recent)
        if time.monotonic() - chosen.at > _RECENT_SECONDS:
            return
        event_id = f"e{self._chance.randrange(3)}"
        reward = {"decision_id": chosen.decision_id, "event": "play", "event_id": event_id}
        if chosen.action is not None:
            reward["action"] = chosen.action
        # In this order: whoever adds to those who are gone then looks at who is busy.
        self.busy = chosen.unit
        if chosen.unit in self._gone:
            answer = self._ask("/v1/reward", reward)
            if answer is not None:
                self.ledger.counts[f"reward of one who is gone {answer['status']}"] += 1
            return
        answer = self._ask_until("/v1/reward", reward)
        if answer is not None and self._told(answer, reward):
            self.ledger.rewards[chosen.decision_id, event_id] = None
            self._remember("reward", chosen.unit, reward)

    def event(self) -> None:
        unit, event_id = self._unit(), f"s{self._number}-{self._steps}"
        event = {"unit": unit, "unit_type": "profile_id", "event": "session_start"}
        event["event_id"] = event_id
        for _ in range(self._chance.choice([1, 1, 2])):
            answer = self._ask_until("/v1/event", event)
            if answer is not None and self._told(answer, event):
                self.ledger.events[unit, event_id] = None
                self._remember("event", unit, event)

    def repeat(self) -> None:
        """Send again what was acknowledged long ago: the log may have let it go."""
        if not self._remembered:
            return
        path, unit, request = self._chance.choice(self._remembered)
        self.busy = unit
        if unit in self._gone:
            return
        if path == "decide":
            answer = self._ask_until("/v1/decide", request, already_decided=True)
            if answer is not None and "slate" in answer:
                self._decided(answer, unit)
            return
        answer = self._ask_until(f"/v1/{path}", request)
        if answer is not None and answer["status"] != "duplicate":
            self.ledger.problems.append(f"doubled: {answer['status']} again: {request}")

    def _remember(self, path: str, unit: str, request: dict[str, Any]) -> None:
        if len(self._remembered) < _REMEMBERED:
            self._remembered.append((path, unit, request))
        elif self._chance.random() < 0.02:
            self._remembered[self._chance.randrange(_REMEMBERED)] = (path, unit, request)

    def _unit(self) -> str:
        while True:
            self.busy = unit_name(self._chance.randrange(UNITS))
            if self.busy not in self._gone:
                return self.busy

    def _request(self) -> dict[str, Any]:
        experiment = self._chance.choice(["home-artwork", "home-titles", "home-rows"])
        context = {"device": "tv"} if experiment == "home-artwork" else {}
        return {"experiment": experiment, "unit": self._unit(), "context": context}

    def _decided(self, answer: dict[str, Any], unit: str) -> None:
        decision_id = answer["decision_id"]
        self.ledger.show(unit, decision_id, [shown["action"] for shown in answer["slate"]])
        self._recent.append(Recent(time.monotonic(), unit, decision_id, None))

    def _told(self, answer: dict[str, Any], sent: dict[str, str]) -> bool:
        status = answer["status"]
        self.ledger.counts[f"{'reward' if 'decision_id' in sent else 'event'} {status}"] += 1
        if status in ("stored", "duplicate"):
            return True
        self.ledger.problems.append(f"lost: answered {status}: {sent}")
        return False

    def _ask_until(self, path: str, body: dict[str, Any], *, already_decided: bool = False) -> Any:
        """The answer, however often it must be asked for; None where the run ends before."""
        while not self._stop_asked.is_set():
            answer = self._ask(path, body, already_decided=already_decided)
            if answer is not None:
                return answer
        return None

    def _ask(self, path: str, body: dict[str, Any], *, already_decided: bool = False) -> Any:
        """The answer, None where none came. With `already_decided` this refusal is one too."""
        try:
            if self._connection is None:
                port = self._chance.choice(self._ports)
                self._connection = HTTPConnection("127.0.0.1", port, timeout=20)
            status, content = asked(self._connection, path, body)
        except (OSError, HTTPException):
            self.ledger.counts["not answered"] += 1
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            time.sleep(0.02)
            return None
        if status == 200 or (status == 409 and already_decided):
            return json.loads(content)
        self.ledger.counts[f"status {status}"] += 1
        if status != 503:  # "not now" is an answer that a start may give
            self.ledger.problems.append(f"{path} {status}: {content[:200]!r} to {body}")
            raise Refused
        time.sleep(0.02)
        return None


def asked(connection: HTTPConnection, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """The status and the body of a POST."""
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()
