"""The GitHub Action and the pre-commit hooks: commands that exist, and one comment per pull
request, tried with a `gh` that keeps comments in a folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from topbill.shipped import shipped

from .programs import DEPLOY, ROOT, assert_command

ACTION = yaml.safe_load((DEPLOY / "action" / "action.yml").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
SCRIPT = DEPLOY / "action" / "plan.sh"
FILE = "home-artwork.yaml"
GH = """\
#!{python}
# What `gh api` does, over a folder of comments.
import os, pathlib, sys
folder = pathlib.Path(os.environ["COMMENTS"])
if os.environ.get("REFUSES"):
    sys.exit("HTTP 403: Resource not accessible by integration")
arguments = sys.argv[2:]
path = next(part for part in arguments if part.startswith("repos/"))
method = arguments[arguments.index("--method") + 1] if "--method" in arguments else "GET"
(folder / "calls").open("a").write(f"{{method}} {{path}}\\n")
if method == "GET":
    for file in sorted(folder.glob("*.md")):
        if file.read_text().startswith("<!-- topbill plan -->"):
            print(file.stem)
else:
    body = arguments[arguments.index("--field") + 1].removeprefix("body=@")
    name = "2" if method == "POST" else path.rpartition("/")[2]
    (folder / f"{{name}}.md").write_text(pathlib.Path(body).read_text())
"""


def git(folder: Path, *arguments: str) -> None:
    settings = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


class PullRequest:
    """A checkout of a repository with a running experiment, and the comments of its pull
    request."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.comments = folder / "checkout", folder / "comments"
        self.comments.mkdir()
        (self.comments / "1.md").write_text("Looks good to me.")
        (self.folder / "experiments").mkdir(parents=True)
        shutil.copy(shipped("experiments") / FILE, self.folder / "experiments")
        git(self.folder, "init", "-q")
        git(self.folder, "add", ".")
        git(self.folder, "commit", "-qm", "as it runs")
        programs = folder / "bin"
        programs.mkdir()
        self._program(programs / "gh", GH.format(python=sys.executable))
        topbill = f'#!/bin/sh\nexec "{sys.executable}" -m topbill "$@"\n'
        self._program(programs / "topbill", topbill)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "COMMENTS": str(self.comments),
            "GITHUB_REPOSITORY": "shop/experiments",
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            "GITHUB_OUTPUT": str(folder / "output"),
            "FOLDER": "experiments",
            "DATA": "data",
            "BASE": "HEAD",
            "NUMBER": "7",
        }

    @staticmethod
    def _program(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def edit(self, old: str, new: str) -> None:
        file = self.folder / "experiments" / FILE
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(SCRIPT)],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def posted(self) -> list[str]:
        return [file.name for file in sorted(self.comments.glob("*.md"))]


@pytest.fixture
def pull_request(tmp_path: Path) -> PullRequest:
    return PullRequest(tmp_path)


def test_the_plan_is_one_comment_that_is_updated(pull_request: PullRequest) -> None:
    pull_request.edit("order: [close-up]", "order: [chase]")
    done = pull_request.run()
    assert done.returncode == 1, done.stderr
    comment = (pull_request.comments / "2.md").read_text()
    assert " would harm." in comment
    assert "control\\_changed" in comment
    pull_request.edit("order: [chase]", "order: [close-up]")
    done = pull_request.run()
    assert done.returncode == 0, done.stderr
    assert pull_request.posted() == ["1.md", "2.md"]
    assert "Nothing would harm" in (pull_request.comments / "2.md").read_text()
    assert (pull_request.comments / "1.md").read_text() == "Looks good to me."
    output = Path(pull_request.environment["GITHUB_OUTPUT"]).read_text()
    assert output == "harms=true\nharms=false\n"


def test_a_fork_that_may_not_comment_is_told_in_the_summary(pull_request: PullRequest) -> None:
    done = pull_request.run(REFUSES="1")
    assert done.returncode == 0, done.stderr
    assert "::warning::" in done.stdout
    assert "Nothing would harm" in Path(pull_request.environment["GITHUB_STEP_SUMMARY"]).read_text()


def test_a_plan_too_long_for_a_comment_is_cut_at_a_line(
    pull_request: PullRequest, tmp_path: Path
) -> None:
    # A plan of 3,000 lines: what a change of every file of a large folder would print.
    lines = "".join([f"{number:04} – {'é' * 40}\n" for number in range(3_000)])
    (tmp_path / "long.md").write_text(f"<!-- topbill plan -->\n{lines}")
    printed = f'#!/bin/sh\ncat "{tmp_path}/long.md"\n'
    PullRequest._program(tmp_path / "bin" / "topbill", printed)
    assert pull_request.run().returncode == 0
    comment = (pull_request.comments / "2.md").read_text()
    assert len(comment) < 65_536
    assert comment.startswith("<!-- topbill plan -->\n0000 –")
    assert comment.endswith("é\n\n\nThe rest of the plan stands in the summary of the job.\n")


def test_without_a_plan_the_job_fails(pull_request: PullRequest) -> None:
    done = pull_request.run(BASE="no-such-commit")
    assert done.returncode == 1
    assert "no-such-commit" in done.stderr
    assert pull_request.posted() == ["1.md"]


def test_nothing_of_a_branch_is_read_as_a_command() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        assert step["shell"] == "bash"
    used = set(re.findall(r"inputs\.(\w+)", (DEPLOY / "action" / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])


def test_the_scripts_command_exists() -> None:
    assert_command(["plan", "experiments", "--data", "d", "--check", "--markdown"], "plan")


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hooks_command_exists(hook: dict[str, object]) -> None:
    program, *arguments = str(hook["entry"]).split()
    assert program == "topbill"
    assert isinstance(hook["args"], list)
    assert_command([*arguments, *hook["args"]], arguments[0])
    assert (hook["language"], hook["pass_filenames"]) == ("python", False)
    assert re.search(str(hook["files"]), "experiments/home.yaml")
