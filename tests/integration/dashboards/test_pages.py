"""Every page on every kind of record: it opens without an error, and says what a stranger needs to
know.
"""

from __future__ import annotations

import itertools
import json
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from filled import EXPERIMENTS
from streamlit.testing.v1 import AppTest

from board.pages import PAGES as ENTRIES
from topbill import spec
from topbill.domain.alarm import AlarmLine
from topbill.domain.terms import load_terms
from topbill.lake import Lake, Problem

PAGES = [page.name for page in ENTRIES]
OWN = {
    "Search",
    "device",
    "hour",
    "action",
    "comedy",
    "crime",
    "drama",
    "romance",
    "scifi",
    "always",
}
"""Labels that need no explanation: an experiment's own names."""
FOLDERS = [
    "demo",
    "empty",
    *(
        pytest.param(name, marks=pytest.mark.end_to_end)
        for name in ("alone", "uneven", "hushed", "phased")
    ),
]


def said(app: AppTest) -> str:
    """All that the page says in words."""
    kinds = (
        "title",
        "subheader",
        "markdown",
        "caption",
        "info",
        "warning",
        "error",
        "code",
        "metric",
    )
    elements = itertools.chain.from_iterable(app.get(kind) for kind in kinds)
    spoken = [f"{getattr(e, 'label', '')} {getattr(e, 'value', '')}" for e in elements]
    # Marks that are escaped are said as they are.
    spoken = [re.sub(r"\\([\W_])", r"\1", words).replace("\u2060", "") for words in spoken]
    return "\n".join([*spoken, *(re.sub("<[^>]+>", " ", e.proto.body) for e in app.get("html"))])


def tables(app: AppTest) -> list[pd.DataFrame]:
    """The tables of words that the page shows, a column for each heading."""
    found = []
    for element in app.get("html"):
        if "<table" in element.proto.body:
            cells = re.findall(
                r'<td data-column="([^"]*)"[^>]*><span>(.*?)</span>', element.proto.body
            )
            names = list(dict.fromkeys(name for name, _ in cells))
            found.append(
                pd.DataFrame(
                    {n: [said_cell(cell) for name, cell in cells if name == n] for n in names}
                )
            )
    return found


def said_cell(cell: str) -> str:
    """As it is read: a sign and its word are kept on one line."""
    return unescape(cell).replace("\u00a0", " ")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_on_any_record(
    page: str, folder: str, open_app, request: pytest.FixtureRequest
) -> None:
    app = open_app(request.getfixturevalue(folder), page)
    assert [e.message for e in app.exception] == []
    assert [e.value for e in app.error] == []
    # What it is about, what it comes down to, and what to do next.
    assert len(app.title) == 1
    assert "What next?" in said(app)


@pytest.mark.parametrize("page", PAGES)
def test_every_term_is_explained_and_every_number_can_be_taken_home(
    page: str, open_app, demo: Path
) -> None:
    """Headings, numbers and choices have their question mark, columns their own, and charts and
    tables a CSV.
    """
    app = open_app(demo, page, experiment="home-artwork")
    unexplained = [e.value for e in app.subheader if not e.help] + [
        e.label for e in app.metric if not e.help
    ]
    # What is promised to hold at every look is not what holds for one.
    if page in ("bandit", "artwork", "page", "what_if"):
        assert not any('data-column="95% interval"' in e.proto.body for e in app.get("html"))
    choices = ("selectbox", "multiselect", "slider", "text_input", "text_area", "number_input")
    unexplained += [
        e.label for kind in choices for e in app.get(kind) if not (e.help or e.label in OWN)
    ]
    assert unexplained == []
    bodies = [e.proto.body for e in app.get("html")]
    shown = [body for body in bodies if 'class="tb-table"' in body]
    assert all(body.count('scope="col"') == body.count('role="tooltip"') > 0 for body in shown)
    charts = len(app.get("vega_lite_chart"))
    # Home's and Preview's are pictures and tables, which a browser has at once.
    drawn = {"home": "tb-spark", "preview": "tb-bars"}
    assert (charts > 0) == (page not in (*drawn, "what_if", "decisions", "library", "glossary"))
    assert page not in drawn or any(drawn[page] in body for body in bodies)
    # The tables of the verdict are in one file.
    wanted = {"home": 0, "preview": 1, "decisions": 1, "verdict": 1}.get(page, len(shown) + charts)
    assert [e.label for e in app.get("download_button")].count("CSV") >= wanted


