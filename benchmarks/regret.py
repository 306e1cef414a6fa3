"""How much of the reward gap do the learning policies close? Simulated viewers with known truth, at
a 5% base rate.

    python benchmarks/regret.py [FILE.yaml ...] [--rounds 40000] [--seeds 5]

Each policy decides alone for every visit: the production policy, ranking, encoding and learner,
rewards late and lossy. 0% is what a uniform choice earns, 100% what the known best earns that sees
the same context. Goal: at least 60%, over all 40,000 rounds, for thompson and linucb. Fresh truth
and viewers for each seed; ± is the standard error over seeds.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # before NumPy: matrices here are small, threads only spin

import platform
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import cyclopts
import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from topbill.policies import KINDS
from topbill.simulation.run import run
from topbill.simulation.scoreboard import ScoreLine
from topbill.spec import Experiment, Variant, load
from topbill.spec.exploration import default_min_probability

GOAL = 0.60
CASES = (("uniform", 0.0), ("epsilon_greedy", 0.0), ("thompson", None), ("linucb", 0.005))
"""Policies with their default parameters, and the floor under their probabilities; None: what a
file has that says none."""
SIX_HOURS = 21_600.0
EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def alone(experiment: Experiment, kind: str, floor: float | None) -> Experiment:
    """The experiment with this policy as its only variant, and with production's windows in place
    of the demo's.
    """
    if floor is None:
        floor = default_min_probability(kind, len(experiment.actions))
    variant = Variant(kind, kind, KINDS[kind].Params(), 1.0, control=True, min_probability=floor)
    windows = {"play": 1_800.0, "abandon": 1_800.0}
    metrics = tuple(replace(m, window=windows.get(m.event, SIX_HOURS)) for m in experiment.metrics)
    return replace(experiment, variants=(variant,), metrics=metrics, reward_delay=SIX_HOURS)


def measure(experiment: Experiment, rounds: int, seeds: int) -> dict[str, list[ScoreLine]]:
    """Each policy's line for each seed."""
    lines: dict[str, list[ScoreLine]] = {kind: [] for kind, _ in CASES}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for kind, floor in CASES:
            task = progress.add_task(f"{experiment.key} {kind}", total=seeds * rounds)
            for seed in range(seeds):
                update = partial(_advance, progress, task, seed * rounds)
                lines[kind] += run(
                    alone(experiment, kind, floor), rounds, seed=seed, progress=update
                )
    return lines


def _advance(progress: Progress, task: TaskID, before: int, done: int) -> None:
    progress.update(task, completed=before + done)


def mean_and_error(values: list[float]) -> str:
    """Mean ± standard error over the seeds, in per cent."""
    if len(values) < 2:
        return f"{100 * values[0]:.1f}%"
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{100 * np.mean(values):.1f} ± {100 * error:.1f}%"


def main(*files: Path, rounds: int = 40_000, seeds: int = 5) -> None:
    """Print, for each experiment file (default: the examples) and policy, the share of the gap that
    was closed.
    """
    out = Console(width=110)
    out.print(
        f"topbill {version('topbill')}, numpy {np.__version__}, Python {platform.python_version()}"
    )
    out.print(
        f"{os.cpu_count()} × {_processor()}; {rounds:,} rounds, {seeds} seeds, 5% base rate, 14 "
        f"days of traffic"
    )
    failed = []
    for path in files or sorted(EXPERIMENTS.glob("*.yaml")):
        experiment = load(path)
        if not experiment.actions:  # callers bring them: there is no known best
            continue
        start = time.perf_counter()
        lines = measure(experiment, rounds, seeds)
        table = Table(
            title=f"{experiment.key}: {len(experiment.actions)} actions, {experiment.slots} slots"
        )
        for heading in (
            "policy",
            "reward",
            "uniform",
            "known best",
            "gap closed, all rounds",
            "last 2,000",
            "worst seed",
        ):
            table.add_column(heading, justify="left" if heading == "policy" else "right")
        for kind, own in lines.items():
            closed = [line.gap_closed or 0.0 for line in own]
            lately = [line.gap_closed_recently or 0.0 for line in own]
            averages = (
                f"{np.mean([getattr(x, name) for x in own]):.4f}"
                for name in ("reward", "uniform", "best")
            )
            table.add_row(
                kind,
                *averages,
                mean_and_error(closed),
                mean_and_error(lately),
                f"{min(closed):.1%}",
            )
            if kind in ("thompson", "linucb") and np.mean(closed) < GOAL:
                failed.append(f"{experiment.key} {kind}")
        out.print(table)
        out.print(f"{time.perf_counter() - start:.0f} s")
    out.print(
        f"goal of {GOAL:.0%}: "
        + (f"missed by {', '.join(failed)}" if failed else "met by thompson and linucb")
    )


def _processor() -> str:
    try:
        models = [
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        return models[0].partition(":")[2].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    cyclopts.run(main)
