"""Hostile requests for `benchmarks.fuzz`: good ones for every door with something wrong put in, and
HTTP that is none.

A body is grown as a tree whose leaves may be any bytes, so that it can hold what no JSON library
would write: numbers past every double, half surrogate pairs, a name twice, text that is no UTF-8.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote

EVERYTHING = """
experiment: everything
surface: titles
unit: profile_id
slots: 2
context:
  device: {type: category, values: [tv, web]}
  minutes: {type: number, min: 0, max: 600}
  weight: {type: number}
  hour: {type: cycle, period: 24}
  taste: {type: vector, keys: [comedy, drama]}
  new: {type: flag}
  anything: {type: hashed, size: 8}
  "*": {type: hashed, size: 8}
action_features:
  length: {type: number, min: 60, max: 240}
  genres: {type: vector, keys: [comedy, drama]}
  "*": {type: hashed, size: 4}
actions:
  - {id: first, features: {length: 90, genres: {comedy: 1}}, payload: {image: first.svg}}
  - {id: second, features: {length: 200, genres: {drama: 1}}}
  - {id: third}
metrics:
  play: {event: play, kind: binary, window: 1s}
  watched: {event: watched, kind: sum, window: 2s, cap: 120}
  rating: {event: rating, kind: last, window: 2s, cap: 5, default: 2.5}
  returned: {event: session_start, kind: binary, scope: unit, window: 2s}
  abandon: {event: abandon, kind: binary, window: 1s, better: lower}
objective: {play: 0.25, watched: 1, rating: 0.5, abandon: -0.1}
variants:
  editorial: {policy: fixed, share: 20%, control: true, order: [second, first, third]}
  auto: {policy: auto, share: 10%, min_probability: 1%}
  thompson: {policy: thompson, share: 10%, model: shared, link: linear, half_life: 500}
  linucb: {policy: linucb, share: 20%, model: hybrid, fourier_features: 4, min_probability: 2%}
  squarecb: {policy: squarecb, share: 10%}
  epsilon: {policy: epsilon_greedy, share: 10%, epsilon: 0.2, decay: 100}
  vw: {policy: vw, share: 10%}
  uniform: {policy: uniform, share: 10%}
