"""Alarms over simulated records: how often a sound one raises any, and how soon, how often and with
which likely cause a fault does.

    python -m benchmarks.alarms [--sound 100] [--days 30] [--faults]

A stream is an experiment as hours of sums: a bandit that learns, days and weekends, rewards that
come late, a guardrail (abandoned: 10% of units, margin 10%), and a worker that publishes and
learns, now and then for some minutes not. The rules and what they remember are those of the worker
(`topbill.alerts`). A window is an hour; of what the worker does, ten minutes. What harms a
guardrail does so from the stream's first hour on, as all units so far are judged.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from topbill.ab import ArmEstimate, GuardrailHarm, Margin, harm
from topbill.ab.core.effect import RATE, Pair
from topbill.ab.core.units import Rate
from topbill.alerts.rules.guarding import ALPHA
from topbill.alerts.rules.look import FileChange, RuleReading
from topbill.alerts.standing_still import LearningTrouble, LearningWatch, record_stale
from topbill.alerts.sums import HOUR, ActionSums, HourSums, Memory, VariantSums
from topbill.alerts.watching import look_at, weigh
from topbill.domain.alarm import AlarmKind, AlarmLine
from topbill.log import Heartbeat

KEY = "home"
START = 1_700_000_000_000_000 // HOUR * HOUR
EVENTS = ("play", "watch_fraction")
MINUTE = 60_000_000
"""Microseconds."""
EVERY = 5
"""Minutes between two looks at the worker."""
ABANDONED, MARGIN = 0.1, Margin(0.1)


@dataclass
class Draws:
    """What a variant's decisions of an hour are drawn with: probabilities by context (contexts ×
    actions), and how often each context comes."""

    probabilities: np.ndarray
    contexts: np.ndarray


@dataclass
class Stream:
    """A simulated experiment of two variants, `control` (uniform) and `learned` (a Thompson
    sampler over two contexts), an hour after the other.

    `fault(stream, hour number)` may change what the next hour does, through the fields.
    """

    seed: int
    traffic: float = 2_000.0
    actions: int = 4
    delay: float = 0.3
    """The share of rewards that come an hour later."""
    shares: dict[str, float] = field(default_factory=lambda: {"control": 0.5, "learned": 0.5})
    kept: dict[str, float] = field(default_factory=dict)
    """Of a variant's units, the share that arrives."""
    sent: dict[str, float] = field(default_factory=lambda: {"play": 1.0, "watch_fraction": 1.0})
    """Of each event the share that is sent."""
    renamed: dict[str, str] = field(default_factory=dict)
    fallback: float = 0.0
    single: float = 0.0
    sure: bool = False
    """Whether `learned` draws one action with 0.999."""
    bias: float = 0.0
    """Of the control's draws, the share that is the first action whatever was logged."""
    shown: float = 0.0
    """Of `learned`'s decisions, the share that shows what had no probability."""
    tv: float | None = None
    """The share of tv among viewers, where it is not the usual one."""
    unsent: float = 0.0
    """The share of units whose device is not sent."""
    new_device: float = 0.0
    worse: float = 0.0
    """By how much more of `learned`'s units abandon: 1 is twice as many."""
    publishes: bool = True
    """Whether the worker gets what it publishes through; if not, nor are there new hours."""
    beats: bool = True
    """Whether the worker gives signs of life."""
    free: float = 1e11
    """Bytes left on the disk."""
    trouble: LearningTrouble | None = None
    """What keeps the experiment from learning."""
    changes: list[FileChange] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.worth = self.random.uniform(0.05, 0.2, size=(2, self.actions))
        self.plays = np.ones((2, self.actions))
        self.misses = np.full((2, self.actions), 8.0)
        self.late: dict[str, int] = {}
        self.number = 0
        # Streams of their own, so that what is above stays as it was.
        self.viewers = np.random.default_rng([self.seed, 1])
        self.hiccups = np.random.default_rng([self.seed, 2])
        self.abandoned: dict[str, Rate] = {}
        self.beat = Heartbeat(START, START)

    def hour(self) -> HourSums:
        """The sums of the next hour."""
        at = START + self.number * HOUR
        day, clock = divmod(self.number, 24)
        weekend = day % 7 in (5, 6)
        level = 0.35 + 0.65 * np.sin(np.pi * ((clock - 4) % 24) / 24) ** 2
        n = int(self.random.poisson(self.traffic * level * (1.3 if weekend else 1.0)))
        variants, plays = self._variants(n)
        hour = HourSums(at=at, variants=variants, fresh=self._fresh(plays))
        hour.features = self._features(n, clock, weekend)
        self.number += 1
        return hour

    def _variants(self, n: int) -> tuple[dict[str, VariantSums], int]:
        variants, plays = {}, 0
        text = msgspec.json.encode(self.shares, order="sorted").decode()
        for name, share in self.shares.items():
            kept = self.kept.get(name, 1.0)
            decisions = int(self.random.binomial(n, share * kept))
            sums, own = self._decide(name, decisions)
            units = int(self.random.binomial(int(0.6 * n), share * kept))
            if units:
                sums.units = {text: units}
            if decisions:
                variants[name] = sums
            plays += own
        return variants, plays

    def _probabilities(self, name: str) -> np.ndarray:
        """(contexts × actions)"""
        if name == "control":
            return np.full((2, self.actions), 1.0 / self.actions)
        if self.sure:
            p = np.full((2, self.actions), 0.001 / (self.actions - 1))
            p[:, 0] = 0.999
            return p
        draws = self.random.beta(self.plays, self.misses, size=(200, 2, self.actions))
        wins = np.eye(self.actions)[draws.argmax(axis=2)].mean(axis=0)
        return 0.98 * wins + 0.02 / self.actions

    def _decide(self, name: str, decisions: int) -> tuple[VariantSums, int]:
        fallbacks = int(self.random.binomial(decisions, self.fallback)) if name != "control" else 0
        single = int(
            self.random.binomial(decisions - fallbacks, self.single if name != "control" else 0)
        )
        open_ = decisions - fallbacks - single
        sums = VariantSums(decisions=decisions, fallbacks=fallbacks, single=single)
        probabilities = self._probabilities(name)
        plays = int(self.random.binomial(fallbacks + single, 0.12))
        for context, n in enumerate(self.random.multinomial(open_, [0.6, 0.4])):
            p = probabilities[context]
            entropy = float(-(p * np.log(p)).sum() / np.log(self.actions))
            sums.entropy += n * entropy
            sums.entropy_squares += n * entropy**2
            bias = int(self.bias * n) if name == "control" else 0
            drawn = self.random.multinomial(n - bias, p)
            drawn[0] += bias
            for i, count in enumerate(drawn):
                own = sums.actions.setdefault(f"a{i}", ActionSums())
                own.drawn += int(count)
                own.expected += n * p[i]
                own.variance += n * p[i] * (1.0 - p[i])
            own = self.random.binomial(drawn, self.worth[context])
            plays += int(own.sum())
            if name == "learned":
                heard = self.sent["play"] if "play" not in self.renamed else 0.0
                self.plays[context] += heard * own
                self.misses[context] += drawn - heard * own
        shown = int(self.shown * open_) if name != "control" else 0
        if shown:
            sums.actions["elsewhere"] = ActionSums(drawn=shown, impossible=shown)
        return sums, plays

    def _fresh(self, plays: int) -> dict[str, int]:
        fresh: dict[str, int] = {}
        for event in EVENTS:
            came = int(self.random.binomial(plays, self.sent[event]))
            later = int(self.random.binomial(came, self.delay))
            name = self.renamed.get(event, event)
            number = came - later + self.late.pop(event, 0)
            self.late[event] = later
            if number:
                fresh[name] = number
        return fresh

    def _features(self, n: int, clock: int, weekend: bool) -> dict[str, dict[str, int]]:
        evening = 0.1 * np.sin(np.pi * ((clock - 4) % 24) / 24) ** 2
        tv = self.tv if self.tv is not None else 0.45 + evening + (0.08 if weekend else 0.0)
        shares = np.array([tv, 0.7 * (1 - tv), 0.3 * (1 - tv), 0.0, 0.0])
        rest = 1.0 - self.unsent - self.new_device
        shares = rest * shares + np.array([0, 0, 0, self.unsent, self.new_device])
        names = ("tv", "mobile", "web", "(none)", "ctv")
        counts = self.random.multinomial(int(0.8 * n), shares)
        devices = {name: int(c) for name, c in zip(names, counts, strict=True) if c}
        countries = self.random.multinomial(int(0.8 * n), _COUNTRIES)
        return {
            "device": devices,
            "country": {f"c{i}": int(c) for i, c in enumerate(countries) if c},
        }

    def guardrails(self, hour: HourSums) -> tuple[GuardrailHarm, ...]:
        """What is known of the guardrail after that hour, of all units so far."""
        for name, sums in hour.variants.items():
            units = sum(sums.units.values())
            chance = ABANDONED * (1.0 + self.worse if name == "learned" else 1.0)
            came = int(self.viewers.binomial(units, chance))
            before = self.abandoned.get(name, Rate(0, 0))
            self.abandoned[name] = Rate(before.successes + came, before.n + units)
        if not all(rate.n for rate in self.abandoned.values()) or len(self.abandoned) < 2:
            return ()
        learned, control = self.abandoned["learned"], self.abandoned["control"]
        one, other = _estimate(learned), _estimate(control)
        pair = Pair(
            *(one, other, "", learned.n, control.n),
            rates=(learned, control),
            bounds=RATE,
            is_proportion=True,
        )
        judged = harm("abandon", "learned", pair, margin=MARGIN, better="lower", alpha=ALPHA)
        return (judged,)

    def minutes(self, watch: LearningWatch) -> Iterator[tuple[int, str, RuleReading]]:
        """The looks at the worker of the hour that begins: (minute, experiment, reading). Once in
        some hours it publishes or learns nothing for up to eight minutes."""
        begins, lasts = self.hiccups.integers(0, 60 * 6), self.hiccups.integers(1, 9)
        which = self.hiccups.integers(2)
        for minute in range(0, 60, EVERY):
            now = START + self.number * HOUR + minute * MINUTE
            hiccup = begins <= minute < begins + lasts
            if self.beats:
                published_at = self.beat.published_at
                if self.publishes:
                    published_at = now - int(self.hiccups.exponential(2e6))
                    published_at -= int(hiccup and which == 0) * (minute - begins) * MINUTE
                self.beat = Heartbeat(now, published_at)
            yield minute, "", record_stale(self.beat, now, lambda: self.free)
            trouble = self.trouble
            if trouble is None and hiccup and which == 1:
                trouble = LearningTrouble("learning_fails", "it is busy")
            troubles = {} if trouble is None else {KEY: trouble}
            yield minute, KEY, watch.readings([KEY], troubles, now)[KEY]


