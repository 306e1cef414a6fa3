"""Does a policy end on the right actions, however the context is written? Worlds of few groups,
each with an action of its own that is better than the others, where Thompson sampling with a Beta
posterior per group and action finds it.

    python -m benchmarks.lock_in [--kinds thompson,auto] [--worlds two_groups,late] [--seeds 24]

For each kind with its defaults, world and way to write the context: in how many of the seeds at
least 90% of the last decisions are right. It is the probability of the right action that counts,
which is less noisy than the draws. A policy that sits on one action for all groups has one half
right, or less. Nothing is learned within a batch, so that one vector of probabilities serves all
decisions of a group in it; rewards come whole batches later.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))

import msgspec
import numpy as np

from topbill.domain.chance import with_min_probability
from topbill.domain.records import Actions, Example, Floats
from topbill.policies import KINDS
from topbill.spec.exploration import default_min_probability

RIGHT = 0.9
"""The share of the last decisions that must be right,"""
SEEDS_RIGHT = 0.95
"""in so many of the seeds in which a Beta posterior per group and action manages it."""
LAST = 1_000
"""How many decisions are the last ones; half of all where there are fewer than twice as many."""

Writing = Callable[[int], list[float]]


def after(*constants: float, scale: float = 1.0) -> Writing:
    """The number of the group behind constants."""
    return lambda group: [*constants, scale * group]


def one_hot(groups: int) -> Writing:
    """A column a group."""
    return lambda group: [float(group == g) for g in range(groups)]


PLAIN: dict[str, Writing] = {"[0, g]": after(0.0), "[1, g]": after(1.0), "[5, g]": after(5.0)}
COLLINEAR: dict[str, Writing] = {
    "[g, 1-g]": lambda g: [g, 1.0 - g],
    "[1, g, 1-g, 2g, g]": lambda g: [1.0, g, 1.0 - g, 2.0 * g, g],
    "[g] ten times": lambda g: [float(g)] * 10,
}
SCALED: dict[str, Writing] = {
    "[g/1000]": after(scale=0.001),
    "[100g]": after(scale=100.0),
    "[2026, g]": after(2026.0),
    "[2026+g]": lambda g: [2026.0 + g],
    "[1, 50, g/20]": after(1.0, 50.0, scale=0.05),
}


@dataclass(frozen=True)
class World:
    """`groups` equally frequent groups; in each the action of its own earns with probability
    `high`, the others with `low`. Rewards of a batch of decisions are learned `late` batches after
    the next one has begun.
    """

    rounds: int = 6_000
    actions: int = 3
    groups: int = 2
    low: float = 0.03
    high: float = 0.12
    batch: int = 50
    late: int = 0
    writings: dict[str, Writing] | None = None

    def best(self, group: int) -> int:
        """The action that is the group's own: the first and the last of two."""
        return group * (self.actions - 1) // (self.groups - 1)

    @property
    def last(self) -> int:
        """From which decision on they are the last."""
        return self.rounds - min(LAST, self.rounds // 2)


WORLDS: dict[str, World] = {
    "two_groups": World(writings=PLAIN),
    "rare": World(rounds=24_000, low=0.0075, high=0.03, writings=PLAIN),
    "frequent": World(low=0.45, high=0.6, writings=PLAIN),
    "immediate": World(rounds=1_500, low=0.2, high=0.8, batch=1, writings=PLAIN),
    "late": World(rounds=8_000, late=40, writings=PLAIN),
    "daily": World(rounds=12_000, batch=1_000, writings=PLAIN),
    "many_actions": World(rounds=12_000, actions=8, writings=PLAIN),
    "many_groups": World(rounds=18_000, groups=6, actions=6, writings={"one-hot": one_hot(6)}),
    "collinear": World(writings=COLLINEAR),
    "scaled": World(writings=SCALED),
}
"""The world in which the default of `thompson` was seen to lock, and what is like it."""

Decide = Callable[[Floats], Floats]
Learned = tuple[int, int, float, float]
"""Group, action, the probability with which it was drawn, reward."""
Learn = Callable[[list[Learned]], None]


def play(world: World, seed: int, decide: Callable[[int], Floats], learn: Learn) -> float:
    """The share of right decisions among the last, of one that says its probabilities for a group
    and learns what came of them."""
    random = np.random.default_rng([20_260, seed])
    waiting: list[list[Learned]] = []
    right, last = 0.0, 0
    for start in range(0, world.rounds, world.batch):
        size = min(world.batch, world.rounds - start)
        groups = random.integers(world.groups, size=size).tolist()
        uniforms = random.random((size, 2)).tolist()
        chances: dict[int, Floats] = {}
        batch: list[Learned] = []
        for group, (u, v) in zip(groups, uniforms, strict=True):
            p = chances.get(group)
            if p is None:
                p = chances[group] = decide(group)
            action = min(int(np.searchsorted(np.cumsum(p), u, side="right")), len(p) - 1)
            best = world.best(group)
            reward = float(v < (world.high if action == best else world.low))
            batch.append((group, action, float(p[action]), reward))
            if start >= world.last:
                right += float(p[best])
                last += 1
        waiting.append(batch)
        if len(waiting) > world.late:
            learn(waiting.pop(0))
    return right / last


def policy(kind: str, world: World, writing: Writing, seed: int, params: dict[str, Any]) -> float:
    """The share of right decisions among the last of a kind of policy, with what a file gets that
    says nothing of `min_probability`.
    """
    contexts = [np.array(writing(group), dtype=np.float64) for group in range(world.groups)]
    actions = Actions([f"title-{k}" for k in range(world.actions)], np.zeros((world.actions, 0)))
    eligible = np.arange(world.actions)
    made = KINDS[kind](
        msgspec.convert(params, KINDS[kind].Params),
        context_size=len(contexts[0]),
        action_size=0,
        seed=seed,
    )
    least = default_min_probability(kind, world.actions)

    def decide(group: int) -> Floats:
        p = made.score(contexts[group], actions, seed).probabilities(eligible)
        return with_min_probability(p, least)

    def learn(batch: list[Learned]) -> None:
        made.update([Example(contexts[g], actions, a, p, r) for g, a, p, r in batch])

    return play(world, seed, decide, learn)


def beta_thompson(world: World, seed: int) -> float:
    """The same of Thompson sampling from Beta(1 + clicks, 1 + others) per group and action
    (Chapelle and Li 2011): its probabilities are shares of 200 draws.
    """
    random = np.random.default_rng([4_711, seed])
    counts = np.ones((world.groups, world.actions, 2))

    def decide(group: int) -> Floats:
        draws = random.beta(*counts[group].T, size=(200, world.actions))
        return np.bincount(draws.argmax(1), minlength=world.actions) / 200.0

    def learn(batch: list[Learned]) -> None:
        for group, action, _, reward in batch:
            counts[group, action] += reward, 1.0 - reward

    return play(world, seed, decide, learn)


def shares(
    kind: str, world: World, writing: Writing, seeds: Sequence[int], **params: Any
) -> list[float]:
    """What `policy` says, for each of the seeds in which a Beta posterior is right."""
    good = [seed for seed in seeds if beta_thompson(world, seed) >= RIGHT]
    return [policy(kind, world, writing, seed, params) for seed in good]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    learning = [kind for kind in KINDS if kind not in ("uniform", "fixed", "scored")]
    parser.add_argument("--kinds", default=",".join(learning))
    parser.add_argument("--worlds", default=",".join(WORLDS))
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--params", default="{}", help="parameters of the policies, as JSON")
    asked = parser.parse_args()
    params = msgspec.json.decode(asked.params)
    kinds = asked.kinds.split(",")
    print("seeds right of those in which Beta-Thompson is, and the least share of right decisions")
    print(f"{'world':14s}{'context':20s}" + "".join(f"{kind:>16s}" for kind in kinds), flush=True)
    failed = []
    for name in asked.worlds.split(","):
        world = WORLDS[name]
        seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
        good = [seed for seed in seeds if beta_thompson(world, seed) >= RIGHT]
        for label, writing in (world.writings or PLAIN).items():
            print(f"{name:14s}{label:20s}", end="", flush=True)
            for kind in kinds:
                found = [policy(kind, world, writing, seed, params) for seed in good]
                right = sum(share >= RIGHT for share in found)
                cell = f"{right}/{len(good)} {min(found, default=1.0):.2f}"
                is_met = right >= SEEDS_RIGHT * len(good)
                failed += [] if is_met else [f"{kind} {name} {label}"]
                print(f"{cell + (' ' if is_met else '!'):>16s}", end="", flush=True)
            print(flush=True)
    print("locked: " + (", ".join(failed) if failed else "none"))


if __name__ == "__main__":
    main()
