"""An erased unit is in no file of the data folder any more, the others are as they were, and the
policies can still be verified.
"""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from copy import copy
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from topbill import backup, spec
from topbill.cli import erasure as erasure_cli
from topbill.domain.decision import reward_rows
from topbill.domain.errors import BadRequest, LogError, NotFound, TopbillError
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, QuarantinedRow, RewardEvent, UnitEvent
from topbill.engine import DecideRequest, Engine
from topbill.lake import DATABASE, Lake, find_decisions, sql
from topbill.log import LOG_FILE, Log, now_micros, open_log
from topbill.log.tombstones import TOMBSTONES, read_tombstones
from topbill.policies.linear import prior
from topbill.spec import Experiment
from topbill.worker import archive
from topbill.worker.erasure import erase_again, erase_unit, find_unit, unit_data
from topbill.worker.learner import Learner
from topbill.worker.only_worker import only_worker
from topbill.worker.publisher import Publisher
from topbill.worker.verification import verify

from ...processes import python
from ...traces import traces

SECOND = 1_000_000
MARK = "zq4711qz"
"""Written the same however text is escaped."""
VIEWER = f"o'brien \\ {MARK}"
OWN = {f"d{i}" for i in range(0, 120, 5)}
FILE = """
experiment: art
surface: artwork
unit: profile_id
actions: [{id: face}, {id: chase}]
metrics: {play: {event: play, kind: binary, window: 60s}}
objective: {play: 1.0}
reward_delay: 1s
variants:
  control: {policy: uniform, share: 50%, control: true}
  ours: {policy: linucb, share: 50%, min_probability: 5%}
"""


