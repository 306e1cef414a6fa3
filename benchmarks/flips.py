"""One bit of one file is flipped: is it harmless, or named?

    python -m benchmarks.flips [--flips 200] [--seed 1] [--folder DIR]

A data folder is made that has every kind of file, as a kill leaves it: rows in the log's tables, in
SQLite's write-ahead log and in the journal, policies, an audit, rows set aside, a lake with a
checkpoint and what a merge replaced, tombstones, a salt, and of pages a catalogue and signals; and
a backup of it. Then, in copies, one bit is flipped at random places of each kind in turn. A copy is
looked through by `topbill verify --files`, and everything in it is read, experiments are verified,
and decided with; a copy of the backup is restored.

A flip is *harmless* where everything reads as it did, *named* where an error of ours says what is
wrong, and *silent* otherwise. Prints how many there were of each; exits 1 where one was silent or
ended in an error that is not ours.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from topbill import lake, spec
from topbill.backup import back_up, restore
from topbill.candidates import Play, Signals, count, signals_path
from topbill.catalog import Catalog
from topbill.domain.errors import TopbillError
from topbill.domain.records import QuarantinedRow, RewardEvent, UnitEvent
from topbill.engine import DecideRequest, Engine, adopt_newest
from topbill.lake import Lake
from topbill.log import LOG_FILE, Log, open_log
from topbill.log.tombstones import add_tombstones, new_tombstone, read_tombstones
from topbill.log.unit_ids import SETTINGS, known_unit_ids, unit_ids
from topbill.pages import experiment_folders
from topbill.pages import load_all as load_pages
from topbill.pages.last_good_catalogs import LastGoodCatalogs, read_last_good
from topbill.spec import Experiment
from topbill.worker import archive
from topbill.worker.damage import damage
from topbill.worker.policy_fold import PolicyFold
from topbill.worker.publisher import Publisher
from topbill.worker.verification import verify

EXAMPLES = Path(__file__).parents[1] / "experiments"
DAY = 86_400_000_000
"""µs on, by when everything is old enough to be learned."""
KEYS = ("home-artwork", "home-titles")
MADE_ANEW = {lake.DATABASE, "keeper.lock", "log.state", f"{LOG_FILE}-shm", SETTINGS}
"""What the next process makes anew, or a person writes."""
_NUMBERS = re.compile(r"[0-9a-f-]{16,}|\d+")
VERDICTS = ("harmless", "named", "silent", "error")
Reading = dict[str, Any]
Read = Callable[[Path], Reading]


# ------------------------------------------------------------------ a folder with everything


@contextmanager
def world(data: Path, backups: Path) -> Iterator[None]:
    """Make the folder and a backup of it; while it is open, it is as a kill leaves it."""
    experiments = [spec.load(EXAMPLES / f"{key}.yaml") for key in KEYS]
    data.mkdir(parents=True)
    (data / SETTINGS).write_text("hash_units: true\n")
    unit_ids(data)
    with open_log(data / LOG_FILE) as log:
        _store(log, experiments, "first", 150)
        for experiment in experiments:
            fold = PolicyFold(experiment)
            fold.resume(log)
            while fold.step(log, log.barrier() + DAY):
                pass
            fold.publish(log)
        publisher = Publisher(log, Lake(data), lambda: experiments, keep_log=-1.0)
        publisher.step()
        for number in range(3):
            _store(log, experiments, f"more-{number}", 20)
            publisher.publish()
        Lake(data).compact()
        _leave_checkpoints(data)
        publisher.step()
        log.set_aside([QuarantinedRow("decision", "read", KEYS[0], "bad", "", 1, "odd", b"{x")])
        add_tombstones(data, [new_tombstone(data, "gone", None, 1)])
        _leave_files_of_pages(data)
        publisher.publish()
        log.tend(thorough=True)
        back_up(data, backups)
        _store(log, experiments, "last", 30)
        log.drain()
        log.beat(1)
        _store(log, experiments, "waiting", 10)
        yield


def _store(log: Log, experiments: list[Experiment], name: str, decisions: int) -> None:
    engine = Engine(experiments)
    for compiled in engine.experiments.values():
        log.revise(compiled.experiment.key, compiled.revision, "me", "{}")
    for number in range(decisions):
        key = KEYS[number % len(KEYS)]
        request = DecideRequest(experiment=key, unit=f"u{number}", decision_id=f"{name}-{number}")
        play = RewardEvent(decision_id=f"{name}-{number}", event_id="e", event="play")
        back = UnitEvent(
            unit=f"u{number}",
            unit_type="profile_id",
            event_id=f"{name}-{number}",
            event="session_start",
        )
        log.append([engine.decide(request)], [play] if number % 2 else [], [back])


def _leave_checkpoints(data: Path) -> None:
    from deltalake import DeltaTable

    for table in ("decisions", "rewards", "events"):
        DeltaTable(str(data / "lake" / table)).create_checkpoint()


def _leave_files_of_pages(data: Path) -> None:
    everything = spec.load_all(experiment_folders(EXAMPLES))
    for file in load_pages(EXAMPLES, everything):
        LastGoodCatalogs(data).compile(file, Engine(everything), None)
        titles = Catalog.read(file.catalogue, file.table)
        plays = [Play(f"u{i % 7}", titles.ids[i % 20], 1.0) for i in range(60)]
        count(plays, titles, 2.0).save(signals_path(data, file.key))


# ------------------------------------------------------------------ what is read of a folder


def read_all(data: Path) -> Reading:
    """Everything that is read of a data folder, by what it is. Raises TopbillError."""
    found = damage(data)
    if found:
        raise TopbillError(found[0])
    experiments = [spec.load(EXAMPLES / f"{key}.yaml") for key in KEYS]
    read: Reading = {"salt": known_unit_ids(data).stored("u")}
    read["tombstones"] = read_tombstones(data / "tombstones.jsonl")
    with open_log(data / LOG_FILE) as log:
        read |= _read_log(log)
        Publisher(log, Lake(data), lambda: experiments).publish()
        for experiment in experiments:
            read[f"verify {experiment.key}"] = verify(log, experiment, archive.reader(data)).same
        read["decided"] = _decided(log, experiments)
    for view in ("decisions", "rewards", "events", "feedback", "quarantine", "revisions"):
        rows = lake.sql(data / lake.DATABASE, f"SELECT * FROM {view} ORDER BY ALL")  # noqa: S608
        read[view] = rows.to_pylist()
    for path in sorted(data.glob("pages/*.npz")):
        signals = Signals.load(path)
        read[path.name] = (signals.ids, signals.popular.tolist(), signals.together.factors.tolist())
    for path in sorted(data.glob("catalogues/*")):
        read[path.name] = read_last_good(path).to_pylist()
    return read


def _read_log(log: Log) -> Reading:
    names = [f"first-{number}" for number in range(150)]
    return {
        "log decisions": log.read_decisions(0, 10_000),
        "log events": log.read_events(0, 10_000),
        "log unit events": log.read_unit_events(0, 10_000),
        "remembered": log.places(names),
        "snapshots": [log.snapshot(key) for key in KEYS],
        "heads": [log.snapshot_heads(key) for key in KEYS],
        "audit": log.revisions(),
        "set aside": [row._replace(quarantined_at=0) for row in log.quarantine()],
        "erasures": [log.erasures(key) for key in KEYS],
        "steps": log.clock_steps(),
    }


def _decided(log: Log, experiments: list[Experiment]) -> list[Any]:
    # Time stands still, so that no decision is over its budget on a loaded machine.
    engine = Engine(experiments, clock=lambda: 0.0)
    decided = []
    for compiled in engine.experiments.values():
        adopt_newest(log, compiled, after=0)
        for number in range(10):
            key = compiled.experiment.key
            request = DecideRequest(experiment=key, unit=f"n{number}", decision_id=f"new-{number}")
            decision = engine.decide(request)
            decided.append((decision.variant, decision.slate, decision.policy_version))
    return decided


def read_backup(backups: Path) -> Reading:
    """Everything that is read of the folder that the backup makes."""
    restored = backups.with_name("restored")
    shutil.rmtree(restored, ignore_errors=True)
    manifest = restore(backups, restored)
    return {"at": manifest.at} | read_all(restored)


# ------------------------------------------------------------------ flips


def kind_of(path: Path) -> str:
    """What kind of file a path below the folder names."""
    return _NUMBERS.sub("N", str(path)).replace(".zstd", "")


def files_by_kind(folder: Path) -> dict[str, list[Path]]:
    """The files below a folder that are not empty, by kind."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size and path.name not in MADE_ANEW:
            inside = path.relative_to(folder)
            kinds.setdefault(kind_of(inside), []).append(inside)
    return kinds


