"""A command waits for what it uses and for nothing else: seconds of every start, and megabytes of
every process that stays.
"""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from topbill import late

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


DASHBOARDS = """
import json, sys
import topbill.ab, topbill.launch, topbill.ope, topbill.reporting.page, topbill.reporting.visitors
from topbill.reporting import answer_cache
from topbill.reporting.experiment import wording
from topbill.reporting.queries import decisions, exposure, preview, series
print(json.dumps(sorted(sys.modules)))
"""


def test_words_and_results_of_analyses_do_not_wait_for_what_works_them_out() -> None:
    ran = subprocess.run([sys.executable, "-c", DASHBOARDS], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    loaded = set(json.loads(ran.stdout))
    assert "topbill.ab.core.effect" in loaded
    assert (
        loaded & {"scipy.stats", "scipy.optimize", "statsmodels", "cyclopts", "streamlit"} == set()
    )


def test_what_is_late_is_loaded_when_it_is_used() -> None:
    module = f"{__name__}_late"
    late_module, late_function = late.name(module), late.name(module, "double")
    assert not hasattr(late_module, "__wrapped__")
    with pytest.raises(ModuleNotFoundError):
        late_function(2)
    sys.modules[module] = types.SimpleNamespace(double=lambda x: 2 * x, three=3)  # type: ignore[assignment]
    try:
        assert (late_function(2), late_module.three, late_module.double(2)) == (4, 3, 4)
        with pytest.raises(AttributeError):
            _ = late_module.four
    finally:
        del sys.modules[module]
