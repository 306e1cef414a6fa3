"""A whole page over HTTP, durable: 10 rows × 20 titles with artwork, chosen from 10,000 titles,
rules on.

    python -m benchmarks.page [--pages 400] \\
        [--policy "thompson, model: shared, min_probability: 0.1%"]

Beside it, in the same run, the same service's single durable decision: what of the page's time is
the page's own. And the same page by another service that looks up features by id, of titles and of
viewers: its calls alternate with the first one's. One client, one call after the other: latency,
not throughput.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from topbill.candidates import Play, signals_path
from topbill.candidates.fitting import learn
from topbill.catalog import Catalog, slug
from topbill.cli.supervise import free_port
from topbill.log import LOG_FILE
from topbill.log.bundles import decisions_of
from topbill.log.entries import Rows
from topbill.log.frames import pack, payload_of

ROOT = Path(__file__).parents[1]
GENRES = ("action", "comedy", "crime", "drama", "horror", "romance", "science-fiction", "thriller")


def catalogue(path: Path, size: int) -> None:
    """The example catalogue's films, repeated under other names until there are `size`."""
    with (ROOT / "experiments" / "catalogue.csv").open() as file:
        films = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "title", "year", "genres"])
        for i in range(size):
            film = films[i % len(films)]
            name = film["title"] if i < len(films) else f"{film['title']} {i // len(films) + 1}"
            out.writerow(
                [f"{slug(film['title'])}-{film['year']}-{i}", name, film["year"], film["genres"]]
            )


def experiments(folder: Path, size: int, rows: int, titles: int, policy: str | None = None) -> None:
    """The example page, larger, and every viewer's by what the example learns with; `policy`
    chooses titles instead.
    """
    shutil.copytree(ROOT / "experiments" / "pages", folder / "pages")
    shutil.copy(ROOT / "experiments" / "home-artwork.yaml", folder)
    catalogue(folder / "catalogue.csv", size)
    page = folder / "pages" / "home.yaml"
    text = page.read_text().replace("count: 6, pinned", f"count: {rows}, pinned")
    text = text.replace("count: 12, candidates: 60", f"count: {titles}, candidates: 60").replace(
        "session_ttl: 30m", ""
    )
    kept = [line for line in text.splitlines() if "rule: pin" not in line]
    # What is alike shares its genres: with a cap on these the row of it would often be shorter than
    # the others.
    text = "\n".join(kept).replace("count: 5, of: genre", "count: 12, of: genre")
    text = re.sub(r"budget_ms: .*", "", text) + "\nbudget_ms: 10000\n"
    page.write_text(text.replace("except: [", "except: [more-like-this, "))
    for file in (folder / "pages" / "home").glob("*.yaml"):
        head, _, variants = file.read_text().partition("variants:\n")
        learns = re.findall(r"\{(policy: .*), share: \d+%\}", variants)[-1]
        if policy and file.stem == "titles":
            learns = f"policy: {policy}"
        print(f"  {file.stem}: {learns}")
        # The whole of the work is measured: a busy machine must not have the editors step in.
        file.write_text(
            f"{head}budget_ms: 10000\nvariants:\n  all: {{{learns}, share: 100%, control: true}}\n"
        )


ENTITIES = """entities:
  viewer_table:
    file: viewers.parquet
    key: profile_id
    of: unit
    features:
      plan: {type: category, values: [basic, standard, premium]}
      tenure: {type: number, min: 0, max: 120}
  title_table:
    file: titles.parquet
    key: id
    of: action
    features:
      runtime: {type: number, min: 0, max: 240}
      studio: {type: category, values: [a, b, c, d]}
      content: {type: embedding, length: 128, dimension: 8}
"""
OWN = ("genres", "decade", "popularity")
"""What the page fills in of the catalogue; by id it stands in the table."""
VIEWERS = 100_000


