"""Rules narrow what may be drawn at each position; rules that contradict each other are refused,
all at once.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topbill.domain.errors import SpecError
from topbill.domain.records import Floats, Indices
from topbill.domain.slate import choices, rank
from topbill.rules import PoolCaps, PositionChoices, RowConstraints


class Even:
    """A policy to which all are alike."""

    mean = width = None

    def probabilities(self, remaining: Indices) -> Floats:
        return np.full(len(remaining), 1 / len(remaining))


@given(st.data())
@settings(max_examples=200)
def test_masks_tell_exactly_what_could_be_drawn(data: st.DataObject) -> None:
    """Whatever the pins, caps and quota: the masks give each position's choices again, and all
    rules hold.
    """
    size = data.draw(st.integers(1, 14))
    slots = data.draw(st.integers(1, size))
    caps = data.draw(st.integers(0, 3))
    groups = np.array(
        data.draw(
            st.lists(
                st.lists(st.booleans(), min_size=caps, max_size=caps), min_size=size, max_size=size
            )
        ),
        dtype=bool,
    ).reshape(size, caps)
    fresh = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    quota = data.draw(st.integers(0, slots))
    places = data.draw(st.permutations(range(size)))
    pins = {
        k: places[i]
        for i, k in enumerate(sorted(data.draw(st.sets(st.integers(0, slots - 1), max_size=2))))
    }
    reserved = groups[list(pins.values())].sum(axis=0)
    left = np.array([data.draw(st.integers(int(r), size)) for r in reserved], dtype=np.int64)
    filling = RowConstraints(
        PoolCaps(
            np.arange(caps),
            [f"cap {c}" for c in range(caps)],
            np.nonzero(groups)[1],
            groups.sum(axis=1).cumsum(),
        ),
        slots,
        cap_left=left,
        pins=pins,
        fresh=(quota, fresh),
    )
    asked: list[list[int]] = []

    class Spy:
        masks = ()

        def rows(self, position: int, placed: Any) -> Indices:
            asked.append(filling.rows(position, placed).tolist())
            return np.array(asked[-1], dtype=np.intp)

    uniforms = data.draw(st.lists(st.floats(0, 0.999), min_size=slots, max_size=slots))
    slate = rank(Even(), np.arange(size), slots, 0.0, uniforms, Spy())
    assert len(set(slate.rows)) == len(slate.rows)
    for position in range(len(slate.rows)):
        told = choices(filling.masks, size, position, slate.rows[:position])
        assert told.tolist() == sorted(asked[position])
    for position, place in pins.items():
        if position < len(slate.rows):
            assert slate.rows[position] == place
    shown = [row for row in slate.rows if row not in pins.values()]
    assert (groups[shown].sum(axis=0) + reserved <= left).all()
    if len(slate.rows) == slots and fresh[list(slate.rows)].sum() < quota:
        assert slots - 1 in pins or fresh[slate.rows[-1]] or not fresh[asked[-1]].any()


def test_every_picture_s_turn_is_its_own_title_s() -> None:
    turns = PositionChoices(["a", "b"], [0, 2, 3])
    slate = rank(Even(), np.arange(3), 2, 0.0, [0.9, 0.9], turns)
    assert (slate.rows, slate.propensities) == ((1, 2), (0.5, 1.0))
    assert choices(turns.masks, 3, 1, [1]).tolist() == [2]


def wrong(home: Any, text: str) -> str:
    home.write(rules=text)
    with pytest.raises(SpecError) as caught:
        home.compiled_page()
    return str(caught.value)


PIN = "{rule: pin, title: %s, row: %s, position: %d}"
CONTRADICTIONS = {
    "a pin of a blocked title": (
        [PIN % ("t01", "best", 0), "{rule: block, titles: [t01]}"],
        "not blocked",
    ),
    "a pin of a blocked genre": (
        [PIN % ("t03", "best", 0), "{rule: block, genres: [scifi]}"],
        "rules[0].title: got 't03'; expected a title whose genres are not blocked",
    ),
    "two pins at one place": (
        [PIN % ("t01", "best", 0), PIN % ("t02", "best", 0)],
        "rules[1].position: got 0",
    ),
    "a title pinned twice": (
        [PIN % ("t01", "best", 0), PIN % ("t01", "fun", 0)],
        "rules[1].title: got 't01'",
    ),
    "a pin below the row's end": (
        [PIN % ("t01", "best", 6)],
        "rules[0].position: got 6; expected 0 to 5",
    ),
    "a pin in no row": ([PIN % ("t01", "worst", 0)], "one of the page's rows"),
    "a pin of no title": (
        [PIN % ("t99", "best", 0)],
        "rules[0].title: got 't99'; expected a title of the catalogue",
    ),
    "a block of no title": (["{rule: block, titles: [t99]}"], "rules[0].titles[0]: got 't99'"),
    "a block of no genre": (["{rule: block, genres: [comedie]}"], "did you mean comedy?"),
    "a block of all that a row is made of": (
        ["{rule: block, genres: [comedy]}"],
        "something to show in row fun",
    ),
    "a cap on no genre": (
        ["{rule: at_most, count: 6, of: genre, value: opera}"],
        "rules[0].value: got 'opera'; expected a genre of the catalogue",
    ),
    "a cap on no franchise": (
        ["{rule: at_most, count: 6, of: franchise, value: saga99}"],
        "expected a franchise of the catalogue",
    ),
    "a cap in no row": (
        ["{rule: at_most, count: 6, of: genre, except: [best, fun, tension, fresh]}"],
        "rules[0].except: got every row of the page",
    ),
    "an exception that is no row": (
        ["{rule: at_most, count: 6, of: genre, except: [worst]}"],
        "one of the page's rows",
    ),
    "a cap below a genre's own row": (
        ["{rule: at_most, count: 3, of: genre}"],
        "in row fun, which has 6 titles of that only; expected 6 or more",
    ),
    "a cap of the page below a genre's own row": (
        ["{rule: at_most, count: 5, of: genre, value: comedy, per: page}"],
        "in row fun, which has 6 titles of that only",
    ),
    "a cap below a row of two genres": (
        ["{rule: at_most, count: 2, of: genre, except: [fun]}"],
        "at most 2 of action or drama in row tension, which has 6 titles of that only; "
        "expected 3 or more",
    ),
    "two caps on the same": (
        [
            "{rule: at_most, count: 4, of: franchise, value: saga1}",
            "{rule: at_most, count: 2, of: franchise, value: saga1}",
        ],
        "rules[1].count: got 2; expected a rule of its own: another says at most 4",
    ),
    "more pins than a row's cap": (
        [
            "{rule: at_most, count: 1, of: genre, value: drama, per: row, except: [fun, tension]}",
            PIN % ("t01", "best", 0),
            PIN % ("t05", "best", 1),
        ],
        "pins in row best",
    ),
    "more pins than the page's cap": (
        [
            "{rule: at_most, count: 1, of: franchise, per: page}",
            PIN % ("t01", "best", 0),
            PIN % ("t21", "fun", 0),
        ],
        "pins of the page",
    ),
    "a quota larger than a row": (
        ["{rule: fresh, count: 7, within: 30d, rows: [best]}"],
        "rules[0].count: got 7",
    ),
    "a quota in no row": (
        ["{rule: fresh, count: 1, within: 30d, rows: [worst]}"],
        "one of the page's rows",
    ),
    "two quotas of a row": (
        ["{rule: fresh, count: 1, within: 30d, rows: [best]}"] * 2,
        "no other fresh rule",
    ),
    "a quota beside too many pins": (
        ["{rule: fresh, count: 6, within: 30d, rows: [best]}", PIN % ("t00", "best", 0)],
        "1 of 6 places in row best are pinned",
    ),
    "two kinds of fatigue": (["{rule: fatigue, shown: 1, rest: 1d}"] * 2, "a second fatigue rule"),
    "a rule that there is not": (["{rule: at_mots, count: 1, of: genre}"], "did you mean at_most"),
}


@pytest.mark.parametrize(("lines", "says"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_contradictory_rules_are_a_validation_error(home: Any, lines: list[str], says: str) -> None:
    told = wrong(home, "rules:\n" + "\n".join(f"  - {line}" for line in lines) + "\n")
    assert says in told
    place = re.compile(r"home\.yaml(:\d+)?: (rules|sources)")
    assert all(place.match(line) for line in told.splitlines())


PAGE_CONTRADICTIONS = {
    "a region that the catalogue has not": (
        "region: us",
        "region: fr",
        "home.yaml: region: got 'fr'",
    ),
    "a row of no genre": (
        "[comedy]",
        "[comedie]",
        "home.yaml: sources.fun.genres[0]: got 'comedie'",
    ),
    "an editors' list with no title": (
        "{source: new}",
        "{source: titles, titles: [t99]}",
        "home.yaml: sources.fresh.titles[0]: got 't99'",
    ),
    "a listed title that is blocked": (
        "{source: new}",
        "{source: titles, titles: [t02, t01]}",
        "home.yaml: sources.fresh.titles[1]: got 't01'; expected a title that no rule blocks",
    ),
    "a list of blocked titles only": (
        "{source: new}",
        "{source: titles, titles: [t01]}",
        "home.yaml: sources.fresh: got a row of blocked titles only",
    ),
    "a listed title that is pinned elsewhere": (
        "{source: new}",
        "{source: titles, titles: [t02, t07]}",
        "home.yaml: sources.fresh.titles[1]: got 't07'; "
        "expected a title of this row alone: it is pinned in row best",
    ),
    "a row called like the layer": (
        "  fun:",
        "  rows:",
        ": sources.rows: got a row called rows",
    ),
}


@pytest.mark.parametrize(
    ("old", "new", "says"), PAGE_CONTRADICTIONS.values(), ids=PAGE_CONTRADICTIONS.keys()
)
def test_a_page_that_contradicts_itself_or_its_catalogue_is_refused(
    home: Any, old: str, new: str, says: str
) -> None:
    file = home.folder / "pages" / "home.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        home.compiled_page()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (",us|de,", ",,", "rules[2].title: got 't07'; expected a title that some region may show"),
        (
            "2040-01-01",
            "2019-01-01",
            "rules[2].title: got 't07'; expected a title that is available some time",
        ),
        (
            ",0,",
            ",12,",
            "home.yaml: kids_max_age: got 7; expected 12 or more: no title is for 7-year-olds",
        ),
        (",0,", ",18,", "home.yaml: guest_max_age: got 16; expected 18 or more"),
    ],
)
def test_rules_that_the_catalogue_defeats_are_refused(
    home: Any, old: str, new: str, says: str
) -> None:
    file = home.folder / "pages" / "titles.csv"
    text = file.read_text().replace(",7,", ",0,").replace(old, new)
    file.write_text(text)
    page = home.folder / "pages" / "home.yaml"
    page.write_text("kids_max_age: 7\nguest_max_age: 16\n" + page.read_text())
    with pytest.raises(SpecError) as caught:
        home.compiled_page()
    assert says in str(caught.value)


def test_a_catalogue_for_adults_alone_needs_no_limits_for_others(home: Any) -> None:
    """The page file sets none, so nobody need be a child here."""
    file = home.folder / "pages" / "titles.csv"
    file.write_text(file.read_text().replace(",7,", ",18,").replace(",0,", ",18,"))
    assert home.compose(home.compiled_page()).answer.fallbacks == ()


ROWS = ("best", "fun", "tension", "fresh")
TITLES = [f"t{i:02d}" for i in range(60)]
RULES = st.one_of(
    st.builds("{{rule: block, titles: [{}]}}".format, st.sampled_from(TITLES)),
    st.builds(
        "{{rule: block, genres: [{}]}}".format,
        st.sampled_from(["comedy", "drama", "action", "scifi"]),
    ),
    st.builds(
        "{{rule: pin, title: {}, row: {}, position: {}}}".format,
        st.sampled_from(TITLES[:12]),
        st.sampled_from(ROWS),
        st.integers(0, 5),
    ),
    st.builds(
        "{{rule: at_most, count: {}, of: {}, per: {}, except: [{}]}}".format,
        st.integers(1, 6),
        st.sampled_from(["genre", "franchise"]),
        st.sampled_from(["row", "page"]),
        st.sampled_from(["fun", "fun, tension", "best"]),
    ),
    st.builds(
        "{{rule: fresh, count: {}, within: 90d, rows: [{}]}}".format,
        st.integers(1, 6),
        st.sampled_from(ROWS),
    ),
)


@given(rules=st.lists(RULES, max_size=6))
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rules_that_validate_never_stand_in_each_other_s_way(home: Any, rules: list[str]) -> None:
    """Pins stand at their places, caps hold, and every page is made by the policies."""
    home.write(
        rules="rules:\n" + "\n".join(f"  - {rule}" for rule in rules) + "\n" if rules else ""
    )
    try:
        compiled_page = home.compiled_page()
    except SpecError:
        return
    house, catalog = compiled_page.rules, compiled_page.catalog
    for number in range(4):
        made = home.compose(compiled_page, number, region="de", kids=number == 3)
        assert made.answer.fallbacks == ()
        open_ = np.logical_and.reduce(
            list(house.allowed_by_rule("de", 7 if number == 3 else 99, home.now).values())
        )
        shown = {
            row.row: [catalog.index[tile.title] for tile in row.titles] for row in made.answer.rows
        }
        for row, places in shown.items():
            pins = {
                k: title
                for k, title in house.pins.get(row, {}).items()
                if open_[title] and k < len(places)
            }
            assert {k: places[k] for k in pins} == pins
            assert (house.used(places) <= house.row_left(row, house.page_left())).all()
            assert open_[places].all()


def test_all_that_is_wrong_is_said_at_once(home: Any) -> None:
    told = wrong(
        home,
        "rules:\n  - {rule: pin, title: t01, row: worst, position: 9}\n"
        "  - {rule: block, titles: [t01]}\n",
    )
    assert len(told.splitlines()) == 3


@pytest.mark.parametrize("is_compiled", [True, False])
def test_caps_of_a_pool_are_those_of_its_titles(
    home: Any, is_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write()
    if not is_compiled:
        monkeypatch.setattr("topbill.rules.compiled.load", lambda: None)
    rules, catalog = home.compiled_page().rules, home.catalog()
    rng = np.random.default_rng(1)
    counted = [
        {f"at most 3 {name} a row" for name in np.array(catalog.genre_names)[catalog.genres[title]]}
        | {f"at most 2 {catalog.franchise_names[catalog.franchise[title]]} a page"}
        for title in range(len(catalog))
    ]
    for size in (0, 1, 20):
        titles = rng.permutation(len(catalog))[:size]
        caps = rules.caps_of(titles)
        assert list(caps.names) == [rules.names[cap] for cap in caps.caps]
        start = 0
        for title, end in zip(titles.tolist(), caps.ends.tolist(), strict=True):
            assert {caps.names[place] for place in caps.members[start:end]} == counted[title]
            start = end
        used = rules.used(titles)
        for cap, name in enumerate(rules.names):
            assert used[cap] == sum(name in counted[title] for title in titles)
