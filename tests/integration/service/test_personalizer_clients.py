"""Microsoft's own clients of Personalizer, unchanged, against a live service: they rank, reward,
and choose better.

The Node client is tested where `TOPBILL_NODE_MODULES` names a folder with a `node_modules` that
holds it:

    npm install --prefix FOLDER @azure-rest/ai-personalizer
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from topbill import spec
from topbill.cli.supervise import Processes, commands, free_port
from topbill.simulation.environment import Environment

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[3]
ROUNDS = 2_000
LONG_OR_SHORT = pytest.mark.parametrize(
    "rounds", [40, pytest.param(ROUNDS, marks=pytest.mark.slow)]
)


@pytest.fixture
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service and a worker over the shipped example and nothing else, who have learned nothing
    yet.
    """
    folder = tmp_path_factory.mktemp("personalizer")
    (folder / "experiments").mkdir()
    shutil.copy(ROOT / "experiments" / "personalizer.yaml", folder / "experiments")
    port = free_port("127.0.0.1", 0)
    with Processes() as processes:
        where = str(folder / "experiments"), str(folder / "data")
        for name, command in commands(*where, "127.0.0.1", port).items():
            if name in ("service", "worker"):
                processes.start(name, *command)
        processes.wait_until(f"http://127.0.0.1:{port}/healthz", 300.0)
        yield f"http://127.0.0.1:{port}"


def simulated(rounds: int, seed: int) -> dict[str, Any]:
    """Viewers of the artwork example as a Personalizer application would send them, and what they
    would play.
    """
    world = Environment(spec.load(ROOT / "experiments" / "home-artwork.yaml"), seed)
    actions = [{"id": a.id, "features": [a.features]} for a in world.experiment.actions]
    visits = []
    for number in range(rounds):
        visit = world.visit(number)
        play = world.truth(visit).play
        # Plays are rare in that world; here everybody is three times as keen, so that 2,000 rounds
        # can show learning.
        truth = {a["id"]: min(1.0, 3.0 * float(p)) for a, p in zip(actions, play, strict=True)}
        visits.append(
            {"context": [{"viewer": visit.context}], "truth": truth, "luck": float(visit.luck[0])}
        )
    return {"actions": actions, "rounds": visits}


def wait_until_learned(endpoint: str) -> None:
    """Until no new policy has come for 3 s: how fast a worker is beside other work is not what is
    tested here.
    """
    version, since = 0, time.monotonic()
    while version == 0 or time.monotonic() - since < 3.0:
        (served,) = httpx.get(f"{endpoint}/v1/experiments").json()["experiments"]
        if served["policy_version"] != version:
            version, since = served["policy_version"], time.monotonic()
        time.sleep(0.1)


def check_improvement(simulation: dict[str, Any], chosen: list[str]) -> None:
    """After 2,000 rounds, the last quarter's choices are nearer to the best than the first's: a
    fifth of the way from a uniform choice at least (seen: half). Says nothing of fewer rounds."""
    parts = []
    for quarter in (slice(0, ROUNDS // 4), slice(-ROUNDS // 4, None)):
        if len(chosen) < ROUNDS:
            return
        truths = [round_["truth"] for round_ in simulation["rounds"][quarter]]
        got = np.mean(
            [truth[action] for truth, action in zip(truths, chosen[quarter], strict=True)]
        )
        even = np.mean([np.mean(list(truth.values())) for truth in truths])
        best = np.mean([max(truth.values()) for truth in truths])
        parts.append(float((got - even) / (best - even)))
    print(f"towards the best: {parts[0]:.0%} in the first quarter, {parts[1]:.0%} in the last")
    assert parts[1] > max(0.2, parts[0])


@LONG_OR_SHORT
def test_the_python_client_ranks_rewards_and_sees_improvement(endpoint: str, rounds: int) -> None:
    models = pytest.importorskip(
        "azure.cognitiveservices.personalizer.models", reason="Microsoft's client, a dev extra"
    )
    from azure.cognitiveservices.personalizer import PersonalizerClient
    from msrest.authentication import CognitiveServicesCredentials

    client = PersonalizerClient(
        endpoint, CognitiveServicesCredentials("any key will do on loopback")
    )
    simulation = simulated(rounds, seed=1)
    actions = [
        models.RankableAction(id=a["id"], features=a["features"]) for a in simulation["actions"]
    ]
    chosen = []
    for number, visit in enumerate(simulation["rounds"]):
        if number == 3 * ROUNDS // 4:
            wait_until_learned(endpoint)
        event_id = f"python/{rounds}/{number}"
        request = models.RankRequest(
            actions=actions, context_features=visit["context"], event_id=event_id
        )
        ranked = client.rank(request)
        assert ranked.event_id == event_id
        assert sum(a.probability for a in ranked.ranking) == pytest.approx(1.0)
        chosen.append(ranked.reward_action_id)
        client.events.reward(event_id, float(visit["luck"] < visit["truth"][chosen[-1]]))
    check_improvement(simulation, chosen)


def test_the_python_client_defers_excludes_and_is_refused(endpoint: str) -> None:
    models = pytest.importorskip(
        "azure.cognitiveservices.personalizer.models", reason="Microsoft's client, a dev extra"
    )
    from azure.cognitiveservices.personalizer import PersonalizerClient
    from msrest.authentication import CognitiveServicesCredentials
    from msrest.exceptions import HttpOperationError

    client = PersonalizerClient(
        endpoint, CognitiveServicesCredentials("any key will do on loopback")
    )
    actions = [
        models.RankableAction(id=name, features=[{"type": name}])
        for name in ("news", "sports", "film")
    ]
    request = models.RankRequest(
        actions=actions, excluded_actions=["sports"], event_id="later", defer_activation=True
    )
    ranked = client.rank(request)
    assert [a.id for a in ranked.ranking].index("sports") == 1
    assert ranked.ranking[1].probability == 0.0
    assert client.rank(request).reward_action_id == ranked.reward_action_id
    client.events.activate("later")
    client.events.reward("later", 1.0)
    with pytest.raises(models.ErrorResponseException, match="InvalidRankRequest"):
        client.rank(models.RankRequest(actions=[]))
    with pytest.raises(HttpOperationError) as unknown:
        client.events.reward("never ranked", 1.0)
    assert unknown.value.response.status_code == 404


@LONG_OR_SHORT
def test_the_node_client_ranks_rewards_and_sees_improvement(
    endpoint: str, rounds: int, tmp_path: Path
) -> None:
    node, modules = shutil.which("node"), os.environ.get("TOPBILL_NODE_MODULES")
    if node is None or modules is None:
        pytest.skip(
            "needs node, and TOPBILL_NODE_MODULES naming the folder "
            "that @azure-rest/ai-personalizer is in"
        )
    simulation = simulated(rounds, seed=2)
    (tmp_path / "rounds.json").write_text(json.dumps(simulation))
    script = Path(__file__).with_name("personalizer_rounds.mjs")
    command = [node, str(script), modules, endpoint, str(tmp_path / "rounds.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["statuses"] == ["201", "204", "204", "400"]
    assert [slot["id"] for slot in told["multi"]["slots"]] == ["slot 0", "slot 1"]
    assert told["refused"]["error"]["code"] == "InvalidRankRequest"
    check_improvement(simulation, told["chosen"])
