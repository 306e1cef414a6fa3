"""The journal gives back every group that was made durable, whatever its writer or the machine died
of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.errors import LogError
from topbill.domain.records import Decision, RewardEvent
from topbill.log import frames
from topbill.log import journal as module
from topbill.log.entries import Entry, Rows
from topbill.log.journal import Journal
from topbill.log.sqlite import SqliteLog

from ...processes import python


def rows(*ids: str) -> Rows:
    return Rows([(i, "home", b"{}") for i in ids], [])


def ids(journal: Journal) -> list[list[str]]:
    return [
        [row[0] for row in frame.rows.decisions] for frame in journal.read(0, journal.position[1])
    ]


NewLog = Callable[[], SqliteLog]


@pytest.fixture
def new_log(tmp_path: Path) -> Iterator[NewLog]:
    """Makes handles on one log, which are closed at the end."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(SqliteLog(tmp_path / "log.sqlite"))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "log.journal", lambda: (7, 0))
    yield journal
    journal.close()


def write(journal: Journal, *ids: str) -> None:
    with journal.locked():
        journal.write(rows(*ids), 1)


def test_frames_of_a_version_without_events_of_units_are_read_and_written(
    journal: Journal,
) -> None:
    """So a folder goes to the next version, and back as long as no such event came."""
    with_none = rows("a")
    payload = frames.payload_of(with_none)
    assert payload == msgspec.msgpack.encode(tuple(with_none[:2]))
    assert frames.Frame(0, 7, 1, payload).rows == with_none
    write(journal, "a")
    with journal.locked():
        journal.write(Rows([], [], [("profile_id", "7", "e", b"{}")]), 2)
    read = list(journal.read(0, journal.position[1]))
    assert [frame.rows.unit_events for frame in read] == [[], [("profile_id", "7", "e", b"{}")]]


def test_who_opens_it_next_finds_what_was_written_even_without_the_state_file(
    tmp_path: Path, journal: Journal
) -> None:
    write(journal, "a", "b")
    write(journal, "c")
    (tmp_path / "log.state").write_bytes(b"")
    with closing(Journal(tmp_path / "log.journal", lambda: (7, 0))) as opened:
        assert ids(opened) == [["a", "b"], ["c"]]


def test_a_frame_that_was_cut_off_is_none_and_the_next_takes_its_place(
    tmp_path: Path, journal: Journal
) -> None:
    write(journal, "a")
    _, end = journal.position
    write(journal, "lost")
    _, after = journal.position
    with (tmp_path / "log.journal").open("r+b") as file:
        file.seek(after - 3)
        file.write(b"\x00\x00\x00")
    # Its writer died before it was synced, and so before it told anybody.
    module._STATE.pack_into(journal._state, 0, 7, end)
    with closing(Journal(tmp_path / "log.journal", lambda: (7, 0))) as opened:
        assert opened.position == (7, end)
        write(opened, "b")
        assert ids(opened) == [["a"], ["b"]]


def test_what_an_earlier_generation_left_there_is_not_read(
    tmp_path: Path, journal: Journal
) -> None:
    for name in "abc":
        write(journal, name)
    with journal.locked():
        journal.restart(8)
    write(journal, "d")
    with closing(Journal(tmp_path / "log.journal", lambda: (8, 0))) as opened:
        assert ids(opened) == [["d"]]


def test_a_drainer_that_died_at_its_commit_leaves_the_answer_to_the_tables(tmp_path: Path) -> None:
    generation = 7
    journal = Journal(tmp_path / "log.journal", lambda: (generation, 0))
    write(journal, "a")
    with journal.locked():
        journal.doubt()
    write(journal, "b")
    assert ids(journal) == [["a"], ["b"]], (
        "the commit did not happen: its rows are still to be moved"
    )
    with journal.locked():
        journal.doubt()
    generation = 8
    write(journal, "c")
    assert ids(journal) == [["c"]], "the commit happened"
    journal.close()


def test_damage_is_named_with_its_place(tmp_path: Path, journal: Journal) -> None:
    write(journal, "a")
    _, end = journal.position
    write(journal, "b")
    with (tmp_path / "log.journal").open("r+b") as file:
        file.seek(end + 2)
        file.write(b"\xff")
    with pytest.raises(LogError, match=f"damaged at byte {end}"):
        ids(journal)


