"""Every decoder under coverage-guided fuzzing: a value or an error with a name, and nothing else.

    python -m benchmarks.fuzz_decoders [--seconds 600] [--seed 1] [--only NAME] [--folder DIR]

With atheris (`pip install atheris`) inputs are guided by which lines of Topbill they reach; without
it, or for some decoders only, they are changed blindly from those that are known to be good. A
finding is any exception but Topbill's own, an answer of 5xx, an input that takes over five seconds,
or a process that takes over 3 GB.

Prints inputs a decoder, and each finding with what was read; exits 1 where there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SLOW = 5.0
"""Seconds that no input of these sizes may take."""
LARGEST = 20_000
"""Bytes of an input."""
EXAMPLES = Path(__file__).parents[1] / "experiments"
Read = Callable[[bytes], object]


@dataclass
class Decoder:
    """What reads bytes, and some that it can read."""

    read: Read
    good: list[bytes]


def _file(read: Callable[[Path], object], path: Path) -> Read:
    """Reads bytes that lie in a file."""

    def decode(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return decode


# ---------------------------------------------------------------------- bodies of requests


class _Done:
    """A value that is there as soon as somebody waits for it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, Any]:
        return self._value
        yield


class _Writer:
    """Stores at once, in memory."""

    failing = False

    def __init__(self, log: Any) -> None:
        self._log = log

    def put(self, entry: Any) -> _Done:
        return _Done(self._log.commit([entry])[0])


def _doors(folder: Path) -> dict[str, Decoder]:
    """Each door of a service over the examples whose log is in memory: all up to the answer."""
    from benchmarks.hostile import Corpus, Known

    from topbill.log.memory import MemoryLog
    from topbill.service.app import create_app
    from topbill.service.settings import Settings

    app = create_app(Settings(EXAMPLES, folder / "data"))
    backend: Any = app._backend
    count = 0

    def post(path: str) -> Read:
        def read(body: bytes) -> None:
            nonlocal count
            if count % 2_000 == 0:
                backend.log = MemoryLog()
                backend.writer = _Writer(backend.log)
            count += 1
            statuses = []

            async def receive() -> dict[str, Any]:
                return {"body": body}

            async def send(message: Any) -> None:
                statuses.append(message.get("status"))

            scope = {"type": "http", "method": "POST", "path": path, "headers": []}
            # A batch that takes long lets others have their turn, which needs an event loop.
            asyncio.run(app(scope, receive, send))
            if statuses[0] >= 500:
                raise AssertionError(f"answered with {statuses[0]}")

        return read

    corpus = Corpus(random.Random(1), Known())
    seeds: dict[str, list[bytes]] = {}
    for _ in range(2_000):
        request = corpus.draw()
        if request.body and request.method == "POST" and len(request.body) < LARGEST:
            door = request.target if "/events/" not in request.target else request.door
            seeds.setdefault(door.replace("/ID/", "/e/"), []).append(request.body)
    return {f"POST {path}": Decoder(post(path), bodies[:40]) for path, bodies in seeds.items()}


def _check_json(raw: bytes) -> None:
    """What is let in is the same to another reader: each name once, finite numbers, UTF-8."""
    from topbill.domain.json_text import check_json

    check_json(raw)
    json.loads(
        raw.decode(), object_pairs_hook=_each_once, parse_float=_finite, parse_constant=_none
    )


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    assert len(members) == len(pairs), f"a name twice: {pairs}"
    return members


def _finite(text: str) -> float:
    number = float(text)
    assert abs(number) != float("inf"), text
    return number


def _none(text: str) -> None:
    raise AssertionError(text)


# ---------------------------------------------------------------------- files


