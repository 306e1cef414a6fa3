"""obp's `bandit_feedback` and Open Bandit files: round trips, what obp itself would hold, and
errors that name rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from topbill import formats
from topbill.domain.errors import BadData
from topbill.formats.obp import (
    BanditFeedback,
    from_log,
    read_open_bandit,
    to_log,
    write_open_bandit,
)

REFERENCE = Path(__file__).parents[2] / "data" / "reference" / "obd" / "all_random_log.parquet"


@st.composite
def feedbacks(draw: st.DrawFn) -> dict[str, Any]:
    n, actions, d = draw(st.integers(1, 20)), draw(st.integers(1, 5)), draw(st.integers(0, 4))
    placed = draw(st.booleans())
    unit = st.floats(1e-6, 1.0)
    return {
        "n_rounds": n,
        "n_actions": actions,
        "action": draw(arrays.arrays(np.intp, n, elements=st.integers(0, actions - 1))),
        "position": draw(arrays.arrays(np.intp, n, elements=st.integers(0, 2))) if placed else None,
        "reward": draw(arrays.arrays(np.float64, n, elements=st.floats(-10, 10))),
        "pscore": draw(arrays.arrays(np.float64, n, elements=unit)),
        "context": draw(arrays.arrays(np.float64, (n, d), elements=st.floats(-1e6, 1e6))),
        "action_context": None,
    }


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        if value is None:
            assert b[name] is None, name
        else:
            np.testing.assert_array_equal(value, b[name], err_msg=name)


@given(feedbacks())
def test_obps_dictionary_survives_import_and_export(feedback: dict[str, Any]) -> None:
    same(feedback, BanditFeedback.from_dict(feedback).to_dict())


@given(feedbacks())
def test_it_survives_being_a_log_of_decisions_and_events(feedback: dict[str, Any]) -> None:
    rows = list(to_log(BanditFeedback.from_dict(feedback), "imported"))
    same(feedback, from_log(rows).to_dict())
    assert all(decision.propensity == decision.slate[0].propensity for decision, _ in rows)


@given(feedbacks(), st.sampled_from(["parquet", "csv"]))
def test_it_survives_being_an_open_bandit_file(
    tmp_path_factory: pytest.TempPathFactory, feedback: dict[str, Any], kind: str
) -> None:
    path = tmp_path_factory.mktemp("files") / f"log.{kind}"
    feedback = {**feedback, "context": feedback["context"][:, :0]}
    write_open_bandit(BanditFeedback.from_dict(feedback), path)
    back = read_open_bandit(path)
    for name in ("action", "reward", "pscore"):
        np.testing.assert_array_equal(getattr(back, name), feedback[name])
    if feedback["position"] is not None:
        dense = np.unique(feedback["position"], return_inverse=True)[1]
        np.testing.assert_array_equal(back.position, dense)


def test_an_open_bandit_file_is_what_obp_makes_of_it(tmp_path: Path) -> None:
    """The reference log was written by obp from the same rows; here they come shuffled, with user
    features.
    """
    log = duckdb.execute("SELECT * FROM read_parquet(?)", [str(REFERENCE)]).fetchnumpy()
    _, first, times = np.unique(log["at"], return_index=True, return_counts=True)
    log = {
        name: column[first[times == 1]] for name, column in log.items()
    }  # of equal times any order is right
    order = np.random.default_rng(0).permutation(len(log["action"]))
    table = pa.table(
        {
            "timestamp": pa.array(
                [f"{t}+00:00" for t in log["at"][order].astype("datetime64[us]").astype(str)]
            ),
            "item_id": log["action"][order].astype(np.int64),
            "position": log["position"][order].astype(np.int64) + 1,
            "click": log["reward"][order].astype(np.int64),
            "propensity_score": log["pscore"][order],
            "user_feature_0": np.where(log["action"][order] % 3 == 0, "b", "a"),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "random.parquet")
    found = read_open_bandit(tmp_path / "random.parquet")
    np.testing.assert_array_equal(found.action, log["action"])
    np.testing.assert_array_equal(found.position, log["position"])
    np.testing.assert_array_equal(found.reward, log["reward"])
    np.testing.assert_array_equal(found.context[:, 0], log["action"] % 3 == 0)
    assert found.n_actions == 80


def test_bad_files_and_rows_are_named(tmp_path: Path) -> None:
    good = {"n_actions": 2, "action": [0, 1, 1], "reward": [0, 1, 0], "pscore": [0.5, 0.5, 0.5]}
    assert BanditFeedback.from_dict(good).context.shape == (3, 0)
    with pytest.raises(BadData, match="pscore: rows 1, 2: got 0, nan; expected a probability"):
        BanditFeedback.from_dict(good | {"pscore": [0.5, 0, np.nan]})
    with pytest.raises(BadData, match="action: rows 0: got 7; expected 0 to 1"):
        BanditFeedback.from_dict(good | {"action": [7, 1, 0]})
    with pytest.raises(BadData, match="reward: got 2 rows; expected 3"):
        BanditFeedback.from_dict(good | {"reward": [1, 0]})
    with pytest.raises(BadData, match="pscore: got nothing"):
        BanditFeedback.from_dict({k: v for k, v in good.items() if k != "pscore"})
    pyarrow.parquet.write_table(pa.table({"item_id": [1]}), tmp_path / "odd.parquet")
    with pytest.raises(BadData, match=r"odd\.parquet\.timestamp: no such column"):
        read_open_bandit(tmp_path / "odd.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadData, match="cannot be read"):
        read_open_bandit(tmp_path / "torn.parquet")


@pytest.mark.parametrize("name", ["action", "reward", "pscore", "position", "at"])
def test_arrays_of_one_column_are_vectors_and_others_are_named(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    log = {
        "action": rng.integers(0, 3, 50),
        "reward": rng.random(50),
        "pscore": np.full(50, np.float32(1.0) + np.float32(1.2e-7)),
        "position": rng.integers(0, 2, 50),
        "at": np.arange(50),
    }
    np.savez(tmp_path / "plain.npz", **log)
    np.savez(tmp_path / "tall.npz", **(log | {name: log[name].reshape(50, 1)}))
    rows = list(formats.read(tmp_path / "plain.npz", "obp", "key"))
    assert list(formats.read(tmp_path / "tall.npz", "obp", "key")) == rows
    assert {decision.propensity for decision, _ in rows} == {1.0}
    np.savez(tmp_path / "wide.npz", **(log | {name: np.stack([log[name]] * 2, axis=1)}))
    with pytest.raises(BadData, match=rf"{name}: got an array of shape \(50, 2\)"):
        list(formats.read(tmp_path / "wide.npz", "obp", "key"))
