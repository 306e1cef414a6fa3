"""What `topbill simulate` and `topbill replay obd` print: progress on one console, results on the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from topbill import spec
from topbill.simulate import replay
from topbill.simulate.run import run
from topbill.simulate.tally import table
from topbill.simulate.world import Habits


def simulate(
    path: Path,
    *,
    rounds: int,
    out: Console,
    err: Console,
    seed: int = 0,
    days: float = 14.0,
    base_rate: float = 0.05,
    as_json: bool = False,
) -> None:
    """Simulate the experiment in a file and print a line a variant. Raises SpecError for a file that is not valid."""
    experiment = spec.load(path)
    with _progress(err) as progress:
        task = progress.add_task(experiment.key, total=rounds)
        lines = run(
            experiment,
            rounds,
            seed=seed,
            days=days,
            habits=Habits(base_rate=base_rate),
            progress=lambda done: progress.update(task, completed=done),
        )
    if as_json:
        out.print_json(msgspec.json.encode(lines).decode())
        return
    out.print(table(lines, f"{experiment.key}: {rounds:,} simulated visits in {days:g} days"))
    best, uniform = (sum(getattr(x, name) * x.decisions for x in lines) / rounds for name in ("best", "uniform"))
    out.print(
        f"A uniform choice earns {uniform:.4f} a decision here, the best possible {best:.4f}. The viewers are "
        "invented: this shows that the file works and how fast it could learn, not what your viewers will like.",
        highlight=False,
    )


def replay_obd(path: Path, *, kinds: Sequence[str], out: Console, err: Console, as_json: bool = False) -> None:
    """Replay policies on a log of the Open Bandit Dataset and print their click rates beside the log's own.

    Raises BadData for a file that cannot be replayed and BadRequest for an unknown kind of policy.
    """
    with _progress(err) as progress:
        tasks = {kind: progress.add_task(kind, total=None) for kind in kinds}
        report = replay.replay_obd(
            path, kinds, progress=lambda kind, done, rows: progress.update(tasks[kind], completed=done, total=rows)
        )
    if as_json:
        out.print_json(msgspec.json.encode(report).decode())
        return
    out.print(replay.table(report))
    out.print(replay.reading(report), highlight=False)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
