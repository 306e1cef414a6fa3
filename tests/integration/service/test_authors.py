"""A revision is its author's where the experiments' folder is a checkout, and otherwise of whoever
runs the service."""

from __future__ import annotations

import getpass
import subprocess
from contextlib import closing
from pathlib import Path

from topbill.log import open_log
from topbill.service.app import create_app
from topbill.service.follower import Follower
from topbill.service.settings import Settings


def git(folder: Path, *arguments: str) -> None:
    settings = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_revision_names_the_author_of_its_commit(settings: Settings, folder: Path) -> None:
    file = next(folder.glob("*.yaml"))
    text = file.read_text()
    engine = create_app(settings).engine
    with (
        closing(Follower(settings, engine)) as follower,
        closing(open_log(settings.log_path)) as log,
    ):
        follower.step()
        file.write_text(f"title: Pictures\n{text}")
        git(folder, "init", "-q")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "A title")
        follower.step()
        # Nobody has committed this.
        file.write_text(f"title: Other pictures\n{text}")
        follower.step()
        whose = [line.who for line in log.revisions("art")]
    assert whose == [getpass.getuser(), "Ann <ann@example.com>", getpass.getuser()]
