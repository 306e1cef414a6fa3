"""Data in and out: foreign logs into a data folder's lake, a lake's decisions into foreign files;
streaming, resumable.

Memory holds one batch, whatever the file's size. What dies half-way goes on where it stood: an
import by the position that the lake's tables keep with each batch, an export by the position kept
beside (or in) what it writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topbill.formats.registry import FORMATS, Format, FormatName, find, format_of
from topbill.formats.rows import Progress, ReadNotes, Row, quiet

__all__ = [
    "FORMATS",
    "Format",
    "FormatName",
    "export_log",
    "format_of",
    "import_log",
    "read",
]

if TYPE_CHECKING:
    from topbill.formats.lake_export import export_log
    from topbill.formats.lake_import import import_log

_MODULES = {"export_log": "lake_export", "import_log": "lake_import"}


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


def __getattr__(name: str) -> Any:
    """What moves logs is imported at its first use: the command line, which only lists formats,
    would otherwise wait for Arrow and DuckDB at every start.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
