from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pouw.ml.bound import ScoreBound, at_best, in_hash_order
from pouw.ml.dice import score_ppm

counts = st.tuples(*[st.integers(0, 50)] * 3)
cases = st.lists(st.none() | st.tuples(counts, counts), min_size=1, max_size=8)


@given(scored=cases, claim=st.integers(0, 1_000_000))
def test_refuses__all_cases_known__exactly_where_the_score_is_below_the_claim(
    scored: list[tuple[tuple[int, int, int], ...] | None], claim: int
) -> None:
    bound = ScoreBound(len(scored), claim)
    for case in scored:
        bound.add(case)
    assert bound.best_ppm() == score_ppm(scored)
    assert bound.refuses() == (score_ppm(scored) < claim)


@given(scored=cases, claim=st.integers(0, 1_000_000), data=st.data())
def test_refuses__on_the_way__never_what_would_come_true(
    scored: list[tuple[tuple[int, int, int], ...] | None], claim: int, data: st.DataObject
) -> None:
    """Whatever part of a case was seen: the bound never falls below the score."""
    bound = ScoreBound(len(scored), claim)
    before = 1_000_000
    for case in scored:
        if case is not None:
            seen = tuple(
                tuple(data.draw(st.integers(0, number)) for number in label) for label in case
            )
            rest = [
                sum(label[::2]) - sum(part[::2]) for label, part in zip(case, seen, strict=True)
            ]
            partial = bound.best_ppm(at_best(seen, rest))
            assert score_ppm(scored) <= partial <= before
        bound.add(case)
        assert score_ppm(scored) <= bound.best_ppm() <= before
        before = bound.best_ppm()
    assert ScoreBound(len(scored), None).refuses() is False


def test_in_hash_order__other_spec__is_another_order() -> None:
    names = [f"case{number}" for number in range(12)]
    one, other = in_hash_order(names, b"1" * 32), in_hash_order(names, b"2" * 32)
    assert sorted(one) == sorted(other) == sorted(names)
    assert one != other
    assert in_hash_order(reversed(names), b"1" * 32) == one
