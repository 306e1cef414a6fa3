"""docs/plan.md shows what the command prints, and has every code."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from topbill.domain.reasons import PLAN_FINDINGS
from topbill.plan import lines, plan_folder

from ...processes import topbill

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "plan.md").read_text()


def edited(files: Path) -> None:
    """The edit that the page speaks of."""
    file = files / "home-artwork.yaml"
    text = file.read_text().replace("alpha: 0.3", "alpha: 0.5")
    text = text.replace("thompson, share: 40%", "thompson, share: 30%")
    file.write_text(text.replace("linucb, share: 20%", "linucb, share: 30%"))


def without_estimates(text: str) -> str:
    """Text without the numbers of off-policy evaluation, whose last digits another machine may
    round otherwise."""
    lines_ = []
    for line in text.splitlines():
        lines_.append(re.sub(r"\d+\.\d+", "N", line) if "would have earned" in line else line)
    return "\n".join(lines_)


def test_the_page_shows_what_is_printed(files: Path, recorded: Path) -> None:
    edited(files)
    told = "\n".join(lines(plan_folder(files, recorded))).replace(str(recorded), "data")
    shown = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0]
    assert without_estimates(told) == without_estimates(shown.rstrip())


def test_the_page_has_every_code() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert table == dict(PLAN_FINDINGS)


def test_check_exits_1_on_what_would_harm(files: Path, recorded: Path) -> None:
    edited(files)
    done = topbill("plan", files, "--data", recorded, "--check", "--no-evaluate")
    assert done.returncode == 1
    assert "HARM units_move, home-artwork.yaml: variants.thompson.share" in done.stdout


def test_the_pages_yaml_names_what_is_there() -> None:
    action, hooks = (
        yaml.safe_load(block)
        for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    )
    step = action["jobs"]["plan"]["steps"][1]
    inputs = yaml.safe_load((ROOT / "deploy/action/action.yml").read_text())["inputs"]
    assert step["uses"].startswith("OWNER/topbill/deploy/action@")
    assert set(step["with"]) <= set(inputs)
    there = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    assert {hook["id"] for hook in hooks["repos"][0]["hooks"]} == there
