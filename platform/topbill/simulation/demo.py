"""The demo: simulated viewers on the example experiments, a live table of what comes of them, and
what to do next.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import httpx
from rich.console import Console, Group
from rich.live import Live

from topbill.domain.errors import NotFound
from topbill.simulation.driver import PAGES_PER_SECOND, Driver
from topbill.simulation.environment import Environment, Habits
from topbill.simulation.page_driver import page_drivers
from topbill.simulation.scoreboard import Scoreboard, ScoreLine, table
from topbill.spec import Experiment

REFRESH = 0.5
PLAIN_EVERY = 10.0
"""Seconds between two tables where the output is no terminal."""
LAUNCH = 30.0
"""Seconds after which each experiment's last action joins, where there are enough others."""


def run_demo(
    base_url: str,
    experiments: Sequence[Experiment],
    console: Console,
    *,
    seconds: float | None = 60.0,
    seed: int = 0,
    pages_per_second: float = PAGES_PER_SECOND,
    pages: Path | None = None,
    headers: Mapping[str, str] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Driver:
    """Send simulated viewers to the service at `base_url` for that many seconds (None: until
    Ctrl-C), also to the whole pages of the experiments' folder `pages`.

    Shows a live table and returns the driver with its scoreboard, up to where it got. Raises Unavailable
    when the service fails, NotFound when no experiment is running.
    """

    async def go() -> None:
        client = httpx.AsyncClient(
            base_url=base_url, headers=headers, transport=transport, timeout=10.0
        )
        async with client:
            visiting = driver.run(
                client, math.inf if seconds is None else seconds, pages_per_second
            )
            await _watch(asyncio.create_task(visiting), driver, console)

    if not (running := environments(experiments, seed)):
        raise NotFound(
            "no running experiment that lists its actions; expected at least one to send viewers to"
        )
    name = uuid.uuid4().hex[:8]
    driver = Driver(running, name, [] if pages is None else page_drivers(pages, name, seed))
    try:
        asyncio.run(go())
    except KeyboardInterrupt:
        console.print("Stopped.")
    return driver


def environments(experiments: Iterable[Experiment], seed: int = 0) -> dict[str, Environment]:
    """A world for each running experiment with actions of its own, all with the same viewers.

    Its last action comes `LAUNCH` seconds after the start, where three others and enough to fill
    the slate are there.
    """

    def habits(e: Experiment) -> Habits:
        return Habits(
            launches={e.actions[-1].id: LAUNCH} if len(e.actions) > max(3, e.slots) else {}
        )

    return {
        e.key: Environment(e, seed, habits(e))
        for e in experiments
        if e.status == "running" and e.actions
    }


async def _watch(running: asyncio.Task[None], driver: Driver, console: Console) -> None:
    """Show the driver's table until it ends: live on a terminal, every ten seconds elsewhere."""
    try:
        if console.is_terminal:
            with Live(board(driver), console=console, auto_refresh=False) as live:
                while not running.done():
                    await asyncio.wait([running], timeout=REFRESH)
                    live.update(board(driver), refresh=True)
        else:
            while not running.done():
                await asyncio.wait([running], timeout=PLAIN_EVERY)
                console.print(board(driver))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    running.result()


def board(driver: Driver) -> Group:
    """The live table under a line of what was sent."""
    pace = driver.scoreboard.decisions / driver.elapsed if driver.elapsed else 0.0
    head = (
        f"{driver.elapsed:3.0f} s · {driver.pages:,} homepages · [bold]{pace:,.0f} decisions/s[/bold] · "
        f"{driver.scoreboard.decisions:,} decisions · {driver.rewards:,} reward events"
    )
    lines = [line for scoreboard in _scoreboards(driver) for line in scoreboard.lines()]
    more = (
        f"{driver.whole_pages:,} whole pages, each layer of them judged by itself"
        if driver.page_drivers
        else ""
    )
    return Group(head, table(lines), *([more] if more else []))


def _scoreboards(driver: Driver) -> list[Scoreboard]:
    return [driver.scoreboard, *(pager.scoreboard for pager in driver.page_drivers)]


def summary(driver: Driver, *, data: str, dashboard: str | None = None) -> list[str]:
    """What the demo showed, in sentences, and what to do next. `data` is the data folder,
    `dashboard` an address.
    """
    pace = driver.scoreboard.decisions / driver.elapsed if driver.elapsed else 0.0
    sentences = [
        f"{driver.pages:,} simulated homepages took {driver.scoreboard.decisions:,} decisions ({pace:,.0f}/s over HTTP) and "
        f"sent {driver.rewards:,} reward events; {driver.retries} requests had to be sent again."
    ]
    for scoreboard in _scoreboards(driver):
        sentences += _told(scoreboard)
    example = next(iter(driver.scoreboard.experiments), "KEY")
    sentences.append(
        f"Next: `topbill report {example} --data {data}` reads the same experiment from its own log,"
    )
    sentences.append(
        f'`topbill sql "from feedback limit 9" --data {data}` asks the record anything else.'
    )
    if dashboard:
        sentences.append(f"Dashboard: {dashboard}")
    return sentences


def _told(scoreboard: Scoreboard) -> list[str]:
    """A sentence for each experiment that has a control and another."""
    lines, sentences = scoreboard.lines(), []
    for key, experiment in scoreboard.experiments.items():
        own = [line for line in lines if line.experiment == key]
        control = next((line for line in own if line.variant == experiment.control.name), None)
        others = [line for line in own if line is not control]
        if control is None or not others:
            continue
        ahead = max(others, key=_lately)
        early = _lately(ahead) <= _lately(control)
        sentences.append(
            f"{key}: {ahead.variant} earns {_worth(ahead)} a decision, "
            f"the control {control.variant} {_worth(control)}; of the way from a uniform choice to the known best, "
            f"{ahead.variant} has lately come {_share(ahead)} and {control.variant} {_share(control)}."
            + (
                f" Too early: {ahead.decisions:,} judged decisions have not taken it past the control."
                if early
                else ""
            )
        )
    return sentences


def _lately(line: ScoreLine) -> float:
    return line.gap_closed_recently or 0.0


def _worth(line: ScoreLine) -> str:
    if line.interval is None:
        return f"{line.reward:.4f}"
    return f"{line.reward:.4f} ({line.interval[0]:.4f} to {line.interval[1]:.4f})"


def _share(line: ScoreLine) -> str:
    return (
        "no measurable part"
        if line.gap_closed_recently is None
        else f"{line.gap_closed_recently:.0%}"
    )
