"""What machines over a lake at a URL have alike beside it: each reads and writes its own data
folder, and what one leaves there the others find.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import object_store

from topbill.candidates import signals_path
from topbill.domain.lake_url import LAKE_VARIABLE
from topbill.entities.kept import FOLDER, HISTORY, HistoryLine, KeptTables
from topbill.lake import shared_files
from topbill.lake.kept import SUMS
from topbill.lake.shared_files import SHARED, sync
from topbill.log.horizon import HORIZON, note_horizon, read_horizon
from topbill.log.tombstones import TOMBSTONES, add_tombstones, new_tombstone, read_tombstones
from topbill.reporting import answer_cache

AT = 1_790_000_000


@pytest.fixture(params=["s3", "file"])
def machines(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Path, Path]:
    """The data folders of two machines."""
    url = f"file://{tmp_path}/mounted"
    if request.param == "s3":
        for name, value in object_store.environment().items():
            monkeypatch.setenv(name, value)
        url = f"s3://{object_store.fresh_bucket()}/lake"
    monkeypatch.setenv(LAKE_VARIABLE, url)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    return one, two


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_what_one_leaves_the_others_find_also_when_it_changes_and_goes(
    machines: tuple[Path, Path],
) -> None:
    one, two = machines
    write(signals_path(one, "home"), "first")
    write(one / "catalogues" / "home.sealed", "titles")
    write(one / "pages" / "home.npz.123", "not whole yet")
    note_horizon(one, 60.0)
    for data in (one, two):
        sync(data)
    assert signals_path(two, "home").read_text() == "first"
    assert read_horizon(two) == 60.0
    assert [path.name for path in (two / "pages").iterdir()] == ["home.npz"]
    note_horizon(two, 3_600.0)
    write(signals_path(one, "home"), "second")
    (one / "catalogues" / "home.sealed").unlink()
    for data in (two, one, two):
        sync(data)
    assert read_horizon(one) == 3_600.0
    assert signals_path(two, "home").read_text() == "second"
    assert not (two / "catalogues" / "home.sealed").exists()


def test_who_comes_late_brings_nothing_back(machines: tuple[Path, Path]) -> None:
    one, two = machines
    write(signals_path(one, "home"), "of whom was erased since")
    sync(one)
    sync(two)
    signals_path(one, "home").unlink()
    sync(one)
    sync(two)  # which has been off meanwhile
    sync(one)
    assert not signals_path(one, "home").exists()
    assert not signals_path(two, "home").exists()


def test_what_is_as_it_was_is_not_written_again(machines: tuple[Path, Path]) -> None:
    one, two = machines
    write(signals_path(one, "home"), "titles")
    sync(one)
    write(signals_path(two, "home"), "titles")
    before = signals_path(two, "home").stat()
    for data in (two, one, two):
        sync(data)
    after = signals_path(two, "home").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_what_two_erase_and_note_at_once_is_all_kept(machines: tuple[Path, Path]) -> None:
    one, two = machines
    (two / SUMS).mkdir()
    for data, unit, at in ((one, "ann", 2), (two, "ben", 1)):
        add_tombstones(data, [new_tombstone(data, unit, None, at)])
        line = HistoryLine(
            declaration="d", table="t", file="t.csv", of="unit", at=float(at), version=unit
        )
        KeptTables(data).add(line)
    for data in (one, two, one):
        sync(data)
    for data in machines:
        assert [each.at for each in read_tombstones(data / TOMBSTONES)] == [1, 2]
        assert [line.version for line in KeptTables(data).history()] == ["ben", "ann"]
    assert not (two / SUMS).exists()  # it may hold whom the other machine has erased


def test_the_names_are_those_of_who_writes_the_files(tmp_path: Path) -> None:
    question = answer_cache.Question("experiment_report", ("home",))
    there = {
        HORIZON,
        TOMBSTONES,
        f"{FOLDER}/{HISTORY}",
        KeptTables(tmp_path)._path("v").relative_to(tmp_path).as_posix(),
        signals_path(tmp_path, "home").relative_to(tmp_path).as_posix(),
        answer_cache._path(tmp_path, question).relative_to(tmp_path).as_posix(),
    }
    for path in there:
        write(tmp_path / path, "")
    found = {p.relative_to(tmp_path).as_posix() for each in SHARED for p in tmp_path.glob(each)}
    assert found == there
    assert shared_files.EVERY > 0
