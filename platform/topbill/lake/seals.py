"""That the lake's files are on the disk, and that they are as they were: the size and SHA-256 of
each, in `lake/seals.jsonl`.

Delta makes a commit by renaming a file, and syncs nothing: a power cut may leave a commit without
what it names. So before the log lets go of a row, whatever holds it in the lake is synced and
*sealed*: a line is written, which `damage` compares with the file for as long as that lies there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from topbill.domain.durable import size_and_hash, sync, with_checksum, without_checksum
from topbill.domain.errors import LogError
from topbill.lake.kept import SUMS

SEALS = "seals.jsonl"
_SEALED_ENDS = (".parquet", ".json")
"""Rows, and Delta's commits and checkpoints. What else lies there is a hint, made anew."""
_FORGOTTEN_BEFORE_REWRITE = 1_000
"""Lines of files that are gone, at which the file is written anew without them."""


class Seal(msgspec.Struct, frozen=True):
    """One file as it was when it was sealed: its path below the lake, its bytes and their hash in
    hexadecimal digits.
    """

    path: str
    size: int
    sha256: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Seal).decode


class Seals:
    """The seals of the lake in a folder. For one writer at a time.

    Raises LogError where files cannot be read or written.
    """

    def __init__(self, lake: Path) -> None:
        self.lake = lake
        self._path = lake / SEALS
        self.unreadable = 0
        """Lines that are no seals: of a writer that was killed, or damaged."""
        self.known = self._read()
        # Whoever noted them may have been killed before they were synced.
        self._unsynced = set(self.known)

    def _read(self) -> dict[str, Seal]:
        known: dict[str, Seal] = {}
        if not self._path.exists():
            return known
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError as error:
            raise LogError(f"{self._path}: cannot be read: {error}") from error
        for line in lines:
            try:
                seal = _decode(without_checksum(line))
            except (msgspec.DecodeError, ValueError):
                self.unreadable += 1
            else:
                known[seal.path] = seal
        return known

    def seal(self) -> int:
        """Seal every file that is not sealed yet, and sync all that were not; returns how many of
        these there were.
        """
        self.note()
        new = sorted(self._unsynced & self.known.keys())
        try:
            for path in new:
                with suppress(FileNotFoundError):
                    sync(self.lake / path)
            for folder in {(self.lake / path).parent for path in new}:
                for above in (folder, *folder.parents):
                    sync(above)
                    if above == self.lake:
                        break
            if new:
                sync(self._path)
        except OSError as error:
            raise LogError(f"{self._path}: cannot seal the lake: {error}") from error
        self._unsynced.clear()
        return len(new)

    def note(self) -> None:
        """Seal every file that is not sealed yet, without waiting for the disk: damage is told from
        now on.
        """
        try:
            there = set(self._there())
            new = sorted(there - self.known.keys())
            seals = []
            for path in new:
                # A merge beside this may have replaced it meanwhile.
                with suppress(FileNotFoundError):
                    seals.append(Seal(path, *size_and_hash(self.lake / path)))
            gone = self.known.keys() - there
            for path in gone:
                del self.known[path]
            self.known |= {seal.path: seal for seal in seals}
            self._unsynced.update(seal.path for seal in seals)
            if len(gone) > _FORGOTTEN_BEFORE_REWRITE:
                self._rewrite()
            elif seals:
                self._append(seals)
        except OSError as error:
            raise LogError(f"{self._path}: cannot seal the lake: {error}") from error

    def damage(self) -> Iterator[tuple[Path, str]]:
        """Each sealed file that is not as it was, and in what. One that is gone is not among them:
        what has replaced it, only its table knows.
        """
        for seal in self.known.values():
            path = self.lake / seal.path
            try:
                size, sha256 = size_and_hash(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield path, f"cannot be read: {error}"
                continue
            if size != seal.size:
                yield path, f"damaged: has {size:,} bytes, expected {seal.size:,}"
            elif sha256 != seal.sha256:
                yield path, "damaged: its content is not what was written"
        if self.unreadable:
            yield self._path, f"damaged: {self.unreadable} lines are no seals"

    def _there(self) -> Iterator[str]:
        start = len(str(self.lake)) + 1
        for folder, below, names in os.walk(self.lake):
            if folder == str(self.lake) and SUMS in below:
                below.remove(SUMS)  # no record: reports make them anew
            for name in names:
                # Delta writes a commit under a temporary name first.
                if name.endswith(_SEALED_ENDS) and not name.startswith((".", "_commit_")):
                    # As text: an hour of commits is thousands of files, at each publication.
                    yield os.path.join(folder, name)[start:]

    def _append(self, seals: list[Seal]) -> None:
        with self._path.open("ab") as file:
            # Behind a line that a killed writer left unfinished.
            start = b"\n" if file.tell() and not _ends_a_line(self._path) else b""
            file.write(start + b"".join(_line(seal) for seal in seals))

    def _rewrite(self) -> None:
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.writelines(_line(seal) for seal in self.known.values())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        sync(self.lake)
        self.unreadable = 0


def _line(seal: Seal) -> bytes:
    return with_checksum(_encode(seal)) + b"\n"


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
