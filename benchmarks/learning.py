"""How much of the reachable reward each policy earns on thirteen streams: `make bench-learning`
prints the table.

    python -m benchmarks.learning --data DIR [--seeds 2] [--streams titles,artwork] [--policies
    auto,linucb]

Score = (reward − uniform) / (context oracle − uniform), from expected rewards, with common random
numbers: the same action in the same round of the same seed earns the same whatever the policy. DIR
holds the data sets as NAME.npz with X (T × d, standardised) and Y (T × K, the reward of each
action); without it only the two simulators run. Peers' columns are the best of many settings per
stream, measured once on a two-core machine; they are constants here.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from benchmarks import arena_adapter

from topbill.domain.records import Actions, Example
from topbill.policies import KINDS
from topbill.policies.auto import Auto, AutoParams
from topbill.policies.linear.gaussian import GaussianStack
from topbill.policies.linear.policy import LinearParams, LinearPolicy

NAN = float("nan")
PEERS = ("VW", "MABWiser", "contextual-bandits", "obp", "numpy")
PUBLISHED = {
    "digits": (0.715, 0.790, 0.786, 0.779, 0.806),
    "digits_late": (0.652, 0.695, 0.690, 0.657, 0.721),
    "segment": (0.778, 0.858, 0.869, 0.858, 0.866),
    "yeast": (0.629, 0.603, 0.591, 0.607, 0.610),
    "breast_cancer": (0.924, 0.916, 0.916, 0.932, 0.912),
    "wine": (0.900, 0.884, NAN, NAN, 0.888),
    "iris": (0.723, 0.771, 0.785, 0.769, 0.796),
    "phishing": (0.785, 0.784, NAN, NAN, 0.784),
    "bananas": (0.252, 0.170, 0.151, 0.152, 0.165),
    "rbfdrift": (0.591, 0.474, 0.485, 0.441, 0.474),
    "leddrift": (0.539, 0.466, 0.469, 0.546, 0.460),
    "titles": (0.720, 0.320, NAN, NAN, 0.820),
    "artwork": (0.725, 0.693, 0.699, 0.732, 0.758),
}


@dataclass
class Stream:
    """T rounds: contexts, true means (NaN where not offered), common uniforms, who is offered, when
    rewards come.
    """

    contexts: np.ndarray
    means: np.ndarray
    uniforms: np.ndarray
    ids: list[str]
    features: np.ndarray
    oracle: np.ndarray
    offered: np.ndarray | None = None
    ready: np.ndarray | None = None


def late(rng: np.random.Generator, rounds: int, mean: float, batch: int) -> np.ndarray:
    """The round at which each reward comes: an exponential delay, then the next batch."""
    return (
        np.ceil((np.arange(rounds) + 1 + rng.exponential(mean, rounds)) / batch) * batch
    ).astype(int)


def dataset(folder: Path, name: str, seed: int) -> Stream:
    """Classification as a bandit: the action is the label, the reward whether it applies."""
    base = name.removesuffix("_late")
    drifting = not (folder / f"{base}.npz").exists()
    held = np.load(folder / (f"{base}{seed % 5}.npz" if drifting else f"{base}.npz"))
    x, y = held["X"], held["Y"]
    rng = np.random.default_rng(1000 + seed)
    if not drifting:
        order = rng.permutation(len(x))
        x, y = x[order], y[order]
    uniforms = rng.random(y.shape)
    ready = late(rng, len(x), 100, 50) if name != base else None
    ids = [f"{name}_{k}" for k in range(y.shape[1])]
    return Stream(x, y, uniforms, ids, np.zeros((len(ids), 0)), y.argmax(1), ready=ready)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def intercept(logits: np.ndarray, base: float) -> float:
    """What to add to the logits so that uniform choice earns `base`."""
    low, high = -8.0, 2.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if sigmoid(logits + middle).mean() > base else (middle, high)
    return middle


def viewers(rng: np.random.Generator, size: int) -> np.ndarray:
    """50,000 tastes around eight centres."""
    centres = rng.normal(size=(8, size))
    centres *= 1.6 / np.linalg.norm(centres, axis=1, keepdims=True)
    return centres[rng.integers(0, 8, 50_000)] + 0.5 * rng.normal(size=(50_000, size))


def believed(taste: np.ndarray, seen: np.ndarray, noise: float) -> np.ndarray:
    """What the context oracle makes of noisy tastes: shrunk to the mean."""
    variance = taste.var(0)
    return taste.mean(0) + (seen - taste.mean(0)) * (variance / (variance + noise))


def artwork(seed: int, rounds: int = 40_000, base: float = 0.05) -> Stream:
    """Twelve artworks; three are replaced at half time, taste turns at two thirds, rewards come 500
    rounds late.
    """
    rng = np.random.default_rng(77_000 + seed)
    size, actions = 0.6, 15
    taste = viewers(rng, 6)
    device = rng.choice(3, 50_000, p=[0.45, 0.35, 0.2])
    F = rng.normal(size=(actions, 5)) * 0.8
    W1, W2 = rng.normal(size=(2, 6, 5)) * 0.28 * size
    R1, R2 = rng.normal(size=(2, actions, 6)) * 0.18 * size
    q1, q2 = rng.normal(size=(2, actions)) * 0.30 * size
    W2, R2, q2 = (0.5 * a + 0.75**0.5 * b for a, b in ((W1, W2), (R1, R2), (q1, q2)))
    D = rng.normal(size=(3, actions)) * 0.22 * size
    H = rng.normal(size=(2, 5)) * 0.18 * size
    who = rng.integers(0, 50_000, rounds)
    hour = (np.arange(rounds) / rounds * 24 * 14 + rng.normal(size=rounds)) % 24
    clock = np.stack([np.sin(hour / 12 * np.pi), np.cos(hour / 12 * np.pi)], 1)
    z = taste[who]
    seen = z + 0.6 * rng.normal(size=z.shape)
    turned = (np.arange(rounds) >= 2 * rounds // 3)[:, None]
    common = D[device[who]] + clock @ H @ F.T + np.array([0.0, -0.25, 0.15])[device[who]][:, None]

    def logits(t: np.ndarray) -> np.ndarray:
        return np.where(turned, t @ W2 @ F.T + t @ R2.T + q2, t @ W1 @ F.T + t @ R1.T + q1) + common

    first, second = np.arange(12), np.r_[np.arange(3, 12), 12, 13, 14]
    offered = np.where((np.arange(rounds) >= rounds // 2)[:, None], second, first)
    mask = np.zeros((rounds, actions), bool)
    np.put_along_axis(mask, offered, True, 1)
    L = logits(z)
    means = np.where(mask, sigmoid(L + intercept(L[mask], base)), np.nan)
    oracle = np.where(mask, logits(believed(taste, seen, 0.36)), -np.inf).argmax(1)
    contexts = np.hstack([seen, np.eye(3)[device[who]], clock])
    uniforms = rng.random((rounds, actions))
    ids = [f"art{k}" for k in range(actions)]
    return Stream(contexts, means, uniforms, ids, F, oracle, offered, late(rng, rounds, 500, 100))


def titles(seed: int, rounds: int = 15_000, base: float = 0.05) -> Stream:
    """20 candidates a round out of 200 live titles; the catalogue of 600 turns over, so that titles
    are always new.
    """
    rng = np.random.default_rng(88_000 + seed)
    taste = viewers(rng, 5)
    F = rng.normal(size=(600, 8)) * 0.7
    W, w, q = rng.normal(size=(5, 8)) * 0.20, rng.normal(size=8) * 0.12, rng.normal(size=600) * 0.25
    z = taste[rng.integers(0, 50_000, rounds)]
    seen = z + 0.5 * rng.normal(size=z.shape)
    start = (np.arange(rounds) / rounds * 400).astype(int)
    offered = np.array([np.sort(rng.choice(200, 20, replace=False) + s) for s in start])

    def logits(t: np.ndarray) -> np.ndarray:
        return np.einsum("td,tkd->tk", t @ W, F[offered]) + (F @ w + q)[offered]

    L = logits(z)
    means = np.full((rounds, 600), np.nan, np.float32)
    np.put_along_axis(means, offered, sigmoid(L + intercept(L, base)).astype(np.float32), 1)
    oracle = offered[np.arange(rounds), logits(believed(taste, seen, 0.25)).argmax(1)]
    uniforms = rng.random((rounds, 600), dtype=np.float32)
    ids = [f"t{k}" for k in range(600)]
    return Stream(seen, means, uniforms, ids, F, oracle, offered, late(rng, rounds, 200, 50))


def play(kind: str, stream: Stream, seed: int) -> tuple[float, float, float]:
    """Score, and microseconds per decision and per update."""
    spec = {"d": stream.contexts.shape[1], "da": stream.features.shape[1]}
    player = arena_adapter.factory(kind, floor=0.0)(spec, seed)
    rounds = len(stream.contexts)
    everyone = np.arange(len(stream.ids))
    sets: dict[bytes, Actions] = {}
    waiting: dict[int, list[Any]] = {}
    earned, clock, deciding, learning = 0.0, time.perf_counter, 0.0, 0.0
    for t in range(rounds):
        t0 = clock()
        player.update_batch(waiting.pop(t, []))
        learning += clock() - t0
        columns = everyone if stream.offered is None else stream.offered[t]
        actions = sets.get(columns.tobytes())
        if actions is None:
            actions = Actions([stream.ids[c] for c in columns], stream.features[columns])
            sets[columns.tobytes()] = actions
        t0 = clock()
        index, p = player.decide(stream.contexts[t], actions)
        deciding += clock() - t0
        mean = float(stream.means[t, columns[index]])
        earned += mean
        reward = float(stream.uniforms[t, columns[index]] < mean)
        due = t + 1 if stream.ready is None else int(stream.ready[t])
        waiting.setdefault(due, []).append((stream.contexts[t], actions, index, p, reward))
    uniform = float(np.nanmean(stream.means, axis=1).mean())
    best = float(stream.means[np.arange(rounds), stream.oracle].mean())
    return (
        (earned / rounds - uniform) / (best - uniform),
        deciding / rounds * 1e6,
        learning / rounds * 1e6,
    )


def endurance(updates: int) -> None:
    """Learn `updates` examples with scales from 0.001 to 1,000 in the context; print what became of
    the covariances.
    """
    rng = np.random.default_rng(0)
    actions = Actions([f"a{k}" for k in range(4)], np.zeros((4, 0)))
    contexts = rng.normal(size=(512, 4)) * [1.0, 1e-3, 1e3, 1.0]
    told = [
        Example(contexts[t], actions, t % 4, 0.25, float(rng.random() < 0.05)) for t in range(512)
    ]
    for given in ({"link": "linear"}, {"link": "logistic"}, {"link": "logistic", "half_life": 1e5}):
        model = LinearPolicy(LinearParams(model="disjoint", **given), context_size=4, action_size=0)
        took = lasting(updates, told, model.learn)
        print(f"{given}: {health(model.models.own, 0)}, {took}", flush=True)
    auto = Auto(AutoParams(), context_size=4, action_size=0)
    took = lasting(updates, told, lambda example: auto.update([example]))
    for experts in (auto.straight, auto.curved):
        for e in range(len(experts)):
            print(f"auto: own {health(experts.own, e)}; shared {health(experts.shared, e)}")
    print(f"auto: {took}")


def lasting(updates: int, told: list[Example], learn: Callable[[Example], None]) -> str:
    """Learn `told` again and again; microseconds of processor time an update in the first and in
    the last tenth."""
    times = []
    for part in range(10):
        start = time.process_time()
        for t in range(part * updates // 10, (part + 1) * updates // 10):
            learn(told[t % len(told)])
        times.append((time.process_time() - start) / (updates / 10) * 1e6)
    return (
        f"{updates:,} updates, {times[0]:.1f} µs each in the first tenth, {times[-1]:.1f} in "
        f"the last"
    )


def health(stack: GaussianStack, e: int) -> str:
    """Whether learned rows of expert `e` are finite, and their least eigenvalue; symmetric they are
    to the last bit.
    """
    mean, cov = stack.used()
    mean, cov = mean[:, e], cov[:, e]
    if not (
        np.isfinite(cov).all()
        and np.isfinite(mean).all()
        and np.array_equal(cov, cov.swapaxes(1, 2))
    ):
        return "NOT FINITE OR NOT SYMMETRIC"
    return f"least eigenvalue {np.linalg.eigvalsh(cov).min():.2e}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of NAME.npz data sets")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--streams", default="")
    parser.add_argument(
        "--policies", default=",".join(k for k in KINDS if k not in ("uniform", "fixed"))
    )
    parser.add_argument(
        "--endurance", type=int, default=0, help="instead: this many updates of each model"
    )
    asked = parser.parse_args()
    if asked.endurance:
        endurance(asked.endurance)
        return
    simulators = {"artwork": artwork, "titles": titles}
    streams = [s for s in asked.streams.split(",") if s] or [
        s for s in PUBLISHED if asked.data or s in simulators
    ]
    kinds = asked.policies.split(",")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__}"
    )
    print(
        f"{asked.seeds} seeds; ours with defaults, peers with the best of many settings per stream"
    )
    print(f"{'stream':14s}" + "".join(f"{name[:13]:>15s}" for name in (*kinds, *PEERS)))
    for name in streams:
        scores = np.empty((len(kinds), asked.seeds))
        for seed in range(asked.seeds):
            stream = (
                simulators[name](seed) if name in simulators else dataset(asked.data, name, seed)
            )
            for k, kind in enumerate(kinds):
                scores[k, seed], *_ = play(kind, stream, seed)
        ours = "".join(
            f"{s.mean():9.3f}±{s.std() / max(asked.seeds - 1, 1) ** 0.5:.3f}" for s in scores
        )
        print(
            f"{name:14s}{ours}" + "".join(f"{v:15.3f}" for v in PUBLISHED.get(name, ())), flush=True
        )


if __name__ == "__main__":
    main()
