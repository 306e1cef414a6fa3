"""What all machines over a lake at a URL must have alike, beside log and lake: files of their data
folders, whose home is below the URL, in `shared/`.

Each machine has a copy in its data folder, which its processes read and write as they always do.
Every few seconds copies and home are compared: what was changed or deleted on one side since goes
to the other. Where both were changed, the home wins; of files of lines, every line of both is kept.
"""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from topbill.domain.errors import LogError
from topbill.domain.pausing import pause
from topbill.lake import kept
from topbill.lake.files import objects_below
from topbill.lake.places import CACHE, lake_place
from topbill.lake.published import forget_copies
from topbill.log.horizon import HORIZON
from topbill.log.tombstones import TOMBSTONES

if TYPE_CHECKING:
    from topbill.lake.objects import ObjectFiles

SHARED = (
    "answers/*.answer",
    "catalogues/*.sealed",
    "entities/*.sealed",
    "entities/history.jsonl",
    HORIZON,
    "pages/*.npz",
    TOMBSTONES,
)
"""What worked-out answers, last good catalogues, versions of tables of features, and signals of
pages are called; and what the worker says of ids, and what was erased."""
EVERY = 5.0
"""Seconds between two comparisons."""
_HOME = "shared"
_logger = logging.getLogger("topbill")


class _Known(msgspec.Struct, frozen=True):
    """A file that was alike on both sides: its tag at home, and what it looks like here."""

    tag: str
    mark: tuple[int, int]


def sync(data: Path) -> None:
    """Have a data folder and the home of what machines share be alike. Nothing without a URL.

    Raises LogError where the store cannot be used, or a file not be read or written.
    """
    place = lake_place(data)
    if place.is_store:
        cache = data / CACHE
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / "shared.lock").open("w") as lock:
                # One process of a machine at a time; the others find it done.
                fcntl.flock(lock, fcntl.LOCK_EX)
                _Comparison(data, objects_below(place)).run()
        except OSError as error:
            raise LogError(f"{cache}: {error}; expected a folder to write to") from error


def keep_alike(data: Path) -> None:
    """Compare, and go on with it every few seconds for as long as this process lives.

    Raises LogError where the first comparison fails; after that it is said and tried again.
    """
    if lake_place(data).is_store:
        sync(data)
        Thread(target=_go_on, args=(data,), name="shared-files", daemon=True).start()


def _go_on(data: Path) -> None:
    said = ""
    while True:
        pause(EVERY)
        try:
            sync(data)
            said = ""
        except LogError as error:
            if str(error) != said:
                _logger.warning("%s; what machines share is as it was; trying again", error)
            said = str(error)


class _Comparison:
    def __init__(self, data: Path, objects: ObjectFiles) -> None:
        self._data = data
        self._objects = objects
        self._path = data / CACHE / "shared.json"

    def run(self) -> None:
        before = self._read()
        known: dict[str, _Known | None] = dict(before)
        tags = self._objects.tags(_HOME)
        at_home = {path.removeprefix(f"{_HOME}/"): tag for path, tag in tags.items()}
        marks = self._marks()
        for path in sorted({*known, *at_home, *marks}):
            tag, mark, last = at_home.get(path), marks.get(path), known.get(path)
            is_new_here = mark != (last and last.mark)
            is_new_there = tag != (last and last.tag)
            if is_new_there:
                known[path] = self._take(path, tag, mark, merges=is_new_here)
            elif is_new_here:
                known[path] = self._give(path, mark)
        left = {path: each for path, each in known.items() if each is not None}
        if left != before:
            self._write(left)

    def _take(self, path: str, tag: str | None, mark: object, *, merges: bool) -> _Known | None:
        """Have here what there is at home."""
        found = None if tag is None else self._objects.get(f"{_HOME}/{path}")
        own = self._data / path
        if found is None:
            if merges and mark is not None:
                return self._give(path, _mark(own))  # deleted there, and written anew here
            own.unlink(missing_ok=True)
            return None
        before = own.read_bytes() if mark is not None else None
        content = found.content
        if merges and before is not None and path.endswith(".jsonl"):
            content = _merged(before, content)
        # What is alike is left alone: whoever sees another file reads it anew.
        if content != before:
            own.parent.mkdir(parents=True, exist_ok=True)
            draft = own.with_name(f".{own.name}.{uuid4().hex}")
            draft.write_bytes(content)
            draft.replace(own)
            if path == TOMBSTONES:
                # What this machine keeps for reports has the units whom another one has erased.
                kept.forget(self._data)
                forget_copies(self._data)
        if content != found.content:
            return self._give(path, _mark(own))
        return _Known(found.tag, _mark(own) or (0, 0))

    def _give(self, path: str, mark: tuple[int, int] | None) -> _Known | None:
        """Have there what is here."""
        if mark is None:
            self._objects.delete(f"{_HOME}/{path}")
            return None
        try:
            content = (self._data / path).read_bytes()
        except FileNotFoundError:  # gone meanwhile: the next comparison sees it
            return None
        self._objects.write(f"{_HOME}/{path}", content)
        return _Known(self._objects.tag(f"{_HOME}/{path}") or "", mark)

    def _marks(self) -> dict[str, tuple[int, int]]:
        marks = {}
        for pattern in SHARED:
            for path in self._data.glob(pattern):
                mark = _mark(path)
                if mark is not None and not path.name.startswith("."):
                    marks[path.relative_to(self._data).as_posix()] = mark
        return marks

    def _read(self) -> dict[str, _Known]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, _Known])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}

    def _write(self, known: dict[str, _Known]) -> None:
        draft = self._path.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(known))
        os.replace(draft, self._path)


def _mark(path: Path) -> tuple[int, int] | None:
    """What a file looks like from outside; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return None if path.is_dir() else (status.st_mtime_ns, status.st_size)


def _merged(ours: bytes, theirs: bytes) -> bytes:
    """The lines of both, each once, by their times."""
    lines = dict.fromkeys([*theirs.splitlines(), *ours.splitlines()])
    return b"".join(line + b"\n" for line in sorted(filter(None, lines), key=_time))


class _Timed(msgspec.Struct):
    at: float


def _time(line: bytes) -> float:
    try:
        return msgspec.json.decode(line, type=_Timed).at
    except msgspec.DecodeError:  # cut short by a full disk or a kill
        return 0.0
