"""Whatever is thrown at `POST /v1/page`: an answer that names what is wrong, or a page, and never a
5xx.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from starlette.testclient import TestClient

VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    22,
    7.5,
    10**400,
    1e308,
    "",
    "x",
    "a:b",
    "é" * 40,
    "\u0000",
    "x" * 5_000,
    [],
    ["t01"],
    ["t01"] * 200,
    [None],
    [{"a": 1}],
    {},
    {"taste": 1},
    {"comedy": "much"},
    {"western": "much"},
    {"a": {"b": {"c": []}}},
]
FIELDS = (
    "page",
    "profile",
    "account",
    "session",
    "kids",
    "maturity",
    "region",
    "watched",
    "context",
    "page_id",
    "colour",
)
TASTES: list[Any] = [
    "drama",
    1,
    True,
    ["drama"],
    {"drama": "much"},
    {"scifi": "much"},
    {"scifi": [1]},
    {"scifi": {"a": 1}},
    {"scifi": True},
    {"drama": 10**400},
    {"scifi": 10**400},
    {"scifi": 1e300},
]
LINE = (
    b'{"page": "home", "profile": "7", "context": {"taste": {"drama": 0.5, "scifi": 1}}, '
    b'"watched": ["t01", "t02"]}'
)


@pytest.mark.parametrize("taste", TASTES, ids=lambda taste: json.dumps(taste)[:30])
def test_a_bad_taste_is_named_also_in_genres_that_no_layer_declares(
    client: TestClient, taste: Any
) -> None:
    answer = client.post("/v1/page", json={"page": "home", "context": {"taste": taste}})
    assert answer.status_code == 422
    assert answer.json()["error"]["path"].startswith("$.context.taste")


@pytest.mark.parametrize("taste", [None, {}, {"drama": None}, {"scifi": -3.5}, {"unheard-of": 1}])
def test_a_taste_may_miss_or_have_more_than_the_catalogue(client: TestClient, taste: Any) -> None:
    answer = client.post("/v1/page", json={"page": "home", "context": {"taste": taste}})
    assert (answer.status_code, answer.json()["fallbacks"]) == (200, [])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "0x10"])
def test_numbers_that_json_does_not_have_are_refused(client: TestClient, number: str) -> None:
    body = json.dumps({"page": "home", "context": {"taste": {"drama": 0.25}}}).replace(
        "0.25", number
    )
    assert 400 <= client.post("/v1/page", content=body).status_code < 500


def test_any_field_with_any_value_is_a_page_or_a_named_refusal(client: TestClient) -> None:
    rng = random.Random(7)
    codes: dict[int, int] = {}
    for _ in range(600):
        body = {"page": "home"} | {
            rng.choice(FIELDS): rng.choice(VALUES) for _ in range(rng.randint(1, 3))
        }
        answer = client.post("/v1/page", content=json.dumps(body))
        codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (body, answer.text)
        told = answer.json()
        assert "rows" in told if answer.status_code == 200 else told["error"]["message"], body
        if answer.status_code == 200:
            assert "page" not in told["fallbacks"], body
    assert set(codes) >= {200, 404, 422}


def test_damaged_bodies_are_refused(client: TestClient) -> None:
    """Cut anywhere, or with bytes changed: what still is a request gets a page, all else is refused
    with a name.
    """
    rng = random.Random(8)
    for trial in range(400):
        body = bytearray(LINE)
        if trial % 2:
            body = body[: rng.randrange(len(body))]
        else:
            for _ in range(3):
                body[rng.randrange(len(body))] = rng.randrange(256)
        answer = client.post("/v1/page", content=bytes(body))
        assert answer.status_code < 500, (bytes(body), answer.text)
        assert "rows" in answer.json() or answer.json()["error"]["message"]
    deep = b'{"page": "home", "context": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert client.post("/v1/page", content=deep).status_code == 422
    assert client.get("/v1/page").status_code == 405
