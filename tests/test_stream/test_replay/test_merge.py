"""
run 0   1 . 3 . 5 4
run 1   . 2 3 . . . 9
merged  1 2 3 3 5 4 9      of one time the first run's first; what steps back goes at once
"""

import gc
import weakref
from collections.abc import Iterator

import pytest

from stream.replay.merge import Run, merge
from stream.replay.rows import Row


def rows(times: list[int], file: int) -> list[Row]:
    return [Row(b"", b"", at_ms, number, file) for number, at_ms in enumerate(times, 1)]


def merged(*runs: list[list[int]], known: bool = False) -> list[tuple[int, int]]:
    """(time, run) of the rows of runs, each given in blocks."""
    made = []
    for k, blocks in enumerate(runs):
        first = next((block[0] for block in blocks if block), None) if known else None
        made.append(Run(first, lambda blocks=blocks, k=k: iter([rows(block, k) for block in blocks])))  # type: ignore[misc]
    return [(row.time_ms, row.file) for block in merge(made) for row in block]


@pytest.mark.parametrize("known", [True, False])
def test_by_time(known: bool) -> None:
    found = merged([[1, 3], [5, 4]], [[2], [], [3, 9]], [[]], [], known=known)
    assert found == [(1, 0), (2, 1), (3, 0), (3, 1), (5, 0), (4, 0), (9, 1)]


def test_it_is_what_sorting_makes_of_runs_in_order() -> None:
    runs = [[sorted((7 * n * (k + 3)) % 1000 for n in range(3000))] for k in range(5)]
    assert merged(*runs) == sorted((at_ms, k) for k, ((*times,),) in enumerate(runs) for at_ms in times)


def test_a_run_is_begun_when_it_is_due() -> None:
    begun: list[int] = []

    def run(k: int) -> Run:
        def blocks() -> Iterator[list[Row]]:
            begun.append(k)
            yield rows([10 * k + n for n in range(5000)], k)

        return Run(10 * k if k < 2 else 10_000, blocks)

    found = merge([run(0), run(1), run(2)])
    next(found)
    assert begun == [0, 1]
    assert sum(len(block) for block in found) > 5000
    assert begun == [0, 1, 2]


def test_a_first_time_that_was_not_right_does_no_harm() -> None:
    late = Run(0, lambda: iter([rows([50], 0)]))
    assert [row.time_ms for block in merge([late, Run(None, lambda: iter([rows([7, 60], 1)]))]) for row in block] == [
        7,
        50,
        60,
    ]


def test_a_run_that_has_ended_keeps_no_rows() -> None:
    class Block(list[Row]):
        """A list that can be looked at from afar."""

    gone: list[weakref.ref[Block]] = []

    def run(k: int) -> Run:
        def blocks() -> Iterator[list[Row]]:
            block = Block(rows([10 * k, 10 * k + 1], k))
            gone.append(weakref.ref(block))
            yield block

        return Run(10 * k, blocks)

    runs = [run(k) for k in range(9)]
    assert sum(len(block) for block in merge(runs)) == 18
    gc.collect()
    assert [block() for block in gone] == [None] * 9
