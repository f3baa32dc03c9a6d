from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pouw.errors import LedgerError
from pouw.hashing import header_hash
from pouw.ledger.forkchoice import Chain, Reason, choose, confirmations, high_accuracy_rounds
from pouw.types import ZERO_ADDRESS, Address, Header, RoundNumber, TaskId, Verdict

MINER = Address("0x" + "11" * 20)
Round = tuple[int, int | None]
"""A round in short: its task and the winner's score, None where nobody won."""


def chain(*rounds: Round, salt: int = 0, known: Iterable[int] = range(10)) -> Chain:
    """A chain of ``rounds``; ``salt`` tells two chains of the same rounds apart."""
    specs = frozenset(task.to_bytes(32, "big") for task in known)
    return Chain(tuple(linked(*rounds, salt=salt)), specs)


def linked(*rounds: Round, salt: int = 0, parent: bytes = bytes(32)) -> list[Header]:
    """Linked headers of ``rounds``."""
    headers: list[Header] = []
    for task, score in rounds:
        headers.append(
            Header(
                number=RoundNumber(len(headers) + 1),
                parent=parent,
                task_id=TaskId(task),
                spec_digest=task.to_bytes(32, "big"),
                pool_history=salt.to_bytes(32, "big"),
                verdict=Verdict.NO_TRUE_CLAIM if score is None else Verdict.WINNER,
                winner=ZERO_ADDRESS if score is None else MINER,
                score=score or 0,
                reveal_digest=bytes(22),
                evidence_digest=bytes(32),
                closed_at=0,
            )
        )
        parent = header_hash(headers[-1])
    return headers


def test_choose__higher_accuracy_on_more_tasks__wins_over_length() -> None:
    better = chain((1, 900), (2, 800), salt=1)
    longer = chain((1, 899), (2, 799), (3, None), (4, None), salt=2)
    choice = choose([longer, better])
    assert (choice.chosen, choice.reason) == (1, Reason.MODELS)
    assert choice.best_models == (0, 2)


def test_choose__a_task_that_one_chain_avoided__counts_for_the_other() -> None:
    choice = choose([chain((1, 900), salt=1), chain((1, 899), (2, 10), (3, 10), salt=2)])
    assert (choice.chosen, choice.best_models) == (1, (1, 2))


def test_choose__tasks_of_ones_own__do_not_count() -> None:
    honest = chain((1, 800), (2, 800), salt=1, known=(1, 2, 3))
    private = chain((1, 900), (8, 1_000), (9, 1_000), salt=2, known=(1, 2, 8, 9))
    choice = choose([honest, private])
    assert (choice.best_models, choice.reason) == ((1, 1), Reason.LENGTH)
    assert [contest.scores_ppm for contest in choice.contests] == [(800, 900), (800, None)]


def test_choose__equal_scores__count_for_both() -> None:
    choice = choose([chain((1, 900), (2, 5), salt=1), chain((1, 900), salt=2)])
    assert choice.best_models == (2, 1)
    assert choice.contests[0].scores_ppm == (900, 900)


def test_choose__same_spec_twice_in_a_chain__counts_once_with_its_best() -> None:
    choice = choose([chain((1, 700), (1, 900), salt=1), chain((1, 800), salt=2)])
    assert choice.best_models == (1, 0)
    assert choice.contests[0].scores_ppm == (900, 800)


def test_choose__common_headers__do_not_count() -> None:
    trunk = linked((1, 900), (2, 900))
    parent = header_hash(trunk[-1])
    forks = [
        [replace(each, number=RoundNumber(3)) for each in linked((3, score), parent=parent)]
        for score in (10, 20)
    ]
    known = chain((1, 1)).known
    choice = choose([Chain((*trunk, *fork), known) for fork in forks])
    assert (choice.common, choice.chosen, choice.best_models) == (2, 1, (0, 1))
    assert [contest.spec_digest for contest in choice.contests] == [(3).to_bytes(32, "big")]


def test_choose__as_many_models__takes_the_longer() -> None:
    choice = choose([chain((1, 900), salt=1), chain((1, 900), (2, None), salt=2)])
    assert (choice.chosen, choice.reason) == (1, Reason.LENGTH)


def test_choose__nothing_else_differs__takes_the_lower_hash() -> None:
    chains = [chain((1, 900), salt=1), chain((1, 900), salt=2)]
    choice = choose(chains)
    assert choice.reason is Reason.HASH
    assert choice.chosen == min((0, 1), key=lambda at: header_hash(chains[at].headers[0]))


def test_choose__same_chain_twice__says_so() -> None:
    one = chain((1, 900))
    choice = choose([one, one])
    assert (choice.reason, choice.common, choice.contests) == (Reason.SAME, 1, ())


def test_choose__no_chain__is_refused() -> None:
    with pytest.raises(LedgerError, match="no chain"):
        choose([])


def test_choose__pairs_go_round_in_a_circle__all_at_once_do_not() -> None:
    # Each of the three loses two of three tasks to the next one.
    scores = [(3, 1, 2), (2, 3, 1), (1, 2, 3)]
    chains = [chain(*enumerate(each, 1), salt=salt) for salt, each in enumerate(scores)]
    assert [choose([chains[a], chains[b]]).chosen for a, b in ((0, 1), (1, 2), (2, 0))] == [0] * 3
    chosen = {
        header_hash(order[choose(order).chosen].headers[0])
        for order in (list(order) for order in permutations(chains))
    }
    assert len(chosen) == 1


rounds = st.lists(st.tuples(st.integers(1, 4), st.none() | st.integers(1, 5)), max_size=5)


@given(st.lists(rounds, min_size=2, max_size=4), st.randoms())
def test_choose__any_order__follows_the_same_chain(many: list[list[Round]], random: Random) -> None:
    chains = [chain(*each, salt=salt) for salt, each in enumerate(many)]
    shuffled = list(chains)
    random.shuffle(shuffled)
    first, second = choose(chains), choose(shuffled)
    assert chains[first.chosen] == shuffled[second.chosen]
    assert first.reason is second.reason
    assert max(first.best_models) == first.best_models[first.chosen]


def test_high_accuracy__within_the_margin_of_the_best__counts() -> None:
    headers = linked((1, 900_000), (2, 500_000), (1, 889_999), (1, 890_000), (3, None))
    assert high_accuracy_rounds(headers) == (1, 2, 4)
    assert high_accuracy_rounds(headers, margin_ppm=0) == (1, 2)


def test_confirmations__count_later_high_accuracy_rounds_only() -> None:
    headers = linked((1, 900_000), (2, None), (3, 700_000), (1, 100_000), (4, 1))
    assert confirmations(headers, RoundNumber(1)) == (3, 5)
    assert confirmations(headers, RoundNumber(3)) == (5,)
    assert confirmations(headers, RoundNumber(5)) == ()


def test_confirmations__open_round__is_refused() -> None:
    with pytest.raises(LedgerError, match="round 2 is not closed"):
        confirmations(linked((1, 1)), RoundNumber(2))
