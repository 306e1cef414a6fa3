"""What stands: the experiments of a data folder, what runs, and what somebody should look at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter
from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    Data,
    LakeUrl,
    LogUrl,
    app,
    out,
    say,
    use_lake,
    use_log,
)
from topbill.domain.errors import BadRequest
from topbill.domain.formatting import condition, minute, several

if TYPE_CHECKING:
    from topbill.domain.alarm import AlarmLine
    from topbill.lake import Problem
    from topbill.log.protocol import Duty, Order
    from topbill.reporting.past import ExperimentLibrary
    from topbill.reporting.queries.database import ListedExperiment
    from topbill.reporting.queries.launches import LaunchStanding
    from topbill.service.worker_health import WorkerHealth

_SECONDS = 2.0
"""Between two looks."""
Watch = Annotated[
    bool, Parameter(negative="", help="Show it anew every two seconds, until Ctrl-C.")
]


class StandingNow(msgspec.Struct, frozen=True):
    """What `topbill status --json` prints. `orders` are those that hold now, `alarms` those that
    stand, `duties` what workers do."""

    worker: WorkerHealth
    experiments: list[ListedExperiment]
    orders: list[Order]
    problems: list[Problem]
    alarms: list[AlarmLine]
    launches: list[LaunchStanding]
    duties: list[Duty]


@app.command(name="list")
def list_(*, data: Data = DATA, lake_url: LakeUrl = "", output: Output = TEXT) -> None:
    """List every experiment that the record knows, running ones first; also those whose file is
    gone, for as long as their decisions are kept. Of those that were concluded: who won, with what
    lift as measured and as it is to be believed beside all others, and why.
    """
    use_lake(lake_url)
    from topbill.reporting import past
    from topbill.reporting.queries import database

    listed = database.experiments(data)
    library = past.experiment_library(data)
    found = [{**msgspec.to_builtins(e), "conclusion": library.of(e.key)} for e in listed]
    output.show(found, lambda: _say_listed(listed, library))


def _say_listed(listed: Sequence[ListedExperiment], library: ExperimentLibrary) -> None:
    from topbill.reporting import past

    for line in listed:
        span = "nothing decided yet"
        if line.first_at is not None and line.last_at is not None:
            first, last = (f"{at:%Y-%m-%d}" for at in (line.first_at, line.last_at))
            span = f"{line.decisions:,} decisions, {first} to {last}"
        say(f"{line.key}  {line.status}  {line.title or line.surface}  ({span})")
        ended = library.of(line.key)
        if ended is not None:
            say(f"  {past.ended(ended)}")
    _say_kept(library, {line.key for line in listed})


def _say_kept(library: ExperimentLibrary, listed: set[str]) -> None:
    """Those of which nothing is left but the report that was kept."""
    from topbill.reporting import past

    for ended in library.experiments:
        if ended.key not in listed:
            say(f"{ended.key}  removed  {ended.title}  (only its report is kept)")
            say(f"  {past.ended(ended)}")


@app.command
def status(
    *,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    watch: Watch = False,
    output: Output = TEXT,
) -> None:
    """Say what runs, by whose order, whether the worker keeps up, and what somebody should look at.

    On a terminal it is one look, which --watch keeps new; elsewhere plain sentences. Exit status 1
    where there is something to look at, such as an alarm; what is only to be known of a page is
    none.
    """
    use_log(url)
    use_lake(lake_url)
    if watch:
        _watch(data, output)
        return
    standing = standing_now(data)
    output.show(
        standing,
        lambda: out.print(board(standing)) if out.is_terminal else _say_lines(standing),
        lambda: msgspec.to_builtins(standing.experiments),
    )
    if needs_a_look(standing):
        raise SystemExit(1)


def _watch(data: Path, output: Output) -> None:
    """Show what stands, anew every few seconds, until somebody ends it."""
    if not (output.is_text and out.is_terminal):
        raise BadRequest("--watch", "expected a terminal; leave it out, or call it again and again")
    with suppress(KeyboardInterrupt), Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            live.update(board(standing_now(data)), refresh=True)
            time.sleep(_SECONDS)


def _say_lines(standing: StandingNow) -> None:
    for line in _lines(standing):
        say(line)


def needs_a_look(standing: StandingNow) -> bool:
    """Whether somebody should look at something."""
    wrong = [problem for problem in standing.problems if problem.kind != "page"]
    return bool(wrong or standing.alarms or not standing.worker.alive)


def board(standing: StandingNow) -> Group:
    """All of it for one look: what is wrong first, then what runs."""
    parts: list[RenderableType] = [_headline(standing)]
    parts += [Text(f"  {line}", "red") for line in _alarm_lines(standing)]
    parts += [
        Text(f"  {line}", "yellow" if line.startswith("Know") else "red")
        for line in _problem_lines(standing)
    ]
    if standing.experiments:
        parts += ["", _experiments_table(standing)]
    for launch in standing.launches:
        parts += ["", Text(launch.experiment, "bold"), *map(Text, _launch_lines(launch))]
    return Group(*parts)


def _headline(standing: StandingNow) -> Text:
    """Whether all is well, and the worker."""
    if needs_a_look(standing):
        wrong = len(_alarm_lines(standing)) + sum(p.kind != "page" for p in standing.problems)
        text = Text("● ", "bold red").append(
            f"{several(wrong, 'thing')} to look at. " if wrong else "The worker is down. "
        )
    else:
        text = Text("● ", "bold green").append("All is well. ")
    return text.append(" ".join(_worker_lines(standing)), "default")


def _experiments_table(standing: StandingNow) -> Table:
    ordered = {order.experiment: order for order in standing.orders}
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for name in ("experiment", "status", "since", "decisions", "last"):
        right = name in ("decisions", "last")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for line in standing.experiments:
        status = condition(line.status)
        if line.key in ordered:
            status += f" by order of {ordered[line.key].who}"
        since = "" if line.since is None or line.status == "removed" else f"{line.since:%Y-%m-%d}"
        last = "" if line.last_at is None else f"{line.last_at:%m-%d %H:%M}"
        style = "" if line.status == "running" else "dim"
        table.add_row(line.key, status, since, f"{line.decisions:,}", last, style=style)
    return table


def standing_now(data: Path) -> StandingNow:
    """What stands on a data folder. Raises NotFound where there is no log."""
    from topbill.domain.alarm import standing as standing_alarms
    from topbill.lake import is_published
    from topbill.log import open_log_of
    from topbill.log.orders import in_force
    from topbill.reporting.queries import database
    from topbill.reporting.queries.launches import launches
    from topbill.service.worker_health import duties, worker_health

    with open_log_of(data, create=False) as log:
        health = worker_health(log)
        holding = in_force(log)
        alarms = standing_alarms(log.alarms())
        doing = sorted(duties(log).current.values(), key=lambda duty: duty.name)
    published = is_published(data)
    experiments = database.experiments(data) if published else []
    problems = database.problems(data) if published else []
    launching = launches(data) if published else []
    return StandingNow(health, experiments, holding, problems, alarms, launching, doing)


def _lines(standing: StandingNow) -> list[str]:
    lines = []
    ordered = {order.experiment: order for order in standing.orders}
    launching = {launch.experiment: launch for launch in standing.launches}
    for line in standing.experiments:
        # The last revision of a file that was taken away says nothing of when that was.
        since = ""
        if line.since is not None and line.status != "removed":
            since = f" since {minute(line.since)}"
        decisions = several(line.decisions, "decision")
        text = f"{line.key} is {condition(line.status)}{since}, {decisions}"
        order = ordered.get(line.key)
        if order is not None:
            reason = f": {order.because}" if order.because else ""
            ordered_so = order.status if order.conclusion is None else "concluded"
            text += f"; {ordered_so} by order of {order.who}, {minute(order.at)}{reason}"
        lines.append(text)
        if line.key in launching:
            lines += _launch_lines(launching[line.key])
    if not lines:
        lines.append("Nothing was published yet.")
    lines += _worker_lines(standing)
    return [*lines, *_alarm_lines(standing), *_problem_lines(standing)]


def _worker_lines(standing: StandingNow) -> list[str]:
    worker = standing.worker
    if not worker.alive:
        return ["The worker gives no sign of life: start `topbill worker`."]
    lag = "nothing is published yet"
    if worker.lag_seconds is not None:
        lag = f"the record is {worker.lag_seconds:,.0f} s old"
    return [f"The worker is at work; {lag}.", *_who_does_what(standing.duties)]


def _alarm_lines(standing: StandingNow) -> list[str]:
    from topbill.domain.alarm import headline

    lines = []
    for alarm in standing.alarms:
        lines.append(f"Alarm since {minute(alarm.at)}: {headline(alarm)}. {alarm.message}")
    return lines


def _problem_lines(standing: StandingNow) -> list[str]:
    lines = []
    for problem in standing.problems:
        place = f" {problem.path}" if problem.path else ""
        verb = "Know of" if problem.kind == "page" else "Look at"
        lines.append(f"{verb} {problem.subject}{place}: {problem.message}")
    return lines


def _who_does_what(duties: Sequence[Duty]) -> list[str]:
    """Which worker learns what, where there are several, and what is far behind."""
    learned: dict[str, list[str]] = {}
    lines = []
    for duty in duties:
        action, _, key = duty.name.partition(":")
        if action == "learn":
            learned.setdefault(duty.worker, []).append(key)
        if duty.behind:
            lines.append(f"{key}: {duty.behind}.")
    if len(learned) > 1:
        lines += [f"{worker} learns {', '.join(keys)}." for worker, keys in learned.items()]
        lines += [f"{duty.worker} publishes." for duty in duties if duty.name == "publish"]
    return lines


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _launch_lines(launch: LaunchStanding) -> list[str]:
    """Where a launch stands, and what was done before."""
    lines = [f"  launch: {launch.state}. {_capital(launch.says)}"]
    if launch.goes_on:
        lines.append(f"  {launch.goes_on}")
    if launch.needs_approval:
        lines.append(f"  `topbill approve {launch.experiment}` lets it go on")
    for step in launch.steps:
        because = f": {step.because}" if step.because else ""
        lines.append(f"    {minute(step.at)}  {step.name}, by {step.who}{because}")
    return lines
