"""What the pages and examples tell people to run, run against a live service."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from topbill import spec
from topbill.cli.supervise import free_port
from topbill.formats import registry

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
ADDRESS = "http://127.0.0.1:8600"
PAGES = ("clients", "openfeature", "from-personalizer", "from-an-ab-tool", "ten-minutes-service")


def blocks(page: str, language: str) -> list[str]:
    """The page's blocks in that language."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)


def shell(text: str, folder: Path) -> str:
    """Run commands as a reader would, with `topbill` on the path; any that fails fails the test."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _documents(text: str) -> list[Any]:
    """JSON documents that stand one behind the other."""
    decoder, documents = json.JSONDecoder(), []
    while text:
        document, end = decoder.raw_decode(text)
        documents.append(document)
        text = text[end:].lstrip()
    return documents


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(
    page: str,
    service: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if page == "from-personalizer":
        pytest.importorskip(
            "azure.cognitiveservices.personalizer",
            reason="Microsoft's client, a development dependency",
        )
    if page == "openfeature":
        pytest.importorskip("openfeature", reason="OpenFeature's client, a development dependency")
    monkeypatch.chdir(tmp_path)
    old = ["user_id,arm,converted,country,exposed_at"]
    old += [
        f"u{i},{('control', 'treatment')[i % 2]},{int(i % 7 == 0)},se,2026-01-01T00:00:00Z"
        for i in range(140)
    ]
    (tmp_path / "old-test.csv").write_text("\n".join(old) + "\n")
    code = blocks(page, "python")
    assert code
    for block in code:
        exec(compile(block.replace(ADDRESS, service), f"docs/{page}.md", "exec"), {})  # noqa: S102
    if page == "from-an-ab-tool":
        told = shell(blocks(page, "sh")[0], tmp_path)
        assert "140 rows, each a unit of its own" in told
        assert "Against control" in told
        told = shell(blocks(page, "sh")[1], tmp_path)
        assert "140 decisions" in told
        assert "control" in told
        assert "treatment" in told
    else:
        told = capsys.readouterr().out
        assert told.strip()
        assert page != "clients" or "picked-for-you [('" in told, (
            "the service's page, not the default"
        )


@pytest.mark.parametrize("page", ["clients", "from-personalizer"])
def test_the_curl_of_a_page_gets_answers(page: str, service: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    (text,) = blocks(page, "sh")
    out = shell(
        text.replace(ADDRESS, service).replace("curl -s", "curl -sS --fail-with-body -w '\\n'"),
        tmp_path,
    )
    answers = [json.loads(line) for line in out.splitlines() if line.strip()]
    assert len(answers) >= 2
    assert not any("error" in answer for answer in answers)


def test_the_flags_of_the_page_are_evaluated_and_rewarded(service: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    evaluate, reward = [text.replace(ADDRESS, service) for text in blocks("openfeature", "sh")]
    one, every = _documents(shell(evaluate, tmp_path))
    assert one["key"] == "home-artwork"
    assert {flag["key"] for flag in every["flags"]} > {"home-artwork", "home-titles"}
    said = shell(reward.replace("DECISION", one["metadata"]["decisionId"]), tmp_path)
    assert json.loads(said)["status"] == "stored"


def test_what_the_page_sends_on_is_stored(service: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    (text,) = blocks("events-from-other-tools", "sh")
    answers = _documents(shell(text.replace(ADDRESS, service), tmp_path))
    assert [result["status"] for one in answers for result in one["results"]] == ["stored"] * 2


def test_the_page_on_logs_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {
        "c": {"viewer": {"device": "tv"}, "_multi": [{"_tag": "a"}, {"_tag": "b"}]},
        "p": [0.5, 0.5],
    }
    rows = [
        {**line, "EventId": f"e{i}", "a": [1 + i % 2, 2 - i % 2], "_label_cost": -(i % 4 == 0)}
        for i in range(80)
    ]
    (tmp_path / "log.dsjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = "".join(shell(block, tmp_path) for block in blocks("in-and-out", "sh"))
    assert told.count("80 decisions") == 5
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("in-and-out", "python")
    exec(compile(code, "docs/in-and-out.md", "exec"), {})  # noqa: S102
    assert "always the first action: 0.500" in capsys.readouterr().out, (
        "20 of 80 rewarded, each at propensity 0.5"
    )
    names = "|".join(
        re.findall(r"^\|[^|]*\| (`[^|]*`) \|", (DOCS / "in-and-out.md").read_text(), re.MULTILINE)
    )
    assert set(re.findall("`([a-z-]+)`", names)) == set(registry.FORMATS)


def test_the_experiment_files_of_the_pages_are_valid(tmp_path: Path) -> None:
    first, second = blocks("from-an-ab-tool", "yaml")
    (tmp_path / "one.yaml").write_text(first)
    assert [v.policy for v in spec.load(tmp_path / "one.yaml").variants] == ["fixed", "fixed"]
    (tmp_path / "two.yaml").write_text(first[: first.index("variants:")] + second)
    assert [v.share for v in spec.load(tmp_path / "two.yaml").variants] == [0.45, 0.45, 0.1]
    (metrics,) = blocks("from-personalizer", "yaml")
    text = (ROOT / "experiments" / "personalizer.yaml").read_text()
    start, end = text.index("metrics:"), text.index("objective:")
    (tmp_path / "three.yaml").write_text(text[:start] + metrics + text[end:])
    (metric,) = spec.load(tmp_path / "three.yaml").metrics
    assert (metric.kind, metric.window) == ("sum", 600.0)


def load(name: str) -> Any:
    """A module among the examples."""
    found = importlib.util.spec_from_file_location(name, DOCS / "examples" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def check(get: Any, post: Any) -> None:
    """An example's service shows a picture that Topbill chose, and passes the click on. Where the
    machine is busy a decision may miss its deadline, and the default is shown."""
    for _ in range(200):
        shown = get("/artwork/profile-7?device=web")
        if not shown["fallback"]:
            break
        time.sleep(0.05)
    assert shown["fallback"] is False
    assert shown["picture"]
    post(f"/played/{shown['decision']}")


def test_the_fastapi_example_works(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    monkeypatch.setenv("TOPBILL", service)
    with TestClient(load("fastapi_app").app) as client:
        check(lambda path: client.get(path).json(), lambda path: client.post(path).json())
        topbill = client.app.state.topbill  # type: ignore[attr-defined]
    assert (topbill.delivered.stored, topbill.delivered.waiting) == (1, 0)


def test_the_flask_example_works(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flask", reason="Flask is no dependency of Topbill's")
    monkeypatch.setenv("TOPBILL", service)
    module = load("flask_app")
    client = module.app.test_client()
    check(lambda path: client.get(path).json, lambda path: client.post(path).json)
    module.topbill.close()
    assert module.topbill.delivered.stored == 1


@contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[httpx.Client]:
    """An example's own process, and a client for it once it listens."""
    with subprocess.Popen(command, env=os.environ | environment) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                for _ in range(400):
                    try:
                        client.get("/artwork/someone")
                        break
                    except httpx.TransportError:
                        time.sleep(0.05)
                yield client
        finally:
            process.terminate()


def test_the_django_example_works(service: str) -> None:
    pytest.importorskip("django", reason="Django, a development dependency, is missing: NOT tested")
    port = free_port("127.0.0.1", 0)
    app = [str(DOCS / "examples" / "django_app.py"), "runserver", "--noreload", str(port)]
    with running([sys.executable, *app], port, TOPBILL=service) as client:
        check(lambda path: client.get(path).json(), lambda path: client.post(path).json())
        decision = client.get("/artwork/profile-8").json()["decision"]
        client.post(f"/played/{decision}")
        for _ in range(100):
            stored = httpx.get(f"{service}/v1/decisions/{decision}").json()["rewards"]
            if stored:
                break
            time.sleep(0.05)
        assert [event["event"] for event in stored] == ["play"]


def test_the_node_example_works(service: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    port = free_port("127.0.0.1", 0)
    command = [node, str(DOCS / "examples" / "node_app.mjs")]
    with running(command, port, TOPBILL=service, PORT=str(port)) as client:
        check(lambda path: client.get(path).json(), lambda path: client.get(path).json())
        assert client.get("/played/never").json()["status"] == "unknown_decision"
