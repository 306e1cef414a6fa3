"""How long callers wait for answers while a server is not busy, and what the machine did meanwhile.

    python -m benchmarks.paced PORT BODIES [--connections 64] [--pause 20] [--seconds 5]

Each connection sends a line of BODIES to `/v1/decide`, waits for the answer, and pauses for a time
drawn evenly from 0 to twice `--pause` milliseconds. The machine is watched by the same process:
every other millisecond it adds up the same numbers. Virtual machines are slowed down by their hosts
for tens of milliseconds at a time, which no counter of the guest shows, as the process counts as
running; where the same sum takes more than three times its median, the machine was slow. Printed as
JSON is the 99th percentile of all answers, and of those that neither began nor ended within 20 ms
of such a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from bisect import bisect_right
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import uvloop

_PROBE_EVERY = 0.002
_NUMBERS = range(2_000)
_SLOW = 3
"""Times the median sum."""
_MARGIN = 0.02
"""Seconds before and after: what has waited in the meantime is answered, too."""


class Paced(NamedTuple):
    """What callers saw, and how much of the time the machine was slow."""

    rate: float
    """Answers a second."""
    p50_ms: float
    p99_ms: float
    calm_p99_ms: float
    """Of the answers while the machine was not slow."""
    calm_share: float
    """Of the answers, how many those are."""
    slow_share: float
    """Of the time, in which the machine was slow, margins left out."""

    def line(self) -> str:
        """As it is printed."""
        return (
            f"{self.rate:.0f}/s, p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.1f} ms; while the "
            f"machine was not slow, {self.calm_share:.0%} of the answers, {self.calm_p99_ms:.2f} ms"
        )


class Machine:
    """How long the same sum took, again and again."""

    def __init__(self) -> None:
        self.probes: list[tuple[float, float]] = []

    async def watch(self) -> None:
        """Add up until cancelled."""
        while True:
            begun = time.perf_counter()
            sum(_NUMBERS)
            self.probes.append((begun, time.perf_counter() - begun))
            await asyncio.sleep(_PROBE_EVERY)

    def slow_times(self) -> list[tuple[float, float]]:
        """From when to when it was slow, in order, none within another's."""
        bound = _SLOW * statistics.median(took for _, took in self.probes)
        found: list[tuple[float, float]] = []
        for begun, took in self.probes:
            if took <= bound:
                continue
            since, until = begun - _PROBE_EVERY, begun + took + _PROBE_EVERY
            if found and since <= found[-1][1] + _MARGIN:
                found[-1] = (found[-1][0], until)
            else:
                found.append((since, until))
        return found


class Caller(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(
        self, bodies: list[bytes], pause: float, answers: list[tuple[float, float]], seed: int
    ) -> None:
        self._bodies, self._pause, self._answers = bodies, pause, answers
        self.refusal = ""
        self._random = random.Random(seed)
        self._left = 0
        self._head = bytearray()
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin at a time of its own."""
        self._transport = cast("asyncio.Transport", transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Until the answer is whole."""
        if self._left:
            self._left -= len(data)
        else:
            self._head += data
            head, end, rest = bytes(self._head).partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self.refusal = data.decode()
                self._transport.abort()
                return
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._left = int(length) - len(rest)
            self._head.clear()
        if not self._left:
            self._answers.append((self._begun, time.perf_counter()))
            self._wait()

    def _wait(self) -> None:
        pause = self._random.uniform(0, 2 * self._pause)
        asyncio.get_running_loop().call_later(pause, self._send)

    def _send(self) -> None:
        if self._transport.is_closing():
            return
        body = self._random.choice(self._bodies)
        head = "POST /v1/decide HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        self._begun = time.perf_counter()
        self._transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


async def load(
    port: int, bodies: list[bytes], *, connections: int, pause: float, seconds: float
) -> Paced:
    """Load a server of this machine; `pause` is the mean one, in seconds."""
    loop = asyncio.get_running_loop()
    answers: list[tuple[float, float]] = []
    machine = Machine()
    callers = []
    for seed in range(connections):
        made = partial(Caller, bodies, pause, answers, seed)
        callers.append(await loop.create_connection(made, "127.0.0.1", port))
    watch = asyncio.create_task(machine.watch())
    await asyncio.sleep(seconds)
    watch.cancel()
    for transport, caller in callers:
        transport.abort()
        if caller.refusal:
            raise SystemExit(f"an answer was not 200:\n{caller.refusal}")
    return summary(answers, machine.slow_times(), seconds)


def summary(
    answers: list[tuple[float, float]], slow: list[tuple[float, float]], seconds: float
) -> Paced:
    """Of the answers, from when to when each took, and the times in which the machine was slow."""
    took = [(ended - begun) * 1e3 for begun, ended in answers]
    until = [end + _MARGIN for _, end in slow]

    def is_calm(begun: float, ended: float) -> bool:
        """Whether the first slow time that ends after it began begins after it ended."""
        at = bisect_right(until, begun)
        return at == len(slow) or ended < slow[at][0] - _MARGIN

    calm = [ms for ms, answer in zip(took, answers, strict=True) if is_calm(*answer)]
    return Paced(
        rate=len(answers) / seconds,
        p50_ms=statistics.median(took),
        p99_ms=_percentile_99(took),
        calm_p99_ms=_percentile_99(calm),
        calm_share=len(calm) / len(took),
        slow_share=sum(end - begin for begin, end in slow) / seconds,
    )


def _percentile_99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * len(values))]


def main() -> None:
    """Load and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("bodies", type=Path, help="a JSON body a line")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pause", type=float, default=20, help="mean milliseconds")
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    paced = load(
        arguments.port,
        arguments.bodies.read_bytes().splitlines(),
        connections=arguments.connections,
        pause=arguments.pause / 1e3,
        seconds=arguments.seconds,
    )
    print(json.dumps(uvloop.run(paced)._asdict()))


if __name__ == "__main__":
    main()
