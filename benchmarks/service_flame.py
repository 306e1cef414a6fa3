"""Where the time of durable decisions over HTTP goes: a flame graph of the service's process under
load, as SVG.

    pip install py-spy
    python -m benchmarks.service_flame [--policy thompson] [--connections 16] > picture.svg

Boxes are Python's functions; what they call in C is within theirs. Counted is who has the
interpreter, so that waiting for the disk is not. The threads that drain the journal and follow
files lie beside the event loop's. Needs wrk, and py-spy on the path.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Thread

from benchmarks.flame import picture, read
from benchmarks.service import Bench, Shape, teach


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--policy", default="thompson")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    for tool in ("wrk", "py-spy"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is not installed; install it and run again")
    shape = Shape(given.policy)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(
            folder,
            seconds=given.seconds + 2,
            rest=1,
            rounds=1,
            cores=(0, 1) if shutil.which("taskset") else None,
            say=lambda line: print(line, file=sys.stderr),
        )
        bench.add(shape)
        stacks = folder / "stacks.txt"
        with bench.service("data") as service:
            with bench.worker("data"):
                teach(service.port, [shape])
            arguments = service, given.connections, bench.script(shape)
            load = Thread(target=bench.load, args=arguments)
            load.start()
            command = ["py-spy", "record", "--pid", str(service.pid), "--format", "raw"]
            # Who has the interpreter: a thread that waits for work or for the disk has not.
            command += [
                "--gil",
                "--function",
                "--rate",
                "200",
                "--duration",
                f"{given.seconds:.0f}",
            ]
            subprocess.run([*command, "--output", str(stacks)], stdout=sys.stderr, check=True)
            load.join()
        title = f"Decisions by {given.policy}, {given.connections} connections"
        print(picture(read(stacks), title, least=0.01))


if __name__ == "__main__":
    main()
