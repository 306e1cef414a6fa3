"""Decisions that are stored as one read as they were stored, wherever they lie."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from itertools import chain
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.errors import Conflict
from topbill.domain.packed import pack, unpack
from topbill.domain.page_answer import PageAnswer, RowAnswer, Tile, cells_of
from topbill.domain.records import NULL, Decision, Mask, Offer, Placement
from topbill.log import Entry, bundles
from topbill.log.bundle_table import undo_bundles
from topbill.log.bundles import LEAST, bundle_of, decisions_of, is_bundled
from topbill.log.erasing import erase_from_log, find_in_log, units_in_log
from topbill.log.mending import log_damage
from topbill.log.sqlite import SqliteLog
from topbill.log.tombstones import Tombstone

TITLES = [f"title-{i}" for i in range(120)]


def decision(decision_id: str, **fields: object) -> Decision:
    known = {"experiment": "page-titles", "revision": "r", "variant": "all", "unit": "u"}
    return Decision(
        **(known | {"decision_id": decision_id, "policy": "linucb", "reason": "policy"} | fields)  # type: ignore[arg-type]
    )


def page(page_id: str, unit: str = "u") -> list[Decision]:
    """A page of one row, with its answer, its titles, and a mask."""
    offers = [{"id": t, "features": {"heat": i / 7, "new": False}} for i, t in enumerate(TITLES)]
    slate = tuple(Placement(k, TITLES[3 * k], 1 / (k + 3)) for k in range(20))
    tiles = [
        Tile(p.action, msgspec.Raw(b'{"year":1939}'), p.propensity, None, NULL, 1.0) for p in slate
    ]
    row = RowAnswer("tears", NULL, 0.5, tuple(tiles), 0, {})
    answer = PageAnswer(page_id, "home", (), (row,), ())
    own = {"unit": unit, "page": page_id}
    return [
        decision(
            page_id,
            experiment="home",
            layer="page",
            actions=msgspec.Raw(msgspec.json.encode(answer)),
            slate=cells_of(answer),
            **own,
        ),
        decision(
            f"{page_id}:tears",
            layer="titles",
            actions=msgspec.Raw(msgspec.json.encode(offers)),
            eligible=tuple(TITLES),
            slate=slate,
            masks=(Mask("at most 2", 1, 20, (3, 4)), Mask("title-3", 0, 1, (3,), only=True)),
            **own,
        ),
        decision(f"{page_id}:rows", layer="rows", eligible=("tears", "title-5"), **own),
    ]


def unstamped(decisions: list[Decision]) -> list[Decision]:
    return [msgspec.structs.replace(each, decided_at=0) for each in decisions]


def test_a_page_is_a_bundle_and_takes_a_fraction() -> None:
    decisions = page("page-1")
    assert is_bundled(decisions)
    bundle = bundle_of(decisions)
    assert decisions_of(bundle) == decisions
    assert len(bundle) * 5 < sum(len(msgspec.json.encode(each)) for each in decisions)


def test_small_decisions_and_those_of_several_units_are_none() -> None:
    assert not is_bundled([decision("a")])
    assert not is_bundled([])
    assert not is_bundled(page("page-1") + page("page-2", unit="v"))


NAMES = st.sampled_from(["a", "b", "c/warm", "ü\n", ""])


@st.composite
def odd_decisions(draw: st.DrawFn) -> list[Decision]:
    """Decisions whose lists have nothing to do with each other."""
    decisions = []
    for index in range(draw(st.integers(1, 4))):
        placed = draw(st.lists(NAMES, max_size=4))
        masks = draw(st.lists(st.builds(Mask, NAMES, st.just(0), st.just(2), st.just((1,)))))
        texts = [b"null", b'[{"id":"a"},{"id":"b"}]', b'[ {"id" : "a"} ]', b'{"page_id":1}']
        decisions.append(
            decision(
                f"d{index}",
                layer=draw(st.sampled_from(["", "page"])),
                actions=msgspec.Raw(draw(st.sampled_from(texts))),
                eligible=tuple(draw(st.lists(NAMES, max_size=3))),
                slate=tuple(Placement(k, name, 0.1 * k) for k, name in enumerate(placed)),
                masks=tuple(masks),
            )
        )
    return decisions


@given(odd_decisions())
def test_whatever_decisions_say_comes_back(decisions: list[Decision]) -> None:
    assert decisions_of(bundle_of(decisions)) == decisions


def former_bundle_of(decisions: list[Decision]) -> bytes:
    """The bundle of these decisions in the form before: JSON as a whole, in which texts are places
    among all that was eligible.
    """
    header, actions = bundles._opened(unpack(bundle_of(decisions)))
    names = list(dict.fromkeys(chain.from_iterable(each.eligible for each in decisions)))

    def numbers(texts: Iterable[str | None]) -> list[int | str | None]:
        return [names.index(text) if text in names else text for text in texts]

    lists = []
    for each, own in zip(decisions, header.lists, strict=True):
        placed = numbers(p.action for p in each.slate) if own.placed else []
        rules = numbers(mask.rule for mask in each.masks)
        masks = [
            (rule, *msgspec.structs.astuple(mask)[1:])
            for rule, mask in zip(rules, each.masks, strict=True)
        ]
        lists.append((own.eligible, placed, own.propensities, masks))
    tiles = []
    for columns in msgspec.json.decode(header.tiles, type=list[bundles._Tiles]):
        titles, propensities, pictures, *rest = msgspec.structs.astuple(columns)
        tiles.append((numbers(titles), propensities, numbers(pictures), *rest))
    content = (header.decisions, lists, actions, header.answered, tiles)
    return pack(msgspec.json.encode(content))


@given(odd_decisions())
def test_bundles_of_the_form_before_are_read(decisions: list[Decision]) -> None:
    assert decisions_of(former_bundle_of(decisions)) == decisions


def test_a_page_of_the_form_before_is_read() -> None:
    decisions = page("page-1")
    former = former_bundle_of(decisions)
    assert unpack(former).startswith(b"[")
    assert decisions_of(former) == decisions


def test_it_is_read_from_journal_and_tables_by_every_handle(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path)) as log, closing(SqliteLog(path)) as other:
        log.append(page("page-1"))
        found = other.decision("page-1:tears")
        assert found is not None
        assert found.decided_at
        assert unstamped([found]) == page("page-1")[1:2]
        ids = [each.decision_id for each in page("page-1")]
        keyed = Entry(page("page-1"), keyed_decisions=frozenset(ids), whole=True)
        assert set(other.commit([keyed])[0].stored) == set(ids)
        with pytest.raises(Conflict):
            other.append([msgspec.structs.replace(page("page-1")[1], request_hash="other")])

        read = [each for _, each in other.read_decisions(0, 100)]
        assert unstamped(read) == page("page-1")
        assert unstamped([other.decision("page-1:rows")]) == page("page-1")[2:]  # type: ignore[list-item]
        matured = log.matured("page-titles", 0, 0, log.barrier(), 10)
        assert unstamped([each.decision for each in matured]) == page("page-1")[1:]
        assert log_damage(path) == []


def stored(path: Path) -> tuple[int, int]:
    """How many decisions and bundles the file has."""
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT (SELECT count(*) FROM decisions), (SELECT count(*) FROM bundles)"
        decisions, bundles = database.execute(query).fetchone()
    return decisions, bundles


def test_it_goes_with_the_last_of_its_decisions(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path)) as log:
        log.append(page("page-1"))
        log.append(page("page-2"))
        log.drain()
        far = 1 << 60
        log.forget(far, far, far, limit=2)
        assert stored(path) == (4, 2)
        assert unstamped([log.read_decisions(0, 1)[0][1]]) == page("page-1")[2:]
        log.forget(far, far, far, limit=2)
        assert stored(path) == (2, 1)
        log.forget(far, far, far)
        assert stored(path) == (0, 0)


def test_a_damaged_one_is_named_and_keeps_no_other_from_being_read(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path)) as log:
        log.append(page("page-1"))
        log.append(page("page-2"))
        log.drain()
    with closing(sqlite3.connect(path)) as database:
        ((content,),) = database.execute("SELECT content FROM bundles WHERE place = 1").fetchall()
        middle = len(content) // 2
        broken = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        database.execute("UPDATE bundles SET content = ? WHERE place = 1", (broken,))
        database.commit()
    assert log_damage(path) == [f"{path}: damaged: the bundle of row 1 of decisions cannot be read"]
    with closing(SqliteLog(path)) as log:
        assert unstamped([each for _, each in log.read_decisions(0, 100)]) == page("page-2")
        assert len(log.quarantine()) == len(page("page-1"))


def test_an_erased_unit_is_in_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path)) as log:
        log.append(page("page-1", unit="gone"))
        log.append(page("page-2", unit="stays"))
        log.drain()
    assert units_in_log(path) == {"gone", "stays"}
    # What an experiment of other units' has of the same name stays, in a body of its own.
    rows = find_in_log(path, "gone", None, spared=("home",))
    assert set(rows.decisions) == {"page-1:tears", "page-1:rows"}
    erase_from_log(path, rows, Tombstone("salt", "h", None, 1))
    assert stored(path) == (4, 1)
    with closing(SqliteLog(path)) as log:
        read = unstamped([each for _, each in log.read_decisions(0, 100)])
    assert read == page("page-1", unit="gone")[:1] + page("page-2", unit="stays")
    assert log_damage(path) == []


def test_undone_every_decision_has_a_body_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path)) as log:
        log.append(page("page-1"))
        log.drain()
    undo_bundles(path)
    assert stored(path) == (3, 0)
    with closing(sqlite3.connect(path)) as database:
        bodies = [body for (body,) in database.execute("SELECT body FROM decisions ORDER BY seq")]
    assert bodies == [msgspec.json.encode(each) for each in page("page-1")]
    assert log_damage(path) == []


def test_one_decision_that_offers_much_is_one_too() -> None:
    offers = msgspec.json.encode([{"id": f"a{i}"} for i in range(LEAST // 8)])
    assert is_bundled([decision("d", actions=msgspec.Raw(offers))])


def test_experiments_that_learn_from_the_same_pages_open_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bytes] = []

    def noting_unpack(bundle: bytes) -> bytes:
        opened.append(bundle)
        return unpack(bundle)

    monkeypatch.setattr("topbill.log.bundles.unpack", noting_unpack)
    monkeypatch.setattr("topbill.log.bundle_table._TOGETHER", 5)
    names = [f"page-{i}" for i in range(12)]
    with closing(SqliteLog(tmp_path / "log.sqlite")) as log:
        for name in names:
            log.append(page(name))
        barrier = log.barrier()
        after = {"home": 0, "page-titles": 0}
        read: dict[str, list[Decision]] = {key: [] for key in after}
        counts = []
        for _ in range(4):
            for key in after:
                rows = log.matured(key, after[key], 0, barrier, 100)
                read[key] += [row.decision for row in rows]
                after[key] = rows[-1].seq if rows else after[key]
                for row in rows:
                    offers = None if row.decision.layer == "page" else row.decision.actions
                    if offers in (None, NULL):
                        assert row.offers is None
                    else:
                        assert row.offers == msgspec.json.decode(offers, type=list[Offer])
            counts.append(len(opened))
    assert counts == [5, 10, 12, 12]
    assert unstamped(read["home"]) == [page(name)[0] for name in names]
    assert unstamped(read["page-titles"]) == [each for name in names for each in page(name)[1:]]