@pytest.mark.parametrize("page", ["home", "health"])
def test_a_refused_edit_and_a_stuck_experiment_are_told(
    page: str, open_app, tmp_path: Path
) -> None:
    Lake(tmp_path).write_database(
        [spec.load(EXPERIMENTS / "home-artwork.yaml")],
        1,
        problems=[
            Problem("file", "home-rows.yaml", "slotz", "got an unknown key; did you mean slots?"),
            Problem("learning", "home-artwork", "", "thompson: not positive definite"),
        ],
    )
    page_said = said(open_app(tmp_path, page))
    for text in (
        "home-rows.yaml",
        "slotz",
        "was refused",
        "did you mean slots?",
        "learns nothing",
        "not positive",
    ):
        assert text in page_said


def test_home_tells_the_alarms_that_stand_and_no_others(open_app, tmp_path: Path) -> None:
    over = AlarmLine("a", "raised", "reward_silence", "home-artwork", "", "", "It was.", 1)
    stands = AlarmLine("b", "raised", "sample_ratio", "home-artwork", "", "", "b got 41.2%.", 2)
    Lake(tmp_path).write_database(
        [spec.load(EXPERIMENTS / "home-artwork.yaml")],
        3,
        alarms=[over, over._replace(state="resolved", at=2), stands],
    )
    page_said = said(open_app(tmp_path, "home"))
    assert "Sample ratio mismatch (SRM)" in page_said
    assert "b got 41.2%." in page_said
    assert "It was." not in page_said


@pytest.mark.parametrize("page", [page for page in PAGES if page != "glossary"])
def test_without_any_record_a_page_says_how_to_start(page: str, open_app, tmp_path: Path) -> None:
    app = open_app(tmp_path, page)
    assert len(app.title) == 1
    assert "has published no record" in said(app)
    assert "topbill demo" in said(app)
    assert not app.exception


def test_a_record_without_experiments_is_no_missing_record(open_app, empty: Path) -> None:
    text = said(open_app(empty, "verdict"))
    assert "The record knows no experiment yet." in text
    assert "topbill examples" in text


def test_home_shows_a_card_for_each_experiment_with_its_verdict_in_words(
    open_app, demo: Path
) -> None:
    text = said(open_app(demo))
    assert "Artwork for Midnight Run" in text
    assert "Order of the homepage's rows" in text
    assert "Nobody asked yet" in text
    assert "It is a draft" in text
    assert "editorial" in text


def test_a_chart_says_what_it_shows_to_those_who_do_not_see_it(open_app, demo: Path) -> None:
    app = open_app(demo, "experiment", experiment="home-artwork")
    described = [e.proto.alt for e in app.get("vega_lite_chart")]
    assert all(described)
    assert any(re.search(r"thompson [+−]\d", text) for text in described)


def test_rows_of_a_chart_stand_beside_their_labels(open_app, demo: Path) -> None:
    app = open_app(demo, "bandit", experiment="home-artwork", variant="thompson")
    drawn = [json.loads(e.proto.spec) for e in app.get("vega_lite_chart")]
    assert drawn
    assert all(chart["config"]["axisY"]["labelFlush"] is False for chart in drawn)


def test_home_shows_what_is_urgent_first(open_app, demo: Path) -> None:
    """What is calm, such as a draft, comes last."""
    app = open_app(demo)
    titles = [e.value for e in app.markdown if re.fullmatch(r"\*\*[^*]+\*\*", e.value)]
    assert titles[-1] == "**Nobody asked yet**"
    # What never began has no news to be missed, of however long ago the record is.
    draft = next(e.value for e in app.caption if "not started" in e.value)
    assert "no news" not in draft


