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


class _Late:
    """Stands for a module, or for something in it, until somebody uses it."""

    def __init__(self, module: str, name: str | None) -> None:
        self._place = (module, name)
        self._found: Any = None

    def _find(self) -> Any:
        if self._found is None:
            module, name = self._place
            found = import_module(module)
            self._found = found if name is None else getattr(found, name)
        return self._found

    def __getattr__(self, attribute: str) -> Any:
        # Who asks what kind of thing it is does not use it.
        if attribute.startswith("_"):
            raise AttributeError(f"{self._place} was not loaded: it has no {attribute!r} yet")
        value = getattr(self._find(), attribute)
        setattr(self, attribute, value)
        return value

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._find()(*arguments, **named)


def name(module: str, of: str | None = None) -> Any:
    """A module, or a function or an object of it, that is loaded when it is first used: who imports
    the words and results of an analysis does not wait for what works them out.
    """
    return _Late(module, of)
