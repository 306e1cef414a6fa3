"""Data in and out: foreign logs into a data folder's lake, a lake's decisions into foreign files;
streaming, resumable.

Memory holds one batch, whatever the file's size. What dies half-way goes on where it stood: an
import by the position that the lake's tables keep with each batch, an export by the position kept
beside (or in) what it writes.
"""

from typing import TYPE_CHECKING

from topbill import late
from topbill.formats.registry import FORMATS, Format, FormatName, format_of

if TYPE_CHECKING:
    from topbill.formats.lake_export import export_log
    from topbill.formats.lake_import import import_log
    from topbill.formats.reader import read
else:
    # The command line, which only lists formats, would wait for Arrow and DuckDB at every start.
    __getattr__ = late.names(
        __name__,
        {
            "topbill.formats.lake_export": ("export_log",),
            "topbill.formats.lake_import": ("import_log",),
            "topbill.formats.reader": ("read",),
        },
    )

__all__ = [
    "FORMATS",
    "Format",
    "FormatName",
    "export_log",
    "format_of",
    "import_log",
    "read",
]
