"""Where the log of a command is: in its data folder, or at the URL of `--log` or `TOPBILL_LOG`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.processes import topbill

from topbill import cli
from topbill.backup import back_up
from topbill.cli.reference import commands
from topbill.cli.shell import use_log
from topbill.cli.supervise import free_port
from topbill.domain.errors import BadRequest, LogError, NotFound
from topbill.domain.log_url import LOG_VARIABLE, without_secrets
from topbill.log import LOG_FILE, Log, has_log, open_log, open_log_of
from topbill.worker.damage import damage
from topbill.worker.erasure import find_unit, unit_data
from topbill.worker.retention import find_aged

PACKAGE = Path(__file__).parents[3] / "platform" / "topbill"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory:{tmp_path}"


@pytest.fixture
def shared(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """A log that is not in the data folder, and which the variable says."""
    monkeypatch.setenv(LOG_VARIABLE, url)
    with open_log(url) as log:
        yield log


def run(*arguments: str) -> int:
    try:
        cli.app(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


# ---------------------------------------------------------------------- of a data folder


def test_a_data_folder_has_its_log_in_it_unless_a_url_is_said(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LOG_VARIABLE, raising=False)
    assert not has_log(tmp_path)
    with open_log_of(tmp_path) as log:
        log.revise("home", "r1", "me", "{}")
    assert has_log(tmp_path)
    other = tmp_path / "other"
    monkeypatch.setenv(LOG_VARIABLE, url)
    with open_log(url) as made, open_log_of(other) as log:
        made.revise("rows", "r2", "me", "{}")
        assert [line.experiment for line in log.revisions()] == ["rows"]
        assert has_log(other)
    assert not other.exists()


def test_at_a_url_no_log_is_made_but_by_migrate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "memory:nowhere")
    assert not has_log(tmp_path)
    with pytest.raises(NotFound, match="memory:nowhere: no log there"):
        open_log_of(tmp_path)


def test_two_logs_of_one_folder_are_refused(tmp_path: Path, shared: Log) -> None:
    open_log(tmp_path / LOG_FILE).close()
    for opening in (open_log_of, has_log):
        with pytest.raises(LogError, match=r"log\.sqlite: the folder has a log of its own, beside"):
            opening(tmp_path)
    assert shared.orders() == []


def test_nobody_opens_the_file_of_a_data_folder_by_its_name() -> None:
    """What does would not see the log at a URL. Those that may have a folder, or a log, of their
    own.
    """
    own = {
        "log/opening.py",
        "backup.py",
        "migration.py",
        "formats/lake_import.py",
        "cli/movielens.py",
        "service/settings.py",
        "simulation/recording.py",
    }
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if re.search(r"/ LOG_FILE\b", path.read_text()):
            found.add(str(path.relative_to(PACKAGE)))
    assert found == own


@pytest.mark.parametrize(
    "call",
    [
        lambda data: back_up(data, data / "copies"),
        damage,
        lambda data: find_unit(data, "u"),
        lambda data: unit_data(data, "u"),
        lambda data: find_aged(data, 1e9),
    ],
)
def test_what_only_a_log_in_the_folder_can_is_refused_by_name(
    call: Callable[[Path], object], tmp_path: Path, shared: Log
) -> None:
    with pytest.raises(
        LogError, match=r"memory:.*: .*(only for|expected) the log in a data folder"
    ):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert shared.erasures("home") == []


# ---------------------------------------------------------------------- commands

LAKE_ALONE = {
    "answers",
    "compare",
    "export",
    "features",
    "hash",
    "import",
    "list",
    "overlap",
    "power",
    "report",
    "sql",
}
"""Commands that read no log: those of the lake, and the import into a folder of its own."""
OWN_FOLDER = {"demo", "restore"}
"""Commands that make a log in a folder of their own."""


def test_every_command_over_a_log_takes_its_url() -> None:
    with_data, with_log = set(), set()
    for typed, command in commands(cli.app):
        name = typed.removeprefix("topbill ")
        options = {each for one in command.assemble_argument_collection() for each in one.names}
        if "--data" in options:
            with_data.add(name)
        if "--log" in options:
            with_log.add(name)
    assert with_log <= with_data
    assert (with_data - with_log) <= LAKE_ALONE | OWN_FOLDER
    assert {"serve", "worker", "up", "status", "stop", "verify", "migrate"} <= with_log


def test_an_order_and_the_status_are_those_of_the_log_that_is_said(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As it was, afterwards: the option sets it.
    monkeypatch.setenv(LOG_VARIABLE, "")
    data = str(tmp_path / "data")
    with open_log(url) as log:
        log.beat(0)
        assert run("alerts", "list", "--data", data, "--log", url) == 0
        assert os.environ[LOG_VARIABLE] == url
        assert run("status", "--data", data) == 0, "as the variable says"
    assert "The worker is at work" in capsys.readouterr().out
    assert not Path(data).exists()


def test_a_demo_refuses_to_fill_a_shared_log(shared: Log) -> None:
    with pytest.raises(BadRequest, match="TOPBILL_LOG: is set; expected none for demo"):
        cli.app(["demo"])
    assert shared.revisions() == []


# ---------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:secret@db:5432/x", "postgresql://u@db:5432/x"),
        ("postgresql://u:sec/secret@db/x", "postgresql://u@db/x"),
        ("postgresql://u:sec@secret@db/x", "postgresql://u@db/x"),
        ("postgresql://u:sec?secret#@db/x", "postgresql://u@db/x"),
        ("postgresql://:secret@db/x", "postgresql://@db/x"),
        ("postgresql://db/x?password=secret&user=u", "postgresql://db/x?password=…&user=u"),
        ("postgresql://db:5432/x?user=u", "postgresql://db:5432/x?user=u"),
    ],
)
def test_messages_say_a_url_without_its_password(url: str, said: str) -> None:
    assert without_secrets(url) == said


def test_a_password_on_the_command_line_is_warned_of_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "postgresql://u:secret@db/x")
    use_log("postgresql://u:secret@db/x")
    use_log("postgresql://u@db/x")
    assert capsys.readouterr().err == ""
    use_log("postgresql://u:secret@db/x")
    said = capsys.readouterr().err
    assert "others on this machine can read" in said
    assert "secret" not in said


@pytest.mark.parametrize("verb", ["serve", "worker", "migrate", "verify"])
def test_no_process_says_the_password_of_a_log_that_it_cannot_open(
    verb: str, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("psycopg", reason="no psycopg: pip install -r requirements-dev.lock")
    url = "postgresql://u:secret@127.0.0.1:1/x"
    options: dict[str, list[object]] = {
        "serve": ["--experiments", folder, "--port", free_port("127.0.0.1", 0)],
        "worker": ["--experiments", folder],
        "migrate": ["--log", url],
        "verify": ["art"],
    }
    data = tmp_path / "data"
    done = topbill(verb, "--data", data, *options[verb], TOPBILL_LOG=url)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "postgresql://u@127.0.0.1:1/x: cannot open the log" in said
    assert "Connection refused" in said
    assert "secret" not in said
    assert not data.exists()
