"""The candidate signal that a package of your own brings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import msgspec

from topbill.domain.records import Floats
from topbill.plugins.policy import NoParams


class PageTitles(NamedTuple):
    """The T titles of a page's catalogue, in its order: ids, names, years, and the genres of
    each."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    years: tuple[int, ...]
    genres: tuple[tuple[str, ...], ...]


class PageViewer(NamedTuple):
    """Who a page is for.

    Attributes:
        watched: Rows of the titles that were played, newest last.
        region: Where the viewer is.
        context: What the call says beside, by feature.
        now: Seconds since the epoch.
    """

    watched: tuple[int, ...]
    region: str
    context: Mapping[str, Any]
    now: float


class OwnSignal(ABC):
    """What speaks for titles to a viewer, by a package of your own. Name the class as an entry
    point of the group `topbill.signals`, and a row of a page may be made of it: `{source: external,
    signal: NAME}`.

    What it raises, or returns that is no number for each title, leaves the row to what the request
    or its table brings, the page says `candidates` among its `fallbacks`; likewise where it takes
    longer than the page's `budget_ms`.

    Attributes:
        params: What the row says under `with`, as an object of `Params`.
        titles: The page's titles; a changed catalogue makes a new signal.
    """

    Params: ClassVar[type[msgspec.Struct]] = NoParams
    """A frozen struct of the parameters that a row may set; other keys are refused by name."""

    def __init__(self, params: Any, titles: PageTitles) -> None:
        self.params, self.titles = params, titles

    @abstractmethod
    def scores(self, viewer: PageViewer) -> Floats:
        """How much speaks for each title to this viewer.

        Returns:
            (T,) the higher the better; NaN where it says nothing of a title, which then is no
            candidate. At most 1e9 in either direction.
        """
