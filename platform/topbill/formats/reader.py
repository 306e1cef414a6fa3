"""The rows of a log of any format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from topbill.formats.registry import find
from topbill.formats.rows import Progress, ReadNotes, Row, quiet


def read(
    source: Path, format_name: str, key: str, *, skip: int = 0, progress: Progress = quiet
) -> Iterator[Row]:
    """The rows of a file or folder after the first `skip`.

    Args:
        source: The file or folder.
        format_name: One of FORMATS.
        key: The experiment of rows that name none.
        skip: Rows to pass over.
        progress: Called with how much is read.

    Raises:
        BadData: Naming the line or row that is wrong.
    """
    return find(format_name).read(source, key, skip, progress, ReadNotes())