def _estimate(rate: Rate) -> ArmEstimate:
    return ArmEstimate(rate.value, rate.value * (1.0 - rate.value) / rate.n, rate.n)


_COUNTRIES = 1.0 / np.arange(1.0, 31.0) / np.sum(1.0 / np.arange(1.0, 31.0))


_STOPPED: Final = "event_stopped"
_SHOWS: Final = "variant_shows"


class Fault(NamedTuple):
    """What is done to a stream, and what should be found: the kind of alarm and its cause."""

    name: str
    fields: dict[str, Any]
    kind: AlarmKind
    cause: str
    edited: bool = False
    """Whether the experiment's file was changed just before."""
    is_at_once: bool = False
    """Whether it begins with the stream: what harms, harms from its first viewer on."""
    is_of_worker: bool = False

    @property
    def windows(self) -> float:
        """Hours within which it is to be told: two windows, the last of which is over."""
        return 2.0 * 10.0 / 60.0 if self.is_of_worker else 2.0


FAULTS = (
    Fault("half of a variant lost", {"kept": {"learned": 0.5}}, "sample_ratio", "units_lost"),
    Fault("control lost", {"kept": {"control": 0.55}}, "sample_ratio", "units_lost"),
    Fault("variant not reached", {"kept": {"learned": 0.0}}, "sample_ratio", "variant_missing"),
    Fault(
        "lost by an edit", {"kept": {"learned": 0.5}}, "sample_ratio", "file_changed", edited=True
    ),
    Fault(
        "lost by failing",
        {"kept": {"learned": 0.5}, "fallback": 0.3},
        "sample_ratio",
        "policy_fails",
    ),
    Fault(
        "no rewards",
        {"sent": {"play": 0.0, "watch_fraction": 0.0}},
        "reward_silence",
        "rewards_not_sent",
    ),
    Fault(
        "hardly any rewards",
        {"sent": {"play": 0.05, "watch_fraction": 0.05}},
        "reward_silence",
        "rewards_not_sent",
    ),
    Fault("plays stop", {"sent": {"play": 0.0, "watch_fraction": 1.0}}, "reward_silence", _STOPPED),
    Fault(
        "fractions stop",
        {"sent": {"play": 1.0, "watch_fraction": 0.0}},
        "reward_silence",
        _STOPPED,
    ),
    Fault("plays renamed", {"renamed": {"play": "plays"}}, "reward_silence", "event_renamed"),
    Fault("policy fails", {"fallback": 0.9}, "exploration_collapsed", "policy_fails"),
    Fault("one eligible", {"single": 0.97}, "exploration_collapsed", "few_eligible"),
    Fault("sure at once", {"sure": True}, "exploration_collapsed", "one_action_leads"),
    Fault("sure by an edit", {"sure": True}, "exploration_collapsed", "file_changed", edited=True),
    Fault("draws skewed", {"bias": 0.2}, "propensity_mismatch", "draw_differs"),
    Fault(
        "draws skewed by an edit",
        {"bias": 0.2},
        "propensity_mismatch",
        "file_changed",
        edited=True,
    ),
    Fault("shown, not drawn", {"shown": 0.01}, "propensity_mismatch", "shown_not_drawn"),
    Fault("other viewers", {"tv": 0.1}, "feature_drift", "viewers_changed"),
    Fault("device not sent", {"unsent": 0.5}, "feature_drift", "feature_missing"),
    Fault("new devices", {"new_device": 0.4}, "feature_drift", "new_values"),
    Fault("twice as many abandon", {"worse": 1.0}, "guardrail_harmed", _SHOWS, is_at_once=True),
    Fault(
        "more abandon after an edit",
        {"worse": 1.0},
        "guardrail_harmed",
        "file_changed",
        edited=True,
        is_at_once=True,
    ),
    Fault(
        "more abandon as it fails",
        {"worse": 1.0, "fallback": 0.3},
        "guardrail_harmed",
        "policy_fails",
        is_at_once=True,
    ),
    Fault(
        "publishing fails",
        {"publishes": False},
        "record_stale",
        "publishing_fails",
        is_of_worker=True,
    ),
    Fault(
        "disk full",
        {"publishes": False, "free": 1e6},
        "record_stale",
        "disk_full",
        is_of_worker=True,
    ),
    Fault(
        "worker hangs",
        {"publishes": False, "beats": False},
        "record_stale",
        "worker_hangs",
        is_of_worker=True,
    ),
    Fault(
        "learning fails",
        {"trouble": LearningTrouble("learning_fails", "ValueError: no number")},
        "learning_stuck",
        "learning_fails",
        is_of_worker=True,
    ),
    Fault(
        "learning is behind",
        {"trouble": LearningTrouble("learning_behind", "it reads older decisions")},
        "learning_stuck",
        "learning_behind",
        is_of_worker=True,
    ),
)


