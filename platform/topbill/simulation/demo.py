"""The demo: simulated viewers on the example experiments, a live table of what comes of them, and
what to do next.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import httpx
from rich.console import Console, Group
from rich.live import Live

from topbill.domain.errors import NotFound
from topbill.domain.formatting import percent
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

    Shows a live table and returns the driver with its scoreboard, up to where it got. Raises
    Unavailable when the service fails, NotFound when no experiment is running.
    """

    async def go() -> None:
        client = httpx.AsyncClient(
            base_url=base_url, headers=headers, transport=transport, timeout=10.0
        )
        async with client:
            visiting = driver.run(
                client, math.inf if seconds is None else seconds, pages_per_second
            )
            await watch(asyncio.create_task(visiting), lambda: live_table(driver), console)

    if not (running := environments(experiments, seed)):
        raise NotFound(
            "no running experiment that lists its actions; expected at least one to send viewers to"
        )
    # Another name for each run: a second demo on the same data must not send ids that the log has.
    name = uuid.uuid4().hex[:8]
    driver = Driver(running, name, [] if pages is None else page_drivers(pages, name, seed))
    try:
        asyncio.run(go())
    except KeyboardInterrupt:
        console.print("Stopped.")
    return driver


def environments(experiments: Iterable[Experiment], seed: int = 0) -> dict[str, Environment]:
    """An environment for each running experiment with actions of its own, all with the same
    viewers.

    Its last action comes `LAUNCH` seconds after the start, where three others and enough to fill
    the slate are there.
    """
    by_key = {}
    for experiment in experiments:
        if experiment.status != "running" or not experiment.actions:
            continue
        launches = {}
        if len(experiment.actions) > max(3, experiment.slots):
            launches[experiment.actions[-1].id] = LAUNCH
        by_key[experiment.key] = Environment(experiment, seed, Habits(launches=launches))
    return by_key


async def watch(running: asyncio.Task[None], table: Callable[[], Group], console: Console) -> None:
    """Show a table until the task ends: live on a terminal, every ten seconds elsewhere."""
    try:
        if console.is_terminal:
            with Live(table(), console=console, auto_refresh=False) as live:
                while not running.done():
                    await asyncio.wait([running], timeout=REFRESH)
                    live.update(table(), refresh=True)
        else:
            while not running.done():
                await asyncio.wait([running], timeout=PLAIN_EVERY)
                console.print(table())
    finally:
        # Also where drawing the table failed: nobody else would stop the visitors.
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    running.result()


def live_table(driver: Driver) -> Group:
    """The scoreboards so far, under a line of what was sent."""
    head = (
        f"{driver.elapsed:3.0f} s · {driver.pages:,} homepages · "
        f"[bold]{_pace(driver):,.0f} decisions/s[/bold] · "
        f"{driver.scoreboard.decisions:,} decisions · {driver.rewards:,} reward events"
    )
    lines: list[ScoreLine] = []
    for scoreboard in _scoreboards(driver):
        lines += scoreboard.lines()
    if not driver.page_drivers:
        return Group(head, table(lines))
    pages = f"{driver.whole_pages:,} whole pages, each layer of them judged by itself"
    return Group(head, table(lines), pages)


def _pace(driver: Driver) -> float:
    return driver.scoreboard.decisions / driver.elapsed if driver.elapsed else 0.0


def _scoreboards(driver: Driver) -> list[Scoreboard]:
    return [driver.scoreboard, *(page_driver.scoreboard for page_driver in driver.page_drivers)]


def summary(
    driver: Driver, *, data: str, dashboard: str | None = None, command: str = "topbill"
) -> list[str]:
    """What the demo showed, in sentences, and what to do next. `data` is the data folder,
    `dashboard` an address, `command` what to type for topbill.
    """
    sentences = [
        f"{driver.pages:,} simulated homepages took {driver.scoreboard.decisions:,} decisions "
        f"({_pace(driver):,.0f}/s over HTTP) and sent {driver.rewards:,} reward events; "
        f"{driver.retries} requests had to be sent again."
    ]
    for scoreboard in _scoreboards(driver):
        sentences += _results(scoreboard)
    example = next(iter(driver.scoreboard.experiments), "KEY")
    sentences.append(
        f"Next: `{command} report {example} --data {data}` reads the same experiment "
        "from its own log,"
    )
    sentences.append(
        f'`{command} sql "from feedback limit 9" --data {data}` asks the record anything else.'
    )
    if dashboard:
        sentences.append(f"Dashboard: {dashboard}")
    return sentences


def _results(scoreboard: Scoreboard) -> list[str]:
    """A sentence for each experiment that has a control and another."""
    lines, sentences = scoreboard.lines(), []
    for key, experiment in scoreboard.experiments.items():
        by_variant = {line.variant: line for line in lines if line.experiment == key}
        control = by_variant.pop(experiment.control.name, None)
        if control is not None and by_variant:
            ahead = max(by_variant.values(), key=_lately)
            sentences.append(_result(key, ahead, control))
    return sentences


def _result(key: str, ahead: ScoreLine, control: ScoreLine) -> str:
    """What the variant that is ahead and the control came to. Judged by what they chose lately, for
    the beginning, when nothing was learned yet, says nothing of either."""
    sentence = (
        f"{key}: {ahead.variant} earns {_reward(ahead)} a decision, "
        f"the control {control.variant} {_reward(control)}; "
        "of the way from a uniform choice to the known best, "
        f"{ahead.variant} has lately come {_share(ahead)} "
        f"and {control.variant} {_share(control)}."
    )
    if _lately(ahead) > _lately(control):
        return sentence
    return (
        f"{sentence} Too early: {ahead.decisions:,} judged decisions "
        "have not taken it past the control."
    )


def _lately(line: ScoreLine) -> float:
    return line.gap_closed_recently or 0.0


def _reward(line: ScoreLine) -> str:
    if line.interval is None:
        return f"{line.reward:.4f}"
    # A reward is between 0 and 1, whatever a normal interval of few decisions says.
    low, high = max(0.0, line.interval[0]), min(1.0, line.interval[1])
    return f"{line.reward:.4f} ({low:.4f} to {high:.4f})"


def _share(line: ScoreLine) -> str:
    if line.gap_closed_recently is None:
        return "no measurable part"
    return percent(line.gap_closed_recently, digits=0)
