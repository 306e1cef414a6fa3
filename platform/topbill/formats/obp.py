"""Open Bandit files and obp's `bandit_feedback`, to and from Topbill's decisions and reward events.

A row is one shown item: the decision's slate of one, its position a context feature. What obp calls
`pscore` is the placement's propensity, `reward` a reward event's value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Floats, Indices, Placement, RewardEvent
from topbill.formats.obp_columns import POSITION, Layout, Row, described, place_of, survey

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPEN_BANDIT = ("timestamp", "item_id", "position", "click", "propensity_score")


@dataclass(frozen=True, eq=False)
class BanditFeedback:
    """obp's batch: n rows of `action` (0…n_actions−1), `reward`, `pscore` in (0, 1], `context` (n ×
    d), and where there are several places `position` (0 is the first). `at` (µs since the epoch) is
    Topbill's addition, and so is `first`, the number of the first row where this is a part of a
    longer log."""

    n_actions: int
    action: Indices
    reward: Floats
    pscore: Floats
    context: Floats
    position: Indices | None = None
    action_context: Floats | None = None
    at: NDArray[np.int64] | None = None
    first: int = 0

    def __post_init__(self) -> None:
        """Raises BadData, naming rows, for lengths that differ, unknown actions and impossible
        propensities.
        """
        n = len(self.action)
        for name in ("reward", "pscore", "context", "position", "at"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise BadData(name, f"got {len(column)} rows; expected {n}, as many as action")
        self._each("pscore", (self.pscore > 0) & (self.pscore <= 1), "a probability in (0, 1]")
        self._each("reward", np.isfinite(self.reward), "a finite number")
        self._each(
            "action",
            (self.action >= 0) & (self.action < self.n_actions),
            f"0 to {self.n_actions - 1}",
        )

    def _each(self, name: str, good: NDArray[np.bool_], expected: str) -> None:
        if (bad := np.flatnonzero(~good)).size:
            values = ", ".join(f"{v:g}" for v in getattr(self, name)[bad[:5]])
            raise BadData(
                name,
                f"rows {', '.join(map(str, self.first + bad[:5]))}: got {values}; expected {expected}",
            )

    def __len__(self) -> int:
        return len(self.action)

    @classmethod
    def from_dict(
        cls, feedback: Mapping[str, Any], *, first: int = 0, at: NDArray[np.int64] | None = None
    ) -> BanditFeedback:
        """From the dictionary that obp's datasets give. Raises BadData for a key that is
        missing.
        """
        missing = [
            name
            for name in ("n_actions", "action", "reward", "pscore")
            if feedback.get(name) is None
        ]
        if missing:
            raise BadData(
                missing[0],
                "got nothing; expected obp's bandit_feedback with action, reward and pscore",
            )
        action = np.asarray(feedback["action"], dtype=np.intp)
        context, places, z = (
            feedback.get(name) for name in ("context", "position", "action_context")
        )
        return cls(
            n_actions=int(feedback["n_actions"]),
            action=action,
            reward=np.asarray(feedback["reward"], dtype=np.float64),
            pscore=np.asarray(feedback["pscore"], dtype=np.float64),
            context=np.zeros((len(action), 0))
            if context is None
            else np.asarray(context, dtype=np.float64),
            position=None if places is None else np.asarray(places, dtype=np.intp),
            action_context=None if z is None else np.asarray(z, dtype=np.float64),
            at=at,
            first=first,
        )

    def to_dict(self) -> dict[str, Any]:
        """The dictionary that obp's estimators and learners take."""
        names = ("n_actions", "action", "position", "reward", "pscore", "context", "action_context")
        return {"n_rounds": len(self)} | {name: getattr(self, name) for name in names}


def read_open_bandit(path: Path) -> BanditFeedback:
    """A Parquet or CSV file of the Open Bandit Dataset (Saito et al. 2021), as obp prepares it:
    rows by time, positions from 0, user features as dummies without their first value, in the order
    of columns and of sorted values."""
    table = _table(path)
    if missing := [name for name in _OPEN_BANDIT if name not in table.column_names]:
        raise BadData(
            f"{path.name}.{missing[0]}", f"no such column; expected {', '.join(_OPEN_BANDIT)}"
        )
    table = table.append_column(
        "at_", pa.compute.cast(table["timestamp"], pa.timestamp("us", tz="UTC"))
    )
    table = table.sort_by([("at_", "ascending")])
    item = table["item_id"].to_numpy().astype(np.intp)
    users = [
        table[name].to_numpy() for name in table.column_names if name.startswith("user_feature")
    ]
    dummies = [values == level for values in users for level in np.unique(values)[1:]]
    return BanditFeedback(
        n_actions=int(item.max()) + 1 if item.size else 0,
        action=item,
        reward=table["click"].to_numpy().astype(np.float64),
        pscore=table["propensity_score"].to_numpy().astype(np.float64),
        context=np.stack(dummies, axis=1).astype(np.float64)
        if dummies
        else np.zeros((item.size, 0)),
        position=np.unique(table["position"].to_numpy(), return_inverse=True)[1].astype(np.intp),
        at=table["at_"].to_numpy().astype("datetime64[us]").astype(np.int64),
    )


