"""Experiment files: what is wrong with them, and their schema for editors."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from rich.markup import escape

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import EXPERIMENTS, app, out, say
from topbill.domain.errors import BadRequest, FileProblem, NotFound, SpecError
from topbill.domain.formatting import listing
from topbill.shipped import shipped

if TYPE_CHECKING:
    from topbill.pages import PageFile
    from topbill.spec import Experiment, Variant

    Line = tuple[Path, Experiment | PageFile | SpecError]


@app.command
def examples(folder: Path = EXPERIMENTS, *, output: Output = TEXT) -> None:
    """Copy Topbill's example experiments into a new folder, to start your own from.

    Args:
        folder: Where to; it must not be there yet.
    """
    if folder.exists():
        raise BadRequest("folder", f"{folder} is there already; expected the name of a new folder")
    shutil.copytree(shipped("experiments"), folder)
    files = sorted(file.name for file in folder.glob("*.yaml"))
    output.show(
        {"folder": str(folder), "files": files},
        lambda: say(f"{folder}: {', '.join(files)}; topbill up serves them"),
    )


@app.command
def validate(*paths: Path, output: Output = TEXT) -> None:
    """Check experiment files and say everything that is wrong with them; exit 1 where anything is.

    Args:
        paths: Files or folders (default: experiments/).
    """
    from topbill import pages, spec
    from topbill.spec import alerts

    places = paths or (EXPERIMENTS,)
    # A page file can only be checked beside the experiments that it names: its folder is.
    folders = list(dict.fromkeys(pages.folder_of(path) for path in places))
    files = []
    for folder in folders:
        files += pages.experiment_folders(folder)
    # Who is told of alarms stands in a file of its own.
    alert_files = [file for folder in folders if (file := alerts.path_of(folder)) is not None]
    files = [file for file in files if file.name not in alerts.NAMES]
    verdicts = spec.validate(files)
    if not verdicts and not alert_files:
        raise NotFound(f"{', '.join(map(str, places))}: no *.yaml file there")
    verdicts = [(file, _checked(file, verdict)) for file, verdict in verdicts]
    valid = [verdict for _, verdict in verdicts if not isinstance(verdict, SpecError)]
    lines: list[Line] = [*verdicts]
    for folder in folders:
        lines += pages.validate(folder, valid)
    by_key = {experiment.key: experiment for experiment in valid}
    found = [_found(file, verdict, by_key) for file, verdict in lines]
    found += [_found_alerts(file, valid) for file in alert_files]
    output.show(found, lambda: _say(found), lambda: _rows(found))
    if not all(one.valid for one in found):
        sys.exit(1)


class FileVerdict(msgspec.Struct, frozen=True):
    """A file: what it is where it is valid, and what is wrong with it where it is not. `notes` are
    no mistakes but worth knowing.
    """

    file: str
    valid: bool
    description: str = ""
    notes: list[str] = []
    problems: list[FileProblem] = []


def _rows(found: Iterable[FileVerdict]) -> Iterator[dict[str, Any]]:
    """A row a problem; of a valid file one without."""
    for one in found:
        for problem in one.problems:
            yield {"file": one.file, "valid": False, **msgspec.to_builtins(problem)}
        if one.valid:
            yield {"file": one.file, "valid": True}


def _checked(file: Path, verdict: Experiment | SpecError) -> Experiment | SpecError:
    """The verdict on a file once its policies were made, and the SQL of its metrics was bound to
    the lake's views.
    """
    from topbill import pages
    from topbill.spec import with_lines

    if isinstance(verdict, SpecError):
        return verdict
    made = pages.validate_experiment(verdict)
    if isinstance(made, SpecError):
        return with_lines(made, file)
    return _with_sql_checked(file, verdict)


def _with_sql_checked(file: Path, verdict: Experiment) -> Experiment | SpecError:
    if not any(metric.table and metric.table.sql for metric in verdict.unit_metrics):
        return verdict
    # DuckDB is waited for only where it is needed.
    from topbill import spec
    from topbill.reporting.experiment.table_metrics import sql_problems

    # Its SQL may read the views of the other experiments of the folder.
    beside = {verdict.key: verdict}
    for _, other in spec.validate([file.parent]):
        if not isinstance(other, SpecError):
            beside.setdefault(other.key, other)
    problems = sql_problems(verdict, list(beside.values()))
    return spec.with_lines(SpecError(problems), file) if problems else verdict


def _found(
    file: Path, verdict: Experiment | PageFile | SpecError, experiments: Mapping[str, Experiment]
) -> FileVerdict:
    from topbill.pages import PageFile

    if isinstance(verdict, SpecError):
        return FileVerdict(str(file), False, problems=list(verdict.problems))
    if isinstance(verdict, PageFile):
        notes = list(_notes_of_page(verdict, experiments))
        return FileVerdict(str(file), True, _page(verdict), notes)
    notes = list(_notes(verdict, len(verdict.actions)))
    return FileVerdict(str(file), True, _experiment(verdict), notes)


def _found_alerts(file: Path, experiments: Iterable[Experiment]) -> FileVerdict:
    """What is to be said of a folder's alerts.yaml."""
    from topbill.spec.alerts import load_settings, unknown_channels

    try:
        settings = load_settings(file)
        problems = []
        for experiment in experiments:
            problems += unknown_channels(settings, experiment.source, experiment.alerts)
        if problems:
            raise SpecError(problems)
    except SpecError as error:
        return FileVerdict(str(file), False, problems=list(error.problems))
    channels = ", ".join(channel.name for channel in settings.channels)
    return FileVerdict(str(file), True, f"alarms go to {channels}")