def with_features_by_id(folder: Path, data: Path) -> None:
    """Have the titles' experiment look up by id what it has of titles whoever looks, and besides a
    runtime, a studio, an embedding, and two features of viewers.
    """
    file = folder / "pages" / "home" / "titles.yaml"
    lines = file.read_text().splitlines(keepends=True)
    own = [line for line in lines if line.strip().startswith(OWN)]
    text = "".join(line for line in lines if line not in own)
    entities = ENTITIES + "".join(f"    {line}" for line in own)
    file.write_text(text.replace("actions: []", f"{entities}actions: []"))
    catalog = Catalog.read(folder / "catalogue.csv", demo=True)
    features = [catalog.features(row) for row in range(len(catalog))]
    rng = np.random.default_rng(2)
    (data / "tables").mkdir(parents=True)
    viewers = {
        "profile_id": [f"u{n}" for n in range(VIEWERS)],
        "plan": rng.choice(["basic", "standard", "premium"], VIEWERS),
        "tenure": rng.integers(0, 120, VIEWERS),
    }
    titles = {
        "id": catalog.ids,
        "genres": pa.array(
            [list(own["genres"].items()) for own in features], pa.map_(pa.string(), pa.float64())
        ),
        "decade": [own["decade"] for own in features],
        "popularity": [own["popularity"] for own in features],
        "runtime": rng.integers(60, 200, len(catalog)),
        "studio": rng.choice(list("abcd"), len(catalog)),
        "content": list(rng.standard_normal((len(catalog), 128)) / 11.3),
    }
    for name, columns in (("viewers", viewers), ("titles", titles)):
        pa_parquet.write_table(pa.table(columns), data / "tables" / f"{name}.parquet")


def signals(folder: Path, data: Path) -> None:
    """What the worker would have learned of 50,000 plays, so that every source has something to
    name.
    """
    catalog = Catalog.read(folder / "catalogue.csv", demo=True)
    rng = np.random.default_rng(1)
    titles = (len(catalog) * rng.random(50_000) ** 2).astype(int)
    plays = [
        Play(f"u{n % 5_000}", catalog.ids[t], time.time() - 60.0 * (n % 10_000), "us")
        for n, t in enumerate(titles)
    ]
    learn(plays, catalog, time.time()).save(signals_path(data, "home"))


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used (Linux; 0 elsewhere)."""
    try:
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def request(number: int, ids: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """A viewer with a taste and three plays."""
    taste = {
        genre: round(float(v), 3)
        for genre, v in zip(GENRES, rng.dirichlet(np.full(8, 0.4)), strict=True)
    }
    watched = [ids[i] for i in rng.integers(0, len(ids), 3)]
    context = {"taste": taste, "device": "tv", "hour": float(number % 24)}
    return {"page": "home", "profile": f"u{number}", "watched": watched, "context": context}


def timed(connection: HTTPConnection, path: str, body: Any) -> tuple[float, bytes]:
    """Milliseconds from sending to the whole answer."""
    data = json.dumps(body)
    start = time.perf_counter()
    connection.request("POST", path, data, {"content-type": "application/json"})
    answer = connection.getresponse()
    raw = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {raw[:300]!r}")
    return (time.perf_counter() - start) * 1e3, raw


def line(name: str, times: list[float]) -> str:
    """Quantiles of latencies in ms."""
    p50, p90, p99 = np.percentile(times, [50, 90, 99])
    return f"  {name:28} p50 {p50:6.2f}   p90 {p90:6.2f}   p99 {p99:6.2f} ms   ({len(times)} calls)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--titles", type=int, default=10_000)
    parser.add_argument("--policy", help="chooses titles in place of the example's")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, load "
        f"{load:.1f}"
    )
    print(
        ", ".join(
            f"{name} {version(name)}"
            for name in ("topbill", "numpy", "msgspec", "uvicorn", "scipy")
        )
    )
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        plain = Path(name) / "plain"
        by_id = Path(name) / "by id"
        for place in (plain, by_id):
            (place / "experiments").mkdir(parents=True)
            experiments(place / "experiments", options.titles, 10, 20, options.policy)
            signals(place / "experiments", place / "data")
        with_features_by_id(by_id / "experiments", by_id / "data")
        services = [started(place, running) for place in (plain, by_id)]
        measure(plain / "experiments", services, options.pages)
        running.close()
        print("without features by id:")
        print_sizes(plain / "data" / LOG_FILE)
        print("with features by id:")
        print_sizes(by_id / "data" / LOG_FILE)


class Service(NamedTuple):
    """A service at work, and a connection to it."""

    connection: HTTPConnection
    pid: int


def started(place: Path, running: ExitStack) -> Service:
    """A service on a folder's experiments and data, which ends with `running`."""
    port = free_port("127.0.0.1", 8671)
    command = [sys.executable, "-m", "topbill", "serve", "--port", str(port)]
    folders = ["--experiments", str(place / "experiments"), "--data", str(place / "data")]
    process = subprocess.Popen([*command, *folders])
    running.callback(process.wait, 20)
    running.callback(process.terminate)
    connection = HTTPConnection("127.0.0.1", port)
    for _ in range(600):
        try:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            break
        except OSError:
            time.sleep(0.1)
        finally:
            # Opened anew by the next request: until then the service may hang up.
            connection.close()
    return Service(connection, process.pid)


