"""Data in and out: foreign logs into a data folder's lake, a lake's decisions into foreign files;
streaming, resumable.

Memory holds one batch, whatever the file's size. What dies half-way goes on where it stood: an
import by the position that the lake's tables keep with each batch, an export by the position kept
beside (or in) what it writes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from topbill.formats.registry import Format, format_of

if TYPE_CHECKING:
    from topbill.formats.exporting import export_log
    from topbill.formats.importing import import_log
    from topbill.formats.sources import read

__all__ = ["Format", "export_log", "format_of", "import_log", "read"]

_MODULES = {"export_log": "exporting", "import_log": "importing", "read": "sources"}


def __getattr__(name: str) -> Any:
    """What moves logs is imported at its first use: the command line, which only lists formats,
    would otherwise wait for Arrow and DuckDB at every start.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
