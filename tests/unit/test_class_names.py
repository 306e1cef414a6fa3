"""Each class has one name in the package, and each name one class: what a reader greps for is
there once.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "platform" / "topbill"
# Names that two packages share with a reason.
SHARED = {"RewardRequest"}
"""Ours and Personalizer's, each the name of a schema that the service has published."""


def test_no_two_classes_of_the_package_share_a_name() -> None:
    files: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            # A module's own helper, `_Like`, is looked for in its module only.
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files[node.name].append(str(file.relative_to(PACKAGE)))
    shared = {name: places for name, places in files.items() if len(places) > 1}
    assert {name: places for name, places in shared.items() if name not in SHARED} == {}
