"""Who last changed a file: the author of its last commit, and nobody where that is not known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from topbill.domain.errors import NotFound
from topbill.spec.checkout import author_in, author_of, folder_at


def git(folder: Path, *arguments: str) -> None:
    settings = ("-c", "user.name=Ann Example", "-c", "user.email=ann@example.com")
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "home.yaml").write_text("experiment: home\n")
    git(tmp_path, "add", "home.yaml")
    git(tmp_path, "commit", "-qm", "home")
    return tmp_path


def test_the_author_of_the_last_commit(checkout: Path) -> None:
    assert author_of(checkout / "home.yaml") == "Ann Example <ann@example.com>"


def test_the_author_in_a_folder_of_the_checkout(checkout: Path) -> None:
    inner = checkout / "pages" / "home"
    inner.mkdir(parents=True)
    (inner / "rows.yaml").write_text("experiment: rows\n")
    git(checkout, "add", "pages")
    git(checkout, "commit", "-qm", "rows", "--author", "Bo <bo@example.com>")
    assert author_of(inner / "rows.yaml") == "Bo <bo@example.com>"
    assert author_in([checkout, inner], "rows.yaml") == "Bo <bo@example.com>"


def test_nobody_knows_who_wrote_what_is_not_committed(checkout: Path) -> None:
    (checkout / "home.yaml").write_text("experiment: other\n")
    (checkout / "new.yaml").write_text("experiment: new\n")
    assert author_of(checkout / "home.yaml") is None
    assert author_of(checkout / "new.yaml") is None


def test_nobody_knows_whose_a_name_is_that_two_files_have(checkout: Path) -> None:
    inner = checkout / "inner"
    inner.mkdir()
    (inner / "home.yaml").write_text("experiment: home\n")
    assert author_in([checkout, inner], "home.yaml") is None


def test_without_a_checkout_or_without_git(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert author_of(tmp_path / "nowhere" / "home.yaml") is None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert author_of(checkout / "home.yaml") is None


def test_a_checkouts_settings_run_no_program(checkout: Path) -> None:
    marker = checkout / "ran"
    script = checkout / "script.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\n")
    script.chmod(0o755)
    for name in ("core.fsmonitor", "core.pager", "gpg.program", "filter.x.clean"):
        git(checkout, "config", name, str(script))
    git(checkout, "config", "log.showSignature", "true")
    (checkout / ".gitattributes").write_text("*.yaml filter=x\n")
    marker.unlink(missing_ok=True)
    assert author_of(checkout / "home.yaml") == "Ann Example <ann@example.com>"
    assert not marker.exists()


def test_a_folder_as_it_was_at_a_commit(checkout: Path) -> None:
    inner = checkout / "pages"
    inner.mkdir()
    (inner / "rows.yaml").write_text("experiment: rows\n")
    git(checkout, "add", "pages")
    git(checkout, "commit", "-qm", "rows")
    (checkout / "home.yaml").write_text("experiment: other\n")
    (inner / "rows.yaml").unlink()
    with folder_at(checkout, "HEAD") as before:
        assert (before / "home.yaml").read_text() == "experiment: home\n"
        assert (before / "pages" / "rows.yaml").read_text() == "experiment: rows\n"
    with folder_at(inner, "HEAD") as before:
        assert [file.name for file in before.iterdir()] == ["rows.yaml"]
    assert not before.exists()
    with pytest.raises(NotFound, match="no checkout"), folder_at(inner, "HEAD~1"):
        pass


@pytest.mark.parametrize("commit", ["nothing", "--help", "", "HEAD --output=x"])
def test_a_commit_that_is_not_there_is_told(commit: str, checkout: Path) -> None:
    with pytest.raises(NotFound, match="no checkout with commit"), folder_at(checkout, commit):
        pass
    assert sorted(file.name for file in checkout.iterdir()) == [".git", "home.yaml"]
