"""Puts into the wheel what is no module of the package: the example experiments and the dashboards,
which stand at the top of the repository, and the library of compiled functions, where Numba and a C
compiler are there to make it. All else about the build is said in pyproject.toml.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree, ignore_patterns, which
from tempfile import TemporaryDirectory

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

SHIPPED = ("dashboards", "experiments")
COMPILES = find_spec("numba") is not None and which(os.environ.get("CC", "cc")) is not None


class WithLibrary(Distribution):
    """A wheel with the library is one of this Python and this kind of machine."""

    def has_ext_modules(self) -> bool:
        return COMPILES


class BuildAll(build_py):
    """`build_py` that copies the folders and makes the library as well; an editable install reads
    the folders where they are, and has its library made by hand.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib, "topbill", "_shipped")
        for folder in SHIPPED:
            unwanted = ignore_patterns("__pycache__", "*.pyc", ".mypy_cache", ".streamlit")
            copytree(folder, package / folder, ignore=unwanted, dirs_exist_ok=True)
        if COMPILES:
            self.make_library()

    def make_library(self) -> None:
        """Beside the built modules, and nothing else: neither bytecode nor what Numba keeps."""
        built = str(Path(self.build_lib).absolute())
        with TemporaryDirectory() as cache:
            subprocess.run(
                [sys.executable, "-B", "-m", "topbill.policies.linear.library"],
                env={**os.environ, "PYTHONPATH": built, "NUMBA_CACHE_DIR": cache},
                check=False,  # it says why there is none
            )


setup(cmdclass={"build_py": BuildAll}, distclass=WithLibrary)
