"""The short form of the shared form's kill benchmark: one of everything is killed."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmarks.shared import kill
from benchmarks.shared.kill import KINDS, pauses
from hypothesis import given
from hypothesis import strategies as st
from tests import postgres_server

ROOT = Path(__file__).parents[3]
MOMENTS = st.lists(st.integers(0, 1_000).map(float), min_size=2, max_size=20, unique=True)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_whatever_of_the_shared_form_is_killed() -> None:
    if lacking := postgres_server.missing():
        pytest.skip(lacking)
    line = [sys.executable, "-m", "benchmarks.shared.kill", "--times", "1"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for kind in KINDS:
        assert re.search(rf"^{kind}, 1 times: ", said, re.MULTILINE), said
    counts = re.search(r"^acknowledged ([\d,]+), held \1, lost 0, doubled 0$", said, re.MULTILINE)
    assert counts is not None, said
    assert int(counts[1].replace(",", "")) > 100
    for experiment in ("home-artwork", "home-rows", "home-titles", "page-titles"):
        assert f"{experiment} 0" in said


def test_nobody_is_killed_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    struck: list[str] = []
    now = iter(range(1_000))
    monkeypatch.setattr(kill, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    kill.strike_each(["replica", "worker"], 5, 3.0, struck.append, lambda kind: print("said", kind))
    assert struck == ["replica", "replica"]
    assert capsys.readouterr().out == "said replica\nworker: the time was over\n"


@given(MOMENTS.map(sorted))
def test_a_pause_is_what_lies_between_two_decisions(accepted: list[float]) -> None:
    everything = (accepted[0], accepted[-1])
    longest = max(later - sooner for sooner, later in itertools.pairwise(accepted))
    assert pauses(accepted, [everything]) == [longest]
    first, second = accepted[:2]
    middle = (first + second) / 2
    assert pauses(accepted, [(middle, middle)]) == [second - first], "it counts whole"
