"""The command line: every verb of Topbill, thin over the modules that do the work."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from topbill import __version__
from topbill.errors import NotFound, SpecError, TopbillError

# Matrices here are small: a second BLAS thread only spins. NumPy reads this when it is first imported, below.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

app = cyclopts.App(
    name="topbill",
    version=__version__,
    help="Decides what a viewer sees on a streaming homepage with contextual bandits, and proves what it was worth.",
)
out = Console()
err = Console(stderr=True)

Experiments = Annotated[Path, Parameter(help="Folder of experiment files")]
Data = Annotated[Path, Parameter(help="Folder of the log and the lake")]
Port = Annotated[int, Parameter(validator=Number(gte=1, lte=65_535))]
Workers = Annotated[int, Parameter(validator=Number(gte=1, lte=256))]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON")]
_EXPERIMENTS = Path("experiments")
_DATA = Path("data")
_MOST_ROWS = 200


@app.command
def serve(
    *,
    experiments: Experiments = _EXPERIMENTS,
    data: Data = _DATA,
    host: str = "127.0.0.1",
    port: Port = 8600,
    workers: Workers = 1,
    keys: Path | None = None,
) -> None:
    """Answer decide and reward over HTTP.

    Parameters
    ----------
    host: Where to listen; other than loopback needs keys.
    workers: Processes that share the port and the log.
    keys: File with one API key a line (or TOPBILL_KEYS, separated by commas).
    """
    from topbill.service import auth, run

    run.serve(experiments, data, host=host, port=port, workers=workers, keys=auth.load_keys(host, keys))


@app.command
def keep(
    *,
    experiments: Experiments = _EXPERIMENTS,
    data: Data = _DATA,
    host: str | None = None,  # noqa: ARG001
    port: Port | None = None,  # noqa: ARG001
    workers: Workers | None = None,  # noqa: ARG001
) -> None:
    """Fold the log into policies and publish it to the lake, until stopped.

    Parameters
    ----------
    host: Of no effect: the keeper doesn't listen. Taken so that `serve`, `keep` and `up` can share their options.
    port: Likewise.
    workers: Likewise: a data folder has one keeper.
    """
    from topbill.keeper import main as keeper

    keeper.keep(experiments, data)


@app.command
def validate(*paths: Path) -> None:
    """Check experiment files and say everything that is wrong with them; exit 1 where anything is.

    Parameters
    ----------
    paths: Files or folders (default: experiments/).
    """
    from topbill import pages, spec

    given = list(paths) or [_EXPERIMENTS]
    verdicts = spec.validate([file for path in given for file in pages.sources(path)])
    failed = False
    known = [verdict for _, verdict in verdicts if not isinstance(verdict, SpecError)]
    for file, verdict in [*verdicts, *(found for path in given for found in pages.validate(path, known))]:
        if isinstance(verdict, SpecError):
            failed = True
            out.print(f"[red]invalid[/] {file}", highlight=False, soft_wrap=True)
            for problem in verdict.problems:
                out.print(f"  {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
        elif isinstance(verdict, pages.PageFile):
            layers = ", ".join(verdict.layers.values())
            out.print(f"[green]valid[/]   {file}: {verdict.key}, page of {layers}", highlight=False, soft_wrap=True)
        else:
            kinds = ", ".join(f"{v.name} ({v.policy}, {v.share:.0%})" for v in verdict.variants)
            out.print(
                f"[green]valid[/]   {file}: {verdict.key}, {verdict.surface}, {kinds}", highlight=False, soft_wrap=True
            )
    if not verdicts:
        raise NotFound(f"{', '.join(map(str, paths)) or _EXPERIMENTS}: no *.yaml file there")
    if failed:
        sys.exit(1)


@app.command
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors' completion."""
    from topbill import spec

    print(json.dumps(spec.json_schema(), indent=2))