def _say(found: Iterable[FileVerdict]) -> None:
    for one in found:
        if one.valid:
            line = f"[green]valid[/]   {escape(one.file)}: {escape(one.description)}"
        else:
            line = f"[red]invalid[/] {escape(one.file)}"
        out.print(line, highlight=False, soft_wrap=True)
        for problem in one.problems:
            say(f"  {problem}", "red")
        for note in one.notes:
            say(f"  note: {note}", "yellow")


def _experiment(experiment: Experiment) -> str:
    variants = ", ".join(f"{v.name} ({v.policy}, {v.share:.0%})" for v in experiment.variants)
    return f"{experiment.key}, {experiment.surface}, {variants}"


def _page(page: PageFile) -> str:
    return f"{page.key}, page of {', '.join(page.layers.values())}"


def _notes(experiment: Experiment, candidates: int, slots: int | None = None) -> Iterator[str]:
    """What is no mistake but worth knowing: variants whose `min_probability` leaves little to the
    policy, or whose probabilities may vanish for want of one; and what the steps of a launch
    cannot show. `candidates` is 0 where nobody knows yet how many there will be.
    """
    from topbill.spec.exploration import little_is_left, may_vanish

    yield from _compares_little(experiment)
    if experiment.entities:
        yield f"whether its tables fit says topbill features {experiment.source} --data DIR"

    for variant in experiment.variants:
        sentences = (
            little_is_left(
                variant.name, variant.min_probability, candidates, slots or experiment.slots
            ),
            may_vanish(variant, candidates),
        )
        for sentence in sentences:
            if sentence is not None:
                yield sentence
    if experiment.guardrails:
        # Statistics are waited for only where they are needed.
        from topbill.reporting.experiment.guardrail_notes import guardrail_notes

        yield from guardrail_notes(experiment)
    if experiment.launch is not None:
        from topbill.launch.hold import hold_notes

        yield from hold_notes(experiment)


def _compares_little(experiment: Experiment) -> Iterator[str]:
    """What keeps a file that is no mistake from telling much."""
    if experiment.status == "running" and not experiment.traffic:
        yield "it runs with traffic: 0%, so nobody is in a variant; a draft says status: draft"
    if len(experiment.variants) == 1:
        (only,) = experiment.variants
        yield f"{only.name} is the only variant: without a second one nothing is compared"
    for variant in experiment.variants:
        yield from _without_order(experiment, variant)
    for guardrail in experiment.guardrails:
        if experiment.objective.get(guardrail.metric):
            yield (
                f"{guardrail.metric} is both in the objective and a guardrail: policies trade it "
                "for the rest, and the guardrail forbids that they do"
            )


def _without_order(experiment: Experiment, variant: Variant) -> Iterator[str]:
    """What a fixed order that names nothing shows."""
    from topbill.policies.uniform import FixedParams

    params = variant.params
    if isinstance(params, FixedParams) and not params.order and experiment.actions:
        shown = listing([action.id for action in experiment.actions[: experiment.slots]])
        yield (
            f"{variant.name} says no order, so it shows the file's actions as they stand there: "
            f"{shown}"
        )


def _notes_of_page(page: PageFile, experiments: Mapping[str, Experiment]) -> Iterator[str]:
    """Of its catalogue, and of the layer whose candidates the page brings, and in what number it
    says: the titles.
    """
    from topbill import pages

    yield from pages.notes(page, page.read_catalog(), experiments.values(), pages.read_tables(page))
    titles = experiments[page.layers["titles"]]
    for sentence in _notes(titles, page.candidates, page.titles):
        yield f"{titles.key}, {sentence}"


@app.command
def schema(file: Literal["experiment", "page", "metrics", "alerts"] = "experiment") -> None:
    """Print the JSON Schema of a kind of file, for editors' completion.

    Args:
        file: The file of an experiment or of a page, metrics.yaml, or alerts.yaml.
    """
    from topbill.pages.files import page_schema
    from topbill.spec.alerts import alerts_schema
    from topbill.spec.schema import json_schema, library_schema

    schemas = {
        "experiment": json_schema,
        "page": page_schema,
        "metrics": library_schema,
        "alerts": alerts_schema,
    }
    print(json.dumps(schemas[file](), indent=2))
