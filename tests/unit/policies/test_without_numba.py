"""Without Numba: the library of compiled functions decides the same to the last bit, and where
there is none, NumPy does to 1e-12.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from topbill.policies.linear import library

HERE = Path(__file__).parent
# None in place of a module makes its import an ImportError.
BLOCKED = "import sys; sys.modules['numba'] = None; "
PROGRAM = """
import json
import sys
import msgspec
import numpy as np
from topbill.domain.records import Actions, Example
from topbill.policies import KINDS
from topbill.policies.linear import kernels, sampling

CASES = [
    ("auto", {}),
    ("linucb", {}),
    ("linucb", {"model": "shared", "link": "linear"}),
    ("squarecb", {"half_life": 20.0}),
    ("epsilon_greedy", {"model": "disjoint"}),
    ("thompson", {}),
    ("thompson", {"model": "disjoint"}),
    ("thompson", {"fourier_features": 3, "link": "linear"}),
]
out = {
    "compiled": hasattr(kernels.learn, "nopython_signatures"),
    "numba": bool(sys.modules.get("numba")),
}
for number, (kind, given) in enumerate(CASES):
    for size, action_size in ((3, 2), (2, 0), (30, 12)):
        rng = np.random.default_rng(1)
        actions = Actions(list("abcdef"), rng.normal(size=(6, action_size)))
        params = msgspec.convert(given, KINDS[kind].Params)
        policy = KINDS[kind](params, context_size=size, action_size=action_size, seed=7)
        rows = []
        for t in range(60):
            x, index = rng.normal(size=size), int(rng.integers(5))
            click = float(rng.random() < 1.0 / (1.0 + np.exp(1.0 - x[0])))
            policy.update([Example(x, actions, index, 0.2, click, position=t % 3, at=1e9 + t)])
            scored = policy.score(x, actions, t)
            rows.append([
                *scored.probabilities(np.arange(6)).tolist(), *scored.mean, *scored.width
            ])
        out[f"{number} {kind} {size} {action_size}"] = rows
print(json.dumps(out))
"""


def run(program: str, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_whole_policies_decide_the_same():
    pytest.importorskip("numba")
    compiled, plain = run(PROGRAM, TOPBILL_JIT="1"), run(BLOCKED + PROGRAM, TOPBILL_JIT="1")
    assert (compiled.pop("compiled"), compiled.pop("numba")) == (True, True)
    assert (plain.pop("compiled"), plain.pop("numba")) == (False, False)
    assert compiled.keys() == plain.keys()
    for case, rows in compiled.items():
        with_compiler, without = np.array(rows), np.array(plain[case])
        probabilities = slice(0, 6)
        np.testing.assert_allclose(
            without[:, probabilities], with_compiler[:, probabilities], rtol=0.0, atol=1e-12
        )
        # Means and widths grow with what is rewarded, so that their last digits are counted.
        np.testing.assert_allclose(without, with_compiler, rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(shutil.which("cc") is None, reason="a C compiler makes the library")
def test_the_library_decides_the_same_to_the_last_bit_and_needs_no_numba():
    pytest.importorskip("numba")
    library.build()
    without, jit = run(PROGRAM, TOPBILL_JIT=""), run(PROGRAM, TOPBILL_JIT="1")
    assert (without.pop("compiled"), without.pop("numba")) == (False, False)
    assert (jit.pop("compiled"), jit.pop("numba")) == (True, True)
    assert without == jit


def test_a_library_is_of_the_sources_as_they_stand(monkeypatch, tmp_path):
    """Every module with compiled functions is part of its name, so that none outlives a change."""
    linear = Path(library.__file__).parent
    makers = {
        file.stem
        for file in linear.glob("*.py")
        if re.search(r"^@(compiled|part)$", file.read_text(), re.M)
    }
    assert makers == set(library.MODULES)
    for file in linear.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(library, "_HERE", tmp_path)
    monkeypatch.setenv(library.JIT, "")
    before = library.path()
    with (tmp_path / "kernels.py").open("a") as file:
        file.write("# changed\n")
    assert library.path() != before
    library.path().parent.mkdir()
    assert library.load() is None
    library.path().write_bytes(b"damaged")
    assert library.load() is None


def test_what_the_compiled_functions_promise_holds_without_a_compiler():
    files = [str(HERE / "test_kernels.py"), str(HERE / "test_linear.py")]
    chosen = "not slow and not many_updates and not forgetting_follows and not recovers_its_weights"
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen, *files]
    program = f"{BLOCKED}import pytest; sys.exit(pytest.main({arguments}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3_000:]
    assert " passed" in done.stdout
