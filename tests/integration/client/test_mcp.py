"""What an agent gets done by tool calls alone, over MCP: twenty tasks against a small record."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.worker.loop import Worker

from ...local_client import LocalClient

mcp = pytest.importorskip("mcp", reason="the extra mcp")
_FILE = """experiment: art
title: Artwork
owner: discovery
hypothesis: Faces win.
surface: artwork
unit: profile_id
context:
  device: {type: category, values: [tv, web]}
actions: [{id: face}, {id: chase}]
metrics:
  play: {event: play, kind: binary, window: 60s}
objective: {play: 1.0}
variants:
  control: {policy: fixed, order: [face, chase], share: 50%, control: true}
  chance: {policy: uniform, share: 50%}
"""
_MISTAKE = _FILE.replace("kind: binary", "kind: binery")
_HALF = _FILE.replace("traffic", "").replace("unit: profile_id", "unit: profile_id\ntraffic: 50%")
Call = Callable[..., tuple[bool, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiments and a record of 80 decisions."""
    folder = tmp_path_factory.mktemp("agents")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "art.yaml").write_text(_FILE)
    settings = Settings(folder / "experiments", folder / "data")
    with LocalClient(create_app(settings)) as client:
        for number in range(80):
            request = {
                "experiment": "art",
                "unit": f"viewer-{number}",
                "decision_id": f"shown-{number}",
                "context": {"device": ("tv", "web")[number % 2]},
            }
            assert client.post("/v1/decide", json=request).status_code == 200
            if number % 3 == 0:
                reward = {"decision_id": f"shown-{number}", "event": "play"}
                assert client.post("/v1/reward", json=reward).status_code == 200
    worker = Worker(settings.experiments, settings.data)
    worker.step()
    worker.close()
    return folder


@pytest.fixture(scope="module")
def call(folder: Path) -> Iterator[Call]:
    """Calls a tool of a server in a process of its own: whether it failed, and what it said."""
    arguments = ["-m", "topbill", "mcp", "--experiments", str(folder / "experiments")]
    arguments += ["--data", str(folder / "data"), "--proposals", str(folder / "proposals")]
    parameters = mcp.StdioServerParameters(
        command=sys.executable, args=arguments, env=dict(os.environ)
    )
    loop = asyncio.new_event_loop()
    ready: Future[Any] = Future()

    async def serve() -> None:
        ended = asyncio.Event()
        async with mcp.Client(parameters) as client:
            ready.set_result((client, ended))
            await ended.wait()

    thread = Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    client, ended = ready.result(120)

    def call(tool: str, /, **arguments: Any) -> tuple[bool, str]:
        asked = asyncio.run_coroutine_threadsafe(client.call_tool(tool, arguments), loop)
        result = asked.result(300)
        return bool(result.is_error), "".join(part.text for part in result.content)

    yield call
    loop.call_soon_threadsafe(ended.set)
    thread.join(60)
    loop.close()


def _got(answer: tuple[bool, str]) -> Any:
    failed, text = answer
    assert not failed, text
    return json.loads(text)


def test_find_what_there_is(call: Call) -> None:
    assert _got(call("list_files")) == ["art.yaml"]
    failed, text = call("read_file", name="art.yaml")
    assert (failed, text) == (False, _FILE)


def test_learn_how_a_file_is_written(call: Call) -> None:
    assert "objective" in json.dumps(_got(call("schema")))
    assert "rows" in json.dumps(_got(call("schema", of="page")))


def test_see_whether_all_is_well(call: Call) -> None:
    assert "art" in json.dumps(_got(call("status")))


def test_say_which_variant_wins_and_how_sure(call: Call) -> None:
    report = _got(call("report", key="art"))
    assert report["decisions"] == 80
    assert "chance" in json.dumps(report)
    assert _got(call("report", key="art", method="bayes"))["decisions"] == 80


def test_compare_with_another_variant_than_the_control(call: Call) -> None:
    analysis = _got(call("report", key="art", against="chance"))["ab"]
    assert analysis["control"] == "chance"
    assert {each["variant"] for each in analysis["comparisons"]} == {"control"}


def test_say_whether_units_were_split_as_intended(call: Call) -> None:
    ratio = _got(call("report", key="art"))["ab"]["sample_ratio"]
    assert ratio["alarm"] is False
    assert ratio["shares"] == {"control": 0.5, "chance": 0.5}
    assert sum(ratio["counts"].values()) == 80


def test_tell_what_one_viewer_saw_and_did(call: Call) -> None:
    query = (
        "SELECT d.decision_id, p.action, count(r.event) AS plays FROM decisions d "
        "JOIN placements p USING (decision_id) LEFT JOIN rewards r USING (decision_id) "
        "WHERE d.unit = 'viewer-3' GROUP BY ALL"
    )
    [row] = _got(call("sql", query=query))
    assert row["decision_id"] == "shown-3"
    assert row["action"] in ("face", "chase")
    assert row["plays"] == 1


