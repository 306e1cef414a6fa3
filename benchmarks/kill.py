"""Kill -9 under mixed load: is what was acknowledged there, once, and as it was answered?

    python -m benchmarks.kill [--kills 1000] [--seed 1] [--folder DIR]

Two services and a worker share one data folder. Viewers decide (with ids of their own, without, and
in batches), ask for whole pages, send rewards and events, and repeat what they sent long ago; what
was not answered is sent again until it is. Meanwhile whatever runs on the folder is killed:

    service         one of both services, or both
    worker          which learns; alone, or with the services
    publisher       the process beside it
    compaction      the same while it merges and vacuums
    backup          `topbill backup`; what it leaves must restore, or be refused by name
    restore         `topbill restore`; what it leaves must be whole, or not be there
    erase           `topbill erase` of a viewer, beside the services; the viewer is gone when it is
                    repeated, from every file, and late rewards and retries do not bring them back
    retain          `topbill retain`, which removes what was stored longest ago, and nothing else
    migrate --down  back to 0.1.0's names, and
    migrate         forth again, by the verb or by whoever starts next
    up              `topbill up`, whose children must end with it

Publication, compaction and forgetting are sped up, so that kills hit them. Folders made of backups
and the folder itself are read in the end: of what was acknowledged nothing may be lost, doubled or
different, no erased viewer may be found, and `topbill verify` must exit with 0 for every
experiment: half-way, from the start of the log, and in the end, from the last erasure.

Says every fifteen seconds how far it is, and in the end, in one line, what was killed and
acknowledged and what came of it, then the problems; exits 1 where there is one.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import kill_record
from benchmarks.kill_processes import (
    FORKS,
    PRELOADED,
    Part,
    command,
    hasty_publisher,
    hasty_worker,
    old_id,
    publish_all,
    store_past,
)
from benchmarks.kill_viewers import Marks, Viewer, asked

from topbill.cli.supervise import free_port
from topbill.domain.errors import TopbillError
from topbill.log.tombstones import TOMBSTONES

EXAMPLES = Path(__file__).parents[1] / "experiments"
VIEWERS = 4
SHARES = {
    "service": 33,
    "worker": 13,
    "publisher": 10,
    "compaction": 10,
    "backup": 8,
    "restore": 6,
    "erase": 6,
    "retain": 4,
    "migrate --down": 4,
    "migrate": 4,
    "up": 2,
}
"""Of a hundred kills, so many of each kind."""
VERBS = ("backup", "restore", "erase", "retain", "migrate")
FIRST_GUESS = 0.5
"""Seconds that a verb takes, until one has ended by itself."""
BACKUPS_KEPT = 3
OLDEST, YOUNGEST = 90, 10
"""Days ago that old decisions were made, one a day."""
SAY_EVERY = 15.0
PROBLEMS_NAMED = 15
IN_ORDER = (0, -signal.SIGTERM)
"""How a process ends that was asked to: uvicorn raises the signal again when all is done."""
_ERASED = "erased, and found"
NOT_YET = "no policy version in the log yet"
"""Half-way an experiment may have learned nothing; in the end all have."""


class Backup(NamedTuple):
    """A moment, and what was acknowledged before it: a backup that began then has that much."""

    at: datetime
    marks: list[Marks]


class Campaign:
    """A data folder, the processes at work on it, the viewers, and what came of them."""

    def __init__(self, folder: Path, kills: int, seed: int) -> None:
        self.folder, self.data, self.backups = folder, folder / "data", folder / "backups"
        self.kills = kills
        self.killed: Counter[str] = Counter()
        self.problems: list[str] = []
        self.verified: dict[str, list[int]] = {}
        """The exit statuses of `topbill verify`, by experiment."""
        self.gone: set[str] = set()
        self.erased: set[str] = set()
        self._chance = random.Random(seed)
        self._started = self._last_said = time.monotonic()
        self._said_problems = 0
        self._seconds = dict.fromkeys(VERBS, FIRST_GUESS)
        self._began: list[Backup] = []
        self._kept_days = OLDEST
        # Below those that the system gives to clients: one that asks while nobody listens could be
        # given the very port, and be connected with itself.
        self._ports = [
            free_port("127.0.0.1", random.SystemRandom().randrange(start, start + 5_000))
            for start in (20_000, 25_000)
        ]
        self._compacts = FORKS.RawValue("b", 0)
        self._stop = threading.Event()
        self._viewers = [
            Viewer(number, self._ports, seed, self.gone, self._stop) for number in range(VIEWERS)
        ]
        places = ["--experiments", str(folder / "experiments"), "--data", str(self.data)]
        self._places = places
        self._services = [
            self._part(f"service-{port}", command, "serve", *places, "--port", str(port))
            for port in self._ports
        ]
        folders = (places[1], places[3])
        self._worker = self._part("worker", hasty_worker, *folders)
        self._publisher = self._part("publisher", hasty_publisher, self._compacts, *folders)

    @property
    def _parts(self) -> list[Part]:
        return [*self._services, self._worker, self._publisher]

    def _part(self, name: str, run: Callable[..., None], *arguments: Any) -> Part:
        return Part(self.folder / "said" / f"{name}.txt", run, *arguments)

    # ------------------------------------------------------------------ the whole of it

    def run(self) -> None:
        past = (self._places[1], self._places[3], OLDEST, YOUNGEST)
        self._finished("past", store_past, *past)
        self._start(self._parts)
        for viewer in self._viewers:
            viewer.start()
        self._wait_for_services()
        rounds = {
            "service": self.strike_services,
            "worker": self.strike_worker,
            "publisher": self.strike_publisher,
            "compaction": self.strike_compaction,
            "backup": self.strike_backup,
            "restore": self.strike_restore,
            "erase": self.strike_removals,
            "retain": self.strike_removals,
            "migrate --down": self.strike_migrations,
            "migrate": self.strike_migrations,
            "up": self.strike_migrations,
        }
        while target := self._next_target():
            rounds[target]()
            self._say()
        self._finish()

    def _next_target(self) -> str | None:
        """The kind of which most is left; None when there is none. The first half takes nothing
        away, so that it is verified from the start of the log.
        """
        is_second_half = self.killed.total() >= self.kills / 2
        if is_second_half and not self.verified:
            _until(partial(kill_record.is_published, self.data), "the worker publishes")
            self.verify(self.data)
        if self.killed.total() >= self.kills and all(self.killed[target] for target in SHARES):
            return None
        left = {}
        for target, share in SHARES.items():
            left[target] = max(0.0, max(1.0, share * self.kills / 100) - self.killed[target])
        if not is_second_half:
            left["erase"] = left["retain"] = 0.0
        if not any(left.values()):
            return "service"
        return self._chance.choices(list(left), list(left.values()))[0]

    def _finish(self) -> None:
        self._wait_for_services()
        time.sleep(min(10.0, self.kills / 20))  # what was not answered is asked again
        self._stop.set()
        for viewer in self._viewers:
            viewer.join(60)
            self.problems += viewer.ledger.problems
        time.sleep(min(5.0, self.kills / 20))  # the last of it matures
        for part in self._parts:
            if (status := part.end()) not in IN_ORDER:
                self.problems.append(f"{part.output.stem}: exit {status}: {part.said()}")
        self.problems += kill_record.problems_of(self.data, self._ledgers, None, self.gone)
        self._look_for_erased(self.data)
        self.verify(self.data)
        for output in sorted((self.folder / "said").iterdir()):
            text = output.read_text(errors="replace")
            if "Traceback" in text:
                self.problems.append(f"{output.stem}: {text[text.index('Traceback') :][:1500]}")

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        self._stop.set()
        for part in self._parts:
            part.strike()

    def verify(self, data: Path) -> None:
        """Exit 0 for every experiment?"""
        for key in kill_record.experiments(data):
            verb = self._verb("verify", key, "--data", str(data))
            verb.start()
            status = verb.wait(300)
            if not self._stop.is_set() and NOT_YET in verb.said():
                continue
            self.verified.setdefault(key, []).append(-1 if status is None else status)
            if status != 0:
                self.problems.append(f"verify {key}: exit {status}: {verb.said()}")

    def summary(self) -> str:
        """What was killed and acknowledged, and what came of it."""
        counts = self._counts()
        kills = ", ".join(f"{target} {self.killed[target]:,}" for target in SHARES)
        sort = Counter(problem.partition(":")[0].rpartition(" ")[2] for problem in self.problems)
        told = ", ".join(f"{sort[kind]:,} {kind}" for kind in ("lost", "doubled", "different"))
        found = sum(problem.startswith(_ERASED) for problem in self.problems)
        exits = ", ".join(
            f"{key} {'/'.join(map(str, statuses))}" for key, statuses in self.verified.items()
        )
        return (
            f"{self.killed.total():,} kills ({kills}); acknowledged: {_named(counts)}; {told}; "
            f"{found:,} of {len(self.erased):,} erased units found; verify exits {exits}; "
            f"{len(self.problems):,} problems in {time.monotonic() - self._started:,.0f} s"
        )

    def counts(self) -> Counter[str]:
        """What came of the requests that is not counted in the summary."""
        counts: Counter[str] = Counter()
        for ledger in self._ledgers:
            counts += ledger.counts
        return counts

    @property
    def _ledgers(self) -> list[Any]:
        return [viewer.ledger for viewer in self._viewers]

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for ledger in self._ledgers:
            counts["decisions"] += len(ledger.shown)
            counts["rewards"] += len(ledger.rewards)
            counts["events"] += len(ledger.events)
            counts["pages"] += ledger.counts["page"]
        return counts

    def _say(self) -> None:
        now = time.monotonic()
        for ledger in self._ledgers:
            while ledger.problems:
                self.problems.append(ledger.problems.pop(0))
        for problem in self.problems[self._said_problems :][:PROBLEMS_NAMED]:
            print("  ", problem[:1500], flush=True)
        self._said_problems = len(self.problems)
        if now - self._last_said < SAY_EVERY:
            return
        self._last_said = now
        done, passed = self.killed.total(), now - self._started
        to_go = max(0, self.kills - done) * passed / max(1, done)
        print(
            f"{done:,} of {self.kills:,} kills after {passed:,.0f} s, some {to_go:,.0f} s to go; "
            f"acknowledged: {_named(self._counts())}; {len(self.erased)} erased; "
            f"{len(self.problems)} problems",
            flush=True,
        )

    # ------------------------------------------------------------------ services and worker

    def strike_services(self) -> None:
        if self._chance.random() < 0.7:  # not only while they start
            self._wait_for_services()
        self._pause()
        first, second = self._services
        self._strike_and_start(self._chance.choices([[first], [second], [first, second]])[0])

    def strike_worker(self) -> None:
        self._pause()
        with_services = self._chance.random() < 0.2
        self._strike_and_start(self._parts if with_services else [self._worker])

    def strike_publisher(self) -> None:
        self._pause()
        self._strike_and_start([self._publisher])

    def strike_compaction(self) -> None:
        """Wait until it compacts, and some moments more."""
        deadline = time.monotonic() + 10
        while not self._compacts.value and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(self._chance.random() * self._chance.choice([0.02, 0.2]))
        self._strike_and_start([self._publisher])

    def _pause(self) -> None:
        time.sleep(self._chance.random() * self._chance.choice([0.2, 0.5, 1.0, 3.0]))

    def _strike_and_start(self, parts: Sequence[Part]) -> None:
        self._strike(parts)
        self._start(parts)

    def _strike(self, parts: Sequence[Part]) -> None:
        """Kill all of them before one is waited for."""
        for part in parts:
            names = {id(self._worker): "worker", id(self._publisher): "publisher"}
            name = names.get(id(part), "service")
            if part is self._publisher and self._compacts.value:
                name = "compaction"
            if part.strike():
                self.killed[name] += 1
            else:
                how = f"ended by itself with {part.wait()}"
                self.problems.append(f"{part.output.stem} {how}: {part.said()}")
        self._compacts.value = 0

    def _start(self, parts: Sequence[Part]) -> None:
        for part in parts:
            part.start()

    def _wait_for_services(self) -> None:
        for port in self._ports:
            _until(partial(_answers, port), f"the service at {port} is ready")

    # ------------------------------------------------------------------ verbs

    def _verb(self, *arguments: str) -> Part:
        return self._part(arguments[0], command, *arguments)

    def _strike_verb(self, *arguments: str, instead: Part | None = None) -> bool:
        """Start a verb and kill it, or another process beside it, at some moment of its work; True
        where it has done all its work by then or has been let do it.
        """
        verb, name = self._verb(*arguments), arguments[0]
        target = "migrate --down" if "--down" in arguments else name
        verb.start()
        _until(verb.has_begun, f"{name} begins", pause=0.001)
        begun = time.monotonic()
        time.sleep(self._chance.random() * self._seconds[name])
        if instead is not None:
            self._strike_and_start([instead])
        elif verb.strike():
            self.killed[target] += 1
            return False
        return self._is_done(verb, name, begun)

    def _complete(self, *arguments: str, exit_status: int = 0) -> Part:
        """Run a verb to its end."""
        verb, name = self._verb(*arguments), arguments[0]
        verb.start()
        _until(verb.has_begun, f"{name} begins", pause=0.001)
        self._is_done(verb, name, time.monotonic(), exit_status)
        return verb

    def _is_done(self, verb: Part, name: str, begun: float, exit_status: int = 0) -> bool:
        status = verb.wait(120)
        if status != exit_status:
            self.problems.append(f"{name}: exit {status}, expected {exit_status}: {verb.said()}")
            return False
        if name in self._seconds and not exit_status:
            self._seconds[name] = time.monotonic() - begun
        return True

    def _finished(self, name: str, run: Callable[..., None], *arguments: Any) -> bool:
        """Run something of ours to its end."""
        part = self._part(name, run, *arguments)
        part.start()
        return self._is_done(part, name, time.monotonic())

    # ------------------------------------------------------------------ backup and restore

    def strike_backup(self) -> None:
        """Backups are killed, or the worker beside them."""
        for _ in range(self._chance.choice([1, 2, 3])):
            self._note_begin()
            beside = self._worker if self._chance.random() < 0.25 else None
            self._strike_verb("backup", str(self.backups), *self._places[2:], instead=beside)
        unfinished = self.backups / ".unfinished"
        if unfinished.exists():
            where = str(self.folder / "refused")
            self._complete("restore", str(unfinished), "--data", where, exit_status=1)
            if Path(where).exists():
                self.problems.append("restore: made a folder of half a backup")

    def _note_begin(self) -> None:
        marks = [ledger.marks() for ledger in self._ledgers]
        self._began.append(Backup(datetime.now(UTC), marks))
        time.sleep(0.001)

    def strike_restore(self) -> None:
        self._note_begin()
        newest = self._began[-1]
        self._complete("backup", str(self.backups), *self._places[2:])
        self._forget_old_backups()
        restored = self.folder / "restored"
        arguments = [str(self.backups), "--data", str(restored), *self._places[:2]]
        if (self.data / TOMBSTONES).exists():
            arguments += ["--tombstones", str(self.data / TOMBSTONES)]
        if self._chance.random() < 0.3:
            arguments += ["--at", newest.at.isoformat()]
        for _ in range(self._chance.choice([1, 2, 3])):
            if self._strike_verb("restore", *arguments):
                shutil.rmtree(restored)
            elif restored.exists():
                break
        self._complete_restore(restored, arguments)
        self._look_into(restored, newest)
        shutil.rmtree(restored, ignore_errors=True)

    def _complete_restore(self, restored: Path, arguments: list[str]) -> None:
        if not restored.exists():
            self._complete("restore", *arguments)
        elif "--tombstones" in arguments:
            # Killed after the folder was made, and before everybody was erased again.
            where = arguments[arguments.index("--tombstones") :][:2]
            self._complete("erase", *where, "--data", str(restored), *self._places[:2])

    def _look_into(self, restored: Path, backup: Backup) -> None:
        """Is all that was acknowledged before the backup in a folder that was made of it?"""
        if not self._finished("publish", publish_all, str(restored)):
            return
        found = kill_record.problems_of(restored, self._ledgers, backup.marks, self.gone)
        self.problems += [f"restored: {problem}" for problem in found]
        self._look_for_erased(restored)

    def _forget_old_backups(self) -> None:
        for old in sorted(self.backups.glob("*Z"))[:-BACKUPS_KEPT]:
            shutil.rmtree(old)

    # ------------------------------------------------------------------ erase

    def strike_removals(self) -> None:
        """A viewer goes, and the oldest day; services go on. Afterwards they are started anew."""
        decided = {
            unit: decision_id
            for ledger in self._ledgers
            for decision_id, unit in list(ledger.unit_of.items())
            if decision_id in ledger.keyed and unit not in self.gone
        }
        if not decided:
            return self.strike_services()
        unit = self._chance.choice(sorted(decided))
        self.gone.add(unit)
        _until(lambda: all(viewer.busy != unit for viewer in self._viewers), f"{unit} is gone")
        self._strike([self._worker, self._publisher])
        self._remove_old_copies()
        self._struck_and_complete("erase", "--unit", unit, *self._places)
        self.erased.add(unit)
        self._look_for_erased(self.data)
        self._strike(self._services)
        self._start(self._services)
        self._strike_retain()
        self._start([self._worker, self._publisher])
        self._wait_for_services()
        self._come_back(unit, decided[unit])
        return None

    def _struck_and_complete(self, *arguments: str) -> None:
        """Kill a verb some times, and let it do all its work in the end."""
        for _ in range(self._chance.choice([1, 2, 3])):
            if self._strike_verb(*arguments):
                break
        self._complete(*arguments)

    def _remove_old_copies(self) -> None:
        for copy in self.data.glob("backup-*"):
            shutil.rmtree(copy)

    def _look_for_erased(self, data: Path) -> None:
        for unit in sorted(self.erased & kill_record.units_in(data)):
            self.problems.append(f"{_ERASED}: {unit} in {data.name}")

    def _come_back(self, unit: str, decision_id: str) -> None:
        """What comes late of one who was erased is answered so, and not stored."""
        (request,) = [
            ledger.keyed[decision_id] for ledger in self._ledgers if decision_id in ledger.keyed
        ]
        reward = {"decision_id": decision_id, "event": "play", "event_id": "late"}
        event = {"unit": unit, "unit_type": "profile_id", "event": "session_start"}
        event |= {"event_id": "late", "at": "2026-01-01T00:00:00Z"}
        expected = {
            "/v1/reward": (reward, "unknown_decision"),
            "/v1/decide": (request, "already_decided"),
            "/v1/event": (event, "erased"),
        }
        for path, (body, word) in expected.items():
            port = self._chance.choice(self._ports)
            with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
                _, content = asked(connection, path, body)
            if word not in content.decode():
                self.problems.append(f"{_ERASED}: {path} {body}: {content!r}, expected {word}")

    def _strike_retain(self) -> None:
        """One day more is old enough to go."""
        self._kept_days = max(YOUNGEST, self._kept_days - 1)
        self._struck_and_complete("retain", "--keep", f"{self._kept_days}d", *self._places)
        kept = {old_id(days) for days in range(YOUNGEST, self._kept_days + 1)}
        wrong = kept ^ kill_record.old_decisions(self.data)
        # By whole days: it depends on midnight whether the first one is there.
        if wrong - {old_id(self._kept_days)}:
            self.problems.append(f"retain: {sorted(wrong)} of the last {self._kept_days} days")

    # ------------------------------------------------------------------ migrations and up

    def strike_migrations(self) -> None:
        """Down and up again, each killed and repeated, with nothing else at work; in the end by the
        verb, or by who starts: `up`, which is killed too, or the parts.
        """
        self._strike(self._parts)
        for direction in (["--down"], []):
            for _ in range(self._chance.choice([1, 2, 3])):
                if self._strike_verb("migrate", *self._places[2:], *direction):
                    break
            if self._chance.random() < 0.6:
                self._complete("migrate", *self._places[2:], *direction)
        if self.killed["up"] < SHARES["up"] * self.kills / 100:
            self._strike_up()
        self._start(self._parts)
        self._wait_for_services()
        self._remove_old_copies()

    def _strike_up(self) -> None:
        line = [sys.executable, "-m", "topbill", "up", *self._places]
        line += ["--port", str(self._ports[0])]
        with (self.folder / "said" / "up.txt").open("a") as said:
            up = subprocess.Popen(line, stdout=said, stderr=said, process_group=0)
        with up:
            time.sleep(1 + 9 * self._chance.random())
            up.kill()
        self.killed["up"] += 1
        _until(lambda: free_port("127.0.0.1", self._ports[0]) == self._ports[0], "port free")
        _until(partial(_has_no_command, self.data), "the children of up ended with it")


def _named(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


def _until(holds: Callable[[], bool], what: str, pause: float = 0.05) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after two minutes: {what}")
        time.sleep(pause)


def _answers(port: int) -> bool:
    with suppress(OSError), closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    return False


def _has_no_command(data: Path) -> bool:
    """Whether no command line of any process names the folder; forks have none of their own."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(data).encode() in path.read_bytes().split(b"\0"):
                return False
    return True


def run(folder: Path, *, kills: int, seed: int) -> Campaign:
    """Everything in `folder`, which is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLES, folder / "experiments")
    (folder / "said").mkdir()
    FORKS.set_forkserver_preload(PRELOADED)
    campaign = Campaign(folder, kills, seed)
    try:
        campaign.run()
    except (OSError, TopbillError, TimeoutError) as error:
        campaign.problems.append(f"it ended: {error}")
    finally:
        campaign.end()
    return campaign


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="emptied, and kept; default: a temporary one")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-"))
    campaign = run(folder, kills=options.kills, seed=options.seed)
    for name, count in sorted(campaign.counts().items()):
        print(f"{count:>9,}  {name}")
    print(campaign.summary())
    for problem in campaign.problems[:PROBLEMS_NAMED]:
        print("  ", problem[:1500])
    if campaign.problems:
        print(f"see {folder}")
    elif options.folder is None:
        shutil.rmtree(folder)
    sys.exit(bool(campaign.problems))


if __name__ == "__main__":
    main()
