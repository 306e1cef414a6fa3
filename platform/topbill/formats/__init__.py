"""Data in and out: foreign logs into a data folder's lake, a lake's decisions into foreign files;
streaming, resumable.

Memory holds one batch, whatever the file's size. What dies half-way goes on where it stood: an
import by the position that the lake's tables keep with each batch, an export by the position kept
beside (or in) what it writes.
"""

from topbill.formats.exporting import export_log
from topbill.formats.importing import import_log
from topbill.formats.registry import Format, format_of
from topbill.formats.sources import read

__all__ = ["Format", "export_log", "format_of", "import_log", "read"]
