"""The worker's loop: what is wrong with a file or an experiment is published, and nothing stops the
loop.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from topbill.domain.errors import LogError
from topbill.domain.records import RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.lake import DATABASE, Problem, sql
from topbill.log import open_log
from topbill.reporting import load
from topbill.reporting.queries.database import experiments, problems
from topbill.spec import load_all
from topbill.worker.loop import Worker, run_worker


@pytest.fixture
def signals() -> Iterator[None]:
    """What the test's process did with signals, it does again afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def worker(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker that publishes with every step."""
    monkeypatch.setattr("topbill.worker.publishing.PUBLISH_EVERY", 0.0)
    worker = Worker(folder, tmp_path / "data")
    yield worker
    worker.finish()


def test_a_refused_edit_is_published_until_it_is_mended(
    worker: Worker, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, data = folder / "art.yaml", tmp_path / "data"
    text = file.read_text()
    worker.step()
    assert problems(data) == []
    file.write_text(text + "slotz: 2\n")
    for _ in range(3):
        worker.step()
    (found,) = problems(data)
    line = text.count("\n") + 1
    assert (found.kind, found.subject, found.path) == ("file", f"art.yaml:{line}", "slotz")
    assert "did you mean slots?" in found.message
    assert caplog.text.count("slotz") == 1  # said once
    assert [line.slots for line in experiments(data)] == [1]
    file.write_text(text + "slots: 2\n")
    worker.step()
    assert problems(data) == []
    assert [line.slots for line in experiments(data)] == [2]


@pytest.mark.parametrize(("is_alone", "begun"), [(True, [0, 2, 4, 6, 8]), (False, [0, 3, 6, 9])])
def test_a_publication_begins_two_seconds_after_the_last_unless_others_need_their_turn(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, is_alone: bool, begun: list[int]
) -> None:
    publishing, now, times = worker._publishing, 0.0, list[float]()

    def publish() -> int:
        nonlocal now
        times.append(now)
        now += 1.0
        return 0

    clock = SimpleNamespace(monotonic=lambda: now, time_ns=time.time_ns, time=time.time)
    monkeypatch.setattr("topbill.worker.publishing.time", clock)
    monkeypatch.setattr("topbill.worker.publishing.PUBLISH_EVERY", 2.0)
    monkeypatch.setattr(publishing.publisher, "step", publish)
    while now < 10.0:
        (publishing.step_alone if is_alone else publishing.step)()
        now += 0.5
    assert [int(at) for at in times] == begun


def test_a_page_file_that_is_wrong_is_published_too(
    worker: Worker, folder: Path, tmp_path: Path
) -> None:
    (folder / "pages").mkdir()
    (folder / "pages" / "home.yaml").write_text("page: home\n")
    worker.step()
    assert {found.subject for found in problems(tmp_path / "data")} == {"home.yaml:1"}


def test_an_experiment_that_cannot_learn_is_published(worker: Worker, tmp_path: Path) -> None:
    worker.learner.failures.failed("art", ValueError("of no kind of ours"))
    worker.step()
    assert problems(tmp_path / "data") == [
        Problem("learning", "art", "", "ValueError: of no kind of ours")
    ]


@pytest.mark.usefixtures("signals")
def test_nothing_that_goes_wrong_in_a_step_ends_the_loop_and_each_is_said_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = iter(
        [*3 * [LogError("disk full")], *2 * [ValueError("a defect")], None, LogError("disk full")]
    )

    def step(_worker: Worker) -> bool:
        outcome = next(outcomes, "end")
        if outcome == "end":
            signal.raise_signal(signal.SIGTERM)
        elif isinstance(outcome, Exception):
            raise outcome
        return True

    monkeypatch.setattr(Worker, "step", step)
    monkeypatch.setattr("topbill.worker.loop._PAUSE", 0.0)
    run_worker(folder, tmp_path / "data")
    assert caplog.messages == [
        f"{text}; trying again" for text in ("disk full", "a defect", "disk full")
    ]
    assert [bool(record.exc_info) for record in caplog.records] == [False, True, False]
    assert (tmp_path / "data" / "topbill.duckdb").exists()


def test_a_worker_does_not_touch_a_data_folder_that_was_put_in_the_place_of_its_own(
    worker: Worker, tmp_path: Path
) -> None:
    worker.step()
    data = tmp_path / "data"
    aside = data.rename(tmp_path / "aside")
    data.mkdir()
    with pytest.raises(LogError, match="deleted, moved or replaced"):
        worker.step()
    assert list(data.iterdir()) == []
    data.rmdir()
    aside.rename(data)
    worker.step()


def test_a_worker_that_ends_leaves_such_a_folder_alone_too_and_lets_go_of_its_log(
    folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    worker = Worker(folder, data)
    worker.step()
    data.rename(tmp_path / "aside")
    data.mkdir()
    with pytest.raises(LogError, match="deleted, moved or replaced"):
        worker.finish()
    assert list(data.iterdir()) == []


def test_an_experiment_whose_file_was_removed_is_still_reported(
    worker: Worker, folder: Path, tmp_path: Path
) -> None:
    data, file = tmp_path / "data", folder / "art.yaml"
    text = file.read_text()
    (folder / "other.yaml").write_text(text.replace("experiment: art", "experiment: other"))
    (folder / "unseen.yaml").write_text(text.replace("experiment: art", "experiment: unseen"))
    worker.step()
    log = open_log(data / "log.sqlite")
    for experiment in load_all([folder]):
        log.revise(
            experiment.key,
            experiment.fingerprint,
            "tests",
            msgspec.json.encode(experiment.raw).decode(),
        )
    decided = [
        Engine(load_all([folder])).decide(DecideRequest(experiment="art", unit=f"u{i}"))
        for i in range(50)
    ]
    log.append(
        decided, [RewardEvent(decision_id=decided[0].decision_id, event_id="e", event="play")]
    )
    log.close()
    file.unlink()
    (folder / "unseen.yaml").unlink()
    worker.step()
    assert [(line.key, line.status) for line in experiments(data)] == [
        ("other", "running"),
        ("art", "removed"),
    ]
    report = load("art", data)
    assert (report.status, report.decisions, report.health.reward_events) == ("removed", 50, 1)
    assert report.ab is not None
    (row,) = sql(
        data / DATABASE,
        "SELECT count(*) n, sum(objective) o FROM feedback WHERE experiment = 'art'",
    ).to_pylist()
    assert (row["n"], row["o"] > 0.0) == (50, True)
    file.write_text(text)
    worker.step()
    assert {line.key: line.status for line in experiments(data)} == {
        "art": "running",
        "other": "running",
    }
