"""A folder as a git checkout: who last changed a file, and what the folder was at a commit."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from topbill.domain.errors import NotFound

_SECONDS = 5.0
_LONGEST = 128
# Whoever writes into a checkout's settings must not run a program here, or reach out for objects.
_SETTINGS = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "log.showSignature=false"),
)
_ENVIRONMENT: Mapping[str, str] = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


def author_of(file: Path) -> str | None:
    """The author of the last commit of a file, as `Ann Example <ann@example.com>`; None where there
    is no git, no checkout, or the file is not what was committed last: then nobody knows."""
    folder = file.parent
    committed = _git(folder, "rev-parse", f"HEAD:./{file.name}")
    # By the bytes: filters of a checkout may be programs.
    if committed is None or committed != _git(folder, "hash-object", "--no-filters", file.name):
        return None
    author = _git(folder, "log", "-1", "--format=%aN <%aE>", "--no-show-signature", "--", file.name)
    if not author:
        return None
    return "".join(letter for letter in author if letter.isprintable())[:_LONGEST]


def author_in(folders: Iterable[Path], name: str) -> str | None:
    """The same of the one file of that name in some folders; None where several have one."""
    files = [folder / name for folder in folders if (folder / name).is_file()]
    return author_of(files[0]) if len(files) == 1 else None


@contextmanager
def folder_at(folder: Path, commit: str) -> Iterator[Path]:
    """The folder as it was at a commit, in a place of its own that is gone when the block ends.

    Args:
        folder: A folder within a checkout.
        commit: Its name, or that of a branch or tag.

    Raises:
        NotFound: There is no checkout, no such commit, or the folder was not there then.
    """
    verify = ("rev-parse", "--verify", "--quiet", "--end-of-options")
    known = _git(folder, *verify, f"{commit}^{{commit}}")
    top, prefix = (_git(folder, "rev-parse", f"--show-{part}") for part in ("toplevel", "prefix"))
    archive = None
    if known and top and prefix is not None:
        # From the top, as git takes only what lies in the working directory.
        archive = _bytes(Path(top), "archive", "--format=tar", f"{known}:{prefix}")
    if archive is None:
        raise NotFound(
            f"{folder}: no checkout with commit {commit!r} that has this folder; expected the name "
            "of a commit, branch or tag"
        )
    with TemporaryDirectory(prefix="topbill-") as place:
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            # Refuses what would be written elsewhere.
            files.extractall(place, filter="data")
        yield Path(place)


def _git(folder: Path, *arguments: str) -> str | None:
    said = _bytes(folder, *arguments)
    return None if said is None else said.decode(errors="replace").strip()


def _bytes(folder: Path, *arguments: str) -> bytes | None:
    """What git says; None where it is not there or refuses."""
    program = which("git")
    if program is None:
        return None
    # Variables of a hook that runs this would name another checkout.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603  (no shell; a file's name is one argument)
            [program, "--no-pager", *_SETTINGS, *arguments],
            cwd=folder,
            env={**environment, **_ENVIRONMENT},
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode:
        return None
    return done.stdout
