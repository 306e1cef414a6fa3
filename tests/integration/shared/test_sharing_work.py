"""Several workers over one log share the experiments between them, and what one of them held that
is gone, the others go on with.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from tests.conftest import ARTWORK, write
from tests.processes import topbill

from topbill import spec
from topbill.domain.errors import LogError
from topbill.domain.records import RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.log import Log
from topbill.log.orders import give_order
from topbill.log.postgres_leases import AdvisoryLeases
from topbill.worker.experiment_files import ExperimentFiles
from topbill.worker.work_share import WORKER, WorkShare, learning_lease

KEYS = [f"art-{number}" for number in range(7)]
LONGEST = 60.0
"""Seconds to wait for anything, on a machine that is busy."""


class Fleet:
    """Workers that hold experiments, and do nothing else."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._url, self._stack = url, stack
        self.workers: list[WorkShare] = []
        self._leases: list[AdvisoryLeases] = []

    def join(self) -> None:
        leases = AdvisoryLeases(self._url)
        self._stack.callback(leases.close)
        assert leases.take(WORKER, shared=True)
        self._leases.append(leases)
        self.workers.append(WorkShare(leases))

    def lose_connection(self) -> WorkShare:
        """Of the first worker."""
        lost = self.workers.pop(0)
        self._leases.pop(0)._database.close()
        return lost

    def held(self, keys: Sequence[str] = KEYS) -> list[frozenset[str]]:
        """Who holds what when all have looked some times."""
        for _ in range(4):
            for worker in self.workers:
                worker.look(keys)
        return [worker.held for worker in self.workers]


@pytest.fixture
def fleet(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """It looks whenever it is asked to."""
    monkeypatch.setattr("topbill.worker.work_share.LOOK_EVERY", 0.0)
    with ExitStack() as stack:
        yield Fleet(url, stack)


def test_workers_hold_every_experiment_once_and_give_the_next_one_its_share(fleet: Fleet) -> None:
    sizes = []
    for _ in range(4):
        before = [worker.held for worker in fleet.workers]
        fleet.join()
        after = fleet.held()
        assert sorted(key for held in after for key in held) == KEYS
        # Nothing changes hands but what the new one gets.
        assert all(was >= now for was, now in zip(before, after, strict=False))
        sizes.append([len(held) for held in after])
    assert sizes == [[7], [4, 3], [3, 2, 2], [2, 2, 2, 1]]


def test_who_holds_nothing_stands_by_for_what_comes_and_what_is_removed_is_given_back(
    fleet: Fleet,
) -> None:
    for _ in range(3):
        fleet.join()
    assert sorted(map(len, fleet.held(KEYS[:2]))) == [0, 1, 1]
    assert sorted(map(len, fleet.held(KEYS[2:5]))) == [1, 1, 1]


def test_what_a_lost_connection_held_is_taken_over_and_whoever_lost_it_is_told(
    fleet: Fleet,
) -> None:
    for _ in range(2):
        fleet.join()
    assert [len(held) for held in fleet.held()] == [4, 3]
    lost = fleet.lose_connection()
    # The server lets go of what a connection held a moment after that is gone.
    deadline = time.monotonic() + LONGEST
    while fleet.held() != [set(KEYS)]:
        assert time.monotonic() < deadline
    with pytest.raises(LogError, match=r"lost and 'worker', 'learn:art-.* another process may"):
        lost.look(KEYS)


def test_what_services_took_over_is_learned_though_the_files_here_are_others(
    log: Log, tmp_path: Path
) -> None:
    folder = write(tmp_path / "experiments")
    files = ExperimentFiles(folder, tmp_path / "data", log)
    (own,) = files.experiments
    assert not files.reload()
    shorter = ARTWORK.replace("  hour: {type: cycle, period: 24}\n", "")
    theirs = spec.load(write(tmp_path / "elsewhere", shorter) / "art.yaml")
    text = msgspec.json.encode(theirs.raw).decode()
    log.revise("art", theirs.fingerprint, "a service", text)
    assert files.reload()
    (running,) = files.experiments
    assert running.learning_fingerprint == theirs.learning_fingerprint
    assert running.learning_fingerprint != own.learning_fingerprint
    assert not files.reload()

    give_order(log, "art", "stopped", "me", "it harms")
    assert files.reload()
    assert [one.status for one in files.experiments] == ["stopped"]


# ---------------------------------------------------------------------- with real workers


class Workers:
    """Processes over seven experiments, which are decided in this one."""

    def __init__(self, folder: Path, log: Log) -> None:
        experiments = folder / "experiments"
        for key in KEYS:
            write(experiments, ARTWORK.replace("experiment: art", f"experiment: {key}"), key)
            (experiments / key).rename(experiments / f"{key}.yaml")
        self.data, self._experiments, self._log = folder / "data", experiments, log
        loaded = spec.load_all([experiments])
        for each in loaded:
            # As a service does that decides.
            text = msgspec.json.encode(each.raw).decode()
            log.revise(each.key, each.fingerprint, "tests", text)
        self._engine = Engine(loaded)
        self._count = 0
        self._said = folder / "said"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        line = [sys.executable, "-m", "topbill", "worker"]
        line += ["--experiments", str(self._experiments), "--data", str(self.data)]
        with self._said.open("ab") as said:
            self.processes.append(subprocess.Popen(line, stdout=said, stderr=said))

    def said(self) -> str:
        return self._said.read_text()

    def decide(self) -> None:
        """Once for each experiment, with a reward."""
        self._count += 1
        decisions, events = [], []
        for key in KEYS:
            decision_id = f"{key}-{self._count}"
            request = DecideRequest(experiment=key, unit=decision_id, decision_id=decision_id)
            decisions.append(self._engine.decide(request))
            events.append(RewardEvent(decision_id=decision_id, event_id="e", event="play"))
        self._log.append(decisions, events)

    def holders(self) -> dict[str, str]:
        """Who learns each experiment, as was said last."""
        duties = self._log.duties()
        return {key: duties[name].worker for key in KEYS if (name := learning_lease(key)) in duties}

    def wait(self, condition: object, what: str) -> None:
        """Decide until it holds."""
        deadline = time.monotonic() + LONGEST
        assert callable(condition)
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.holders()} {self.said()}"
            self.decide()
            time.sleep(0.1)

    def is_learned_by(self, processes: Sequence[subprocess.Popen[bytes]]) -> bool:
        """Whether each of these learns some of the experiments, and they learn all."""
        pids = {worker.rpartition(":")[2] for worker in self.holders().values()}
        return len(self.holders()) == len(KEYS) and pids == {str(p.pid) for p in processes}


