"""The ledger against every order in which librdkafka may bring records.

offsets in the partition   0 1 2 3 4 5 6 7 8 9
a run after a late seek          [3 4 5]        expected 1: SEEK
the same run again               [3 4 5]        expected 1: the hole 1-2 is real
a run from before an abort   [1 2 3]            expected 2: TRIM
in a quiet stream            [1 2]   [5 6]      the log has a hole at 3-4: TAKE
"""

from hypothesis import given
from hypothesis import strategies as st

from stream.engine.ledger import Ledger, Verdict


def test_the_expected_offset_is_taken() -> None:
    assert Ledger(7).judge(7) is Verdict.TAKE


def test_after_a_seek_a_gap_is_doubted_once_and_then_believed() -> None:
    ledger = Ledger(1)
    assert ledger.judge(3) is Verdict.SEEK
    assert ledger.judge(3) is Verdict.TAKE
    assert ledger.missing == 2


def test_another_gap_is_doubted_again() -> None:
    ledger = Ledger(1)
    assert ledger.judge(9) is Verdict.SEEK
    assert ledger.judge(3) is Verdict.SEEK
    assert ledger.judge(3) is Verdict.TAKE
    assert ledger.missing == 2


def test_a_hole_in_a_settled_stream_is_the_logs_own() -> None:
    ledger = Ledger(1)
    assert ledger.judge(1) is Verdict.TAKE
    ledger.committed(3)
    assert ledger.judge(5) is Verdict.TAKE
    assert ledger.missing == 2


def test_a_seek_unsettles() -> None:
    ledger = Ledger(1)
    ledger.judge(1)
    ledger.committed(3)
    ledger.rewound()
    assert ledger.judge(5) is Verdict.SEEK


def test_records_taken_before_are_trimmed() -> None:
    ledger = Ledger(0)
    ledger.committed(5)
    assert ledger.judge(2) is Verdict.TRIM
    assert ledger.expected == 5


@given(
    st.lists(st.integers(0, 60), unique=True, min_size=1).map(sorted),
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60),
    st.integers(1, 7),
)
def test_every_record_is_taken_once_in_order(
    offsets: list[int], faults: list[tuple[bool, int]], run_length: int
) -> None:
    """A log with holes. A commit may abort; the seek back then takes effect only after some more stale runs, each
    beginning further on than the last."""
    ledger, taken, fault = Ledger(0), list[int](), iter(faults)
    position, seek_to, stale = 0, None, 0
    while True:
        if seek_to is not None and stale == 0:
            position, seek_to = seek_to, None
        stale = max(stale - 1, 0)
        run = [offset for offset in offsets if offset >= position][:run_length]
        if not run and seek_to is None:
            break
        if not run:
            continue
        position = run[-1] + 1
        if ledger.judge(run[0]) is Verdict.SEEK:
            ledger.rewound()
            seek_to = ledger.expected
            continue
        run = [offset for offset in run if offset >= ledger.expected]
        aborts, late = next(fault, (False, 0))
        if aborts:
            ledger.rewound()
            seek_to, stale = ledger.expected, late
        elif run:
            taken += run
            ledger.committed(run[-1] + 1)
    assert taken == offsets
