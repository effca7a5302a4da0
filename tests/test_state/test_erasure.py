"""Which events an erasure covers."""

from state.erasure import BEFORE_ALL, ErasedUsers


def test_events_before_the_erasure_are_covered_and_those_after_are_not() -> None:
    users = ErasedUsers()
    users.add(3, "ann", 30, 1_000)
    assert [users.covers(3, "ann", offset) for offset in (10, 29, 30, 31)] == [True, True, False, False]


def test_only_of_that_user_on_that_partition() -> None:
    users = ErasedUsers()
    users.add(3, "ann", 30, 1_000)
    assert not users.covers(3, "bob", 10)
    assert not users.covers(4, "ann", 10)


def test_of_two_erasures_the_later_counts_in_whatever_order_they_are_learnt() -> None:
    for offsets in ((30, 50), (50, 30)):
        users = ErasedUsers()
        for offset in offsets:
            users.add(3, "ann", offset, offset * 10)
        assert users.covers(3, "ann", 49)
        assert not users.covers(3, "ann", 50)
        assert len(users) == 1


def test_what_was_sent_before_and_comes_later_is_covered() -> None:
    users = ErasedUsers()
    users.add(3, "ann", 30, 1_000)
    assert users.covers(3, "ann", 40, sent_ms=1_000)
    assert not users.covers(3, "ann", 40, sent_ms=1_001)
    assert not users.covers(3, "bob", 40, sent_ms=0)


def test_the_reach_is_that_of_the_last_erasure_of_any_user() -> None:
    users = ErasedUsers()
    assert users.reach(3) == BEFORE_ALL
    users.add(3, "ann", 30, 1_000)
    users.add(3, "bob", 20, 1_000)
    assert (users.reach(3), users.reach(4)) == (30, BEFORE_ALL)


def test_offsets_before_the_log_are_as_others() -> None:
    users = ErasedUsers()
    assert not users.covers(3, "ann", -(2**40))
    users.add(3, "ann", -50, 1_000)
    assert [users.covers(3, "ann", offset) for offset in (-(2**40), -51, -50, 0)] == [True, True, False, False]
    assert not users.covers(3, "bob", -(2**40))