@app.command
def rebuild(key: str, *, experiments: Path | None = None, data: Data = _DATA) -> None:
    """Fold an experiment's log again from the start; exit 0 when it reaches the stored state, bit by bit.

    Parameters
    ----------
    key: The experiment.
    experiments: Folder of its file; left out, its newest revision in the log's audit is taken.
    """
    from topbill import pages, spec
    from topbill.keeper import archive
    from topbill.keeper.learner import rebuild as fold_again
    from topbill.log.sqlite import SqliteLog

    if not (data / "log.sqlite").exists():
        raise NotFound(f"{data}: no log there; expected the data folder of `topbill up`")
    log = SqliteLog(data / "log.sqlite")
    audit = {} if experiments else {revision.experiment: revision.spec for revision in log.revisions()}
    files = {e.key: e for e in spec.load_all(pages.sources(experiments))} if experiments else {}
    if key not in audit and key not in files:
        known = ", ".join(sorted({*audit, *files})) or "(none)"
        raise NotFound(f"{experiments or data}: no experiment {key!r}; expected one of {known}")
    experiment = files[key] if experiments else spec.from_raw(json.loads(audit[key]), f"{key} (audit)")
    with err.status(f"folding the log of {key}"):
        held, states = fold_again(log, experiment, archive.reader(data))
    log.close()
    same = held.states == states
    verdict = "[green]equals[/]" if same else "[red]differs from[/]"
    out.print(f"{key}: the state rebuilt to watermark {held.watermark} {verdict} the stored version {held.version}")
    for variant, state in states.items():
        if held.states.get(variant) != state:
            out.print(f"  {variant}: {len(state):,} bytes rebuilt, {len(held.states.get(variant, b'')):,} stored")
    if not same:
        sys.exit(1)


@app.command
def up(
    *,
    experiments: Experiments = _EXPERIMENTS,
    data: Data = _DATA,
    host: str = "127.0.0.1",
    port: Port = 8600,
    workers: Workers = 1,
    keys: Path | None = None,
) -> None:
    """Run service, keeper and dashboard together; one Ctrl-C ends them all.

    Parameters
    ----------
    host: Where the service listens; other than loopback needs keys.
    port: The service's; the dashboard, always on loopback, takes the next one.
    workers: Service processes that share the port and the log.
    keys: File with one API key a line (or TOPBILL_KEYS, separated by commas).
    """
    from topbill.supervise import Processes, commands, free_port, stoppable

    board = free_port("127.0.0.1", port + 1)
    more = ["--workers", str(workers), *(["--keys", str(keys)] if keys else [])]
    with stoppable(), Processes() as processes:
        for name, command in commands(str(experiments), str(data), host, port, more).items():
            processes.start(name, *command)
        processes.start_dashboard(experiments, data, board)
        try:
            processes.wait_until(f"http://{host}:{port}/healthz")
            out.print(f"service    http://{host}:{port}/docs", highlight=False)
            out.print(f"dashboard  http://127.0.0.1:{board}", highlight=False)
            out.print(f"data       {data}  (topbill report KEY --data {data})", highlight=False)
            out.print("Ctrl-C ends it.")
            while True:
                processes.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            out.print("Stopping.")


@app.command
def dashboard(
    *, experiments: Experiments = _EXPERIMENTS, data: Data = _DATA, host: str = "127.0.0.1", port: Port = 8601
) -> None:
    """Show the record in the browser: verdicts, bandits, pictures, decisions, health.

    Parameters
    ----------
    host: Where to listen; other than loopback needs a login or a password.
    """
    from topbill import dashboard as dashboards

    dashboards.run(experiments, data, host=host, port=port)


