"""What `import topbill` gives for work in notebooks, over rooms that say it in their own terms.

Each function imports what it needs when it is called: to read experiment files takes neither the
lake nor the statistics, which load for seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from topbill import spec
from topbill.domain.errors import NotFound
from topbill.spec import Experiment

if TYPE_CHECKING:
    from datetime import date

    import pandas as pd

    from topbill.ab import Method
    from topbill.reporting import PageReport, Report


def load_experiments(path: Path | str = "experiments") -> list[Experiment]:
    """The experiments of a file or of all files of a folder, sorted by key.

    Args:
        path: A YAML file, or a folder of them.

    Returns:
        Frozen `Experiment`s, valid by themselves and beside each other (shares of layers, keys).

    Raises:
        SpecError: With every problem of every file: file, path, what was got and expected.

    Examples:
        >>> import topbill
        >>> from topbill.shipped import shipped
        >>> [experiment.key for experiment in topbill.load_experiments(shipped("experiments"))]
        ['home-artwork', 'home-rows', 'home-titles', 'personalizer']
    """
    return spec.load_all([Path(path)])


def report(
    key: str,
    data: Path | str = "data",
    *,
    segments: Sequence[str] | None = None,
    method: Method = "sequential",
    looks: Sequence[float] = (1.0,),
    since: str | date | None = None,
    until: str | date | None = None,
    revision: str | None = None,
    first_exposure: bool = False,
) -> Report | PageReport:
    """The report of an experiment or a page: what each variant earned, by how much they differ,
    whether that may be read, and the verdict in a sentence.

    Args:
        key: The experiment or the page.
        data: The data folder of the service and its worker.
        segments: Of an experiment: features of the context to look into; None for all of type
            category.
        method: Of an experiment: how intervals of differences are made, as in `compare`.
        looks: Of an experiment: when was looked, as fractions of the plan, with
            "group-sequential".
        since, until: Of an experiment: only decisions from then on, and before then (ISO 8601, UTC
            where there is no zone).
        revision: Of an experiment: only decisions of that revision of its file.
        first_exposure: Of an experiment: units that were seen in several variants count for their
            first, also where no change of shares explains it.

    Returns:
        A `Report` or a `PageReport`. It shows itself in a notebook; `to_frame()` has one column a
        number.

    Raises:
        NotFound: There is no record in `data`, or nothing of that key in it.
        BadRequest: A time or a revision cannot be meant, or a page is asked for a part.
        LogError: The record cannot be read.

    Examples:
        >>> import tempfile, topbill
        >>> from topbill.testing import example_data
        >>> data = example_data(tempfile.mkdtemp(), visits=300)
        >>> report = topbill.report("home-artwork", data)
        >>> report.decisions
        300
    """
    from topbill import reporting

    return reporting.load(
        key,
        data,
        segments=segments,
        method=method,
        looks=looks,
        since=since,
        until=until,
        revision=revision,
        first_exposure=first_exposure,
    )


def sql(query: str, data: Path | str = "data") -> pd.DataFrame:
    """The answer of one reading statement on the record.

    Args:
        query: SQL in DuckDB's dialect over the views `decisions`, `rewards`, `placements`,
            `feedback`, `units` and `published` (docs/data.md lists their columns).
        data: The data folder.

    Returns:
        A frame with the statement's columns; times are in UTC.

    Raises:
        BadRequest: The statement is wrong, or would do more than read.
        NotFound: There is no record in `data` yet.

    Examples:
        >>> import tempfile, topbill
        >>> from topbill.testing import example_data
        >>> data = example_data(tempfile.mkdtemp(), visits=300)
        >>> query = "SELECT experiment, count(*) AS n FROM decisions GROUP BY 1 ORDER BY 1"
        >>> topbill.sql(query, data)
             experiment    n
        0  home-artwork  300
        1     home-rows  300
        2   home-titles  300
    """
    from topbill import lake

    frame: pd.DataFrame = lake.answer(lake.database_of(Path(data)), query).to_pandas()
    return frame


def simulate(
    experiment: Experiment | Path | str,
    rounds: int = 20_000,
    *,
    seed: int = 0,
    days: float = 14.0,
) -> pd.DataFrame:
    """Try an experiment on simulated viewers whose truth is known, in process and on simulated
    time.

    Args:
        experiment: An `Experiment`, or its file.
        rounds: Visits, spread evenly over `days`, all of them in the experiment.
        seed: Chooses the world, the viewers and the draws; one seed gives one result.
        days: Simulated days.

    Returns:
        A row a variant, with one column a number: decisions, the reward earned, that of the best
        possible and of an even choice, and the share of the gap between them that was closed.

    Raises:
        SpecError: The file is no experiment.
        NotFound: There is no such file.

    Examples:
        >>> import topbill
        >>> from topbill.shipped import shipped
        >>> file = shipped("experiments") / "home-artwork.yaml"
        >>> lines = topbill.simulate(file, rounds=200)
        >>> sorted(lines["variant"])
        ['editorial', 'linucb', 'thompson', 'uniform']
    """
    import pandas as pd

    from topbill.simulation.run import run

    if not isinstance(experiment, Experiment):
        if not Path(experiment).is_file():
            raise NotFound(f"{experiment}: no such file; expected an experiment file")
        experiment = spec.load(Path(experiment))
    rows = []
    for line in run(experiment, rounds, seed=seed, days=days):
        row = msgspec.structs.asdict(line)
        row["reward_low"], row["reward_high"] = row.pop("interval") or (None, None)
        del row["shares"]
        rows.append(row)
    return pd.DataFrame(rows)
