"""Every public name is in the reference, every page of the documentation is in the site's list, and
every example of a docstring runs.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import topbill

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PUBLIC = (
    "topbill",
    "topbill.ab",
    "topbill.domain",
    "topbill.ope",
    "topbill.plugins",
    "topbill.reporting",
    "topbill.testing",
    "topbill_client",
)
REFERENCE = "\n".join(page.read_text() for page in sorted((DOCS / "reference").glob("*.md")))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    module = importlib.import_module(name)
    missing = [
        public
        for public in module.__all__
        if not re.search(rf"(::: {re.escape(name)}\.|`topbill\.){public}\b", REFERENCE)
    ]
    assert missing == []


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    for public in module.__all__:
        thing = getattr(module, public)
        if inspect.isroutine(thing) or inspect.isclass(thing):
            assert thing.__doc__, f"{name}.{public} has no docstring"


def test_every_name_of_the_reference_is_there() -> None:
    for path in re.findall(r"^::: (\S+)$", REFERENCE, re.MULTILINE):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), f"{path} is in the reference only"


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compair'"):
        _ = topbill.compair


def test_every_page_is_in_the_sites_list() -> None:
    # mkdocs has tags of its own in the file, which are no matter here.
    text = re.sub(r"!!\S+", "", (ROOT / "mkdocs.yml").read_text())
    site = yaml.safe_load(text)

    def pages(entries: list[object]) -> list[str]:
        found: list[str] = []
        for entry in entries:
            if isinstance(entry, str):
                found.append(entry)
            elif isinstance(entry, dict):
                for below in entry.values():
                    found += pages(below if isinstance(below, list) else [below])
        return found

    # Notebooks are made into pages of their names before the site is.
    sources = [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]
    here = {str(source.relative_to(DOCS).with_suffix(".md")) for source in sources}
    assert set(pages(site["nav"])) == here


def test_what_the_map_names_is_there() -> None:
    """Files and folders in backquotes on the page on architecture."""
    text = (DOCS / "architecture.md").read_text()
    for path in re.findall(r"`((?:tests|clients|docs|dashboards|experiments|\w+)/[\w/.]*)`", text):
        places = (ROOT / path, ROOT / "platform" / "topbill" / path)
        assert any(place.exists() for place in places), f"{path} is on the page only"


def modules_with_examples() -> list[ModuleType]:
    """The modules of the package and of the client whose docstrings have examples."""
    roots = {"topbill": ROOT / "platform" / "topbill"}
    roots["topbill_client"] = ROOT / "clients" / "python" / "topbill_client"
    modules = []
    for package, folder in roots.items():
        for file in sorted(folder.rglob("*.py")):
            if ">>> " in file.read_text():
                parts = file.relative_to(folder).with_suffix("").parts
                name = ".".join([package, *parts]).removesuffix(".__init__")
                modules.append(importlib.import_module(name))
    return modules


@pytest.mark.parametrize("module", modules_with_examples(), ids=lambda module: module.__name__)
def test_every_example_runs(module: ModuleType) -> None:
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", ["compare", "estimate", "evaluate", "report", "simulate", "sql"])
def test_the_librarys_functions_have_examples(name: str) -> None:
    assert ">>> " in (getattr(topbill, name).__doc__ or "")
