"""The engine `vowpal-wabbit-next`: VW 9.9 with bindings that take arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import vowpal_wabbit_next
from vowpal_wabbit_next import CLIError
from vowpal_wabbit_next import _core as stubbed

from topbill.domain.errors import PolicyError
from topbill.policies.vw.engine import Features, read_weights

_core: Any = stubbed  # its stubs predate NumPy 2
_SHARED, _NO_LABEL = _core.CBLabel(shared=True), _core.CBLabel()
"""What examples are given, each a copy of it."""


class _Workspace:
    def __init__(self, workspace: Any) -> None:
        self._workspace = workspace
        # The public class only wraps this one, and has no call for a list of examples.
        self._core = workspace._workspace
        # Kept for predictions, and filled anew for each: to make one takes several times as long.
        self._context = self.encode({}, shared=True)
        self._groups: dict[int, Any] = {}

    def encode(self, features: Features, *, shared: bool = False) -> Any:
        example = _core.Example()
        for namespace, (hashes, values) in features.items():
            example[namespace].push_many_features(hashes, values)
        example._set_label(_SHARED if shared else _NO_LABEL)
        return example

    def predict(self, shared: Features, actions: Sequence[Any]) -> Sequence[tuple[int, float]]:
        for group in self._groups.values():
            group.truncate_to(0)
        for namespace, (hashes, values) in shared.items():
            group = self._groups.get(namespace)
            if group is None:
                group = self._groups[namespace] = self._context[namespace]
            group.push_many_features(hashes, values)
        return cast(
            Sequence[tuple[int, float]], self._core.predict_multi_ex_one([self._context, *actions])
        )

    def learn(
        self, shared: Any, actions: Sequence[Any], chosen: int, cost: float, probability: float
    ) -> None:
        example = actions[chosen]
        example._set_label(_core.CBLabel(label=(0, cost, probability)))
        try:
            self._core.learn_multi_ex_one([shared, *actions])
        finally:
            # The example is used again, by decisions that know no cost.
            example._set_label(_NO_LABEL)

    def serialize(self) -> bytes:
        return cast(bytes, self._workspace.serialize())

    def weights(self) -> dict[int, list[float]]:
        # Not the array that it offers: reading that ends the process for models of several
        # learners, such as bag's.
        return read_weights(self._core.readable_model())


class _Engine:
    name = (
        f"vowpal-wabbit-next {vowpal_wabbit_next.__version__} (VW {vowpal_wabbit_next.VW_VERSION})"
    )

    def open(self, command: list[str], model: bytes | None) -> _Workspace:
        try:
            if model is None:
                return _Workspace(vowpal_wabbit_next.Workspace(command))
            # A model carries its own options; only --quiet is not among them.
            return _Workspace(vowpal_wabbit_next.Workspace(["--quiet"], model_data=model))
        except (CLIError, RuntimeError) as error:
            raise PolicyError(f"vw: {' '.join(command)}: {error}") from error


ENGINE = _Engine()
