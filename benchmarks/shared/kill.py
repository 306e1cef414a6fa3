"""Kill -9 of whatever the shared form consists of, under load over HTTP: is what was acknowledged
there, once?

    python -m benchmarks.shared.kill [--kill replica …] [--times 50] [--minutes 30] [--seed 1]
        [--patroni]

`deploy/local.sh` starts PostgreSQL with its synchronous standby, three replicas behind haproxy and
two workers, and starts again whatever ends. Viewers decide, ask for pages, send rewards and events;
what was not answered is sent again until it is. Meanwhile one after the other is killed:

    replica     of the service
    worker      of two
    publisher   the process beside a worker that publishes
    standby     of PostgreSQL, with all its processes
    primary     likewise; the standby takes its place, and the former primary comes back as standby

With --minutes nobody is killed any more after so long, and what came of the kills until then is
told as ever.

With --patroni that is left to Patroni and etcd, with deploy/patroni/, and a server's Patroni is
killed with it.

Prints for each kind how often, and for how many seconds no decision was accepted. Then what was
acknowledged, held, lost and doubled of decisions, rewards and events, in the log and in the lake,
which must have the same rows; and how `topbill verify` ended for each experiment. Exits 1 where
something is lost, doubled or different, does not verify, or is not well again, and leaves the
folder to look at.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from subprocess import CompletedProcess
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import urlopen

from benchmarks import kill_record
from benchmarks.kill_viewers import Ledger, Viewer
from benchmarks.shared.local_form import LONGEST, LocalForm, LocalServers, until
from benchmarks.shared.patroni import Patroni
from tests import processes

from topbill import lake
from topbill.domain.errors import TopbillError
from topbill.domain.log_url import LOG_VARIABLE
from topbill.log import Log, open_log

KINDS = ("replica", "worker", "publisher", "standby", "primary")
NAMED = {"replica": "serve", "worker": "worker"}
"""What deploy/local.sh calls them."""
REPLICAS, WORKERS, VIEWERS = 3, 2, 4
REST = 5.0
"""Seconds in which nobody is killed, before the first."""
_AT_ONCE = 5_000
PROBLEMS_NAMED = 15


class TimedLedger(Ledger):
    """A ledger that knows when each decision was accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: list[float] = []

    def show(self, unit: str, decision_id: str, actions: list[str]) -> None:
        """As every ledger; `accepted` gets the moment, of the monotonic clock."""
        self.accepted.append(time.monotonic())
        super().show(unit, decision_id, actions)


class Servers(Protocol):
    """PostgreSQL with a synchronous standby."""

    def kill(self, kind: str) -> None:
        """Kill the primary or the standby; something starts it again."""

    def is_whole(self) -> bool:
        """Whether the standby has all that is acknowledged, also of what is to come."""


class Strikes:
    """Who is killed, and when it was well again."""

    def __init__(self, form: LocalForm, servers: Servers, log: Log, chance: random.Random) -> None:
        self._form, self._servers, self._log, self._chance = form, servers, log, chance
        self.at: dict[str, list[tuple[float, float]]] = {}
        """By kind: from when to when one of it was missing."""

    def rest(self, seconds: float) -> None:
        """Kill nobody for so long: what comes of that is what the machine has to do with it."""
        began = time.monotonic()
        time.sleep(seconds)
        self.at["nobody"] = [(began, time.monotonic())]

    def strike(self, kind: str) -> None:
        """Kill one of that kind while all is well, and wait until it is so again."""
        time.sleep(self._chance.random() * self._chance.choice([0.2, 1.0, 3.0]))
        began, since = time.monotonic(), self._log.now()
        if kind in ("primary", "standby"):
            self._servers.kill(kind)
        elif kind == "publisher":
            until(self._kill_publisher, "somebody publishes")
        else:
            self._form.kill(self._chance.choice(self._form.names(NAMED[kind])))
        until(self._is_well, f"all is well again after a {kind} was killed", self._unwell)
        if kind in ("worker", "publisher"):
            until(lambda: self._beats_after(since), "a worker gives a sign of life")
        self.at.setdefault(kind, []).append((began, time.monotonic()))

    def _kill_publisher(self) -> bool:
        """Whether who said last that it publishes was there to be killed: who was killed before is
        named until another one has its place."""
        duty = self._log.duties().get("publish")
        if duty is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(int(duty.worker.rpartition(":")[2]), signal.SIGKILL)
            return True
        return False

    def _is_well(self) -> bool:
        return not any(self._unwell())

    def _unwell(self) -> Iterator[str]:
        """What is not as it should be."""
        if not self._servers.is_whole():
            yield "there is no standby that has all"
        for port in [*self._form.replica_ports(), *self._form.ports()]:
            if problem := _problem(port):
                yield f"port {port}: {problem}"

    def _beats_after(self, moment: int) -> bool:
        beat = self._log.heartbeat()
        return beat is not None and beat.at > moment


