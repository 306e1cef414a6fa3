"""Names that a package collects for its callers, each loaded from its module when it is first asked
for: whoever wants one module of the package does not wait for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def names(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562).

    Args:
        package: The package's name.
        modules: Module → the names that are taken from it.
    """
    module_of = {name: module for module, taken in modules.items() for name in taken}

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module_of[name]), name)

    return __getattr__