def to_log(feedback: BanditFeedback, experiment: str) -> Iterator[Row]:
    """Each row as a decision of `experiment` and its reward event; a reward of 0 has none.

    Action a is called `str(a)`; the context is {"x0": …, "position": "1"}; the row's own number is
    decision and unit.
    """
    eligible = tuple(str(a) for a in range(feedback.n_actions))
    for i in range(len(feedback)):
        action, p = str(feedback.action[i]), float(feedback.pscore[i])
        context: dict[str, Any] = {f"x{j}": float(v) for j, v in enumerate(feedback.context[i])}
        if feedback.position is not None:
            context[POSITION] = str(feedback.position[i])
        at = 0 if feedback.at is None else int(feedback.at[i])
        name = f"{experiment}-{feedback.first + i}"
        decision = Decision(
            decision_id=name,
            experiment=experiment,
            revision="",
            variant="logged",
            unit=name,
            context=msgspec.Raw(msgspec.json.encode(context)),
            eligible=eligible,
            slate=(Placement(0, action, p),),
            propensity=p,
            policy="imported",
            reason="policy",
            decided_at=at,
        )
        value = float(feedback.reward[i])
        event = RewardEvent(
            decision_id=decision.decision_id,
            event_id="reward",
            event="reward",
            value=value,
            received_at=at,
        )
        yield decision, [event] if value else []


def from_log(
    rows: Iterable[Row], *, actions: tuple[str, ...] | None = None, layout: Layout | None = None
) -> BanditFeedback:
    """Decisions with one placement and their events as feedback; the reward is the sum of the
    events' values.

    `layout` numbers actions and names the context's columns (default: as they are first met,
    actions as given by `actions`). Raises BadData for a slate of several, or an action that is not
    numbered.
    """
    if layout is None:
        rows = list(rows)
        layout = survey(rows, actions)
    action, reward, pscore, at, contexts, places = [], [], [], [], [], []
    for decision, events in rows:
        placed = only_placement(decision)
        context = described(decision)
        places.append(place_of(decision, context))
        action.append(layout.number(decision, placed.action))
        reward.append(sum(event.value for event in events))
        pscore.append(placed.propensity)
        at.append(decision.decided_at)
        contexts.append(context)
    return BanditFeedback(
        n_actions=len(layout.actions),
        action=np.array(action, dtype=np.intp),
        reward=np.array(reward, dtype=np.float64),
        pscore=np.array(pscore, dtype=np.float64),
        context=layout.matrix(contexts),
        position=np.array(places, dtype=np.intp) if layout.placed else None,
        at=np.array(at, dtype=np.int64),
    )


def only_placement(decision: Decision) -> Placement:
    """The placement of a slate of one. Raises BadData for a slate of several."""
    if len(decision.slate) != 1:
        raise BadData(
            decision.decision_id,
            f"got a slate of {len(decision.slate)}; expected one placement (obp-slate takes more)",
        )
    return decision.slate[0]


def csv_line(row: Row | None, layout: Layout) -> bytes:
    """A decision with one placement as a line of an Open Bandit CSV, or its header; ends included.

    An item is its number in the layout, positions count from 1, the context's features are columns
    `user_feature_…`.
    """
    out = io.StringIO()
    if row is None:
        names = [n if n.startswith("user_feature") else f"user_feature_{n}" for n in layout.names]
        csv.writer(out, lineterminator="\n").writerow([*_OPEN_BANDIT, *names])
        return out.getvalue().encode()
    decision, events = row
    placed = only_placement(decision)
    context = described(decision)
    place = place_of(decision, context) or 0
    at = (_EPOCH + timedelta(microseconds=decision.decided_at)).strftime(
        "%Y-%m-%d %H:%M:%S.%f+00:00"
    )
    click = sum(event.value for event in events)
    known = [
        layout.number(decision, placed.action),
        place + 1,
        f"{click:.17g}",
        f"{placed.propensity:.17g}",
    ]
    csv.writer(out, lineterminator="\n").writerow(
        [at, *known, *(context.get(name, "") for name in layout.names)]
    )
    return out.getvalue().encode()


def _table(path: Path) -> pa.Table:
    try:
        return (
            pyarrow.csv.read_csv(path)
            if path.suffix == ".csv"
            else pyarrow.parquet.read_table(path)
        )
    except (OSError, pa.ArrowException) as error:
        raise BadData(
            str(path), f"cannot be read ({error}); expected Parquet, or CSV named *.csv"
        ) from None


def write_open_bandit(feedback: BanditFeedback, path: Path) -> None:
    """The feedback as an Open Bandit file (Parquet, or CSV when named so): positions from 1,
    context as columns `user_feature_j`. Reading it again gives the same actions, rewards,
    propensities and positions."""
    n = len(feedback)
    at = np.arange(n, dtype=np.int64) if feedback.at is None else feedback.at
    place = np.zeros(n, dtype=np.intp) if feedback.position is None else feedback.position
    columns: dict[str, Any] = {
        "timestamp": pa.array(at, type=pa.timestamp("us", tz="UTC")),
        "item_id": feedback.action,
        "position": place + 1,
        "click": feedback.reward,
        "propensity_score": feedback.pscore,
    }
    columns |= {
        f"user_feature_{j}": feedback.context[:, j] for j in range(feedback.context.shape[1])
    }
    table = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
