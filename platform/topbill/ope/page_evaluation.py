"""`evaluate_page`: what whole pages would have earned had other policies decided one or more of
their layers.

A page is a slate of cells, one for each title with its row and its picture. The other layers stay
as they were logged, so that only those replaced weigh. Three ways to weigh a cell, from fewest to
most assumptions (`estimate_slate`):

- the whole page's joint ratio (sips, snsips), which assumes nothing of how viewers browse;
- the ratio of all that stands down to the cell, row by row (rips, snrips), since viewers look from
  top to bottom;
- each layer by itself (iips, sniips): what a title earns depends on the rows down to its own, on
  the titles before it in its row, and on its own picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import exp
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np

from topbill import lake
from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.metric import microseconds
from topbill.domain.objective import OBJECTIVE_RANGE
from topbill.domain.page_answer import PageAnswer
from topbill.domain.records import Floats, Indices
from topbill.domain.rewards import Looks, clipped_metrics, item_rewards
from topbill.ope.comparison import notes_of
from topbill.ope.diagnostics import Gates
from topbill.ope.estimation import estimate
from topbill.ope.evaluation import Evaluation, clipped_notes, explorers, stored_snapshot
from topbill.ope.intervals import Interval
from topbill.ope.page_lengths import (
    BEYOND,
    KEYS,
    LENGTHS_TOLD,
    LengthsLog,
    LengthSpans,
    StopRatio,
    StopRatios,
    other_lengths,
    spans_of,
)
from topbill.ope.replay.logged_data import LoggedData
from topbill.ope.replay.progressive import LARGEST_MOMENT, ProgressivePass
from topbill.ope.replay.reward_model import Link
from topbill.ope.replay.targets import Policy, resolve
from topbill.ope.result import Estimate, Estimates
from topbill.ope.slate_estimation import chosen_slate, from_slate_columns, slate_columns

PAGE = ("iips", "sniips", "rips", "snrips", "sips", "snsips")
"""Estimators of pages, those with the least variance first."""
_MOST = 300.0
"""No logarithm of a weight is larger: its square is a number still, and no gate lets it pass."""
_PAGES = """
SELECT decision_id, unit, epoch_us(decided_at), coalesce(row_weight, 1.0), actions, context
FROM decisions WHERE experiment = $page ORDER BY seq
"""


class _Served(NamedTuple):
    """A page of the log."""

    id: str
    unit: str
    decided_at: int
    weight: float
    """How many pages it stands for, in a log that was sub-sampled."""
    answer: PageAnswer
    spans: LengthSpans | None = None
    """Between which lengths it was drawn, where it was."""

    def variant(self, layer: str) -> str | None:
        """The variant that decided a layer of this page."""
        for one in self.answer.layers:
            if one.layer == layer:
                return one.variant
        return None

    def decisions(self, layer: str) -> Iterator[str]:
        """The ids of a layer's decisions on this page."""
        if layer == "rows":
            yield f"{self.id}:rows"
            return
        for row in self.answer.rows:
            if layer == "titles" and row.titles:
                yield f"{self.id}:{row.row}"
            elif layer == "artwork" and any(tile.picture for tile in row.titles):
                yield f"{self.id}:{row.row}:artwork"