def _log_files(folder: Path) -> dict[str, Decoder]:
    """The journal: its frames, and finding its end, whatever lies there and in its state."""
    from topbill.log import frames
    from topbill.log.entries import Rows
    from topbill.log.journal import Journal

    path = folder / "log.journal"
    state = path.with_suffix(".state")

    def recover(content: bytes) -> None:
        state.write_bytes(content[:24])
        path.write_bytes(content[24:])
        with closing(Journal(path, lambda: (2, 0))) as journal, journal.locked():
            list(journal.read(0, journal.position[1]))

    def every_frame(content: bytes) -> None:
        path.write_bytes(content)
        file = os.open(path, os.O_RDONLY)
        try:
            list(frames.frames(file, 2, 0, len(content)))
            list(frames.frames_behind(file, 2, 0))
        finally:
            os.close(file)

    def payload(content: bytes) -> object:
        return frames.Frame(0, 2, 0, content).rows

    rows = Rows(
        [("d", "art", b'{"decision_id":"d"}')], [("d", "e", b"{}")], [("t", "u", "e", b"{}")]
    )
    body = frames.payload_of(rows)
    frame = frames.pack(2, 0, 1_790_000_000_000_000, body)
    good = [frame, frame + frames.pack(2, len(frame), 1, body), b"", frame + bytes(100)]
    head = (2).to_bytes(8, "little") + len(frame).to_bytes(8, "little") + bytes(8)
    return {
        "journal": Decoder(recover, [head + content for content in good]),
        "frames": Decoder(every_frame, good),
        "rows of a frame": Decoder(payload, [body, frames.payload_of(Rows([], []))]),
    }


def _yaml(folder: Path) -> dict[str, Decoder]:
    """Experiments, libraries of metrics, pages, keys."""
    from benchmarks.hostile import EVERYTHING

    from topbill import pages, spec
    from topbill.service.keys import new_key, read_keys
    from topbill.spec import library

    known = spec.load_all(pages.experiment_folders(EXAMPLES))
    (folder / "pages").mkdir(exist_ok=True)
    (folder / "catalogue.csv").write_bytes((EXAMPLES / "catalogue.csv").read_bytes())
    keys = folder / "keys.yaml"
    keys.touch(0o600)
    experiments = [EVERYTHING.encode(), *(p.read_bytes() for p in EXAMPLES.glob("*.yaml"))]
    entry = new_key("a", ["decide", "read"], "2099-01-01", "10/s")[1].encode()
    metrics = b"metrics:\n  play: {event: play, kind: binary, window: 1s}\n"
    page_files = [path.read_bytes() for path in EXAMPLES.glob("pages/*.yaml")]

    def read_library(_: Path) -> object:
        return library.read(folder)

    return {
        "experiment": Decoder(_file(spec.load, folder / "e.yaml"), experiments),
        "page": Decoder(
            _file(lambda _: pages.load_all(folder, known), folder / "pages" / "p.yaml"), page_files
        ),
        "library": Decoder(_file(read_library, folder / library.NAMES[0]), [metrics]),
        "keys": Decoder(_file(read_keys, keys), [entry, b"a-key-in-clear-of-old\n"]),
    }


def _own_files(folder: Path) -> dict[str, Decoder]:
    """What Topbill writes and reads again: manifests, seals, tombstones, the audit, states."""
    from topbill import backup, spec
    from topbill.candidates import Signals
    from topbill.lake.seals import SEALS, Seals
    from topbill.log.tombstones import read_tombstones

    manifest = json.dumps(
        {"at": 1, "schema_version": 2, "files": [{"path": "a", "size": 1, "sha256": "0" * 64}]}
    )
    seal = b'{"path":"a.parquet","size":1,"sha256":"00"}\n'
    tombstone = b'{"salt":"00","hash":"00","unit_type":null,"at":1}\n'
    audit = json.dumps(spec.load(EXAMPLES / "home-artwork.yaml").raw).encode()

    def from_audit(content: bytes) -> object:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return None  # SQLite gives text alone
        return spec.from_audit(text, "audit")

    def of_manifest(path: Path) -> object:
        return backup._manifest(path.parent)

    def all_seals(path: Path) -> object:
        return list(Seals(path.parent).damage())

    return {
        "manifest": Decoder(_file(of_manifest, folder / backup.MANIFEST), [manifest.encode()]),
        "seals": Decoder(_file(all_seals, folder / SEALS), [seal, seal * 3]),
        "tombstones": Decoder(_file(read_tombstones, folder / "tombstones.jsonl"), [tombstone]),
        "audit": Decoder(from_audit, [audit]),
        "signals": Decoder(_file(Signals.load, folder / "s.npz"), [_signals(folder)]),
        **_states(),
    }


