"""What encoding a context costs, beside decoding the same context from JSON, which every request
pays anyway.

Run: .venv/bin/python benchmarks/encode.py
"""

from __future__ import annotations

import platform
import timeit
from pathlib import Path

import msgspec
import numpy as np

from topbill.spec import load

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
CONTEXT = {
    "device": "tv",
    "hour": 20,
    "taste": {"action": 0.1, "comedy": 0.3, "crime": 0.2, "drama": 0.4, "scifi": 0.0},
}
CALLS = 5_000


def micros(statement: object) -> float:
    """Microseconds of one call: the best of seven rounds."""
    assert callable(statement)
    return min(timeit.repeat(statement, number=CALLS, repeat=7)) / CALLS * 1e6


def main() -> None:
    versions = (
        f"Python {platform.python_version()}, msgspec {msgspec.__version__}, NumPy {np.__version__}"
    )
    print(f"{versions}, {platform.machine()}")
    text = msgspec.json.encode(CONTEXT)
    decode = micros(lambda: msgspec.json.decode(text))
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        e = load(path)
        encode = micros(lambda encoder=e.context_encoder: encoder.encode(CONTEXT))
        action = micros(lambda e=e: e.action_encoder.encode_actions(e.actions)) / len(e.actions)
        print(
            f"{e.key}: context of {e.context_encoder.size} numbers {encode:.2f} µs, "
            f"{encode / decode:.1f} × "
            f"its JSON decode ({decode:.2f} µs); an action of a request's own {action:.2f} µs"
        )


if __name__ == "__main__":
    main()
