"""What somebody is told who tries commands in an empty folder: what is missing, and what to do."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from topbill import cli, spec
from topbill.cli import processes
from topbill.domain.errors import NotFound, TopbillError
from topbill.domain.records import UnitEvent
from topbill.log import open_log_of

EXAMPLES = Path(__file__).parents[3] / "experiments"
NO_RECORD = r"no such file; .* name its folder by --data, or start the worker first"
NO_LOG = r"no log there; expected the data folder of `topbill up`"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("list", NO_RECORD),
        ("report home-artwork", NO_RECORD),
        ("power home-artwork", NO_RECORD),
        ("sql SELECT", NO_RECORD),
        ("evaluate home-artwork --policy uniform", NO_RECORD),
        ("status", NO_LOG),
        ("explain d1", NO_LOG),
        ("unit u1", NO_LOG),
        ("plan", r"experiments: no such folder; expected a folder of experiment files"),
    ],
)
def test_an_empty_folder_is_told_what_to_do(
    line: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TopbillError, match=told):
        cli.app(line.split(), result_action="return_value")
    assert list(tmp_path.iterdir()) == [], "a question leaves nothing behind"


@pytest.mark.parametrize(
    "line", ["erase --unit u1", "retain --keep 400d", "import events e.csv --data data"]
)
def test_a_record_is_not_published_without_the_files_of_its_experiments(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another folder than the service runs in: all would be shown as taken away."""
    monkeypatch.chdir(tmp_path)
    event = UnitEvent(event_id="1", unit="u1", unit_type="profile_id", event="play")
    Path("e.csv").write_text("unit,event,action,value,at\n")
    with closing(open_log_of(tmp_path / "data")) as log:
        log.append([], [], [event])
        log.revise("home-artwork", "r1", "somebody", "")
    with pytest.raises(NotFound, match=r"record's experiments \(1\).*name their folder with --exp"):
        cli.app(line.split(), result_action="return_value")
    with closing(open_log_of(tmp_path / "data")) as log:
        assert len(log.read_unit_events(0, 9)) == 1, "refused before anything is deleted"


@pytest.mark.parametrize("line", [["hash", ""], ["unit", " "], ["erase", "--unit", ""]])
def test_an_id_that_was_never_set_is_no_unit(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `topbill erase --unit "$UNIT"`."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TopbillError, match="got an empty id; expected a unit's, such as viewer-1"):
        cli.app(line, result_action="return_value")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("traffic: 100%", "traffic: 0%", "it runs with traffic: 0%, so nobody is in a variant"),
        ("objective: {play: 0.2,", "objective: {play: 0.2, abandon: -0.1,", "abandon is both in"),
        (
            "policy: fixed, order: [close-up], ",
            "policy: fixed, ",
            "editorial says no order, so it shows the file's actions as they stand there: close-up",
        ),
    ],
)
def test_what_tells_little_is_noted_before_it_runs(
    old: str,
    new: str,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (EXAMPLES / "home-artwork.yaml").read_text()
    (tmp_path / "one.yaml").write_text(text.replace(old, new, 1))
    cli.app(["validate", str(tmp_path / "one.yaml")], result_action="return_value")
    assert told in " ".join(capsys.readouterr().out.split())


def test_no_simulation_has_less_than_one_visit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.app(
            ["simulate", str(EXAMPLES / "home-artwork.yaml"), "--rounds", "-5"],
            result_action="return_value",
        )
    said = capsys.readouterr()
    assert "Must be >= 1" in said.out + said.err


def test_the_dashboard_of_an_empty_folder_says_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.execve", lambda *_: None)
    cli.app(["dashboard"], result_action="return_value")
    assert "data: no record yet" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_not_asked_to_be_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.app(["validate"], result_action="return_value")
    said = capsys.readouterr()
    assert "expected a YAML file, or a folder of them" in said.out + said.err


def test_the_examples_are_copied_once_and_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.app(["examples"], result_action="return_value")
    assert "home-artwork.yaml" in capsys.readouterr().out
    cli.app(["validate"], result_action="return_value")
    assert "invalid" not in capsys.readouterr().out
    with pytest.raises(TopbillError, match="experiments is there already"):
        cli.app(["examples"], result_action="return_value")


def test_what_a_key_is_for_ends_with_one_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some.yaml").write_text("experiment: some\n")
    monkeypatch.chdir(tmp_path)
    cli.app(["plan", "."], result_action="return_value")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("HARM invalid, some.yaml:1") for line in lines)
    assert not any(line.endswith("..") for line in lines)


def test_a_demo_whose_worker_published_nothing_says_how_to_see_a_verdict(tmp_path: Path) -> None:
    experiment = spec.load(EXAMPLES / "home-artwork.yaml")
    assert list(processes._verdicts([experiment], tmp_path)) == [
        "home-artwork: no verdict: the worker has not published its decisions; go on for longer, "
        "with --seconds 180"
    ]
