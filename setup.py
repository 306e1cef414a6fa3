"""Puts the example experiments and the dashboards, which stand at the top of the repository, inside
the wheel as data of the package; all else about the build is said in pyproject.toml.
"""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("dashboards", "experiments")


class BuildWithShippedFolders(build_py):
    """`build_py` that copies the folders as well; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib, "topbill", "_shipped")
        for folder in SHIPPED:
            unwanted = ignore_patterns("__pycache__", "*.pyc", ".mypy_cache", ".streamlit")
            copytree(folder, package / folder, ignore=unwanted, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithShippedFolders})
