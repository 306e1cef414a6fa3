"""The spool: rewards that a process could not send are sent by the next one, once, however the
first one ended.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.errors import BadRequest
from topbill_client import Client
from topbill_client import spool as spool_module
from topbill_client.spool import Spool
from topbill_client.testing import FakeService

PROGRAM = """
    import os, signal, sys
    from topbill_client import Client
    client = Client("http://127.0.0.1:9", spool=sys.argv[1])
    for i in range(1_000):
        client.reward("d", "play", event_id=f"e{i}")
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    client.close(0.1)
"""


@pytest.fixture
def fake() -> FakeService:
    """A service that knows the decision `d`."""
    fake = FakeService({"home": ["a"]})
    with Client(transport=fake) as client:
        client.decide("home", decision_id="d")
    return fake


@pytest.mark.parametrize(("end", "code"), [("killed", -signal.SIGKILL), ("closed", 0)])
def test_what_a_process_could_not_send_the_next_sends_once(
    tmp_path: Path, fake: FakeService, end: str, code: int
) -> None:
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "spool"), end]
    assert subprocess.run(program, check=False).returncode == code
    for _ in range(2):
        with Client(transport=fake, spool=tmp_path / "spool") as client:
            assert client.flush()
    assert [reward.event_id for reward in fake.rewards] == [f"e{i}" for i in range(1_000)]
    assert list((tmp_path / "spool").iterdir()) == []


def test_clients_that_live_share_a_folder_and_keep_their_own(
    tmp_path: Path, fake: FakeService
) -> None:
    fake.down = True
    first, second = (Client(transport=fake, spool=tmp_path) for _ in range(2))
    first.reward("d", "play", event_id="one")
    second.reward("d", "play", event_id="two")
    third = Client(transport=fake, spool=tmp_path)
    assert [client.delivered.waiting for client in (first, second, third)] == [1, 1, 0]
    first.close(0.01)
    fourth = Client(transport=fake, spool=tmp_path)
    assert fourth.delivered.waiting == 1
    fake.down = False
    for client in (second, third, fourth):
        client.close()
    assert sorted(str(reward.event_id) for reward in fake.rewards) == ["one", "two"]
    assert list(tmp_path.iterdir()) == []


def test_the_log_says_what_becomes_of_rewards_at_the_end(
    tmp_path: Path, fake: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    fake.down = True
    for spool, then in (
        (tmp_path, "1 rewards could not be sent, and wait in the spool"),
        (None, "and are lost"),
    ):
        client = Client(transport=fake, spool=spool)
        client.reward("d", "play")
        with caplog.at_level(logging.WARNING):
            client.close(0.01)
        assert then in caplog.text


def test_a_torn_line_is_passed_over(tmp_path: Path, fake: FakeService) -> None:
    (tmp_path / "old.rewards").write_bytes(
        b'{"decision_id":"d","event":"play","event_id":"e"}\n{"decision_id":"d","ev'
    )
    with Client(transport=fake, spool=tmp_path):
        pass
    assert [reward.event_id for reward in fake.rewards] == ["e"]


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadRequest, match=r"spool: .*file.*expected a folder that can be written"):
        Client(spool=tmp_path / "file")


def test_a_full_disk_costs_no_reward_that_can_be_sent(
    tmp_path: Path,
    fake: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Client(transport=fake, spool=tmp_path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            client.reward("d", "play")
        client.close()
    assert len(fake.rewards) == 3
    assert caplog.text.count("wait in memory only") == 1


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=40))
def test_a_file_holds_what_waits_and_little_more(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool, waiting, number = Spool(folder), list[bytes](), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "_WORTH_SHRINKING", 200)
        for put, count in steps:
            if put:
                fresh = [msgspec.json.encode({"event_id": number + i}) for i in range(count)]
                number += count
                spool.add(*fresh)
                waiting += fresh
            else:
                gone, waiting = waiting[:count], waiting[count:]
                spool.sent(gone, waiting, empty=not waiting)
            (file,) = folder.iterdir()
            held = file.read_bytes().splitlines()
            assert held[len(held) - len(waiting) :] == waiting
            assert file.stat().st_size <= 2 * sum(len(line) + 1 for line in waiting) + 600
    spool.close(empty=not waiting)
    heir = Spool(folder)
    assert heir.take_over()[-len(waiting) or None :] == waiting
    heir.close(empty=True)
    assert not list(folder.iterdir())


EVENTS = """
    import os, signal, sys
    from topbill_client import Client
    client = Client("http://127.0.0.1:9", spool=sys.argv[1])
    for i in range(20):
        client.event("7", "session_start", event_id=f"e{i}")
        client.reward("d", "play", event_id=f"r{i}")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_events_of_a_unit_wait_in_the_same_spool_and_are_sent_once(
    tmp_path: Path, fake: FakeService
) -> None:
    program = [sys.executable, "-c", textwrap.dedent(EVENTS), str(tmp_path)]
    assert subprocess.run(program, check=False).returncode == -signal.SIGKILL
    for _ in range(2):
        with Client(transport=fake, spool=tmp_path) as client:
            assert client.flush()
    assert [event.event_id for event in fake.events] == [f"e{i}" for i in range(20)]
    assert [reward.event_id for reward in fake.rewards] == [f"r{i}" for i in range(20)]
    assert list(tmp_path.iterdir()) == []
