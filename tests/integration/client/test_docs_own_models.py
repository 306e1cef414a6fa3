"""What docs/own-models.md shows, run as it stands there."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.installed_package import on_the_path, write_package
from tests.local_client import LocalClient
from tests.onnx_files import linear

from topbill import spec
from topbill.pages.own_signal import SignalRow
from topbill.plugins import PageTitles, PageViewer
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.worker.archive import reader
from topbill.worker.loop import Worker
from topbill.worker.verification import verify

PAGE = (Path(__file__).parents[3] / "docs" / "own-models.md").read_text()
BLOCKS = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
"""What the page shows of each file, by its name."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The experiments of the page, with what they need; its package is installed."""
    entries = tomllib.loads(BLOCKS["pyproject.toml"])["project"]["entry-points"]
    write_package(tmp_path, BLOCKS["acme_models.py"], entries["topbill.policies"])
    experiments = tmp_path / "experiments"
    experiments.mkdir()
    for name in ("sent", "own"):
        (experiments / f"{name}.yaml").write_text(BLOCKS[f"experiments/{name}.yaml"])
    with on_the_path(tmp_path):
        yield experiments


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    with LocalClient(create_app(Settings(folder, tmp_path / "data"))) as client:
        yield client


def test_scores_that_are_sent_are_explored(client: TestClient) -> None:
    (request,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    reasons = {}
    for n in range(20):
        body = msgspec.json.decode(request) | {"unit": f"p-{n}"}
        answer = client.post("/v1/decide", json=body).json()
        reasons[answer["variant"]] = answer["reason"]
        assert len(answer["slate"]) == 2
    assert reasons == {"as-sent": "policy", "scored": "policy"}


def test_the_package_of_the_page_learns_and_is_verified(
    client: TestClient, folder: Path, tmp_path: Path
) -> None:
    for n in range(40):
        body = {"experiment": "own", "unit": f"p{n}", "decision_id": f"d{n}"}
        answer = client.post("/v1/decide", json=body).json()
        assert answer["reason"] == "policy"
        if answer["slate"][0]["action"] == "skyline":
            client.post("/v1/reward", json={"decision_id": f"d{n}", "event": "play"})
    time.sleep(1.1)
    worker = Worker(folder, tmp_path / "data")
    experiment = next(e for e in spec.load_all([folder]) if e.key == "own")
    try:
        worker.step()
        assert dict(worker.learner.failures) == {}
        told = verify(worker._log, experiment, reader(tmp_path / "data"))
        assert told.comparisons["ours"].same
        assert told.engines == {"ours": "acme-models 1.2"}
        assert told.snapshot.states["ours"] == told.states["ours"]
    finally:
        worker.finish()


def test_the_signal_of_the_page_scores_titles(tmp_path: Path) -> None:
    entries = tomllib.loads(BLOCKS["signals.toml"])["project"]["entry-points"]["topbill.signals"]
    write_package(tmp_path, "", entries, "topbill.signals")
    (tmp_path / "acme_signals.py").write_text(BLOCKS["acme_signals.py"])
    titles = PageTitles(("a", "b", "c"), ("A", "B", "C"), (1979, 1981, 2009), ((), (), ()))
    with on_the_path(tmp_path):
        row = SignalRow("same-decade", {}, titles)
        allowed = np.array([False, True, True])
        assert row.best(PageViewer((0,), "us", {}, 0.0), allowed) == {1: -2.0, 2: -30.0}
        assert row.best(PageViewer((), "us", {}, 0.0), allowed) == {}


def test_a_model_file_is_taken_over_and_a_broken_one_is_not(
    client: TestClient, folder: Path
) -> None:
    pytest.importorskip("onnxruntime")
    file = folder / "models" / "ranker.onnx"
    file.parent.mkdir()
    file.write_bytes(linear([0.0, 0.0, 1.0, 0.0]))
    (folder / "ranked.yaml").write_text(BLOCKS["experiments/ranked.yaml"])

    def first() -> set[tuple[str, str]]:
        """First titles that the model's viewers see, but for chance, and why."""
        seen: list[tuple[str, str]] = []
        for n in range(40):
            answer = client.post("/v1/decide", json={"experiment": "ranked", "unit": f"p{n}"})
            if answer.is_success and answer.json()["variant"] == "ranker":
                seen.append((answer.json()["slate"][0]["action"], answer.json()["reason"]))
        return {each for each in seen if seen.count(each) > len(seen) / 4}

    def problems() -> list[dict[str, str]]:
        return client.get("/v1/experiments").json()["problems"]

    _wait_for(lambda: first() == {("up", "policy")})
    revision = client.get("/v1/experiments/ranked").json()["revision"]
    file.write_bytes(b"half of a model")
    _wait_for(problems)
    assert first() == {("up", "policy")}
    assert problems()[0]["path"] == "variants.ranker.onnx"
    assert "models/ranker.onnx: no ONNX model" in problems()[0]["message"]
    assert client.get("/readyz").json()["problems"] == [{"file": "ranked.yaml"}]
    file.write_bytes(linear([0.0, 0.0, -1.0, 0.5]))
    _wait_for(lambda: not problems())
    assert ("up", "policy") not in first()
    assert client.get("/v1/experiments/ranked").json()["revision"] != revision


def _wait_for(holds: Callable[[], Any]) -> None:
    """Until it holds: the service looks at its files every 0.3 s."""
    end = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)
