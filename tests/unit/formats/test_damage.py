"""Damaged and invented files: whatever is in them, they are read or refused with a named error, and
nothing crashes.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topbill import formats
from topbill.domain.decision import decision_rows
from topbill.domain.errors import BadData, TopbillError
from topbill.formats import arrow_rows, ccb, dsjson, eppo, obp, open_bandit, parts
from topbill.formats.obp_columns import survey
from topbill.formats.rows import Row

from .decisions import FEATURES, logged

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False),
        st.text(max_size=3),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)
QUICK = settings(max_examples=60, suppress_health_check=list(HealthCheck))
FOREIGN: dict[str, dict[str, Any]] = {
    "cb": {
        "_label_cost": -1.0,
        "EventId": "e",
        "Timestamp": "2026-01-01T00:00:00Z",
        "a": [2, 1],
        "p": [0.6, 0.4],
        "c": {"u": {"x": 1}, "_multi": [{"_tag": "a", "f": {"y": 1}}, {"id": "b"}]},
        "o": [{"v": 1, "EventId": "x"}],
    },
    "ccb": {
        "Timestamp": "2019-09-10T14:43:37.2010000Z",
        "EventId": "e",
        "c": {
            "G": {"id": "m"},
            "_multi": [{"T": {"t": "s"}}, {"_tag": "b"}],
            "_slots": [{"_id": "a"}],
        },
        "_outcomes": [{"_label_cost": -1.0, "_id": "a", "_a": [1, 0], "_p": [0.8, 0.2], "_o": []}],
    },
    "eppo": {
        "timestamp": "2026-01-31T12:00:00Z",
        "flagKey": "flag",
        "subject": "alice",
        "action": "nike",
        "actionProbability": 0.25,
        "subjectNumericAttributes": {"age": 25},
        "actionCategoricalAttributes": {"from": "usa"},
    },
}


def attempt(path: Path, chosen: str) -> None:
    """Read all that can be read, as far as the columns of the lake."""
    with suppress(TopbillError):
        rows = list(formats.read(path, chosen, "key"))
        decision_rows(list(enumerate(decision for decision, _ in rows)))


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(p for key, part in inner for p in paths(part, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], other)
    return copy


def own(row: Row, name: str) -> dict[str, Any]:
    """A line of our own; what Eppo's keeps as text inside is there to be changed as well."""
    line = {"cb": dsjson, "ccb": ccb, "eppo": eppo}[name].dump_line(*row, FEATURES)  # type: ignore[attr-defined]
    return dict(json.loads(line))


@pytest.mark.parametrize("name", ["cb", "ccb", "eppo"])
@QUICK
@given(data=st.data())
def test_a_line_with_anything_anywhere_is_read_or_refused(
    tmp_path: Path, name: str, data: st.DataObject
) -> None:
    line = data.draw(st.one_of(st.just(FOREIGN[name]), logged().map(lambda row: own(row, name))))
    if name == "eppo" and "metaData" in line and data.draw(st.booleans()):
        kept = json.loads(line["metaData"]["topbill"])
        kept = changed(kept, data.draw(st.sampled_from(paths(kept))), data.draw(JSON))
        line["metaData"]["topbill"] = json.dumps(kept)
    else:
        line = changed(line, data.draw(st.sampled_from(paths(line))), data.draw(JSON))
    (tmp_path / "log").write_text(json.dumps(line, ensure_ascii=False), errors="surrogatepass")
    attempt(tmp_path / "log", "eppo" if name == "eppo" else "dsjson")


