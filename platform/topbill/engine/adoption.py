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
                adopted = snapshot if compiled.adopt(snapshot) else None
                return Adoption(adopted, newest, _problem(compiled, newest, wrong))
        except Exception as error:
            # A policy refuses bytes in whatever way its library does.
            if isinstance(error, LogError) and not isinstance(error, DamagedSnapshot):
                raise
            # Without its remedy, which stands once at the end.
            wrong = wrong or str(error).partition("; write it again")[0] or type(error).__name__
    return Adoption(None, newest, _problem(compiled, newest, wrong))


def _problem(compiled: CompiledExperiment, newest: SnapshotHead | None, wrong: str) -> str:
    """What to say of a newest version that could not be read."""
    if not wrong or newest is None:
        return ""
    version = compiled.version
    instead = f"version {version} is used" if version else "it begins as before it learned"
    return (
        f"version {newest.version} cannot be read ({wrong}); {instead} until the worker has "
        "learned what is missing from the log; or write it again: "
        f"topbill verify {compiled.experiment.key} --repair"
    )


def adopt_newest_of(log: Log, compiled: CompiledExperiment) -> bool:
    """Let an experiment go on from the newest snapshot that it learned itself, whatever was learned
    of others under its key since; whether there is one that is newer than what it has.

    Raises LogError where the log itself cannot be read.
    """
    for head in log.snapshot_heads(compiled.experiment.key):
        if head.version <= compiled.version:
            break
        if head.fingerprint != compiled.experiment.learning_fingerprint:
            continue
        try:
            snapshot = log.snapshot(compiled.experiment.key, head.version)
            if snapshot is not None and compiled.adopt(snapshot):
                return True
        except Exception as error:
            # A policy refuses bytes in whatever way its library does.
            if isinstance(error, LogError) and not isinstance(error, DamagedSnapshot):
                raise
    return False
