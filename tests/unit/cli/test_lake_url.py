"""Every command over a lake takes its URL, by `--lake` or `TOPBILL_LAKE`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from topbill import cli
from topbill.cli.reference import commands
from topbill.cli.shell import use_lake
from topbill.domain.errors import BadRequest
from topbill.domain.lake_url import LAKE_VARIABLE
from topbill.testing import a_decision, an_experiment, publish

WITHOUT = {"alerts list", "demo", "hash", "migrate", "pause", "resume", "stop"}
"""Commands that read the log alone, or make a folder of their own."""


def test_every_command_over_a_lake_takes_its_url() -> None:
    with_data, with_lake = set(), set()
    for typed, command in commands(cli.app):
        name = typed.removeprefix("topbill ")
        options = {each for one in command.assemble_argument_collection() for each in one.names}
        if "--data" in options:
            with_data.add(name)
        if "--lake" in options:
            with_lake.add(name)
    assert with_data - with_lake == WITHOUT
    assert with_lake <= with_data


def test_a_command_reads_the_lake_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("obstore", reason="no obstore: pip install 'topbill[objects]'")
    monkeypatch.setenv(LAKE_VARIABLE, "")
    use_lake(str(tmp_path / "lake"))
    publish(tmp_path / "one", [an_experiment()], [a_decision("d1", decided_at=1)])
    monkeypatch.setenv(LAKE_VARIABLE, "")
    line = ["sql", "SELECT decision_id FROM decisions", "--json"]
    with pytest.raises(SystemExit) as end:
        cli.app([*line, "--data", str(tmp_path / "two"), "--lake", f"file://{tmp_path}/lake"])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out) == [{"decision_id": "d1"}]


def test_what_is_no_lake_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAKE_VARIABLE, "")
    with pytest.raises(BadRequest, match="expected s3://, gs://, az://, file:// or a folder"):
        use_lake("x://bucket")
    use_lake("")
    assert os.environ[LAKE_VARIABLE] == ""
