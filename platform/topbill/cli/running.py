"""What stays: the service, the keeper, the dashboard, and all of them together."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from topbill.cli.shell import DATA, EXPERIMENTS, Data, Experiments, app, out, own_or_examples

Port = Annotated[int, Parameter(validator=Number(gte=1, lte=65_535))]
Workers = Annotated[int, Parameter(validator=Number(gte=1, lte=256))]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Service:
    """What `serve` and `up` are told."""

    experiments: Experiments = EXPERIMENTS
    data: Data = DATA
    host: Annotated[
        str, Parameter(help="Where the service listens; other than loopback needs keys")
    ] = "127.0.0.1"
    port: Annotated[
        Port, Parameter(help="The service's; with `up`, the dashboard takes the next one")
    ] = 8600
    workers: Annotated[Workers, Parameter(help="Processes that share the port and the log")] = 1
    keys: Annotated[
        Path | None,
        Parameter(help="File with one API key a line (or TOPBILL_KEYS, separated by commas)"),
    ] = None


@app.command
def serve(*, service: Service = Service()) -> None:
    """Answer decide and reward over HTTP."""
    from topbill.service import auth, run

    keys = auth.load_keys(service.host, service.keys)
    run.serve(
        service.experiments,
        service.data,
        host=service.host,
        port=service.port,
        workers=service.workers,
        keys=keys,
    )


@app.command
def keep(
    *,
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    host: str | None = None,  # noqa: ARG001
    port: Port | None = None,  # noqa: ARG001
    workers: Workers | None = None,  # noqa: ARG001
) -> None:
    """Fold the log into policies and publish it to the lake, until stopped.

    Args:
        host: Of no effect: the keeper doesn't listen. Taken so that `serve`, `keep` and `up` can
            share their options.
        port: Likewise.
        workers: Likewise: a data folder has one keeper.
    """
    from topbill.worker import loop as keeper

    with _answering(data):
        keeper.keep(experiments, data)


@contextmanager
def _answering(data: Path) -> Iterator[None]:
    """Beside the block, `topbill answers` in a process of its own, which the end of this one
    ends.
    """
    beside = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "topbill", "answers", "--data", str(data)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        beside.terminate()
        beside.communicate()


@app.command(show=False)
def answers(*, data: Data = DATA) -> None:
    """Work out in advance what the dashboards show of a large lake, until standard input ends.
    `keep` runs this.
    """

    def ended(seconds: float) -> bool:
        return bool(select.select([sys.stdin], [], [], seconds)[0])

    if not ended(20.0):  # a keeper that lives shortly has no use for it
        from topbill.reporting import answer_cache

        answer_cache.keep_up(data, ended)


@app.command
def up(*, service: Service = Service()) -> None:
    """Run service, keeper and dashboard together; one Ctrl-C ends them all.

    One that ends by itself is started again. The dashboard is always on loopback.
    """
    from topbill import pages, spec
    from topbill.cli.supervise import Processes, commands, free_port, stoppable

    experiments = own_or_examples(service.experiments)
    spec.load_all(
        pages.experiment_folders(experiments)
    )  # what is wrong there is said once, before anything starts
    host, port, data = service.host, service.port, service.data
    board = free_port("127.0.0.1", port + 1)
    more = [
        "--workers",
        str(service.workers),
        *(["--keys", str(service.keys)] if service.keys else []),
    ]
    with stoppable(), Processes() as processes:
        for name, command in commands(str(experiments), str(data), host, port, more).items():
            processes.start(name, *command)
        processes.start_dashboard(experiments, data, board)
        try:
            processes.wait_until(f"http://{host}:{port}/healthz")
            out.print(f"service    http://{host}:{port}/docs", highlight=False)
            out.print(f"dashboard  http://127.0.0.1:{board}", highlight=False)
            out.print(
                f"data       {data}  (topbill report KEY --data {data})",
                highlight=False,
                soft_wrap=True,
            )
            out.print("Ctrl-C ends it.")
            while True:
                processes.tend()
                time.sleep(0.5)
        except KeyboardInterrupt:
            out.print("Stopping.")


@app.command
def dashboard(
    *,
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    host: str = "127.0.0.1",
    port: Port = 8601,
) -> None:
    """Show the record in the browser: verdicts, bandits, pictures, decisions, health.

    Args:
        host: Where to listen; other than loopback needs a login or a password.
        port: Where to listen.
    """
    from topbill.cli import dashboard as dashboards

    dashboards.run(experiments, data, host=host, port=port)


@app.command
def demo(
    *,
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    port: Port = 8600,
    seconds: float = 60.0,
    forever: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Start everything on the example experiments, send simulated viewers over HTTP, and watch it
    learn.

    Args:
        port: Where the service listens; another one is taken where this is in use.
        seconds: How long viewers come.
        forever: Until Ctrl-C instead.
    """
    from topbill import reporting as reports
    from topbill import spec
    from topbill.cli.supervise import Processes, commands, free_port, stoppable
    from topbill.simulation.demo import run_demo, summary

    experiments = own_or_examples(experiments)
    loaded = spec.load_all([experiments])
    port = free_port("127.0.0.1", port)
    address = f"http://127.0.0.1:{port}"
    with stoppable(), Processes() as processes:
        for name, command in commands(str(experiments), str(data), "127.0.0.1", port).items():
            processes.start(name, *command)
        board = free_port("127.0.0.1", port + 1)
        processes.start_dashboard(experiments, data, board)
        processes.wait_until(f"{address}/healthz")
        out.print(
            f"service    {address}/docs\ndashboard  http://127.0.0.1:{board}\ndata       {data}",
            highlight=False,
        )
        driver = run_demo(
            address, loaded, out, seconds=None if forever else seconds, pages=experiments
        )
    out.rule("What you have seen")
    for experiment in loaded:
        if (
            experiment.key in driver.tally.experiments
            and (ab := reports.load(experiment.key, data).ab) is not None
        ):
            out.print(
                f"{experiment.key}: {ab.verdict.sentence}",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )
    for sentence in summary(driver, data=str(data)):
        out.print(sentence, highlight=False, soft_wrap=True, markup=False)
    out.print(
        f"Dashboard: topbill dashboard --data {data}", highlight=False, soft_wrap=True, markup=False
    )
