"""Off-policy evaluation beside obp, in one run: time and peak memory of IPS, SNIPS, DM, DR,
Switch-DR and DRos with intervals, then Topbill alone on 10 and 100 million rows, with the three
that are asked for most (IPS, SNIPS and DR) and with all six.

    python benchmarks/ope.py [--rows 1000000] [--actions 10 80] [--large 10000000 100000000]

obp needs Python 3.9 and old numpy: where `--peer` does not name such a Python, a virtual
environment is made in `.bench/obp`. Both see the same rows; obp takes n × actions matrices of the
target's probabilities and of q̂, Topbill the scalars of each row from Parquet. obp bootstraps rows
100 times; Topbill bootstraps buckets of units 100 times. Seconds of all processors are printed
beside those of the clock: other work on the machine hardly makes them longer. Rows that a query
makes are also only made, so that this can be told from estimating.

This file runs under both Pythons, so it imports what is not common inside functions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
# The scripts beside this one are not modules to import: one is called http, as the standard
# library's.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE.parent]
ROOT = HERE.parents[1]
PEER = ("numpy==1.23.5", "matplotlib<3.9", "obp==0.5.7")
NAMES = ("ips", "snips", "dm", "dr", "switch-dr", "dros")
MOST_ASKED = ("ips", "snips", "dr")
LAM = 10.0
REPLICATES = 100


def peak_mb() -> float:
    """The largest resident size that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_obp(rows: int, actions: int, out: Path) -> dict:
    """Make the log, let obp estimate it, and leave the scalars of each row in `out` (npz)."""
    import numpy as np
    import obp
    from obp import ope

    rng = np.random.default_rng(0)
    before = peak_mb()

    def simplex() -> np.ndarray:
        matrix = rng.random((rows, actions))
        matrix += 0.2
        matrix /= matrix.sum(axis=1, keepdims=True)
        return matrix

    index = np.arange(rows)
    logging = simplex()
    action = (logging.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    pscore = logging[index, action].copy()
    del logging
    target = simplex()
    modelled = rng.random((rows, actions))
    modelled *= 0.1
    reward = (rng.random(rows) < 0.05).astype(int)
    np.savez(
        out,
        reward=reward.astype(float),
        propensity=pscore,
        target_propensity=target[index, action],
        q_logged=modelled[index, action],
        q_target=np.einsum("na,na->n", target, modelled),
    )
    feedback = {
        "n_rounds": rows, "n_actions": actions, "action": action,
        "reward": reward, "pscore": pscore,
        "position": None, "context": None, "action_context": None,
    }  # fmt: skip
    estimators = [
        ope.InverseProbabilityWeighting(estimator_name="ips"),
        ope.SelfNormalizedInverseProbabilityWeighting(estimator_name="snips"),
        ope.DirectMethod(estimator_name="dm"),
        ope.DoublyRobust(estimator_name="dr"),
        ope.SwitchDoublyRobust(lambda_=LAM, estimator_name="switch-dr"),
        ope.DoublyRobustWithShrinkage(lambda_=LAM, estimator_name="dros"),
    ]
    evaluation = ope.OffPolicyEvaluation(bandit_feedback=feedback, ope_estimators=estimators)
    columns = {
        "action_dist": target[:, :, None],
        "estimated_rewards_by_reg_model": modelled[:, :, None],
    }
    start = time.perf_counter()
    values = evaluation.estimate_policy_values(**columns)
    evaluation.estimate_intervals(**columns, n_bootstrap_samples=REPLICATES, random_state=0)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds, "values": {k: float(v) for k, v in values.items()},
        "peak_mb": peak_mb(),
        "import_mb": before,
        "version": f"obp {obp.__version__}, numpy {np.__version__}, Python "
                   f"{platform.python_version()}",
    }  # fmt: skip


def run_topbill(source: str, unit: str | None, interval: str, names: tuple[str, ...]) -> dict:
    """Topbill on a Parquet file, or on any relation of DuckDB."""
    import duckdb
    import numpy as np

    from topbill.ope import estimate_table

    before = peak_mb()
    start, used = time.perf_counter(), time.process_time()
    found = estimate_table(
        source, q_logged="q_logged", q_target="q_target", unit=unit, estimators=names, lam=LAM,
        interval=interval, replicates=REPLICATES, memory_limit="4GB",
    )  # fmt: skip
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    return {
        "seconds": seconds, "cpu": cpu, "values": {name: e.value for name, e in found.items()},
        "reasons": sorted({e.reason for e in found.values() if e.reason}), "peak_mb": peak_mb(),
        "import_mb": before,
        "version": f"duckdb {duckdb.__version__}, numpy {np.__version__}, Python "
                   f"{platform.python_version()}",
    }  # fmt: skip


def synthetic(rows: int) -> str:
    """A log of that many rows as a query: nothing is stored. Two actions, soft policies, 5%
    clicks.
    """

    def u(k: int) -> str:
        return f"((hash(i * 8 + {k}) % 1000003) / 1000003.0)"

    return (
        f"(SELECT CAST({u(0)} < 0.05 AS DOUBLE) AS reward, "  # noqa: S608
        f"CASE WHEN a THEN p ELSE 1 - p END AS propensity, "
        f"CASE WHEN a THEN t ELSE 1 - t END AS target_propensity, 0.05 + 0.01 * {u(1)} AS "
        f"q_logged, "
        f"0.05 + 0.01 * {u(2)} AS q_target, hash(i * 8 + 3) % {max(rows // 20, 1)} AS unit FROM "
        f"(SELECT i, "
        f"0.2 + 0.6 * {u(4)} AS p, "
        f"0.2 + 0.6 * {u(5)} AS t, {u(6)} < 0.2 + 0.6 * {u(4)} AS a FROM range({rows}) r(i)))"
    )


