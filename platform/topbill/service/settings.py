"""What a service is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topbill.log import LOG_FILE, Log, open_log


@dataclass(frozen=True)
class Settings:
    """What a service is started with.

    Attributes:
        experiments: Folder of the experiment and page files.
        data: Folder of the log and the lake.
        keys: The keys that callers may use; none needed where it is empty.
        log: URL of the log; empty for the embedded one in the data folder.
    """

    experiments: Path
    data: Path
    keys: tuple[bytes, ...] = ()
    log: str = ""

    @property
    def log_path(self) -> Path:
        """The embedded log's file in the data folder."""
        return self.data / LOG_FILE

    def open_log(self) -> Log:
        """A handle of the caller's own on the log. Raises LogError where it can't be opened."""
        return open_log(self.log or self.log_path)
