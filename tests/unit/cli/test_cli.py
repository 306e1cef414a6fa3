"""The command line: verdicts and exit codes that scripts can rely on, and one message where
something is wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cyclopts
import msgspec
import pytest

from topbill import cli
from topbill.cli.supervise import free_port
from topbill.domain.records import RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.lake import Lake
from topbill.log import open_log
from topbill.spec import Experiment
from topbill.worker.learner import Learner
from topbill.worker.publisher import Publisher

from ...processes import topbill

EXAMPLES = Path(__file__).parents[3] / "experiments"


@pytest.fixture
def data(tmp_path: Path, art: Experiment) -> Path:
    """A data folder in which the small experiment has decided, learned and been published."""
    folder = tmp_path / "data"
    log, engine = open_log(folder / "log.sqlite"), Engine([art])
    decisions = [
        engine.decide(DecideRequest(experiment="art", unit=f"u{i}", decision_id=f"d{i}"))
        for i in range(200)
    ]
    log.append(
        decisions,
        [RewardEvent(decision_id=f"d{i}", event_id="e", event="play") for i in range(0, 200, 7)],
    )
    time.sleep(1.2)
    Learner(log, [art]).step()
    live = engine.find("art")
    log.revise("art", live.revision, "tests", msgspec.json.encode(art.raw).decode())
    Publisher(log, Lake(folder), lambda: [art]).step()
    log.close()
    return folder


def test_valid_files_exit_0_and_are_named(folder: Path) -> None:
    done = topbill("validate", EXAMPLES, folder / "art.yaml")
    assert done.returncode == 0, done.stdout
    for name in ("home-artwork", "home-rows", "home-titles", "art.yaml"):
        assert name in done.stdout


def test_a_page_file_is_checked_beside_its_experiments() -> None:
    whole = topbill("validate", EXAMPLES)
    for path in (EXAMPLES / "pages" / "home.yaml", EXAMPLES / "pages"):
        done = topbill("validate", path)
        assert (done.returncode, done.stdout) == (0, whole.stdout)


def test_a_page_whose_titles_leave_little_to_the_policy_is_valid_with_a_note(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "experiments"
    shutil.copytree(EXAMPLES / "pages", folder / "pages")
    shutil.copy(EXAMPLES / "catalogue.csv", folder)
    titles = folder / "pages" / "home" / "titles.yaml"
    text = titles.read_text()
    assert "min_probability: 0.02%" in text
    before = topbill("validate", folder).stdout
    assert before.count("note:") == 1
    assert "demo: true makes up" in before
    titles.write_text(text.replace("min_probability: 0.02%", "min_probability: 1%"))
    done = topbill("validate", folder)
    assert done.returncode == 0
    assert (
        "page-titles, linucb: min_probability 1% for each of 60 candidates takes 60% of the draws "
        "at position 1 and leaves its policy 40% (51% at position 12)"
    ) in done.stdout


def test_up_says_once_what_is_wrong_with_the_files(folder: Path, tmp_path: Path) -> None:
    (folder / "art.yaml").write_text((folder / "art.yaml").read_text() + "slotz: 2\n")
    done = topbill("up", "--experiments", folder, "--data", tmp_path / "data")
    assert (done.returncode, done.stderr.count("slotz")) == (1, 1)
    assert not (tmp_path / "data").exists()


def test_an_invalid_file_exits_1_and_names_all_that_is_wrong_at_once(folder: Path) -> None:
    file = folder / "art.yaml"
    file.write_text(
        file.read_text().replace("share: 60%", "share: 70%").replace("window: 1s", "windw: 1s")
    )
    done = topbill("validate", folder)
    assert done.returncode == 1
    assert "windw" in done.stdout
    assert "did you mean window?" in done.stdout
    assert "110%" in done.stdout


def test_what_is_not_there_is_one_message_and_no_traceback(
    tmp_path: Path, folder: Path, data: Path
) -> None:
    wrong: list[tuple[str | Path, ...]] = [
        ("validate", tmp_path / "nowhere"),
        ("report", "art", "--data", tmp_path / "empty"),
        ("report", "arts", "--data", data),
        ("verify", "arts", "--experiments", folder, "--data", data),
        ("sql", "selec 1", "--data", data),
        ("sql", "drop view decisions", "--data", data),
        ("replay", "obd", tmp_path / "none.parquet"),
        ("simulate", tmp_path / "none.yaml"),
        ("serve", "--host", "0.0.0.0", "--experiments", folder, "--data", data),  # noqa: S104
        ("serve", "--experiments", tmp_path / "nowhere", "--data", data),
    ]
    for arguments in wrong:
        done = topbill(*arguments)
        said = done.stdout + done.stderr
        assert done.returncode == 1, arguments
        assert said.strip(), arguments
        assert "Traceback" not in said, said


def commands(app: cyclopts.App) -> Iterator[tuple[str, cyclopts.App]]:
    """Every command that does something, with its name."""
    below = [name for name in app if not name.startswith("-")]
    for name in below:
        yield from commands(app[name])
    if not below:
        yield app.name[0], app


def test_every_option_says_what_it_is_for() -> None:
    known = dict(commands(cli.app))
    assert {"up", "obd", "report", "evaluate"} <= known.keys()
    silent = [
        (name, option.name)
        for name, command in known.items()
        for option in command.assemble_argument_collection(parse_docstring=True)
        if option.parse and option.name != "*" and not option.parameter.help
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("keep",), "topbill worker"),
        (("keep", "--data", "data"), "topbill worker"),
        (("rebuild", "art"), "topbill verify"),
        (("page", "home"), "topbill report"),
        (("serve", "--workers", "2"), "--processes"),
        (("up", "--workers=2"), "--processes"),
    ],
    ids=" ".join,
)
def test_an_old_verb_or_option_is_answered_with_its_name_of_today(
    arguments: tuple[str, ...], name: str
) -> None:
    done = topbill(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"is called {name} today" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_worker_takes_no_options_of_a_service() -> None:
    for option in ("--host", "--port", "--processes"):
        done = topbill("worker", option, "1")
        assert done.returncode != 0
        assert option in done.stdout + done.stderr


def test_an_option_of_pages_is_refused_for_an_experiment(data: Path) -> None:
    for option in (("--weights", "play=1"), ("--instead", "rows=uniform")):
        done = topbill("report", "art", "--data", data, *option)
        assert done.returncode == 1
        assert f"art is an experiment, of which there is no {option[0]}" in done.stderr


def test_the_schema_is_json(tmp_path: Path) -> None:
    assert "variants" in json.loads(topbill("schema").stdout)["properties"]


def test_a_reader_that_has_enough_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    # As `topbill schema | head -0` ends: what is printed has nobody to go to.
    command = [sys.executable, "-m", "topbill", "schema"]
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_record_answers_sql(data: Path) -> None:
    query = "select count(*) n, count(distinct unit) units from feedback"
    assert json.loads(topbill("sql", query, "--data", data, "--json").stdout) == [
        {"n": 200, "units": 200}
    ]
    assert "200" in topbill("sql", query, "--data", data).stdout


def test_a_report_is_text_json_or_a_page(data: Path, tmp_path: Path) -> None:
    found = json.loads(topbill("report", "art", "--data", data, "--json").stdout)
    assert (found["experiment"], found["decisions"], found["units"]) == ("art", 200, 200)
    assert "art" in topbill("report", "art", "--data", data).stdout
    page = tmp_path / "report.html"
    assert topbill("report", "art", "--data", data, "--html", page).returncode == 0
    assert "<svg" in page.read_text()


def test_verify_exits_0_when_it_reaches_the_stored_state_and_1_when_not(
    folder: Path, data: Path
) -> None:
    where = ("--experiments", folder, "--data", data)
    assert topbill("verify", "art", *where).returncode == 0
    both = topbill("verify", "art", "--files", *where)
    assert both.returncode == 0
    assert "no file of log or lake is damaged" in both.stdout.replace("\n", " ")
    assert "art" in both.stdout.replace(str(data), "")
    with closing(sqlite3.connect(data / "log.sqlite", isolation_level=None)) as database:
        database.execute("UPDATE reward_events SET body = replace(body, 'play', 'stop')")
    done = topbill("verify", "art", *where)
    assert (done.returncode, "differs" in done.stdout) == (1, True)


def test_verify_files_names_what_is_damaged_and_takes_over_what_can_be_read(
    folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with open_log(data / "log.sqlite") as log:
        for name in ("a", "b", "c"):
            event = RewardEvent(decision_id=name, event_id="e", event="play", value=1.0)
            log.append([], [event])
    files = ("verify", "--files", "--data", data)
    assert topbill(*files).returncode == 0
    with (data / "log.journal").open("r+b") as file:
        file.seek(50)
        file.write(b"\xff")
    done = topbill(*files)
    assert (done.returncode, "log.journal: damaged at byte 0" in done.stdout) == (1, True)
    done = topbill(*files, "--repair")
    assert (done.returncode, "2 rows in 2 groups" in done.stdout) == (0, True), done.stdout
    assert topbill(*files).returncode == 0
    for wrong in (("verify",), ("verify", "art", "--files")):
        done = topbill(*wrong, "--data", data)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr


def test_a_simulation_prints_a_line_a_variant(folder: Path) -> None:
    lines = json.loads(topbill("simulate", folder / "art.yaml", "--rounds", "300", "--json").stdout)
    assert {line["variant"] for line in lines} == {"editorial", "thompson", "uniform"}


@pytest.mark.end_to_end
def test_up_starts_everything_and_one_signal_ends_it(folder: Path, tmp_path: Path) -> None:
    port = free_port("127.0.0.1", 0)
    command = [
        sys.executable,
        "-m",
        "topbill",
        "up",
        "--experiments",
        str(folder),
        "--data",
        str(tmp_path / "data"),
    ]
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            # Before that it may say that it compiles what decides.
            assert any(str(port) in line for line in process.stdout)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.terminate()
    log = open_log(tmp_path / "data" / "log.sqlite")
    assert log.revisions("art")
    log.close()


def test_a_second_worker_on_the_same_data_is_refused(folder: Path, tmp_path: Path) -> None:
    from topbill.worker.only_worker import only_worker

    with only_worker(tmp_path / "data"):
        done = topbill("worker", "--experiments", folder, "--data", tmp_path / "data")
    assert (done.returncode, "another worker" in done.stderr) == (1, True)


def test_what_cannot_be_served_is_one_message_before_anything_starts(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for verb, data, options, said in (
            (
                "serve",
                tmp_path / "data",
                ["--port", port],
                f"127.0.0.1:{port}: cannot listen there",
            ),
            ("serve", tmp_path / "data", ["--port", 99999], "65535"),
            ("serve", tmp_path / "data", ["--processes", 0], ">= 1"),
            ("serve", file, [], "cannot open the log"),
            ("worker", file, [], "expected a folder to write to"),
        ):
            done = topbill(verb, "--experiments", folder, "--data", data, *options)
            assert done.returncode in (1, 2)
            assert said in done.stderr + done.stdout
            assert "Traceback" not in done.stderr


def test_a_small_demo_learns_and_reports_over_http(tmp_path: Path) -> None:
    port = str(free_port("127.0.0.1", 0))
    done = topbill(
        "demo",
        "--experiments",
        EXAMPLES,
        "--data",
        tmp_path / "data",
        "--port",
        port,
        "--seconds",
        "12",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "What you have seen" in done.stdout
    decided = json.loads(
        topbill(
            "sql", "select count(*) n from decisions", "--data", tmp_path / "data", "--json"
        ).stdout
    )
    assert decided[0]["n"] > 100
    log = open_log(tmp_path / "data" / "log.sqlite")
    assert log.version("home-artwork") > 0
    log.close()
