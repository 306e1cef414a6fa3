"""Workers on a shared log are at work beside each other, but beside nobody who is to be alone."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import psycopg
import pytest
from tests import postgres_server

from topbill.domain.errors import Conflict, LogError, NotFound
from topbill.domain.log_url import LOG_VARIABLE
from topbill.log import Log
from topbill.log.home import HOME, check_home
from topbill.worker.only_worker import PublisherLease, WorkerLease, next_worker, only_worker


def test_workers_are_at_work_beside_each_other_and_none_beside_who_is_alone(
    log: Log, tmp_path: Path
) -> None:
    first, second = [next_worker(tmp_path, lambda: False) for _ in range(2)]
    assert first is not None
    assert second is not None
    for lease in (first, second):
        lease.check()
        with pytest.raises(Conflict, match="another worker is at work on it; stop it first"):
            only_worker(tmp_path)
        lease.release()
    with only_worker(tmp_path), pytest.raises(Conflict, match="another worker"):
        WorkerLease(tmp_path, alone=False)


def test_who_stands_by_goes_on_when_nobody_is_alone_any_more(
    log: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[WorkerLease | None] = []
    waiting = threading.Thread(target=lambda: got.append(next_worker(tmp_path, lambda: False)))
    with only_worker(tmp_path), caplog.at_level(logging.WARNING, "topbill"):
        with pytest.raises(Conflict, match="another worker is at work on it; stop it first"):
            only_worker(tmp_path)
        waiting.start()
        time.sleep(0.6)
        assert waiting.is_alive()
    assert caplog.text.count("standing by") == 1, "it is said once"
    waiting.join(60.0)
    (lease,) = got
    assert lease is not None
    with lease:
        lease.check()


def test_the_log_says_who_is_at_work_also_where_a_lock_of_files_does_not_hold(
    log: Log, tmp_path: Path
) -> None:
    with only_worker(tmp_path):
        (tmp_path / "keeper.lock").unlink()
        for alone in (True, False):
            with pytest.raises(Conflict, match="postgresql://"):
                WorkerLease(tmp_path, alone=alone)


def test_who_publishes_keeps_others_from_being_alone(log: Log, tmp_path: Path) -> None:
    """Also when its worker was killed, and it has not noticed yet."""
    publisher = PublisherLease(tmp_path)
    assert publisher.wait(lambda: False)
    with publisher, pytest.raises(Conflict, match="postgresql://"):
        only_worker(tmp_path)


def test_who_stands_by_to_publish_has_all_at_hand_before_its_turn(log: Log, tmp_path: Path) -> None:
    first, second, prepared = PublisherLease(tmp_path), PublisherLease(tmp_path), Event()
    assert first.wait(lambda: False)
    with first:
        assert not second.wait(prepared.is_set, prepared.set)
    assert second.wait(lambda: False)
    second.release()


def test_a_log_belongs_to_one_data_folder(log: Log, tmp_path: Path) -> None:
    """Over another one a worker would publish what is left of the log into an empty lake."""
    homes = [tmp_path / "one" for _ in range(4)]
    with ThreadPoolExecutor(4) as processes:
        list(processes.map(check_home, homes))
    for _ in range(2):
        with pytest.raises(LogError, match=r"belongs to another data folder than .*other; exp"):
            only_worker(tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []
    check_home(tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").iterdir()] == [HOME]


def test_a_folder_whose_own_worker_is_at_work_is_not_taken(log: Log, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(LOG_VARIABLE)
        of_folder = only_worker(tmp_path)
    with of_folder, pytest.raises(Conflict, match="another worker"):
        only_worker(tmp_path)
    only_worker(tmp_path).release()  # of the log nothing was kept


def test_who_stands_by_can_be_stopped_and_waits_for_no_log_of_its_own(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with only_worker(tmp_path):
        assert next_worker(tmp_path, lambda: True) is None
    monkeypatch.delenv(LOG_VARIABLE)
    with only_worker(tmp_path), pytest.raises(Conflict, match="another worker"):
        next_worker(tmp_path, lambda: False)


def test_a_lease_that_was_lost_is_told_and_a_server_that_is_gone_waited_for(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with only_worker(tmp_path) as lease:
        lease.check()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'topbill'"
            )
        with pytest.raises(LogError, match=r"'worker', 'publish' with it; another process"):
            lease.check()
    monkeypatch.setenv(LOG_VARIABLE, "postgresql://u:secret@127.0.0.1:1/x")
    looks = iter([False, False, True])
    with caplog.at_level(logging.WARNING, "topbill"):
        assert next_worker(tmp_path, lambda: next(looks)) is None
    assert caplog.text.count("Connection refused") == 1
    assert "secret" not in caplog.text
    monkeypatch.setenv(LOG_VARIABLE, postgres_server.fresh_url())
    with pytest.raises(NotFound, match="topbill migrate --log URL"):
        next_worker(tmp_path, lambda: False)