"""
"""An experiment with every kind of feature, and all policies: what is let in is learned from."""

_TIMES = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-23:59",
    "1969-12-31T23:59:59Z",
    "1970-01-01T00:00:00Z",
    "2016-12-31T23:59:60Z",
    "2026-02-30T00:00:00Z",
    "2026-11-29T24:00:00Z",
    "2026-11-29",
    "2026-11-29T12:00:00",
    "2026-11-29t12:00:00z",
    "2026-11-29T12:00:00.123456789Z",
    "+275760-09-13T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "20261129T120000Z",
    "2026-11-29T12:00:00+24:00",
    "2026-W48-7",
    "0",
    "1790000000",
    "infinity",
    "now",
]
_TEXTS = [
    *("", " ", "\t", "null", "NaN", "a/b", "..", "../../etc/passwd", "a%2Fb", "%00", "%", "a?b#c"),
    *("a'b\"c", "'; DROP TABLE decisions; --", "<script>alert(1)</script>", "{{7*7}}", "${x}"),
    *("\x00", "a\x00b", "a\x1fb", "\x1f", "\x7f", "\x85", "\u2028", "\ufeff", "\u202eabc"),
    *("é", "e\u0301", "ﬁ", "Å", "Å", "İ", "ß", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
    *("\ufffe", "\uffff", "\U0010ffff", "\u0301" * 50, "page-x", "page-x:rows", "x:y", "page-"),
    *("home-artwork", "home-artwork.events", "personalizer", "home", "topbill.log", "*", "control"),
    *("017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "ffffffff-ffff-7fff-bfff-ffffffffffff"),
    *("00000000-0000-7000-8000-000000000000", "0" * 32, "1e5", "0x10", "-1", "٣", "true"),
    *("x" * length for length in (48, 49, 64, 65, 128, 129, 256, 257, 1_000, 5_000)),
    *("é" * length for length in (64, 128, 256)),
    *_TIMES,
]
_TOKENS = [
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"nan",
        b"1e400",
        b"-1e400",
        b"1e308",
        b"-1e308",
        b"5e-324",
    ),
    *(b"-0", b"-0.0", b"1E5", b"1e-400", b"01", b"+1", b".5", b"1.", b"0x10", b"1_000", b"--1"),
    *(b"9007199254740993", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616"),
    *(
        b"-9223372036854775809",
        b"1" * 400,
        b"0." + b"1" * 5_000,
        b"1e12",
        b"1000000000001",
        b"1e13",
    ),
    *(
        b"0",
        b"1",
        b"-1",
        b"200",
        b"201",
        b"5000",
        b"0.5",
        b"1.0",
        b"2.0",
        b"1e6",
        b"1000001",
        b"1e7",
    ),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\xff"', b'"\xed\xa0\x80"'),
    *(b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b'"\x00"', b'"\x1f"', b'"\\u0000"'),
    *(b'"\\u001f"', b'"\\x41"', b'"\\', b"'a'", b"null", b"true", b"false", b"True", b"None"),
    *(b"undefined", b"[]", b"{}", b"[null]", b'{"":null}', b"[[[[]]]]", b'{"a":{"a":{"a":{}}}}'),
    *(b"[" * n + b"]" * n for n in (63, 64, 65, 900)),
    *(b'{"a":' * n + b"1" + b"}" * n for n in (62, 64, 65, 900)),
    *(b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'{"\\ud800":1}', b'{"\xff":1}', b"/**/1", b"1//x"),
    b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(2_000)) + b"}",
    b"[" + b",".join(b'"%d"' % i for i in range(6_000)) + b"]",
    b'"' + b"x" * 200_000 + b'"',
    *(json.dumps(text).encode() for text in _TEXTS),
    *(json.dumps(text, ensure_ascii=False).encode() for text in _TEXTS),
]
CONTENT_TYPES = [
    *(
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "x",
    ),
    *("application/json; charset=utf-16", "APPLICATION/JSON", "application/json;", "*/*", "\xff"),
    *("application/problem+json", "application/json, text/plain", "application/jsonp", " "),
]
HEADERS = [
    *(("content-encoding", value) for value in ("gzip", "br", "deflate", "identity", "zstd", "x")),
    *(("accept", "application/xml"), ("accept-encoding", "gzip;q=0"), ("te", "trailers")),
    *(("authorization", value) for value in ("Bearer x", "Basic eDp4", "Bearer", "\xff")),
    *(("x-request-id", value) for value in ("", "a" * 500, "\xff\xfe", "a\tb", "{}", "..")),
    *(("traceparent", value) for value in ("x", f"00-{'0' * 32}-{'0' * 16}-01", "ff-1-1-1")),
    *(("origin", value) for value in ("null", "http://evil.example", "http://127.0.0.1", "://")),
    *(("host", value) for value in ("evil.example", "", "127.0.0.1:x", "[::1]", "localhost.", "[")),
    *(("x-forwarded-for", "1.2.3.4"), ("x-http-method-override", "DELETE"), ("expect", "x")),
    *(("range", "bytes=0-1"), ("if-none-match", "*"), ("cookie", "a=\xff"), ("upgrade", "h2c")),
    *(("x" * 1_000, "y"), ("x", "y" * 20_000), ("forwarded", "for=_x"), ("via", "1.1 x")),
]
_PATHS = {
    *("/v1/decide", "/v1/decide/batch", "/v1/reward", "/v1/reward/batch", "/v1/event"),
    *("/v1/event/batch", "/v1/page", "/v1/experiments", "/healthz", "/readyz", "/metrics"),
    *("/openapi.json", "/docs"),
}
METHODS = ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "post", "QUERY", "X")


class Pair(list[Any]):
    """A name and its value; the name may be no text."""


class Members(list[Pair]):
    """An object's pairs: a name may be there twice."""


