"""What a process says is one line of JSON, whatever it says."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import Context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.process_log import REQUEST_ID, JsonFormatter

from ..processes import topbill


def line_of(message: object, *arguments: object, **more: object) -> dict[str, object]:
    record = logging.LogRecord("topbill", logging.WARNING, "f", 1, message, arguments, None)
    vars(record).update(more)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)


@given(st.text(st.characters()))
def test_every_text_is_one_line(text: str) -> None:
    assert line_of("%s", text)["message"] == text


def test_it_says_when_and_how_bad_and_of_which_request() -> None:
    request = Context()
    request.run(REQUEST_ID.set, "r-1")
    line = request.run(line_of, "%d files", 3)
    assert line["message"] == "3 files"
    assert line["level"] == "warning"
    assert line["request_id"] == "r-1"
    assert str(line["at"]).endswith("Z")
    assert "request_id" not in Context().run(line_of, "none")


def test_an_error_comes_with_its_traceback_in_the_same_line() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        line = line_of("it failed", exc_info=sys.exc_info())
    assert "ValueError: a\nb" in str(line["error"])


def test_fields_of_a_caller_are_there() -> None:
    assert line_of("x", fields={"status": 422, "path": "/v1/decide"})["status"] == 422


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_keeps_a_command_from_starting_is_said_in_the_same_form(log_format: str) -> None:
    where = ("--experiments", "/nowhere/at/all", "--data", "/nowhere/data")
    done = topbill("worker", *where, "--log-format", log_format)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    if log_format == "json":
        assert [json.loads(line)["level"] for line in lines] == ["error"]
    else:
        assert "{" not in done.stderr
