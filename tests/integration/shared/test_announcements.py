"""A new policy version is adopted as soon as it is announced, and looked for where it was not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from tests.conftest import write
from tests.local_client import LocalClient

from topbill.domain.errors import LogError
from topbill.domain.records import Snapshot
from topbill.engine import Engine
from topbill.log import Log
from topbill.log.postgres_listener import SnapshotListener
from topbill.service import follower as following
from topbill.service.app import create_app
from topbill.service.follower import Follower
from topbill.service.settings import Settings
from topbill.spec import load_all
from topbill.worker.policy_fold import PolicyFold

LONGEST = 60.0
"""Seconds to wait for anything, on a machine that is busy."""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def settings(url: str, tmp_path: Path) -> Settings:
    return Settings(write(tmp_path / "experiments"), tmp_path / "data")


def next_version(settings: Settings, log: Log) -> Snapshot:
    """One that was learned of nothing."""
    (experiment,) = load_all([settings.experiments])
    fold = PolicyFold(experiment)
    fold.version = log.version("art")
    return fold.snapshot()


def served(client: LocalClient) -> int:
    (line,) = client.get("/v1/experiments").json()["experiments"]
    version: int = line["policy_version"]
    return version


@pytest.fixture
def client(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalClient]:
    """Of a service that looks for nothing by itself, from its first step on."""
    monkeypatch.setattr(following, "_POLL_SECONDS", 3_600.0)
    with LocalClient(create_app(settings)) as client:
        yield client


def test_a_version_is_served_without_being_looked_for(
    client: LocalClient, settings: Settings, log: Log
) -> None:
    for version in (1, 2):
        log.write_snapshot(next_version(settings, log))
        wait_for(lambda version=version: served(client) == version)  # type: ignore[misc]


def test_after_a_lost_connection_it_listens_again_and_has_missed_nothing(
    client: LocalClient, settings: Settings, log: Log, url: str
) -> None:
    log.write_snapshot(next_version(settings, log))
    wait_for(lambda: served(client) == 1)
    snapshot = next_version(settings, log)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        )
    log.write_snapshot(snapshot)
    wait_for(lambda: served(client) == 2)


def test_what_is_announced_is_looked_for_rarely_and_the_rest_at_every_step(
    settings: Settings, log: Log
) -> None:
    engine = Engine(load_all([settings.experiments]))
    with closing(Follower(settings, engine)) as follower:
        follower.step()
        heard: list[bool] = []
        follower.listen(lambda: heard.append(True))
        assert follower.announcements is not None
        wait_for(lambda: bool(heard))
        log.write_snapshot(next_version(settings, log))
        wait_for(lambda: len(heard) > 1)
        follower.step()
        assert engine.find("art").version == 0, "that is for whoever was told"
        follower._looked_at -= following._LOOK_EVERY
        follower.step()
        assert engine.find("art").version == 1

        log.write_snapshot(next_version(settings, log))
        follower.announcements.close()
        assert not follower.announcements.are_heard
        follower.step()
        assert engine.find("art").version == 2
        log.write_snapshot(next_version(settings, log))


def test_of_two_logs_in_one_database_each_hears_its_own(log: Log, url: str) -> None:
    from tests import postgres_server

    from topbill.log import migrate_log, open_log

    other_url = postgres_server.fresh_url()
    migrate_log(other_url)
    snapshot = Snapshot(experiment="x", version=1, watermark=0, fingerprint="f", states={})
    with closing(SnapshotListener(url)) as listener, open_log(other_url) as other:
        other.write_snapshot(snapshot)
        log.append([], [])
        assert not listener.wait(0.0)
        log.write_snapshot(snapshot)
        assert listener.wait(LONGEST)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            )
        with pytest.raises(LogError, match="cannot hear of new versions: "):
            listener.wait(LONGEST)
        with pytest.raises(LogError, match="the connection was lost"):
            listener.wait(LONGEST)
