"""The ten-minute pages: each command that they show works on a record, and fits a terminal."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from topbill import cli, spec
from topbill.cli.shell import out
from topbill.simulation.recording import record_visits

ROOT = Path(__file__).parents[3]
PAGES = ("results", "policies")
LINES = [
    (page, line)
    for page in PAGES
    for block in re.findall(
        r"```console\n(.*?)```", (ROOT / "docs" / f"ten-minutes-{page}.md").read_text(), re.DOTALL
    )
    for line in block.splitlines()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pages are read: the example experiments, and visits of one of them."""
    folder = tmp_path_factory.mktemp("ten-minutes")
    cli.app(["examples", str(folder / "experiments")], result_action="return_value")
    record_visits(folder / "data", [spec.load(folder / "experiments" / "home-artwork.yaml")], 400)
    return folder


def test_the_pages_have_commands() -> None:
    assert len(LINES) > 8
    assert all(line.startswith("$ topbill ") for _, line in LINES)


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_of_the_page_works(
    page: str,
    line: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(out, "width", 80)
    cli.app(shlex.split(line)[2:], result_action="return_value")
    told = capsys.readouterr().out
    assert told.strip()
    assert "…" not in told


def test_the_python_of_the_page_evaluates(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    page = (ROOT / "docs" / "ten-minutes-policies.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "ten-minutes-policies.md", "exec"), {})  # noqa: S102
    assert "always chase" in capsys.readouterr().out
