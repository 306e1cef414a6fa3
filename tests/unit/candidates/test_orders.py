"""What is ordered, added up and drawn over a whole catalogue is what the plain calls give that it
stands for, to the last bit.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import chisquare

from topbill.candidates import SOURCES, CandidateModel, Candidates, Play, RowSource
from topbill.candidates.cowatching import NEXT_PLAYS
from topbill.candidates.fitting import learn
from topbill.candidates.model import _falling, _kept
from topbill.catalog import Catalog
from topbill.domain.chance import hash64, sample, uniforms

FILMS = Path(__file__).parents[3] / "experiments" / "catalogue.csv"
NOW = 1_790_000_000.0


@pytest.fixture(scope="module")
def model() -> CandidateModel:
    films = Catalog.read(FILMS, demo=True)
    rng = np.random.default_rng(4)
    titles = (len(films) * rng.random(2_000) ** 2).astype(int).tolist()
    plays = [Play(f"u{n % 100}", films.ids[t], NOW - 60.0 * n) for n, t in enumerate(titles)]
    return CandidateModel(films, learn(plays, films, NOW))


def candidates(model: CandidateModel, seed: str, watched: list[int]) -> Candidates:
    allowed = np.random.default_rng(hash64(seed)).random(len(model.catalog)) < 0.8
    return model.candidates_for("us", watched, allowed, NOW, seed)


@given(
    st.lists(
        st.one_of(
            st.floats(width=32, allow_nan=False), st.sampled_from([0.0, -0.0, 1.0, -1.0, 2e-45])
        ),
        max_size=40,
    )
)
def test_falling_scores_are_ordered_as_a_stable_sort_does(values: list[float]) -> None:
    scores = np.array(values, dtype=np.float32)
    assert _falling(scores).tolist() == np.argsort(-scores, kind="stable").tolist()


def test_a_genre_s_titles_are_ordered_by_merit(model: CandidateModel) -> None:
    found = candidates(model, "s", [3, 4, 5])
    titles = found.members(RowSource("genre", ("comedy",)))
    assert len(titles) > 100
    assert titles.tolist() == found.in_order(titles).tolist()
    found = candidates(model, "s", [3, 4, 5])
    scores = {int(title): float(title % 3) for title in titles[::2]}
    found.give({}, scores)
    scored = found.members(RowSource("genre", ("comedy",)))
    assert scored.tolist() == found.in_order(titles).tolist() != titles.tolist()


@pytest.mark.parametrize("row", ["popular", "fun"])
def test_spare_positions_are_drawn_of_all_that_is_left(model: CandidateModel, row: str) -> None:
    source = RowSource("popular") if row == "popular" else RowSource("genre", ("comedy",))
    for number in range(20):
        found = candidates(model, f"page-{number}", [number])
        taken = np.random.default_rng(number).random(len(model.catalog)) < 0.1
        members = found.members(source)
        members = members[~taken[members]]
        head, rest = members[:48], members[48:]
        new = rest[found.sources[rest, SOURCES.index("new")]][:6]
        others = rest[~np.isin(rest, new)]
        chance = sample(len(others), 12 - len(new), uniforms("pool", f"page-{number}", row))
        expected = found.in_order(np.concatenate([head, new, others[chance]]))
        assert found.pool(row, source, taken, 60).tolist() == expected.tolist()


@given(seed=st.integers(0, 2**32), most=st.integers(1, 80), kept=st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_compiled_call_fills_a_pool_as_plain_code_does(
    model: CandidateModel, seed: int, most: int, kept: float
) -> None:
    found = candidates(model, str(seed), [seed % 50])
    taken = np.random.default_rng(seed).random(len(model.catalog)) >= kept
    # Merits of which many are equal.
    found.merit = np.round(found.merit)
    for source in ("popular", "new", "similar", "mixed"):
        compiled = found.pool("row", RowSource(source), taken, most)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("topbill.candidates.model.load", lambda: None)
            plain = found.pool("row", RowSource(source), taken, most)
        assert compiled.tolist() == plain.tolist()
        assert len(compiled) == min(most, int((~taken[found.members(RowSource(source))]).sum()))


def test_any_titles_are_as_likely_to_be_sampled_as_any_others() -> None:
    counts = Counter(
        tuple(sample(5, 2, uniforms("pool", "page", str(number)))) for number in range(4_000)
    )
    assert len(counts) == 10
    assert chisquare(list(counts.values())).pvalue > 1e-3
    assert sample(4, 4, uniforms("pool")) == [0, 1, 2, 3]


def test_what_follows_is_the_sum_over_the_last_plays(model: CandidateModel) -> None:
    histories = model._histories
    rng = np.random.default_rng(8)
    for length in (0, 1, 7, 30):
        watched = rng.integers(0, len(model.catalog), length)
        last = watched[-2 * NEXT_PLAYS :]
        weight = np.arange(len(last), 0, -1) ** -0.5
        data, indices, indptr, columns = histories.of.following
        following = csr_array((data, indices, indptr), shape=(len(model.catalog), columns))
        expected = np.asarray(weight @ following[last])
        assert histories._next(watched).tolist() == expected.tolist()


@given(seed=st.integers(0, 2**32 - 1), titles=st.integers(1, 200), share=st.floats(0.0, 1.0))
def test_compiled_what_is_kept_of_an_order_is_what_numpy_keeps(
    seed: int, titles: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    order, flags = rng.permutation(titles), rng.random(titles) < share
    assert _kept(order, flags).tolist() == order[flags[order]].tolist()