def _signals(folder: Path) -> bytes:
    import numpy as np

    path = folder / "good.npz"
    names = ("trending", "popular", "regional", "factors")
    arrays: dict[str, Any] = dict.fromkeys(names, np.zeros((2, 2)))
    np.savez(path, ids=["a"], regions=["us"], numbers=[1.0, 2.0], recall=[0.5], **arrays)
    return path.read_bytes()


def _states() -> dict[str, Decoder]:
    """The states of all policies."""
    from topbill.policies import KINDS

    decoders = {}
    for kind, policy_type in KINDS.items():
        if kind in ("vw", "scored"):
            continue  # its engine reads its own model, in C++; the other one learns nothing
        policy: Any = policy_type(policy_type.Params(), context_size=3, action_size=2, seed=1)
        decoders[f"state of {kind}"] = Decoder(policy.load, [policy.dump()])
    return decoders


def _logs_of_others(folder: Path) -> dict[str, Decoder]:
    """Formats that are imported."""
    from topbill import formats

    cb = {
        "_label_cost": -1.0,
        "EventId": "e",
        "Timestamp": "2026-01-01T00:00:00Z",
        "a": [2, 1],
        "p": [0.6, 0.4],
        "c": {"u": {"x": 1}, "_multi": [{"_tag": "a", "f": {"y": 1}}, {"id": "b"}]},
        "o": [{"v": 1, "EventId": "x"}],
    }
    outcome = {"_label_cost": -1.0, "_id": "a", "_a": [1, 0], "_p": [0.8, 0.2], "_o": []}
    ccb = {
        "Timestamp": "2019-09-10T14:43:37.2010000Z",
        "EventId": "e",
        "c": {"G": {"id": "m"}, "_multi": [{"T": 1}, {"_tag": "b"}], "_slots": [{"_id": "a"}]},
        "_outcomes": [outcome],
    }
    eppo = {
        "timestamp": "2026-01-01T00:00:00Z",
        "experiment": "e",
        "subject": "u",
        "action": "a",
        "actionProbability": 0.5,
        "subjectNumericAttributes": {"x": 1.0},
        "actionCategoricalAttributes": {"y": "z"},
    }
    obd = (
        b"timestamp,item_id,position,click,propensity_score,user_feature_0\n"
        b"2019-11-24 00:00:00.1+00:00,1,1,0,0.5,ab\n2019-11-24 00:00:01+00:00,2,3,1,0.5,cd\n"
    )
    lines = [json.dumps(line).encode() + b"\n" for line in (cb, ccb)]
    good = {
        "dsjson": (".json", [*lines, b"".join(lines)]),
        "eppo": (".jsonl", [json.dumps(eppo).encode() + b"\n"]),
        "open-bandit": (".csv", [obd]),
        "obp": (".npz", []),
    }
    decoders = {}
    for name, (suffix, contents) in good.items():
        for ending, pack in (("", bytes), (".gz", gzip.compress)):
            path = folder / f"log{suffix}{ending}"
            read = _file(_reader(formats, name), path)
            if contents and (not ending or name == "dsjson"):
                packed = [pack(content) for content in contents]
                decoders[f"{name}{ending}"] = Decoder(read, packed)
    return decoders


def _reader(formats: Any, name: str) -> Callable[[Path], object]:
    return lambda path: list(formats.read(path, name, "key"))


def all_decoders(folder: Path) -> dict[str, Decoder]:
    """Name → decoder, over files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    good = [b'{"a":[1,2.5,null,true],"\\u0061b":{"c":"\\ud83d\\ude00"}}', b"[]", b'{"a":1,"a":2}']
    return {
        "JSON text": Decoder(_check_json, good),
        **_doors(folder),
        **_log_files(folder),
        **_yaml(folder),
        **_own_files(folder),
        **_logs_of_others(folder),
    }


# ---------------------------------------------------------------------- how they are tried


def tried(decoder: Decoder, content: bytes) -> str:
    """What is wrong with how a decoder takes some bytes; empty where nothing is."""
    from topbill.domain.errors import TopbillError

    started = time.perf_counter()
    try:
        decoder.read(content)
    except TopbillError:
        pass
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - started
    return f"took {seconds:.1f} s" if seconds > SLOW else ""


def changed(good: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Bytes with some of them flipped, cut, put in, repeated, or taken from others."""
    content = bytearray(good)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(content) + 1)
        width = chance.choice((0, 1, 1, 2, 8, 50))
        other = chance.choice(others)
        start = chance.randrange(len(other) + 1)
        fresh = chance.choice(
            [
                chance.randbytes(width),
                bytes([chance.choice(b'"[]{}:,0-.\\\n\x00\xff \x7f')]),
                other[start : start + width],
                bytes(content[at : at + width]) * 2,
                b"",
            ]
        )
        content[at : at + width] = fresh
    return bytes(content[:LARGEST])


