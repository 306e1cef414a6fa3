"""Titles and pictures at rare clicks and with short lives: how much of what the best title earns is
earned while it is being found?

    python -m benchmarks.upworthy FILE [--impressions 1000] [--tests 400]

FILE is a parquet file of the Upworthy Research Archive's tests, a row a title: test_id,
impressions, clicks, week (Matias, Munger, Le Quere and Ebersole 2021, Scientific Data 8:195). Sound
tests count: not of the weeks 201325 to 201401, when a cache broke the assignment, and without a
sample ratio mismatch at 0.1%.

The archive knows no rates, only clicks. A title's rate is taken to be the posterior mean under a
beta prior around its test's rate with a coefficient of variation of 16.8%, which is what arms of a
test differ by (between-test sampling noise taken off). Each test is then played anew: batches of
100 impressions, nothing learned within one. Share of the oracle's gap = Σ(earned − mean of the
titles) ÷ Σ(best − mean of the titles), of expected rewards, over tests; ± its standard error over
tests (ratio estimator). Levels depend on the shrinkage: compare within a run.

`ab30` shows all titles alike for 30% of the impressions, then the one with the highest observed
rate. `bayes` knows each test's rate and that prior, and shows the highest posterior mean. The
policies are with their defaults, and know neither.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))

import msgspec
import numpy as np
import pyarrow.parquet as pq

from topbill.ab import srm
from topbill.domain.chance import with_min_probability
from topbill.domain.records import Actions, Example, Floats
from topbill.policies import KINDS
from topbill.spec.exploration import default_min_probability

BROKEN = 201_325, 201_401
"""The weeks in which a cache broke the assignment, the first and the last."""
MISMATCH = 0.001
"""Tests whose sample ratio is less probable than that are not sound."""
VARIATION = 0.168
"""The standard deviation of the rates of a test's titles, as a share of their mean."""
BATCH = 100
AB_SHARE = 0.3
NO_CONTEXT = np.zeros(0)


class Titles(NamedTuple):
    """One test: the rates of its K titles, and the beta prior that they were shrunk to."""

    rates: Floats
    prior: tuple[float, float]


Play = Callable[[Titles, int, np.random.Generator], float]
"""What a way to choose earns on average per impression of so many."""


def prior_of(rate: float) -> tuple[float, float]:
    """The beta distribution with that mean and `VARIATION`."""
    size = (1.0 - rate) / (rate * VARIATION**2) - 1.0
    return rate * size, (1.0 - rate) * size


def sound_tests(file: Path) -> list[Titles]:
    """The sound tests in a file, in the order of their ids."""
    columns = pq.read_table(file, columns=["test_id", "impressions", "clicks", "week"]).to_pydict()
    rows: dict[str, list[tuple[int, int, int]]] = {}
    for test, *numbers in zip(*columns.values(), strict=True):
        rows.setdefault(test, []).append((numbers[0], numbers[1], int(numbers[2])))
    tests = []
    for _, arms in sorted(rows.items()):
        impressions, clicks, weeks = (np.array(column) for column in zip(*arms, strict=True))
        if len(arms) < 2 or clicks.sum() == 0 or BROKEN[0] <= weeks[0] <= BROKEN[1]:
            continue
        if float(srm(impressions.tolist(), [1.0 / len(arms)] * len(arms))) < MISMATCH:
            continue
        a, b = prior_of(float(clicks.sum() / impressions.sum()))
        tests.append(Titles((clicks + a) / (impressions + a + b), (a, b)))
    return tests


