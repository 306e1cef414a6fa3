"""Files of lines: JSON of one format or another, a decision a line."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path

from topbill.domain.errors import BadData
from topbill.formats import ccb, dsjson, eppo
from topbill.formats.compressed import TORN, is_compressed, open_bytes
from topbill.formats.rows import Progress, ReadNotes, Row
from topbill.formats.validate_row import validate_row
from topbill.formats.writers import Export, ExportNote, LinesWriter

_REPORT_EVERY = 2_000
_UNREADABLE = "unreadable lines"
# Bytes of a line after which it is cut: a file without line ends must not fill the memory.
_LONGEST_LINE = 64_000_000


def read_dsjson(
    source: Path, key: str, skip: int, progress: Progress, notes: ReadNotes
) -> Iterator[Row]:
    """VW's dsjson, lines of one action and of slates in any order."""
    return read_lines(source, _parse_dsjson, key, skip, progress, notes, dsjson.reason_to_skip)


def write_dsjson(export: Export) -> LinesWriter:
    """VW's dsjson, a decision of one action as CB and one of several as CCB."""

    def dump(row: Row) -> bytes:
        decision, events = row
        dump_line = dsjson.dump_line if len(decision.slate) == 1 else ccb.dump_line
        return dump_line(decision, events, export.features) + b"\n"

    return LinesWriter(export.target, ExportNote(export.target), dump)


def read_eppo(
    source: Path, key: str, skip: int, progress: Progress, notes: ReadNotes
) -> Iterator[Row]:
    """Eppo's bandit events."""
    return read_lines(source, eppo.parse_line, key, skip, progress, notes)


def write_eppo(export: Export) -> LinesWriter:
    """Eppo's bandit events."""

    def dump(row: Row) -> bytes:
        return eppo.dump_line(*row, export.features) + b"\n"

    return LinesWriter(export.target, ExportNote(export.target), dump)


def read_lines(
    source: Path,
    parse: Callable[..., Row],
    key: str,
    skip: int,
    progress: Progress,
    notes: ReadNotes,
    reason_to_skip: Callable[[bytes], str | None] = lambda _line: None,
) -> Iterator[Row]:
    """A row a line. Blank lines are passed over, and so are the first `skip` others; those with a
    `reason_to_skip`, and as many unreadable ones as the notes allow, are counted there.
    """
    if source.is_dir():
        raise BadData(str(source), "is a folder; expected a file of lines")
    # How far it is in a compressed file is known only when it is read.
    total = None if is_compressed(source) else source.stat().st_size
    bytes_read = rows = 0
    for number, line in enumerate(_lines(source), 1):
        bytes_read += len(line)
        if not line.strip():
            continue
        reason = reason_to_skip(line)
        if reason is not None:
            notes.left_out[reason] += 1
            continue
        if rows % _REPORT_EVERY == 0:
            progress(bytes_read, total)
        try:
            row = validate_row(parse(line, experiment=key, number=number), f"line {number}")
        except BadData as error:
            notes.leave_out(_UNREADABLE, error)
            continue
        rows += 1
        if rows > skip:
            notes.line, notes.content = number, line
            yield row
    progress(bytes_read, bytes_read)


def _lines(source: Path) -> Iterator[bytes]:
    """The lines of a file, compressed or not, without the mark that some editors put first: where
    files were put together, it stands before the first line of each.
    """
    try:
        with open_bytes(source) as file:
            while line := file.readline(_LONGEST_LINE):
                yield line.removeprefix(BOM_UTF8)
    except TORN as error:
        raise BadData(
            str(source), f"cannot be read ({error}); expected whole text, or a whole archive"
        ) from None


def _parse_dsjson(line: bytes, *, experiment: str, number: int) -> Row:
    # Only slates have outcomes by position. The name may stand in a text of another line too: then
    # that line is refused, which is better than a slow look at every one.
    parse_line = ccb.parse_line if b'"_outcomes"' in line else dsjson.parse_line
    return parse_line(line, experiment=experiment, number=number)