def evaluate_page(
    page: str,
    instead: Mapping[str, Policy | float | tuple[int, int]],
    data_dir: Path | str = "data",
    *,
    estimators: Sequence[str] = (),
    alpha: float = 0.05,
    interval: Interval = "normal",
    link: Link = "linear",
    gates: Gates | None = None,
) -> Evaluation:
    """What a page would have earned, had `instead` decided those layers, or how many there are: the
    sum over its titles of the objective of the titles' experiment, per page, clustered by viewer.
    What rows and titles cost is not taken off.

    Pages whose replaced layers were not decided by a variant that explores, which are not mature,
    or of which nothing was looked at (`click_model` of the titles), are left out and counted.

    Args:
        page: the page's key.
        instead: a policy by layer (`rows`, `titles`, `artwork`). A policy is what `evaluate` takes;
            a file's or snapshot's variant is named behind an @, as `other.yaml@greedy`. Or other
            lengths, where they are drawn: `row_cost`, `title_cost`, and `rows.count`,
            `titles.count` as (least, most), within those of the log.
        data_dir: the data folder of `topbill serve`.
        estimators: names from `SLATE_ESTIMATORS`; by default all of PAGE, with other lengths those
            that can tell of them.
        alpha, interval, gates: as in `estimate_slate`.
        link: the reward model's, as in `evaluate`.

    Raises:
        NotFound: for a lake, page, file or snapshot that is not there.
        SpecError: for a file that is no experiment.
        BadRequest: for a layer that the page does not have, or none.
        BadData: naming decisions that cannot be used.
    """
    served = _served(Path(data_dir), page)
    log = _read(Path(data_dir), served[-1], instead, link)
    estimators = _estimators(estimators, log)
    cells, left_out, clipped, looks = _Cells(), Counter[str](), Counter[str](), Looks()
    for one in served:
        cause = _unfit(one, log)
        if cause is not None:
            left_out[cause] += 1
        else:
            cells.add(one, log)
            sides: set[str] = set()
            for decision in one.decisions("titles"):
                sides |= log.clipped.get(decision, frozenset())
                looks.update(log.looks[decision])
            clipped.update(sides)
    if not cells.units:
        causes = ", ".join(f"{count} {cause}" for cause, count in left_out.items()) or "nothing"
        expected = "some that explore"
        if BEYOND in left_out and served[-1].spans is not None:
            expected = f"lengths within those of its log, {served[-1].spans.told}"
        raise BadData(
            "pages", f"got none of {page} to score; left out: {causes}; expected {expected}"
        )
    names = [f"{layer}: {replaced.name}" for layer, replaced in log.layers.items()]
    if log.lengths is not None:
        names.append(log.lengths.asked.name)
    name = ", ".join(names)
    variants: set[str] = set()
    for replaced in log.layers.values():
        variants |= set(replaced.used)
    if log.lengths is not None:
        variants |= set().union(*log.lengths.drawn.values())
    notes = [*clipped_notes(clipped, len(cells.units)), *looks.notes]
    for layer, replaced in log.layers.items():
        notes += [f"{layer}: {note}" for note in replaced.notes]
    # One layer that shows what the log never did is enough for the page to be another one.
    unsupported = [replaced.unsupported for replaced in log.layers.values()]
    facts = {"unsupported": max(unsupported, default=0.0)}
    # A page has many cells, each with a chance to fail a gate by luck alone.
    options = {
        "alpha": alpha,
        "interval": interval,
        "gates": gates or _gates(cells.most),
    }
    least, most = (cells.most * end for end in OBJECTIVE_RANGE)
    told = cells.estimates(estimators, options, facts).within(least, most)
    return Evaluation(
        experiment=page,
        variants=tuple(sorted(variants)),
        decisions=len(cells.units),
        units=len(set(cells.units)),
        first_at=served[0].decided_at,
        last_at=served[-1].decided_at,
        left_out=dict(left_out),
        logged=replace(cells.logged(options).within(least, most), estimator="mean"),
        targets={name: told.told_beyond(least, most).noted(*notes)},
        value_range=(least, most),
        clipped=dict(clipped),
        looks=dict(looks),
    )


class _PageLog(NamedTuple):
    """The layers to replace, what each title of each row earned, by the row's decision, and when
    the last page was that is mature (µs)."""

    layers: dict[str, _Layer]
    rewards: dict[str, list[float | None]]
    mature: int
    clipped: dict[str, frozenset[str]]
    """By decision, what of its rewards was clipped; only where something was."""
    looks: dict[str, Looks]
    """By row's decision, what of its titles was looked at."""
    lengths: LengthsLog | None
    """What is asked of other lengths, if anything is."""


