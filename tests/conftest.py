"""How properties are tried, and one small experiment that tests of several modules decide on."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests import postgres_server

from topbill import spec
from topbill.spec import Experiment

# Numba checks what its functions are called with, which the library of compiled functions does not;
# and tests call parts that the library has none of. It has a test of its own, and processes that
# tests start have it, as those of users do: the variable counts when this module is imported.
os.environ["TOPBILL_JIT"] = "1"
importlib.import_module("topbill.policies.linear.compiled")
del os.environ["TOPBILL_JIT"]
# The same examples in each run and on each machine, however slow, so that a failure is the change's
# own. `--hypothesis-profile default` looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


WHOLE = ("client", "dashboards", "deploy", "shared")
"""Folders of tests/integration with whole dashboards, documents, databases and engines at work."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of a whole site (tests/integration/*.py) come first: they are the longest, and no
    runner is to begin one when the others have nothing left. What is in a folder of `WHOLE` is from
    end to end.
    """
    whole_site = Path(__file__).parent / "integration"
    for item in items:
        if any(item.path.is_relative_to(whole_site / name) for name in WHOLE):
            item.add_marker("end_to_end")
    items.sort(key=lambda item: item.path.parent != whole_site)


ARTWORK = """
experiment: art
surface: artwork
unit: profile_id
context:
  device: {type: category, values: [tv, mobile]}
  hour: {type: cycle, period: 24}
action_features:
  tone: {type: category, values: [warm, cold]}
actions:
  - {id: a, features: {tone: warm}, payload: {image: a.svg}}
  - {id: b, features: {tone: cold}, payload: {image: b.svg}}
  - {id: c, features: {tone: warm}, payload: {image: c.svg}}
  - {id: d, features: {tone: cold}, payload: {image: d.svg}}
metrics:
  play: {event: play, kind: binary, window: 1s}
objective: {play: 1.0}
variants:
  editorial: {policy: fixed, order: [c, a], share: 20%, control: true}
  thompson: {policy: thompson, share: 60%}
  uniform: {policy: uniform, share: 20%}
"""


def write(folder: Path, text: str = ARTWORK, name: str = "art.yaml") -> Path:
    """An experiments folder with one file."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the small experiment in it."""
    return write(tmp_path / "experiments")


@pytest.fixture
def art(folder: Path) -> Experiment:
    """The small experiment."""
    return spec.load(folder / "art.yaml")


@pytest.fixture(scope="session", autouse=True)
def _postgres_server_ends() -> Iterator[None]:
    """Whichever test has started it."""
    yield
    postgres_server.stop()