Told = tuple[float, AlarmLine]
"""When a line came, in hours since the stream began, and the line."""


def alarms(
    stream: Stream, hours: int, at: int = -1, fault: Fault | None = None, *, ends: int = -1
) -> list[Told]:
    """The lines of alarms of a stream, with when each came. `fault` is in it from hour `at` on,
    until `ends`, where that is given."""
    memories, watch = {"": Memory(), KEY: Memory()}, LearningWatch()
    lines: list[Told] = []
    sound = {} if fault is None else {name: getattr(stream, name) for name in fault.fields}
    for number in range(hours):
        if fault is not None and number in (at, ends):
            for name, value in (fault.fields if number == at else sound).items():
                setattr(stream, name, value)
            if fault.edited and number == at:
                stream.changes.append(FileChange(START + at * HOUR, "ann"))
        for minute, key, reading in stream.minutes(watch):
            now = START + number * HOUR + minute * MINUTE
            for line in weigh(key, memories[key], [reading], now):
                lines.append((number + minute / 60.0, line))
        hour = stream.hour()
        harms = stream.guardrails(hour)
        if stream.publishes:
            outcome = look_at(KEY, memories[KEY], hour, EVENTS, stream.changes, harms)
            lines += [(number + 1.0, line) for line in outcome.lines]
    return lines