def test_the_glossary_has_the_term_that_a_help_leads_to(open_app, demo: Path) -> None:
    app = open_app(demo, "experiment", experiment="home-artwork")
    helps = [e.help for e in [*app.subheader, *app.metric]]
    keys = {key for text in helps for key in re.findall(r"\(glossary\?term=(\w+)\)", text)}
    assert {"lift", "interval", "guardrail", "mature"} <= keys <= set(load_terms().terms)
    for key in ("srm", "noninferiority"):
        text = said(open_app(demo, "glossary", term=key))
        assert load_terms().terms[key].meaning in text
    assert "No term has" not in text
    searched = open_app(demo, "glossary")
    searched.text_input(key="term_search").set_value("no such thing").run()
    assert "No term has" in said(searched)


def test_the_verdict_has_all_that_a_meeting_asks_for(open_app, demo: Path) -> None:
    app = open_app(demo, "verdict", experiment="home-artwork")
    text = said(app)
    for part in ("What next?", "Lift of objective", "Guardrails", "sample ratio mismatch", "units"):
        assert part in text
    lift, rails = tables(app)
    assert set(lift["variant"]) == {"thompson", "linucb", "uniform"}
    assert set(rails["result"].str[2:]) <= {"passed", "failed", "inconclusive", "unknown"}


def test_a_plain_difference_is_not_called_a_lift(open_app, hushed: Path) -> None:
    """Where the control cannot be told from zero."""
    table = tables(open_app(hushed, "verdict", experiment="home-artwork"))[0]
    assert "lift" not in table
    assert not any("%" in cell for cell in table["difference"])


def test_what_cannot_be_told_has_its_reason_and_no_other(open_app, hushed: Path) -> None:
    app = open_app(hushed, "experiment", experiment="home-artwork")
    assert [e.message for e in app.exception] == []
    told = [e.value for e in app.caption]
    # The lift's and the guardrail's, of which neither has an interval.
    assert len([line for line in told if "a relative lift means nothing" in line]) == 2
    assert not any("interval still holds" in line for line in told)
    assert not any("It stands above" in line for line in told)


def test_under_a_mismatch_no_comparison_is_called(open_app, uneven: Path) -> None:
    app = open_app(uneven, "experiment", experiment="home-artwork")
    every = next(table for table in tables(app) if "probability to beat control" in table)
    assert set(every["result"]) == {"? not trustworthy (SRM)"}
    rails = next(table for table in tables(app) if "non-inferiority margin" in table)
    assert set(rails["result"]) == {"? not trustworthy (SRM)"}
    assert "Segments" not in said(app)
    # The verdict has said so, and once is enough.
    assert [e.value for e in app.warning if "ample ratio" in e.value] == []


def test_home_filters_by_what_is_typed(open_app, demo: Path) -> None:
    app = open_app(demo)
    app.text_input(key="search").set_value("rows").run()
    text = said(app)
    assert "Order of the homepage's rows" in text
    assert "Artwork for Midnight Run" not in text
    app.text_input(key="search").set_value("no such thing").run()
    assert "No experiment matches" in said(app)


def test_the_address_chooses_the_experiment(open_app, demo: Path) -> None:
    assert (
        open_app(demo, "experiment", experiment="home-rows").title[0].value
        == "Order of the homepage's rows"
    )
    assert (
        open_app(demo, "experiment", experiment="home-artwork").title[0].value
        == "Artwork for Midnight Run"
    )


def test_the_experiment_page_gives_verdict_lift_interval_and_next_step(
    open_app, demo: Path
) -> None:
    app = open_app(demo, "experiment", experiment="home-artwork")
    text = said(app)
    assert "What next?" in text
    assert "thompson" in text
    metrics = next(table for table in tables(app) if "probability to beat control" in table)
    assert {"metric", "variant", "lift", "95% interval"} <= set(metrics.columns)
    assert set(metrics["variant"]) == {"thompson", "linucb", "uniform"}
    assert metrics["lift"].str.fullmatch(r"[+−]?\d[\d.,]*[%×]?|–").all()