@pytest.fixture
def workers(tmp_path: Path, log: Log) -> Iterator[Workers]:
    workers = Workers(tmp_path, log)
    yield workers
    for process in workers.processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_what_a_killed_worker_learned_and_published_the_other_one_goes_on_with(
    workers: Workers, log: Log
) -> None:
    for _ in range(2):
        workers.start()
    first, second = workers.processes
    workers.wait(lambda: workers.is_learned_by([first, second]), "both learn")
    workers.wait(lambda: set(log.versions()) == set(KEYS), "all are learned")
    workers.wait(lambda: "publish" in log.duties(), "one of them publishes")

    said = topbill("status", "--data", workers.data).stdout
    for worker in set(workers.holders().values()):
        own = [key for key, holder in workers.holders().items() if holder == worker]
        assert f"{worker} learns {', '.join(own)}." in said
    assert f"{log.duties()['publish'].worker} publishes." in said

    first.kill()
    before = log.versions()
    killed = time.monotonic()
    workers.wait(lambda: workers.is_learned_by([second]), "the other learns all")
    print(f"taken over after {time.monotonic() - killed:.2f} s")
    workers.wait(lambda: all(log.version(k) > before[k] for k in KEYS), "and goes on")
    published = log.now()
    workers.wait(lambda: (log.heartbeat() or (0, 0))[1] > published, "and publishes")

    second.send_signal(signal.SIGTERM)
    assert second.wait(LONGEST) == 0
    assert "Conflict" not in workers.said()
    assert "another worker is busy" not in workers.said()
    for key in KEYS:
        versions = [head.version for head in log.snapshot_heads(key)]
        assert versions == list(range(versions[0], 0, -1))
        verified = topbill("verify", key, "--data", workers.data)
        assert verified.returncode == 0, verified.stdout + verified.stderr
