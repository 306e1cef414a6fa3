"""Texts encoded by a model in a file: what is taken, what is refused, and what becomes of it."""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest

from topbill import spec
from topbill.domain.errors import PolicyError, SpecError
from topbill.domain.features import Encoder, Feature
from topbill.domain.typed_features import typed_features
from topbill.engine import CompiledExperiment
from topbill.policies.onnx.runtime import OnnxSession
from topbill.policies.onnx.texts import OnnxTexts

from ...onnx_files import FLOAT, INT64, STRING, field, model, node, tensor, two_towers, value

pytest.importorskip("onnxruntime")

WORDS = {"cat": (3.0, 4.0), "dog": (0.0, 2.0)}
ML = "ai.onnx.ml"
FILE = """
experiment: titles
surface: titles
action_features:
  headline: {type: text, ENCODER}
actions:
  - {id: a, features: {headline: cat}}
  - {id: b, features: {headline: dog}}
  - {id: c, features: {headline: mouse}}
metrics: {play: {event: play, kind: binary, window: 30m}}
objective: {play: 1.0}
variants:
  control: {policy: uniform, share: 50%, control: true}
  ours: {policy: auto, share: 50%}
"""


def looked_up(output: str, numbers: list[float]) -> bytes:
    """What a word is in a list of strings: LabelEncoder, of the operators for machine learning."""
    keys = b"".join(field(9, word) for word in WORDS) + field(20, 8)
    packed = struct.pack(f"<{len(numbers)}f", *numbers)
    values = field(7, packed) + field(20, 6)
    attributes = field(5, field(1, "keys_strings") + keys)
    attributes += field(5, field(1, "values_floats") + values)
    attributes += field(
        5, field(1, "default_float") + b"\x15" + struct.pack("<f", 0) + field(20, 1)
    )
    return node("LabelEncoder", ["text"], [output], domain=ML) + attributes


def of_strings() -> bytes:
    """(n × 1) strings → (n × 2) numbers."""
    axis = field(5, field(1, "axis") + field(3, 1) + field(20, 2))
    nodes = [looked_up("x", [w[0] for w in WORDS.values()])]
    nodes.append(looked_up("y", [w[1] for w in WORDS.values()]))
    nodes.append(node("Concat", ["x", "y"], ["vector"]) + axis)
    made = model(nodes, [value("text", ["n", 1], STRING)], [value("vector", ["n", 2])])
    return made + field(8, field(1, ML) + field(2, 2))


def of_tokens() -> bytes:
    """(n × tokens) numbers of tokens → (n × tokens × 2)."""
    rows = [[0.0, 0.0], list(WORDS["cat"]), list(WORDS["dog"])]
    return model(
        [node("Gather", ["words", "input_ids"], ["last_hidden_state"])],
        [value("input_ids", ["n", "t"], INT64)],
        [value("last_hidden_state", ["n", "t", 2], FLOAT)],
        [tensor("words", rows)],
    )


def tokenizer() -> str:
    vocabulary = {"[UNK]": 0, "cat": 1, "dog": 2}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        }
    )


def load(folder: Path, encoder: str) -> spec.Experiment:
    path = folder / "titles.yaml"
    path.write_text(FILE.replace("ENCODER", encoder))
    return spec.load(path)


def problem(folder: Path, encoder: str) -> str:
    with pytest.raises(SpecError) as raised:
        load(folder, encoder)
    (found,) = raised.value.problems
    assert found.line == 5
    return str(found)


def test_a_text_is_its_vector_at_unit_length(tmp_path: Path) -> None:
    (tmp_path / "words.onnx").write_bytes(of_strings())
    titles = load(tmp_path, "size: 2, encoder: words.onnx")
    expected = [[0.6, 0.8], [0.0, 1.0], [0.0, 0.0]]
    assert titles.encoded_actions.features.tolist() == expected
    # Many at once, as the log is read, to the same bits.
    typed = typed_features(titles.action_features)
    assert typed is not None
    texts = [f'{{"headline": "{word}"}}'.encode() for word in ("cat", "dog", "mouse")]
    rows = [msgspec.json.decode(text, type=typed.type) for text in texts]
    assert typed.matrix(rows).tolist() == expected
    # A policy decides with it.
    compiled = CompiledExperiment(titles)
    scored = compiled.policies["ours"].score(compiled.encoder.encode({}), compiled.actions, 0)
    assert np.isfinite(scored.mean).all()


