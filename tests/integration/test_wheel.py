"""What a wheel holds is enough: examples and dashboards come with it; the client comes alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]


def built(project: Path, folder: Path, **environment: str) -> Path:
    """The wheel of `project`, made from a copy without an index, unpacked into `folder`."""
    wheels = folder / "wheels"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--disable-pip-version-check", "--no-index", "-w", wheels, project],
        env={**os.environ, **environment},
        check=True,
    )
    (wheel,) = wheels.glob("*.whl")
    unpacked = folder / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    return unpacked


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, so that no build/ is left in the repository for tools to read."""
    project = tmp_path_factory.mktemp("project")
    for name in ("platform", "dashboards", "experiments", "clients"):
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", ".mypy_cache")
        shutil.copytree(ROOT / name, project / name, ignore=unwanted)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project / name)
    return project


@pytest.fixture(scope="module")
def topbill(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(project, tmp_path_factory.mktemp("topbill"), CC="no-compiler")


@pytest.mark.slow  # compiles for 15 s
@pytest.mark.skipif(shutil.which("cc") is None, reason="a C compiler makes the library")
def test_the_compiled_functions_come_with_it(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    unpacked = built(project, tmp_path)
    program = "from topbill.policies.linear import library; print(library.load())"
    found = run(unpacked, tmp_path, "-c", program, TOPBILL_JIT="")
    assert str(unpacked) in found.stdout
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert not wheel.name.endswith("-none-any.whl")


def run(
    unpacked: Path, empty: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Python in an empty folder, with what was unpacked before anything that is installed."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(unpacked), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # without a library it compiles, a minute or more beside others
    )


def test_the_demo_runs_in_an_empty_folder(topbill: Path, tmp_path: Path) -> None:
    where = run(topbill, tmp_path, "-c", "import topbill; print(topbill.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(topbill)
    demo = run(topbill, tmp_path, "-m", "topbill", "demo", "--seconds", "3", "--port", "8741")
    assert demo.returncode == 0, demo.stderr
    assert "these are Topbill's examples" in demo.stdout.replace("\n", " ")
    assert "home-artwork" in demo.stdout
    report = run(topbill, tmp_path, "-m", "topbill", "report", "home-artwork", "--json")
    assert report.returncode == 0, report.stderr


def test_the_dashboards_come_with_it(topbill: Path, tmp_path: Path) -> None:
    program = """
from pathlib import Path
from topbill.cli.dashboard import launch
print(launch(Path("experiments"), Path("data")).arguments[3])
"""
    app = Path(run(topbill, tmp_path, "-c", program).stdout.strip())
    assert app.is_relative_to(topbill)
    views = {view.name for view in (app.parent / "views").glob("*.py")}
    assert views == {view.name for view in (ROOT / "dashboards" / "views").glob("*.py")}


def test_the_client_needs_nothing_of_the_server(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(
        ROOT / "clients" / "python", project, ignore=shutil.ignore_patterns("build", "*.egg-info")
    )
    unpacked = built(project, tmp_path)
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {"topbill_client"}
    program = """
import sys
from topbill_client import Client
from topbill_client.testing import FakeService
client = Client(transport=FakeService({"home": ["a", "b"]}))
assert client.decide("home").action == "a"
client.close()
heavy = {"topbill", "fastapi", "streamlit", "numba", "numpy", "duckdb", "pandas"}
print(sorted(heavy & set(sys.modules)))
"""
    used = run(unpacked, tmp_path, "-c", program)
    assert (used.returncode, used.stdout.strip()) == (0, "[]"), used.stderr


def test_the_two_wheels_hold_one_client(topbill: Path) -> None:
    for file in (ROOT / "clients" / "python" / "topbill_client").glob("*.py"):
        assert (topbill / "topbill_client" / file.name).read_bytes() == file.read_bytes()