def test_rates_are_percentages_with_differences_in_points_and_lifts_beside_them(
    open_app, phased: Path
) -> None:
    app = open_app(phased, "experiment")
    assert not app.exception
    metrics = next(table for table in tables(app) if "probability to beat control" in table)
    by_metric = metrics.set_index("metric")
    percent, points = r"\d[\d.]*%", r"[+−]?\d[\d.]* pp"
    for rate in ("play", "abandon", "shared"):
        row = by_metric.loc[rate]
        assert re.fullmatch(percent, row["value"]), rate
        assert re.fullmatch(percent, row["control"]), rate
        assert re.fullmatch(points, row["difference"]), rate
        assert re.fullmatch(r"[+−]\d[\d.]* to [+−]\d[\d.]* pp", row["95% interval"]), rate
    assert re.fullmatch(r"[+−][\d.]+% to [+−][\d.]+%", by_metric.loc["play", "95% of the lift"])
    # Of next to nothing there is no lift, and a difference all the same.
    shared = by_metric.loc["shared"]
    assert (shared["lift"], shared["95% of the lift"]) == ("–", "–")
    minutes = by_metric.loc["minutes per unit"]
    assert not re.search("%|pp", " ".join(minutes[["value", "control", "difference"]]))
    held_out = next(table for table in tables(app) if "holdout" in table)
    assert re.fullmatch(percent, held_out["holdout"][0])
    assert re.fullmatch(points, held_out["difference"][0])


def test_phases_and_what_is_not_counted_are_shown(open_app, phased: Path) -> None:
    app = open_app(phased, "experiment")
    phases = next(table for table in tables(app) if "what changed" in table)
    assert list(phases["what changed"]) == ["", "editorial 80% → 50%, thompson 20% → 50%"]
    text = said(app)
    assert "Not counted:" in text
    assert "units left out by their context" in text
    # The same words as a plan says before the files are saved.
    assert "variants.editorial: share 80% → 50%; variants.thompson: share 20% → 50%." in text
    assert "A new phase begins: editorial 80% → 50%, thompson 20% → 50%." in text
    assert "by ana: " in text
    assert "+    share: 50%" in "".join(block.value for block in app.code)
    assert "changed variant; each counts for the one that it was given first" in text


def test_a_sample_ratio_mismatch_withholds_the_verdict(open_app, uneven: Path) -> None:
    for page in ("home", "experiment"):
        text = said(open_app(uneven, page))
        assert "Not trustworthy" in text
        assert "not split" in text
        assert "beats" not in text


def test_one_variant_is_not_compared_with_anything(open_app, alone: Path) -> None:
    text = said(open_app(alone, "experiment"))
    assert "beats" not in text
    assert "What next?" in text


def test_decisions_are_found_by_id_and_by_unit(open_app, demo: Path) -> None:
    app = open_app(demo, "decisions", experiment="home-artwork", id="home-artwork-7")
    assert "Candidates and their probabilities" in said(app)
    assert "home-artwork-7" in said(app)
    unit = said(app).split(" was shown")[0].split()[-1]
    by_unit = open_app(demo, "decisions", unit=unit)
    assert any(
        "id=home-artwork-7&amp;experiment=home-artwork" in e.proto.body for e in by_unit.get("html")
    )
    assert "No decision nothing" in said(open_app(demo, "decisions", id="nothing"))


def test_decisions_are_narrowed_to_a_variant_and_to_what_was_rewarded(open_app, demo: Path) -> None:
    asked = {"experiment": "home-artwork", "of": "linucb", "rewarded": "true"}
    app = open_app(demo, "decisions", **asked)
    assert [e.message for e in app.exception] == []
    (table,) = tables(app)
    assert set(table["variant"]) == {"linucb"}
    assert (table["events"].astype(int) > 0).all()


def test_a_decision_of_no_variant_says_so(open_app, phased: Path) -> None:
    (table,) = tables(open_app(phased, "decisions", experiment="phased"))
    assert set(table["variant"]) == {"editorial", "thompson", "none"}
    in_none = table["variant"] == "none"
    assert set(table["reason"][in_none]) <= {"holdout", "excluded context"}


def test_preview_follows_the_context_and_its_chances_sum_to_one(open_app, demo: Path) -> None:
    app = open_app(demo, "preview", experiment="home-artwork")
    before = said(app)
    assert "Policies of version" in before
    for key in ("crime", "drama"):
        app.slider(key=f"c_taste_{key}").set_value(1.0 if key == "crime" else 0.0)
    app.selectbox(key="c_device").set_value("mobile").run()
    assert not app.exception
    assert said(app) != before


