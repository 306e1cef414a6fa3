"""`evaluate_page`: what whole pages would have earned had other policies decided one or more of
their layers.

A page is a slate of cells, one for each title with its row and its picture. The other layers stay
as they were logged, so that only those replaced weigh. Three ways to weigh a cell, from fewest to
most assumptions (`estimate_slate`):

- the whole page's joint ratio (sips, snsips), which assumes nothing of how viewers browse;
- the ratio of all that stands down to the cell, row by row (rips, snrips), since viewers look from top to bottom;
- each layer by itself (iips, sniips): what a title earns depends on the rows down to its own, on the titles before it
  in its row, and on its own picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import msgspec
import numpy as np

from topbill import lake
from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.records import Floats
from topbill.domain.rewards import item_rewards
from topbill.ope.diagnostics import Gates
from topbill.ope.estimate import estimate
from topbill.ope.estimate_slate import estimate_slate
from topbill.ope.evaluate import Evaluation, explorers, stored_snapshot
from topbill.ope.intervals import Interval
from topbill.ope.replay.logged_data import Record
from topbill.ope.replay.progressive import Walk
from topbill.ope.replay.reward_model import Link
from topbill.ope.replay.targets import Chooser, Target, resolve
from topbill.ope.result import Estimate
from topbill.pages.answers import PageAnswer

PAGE = ("iips", "sniips", "rips", "snrips", "sips", "snsips")
"""Estimators of pages, those with the least variance first."""
_MOST = 300.0
"""No logarithm of a weight is larger: its square is a number still, and no gate lets it pass."""
_PAGES = """
SELECT decision_id, unit, epoch_us(decided_at) AS decided_at, actions FROM decisions WHERE experiment = $page ORDER BY seq
"""


class _Served(NamedTuple):
    """A page of the log."""

    id: str
    unit: str
    decided_at: int
    answer: PageAnswer

    def variant(self, layer: str) -> str | None:
        return next((one.variant for one in self.answer.layers if one.layer == layer), None)


def evaluate_page(
    page: str,
    instead: Mapping[str, str | Path | Chooser | Target],
    data_dir: Path | str = "data",
    *,
    estimators: Sequence[str] = PAGE,
    alpha: float = 0.05,
    interval: Interval = "normal",
    link: Link = "linear",
    gates: Gates | None = None,
) -> Evaluation:
    """What a page would have earned, had `instead` decided those layers (`rows`, `titles`,
    `artwork`): the sum over its titles of the objective of the titles' experiment, per page,
    clustered by viewer.

    A policy is what `evaluate` takes; a file's or snapshot's variant is named behind an @, as
    `other.yaml@greedy`. Pages whose replaced layers were not decided by a variant that explores, or
    which are not mature, are left out and counted.

    Raises NotFound, SpecError, BadRequest, and BadData naming decisions.
    """
    served = _served(Path(data_dir), page)
    layers, rewards, mature = _read(Path(data_dir), served[-1], instead, link)
    cells, left_out = _Cells(), Counter[str]()
    for one in served:
        if (cause := _unfit(one, layers, rewards, mature)) is not None:
            left_out[cause] += 1
        else:
            cells.add(one, layers, rewards)
    if not cells.units:
        causes = ", ".join(f"{count} {cause}" for cause, count in left_out.items()) or "nothing"
        raise BadData(
            "pages", f"got none of {page} to score; left out: {causes}; expected some that explore"
        )
    name = ", ".join(f"{layer}: {found.name}" for layer, found in layers.items())
    options = {"alpha": alpha, "interval": interval, "gates": gates}
    logged, found = cells.estimates(estimators, options)
    return Evaluation(
        experiment=page,
        variants=tuple(sorted({variant for layer in layers.values() for variant in layer.used})),
        decisions=len(cells.units),
        units=logged.diagnostics.units,
        first_at=served[0].decided_at,
        last_at=served[-1].decided_at,
        left_out=dict(left_out),
        logged=replace(logged, estimator="mean"),
        targets={name: found},
    )


def _read(
    data: Path, last: _Served, instead: Mapping[str, str | Path | Chooser | Target], link: Link
) -> tuple[dict[str, _Layer], dict[str, list[float]], int]:
    """The layers to replace, what each title of each row earned, by the row's decision, and when
    the last page was that is mature (µs)."""
    keys: dict[str, str] = {one.layer: one.experiment for one in last.answer.layers}
    if unknown := [layer for layer in instead if layer not in keys]:
        raise BadRequest("instead", f"got layer {unknown[0]!r}; expected some of {', '.join(keys)}")
    if not instead:
        raise BadRequest("instead", "got no layer; expected LAYER=POLICY, as artwork=uniform")
    record = Record(data, keys["titles"])
    try:
        rewards = {
            decision.decision_id: [
                reward or 0.0 for reward in item_rewards(record.experiment, decision, events)
            ]
            for _, decision, events in record
        }
    finally:
        record.close()
    layers = {layer: _Layer(data, keys[layer], policy, link) for layer, policy in instead.items()}
    window = max(record.window, *(layer.window for layer in layers.values()))
    return layers, rewards, record.published - round(window * 1e6)


def _served(data: Path, page: str) -> list[_Served]:
    connection = lake.connect(data / lake.DATABASE)
    try:
        rows = connection.execute(_PAGES, {"page": page}).fetchall()
    finally:
        connection.close()
    decode = msgspec.json.Decoder(PageAnswer).decode
    try:
        found = [
            _Served(name, unit, decided_at, decode(told))
            for name, unit, decided_at, told in rows
            if told is not None
        ]
    except msgspec.DecodeError as error:
        raise NotFound(
            f"{page!r} has decisions that are no pages: {error}; expected the key of a page file"
        ) from error
    if not found:
        raise NotFound(f"no page {page!r} in the lake; expected one that was served and published")
    return found


class _Layer:
    """One layer's log walked with the policy that is to replace it: by decision, ln(π/p) of each
    position.
    """

    def __init__(
        self, data: Path, key: str, policy: str | Path | Chooser | Target, link: Link
    ) -> None:
        named, _, variant = (
            policy.rpartition("@")
            if isinstance(policy, str) and "@" in policy
            else (policy, "", "")
        )
        record = Record(data, key)
        try:
            stored = partial(stored_snapshot, data, key)
            targets = resolve(
                named, variant=variant or None, logged=record.experiment, snapshot=stored
            )
            if len(targets) > 1:
                names = ", ".join(target.name.rpartition("/")[2] for target in targets)
                raise BadRequest(
                    "instead",
                    f"got {named} with variants {names}; expected one, as {named}@VARIANT",
                )
            self.used = explorers(record.experiment)
            walk = Walk(record, targets, self.used, link)
            walk.run(None)
        finally:
            record.close()
        self.name, self.window = targets[0].name, record.window
        self.ratios = _ratios(walk) if walk.decisions else {}


def _ratios(walk: Walk) -> dict[str, Floats]:
    with np.errstate(divide="ignore"):
        logs = np.log(walk.column("pi0")) - np.log(walk.column("p"))
    starts = np.flatnonzero(walk.column("position") == 0)
    return dict(zip(walk.ids, np.split(logs, starts[1:]), strict=True))


def _unfit(
    page: _Served, layers: Mapping[str, _Layer], rewards: Mapping[str, list[float]], mature: int
) -> str | None:
    if page.decided_at >= mature:
        return "immature"
    if any(page.variant(name) not in layer.used for name, layer in layers.items()):
        return "other variants"
    needed = {name: list(_decisions(page, name)) for name in layers}
    if any(d not in layers[name].ratios for name, ids in needed.items() for d in ids):
        return "fallback or not to be scored"
    return None if all(d in rewards for d in _decisions(page, "titles")) else "without its titles"


def _decisions(page: _Served, layer: str) -> Iterator[str]:
    """The ids of a layer's decisions on a page."""
    if layer == "rows":
        yield f"{page.id}:rows"
        return
    for row in page.answer.rows:
        if layer == "titles" and row.titles:
            yield f"{page.id}:{row.row}"
        elif layer == "artwork" and any(tile.picture for tile in row.titles):
            yield f"{page.id}:{row.row}:artwork"


