"""Variants in shadow over HTTP, in the record, and as targets of an evaluation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from topbill.domain.errors import BadData, NotFound
from topbill.domain.patience import Patience
from topbill.domain.records import Decision, RewardEvent
from topbill.engine import CompiledExperiment, DecideRequest, Engine
from topbill.engine.compiled import Shadow
from topbill.lake import DATABASE, sql
from topbill.ope import evaluate
from topbill.service.settings import Settings
from topbill.spec import Experiment
from topbill.testing import publish
from topbill.worker.loop import Worker

from ...conftest import ARTWORK, write
from ...processes import topbill

LAUNCH = "launch: {shadow: 24h, ramp: [10%, 100%]}\nbudget_ms: 9000\n"
PAGE = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text()


@pytest.fixture
def settings(folder: Path, tmp_path: Path) -> Settings:
    write(folder, ARTWORK + LAUNCH)
    return Settings(folder, tmp_path / "data")


def test_a_launch_before_its_first_step_has_shadows(
    client: TestClient, settings: Settings, tmp_path: Path
) -> None:
    for number in range(20):
        answer = client.post("/v1/decide", json={"experiment": "art", "unit": f"u{number}"}).json()
        assert (answer["variant"], answer["slate"][0]["action"]) == (None, "c")
        assert "shadows" not in answer
    stored = client.get(f"/v1/decisions/{answer['decision_id']}").json()
    assert [shadow["variant"] for shadow in stored["shadows"]] == ["thompson", "uniform"]
    assert stored["shadows"][1]["propensities"] == [0.25]
    (line,) = client.get("/v1/experiments").json()["experiments"]
    assert line["shadow"] == {"thompson": None, "uniform": None}
    metrics = client.get("/metrics").text
    counted = 'topbill_shadow_decisions_total{experiment="art",outcome="ok",variant="uniform"}'
    assert float(re.search(re.escape(counted) + r" (\S+)", metrics)[1]) >= 20  # type: ignore[index]
    # What the page tells people to ask of the record, asked of this one.
    worker = Worker(settings.experiments, settings.data)
    worker.step()
    worker.finish()
    (query,) = re.findall(r'topbill sql "(select s.variant[^"]+)"', PAGE)
    rows = sql(settings.data / DATABASE, query.replace("home-artwork", "art")).to_pylist()
    assert [(row["variant"], row["failure"], row["decisions"]) for row in rows] == [
        ("thompson", "", 20),
        ("uniform", "", 20),
    ]
    assert rows[1]["shows_the_same"] == 0.25


def logged(experiment: Experiment, number: int) -> Decision:
    """A decision of a running experiment, beside which `thompson` was in shadow."""
    engine = Engine([experiment], clock=lambda: 0.0)
    compiled = engine.find(experiment.key)
    compiled.shadows = [Shadow(compiled.variants["thompson"], Patience())]
    raw = {"experiment": "art", "unit": f"u{number}", "decision_id": f"d{number}"}
    decision = engine.decide(msgspec.convert(raw, DecideRequest))
    return msgspec.structs.replace(decision, decided_at=1_790_000_000_000_000 + number)


def record(data: Path, art: Experiment, *, failed: int = 0) -> list[Decision]:
    decisions = [logged(art, number) for number in range(200)]
    for number in range(failed):
        (shadow,) = decisions[number].shadows
        late = type(shadow)(shadow.variant, failure="late")
        decisions[number] = msgspec.structs.replace(decisions[number], shadows=(late,))
    rewards = [
        RewardEvent(decision_id=d.decision_id, event_id="e", event="play", received_at=d.decided_at)
        for d in decisions
        if d.slate[0].action in "ab"
    ]
    publish(data, [art], decisions, rewards)
    return decisions


def test_it_is_evaluated_by_what_it_logged(art: Experiment, tmp_path: Path) -> None:
    decisions = record(tmp_path, art, failed=3)
    result = evaluate("art", "shadow", tmp_path, estimators=("ips", "dr"), log_variants=["uniform"])
    (name,) = result.targets
    assert name == "art/thompson in shadow"
    drawn = [d for d in decisions if d.variant == "uniform"]
    lost = sum(d.shadows[0].failure == "late" for d in drawn)
    assert result.left_out.get("where thompson failed in shadow", 0) == lost
    assert result.decisions == len(drawn) - lost
    earned = [
        d.shadows[0].propensities[0] / d.propensity * (d.slate[0].action in "ab")
        for d in drawn
        if not d.shadows[0].failure
    ]
    assert result.targets[name]["ips"].value == pytest.approx(sum(earned) / len(earned))


def test_as_the_variant_itself_where_it_has_learned_nothing(
    art: Experiment, tmp_path: Path
) -> None:
    record(tmp_path, art)
    shadow = evaluate("art", "shadow@thompson", tmp_path, estimators=("ips",))
    compiled = CompiledExperiment(art)

    class Unlearned:
        name, reward_delay, since = "own", None, 0

        def probabilities(self, decision: Decision) -> Any:
            from topbill.ope.replay.targets import VariantPolicy

            return VariantPolicy(art, "thompson", _offers(decision)).probabilities(decision)

        def learn(self, *_: Any) -> None:
            """Nothing."""

    def _offers(decision: Decision) -> Any:
        from topbill.ope.replay.logged_data import Offers

        return Offers(dict.fromkeys(decision.eligible, 1), 1, frozenset())

    own = evaluate("art", Unlearned(), tmp_path, estimators=("ips",))
    assert compiled.version == 0
    values = [next(iter(each.targets.values()))["ips"].value for each in (shadow, own)]
    assert values[0] == pytest.approx(values[1])


def test_one_that_was_never_in_shadow_is_named(art: Experiment, tmp_path: Path) -> None:
    record(tmp_path, art)
    with pytest.raises(NotFound, match="'uniform' was not in shadow; expected thompson"):
        evaluate("art", "shadow@uniform", tmp_path)


def test_decisions_of_one_order_are_nothing_to_score(
    client: TestClient, settings: Settings
) -> None:
    for number in range(5):
        answer = client.post("/v1/decide", json={"experiment": "art", "unit": f"u{number}"}).json()
        body = {"decision_id": answer["decision_id"], "event": "play"}
        assert client.post("/v1/reward", json=body).status_code == 200
    worker = Worker(settings.experiments, settings.data)
    worker.step()
    worker.finish()
    with pytest.raises(BadData, match="none of art to score; left out: 5 not_in_experiment"):
        evaluate("art", "shadow", settings.data)
    done = topbill("evaluate", "art", "--policy", "shadow", "--data", settings.data)
    assert (done.returncode, done.stdout) == (1, "")
    assert "5 not_in_experiment" in done.stderr