def _read(
    data: Path,
    last: _Served,
    instead: Mapping[str, Policy | float | tuple[int, int]],
    link: Link,
) -> _PageLog:
    keys: dict[str, str] = {one.layer: one.experiment for one in last.answer.layers}
    lengths = _lengths(instead, keys)
    titles = LoggedData(data, keys["titles"])
    rewards: dict[str, list[float | None]] = {}
    clipped: dict[str, frozenset[str]] = {}
    looks: dict[str, Looks] = {}
    try:
        for _, decision, events in titles:
            if lengths is not None:
                lengths.note(decision, "titles")
            rewards[decision.decision_id] = item_rewards(titles.experiment, decision, events)
            looks[decision.decision_id] = own = Looks()
            own.note(titles.experiment, decision, events)
            sides = clipped_metrics(titles.experiment, decision, events)
            if sides:
                clipped[decision.decision_id] = sides
    finally:
        titles.close()
    if lengths is not None:
        rows = LoggedData(data, keys["rows"])
        try:
            lengths.read(rows, "rows")
        finally:
            rows.close()
    layers: dict[str, _Layer] = {}
    for layer, policy in instead.items():
        if layer not in KEYS:
            layers[layer] = _Layer(data, keys[layer], cast(Policy, policy), link)
    window = max([titles.window, *(layer.window for layer in layers.values())])
    mature = titles.published - microseconds(window)
    return _PageLog(layers, rewards, mature, clipped, looks, lengths)


def _lengths(instead: Mapping[str, Any], keys: Mapping[str, str]) -> LengthsLog | None:
    """What is asked of other lengths. Raises BadRequest, also for layers that are not there."""
    for name in instead:
        if name not in keys and name not in KEYS:
            some = ", ".join([*keys, *KEYS])
            raise BadRequest("instead", f"got layer {name!r}; expected some of {some}")
    if not instead:
        raise BadRequest("instead", "got no layer; expected LAYER=POLICY, as artwork=uniform")
    asked = other_lengths(instead)
    if asked is None:
        return None
    for layer in ("rows", "titles"):
        if layer in instead and asked.asks(layer):
            raise BadRequest(
                "instead",
                f"got another policy and another length of {layer}; expected one of the two: what "
                "another policy expects of one more is not in the log",
            )
    return LengthsLog(asked)


def _estimators(asked: Sequence[str], log: _PageLog) -> Sequence[str]:
    """Those to work out. Raises BadRequest for some that cannot tell of other lengths."""
    able = PAGE if log.lengths is None else LENGTHS_TOLD
    if log.lengths is not None and not set(asked) <= set(able):
        some = ", ".join(able)
        raise BadRequest(
            "estimators", f"got {', '.join(asked)}; of lengths expected some of {some}"
        )
    return asked or able


def _served(data: Path, page: str) -> list[_Served]:
    engine = lake.open_engine(lake.database_of(data))
    try:
        rows = engine.sql(_PAGES, {"page": page}).fetchall()
    finally:
        engine.close()
    decode = msgspec.json.Decoder(PageAnswer).decode
    served = []
    for decision_id, unit, decided_at, weight, answer, context in rows:
        # A decision without an answer has no cells to weigh.
        if answer is None:
            continue
        try:
            page_answer, spans = decode(answer), spans_of(context)
            served.append(_Served(decision_id, unit, decided_at, weight, page_answer, spans))
        except msgspec.DecodeError as error:
            raise NotFound(
                f"{page!r} has decisions that are no pages: {error}; expected the key of a page "
                "file"
            ) from error
    if not served:
        raise NotFound(f"no page {page!r} in the lake; expected one that was served and published")
    return served


class _Layer:
    """One layer's log, passed through with the policy that is to replace it: by decision, ln(π/p)
    of each position, and Σ_a π²/p, which says how far from 1 its mean may be by chance.
    """

    def __init__(self, data: Path, key: str, policy: Policy, link: Link) -> None:
        variant = ""
        if isinstance(policy, str) and "@" in policy:
            policy, _, variant = policy.rpartition("@")
        log = LoggedData(data, key)
        try:
            snapshot = partial(stored_snapshot, data, key)
            targets = resolve(policy, variant=variant or None, data=log, snapshot=snapshot)
            if len(targets) > 1:
                names = ", ".join(target.name.rpartition("/")[2] for target in targets)
                raise BadRequest(
                    "instead",
                    f"got {policy} with variants {names}; expected one, as {policy}@VARIANT",
                )
            self.used = explorers(log.experiment)
            # Also what nobody looked at was drawn, and stood above what somebody did.
            scored = ProgressivePass(log, targets, self.used, link, with_unseen=True)
            scored.run(None)
        finally:
            log.close()
        self.name, self.window = targets[0].name, log.window
        self.notes = notes_of(targets[0])
        columns = scored.of_target[0]
        self.unsupported = scored.mean_of_items(columns.unsupported.values)
        self.ratios: dict[str, Floats] = {}
        self.moments: dict[str, Floats] = {}
        if scored.decisions:
            self.ratios = _by_decision(scored, _log_ratios(scored))
            self.moments = _by_decision(scored, columns.weight_moment.values)


