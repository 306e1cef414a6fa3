"""Experiment files: what is wrong with them, and their schema for editors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from topbill.cli.shell import EXPERIMENTS, app, out
from topbill.domain.errors import NotFound, SpecError


@app.command
def validate(*paths: Path) -> None:
    """Check experiment files and say everything that is wrong with them; exit 1 where anything is.

    Args:
        paths: Files or folders (default: experiments/).
    """
    from topbill import pages, spec

    given = list(dict.fromkeys(pages.folder_of(path) for path in paths or (EXPERIMENTS,)))
    verdicts = spec.validate([file for path in given for file in pages.experiment_folders(path)])
    failed = False
    known = [verdict for _, verdict in verdicts if not isinstance(verdict, SpecError)]
    for file, verdict in [
        *verdicts,
        *(found for path in given for found in pages.validate(path, known)),
    ]:
        if isinstance(verdict, SpecError):
            failed = True
            out.print(f"[red]invalid[/] {file}", highlight=False, soft_wrap=True)
            for problem in verdict.problems:
                out.print(
                    f"  {problem}", style="red", markup=False, highlight=False, soft_wrap=True
                )
        elif isinstance(verdict, pages.PageFile):
            layers = ", ".join(verdict.layers.values())
            out.print(
                f"[green]valid[/]   {file}: {verdict.key}, page of {layers}",
                highlight=False,
                soft_wrap=True,
            )
        else:
            kinds = ", ".join(f"{v.name} ({v.policy}, {v.share:.0%})" for v in verdict.variants)
            out.print(
                f"[green]valid[/]   {file}: {verdict.key}, {verdict.surface}, {kinds}",
                highlight=False,
                soft_wrap=True,
            )
    if not verdicts:
        raise NotFound(f"{', '.join(map(str, paths)) or EXPERIMENTS}: no *.yaml file there")
    if failed:
        sys.exit(1)


@app.command
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors' completion."""
    from topbill import spec

    print(json.dumps(spec.json_schema(), indent=2))
