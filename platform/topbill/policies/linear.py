"""The Bayesian (generalised) linear model behind the linear policies: Gaussian blocks updated one example at a time.

An action's score on the link scale is the sum of independent Gaussian blocks: one *shared* by all actions over
(1, x, k) ⊗ (1, z), one of the action's *own* over (1, x, k), where k = position/(1 + position) is 0 at the first
position: what a lower place costs is learned, and every decision is scored as if for the first. Within a block the
posterior is exact; between blocks covariances are dropped (assumed-density filtering, Opper 1998), so that an
update costs a rank-one step in the blocks it touches. With the linear link and one block this is ridge regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np

from topbill.errors import PolicyError
from topbill.policies import codec
from topbill.policies.gaussian import Blocks, newton
from topbill.records import Actions, Example, Floats, Indices

REFRESH = 65_536
"""Learned examples between two re-symmetrisations of the covariances."""
_VAGUE = (2.0, 0.5, 1.0)
SIGNAL = 10.0
"""Prior variance of what a whole context of unit scale adds to an action's score, however many features it has;"""
WEIGHT = 0.5
"""but a single weight's variance is at most this."""
INTERCEPT = 0.25
"""Prior variance of an action's own intercept."""

Positive = Annotated[float, msgspec.Meta(gt=0.0)]


class LinearParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all linear policies share."""

    model: Annotated[
        Literal["disjoint", "shared", "hybrid"],
        msgspec.Meta(description="weights per action, weights on context × action features, or both"),
    ] = "hybrid"
    link: Annotated[
        Literal["linear", "logistic"], msgspec.Meta(description="how a score becomes an expected reward")
    ] = "logistic"
    half_life: Annotated[
        Positive | None,
        msgspec.Meta(description="learned examples after which an example counts half; never if absent"),
    ] = None
    half_life_seconds: Annotated[
        Positive | None, msgspec.Meta(description="the same in seconds of decision time; at most one of the two")
    ] = None
    prior_scale: Annotated[
        Positive | None,
        msgspec.Meta(
            description="prior standard deviation of a weight, in standard deviations of the reward's noise "
            "(linear link) or in logits (logistic link); if absent, what suits the number of features"
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.half_life is not None and self.half_life_seconds is not None:
            raise ValueError("half_life and half_life_seconds exclude each other; give one")


@dataclass(frozen=True, slots=True)
class Prediction:
    """Scores on the link scale in units of the noise: mean (K,), variance (K,), and how scores vary together.

    Cov(score) = diag(own) + Z·common·Zᵀ, with Z of the layout; `common` is None when scores are independent.
    """

    mean: Floats
    own: Floats | float
    common: Floats | None
    at: Layout
    shift: float = 0.0

    @property
    def variance(self) -> Floats:
        """(K,) the variance of each score; sampling jointly needs none, so it is computed when asked for."""
        total: Floats = np.full(len(self.mean), self.shift) + self.own
        if self.common is not None:
            total += np.einsum("ka,ka->k", self.at.Z @ self.common, self.at.Z)
        return np.maximum(total, 1e-300)


class Layout:
    """Where an Actions object's rows are, valid while `known` ids are known; Z (K × (1 + da)) is (1, z).

    `rank` orders actions by id, so that what is sampled for an action does not depend on its place.
    """

    __slots__ = ("Z", "actions", "known", "rank", "rows")

    def __init__(self, actions: Actions, index: dict[str, int]) -> None:
        self.actions, self.known = actions, len(index)
        rows = [index.get(name, 0) for name in actions.ids]
        first = rows[0] if rows else 0
        run = first > 0 and rows == list(range(first, first + len(rows)))
        # Static actions usually lie in a run: a slice reads the covariances where they are.
        self.rows: slice | Indices = slice(first, first + len(rows)) if run else np.array(rows, dtype=np.intp)
        self.Z = np.concatenate([np.ones((len(rows), 1)), actions.features], axis=1)
        self.rank: Indices = np.argsort(np.argsort(np.array(actions.ids))) if rows else np.zeros(0, dtype=np.intp)

    def take(self, chosen: Indices) -> Layout:
        """The layout of some of the actions, in the order given."""
        part = object.__new__(Layout)
        rows = self.rows
        part.actions, part.known = self.actions, -1
        part.rows = chosen + rows.start if isinstance(rows, slice) else rows[chosen]
        part.Z, part.rank = self.Z[chosen], self.rank[chosen]
        return part


class Linear:
    """The model: predicts scores of actions, and learns from examples in order. Raises PolicyError on bad shapes."""

    def __init__(self, params: LinearParams, *, context_size: int, action_size: int) -> None:
        self.params = params
        self.d, self.da = context_size, action_size
        self.index: dict[str, int] = {}
        self.own: Blocks | None = None
        self.shared: Blocks | None = None
        logistic = params.link == "logistic"
        wide = 10.0 if logistic else 1.0
        common, own = _priors(params, context_size, action_size)
        if params.model != "disjoint":
            variance = np.full((context_size + 2) * (action_size + 1), common)
            variance[0] = wide
            self.shared = Blocks(np.zeros(variance.size), variance)
        if params.model != "shared":
            variance = np.full(context_size + 2, own)
            if params.prior_scale is None:
                variance[0] = INTERCEPT
            if params.model == "disjoint" and logistic:
                variance[0] = wide
            self.own = Blocks(np.zeros(context_size + 2), variance)
        self.learned = 0
        # Count, sum of squared errors and sum of rewards behind the noise estimate: 0.25 and one half at first.
        self.residuals = np.array(_VAGUE)
        self.forgot_at = 0.0
        self._layout = Layout(Actions((), np.zeros((0, action_size))), {})

    @property
    def noise(self) -> float:
        """Estimated variance of a reward around its mean; 1 for the logistic link, whose likelihood knows it."""
        return 1.0 if self.params.link == "logistic" else float(self.residuals[1] / self.residuals[0])

    @property
    def spread(self) -> float:
        """Variance of a click at the base rate seen so far, μ(1 − μ): the most that rewards in [0, 1] can vary."""
        base = float(self.residuals[2] / self.residuals[0])
        return max(base * (1.0 - base), 1e-6)

    def layout(self, actions: Actions) -> Layout:
        """Rows and features of `actions`, derived once per object and catalogue."""
        found = self._layout
        if found.actions is not actions or found.known != len(self.index):
            if actions.features.shape != (len(actions), self.da):
                raise PolicyError(f"actions.features is {actions.features.shape}, expected {(len(actions), self.da)}")
            found = self._layout = Layout(actions, self.index)
        return found

    def extend(self, x: Floats, position: int = 0) -> Floats:
        """(1, x, how far down): the last is 0 at the first position, which all decisions are scored for."""
        if x.shape != (self.d,):
            raise PolicyError(f"context has shape {x.shape}, expected ({self.d},)")
        out = np.empty(self.d + 2)
        out[0] = 1.0
        out[1:-1] = x
        out[-1] = position / (1.0 + position)
        return out

    def predict(self, x: Floats, actions: Actions) -> Prediction:
        """Scores of `actions` in context x (d), in O(K·d²) and O(d²·da²)."""
        at, xt = self.layout(actions), self.extend(x)
        K, p = len(actions), self.d + 2
        mean: Floats = np.zeros(K)
        own: Floats | float = 0.0
        common, shift = None, 0.0
        if self.own is not None:
            mean = self.own.mean[at.rows] @ xt
            own = (self.own.cov[at.rows].reshape(K * p, p) @ xt).reshape(K, p) @ xt
        if self.shared is not None:
            q = self.da + 1
            mean = mean + at.Z @ (xt @ self.shared.mean.reshape(p, q))
            common = together = xt @ (xt @ self.shared.cov.reshape(p, q * p * q)).reshape(q, p, q)
            if q == 1:
                common, shift = None, float(together[0, 0])  # the same for all actions: it moves no comparison
        return Prediction(mean, own, common, at, shift)

    def learn(self, example: Example) -> None:
        """Fold one example in."""
        self._forget(example.at)
        xt = self.extend(example.x, example.position)
        parts: list[tuple[Blocks, int, Floats]] = []
        mean = variance = 0.0
        if self.shared is not None:
            phi = np.multiply.outer(xt, self.layout(example.actions).Z[example.index]).ravel()
            m, v, g = self.shared.gain(0, phi)
            mean, variance = mean + m, variance + v
            parts.append((self.shared, 0, g))
        if self.own is not None:
            row = self.row(example.actions.ids[example.index])
            m, v, g = self.own.gain(row, xt)
            mean, variance = mean + m, variance + v
            parts.append((self.own, row, g))
        slope, curvature = self._step(mean, variance, example.reward)
        for blocks, row, g in parts:
            blocks.absorb(row, g, slope, curvature)
        self.learned += 1

    def row(self, name: str) -> int:
        """The row of an action's own weights, new with the prior if need be."""
        row = self.index.get(name)
        if row is None:
            row = self.index[name] = self.own.add() if self.own is not None else 0
        return row

    def _step(self, mean: float, variance: float, reward: float) -> tuple[float, float]:
        total = 1.0 + variance
        error = reward - mean
        if self.params.link == "logistic":
            self.residuals += 1.0, 0.0, reward
            return newton(mean, variance, reward)
        self.residuals += 1.0, error * error / total, reward
        return error / total, 1.0 / total

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
        both = [blocks for blocks in (self.shared, self.own) if blocks is not None]
        if keep < 1.0:
            self.residuals = keep * self.residuals + (1.0 - keep) * np.array(_VAGUE)
            for blocks in both:
                blocks.forget(keep)
        elif self.learned % REFRESH == REFRESH - 1:
            for blocks in both:
                blocks.symmetrise()

    def arrays(self) -> dict[str, Floats]:
        """All learned numbers, by name."""
        out = {"residuals": self.residuals}
        for name, blocks in (("shared", self.shared), ("own", self.own)):
            if blocks is not None:
                out[f"{name}_mean"] = blocks.mean[: blocks.size]
                out[f"{name}_cov"] = blocks.cov[: blocks.size]
        return out

    def dump(self, kind: str, **numbers: float) -> bytes:
        """The state as bytes; `numbers` are the caller's own."""
        own = {"learned": float(self.learned), "forgot_at": self.forgot_at}
        return codec.dump(kind, ids=list(self.index), arrays=self.arrays(), numbers=own | numbers)

    def load(self, kind: str, blob: bytes, *extra: str) -> codec.State:
        """Restore what `dump` wrote, or raise PolicyError and change nothing."""
        shapes: dict[str, tuple[int | None, ...]] = {"residuals": (3,)}
        for name, blocks in (("shared", self.shared), ("own", self.own)):
            if blocks is not None:
                p = blocks.prior_mean.size
                rows = 1 if name == "shared" else None
                shapes |= {f"{name}_mean": (rows, p), f"{name}_cov": (rows, p, p)}
        state = codec.load(kind, blob, arrays=shapes, numbers=("learned", "forgot_at", *extra))
        learned = codec.number(state, "learned")
        codec.check_rows(state, kind)
        if state.arrays["residuals"][0] <= 0.0:
            raise PolicyError(
                f"state of {kind}: residuals count {state.arrays['residuals'][0]}; rebuild it from the log"
            )
        for name, blocks in (("shared", self.shared), ("own", self.own)):
            if blocks is not None:
                blocks.restore(state.arrays[f"{name}_mean"], state.arrays[f"{name}_cov"])
        self.index = {name: i + 1 if self.own is not None else 0 for i, name in enumerate(state.ids)}
        self.residuals = state.arrays["residuals"]
        self.learned, self.forgot_at = int(learned), state.numbers["forgot_at"]
        self._layout = Layout(Actions((), np.zeros((0, self.da))), {})
        return state

    def explain(
        self, x: Floats, actions: Actions, names: tuple[Sequence[str], Sequence[str]]
    ) -> list[dict[str, float]]:
        """Per action, what each feature adds to its score on the link scale; `a×b` are interactions."""
        at, xt = self.layout(actions), self.extend(x)
        context = ["", *names[0], "position"]
        features = ["", *names[1]]
        out: list[dict[str, float]] = [{} for _ in actions.ids]
        for k, told in enumerate(out):
            if self.own is not None:
                row = at.rows.start + k if isinstance(at.rows, slice) else int(at.rows[k])
                for name, value in zip(context, self.own.mean[row] * xt, strict=True):
                    told[name or "intercept"] = float(value)
            if self.shared is not None:
                parts = self.shared.mean.reshape(self.d + 2, self.da + 1) * np.multiply.outer(xt, at.Z[k])
                for i, left in enumerate(context):
                    for j, right in enumerate(features):
                        name = "×".join(filter(None, (left, right))) or "intercept"
                        told[name] = told.get(name, 0.0) + float(parts[i, j])
        return out


def _priors(params: LinearParams, context_size: int, action_size: int) -> tuple[float, float]:
    """Prior variances of a shared weight and of one of an action's own, where `prior_scale` doesn't say it.

    What actions' features explain is no longer their own: each takes an equal part of the signal away.
    """
    if params.prior_scale is not None:
        return 0.25 * params.prior_scale**2, params.prior_scale**2
    features = action_size + 1 if params.model == "hybrid" else 1
    return 0.0625, min(WEIGHT, SIGNAL / max(context_size, 1)) / features
