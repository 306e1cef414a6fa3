"""Files and directories → experiments: one by one, and together where they share keys and
layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from topbill.domain.errors import FileProblem, SpecError
from topbill.spec.build import build
from topbill.spec.format import EXPERIMENT
from topbill.spec.forms import BAD, At, percent
from topbill.spec.model import Experiment
from topbill.spec.plain import MAX_BYTES, parse
from topbill.spec.renames import modern

Verdict = tuple[Path, Experiment | SpecError]


def load(path: Path) -> Experiment:
    """The experiment in a file. Raises SpecError with every problem found in it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(
            [FileProblem(path.name, "file", error.strerror or "an error", "a readable YAML file")]
        ) from None
    raw, problems = parse(data, path.name)
    return from_raw(raw, path.name, problems)


def from_raw(raw: Any, name: str, problems: Sequence[FileProblem] = ()) -> Experiment:
    """The experiment that parsed YAML (or the audit's JSON) says; `name` is what its problems are
    said of.

    Raises SpecError with every problem, after those already found.
    """
    at = At(name, problems=list(problems))
    read = EXPERIMENT.read(raw, at)
    experiment = None if read is BAD else build(read, raw, at)
    if experiment is None:
        raise SpecError(at.problems)
    return experiment


def from_audit(spec: str, name: str) -> Experiment:
    """The experiment of an audit's JSON, which an older version may have written: with the keys
    that it had then. Raises SpecError as `from_raw` does.
    """
    return from_raw(modern(msgspec.json.decode(spec)), name)


def validate(paths: Sequence[Path]) -> list[Verdict]:
    """Every file with its experiment, or with all that is wrong with it, alone or beside the
    others.

    A directory stands for its `*.yaml` and `*.yml`, not for those of directories inside it.
    """
    verdicts: list[Verdict] = []
    for file in _files(paths):
        try:
            if file.is_dir():
                raise SpecError(
                    [
                        FileProblem(
                            str(file), "directory", "no *.yaml", "at least one experiment file"
                        )
                    ]
                )
            verdicts.append((file, load(file)))
        except SpecError as error:
            verdicts.append((file, error))
    return _together(verdicts)


def load_all(paths: Sequence[Path]) -> list[Experiment]:
    """The experiments of all files, sorted by key, each with its own slice of its layer.

    Raises SpecError with every problem of every file.
    """
    verdicts = validate(paths)
    problems = [
        problem
        for _, found in verdicts
        if isinstance(found, SpecError)
        for problem in found.problems
    ]
    if problems:
        raise SpecError(problems)
    return sorted(
        (found for _, found in verdicts if isinstance(found, Experiment)), key=lambda e: e.key
    )


def _files(paths: Iterable[Path]) -> list[Path]:
    files: dict[Path, None] = {}
    for path in paths:
        files.update(dict.fromkeys((yaml_in(path) if path.is_dir() else []) or [path]))
    return list(files)


def yaml_in(folder: Path) -> list[Path]:
    """The YAML files of a folder, sorted. Hidden ones are the locks and copies of editors and file
    systems.
    """
    found = (*folder.glob("*.yaml"), *folder.glob("*.yml"))
    return sorted(path for path in found if not path.name.startswith("."))


def marks(folder: Path) -> dict[Path, tuple[int, int]]:
    """Time and size of every YAML file of an experiments' folder, its pages' too: another answer,
    another state.
    """
    held = {}
    for place in (folder, folder / "pages", *folder.glob("pages/*/")):
        for path in yaml_in(place):
            with suppress(OSError):  # gone since it was listed, or a link to nothing
                stat = path.stat()
                held[path] = (stat.st_mtime_ns, stat.st_size)
    return held


def _together(verdicts: list[Verdict]) -> list[Verdict]:
    """Keys are unique, and those experiments of a layer that hold a place in it get disjoint slices
    of [0, 1).

    Slices follow each other in the order of keys. Running and paused experiments hold a place.
    """
    owner: dict[str, Path] = {}
    taken: dict[str, float] = {}
    personalizer: Path | None = None
    result: dict[Path, Experiment | SpecError] = dict(verdicts)
    for path, found in sorted(
        verdicts, key=lambda v: (v[1].key if isinstance(v[1], Experiment) else "", v[0])
    ):
        if isinstance(found, SpecError):
            continue
        if (other := owner.setdefault(found.key.lower(), path)) is not path:
            expected = f"a key of its own: {other.name} has this one already"
            result[path] = SpecError(
                [FileProblem(path.name, "experiment", repr(found.key), expected)]
            )
            continue
        if found.status not in ("running", "paused"):
            continue
        if found.personalizer:
            if personalizer is not None:
                expected = (
                    f"one experiment with personalizer: true: {personalizer.name} says it already"
                )
                result[path] = SpecError([FileProblem(path.name, "personalizer", "true", expected)])
                continue
            personalizer = path
        start = taken.get(found.layer, 0.0)
        end = round(start + found.traffic, 9)
        if end > 1.0:
            got = f"{percent(found.traffic)} where {percent(1.0 - start)} of layer {found.layer} is left"
            hint = (
                "lower the traffic, stop another experiment of this layer, or choose another layer"
            )
            result[path] = SpecError(
                [FileProblem(path.name, "traffic", got, "at most 100% in a layer", hint)]
            )
        else:
            taken[found.layer] = end
            result[path] = replace(found, layer_start=start)
    return list(result.items())
