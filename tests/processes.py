"""Programs and the command line in processes of their own, which are forks of one that has imported
Topbill: a start takes a tenth of a second, not the two seconds of its imports. What is about starts
or imports themselves takes `subprocess`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from benchmarks.kill_processes import FORKS, PRELOADED

LONGEST = 300.0
"""Seconds that a program may take."""
COMMAND_LINE = "from topbill.cli import main; main()"
PAGE = {"COLUMNS": "200", "NO_COLOR": "1"}


def topbill(
    *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a script would: no terminal, a wide page."""
    return python(COMMAND_LINE, *arguments, cwd=cwd, **PAGE | environment)


def python(
    code: str, *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -c CODE ARGUMENTS` to its end, with this process' environment and some more."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _start(code, arguments, cwd, environment, out, err)
        process.join(LONGEST)
        status = process.exitcode
        if status is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([code, *map(str, arguments)], LONGEST)
        return subprocess.CompletedProcess(
            [code, *map(str, arguments)], status, out.read_text(), err.read_text()
        )


def start(code: str, *arguments: object, said: Path, **environment: str) -> BaseProcess:
    """Start `python -c CODE ARGUMENTS`; what it says is added to the file `said`."""
    return _start(code, arguments, None, environment, said, said)


def _start(
    code: str,
    arguments: tuple[object, ...],
    cwd: Path | None,
    environment: dict[str, str],
    out: Path,
    err: Path,
) -> BaseProcess:
    _start_server()
    line, where = tuple(map(str, arguments)), str(cwd or Path.cwd())
    process = FORKS.Process(
        target=_run, args=(code, line, where, {**os.environ, **environment}, str(out), str(err))
    )
    process.start()
    return process


@cache
def _start_server() -> None:
    """The process that is forked; it knows no width, so that each of its forks has its own."""
    FORKS.set_forkserver_preload(PRELOADED)
    with patch.dict(os.environ):
        os.environ.pop("COLUMNS", None)
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        forkserver.ensure_running()


def _run(
    code: str, arguments: tuple[str, ...], cwd: str, environment: dict[str, str], out: str, err: str
) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        with Path(path).open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