def tree(value: Any) -> Any:
    """A JSON value as it is grown: what it is made of can be changed in place."""
    if isinstance(value, dict):
        return Members(Pair([name, tree(part)]) for name, part in value.items())
    if isinstance(value, list):
        return [tree(part) for part in value]
    return value


def written(value: Any) -> bytes:
    """A grown value as text; bytes stand in it as they are."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Members):
        return b"{" + b",".join(written(n) + b":" + written(part) for n, part in value) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(written, value)) + b"]"
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


def _containers(value: Any) -> list[list[Any]]:
    """Every list and object of a grown value, itself first."""
    found = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            found.append(part)
            waiting.extend(part)
    return found


class Mutator:
    """Puts something wrong into a good body, or nothing."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._trees: deque[Any] = deque(maxlen=50)

    def body(self, good: Any) -> bytes:
        """The text of a body, changed in up to three places."""
        value = tree(good)
        self._trees.append(tree(good))
        for _ in range(self._chance.choice((0, 1, 1, 1, 1, 2, 3))):
            value = self._changed(value)
        raw = written(value)
        return self._with_bytes_changed(raw) if self._chance.random() < 0.15 else raw

    def text(self) -> str:
        """Any text."""
        return self._chance.choice(_TEXTS)

    def _changed(self, value: Any) -> Any:
        containers = [c for c in _containers(value) if c]
        if not containers or self._chance.random() < 0.02:
            return self._chance.choice(_TOKENS)
        container = self._chance.choice(containers)
        at = self._chance.randrange(len(container))
        if self._chance.random() < 0.7:
            container[at] = self._other(container[at])
            return value
        change = self._chance.randrange(4)
        if change == 0 or isinstance(container, Pair):
            self._chance.shuffle(container)
        elif change == 1:
            del container[at]
        elif change == 2:
            container.extend([container[at]] * self._chance.choice((1, 1, 2, 2, 30)))
        elif isinstance(container, Members):
            container.append(Pair([self.text(), self._chance.choice(_TOKENS)]))
        return value

    def _other(self, old: Any) -> Any:
        """What stands in the place of a value, a name, or of a whole pair."""
        if isinstance(old, Pair):
            return Pair([old[0], self._other(old[1])])
        which = self._chance.random()
        if which < 0.65:
            return self._chance.choice(_TOKENS)
        if which < 0.75:
            return [old]
        if which < 0.85:
            return Members([Pair(["x", old])])
        found = self._chance.choice(_containers(self._chance.choice(self._trees)))
        # A copy: what is put into itself would never end.
        return deepcopy(found) if isinstance(found, Members) else old

    def _with_bytes_changed(self, raw: bytes) -> bytes:
        chance = self._chance
        at = chance.randrange(len(raw) + 1)
        changes: list[Callable[[], bytes]] = [
            lambda: raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :],
            lambda: raw[:at] + bytes([chance.randrange(256)]) + raw[at:],
            lambda: raw[:at] + raw[at + chance.randrange(1, 20) :],
            lambda: raw[:at],
            lambda: b"\xef\xbb\xbf" + raw,
            lambda: b" \n\t\r" * 50 + raw + b"\n" * 50,
            lambda: raw + raw,
            lambda: raw + b"\x00",
            lambda: raw.decode(errors="replace").encode("utf-16"),
            lambda: raw.decode(errors="replace").encode("utf-32"),
            lambda: raw.replace(b'"', b"'"),
            lambda: b"",
        ]
        return chance.choice(changes)()


class Known:
    """What was answered lately: ids that rewards and repeated requests can name."""

    def __init__(self) -> None:
        self.decisions: deque[tuple[str, list[str]]] = deque([("d", ["first"])], maxlen=300)
        self.pages: deque[tuple[str, list[str]]] = deque([("page-x", ["t"])], maxlen=50)
        self.events: deque[str] = deque(["e"], maxlen=100)
        self.slots: deque[str] = deque(["e"], maxlen=100)


