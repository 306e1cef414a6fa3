"""A folder's library of metrics, `metrics.yaml`: what a metric is, said once for all experiments.

An experiment that writes `NAME: library` is read as if it said what the library says of that name.
So its fingerprint is that of the whole: a metric that changes in the library is a new revision of
the experiments that use it, and what the log keeps of an experiment needs no library to be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from topbill.domain.errors import FileProblem, SpecError
from topbill.domain.suggestion import nearest
from topbill.spec.fields import INVALID, Location, line_of, listed
from topbill.spec.schema import LIBRARY, METRIC_LIBRARY
from topbill.spec.yaml import contents, parse

NAMES = ("metrics.yaml", "metrics.yml")
"""What a library's file is called. No experiment's file may be."""


@dataclass(frozen=True)
class MetricLibrary:
    """The metrics of a library as its file says them; `problems` with those that are wrong.

    Attributes:
        name: The file's name; empty where the folder has none.
        metrics: What it says of each metric, unchecked.
        lines: The line of each key by its path.
        problems: What is wrong, each naming file and line.
    """

    name: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[FileProblem] = field(default_factory=list)

    def located(self, problem: FileProblem, file: str) -> FileProblem:
        """The problem, said of the library's file and line; and of the experiment's `file` that
        uses the metric."""
        line = line_of(problem.path, self.lines)
        return replace(problem, file=self.name, line=line, used_by=file)


def uses_library(raw: Any) -> bool:
    """Whether a file takes some metric from the library."""
    metrics = raw.get("metrics") if isinstance(raw, dict) else None
    return isinstance(metrics, dict) and LIBRARY in metrics.values()


def path_of(folder: Path) -> Path | None:
    """The library's file in a folder; None where there is none."""
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    return None


def read(folder: Path) -> MetricLibrary:
    """The library of a folder. What is wrong with it is told in its problems."""
    path = path_of(folder)
    if path is None:
        return MetricLibrary()
    try:
        content, problems, lines = parse(contents(path), path.name)
    except SpecError as error:
        return MetricLibrary(path.name, problems=list(error.problems))
    at = Location(path.name, problems=problems, lines=lines)
    is_readable = METRIC_LIBRARY.read(content, at) is not INVALID
    metrics = content.get("metrics") if is_readable else None
    metrics = metrics if isinstance(metrics, dict) else {}
    return MetricLibrary(path.name, metrics, lines, at.problems)


def expanded(raw: Any, library: MetricLibrary, at: Location) -> tuple[Any, list[str]]:
    """What a file says, with each `NAME: library` replaced by what the library says of that name;
    and the names of those. Notes a problem for each name that is not there."""
    if not uses_library(raw):
        return raw, []
    metrics = raw["metrics"]
    whole: dict[str, Any] = {}
    names = []
    for name, parts in metrics.items():
        if parts != LIBRARY:
            whole[name] = parts
        elif isinstance(library.metrics.get(name), dict):
            whole[name] = library.metrics[name]
            names.append(name)
        elif not library.problems:
            _missing(name, library, at.key("metrics").key(name))
    at.problems.extend(library.problems)
    return raw | {"metrics": whole}, names


def _missing(name: str, library: MetricLibrary, at: Location) -> None:
    if not library.name:
        at.wrong(LIBRARY, f"a library in this folder: there is no {NAMES[0]}")
        return
    names = list(library.metrics)
    at.wrong(
        LIBRARY, f"one of the metrics of {library.name} ({listed(names)})", nearest(name, names)
    )


def relocated(
    problems: Iterable[FileProblem], names: Iterable[str], library: MetricLibrary, file: str
) -> list[FileProblem]:
    """The problems of an experiment; those of metrics that the library defines as its own."""
    starts = tuple(f"metrics.{name}" for name in names)
    result: dict[FileProblem, None] = {}
    for problem in problems:
        is_of_library = problem.file == file and any(
            problem.path == start or problem.path.startswith((f"{start}.", f"{start}["))
            for start in starts
        )
        # What is wrong with the library itself was told already, when it was read.
        if is_of_library and any(p.path == problem.path for p in library.problems):
            continue
        result[library.located(problem, file) if is_of_library else problem] = None
    return list(result)
