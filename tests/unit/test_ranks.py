"""A module imports only from modules above it and never in a circle, and each of these libraries is
imported in one place.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "platform" / "topbill"
ORDER = [
    "late",
    "domain",
    "shipped",
    "process_log",
    "tracing",
    "plugins",
    "policies",
    "spec",
    "log",
    "lake",
    "migration",
    "backup",
    "catalog",
    "rules",
    "candidates",
    "entities",
    "engine",
    "pages",
    "stats",
    "charts",
    "ope",
    "ab",
    "reporting",
    "launch",
    "alerts",
    "worker",
    "simulation",
    "plan",
    "testing",
    "library",
    "service",
    "formats",
    "cli",
    "__main__",
]
ONE_PLACE = {
    "altair": "charts.py",
    "duckdb": "lake",
    "deltalake": "lake",
    "psycopg": "log",
    "pyspark": "lake/spark.py",
    "sqlglot": "lake/spark_sql.py",
    "numba": "policies/linear",
    "vowpal_wabbit_next": "policies/vw/next_engine.py",
    "vowpalwabbit": "policies/vw/mainline.py",
    "onnxruntime": "policies/onnx/runtime.py",
    "tokenizers": "policies/onnx/texts.py",
    "pylibvw": "policies/vw/mainline.py",
    "statsmodels": "ab",
    "mcp": "cli/agents.py",
    "fastapi": "service/app.py",
    "opentelemetry": "tracing.py",
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


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph() -> dict[str, set[str]]:
    """Which module of the package imports which, wherever in the file and for whatever purpose: an
    import for types alone (`TYPE_CHECKING`) ties two modules together as any other does.

    A module that imports a package for one of the package's modules (`from topbill.log import
    sqlite`) imports that one. What a package's `__init__` collects for callers counts as the
    package's own import only, so that its modules may stand in any order below it.
    """
    files = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}
    edges: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                edges[name].update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{name}: a relative import; write it out"
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    edges[name].add(whole if whole in files else node.module)
    return {name: (targets & files.keys()) - {name} for name, targets in edges.items()}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules of which each one reaches every other (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(edges[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return groups


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(graph()) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}) == [["b", "c"]]