def raised(lines: Sequence[Told]) -> list[tuple[float, str, str]]:
    """(hour, kind, cause) of each alarm that was raised."""
    return [(n, line.kind, line.cause) for n, line in lines if line.state == "raised"]


def fault_is_found(fault: Fault, seed: int, *, begins: int = 200, lasts: int = 24) -> str:
    """What is wrong with how a fault was told; empty where it was within two windows, once, and
    with its cause."""
    stream = Stream(seed, traffic=4_000.0)
    at = 0 if fault.is_at_once else begins + seed % 24
    told = raised(alarms(stream, at + lasts, at, fault))
    is_soon = bool(told) and told[0][0] - at <= fault.windows
    if is_soon and [line[1:] for line in told] == [(fault.kind, fault.cause)]:
        return ""
    return f"{fault.name}: {[(n - at, kind, cause) for n, kind, cause in told]}"


def main() -> None:
    """Print the figures."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--sound", type=int, default=100, help="sound streams")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--faults", type=int, default=1, help="streams of each fault")
    options = parser.parse_args()
    wrong = []
    for fault in FAULTS:
        wrong += [fault_is_found(fault, seed) for seed in range(options.faults)]
    missed = [text for text in wrong if text]
    print(f"faults: {len(wrong) - len(missed)} of {len(wrong)} told once, within two windows, with")
    print("their cause", *missed, sep="\n  ", flush=True)
    false_alarms = []
    for seed in range(options.sound):
        stream = Stream(seed, traffic=(300.0, 1_000.0, 2_000.0, 8_000.0)[seed % 4])
        told = raised(alarms(stream, 24 * options.days))
        false_alarms += [(seed, *line) for line in told]
        if told or seed % 10 == 9:
            print(f"sound: {seed + 1} streams, {len(false_alarms)} alarms", *told, flush=True)
    print(f"sound: {len(false_alarms)} alarms in {options.sound} streams of {options.days} days")


if __name__ == "__main__":
    main()
