"""A model that Vowpal Wabbit wrote elsewhere goes on as a `vw` variant: with the very predictions,
and learning as VW itself goes on.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topbill import spec
from topbill.domain.errors import PolicyError, SpecError
from topbill.domain.records import Example
from topbill.engine import CompiledExperiment
from topbill.policies import trained
from topbill.policies.vw.model_file import is_model, murmur3, read_head

vowpalwabbit = pytest.importorskip("vowpalwabbit")
TITLES = ("politics", "sports", "7")
FILE = """
experiment: news
surface: titles
context:
  user: {type: category, values: [Tom, Anna]}
  age: {type: number}
action_features:
  article: {type: category, values: [politics, sports, '7']}
  long: {type: flag}
actions:
  - {id: a, features: {article: politics}}
  - {id: b, features: {article: sports, long: true}}
  - {id: c, features: {article: '7'}}
metrics: {play: {event: play, kind: binary, window: 30m}}
objective: {play: 1.0}
variants:
  control: {policy: uniform, share: 50%, control: true}
  ours: {policy: KIND, share: 50%MORE}
"""


def text(user: str, age: float, label: str = "", chosen: int = -1) -> list[str]:
    """The tutorial's examples, in VW's text format."""
    lines = [f"shared |User user={user} age:{age}"]
    for place, title in enumerate(TITLES):
        long = " long" if title == "sports" else ""
        lines.append(f"{label if place == chosen else ''}|Action article={title}{long}")
    return lines


def taught(path: Path, options: str, examples: int = 300) -> Any:
    """VW itself, that has learned who reads what, and what it wrote."""
    workspace = vowpalwabbit.Workspace(arg_list=[*options.split(), "--quiet"])
    rng = random.Random(1)
    for _ in range(examples):
        user, chosen, age = rng.choice(["Tom", "Anna"]), rng.randrange(3), rng.choice([0.25, 2.0])
        cost = -1.0 if (user == "Tom") == (chosen == 0) else 0.0
        workspace.learn(text(user, age, f"0:{cost}:0.5 ", chosen))
    workspace.save(str(path))
    return workspace


def load(folder: Path, more: str, kind: str = "vw") -> spec.Experiment:
    path = folder / "news.yaml"
    path.write_text(FILE.replace("KIND", kind).replace("MORE", more))
    return spec.load(path)


STARTS = ", start_from: {snapshot: old.vw}"


@pytest.mark.parametrize(
    "options",
    [
        "--cb_explore_adf --epsilon 0.1 -q UA",
        "--cb_explore_adf --squarecb -q UA -b 20",
        "--cb_explore_adf --softmax --lambda 5 -q UA --hash all",
    ],
)
def test_it_predicts_and_learns_as_vw_itself(tmp_path: Path, options: str) -> None:
    workspace = taught(tmp_path / "old.vw", options)
    compiled = CompiledExperiment(load(tmp_path, STARTS))
    policy, actions, everything = compiled.policies["ours"], compiled.actions, np.arange(3)

    def ours(user: str, age: float) -> np.ndarray:
        x = compiled.encoder.encode({"user": user, "age": age})
        return policy.score(x, actions, 0).probabilities(everything)

    contexts = [(user, age) for user in ("Tom", "Anna", "Eve") for age in (0.25, 2.0, 0.0)]
    for user, age in contexts:
        theirs = workspace.predict(text(user, age))
        np.testing.assert_allclose(ours(user, age), theirs, atol=2e-6)
    assert max(np.ptp(ours(*each)) for each in contexts) > 0.2, "it had learned something"
    # Both learn on.
    rng = random.Random(2)
    for _ in range(50):
        user, chosen = rng.choice(["Tom", "Anna"]), rng.randrange(3)
        reward = float((user == "Anna") == (chosen == 0))
        workspace.learn(text(user, 0.5, f"0:{-reward}:0.25 ", chosen))
        x = compiled.encoder.encode({"user": user, "age": 0.5})
        policy.update([Example(x, actions, chosen, 0.25, reward)])
    for user, age in contexts:
        theirs = workspace.predict(text(user, age))
        np.testing.assert_allclose(ours(user, age), theirs, atol=2e-3)
    # What was stored goes on in another process that read the file.
    again = CompiledExperiment(load(tmp_path, STARTS)).policies["ours"]
    again.load(policy.dump())
    assert again.dump() == policy.dump()


def test_another_file_is_another_experiment_and_states_do_not_mix(tmp_path: Path) -> None:
    taught(tmp_path / "old.vw", "--cb_explore_adf --epsilon 0.1 -q UA")
    first = load(tmp_path, STARTS)
    state = CompiledExperiment(first).policies["ours"].dump()
    taught(tmp_path / "old.vw", "--cb_explore_adf --epsilon 0.1 -q UA", 100)
    second = load(tmp_path, STARTS)
    assert second.learning_fingerprint != first.learning_fingerprint
    with pytest.raises(PolicyError, match="made with other options"):
        CompiledExperiment(second).policies["ours"].load(state)
    with pytest.raises(PolicyError, match="made with other options"):
        CompiledExperiment(load(tmp_path, "")).policies["ours"].load(state)


def refusal(folder: Path, content: bytes, kind: str = "vw") -> str:
    (folder / "old.vw").write_bytes(content)
    more = STARTS + ", min_probability: 1%" * (kind == "linucb")
    with pytest.raises(SpecError) as raised:
        load(folder, more, kind)
    (found,) = raised.value.problems
    return str(found)


def test_a_file_that_is_none_to_go_on_with_is_refused_by_name(tmp_path: Path) -> None:
    taught(tmp_path / "a.vw", "--cb_explore_adf --epsilon 0.1 -q UA")
    good = (tmp_path / "a.vw").read_bytes()
    assert "old.vw, a policy of kind vw; expected one of linucb" in refusal(
        tmp_path, good, "linucb"
    )
    vowpalwabbit.Workspace(arg_list=["--quiet"]).save(str(tmp_path / "b.vw"))
    plain = refusal(tmp_path, (tmp_path / "b.vw").read_bytes())
    assert "old.vw: " in plain
    assert "expected one of --cb_explore_adf" in plain
    taught(tmp_path / "c.vw", "--cb_adf -q UA")
    assert "expected one of --cb_explore_adf, which says how probable" in refusal(
        tmp_path, (tmp_path / "c.vw").read_bytes()
    )
    version = read_head(good, "a").version.encode()
    old = good.replace(version, b"7.4.0".ljust(len(version), b"\0"))
    assert "old.vw: was written by VW 7.4.0; expected 8 or 9" in refusal(tmp_path, old)
    misspelt = good.replace(b"--epsilon", b"--epsylon")
    assert "old.vw: VW cannot load it (" in refusal(tmp_path, misspelt)
    assert "old.vw: is a damaged model" in refusal(tmp_path, good[:20])
    assert "old.vw: is no trained policy" in refusal(tmp_path, b"\x07\x00\x00\x00hello")


def test_a_trained_policy_is_no_model_of_vw() -> None:
    assert not is_model(b'{"format":"topbill-policy-1"}\n...')
    assert trained.FORMAT != trained.VW_FORMAT


def test_names_are_hashed_as_by_vw() -> None:
    """Published values of MurmurHash3_x86_32."""
    for data, seed, expected in (
        (b"", 0, 0),
        (b"", 0xFFFFFFFF, 0x81F16F39),
        (b"\xff\xff\xff\xff", 0, 0x76293B50),
        (b"!Ce\x87", 0x5082EDEE, 0x2362F9DE),
        (b"!Ce", 0, 0x7E4A8634),
        (b"Hello, world!", 1234, 0xFAF6CDB3),
    ):
        assert murmur3(data, seed) == expected