@dataclass
class Told:
    """How many inputs each decoder was given, and what was found, each kind once."""

    counts: Counter[str] = field(default_factory=Counter)
    found: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, decoder: Decoder, content: bytes) -> None:
        """Try a decoder with some bytes."""
        self.counts[name] += 1
        problem = tried(decoder, content)
        if problem:
            kind = f"{name}: {problem.partition(':')[0]}"
            self.found.setdefault(kind, f"{name}: {problem}\n      read: {content[:2_000]!r}")


def blindly(decoders: dict[str, Decoder], chance: random.Random, seconds: float, most: int) -> Told:
    """Try each decoder for so long, or with so many inputs."""
    told = Told()
    for name, decoder in decoders.items():
        deadline = time.monotonic() + seconds
        while told.counts[name] < most and time.monotonic() < deadline:
            good = chance.choice(decoder.good)
            is_first = not told.counts[name]
            told.note(name, decoder, good if is_first else changed(good, decoder.good, chance))
    return told


def guided(folder: Path, seconds: float, seed: int) -> Told:
    """Try all decoders together for so long, guided by what their inputs reach."""
    line = [sys.executable, "-m", "benchmarks.fuzz_decoders", "--guided"]
    line += ["--folder", str(folder), "--seconds", str(seconds), "--seed", str(seed)]
    done = subprocess.run(line, capture_output=True, check=False)
    told = Told(*json.loads((folder / "told.json").read_text()))
    told.counts = Counter(told.counts)
    if done.returncode:
        output = (done.stdout + done.stderr).decode(errors="replace")
        told.found["the process"] = f"ended with {done.returncode}: {output[-3_000:]}"
    return told


def _fuzz(folder: Path, seconds: float, seed: int) -> None:
    """Give inputs of atheris to all decoders, the first byte says to which; ends the process."""
    import atheris

    kernels = [f"topbill.policies.linear.{name}" for name in ("kernels", "compiled", "sampling")]
    with atheris.instrument_imports(include=["topbill"], exclude=kernels):
        import topbill.backup
        import topbill.service.app  # noqa: F401

        decoders = list(all_decoders(folder).items())
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for at, (_, decoder) in enumerate(decoders):
        for number, good in enumerate(decoder.good):
            (corpus / f"{at}-{number}").write_bytes(bytes([at]) + good)
    told = Told()

    def one(content: bytes) -> None:
        name, decoder = decoders[content[0] % len(decoders) if content else 0]
        before = len(told.found)
        told.note(name, decoder, content[1:])
        if len(told.found) > before or sum(told.counts.values()) % 500 == 0:
            (folder / "told.json").write_text(json.dumps([told.counts, told.found]))

    limits = [f"-max_total_time={round(seconds)}", f"-seed={seed}", f"-max_len={LARGEST}"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, "-timeout=30", "-rss_limit_mb=3072"], one)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    if options.guided:
        return _fuzz(folder, options.seconds, options.seed)
    if importlib.util.find_spec("atheris") and not options.only:
        print("guided by atheris")
        told = guided(folder, options.seconds, options.seed)
    else:
        print("blindly")
        decoders = {n: each for n, each in all_decoders(folder).items() if options.only in n}
        seconds = options.seconds / len(decoders)
        told = blindly(decoders, random.Random(options.seed), seconds, 10**9)
    for name, count in told.counts.items():
        print(f"  {count:>9,}  {name}")
    print(f"{sum(told.counts.values()):,} inputs, {len(told.found)} findings")
    for problem in told.found.values():
        print("  ", problem)
    sys.exit(bool(told.found))


if __name__ == "__main__":
    main()
