"""Whoever edits a file is told in a line what came in force, and that a mistake is mended."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from topbill import process_log
from topbill.service.app import create_app
from topbill.service.follower import Follower
from topbill.service.settings import Settings


@pytest.fixture
def follower(settings: Settings, caplog: pytest.LogCaptureFixture) -> Iterator[Follower]:
    caplog.set_level(logging.INFO, process_log.CHANGES)
    with closing(Follower(settings, create_app(settings).engine)) as follower:
        follower.step()
        yield follower


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of changes since the last call."""
    lines = [record.getMessage() for record in caplog.records if record.name == process_log.CHANGES]
    caplog.clear()
    return lines


def test_every_change_that_took_effect_is_a_line(
    follower: Follower, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = folder / "art.yaml"
    text = file.read_text()
    assert told(caplog) == [], "of a first start all would be new"
    file.write_text(f"status: paused\ntraffic: 50%\n{text}")
    follower.step()
    (line,) = told(caplog)
    assert line.startswith("art: is paused in revision ")
    assert "status: left out → paused" in line
    assert "traffic: left out → 50%" in line
    follower.step()
    assert told(caplog) == []
    file.write_text(text)
    follower.step()
    (line,) = told(caplog)
    assert line.startswith("art: is running in revision ")


def test_a_new_file_and_one_that_was_taken_away_are_told(
    follower: Follower, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = folder / "art.yaml"
    (folder / "more.yaml").write_text(
        file.read_text().replace("experiment: art\n", "experiment: more\nstatus: draft\n")
    )
    follower.step()
    assert told(caplog) == ["more: is a draft, as its new file says"]
    (folder / "more.yaml").unlink()
    follower.step()
    assert told(caplog) == ["more: its file was taken away; it decides no more (404)"]


def test_what_is_mended_is_told(
    follower: Follower, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = folder / "art.yaml"
    text = file.read_text()
    file.write_text(f"slotz: 2\n{text}")
    follower.step()
    assert told(caplog) == []
    file.write_text(text)
    follower.step()
    assert told(caplog) == ["files are in order again: what they say is in force"]


def test_as_text_changes_stand_on_standard_error_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(process_log.VARIABLE, "text")
    changes = logging.getLogger(process_log.CHANGES)
    monkeypatch.setattr(changes, "handlers", [])
    monkeypatch.setattr(changes, "level", logging.NOTSET)
    process_log.configure("text")
    process_log.configure("text")
    changes.info("%s: is paused", "art")
    assert capsys.readouterr().err == "art: is paused\n"