def child(python: str, *arguments: str) -> dict:
    """This file in a process of its own, so that peaks of memory are its own."""
    done = subprocess.run(
        [python, str(HERE), *arguments], check=False, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{python} {' '.join(arguments)[:80]} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer_python(named: str | None) -> str:
    """A Python that has obp."""
    if named:
        return named
    home = ROOT / ".bench" / "obp"
    python = home / "bin" / "python"
    if not python.exists():
        found = shutil.which("python3.9") or shutil.which("python3.8")
        if not found:
            sys.exit("no Python 3.9 here for obp; name one that has obp installed with --peer")
        print("making an environment for obp in .bench/obp ...", flush=True)
        subprocess.run([found, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PEER], check=True)
    return str(python)


def beside_obp(peer: str, rows: int, actions: int, folder: Path) -> None:
    """One line for obp, one for Topbill, and their ratios."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    scalars = folder / "scalars.npz"
    theirs = child(peer, "obp", str(rows), str(actions), str(scalars))
    columns = dict(np.load(scalars))
    path = folder / f"{rows}x{actions}.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    ours = min(
        (
            child(sys.executable, "topbill", str(path), "", "bootstrap", ",".join(NAMES))
            for _ in range(3)
        ),
        key=lambda r: r["seconds"],
    )
    for name in NAMES:
        if ours["values"][name] is not None:
            np.testing.assert_allclose(ours["values"][name], theirs["values"][name], rtol=1e-9)
    print(f"\n{rows:,} rows × {actions} actions, six estimators with intervals (B = {REPLICATES})")
    print(
        f"  obp      {theirs['seconds']:9.2f} s   peak {theirs['peak_mb']:7.0f} MB  "
        f"({theirs['version']})"
    )
    print(
        f"  topbill  {ours['seconds']:9.2f} s   peak {ours['peak_mb']:7.0f} MB  ({ours['version']})"
    )
    print(
        f"  ratio    {theirs['seconds'] / ours['seconds']:9.1f} ×   "
        f"{theirs['peak_mb'] / ours['peak_mb']:12.1f} ×   "
        f"(above what importing takes: {_above(theirs) / max(_above(ours), 1):.1f} ×)"
    )


def _above(found: dict) -> float:
    return found["peak_mb"] - found["import_mb"]


def alone(rows: int, folder: Path) -> None:
    """Topbill on many rows: of a Parquet file up to 100 million, which takes 4 GB, and above that
    of a query.
    """
    import duckdb

    source = synthetic(rows)
    where = "a query that makes them"
    if rows <= 100_000_000:
        path = folder / "large.parquet"
        duckdb.execute(f"COPY {source} TO '{path}'")
        source, where = str(path), f"Parquet, {path.stat().st_size / 1e6:.0f} MB"
    start, used = time.perf_counter(), time.process_time()
    columns = "reward + propensity + target_propensity + q_logged + q_target + unit"
    of = source if source.startswith("(") else f"'{source}'"
    duckdb.sql(f"SELECT sum({columns}) FROM {of}").fetchall()  # noqa: S608 (own text)
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    print(
        f"\n{rows:,} rows from {where}; to read all of them alone {seconds:.2f} s, {cpu:.2f} of CPU"
    )
    for unit, interval, names in (
        ("", "normal", MOST_ASKED),
        ("", "normal", NAMES),
        ("", "bootstrap", NAMES),
        ("unit", "normal", MOST_ASKED),
        ("unit", "normal", NAMES),
    ):
        found = child(sys.executable, "topbill", source, unit, interval, ",".join(names))
        units = f"{max(rows // 20, 1):,} units" if unit else "each row a unit"
        print(
            f"  {len(names)} estimators, {interval:9s} intervals, {units:18s} "
            f"{found['seconds']:7.2f} s, {found['cpu']:7.2f} of CPU   "
            f"peak {found['peak_mb']:6.0f} MB "
            f"(limit 4,096 MB) {' '.join(found['reasons'])}",
            flush=True,
        )


def main() -> None:
    """Run one side when told which (in a process of its own), else all."""
    if len(sys.argv) > 1 and sys.argv[1] == "obp":
        import warnings

        warnings.simplefilter("ignore")
        print(json.dumps(run_obp(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))
        return
    if len(sys.argv) > 1 and sys.argv[1] == "topbill":
        names = tuple(sys.argv[5].split(","))
        print(json.dumps(run_topbill(*sys.argv[2:3], sys.argv[3] or None, sys.argv[4], names)))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--actions", type=int, nargs="*", default=[10, 80])
    parser.add_argument("--large", type=int, nargs="*", default=[10_000_000, 100_000_000])
    parser.add_argument("--peer", help="a Python that has obp (default: made in .bench/obp)")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}")
    with tempfile.TemporaryDirectory(prefix="topbill-bench-") as folder:
        if options.actions:
            peer = peer_python(options.peer)
            for actions in options.actions:
                beside_obp(peer, options.rows, actions, Path(folder))
        for rows in options.large:
            alone(rows, Path(folder))


if __name__ == "__main__":
    main()
