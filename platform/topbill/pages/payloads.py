"""What the titles and pictures that a page brings to its layers look like: for people who look at
the record, in which they are ids alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from topbill.catalog import Catalog
from topbill.domain.errors import TopbillError
from topbill.pages.files import PageFile, load_each, load_experiments


class PagePayloads(NamedTuple):
    """Action → its payload: `title` and `year` of titles, `title` and `image` of pictures. Images
    that are no addresses lie below `folder`.
    """

    folder: Path
    payloads: dict[str, dict[str, Any]]


def layer_files(experiments: Path, key: str) -> tuple[Path, ...]:
    """The files that `layer_payloads` reads; none where no page has the experiment as a layer that
    it brings actions to.
    """
    page = _page_of(experiments, key)
    return () if page is None else page.catalogue_files


def layer_payloads(experiments: Path, key: str) -> PagePayloads | None:
    """The payloads of the actions that a page brings to an experiment, from the catalogue as it is
    now; None where no page does, or its files cannot be read.

    Args:
        experiments: The experiments' folder.
        key: The experiment of titles or artwork.
    """
    page = _page_of(experiments, key)
    if page is None:
        return None
    try:
        catalog = page.read_catalog()
    except TopbillError:
        return None
    is_artwork = page.layers.get("artwork") == key
    return PagePayloads(
        page.catalogue.parent, _pictures(catalog) if is_artwork else _titles(catalog)
    )


def page_titles(experiments: Path) -> dict[str, str]:
    """Page → what people call it, of all page files that can be read."""
    titles = {}
    for page in _pages(experiments):
        titles[page.key] = page.title
    return titles


def _page_of(experiments: Path, key: str) -> PageFile | None:
    """The page that has the experiment as its layer of titles or artwork."""
    for page in _pages(experiments):
        if key in (page.layers["titles"], page.layers.get("artwork")):
            return page
    return None


def _pages(experiments: Path) -> Iterator[PageFile]:
    try:
        known = load_experiments(experiments)
    except TopbillError:
        return
    for _, page in load_each(experiments, known):
        if isinstance(page, PageFile):
            yield page


def _titles(catalog: Catalog) -> dict[str, dict[str, Any]]:
    return {title: catalog.payload(row) for row, title in enumerate(catalog.ids)}


def _pictures(catalog: Catalog) -> dict[str, dict[str, Any]]:
    payloads = {}
    for row, pictures in enumerate(catalog.pictures):
        for picture in pictures:
            name = picture.id.removeprefix(f"{catalog.ids[row]}/")
            payloads[picture.id] = {**picture.payload, "title": f"{catalog.names[row]}: {name}"}
    return payloads
