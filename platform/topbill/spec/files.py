"""Files and directories → experiments: one by one, and together where they share keys and
layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from topbill.domain.errors import FileProblem, SpecError
from topbill.spec import alerts, library, own_models
from topbill.spec.build import build
from topbill.spec.fields import INVALID, Location, line_of, percent
from topbill.spec.library import MetricLibrary, uses_library
from topbill.spec.model import Experiment
from topbill.spec.renames import modern, with_defaults_of_first_version
from topbill.spec.schema import EXPERIMENT
from topbill.spec.yaml import contents, parse

Verdict = tuple[Path, Experiment | SpecError]
SMALLEST = """
    experiment: home-hero
    surface: artwork
    actions: [{id: close-up}, {id: chase}]
    metrics: {play: {event: play, kind: binary, window: 1h}}
    objective: {play: 1}
    variants:
      editorial: {policy: fixed, order: [close-up], share: 50%, control: true}
      thompson: {policy: thompson, share: 50%}"""
"""The fewest keys of an experiment that compares two variants: what an empty file may become."""


def load(path: Path) -> Experiment:
    """The experiment in a file. Raises SpecError with every problem found in it."""
    raw, problems, lines = parse(contents(path), path.name)
    metrics = library.read(path.parent) if uses_library(raw) else MetricLibrary()
    at = Location(path.name, problems=list(problems), lines=lines)
    raw = own_models.pinned(raw, path.parent, at)
    experiment = from_raw(raw, path.name, at.problems, metrics, lines)
    own_models.check(experiment, at)
    if at.problems:
        raise SpecError(at.problems)
    return experiment


def from_raw(
    raw: Any,
    name: str,
    problems: Sequence[FileProblem] = (),
    metrics: MetricLibrary | None = None,
    lines: Mapping[str, int] | None = None,
) -> Experiment:
    """The experiment that parsed YAML (or the audit's JSON) says; `name` is what its problems are
    said of, `metrics` the library that it may refer to, `lines` those of its keys by their paths.

    Raises SpecError with every problem, after those already found.
    """
    at = Location(name, problems=list(problems), lines=lines or {})
    if raw is None:
        expected = f"an experiment, such as{SMALLEST}"
        raise SpecError([*problems, FileProblem(name, "file", "an empty file", expected)])
    metrics = metrics or MetricLibrary()
    raw, names = library.expanded(raw, metrics, at)
    # What could not be read doesn't stop the rest from being checked: all problems in one go.
    content = EXPERIMENT.read(raw, at)
    experiment = None if content is INVALID else build(content, raw, at)
    if experiment is None:
        raise SpecError(library.relocated(at.problems, names, metrics, name))
    return experiment


def from_audit(spec: str, name: str, revision: str | None = None) -> Experiment:
    """The experiment of an audit's JSON, which an older version may have written: with the keys and
    the defaults that it had then, where the `revision` (a fingerprint) that it was is told.

    Raises SpecError as `from_raw` does.
    """
    content, absent = own_models.without_absent(audited(spec, name))
    experiment = own_models.with_absent(from_raw(content, name), absent)
    if revision is None or experiment.fingerprint == revision:
        return experiment
    # Another fingerprint from the same words: they were read with other defaults.
    before = own_models.with_absent(from_raw(with_defaults_of_first_version(content), name), absent)
    return before if before.fingerprint == revision else experiment


def with_lines(error: SpecError, path: Path) -> SpecError:
    """The same problems, those of this file with their lines: where they turned out only after the
    file was read.
    """
    try:
        lines = parse(contents(path), path.name).lines
    except SpecError:
        return error
    problems = []
    for problem in error.problems:
        if problem.file == path.name and not problem.line:
            problem = replace(problem, line=line_of(problem.path, lines))
        problems.append(problem)
    return SpecError(problems)


def audited(spec: str, name: str) -> dict[str, Any]:
    """What an audit's JSON says, with today's keys. Raises SpecError where it is damaged."""
    try:
        content: dict[str, Any] = modern(msgspec.json.decode(spec, type=dict[str, Any]))
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"
        expected = "an experiment as it was noted; put the log back from a backup"
        raise SpecError([FileProblem(name, "file", got, expected)]) from error
    return content


def validate(paths: Sequence[Path]) -> list[Verdict]:
    """Every file with its experiment, or with all that is wrong with it, alone or beside the
    others.

    A directory stands for its `*.yaml` and `*.yml`, not for those of directories inside it.
    """
    verdicts: list[Verdict] = []
    for file in _files(paths):
        try:
            if file.name in alerts.NAMES:
                alerts.load_settings(file)
                problem = FileProblem(file.name, "file", "alerts", "an experiment file")
                raise SpecError([problem])
            if file.name in library.NAMES:
                # Given by itself: it is no experiment, and all that can be told of it is wrong.
                problem = FileProblem(file.name, "file", "a metric library", "an experiment file")
                raise SpecError(library.read(file.parent).problems or [problem])
            if file.is_dir():
                problem = FileProblem(
                    str(file), "directory", "no *.yaml", "at least one experiment file"
                )
                raise SpecError([problem])
            verdicts.append((file, load(file)))
        except SpecError as error:
            verdicts.append((file, error))
    return _together(verdicts)


def readable(paths: Sequence[Path]) -> list[Experiment]:
    """The experiments of those files that can be read, whatever is wrong with others."""
    return [verdict for _, verdict in validate(paths) if isinstance(verdict, Experiment)]


def load_all(paths: Sequence[Path]) -> list[Experiment]:
    """The experiments of all files, sorted by key, each with its own slice of its layer.

    Raises SpecError with every problem of every file.
    """
    experiments: list[Experiment] = []
    problems: list[FileProblem] = []
    for _, verdict in validate(paths):
        if isinstance(verdict, SpecError):
            problems += verdict.problems
        else:
            experiments.append(verdict)
    if problems:
        raise SpecError(problems)
    return sorted(experiments, key=lambda experiment: experiment.key)


def _files(paths: Iterable[Path]) -> list[Path]:
    """The files that paths stand for, each once; a directory without any stands for itself, so that
    this can be told.
    """
    files: dict[Path, None] = {}
    for path in paths:
        inside = yaml_in(path) if path.is_dir() else []
        is_broken = path.is_dir() and library.read(path).problems
        # A library is no experiment; it is looked at by itself to tell what is wrong with it.
        inside = [file for file in inside if is_broken or file.name not in library.NAMES]
        # What is wrong with it keeps no experiment from deciding; see `alerts.read_settings`.
        inside = [file for file in inside if file.name not in alerts.NAMES]
        files.update(dict.fromkeys(inside or [path]))
    return list(files)


def yaml_in(folder: Path) -> list[Path]:
    """The YAML files of a folder, sorted. Hidden ones are the locks and copies of editors and file
    systems.
    """
    paths = (*folder.glob("*.yaml"), *folder.glob("*.yml"))
    return sorted(path for path in paths if not path.name.startswith("."))


def marks(folder: Path) -> dict[Path, tuple[int, int]]:
    """Time and size of every YAML file and model of an experiments' folder, its pages' too: another
    answer, another state.
    """
    paths: list[Path] = []
    for place in (folder, folder / "pages", *folder.glob("pages/*/")):
        paths += [*yaml_in(place), *own_models.files(place)]
    return marks_of(paths)


def marks_of(paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Time and size of each of these files that is there."""
    state = {}
    # Time and size, not content: service and worker ask this again and again.
    for path in paths:
        with suppress(OSError):  # gone since it was listed, or a link to nothing
            stat = path.stat()
            state[path] = (stat.st_mtime_ns, stat.st_size)
    return state


def _together(verdicts: list[Verdict]) -> list[Verdict]:
    """Keys are unique, and those experiments of a layer that hold a place in it get disjoint slices
    of [0, 1).

    Slices follow each other in the order of keys. Running and paused experiments hold a place.
    """
    owners: dict[str, Path] = {}
    layers = _Layers()
    personalizer: Path | None = None
    result: dict[Path, Experiment | SpecError] = dict(verdicts)
    for path, experiment in _in_order_of_keys(verdicts):
        # Keys are told apart by their letters only: some file systems and DuckDB do no better.
        owner = owners.setdefault(experiment.key.lower(), path)
        if owner is not path:
            expected = f"a key of its own: {owner.name} has this one already"
            result[path] = _refusal(path, "experiment", repr(experiment.key), expected)
            continue
        # A paused one holds its place, so that its units find themselves in it again afterwards.
        if experiment.status not in ("running", "paused"):
            continue
        # Its HTTP API has no place for an experiment's key.
        if experiment.personalizer and personalizer is not None:
            expected = (
                f"one experiment with personalizer: true: {personalizer.name} says it already"
            )
            result[path] = _refusal(path, "personalizer", "true", expected)
            continue
        if experiment.personalizer:
            personalizer = path
        result[path] = layers.place(path, experiment)
    return list(result.items())


def in_layers(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Experiments that ran beside each other, each with its own slice of its layer, which no audit
    holds. One that fits in no more keeps the slice that it has."""
    every = list(experiments)
    verdicts: list[Verdict] = [(Path(str(number)), one) for number, one in enumerate(every)]
    placed = []
    for experiment, (_, verdict) in zip(every, _together(verdicts), strict=True):
        placed.append(experiment if isinstance(verdict, SpecError) else verdict)
    return placed


def _in_order_of_keys(verdicts: Iterable[Verdict]) -> list[tuple[Path, Experiment]]:
    """The valid ones. How files are called decides only between equal keys."""
    valid = [(path, verdict) for path, verdict in verdicts if not isinstance(verdict, SpecError)]
    return sorted(valid, key=lambda pair: (pair[1].key, pair[0]))


class _Layers:
    """How much of each layer is taken."""

    def __init__(self) -> None:
        self._taken: dict[str, float] = {}

    def place(self, path: Path, experiment: Experiment) -> Experiment | SpecError:
        """The experiment with the next slice of its layer, or why it doesn't fit there."""
        layer = experiment.layer
        start = self._taken.get(layer, 0.0)
        # Rounded, since shares such as 10% and 20% would sum to a little more than 30%.
        end = round(start + experiment.traffic, 9)
        if end <= 1.0:
            self._taken[layer] = end
            return replace(experiment, layer_start=start)
        free = percent(1.0 - start)
        return _refusal(
            path,
            "traffic",
            f"{percent(experiment.traffic)} where {free} of layer {layer} is left",
            "at most 100% in a layer",
            "lower the traffic, stop another experiment of this layer, or choose another layer",
        )


def _refusal(path: Path, key: str, got: str, expected: str, hint: str = "") -> SpecError:
    return with_lines(SpecError([FileProblem(path.name, key, got, expected, hint)]), path)
