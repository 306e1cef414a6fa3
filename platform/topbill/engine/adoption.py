"""Which stored snapshot an experiment decides and learns from: the newest that can be read."""

from __future__ import annotations

from typing import NamedTuple

from topbill.domain.errors import DamagedSnapshot, LogError
from topbill.domain.records import Snapshot, SnapshotHead
from topbill.engine.compiled import CompiledExperiment
from topbill.log import Log


class Adoption(NamedTuple):
    """What became of looking for a snapshot.

    Attributes:
        snapshot: What was adopted; None where nothing fits.
        newest: What stands beside the newest one, whether it could be read or not; None where the
            log has none.
        problem: Why the newest could not be read, and what happens instead; "" where it could.
    """

    snapshot: Snapshot | None
    newest: SnapshotHead | None
    problem: str


def adopt_newest(log: Log, compiled: CompiledExperiment, after: int = 0) -> Adoption:
    """Let an experiment go on from its newest snapshot after version `after`; from the newest of
    those that can be read, where later ones can't. Of one that belongs to other features, metrics
    or policies nothing is taken, nor of those before it.

    Raises LogError where the log itself cannot be read.
    """
    key = compiled.experiment.key
    heads = log.snapshot_heads(key)
    newest = heads[0] if heads else None
    wrong = ""
    for head in heads:
        if head.version <= after:
            break
        try:
            snapshot = log.snapshot(key, head.version)
            if snapshot is not None:
                fits = compiled.adopt(snapshot)
                return Adoption(
                    snapshot if fits else None, newest, _problem(key, heads, wrong, head)
                )
        except LogError as error:
            if not isinstance(error, DamagedSnapshot):
                raise
            wrong = wrong or str(error)
        except Exception as error:
            # The policy's own bytes, which it may refuse in whatever way its library does.
            wrong = wrong or f"{type(error).__name__}: {error}"
    return Adoption(None, newest, _problem(key, heads, wrong, None))


def _problem(key: str, heads: list[SnapshotHead], wrong: str, used: SnapshotHead | None) -> str:
    if not wrong:
        return ""
    instead = "the experiment begins as it was before it learned"
    if used is not None:
        instead = f"version {used.version} is used"
    return (
        f"version {heads[0].version} cannot be read ({wrong}); {instead} until the worker has "
        f"learned what is missing from the log, or you run `topbill verify {key} --repair`"
    )
