"""What a row of a page is filled from, in compiled calls: the titles of its pool, the caps that
these count in, and what a policy is told of them. Each says what plain code says where it is
called, to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from topbill.domain.records import Indices
from topbill.policies.linear.compiled import (
    Bytes,
    FlagMatrix,
    Flags,
    Given,
    Matrix,
    Places,
    Singles,
    Text,
    Vector,
    compiled,
    numba,
    part,
)
from topbill.policies.linear.hashing import uniforms_behind

_LARGEST = 1e9
"""Numbers from here on are written by others."""
_MINUS, _POINT, _ZERO, _COMMA = ord("-"), ord("."), ord("0"), ord(",")
_BEGIN, _END = ord("["), ord("]")


@part
def sampled(count: int, size: int, chance: Vector) -> Places:
    """`domain.chance.sample`: `size` of `count`, in rising order."""
    chosen = np.empty(size, np.intp)
    for k in range(size):
        last = count - size + k
        pick = int(chance[k] * (last + 1))
        for i in range(k):
            if chosen[i] == pick:
                pick = last
                break
        i = k
        while i > 0 and chosen[i - 1] > pick:
            chosen[i] = chosen[i - 1]
            i -= 1
        chosen[i] = pick
    return chosen


@compiled
def fill_pool(
    members: Indices,
    taken: Flags,
    is_new: Flags,
    merit: Singles,
    most: int,
    spare: int,
    seed: Text,
    pool: Places,
) -> int:
    """`Candidates.pool` where titles are in the order of their merit; how many they are.

    Args:
        members: What the row may be made of, first choice first.
        taken: (T,) what stands on the page already.
        is_new: (T,) the new titles.
        merit: (T,) by what they are ordered.
        most: How many,
        spare: of which so many are new, and as many any titles, where there is a choice.
        seed: Says which these are: what `hashing.uniforms_behind` draws from.
        pool: (most,) gets the titles.
    """
    free = 0
    for row in members:
        free += not taken[row]
    head = most if free <= most else most - 2 * spare
    size, seen, found = 0, 0, 0
    skipped = np.empty(spare, np.intp)
    for row in members:
        if taken[row]:
            continue
        if seen < head:
            pool[size] = row
            size += 1
        elif found < spare and is_new[row]:
            pool[size] = row
            size += 1
            skipped[found] = seen - head
            found += 1
        seen += 1
    if free > most:
        chance = uniforms_behind(seed, 2 * spare)
        chosen = sampled(free - head - found, min(free, most) - head - found, chance)
        # Counted among the others: each new title above moves those below it down by one.
        for place in skipped[:found]:
            for i in range(chosen.size):
                if chosen[i] >= place:
                    chosen[i] += 1
        seen, next_one = 0, 0
        for row in members:
            if next_one == chosen.size:
                break
            if taken[row]:
                continue
            if seen == head + chosen[next_one]:
                pool[size] = row
                size += 1
                next_one += 1
            seen += 1
    # By falling merit, and equal ones by their row.
    for last in range(1, size):
        row, i = pool[last], last
        while i > 0 and (
            merit[pool[i - 1]] < merit[row]
            or (merit[pool[i - 1]] == merit[row] and pool[i - 1] > row)
        ):
            pool[i] = pool[i - 1]
            i -= 1
        pool[i] = row
    return size


@compiled
def kept(rows: Indices, flags: Flags) -> Places:
    """Those of the rows whose flags (T,) are set, in their order."""
    out, size = np.empty(rows.size, np.intp), 0
    for row in rows:
        # Written in any case: a processor cannot foresee which are set.
        out[size] = row
        size += flags[row]
    return out[:size]


@compiled
def caps_of_pool(titles: Indices, members: Indices, ends: Indices, count: int) -> Places:
    """`CompiledRules.caps_of`: how many caps there are of all `count`, these, where those of each
    title end, and of one title after the other which among the first they are.

    Args:
        titles: (P,) of the pool.
        members: The caps that each title of the catalogue counts in, of one after the other.
        ends: (T + 1,) where those of each end, after a 0.
        count: How many caps there are.
    """
    column, caps, size = np.zeros(count, np.intp), 0, 0
    for title in titles:
        size += ends[title + 1] - ends[title]
        for i in range(ends[title], ends[title + 1]):
            column[members[i]] = 1
    for cap in range(count):
        caps += column[cap]
    out = np.empty(1 + caps + titles.size + size, np.intp)
    out[0], at = caps, 1
    for cap in range(count):
        if column[cap]:
            out[at], column[cap] = cap, at - 1
            at += 1
    at += titles.size
    first = at
    for k in range(titles.size):
        for i in range(ends[titles[k]], ends[titles[k] + 1]):
            out[at] = column[members[i]]
            at += 1
        out[1 + caps + k] = at - first
    return out


@compiled
def closings(
    placed: Indices, is_open: Places, caps: Indices, caps_end: Indices, left: Places
) -> Places:
    """What `RowConstraints` closes while titles are placed: of one closing after the other the
    position from which on it holds, the cap, how many titles it keeps out, and these.

    Args:
        placed: What is placed, first position first.
        is_open: (P,) 1 for what may be drawn, else 0; it and `left` are as they are afterwards.
        caps: The caps that a title counts in, of one title after the other,
        caps_end: (P,) where those of each title end.
        left: (c,) how many titles each cap takes.
    """
    # A cap is closed once, and its titles are among those that count in it.
    out, size = np.empty(3 * left.size + caps.size, np.intp), 0
    for position in range(placed.size):
        place = placed[position]
        is_open[place] = 0
        for i in range(caps_end[place - 1] if place else 0, caps_end[place]):
            cap = caps[i]
            left[cap] -= 1
            if left[cap] != 0:
                continue
            first, start = size + 3, 0
            end = first
            for other in range(is_open.size):
                for j in range(start, caps_end[other]):
                    if caps[j] == cap and is_open[other]:
                        is_open[other] = 0
                        out[end] = other
                        end += 1
                start = caps_end[other]
            if end > first:
                out[size], out[size + 1], out[size + 2] = position + 1, cap, end - first
                size = end
    return out[:size]


@compiled
def stretches(rows: Indices, ends: Indices) -> Places:
    """The places of what each row has, of one row after the other, and behind them where those of
    each row end. What all rows have lies side by side, that of each from its place of `ends` (after
    a 0) to the next one.
    """
    size = 0
    for row in rows:
        size += ends[row + 1] - ends[row]
    out, at = np.empty(size + rows.size, np.intp), 0
    for k in range(rows.size):
        for place in range(ends[rows[k]], ends[rows[k] + 1]):
            out[at] = place
            at += 1
        out[size + k] = at
    return out


def _copy(_: Any, source: Any, start: Any, size: Any, text: Any, at: Any) -> Any:
    """Copy so many bytes from `start` of one text to `at` of another one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, target = (
            context.make_array(signature.args[i])(context, builder, arguments[i]).data
            for i in (0, 3)
        )
        numba.core.cgutils.raw_memcpy(
            builder,
            builder.gep(target, [arguments[4]]),
            builder.gep(first, [arguments[1]]),
            arguments[2],
            1,
        )
        return context.get_dummy_value()

    return numba.types.void(source, start, size, text, at), generate


