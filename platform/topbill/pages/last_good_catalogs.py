"""Keeps each page's last good catalogue beside the log, so that a damaged or missing one never
stops pages, not even over a restart: they go on with what was good, and say so."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from topbill.candidates import Signals
from topbill.domain.durable import sealed, unsealed
from topbill.domain.errors import BadData, FileProblem, SpecError, TopbillError
from topbill.engine import Engine
from topbill.pages.compiled import CompiledPage
from topbill.pages.files import PageFile

_logger = logging.getLogger("topbill")


class LastGoodCatalogs:
    """The last good catalogues, one file for each page, in the data folder."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "catalogues"

    def compile(self, file: PageFile, engine: Engine, signals: Signals | None) -> CompiledPage:
        """The page over its catalogue; over the last good one, with `stale` saying what is wrong,
        where the file can't be read, is no catalogue, or lacks what the rules name.

        Raises:
            TopbillError: What is wrong, where there is no good one.
        """
        try:
            table = file.read_table()
            page = CompiledPage(file, engine, file.catalog(table), signals)
        except TopbillError as error:
            path = self._path(file)
            if not path.exists():
                raise
            _logger.warning(
                "page %s: %s; its pages are made from the last good catalogue", file.key, error
            )
            last_good = file.catalog(read_last_good(path))
            return CompiledPage(file, engine, last_good, signals, stale=problem(file, error))
        # Only now, when it has proved to be good for this page.
        self._save(file, table)
        return page

    def _path(self, file: PageFile) -> Path:
        return self._folder / f"{file.key}.sealed"

    def _save(self, file: PageFile, table: pa.Table) -> None:
        path = self._path(file)
        # Every API process writes it: each a file of its own, put in place whole.
        draft = path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            content = pa.BufferOutputStream()
            pa_parquet.write_table(table, content)
            # Parquet would read on over a damaged page.
            draft.write_bytes(sealed(content.getvalue().to_pybytes()))
            draft.replace(path)
        except (pa.ArrowException, OSError) as error:
            _logger.warning("%s: %s; a restart will need the page's own catalogue", path, error)


def read_last_good(path: Path) -> pa.Table:
    """The table of a catalogue that was kept. Raises BadData where it is not what was written."""
    try:
        return pa_parquet.read_table(pa.BufferReader(unsealed(path.read_bytes())))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadData(
            path.name, f"{error}; expected what the service wrote; put the page's catalogue right"
        ) from error


def problem(file: PageFile, error: TopbillError) -> FileProblem:
    """What is wrong with a page's catalogue, as one problem of the page file."""
    got = str(error)
    if isinstance(error, SpecError):
        contradictions = "; ".join(f"{p.path}: {p.message}" for p in error.problems[:5])
        got = f"one that contradicts the page: {contradictions}"
    return FileProblem(
        file.source, "catalogue", got, "a catalogue that the rules fit; the last good one is served"
    )
