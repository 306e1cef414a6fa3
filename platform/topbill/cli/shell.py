"""What all commands share: the application, its two consoles, options that mean the same
everywhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress

from topbill import __version__, process_log
from topbill.domain.engine_url import ENGINE_VARIABLE, address_of
from topbill.domain.errors import BadRequest
from topbill.domain.lake_url import LAKE_VARIABLE, parsed
from topbill.domain.log_url import LOG_VARIABLE, without_secrets
from topbill.process_log import LogFormat
from topbill.shipped import shipped

app = cyclopts.App(
    name="topbill",
    version=__version__,
    default_parameter=Parameter(negative_iterable=""),
    help="Decides what a viewer sees on a streaming homepage with contextual bandits, "
    "and proves what it was worth.",
    help_epilogue="What a word means: topbill glossary WORD",
)
out = Console()
err = Console(stderr=True)

Experiments = Annotated[Path, Parameter(help="Folder of experiment files.")]
Data = Annotated[Path, Parameter(help="Folder of the log and the lake.")]
LogUrl = Annotated[
    str,
    Parameter(
        name="--log",
        env_var=LOG_VARIABLE,
        show_default=False,
        help="URL of a log that machines share, such as postgresql://USER@HOST/DATABASE; left out, "
        "it is in the data folder.",
    ),
]
LakeUrl = Annotated[
    str,
    Parameter(
        name="--lake",
        env_var=LAKE_VARIABLE,
        show_default=False,
        help="URL of a lake that machines share, such as s3://BUCKET/PREFIX (also gs://, az://, "
        "file://); left out, it is in the data folder.",
    ),
]
EngineUrl = Annotated[
    str,
    Parameter(
        name="--engine",
        env_var=ENGINE_VARIABLE,
        show_default=False,
        help="URL of a Spark Connect server that reads the lake, such as sc://HOST:15002; left "
        "out, DuckDB does, here.",
    ),
]
LogFormatOption = Annotated[
    LogFormat,
    Parameter(
        name="--log-format",
        env_var=process_log.VARIABLE,
        help="Of what is said on standard error: text, or json with request ids.",
    ),
]
EXPERIMENTS = Path("experiments")
DATA = Path("data")


def use_log(url: str) -> None:
    """Have this process, and those that it starts, use the log at `url`, where one is said."""
    if not url:
        return
    if url != without_secrets(url) and url != os.environ.get(LOG_VARIABLE):
        err.print(
            "--log: the URL has a password, which others on this machine can read in the list of "
            f"processes; say it in {LOG_VARIABLE}, or the password in PGPASSWORD or PGPASSFILE",
            highlight=False,
            soft_wrap=True,
        )
    os.environ[LOG_VARIABLE] = url


def use_lake(url: str) -> None:
    """Have this process, and those that it starts, use the lake at `url`, where one is said. Raises
    BadRequest for what is none.
    """
    if url:
        os.environ[LAKE_VARIABLE] = parsed(url)


def use_engine(url: str) -> None:
    """Have this process ask the server at `url`, where one is said, instead of DuckDB."""
    if not url:
        return
    address_of(url)
    if ";" in url and url != os.environ.get(ENGINE_VARIABLE):
        err.print(
            "--engine: the URL has parameters, such as a token, which others on this machine can "
            f"read in the list of processes; say it in {ENGINE_VARIABLE}",
            highlight=False,
            soft_wrap=True,
        )
    os.environ[ENGINE_VARIABLE] = url


def refuse_log(command: str) -> None:
    """Raises BadRequest where a shared log or lake is said, for what needs its own."""
    for variable, what in ((LOG_VARIABLE, "log"), (LAKE_VARIABLE, "lake")):
        if os.environ.get(variable):
            raise BadRequest(
                variable, f"is set; expected none for {command}, which keeps a {what} of its own"
            )


def own_or_examples(experiments: Path) -> Path:
    """The folder that was named. Where none was, and there is no `experiments` here either: the
    examples that came with Topbill, which is said.
    """
    if experiments != EXPERIMENTS or experiments.exists():
        return experiments
    examples = shipped("experiments")
    out.print(
        f"No {experiments}/ here: these are Topbill's examples, in {examples}. topbill examples "
        "copies them to start your own, or name a folder with --experiments.",
        highlight=False,
        soft_wrap=True,
    )
    return examples


def say(line: str, style: str | None = None) -> None:
    """Print a line as it stands, however long, whatever brackets it holds."""
    out.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def say_all(lines: Iterable[str]) -> None:
    """Print lines as they stand."""
    for line in lines:
        say(line)


def progress() -> Progress:
    """A progress bar on standard error, so that standard output stays what was asked for."""
    return Progress(*Progress.get_default_columns(), console=err, transient=True)


def fraction(option: str, percentage: str, *, least: float = -math.inf) -> float:
    """5% → 0.05. A bare number is refused: is 1 a hundredth, or double?

    Raises:
        BadRequest: naming the option, for anything else, and for less than `least`.
    """
    number, sign, rest = percentage.strip().partition("%")
    try:
        share = float(number) / 100.0
    except ValueError:
        share = math.nan
    if not sign or rest or not math.isfinite(share) or share < least:
        raise BadRequest(option, f"got {percentage!r}; expected a percentage, such as 5%")
    return share


def fractions(option: str, percentages: Iterable[str]) -> tuple[float, ...]:
    """Of an option given several times, or once with commas."""
    parts = [part for text in percentages for part in text.split(",")]
    return tuple(fraction(option, part) for part in parts)