class Request(NamedTuple):
    """One request, as it is sent."""

    method: str
    target: str
    body: bytes | None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def door(self) -> str:
        """Which door it knocks at: the path without ids."""
        path = self.target.partition("?")[0]
        for prefix in ("/v1/decisions/", "/v1/experiments/", "/v1/pages/"):
            if path.startswith(prefix):
                return f"{prefix}ID"
        if path.startswith("/personalizer/"):
            before, _, after = path.partition("/events/")
            return before + (f"/events/ID/{after.rpartition('/')[2]}" if after else "")
        return path if path in _PATHS else "elsewhere"

    def raw(self, port: int) -> bytes:
        """Its bytes."""
        names = {name for name, _ in self.headers}
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        if "host" not in names:
            lines.append(f"host: 127.0.0.1:{port}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body is not None:
            lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (self.body or b"")


class Corpus:
    """Draws requests for every door."""

    def __init__(self, chance: Random, known: Known) -> None:
        self._chance = chance
        self._known = known
        self._mutate = Mutator(chance)
        self._made = 0
        preview = "/personalizer/v1.1-preview.3/multislot"
        self._doors: list[tuple[int, Callable[[], tuple[str, Any]]]] = [
            (30, lambda: ("/v1/decide", self._decide())),
            (6, self._batch),
            (20, lambda: ("/v1/reward", self._reward())),
            (5, lambda: ("/v1/reward/batch", {"rewards": self._some(self._reward)})),
            (9, lambda: ("/v1/event", self._event())),
            (4, lambda: ("/v1/event/batch", {"events": self._some(self._event)})),
            (4, lambda: ("/v1/page", self._page())),
            (7, lambda: ("/personalizer/v1.0/rank", self._rank())),
            (3, lambda: (self._of_event("/personalizer/v1.0", "reward"), {"value": 0.5})),
            (1, lambda: (self._of_event("/personalizer/v1.0", "activate"), {})),
            (4, lambda: (f"{preview}/rank", self._rank_slots())),
            (2, lambda: (self._of_event(preview, "reward"), self._slot_rewards())),
            (1, lambda: (self._of_event(preview, "activate"), {})),
        ]

    def draw(self) -> Request:
        """The next request."""
        if self._chance.random() < 0.08:
            return Request("GET", self._question(), None, self._headers(json=False))
        weights, doors = zip(*self._doors, strict=True)
        path, good = self._chance.choices(doors, weights)[0]()
        method = self._chance.choice(METHODS) if self._chance.random() < 0.02 else "POST"
        return Request(method, path, self._mutate.body(good), self._headers())

    def _headers(self, *, json: bool = True) -> tuple[tuple[str, str], ...]:
        headers = [("content-type", "application/json")] if json else []
        if self._chance.random() < 0.03:
            headers.append(self._chance.choice(HEADERS))
        if self._chance.random() < 0.01:
            headers = [("content-type", self._chance.choice(CONTENT_TYPES))]
        return tuple(headers)

    # ------------------------------------------------------------------ good bodies

    def _maybe(self, **parts: Any) -> dict[str, Any]:
        """Some of the parts."""
        return {name: part for name, part in parts.items() if self._chance.random() < 0.5}

    def _some(self, make: Callable[[], Any]) -> list[Any]:
        return [make() for _ in range(self._chance.choice((1, 1, 2, 3, 5)))]

    def _new_id(self) -> str:
        self._made += 1
        if self._chance.random() < 0.2:
            return f"{self._mutate.text()[:100]}{self._made}"
        return f"id-{self._made}"

    def _unit(self) -> str:
        if self._chance.random() < 0.1:
            return self._mutate.text()[:256] or "u"
        return f"u{self._chance.randrange(200)}"

    def _context(self, experiment: str) -> dict[str, Any]:
        chance = self._chance
        taste = {"comedy": chance.random(), "drama": chance.uniform(-9, 9)}
        context = self._maybe(device="tv", hour=chance.uniform(-30, 30), taste=taste)
        if experiment == "home-rows":
            context.pop("hour", None)
        if experiment == "everything":
            nested = {self._mutate.text(): [1, {"a": chance.random()}, None, self._mutate.text()]}
            context |= self._maybe(minutes=9, weight=-1e6, new=True, anything=nested, other=nested)
        return context

    def _offered(self) -> list[dict[str, Any]]:
        payload = {"image": self._mutate.text(), "n": [1, 2.5, None, {"é": "x"}]}
        return [
            {"id": f"a{i}"} | self._maybe(features={"length": i * 10.0}, payload=payload)
            for i in range(self._chance.choice((1, 2, 5, 30)))
        ]

    def _decide(self) -> dict[str, Any]:
        experiment = self._chance.choice(
            ("everything", "everything", "home-artwork", "home-titles")
        )
        request = {"experiment": experiment, "context": self._context(experiment)}
        if experiment == "everything" and self._chance.random() < 0.5:
            request["actions"] = self._offered()
        return request | self._maybe(unit=self._unit(), decision_id=self._new_id(), slots=2)

    def _batch(self) -> tuple[str, Any]:
        return "/v1/decide/batch", {"decisions": self._some(self._decide)}

    def _reward(self) -> dict[str, Any]:
        pages = self._chance.random() < 0.15
        of, shown = self._chance.choice(self._known.pages if pages else self._known.decisions)
        events = ("play", "watched", "rating", "abandon", "watch_fraction", "other")
        reward = {"decision_id": of, "event": self._chance.choice(events)}
        if shown:
            reward |= self._maybe(action=self._chance.choice(shown))
        at = self._chance.choice(("2026-11-29T12:00:00Z", "1970-01-01T00:00:00Z"))
        value = self._chance.choice((0, 1, 0.5, -1, 120, 1e12, -1e12, 1e-300, -0.0))
        return reward | self._maybe(event_id=self._new_id(), value=value, at=at)

    def _event(self) -> dict[str, Any]:
        event = self._chance.choice(("session_start", "nps", "other"))
        required = {"unit": self._unit(), "unit_type": "profile_id", "event": event}
        return required | self._maybe(event_id=self._new_id(), value=1.5, action="a")

    def _page(self) -> dict[str, Any]:
        request = self._maybe(profile=self._unit()[:128], session="s", region="us", kids=True)
        request |= self._maybe(maturity=12, watched=["casablanca-1942", "x"])
        if self._chance.random() < 0.3:
            request["page_id"] = self._new_id()[:48]
        return {"page": "home", "context": self._maybe(device="tv", hour=3)} | request

    def _rank(self) -> dict[str, Any]:
        features = [{"x": self._mutate.text()}, {"y": {"z": [1, 2]}}]
        actions = [{"id": f"a{i}", "features": features} for i in range(3)]
        event_id = self._new_id().replace("\x00", "").replace("\x1f", "")
        more = self._maybe(eventId=event_id, deferActivation=True, excludedActions=["a1"])
        return {"actions": actions, "contextFeatures": features, **more}

    def _rank_slots(self) -> dict[str, Any]:
        request = self._rank()
        request.pop("excludedActions", None)
        slot = {"features": [{"size": 1}], "excludedActions": ["a2"]}
        request["slots"] = [
            {"id": f"s{i}", "baselineAction": f"a{i}"} | self._maybe(**slot) for i in range(2)
        ]
        return request

    def _slot_rewards(self) -> dict[str, Any]:
        return {"reward": [{"slotId": f"s{i}", "value": 1.0 - i} for i in range(2)]}

    def _of_event(self, base: str, verb: str) -> str:
        known = self._known.slots if "multislot" in base else self._known.events
        return f"{base}/events/{self._part(self._chance.choice(known))}/{verb}"

    # ------------------------------------------------------------------ questions

    def _part(self, known: str) -> str:
        """One step of a path: an id that is there, or anything, quoted well or badly."""
        text = known if self._chance.random() < 0.7 else self._mutate.text()[:2_000]
        if self._chance.random() < 0.95:
            return quote(text, safe="")
        plain = text.encode(errors="ignore").decode("latin-1")
        return "".join(c for c in plain if c > " " and c != "\x7f") or "%"

    def _question(self) -> str:
        chance = self._chance
        decision, page = chance.choice(self._known.decisions)[0], chance.choice(self._known.pages)
        title = chance.choice(page[1] or ["t"])
        paths = [
            f"/v1/decisions/{self._part(decision)}",
            f"/v1/decisions/{self._part(page[0])}",
            f"/v1/pages/{self._part(page[0])}/why?title={self._part(title)}",
            f"/v1/pages/{self._part(page[0])}/why",
            f"/v1/experiments/{self._part('everything')}",
            *("/v1/experiments", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"),
            *("/", "//", "/v1", "/v1/", "/v1/decide", "/V1/DECIDE", "/v1/decide/", "/%", "/*"),
            *("/v1/../v1/decide", "/v1/decide%00", "/v1//decide", "/v1/decide?x=1", "/?%ff=%00"),
            f"/{self._part('static')}/{self._part('..')}?{self._part('a')}={self._part('b')}",
        ]
        return chance.choice(paths)


class RawCase(NamedTuple):
    """Bytes on a connection. `whole`: whether what is asked can be told, so that it must be
    answered, be it by a refusal."""

    name: str
    content: bytes
    whole: bool


class RawHttp:
    """Draws HTTP that is wrong in some way: in its first line, its headers, its body's length."""

    def __init__(self, chance: Random, corpus: Corpus, port: int) -> None:
        self._chance = chance
        self._corpus = corpus
        self._port = port

    def draw(self) -> RawCase:
        """The next case."""
        request = self._corpus.draw()
        while request.body is None or any(c in request.target for c in "\r\n"):
            request = self._corpus.draw()
        makers = (self._first_line, self._head, self._length, self._chunks, self._pipeline)
        return self._chance.choice((*makers, self._noise))(request)

    def _request(self, request: Request, *lines: str, first: str = "", ends: str = "\r\n") -> bytes:
        first = first or f"POST {request.target} HTTP/1.1"
        head = [first, f"host: 127.0.0.1:{self._port}", "content-type: application/json", *lines]
        return ends.join([*head, "", ""]).encode("latin-1") + (request.body or b"")

    def _length_of(self, request: Request) -> str:
        return f"content-length: {len(request.body or b'')}"

    def _first_line(self, request: Request) -> RawCase:
        target = request.target
        first = self._chance.choice(
            [
                *(f"POST {target}", f"POST {target} HTTP/1.0", f"POST {target} HTTP/0.9"),
                *(f"POST {target} HTTP/2.0", f"POST {target} HTTP/1.10", f"POST {target} HTTQ/1.1"),
                *(
                    f"POST  {target}  HTTP/1.1",
                    f"post {target} HTTP/1.1",
                    f"\x00 {target} HTTP/1.1",
                ),
                *(f"POST http://127.0.0.1{target} HTTP/1.1", "CONNECT 127.0.0.1:80 HTTP/1.1"),
                *("OPTIONS * HTTP/1.1", f"POST {target}\xff HTTP/1.1", "POST  HTTP/1.1", "POST"),
                *(f"POST {target}#x HTTP/1.1", f"POST ?{target} HTTP/1.1", "POST x HTTP/1.1"),
                *(f"POST /{'a' * 40_000} HTTP/1.1", f"{'X' * 5_000} {target} HTTP/1.1"),
                *("PRI * HTTP/2.0", f"POST {target} HTTP/1.1\r\n x", f"POST //{target} HTTP/1.1"),
                *("POST http://[ HTTP/1.1", f"POST /%zz{target} HTTP/1.1"),
            ]
        )
        return RawCase(
            "first line", self._request(request, self._length_of(request), first=first), True
        )

    def _head(self, request: Request) -> RawCase:
        line = self._chance.choice(
            [
                *(
                    "x",
                    ": y",
                    "x y: z",
                    "x: a\r\n folded",
                    "x:\x00",
                    "x\x00: y",
                    "\xff: y",
                    "x: \xff",
                ),
                *("x : y", "host: evil.example", "host:", "connection: close, keep-alive", " x: y"),
                *("x: " + "y" * 40_000, "\r\n".join(f"x{i}: y" for i in range(150)), "x: a\rb"),
                *(
                    "upgrade: websocket\r\nconnection: upgrade",
                    "expect: 100-continue",
                    "expect: 200",
                ),
                "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMA",
                *("transfer-encoding: identity", "proxy-connection: close", "keep-alive: -1"),
                *("content-type: text/plain", "content-encoding: gzip", "x: a\nb: c", "trailer: x"),
            ]
        )
        ends = "\n" if self._chance.random() < 0.1 else "\r\n"
        return RawCase(
            "head", self._request(request, line, self._length_of(request), ends=ends), True
        )

    def _length(self, request: Request) -> RawCase:
        length = len(request.body or b"")
        text, whole = self._chance.choice(
            [
                *(
                    ("-1", True),
                    ("+5", True),
                    ("0x10", True),
                    ("", True),
                    ("x", True),
                    ("1e2", True),
                ),
                *((f"{length}, {length}", True), (f"{length}\r\ncontent-length: {length}", True)),
                *((f"{length}\r\ncontent-length: 3", True), (f" {length} ", True), ("0", True)),
                *((f"{length + 9}", False), (f"{max(0, length - 9)}", True), ("9" * 30, True)),
                *(("999999999", False), (f"{length}\r\ntransfer-encoding: chunked", True)),
                *((f"{length:0>50}", True), ("1.0", True), (f"{length};", True)),
            ]
        )
        return RawCase("length", self._request(request, f"content-length: {text}"), whole)

    def _chunks(self, request: Request) -> RawCase:
        body = request.body or b""
        at = self._chance.randrange(len(body) + 1)
        size = b"%x" % at
        whole_end = b"\r\n%x\r\n%b\r\n0\r\n" % (len(body) - at, body[at:])
        if at in (0, len(body)):
            whole_end, size, at = b"\r\n0\r\n", b"%x" % len(body), len(body)
        start, end, whole = self._chance.choice(
            [
                *((size, whole_end + b"\r\n", True), (size, whole_end + b"x: y\r\n\r\n", True)),
                *((size + b";a=b", whole_end + b"\r\n", True), (size, b"", False)),
                *(
                    (b"0" * 20 + size, whole_end + b"\r\n", True),
                    (b"zz", whole_end + b"\r\n", True),
                ),
                *(
                    (b"-1", whole_end, True),
                    (b"f" * 17, whole_end, True),
                    (size, b"0\r\n\r\n", False),
                ),
                *((size + b" ", whole_end + b"\r\n", False), (size, whole_end, False)),
                (size, whole_end + b"content-length: 3\r\n\r\n", True),
            ]
        )
        if not body:
            start, end, whole = b"0", b"\r\n", True
        head = self._request(request._replace(body=b""), "transfer-encoding: chunked")
        return RawCase("chunks", head + start + b"\r\n" + body[:at] + end, whole)

    def _pipeline(self, request: Request) -> RawCase:
        one = self._request(request, self._length_of(request))
        other = self._corpus.draw()
        between = self._chance.choice((b"", b"\r\n", b"\r\n\r\n", b"\x00", b" "))
        return RawCase("pipeline", one * 3 + between + other.raw(self._port) + one, True)

    def _noise(self, request: Request) -> RawCase:
        good = bytearray(self._request(request, self._length_of(request)))
        for _ in range(self._chance.randrange(1, 5)):
            good[self._chance.randrange(min(len(good), 150))] = self._chance.randrange(256)
        cut = self._chance.randrange(len(good))
        content = self._chance.choice(
            [
                *(
                    bytes(good),
                    bytes(good),
                    bytes(good[:cut]),
                    self._chance.randbytes(200),
                    b"\r\n" * 30,
                ),
                *(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + self._chance.randbytes(80),),
                *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04", b"\x04\x01\x00\x50", b"GET"),
                *(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", b"\x00" * 100, b"HTTP/1.1 200 OK\r\n\r\n"),
            ]
        )
        return RawCase("noise", content, False)
