"""Scores of ONNX models: files that can't be used are refused by name, scores are explored with
exact propensities, and another file is another revision that keeps what the others have learned.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.onnx_files import INT64, linear, model, node, tensor, two_towers, value

from topbill import spec
from topbill.domain.errors import SpecError
from topbill.domain.records import RewardEvent
from topbill.engine import CompiledExperiment, DecideRequest, Engine, teach
from topbill.policies.onnx import models
from topbill.policies.onnx.parts import parts
from topbill.spec import from_audit, load, marks

FILE = """
experiment: home
surface: artwork
context: {{hour: {{type: number}}, kids: {{type: flag}}}}
action_features: {{faces: {{type: number}}, new: {{type: flag}}}}
actions: [{{id: x, features: {{faces: 1}}}}, {{id: y, features: {{faces: 2}}}}, {{id: z}}]
metrics: {{play: {{event: play, kind: binary, window: 60s}}}}
objective: {{play: 1.0}}
variants:
  control: {{policy: thompson, share: 50%, control: true}}
  own: {{policy: scored, {own}, share: 50%}}
"""
WHOLE_NUMBERS = model(
    [node("Identity", ["features"], ["score"])],
    [value("features", ["n", 4], INT64)],
    [value("score", ["n", 4], INT64)],
)
ONNX = "onnx: models/ctr.onnx"


def experiment(folder: Path, own: str = ONNX, data: bytes | None = None) -> spec.Experiment:
    if data is not None:
        (folder / "models").mkdir(exist_ok=True)
        (folder / "models" / "ctr.onnx").write_bytes(data)
    file = folder / "home.yaml"
    file.write_text(FILE.format(own=own))
    return load(file)


def scores(experiment: spec.Experiment, x: tuple[float, float] = (0.0, 0.0)) -> list[float]:
    scored = (
        CompiledExperiment(experiment)
        .policies["own"]
        .score(np.array(x), experiment.encoded_actions, 0)
    )
    assert scored.mean is not None
    return scored.mean.tolist()


def probabilities(experiment: spec.Experiment, rows: tuple[int, ...] = (0, 1, 2)) -> list[float]:
    policy = CompiledExperiment(experiment).policies["own"]
    scored = policy.score(np.zeros(2), experiment.encoded_actions, 0)
    return scored.probabilities(np.array(rows)).tolist()


def test_a_feature_can_be_the_score(tmp_path: Path) -> None:
    def explored(how: str) -> list[float]:
        return probabilities(experiment(tmp_path, f"feature: faces, {how}"), (2, 1))

    assert explored("exploration: epsilon, epsilon: 20%") == pytest.approx([0.1, 0.9])
    e = np.exp(2.0 / 0.5)
    assert explored("exploration: softmax, temperature: 0.5") == pytest.approx(
        [1 / (1 + e), e / (1 + e)]
    )
    assert explored("exploration: squarecb, gamma: 4") == pytest.approx([0.1, 0.9])


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ("epsilon: 10%", "needs one of onnx and feature"),
        ("feature: faces, column: 1", "has no use for column without onnx"),
        (
            "feature: looks",
            "feature: got 'looks'; expected a number of action_features: one of fac",
        ),
        ("onnx: ../ctr.onnx", "onnx: got '../ctr.onnx'"),
        ("onnx: gone.onnx", "a file that cannot be read .No such file"),
        ("feature: faces, temperature: 0", "temperature: got 0; expected"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, own: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        experiment(tmp_path, own)


class TestModels:
    """Where ONNX Runtime is installed."""

    @pytest.fixture(autouse=True)
    def runtime(self) -> None:
        pytest.importorskip("onnxruntime")

    def test_its_scores_are_those_of_the_features(self, tmp_path: Path) -> None:
        own = experiment(tmp_path, data=linear([1.0, 0.0, 0.5, 0.0]))
        assert scores(own, (3.0, 0.0)) == [3.5, 4.0, 3.0]
        picked = f"{ONNX}, inputs: {{features: [actions.faces, context.hour]}}"
        assert scores(experiment(tmp_path, picked, linear([2.0, 1.0])), (3.0, 0.0)) == [5, 7, 3]
        towers = f"{ONNX}, inputs: {{viewer: [context], title: [actions]}}"
        assert scores(experiment(tmp_path, towers, two_towers()), (3.0, 0.0)) == [3, 6, 0]

    def test_another_file_is_another_revision_and_the_others_keep_what_they_learned(
        self, tmp_path: Path
    ) -> None:
        engine = Engine([experiment(tmp_path, data=linear([0, 0, 1.0, 0]))])
        compiled, before = engine.find("home"), marks(tmp_path)
        assert compiled.experiment.raw["variants"]["own"]["sha256"]
        decided = engine.decide(DecideRequest("home", unit="u", decision_id="d"))
        assert decided.revision == compiled.revision
        event = RewardEvent(decision_id="d", event_id="e", event="play", position=0)
        teach(compiled, [(decided, [event])] * 20)
        compiled.version = 3
        learned = compiled.policies["control"].dump()

        other = experiment(tmp_path, data=linear([0, 0, -1.0, 0.5]))
        assert marks(tmp_path) != before
        engine.reload([other])
        assert engine.find("home").revision != compiled.revision
        assert engine.find("home").version == 3
        assert engine.find("home").policies["control"].dump() == learned
        assert scores(engine.find("home").experiment) == [-1, -2, 0]
        # The record of the one before is read without its file.
        audit = msgspec.json.encode(compiled.experiment.raw).decode()
        assert from_audit(audit, "home", compiled.revision).fingerprint == (compiled.revision)

    def test_the_pin_of_a_file_holds(self, tmp_path: Path) -> None:
        pin = experiment(tmp_path, data=linear([0, 0, 1, 0])).raw["variants"]["own"]["sha256"]
        experiment(tmp_path, f"{ONNX}, sha256: {pin}")
        with pytest.raises(SpecError, match=r"sha256: .* it is another file"):
            experiment(tmp_path, f"{ONNX}, sha256: {pin}", linear([0, 0, 2, 0]))

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b"", "no ONNX model .no graph"),
            (b"title,year\nAlien,1979\n", "no ONNX model"),
            (linear([0, 0, 1, 0])[:-30], "no ONNX model"),
            (linear([1, 2, 3]), "context, actions make 4 columns; expected as many"),
            (WHOLE_NUMBERS, "expected a tensor.float. or"),
            (two_towers(), "inputs: nothing is said of input viewer"),
        ],
    )
    def test_a_file_that_does_not_fit_is_told(self, tmp_path: Path, data: bytes, told: str) -> None:
        with pytest.raises(SpecError, match=f"variants.own.*{told}"):
            experiment(tmp_path, data=data)

    @pytest.mark.parametrize(
        ("nodes", "tensors", "told"),
        [
            (
                [node("Evil", ["features"], ["score"], domain="acme")],
                [],
                "operators of domain acme",
            ),
            ([node("NoSuch", ["features"], ["score"])], [], "NoSuch"),
            (
                [node("MatMul", ["features", "w"], ["score"])],
                [tensor("w", [[1.0]] * 4, file="../../../../etc/passwd")],
                "tensors in other files",
            ),
            ([node("Identity", ["features"], ["score"])], [], "column: .* which of its 4 columns"),
        ],
    )
    def test_it_asks_for_nothing_beyond_itself(
        self, tmp_path: Path, nodes: list[bytes], tensors: list[bytes], told: str
    ) -> None:
        columns = 4 if "column" in told else 1
        data = model(
            nodes, [value("features", ["n", 4])], [value("score", ["n", columns])], tensors
        )
        with pytest.raises(SpecError, match=told):
            experiment(tmp_path, data=data)

    def test_a_link_out_of_the_folder_is_not_followed(self, tmp_path: Path) -> None:
        inside, outside = tmp_path / "in", tmp_path / "elsewhere.onnx"
        inside.mkdir()
        outside.write_bytes(linear([0, 0, 1, 0]))
        (inside / "ctr.onnx").symlink_to(outside)
        with pytest.raises(SpecError, match="a file outside the experiments' folder"):
            experiment(inside, "onnx: ctr.onnx")

    def test_a_file_that_is_too_large_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(models, "MOST_BYTES", 100)
        with pytest.raises(SpecError, match="more than 100 bytes"):
            experiment(tmp_path, data=linear([0, 0, 1, 0]))

    def test_a_score_that_is_no_number_falls_back(self, tmp_path: Path) -> None:
        data = model(
            [
                node("MatMul", ["features", "w"], ["sum"]),
                node("Log", ["sum"], ["score"]),
            ],
            [value("features", ["n", 4])],
            [value("score", ["n", 1])],
            [tensor("w", [[0.0], [0.0], [1.0], [0.0]])],
        )
        engine = Engine([experiment(tmp_path, data=data)])
        reasons = set()
        for n in range(20):
            decided = engine.decide(DecideRequest("home", unit=f"u{n}", decision_id=f"d{n}"))
            reasons.add((decided.variant, decided.reason))
        assert reasons == {("own", "fallback"), ("control", "policy")}
        assert (
            "models/ctr.onnx: output score: the score of action 2 is -inf"
            in (engine.find("home").failures["own"])
        )


def test_bytes_of_any_kind_are_no_model() -> None:
    """And never anything but a ValueError."""
    random = np.random.default_rng(0)
    good = bytearray(linear([0, 0, 1, 0]))
    for _ in range(3000):
        data = bytearray(good)
        for at in random.integers(0, len(data), 3):
            data[at] = random.integers(0, 256)
        with suppress(ValueError):
            parts(bytes(data[: random.integers(0, len(data) + 1)]))
