"""The analytics database as it was published last, as a file of this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

from topbill.domain.errors import LogError, NotFound
from topbill.lake.files import objects_below
from topbill.lake.places import CACHE, DATABASE, LakePlace, lake_place

_KEPT = 600.0
"""Seconds for which an earlier copy stays, which somebody may be about to open."""


def is_published(data: Path) -> bool:
    """Whether there is an analytics database of a data folder's lake. Raises LogError where nobody
    can tell.
    """
    place = lake_place(data)
    if place.is_store:
        return objects_below(place).tag(DATABASE) is not None
    return (data / DATABASE).exists()


def database_of(data: Path) -> Path:
    """The file of a data folder's analytics database: in the folder; of a lake at a URL a copy of
    the newest one, fetched where this machine has none yet.

    Raises NotFound where a lake at a URL has none, and LogError where it cannot be fetched.
    """
    place = lake_place(data)
    return _fetched(place, data / CACHE) if place.is_store else data / DATABASE


def forget_copies(data: Path) -> None:
    """Delete what a data folder has copies of: earlier ones show what was erased since."""
    for path in [*(data / CACHE).glob("*.duckdb*"), *(data / CACHE).glob(".*")]:
        path.unlink(missing_ok=True)


def _fetched(place: LakePlace, cache: Path) -> Path:
    objects = objects_below(place)
    tag = objects.tag(DATABASE)
    # Called by its tag: whoever finds it has the very one, whatever others fetch beside it.
    if tag is not None and (path := cache / f"{tag}.duckdb").exists():
        return path
    found = objects.get(DATABASE)
    if found is None:
        raise NotFound(
            f"{place.root}/{DATABASE}: no such file; expected the analytics database that "
            "`topbill worker` writes; start the worker first"
        )
    path = cache / f"{found.tag}.duckdb"
    draft = cache / f".{uuid4().hex}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(found.content)
        os.replace(draft, path)
        _tidy(cache, path)
    except OSError as error:
        raise LogError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _tidy(cache: Path, newest: Path) -> None:
    before = time.time() - _KEPT
    for path in [*cache.glob("*.duckdb"), *cache.glob(".*")]:
        try:
            if path not in (newest, cache / DATABASE) and path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:  # another process was faster
            continue
