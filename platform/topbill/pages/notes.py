"""What is no mistake of a page and its catalogue, but must be known: values that are made up, rows
set aside, and what the catalogue leaves out of which the page speaks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from topbill.catalog import UNKNOWN_AGE, Catalog
from topbill.pages.files import PageFile
from topbill.spec.fields import listed, nearest

_TOLD = 3
"""Rows that are told one by one."""


def notes(file: PageFile, catalog: Catalog) -> tuple[str, ...]:
    """One sentence each, the weightiest first."""
    return (*_of_catalog(catalog), *_of_page(file, catalog))


def _of_catalog(catalog: Catalog) -> Iterator[str]:
    if catalog.made_up:
        yield (
            f"demo: true makes up {listed(catalog.made_up)}: the catalogue has no such columns; "
            "never show these pages to viewers"
        )
    if catalog.set_aside:
        rows = "; ".join(catalog.set_aside[:_TOLD])
        more = "; …" if len(catalog.set_aside) > _TOLD else ""
        yield f"{_rows_are(len(catalog.set_aside))} shown nowhere: {rows}{more}"
    for name in catalog.unread:
        hint = nearest(name, catalog.missing)
        if hint.startswith("did you mean"):
            yield f"column {name!r} of the catalogue is not read; {hint}"
    nowhere = int((~catalog.regions.any(axis=1)).sum())
    if nowhere and "regions" not in catalog.missing:
        yield f"{nowhere:,} of {len(catalog):,} titles name no region and are shown nowhere"
    unknown = int(np.isnan(catalog.maturity).sum())
    if unknown:
        yield (
            f"the age of {unknown:,} of {len(catalog):,} titles is unknown (column maturity): they "
            f"are shown to viewers of {UNKNOWN_AGE} and older, never to kids"
        )


def _rows_are(count: int) -> str:
    if count == 1:
        return "1 row of the catalogue can be no title and is"
    return f"{count:,} rows of the catalogue can be no titles and are"


def _of_page(file: PageFile, catalog: Catalog) -> Iterator[str]:
    """What finds nothing for want of a column."""
    unknown = set(catalog.missing) - set(catalog.made_up)
    rows = [name for name, row in file.sources.items() if row.source == "new"]
    if "added" in unknown and (file.rules.fresh or rows):
        yield f"without a column added no title is new, for {listed([*file.rules.fresh, *rows])}"
    if "franchise" in unknown and any(cap.of == "franchise" for cap in file.rules.caps):
        yield "without a column franchise its caps hold nothing"
    if "artwork" in file.layers and not any(catalog.pictures):
        yield f"no title has a picture (column pictures): {file.layers['artwork']} decides nothing"