def _log_ratios(scored: ProgressivePass) -> Floats:
    """ln(π/p) of each placement; −∞ where the policy never does what was done."""
    with np.errstate(divide="ignore"):
        pi = np.log(scored.of_target[0].propensity.values)
    return np.asarray(pi - np.log(scored.log.propensity.values), dtype=np.float64)


def _by_decision(scored: ProgressivePass, values: Floats) -> dict[str, Floats]:
    starts = np.flatnonzero(scored.log.position.values == 0)
    return dict(zip(scored.ids, np.split(values, starts[1:]), strict=True))


def _unfit(page: _Served, log: _PageLog) -> str | None:
    """Why a page is not scored; None where it is."""
    if page.decided_at >= log.mature:
        return "immature"
    for name, layer in log.layers.items():
        if page.variant(name) not in layer.used:
            return "other variants"
    for name, layer in log.layers.items():
        if any(decision not in layer.ratios for decision in page.decisions(name)):
            return "fallback or not to be scored"
    if any(decision not in log.rewards for decision in page.decisions("titles")):
        return "without its titles"
    if log.lengths is not None:
        own = {layer: list(page.decisions(layer)) for layer in ("rows", "titles")}
        cause = log.lengths.unfit(page.spans, own)
        if cause is not None:
            return cause
    if all(reward is None for each in page.decisions("titles") for reward in log.rewards[each]):
        return "not looked at"
    return None


class _Draws:
    """What was drawn for one cell, one draw after the other, in layers that are replaced."""

    def __init__(self) -> None:
        self.log_weight = 0.0
        self.moment = 1.0
        """Σ_a π²/p of all draws together, as far as the logged probabilities foresee it: what one
        adds counts by the squared weight of those before it."""

    def add(self, layer: _Layer | None, decision: str, position: int) -> float:
        """Count a draw, and return ln of its own weight; a layer that is not replaced, or has no
        decision there, weighs one: ln 1 = 0."""
        if layer is None or decision not in layer.ratios:
            return 0.0
        ratio = float(layer.ratios[decision][position])
        before = exp(2.0 * min(self.log_weight, _MOST))
        more = max(float(layer.moments[decision][position]) - 1.0, 0.0)
        self.moment = min(self.moment + before * more, LARGEST_MOMENT)
        self.log_weight += ratio
        return ratio

    def stop(self, ratio: StopRatio | None) -> None:
        """Count a draw of whether there is one more; None where that was not drawn anew."""
        if ratio is None:
            return
        before = exp(2.0 * min(self.log_weight, _MOST))
        self.moment = min(self.moment + before * max(ratio.moment - 1.0, 0.0), LARGEST_MOMENT)
        self.log_weight += ratio.log_ratio


_NO_STOPS: StopRatios = {}


