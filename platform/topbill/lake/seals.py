"""That the lake's files are on the disk, and that they are as they were: the size and SHA-256 of
each, in `lake/seals.jsonl`.

Delta makes a commit by renaming a file, and syncs nothing: a power cut may leave a commit without
what it names. So before the log lets go of a row, whatever holds it in the lake is synced and
*sealed*: a line is written, which `damage` compares with the file for as long as that lies there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from topbill.domain.durable import size_and_hash, sync
from topbill.domain.errors import LogError

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
                seal = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.unreadable += 1
            else:
                known[seal.path] = seal
        return known

    def seal(self) -> int:
        """Sync and seal every file that is not sealed yet; returns how many that were."""
        try:
            there = set(self._there())
            new = sorted(there - self.known.keys())
            sealed = [self._sealed(path) for path in new]
            for folder in {(self.lake / path).parent for path in new}:
                for above in (folder, *folder.parents):
                    sync(above)
                    if above == self.lake:
                        break
            gone = self.known.keys() - there
            self.known = {path: self.known[path] for path in self.known.keys() - gone}
            self.known |= {seal.path: seal for seal in sealed}
            if len(gone) > _FORGOTTEN_BEFORE_REWRITE:
                self._rewrite()
            elif sealed:
                self._append(sealed)
        except OSError as error:
            raise LogError(f"{self._path}: cannot seal the lake: {error}") from error
        return len(new)

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
        for folder, _, names in os.walk(self.lake):
            for name in names:
                # Delta writes a commit under a temporary name first.
                if name.endswith(_SEALED_ENDS) and not name.startswith((".", "_commit_")):
                    yield str(Path(folder, name).relative_to(self.lake))

    def _sealed(self, path: str) -> Seal:
        sync(self.lake / path)
        return Seal(path, *size_and_hash(self.lake / path))

    def _append(self, seals: list[Seal]) -> None:
        with self._path.open("ab") as file:
            # Behind a line that a killed writer left unfinished.
            start = b"\n" if file.tell() and not _ends_a_line(self._path) else b""
            file.write(start + b"".join(_encode(seal) + b"\n" for seal in seals))
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self) -> None:
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.writelines(_encode(seal) + b"\n" for seal in self.known.values())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        sync(self.lake)
        self.unreadable = 0


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