def test_it_is_full_before_the_disk_is_and_free_again_when_it_was_drained(
    new_log: NewLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topbill.log.journal._LARGEST", 2_000)
    log = new_log()
    with pytest.raises(LogError, match="wait to be moved"):
        fill(log)
    log.drain()
    log.append([decision("after")])
    names = [d.decision_id for _, d in log.read_decisions(0, 100)]
    assert names == [f"d{i}" for i in range(len(names) - 1)] + ["after"]


def fill(log: SqliteLog) -> None:
    for i in range(50):
        log.append([decision(f"d{i}")])


def test_processes_see_each_others_ids_before_anybody_drained(new_log: NewLog) -> None:
    one, other = new_log(), new_log()
    one.append([decision("a", "first")])
    held = other.decision("a")
    assert held is not None
    assert held.variant == "first"
    assert held.decided_at > 0
    other.commit([Entry([decision("unkeyed")])])
    assert other.append([decision("a", "second")], [event("a")]).stored["a"].variant == "first"
    assert one.append([], [event("a")]).duplicates == (True,)
    one.drain()
    assert other.append([decision("a", "third")]).stored["a"].variant == "first"
    assert one.append([decision("unkeyed", "again")]).stored["unkeyed"].variant == "a"
    assert len(one.read_decisions(0, 10)) == 2


def test_writers_and_drainers_at_once_store_every_row_once(tmp_path: Path, new_log: NewLog) -> None:
    path = tmp_path / "log.sqlite"
    SqliteLog(path).close()

    def writes(name: str) -> None:
        log = SqliteLog(path)
        for i in range(200):
            log.commit([Entry([decision(f"{name}-{i}-{k}") for k in range(3)])])
            log.append([decision(f"shared-{i}", name)])
        log.close()

    stop = threading.Event()

    def drains() -> None:
        log = SqliteLog(path)
        while not stop.is_set():
            log.drain()
            log.barrier()
        log.close()

    writers = [threading.Thread(target=writes, args=(name,)) for name in ("x", "y", "z")]
    drainers = [threading.Thread(target=drains) for _ in range(2)]
    for thread in (*writers, *drainers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in drainers:
        thread.join()
    log = new_log()
    held = [d for _, d in log.read_decisions(0, 10_000)]
    assert sorted(d.decision_id for d in held) == sorted(
        [f"{name}-{i}-{k}" for name in "xyz" for i in range(200) for k in range(3)]
        + [f"shared-{i}" for i in range(200)]
    )
    assert [d.decided_at for d in held] == sorted(d.decided_at for d in held)


KILLED = """
import os, sys
from topbill.log.sqlite import SqliteLog
from topbill.domain.records import Decision
from pathlib import Path

log = SqliteLog(Path(sys.argv[1]))
names = dict(experiment="e", revision="r", variant="v", unit="u", policy="p", reason="policy")
log.append([Decision(decision_id="a", **names)])
stage = sys.argv[2]
die = lambda *_: os._exit(9)
if stage == "before it is anew":
    log._journal.doubt = die
elif stage == "after":
    log._journal.restart = die
elif stage == "before it is moved":
    log._database.note_moved = die
else:
    log._note_drained = die
log.drain(whole="anew" in stage or stage == "after")
"""


@pytest.mark.parametrize("power", ["stays", "is cut"])
@pytest.mark.parametrize(
    "stage", ["before it is anew", "after", "before it is moved", "before others know"]
)
def test_a_process_killed_while_draining_neither_loses_nor_doubles(
    tmp_path: Path, new_log: NewLog, stage: str, power: str
) -> None:
    path = tmp_path / "log.sqlite"
    done = python(KILLED, path, stage)
    assert done.returncode == 9
    if power == "is cut":
        # It lives in the page cache, and nobody syncs it.
        path.with_suffix(".state").unlink()
    log = new_log()
    log.append([decision("b")])
    assert log.append([decision("a")]).stored.keys() == {"a"}
    assert [d.decision_id for _, d in log.read_decisions(0, 10)] == ["a", "b"]


OPERATIONS = ("commit", "page", "drain", "start anew", "barrier", "open", "power cut")


@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 2)), max_size=25))
@settings(max_examples=60, deadline=None)
def test_each_row_is_moved_once_and_each_id_known_whoever_drains_and_when(
    operations: list[tuple[str, int]],
) -> None:
    """Three handles on one log, of which each commits, drains, and is opened anew."""
    with TemporaryDirectory() as folder, ExitStack() as opened:
        path = Path(folder, "log.sqlite")
        logs = [opened.enter_context(SqliteLog(path)) for _ in range(3)]
        stored: list[str] = []
        for operation, number in operations:
            log = logs[number]
            if operation == "commit":
                log.append([decision(f"d{len(stored)}")])
                stored.append(f"d{len(stored)}")
                # Whose ids are its own: so the index has what others wrote in between to take in.
                log.commit([Entry([decision(f"d{len(stored)}")])])
                stored.append(f"d{len(stored)}")
            elif operation == "page":
                offered = msgspec.Raw(b'[{"id":"t"}]' + b" " * 5_000)
                named = [f"d{len(stored) + n}" for n in range(2)]
                page = [msgspec.structs.replace(decision(i), actions=offered) for i in named]
                log.append(page)
                stored += named
            elif operation == "drain":
                log.drain()
            elif operation == "start anew":
                log.drain(whole=True)
                assert log._journal.position[1] == 0
            elif operation == "barrier":
                log.barrier()
            elif operation == "open":
                logs[number] = opened.enter_context(SqliteLog(path))
            else:
                opened.close()
                path.with_suffix(".state").unlink()
                logs = [opened.enter_context(SqliteLog(path)) for _ in range(3)]
            for decision_id in stored[-3:] + stored[:1]:
                assert logs[0].decision(decision_id) is not None
        last = logs[2]
        assert last.decisions(stored).keys() == set(stored)
        if stored:
            assert last.append([decision(stored[-1])]).stored.keys() == {stored[-1]}
        assert [d.decision_id for _, d in logs[1].read_decisions(0, 1_000)] == stored


