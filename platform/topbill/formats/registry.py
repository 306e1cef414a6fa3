"""The formats that logs come and go in, and how a name tells which.

One entry of FORMATS is all that a format needs here: the command line's choices, the check of the
guide's table and the tests' round trips go over this list.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from topbill.domain.errors import BadRequest
from topbill.formats.compressed import COMPRESSED, TORN, open_bytes

if TYPE_CHECKING:
    from topbill.formats.rows import Progress, ReadNotes, Row
    from topbill.formats.writers import Export, Writer


@dataclass(frozen=True)
class Format:
    """A format. Its reader and writer are named, `module:function` below this package, and imported
    when they are first used: the command line, which only lists formats, would otherwise wait for
    Arrow and DuckDB at every start.

    Attributes:
        name: What people call it, after `--format` too.
        reader: (source, key, skip, progress, notes) → rows; `key` is the experiment of rows that
            name none, the first `skip` rows are passed over, `notes` take what gave no row. Empty
            for a format that is only written.
        writer: (export) → `writers.Writer`.
        suffixes: Endings of a file's name under which it is read.
        written: Endings under which it is written, where nobody says another format. Each is of
            one format alone: what two could be is asked for.
        telltale: Where several are read under an ending: what stands in this one's first bytes.
        is_whole: Whether a decision comes back with all that it was; else its numbers do.
        slates: Whether it holds decisions of several placements.
        weights: Whether it says how many decisions a row stands for.
    """

    name: str
    reader: str
    writer: str
    suffixes: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    telltale: bytes = b""
    is_whole: bool = True
    slates: bool = True
    weights: bool = True

    def read(
        self, source: Path, key: str, skip: int, progress: Progress, notes: ReadNotes
    ) -> Iterator[Row]:
        """The rows of a file or folder. Raises BadData naming the line or row that is wrong, and
        BadRequest for a format that is only written.
        """
        if not self.reader:
            able = ", ".join(entry.name for entry in FORMATS.values() if entry.reader)
            raise BadRequest("format", f"got {self.name}, which is only written; expected {able}")
        rows: Iterator[Row] = _resolve(self.reader)(source, key, skip, progress, notes)
        return rows

    def open_writer(self, export: Export) -> Writer:
        """Where an export goes; it goes on where it stood."""
        writer: Writer = _resolve(self.writer)(export)
        return writer


_SNIFFED = 1 << 16
"""Bytes that are looked at to tell a format."""
_ALL = (
    Format(
        "dsjson",
        "lines:read_dsjson",
        "lines:write_dsjson",
        (".dsjson", ".json", ".jsonl"),
        written=(".dsjson",),
    ),
    Format(
        "eppo",
        "lines:read_eppo",
        "lines:write_eppo",
        (".json", ".jsonl"),
        telltale=b'"actionProbability"',
        slates=False,
    ),
    Format(
        "parquet", "parts:read_parquet", "parts:write_parquet", (".parquet",), written=(".parquet",)
    ),
    Format(
        "arrow",
        "parts:read_arrow",
        "parts:write_arrow",
        (".arrow", ".ipc"),
        written=(".arrow", ".ipc"),
    ),
    Format("delta", "parts:read_delta", "parts:write_delta"),
    Format("csv", "", "plain_csv:open_writer", written=(".csv",), is_whole=False),
    Format(
        "open-bandit",
        "open_bandit:read_rows",
        "open_bandit:open_writer",
        (".csv",),
        is_whole=False,
        slates=False,
        weights=False,
    ),
    Format(
        "obp",
        "obp_archive:read_rows",
        "obp_archive:write_decisions",
        (".npz",),
        is_whole=False,
        slates=False,
        weights=False,
    ),
    Format(
        "obp-slate",
        "obp_archive:read_rows",
        "obp_archive:write_slates",
        (".npz",),
        is_whole=False,
        weights=False,
    ),
)
FORMATS: dict[str, Format] = {entry.name: entry for entry in _ALL}
"""Name → format."""
if TYPE_CHECKING:
    FormatName = str
else:
    # The command line offers what a Literal lists, and type checkers can't read a list of theirs
    # from a dictionary.
    FormatName = Literal[tuple(FORMATS)]


def find(name: str) -> Format:
    """The format of that name. Raises BadRequest for a name that is none."""
    if name not in FORMATS:
        raise BadRequest("format", f"got {name!r}; expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of(path: Path) -> str:
    """The name of the format in which a file or folder is to be read, by its name and, where that
    is of several, by its first bytes. Raises BadRequest where neither tells.
    """
    name = path.with_suffix("") if path.suffix in COMPRESSED else path
    in_folder = _of_folder(path)
    if in_folder:
        return in_folder
    entries = [e for e in FORMATS.values() if name.suffix and name.suffix in e.suffixes]
    if not entries:
        raise _untold(path)
    start = _first_bytes(path) if len(entries) > 1 else b""
    telling = [entry for entry in entries if entry.telltale and entry.telltale in start]
    return (telling or entries)[0].name


def target_format(path: Path) -> str:
    """The name of the format in which a file or folder of that name is to be written. Raises
    BadRequest where the name tells none, or could tell several.
    """
    in_folder = _of_folder(path)
    if in_folder:
        return in_folder
    for entry in FORMATS.values():
        if path.suffix and path.suffix in entry.written:
            return entry.name
    raise _untold(path)


def _of_folder(path: Path) -> str | None:
    """Folders are told by what is in them: a Delta table holds Parquet files too, so it comes
    first.
    """
    if (path / "_delta_log").is_dir():
        return "delta"
    for name in ("parquet", "arrow"):
        if path.is_dir() and any(path.glob(f"*.{name}")):
            return name
    return None


def _first_bytes(path: Path) -> bytes:
    """What a file begins with; nothing of one that cannot be read, which its reader says."""
    try:
        with open_bytes(path) as file:
            return file.read(_SNIFFED)
    except TORN:
        return b""


def _untold(path: Path) -> BadRequest:
    fitting = [entry.name for entry in FORMATS.values() if path.suffix in entry.suffixes]
    names = ", ".join(fitting or FORMATS)
    return BadRequest(
        "format", f"{path.name} does not tell its format; expected --format, one of {names}"
    )


def _resolve(name: str) -> Any:
    return pkgutil.resolve_name(f"topbill.formats.{name}")