class World:
    """A data folder in which every fifth decision was the viewer's: some in the lake alone, some in
    the log too, and the last ones in the journal. The log is in the folder, or at a URL.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        self.url = url
        self.file = folder / "art.yaml"
        self.file.write_text(FILE)
        self.art: Experiment = spec.load(self.file)
        self.data = folder / "data"
        self.now = now_micros() - 3_600 * SECOND
        self.log: Log = open_log(self.place, clock=lambda: self.now)
        self.log.revise("art", "r1", "us", msgspec.json.encode(self.art.raw).decode())
        for start in (0, 40):
            self.live_through(start)
            learner = Learner(self.log, [self.art])
            while learner.step():
                pass
            Publisher(self.log, Lake(self.data), lambda: [self.art], keep_log=60.0).step()
            self.now += 300 * SECOND
        self.live_through(80)
        self.log.set_aside(
            [QuarantinedRow("event", "read", "", "e", VIEWER, 9, f"{VIEWER!r}: odd", b"")]
        )
        (self.data / "answers").mkdir()
        (self.data / "answers" / "1.answer").write_text(VIEWER)
        (self.data / "sums" / "1" / "units").mkdir(parents=True)
        kept = self.data / "sums" / "1" / "units" / "2026-03-02-1-1.parquet"
        pq.write_table(pa.table({"unit": [VIEWER]}), kept)
        self.log.close()

    @property
    def place(self) -> str | Path:
        return self.url or self.data / LOG_FILE

    def live_through(self, start: int) -> None:
        deciding = Engine([self.art])
        for i in range(start, start + 40):
            unit = VIEWER if i % 5 == 0 else f"u{i}"
            request = DecideRequest(experiment="art", unit=unit, decision_id=f"d{i}")
            event = UnitEvent(
                unit=unit, unit_type="profile_id", event_id=f"e{i}", event="session_start"
            )
            self.log.append([deciding.decide(request)], [], [event])
            if i % 2 == 0:
                play = RewardEvent(decision_id=f"d{i}", event_id="e", event="play")
                self.log.append([], [play])
            self.now += SECOND // 10
        self.now += 10 * SECOND

    def erase(self) -> None:
        erase_unit(self.data, VIEWER, experiments=lambda: [self.art])

    def count(self, what: str) -> int:
        query = f"SELECT count(*) AS n FROM {what}"  # noqa: S608 (a test's own)
        return int(sql(self.data / DATABASE, query).to_pylist()[0]["n"])

    def is_verified(self) -> bool:
        with closing(open_log(self.place)) as log:
            return verify(log, self.art, archive.reader(self.data)).same


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(tmp_path: Path, lived: World) -> World:
    """A copy of its own for each test."""
    world = copy(lived)
    world.data = tmp_path / "data"
    shutil.copytree(lived.data, world.data)
    return world


def holders(data: Path) -> Iterator[str]:
    """Every place that holds the viewer."""
    return traces(data, MARK)


def test_the_search_finds_a_viewer_in_every_kind_of_file(world: World) -> None:
    # A merge's commit names the smallest and the largest unit of each file.
    Lake(world.data).compact()
    found = "\n".join(holders(world.data))
    for kind in ("log.sqlite:", "log.journal:", ".parquet: columns", ".answer:"):
        assert kind in found
    assert re.search(r"\b0{15}\d{5}\.json: ", found)


def test_no_file_holds_an_erased_unit_and_reports_add_up(world: World) -> None:
    with closing(open_log(world.data / LOG_FILE)) as log:
        Publisher(log, Lake(world.data), lambda: [world.art]).publish()
    before = {name: world.count(name) for name in ("decisions", "rewards", "events")}
    assert before == {"decisions": 120, "rewards": 60, "events": 120}
    rows = find_unit(world.data, VIEWER)
    assert (len(rows.decisions), len(rows.rewards), len(rows.events)) == (24, 12, 24)
    assert rows.by_experiment() == {"art": (24, 12)}
    assert len(rows.quarantined) == 1
    world.erase()
    assert list(holders(world.data)) == []
    assert {name: world.count(name) for name in before} == {
        "decisions": 96,
        "rewards": 48,
        "events": 96,
    }
    assert Lake(world.data).damage() == []


def test_what_was_learned_stays_and_is_verified_from_the_checkpoint(world: World) -> None:
    assert world.is_verified()
    world.erase()
    with closing(open_log(world.data / LOG_FILE)) as log:
        verification = verify(log, world.art, archive.reader(world.data))
        assert verification.same
        assert verification.erasure is not None
        assert (verification.erasure.version, verification.erasure.decisions) == (2, 24)
        # Learning goes on from there, and is verified through later versions too.
        learner = Learner(log, [world.art])
        while learner.step():
            pass
        assert log.version("art") == 3
        log.forget_snapshots(now_micros() + 10 * SECOND)
        assert log.snapshot("art", 2) is not None
        later = verify(log, world.art, archive.reader(world.data))
        assert later.same
        assert later.snapshot.version == 3
        # Publishing and tidying up go on as well.
        worker = Publisher(log, Lake(world.data), lambda: [world.art])
        worker.step()
        assert Lake(world.data).compact() >= 0
        assert Lake(world.data).vacuum() >= 0


def test_late_rewards_and_retries_do_not_bring_it_back(world: World) -> None:
    world.erase()
    with closing(open_log(world.data / LOG_FILE)) as log:
        for decision_id in ("d0", "d40", "d80"):
            assert log.decision(decision_id) is None
            # What the service asks of a late reward's decision: then it answers unknown_decision.
            assert find_decisions(world.data, log.places([decision_id])) == {}
        log.append([], [RewardEvent(decision_id="d80", event_id="late", event="play")])
        Publisher(log, Lake(world.data), lambda: [world.art]).publish()
    assert list(holders(world.data)) == []
    assert world.count("rewards WHERE unit IS NOT NULL") == 48


KILLED = """
import os, signal, sys
from importlib import import_module
from pathlib import Path
from topbill import spec
from topbill.log.tombstones import read_tombstones
from topbill.worker import erasure

module, _, name = sys.argv[1].partition(":")
owner = import_module(module)
while "." in name:
    part, _, name = name.partition(".")
    owner = getattr(owner, part)
whole, left = getattr(owner, name), int(sys.argv[2])

def killed(*arguments, **named):
    global left
    result = whole(*arguments, **named)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, killed)
data, files = Path(sys.argv[3]), lambda: spec.load_all([Path(sys.argv[4])])
if sys.argv[5]:
    erasure.erase_unit(data, sys.argv[5], experiments=files)
else:
    erasure.erase_again(data, read_tombstones(Path(sys.argv[6])), files)
