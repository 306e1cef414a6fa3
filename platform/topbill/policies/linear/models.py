"""Bayesian (generalised) linear models side by side: what `auto` blends, and, one alone, what the
linear policies are.

An action's score on the link scale is the sum of independent Gaussian blocks: weights *shared* by
all actions over a context ⊗ (1, features), and the action's *own* over a basis of the context.
Within a block the posterior is exact; between blocks covariances are dropped (assumed-density
filtering, Opper 1998), so that an update costs a rank-one step in the blocks it touches. With the
linear link and one block this is ridge regression.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np

from topbill.domain.errors import PolicyError
from topbill.domain.example_batch import ExampleBatch
from topbill.domain.records import Actions, Floats, Indices
from topbill.policies.codec import PolicyState
from topbill.policies.linear.gaussian import GaussianStack
from topbill.policies.linear.prior import ActionPrior

_ONE = np.ones(1)


def extended(x: Floats, size: int, position: int) -> Floats:
    """A context with its intercept, and with how far down it was shown.

    Args:
        x: (size,) the context.
        size: How long it must be.
        position: From 0, the first.

    Returns:
        (size + 2,) 1, x and position/(1 + position): the last is 0 at the first position, which all
        decisions are scored for.

    Raises:
        PolicyError: x has another shape.
    """
    check_context(x, size)
    out = np.empty(size + 2)
    out[0] = 1.0
    out[1:-1] = x
    out[-1] = position / (1.0 + position)
    return out


def extended_contexts(batch: ExampleBatch) -> Floats:
    """(n × (d + 2)) `extended` of each example."""
    out = np.empty((len(batch), batch.contexts.shape[1] + 2))
    out[:, 0] = 1.0
    out[:, 1:-1] = batch.contexts
    out[:, -1] = batch.positions / (1.0 + batch.positions)
    return out


def extended_features(features: Floats) -> Floats:
    """(n × (1 + da)) the features (n × da) of actions that were chosen, each behind a 1."""
    out = np.empty((len(features), 1 + features.shape[1]))
    out[:, 0] = 1.0
    out[:, 1:] = features
    return out


class ActionIndex:
    """Where the rows of an Actions object (K) are.

    `rows` (K,) are those of the actions' own weights, 0 for an action that nobody has seen: the
    prior. `Z` (K × (1 + da)) is (1, features). Valid for these `actions` while `size` actions have
    rows: one more may be one of these.
    """

    __slots__ = ("Z", "_rank", "actions", "rows", "size")

    def __init__(self, actions: Actions, row_of: dict[str, int]) -> None:
        self.actions = actions
        self.size = len(row_of)
        self.rows: Indices = np.zeros(len(actions), dtype=np.intp)
        # Where nobody has been seen, as where actions have no weights of their own, nobody is
        # looked up.
        if row_of:
            self.rows[:] = [row_of.get(name, 0) for name in actions.ids]
        self.Z = np.empty((len(actions), 1 + actions.features.shape[1]))
        self.Z[:, 0] = 1.0
        self.Z[:, 1:] = actions.features
        self._rank: Indices | None = None

    def is_for(self, actions: Actions, row_of: dict[str, int]) -> bool:
        """Whether it still says where these are."""
        # The very object: comparing ids and features would cost more than it saves.
        return self.actions is actions and self.size == len(row_of)

    @property
    def rank(self) -> Indices:
        """(K,) places of the actions by id: what is sampled for an action does not depend on where
        it stands.
        """
        if self._rank is None:
            by_id = sorted(range(len(self.rows)), key=self.actions.ids.__getitem__)
            self._rank = np.empty(len(self.rows), dtype=np.intp)
            self._rank[by_id] = np.arange(len(self.rows))
        return self._rank


def check_context(x: Floats, size: int) -> None:
    """PolicyError unless a context is of `size` numbers."""
    if x.shape != (size,):
        raise PolicyError(f"context has shape {x.shape}, expected ({size},)")


def check_contexts(xs: Floats, size: int) -> None:
    """PolicyError unless contexts (n × size) are of `size` numbers each."""
    if xs.ndim != 2 or xs.shape[1] != size:
        raise PolicyError(f"contexts have shape {xs.shape}, expected (n, {size})")


def check_features(actions: Actions, size: int) -> None:
    """PolicyError unless every action has `size` features."""
    expected = (len(actions), size)
    if actions.features.shape != expected:
        raise PolicyError(f"actions.features is {actions.features.shape}, expected {expected}")


class Prediction(NamedTuple):
    """Scores of K actions on the link scale in units of the noise: mean (K,), and how they vary.

    Cov(scores) = diag(own) + Z·common·Zᵀ, with Z of the index (K × q) and common (q × q).
    """

    action_index: ActionIndex
    mean: Floats
    own: Floats
    common: Floats

    @classmethod
    def empty(cls, index: ActionIndex) -> Prediction:
        """Nothing yet: models add to it."""
        K, q = index.Z.shape
        return cls(index, np.zeros(K), np.zeros(K), np.zeros((q, q)))

    @property
    def variance(self) -> Floats:
        """(K,) the variance of each score; sampling jointly needs none, so it is computed when
        asked for.
        """
        from topbill.policies.linear import kernels

        return kernels.variances(self.own, self.common, self.action_index.Z)

    def bounds(self, noise: float, alpha: float) -> Floats:
        """(K,) each mean and `alpha` standard deviations, those of `variance` times `noise`."""
        from topbill.policies.linear import kernels

        return kernels.bounds(self.mean, self.own, self.common, self.action_index.Z, noise, alpha)


class LinearModels:
    """E models over one basis (p) that differ in priors and memory.

    Args:
        own: (E × p) prior variances of an action's own weights.
        shared: (E × m) those of shared weights. Either may be without columns, where a model has no
            such weights.
        keep: (E,) the share of older evidence that an update leaves in the directions it informs.
        logistic: Whether the link is logistic; else it is linear.
    """

    __slots__ = ("_keep", "_kernels", "_logistic", "_spread", "own", "shared")
    NAMES: ClassVar = ("own_mean", "own_cov", "shared_mean", "shared_cov", "spread")
    """What a state calls its arrays, behind a prefix."""

    def __init__(self, own: Floats, shared: Floats, keep: Floats, logistic: bool = True) -> None:
        # Here, so that who only reads specs or writes reports need not load a compiler.
        from topbill.policies.linear import kernels

        self._kernels = kernels
        self.own = GaussianStack(own)
        self.shared = GaussianStack(shared)
        self._keep = keep
        self._logistic = logistic
        # Of an action's own intercept, where earlier experiments told it.
        self._spread: float | None = None

    def __len__(self) -> int:
        return len(self._keep)

    def predict(self, weights: Floats, basis: Floats, context: Floats, into: Prediction) -> None:
        """Add what the models expect, each with its weight (E,), to `into`. O(K·E·p²) and
        O(E·m²).
        """
        own, shared, index = self.own, self.shared, into.action_index
        self._kernels.predict(
            own.mean, own.cov, shared.mean[0], shared.cov[0],
            weights, index.rows, basis, context, index.Z, into.mean, into.own, into.common,
        )  # fmt: skip

    def learn(
        self, rows: Indices, bases: Floats, contexts: Floats, features: Floats, rewards: Floats
    ) -> Floats:
        """Fold in the rewards of n examples, one after the other.

        Args:
            rows: (n,) the own weights of each one's action.
            bases: (n × p) what those are over.
            contexts: (n × r) and
            features: (n × q): the shared weights are over the one ⊗ the other.
            rewards: (n,) in [0, 1].

        Returns:
            (n × E) what was predicted of each before it was learned: probabilities; with the linear
            link, squared errors in units of the predictive variance.
        """
        own, shared = self.own, self.shared
        predicted = np.empty((len(rows), len(self._keep)))
        self._kernels.learn_each(
            own.mean, own.cov, own.prior, shared.mean[0], shared.cov[0], shared.prior,
            self._keep, rows, bases, contexts, features, rewards, self._logistic, predicted,
        )  # fmt: skip
        return predicted

    def learn_beside(
        self,
        recent: LinearModels,
        rows: Indices,
        bases: Floats,
        contexts: Floats,
        features: Floats,
        rewards: Floats,
        lead: Floats,
        ahead: float,
        every: int,
    ) -> int:
        """`learn` with a model, and with a `recent` one of the same priors beside it, until that
        one predicts better by far, which is looked at after `every` examples; how many were
        learned. `lead` (2,) is by how much it did, and how many examples there were since the last
        look.
        """
        own, shared, other = self.own, self.shared, recent
        learned: int = self._kernels.learn_beside(
            own.mean, own.cov, own.prior, shared.mean[0], shared.cov[0], shared.prior,
            self._keep, other.own.mean, other.own.cov, other.shared.mean[0], other.shared.cov[0],
            other._keep, rows, bases, contexts, features, rewards, lead, ahead, every,
        )  # fmt: skip
        return learned

    def begin(self, prior: ActionPrior) -> None:
        """Expect of actions, before anything is learned, what earlier ones tell: how far their own
        intercepts are apart, and what features add whatever the context is.
        """
        self._spread = prior.spread
        self.own.differ_by(prior.spread)
        # The first of a context is its intercept, and the first of features too.
        columns = np.arange(1, 1 + len(prior.means))
        self.shared.mean[0, :, columns] = np.array(prior.means)[:, None]
        self.shared.cov[0, :, columns, columns] = np.array(prior.variances)[:, None]

    def forget(self, keep: float) -> None:
        """Keep that share of all evidence, and let the prior take the rest."""
        self.own.forget(keep)
        self.shared.forget(keep)

    def take_over(self, other: LinearModels) -> None:
        """Believe what others of these weights do."""
        for mine, theirs in ((self.own, other.own), (self.shared, other.shared)):
            mean, cov = theirs.used()
            mine.restore(mean.copy(), cov.copy())

    def arrays(self, prefix: str = "") -> dict[str, Floats]:
        """All learned numbers, by name."""
        own_mean, own_cov = self.own.used()
        shared_mean, shared_cov = self.shared.used()
        arrays = {
            f"{prefix}own_mean": own_mean,
            f"{prefix}own_cov": own_cov,
            f"{prefix}shared_mean": shared_mean,
            f"{prefix}shared_cov": shared_cov,
        }
        if self._spread is not None:
            arrays[f"{prefix}spread"] = np.array([self._spread])
        return arrays

    def shapes(self, prefix: str = "") -> dict[str, tuple[int | None, ...]]:
        """The shapes that `restore` takes: any number of rows of own weights, one of shared
        weights.
        """
        out: dict[str, tuple[int | None, ...]] = {}
        for name, stack, rows in (("own", self.own, None), ("shared", self.shared, 1)):
            E, p = stack.prior.shape
            out[f"{prefix}{name}_mean"] = (rows, E, p)
            out[f"{prefix}{name}_cov"] = (rows, E, p, p)
        return out

    @staticmethod
    def optional(prefix: str = "") -> dict[str, tuple[int | None, ...]]:
        """The shapes of arrays that a state may hold too."""
        return {f"{prefix}spread": (1,)}

    @staticmethod
    def check(state: PolicyState, prefix: str = "") -> None:
        """PolicyError for a state that `restore` cannot take over."""
        spread = state.arrays.get(f"{prefix}spread", _ONE)[0]
        if spread <= 0.0:
            raise PolicyError(f"{prefix}spread is {spread}; expected a variance")

    def restore(self, state: PolicyState, prefix: str = "") -> None:
        """Take over what `arrays` gave, its shapes checked."""
        spread = state.arrays.get(f"{prefix}spread")
        self._spread = None if spread is None else float(spread[0])
        if spread is not None:
            # For rows to come; those that there are, the unseen one too, are of the state.
            self.own.prior[:, :1] = spread[0]
        for name, stack in (("own", self.own), ("shared", self.shared)):
            stack.restore(state.arrays[f"{prefix}{name}_mean"], state.arrays[f"{prefix}{name}_cov"])
