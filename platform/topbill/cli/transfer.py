"""Logs that come from elsewhere, and decisions for other tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    EXPERIMENTS,
    Data,
    Experiments,
    LakeUrl,
    LogUrl,
    app,
    err,
    progress,
    say,
    say_all,
    use_lake,
    use_log,
)
from topbill.formats.registry import FormatName

import_app = App(name="import")
app.command(import_app)


@import_app.default
def import_(
    file: Path,
    *,
    data: Data,
    lake_url: LakeUrl = "",
    format: FormatName | None = None,  # noqa: A002 (what it is called on the command line)
    key: str = "imported",
    variant: str | None = None,
    unit: str | None = None,
    experiments: Experiments = EXPERIMENTS,
    skip_bad: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    output: Output = TEXT,
) -> None:
    """Put a foreign log into a data folder of its own, for reports and evaluation; interrupted, it
    goes on. An experiment of it that has no file gets one that fits.

    Args:
        file: dsjson (CB, CCB), Eppo's bandit events, Parquet, Arrow, Delta, Open Bandit CSV, obp's
            feedback (.npz). Lines and CSV may be compressed (.gz, .zst, .bz2, .xz).
        format: Where the name does not tell.
        key: The experiment of lines that name none.
        variant: The field of a line, or of its context, that says the variant: of an A/B test that
            ran elsewhere. `action`: what was shown does.
        unit: The field that says whose line it is; a unit may have several.
        experiments: Folder of experiment files. Named, it also takes those that are written;
            else they go into the data folder.
        skip_bad: Leave out, and count, up to so many lines that cannot be read, or say no variant
            or unit.
    """
    use_lake(lake_url)
    from topbill import spec
    from topbill.formats import import_log

    # With their files, imported experiments have metrics and objective; without, decisions alone.
    # A folder may be new, or empty, and take what is written.
    is_there = experiments.is_file() or bool(spec.yaml_in(experiments))
    declared = spec.load_all([experiments]) if is_there else []
    left_out: Counter[str] = Counter()
    remarks: list[str] = []
    with progress() as bar:
        task = bar.add_task(file.name, total=None)
        decisions = import_log(
            file,
            data,
            format=format,
            key=key,
            variant=variant,
            unit=unit,
            experiments=declared,
            fitting_files=None if experiments == EXPERIMENTS else experiments,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            left_out=left_out,
            remarks=remarks,
            skip_bad=skip_bad,
        )

    def text() -> None:
        say(f"{data}: holds {decisions:,} decisions from {file}")
        if left_out:
            causes = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))
            say(f"left out: {causes}")
        for remark in remarks:
            say(remark)

    found = {"data": str(data), "decisions": decisions, "left_out": left_out, "remarks": remarks}
    output.show(found, text)


@import_app.command
def events(
    file: Path,
    *,
    data: Data,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    experiments: Experiments = EXPERIMENTS,
    output: Output = TEXT,
) -> None:
    """Bring histories from before Topbill into a data folder: what viewers did, which pages and
    their candidates then know. Interrupted, run it again: each event is there once, whatever is
    imported twice. Stop the worker first, and start the service afterwards.

    Args:
        file: CSV or Parquet with the columns unit, event, action (the title), value, at, and where
            there are any unit_type and event_id. Rows that can be no events are left out, named
            and counted.
        experiments: Say of which type units are, where the file doesn't.
    """
    import time

    from topbill.cli.erasure import loaded_experiments
    from topbill.formats.event_import import import_events

    use_log(url)
    use_lake(lake_url)
    start = time.monotonic()
    files = loaded_experiments(experiments, data)
    with progress() as bar:
        task = bar.add_task(file.name, total=None)
        done = import_events(
            file,
            data,
            lambda: files,
            lambda rows: bar.update(task, completed=rows),
        )
    seconds = time.monotonic() - start
    for sentence in done.named:
        err.print(sentence, highlight=False, soft_wrap=True, markup=False)
    lines = [
        f"{data}: {done.new:,} events of {done.rows:,} rows of {file} are new, "
        f"{done.known:,} came before ({done.rows / max(seconds, 1e-9):,.0f} events/s)"
    ]
    for reason, count in sorted(done.bad.items()):
        lines.append(f"left out: {count:,} rows, {reason}")
    if done.unread:
        lines.append(f"columns that no event has: {', '.join(done.unread)}")
    found = {**done._asdict(), "known": done.known, "seconds": seconds}
    output.show(found, lambda: say_all(lines))


@app.command
def export(
    key: str,
    target: Path,
    *,
    data: Data = DATA,
    lake_url: LakeUrl = "",
    format: FormatName | None = None,  # noqa: A002
    output: Output = TEXT,
) -> None:
    """Write an experiment's decisions with their rewards for other tools; interrupted, it goes on.

    Args:
        key: The experiment.
        target: A file, or a folder (parquet, arrow, delta) that takes what is not in it yet.
        format: Where the name does not tell: .dsjson, .parquet, .arrow and .csv (a plain one, a
            row a shown item) do.
    """
    use_lake(lake_url)
    from topbill.formats import export_log
    from topbill.formats.registry import target_format

    chosen = format or target_format(target)
    with progress() as bar:
        task = bar.add_task(key, total=None)
        decisions = export_log(
            key,
            data,
            target,
            format=chosen,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    sentence = f"{target}: {decisions:,} decisions written as {chosen}"
    found = {"target": str(target), "decisions": decisions, "format": chosen}
    output.show(found, lambda: say(sentence))


@app.command
def backup(
    destination: Path,
    *,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    output: Output = TEXT,
) -> None:
    """Copy a data folder while everything runs: log and lake, of one moment, wherever they lie.

    Args:
        destination: Folder of backups; each is a folder in it, named by its moment (UTC). What the
            newest one there has of the lake already takes no space again.
    """
    from topbill.backup import back_up

    use_log(url)
    use_lake(lake_url)
    done = back_up(data, destination)
    found = {"backup": str(done), "data": str(data)}
    output.show(found, lambda: say(f"{done}: a backup of {data}"))


@app.command
def restore(
    source: Path,
    *,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    at: str | None = None,
    tombstones: Path | None = None,
    experiments: Experiments = EXPERIMENTS,
    output: Output = TEXT,
) -> None:
    """Make a data folder of a backup, every file of which is compared with what was written. The
    log of a backup from PostgreSQL goes into an empty database, which --log says.

    Args:
        source: A backup, or a folder of backups: then the newest, or the first one after --at.
        at: Keep only what was stored up to this moment (2026-03-02T10:00Z).
        tombstones: The `tombstones.jsonl` of the data folder as it was last: units that were erased
            since the backup are erased again. Those that any of the backups knows of are anyway.
    """
    use_log(url)
    use_lake(lake_url)
    from topbill import backup as backups
    from topbill.cli.erasure import given_tombstones, loaded_experiments
    from topbill.domain.instants import instant
    from topbill.worker.erasure import erase_again

    moment = None if at is None else instant("--at", at)
    # Read first: with what cannot be read, nothing is restored.
    erased = backups.known_tombstones(source)
    if tombstones is not None:
        erased += given_tombstones(tombstones)
    manifest = backups.restore(source, data, moment)
    again = erase_again(data, erased, lambda: loaded_experiments(experiments, data))
    held = moment or datetime.fromtimestamp(manifest.at / 1e6, UTC)

    def text() -> None:
        if again:
            say(f"{data}: erased again: {again:,} units")
        stored = f"holds what was stored up to {held.isoformat()}"
        say(f"{data}: {stored}; start service and worker on it")

    output.show({"data": str(data), "stored_up_to": held, "erased_units": again}, text)


@app.command
def migrate(
    *,
    data: Data = DATA,
    url: LogUrl = "",
    down: bool = False,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    output: Output = TEXT,
) -> None:
    """Bring a data folder to this version's names, or back to what 0.1.0 reads; with --log, make
    the tables of a log that machines share, or bring them to this version.

    Service and worker do it by themselves when they start on an older folder. What is changed is
    copied beside it before. The tables of a shared log are made, and changed, by this command
    alone; its role must own their schema, those of services and workers need not.

    Args:
        down: Back to what 0.1.0 reads; rows that came since are kept.
        from_: With --log, a data folder whose own log that one is to go on from; services and
            worker must have ended.
    """
    from topbill import migration
    from topbill.domain.errors import BadRequest, NotFound
    from topbill.log import migrate_log

    use_log(url)
    if url:
        if down:
            raise BadRequest("--down", "is only for a data folder; a log at a URL cannot go back")
        done = [migrate_log(url)] if from_ is None else migration.move_log(from_, url)
        _say_done(done, output)
        return
    if from_ is not None:
        raise BadRequest("--from", "expected --log URL beside it, the log that is to go on")
    if not data.is_dir():
        raise NotFound(f"{data}: no such folder; expected a data folder")
    done = migration.migrate_down(data) if down else migration.migrate(data)
    _say_done(done, output, nothing=f"{data}: nothing to do")


def _say_done(done: Sequence[str], output: Output, nothing: str = "") -> None:
    rows = [{"done": sentence} for sentence in done]
    output.show(rows, lambda: say_all(done or [nothing]))
