"""The engine `vowpalwabbit`: mainline VW, 9.11 or newer.

Its bindings read and write models only as files, take labels only as text, and give no way to take
a label back from an example. So an example is kept here with what it was made from, and each
example that is learned from is made anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pylibvw
import vowpalwabbit

from topbill.domain.errors import PolicyError
from topbill.policies.vw.engine import Features, read_weights

_vw: Any = pylibvw.vw
_example: Any = pylibvw.example
_LABEL = int(_vw.lContextualBandit)


@dataclass(slots=True)
class _Encoded:
    """Features of an example as VW takes them, and the example made of them for predictions."""

    namespaces: list[tuple[int, list[tuple[int, float]]]]
    label: str
    example: Any


class _Workspace:
    def __init__(self, workspace: Any) -> None:
        self._workspace = workspace

    def encode(self, features: Features, *, shared: bool = False) -> _Encoded:
        namespaces = []
        for namespace, (hashes, values) in features.items():
            pairs = list(zip(hashes.tolist(), values.tolist(), strict=True))
            namespaces.append((namespace, pairs))
        label = "shared" if shared else ""
        return _Encoded(namespaces, label, self._made(namespaces, label))

    def _made(self, namespaces: list[tuple[int, list[tuple[int, float]]]], label: str) -> Any:
        """VW's example with these features, ready to be used."""
        example = _example(self._workspace, _LABEL)
        for namespace, pairs in namespaces:
            example.ensure_namespace_exists(namespace)
            # The third argument hashes names; all of ours are hashed already.
            example.push_feature_list(self._workspace, namespace, 0, pairs)
        if label:
            example.set_label_string(self._workspace, label, _LABEL)
        # Adds the constant, and turns hashes into places among the weights.
        _vw.setup_example(self._workspace, example)
        return example

    def predict(self, shared: Features, actions: Sequence[_Encoded]) -> list[tuple[int, float]]:
        context = self.encode(shared, shared=True).example
        _vw.predict_multi(self._workspace, [context, *(action.example for action in actions)])
        # One probability an action, in the order in which they were given.
        return list(enumerate(context.get_action_scores()))

    def learn(
        self,
        shared: _Encoded,
        actions: Sequence[_Encoded],
        chosen: int,
        cost: float,
        probability: float,
    ) -> None:
        examples = [self._made(shared.namespaces, shared.label)]
        for place, action in enumerate(actions):
            label = f"0:{cost!r}:{probability!r}" if place == chosen else ""
            examples.append(self._made(action.namespaces, label))
        _vw.learn_multi(self._workspace, examples)
        # Counts the example, on which learning rates that fall with time depend, and empties it:
        # the reason why none that is kept is learned from.
        _vw._finish_example_multi_ex(self._workspace, examples)

    def serialize(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            self._workspace.save(str(path))
            return path.read_bytes()

    def weights(self) -> dict[int, list[float]]:
        with tempfile.TemporaryDirectory() as folder:
            model, text = Path(folder) / "model", Path(folder) / "text"
            self._workspace.save(str(model))
            # Only a workspace that ends writes its readable form: so another one is ended.
            options = ["--initial_regressor", str(model), "--readable_model", str(text)]
            vowpalwabbit.Workspace(arg_list=["--quiet", *options]).finish()
            return read_weights(text.read_text())


class _Engine:
    name = f"vowpalwabbit {vowpalwabbit.__version__}"

    def open(self, command: list[str], model: bytes | None) -> _Workspace:
        try:
            if model is None:
                return _Workspace(vowpalwabbit.Workspace(arg_list=command))
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model"
                path.write_bytes(model)
                # A model carries its own options; only --quiet is not among them.
                options = ["--quiet", "--initial_regressor", str(path)]
                return _Workspace(vowpalwabbit.Workspace(arg_list=options))
        except RuntimeError as error:
            raise PolicyError(f"vw: {' '.join(command)}: {error}") from error


ENGINE = _Engine()
