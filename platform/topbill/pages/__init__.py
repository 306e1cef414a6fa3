"""A whole homepage in one call: rows, the titles in each and their artwork, each layer an
experiment of its own.
"""

from topbill.pages.answers import PageAnswer, PageRequest, RowAnswer, Tile
from topbill.pages.checks import validate
from topbill.pages.compose import Composer
from topbill.pages.files import PageFile, folder_of, load, load_all, sources

__all__ = [
    "Composer",
    "PageAnswer",
    "PageFile",
    "PageRequest",
    "RowAnswer",
    "Tile",
    "folder_of",
    "load",
    "load_all",
    "sources",
    "validate",
]
