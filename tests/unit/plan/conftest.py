"""A record of a real example experiment at half its traffic, over a day and a half, beside a draft;
and its files, for tests to edit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from topbill import spec
from topbill.plan import WhatRuns, what_runs
from topbill.shipped import shipped
from topbill.simulation import recording

VISITS = 1_200
STEP = 36 * 3_600_000_000 // VISITS
DRAFT = """\
experiment: home-hero
title: The hero picture
surface: artwork
unit: profile_id
status: draft
layer: hero
actions: [{id: still}, {id: loop}]
metrics:
  play:    {event: play, kind: binary, window: 30m}
  abandon: {event: abandon, kind: binary, window: 30m, better: lower}
objective: {play: 1.0}
guardrails:
  - {metric: abandon, margin: 10%}
variants:
  still: {policy: fixed, order: [still], share: 50%, control: true}
  draws: {policy: epsilon_greedy, epsilon: 10%, share: 50%}
"""


def write_files(folder: Path) -> None:
    """The files as they run: the example at half its traffic, and a draft."""
    folder.mkdir(parents=True)
    text = (shipped("experiments") / "home-artwork.yaml").read_text()
    assert text.count("traffic: 100%") == 1
    (folder / "home-artwork.yaml").write_text(text.replace("traffic: 100%", "traffic: 50%"))
    (folder / "home-hero.yaml").write_text(DRAFT)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the record of the files; nobody changes it."""
    folder = tmp_path_factory.mktemp("plan")
    write_files(folder / "files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "STEP", STEP)
        recording.record_visits(folder / "data", spec.load_all([folder / "files"]), VISITS)
    return folder / "data"


@pytest.fixture(scope="session")
def runs(recorded: Path) -> WhatRuns:
    """What runs, read once for all."""
    return what_runs(recorded)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """The folder of the files as they run, to be edited."""
    folder = tmp_path / "experiments"
    write_files(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