"""


def kill_after(world: World, step: str, unit: str, tombstones: Path = Path()) -> None:
    """Kill -9 for a process that erases, at the end of the given call of a function."""
    where, _, call = step.partition("#")
    done = python(KILLED, where, call or "1", world.data, world.file, unit, tombstones)
    assert done.returncode == -signal.SIGKILL


STEPS = (
    "topbill.worker.erasure:erase_from_log",
    "topbill.lake.erasing:_delete",
    pytest.param("topbill.lake.erasing:_delete#2", marks=pytest.mark.slow),
    pytest.param("topbill.worker.erasure:erase_from_lake", marks=pytest.mark.slow),
    pytest.param("topbill.lake.erasing:_take_history_away", marks=pytest.mark.slow),
    "topbill.worker.erasure:take_history_away",
    pytest.param("topbill.worker.erasure:Publisher.publish", marks=pytest.mark.slow),
    pytest.param("topbill.worker.erasure:Lake.seal", marks=pytest.mark.slow),
    "topbill.worker.erasure:wipe_log",
    pytest.param("topbill.worker.erasure:add_tombstones", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_it_ends_clean_when_run_again(world: World, step: str) -> None:
    kill_after(world, step, VIEWER)
    world.erase()
    assert list(holders(world.data)) == []
    assert {name: world.count(name) for name in ("decisions", "rewards", "events")} == {
        "decisions": 96,
        "rewards": 48,
        "events": 96,
    }
    assert world.is_verified()
    assert len(read_tombstones(world.data / TOMBSTONES)) == 1


def test_only_units_of_the_named_type_go(world: World) -> None:
    rows = find_unit(world.data, VIEWER, "account_id")
    assert (rows.decisions, rows.rewards, rows.events) == ({}, {}, set())
    rows = find_unit(world.data, VIEWER, "profile_id")
    assert (len(rows.decisions), len(rows.events)) == (24, 24)


def test_all_that_is_stored_of_a_unit_can_be_given_out(world: World) -> None:
    stored = unit_data(world.data, VIEWER)
    assert {row["unit"] for row in stored["decisions"]} == {VIEWER}
    assert {row["decision_id"] for row in stored["decisions"]} == {
        f"d{i}" for i in range(0, 120, 5)
    }
    assert len(stored["rewards"]) == 12
    assert {row["event_id"] for row in stored["events"]} == {f"e{i}" for i in range(0, 120, 5)}
    assert [row["reason"] for row in stored["quarantined"]] == [f"{VIEWER!r}: odd"]
    msgspec.json.encode(stored)
    world.erase()
    stored = unit_data(world.data, VIEWER)
    for rows in ("decisions", "rewards", "events", "quarantined"):
        assert stored[rows] == []


def test_what_is_given_out_is_row_by_row_what_would_be_erased(world: World) -> None:
    # A reward that was published before its decision was known has no unit in the lake.
    reward = RewardEvent(decision_id="d40", event_id="odd", event="play", received_at=world.now)
    orphan = reward_rows([(10_000, reward, Origin(decided_at=world.now))])
    Lake(world.data).append("rewards", orphan, 10_000)
    for unit_type in (None, "profile_id", "account_id"):
        counted = find_unit(world.data, VIEWER, unit_type)
        stored = unit_data(world.data, VIEWER, unit_type)
        assert {row["decision_id"] for row in stored["decisions"]} == set(counted.decisions)
        rewards = {(row["decision_id"], row["event_id"]) for row in stored["rewards"]}
        assert rewards == set(counted.rewards)
        events = {(row["unit_type"], row["unit"], row["event_id"]) for row in stored["events"]}
        assert events == counted.events
        assert len(stored["quarantined"]) == len(counted.quarantined)
    assert ("d40", "odd") in find_unit(world.data, VIEWER).rewards


def test_beside_a_worker_or_old_copies_nothing_is_erased(world: World) -> None:
    with only_worker(world.data), pytest.raises(TopbillError, match="another worker"):
        world.erase()
    (world.data / "log.journal.damaged-1").write_text(VIEWER)
    (world.data / "backup-20261129T101500.000000").mkdir()
    (world.data / "backup-20261129T101500.000000" / "some.parquet").write_text(VIEWER)
    with pytest.raises(BadRequest, match=r"copy of old data.* 1 others.*--drop-backups"):
        world.erase()
    assert len(find_unit(world.data, VIEWER).decisions) == 24
    erase_unit(world.data, VIEWER, experiments=lambda: [world.art], drop_backups=True)
    assert list(holders(world.data)) == []


def test_one_who_comes_back_is_a_new_viewer(world: World) -> None:
    world.erase()
    with closing(open_log(world.data / LOG_FILE)) as log:
        deciding = Engine([world.art])
        request = DecideRequest(experiment="art", unit=VIEWER, decision_id="new")
        log.append([deciding.decide(request)])
        decision = log.decision("new")
    assert isinstance(decision, Decision)
    assert list(find_unit(world.data, VIEWER).decisions) == ["new"]


def test_what_is_restored_from_before_is_erased_again(world: World, tmp_path: Path) -> None:
    older = backup.back_up(world.data, tmp_path / "backups")
    world.erase()
    newer = backup.back_up(world.data, tmp_path / "backups")
    assert list(holders(newer)) == []
    backup.restore(older, tmp_path / "back")
    assert len(find_unit(tmp_path / "back", VIEWER).decisions) == 24
    known = backup.known_tombstones(tmp_path / "backups")
    assert erase_again(tmp_path / "back", known, lambda: [world.art]) == 1
    assert list(holders(tmp_path / "back")) == []
    # What came after an erasure is another viewer's: nothing is erased twice.
    assert erase_again(tmp_path / "back", known) == 0


def test_erased_again_after_a_kill_it_ends_clean(world: World, tmp_path: Path) -> None:
    restored = copy(world)
    restored.data = tmp_path / "back"
    shutil.copytree(world.data, restored.data)
    world.erase()
    tombstones = world.data / TOMBSTONES
    kill_after(restored, "topbill.worker.erasure:Lake.seal", "", tombstones)
    assert list(holders(restored.data)) != []
    known = read_tombstones(tombstones)
    assert erase_again(restored.data, known) == 0
    assert list(holders(restored.data)) == []


def test_a_service_goes_on_beside_it(world: World) -> None:
    deciding = Engine([world.art])
    with closing(open_log(world.data / LOG_FILE)) as service:
        assert service.decision("d80") is not None
        world.erase()
        service.check()
        assert service.decision("d80") is None
        request = DecideRequest(experiment="art", unit="another", decision_id="next")
        service.append([deciding.decide(request)])
        assert service.decision("next") is not None
    assert list(holders(world.data)) == []


def test_while_another_process_reads_the_log_its_wal_is_not_said_to_be_clean(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As SQLite would wait, for less long than thirty seconds.
    whole = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda path, **options: whole(path, **{**options, "timeout": 0.1})
    )
    with closing(open_log(world.data / LOG_FILE)) as log:
        log.barrier()
    with closing(whole(world.data / LOG_FILE, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM decisions").fetchall()
        with pytest.raises(LogError, match="another process reads from it"):
            world.erase()
    world.erase()
    assert list(holders(world.data)) == []


def test_the_commands_say_what_is_there_and_what_went(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    erasure_cli.erase(unit=VIEWER, dry_run=True, data=world.data)
    counts = "24 decisions, 12 rewards, 24 events and 1 rows set aside"
    assert f"has {counts}" in capsys.readouterr().out
    erasure_cli.unit(VIEWER, data=world.data)
    assert len(msgspec.json.decode(capsys.readouterr().out)["decisions"]) == 24
    with pytest.raises(BadRequest, match="expected --unit, or --tombstones alone"):
        erasure_cli.erase(unit=VIEWER, tombstones=tmp_path / "some", data=world.data)
    with pytest.raises(NotFound, match="no such file"):
        erasure_cli.erase(tombstones=tmp_path / "none", data=world.data)
    erasure_cli.erase(unit=VIEWER, experiments=world.file.parent, data=world.data)
    said = capsys.readouterr().out
    assert f"erased {counts}" in said
    assert "art: 24 decisions and 12 rewards; its policies keep what they learned" in said
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(LogError, match=r"expected the tombstones\.jsonl"):
        erasure_cli.erase(tombstones=tmp_path / "bad.jsonl", data=world.data)


@pytest.mark.parametrize(
    "starts", ["start_from: {log: art, until: 'AT'}", "prior: {from: [art], until: 'AT'}"]
)
def test_who_started_from_what_was_erased_is_verified_from_before(
    world: World, tmp_path: Path, starts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it started from can't be read again: the version that stood then is where it begins."""
    # Its two actions tell something here.
    monkeypatch.setattr(prior, "LEAST_FREEDOM", 1)
    at = datetime.fromtimestamp(now_micros() / 1e6 - 60.0, UTC).isoformat()
    text = world.file.read_text().replace("experiment: art", "experiment: new")
    path = tmp_path / "new.yaml"
    path.write_text(text.replace("policy: linucb", f"policy: linucb, {starts.replace('AT', at)}"))
    new = spec.load(path)
    reader = archive.reader(world.data)
    with closing(open_log(world.place)) as log:
        learner = Learner(log, [world.art, new], reader)
        while learner.step():
            pass
        before = log.snapshot("new")
        assert before is not None
        plain = verify(log, new, reader)
        assert plain.same
        assert plain.erasure is None
    erase_unit(world.data, VIEWER, experiments=lambda: [world.art, new])
    with closing(open_log(world.place)) as log:
        verification = verify(log, new, reader)
        assert verification.same
        assert verification.erasure is not None
        assert verification.erasure.version == before.version
        assert verification.states == before.states
