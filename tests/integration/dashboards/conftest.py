"""Data folders for the dashboards' tests, each made once a session, and the app run on one of
them.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from topbill import spec
from topbill.spec import Experiment

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[3] / "dashboards"))
from benchmarks.dashboards import FLAGS
from browsed import browse, layers
from browsing import CHROMIUM
from filled import EXPERIMENTS, record_visits
from phased import record_phases

APP = Path(__file__).parents[3] / "dashboards" / "app.py"
Open = Callable[..., AppTest]


@pytest.fixture(scope="session")
def examples() -> dict[str, Experiment]:
    """The example experiments, by key."""
    return {e.key: e for e in spec.load_all([EXPERIMENTS])}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Experiment]) -> Path:
    """The artwork and the rows experiment with visitors, whole pages, and an experiment that nobody
    asked for yet.
    """
    chosen = [examples["home-artwork"], examples["home-rows"]]
    quiet = spec.load_all([_written(tmp_path_factory.mktemp("quiet"), QUIET)])
    homepage = layers(tmp_path_factory.mktemp("layers"))
    browsed, events = browse(600)
    return record_visits(
        tmp_path_factory.mktemp("demo"),
        [*chosen, *quiet, *homepage],
        1_200,
        more_decisions=browsed,
        more_rewards=events,
    )


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake without experiments."""
    return record_visits(tmp_path_factory.mktemp("empty"), [], 0)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with one variant."""
    folder = tmp_path_factory.mktemp("alone")
    return record_visits(folder / "data", spec.load_all([_written(folder, ALONE)]), 400)


@pytest.fixture(scope="session")
def uneven(tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Experiment]) -> Path:
    """A sample-ratio mismatch: two thirds of the editors' decisions were lost."""

    def keep(decision: object) -> bool:
        return (
            getattr(decision, "variant", "") != "editorial"
            or hash(getattr(decision, "decided_at", 0)) % 300_000 == 0
        )

    return record_visits(
        tmp_path_factory.mktemp("uneven"), [examples["home-artwork"]], 1_500, is_recorded=keep
    )


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Experiment]) -> Path:
    """A log of pure chance, which can speak for any other policy."""
    variants = {
        "editorial": {"policy": "fixed", "order": ["close-up"], "share": "20%", "control": True},
        "uniform": {"policy": "uniform", "share": "80%"},
    }
    experiment = spec.from_raw({**examples["home-artwork"].raw, "variants": variants}, "by chance")
    return record_visits(tmp_path_factory.mktemp("drawn"), [experiment], 1_000)


@pytest.fixture(scope="session")
def hushed(tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Experiment]) -> Path:
    """A log too short to speak for another policy."""
    return record_visits(tmp_path_factory.mktemp("hushed"), [examples["home-artwork"]], 40)


@pytest.fixture(scope="session")
def phased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shares changed on the way, units held out and left out."""
    return record_phases(tmp_path_factory.mktemp("phased"))


@pytest.fixture(scope="session", autouse=True)
def _components_are_looked_for_once() -> Iterator[None]:
    """A test of the app starts a runtime each time, and that reads the metadata of each installed
    package: half of what such a test takes.
    """
    with pytest.MonkeyPatch.context() as patch:
        scan = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens a page of the app on a data folder."""
    monkeypatch.syspath_prepend(str(APP.parent))
    monkeypatch.setenv("TOPBILL_EXPERIMENTS", str(EXPERIMENTS))

    def opened(data: Path, page: str = "home", **query: str) -> AppTest:
        monkeypatch.setenv("TOPBILL_DATA", str(data))
        app = AppTest.from_file(str(APP), default_timeout=300)
        app.query_params["refresh"] = "Off"
        for name, value in query.items():
            app.query_params[name] = value
        app.run()
        return app if page == "home" else app.switch_page(f"views/{page}.py").run()

    return opened


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium with a new profile; skips where there is none. It ends with the module, as its
    event loop would be in the way of other modules' own."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as started:
        profile = tmp_path_factory.mktemp("profile")
        context = started.chromium.launch_persistent_context(
            str(profile), executable_path=CHROMIUM, args=FLAGS
        )
        yield context
        context.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: the folder that TOPBILL_SCREENSHOTS names, to be looked at."""
    folder = Path(os.environ.get("TOPBILL_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
reward_delay: 4s
variants:
  only: {policy: thompson, share: 100%, control: true}
"""