def test_a_model_of_tokens_is_averaged_over_them(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "words.onnx").write_bytes(of_tokens())
    (tmp_path / "tokenizer.json").write_text(tokenizer())
    both = "size: 2, encoder: words.onnx, tokenizer: tokenizer.json"
    titles = load(tmp_path, both)
    row = titles.action_encoder.encode({"headline": "Cat DOG mouse"})
    mean = np.array([3.0, 6.0]) / 3
    np.testing.assert_allclose(row, mean / np.linalg.norm(mean), rtol=1e-4)
    # Another tokenizer is another encoder.
    (tmp_path / "tokenizer.json").write_text(tokenizer().replace('"dog": 2', '"dgo": 2'))
    assert load(tmp_path, both).fingerprint != titles.fingerprint
    assert "expected a tokenizer beside it" in problem(tmp_path, "size: 2, encoder: words.onnx")


def test_another_file_is_another_experiment_and_a_pin_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "words.onnx"
    path.write_bytes(of_strings())
    first = load(tmp_path, "size: 2, encoder: words.onnx")
    digest = sha256(path.read_bytes()).hexdigest()
    pinned = load(tmp_path, f"size: 2, encoder: words.onnx, sha256: {digest}")
    assert pinned.fingerprint == first.fingerprint
    path.write_bytes(of_strings().replace(struct.pack("<f", 3.0), struct.pack("<f", 5.0)))
    second = load(tmp_path, "size: 2, encoder: words.onnx")
    assert second.learning_fingerprint != first.learning_fingerprint
    assert "it is another file" in problem(
        tmp_path, f"size: 2, encoder: words.onnx, sha256: {digest}"
    )


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("size: 2, encoder: none.onnx", "none.onnx: a file that cannot be read"),
        ("size: 2, encoder: text.txt", "an ONNX file beside the experiment's"),
        ("size: 2, encoder: damaged.onnx", "damaged.onnx: no ONNX model"),
        ("size: 2, encoder: towers.onnx", "towers.onnx: inputs viewer, a tensor"),
        ("size: 3, encoder: words.onnx", "size: got 3; expected at most 2, the length of the vec"),
        ("size: 2, sha256: " + "a" * 64, "headline: got no encoder; expected one, or neither"),
        ("size: 2, encoder: words.onnx, tokenizer: t.json", "t.json cannot be read"),
    ],
)
def test_a_wrong_encoder_is_told_by_its_place(tmp_path: Path, encoder: str, message: str) -> None:
    (tmp_path / "words.onnx").write_bytes(of_strings())
    (tmp_path / "towers.onnx").write_bytes(two_towers())
    (tmp_path / "damaged.onnx").write_bytes(of_strings()[:40])
    assert message in problem(tmp_path, encoder)


def test_a_model_whose_numbers_are_not_finite_is_refused(tmp_path: Path) -> None:
    infinite = of_strings().replace(struct.pack("<f", 0), struct.pack("<f", np.inf))
    with pytest.raises(PolicyError, match="numbers that are not finite"):
        OnnxTexts(OnnxSession(infinite))


def test_who_has_not_read_the_model_says_so() -> None:
    feature = Feature("headline", "text", size=2, encoder="a.onnx", sha256="f" * 64)
    with pytest.raises(PolicyError, match="load the experiment from its file"):
        Encoder((feature,)).encode({"headline": "cat"})
    # An audit can still be checked.
    assert list(Encoder((feature,)).problems({"headline": "cat"})) == []
