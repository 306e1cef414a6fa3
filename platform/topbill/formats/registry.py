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
            name none, the first `skip` rows are passed over, `notes` take what gave no row.
        writer: (export) → `writers.Writer`.
        suffixes: Endings of a file's name that tell the format.
        is_whole: Whether a decision comes back with all that it was; else its numbers do.
        slates: Whether it holds decisions of several placements.
    """

    name: str
    reader: str
    writer: str
    suffixes: tuple[str, ...] = ()
    is_whole: bool = True
    slates: bool = True

    def read(
        self, source: Path, key: str, skip: int, progress: Progress, notes: ReadNotes
    ) -> Iterator[Row]:
        """The rows of a file or folder. Raises BadData naming the line or row that is wrong."""
        rows: Iterator[Row] = _resolve(self.reader)(source, key, skip, progress, notes)
        return rows

    def open_writer(self, export: Export) -> Writer:
        """Where an export goes; it goes on where it stood."""
        writer: Writer = _resolve(self.writer)(export)
        return writer


_ALL = (
    Format("dsjson", "lines:read_dsjson", "lines:write_dsjson", (".dsjson", ".json", ".jsonl")),
    Format("eppo", "lines:read_eppo", "lines:write_eppo", slates=False),
    Format("parquet", "parts:read_parquet", "parts:write_parquet", (".parquet",)),
    Format("arrow", "parts:read_arrow", "parts:write_arrow", (".arrow", ".ipc")),
    Format("delta", "parts:read_delta", "parts:write_delta"),
    Format(
        "open-bandit",
        "open_bandit:read_rows",
        "open_bandit:open_writer",
        (".csv",),
        is_whole=False,
        slates=False,
    ),
    Format(
        "obp",
        "obp_archive:read_rows",
        "obp_archive:write_decisions",
        (".npz",),
        is_whole=False,
        slates=False,
    ),
    Format("obp-slate", "obp_archive:read_rows", "obp_archive:write_slates", is_whole=False),
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
    """The name of the format that a file's or folder's name speaks of. Raises BadRequest where it
    speaks of none.
    """
    if path.suffix == ".gz":
        path = path.with_suffix("")
    # Folders are told by what is in them: a Delta table holds Parquet files too, so it comes first.
    if (path / "_delta_log").is_dir():
        return "delta"
    if path.is_dir():
        for name in ("parquet", "arrow"):
            if any(path.glob(f"*.{name}")):
                return name
    for entry in FORMATS.values():
        if path.suffix and path.suffix in entry.suffixes:
            return entry.name
    raise BadRequest(
        "format",
        f"{path.name} does not tell its format; expected --format, one of {', '.join(FORMATS)}",
    )


def _resolve(name: str) -> Any:
    return pkgutil.resolve_name(f"topbill.formats.{name}")