def test_preview_takes_a_typed_context_and_says_what_is_wrong_with_one(
    open_app, demo: Path
) -> None:
    typed = '{"device": "mobile", "hour": 3, "taste": {"crime": 1}}'
    app = open_app(demo, "preview", experiment="home-artwork", context=typed)
    assert "This viewer would see first" in said(app)
    assert not [s for s in app.slider if s.key and s.key.startswith("c_")]
    for wrong, told in (
        ("{", "no JSON"),
        ("[1]", "expected an object"),
        ('{"device": 7}', "device"),
    ):
        app = open_app(demo, "preview", experiment="home-artwork", context=wrong)
        assert told in said(app)
        assert not app.exception


def test_the_whole_page_says_which_layer_it_was(open_app, demo: Path) -> None:
    app = open_app(demo, "page", layer="artwork")
    text = said(app)
    assert "titles' any and artwork's any help." in text
    goals = next(table for table in tables(app) if "standing" in table)
    assert list(goals["variant"]) == ["first (control)", "any"]
    assert goals["standing"].tolist() == ["✖ dominated by any", "✔ Pareto-optimal"]
    stages = next(table for table in tables(app) if "stage" in table)
    assert list(stages["stage"]) == ["candidates"]
    seen = next(table for table in tables(app) if "ten most shown" in table)
    assert list(seen["titles"]) == ["12", "4"]


def test_a_whole_page_that_nobody_asked_for_is_told(open_app, alone: Path) -> None:
    assert "No whole page has been served yet" in said(open_app(alone, "page"))


def test_what_if_answers_with_an_interval_beside_what_was_logged(open_app, drawn: Path) -> None:
    app = open_app(drawn, "what_if", experiment="home-artwork", candidate="linucb")
    app.button[0].click().run(timeout=120)
    assert not app.exception
    text = said(app)
    assert "linucb would have earned" in text
    assert "the logged policy earned" in text
    assert "Mean weight" in text


def test_what_if_refuses_where_the_log_cannot_tell_and_says_why(open_app, hushed: Path) -> None:
    app = open_app(hushed, "what_if", candidate="pure chance")
    app.button[0].click().run(timeout=120)
    text = said(app)
    assert not app.exception
    assert "No verdict" in text
    assert "The log cannot tell" in text
    assert "What next?" in text
    assert "too few effective decisions" not in " ".join(text.split("What next?")[1:]), (
        "the reason is not told once for each estimator"
    )


def test_parameters_that_a_policy_does_not_have_are_named(open_app, demo: Path) -> None:
    app = open_app(
        demo, "what_if", experiment="home-artwork", candidate="linucb", parameters="alfa: 1"
    )
    app.button[0].click().run(timeout=120)
    assert "alfa" in said(app)
    assert "alpha" in said(app)
    assert not app.exception


def test_a_password_is_asked_for_where_there_is_one(
    open_app, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPBILL_DASHBOARD_PASSWORD", "correct horse battery")
    app = open_app(demo)
    assert "Artwork" not in said(app)
    app.text_input[0].set_value("wrong").run()
    assert "not the password" in said(app)
    app.text_input[0].set_value("correct horse battery").run()
    assert "Artwork for Midnight Run" in said(app)


def test_with_a_provider_in_the_secrets_nothing_is_shown_before_signing_in(
    demo: Path, open_app, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(st.user.__class__, "is_logged_in", False, raising=False)
    made = AppTest.from_file

    def with_secrets(*arguments: object, **options: object) -> AppTest:
        app = made(*arguments, **options)  # type: ignore[arg-type]
        app.secrets["auth"] = {"client_id": "x"}
        return app

    monkeypatch.setattr(AppTest, "from_file", with_secrets)
    app = open_app(demo)
    assert not app.exception
    assert "Artwork" not in said(app)
    assert [button.label for button in app.button] == ["Sign in"]


def test_the_guide_has_a_line_for_each_page_in_the_order_of_the_app() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "dashboard.md").read_text()
    lines = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", guide, re.MULTILINE)
    assert [title for title, _ in lines] == [entry.title for entry in ENTRIES]
    for entry, (_, answers) in zip(ENTRIES, lines, strict=True):
        assert answers.startswith(entry.question)


def test_every_view_is_a_page_of_the_app() -> None:
    views = Path(__file__).parents[3] / "dashboards" / "views"
    assert sorted(view.stem for view in views.glob("*.py")) == sorted(PAGES)
