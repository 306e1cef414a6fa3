"""Experiments and pages made ready as the service makes them: what would stop it is told as what is
wrong with their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from topbill.domain.errors import BadData, FileProblem, NotFound, SpecError
from topbill.engine import CompiledExperiment, Engine
from topbill.pages.candidate_table import read_tables
from topbill.pages.compiled import CompiledPage
from topbill.pages.files import PageFile, load_each
from topbill.policies import AbsentPolicy
from topbill.spec import Experiment, with_lines


def validate_experiment(experiment: Experiment) -> Experiment | SpecError:
    """The experiment, or why its policies cannot be made here: a package may be missing."""
    expected = "policies that can be made on this machine"
    problems = []
    for name, policy in CompiledExperiment(experiment).policies.items():
        if isinstance(policy, AbsentPolicy):
            problems.append(
                FileProblem(experiment.source, f"variants.{name}", policy.why, expected)
            )
    return SpecError(problems) if problems else experiment


def validate(
    experiments: Path, known: Sequence[Experiment]
) -> list[tuple[Path, PageFile | SpecError]]:
    """Every page file of an experiments' folder, made ready over its catalogue, or all that is
    wrong with it.

    Args:
        experiments: The folder; pages lie in `pages/` below it.
        known: All its experiments whose policies can be made, the pages' own included.
    """
    engine = Engine(known)
    verdicts: list[tuple[Path, PageFile | SpecError]] = []
    for path, verdict in load_each(experiments, known):
        # A page that is wrong in itself is not held against its catalogue: that would say what
        # follows from the first mistake.
        if isinstance(verdict, PageFile):
            verdict = _made_ready(path, verdict, engine)
        verdicts.append((path, verdict))
    return verdicts


def _made_ready(path: Path, page: PageFile, engine: Engine) -> PageFile | SpecError:
    """The page, or what is wrong with it and its catalogue together."""
    try:
        CompiledPage(page, engine, page.read_catalog(), tables=read_tables(page))
    except SpecError as error:
        return with_lines(error, path)
    except (BadData, NotFound) as error:
        problem = FileProblem(path.name, "catalogue", str(error), "a catalogue that can be read")
        return with_lines(SpecError([problem]), path)
    return page
