"""Page files: what they may say, and what is wrong with those that can't be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from topbill import pages, spec
from topbill.domain.errors import SpecError

from ...small_page import PAGE

EXAMPLES = Path(__file__).parents[3] / "experiments"


def test_the_example_page_is_valid_with_its_experiments() -> None:
    experiments = spec.load_all(pages.experiment_folders(EXAMPLES))
    (home,) = pages.load_all(EXAMPLES, experiments)
    assert home.layers == {"rows": "page-rows", "titles": "page-titles", "artwork": "page-artwork"}
    assert (home.session_ttl, home.rows, home.titles) == (1800.0, 6, 12)
    assert home.catalogue.exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("experiment: titles", "experiment: titels", "did you mean titles?"),
        ("experiment: titles", "experiment: art", "surface: titles"),
        (
            "artwork: {experiment: artwork}",
            "artwork: {experiment: art}",
            "since the page brings them",
        ),
        ("  fresh: {source: new}\n", "", "fresh differ"),
        ("count: 3}", "count: 5}", "at most 4"),
        ("candidates: 16", "candidates: 2", "at least 6"),
        ("{source: new}", "{source: new, genres: [drama]}", "genres with source genre"),
        ("count: 3}", "count: 3, pinned: {worst: 0}}", "one of best, fun, tension, fresh"),
        ("count: 3}", "count: 3, pinned: {best: 3}}", "0 to 2"),
        ("count: 3}", "count: 3, pinned: {best: 0, fun: 0}}", "a position of its own"),
        ("region: us", "", "required"),
        ("page: home", "page: home\nsession_tl: 3m", "did you mean session_ttl?"),
        ("page: home", "page: home\nclick_model: seen", "independent, cascade, examined"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(
    home: Any, old: str, new: str, says: str
) -> None:
    file = home.folder / "pages" / "home.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        home.file()
    assert says in str(caught.value)


def test_a_page_s_click_model_is_that_of_its_layers_in_the_audit_too(home: Any) -> None:
    home.write(page=PAGE + "click_model: examined\n")
    models = {}
    for experiment in pages.load_experiments(home.folder):
        models[experiment.key] = experiment.click_model
        audited = spec.from_audit(json.dumps(experiment.raw), "audit")
        assert audited.fingerprint == experiment.fingerprint
    layers = dict.fromkeys(("rows", "titles", "artwork"), "examined")
    assert models == {"art": "independent", **layers}
    titles = home.folder / "pages" / "home" / "titles.yaml"
    titles.write_text(titles.read_text() + "click_model: cascade\n")
    with pytest.raises(SpecError, match=r"click_model.*what titles says, cascade: say it in one"):
        home.file()


def test_features_that_a_page_fills_otherwise_are_named(home: Any) -> None:
    file = home.folder / "pages" / "home" / "titles.yaml"
    file.write_text(file.read_text().replace("new: {type: flag}", "new: {type: number}"))
    with pytest.raises(
        SpecError, match=r"action feature new \(number\); expected type flag, as pages fill it"
    ):
        home.file()


def test_page_files_are_found_like_experiment_files(home: Any) -> None:
    folder = home.folder
    (folder / "pages" / "._home.yaml").write_bytes(b"\x00\x05\x16\x07")
    (folder / "pages" / ".#home.yaml").symlink_to("somebody@host.1")
    (folder / "pages" / "home" / ".#titles.yaml").symlink_to("somebody@host.1")
    (folder / "pages" / "home.yaml").rename(folder / "pages" / "home.yml")
    experiments = spec.load_all(pages.experiment_folders(folder))
    assert [page.key for page in pages.load_all(folder, experiments)] == ["home"]
    assert [path.name for path, _ in pages.validate(folder, experiments)] == ["home.yml"]


def test_two_pages_of_one_key_are_refused(home: Any) -> None:
    folder = home.folder / "pages"
    (folder / "zz.yaml").write_text((folder / "home.yaml").read_text())
    with pytest.raises(
        SpecError, match=r"zz\.yaml:2: page: got 'home'; expected a key of its own: home\.yaml has"
    ):
        pages.load_all(home.folder, spec.load_all(pages.experiment_folders(home.folder)))


def test_a_page_and_an_experiment_never_share_a_key(home: Any) -> None:
    """`topbill report KEY` takes either, so a key must say which."""
    path = home.folder / "pages" / "home.yaml"
    path.write_text(path.read_text().replace("page: home", "page: titles"))
    with pytest.raises(
        SpecError, match=r"home\.yaml:2: page: got 'titles'; expected a key that no experiment has"
    ):
        home.file()
    experiments = home.experiments()
    ((_, verdict),) = pages.validate(home.folder, experiments)
    assert isinstance(verdict, SpecError)


OLD_KEYS = {
    "made_of": "sources",
    "sticky": "session_ttl",
    "kids": "kids_max_age",
    "guests": "guest_max_age",
}


def test_every_old_key_is_told_by_its_name_of_today(tmp_path: Path) -> None:
    text = (EXAMPLES / "pages" / "home.yaml").read_text()
    for old, name in OLD_KEYS.items():
        text = text.replace(f"\n{name}:", f"\n{old}:")
    (tmp_path / "home.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        pages.load(tmp_path / "home.yaml", ())
    lines = {line.partition(":")[0]: number for number, line in enumerate(text.splitlines(), 1)}
    assert sorted(str(problem) for problem in caught.value.problems) == sorted(
        f"home.yaml:{lines[old]}: {old}: got a key that has another name today; expected {name}; "
        f"write {name} instead of {old}"
        for old, name in OLD_KEYS.items()
    )


def test_the_revision_of_a_page_is_what_it_was_before_its_keys_were_renamed() -> None:
    experiments = spec.load_all(pages.experiment_folders(EXAMPLES))
    (home,) = pages.load_all(EXAMPLES, experiments)
    # Since then the example says that it is a demonstration.
    raw = {key: value for key, value in home.raw.items() if key != "demo"}
    assert replace(home, raw=raw).revision == "4381e51dc2f9"