def _problem(port: int) -> str:
    """Why what listens there is not ready; nothing where it is."""
    try:
        urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
    except HTTPError as error:
        with suppress(OSError):
            return f"{error.code} {error.read().decode()}"
        return str(error)
    except OSError as error:
        return str(error)
    return ""


def pauses(accepted: Sequence[float], at: Iterable[tuple[float, float]]) -> list[float]:
    """For each stretch of time the longest one without a decision, in seconds; one that reaches
    beyond the stretch counts whole. `accepted` is sorted.

    >>> pauses([1.0, 2.0, 2.5, 6.0, 6.5], [(2.2, 2.4), (3.0, 3.1), (6.1, 6.2)])
    [0.5, 3.5, 0.5]
    """
    longest = []
    for began, ended in at:
        first = max(0, bisect_right(accepted, began) - 1)
        around = accepted[first : bisect_left(accepted, ended) + 1]
        longest.append(max((later - sooner for sooner, later in pairwise(around)), default=0.0))
    return longest


class Rows:
    """Of one kind of row what was acknowledged, and how often it is in the log and in the lake."""

    def __init__(self, name: str, acknowledged: set[Any], in_log: Counter[Any]) -> None:
        self.name, self.acknowledged, self.in_log = name, acknowledged, in_log
        self.in_lake: Counter[Any] = Counter()

    def look(self, data: Path, columns: str) -> bool:
        """Read the lake; whether it has as many rows as the log."""
        query = f"SELECT {columns} FROM {self.name}"  # noqa: S608 (own names)
        with suppress(TopbillError):
            rows = lake.sql(lake.database_of(data), query).to_pylist()
            self.in_lake = Counter(tuple(row.values()) for row in rows)
        return self.in_lake.total() >= self.in_log.total()

    @property
    def held(self) -> int:
        """How many of those acknowledged are in both."""
        return len(self.acknowledged & self.in_log.keys() & self.in_lake.keys())

    @property
    def doubled(self) -> int:
        """How many are there more than once, in one of both."""
        return sum(times > 1 for found in (self.in_log, self.in_lake) for times in found.values())

    def problems(self) -> Iterator[str]:
        """What is not as it should be, with an example of each."""
        for place, found in (("log", self.in_log), ("lake", self.in_lake)):
            if lost := self.acknowledged - found.keys():
                yield f"lost from the {place}: {len(lost):,} {self.name}, such as {min(lost)}"
            if doubled := [key for key, times in found.items() if times > 1]:
                yield f"doubled in the {place}: {len(doubled):,} {self.name}, such as {doubled[0]}"
        if self.in_log != self.in_lake:
            rows = f"{self.in_log.total():,} {self.name}, the lake {self.in_lake.total():,}"
            yield f"different: the log has {rows}"


def _read(read: Callable[[int, int], list[Any]], key: Callable[[Any], Any]) -> Counter[Any]:
    """How often each key is among all rows."""
    found: Counter[Any] = Counter()
    after = 0
    while rows := read(after, _AT_ONCE):
        after = rows[-1][0]
        found.update(key(row) for _, row in rows)
    return found


def _held(log: Log, data: Path, ledgers: list[TimedLedger]) -> list[Rows]:
    """All kinds of rows, once the lake has as many of each as the log."""
    shown = {(name,) for ledger in ledgers for name in ledger.shown}
    rewards = {name for ledger in ledgers for name in ledger.rewards}
    events = {name for ledger in ledgers for name in ledger.events}
    columns = {
        "decisions": "decision_id",
        "rewards": "decision_id, event_id",
        "events": "unit, event_id",
    }
    kinds = [
        Rows("decisions", shown, _read(log.read_decisions, lambda row: (row.decision_id,))),
        Rows(
            "rewards", rewards, _read(log.read_events, lambda row: (row.decision_id, row.event_id))
        ),
        Rows("events", events, _read(log.read_unit_events, lambda row: (row.unit, row.event_id))),
    ]

    def is_published() -> bool:
        looks = [kind.look(data, columns[kind.name]) for kind in kinds]
        return all(looks)

    with suppress(RuntimeError):  # what is missing then is named
        until(is_published, "the lake has what the log has")
    return kinds


