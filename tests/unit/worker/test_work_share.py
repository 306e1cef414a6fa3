"""How many experiments each worker should hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from topbill.worker.work_share import fair_share


@given(st.dictionaries(st.integers(1, 10**6), st.integers(0, 9), min_size=1), st.integers(0, 40))
def test_the_shares_are_all_there_is_and_differ_by_one_at_most(
    counts: dict[int, int], experiments: int
) -> None:
    shares = {worker: fair_share(worker, counts, experiments) for worker in counts}
    assert sum(shares.values()) == experiments
    assert max(shares.values()) - min(shares.values()) <= 1
    # Whoever holds more already is not asked to give up what another one then takes.
    for one in counts:
        for other in counts:
            assert counts[one] <= counts[other] or shares[one] >= shares[other]