def files(folder: Path, rows: list[Row]) -> dict[str, tuple[Path, str]]:
    """The same decisions in every format that is a file."""
    table = arrow_rows.to_table(rows)
    parts.write_parquet_file(table, folder / "parquet")
    parts.write_arrow_file(table, folder / "arrow")
    (folder / "dsjson").write_bytes(b"\n".join(dsjson.dump_line(*row, FEATURES) for row in rows))
    columns = survey(rows)
    feedback = {
        k: v for k, v in obp.from_log(rows, columns=columns).to_dict().items() if v is not None
    }
    np.savez(folder / "stored.npz", **feedback)
    np.savez_compressed(folder / "deflated.npz", **feedback)
    (folder / "csv").write_bytes(
        b"".join(
            [
                open_bandit.csv_line(None, columns),
                *(open_bandit.csv_line(row, columns) for row in rows),
            ]
        )
    )
    kinds = {"stored.npz": "obp", "deflated.npz": "obp", "csv": "open-bandit"}
    return {path.name: (path, kinds.get(path.name, path.name)) for path in folder.iterdir()}


@QUICK
@given(rows=st.lists(logged(), min_size=1, max_size=5), data=st.data())
def test_a_file_with_damaged_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("files")
    path, chosen = files(folder, rows)[
        data.draw(
            st.sampled_from(["parquet", "arrow", "dsjson", "csv", "stored.npz", "deflated.npz"])
        )
    ]
    raw = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(raw) - 1))
    raw[start : start + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=30))
    path.write_bytes(raw)
    attempt(path, chosen)


def test_what_is_of_another_kind_altogether_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("nonsense")
    for chosen in (entry.name for entry in formats.FORMATS.values() if entry.reader):
        for path in (tmp_path / "text", tmp_path):
            with pytest.raises(TopbillError):
                list(formats.read(path, chosen, "key"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_actions": 10**9}, "expected at most 10,000"),
        ({"n_actions": 1.5}, "expected a whole number"),
        ({"action": np.array([0.0, np.nan])}, "row 1: got nan; expected a whole number"),
        ({"context": np.array([[0.0], [np.inf]])}, "row 1: got what is not finite"),
        ({"reward": np.array([1.0])}, "reward: got 1 rows; expected 2"),
        ({"pscore": np.array([0.5, 0.0])}, "rows 1: got 0"),
        ({"action": np.array(["a", "b"])}, "no such array of numbers"),
    ],
)
def test_arrays_that_make_no_sense_are_named(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    good = {
        "n_actions": 2,
        "action": np.array([0, 1]),
        "reward": np.zeros(2),
        "pscore": np.full(2, 0.5),
    }
    np.savez(tmp_path / "log.npz", **{**good, **change})
    with pytest.raises(BadData, match=said):
        list(formats.read(tmp_path / "log.npz", "obp", "key"))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("propensity", -1.0),
        ("context", "[]"),
        ("context", "x"),
        ("actions", "{}"),
        ("decided_at", -1),
        ("decision_id", ""),
    ],
)
def test_a_row_that_nobody_could_have_logged_is_named(
    tmp_path: Path, column: str, value: Any
) -> None:
    row = {
        "decision_id": "d",
        "experiment": "x",
        "variant": "v",
        "unit": "u",
        "propensity": 1.0,
        "policy": "p",
    }
    row |= {
        "revision": "",
        "policy_version": 0,
        "reason": "policy",
        "decided_at": 0,
        "context": "{}",
        "eligible": [],
    }
    table = arrow_rows.SCHEMA.empty_table().from_pylist(
        [{**row, "slate": [], "events": [], column: value}]
    )
    table = pyarrow.concat_tables(
        [arrow_rows.SCHEMA.empty_table(), table], promote_options="permissive"
    )
    pyarrow.parquet.write_table(table.cast(arrow_rows.SCHEMA), tmp_path / "log.parquet")
    with pytest.raises(BadData, match="row 0"):
        list(formats.read(tmp_path / "log.parquet", "parquet", "key"))


def test_a_context_that_is_no_text_deep_inside_is_refused(tmp_path: Path) -> None:
    line = {**FOREIGN["cb"], "c": {**FOREIGN["cb"]["c"], "u": {"x": {"deep": {"er": "MARK"}}}}}
    path = tmp_path / "log.dsjson"
    path.write_bytes(json.dumps(line).encode().replace(b"MARK", b"\xf0\x80"))
    with pytest.raises(BadData, match="line 1: got a context or actions of the wrong form"):
        list(formats.read(path, "dsjson", "home"))