def flip(path: Path, chance: random.Random) -> str:
    """Flip one bit of a file; says which."""
    content = bytearray(path.read_bytes())
    # Most of a preallocated file is zeros, which nothing reads: half of the flips are in the rest.
    used = len(content.rstrip(b"\0")) if chance.random() < 0.5 else len(content)
    at, bit = chance.randrange(max(1, used)), chance.randrange(8)
    content[at] ^= 1 << bit
    path.unlink()  # a backup's files are links
    path.write_bytes(content)
    return f"{at:,} of {len(content):,}, bit {bit}"


def judge(read: Read, folder: Path, expected: Reading) -> tuple[str, str]:
    """`harmless`, `named`, `silent` or `error`, and what was said."""
    try:
        now = read(folder)
    except TopbillError as error:
        return "named", str(error)
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"
    differs = [name for name, value in expected.items() if now.get(name) != value]
    return ("silent", ", ".join(differs)) if differs else ("harmless", "")


def run(folder: Path, flips: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Flip so many bits, of each kind in turn: how many of each kind came out how, and what was
    silent or another error.
    """
    chance = random.Random(seed)
    backups, killed = folder / "backups", folder / "killed"
    with world(folder / "data", backups):
        # With SQLite's index first: what it says must be in the log that is copied after it.
        shutil.copytree(folder / "data", killed)
    sides: list[tuple[Path, Read]] = [(killed, read_all), (backups, read_backup)]
    time.sleep(7)  # until what was learned is as old as it has to be
    cases = []
    for side, read in sides:
        copy = folder / "copy" / side.name
        shutil.copytree(side, copy)
        expected = read(copy)
        shutil.rmtree(copy)
        kinds = files_by_kind(side)
        cases += [(side, read, expected, kind, kinds[kind]) for kind in kinds]
    counts: Counter[tuple[str, str]] = Counter()
    bad = []
    for number in range(flips):
        side, read, expected, kind, paths = cases[number % len(cases)]
        copy = folder / "copy" / side.name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(side, copy)
        path = chance.choice(paths)
        where = flip(copy / path, chance)
        verdict, said = judge(read, copy, expected)
        counts[f"{side.name}/{kind}", verdict] += 1
        if verdict in ("silent", "error"):
            bad.append(f"{verdict}: {side.name}/{path} at {where}: {said[:300]}")
            print(bad[-1], flush=True)
    return counts, bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="flips-"))
    started = time.monotonic()
    counts, bad = run(folder, options.flips, options.seed)
    for kind in sorted({kind for kind, _ in counts}):
        told = [f"{counts[kind, v]} {v}" for v in VERDICTS if counts[kind, v]]
        print(f"{kind:<70} {', '.join(told)}")
    seconds = time.monotonic() - started
    print(f"{options.flips} flips, {len(bad)} bad, in {seconds:,.0f} s, in {folder}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
