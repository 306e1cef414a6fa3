"""What a shell completes: `topbill completion`."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import app, say

Shell = Literal["bash", "zsh", "fish"]


@app.command
def completion(
    shell: Shell = "bash",
    *,
    install: Annotated[bool, Parameter(negative="")] = False,
    output: Output = TEXT,
) -> None:
    """Print what makes a shell complete commands, options and their values when Tab is pressed.

    Args:
        shell: Which shell.
        install: Put it where that shell looks for it, in the home directory, instead.
    """
    if install:
        path = app.install_completion(shell=shell, add_to_startup=False)
        found = {"shell": shell, "file": str(path)}
        output.show(found, lambda: say(f"{path}: written; a new {shell} completes topbill"))
        return
    script = app.generate_completion(prog_name="topbill", shell=shell)
    output.show({"shell": shell, "script": script}, lambda: print(script))
