"""The model behind the linear policies: one Bayesian (generalised) linear model, with what it needs
to run for years.

Its bases open with 1 and end with k = position/(1 + position), which is 0 at the first position:
what a lower place costs is learned, and every decision is scored as if for the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.policies import codec
from topbill.policies.linear.fourier import Fourier
from topbill.policies.linear.models import Experts, Layout, Prediction, extended

_VAGUE = (2.0, 0.5, 1.0)
SIGNAL = 30.0
"""Prior variance of what a whole context of unit scale adds to an action's score, however many
features it has;
"""
WEIGHT = 1.5
"""but a single weight's variance is at most this."""
INTERCEPT, SHARED = 0.1, 0.0625
"""Prior variances of an action's own intercept, and of a shared weight."""
CURVES, SMALL = 16, 10
"""Fourier frequencies by default, in contexts of at most so many numbers;"""
CURVED = 1.0
"""what they add to an action's score has this prior variance, little: where taste is linear they
must not disturb.
"""
_SEED = 20_231
_ONE = np.ones(1)

Positive = Annotated[float, msgspec.Meta(gt=0.0)]


class LinearParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all linear policies share."""

    model: Annotated[
        Literal["disjoint", "shared", "hybrid"],
        msgspec.Meta(
            description="weights per action, weights on context × action features, or both"
        ),
    ] = "hybrid"
    link: Annotated[
        Literal["linear", "logistic"],
        msgspec.Meta(description="how a score becomes an expected reward"),
    ] = "logistic"
    half_life: Annotated[
        Positive | None,
        msgspec.Meta(
            description="learned examples after which an example counts half; never if absent"
        ),
    ] = None
    half_life_seconds: Annotated[
        Positive | None,
        msgspec.Meta(description="the same in seconds of decision time; at most one of the two"),
    ] = None
    prior_scale: Annotated[
        Positive | None,
        msgspec.Meta(
            description="prior standard deviation of a weight, in standard deviations of the reward's noise "
            "(linear link) or in logits (logistic link); if absent, what suits the number of features"
        ),
    ] = None
    fourier_features: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=256)] | None,
        msgspec.Meta(
            description="random Fourier frequencies among the features of an action's own weights, for taste that is "
            "not linear; if absent, 16 where a hybrid model meets a context of at most 10 numbers and actions without "
            "features, else none",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.fourier_features and self.model == "shared":
            raise ValueError(
                "fourier_features are of an action's own weights, which model: shared has not; choose hybrid"
            )
        if self.half_life is not None and self.half_life_seconds is not None:
            raise ValueError("half_life and half_life_seconds exclude each other; give one")


class Linear:
    """The model: predicts scores of actions, and learns from examples in order. Raises PolicyError
    on bad shapes.
    """

    def __init__(self, params: LinearParams, *, context_size: int, action_size: int) -> None:
        self.params = params
        self.d, self.da = context_size, action_size
        self.index: dict[str, int] = {}
        # The same for all seeds: a policy's state must mean the same in every process that loads
        # it.
        self.fourier = Fourier(
            np.random.default_rng(_SEED),
            _frequencies(params, context_size, action_size),
            context_size,
        )
        logistic = params.link == "logistic"
        wide = 10.0 if logistic else 1.0
        common, of_own, of_curves = _priors(params, context_size, action_size, self.fourier.count)
        shared = np.full(
            (1, 0 if params.model == "disjoint" else (context_size + 2) * (action_size + 1)), common
        )
        shared[:, :1] = wide
        own = np.full(
            (1, 0 if params.model == "shared" else context_size + 2 + 2 * self.fourier.count),
            of_own,
        )
        own[:, context_size + 2 :] = of_curves
        if params.prior_scale is None:
            own[:, :1] = INTERCEPT
        if params.model == "disjoint" and logistic:
            own[:, :1] = wide
        self.experts = Experts(own, shared, np.ones(1), logistic)
        self.learned = 0
        # Count, sum of squared errors and sum of rewards behind the noise estimate: 0.25 and one
        # half at first.
        self.residuals = np.array(_VAGUE)
        self.forgot_at = 0.0
        self._layout = Layout(Actions((), np.zeros((0, action_size))), {})

    @property
    def noise(self) -> float:
        """Estimated variance of a reward around its mean; 1 for the logistic link, whose likelihood
        knows it.
        """
        return (
            1.0 if self.params.link == "logistic" else float(self.residuals[1] / self.residuals[0])
        )

    @property
    def spread(self) -> float:
        """Variance of a click at the base rate seen so far, μ(1 − μ): the most that rewards in [0,
        1] can vary.
        """
        base = float(self.residuals[2] / self.residuals[0])
        return max(base * (1.0 - base), 1e-6)

    def layout(self, actions: Actions) -> Layout:
        """Rows and features of `actions`, derived once per object and catalogue."""
        found = self._layout
        if found.actions is not actions or found.known != len(self.index):
            if actions.features.shape != (len(actions), self.da):
                raise PolicyError(
                    f"actions.features is {actions.features.shape}, expected {(len(actions), self.da)}"
                )
            found = self._layout = Layout(actions, self.index)
        return found

    def _basis(self, xt: Floats) -> Floats:
        """What an action's own weights are over: nothing, `xt`, or `xt` and its Fourier
        features.
        """
        if not self.fourier.count:
            return xt[: self.experts.own.prior.shape[1]]
        out = np.empty(len(xt) + 2 * self.fourier.count)
        out[: len(xt)] = xt
        self.fourier.into(out[len(xt) :], xt[1:-1])
        return out

    @property
    def independent(self) -> bool:
        """Whether scores of different actions vary independently, but for what moves no
        comparison.
        """
        return self.params.model == "disjoint" or self.da == 0

    def predict(self, x: Floats, actions: Actions) -> Prediction:
        """Scores of `actions` in context x (d), in O(K·d²) and O(d²·da²)."""
        out, xt = Prediction.empty(self.layout(actions)), extended(x, self.d, 0)
        self.experts.predict(_ONE, self._basis(xt), xt, out)
        return out

    def learn(self, example: Example) -> None:
        """Fold one example in."""
        self._forget(example.at)
        xt = extended(example.x, self.d, example.position)
        z = example.actions.features[example.index]
        if z.shape != (self.da,):
            raise PolicyError(f"action features have shape {z.shape}, expected ({self.da},)")
        shared = np.multiply.outer(xt, np.concatenate([_ONE, z])).ravel()
        row, product = (
            self.row(example.actions.ids[example.index]),
            shared[: self.experts.shared.prior.shape[1]],
        )
        told = self.experts.learn(row, self._basis(xt), product, example.reward)
        self.residuals += 1.0, 0.0 if self.params.link == "logistic" else told[0], example.reward
        self.learned += 1

    def row(self, name: str) -> int:
        """The row of an action's own weights, new with the prior if need be; 0 where actions have
        none.
        """
        if self.params.model == "shared":
            return 0
        row = self.index.get(name)
        if row is None:
            row = self.index[name] = self.experts.own.add()
        return row

    def _forget(self, at: float) -> None:
        count, seconds = self.params.half_life, self.params.half_life_seconds
        keep = 1.0
        if count is not None and self.learned - self.forgot_at >= count / 16.0:
            keep = 0.5 ** ((self.learned - self.forgot_at) / count)
            self.forgot_at = float(self.learned)
        elif seconds is not None:
            if self.forgot_at == 0.0:
                self.forgot_at = at
            if at - self.forgot_at >= seconds / 16.0:
                keep = 0.5 ** ((at - self.forgot_at) / seconds)
                self.forgot_at = at
        if keep < 1.0:
            self.residuals = keep * self.residuals + (1.0 - keep) * np.array(_VAGUE)
            self.experts.forget(keep)

    def dump(self, kind: str) -> bytes:
        """The state as bytes."""
        numbers = {"learned": float(self.learned), "forgot_at": self.forgot_at}
        arrays = {"residuals": self.residuals} | self.experts.arrays()
        return codec.dump(kind, ids=list(self.index), arrays=arrays, numbers=numbers)

    def load(self, kind: str, blob: bytes) -> None:
        """Restore what `dump` wrote, or raise PolicyError and change nothing."""
        shapes: dict[str, tuple[int | None, ...]] = {"residuals": (3,)}
        shapes |= self.experts.shapes()
        state = codec.load(kind, blob, arrays=shapes, numbers=("learned", "forgot_at"))
        learned = codec.number(state, "learned")
        codec.check_rows(state, kind)
        if state.arrays["residuals"][0] <= 0.0:
            raise PolicyError(
                f"state of {kind}: residuals count {state.arrays['residuals'][0]}; rebuild it from the log"
            )
        self.experts.restore(state)
        self.index = {name: i + 1 for i, name in enumerate(state.ids)}
        self.residuals = state.arrays["residuals"]
        self.learned, self.forgot_at = int(learned), state.numbers["forgot_at"]
        self._layout = Layout(Actions((), np.zeros((0, self.da))), {})

    def explain(
        self, x: Floats, actions: Actions, names: tuple[Sequence[str], Sequence[str]]
    ) -> list[dict[str, float]]:
        """Per action, what each feature adds to its score on the link scale; `a×b` are
        interactions.
        """
        at, xt = self.layout(actions), extended(x, self.d, 0)
        context = ["", *names[0], "position"]
        basis, labels = self._basis(xt), context + ["fourier_features"] * 2 * self.fourier.count
        features = ["", *names[1]]
        out: list[dict[str, float]] = [{} for _ in actions.ids]
        for k, told in enumerate(out):
            own = self.experts.own.mean[at.rows[k], 0]
            for name, value in zip(labels, own * basis, strict=False):
                told[name or "intercept"] = told.get(name or "intercept", 0.0) + float(value)
            if self.params.model != "disjoint":
                parts = self.experts.shared.mean.reshape(
                    self.d + 2, self.da + 1
                ) * np.multiply.outer(xt, at.Z[k])
                for i, left in enumerate(context):
                    for j, right in enumerate(features):
                        name = "×".join(filter(None, (left, right))) or "intercept"
                        told[name] = told.get(name, 0.0) + float(parts[i, j])
        return out


def _frequencies(params: LinearParams, context_size: int, action_size: int) -> int:
    """How many frequencies `params` ask for: by default some where a context is small and tells all
    there is.
    """
    if params.fourier_features is not None:
        return params.fourier_features if context_size else 0
    return (
        CURVES if params.model == "hybrid" and 0 < context_size <= SMALL and not action_size else 0
    )


def _priors(
    params: LinearParams, context_size: int, action_size: int, frequencies: int
) -> tuple[float, float, float]:
    """Prior variances of a shared weight, of one of an action's own, and of one over a Fourier
    feature.

    What actions' features explain is no longer their own: each takes three parts of the signal
    away.
    """
    if params.prior_scale is not None:
        return 0.25 * params.prior_scale**2, params.prior_scale**2, params.prior_scale**2
    parts = 1 + 3 * action_size if params.model == "hybrid" else 1
    return (
        SHARED,
        min(WEIGHT, SIGNAL / max(context_size, 1)) / parts,
        CURVED / max(frequencies, 1) / parts,
    )


class LinearScored:
    """One decision's scores. `mean` and `width` are in rewards, `eta` and `sd` on the link
    scale.
    """

    __slots__ = ("_logistic", "_noise", "_sd", "eta", "prediction")

    def __init__(self, prediction: Prediction, noise: float, logistic: bool) -> None:
        self.prediction = prediction
        self.eta: Floats = prediction.mean
        self._noise, self._logistic = noise, logistic
        self._sd: Floats | None = None

    @property
    def sd(self) -> Floats:
        """(K,) one posterior standard deviation of each score on the link scale."""
        if self._sd is None:
            self._sd = np.sqrt(self.prediction.variance * self._noise)
        return self._sd

    @property
    def mean(self) -> Floats:
        """(K,) expected reward of each action."""
        return (
            1.0 / (1.0 + np.exp(-np.clip(self.eta, -500.0, 500.0))) if self._logistic else self.eta
        )

    @property
    def width(self) -> Floats:
        """(K,) one posterior standard deviation of the mean (delta method for the logistic
        link).
        """
        if not self._logistic:
            return self.sd
        p = self.mean
        return p * (1.0 - p) * self.sd

    def probabilities(self, remaining: Indices) -> Floats:
        raise NotImplementedError


class LinearPolicy:
    """A policy over one `Linear` model. Subclasses say how scores become probabilities."""

    kind: ClassVar[str]

    def __init__(
        self,
        params: LinearParams,
        *,
        context_size: int,
        action_size: int,
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        self.params = params
        self.model = Linear(params, context_size=context_size, action_size=action_size)
        self._logistic = params.link == "logistic"

    def update(self, examples: Sequence[Example]) -> None:
        for example in examples:
            self.model.learn(example)

    def dump(self) -> bytes:
        return self.model.dump(self.kind)

    def load(self, blob: bytes) -> None:
        self.model.load(self.kind, blob)

    def explain(
        self, x: Floats, actions: Actions, names: tuple[Sequence[str], Sequence[str]]
    ) -> list[dict[str, float]]:
        return self.model.explain(x, actions, names)
