"""Files that may be compressed with gzip, as logs are that were joined and put away."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO

COMPRESSED = (".gz",)
"""Endings of names of such files."""
_MAGIC = b"\x1f\x8b"


def is_compressed(source: Path) -> bool:
    """Whether the file begins as gzip does, whatever its name."""
    with source.open("rb") as file:
        return file.read(2) == _MAGIC


def open_bytes(source: Path) -> IO[bytes]:
    """The file's content, decompressed where it has to be."""
    if is_compressed(source):
        # gzip's own type is no IO[bytes] to type checkers, and does all that one does.
        return gzip.open(source, "rb")  # type: ignore[return-value]
    return source.open("rb", buffering=1 << 20)
