"""What viewers saw and did is read from the lake by another process, which says how it ended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from topbill.lake.viewed import Ended, Sought, viewed

SOUGHT = Sought("home", 0, ["play"], ["profile"], 10)


def test_without_a_lake_nothing_is_told(tmp_path: Path) -> None:
    assert list(viewed(tmp_path, SOUGHT)) == [Ended()]


def test_a_process_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "dies"
    program.write_text("#!/bin/sh\necho '[\"Through\", 3, 2, 1]'\nexit 7\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    through, ended = viewed(tmp_path, SOUGHT)
    assert (through.decision, through.reward, through.event) == (3, 2, 1)  # type: ignore[union-attr]
    assert ended == Ended("the process that reads the lake ended with 7")
