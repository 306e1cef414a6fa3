"""A service with a spool acknowledges while PostgreSQL is away, and PostgreSQL has all of it
afterwards, once.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests import postgres_server
from tests.conftest import write
from tests.integration.shared.test_outages import Server, log, server
from tests.local_client import LocalClient

from topbill.domain.errors import BadRequest, LogError
from topbill.domain.log_url import LOG_VARIABLE
from topbill.log import Log, migrate_log, open_log
from topbill.service import run
from topbill.service.app import create_app
from topbill.service.keys import Keys
from topbill.service.settings import Settings
from topbill.service.spool import Spool
from topbill_client.choice import new_id

__all__ = ["log", "server"]


@pytest.fixture
def settings(server: Server, tmp_path: Path) -> Settings:
    folder = write(tmp_path / "experiments")
    return Settings(folder, tmp_path / "data", spool=tmp_path / "spool")


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with LocalClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def decide(client: TestClient, **more: str) -> Any:
    return client.post("/v1/decide", json={"experiment": "art", "unit": "u", **more})


def decided(client: TestClient, **more: str) -> Any:
    response = decide(client, **more)
    assert response.status_code == 200, response.text
    return response.json()


def reward(client: TestClient, decision_id: str, event_id: str = "e") -> Any:
    body = {"decision_id": decision_id, "event": "play", "event_id": event_id}
    return client.post("/v1/reward", json=body)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_sent(client: TestClient) -> bool:
    ready = client.get("/readyz").json()
    codes = {trouble["code"] for trouble in ready.get("troubles", [])}
    return ready["status"] == "ready" and not {"spooled", "log_away"} & codes


def waiting(client: TestClient) -> float:
    """Bytes that wait, as the metrics say."""
    (line,) = [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("topbill_spool_bytes ")
    ]
    return float(line.split()[1])


def stored(log: Log) -> list[str]:
    return [decision.decision_id for _, decision in log.read_decisions(0, 10**6)]


def test_what_comes_while_the_server_is_gone_is_answered_and_sent_afterwards(
    client: TestClient, server: Server
) -> None:
    before = decided(client)
    assert waiting(client) == 0
    server.go()
    own_id = new_id()
    made = [decided(client), decided(client, decision_id=own_id)]
    assert decided(client, decision_id=own_id)["slate"] == made[1]["slate"], "again the same"
    assert decide(client, decision_id=own_id, device="tv").status_code in (409, 422)
    for each in (before, *made):
        assert reward(client, each["decision_id"]).json()["status"] == "stored"
    assert reward(client, own_id).json()["status"] == "duplicate"
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["troubles"][0]["code"]) == (200, "log_away")
    assert 100 < waiting(client) < 100_000
    server.come_back()
    wait_for(lambda: is_sent(client))
    assert waiting(client) == 0
    ids = [each["decision_id"] for each in (before, *made)]
    with open_log(server.url) as log:
        assert stored(log) == ids
        assert [event.decision_id for _, event in log.read_events(0, 99)] == ids
        assert decided(client, decision_id=own_id)["slate"] == made[1]["slate"]
        assert reward(client, own_id).json()["status"] == "duplicate"
        assert len(stored(log)) == 3


def test_an_id_that_only_the_log_may_know_is_still_a_503(
    client: TestClient, server: Server
) -> None:
    used = new_id()
    decided(client, decision_id=used)
    time.sleep(0.005)  # ids say when they were made by the millisecond
    decided(client)
    server.go()
    for unknown in (used, "an id of one's own"):
        response = decide(client, decision_id=unknown)
        assert response.status_code == 503, "it may have been decided before"
        assert response.headers["retry-after"] == "1"
    assert reward(client, "of another process").status_code == 503
    for new in (new_id(), f"{new_id()[:8]}-{new_id()[8:12]}-7000-8000-000000000000"):
        decided(client, decision_id=new)
    assert decide(client, decision_id="an id of one's own").status_code == 503


def test_a_service_that_dies_sends_what_is_left_when_it_starts_again(
    settings: Settings, server: Server
) -> None:
    """Also what it had sent already: it is stored once."""
    assert settings.spool is not None
    with LocalClient(create_app(settings)) as client:
        server.go()
        ids = [decided(client)["decision_id"] for _ in range(3)]
        # Killed before anything is sent.
    server.come_back()
    note = Spool._note

    def killed(spool: Spool, path: Path, text: str) -> None:
        if path.name == "spool.sent":
            raise LogError("killed between the last row and the note that all are sent")
        note(spool, path, text)

    with open_log(server.url) as log:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Spool, "_note", killed)
            with closing(Spool(settings.spool, settings.open_log)) as spool:
                wait_for(lambda: len(stored(log)) == 3)
                assert not spool.is_empty
        with closing(Spool(settings.spool, settings.open_log)) as spool:
            wait_for(lambda: spool.is_empty)
        assert stored(log) == ids


@pytest.fixture
def cluster() -> Iterator[postgres_server.Cluster]:
    lacking = postgres_server.missing()
    if lacking:
        pytest.skip(lacking)
    with postgres_server.cluster(fsync="on") as cluster:
        migrate_log(cluster.url)
        yield cluster


def test_a_server_that_stands_still_is_spooled_within_seconds(
    cluster: postgres_server.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG_VARIABLE, cluster.url)
    settings = Settings(write(tmp_path / "e"), tmp_path / "data", spool=tmp_path / "spool")
    with LocalClient(create_app(settings)) as client:
        ids = [decided(client)["decision_id"]]
        processes = cluster.processes()
        for pid in processes:
            with suppress(ProcessLookupError):  # some of the server's come and go
                os.kill(pid, signal.SIGSTOP)
        try:
            ids += [decided(client)["decision_id"] for _ in range(20)]
            for each in ids:
                assert reward(client, each).json()["status"] == "stored"
        finally:
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        wait_for(lambda: is_sent(client))
        with open_log(cluster.url) as log:
            assert sorted(stored(log)) == sorted(ids)
            assert len(log.read_events(0, 99)) == 21


def test_a_server_that_is_killed_under_load_loses_and_doubles_nothing(
    cluster: postgres_server.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG_VARIABLE, cluster.url)
    settings = Settings(write(tmp_path / "e"), tmp_path / "data", spool=tmp_path / "spool")
    acknowledged: list[str] = []
    with LocalClient(create_app(settings)) as client:
        for count in range(120):
            if count == 30:
                cluster.kill()
            if count == 90:
                cluster.start()
            response = decide(client, decision_id=new_id())
            if response.status_code == 200:
                acknowledged.append(response.json()["decision_id"])
                assert reward(client, acknowledged[-1]).status_code == 200
        assert len(acknowledged) >= 119, "all but what was made when the log was last there"
        wait_for(lambda: is_sent(client))
        with open_log(cluster.url) as log:
            assert sorted(stored(log)) == sorted(acknowledged)
            events = [event.decision_id for _, event in log.read_events(0, 10**6)]
            assert sorted(events) == sorted(acknowledged)


def test_a_spool_whose_disk_is_full_acknowledges_nothing(
    client: TestClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(client)
    server.go()
    kept = decided(client)["decision_id"]
    own_id = new_id()
    with monkeypatch.context() as patch:

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr("topbill.log.journal.os.pwrite", full)
        response = decide(client, decision_id=own_id)
        assert response.status_code == 503
        assert "nothing of this batch was stored" in response.text
    assert decided(client, decision_id=own_id)["decision_id"] == own_id, "it is not known"
    server.come_back()
    wait_for(lambda: is_sent(client))
    with open_log(server.url) as log:
        assert stored(log)[1:] == [kept, own_id]


def test_a_spool_that_cannot_be_one_is_named_at_the_start(
    settings: Settings, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"

    def serve(processes: int = 1) -> None:
        run.serve(
            settings.experiments,
            settings.data,
            host="127.0.0.1",
            port=0,
            processes=processes,
            keys=Keys(),
            spool=spool,
        )

    used = pytest.raises(LogError, match="spool: another process uses it as its spool")
    with closing(Spool(spool, settings.open_log)), used:
        serve()
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match=r"file: cannot be a spool: .*expected a folder to write to"):
        Spool(tmp_path / "file", settings.open_log)
    with pytest.raises(BadRequest, match="--spool: got --processes 2; expected one process"):
        serve(processes=2)
    with LocalClient(create_app(settings)) as client:
        server.go()
        decided(client)
    server.come_back()
    monkeypatch.setenv(LOG_VARIABLE, Server().url)
    migrate_log(os.environ[LOG_VARIABLE])
    with pytest.raises(LogError, match="rows wait in it for another log"):
        Spool(spool, settings.open_log)
    monkeypatch.delenv(LOG_VARIABLE)
    with pytest.raises(BadRequest, match="--spool: got a log of this machine's own"):
        serve()
