"""Policies tried on simulated viewers, on real logs, and on the record once more."""

from __future__ import annotations

import sys
from pathlib import Path

import cyclopts

from topbill.cli.shell import DATA, Data, Json, app, err, out, print_json, progress
from topbill.domain.errors import NotFound


@app.command
def simulate(file: Path, *, rounds: int = 20_000, seed: int = 0, json_: Json = False) -> None:
    """Try an experiment on simulated viewers whose truth is known, in process and on simulated
    time.

    Args:
        file: The experiment file.
        rounds: Visits to simulate.
        seed: Chooses world and viewers.
    """
    from topbill import spec
    from topbill.simulation.run import run
    from topbill.simulation.tally import table

    experiment = spec.load(file)
    with progress() as bar:
        task = bar.add_task(experiment.key, total=rounds)
        lines = run(
            experiment, rounds, seed=seed, progress=lambda done: bar.update(task, completed=done)
        )
    print_json(lines) if json_ else out.print(
        table(lines, title=f"{experiment.key}: {rounds:,} simulated visits")
    )


replay = cyclopts.App(
    name="replay", help="Replay real logs through the real decide, log and learn path."
)
app.command(replay)


@replay.command
def obd(file: Path, *, policy: tuple[str, ...] = (), json_: Json = False) -> None:
    """Rejection replay of an Open Bandit log that a uniform-random policy made (Li et al. 2011).

    Args:
        file: The log, Parquet or CSV.
        policy: A kind of policy; may be given several times.
    """
    from topbill.simulation.replay import DEFAULT_KINDS, reading, replay_obd, table

    kinds = policy or DEFAULT_KINDS
    with progress() as bar:
        tasks = {kind: bar.add_task(kind, total=None) for kind in kinds}
        found = replay_obd(
            file,
            kinds,
            progress=lambda kind, done, rows: bar.update(tasks[kind], completed=done, total=rows),
        )
    if json_:
        print_json(found)
    else:
        out.print(table(found))
        out.print(reading(found), highlight=False)


@app.command
def rebuild(key: str, *, experiments: Path | None = None, data: Data = DATA) -> None:
    """Fold an experiment's log again from the start; exit 0 when it reaches the stored state, bit
    by bit.

    Args:
        key: The experiment.
        experiments: Folder of its file; left out, its newest revision in the log's audit is taken.
    """
    from topbill import pages, spec
    from topbill.log import LOG_FILE, open_log
    from topbill.worker import archive
    from topbill.worker.learner import rebuild as fold_again

    if not (data / LOG_FILE).exists():
        raise NotFound(f"{data}: no log there; expected the data folder of `topbill up`")
    log = open_log(data / LOG_FILE)
    audit = (
        {} if experiments else {revision.experiment: revision.spec for revision in log.revisions()}
    )
    files = (
        {e.key: e for e in spec.load_all(pages.experiment_folders(experiments))}
        if experiments
        else {}
    )
    if key not in audit and key not in files:
        known = ", ".join(sorted({*audit, *files})) or "(none)"
        raise NotFound(f"{experiments or data}: no experiment {key!r}; expected one of {known}")
    experiment = files[key] if experiments else spec.from_audit(audit[key], f"{key} (audit)")
    with err.status(f"folding the log of {key}"):
        held, states = fold_again(log, experiment, archive.reader(data))
    log.close()
    same = held.states == states
    verdict = "[green]equals[/]" if same else "[red]differs from[/]"
    out.print(
        f"{key}: the state rebuilt to watermark {held.watermark} {verdict} the stored version {held.version}"
    )
    for variant, state in states.items():
        if held.states.get(variant) != state:
            out.print(
                f"  {variant}: {len(state):,} bytes rebuilt, {len(held.states.get(variant, b'')):,} stored"
            )
    if not same:
        sys.exit(1)
