"""The command line: every verb of Topbill, thin over the modules that do the work; a topic a
file.
"""

from __future__ import annotations

import logging
import os
import sys

from topbill import process_log

# Imported for their commands.
from topbill.cli import (
    agents,
    alerts,
    analysis,
    comparison,
    completion,
    conclude,
    erasure,
    evaluation,
    explain,
    features,
    files,
    glossary,
    launch,
    offline,
    override,
    plan,
    processes,
    sql,
    standing,
    training,
    transfer,
)
from topbill.cli.renamed import todays_name
from topbill.cli.shell import app, err, out
from topbill.domain.collecting import load_first
from topbill.domain.errors import TopbillError

__all__ = [
    "agents",
    "alerts",
    "analysis",
    "app",
    "comparison",
    "completion",
    "conclude",
    "erasure",
    "evaluation",
    "explain",
    "features",
    "files",
    "glossary",
    "launch",
    "main",
    "offline",
    "out",
    "override",
    "plan",
    "processes",
    "sql",
    "standing",
    "training",
    "transfer",
]

# Matrices here are small: a second BLAS thread only spins. NumPy reads this when a command first
# imports it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Run the command line; what went wrong is one message on standard error and exit status 1. A
    verb or option of an older version is answered with its name of today, and exit status 2.
    """
    load_first()
    # Before anything is parsed: the parser would only say that it knows no such command.
    if (sentence := todays_name(sys.argv[1:])) is not None:
        _say(sentence)
        sys.exit(2)
    try:
        app()
        sys.stdout.flush()
    except TopbillError as error:
        if process_log.is_json():
            process_log.configure("json")
            logging.getLogger("topbill").error("%s", error)
        else:
            _say(str(error))
        sys.exit(1)
    except BrokenPipeError:
        # Whoever reads the pipe has enough (`| head`), which is no mistake. Python would write what
        # is left when it ends, and fail once more: it goes nowhere instead.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _say(message: str) -> None:
    err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
