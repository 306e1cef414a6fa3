"""Where a lake lies: in a data folder, or at a URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, TypeAlias

from topbill.domain.errors import LogError
from topbill.domain.lake_url import LAKE_VARIABLE, lake_url

Environment: TypeAlias = tuple[tuple[str, str], ...]
DATABASE = "topbill.duckdb"
"""The analytics database."""
LAKE = "lake"
"""The folder of the tables in a data folder."""
CACHE = "lake-cache"
"""The folder in a data folder that has copies of the analytics database of a lake at a URL."""
_PATIENCE = {
    "max_retries": "3",
    "retry_timeout": "20s",
    "connect_timeout": "5s",
    "timeout": "60s",
}
"""Left to themselves, the libraries try for minutes to reach what is not there."""


class LakePlace(NamedTuple):
    """Where a lake lies.

    Attributes:
        root: What its tables lie below: an absolute path, or a URL without a slash at its end.
        is_store: Whether it was said by a URL. Its tables are then by experiment and bucket, and
            the analytics database lies below `root` too.
    """

    root: str
    is_store: bool

    def is_there(self) -> bool:
        """Whether there may be tables: at a URL, always."""
        return self.is_store or Path(self.root).exists()

    @property
    def database(self) -> str:
        """Where the analytics database is."""
        below = self.root if self.is_store else self.root.removesuffix(f"/{LAKE}")
        return f"{below}/{DATABASE}"

    def table(self, name: str) -> str:
        """Where the Delta table of that name is: `decisions`, `rewards` or `events`."""
        return f"{self.root}/{name}"

    @property
    def options(self) -> dict[str, str] | None:
        """How Delta opens the tables; credentials it reads from the environment itself."""
        if "://" not in self.root:
            return None
        options = {**_PATIENCE, "allow_http": str(allows_http()).lower()}
        if self.root.startswith("s3:"):
            # Of two that write the same version of a table one is refused.
            options["aws_conditional_put"] = "etag"
        return options


def allows_http() -> bool:
    """Whether the environment lets a store be asked without TLS."""
    said = [os.environ.get(name, "") for name in ("AWS_ALLOW_HTTP", "ALLOW_HTTP")]
    return any(value.lower() in ("1", "true", "yes", "on") for value in said)


def store_environment() -> Environment:
    """What the environment says of stores: who changes it means another one."""
    prefixes = ("AWS_", "GOOGLE_", "AZURE_", "ALLOW_")
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith(prefixes)))


def lake_place(data: Path) -> LakePlace:
    """Where the lake of a data folder is: at the URL that `TOPBILL_LAKE` says, or in the folder.

    Raises BadRequest for what is no URL of a lake, and LogError where both are there: which of them
    has the log's rows?
    """
    url, own = lake_url(), data / LAKE
    if not url:
        return LakePlace(str(own.resolve()), is_store=False)
    if (data / DATABASE).exists():
        raise LogError(
            f"{own}: the folder has a lake of its own, beside {url} which {LAKE_VARIABLE} or "
            "--lake says; expected one of them: choose another data folder, or leave the URL out"
        )
    return LakePlace(url.removeprefix("file://"), is_store=True)
