"""Open Bandit files and obp's `bandit_feedback`, to and from Topbill's decisions and reward events.

A row is one shown item: the decision's slate of one, its position a context feature. What obp calls
`pscore` is the placement's propensity, `reward` a reward event's value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from topbill.domain.chance import ROUNDING
from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Floats, Indices, Placement, RewardEvent
from topbill.formats.obp_columns import (
    POSITION,
    ObpColumns,
    context_features,
    context_of,
    names_of,
    survey,
    take_position,
    vector,
)
from topbill.formats.rows import Row
from topbill.formats.rows import only_placement as _only_placement

OPEN_BANDIT_COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")
"""The columns that every Open Bandit file has."""
USER_FEATURE = "user_feature"
"""What the names of its other columns begin with."""


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
        is_probability = (self.pscore > 0) & (self.pscore <= 1)
        is_action = (self.action >= 0) & (self.action < self.n_actions)
        self._check_each("pscore", is_probability, "a probability in (0, 1]")
        self._check_each("reward", np.isfinite(self.reward), "a finite number")
        self._check_each("action", is_action, f"0 to {self.n_actions - 1}")

    def _check_each(self, name: str, good: NDArray[np.bool_], expected: str) -> None:
        """Raises BadData for the first five rows whose value is not good."""
        bad = np.flatnonzero(~good)[:5]
        if bad.size:
            rows = ", ".join(map(str, self.first + bad))
            values = ", ".join(f"{value:g}" for value in getattr(self, name)[bad])
            raise BadData(name, f"rows {rows}: got {values}; expected {expected}")

    def __len__(self) -> int:
        return len(self.action)

    @classmethod
    def from_dict(
        cls, feedback: Mapping[str, Any], *, first: int = 0, at: NDArray[np.int64] | None = None
    ) -> BanditFeedback:
        """From the dictionary that obp's datasets give. Raises BadData for a key that is
        missing.
        """
        for name in ("n_actions", "action", "reward", "pscore"):
            if feedback.get(name) is None:
                raise BadData(
                    name,
                    "got nothing; expected obp's bandit_feedback with action, reward and pscore",
                )
        action = vector("action", feedback["action"], np.intp)
        pscore = vector("pscore", feedback["pscore"], np.float64)
        # Of float32, or a product: what rounding took past 1 is 1.
        rounded = (pscore > 1.0) & (pscore <= 1.0 + ROUNDING)
        position = feedback.get("position")
        context = feedback.get("context")
        return cls(
            n_actions=int(feedback["n_actions"]),
            action=action,
            reward=vector("reward", feedback["reward"], np.float64),
            pscore=np.where(rounded, 1.0, pscore),
            context=_floats(np.zeros((len(action), 0)) if context is None else context),
            position=None if position is None else vector("position", position, np.intp),
            action_context=_optional(feedback.get("action_context"), np.float64),
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
    for name in OPEN_BANDIT_COLUMNS:
        if name not in table.column_names:
            raise BadData(
                f"{path.name}.{name}", f"no such column; expected {', '.join(OPEN_BANDIT_COLUMNS)}"
            )
    times = pyarrow.compute.cast(table["timestamp"], pa.timestamp("us", tz="UTC"))
    table = table.append_column("at_", times).sort_by([("at_", "ascending")])
    # Positions of the dataset are 1 to 3, of other files any: obp numbers those that there are.
    positions = np.unique(table["position"].to_numpy(), return_inverse=True)[1]
    item = table["item_id"].to_numpy().astype(np.intp)
    context = _dummies(table)
    return BanditFeedback(
        n_actions=int(item.max()) + 1 if item.size else 0,
        action=item,
        reward=table["click"].to_numpy().astype(np.float64),
        pscore=table["propensity_score"].to_numpy().astype(np.float64),
        context=context,
        position=positions.astype(np.intp),
        at=table["at_"].to_numpy().astype("datetime64[us]").astype(np.int64),
    )


def to_log(feedback: BanditFeedback, experiment: str) -> Iterator[Row]:
    """Each row as a decision of `experiment` and its reward event; a reward of 0 has none.

    Action a is called `str(a)`; the context is {"x0": …, "position": "1"}; the row's own number is
    decision and unit.
    """
    eligible = names_of(feedback.n_actions)
    for i in range(len(feedback)):
        action, p = str(feedback.action[i]), float(feedback.pscore[i])
        context = context_of(feedback.context[i])
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
    rows: Iterable[Row],
    *,
    actions: tuple[str, ...] | None = None,
    columns: ObpColumns | None = None,
) -> BanditFeedback:
    """Decisions with one placement and their events as feedback; the reward is the sum of the
    events' values.

    Args:
        rows: Decisions with their events.
        actions: Numbers the actions, where there are no `columns`.
        columns: Numbers actions and names the context's columns; by default as they are first met.

    Raises:
        BadData: A slate of several, or an action that is not numbered.
    """
    if columns is None:
        rows = list(rows)
        columns = survey(rows, actions)
    action: list[int] = []
    reward: list[float] = []
    pscore: list[float] = []
    at: list[int] = []
    contexts: list[dict[str, Any]] = []
    positions: list[int | None] = []
    for decision, events in rows:
        placed = only_placement(decision)
        context = context_features(decision)
        positions.append(take_position(decision, context))
        action.append(columns.number(decision, placed.action))
        reward.append(sum(event.value for event in events))
        pscore.append(placed.propensity)
        at.append(decision.decided_at)
        contexts.append(context)
    return BanditFeedback(
        n_actions=len(columns.actions),
        action=np.array(action, dtype=np.intp),
        reward=np.array(reward, dtype=np.float64),
        pscore=np.array(pscore, dtype=np.float64),
        context=columns.matrix(contexts),
        position=np.array(positions, dtype=np.intp) if columns.placed else None,
        at=np.array(at, dtype=np.int64),
    )


def only_placement(decision: Decision) -> Placement:
    """The placement of a slate of one. Raises BadData for a slate of several."""
    return _only_placement(decision, "expected one placement (obp-slate takes more)")


def _dummies(table: pa.Table) -> Floats:
    """(n × d) a column for each value of each user feature but its first, as obp makes them."""
    columns: list[NDArray[np.bool_]] = []
    for name in table.column_names:
        if name.startswith(USER_FEATURE):
            values = table[name].to_numpy()
            columns += [values == level for level in np.unique(values)[1:]]
    if not columns:
        return np.zeros((table.num_rows, 0))
    return np.stack(columns, axis=1).astype(np.float64)


def _floats(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _optional(values: Any, dtype: Any) -> NDArray[Any] | None:
    return None if values is None else np.asarray(values, dtype=dtype)


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
    # Rows without a time are a microsecond apart: readers sort by time, and must find their order.
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
        f"{USER_FEATURE}_{j}": feedback.context[:, j] for j in range(feedback.context.shape[1])
    }
    table = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
