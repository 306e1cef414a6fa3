"""Scores of your own, explored with exact probabilities: those of an ONNX model, or those that come
as a feature of the actions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from topbill.domain.chance import inverse_gap, mostly_greedy, softmax
from topbill.domain.errors import PolicyError
from topbill.domain.features import FeatureColumns
from topbill.domain.records import Actions, Floats, Indices
from topbill.policies.onnx import OnnxScores, known
from topbill.policies.onnx.scores import columns_of
from topbill.policies.uniform import Stateless

_About = msgspec.Meta
_NAME = "[A-Za-z0-9][A-Za-z0-9_.-]*"
MODEL_NAME = rf"{_NAME}(/{_NAME})?\.onnx"
"""How a model's file may be called: beside the experiment's, or in a folder beside it."""
_OnnxFile = Annotated[str, _About(max_length=200, pattern=f"^{MODEL_NAME}$")]
_Sha256 = Annotated[str, _About(pattern="^[0-9a-f]{64}$")]
_Column = Annotated[int, _About(ge=0)]


def is_model_name(name: str) -> bool:
    """Whether a model's file may be called so."""
    return len(name) <= 200 and re.fullmatch(MODEL_NAME, name) is not None


class OwnScoresParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where scores come from (`onnx`, or `feature`), and how much chance is added to them."""

    onnx: Annotated[
        _OnnxFile | None,
        _About(
            description="an ONNX model: a file beside the experiment's, or in a folder beside it"
        ),
    ] = None
    feature: Annotated[
        str | None, _About(description="an action feature that is the score: a number or a flag")
    ] = None
    inputs: Annotated[
        dict[str, list[str]],
        _About(description="of an ONNX model, what fills each input"),
    ] = {}
    output: Annotated[
        str | None, _About(description="of an ONNX model, which output has the scores (the first)")
    ] = None
    column: Annotated[
        _Column | None,
        _About(description="which column of that output, counted from 0, if it has several"),
    ] = None
    sha256: Annotated[
        _Sha256 | None,
        _About(description="of an ONNX model, the SHA-256 that its file must have"),
    ] = None
    exploration: Annotated[
        Literal["epsilon", "softmax", "squarecb"],
        _About(description="how chance is added: a share of it, by score, or by gap to the best"),
    ] = "epsilon"
    epsilon: Annotated[
        float, _About(ge=0.0, le=1.0, description="share of decisions that go to any action")
    ] = 0.1
    temperature: Annotated[
        float, _About(gt=0.0, description="of softmax, what scores are divided by")
    ] = 1.0
    gamma: Annotated[
        float, _About(gt=0.0, description="greediness of squarecb, per unit of score")
    ] = 20.0

    def __post_init__(self) -> None:
        if (self.onnx is None) == (self.feature is None):
            raise ValueError("needs one of onnx and feature, as where scores come from")
        of_onnx = ("inputs", "output", "column", "sha256")
        said = [name for name in of_onnx if getattr(self, name) not in (None, {})]
        if self.onnx is None and said:
            raise ValueError(f"has no use for {said[0]} without onnx")


class _Explored:
    """`mean` (K,) are the scores, in the units of whoever made them."""

    __slots__ = ("_params", "mean")
    width: Floats | None = None

    def __init__(self, scores: Floats, params: OwnScoresParams) -> None:
        self.mean: Floats | None = scores
        self._params = params

    def probabilities(self, remaining: Indices) -> Floats:
        assert self.mean is not None  # noqa: S101 (for the types alone)
        scores, params = self.mean[remaining], self._params
        if params.exploration == "softmax":
            return softmax(scores, params.temperature)
        if params.exploration == "squarecb":
            return inverse_gap(scores, params.gamma)
        return mostly_greedy(scores, params.epsilon)


class OwnScores(Stateless):
    """Explores over scores that it is given, and learns nothing: whoever makes the scores does.

    `softmax` is exp(score / temperature) over its sum; `epsilon` the highest score but for a share
    of chance; `squarecb` inverse gap weighting, 1/(K + gamma·gap).
    """

    kind: ClassVar[str] = "scored"
    Params: ClassVar[type[msgspec.Struct]] = OwnScoresParams
    deterministic: ClassVar[bool] = False
    # Scores know no bounds, and softmax may round a probability to nothing.
    default_spread: ClassVar[float] = 0.02

    @staticmethod
    def own_spread(params: OwnScoresParams) -> float:
        """ε; nothing of the others."""
        return params.epsilon if params.exploration == "epsilon" else 0.0

    def __init__(
        self,
        params: OwnScoresParams,
        *,
        context_size: int,
        action_size: int,
        seed: int = 0,  # noqa: ARG002
        columns: FeatureColumns | None = None,
    ) -> None:
        columns = columns or FeatureColumns.unnamed(context_size, action_size)
        self.params = params
        self._score: Callable[[Floats, Floats], Floats]
        if params.onnx is not None:
            if params.sha256 is None:
                raise PolicyError(f"{params.onnx}: nobody has read it; load the experiment's file")
            try:
                self._score = OnnxScores(
                    known(params.sha256),
                    columns,
                    inputs=params.inputs,
                    output=params.output,
                    column=params.column,
                )
            except PolicyError as error:
                raise PolicyError(f"{params.onnx}: {error}") from error
        else:
            self._score = _FeatureScores(params.feature or "", columns)

    def score(self, x: Floats, actions: Actions, seed: int) -> _Explored:  # noqa: ARG002
        try:
            scores = self._score(x, actions.features)
        except PolicyError as error:
            raise PolicyError(f"{self.params.onnx or self.params.feature}: {error}") from error
        return _Explored(scores, self.params)


class _FeatureScores:
    """The scores that stand in one column of the actions' features."""

    def __init__(self, feature: str, columns: FeatureColumns) -> None:
        places: Any = columns_of(columns.actions, feature) if feature in columns.actions else ()
        if len(places) != 1:
            numbers = [name for name, own in columns.actions.items() if len(own) == 1]
            raise PolicyError(
                f"feature: got {feature!r}; expected a number of action_features"
                + (f": one of {', '.join(numbers)}" if numbers else ", and there is none")
            )
        self._column = int(places[0])

    def __call__(self, x: Floats, features: Floats) -> Floats:  # noqa: ARG002
        return np.asarray(features[:, self._column])
