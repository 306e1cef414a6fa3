"""A module imports only from modules above it, and each of these libraries is imported in one
place.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "platform" / "topbill"
ORDER = [
    "domain",
    "shipped",
    "policies",
    "spec",
    "log",
    "lake",
    "catalog",
    "rules",
    "candidates",
    "engine",
    "pages",
    "worker",
    "stats",
    "ope",
    "ab",
    "reporting",
    "simulation",
    "library",
    "service",
    "formats",
    "cli",
    "__main__",
]
ONE_PLACE = {
    "duckdb": "lake",
    "deltalake": "lake",
    "psycopg": "log",
    "numba": "policies/linear/compiled.py",
    "vowpal_wabbit_next": "policies/vw/next_engine.py",
    "vowpalwabbit": "policies/vw/mainline.py",
    "pylibvw": "policies/vw/mainline.py",
    "statsmodels": "ab",
    "fastapi": "service/app.py",
}


def imports() -> Iterator[tuple[Path, str]]:
    """Every (file, imported module) of the package, wherever in the file it stands."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = (
                    [f"topbill.{alias.name}" for alias in node.names]
                    if node.module == "topbill"
                    else [node.module]
                )
                yield from ((file, name) for name in names)


def rank(name: str) -> int:
    return ORDER.index(name) if name in ORDER else -1


def test_every_module_has_a_rank() -> None:
    names = {
        path.stem if path.is_file() else path.name
        for path in PACKAGE.iterdir()
        if path.name != "__pycache__"
    }
    assert names - set(ORDER) - {"__init__", "py"} == set()


def test_imports_point_upwards() -> None:
    wrong = []
    for file, module in imports():
        parts = module.split(".")
        if parts[0] == "topbill" and len(parts) > 1 and not parts[1].startswith("__"):
            own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
            if rank(parts[1]) > rank(own) >= 0:
                wrong.append(f"{file.relative_to(PACKAGE)} imports {module}, which ranks below it")
    assert wrong == []


def test_each_of_these_libraries_is_imported_in_one_place() -> None:
    wrong = []
    for file, module in imports():
        place = ONE_PLACE.get(module.split(".")[0])
        name = str(file.relative_to(PACKAGE))
        if place is not None and not (name == place or name.startswith(place + "/")):
            wrong.append(f"{name} imports {module}; only {place} does")
    assert wrong == []