def of_policy(kind: str, seed: int = 0) -> Play:
    """A kind of policy with its defaults, and with what a file gets that says no
    `min_probability`.
    """

    def play(titles: Titles, impressions: int, random: np.random.Generator) -> float:
        count = len(titles.rates)
        actions = Actions([f"title-{k}" for k in range(count)], np.zeros((count, 0)))
        params = msgspec.convert({}, KINDS[kind].Params)
        policy = KINDS[kind](params, context_size=0, action_size=0, seed=seed)
        least = default_min_probability(kind, count)
        earned = 0.0
        for start in range(0, impressions, BATCH):
            size = min(BATCH, impressions - start)
            p = policy.score(NO_CONTEXT, actions, seed).probabilities(np.arange(count))
            p = with_min_probability(p, least)
            shown = random.choice(count, size=size, p=p / p.sum())
            rewards = random.random(size) < titles.rates[shown]
            earned += float(p @ titles.rates) * size
            policy.update(
                [
                    Example(NO_CONTEXT, actions, k, float(p[k]), float(reward))
                    for k, reward in zip(shown.tolist(), rewards.tolist(), strict=True)
                ]
            )
        return earned / impressions

    return play


def ab_then_ship(titles: Titles, impressions: int, random: np.random.Generator) -> float:
    """All alike for `AB_SHARE` of the impressions, then the highest observed rate."""
    count, tested = len(titles.rates), round(AB_SHARE * impressions)
    shown = random.multinomial(tested, np.full(count, 1.0 / count))
    observed = random.binomial(shown, titles.rates) / np.maximum(shown, 1)
    best = random.choice(np.flatnonzero(observed == observed.max()))
    earned = tested * titles.rates.mean() + (impressions - tested) * titles.rates[best]
    return float(earned / impressions)


def greedy_bayes(titles: Titles, impressions: int, random: np.random.Generator) -> float:
    """The highest posterior mean under the prior that the rates were shrunk to."""
    a, b = (np.full(len(titles.rates), each) for each in titles.prior)
    earned = 0.0
    for start in range(0, impressions, BATCH):
        size = min(BATCH, impressions - start)
        means = a / (a + b)
        best = random.choice(np.flatnonzero(means == means.max()))
        clicks = random.binomial(size, titles.rates[best])
        a[best] += clicks
        b[best] += size - clicks
        earned += size * titles.rates[best]
    return float(earned / impressions)


PLAYS: dict[str, Play] = {
    "auto": of_policy("auto"),
    "thompson": of_policy("thompson"),
    "ab30": ab_then_ship,
    "bayes": greedy_bayes,
}


def share(gained: Floats, gap: Floats) -> tuple[float, float]:
    """Σgained ÷ Σgap over tests, and its standard error."""
    ratio = float(gained.sum() / gap.sum())
    size = len(gap)
    error = np.sqrt(((gained - ratio * gap) ** 2).sum() * size / (size - 1)) / gap.sum()
    return ratio, float(error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--impressions", type=int, default=1_000)
    parser.add_argument("--tests", type=int, default=0, help="so many of them; 0 is all")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    tests = sound_tests(asked.file)
    if asked.tests:
        order = np.random.default_rng(1).permutation(len(tests))
        tests = [tests[i] for i in order[: asked.tests]]
    if len(tests) < 2:
        parser.error(f"{asked.file}: {len(tests)} sound tests; expected two at least")
    gap = np.array([float(t.rates.max() - t.rates.mean()) for t in tests])
    gained: dict[str, Floats] = {}
    for name, play in PLAYS.items():
        gained[name] = np.array(
            [
                play(t, asked.impressions, np.random.default_rng([asked.seed, i]))
                - float(t.rates.mean())
                for i, t in enumerate(tests)
            ]
        )
    shares = {name: share(values, gap) for name, values in gained.items()}
    print(f"{len(tests):,} sound tests, {asked.impressions:,} impressions each, batches of {BATCH}")
    names = {"bayes": "bayes rule"}
    for name in ("auto", "thompson"):
        for other in ("ab30", "bayes"):
            value, error = share(gained[name] - gained[other], gap)
            print(f"{name} − {names.get(other, other)}: {value:+.3f} ± {error:.3f}")
    print(f"greedy Bayes rule {shares['bayes'][0]:.3f} ± {shares['bayes'][1]:.3f}")
    print(" ".join(f"{k} {shares[k][0]:.3f} ± {shares[k][1]:.3f}" for k in list(PLAYS)[:3]))


if __name__ == "__main__":
    main()
