"""A whole homepage in one call: rows, the titles in each and their artwork, each layer an
experiment of its own.
"""

from topbill.domain.page_answer import PageAnswer, RowAnswer, Tile
from topbill.pages.candidate_table import read_tables
from topbill.pages.compiled import CompiledPage, Viewer
from topbill.pages.compose import ComposedPage, PageBuilder, compose
from topbill.pages.files import (
    PageFile,
    experiment_folders,
    experiments_of,
    folder_of,
    load,
    load_all,
    load_experiments,
)
from topbill.pages.notes import notes
from topbill.pages.payloads import PagePayloads, layer_files, layer_payloads, page_titles
from topbill.pages.request import PageRequest
from topbill.pages.validation import validate, validate_experiment

__all__ = [
    "CompiledPage",
    "ComposedPage",
    "PageAnswer",
    "PageBuilder",
    "PageFile",
    "PagePayloads",
    "PageRequest",
    "RowAnswer",
    "Tile",
    "Viewer",
    "compose",
    "experiment_folders",
    "experiments_of",
    "folder_of",
    "layer_files",
    "layer_payloads",
    "load",
    "load_all",
    "load_experiments",
    "notes",
    "page_titles",
    "read_tables",
    "validate",
    "validate_experiment",
]
