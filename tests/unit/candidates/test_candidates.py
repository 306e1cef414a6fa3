"""The first stage: what was watched together is found again, sources are kept, and what is new gets
into the pools.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from topbill.candidates import (
    EVIDENCE,
    HALF_LIFE,
    SOURCES,
    CandidateModel,
    Play,
    RowSource,
    Signals,
    count,
)
from topbill.candidates.fitting import HeldOutPlay, hold_out, learn, recall
from topbill.catalog import Catalog
from topbill.domain.errors import BadData

FILMS = Path(__file__).parents[3] / "experiments" / "catalogue.csv"
NOW = 1_790_000_000.0


@pytest.fixture(scope="module")
def films() -> Catalog:
    return Catalog.read(FILMS, demo=True)


def tasteful(catalog: Catalog, viewers: int = 500, each: int = 10) -> list[list[int]]:
    """Plays of viewers who each like one of 40 clubs of 25 titles that share nothing in the
    catalogue.
    """
    rng = np.random.default_rng(3)
    clubs = rng.permutation(len(catalog))[:1000].reshape(40, 25)
    return [
        rng.choice(clubs[rng.integers(40)], size=each, replace=False).tolist()
        for _ in range(viewers)
    ]


def test_what_was_watched_together_is_recalled(films: Catalog) -> None:
    histories = tasteful(films)
    plays = [
        Play(f"u{u}", films.ids[t], NOW)
        for u, history in enumerate(histories)
        for t in history[:-1]
    ]
    held = [HeldOutPlay(history[:-1], history[-1]) for history in histories]
    signals = learn(plays, films, NOW)
    found = recall(CandidateModel(films, signals), held, NOW)
    assert found.held_out == 500
    assert found.hits / 500 > 0.9  # a club has 25 titles; all of them fit among 200 candidates
    assert found.popular / 500 < 0.35
    assert recall(CandidateModel(films), held, NOW).hits / 500 < 0.35
    # What learning measured on plays that it held out itself tells the same.
    assert signals.recall is not None
    assert signals.recall.hits / signals.recall.held_out > 0.9
    assert signals.recall.popular / signals.recall.held_out < 0.35


def test_the_weights_say_which_evidence_tells(films: Catalog) -> None:
    """Clubs share nothing in the catalogue, so that only co-watching tells; of one genre's viewers
    content does.
    """
    at = {kind: i for i, kind in enumerate(EVIDENCE)}

    def weights(histories: list[list[int]]) -> tuple[float, ...]:
        plays = [
            Play(f"u{u}", films.ids[t], NOW - k)
            for u, own in enumerate(histories)
            for k, t in enumerate(own)
        ]
        return learn(plays, films, NOW).weights

    clubs = weights(tasteful(films))
    assert clubs[at["watched"]] > 3.0
    assert abs(clubs[at["similar"]]) < 1.0
    rng = np.random.default_rng(4)
    titles = [
        np.flatnonzero(films.genre([name]))
        for name in ("horror", "western", "musical", "science-fiction")
    ]
    fans = weights(
        [rng.choice(titles[rng.integers(4)], size=6, replace=False).tolist() for _ in range(400)]
    )
    assert fans[at["similar"]] > 3.0


def test_what_is_held_out_is_in_nothing_that_the_fit_is_made_from(films: Catalog) -> None:
    plays = [Play("a", films.ids[k], NOW + k) for k in (3, 1, 7, 7)] + [
        Play("a", films.ids[7], NOW)
    ]
    plays += [
        Play("once", films.ids[4], NOW),
        Play("b", films.ids[2], NOW, "de"),
        Play("b", films.ids[5], NOW + 1, "de"),
    ]
    kept, held = hold_out([*plays, Play("b", "not in the catalogue", NOW + 9)], films)
    left = {(play.unit, play.title) for play in kept}
    assert ("once", films.ids[4]) in left
    histories = {"a": {1, 3, 7}, "b": {2, 5}}
    assert len(held) == 2  # one of three and one of two titles: never more than half
    for play in held:
        unit = "b" if play.region == "de" else "a"
        assert {*play.watched, play.played} == histories[unit]
        assert play.played not in play.watched
        assert len(play.worth) == len(play.watched)
        assert (unit, films.ids[play.played]) not in left


def test_few_viewers_leave_the_evidence_s_worth_as_it_was(films: Catalog) -> None:
    plays = [Play(f"u{i}", films.ids[i + j], NOW) for i in range(20) for j in (0, 1)]
    signals = learn(plays, films, NOW)
    assert signals.weights == count(plays, films, NOW).weights
    assert signals.recall is None


def test_the_mixed_row_begins_with_what_all_evidence_speaks_for_and_has_what_is_new(
    films: Catalog,
) -> None:
    histories = tasteful(films)
    plays = [Play(f"u{u}", films.ids[t], NOW) for u, own in enumerate(histories) for t in own]
    model, open_ = CandidateModel(films, learn(plays, films, NOW)), np.ones(len(films), dtype=bool)
    open_[::3] = False
    candidates = model.candidates_for("us", histories[0], open_, NOW, "")
    members = candidates.members(RowSource("mixed"))
    assert open_[members].all()
    assert len(set(members.tolist())) == len(members)
    club = {t for own in histories if set(own) & set(histories[0]) for t in own if open_[t]}
    assert set(members[: len(club)].tolist()) == club
    new = np.flatnonzero(candidates.sources[:, SOURCES.index("new")])
    assert 10 < len(new) <= 100
    assert set(new.tolist()) <= set(members.tolist())


def test_trending_forgets_and_popular_does_not(films: Catalog) -> None:
    old, recent = films.ids[1500], films.ids[1600]
    plays = [Play("u", old, NOW - 7 * HALF_LIFE)] * 10 + [Play("u", recent, NOW)] * 2
    signals = learn(plays, films, NOW)
    row = films.index
    assert signals.popular[row[old]] > signals.popular[row[recent]]
    assert signals.trending[row[old]] < signals.trending[row[recent]]
    assert signals.trending[row[old]] == pytest.approx(10 / 128)


def test_popular_is_popular_in_the_viewer_s_region(films: Catalog) -> None:
    loved = {"de": films.ids[1999], "us": films.ids[1998]}
    plays = [
        Play(f"u{i}", title, NOW, region) for region, title in loved.items() for i in range(200)
    ]
    model, everything = (
        CandidateModel(films, learn(plays, films, NOW)),
        np.ones(len(films), dtype=bool),
    )
    for region, title in loved.items():
        members = model.candidates_for(region, (), everything, NOW, "").members(
            RowSource("popular")
        )
        assert members[0] == films.index[title]


def test_more_like_this_shares_genres(films: Catalog) -> None:
    model, everything = CandidateModel(films), np.ones(len(films), dtype=bool)
    horror = np.flatnonzero(films.genre(["horror"]))[:3].tolist()
    alike = model.candidates_for("us", horror, everything, NOW, "").members(RowSource("similar"))[
        :30
    ]
    assert films.genre(["horror"])[alike].mean() > 0.8
    assert not set(horror) & set(alike.tolist())


def test_a_pool_keeps_each_candidate_s_sources_and_has_room_for_what_is_new(films: Catalog) -> None:
    model, everything = CandidateModel(films), np.ones(len(films), dtype=bool)
    candidates = model.candidates_for("us", (5, 6), everything, NOW, "page")
    taken = np.zeros(len(films), dtype=bool)
    taken[:10] = True
    pool = candidates.pool("popular", RowSource("popular"), taken, 60)
    assert len(pool) == len(set(pool.tolist())) == 60
    assert pool.min() >= 10
    assert (np.diff(candidates.merit[pool]) <= 0.0).all()
    assert candidates.sources[pool, SOURCES.index("popular")].sum() >= 48
    assert candidates.sources[pool, SOURCES.index("new")].sum() >= 6
    again = model.candidates_for("us", (5, 6), everything, NOW, "page").pool(
        "popular", RowSource("popular"), taken, 60
    )
    other = model.candidates_for("us", (5, 6), everything, NOW, "another page").pool(
        "popular", RowSource("popular"), taken, 60
    )
    assert np.array_equal(pool, again)
    assert not np.array_equal(pool, other)


def test_signals_survive_the_file_and_a_changed_catalogue(films: Catalog, tmp_path: Path) -> None:
    plays = [Play(f"u{i % 7}", films.ids[i % 40], NOW, "us") for i in range(200)]
    signals = learn(
        [*plays, *(Play(f"v{i}", films.ids[i + j], NOW) for i in range(80) for j in (0, 1))],
        films,
        NOW,
    )
    signals.save(tmp_path / "pages" / "home.npz")
    held = Signals.load(tmp_path / "pages" / "home.npz")
    assert (held.ids, held.regions, held.plays) == (signals.ids, signals.regions, 360)
    assert held.weights == signals.weights
    assert held.recall == signals.recall
    assert held.recall is not None
    assert np.array_equal(held.together.ridge, signals.together.ridge)
    for one, other in zip(held.together.following, signals.together.following, strict=True):
        assert np.array_equal(one, other)
    others = tmp_path / "others.csv"
    others.write_text("title,year,genres\nNobody Knows This,1990,Drama\n")
    assert CandidateModel(Catalog.read(others), held).trending.max() == 0.0
    (tmp_path / "broken.npz").write_bytes(b"no")
    with pytest.raises(BadData, match="delete the file"):
        Signals.load(tmp_path / "broken.npz")
    whole = (tmp_path / "pages" / "home.npz").read_bytes()
    for at in range(0, len(whole), len(whole) // 12):
        (tmp_path / "broken.npz").write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        with suppress(BadData):  # not every byte of an archive counts
            Signals.load(tmp_path / "broken.npz")


@pytest.mark.parametrize("plays", [0, 1, 2])
def test_next_to_no_plays_are_no_error(films: Catalog, plays: int) -> None:
    signals = learn([Play("u", films.ids[3], NOW)] * plays, films, NOW)
    assert np.isfinite(signals.together.factors).all()
    assert np.isfinite(CandidateModel(films, signals).trending).all()


def test_what_is_trending_where_the_viewer_is_stands_before_what_is_anywhere(
    films: Catalog, tmp_path: Path
) -> None:
    here, once, anywhere = films.ids[1990], films.ids[1991], films.ids[1992]
    plays = [Play(f"u{i}", anywhere, NOW, "us") for i in range(9)]
    plays += [Play("v", here, NOW, "fr"), Play("w", once, NOW - 20 * HALF_LIFE, "at")]
    signals = learn(plays, films, NOW)
    signals.save(tmp_path / "home.npz")
    model = CandidateModel(films, Signals.load(tmp_path / "home.npz"))
    assert [model.has_trends(region) for region in ("us", "fr", "at", "nowhere")] == [
        *(True, True),
        *(False, False),
    ]
    everything = np.ones(len(films), dtype=bool)
    local = RowSource("trending", by_region=True)
    first = {}
    for region in ("us", "fr", "at"):
        candidates = model.candidates_for(region, (), everything, NOW, "")
        first[region] = films.ids[candidates.members(local)[0]]
        assert films.ids[candidates.members(RowSource("trending"))[0]] == anywhere
    # Of late nobody played anything in at: there it is what is trending anywhere.
    assert first == {"us": anywhere, "fr": here, "at": anywhere}


def test_each_signal_names_what_it_is_made_to_find(films: Catalog) -> None:
    """Viewers of one club each, in one order each: the ridge and viewers alike find the club, and
    the sequence what comes next.
    """
    rng = np.random.default_rng(5)
    clubs = rng.permutation(len(films))[:400].reshape(20, 20)
    plays = [
        Play(f"u{viewer}", films.ids[title], NOW + 60.0 * place)
        for viewer in range(400)
        for place, title in enumerate(np.roll(clubs[viewer % 20], rng.integers(20))[:8])
    ]
    model = CandidateModel(films, count(plays, films, NOW))
    first = EVIDENCE.index("similar")
    said = dict(zip(EVIDENCE[first:], model.likeness(clubs[3][:4].tolist()), strict=True))
    for kind in ("watched", "items", "peers"):
        best = np.argsort(-said[kind], kind="stable")[:10]
        assert set(best.tolist()) <= set(clubs[3].tolist())
    assert int(said["next"].argmax()) == clubs[3][4]
    nobody = model.likeness([])
    assert not nobody.any()


def test_old_plays_say_less_of_taste(films: Catalog) -> None:
    histories = tasteful(films, viewers=200)
    plays = [Play(f"u{u}", films.ids[t], NOW) for u, own in enumerate(histories) for t in own]
    model = CandidateModel(films, count(plays, films, NOW))
    mine, other = histories[0], next(own for own in histories if not set(own) & set(histories[0]))
    kinds = slice(EVIDENCE.index("items") - EVIDENCE.index("similar"), None)
    both = [*mine[:4], *other[:4]]
    for fresh, club in ((slice(0, 4), mine), (slice(4, 8), other)):
        worth = np.full(8, 0.1)
        worth[fresh] = 1.0
        items = model.likeness(both, worth=worth.tolist())[kinds][0]
        assert items[club[5:]].mean() > items[(other if club is mine else mine)[5:]].mean()


def test_the_last_plays_say_what_a_viewer_is_after_now(films: Catalog) -> None:
    histories = tasteful(films, viewers=200)
    plays = [Play(f"u{u}", films.ids[t], NOW) for u, own in enumerate(histories) for t in own]
    model = CandidateModel(films, count(plays, films, NOW))
    mine, other = histories[0], next(own for own in histories if not set(own) & set(histories[0]))
    everything = np.ones(len(films), dtype=bool)
    for before, lately in ((mine, other), (other, mine)):
        # Of taste as a whole each says as much: what is newer says more of the moment.
        watched = [*before[:5], *lately[:5]]
        said = model.candidates_for("us", watched, everything, NOW, "").short_term
        assert said[lately[5:]].mean() > said[before[5:]].mean() + 0.1
        assert np.abs(said).max() <= 1.0 + 1e-6
        # A play that says nothing of taste says nothing of the moment.
        silent = model.short_term(watched, [1.0] * 5 + [0.0] * 5)
        assert silent[before[5:]].mean() > silent[lately[5:]].mean()
    assert not model.short_term(()).any()
    assert not model.popular_only(everything, "").short_term.any()


def test_signals_of_before_0_2_are_read(films: Catalog, tmp_path: Path) -> None:
    plays = [Play(f"u{i % 7}", films.ids[i % 40], NOW, "us") for i in range(200)]
    path = tmp_path / "home.npz"
    count(plays, films, NOW).save(path)
    with np.load(path) as arrays:
        known = (
            "ids",
            "regions",
            "trending",
            "popular",
            "regional",
            "factors",
            "numbers",
            "recall",
        )
        old = {name: arrays[name] for name in known}
    np.savez(path, weights=np.array([1.0, 0.5, 0.2, 0.0, 1.0, 1.5]), **old)
    signals = Signals.load(path)
    assert signals.weights == (1.0, 0.5, 0.2, 0.0, 1.0, 1.5, 0.0, 0.0, 0.0)
    said = CandidateModel(films, signals).likeness([1, 2])
    assert said[1].any()
    assert not said[2:].any()
