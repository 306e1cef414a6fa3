"""Files compared with those of a commit, where nobody has the record at hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from topbill.domain.errors import NotFound
from topbill.plan import lines, markdown, plan_folder


def git(folder: Path, *arguments: str) -> None:
    settings = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(files: Path) -> Path:
    """The files, committed as they run."""
    git(files, "init", "-q")
    git(files, "add", ".")
    git(files, "commit", "-qm", "as they run")
    return files


def edit(files: Path, old: str, new: str) -> None:
    file = files / "home-artwork.yaml"
    file.write_text(file.read_text().replace(old, new))


def codes(files: Path) -> list[str]:
    plan = plan_folder(files, files / "no-data", base="HEAD")
    return [finding.code for finding in plan.harms]


def test_what_is_as_it_was_is_quiet(checkout: Path) -> None:
    assert lines(plan_folder(checkout, None, base="HEAD")) == [
        "Compared with the files at HEAD.",
        "",
        "Nothing changes for home-artwork and home-hero.",
        "",
        "Nothing would harm.",
    ]


def test_units_that_nobody_knows_are_made_up(checkout: Path) -> None:
    edit(checkout, "thompson, share: 40%", "thompson, share: 50%")
    edit(checkout, "linucb, share: 20%", "linucb, share: 10%")
    plan = plan_folder(checkout, None, base="HEAD")
    assert [finding.code for finding in plan.harms] == ["units_move"]
    (artwork,) = [one for one in plan.experiments if one.experiment == "home-artwork"]
    assert artwork.units == 0
    assert artwork.movement is not None
    assert artwork.movement.moved / artwork.movement.assigned == pytest.approx(0.1, abs=0.02)
    assert any("made-up units" in line for line in lines(plan))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("traffic: 50%", "traffic: 80%"),
        ("title: Artwork", "title: Pictures"),
        # Whom such units would be of, nobody knows.
        ("slots: 1", "slots: 1\naudience: {device: [tv]}"),
        ("slots: 1", "slots: 1\nexclude: {context: {device: [web]}}"),
    ],
)
def test_what_is_harmless_is_so_without_a_record(old: str, new: str, checkout: Path) -> None:
    edit(checkout, old, new)
    assert codes(checkout) == []


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("{play: 0.2,", "{play: 0.9,", "objective_changed"),
        ("order: [close-up]", "order: [chase]", "control_changed"),
        ("margin: 50%", "margin: 90%", "guardrail_changed"),
        ("status: running", "status: draft", "back_to_draft"),
    ],
)
def test_mistakes_are_found_without_a_record(old: str, new: str, code: str, checkout: Path) -> None:
    edit(checkout, old, new)
    assert code in codes(checkout)


def test_the_record_says_more_than_a_commit(checkout: Path, recorded: Path) -> None:
    plan = plan_folder(checkout, recorded, base="no-such-commit", evaluates=False)
    assert plan.record.startswith("what runs in ")


def test_a_commit_or_folder_that_is_not_there_is_told(checkout: Path) -> None:
    with pytest.raises(NotFound, match="no-such-commit"):
        plan_folder(checkout, None, base="no-such-commit")
    with pytest.raises(NotFound, match="no such folder"):
        plan_folder(checkout / "nowhere")


def test_a_comment_shows_what_files_say_as_it_stands(checkout: Path) -> None:
    edit(checkout, "title: Artwork for Midnight Run", 'title: "@all *[x](http://y)* <b> `z` #1"')
    comment = markdown(plan_folder(checkout, None, base="HEAD"))
    assert comment.startswith("<!-- topbill plan -->\n")
    assert "@all" not in comment
    assert "\\*\\[x\\](http://y)\\* \\<b\\> \\`z\\` \\#1" in comment


def test_a_comment_is_not_longer_than_one_may_be(checkout: Path) -> None:
    for number in range(400):
        shutil.copy(checkout / "home-hero.yaml", checkout / f"{number}.yaml")
    comment = markdown(plan_folder(checkout, None, base="HEAD"))
    assert len(comment) < 65_536
    assert comment.endswith("There is more: run `topbill plan` to read all of it.\n")
