"""From declared features to a model's inputs, and from its output to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topbill.domain.errors import PolicyError
from topbill.domain.features import FeatureColumns
from topbill.domain.records import Floats
from topbill.policies.onnx.runtime import OnnxSession, TensorSpec

_TYPES: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
_TRIAL_SECONDS = 5.0
CONTEXT, ACTIONS = "context", "actions"


class _Filler(NamedTuple):
    """What fills an input: columns of the context, or of the actions, side by side.

    `once` where the input takes one row, whatever the number of actions.
    """

    name: str
    dtype: type[np.floating[Any]]
    parts: tuple[tuple[str, NDArray[np.intp]], ...]
    once: bool

    def array(self, x: Floats, features: Floats) -> NDArray[Any]:
        """(K × columns), or (1 × columns) where it is the same for all actions."""
        rows = 1 if self.once else len(features)
        blocks = []
        for source, columns in self.parts:
            if source == CONTEXT:
                blocks.append(np.broadcast_to(x[columns], (rows, len(columns))))
            else:
                blocks.append(features[:, columns])
        return np.concatenate(blocks, axis=1).astype(self.dtype)


class OnnxScores:
    """A model fitted to an experiment's features.

    Args:
        session: The model.
        columns: The declared features.
        inputs: Input → what fills it: `context`, `actions`, or single features of them
            (`context.hour`, `actions.genres`), side by side in this order. Those left out: an input
            called `context` or `actions` is filled by that; the only input of a model by both.
        output: Which output has the scores; the first by default.
        column: Which of its columns, counted from 0, where it has more than one.

    Raises:
        PolicyError: They don't fit, or the model fails on three actions without features.
    """

    def __init__(
        self,
        session: OnnxSession,
        columns: FeatureColumns,
        *,
        inputs: Mapping[str, Sequence[str]],
        output: str | None,
        column: int | None,
    ) -> None:
        self._session, self._column = session, column
        names = [spec.name for spec in session.inputs]
        unknown = [name for name in inputs if name not in names]
        if unknown:
            raise PolicyError(
                f"inputs: the model has no input {unknown[0]!r}; expected of {', '.join(names)}"
            )
        self._fillers = []
        for spec in session.inputs:
            filling = inputs.get(spec.name) or _default_filling(spec, len(names))
            self._fillers.append(_filler(spec, filling, columns))
        self._output = _output(session.outputs, output, column)
        # Its own words for sizes may be wrong: what it does with some actions is what counts.
        for count in (1, 3):
            zeros = np.zeros((count, columns.action_size))
            self._scores(np.zeros(columns.context_size), zeros, _TRIAL_SECONDS)

    def __call__(self, x: Floats, features: Floats) -> Floats:
        """(K,) the scores of K actions with these features. Raises PolicyError, also where one is
        not finite.
        """
        scores = self._scores(x, features)
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise PolicyError(f"output {self._output}: the score of action {row} is {scores[row]}")
        return scores

    def _scores(self, x: Floats, features: Floats, seconds: float | None = None) -> Floats:
        filled = {filler.name: filler.array(x, features) for filler in self._fillers}
        answer = self._session.run(self._output, filled, seconds)
        if answer.ndim == 2 and (answer.shape[1] == 1 or self._column is not None):
            answer = answer[:, self._column or 0]
        if answer.shape != (len(features),):
            raise PolicyError(
                f"output {self._output} has shape {list(answer.shape)} for {len(features)} "
                "actions; expected a score for each"
            )
        return answer.astype(np.float64)


def _default_filling(spec: TensorSpec, inputs: int) -> Sequence[str]:
    if spec.name in (CONTEXT, ACTIONS):
        return [spec.name]
    if inputs == 1:
        return [CONTEXT, ACTIONS]
    raise PolicyError(
        f"inputs: nothing is said of input {spec.name}; expected what fills it, such as "
        f"{spec.name}: [{CONTEXT}, {ACTIONS}.NAME]"
    )


def _filler(spec: TensorSpec, filling: Sequence[str], columns: FeatureColumns) -> _Filler:
    if spec.type not in _TYPES or len(spec.shape) != 2:
        raise PolicyError(
            f"the model's input {spec}; expected a {_listed(_TYPES)} of shape [any, columns]"
        )
    parts = tuple(_part(spec.name, name, columns) for name in filling)
    rows, width = spec.shape
    got = sum(len(indices) for _, indices in parts)
    if width not in (None, got) or not got:
        raise PolicyError(
            f"the model's input {spec}; {', '.join(filling)} make {got} columns; expected as many"
        )
    context_alone = all(source == CONTEXT for source, _ in parts)
    if rows is not None and not (rows == 1 and context_alone):
        raise PolicyError(
            f"the model's input {spec}; expected a first dimension of any size, as there is a row "
            "for each action"
        )
    return _Filler(spec.name, _TYPES[spec.type], parts, rows == 1)


def _part(spec: str, name: str, columns: FeatureColumns) -> tuple[str, NDArray[np.intp]]:
    """`context`, `actions`, or one feature of them → which columns those are."""
    source, _, feature = name.partition(".")
    declared = {CONTEXT: columns.context, ACTIONS: columns.actions}.get(source)
    if declared is None or (feature and feature not in declared):
        known = [CONTEXT, ACTIONS]
        known += [f"{CONTEXT}.{each}" for each in columns.context]
        known += [f"{ACTIONS}.{each}" for each in columns.actions]
        raise PolicyError(f"inputs: {spec}: got {name!r}; expected of {', '.join(known[:40])}")
    return source, columns_of(declared, feature)


def columns_of(declared: Mapping[str, Sequence[str]], feature: str = "") -> NDArray[np.intp]:
    """The columns of one declared feature, or of all."""
    start = 0
    for name, own in declared.items():
        if name == feature:
            return np.arange(start, start + len(own))
        start += len(own)
    return np.arange(start)


def _output(outputs: Sequence[TensorSpec], name: str | None, column: int | None) -> str:
    names = [spec.name for spec in outputs]
    if name is not None and name not in names:
        raise PolicyError(f"output: the model has no {name!r}; expected of {', '.join(names)}")
    spec = outputs[0] if name is None else outputs[names.index(name)]
    if spec.type not in _TYPES or len(spec.shape) not in (1, 2):
        others = f"; its outputs are {', '.join(names)}" if len(names) > 1 else ""
        raise PolicyError(
            f"output: the model's output {spec}; expected a {_listed(_TYPES)} with a score for "
            f"each action{others}"
        )
    width = spec.shape[1] if len(spec.shape) == 2 else 1
    if width is not None and width > 1 and column is None:
        raise PolicyError(
            f"column: the model's output {spec}; expected which of its {width} columns has the "
            "scores, counted from 0"
        )
    if width is not None and column is not None and column >= width:
        raise PolicyError(f"column: got {column}; the model's output {spec}")
    return spec.name


def _listed(types: Mapping[str, Any]) -> str:
    return " or ".join(types)