def test_nobody_who_writes_waits_for_what_is_drained_to_be_durable(new_log: NewLog) -> None:
    one, other = new_log(), new_log()
    one.append([decision("a")])
    with one._drained():
        writer = threading.Thread(target=other.append, args=([decision("b")],), daemon=True)
        writer.start()
        writer.join(20)
        assert not writer.is_alive()
    assert not one._journal.empty
    assert [d.decision_id for _, d in one.read_decisions(0, 10)] == ["a", "b"]


def test_what_is_found_in_the_tables_is_read_without_a_drain(new_log: NewLog) -> None:
    log = new_log()
    log.append([decision("a")])
    log.drain()
    log.append([decision("b")])
    assert [d.decision_id for _, d in log.read_decisions(0, 1)] == ["a"]
    assert log.first_seq() == 1
    assert log.forget(9, 9, 0) == 0
    assert not log._journal.empty, "b waits"
    with log.unhurried():
        assert [d.decision_id for _, d in log.read_decisions(0, 9)] == ["a"]
    assert not log._journal.empty
    assert [d.decision_id for _, d in log.read_decisions(0, 9)] == ["a", "b"]


def test_a_drain_leaves_known_what_was_written_behind_it(
    new_log: NewLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = new_log(), new_log()
    one.append([decision("a")])
    with other._drained():
        one.append([decision("b")])
    monkeypatch.setattr(one._journal, "read", lambda *_: pytest.fail("is read again"))
    assert one.append([decision("a"), decision("b")]).stored.keys() == {"a", "b"}
    assert one.append([decision("c")]).stored.keys() == set()


def test_a_long_journal_is_started_anew(new_log: NewLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log()
    log.append([decision("a")])
    log.drain()
    generation, end = log._journal.position
    assert end > 0
    monkeypatch.setattr("topbill.log.journal._LARGEST", 8 * (end + 1))
    log.append([decision("b")])
    log.drain()
    assert log._journal.position == (generation + 1, 0)


def test_a_journal_that_was_lost_is_written_behind_what_the_tables_hold(
    tmp_path: Path, new_log: NewLog
) -> None:
    path = tmp_path / "log.sqlite"
    with SqliteLog(path) as log:
        log.append([decision("a")])
        log.drain()
    path.with_suffix(".journal").unlink()
    path.with_suffix(".state").unlink()
    with SqliteLog(path) as log:
        log.append([decision("b")])
    path.with_suffix(".state").unlink()
    assert [d.decision_id for _, d in new_log().read_decisions(0, 10)] == ["a", "b"]


def decision(decision_id: str, variant: str = "a") -> Decision:
    return Decision(
        decision_id=decision_id,
        experiment="home",
        revision="r",
        variant=variant,
        unit="u",
        policy="uniform",
        reason="policy",
    )


def event(decision_id: str) -> RewardEvent:
    return RewardEvent(decision_id=decision_id, event_id="e", event="play")
