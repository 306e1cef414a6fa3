"""Whoever wants an experiment to stop gets it stopped: without its file, beside broken ones, and by
taking the last file away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from topbill.domain.errors import NotFound
from topbill.engine import Engine
from topbill.launch import unit_assignment
from topbill.log import Log, open_log
from topbill.log.orders import give_order
from topbill.service.app import create_app
from topbill.service.follower import Follower
from topbill.service.settings import Settings
from topbill.worker.loop import Worker

from ...conftest import ARTWORK, write
from ...processes import topbill


@pytest.fixture
def engine(settings: Settings) -> Engine:
    return create_app(settings).engine


@pytest.fixture
def follower(settings: Settings, engine: Engine) -> Iterator[Follower]:
    """One that took the files over."""
    with closing(Follower(settings, engine)) as follower:
        follower.step()
        yield follower


@pytest.fixture
def log(settings: Settings, follower: Follower) -> Iterator[Log]:
    with closing(open_log(settings.log_path)) as log:
        yield log


def status(engine: Engine) -> str:
    return engine.find("art").experiment.status


def test_an_order_outranks_the_file_until_it_changes(
    folder: Path, engine: Engine, follower: Follower, log: Log
) -> None:
    file = engine.find("art").revision
    order = give_order(log, "art", "stopped", "ann", "guardrail broken")
    follower.step()
    assert status(engine) == "stopped"
    assert engine.find("art").revision == order.made != file
    assert [line.revision for line in log.revisions("art")] == [file, order.made]
    assert log.revisions("art")[-1].who == "ann"

    write(folder, ARTWORK + "title: The same again\n")
    follower.step()
    assert status(engine) == "running"


def test_orders_follow_each_other_and_end_where_the_file_is_given_back(
    engine: Engine, follower: Follower, log: Log
) -> None:
    for wanted, seen in (("paused", "paused"), ("stopped", "stopped"), (None, "running")):
        give_order(log, "art", wanted, "ann", "")  # type: ignore[arg-type]
        follower.step()
        assert status(engine) == seen
    assert {order.revision for order in log.orders()} == {log.revisions("art")[0].revision}


def test_a_new_process_and_the_worker_obey_what_was_ordered_before(
    settings: Settings, folder: Path, engine: Engine, log: Log
) -> None:
    give_order(log, "art", "stopped", "ann", "")
    with closing(Follower(settings, create_app(settings).engine)) as later:
        later.step()
        assert later._engine.find("art").experiment.status == "stopped"
    worker = Worker(folder, settings.data)
    worker.step()
    assert [experiment.status for experiment in worker._files.experiments] == ["stopped"]
    worker.finish()


def test_an_order_needs_no_file(folder: Path, engine: Engine, follower: Follower, log: Log) -> None:
    write(folder, "experiment: [", "broken.yaml")
    give_order(log, "art", "stopped", "ann", "")
    follower.step()
    assert status(engine) == "stopped"
    assert [problem.file for problem in follower.problems] == ["broken.yaml"]
    with pytest.raises(NotFound, match="expected one of art"):
        give_order(log, "other", "stopped", "ann", "")


@pytest.mark.parametrize("halt", ["stopped", "paused", "draft"])
def test_a_file_that_stops_gets_through_beside_a_broken_one(
    folder: Path, engine: Engine, follower: Follower, halt: str
) -> None:
    write(folder, "experiment: [", "broken.yaml")
    write(folder, ARTWORK + f"status: {halt}\ntitle: Edited\n")
    follower.step()
    assert status(engine) == halt
    # Half of an edit may be worse than none: only what stops is taken.
    assert engine.find("art").experiment.title == ""
    (folder / "broken.yaml").unlink()
    follower.step()
    assert engine.find("art").experiment.title == "Edited"


def test_the_last_file_taken_away_stops_what_it_said(
    folder: Path, engine: Engine, follower: Follower
) -> None:
    (folder / "art.yaml").unlink()
    follower.step()
    assert engine.experiments == {}
    write(folder)
    follower.step()
    assert status(engine) == "running"


def test_a_folder_that_is_gone_changes_nothing_and_is_told(
    folder: Path, engine: Engine, follower: Follower
) -> None:
    shutil.rmtree(folder)
    follower.step()
    assert status(engine) == "running"
    assert [problem.path for problem in follower.problems] == ["directory"]


def test_a_unit_of_what_was_stopped_by_order_is_in_no_variant(
    settings: Settings, engine: Engine, log: Log
) -> None:
    files = [engine.find("art").experiment]
    assert unit_assignment(files, settings.data, "art", "u1").variant is not None
    give_order(log, "art", "stopped", "ann", "")
    assert unit_assignment(files, settings.data, "art", "u1").reason == "not_in_experiment"


def test_the_command_says_what_it_did(settings: Settings, log: Log) -> None:
    line = ["stop", "art", "--data", settings.data]
    without = topbill(*line)
    assert (without.returncode, log.orders()) == (1, [])
    assert "--now" in without.stderr
    done = topbill(*line, "--now", "--because", "too slow")
    assert done.returncode == 0, done.stderr
    (order,) = log.orders()
    assert order.because == "too slow"
    assert f"art is stopped (revision {order.made})" in done.stdout


def test_what_stands_is_said_with_the_order_and_its_reason(
    settings: Settings, folder: Path, follower: Follower, log: Log
) -> None:
    give_order(log, "art", "stopped", "ann", "plays fell")
    follower.step()
    worker = Worker(folder, settings.data)
    worker.step()
    worker.finish()
    said = topbill("status", "--data", str(settings.data))
    assert said.returncode == 0, said.stderr
    assert "art is stopped" in said.stdout
    assert "by order of ann" in said.stdout
    assert "plays fell" in said.stdout
    assert "The worker is at work" in said.stdout
    listed = topbill("list", "--data", str(settings.data), "--json")
    assert '"status": "stopped"' in listed.stdout

    nothing = topbill("status", "--data", str(settings.data / "other"))
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "no log there" in nothing.stderr
