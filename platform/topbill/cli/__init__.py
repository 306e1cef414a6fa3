"""The command line: every verb of Topbill, thin over the modules that do the work; a topic a
file.
"""

from __future__ import annotations

import os
import sys

# Imported for their commands.
from topbill.cli import files, moving, reading, running, trying
from topbill.cli.shell import app, err, out
from topbill.domain.errors import TopbillError

__all__ = ["app", "files", "main", "moving", "out", "reading", "running", "trying"]

# Matrices here are small: a second BLAS thread only spins. NumPy reads this when a command first
# imports it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Run the command line; what went wrong is one message on standard error and exit status 1."""
    try:
        app()
    except TopbillError as error:
        err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
