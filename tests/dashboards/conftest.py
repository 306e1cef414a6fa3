"""Data folders for the dashboards' tests, each made once a session, and the app run on one of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from topbill import spec
from topbill.spec import Experiment

sys.path.insert(0, str(Path(__file__).parent))
from filled import EXPERIMENTS, fill

APP = Path(__file__).parents[2] / "dashboards" / "app.py"
Open = Callable[..., AppTest]


@pytest.fixture(scope="session")
def examples() -> dict[str, Experiment]:
    """The example experiments, by key."""
    return {e.key: e for e in spec.load_all([EXPERIMENTS])}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Experiment]) -> Path:
    """The artwork and the rows experiment with visitors, and one that nobody asked for yet."""
    chosen = [examples["home-artwork"], examples["home-rows"]]
    quiet = spec.load_all([_written(tmp_path_factory.mktemp("quiet"), QUIET)])
    return fill(tmp_path_factory.mktemp("demo"), [*chosen, *quiet], 1_200)


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake without experiments."""
    return fill(tmp_path_factory.mktemp("empty"), [], 0)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with one variant."""
    folder = tmp_path_factory.mktemp("alone")
    return fill(folder / "data", spec.load_all([_written(folder, ALONE)]), 400)


@pytest.fixture(scope="session")
def uneven(tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Experiment]) -> Path:
    """A sample-ratio mismatch: two thirds of the editors' decisions were lost."""

    def keep(decision: object) -> bool:
        return getattr(decision, "variant", "") != "editorial" or hash(getattr(decision, "at", 0)) % 300_000 == 0

    return fill(tmp_path_factory.mktemp("uneven"), [examples["home-artwork"]], 1_500, keep=keep)


@pytest.fixture(scope="session")
def hushed(tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Experiment]) -> Path:
    """A log too short to speak for another policy."""
    return fill(tmp_path_factory.mktemp("hushed"), [examples["home-artwork"]], 40)


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens a page of the app on a data folder."""
    monkeypatch.syspath_prepend(str(APP.parent))
    monkeypatch.setenv("TOPBILL_EXPERIMENTS", str(EXPERIMENTS))

    def opened(data: Path, page: str = "home", **query: str) -> AppTest:
        monkeypatch.setenv("TOPBILL_DATA", str(data))
        app = AppTest.from_file(str(APP), default_timeout=60)
        app.query_params["refresh"] = "Off"
        for name, value in query.items():
            app.query_params[name] = value
        app.run()
        return app if page == "home" else app.switch_page(f"views/{page}.py").run()

    return opened


def _written(folder: Path, text: str) -> Path:
    (folder / "one.yaml").write_text(text)
    return folder


QUIET = """
experiment: quiet
title: Nobody asked yet
status: draft
surface: titles
context: {kids: {type: flag}}
actions: [{id: a}, {id: b}]
metrics: {play: {event: play, kind: binary, window: 1h}}
objective: {play: 1}
variants:
  first: {policy: fixed, order: [a], share: 50%, control: true}
  second: {policy: thompson, share: 50%}
"""
ALONE = """
experiment: alone
title: One variant, nothing beside it
surface: artwork
unit: profile
context:
  device: {type: category, values: [tv, mobile]}
actions: [{id: a}, {id: b}, {id: c}]
metrics: {play: {event: play, kind: binary, window: 4s}}
objective: {play: 1}
learn_after: 4s
variants:
  only: {policy: thompson, share: 100%, control: true}
"""