def test_be_told_that_there_is_no_such_experiment(call: Call) -> None:
    failed, text = call("report", key="arts")
    assert failed
    assert "art" in text


def test_count_what_was_shown_by_device(call: Call) -> None:
    query = (
        "SELECT context->>'device' AS device, count(*) AS n FROM decisions GROUP BY 1 ORDER BY 1"
    )
    rows = _got(call("sql", query=query))
    assert [(row["device"], row["n"]) for row in rows] == [("tv", 40), ("web", 40)]


@pytest.mark.parametrize(
    "query", ["DELETE FROM decisions", "SELECT * FROM read_csv('/etc/passwd')", "SELECT nothing"]
)
def test_a_query_reads_the_record_and_nothing_else(call: Call, query: str) -> None:
    failed, text = call("sql", query=query)
    assert failed
    assert text
    assert "root:" not in text


def test_explain_a_decision(call: Call) -> None:
    found = _got(call("explain_decision", decision_id="shown-0"))
    assert found["experiment"] == "art"
    assert found["slate"][0]["propensity"] in (0.5, 1.0)
    assert [reward["event"] for reward in found["rewards"]] == ["play"]
    failed, text = call("explain_decision", decision_id="--help")
    assert failed
    assert "is not in the log" in text


def test_say_what_another_policy_would_have_earned(call: Call) -> None:
    value = _got(call("evaluate", key="art", policy="uniform"))
    assert "uniform" in json.dumps(value)
    failed, text = call("evaluate", key="art", policy="../../secret.yaml@a")
    assert failed
    assert "file of the folder" in text


def test_check_the_folder(call: Call) -> None:
    failed, text = call("validate")
    assert not failed
    assert "valid" in text


def test_find_a_mistake_before_it_is_made(call: Call) -> None:
    failed, text = call("validate", changes={"art.yaml": _MISTAKE})
    assert not failed
    assert text.startswith("invalid art.yaml")
    assert "binery" in text


def test_plan_half_the_traffic(call: Call) -> None:
    plan = _got(call("plan", changes={"art.yaml": _HALF}))
    assert "traffic" in json.dumps(plan)


def test_try_an_experiment_on_simulated_viewers(call: Call) -> None:
    lines = _got(call("simulate", name="art.yaml", rounds=200))
    assert {line["variant"] for line in lines} >= {"control", "chance"}
    failed, text = call("simulate", name="art.yaml", rounds=10**9)
    assert failed
    assert "20,000" in text


def test_try_one_that_is_not_written_yet(call: Call, folder: Path) -> None:
    text = _FILE.replace("experiment: art", "experiment: other")
    assert _got(call("simulate", name="other.yaml", text=text, rounds=100))
    assert not (folder / "experiments" / "other.yaml").exists()


def test_propose_a_change_that_a_person_applies(call: Call, folder: Path) -> None:
    # When a change is proposed
    proposal = _got(call("propose_change", name="art.yaml", text=_HALF, why="Half is enough."))

    # Then the file is as it was, and the difference leads to the text
    assert (folder / "experiments" / "art.yaml").read_text() == _FILE
    assert proposal["difference"].startswith("# Half is enough.\n--- a/art.yaml\n+++ b/art.yaml\n")
    assert "+traffic: 50%\n" in proposal["difference"]
    assert "valid" in proposal["checks"]
    assert Path(proposal["file"]).read_text() == proposal["difference"]


def test_propose_a_new_file(call: Call, folder: Path) -> None:
    text = _FILE.replace("experiment: art", "experiment: new")
    proposal = _got(call("propose_change", name="new.yaml", text=text, why="A second one."))
    assert "--- /dev/null\n+++ b/new.yaml\n" in proposal["difference"]
    assert not (folder / "experiments" / "new.yaml").exists()


@pytest.mark.parametrize("name", ["../secret.yaml", "/etc/passwd", "art.py", ".hidden.yaml", ""])
@pytest.mark.parametrize("tool", ["read_file", "propose_change", "validate"])
def test_no_file_outside_the_folder_is_touched(
    call: Call, folder: Path, tool: str, name: str
) -> None:
    given: dict[str, Any] = {
        "read_file": {"name": name},
        "propose_change": {"name": name, "text": "x", "why": ""},
        "validate": {"changes": {name: "x"}},
    }[tool]
    failed, text = call(tool, **given)
    assert failed
    assert "expected" in text
    assert not (folder / "secret.yaml").exists()


def test_there_are_twenty_tasks() -> None:
    named = [thing for name, thing in globals().items() if name.startswith("test_")]
    assert sum("call" in inspect.signature(task).parameters for task in named) == 20


def test_every_tool_says_that_it_changes_nothing(folder: Path) -> None:
    from topbill.cli.agents import Tools, server_of

    tools = asyncio.run(server_of(Tools(folder / "experiments", folder / "data")).list_tools())
    assert len(tools) == 12
    for tool in tools:
        assert tool.description
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is True
