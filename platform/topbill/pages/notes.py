"""What is no mistake of a page and its catalogue, but must be known: values that are made up, rows
set aside, and what the catalogue leaves out of which the page speaks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np

from topbill.catalog import UNKNOWN_AGE, Catalog
from topbill.catalog.column_features import ColumnFeature
from topbill.domain.features import REST
from topbill.domain.suggestion import nearest
from topbill.pages.candidate_table import CandidateTable
from topbill.pages.features import PictureFeatures, column_features
from topbill.pages.files import PageFile
from topbill.spec import Experiment
from topbill.spec.fields import listed

_NO_TABLES: Mapping[str, CandidateTable] = {}
_TOLD = 3
"""Rows that are told one by one."""


def notes(
    file: PageFile,
    catalog: Catalog,
    experiments: Iterable[Experiment],
    tables: Mapping[str, CandidateTable] = _NO_TABLES,
) -> tuple[str, ...]:
    """One sentence each, the weightiest first; the page's layers are among the `experiments`.
    `tables`: row → its table of candidates.
    """
    layers = layers_of(file, experiments)
    columns: list[ColumnFeature] = []
    if "titles" in layers:
        features = column_features(layers["titles"].sent_action_features)
        columns = [catalog.column(feature) for feature in features]
    of_catalog = _of_catalog(catalog, [column.feature.name for column in columns])
    of_titles = _of_columns(file.layers["titles"], columns)
    of_artwork = _of_artwork(layers["artwork"], catalog) if "artwork" in layers else ()
    of_tables = _of_tables(catalog, tables)
    return (*of_catalog, *_of_page(file, catalog), *of_titles, *of_artwork, *of_tables)


def layers_of(file: PageFile, experiments: Iterable[Experiment]) -> dict[str, Experiment]:
    """Layer → the one of the experiments that decides it."""
    by_key = {experiment.key: experiment for experiment in experiments}
    return {layer: by_key[key] for layer, key in file.layers.items() if key in by_key}


def _of_catalog(catalog: Catalog, declared: Collection[str]) -> Iterator[str]:
    """`declared` are the columns that are features."""
    if catalog.made_up:
        yield (
            f"demo: true makes up {listed(catalog.made_up)}: the catalogue has no such columns; "
            "never show these pages to viewers"
        )
    if catalog.set_aside:
        rows = "; ".join(catalog.set_aside[:_TOLD])
        more = "; …" if len(catalog.set_aside) > _TOLD else ""
        yield f"{_rows_are(len(catalog.set_aside))} shown nowhere: {rows}{more}"
    if catalog.without_pictures:
        titles = "; ".join(catalog.without_pictures[:_TOLD])
        more = "; …" if len(catalog.without_pictures) > _TOLD else ""
        yield f"{_titles_go(len(catalog.without_pictures))} without pictures: {titles}{more}"
    if catalog.lost_pictures:
        yield catalog.lost_pictures
    for name in [name for name in catalog.unread if name not in declared]:
        hint = nearest(name, catalog.missing)
        if hint:
            yield f"column {name!r} of the catalogue is not read; {hint}"
    if catalog.commas_in_genres:
        count = catalog.commas_in_genres
        rows = "1 row has a genre" if count == 1 else f"{count:,} rows have genres"
        yield f"{rows} with a comma: genres are separated by bars, drama|comedy, and not by commas"
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


def _of_tables(catalog: Catalog, tables: Mapping[str, CandidateTable]) -> Iterator[str]:
    for row, table in tables.items():
        for reason in table.set_aside:
            yield f"row {row}: a candidate is set aside: {reason}"
        unknown = [title for title in table.titles if title and title not in catalog.index]
        if unknown:
            of_all = f"{len(unknown):,} of {len(table.titles):,} titles of its candidates"
            names = listed(unknown, _TOLD)
            yield f"row {row}: {of_all} are not in the catalogue and set aside: {names}"


def _of_page(file: PageFile, catalog: Catalog) -> Iterator[str]:
    """What finds nothing for want of a column."""
    unknown = set(catalog.missing) - set(catalog.made_up)
    rows = [name for name, row in file.sources.items() if row.source == "new"]
    if "added" in unknown and (file.rules.fresh or rows):
        yield f"without a column added no title is new, for {listed([*file.rules.fresh, *rows])}"
    if "franchise" in unknown and any(cap.of == "franchise" for cap in file.rules.caps):
        yield "without a column franchise its caps hold nothing"


def _of_columns(key: str, columns: Iterable[ColumnFeature]) -> Iterator[str]:
    """Columns that are features, of the experiment of this key, and do not say much."""
    for column in columns:
        where = f"{key}: {column.feature.name}"
        if column.unknown:
            cells = "; ".join(map(str, column.wrong[:_TOLD]))
            more = "; …" if len(column.wrong) > _TOLD else ""
            of_all = f"{column.unknown:,} of {len(column.values):,} titles"
            yield f"{where} is unknown of {of_all}" + (f": {cells}{more}" if cells else "")
        if column.is_unlisted:
            words = listed(column.feature.values or column.feature.keys, _TOLD)
            has = f"the column has none of {words}" + _what_it_has(column)
            yield f"{where}: {has}, so that it tells no titles apart"


def _what_it_has(column: ColumnFeature) -> str:
    """What a category's column has most."""
    texts = Counter(value for value in column.values if isinstance(value, str))
    names = [text for text, _ in texts.most_common(_TOLD)]
    return f" but {listed(names)}" if names else ""


def _titles_go(count: int) -> str:
    return "1 title of the catalogue goes" if count == 1 else f"{count:,} titles go"


def _of_artwork(artwork: Experiment, catalog: Catalog) -> Iterator[str]:
    """Pictures of which there is nothing to learn."""
    if not any(catalog.pictures):
        yield f"no title has a picture (column pictures): {artwork.key} decides nothing"
        return
    fields = catalog.picture_fields
    for feature in artwork.sent_action_features:
        if fields and feature.name not in fields and feature.name != REST:
            hint = nearest(feature.name, fields)
            yield f"{artwork.key}: no picture has {feature.name}" + (f"; {hint}" if hint else "")
    if artwork.action_entities:
        return  # what tables tell of them by id may tell them apart
    pictures = PictureFeatures(artwork, catalog)
    if not pictures.several:
        yield f"no title has more than one picture: {artwork.key} has nothing to choose"
    elif pictures.alike == pictures.several:
        yield (
            f"{artwork.key}: to its policies all pictures of a title look alike, since no feature "
            "that it declares tells them apart: nothing can be learned across titles; "
            + _what_to_do(artwork)
        )
    elif pictures.alike:
        yield (
            f"{artwork.key}: to its policies the pictures of {pictures.alike:,} of "
            f"{pictures.several:,} titles look alike"
        )


def _what_to_do(artwork: Experiment) -> str:
    shared = []
    for variant in artwork.variants:
        if getattr(variant.params, "model", None) == "shared":
            shared.append(variant.name)
    if not shared:
        return "each picture is learned by itself"
    return (
        f"{listed(shared)} learns nothing with model: shared; model: hybrid learns each picture by "
        "itself (recipes/artwork-without-features.yaml), or give the pictures features"
    )
