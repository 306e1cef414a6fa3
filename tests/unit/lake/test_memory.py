"""How much memory DuckDB takes, and what becomes of the rest."""

from __future__ import annotations

from pathlib import Path
from stat import S_IMODE

import pytest

from topbill.domain.engine_url import MEMORY_VARIABLE
from topbill.domain.errors import BadRequest, LogError
from topbill.lake import connect, database, database_of, sql
from topbill.reporting.queries.database import open_database
from topbill.testing import example_data

LARGE = "SELECT count(DISTINCT text) AS n FROM (SELECT repeat(i::VARCHAR, 9) AS text FROM {})"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_data(tmp_path_factory.mktemp("data"), visits=20)


def test_it_is_what_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, "200MB")
    with connect() as connection:
        ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    assert limit == "190.7 MiB"


@pytest.mark.parametrize("size", ["much", "80%", "3", "-1GB", "1GB; x"])
def test_what_is_no_size_is_refused_by_name(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, size)
    with pytest.raises(BadRequest, match=f"{MEMORY_VARIABLE}: got '{size}'; expected a size such"):
        connect()


def test_what_does_not_fit_goes_to_files_of_this_user_alone(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a statement sees the record and nothing else."""
    monkeypatch.setenv(MEMORY_VARIABLE, "40MB")
    query = LARGE.format("range(500000) t(i)")
    assert sql(database_of(data), query).to_pylist() == [{"n": 500_000}]
    with connect() as connection:
        ((folder,),) = connection.execute("SELECT current_setting('temp_directory')").fetchall()
    assert S_IMODE(Path(folder).stat().st_mode) == 0o700
    assert list(Path(folder).iterdir()) == []


def test_without_room_for_files_the_error_says_what_to_do(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, "40MB")
    monkeypatch.setattr(database, "_temporary_folder", lambda: "")
    query = LARGE.format("range(500000) t(i)")
    with pytest.raises(BadRequest, match=f"more in {MEMORY_VARIABLE}, or room for temporary files"):
        sql(database_of(data), query)
    with (
        pytest.raises(LogError, match=f"more in {MEMORY_VARIABLE}, or room for temporary files"),
        open_database(data) as asked,
    ):
        asked.row(query)
