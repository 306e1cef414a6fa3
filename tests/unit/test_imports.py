"""A command waits for what it uses and for nothing else: seconds of every start, and megabytes of
every process that stays.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "personalizer.yaml"
STATISTICS = {"scipy.stats", "scipy.optimize", "statsmodels", "topbill.ab", "topbill.ope"}
FRAMES = {"pandas", "pyarrow.dataset", "streamlit", "altair"}
LAKE = {"duckdb", "deltalake"}
WEB = {"fastapi", "uvicorn", "httpx"}
PROGRAM = """
import json, sys
def loaded(): print(json.dumps(sorted(sys.modules)))
from topbill import cli
loaded()
cli.app(["validate", sys.argv[1]], result_action="return_value")
loaded()
import topbill.service.run
loaded()
"""


def test_each_command_waits_only_for_what_it_uses() -> None:
    # A process of its own from the start: those that tests fork have imported everything.
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, EXPERIMENT], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    lines = [set(json.loads(line)) for line in ran.stdout.splitlines() if line.startswith("[")]
    the_list_of_commands, validating, serving = lines
    assert "topbill.cli" in the_list_of_commands
    assert (
        the_list_of_commands & {"numpy", "pyarrow", "topbill.spec", *LAKE, *WEB, *FRAMES} == set()
    )
    assert "topbill.pages" in validating
    assert validating & (STATISTICS | FRAMES | LAKE | WEB) == set()
    assert "fastapi" in serving
    assert serving & (STATISTICS | FRAMES | LAKE | {"scipy.sparse", "pyarrow.compute"}) == set()
