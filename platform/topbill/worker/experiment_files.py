"""What a worker knows of the experiments and pages: their files, under the orders on them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from topbill import pages, spec
from topbill.domain.errors import FileProblem, SpecError, TopbillError
from topbill.log import Log
from topbill.log.learning import as_learned
from topbill.log.orders import as_its_file, halted, obeyed
from topbill.log.protocol import Order
from topbill.log.unit_ids import unit_ids
from topbill.pages import PageFile
from topbill.policies import KINDS

if TYPE_CHECKING:
    from topbill.lake import Problem

_logger = logging.getLogger("topbill")
_WHOLE = frozenset(KINDS) - {"scored"}
"""Policies that an experiment's text says all of."""


class ExperimentFiles:
    """The experiments of a folder as they run, taken over anew where files or orders change.

    Args:
        folder: The folder.
        data: The data folder, which says whether units are stored under their own ids.
        log: Has the orders, and what was learned before.

    Raises SpecError where the files are wrong from the start.
    """

    def __init__(self, folder: Path, data: Path, log: Log) -> None:
        self._folder, self._log = folder, log
        self._marks = spec.marks(folder)
        self._unit_ids = unit_ids(data)
        self.files = self._load()
        """The experiments as their files say, without orders."""
        self._orders: list[Order] = []
        self._newest: dict[str, str] = {}
        """The newest revision of each experiment that services have taken over."""
        self.experiments = self.files
        """As they run."""
        self._pages: list[PageFile] = []
        self._notes: list[tuple[str, str]] = []
        self._refused = self._wrong_pages()
        self.experiments = self._as_they_run([])

    def reload(self) -> bool:
        """Take over edited files and new orders; returns whether there were any. Where one of the
        files is wrong, all stay as they were: half of an edit (a layer's shares in two files) may
        be worse than none.
        """
        marks, orders = spec.marks(self._folder), self._log.orders()
        # On a log in the data folder all have the files of one machine.
        newest = self._log.newest_revisions() if self._log.is_remote else {}
        if (marks, orders, newest) == (self._marks, self._orders, self._newest):
            return False
        # Noted before the files are read: one that changes meanwhile is read again in the next
        # step.
        self._marks, self._orders, self._newest = marks, orders, newest
        try:
            self.files = [self._as_taken_over(file) for file in self._load()]
        except SpecError as error:
            _logger.warning("experiments stay as they were:\n%s", error)
            self._refused = error.problems
            readable = spec.readable(pages.experiment_folders(self._folder))
            self.files = halted(self.files, readable)
            self.experiments = self._as_they_run(orders)
        else:
            self.experiments = self._as_they_run(orders)
            self._refused = self._wrong_pages()
        return True

    def look_at_pages(self) -> None:
        """Note again what must be known of pages: titles come and go while a worker runs."""
        self._notes = _notes(self._pages, self.experiments)

    def problems(self) -> list[Problem]:
        """Files that were not taken over, and what must be known of pages."""
        # Only who publishes asks, and has the record's libraries.
        from topbill.lake import Problem

        refused = [Problem("file", p.place, p.path, p.message) for p in self._refused]
        return refused + [Problem("page", name, "", note) for name, note in self._notes]

    def _as_they_run(self, orders: Sequence[Order]) -> list[spec.Experiment]:
        return [as_learned(one, self._log) for one in obeyed(self.files, orders)]

    def _as_taken_over(self, file: spec.Experiment) -> spec.Experiment:
        """A file, or in its place the one that services run: they adopt nothing that is learned by
        another one. Their machines may have other files than this one.
        """
        if file.key not in self._newest:
            return file
        other = as_its_file(self._log, file.key)
        if other.fingerprint == file.fingerprint or foreign_policies(other):
            return file
        return dataclasses.replace(other, source=file.source)

    def _load(self) -> list[spec.Experiment]:
        return self._unit_ids.in_experiments(pages.experiments_of(self._folder))

    def _wrong_pages(self) -> tuple[FileProblem, ...]:
        try:
            self._pages = pages.load_all(self._folder, self.experiments)
        except SpecError as error:
            _logger.warning("pages stay as they were:\n%s", error)
            return error.problems
        self.look_at_pages()
        return ()


def foreign_policies(experiment: spec.Experiment) -> list[str]:
    """Those of an experiment's policies that its text does not say all of: they score by a model's
    file, or are of a package that may not be everywhere.
    """
    return [each.policy for each in experiment.variants if each.policy not in _WHOLE]


def _notes(
    files: Sequence[PageFile], experiments: Sequence[spec.Experiment]
) -> list[tuple[str, str]]:
    """What must be known of the pages and their catalogues: file and sentence."""
    found = []
    for file in files:
        try:
            catalog, tables = file.read_catalog(), pages.read_tables(file)
        except TopbillError:
            continue  # the services say what is wrong with them, and go on with the last good ones
        found += [(file.source, note) for note in pages.notes(file, catalog, experiments, tables)]
    return found
