"""One player on one stream of `benchmarks.public`, run by the Python that has its library.

    python benchmarks/public_players.py PLAYER STREAM.npz SEED

prints one line of JSON: what it earned, what a decision cost, and what its probabilities said
beside what was drawn. A player is made with its library's own defaults for a contextual bandit of
binary rewards; what was chosen for it is in its class. Needs NumPy and that library, nothing else;
Topbill's own policies come by `arena_adapter`.

STREAM has X (T × d) contexts, P (T × K) expected rewards, U (T × K) uniforms in [0, 1) by which
rewards are drawn, and `batch`: rewards come when so many decisions were made. Where it has
`starts`, another player begins at each of them, with as many actions as `K` says there. A log to be
replayed has A (T,) logged actions and R (T,) their rewards in place of P and U: a decision counts,
and is learned from, where it chose what was logged (Li, Chu, Langford and Wang 2011).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

BINS = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0])
"""Probabilities are compared with draws by these ranges of them."""


class Topbill:
    package = "topbill"

    def __init__(self, d: int, k: int, seed: int, kind: str) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from benchmarks import arena_adapter

        from topbill.domain.records import Actions

        self.player = arena_adapter.factory(kind)({"d": d, "da": 0}, seed)
        self.actions = Actions([f"a{i}" for i in range(k)], np.zeros((k, 0)))

    def decide(self, x: np.ndarray) -> tuple[int, float]:
        index, p = self.player.decide(x, self.actions)
        self.pmf = np.asarray(self.player.last_pmf, dtype=float)
        return index, p

    def learn(self, batch: list[tuple[np.ndarray, int, float, float]]) -> None:
        self.player.update_batch([(x, self.actions, i, p, r) for x, i, p, r in batch])


class VowpalWabbit:
    """--cb_explore_adf with its default exploration (epsilon-greedy, 5%), and an interaction of
    context and action, without which it could not tell contexts apart."""

    package = "vowpalwabbit"

    def __init__(self, d: int, k: int, seed: int) -> None:  # noqa: ARG002
        import vowpalwabbit

        options = ["--cb_explore_adf", "-q", "ca", "--random_seed", str(seed), "--quiet"]
        self.workspace = vowpalwabbit.Workspace(arg_list=options)
        self.k, self.random = k, np.random.default_rng(seed)

    def _lines(self, x: np.ndarray, label: str = "", chosen: int = -1) -> list[str]:
        shared = " ".join(f"x{i}:{value:.6g}" for i, value in enumerate(x))
        lines = [f"shared |c {shared}"]
        lines += [f"{label if i == chosen else ''}|a a{i}" for i in range(self.k)]
        return lines

    def decide(self, x: np.ndarray) -> tuple[int, float]:
        pmf = np.array(self.workspace.predict(self._lines(x)), dtype=float)
        self.pmf = pmf / pmf.sum()
        index = int(self.random.choice(self.k, p=self.pmf))
        return index, float(self.pmf[index])

    def learn(self, batch: list[tuple[np.ndarray, int, float, float]]) -> None:
        for x, index, p, reward in batch:
            self.workspace.learn(self._lines(x, f"0:{-reward}:{p} ", index))


class Gittins:
    """16 bits, since 8 are few for these contexts; all else by default."""

    package = "gittins"

    def __init__(self, d: int, k: int, seed: int) -> None:
        import gittins

        self.library = gittins
        self.state = gittins.create(bits=16, horizon=1e9)
        self.candidates = [(f"a{i}", {}) for i in range(k)]
        self.names = [f"x{i}" for i in range(d)]
        self.seed, self.t, self.open, self.pmf = seed, 0.0, {}, None

    def decide(self, x: np.ndarray) -> tuple[int, float]:
        self.t += 1.0
        context = dict(zip(self.names, x.tolist(), strict=True))
        salt = f"{self.seed}-{self.t:.0f}"
        record = self.library.decide(self.state, context, self.candidates, self.t, salt)
        self.open.setdefault((x.tobytes(), record.chosen), []).append(record.decision_id)
        return record.chosen, record.propensity

    def learn(self, batch: list[tuple[np.ndarray, int, float, float]]) -> None:
        for x, index, _, reward in batch:
            decision = self.open[x.tobytes(), index].pop(0)
            self.library.learn(self.state, decision, reward, self.t)


class BayesianBandits:
    """Thompson sampling over a Bayesian linear regression for each action, the guide's contextual
    agent. It says no probabilities."""

    package = "bayesianbandits"

    def __init__(self, d: int, k: int, seed: int) -> None:  # noqa: ARG002
        from bayesianbandits import Arm, ContextualAgent, NormalRegressor, ThompsonSampling

        arms = [Arm(i, learner=NormalRegressor(alpha=1.0, beta=1.0)) for i in range(k)]
        self.agent = ContextualAgent(arms, ThompsonSampling(), random_seed=seed)
        self.pmf = None

    def decide(self, x: np.ndarray) -> tuple[int, float]:
        (action,) = self.agent.pull(_with_constant(x)[None])
        return int(action), 0.0

    def learn(self, batch: list[tuple[np.ndarray, int, float, float]]) -> None:
        for index in sorted({index for _, index, _, _ in batch}):
            own = [(x, r) for x, i, _, r in batch if i == index]
            contexts = np.array([_with_constant(x) for x, _ in own])
            self.agent.select_for_update(index).update(contexts, np.array([r for _, r in own]))


class Mabwiser:
    """LinUCB, its contextual policy, with alpha 1. It says no probabilities."""

    package = "mabwiser"

    def __init__(self, d: int, k: int, seed: int) -> None:  # noqa: ARG002
        from mabwiser.mab import MAB, LearningPolicy

        self.mab = MAB(list(range(k)), LearningPolicy.LinUCB(alpha=1.0), seed=seed)
        self.k, self.random, self.fitted = k, np.random.default_rng(seed), False
        self.pmf = None

    def decide(self, x: np.ndarray) -> tuple[int, float]:
        # It decides only once it has been fitted.
        if not self.fitted:
            return int(self.random.integers(self.k)), 0.0
        return int(self.mab.predict(_with_constant(x)[None])), 0.0

    def learn(self, batch: list[tuple[np.ndarray, int, float, float]]) -> None:
        decisions, rewards = [i for _, i, _, _ in batch], [r for *_, r in batch]
        contexts = np.array([_with_constant(x) for x, *_ in batch])
        teach = self.mab.partial_fit if self.fitted else self.mab.fit
        teach(decisions, rewards, contexts)
        self.fitted = True


class ContextualBandits:
    """Its LinUCB with all defaults. It says no probabilities."""

    package = "contextualbandits"

    def __init__(self, d: int, k: int, seed: int) -> None:  # noqa: ARG002
        from contextualbandits.online import LinUCB

        self.policy = LinUCB(nchoices=k, random_state=seed + 1)
        self.k, self.random, self.fitted = k, np.random.default_rng(seed), False
        self.pmf = None

    def decide(self, x: np.ndarray) -> tuple[int, float]:
        if not self.fitted:
            return int(self.random.integers(self.k)), 0.0
        return int(self.policy.predict(x[None])[0]), 0.0

    def learn(self, batch: list[tuple[np.ndarray, int, float, float]]) -> None:
        contexts = np.array([x for x, *_ in batch])
        actions, rewards = np.array([i for _, i, _, _ in batch]), np.array([r for *_, r in batch])
        self.policy.partial_fit(contexts, actions, rewards)
        self.fitted = True


class PyBandits:
    """Its Bernoulli bandit without context: the contextual one samples a network's posterior at
    each update, which takes seconds. It says no probabilities of its choices."""

    package = "pybandits"

    def __init__(self, d: int, k: int, seed: int) -> None:  # noqa: ARG002
        from pybandits.smab import SmabBernoulli

        np.random.seed(seed)  # noqa: NPY002 (its only seed)
        self.mab = SmabBernoulli.cold_start(action_ids={f"a{i}" for i in range(k)})
        self.pmf = None

    def decide(self, x: np.ndarray) -> tuple[int, float]:  # noqa: ARG002
        chosen, *_ = self.mab.predict(n_samples=1)
        return int(chosen[0][1:]), 0.0

    def learn(self, batch: list[tuple[np.ndarray, int, float, float]]) -> None:
        self.mab.update(
            actions=[f"a{i}" for _, i, _, _ in batch], rewards=[int(r) for *_, r in batch]
        )


PEERS = {
    "vowpalwabbit": VowpalWabbit,
    "gittins": Gittins,
    "bayesianbandits": BayesianBandits,
    "mabwiser": Mabwiser,
    "contextualbandits": ContextualBandits,
    "pybandits": PyBandits,
}


def _with_constant(x: np.ndarray) -> np.ndarray:
    """For libraries without an intercept of their own."""
    return np.concatenate([[1.0], x])


class Honesty:
    """Draws beside the probabilities that were said of them, by ranges of these: how many were
    expected and drawn in each, and the covariance of the numbers drawn, if they were true.
    """

    def __init__(self) -> None:
        count = len(BINS) - 1
        self.expected, self.drawn = np.zeros(count), np.zeros(count)
        self.covariance = np.zeros((count, count))
        self.inverse: list[float] = []

    def note(self, pmf: np.ndarray | None, index: int, p: float, k: int) -> None:
        if pmf is not None:
            place = np.clip(np.searchsorted(BINS, pmf, side="right") - 1, 0, len(BINS) - 2)
            of_range = np.bincount(place, weights=pmf, minlength=len(BINS) - 1)
            self.expected += of_range
            self.drawn[place[index]] += 1.0
            # One draw falls into one range: multinomial.
            self.covariance += np.diag(of_range) - np.outer(of_range, of_range)
        elif p > 0.0:
            # Where only the drawn one's is said: E[1/(K·p)] = 1 if it is true and none is 0.
            self.inverse.append(1.0 / (k * p))

    def result(self) -> dict[str, object]:
        said = self.expected.any()
        return {
            "expected": self.expected.tolist() if said else None,
            "drawn": self.drawn.tolist(),
            "covariance": self.covariance.tolist(),
            "inverse": self.inverse or None,
        }


def play(make: Callable[[int], object], stream: dict[str, np.ndarray]) -> dict[str, object]:
    """All parts of a stream, each by a new player that `make` makes for so many actions."""
    starts = stream["starts"].tolist() if "starts" in stream else [0]
    counts = np.atleast_1d(stream["K"]).tolist()
    total = Played(Honesty())
    for start, end, k in zip(starts, [*starts[1:], len(stream["X"])], counts, strict=True):
        total.play(make(int(k)), stream, (start, end), int(k))
    return total.result()


class Played:
    """What players earned, and what it took."""

    def __init__(self, honesty: Honesty) -> None:
        self.honesty, self.rewards = honesty, []
        self.deciding = self.learning = 0.0
        self.decisions = 0

    def play(
        self, player: object, stream: dict[str, np.ndarray], part: tuple[int, int], k: int
    ) -> None:
        logged, clock = "A" in stream, time.process_time
        waiting: list[tuple[np.ndarray, int, float, float]] = []
        for t in range(*part):
            x = stream["X"][t]
            started = clock()
            index, p = player.decide(x)
            self.deciding += clock() - started
            self.decisions += 1
            self.honesty.note(player.pmf, index, p, k)
            if logged and index != stream["A"][t]:
                continue
            mean = float(stream["R"][t] if logged else stream["P"][t, index])
            reward = mean if logged else float(stream["U"][t, index] < mean)
            self.rewards.append(mean)
            waiting.append((x, index, p, reward))
            if len(waiting) == int(stream["batch"]):
                started = clock()
                player.learn(waiting)
                self.learning += clock() - started
                waiting = []

    def result(self) -> dict[str, object]:
        count = max(len(self.rewards), 1)
        return {
            "earned": sum(self.rewards) / count,
            "error": float(np.std(self.rewards) / count**0.5),
            "counted": len(self.rewards),
            "decide_us": self.deciding / max(self.decisions, 1) * 1e6,
            "learn_us": self.learning / count * 1e6,
            **self.honesty.result(),
        }


def main() -> None:
    name, file, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with np.load(file) as held:
        stream = {key: held[key] for key in held.files}
    d = stream["X"].shape[1]
    kind = PEERS.get(name, Topbill)
    more = () if name in PEERS else (name,)
    result = play(lambda k: kind(d, k, seed, *more), stream)
    print(json.dumps({**result, "version": version(kind.package)}))


if __name__ == "__main__":
    main()
