"""What a service is started with."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from topbill.log import LOG_FILE, REMEMBERED_FOR, Log, open_log_of
from topbill.service.keys import Keys


@dataclass(frozen=True)
class Settings:
    """What a service is started with.

    Attributes:
        experiments: Folder of the experiment and page files.
        data: Folder of the log and the lake.
        keys: The keys that callers may use; none needed where there are none.
        remember: Seconds for which ids are known, until the worker says how long.
        host_names: Names under which it is called, beside those of loopback, where it asks for no
            keys.
        audit: File of the audit log; None for standard error.
        override_file: File of the secret that signs `Topbill-Override`; None where no such header
            is taken.
        spool: Folder in which a process keeps what comes while a shared log is away; None where
            that is refused.
    """

    experiments: Path
    data: Path
    keys: Keys = field(default_factory=Keys)
    host_names: tuple[str, ...] = ()
    audit: Path | None = None
    remember: float = REMEMBERED_FOR
    override_file: Path | None = None
    spool: Path | None = None

    def to_environment(self) -> dict[str, str]:
        """Variables from which another process makes the same settings. No key is among them, only
        hashes."""
        return {
            "TOPBILL_EXPERIMENTS": str(self.experiments),
            "TOPBILL_DATA": str(self.data),
            "TOPBILL_HOST_NAMES": " ".join(self.host_names),
            "TOPBILL_AUDIT": str(self.audit or ""),
            "TOPBILL_REMEMBER": str(self.remember),
            "TOPBILL_OVERRIDE_SECRET": str(self.override_file or ""),
            "TOPBILL_KEY_FILE": str(self.keys.file or ""),
            "TOPBILL_KEY_ENTRIES": self.keys.to_json(),
        }

    @classmethod
    def from_environment(cls) -> Settings:
        """The settings that `to_environment` made."""
        key_file = _path(os.environ["TOPBILL_KEY_FILE"])
        return cls(
            experiments=Path(os.environ["TOPBILL_EXPERIMENTS"]),
            data=Path(os.environ["TOPBILL_DATA"]),
            # As they were when the service started, so that it can start again whatever the file
            # is like by now; the first request looks at the file.
            keys=Keys.from_json(os.environ["TOPBILL_KEY_ENTRIES"], key_file),
            host_names=tuple(os.environ["TOPBILL_HOST_NAMES"].split()),
            audit=_path(os.environ["TOPBILL_AUDIT"]),
            remember=float(os.environ["TOPBILL_REMEMBER"]),
            override_file=_path(os.environ["TOPBILL_OVERRIDE_SECRET"]),
        )

    @property
    def log_path(self) -> Path:
        """The embedded log's file in the data folder."""
        return self.data / LOG_FILE

    def open_log(self) -> Log:
        """A handle of the caller's own on the log. Raises LogError where it can't be opened."""
        return open_log_of(self.data)


def _path(text: str) -> Path | None:
    return Path(text) if text else None
