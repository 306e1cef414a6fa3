"""Import of VW dsjson into a lake: rows a second and peak memory, at 100,000 and 1,000,000 rows,
beside VW's parser.

    python -m benchmarks.transfer [--rows 100000 1000000]

Each size runs in a process of its own, whose peak memory the kernel counts. The peer reads the same
file with vowpal_wabbit_next's parser and does nothing with what it read. Memory must not grow with
the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ACTIONS = [
    {
        "_tag": f"title-{i}",
        "action": {"genre": ("drama", "crime", "comedy")[i % 3], "year": 1960 + i},
    }
    for i in range(8)
]


def write(path: Path, rows: int) -> None:
    """A log of a foreign maker: 8 actions with features, a context of 4 features, a reward on one
    row in five.
    """
    rng = random.Random(7)
    with path.open("w") as file:
        for i in range(rows):
            chosen = rng.randrange(8)
            order = [chosen, *(k for k in range(8) if k != chosen)]
            p = [0.65] + [0.05] * 7
            line = {
                "_label_cost": -1.0 if rng.random() < 0.2 else 0.0,
                "_label_probability": p[0],
                "_label_Action": chosen + 1,
                "_labelIndex": chosen,
                "Timestamp": f"2026-01-{1 + i * 28 // rows:02d}T12:"
                f"{i // 60 % 60:02d}:{i % 60:02d}.0000000Z",
                "Version": "1",
                "EventId": f"event-{i}",
                "a": [k + 1 for k in order],
                "c": {
                    "viewer": {
                        "device": ("tv", "web")[i % 2],
                        "hour": i % 24,
                        "drama": round(rng.random(), 3),
                    },
                    "_multi": ACTIONS,
                },
                "p": p,
                "VWState": {"m": "N/A"},
            }
            file.write(json.dumps(line, separators=(",", ":")) + "\n")


def measured(kind: str, source: Path, folder: Path) -> tuple[float, float]:
    """(seconds, peak MB) of one pass over the file in a fresh process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.transfer",
        "--child",
        kind,
        str(source),
        str(folder),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def child(kind: str, source: Path, folder: Path) -> None:
    """Run inside the fresh process: print seconds and peak MB."""
    if kind == "import":
        from topbill.formats import import_log

        start = time.perf_counter()
        import_log(source, folder)
    elif kind == "export":
        from topbill.formats import export_log

        start = time.perf_counter()
        export_log("imported", folder, folder / "out.dsjson")
    else:
        import vowpal_wabbit_next as vw

        workspace = vw.Workspace(["--cb_explore_adf", "--quiet"])
        start = time.perf_counter()
        with source.open() as file, vw.DSJsonFormatReader(workspace, file) as reader:
            for _ in reader:
                pass
    took = time.perf_counter() - start
    print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, source, folder = arguments.child
        child(kind, Path(source), Path(folder))
        return
    names = ("deltalake", "duckdb", "vowpal-wabbit-next", "msgspec")
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}"
    )
    print(", ".join(f"{name} {version(name)}" for name in names))
    peaks = {}
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "log.dsjson"
            write(source, rows)
            size = source.stat().st_size / 1e6
            print(f"{rows:,} rows, {size:,.0f} MB")
            told = {
                kind: measured(kind, source, Path(folder) / "data")
                for kind in ("import", "export", "vw parser")
            }
            for kind, (seconds, peak) in told.items():
                print(f"  {kind:10} {rows / seconds:9,.0f} rows/s  peak {peak:6,.0f} MB")
            print(
                f"  import takes {told['import'][0] / told['vw parser'][0]:.2f} times what VW's "
                f"parser alone takes"
            )
            peaks[rows] = told["import"][1]
    if len(peaks) > 1:
        few, many = min(peaks), max(peaks)
        print(
            f"peak memory of import at {many:,} rows over that at {few:,}: "
            f"{peaks[many] / peaks[few]:.2f}"
        )


if __name__ == "__main__":
    main()