class _Cells:
    """A row for each title of each page: what it earned, and ln of its weight at each level."""

    def __init__(self) -> None:
        self.units: list[str] = []
        self.most = 0
        """Most cells that a page has."""
        self._slate: list[int] = []
        self._position: list[int] = []
        self._earned: list[float] = []
        self._item: list[float] = []
        self._cascade: list[float] = []
        self._moment: list[float] = []
        self._joint: list[float] = []
        """By page."""
        self._weight: list[float] = []
        """By page, how many it stands for."""

    def add(self, page: _Served, log: _PageLog) -> None:
        """All cells of a page."""
        rows, titles, pictures = (log.layers.get(name) for name in ("rows", "titles", "artwork"))
        # Down the page: ln of the weight of all rows so far, and of all cells so far.
        of_rows = cascade = 0.0
        count = 0
        draws = _Draws()
        lengths = log.lengths
        row_stops = title_stops = _NO_STOPS
        if lengths is not None:
            row_stops = lengths.ratios(page.spans, "rows", f"{page.id}:rows")
        for i, row in enumerate(page.answer.rows):
            decision = f"{page.id}:{row.row}"
            if lengths is not None:
                title_stops = lengths.ratios(page.spans, "titles", decision)
            draws.stop(row_stops.get(i))
            of_rows += draws.add(rows, f"{page.id}:rows", i)
            of_titles = 0.0
            next_picture = 0
            for k, tile in enumerate(row.titles):
                draws.stop(title_stops.get(k))
                of_titles += draws.add(titles, decision, k)
                picture = 0.0
                if tile.picture is not None:
                    # Tiles without a picture were not decided, and have no position of their own.
                    picture = draws.add(pictures, f"{decision}:artwork", next_picture)
                    next_picture += 1
                cascade += draws.log_weight
                self._item.append(of_rows + of_titles + picture)
                self._cascade.append(cascade)
                self._moment.append(draws.moment)
                self._slate.append(len(self.units))
                self._position.append(count)
                # What nobody looked at earned nothing for the page, and no other would have.
                self._earned.append(log.rewards[decision][k] or 0.0)
                count += 1
                draws = _Draws()
            draws.stop(title_stops.get(len(row.titles)))
        draws.stop(row_stops.get(len(page.answer.rows)))
        # A row without titles has no cell, but was drawn all the same.
        self._joint.append(cascade + draws.log_weight)
        self._weight.append(page.weight)
        self.units.append(page.unit)
        self.most = max(self.most, count)

    @property
    def weights(self) -> Floats | None:
        """(pages,) how many each stands for; None where each stands for itself alone."""
        weights = np.array(self._weight)
        return weights if (weights != weights[0]).any() else None

    def logged(self, options: dict[str, Any]) -> Estimate:
        """What the log earned per page: the policy that chose it weighs one."""
        pages = len(self.units)
        slate = np.array(self._slate, dtype=np.intp)
        totals = np.bincount(slate, weights=np.array(self._earned), minlength=pages)
        certain = np.ones(pages)
        units = np.array(self.units, dtype=object)
        estimates = estimate(
            totals,
            certain,
            certain,
            units=units,
            weights=self.weights,
            estimators=("ips",),
            **options,
        )
        return estimates["ips"]

    def estimates(
        self, estimators: Sequence[str], options: dict[str, Any], facts: dict[str, Any]
    ) -> Estimates:
        """What each estimator says of the policies instead."""
        slate = np.array(self._slate, dtype=np.intp)
        joint = np.array(self._joint)
        pages, ends = self._below_the_end(slate)
        # A page shorter than the longest earns nothing below its end, where its weight stays what
        # it was.
        logs = {
            "item_": np.concatenate([self._item, np.zeros(pages.size)]),
            "cascade_": np.concatenate([self._cascade, joint[pages]]),
            "": np.concatenate([joint[slate], joint[pages]]),
        }
        slate = np.concatenate([slate, pages])
        columns: dict[str, Any] = {}
        for level, log in logs.items():
            # A page's own probabilities are too small for a number; their quotient, which alone
            # counts, is not. So the larger of the two is taken as 1.
            log = np.minimum(log, _MOST)
            columns[f"{level}propensities"] = np.exp(-np.maximum(log, 0.0))
            columns[f"target_{level}propensities"] = np.exp(np.minimum(log, 0.0))
        weights = self.weights
        spread = slate_columns(
            np.concatenate([self._earned, np.zeros(pages.size)]),
            slate_id=slate,
            position=np.concatenate([self._position, ends]),
            units=np.array(self.units, dtype=object)[slate],
            weights=None if weights is None else weights[slate],
            weight_moments=np.concatenate([self._moment, np.ones(pages.size)]),
            **columns,
        )
        return from_slate_columns(spread, chosen_slate(estimators), facts=facts, **options)

    def _below_the_end(self, slate: Indices) -> tuple[Indices, Indices]:
        """Pages and positions of the cells that pages lack to be as long as the longest."""
        counts = np.bincount(slate, minlength=len(self.units))
        pages = np.repeat(np.arange(len(self.units)), self.most - counts)
        ends = np.concatenate([np.arange(count, self.most) for count in counts])
        return pages, ends


def _gates(cells: int) -> Gates:
    """The usual ones, of which the mean weight's is asked for each cell: as rarely wrong over all
    as over one.
    """
    plain = Gates()
    tail = NormalDist().cdf(-plain.mean_weight_z) / cells
    return replace(plain, mean_weight_z=-NormalDist().inv_cdf(tail))
