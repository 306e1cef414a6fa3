"""What docs/running.md says of metrics and of the record is there under those names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.worker.loop import Worker

from ...local_client import LocalClient
from ...processes import topbill

PAGE = (Path(__file__).parents[3] / "docs" / "running.md").read_text()


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    with LocalClient(create_app(Settings(folder, tmp_path / "data"))) as client:
        yield client


def test_every_metric_has_its_line_and_no_other_is_named(client: TestClient) -> None:
    told = set(re.findall(r"^\| `(topbill_\w+)`", PAGE, re.MULTILINE))
    there = set(
        re.findall(
            r"^# TYPE (topbill_\w+)(?<!_created) ", client.get("/metrics").text, re.MULTILINE
        )
    )
    assert told == there


def test_every_address_answers(client: TestClient) -> None:
    addresses = set(re.findall(r"`GET (/\S+)`", PAGE))
    assert {"/healthz", "/readyz", "/metrics", "/v1/experiments"} <= addresses
    assert {client.get(address).status_code for address in addresses} == {200}


def test_the_queries_run(client: TestClient, folder: Path, tmp_path: Path) -> None:
    worker = Worker(folder, tmp_path / "data")
    worker.step()
    worker.finish()
    queries = [
        double or single
        for double, single in re.findall(r"topbill sql (?:\"([^\"]+)\"|'([^']+)')", PAGE)
    ]
    assert len(queries) == 3
    for query in queries:
        assert topbill("sql", query, "--data", tmp_path / "data").returncode == 0, query
