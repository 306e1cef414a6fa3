"""People's rights: what is stored of one unit, and taking it out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from topbill.cli.output import TEXT, Output, print_json
from topbill.cli.shell import (
    DATA,
    EXPERIMENTS,
    Data,
    Experiments,
    LakeUrl,
    LogUrl,
    app,
    say,
    use_lake,
    use_log,
)
from topbill.domain.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from topbill.log.erasing import StoredRows
    from topbill.log.tombstones import Tombstone
    from topbill.spec import Experiment

UnitType = Annotated[
    str | None,
    Parameter(
        help="What the unit is, such as profile_id; left out, it is taken for a unit of every type."
    ),
]


@app.command
def unit(
    unit: str,
    *,
    unit_type: UnitType = None,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    output: Output = TEXT,
) -> None:
    """Print all that is stored of one unit as JSON: its decisions, rewards and events, its rows
    that were set aside, and its limits as a profile. With --csv its decisions alone.

    Args:
        unit: Its id.
    """
    from topbill.worker.erasure import unit_data

    use_log(url)
    use_lake(lake_url)
    found = unit_data(data, given_unit(unit), unit_type)
    output.show(found, lambda: print_json(found), lambda: msgspec.to_builtins(found)["decisions"])


@app.command(name="hash")
def hash_(*units: str, data: Data = DATA, output: Output = TEXT) -> None:
    """Print what a data folder stores in the place of units' ids, a line each: with `hash_units`
    their hashes, for joining its lake to other tables; without, the ids themselves.

    Args:
        units: The ids; none for those on standard input, a line each.
    """
    from topbill.log.unit_ids import known_unit_ids

    ids = known_unit_ids(data)
    asked = units or (line.rstrip("\n") for line in sys.stdin)
    if output.is_text:
        # One by one: whoever pipes millions of them does not wait for the last.
        for unit in asked:
            print(ids.stored(given_unit(unit)))
        return
    hashes = [{"unit": unit, "stored": ids.stored(given_unit(unit))} for unit in asked]
    output.show(hashes, lambda: None)


@app.command
def erase(
    *,
    unit: str | None = None,
    unit_type: UnitType = None,
    tombstones: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    drop_backups: Annotated[bool, Parameter(negative="")] = False,
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    output: Output = TEXT,
) -> None:
    """Take one unit out of log, lake, answers and quarantine, with every trace in their files.

    Guests that were merged into it are the same person, and go with it. Stop the worker first;
    services may run, and drop what they have in memory within a second.
    Killed, run it again. What policies have learned stays: sums, in which no id stands.

    Args:
        unit: Its id.
        tombstones: In place of a unit, the `tombstones.jsonl` of another data folder: take out all
            that was erased there.
        dry_run: Only say what is there.
        drop_backups: Delete copies of old data in the folder, which migrations and repairs made:
            they may hold the unit, and while they lie there nothing is erased.
    """
    from topbill.worker.erasure import erase_again, erase_unit, find_unit, old_copies

    use_log(url)
    use_lake(lake_url)
    if tombstones is not None and not (unit or unit_type or dry_run):
        again = given_tombstones(tombstones)
        files = loaded_experiments(experiments, data)
        erased = erase_again(data, again, lambda: files)
        sentence = f"{data}: erased again: {erased:,} units"
        output.show({"data": str(data), "erased_units": erased}, lambda: say(sentence))
        return
    if unit is None or tombstones is not None:
        raise BadRequest("erase", "expected --unit, or --tombstones alone")
    unit = given_unit(unit)
    copies = []
    if dry_run:
        rows = find_unit(data, unit, unit_type)
        copies = [str(copy) for copy in old_copies(data)]
    else:
        # Before anything is deleted: it may be refused.
        files = loaded_experiments(experiments, data)
        rows = erase_unit(data, unit, unit_type, lambda: files, drop_backups=drop_backups)
    counts = {
        "unit": unit,
        "dry_run": dry_run,
        "decisions": len(rows.decisions),
        "rewards": len(rows.rewards),
        "events": len(rows.events),
        "set_aside": len(rows.quarantined),
        "merged_guests": len(rows.merges),
        "tables": sorted(rows.tables),
        "experiments": rows.by_experiment(),
        "old_copies": copies,
    }

    def text() -> None:
        for copy in copies:
            sentence = "is a copy of old data, which may hold it; --drop-backups deletes it"
            say(f"{copy}: {sentence}")
        for sentence in _sentences(rows, "has" if dry_run else "erased"):
            say(f"{data}: {sentence}")

    output.show(counts, text)


@app.command
def retain(
    *,
    keep: Annotated[timedelta, Parameter(help="What is older goes, by whole days: 400d.")],
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    output: Output = TEXT,
) -> None:
    """Remove decisions with their rewards, events and rows set aside that are older than is kept.

    Stop the worker first, or have it do so every day: `worker --keep` and `up --keep`. Killed, run
    it again. What policies have learned stays.

    Args:
        dry_run: Only say what would go.
    """
    from topbill.worker import erasure, retention

    use_log(url)
    use_lake(lake_url)
    if dry_run:
        found = retention.find_aged(data, keep.total_seconds())
        sentence = f"{data}: has {retention.sentence(found)}"
        output.show({**found._asdict(), "dry_run": True, "waiting": 0}, lambda: say(sentence))
        return
    files = loaded_experiments(experiments, data)
    removed, waiting = erasure.retain(data, keep.total_seconds(), lambda: files)

    def text() -> None:
        say(f"{data}: removed {retention.sentence(removed)}")
        if waiting:
            say(f"{data}: {waiting:,} rows so old are still in the log, until they are learned")

    output.show({**removed._asdict(), "dry_run": False, "waiting": waiting}, text)


def given_unit(unit: str) -> str:
    """An id that somebody typed or piped. Raises BadRequest for none at all: it is a variable that
    was never set, or an empty line.
    """
    if not unit.strip():
        raise BadRequest("unit", "got an empty id; expected a unit's, such as viewer-1")
    return unit


def given_tombstones(file: Path) -> list[Tombstone]:
    """Those of a file that must be there."""
    from topbill.log.tombstones import read_tombstones

    if not file.exists():
        raise NotFound(f"{file}: no such file; expected the tombstones.jsonl of a data folder")
    return read_tombstones(file)


def loaded_experiments(folder: Path, data: Path) -> Sequence[Experiment]:
    """Those with a file, as a worker takes them. Raises NotFound where there is no folder and the
    log knows experiments: published without their files, they would be shown as taken away.
    """
    from topbill import pages
    from topbill.log import has_log, open_log_of
    from topbill.log.unit_ids import known_unit_ids

    if not folder.exists():
        if not has_log(data):
            return []
        with closing(open_log_of(data, create=False)) as log:
            known = log.newest_revisions()
        if known:
            raise NotFound(
                f"{folder}: no such folder; expected the files of the record's experiments "
                f"({len(known)}), or it would show them as taken away: name their folder with "
                "--experiments"
            )
        return []
    experiments = pages.load_experiments(folder)
    return known_unit_ids(data).in_experiments(experiments)


def _sentences(rows: StoredRows, verb: str) -> list[str]:
    from topbill.spec.fields import listed

    sentences = [
        f"{verb} {len(rows.decisions):,} decisions, {len(rows.rewards):,} rewards, "
        f"{len(rows.events):,} events and {len(rows.quarantined):,} rows set aside"
    ]
    if rows.profiles:
        sentences.append(f"{verb} the limits that were set of the profile")
    for file in sorted(rows.tables):
        sentences.append(
            f"{verb} its row in the kept versions of table {file}; tables/{file} itself is yours: "
            "take it out there, or it comes back"
        )
    if rows.merges:
        guests = listed(sorted({merged for _, merged in rows.merges}))
        sentences.append(f"{verb} merged guests, {len(rows.merges):,}: {guests}")
    for key, (decisions, rewards) in rows.by_experiment().items():
        sentences.append(
            f"{key}: {decisions:,} decisions and {rewards:,} rewards; its policies keep what they "
            "learned from them, as sums in which no id stands"
        )
    return sentences
