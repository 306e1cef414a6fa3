"""The half of a worker that learns: the experiments that it holds, and what it tells of them."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from topbill import tracing
from topbill.entities import EntityStore
from topbill.log import Log
from topbill.log.protocol import Duty
from topbill.worker import archive
from topbill.worker.experiment_files import ExperimentFiles
from topbill.worker.learner import Learner
from topbill.worker.policy_fold import BATCH
from topbill.worker.work_share import WorkShare, this_worker

_logger = logging.getLogger("topbill")
TELL_EVERY = 1.0
"""Seconds between two lines in the log on how learning gets on; what is wrong is told at once."""


class Learning:
    """Learns; `step` does what is due.

    Args:
        log: The log; who gives it closes it.
        files: The experiments.
        data: The data folder.
        work_share: Says which of the experiments are this worker's; None where all are.
    """

    def __init__(
        self, log: Log, files: ExperimentFiles, data: Path, work_share: WorkShare | None = None
    ) -> None:
        self._log, self._files, self._work_share = log, files, work_share
        self._held: frozenset[str] | None = None
        own = files.experiments if work_share is None else ()
        self.learner = Learner(log, own, archive.reader(data), EntityStore(data))
        self._told: dict[str, Duty] = {}
        self._told_at = 0.0

    def step(self) -> bool:
        """Whether there is more to do at once."""
        self._share_out(self._files.reload())
        started = time.time_ns()
        read = self.learner.step()
        if read:
            tracing.finished("learn", started, decisions=read)
        self._tell()
        return read >= BATCH

    def _share_out(self, has_changed: bool) -> None:
        experiments = self._files.experiments
        if self._work_share is None:
            if has_changed:
                self.learner.reload(experiments)
            return
        held = self._work_share.look({experiment.key for experiment in experiments})
        if held == self._held and not has_changed:
            return
        self.learner.reload([one for one in experiments if one.key in held])
        if not held and held != self._held:
            _logger.warning("every experiment is learned by another worker; standing by")
        self._held = held

    def _tell(self) -> None:
        """Tell what others must know: how far it is once a second, and at once what went wrong, or
        where it begins anew and needs what it did not need before.
        """
        duties = [
            msgspec.structs.replace(duty, worker=this_worker()) for duty in self.learner.duties()
        ]
        is_due = time.monotonic() - self._told_at >= TELL_EVERY
        if is_due or any(_is_news(self._told.get(duty.name), duty) for duty in duties):
            self._log.note_duties(duties)
            self._told = {duty.name: duty for duty in duties}
            self._told_at = time.monotonic()


def _is_news(before: Duty | None, now: Duty) -> bool:
    if before is None or now.through < before.through:
        return True
    said = (before.fingerprint, before.failing, before.unreadable, bool(before.behind))
    return said != (now.fingerprint, now.failing, now.unreadable, bool(now.behind))
