"""`topbill train` on logs whose truth is known: how near it comes to a model that was told
everything, how often its certificate finds a gain that is there, and how often one that is not.

    python -m benchmarks.train --data DIR [--sets digits,segment] [--seeds 3] [--visits 6000]
    python -m benchmarks.train --null 200
    python -m benchmarks.train --data DIR --day
    python -m benchmarks.train --size 1000000

DIR holds the data sets of `benchmarks.learning` as `.npz`. Of each data set the first 70% of the
rows are visited by a logger (chance, or Thompson sampling with its defaults, learning every 100
visits), again and again until there are enough visits; the rest are visited after that. `full` is
a logistic model per action that was told every action's reward on the same earlier rows. Values are
expected rewards on the later rows, known exactly. A gain is there where the trained policy is
really worth 5% more than the logger was.

`--day` has a policy that starts from what was trained serve the later rows and go on learning,
beside one that starts from nothing, and compares their regrets: what the best action of each row
would have earned more. `--null` trains where every action earns the same: each certificate is
false. `--size` measures time and memory on that many decisions among 10 actions, which it makes and
lays in a lake first.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec
import numpy as np
from benchmarks.learning import dataset

from topbill.domain.collecting import load_first
from topbill.domain.records import Actions, Decision, Example, Placement, RewardEvent
from topbill.domain.slate import rank
from topbill.ope import Training, train
from topbill.policies import KINDS, build_policy
from topbill.spec import Experiment, from_raw
from topbill.spec.exploration import default_min_probability
from topbill.testing import temporary_lake

SETS = ("iris", "wine", "breast_cancer", "digits", "segment", "phishing", "bananas", "yeast")
LEARNED = 0.7
BATCH = 100
SECOND = 1_000_000
GAIN = 1.05


class World(NamedTuple):
    """Rows of contexts and the expected reward of each action, earlier ones and later ones."""

    earlier: tuple[np.ndarray, np.ndarray]
    later: tuple[np.ndarray, np.ndarray]


class Visits(NamedTuple):
    """Which rows were visited, what was shown with which probabilities, and what it earned."""

    contexts: np.ndarray
    chosen: np.ndarray
    probabilities: np.ndarray
    rewards: np.ndarray
    expected: np.ndarray


def world_of(folder: Path, name: str, seed: int) -> World:
    stream = dataset(folder, name, seed)
    cut = int(LEARNED * len(stream.contexts))
    x, y = stream.contexts, stream.means
    return World((x[:cut], y[:cut]), (x[cut:], y[cut:]))


def null_world(seed: int, rows: int = 3_000) -> World:
    """Every action earns 30% whatever the context."""
    rng = np.random.default_rng(9_000 + seed)
    x, y = rng.normal(size=(rows, 4)), np.full((rows, 5), 0.3)
    cut = int(LEARNED * rows)
    return World((x[:cut], y[:cut]), (x[cut:], y[cut:]))


def visit(world: World, logger: str, visits: int, seed: int) -> Visits:
    """The log of a logger that learns every `BATCH` visits, if it learns."""
    rng = np.random.default_rng(5_000 + seed)
    parts = []
    for (x, y), share in ((world.earlier, LEARNED), (world.later, 1 - LEARNED)):
        count = max(round(share * visits), len(x))
        rows = np.concatenate([rng.permutation(len(x)) for _ in range(-(-count // len(x)))])[:count]
        parts.append((x[rows], y[rows]))
    contexts = np.concatenate([x for x, _ in parts])
    means = np.concatenate([y for _, y in parts])
    n, k = means.shape
    actions = Actions([f"a{i}" for i in range(k)], np.zeros((k, 0)))
    least = default_min_probability(logger, k)
    policy = KINDS[logger](
        KINDS[logger].Params(), context_size=contexts.shape[1], action_size=0, seed=seed
    )
    everything = np.arange(k)
    chosen, probabilities = np.empty(n, dtype=int), np.empty((n, k))
    rewards = np.empty(n)
    waiting: list[Example] = []
    for t in range(n):
        scored = policy.score(contexts[t], actions, int(rng.integers(2**32)))
        slate = rank(scored, everything, 1, least, (rng.random(),))
        chosen[t], probabilities[t] = slate.rows[0], slate.probabilities[0]
        rewards[t] = float(rng.random() < means[t, chosen[t]])
        waiting.append(
            Example(contexts[t], actions, int(chosen[t]), slate.propensity, float(rewards[t]))
        )
        if len(waiting) == BATCH:
            policy.update(waiting)
            waiting = []
    return Visits(contexts, chosen, probabilities, rewards, means)


def experiment_of(d: int, k: int) -> Experiment:
    return from_raw(
        {
            "experiment": "arena",
            "surface": "titles",
            "context": {"x": {"type": "vector", "keys": [f"x{i}" for i in range(d)]}},
            "actions": [{"id": f"a{i}"} for i in range(k)],
            "metrics": {"click": {"event": "click", "kind": "binary", "window": "1s"}},
            "objective": {"click": 1.0},
            "variants": {"logged": {"policy": "uniform", "share": "100%", "control": True}},
        },
        "arena.yaml",
    )


def laid(stack: ExitStack, visits: Visits) -> Path:
    """The visits in a lake of their own."""
    n, k = visits.probabilities.shape
    experiment = experiment_of(visits.contexts.shape[1], k)
    eligible = tuple(f"a{i}" for i in range(k))
    encode = msgspec.json.encode
    decisions, events = [], []
    for t in range(n):
        p = visits.probabilities[t]
        context = {"x": {f"x{i}": v for i, v in enumerate(visits.contexts[t].tolist())}}
        decisions.append(
            Decision(
                decision_id=f"d{t}",
                experiment="arena",
                revision=experiment.fingerprint,
                variant="logged",
                unit=f"u{t}",
                context=msgspec.Raw(encode(context)),
                eligible=eligible,
                slate=(Placement(0, eligible[visits.chosen[t]], float(p[visits.chosen[t]])),),
                propensity=float(p[visits.chosen[t]]),
                probabilities=(tuple(p.tolist()),),
                policy="logged",
                policy_version=t // BATCH,
                reason="policy",
                decided_at=(t + 1) * SECOND,
            )
        )
        if visits.rewards[t]:
            events.append(
                RewardEvent(
                    decision_id=f"d{t}",
                    event_id="e",
                    event="click",
                    received_at=(t + 1) * SECOND + SECOND // 2,
                )
            )
    folder: Path = stack.enter_context(temporary_lake([experiment], decisions, events))
    return folder


def value(training: Training, rows: tuple[np.ndarray, np.ndarray]) -> float:
    """What the trained policy really earns, as it would serve: with its least probability."""
    x, y = rows
    k = y.shape[1]
    trained = training.policy
    params = msgspec.convert(trained.params, KINDS[trained.kind].Params)
    experiment = experiment_of(x.shape[1], k)
    policy = build_policy(trained.kind, params, experiment.feature_columns, 0)
    policy.load(trained.state)
    actions, everything = experiment.encoded_actions, np.arange(k)
    least = default_min_probability(trained.kind, k)
    total = 0.0
    for t in range(len(x)):
        scored = policy.score(x[t], actions, t)
        slate = rank(scored, everything, 1, least, (0.5,))
        total += float(np.dot(slate.probabilities[0], y[t]))
    return total / len(x)


def full_information(world: World, judged: tuple[np.ndarray, np.ndarray]) -> float:
    """A logistic regression per action, told all rewards of the earlier rows, ridge 1."""
    from scipy.optimize import minimize

    (x, y), (later, truth) = world.earlier, judged
    x1 = np.column_stack([np.ones(len(x)), x])
    weights = []
    for k in range(y.shape[1]):

        def loss(w: np.ndarray, target: np.ndarray = y[:, k]) -> tuple[float, np.ndarray]:
            s = x1 @ w
            p = 1 / (1 + np.exp(-s))
            shrunk = np.r_[0.0, w[1:]]
            return (
                float(np.logaddexp(0, s).sum() - target @ s + 0.5 * shrunk @ shrunk),
                x1.T @ (p - target) + shrunk,
            )

        weights.append(minimize(loss, np.zeros(x1.shape[1]), jac=True, method="L-BFGS-B").x)
    best = (np.column_stack([np.ones(len(later)), later]) @ np.array(weights).T).argmax(axis=1)
    return float(truth[np.arange(len(later)), best].mean())


class Run(NamedTuple):
    """What one training came to."""

    name: str
    logger: str
    full: float
    earned: float
    logged: float
    training: Training


def runs(
    worlds: Iterator[tuple[str, World]], kind: str, loggers: list[str], visits: int, seed: int
) -> Iterator[Run]:
    for name, world in worlds:
        for logger in loggers:
            log = visit(world, logger, visits, seed)
            with ExitStack() as stack:
                training = train("arena", kind, laid(stack, log))
            # The same visits that the certificate is of.
            held = round(0.3 * len(log.chosen))
            judged = log.contexts[-held:], log.expected[-held:]
            # What the logger's own probabilities were worth on what is held out.
            logged = float((log.probabilities * log.expected)[-held:].sum(axis=1).mean())
            full = full_information(world, judged)
            yield Run(name, logger, full, value(training, judged), logged, training)


def measure(args: argparse.Namespace) -> None:
    ratios: dict[tuple[str, str], list[float]] = {}
    able = found = false = total = 0
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        worlds = ((name, world_of(args.data, name, seed)) for name in args.sets.split(","))
        for run in runs(worlds, args.policy, args.loggers.split(","), args.visits, seed):
            certificate = run.training.certificate
            gain = run.earned >= GAIN * run.logged
            able += gain
            found += gain and certificate.certified
            false += certificate.certified and run.earned <= run.logged
            total += 1
            ratios.setdefault((run.name, run.logger), []).append(run.earned / run.full)
            print(
                f"{run.name:14} {run.logger:9} seed {seed}: full {run.full:.3f}, trained "
                f"{run.earned:.3f} ({run.earned / run.full:.2f}), logger {run.logged:.3f}, "
                f"certified {certificate.certified} low {certificate.low} "
                f"{certificate.reason or ''} {run.training.policy.params} "
                f"{'weighted' if run.training.weighted else ''}",
                flush=True,
            )
    print("\nshare of the full-information model's value:")
    for (name, logger), values in ratios.items():
        print(f"  {name:14} {logger:9} {np.mean(values):.3f}")
    print(f"  all            {np.mean([np.mean(each) for each in ratios.values()]):.3f}")
    print(f"gains of 5%: {able}, certified {found} ({found / max(able, 1):.0%})")
    print(f"false certificates: {false} of {total} runs")


def day(
    kind: str, state: bytes | None, rows: tuple[np.ndarray, np.ndarray], visits: int, seed: int
) -> float:
    """The regret of a day: of a policy that starts from a state, or from nothing, with the defaults
    of its kind, learning every `BATCH` visits.
    """
    x, y = rows
    d, k = x.shape[1], y.shape[1]
    rng = np.random.default_rng(7_000 + seed)
    policy = KINDS[kind](KINDS[kind].Params(), context_size=d, action_size=0, seed=seed)
    if state is not None:
        policy.load(state)
    actions, everything = Actions([f"a{i}" for i in range(k)], np.zeros((k, 0))), np.arange(k)
    least = default_min_probability(kind, k)
    regret, waiting = 0.0, []
    order = np.concatenate([rng.permutation(len(x)) for _ in range(-(-visits // len(x)))])[:visits]
    for row in order.tolist():
        scored = policy.score(x[row], actions, int(rng.integers(2**32)))
        slate = rank(scored, everything, 1, least, (rng.random(),))
        chosen = slate.rows[0]
        regret += float(y[row].max() - y[row, chosen])
        reward = float(rng.random() < y[row, chosen])
        waiting.append(Example(x[row], actions, chosen, slate.propensity, reward))
        if len(waiting) == BATCH:
            policy.update(waiting)
            waiting = []
    return regret


def measure_day(args: argparse.Namespace) -> None:
    """A day of as many visits as there are later rows, or 1,000."""
    for name in args.sets.split(","):
        for logger in args.loggers.split(","):
            cold, warm = [], []
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                world = world_of(args.data, name, seed)
                log = visit(world, logger, args.visits, seed)
                with ExitStack() as stack:
                    state = train("arena", args.policy, laid(stack, log)).policy.state
                visits = max(1_000, len(world.later[0]))
                cold.append(day(args.policy, None, world.later, visits, seed))
                warm.append(day(args.policy, state, world.later, visits, seed))
            print(
                f"{name:14} {logger:9}: regret of the day {np.mean(cold):.0f} cold, "
                f"{np.mean(warm):.0f} warm ({np.sum(warm) / np.sum(cold):.2f})",
                flush=True,
            )


def measure_null(args: argparse.Namespace) -> None:
    for logger in args.loggers.split(","):
        certified: list[bool] = []
        for seed in range(args.null):
            log = visit(null_world(seed), logger, 3_000, seed)
            with ExitStack() as stack:
                certified.append(
                    train("arena", args.policy, laid(stack, log)).certificate.certified
                )
        print(f"{logger}: {sum(certified)} of {len(certified)} certificates are false", flush=True)


def measure_size(args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    n, d, k = args.size, 10, 10
    x, w = rng.normal(size=(n, d)).round(3), rng.normal(size=(k, d)) * 0.4
    p = 1 / (1 + np.exp(-(x @ w.T - 2)))
    chosen = rng.integers(0, k, n)
    rewards = (rng.random(n) < p[np.arange(n), chosen]).astype(float)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "log.npz"
        np.savez(
            source,
            n_rounds=n,
            n_actions=k,
            context=x,
            action=chosen,
            reward=rewards,
            position=np.zeros(n, int),
            pscore=np.full(n, 1 / k),
            action_context=np.eye(k),
        )
        from topbill.formats import import_log

        data = Path(folder) / "data"
        # Made by another process, so that the peak below is of training alone.
        if (child := os.fork()) == 0:
            import_log(source, data, key="big")
            os._exit(0)
        os.waitpid(child, 0)
        source.unlink()
        timed(data, args.policy)


def timed(data: Path, kind: str) -> None:
    # As every command does.
    load_first()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter(), time.process_time()
    training: Any = train("big", kind, data)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{kind}: learned {training.policy.decisions:,}, judged "
        f"{training.certificate.decisions:,}: {wall:.1f} s, {cpu:.1f} s of processor, peak "
        f"{peak:.0f} MB ({before:.0f} before); load {os.getloadavg()[0]:.1f}"
    )
    print(training.certificate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--loggers", default="uniform,thompson")
    parser.add_argument("--policy", default="auto")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--visits", type=int, default=6_000)
    parser.add_argument("--day", action="store_true")
    parser.add_argument("--null", type=int, default=0)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--log", type=Path, help="with --size: a data folder that has it already")
    args = parser.parse_args()
    if args.day:
        measure_day(args)
    elif args.null:
        measure_null(args)
    elif args.log:
        timed(args.log, args.policy)
    elif args.size:
        measure_size(args)
    elif args.data:
        measure(args)
    else:
        parser.error("expected --data, --null or --size")


if __name__ == "__main__":
    main()