copy: Any = None if numba is None else numba.extending.intrinsic(_copy)


@part
def copied(source: Text, start: int, end: int, text: Bytes, at: int) -> int:
    """Copy a part of a text to `at`; where it ends there."""
    copy(source, start, end - start, text, at)
    return at + end - start


@part
def written(hundredths: float, text: Bytes, at: int) -> int:
    """Write a number as JSON has it, with one or two decimals; where it ends."""
    if hundredths < 0.0:
        text[at] = _MINUS
        at += 1
    rest = int(abs(hundredths))
    whole, rest = rest // 100, rest % 100
    scale = 1
    while scale * 10 <= whole:
        scale *= 10
    while scale:
        text[at] = _ZERO + whole // scale % 10
        at += 1
        scale //= 10
    text[at], text[at + 1] = _POINT, _ZERO + rest // 10
    at += 2
    if rest % 10:
        text[at] = _ZERO + rest % 10
        at += 1
    return at


@compiled
def tell_titles(
    pool: Indices,
    matrix: Matrix,
    numbers: Matrix,
    columns: Indices,
    scaling: Matrix,
    named: FlagMatrix,
    added: Given,
    now: float,
    new_for: float,
    flags: Indices,
    heads: Text,
    head_ends: Indices,
    labels: Text,
    label_ends: Indices,
    tails: Text,
    tail_ends: Indices,
    X: Matrix,
    text: Bytes,
) -> int:
    """`TitlesOnPage.of` where nothing is said of titles by the request: how long the text is; -1
    where a number is none that `written` writes.

    Args:
        pool: (P,) the titles.
        matrix: (T × columns) what is each title's own.
        numbers: (n × T) what depends on the viewer, not rounded.
        columns: (n,) where that stands in the matrix.
        scaling: (n × 3) `NumberScaling`: middle, scale and bound.
        named: (T × sources) which sources named each title.
        added: (T,) seconds since the epoch.
        now: The same.
        new_for: Seconds after which a title that was added is new no more.
        flags: (sources + 1,) the column of each source, and of what is new; -1 for none.
        heads: The beginnings of all titles' JSON,
        head_ends: (T + 1,) where they end, after a 0.
        labels: The names of the numbers,
        label_ends: the same of them.
        tails: The ends of JSON, by the bits of sources and of what is new,
        tail_ends: the same of them.
        X: (P × columns) gets the numbers.
        text: Gets the JSON, for which it has to have room.
    """
    text[0], at = _BEGIN, 1
    sources = named.shape[1]
    for k in range(pool.size):
        title = pool[k]
        if k:
            text[at] = _COMMA
            at += 1
        X[k] = matrix[title]
        at = copied(heads, head_ends[title], head_ends[title + 1], text, at)
        for j in range(columns.size):
            hundredths = np.rint(numbers[j, title] * 100.0)
            # So that NaN is none either.
            if not abs(hundredths) < _LARGEST:
                return -1
            scaled = (hundredths / 100.0 + 0.0 - scaling[j, 0]) * scaling[j, 1]
            X[k, columns[j]] = min(max(scaled, -scaling[j, 2]), scaling[j, 2])
            at = copied(labels, label_ends[j], label_ends[j + 1], text, at)
            at = written(hundredths, text, at)
        bits, age = 0, now - added[title]
        for j in range(sources + 1):
            is_set = named[title, j] if j < sources else 0.0 <= age < new_for
            bits |= is_set << j
            if flags[j] >= 0:
                X[k, flags[j]] = 1.0 if is_set else 0.0
        at = copied(tails, tail_ends[bits], tail_ends[bits + 1], text, at)
    text[at] = _END
    return at + 1
