"""Policies away from viewers: simulated ones, real logs, and the record folded once more."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    Data,
    LakeUrl,
    LogUrl,
    app,
    err,
    out,
    progress,
    say_all,
    use_lake,
    use_log,
)
from topbill.domain.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from topbill.log import Log
    from topbill.log.protocol import Retention
    from topbill.spec import Experiment
    from topbill.worker.verification import Verification


Rounds = Annotated[int, Parameter(validator=Number(gte=1))]


@app.command
def simulate(file: Path, *, rounds: Rounds = 20_000, seed: int = 0, output: Output = TEXT) -> None:
    """Try an experiment on simulated viewers whose truth is known, in process and on simulated
    time.

    Args:
        file: The experiment file.
        rounds: Visits to simulate.
        seed: Chooses world and viewers.
    """
    from topbill import spec
    from topbill.simulation.run import run
    from topbill.simulation.scoreboard import table

    experiment = spec.load(file)
    with progress() as bar:
        task = bar.add_task(experiment.key, total=rounds)
        lines = run(
            experiment, rounds, seed=seed, progress=lambda done: bar.update(task, completed=done)
        )
    title = f"{experiment.key}: {rounds:,} simulated visits"
    output.show(lines, lambda: out.print(table(lines, title=title)))


replay = cyclopts.App(
    name="replay", help="Replay real logs through the real decide, log and learn path."
)
app.command(replay)


@replay.command
def obd(file: Path, *, policy: tuple[str, ...] = (), output: Output = TEXT) -> None:
    """Rejection replay of an Open Bandit log that a uniform-random policy made (Li et al. 2011).

    Args:
        file: The log, Parquet or CSV.
        policy: A kind of policy; may be given several times.
    """
    from topbill.simulation.replay import DEFAULT_KINDS, reading, replay_obd, table

    kinds = policy or DEFAULT_KINDS
    with progress() as bar:
        tasks = {kind: bar.add_task(kind, total=None) for kind in kinds}
        results = replay_obd(
            file,
            kinds,
            progress=lambda kind, done, rows: bar.update(tasks[kind], completed=done, total=rows),
        )

    def text() -> None:
        out.print(table(results))
        out.print(reading(results), highlight=False)

    output.show(results, text, lambda: msgspec.to_builtins(results.policies))


@app.command
def verify(
    key: str | None = None,
    *,
    files: Annotated[bool, Parameter(negative="")] = False,
    repair: Annotated[bool, Parameter(negative="")] = False,
    experiments: Path | None = None,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    output: Output = TEXT,
) -> None:
    """Fold an experiment's log again from the start; exit 0 when it reaches the stored state, bit
    by bit. Vowpal Wabbit's is compared by what it predicts and weighs. With --files, look for
    damage of the files first, or only for that where no experiment is named.

    Args:
        key: The experiment; may be left out with --files.
        files: Read the log's files and say what is damaged; exit 0 where nothing is.
        repair: Write what the log leads to as the next version, where the stored state differs or
            cannot be read; service and worker may be at work, and go on from it. With --files: keep
            what is damaged aside, and go on with what can be read of it; nothing else may be at
            work on the folder.
        experiments: Folder of its file; left out, its newest revision in the log's audit is taken.
    """
    use_log(url)
    use_lake(lake_url)
    done = Verified()
    if files:
        _verify_files(data, done, repair=repair)
    elif key is None:
        raise BadRequest("verify", "expected an experiment's key, --files, or both")
    # An experiment of a damaged log is not folded.
    if key is not None and not done.damage:
        _verify_fold(key, data, experiments, done, repair=repair)
    output.show(done, lambda: say_all(done.sentences))
    if done.damage or done.same is False:
        sys.exit(1)


class Verified(msgspec.Struct):
    """What was found. `same` is None where nothing was folded; after a repair it is true.

    Attributes:
        same: Whether the stored state is what the log leads to.
        version: The stored version.
        watermark: To which the log was folded.
        variants: How each variant compares; None where it cannot be told.
        repaired: The version that was written instead.
        mended: What was mended of the files.
        damage: What is damaged in the files, a sentence each.
        sentences: All of it for people.
    """

    same: bool | None = None
    version: int | None = None
    watermark: int | None = None
    variants: dict[str, bool | None] = {}
    repaired: int | None = None
    mended: list[str] = []
    damage: list[str] = []
    sentences: list[str] = []


def _verify_fold(
    key: str, data: Path, experiments: Path | None, done: Verified, *, repair: bool
) -> None:
    from topbill.entities import EntityStore
    from topbill.log import open_log_of
    from topbill.worker import archive
    from topbill.worker.verification import repair as write_again
    from topbill.worker.verification import verify as fold_and_compare

    with closing(open_log_of(data, create=False)) as log:
        if experiments is None:
            experiment = _from_audit(key, log, data)
        else:
            experiment = _from_files(key, experiments)
        with err.status(f"folding the log of {key}"):
            tables = EntityStore(data)
            verification = fold_and_compare(log, experiment, archive.reader(data), tables)
        repaired = None
        if repair and not verification.same:
            repaired = write_again(log, verification)
        retention = log.retention()
    done.version, done.watermark = verification.snapshot.version, verification.snapshot.watermark
    done.same = verification.same or repaired is not None
    done.variants = {name: one.same for name, one in verification.comparisons.items()}
    done.sentences += [*_verification(key, verification), *_retention(data, retention)]
    if repaired is not None:
        done.repaired = repaired.version
        done.sentences.append(
            f"{key}: written again as version {repaired.version}; services go on from it"
        )


def _verification(key: str, verification: Verification) -> Iterator[str]:
    stored = verification.snapshot
    verdict = "equals" if verification.same else "differs from"
    undecided = any(comparison.same is None for comparison in verification.comparisons.values())
    reserve = ", as far as can be told" if verification.same and undecided else ""
    yield (
        f"{key}: the state folded again to watermark {stored.watermark} {verdict} "
        f"the stored version {stored.version}{reserve}"
    )
    if verification.erasure is not None:
        erasure = verification.erasure
        at = datetime.fromtimestamp(erasure.at // 1_000_000, UTC)
        what = "after the removal by age" if erasure.by_age else "after an erasure"
        yield (
            f"  from the checkpoint of {at:%Y-%m-%dT%H:%M:%SZ} (version {erasure.version}), "
            f"{what} of {erasure.decisions:,} decisions: what it learned before is not folded "
            "again"
        )
    for variant, comparison in verification.comparisons.items():
        if comparison.note:
            yield f"  {variant}: {comparison.note}"
        before, now = stored.engines.get(variant), verification.engines.get(variant)
        if before is not None and before != now:
            yield f"  {variant}: learned by {before}, folded again by {now}"


def _retention(data: Path, retention: Retention | None) -> Iterator[str]:
    if retention is not None:
        at = datetime.fromtimestamp(retention.at // 1_000_000, UTC)
        since = datetime.fromtimestamp(retention.kept_since // 1_000_000, UTC)
        yield (
            f"{data}: holds rows since {since:%Y-%m-%d}; older ones were last removed at "
            f"{at:%Y-%m-%dT%H:%M:%SZ}"
        )


def _verify_files(data: Path, done: Verified, *, repair: bool) -> None:
    from topbill.log import has_log
    from topbill.worker.damage import damage
    from topbill.worker.damage import repair as repair_files

    if not has_log(data):
        raise NotFound(f"{data}: no log there; expected the data folder of `topbill up`")
    done.mended = list(repair_files(data)) if repair else []
    done.damage = list(damage(data))
    done.sentences += [*done.mended, *done.damage]
    if not done.damage:
        done.sentences.append(f"{data}: no file of log or lake is damaged")


def _from_audit(key: str, log: Log, data: Path) -> Experiment:
    from topbill import spec

    # A later revision of the same experiment replaces an earlier one: they come oldest first.
    audit = {revision.experiment: revision.spec for revision in log.revisions()}
    if key not in audit:
        raise NotFound(_unknown(data, key, audit))
    return spec.from_audit(audit[key], f"{key} (audit)")


def _from_files(key: str, experiments: Path) -> Experiment:
    from topbill import pages

    # All of the folder: a file beside others may be refused for what only they show.
    by_key = {experiment.key: experiment for experiment in pages.load_experiments(experiments)}
    if key not in by_key:
        raise NotFound(_unknown(experiments, key, by_key))
    return by_key[key]


def _unknown(where: Path, key: str, keys: Iterable[str]) -> str:
    names = ", ".join(sorted(keys)) or "(none)"
    return f"{where}: no experiment {key!r}; expected one of {names}"
