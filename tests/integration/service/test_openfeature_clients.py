"""The OpenFeature project's own OFREP providers, unchanged, against a live service.

Those for Node and the web are tested where `TOPBILL_NODE_MODULES` names a folder that holds them:
`.ci/clients FOLDER` installs them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from topbill.cli.supervise import Processes, commands, free_port
from topbill.log import open_log
from topbill.service.settings import Settings
from topbill_client import Client

_EXPERIMENT = """
experiment: {key}
surface: artwork
unit: profile_id
context:
  device: {{type: category, values: [tv, web]}}
actions: [{{id: one, payload: {payload}}}, {{id: two, payload: {payload}}}]
metrics:
  play: {{event: play, kind: binary, window: 30m}}
objective: {{play: 1.0}}
variants:
  control: {{policy: uniform, share: 50%, control: true}}
  other: {{policy: uniform, share: 50%}}
"""
_PAYLOADS = {
    "picture": "{image: a.svg}",
    "text": "hello",
    "switch": "true",
    "number": "0.5",
    "whole": "3",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Settings]]:
    """Where a service of five experiments answers, and over which folders."""
    folder = tmp_path_factory.mktemp("openfeature")
    settings = Settings(folder / "experiments", folder / "data")
    settings.experiments.mkdir()
    for key, payload in _PAYLOADS.items():
        text = _EXPERIMENT.format(key=key, payload=payload)
        (settings.experiments / f"{key}.yaml").write_text(text)
    port = free_port("127.0.0.1", 0)
    where = str(settings.experiments), str(settings.data)
    with Processes() as processes:
        started = commands(*where, "127.0.0.1", port)
        processes.start("service", *started["service"])
        processes.wait_until(f"http://127.0.0.1:{port}/readyz", 300.0)
        yield f"http://127.0.0.1:{port}", settings


def test_the_python_provider_evaluates_and_tracks(service: tuple[str, Settings]) -> None:
    endpoint, settings = service
    api = pytest.importorskip("openfeature.api", reason="OpenFeature's client, a dev extra")
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.exception import ErrorCode
    from openfeature.track import TrackingEventDetails

    from topbill_client.openfeature import TopbillProvider

    # Given the provider, and a viewer
    topbill = Client(endpoint)
    api.set_provider(TopbillProvider(endpoint, topbill))
    flags = api.get_client()
    viewer = EvaluationContext("mia", {"device": "tv", "email": "mia@example.org"})

    # When flags of every type are evaluated
    picture = flags.get_object_details("picture", {}, viewer)
    text = flags.get_string_details("text", "default", viewer)

    # Then each has its value, and what was decided
    assert picture.value == {"image": "a.svg"}
    assert picture.variant in ("one", "two")
    assert picture.flag_metadata["propensity"] == 0.5
    assert text.value == "hello"
    assert flags.get_boolean_value("switch", False, viewer) is True
    assert flags.get_float_value("number", 0.0, viewer) == 0.5
    assert flags.get_integer_value("whole", 0, viewer) == 3

    # And what cannot be evaluated has the application's default, and says why
    absent = flags.get_string_details("absent", "default", viewer)
    wrong = flags.get_string_details("text", "default", EvaluationContext("mia", {"device": 3}))
    nobody = flags.get_string_details("text", "default", EvaluationContext(attributes={}))
    told = [(one.value, one.error_code) for one in (absent, wrong, nobody)]
    assert told == [
        ("default", ErrorCode.FLAG_NOT_FOUND),
        ("default", ErrorCode.INVALID_CONTEXT),
        ("default", ErrorCode.TARGETING_KEY_MISSING),
    ]

    # And an event that is tracked is a durable reward of what was shown, of one flag where it says
    flags.track("play", viewer, TrackingEventDetails(0.8).add("flag", "picture"))
    flags.track("home", viewer)
    assert topbill.flush(30.0)
    topbill.close()
    with closing(open_log(settings.log_path)) as log:
        pictured = log.events(str(picture.flag_metadata["decisionId"]))
        texted = log.events(str(text.flag_metadata["decisionId"]))
    assert [(event.event, event.value) for event in pictured] == [("play", 0.8), ("home", 1.0)]
    assert [event.event for event in texted] == ["home"]


def _node(endpoint: str) -> dict[str, Any]:
    node, modules = shutil.which("node"), os.environ.get("TOPBILL_NODE_MODULES")
    if node is None or modules is None:
        pytest.skip("needs node, and TOPBILL_NODE_MODULES: .ci/clients FOLDER prints it")
    script = Path(__file__).with_name("openfeature_flags.mjs")
    command = [node, str(script), modules, endpoint]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answered: dict[str, Any] = json.loads(done.stdout)
    return answered


def test_the_javascript_providers_evaluate(service: tuple[str, Settings]) -> None:
    endpoint, settings = service

    # When the providers of the server and of the web evaluate flags of every type
    answered = _node(endpoint)
    server, web = answered["server"], answered["web"]

    # Then each has its value, or the application's default and the reason why
    values = {name: one["value"] for name, one in server.items()}
    assert values == {
        "object": {"image": "a.svg"},
        "text": "hello",
        "flag": True,
        "number": 0.5,
        "absent": "default",
        "wrong": "default",
        "nobody": "default",
    }
    codes = [server[name]["errorCode"] for name in ("absent", "wrong", "nobody")]
    assert codes == ["FLAG_NOT_FOUND", "INVALID_CONTEXT", "TARGETING_KEY_MISSING"]
    assert web["before"]["value"] == web["after"]["value"] == {"image": "a.svg"}
    assert web["text"]["reason"] == "SPLIT"
    assert web["absent"]["errorCode"] == "FLAG_NOT_FOUND"

    # And what the server asked for is a decision, what the web page did is one once it is shown
    asked = server["object"]["flagMetadata"]["decisionId"]
    before, after = (web[when]["flagMetadata"]["decisionId"] for when in ("before", "after"))
    assert before != after
    told = httpx.post(f"{endpoint}/v1/reward", json={"decision_id": after, "event": "seen"})
    assert told.json()["status"] == "stored"
    with closing(open_log(settings.log_path)) as log:
        stored = [log.decision(each) is not None for each in (asked, before, after)]
    assert stored == [True, False, True]
