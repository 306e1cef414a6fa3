"""The command line: every verb of Topbill, thin over the modules that do the work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter
from rich.console import Console

from topbill import __version__
from topbill.errors import NotFound, SpecError, TopbillError

app = cyclopts.App(
    name="topbill",
    version=__version__,
    help="Decides what a viewer sees on a streaming homepage with contextual bandits, and proves what it was worth.",
)
out = Console()
err = Console(stderr=True)

Experiments = Annotated[Path, Parameter(help="Folder of experiment files")]
Data = Annotated[Path, Parameter(help="Folder of the log and the lake")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON")]
_EXPERIMENTS = Path("experiments")
_DATA = Path("data")


@app.command
def serve(
    *,
    experiments: Experiments = _EXPERIMENTS,
    data: Data = _DATA,
    host: str = "127.0.0.1",
    port: int = 8600,
    workers: int = 1,
    keys: Path | None = None,
) -> None:
    """Answer decide and reward over HTTP.

    Parameters
    ----------
    host: Where to listen; other than loopback needs keys.
    workers: Processes that share the port and the log.
    keys: File with one API key a line (or TOPBILL_KEYS, separated by commas).
    """
    from topbill.service import auth, run

    run.serve(experiments, data, host=host, port=port, workers=workers, keys=auth.load_keys(host, keys))


@app.command
def keep(*, experiments: Experiments = _EXPERIMENTS, data: Data = _DATA) -> None:
    """Fold the log into policies and publish it to the lake, until stopped."""
    from topbill.keeper import main as keeper

    keeper.keep(experiments, data)


@app.command
def validate(*paths: Path) -> None:
    """Check experiment files and say everything that is wrong with them; exit 1 where anything is.

    Parameters
    ----------
    paths: Files or folders (default: experiments/).
    """
    from topbill import spec

    verdicts = spec.validate(list(paths) or [_EXPERIMENTS])
    for file, verdict in verdicts:
        if isinstance(verdict, SpecError):
            out.print(f"[red]invalid[/] {file}", highlight=False, soft_wrap=True)
            for problem in verdict.problems:
                out.print(f"  {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
        else:
            kinds = ", ".join(f"{v.name} ({v.policy}, {v.share:.0%})" for v in verdict.variants)
            out.print(
                f"[green]valid[/]   {file}: {verdict.key}, {verdict.surface}, {kinds}", highlight=False, soft_wrap=True
            )
    if not verdicts:
        raise NotFound(f"{', '.join(map(str, paths)) or _EXPERIMENTS}: no *.yaml file there")
    if any(isinstance(verdict, SpecError) for _, verdict in verdicts):
        sys.exit(1)


@app.command
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors' completion."""
    from topbill import spec

    print(json.dumps(spec.json_schema(), indent=2))


@app.command
def rebuild(key: str, *, experiments: Experiments = _EXPERIMENTS, data: Data = _DATA) -> None:
    """Fold an experiment's log again from the start; exit 0 when it reaches the stored state, bit by bit.

    Parameters
    ----------
    key: The experiment.
    """
    from topbill import spec
    from topbill.keeper.learner import rebuild as fold_again
    from topbill.log.sqlite import SqliteLog

    experiment = next((e for e in spec.load_all([experiments]) if e.key == key), None)
    if experiment is None:
        raise NotFound(f"{experiments}: no experiment {key!r}; see topbill validate {experiments}")
    log = SqliteLog(data / "log.sqlite")
    with err.status(f"folding the log of {key}"):
        held, states = fold_again(log, experiment)
    log.close()
    same = held.states == states
    verdict = "[green]equals[/]" if same else "[red]differs from[/]"
    out.print(f"{key}: the state rebuilt to watermark {held.watermark} {verdict} the stored version {held.version}")
    for variant, state in states.items():
        if held.states.get(variant) != state:
            out.print(f"  {variant}: {len(state):,} bytes rebuilt, {len(held.states.get(variant, b'')):,} stored")
    if not same:
        sys.exit(1)


def main() -> None:
    """Run the command line; what went wrong is one message on standard error and exit status 1."""
    try:
        app()
    except TopbillError as error:
        err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