@app.command
def demo(
    *,
    experiments: Experiments = _EXPERIMENTS,
    data: Data = _DATA,
    port: Port = 8600,
    seconds: float = 60.0,
    forever: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Start everything on the example experiments, send simulated viewers over HTTP, and watch it learn.

    Parameters
    ----------
    port: Where the service listens; another one is taken where this is in use.
    seconds: How long viewers come.
    forever: Until Ctrl-C instead.
    """
    from topbill import report as reports
    from topbill import spec
    from topbill.simulate.demo import run_demo, summary
    from topbill.supervise import Processes, commands, free_port, stoppable

    loaded = spec.load_all([experiments])
    port = free_port("127.0.0.1", port)
    address = f"http://127.0.0.1:{port}"
    with stoppable(), Processes() as processes:
        for name, command in commands(str(experiments), str(data), "127.0.0.1", port).items():
            processes.start(name, *command)
        board = free_port("127.0.0.1", port + 1)
        processes.start_dashboard(experiments, data, board)
        processes.wait_until(f"{address}/healthz")
        out.print(f"service    {address}/docs\ndashboard  http://127.0.0.1:{board}\ndata       {data}", highlight=False)
        driver = run_demo(address, loaded, out, seconds=None if forever else seconds)
    out.rule("What you have seen")
    for experiment in loaded:
        if experiment.key in driver.tally.experiments and (ab := reports.load(experiment.key, data).ab) is not None:
            out.print(f"{experiment.key}: {ab.verdict.sentence}", highlight=False, soft_wrap=True, markup=False)
    for sentence in summary(driver, data=str(data)):
        out.print(sentence, highlight=False, soft_wrap=True, markup=False)
    out.print(f"Dashboard: topbill dashboard --data {data}", highlight=False, soft_wrap=True, markup=False)


@app.command
def simulate(file: Path, *, rounds: int = 20_000, seed: int = 0, json_: Json = False) -> None:
    """Try an experiment on simulated viewers whose truth is known, in process and on simulated time.

    Parameters
    ----------
    file: The experiment file.
    rounds: Visits to simulate.
    seed: Chooses world and viewers.
    """
    from topbill import spec
    from topbill.simulate.run import run
    from topbill.simulate.tally import table

    experiment = spec.load(file)
    with _progress() as bar:
        task = bar.add_task(experiment.key, total=rounds)
        lines = run(experiment, rounds, seed=seed, progress=lambda done: bar.update(task, completed=done))
    _print_json(lines) if json_ else out.print(table(lines, title=f"{experiment.key}: {rounds:,} simulated visits"))


replay = cyclopts.App(name="replay", help="Replay real logs through the real decide, log and learn path.")
app.command(replay)


@replay.command
def obd(file: Path, *, policy: tuple[str, ...] = (), json_: Json = False) -> None:
    """Rejection replay of an Open Bandit log that a uniform-random policy made (Li et al. 2011).

    Parameters
    ----------
    file: The log, Parquet or CSV.
    policy: A kind of policy; may be given several times.
    """
    from topbill.simulate.replay import DEFAULT_KINDS, reading, replay_obd, table

    kinds = policy or DEFAULT_KINDS
    with _progress() as bar:
        tasks = {kind: bar.add_task(kind, total=None) for kind in kinds}
        found = replay_obd(
            file, kinds, progress=lambda kind, done, rows: bar.update(tasks[kind], completed=done, total=rows)
        )
    if json_:
        _print_json(found)
    else:
        out.print(table(found))
        out.print(reading(found), highlight=False)


@app.command
def report(key: str, *, data: Data = _DATA, json_: Json = False, html: Path | None = None) -> None:
    """One experiment's report, from the lake: the verdict, each metric, what was shown, and whether to trust it.

    Parameters
    ----------
    key: The experiment.
    html: Write it to this file instead, self-contained, with charts.
    """
    from topbill import report as reports

    found = reports.load(key, data)
    if html is not None:
        html.write_text(reports.to_html(found))
        out.print(f"{html}: written", highlight=False)
    elif json_:
        print(reports.to_json(found))
    else:
        reports.render_text(found, out)


@app.command(name="page")
def page_report(key: str, *, data: Data = _DATA, weights: tuple[str, ...] = (), json_: Json = False) -> None:
    """A page's report: what each layer's variants do to the whole page, on every objective.

    Parameters
    ----------
    key: The page.
    weights: METRIC=WEIGHT, several times: weighs the objective anew over all of history.
    """
    from topbill.errors import BadRequest
    from topbill.report import page as reports

    chosen: dict[str, float] = {}
    for given in weights:
        name, _, weight = given.partition("=")
        try:
            chosen[name] = float(weight)
        except ValueError:
            raise BadRequest("weights", f"got {given!r}; expected METRIC=WEIGHT, for example play=0.2") from None
    found = reports.load(key, data, weights=chosen or None)
    _print_json(found) if json_ else reports.render(found, out)


@app.command
def power(key: str, *, data: Data = _DATA, metric: str | None = None, json_: Json = False) -> None:
    """How long an experiment must run, from its own traffic: units and days that a lift needs, and what shows when.

    Parameters
    ----------
    key: The experiment.
    metric: Which metric (default: what its verdict is about).
    """
    from topbill.report import plan

    found = plan.plan(key, data, metric=metric)
    _print_json(found) if json_ else plan.render_plan(found, out)


@app.command
def evaluate(
    key: str,
    *,
    policy: str,
    variant: str | None = None,
    estimators: tuple[str, ...] = (),
    interval: Literal["normal", "bootstrap", "betting", "sequence"] = "normal",
    alpha: float = 0.05,
    data: Data = _DATA,
    json_: Json = False,
) -> None:
    """What another policy would have earned in an experiment, from its log alone.

    Parameters
    ----------
    key: The experiment whose log is used.
    policy: An experiment file, snapshot, uniform, or "always ACTION".
    variant: Only this variant of the file.
    estimators: Names of estimators, separated by commas or given several times.
    interval: How intervals are made.
    alpha: 1 − the intervals' level.
    """
    from topbill.ope import evaluate as evaluate_policy
    from topbill.ope import text

    names = tuple(name.strip() for given in estimators for name in given.split(",")) or None
    with _progress() as bar:
        task = bar.add_task(key, total=None)
        found = evaluate_policy(
            key,
            policy,
            data,
            variant=variant,
            estimators=names,
            interval=interval,
            alpha=alpha,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(json.dumps(found.as_dict(), indent=2)) if json_ else text.render(found, out)


@app.command
def sql(query: str, *, data: Data = _DATA, json_: Json = False) -> None:
    """One reading statement on the record: views decisions, rewards, placements, feedback, units.

    Parameters
    ----------
    query: SQL in DuckDB's dialect.
    """
    from topbill import lake

    found = lake.sql(data / lake.FACE, query)
    if json_:
        print(json.dumps(found.to_pylist(), default=str, indent=2))
        return
    table = Table(box=SIMPLE)
    for name in found.column_names:
        table.add_column(name)
    for row in found.slice(0, _MOST_ROWS).to_pylist():
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    out.print(table)
    if found.num_rows > _MOST_ROWS:
        out.print(f"{_MOST_ROWS} of {found.num_rows:,} rows; add a LIMIT, or --json for all")


Format = Literal["dsjson", "eppo", "parquet", "arrow", "delta", "open-bandit"]


@app.command(name="import")
def import_(
    file: Path,
    *,
    data: Data,
    format: Format | None = None,  # noqa: A002 (what it is called on the command line)
    key: str = "imported",
    experiments: Experiments = _EXPERIMENTS,
) -> None:
    """Put a foreign log into a data folder of its own, for reports and evaluation; interrupted, it goes on.

    Parameters
    ----------
    file: dsjson (CB and CCB), Eppo's bandit events, Parquet, Arrow, Delta, or the Open Bandit CSV.
    format: Where the name does not tell.
    key: The experiment of lines that name none.
    """
    from topbill import spec
    from topbill.transfer import import_log

    known = spec.load_all([experiments]) if experiments.exists() else []
    with _progress() as bar:
        task = bar.add_task(file.name, total=None)
        found = import_log(
            file,
            data,
            format=format,
            key=key,
            experiments=known,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    out.print(f"{data}: holds {found:,} decisions from {file}", highlight=False, soft_wrap=True)


@app.command
def export(
    key: str,
    target: Path,
    *,
    data: Data = _DATA,
    format: Format | None = None,  # noqa: A002
) -> None:
    """Write an experiment's decisions with their rewards for other tools; interrupted, it goes on.

    Parameters
    ----------
    key: The experiment.
    target: A file (dsjson, eppo), or a folder (parquet, arrow, delta) that takes what is not in it yet.
    format: Where the name does not tell.
    """
    from topbill.transfer import export_log

    with _progress() as bar:
        task = bar.add_task(key, total=None)
        found = export_log(
            key,
            data,
            target,
            format=format,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    out.print(f"{target}: {found:,} decisions written", highlight=False, soft_wrap=True)


def _progress() -> Progress:
    """A progress bar on standard error, so that standard output stays what was asked for."""
    return Progress(*Progress.get_default_columns(), console=err, transient=True)


def _print_json(found: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


def main() -> None:
    """Run the command line; what went wrong is one message on standard error and exit status 1."""
    try:
        app()
    except TopbillError as error:
        err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