class _Cells:
    """A row for each title of each page: what it earned, and ln of its weight at each level."""

    def __init__(self) -> None:
        self.units: list[str] = []
        self._slate: list[int] = []
        self._position: list[int] = []
        self._earned: list[float] = []
        self._logs: dict[str, list[float]] = {"item_": [], "cascade_": [], "": []}

    def add(
        self, page: _Served, layers: Mapping[str, _Layer], rewards: Mapping[str, list[float]]
    ) -> None:
        """All cells of a page."""
        slate, cascade, rows, count = len(self.units), 0.0, 0.0, 0
        none = np.zeros(1_000)
        of = {name: layer.ratios for name, layer in layers.items()}
        order = of["rows"][f"{page.id}:rows"] if "rows" in of else none
        for i, row in enumerate(page.answer.rows):
            rows += order[i]
            cascade += order[i]
            titles, pictures = (
                iter(of[name].get(key, none) if name in of else none)
                for name, key in (
                    ("titles", f"{page.id}:{row.row}"),
                    ("artwork", f"{page.id}:{row.row}:artwork"),
                )
            )
            before = 0.0
            for k, tile in enumerate(row.titles):
                title = float(next(titles))
                picture = float(next(pictures)) if tile.picture is not None else 0.0
                before += title
                cascade += title + picture
                self._logs["item_"].append(rows + before + picture)
                self._logs["cascade_"].append(cascade)
                self._slate.append(slate)
                self._position.append(count)
                self._earned.append(rewards[f"{page.id}:{row.row}"][k])
                count += 1
        self._logs[""] += [cascade] * count
        self.units.append(page.unit)

    def estimates(
        self, estimators: Sequence[str], options: dict[str, Any]
    ) -> tuple[Estimate, dict[str, Estimate]]:
        """What the log earned per page, and what each estimator says of the policies instead."""
        slate, earned = np.array(self._slate, dtype=np.intp), np.array(self._earned)
        units = np.array(self.units, dtype=object)
        counts = np.bincount(slate, minlength=len(units))
        total = np.bincount(slate, weights=earned, minlength=len(units))
        # A page shorter than the longest earns nothing below its end, where its weight stays what
        # it was.
        short = np.repeat(np.arange(len(units)), counts.max() - counts)
        ends = np.concatenate([np.arange(count, counts.max()) for count in counts])
        joint = np.zeros(len(units))
        joint[slate] = self._logs[""]
        below = {"item_": np.zeros(short.size), "cascade_": joint[short], "": joint[short]}
        slate = np.concatenate([slate, short])
        columns: dict[str, Any] = {}
        for level, logs in self._logs.items():
            # A page's own probabilities are too small for a number; their quotient, which alone
            # counts, is not.
            log = np.minimum(np.concatenate([logs, below[level]]), _MOST)
            columns[f"{level}propensities"] = np.exp(-np.maximum(log, 0.0))
            columns[f"target_{level}propensities"] = np.exp(np.minimum(log, 0.0))
        options["gates"] = options["gates"] or _gates(int(counts.max()))
        found = estimate_slate(
            np.concatenate([earned, np.zeros(short.size)]),
            slate_id=slate,
            position=np.concatenate([self._position, ends]),
            units=units[slate],
            estimators=estimators,
            **columns,
            **options,
        )
        sure = np.ones(len(units))  # what was logged weighs one
        logged = estimate(total, sure, sure, units=units, estimators=("ips",), **options)["ips"]
        return logged, found


def _gates(cells: int) -> Gates:
    """The usual ones, of which the mean weight's is asked for each cell: as rarely wrong over all
    as over one.
    """
    plain = Gates()
    tail = NormalDist().cdf(-plain.mean_weight_z) / cells
    return replace(plain, mean_weight_z=-NormalDist().inv_cdf(tail))
