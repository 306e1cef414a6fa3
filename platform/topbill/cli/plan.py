"""What files would change before they do: `topbill plan`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    EXPERIMENTS,
    Data,
    EngineUrl,
    LakeUrl,
    LogUrl,
    app,
    say,
    use_engine,
    use_lake,
    use_log,
)

Checks = Annotated[
    bool, Parameter(name="--check", negative="", help="Exit 1 where something would harm.")
]
Evaluates = Annotated[
    bool, Parameter(help="Evaluate new policies on the log, which takes some seconds each.")
]
Base = Annotated[
    str | None,
    Parameter(
        help="Without a data folder: a commit, branch or tag of the folder's checkout, whose files "
        "are taken to run."
    ),
]
Markdown = Annotated[bool, Parameter(negative="", help="Print it as a pull request's comment.")]


@app.command
def plan(
    folder: Path = EXPERIMENTS,
    *,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    base: Base = None,
    check: Checks = False,
    evaluate: Evaluates = True,
    engine: EngineUrl = "",
    output: Output = TEXT,
    markdown: Markdown = False,
) -> None:
    """Say what a folder's files would change against what runs on a data folder: who moves, what is
    read anew, which policies begin anew, how long until a decision, and what would harm.

    Changes nothing. Without a data folder all is new.

    Args:
        folder: Folder of experiment files.
    """
    from topbill import plan as planning

    use_log(url)
    use_lake(lake_url)
    use_engine(engine)
    result = planning.plan_folder(folder, data, base=base, evaluates=evaluate)

    def text() -> None:
        if markdown:
            print(planning.markdown(result), end="")
            return
        for line in planning.lines(result):
            say(line, style="red" if line.lstrip().startswith("HARM ") else None)

    output.show(result, text, lambda: msgspec.to_builtins(result.findings))
    if check and result.harms:
        sys.exit(1)
