"""A shared log and its data folder belong together: what the log lets go is in that folder's lake
alone, and a worker over another one would publish the rest of it into an empty lake.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from topbill.domain.durable import sync
from topbill.domain.errors import LogError
from topbill.log.opening import is_shared, open_log_of

HOME = "log.home"
"""The file of a data folder that has its id, which the log has too."""


def check_home(data: Path) -> None:
    """Have a shared log belong to this data folder, from the first process over it on.

    Raises LogError where it belongs to another one, or the folder cannot be written to. Of a log in
    its data folder nothing needs to be noted.
    """
    if not is_shared(data):
        return
    path = data / HOME
    with open_log_of(data) as log:
        try:
            is_new = _make(path)
            home = path.read_text()
        except OSError as error:
            raise LogError(f"{path}: {error.strerror}; expected a folder to write to") from error
        if log.belong_to(home) != home:
            if is_new:
                path.unlink(missing_ok=True)
            raise LogError(
                f"{log.name}: belongs to another data folder than {data}; expected the one that "
                "all of its processes share: name it with --data, or mount it there"
            )


def home_of(data: Path) -> str:
    """The id of a data folder, which is made where there is none. Raises LogError."""
    path = data / HOME
    try:
        _make(path)
        return path.read_text()
    except OSError as error:
        raise LogError(f"{path}: {error.strerror}; expected a folder to write to") from error


def _make(path: Path) -> bool:
    """Write the id, whole, where there is none; returns whether there was none."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{HOME}.{uuid4().hex}")
    try:
        draft.write_text(uuid4().hex)
        sync(draft)
        with suppress(FileExistsError):
            # Of several processes that start at once the first one's holds.
            os.link(draft, path)
            sync(path.parent)
            return True
        return False
    finally:
        draft.unlink(missing_ok=True)