def print_sizes(log: Path) -> None:
    """What a page takes: as JSON, as a frame of the journal, and in the log with all of its rows
    and indexes. Deletes what is no page.
    """
    with closing(sqlite3.connect(log)) as database:
        bundles = [content for (content,) in database.execute("SELECT content FROM bundles")]
        size = size_without(database, log, "decision_id NOT LIKE 'page-%'")
        database.execute("DELETE FROM bundles")
        size -= size_without(database, log, "true")
    plain = framed = 0
    for content in bundles:
        decisions = decisions_of(content)
        plain += sum(len(msgspec.json.encode(decision)) for decision in decisions)
        ids = [(decision.decision_id, decision.experiment) for decision in decisions]
        framed += len(pack(0, 0, 0, payload_of(Rows([], [], [], [(ids, content)]))))
    pages = len(bundles)
    print(
        f"  a page is {plain / pages / 1e3:.1f} kB of JSON; it takes {framed / pages / 1e3:.1f} kB "
        f"in the journal ({framed / plain:.1%}) and {size / pages / 1e3:.1f} kB in the log "
        f"({size / plain:.1%})"
    )


def size_without(database: sqlite3.Connection, log: Path, condition: str) -> int:
    """Bytes of the log's file without these decisions."""
    database.execute(f"DELETE FROM decisions WHERE {condition}")  # noqa: S608 (own text)
    database.commit()
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return log.stat().st_size


def measure(folder: Path, services: Sequence[Service], pages: int) -> None:
    """Time pages of both services in turn, and single decisions between them."""
    with (folder / "catalogue.csv").open() as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    rng = np.random.default_rng(0)
    times: list[list[float]] = [[] for _ in services]
    single: list[float] = []
    sizes, fallbacks = [], 0
    used = [0.0] * len(services)
    for number in range(pages + 20):
        body = request(number, ids, rng)
        once, _ = timed(
            services[0].connection,
            "/v1/decide",
            {"experiment": "home-artwork", "unit": f"u{number}"},
        )
        # Whoever is asked second finds the caches as the other one left them.
        turns = range(len(services)) if number % 2 else reversed(range(len(services)))
        for which in turns:
            service = services[which]
            before = cpu(service.pid)
            took, raw = timed(service.connection, "/v1/page", body)
            if number < 20:
                continue
            used[which] += cpu(service.pid) - before
            answer = json.loads(raw)
            times[which].append(took)
            sizes.append(len(raw))
            fallbacks += bool(answer["fallbacks"])
            shown = [len(row["titles"]) for row in answer["rows"]]
            if shown != [20] * 10:
                raise SystemExit(
                    f"page {number} has rows of {shown} titles; expected ten of twenty"
                )
        if number >= 20:
            single.append(once)
    names = ("POST /v1/page", "… with features by id")
    for name, own, seconds in zip(names, times, used, strict=True):
        print(line(name, own))
        print(f"  processor time a page {seconds / pages * 1e3:.1f} ms, whatever else happens")
    print(line("POST /v1/decide (1 of 8)", single))
    print(
        f"  10 x 20 titles with pictures, {np.mean(sizes) / 1e3:.0f} kB a page, {fallbacks} "
        f"fallbacks"
    )
    plain, by_id = (float(np.median(own)) for own in times)
    print(f"  a page takes {plain / np.median(single):.1f} single durable decisions")
    print(
        f"  with features by id / without: p50 {by_id / plain:.2f}, "
        f"processor time {used[1] / used[0]:.2f}"
    )


if __name__ == "__main__":
    main()