def _verified(data: Path) -> dict[str, CompletedProcess[str]]:
    """How `topbill verify` ends for each experiment."""
    keys = kill_record.experiments(data)
    return {key: processes.topbill("verify", key, "--data", data) for key in keys}


def run(
    kinds: Sequence[str],
    times: int,
    seconds: float,
    seed: int,
    form: LocalForm,
    servers: Servers,
) -> list[str]:
    """Kill each kind so many times, for so many seconds at most, and say what came of it; what is
    wrong."""
    stop = threading.Event()
    viewers = [Viewer(number, form.ports(), seed, set(), stop) for number in range(VIEWERS)]
    ledgers = [TimedLedger() for _ in viewers]
    for viewer, ledger in zip(viewers, ledgers, strict=True):
        viewer.ledger = ledger
        viewer.start()
    try:
        with open_log(os.environ[LOG_VARIABLE], create=False) as log:
            strikes = Strikes(form, servers, log, random.Random(seed))
            strikes.rest(REST)
            _say("nobody", strikes.at["nobody"], ledgers)
            strike_each(
                kinds,
                times,
                seconds,
                strikes.strike,
                lambda kind: _say(kind, strikes.at[kind], ledgers),
            )
            time.sleep(2.0)  # what was not answered is asked again
    finally:
        stop.set()
        for viewer in viewers:
            viewer.join(LONGEST)
    with open_log(os.environ[LOG_VARIABLE], create=False) as log:
        rows = _held(log, form.data, ledgers)
    acknowledged, held = sum(len(each.acknowledged) for each in rows), sum(r.held for r in rows)
    print(
        f"acknowledged {acknowledged:,}, held {held:,}, lost {acknowledged - held:,}, "
        f"doubled {sum(each.doubled for each in rows):,}"
    )
    verified = _verified(form.data)
    print("verify exits", ", ".join(f"{key} {v.returncode}" for key, v in verified.items()))
    problems = [problem for ledger in ledgers for problem in ledger.problems]
    for each in rows:
        problems += each.problems()
    for key, done in verified.items():
        if done.returncode:
            problems.append(f"verify {key}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return problems


def strike_each(
    kinds: Sequence[str],
    times: int,
    seconds: float,
    strike: Callable[[str], None],
    say: Callable[[str], None],
) -> None:
    """Kill each kind so many times, and say what came of it; no more when so many seconds are
    over."""
    last = time.monotonic() + seconds
    for kind in kinds:
        done = 0
        while done < times and time.monotonic() < last:
            strike(kind)
            done += 1
        if done:
            say(kind)
        else:
            print(f"{kind}: the time was over", flush=True)


def _say(kind: str, at: list[tuple[float, float]], ledgers: list[TimedLedger]) -> None:
    accepted = sorted(moment for ledger in ledgers for moment in list(ledger.accepted))
    found, took = pauses(accepted, at), [ended - began for began, ended in at]
    print(
        f"{kind}, {len(at)} times: no decision accepted for {median(found):.2f} s at the median, "
        f"{max(found):.2f} s at most; all well again after {median(took):.1f} s; "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kill", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patroni", action="store_true")
    arguments = parser.parse_args()
    said = {"TOPBILL_REPLICAS": str(REPLICAS), "TOPBILL_WORKERS": str(WORKERS)}
    with ExitStack() as stack:
        patroni = stack.enter_context(Patroni()) if arguments.patroni else None
        if patroni is not None:
            said["TOPBILL_LOCAL_LOG"] = patroni.url
        form = stack.enter_context(LocalForm(said))
        form.run("up")
        # Also where it ends with an error.
        form.kept = True
        print(f"all of it is in {form.folder}: the servers' folders, the record, what was said")
        os.environ.update(form.environment())
        servers = patroni or LocalServers(form)
        problems = run(
            arguments.kill,
            arguments.times,
            60.0 * arguments.minutes,
            arguments.seed,
            form,
            servers,
        )
        form.kept = bool(problems)
    for problem in problems[:PROBLEMS_NAMED]:
        print("  ", problem[:1500])
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
