"""What docs/own-catalogue.md shows, run as it stands there."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.local_client import LocalClient

from topbill.cli import app
from topbill.service.app import create_app
from topbill.service.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "own-catalogue.md").read_text()
FILES = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
"""What the page shows of each file, by its name."""
COMMANDS = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)


def run(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command of the page prints. Any that fails fails the test."""
    assert command in COMMANDS
    app(shlex.split(command)[1:], result_action="return_value")
    return " ".join(capsys.readouterr().out.split())


class Curl:
    """The page's calls, each sent as its curl line says."""

    def __init__(self, client: LocalClient) -> None:
        self._client = client

    def __call__(self, path: str, **changed: Any) -> dict[str, Any]:
        line = next(line for line in COMMANDS if path in line and line.startswith("curl"))
        words = shlex.split(line)
        body = msgspec.json.decode(words[words.index("-d") + 1]) | changed
        method = words[words.index("-X") + 1] if "-X" in words else "POST"
        answer = self._client.request(method, path, json=body)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        # However busy the machine is, nothing falls back here.
        (tmp_path / name).write_text(re.sub("^(page|experiment):", r"budget_ms: 9000\n\1:", text))
    told = run("topbill validate experiments", capsys)
    assert told.count("valid ") == 3
    assert "invalid" not in told
    assert "PG-13" in told
    assert "1 of 13 titles name no region" in told
    assert "the age of 1 of 13 titles is unknown" in told
    assert "7 events of 7 rows" in run("topbill import events plays.csv --data data", capsys)

    with LocalClient(create_app(Settings(tmp_path / "experiments", tmp_path / "data"))) as client:
        curl = Curl(client)
        assert curl("/v1/profiles/noah")["kids"] is True
        page = _page_that_knows(curl, "mia")
        titles = _titles(page)
        assert titles
        assert not titles & {"alien", "arrival", "drive", "moon", "fargo", "solaris"}
        assert page["fallbacks"] == []
        kids = _titles(_page_that_knows(curl, "noah"))
        assert kids <= {"paddington", "babe", "clue"}
        assert kids

        why = client.get(f"/v1/pages/{page['page_id']}/why", params={"title": "drive"}).text
        assert "disliked" in why
        shown = page["rows"][0]["titles"][0]["title"]
        curl("/v1/reward", decision_id=page["page_id"], action=shown)
        curl("/v1/event")
        end = time.monotonic() + 20.0
        while _titles(curl("/v1/page")) & {shown, "heat"}:
            assert time.monotonic() < end
            time.sleep(0.2)


def _page_that_knows(curl: Curl, profile: str) -> dict[str, Any]:
    """The profile's page, once the service has read the history, which takes it a moment."""
    end = time.monotonic() + 20.0
    while True:
        page = curl("/v1/page", profile=profile)
        if not _titles(page) & {"alien", "arrival", "up", "coco"} or time.monotonic() > end:
            return page
        time.sleep(0.2)


def _titles(page: dict[str, Any]) -> set[str]:
    return {tile["title"] for row in page["rows"] for tile in row["titles"]}
