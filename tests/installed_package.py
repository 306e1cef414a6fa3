"""A package that brings models, as `pip install` would leave it: its module, and what its metadata
says of entry points."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topbill.plugins import discovery
from topbill.policies import installed

CACHES = (discovery.installed, discovery.load, installed.policy_of)


def write_package(
    folder: Path, code: str, entries: dict[str, str], group: str = "topbill.policies"
) -> None:
    """Package acme-models 1.2 in a folder: its module `acme_models`, and entry points in `group` by
    name.
    """
    (folder / "acme_models.py").write_text(code)
    info = folder / "acme_models-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-models\nVersion: 1.2\n")
    points = "".join(f"{name} = {place}\n" for name, place in entries.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{points}")


@contextmanager
def on_the_path(folder: Path) -> Iterator[None]:
    """What lies in a folder is installed in this process while the block runs."""
    sys.path.insert(0, str(folder))
    _forget()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _forget()


def _forget() -> None:
    sys.modules.pop("acme_models", None)
    importlib.invalidate_caches()
    for cache in CACHES:
        cache.cache_clear()
