import copy
import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.codec import decode_state, encode_state
from state.interaction import Interaction
from state.interest import Applied, InterestState
from state.keys import key_of
from state.settings import StateSettings
from state.weights import EVENT_TYPES, STRENGTH, TYPE_CODES
from state.window import interest_key

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
SMALL = StateSettings(recent_items=5, max_counted_items=4, event_id_ring=4, count_half_life_s=86_400)

_number = iter(range(1, 10**9))


def event(
    *items: str,
    type: str = "view",
    at_ms: int = START_MS,
    weight: float = 1.0,
    category: str = "",
    id: int | None = None,
    offset: int = 0,
) -> Interaction:
    return Interaction(
        event=id if id is not None else next(_number),
        type=TYPE_CODES[type],
        time_ms=at_ms,
        items=tuple(key_of(item) for item in items),
        interests=(interest_key(category),) * len(items) if category else (),
        weight=0.0 if type == "session_start" else weight,
        offset=offset,
    )


def apply(state: InterestState, *events: Interaction, s: StateSettings = SMALL) -> InterestState:
    for one in events:
        state.apply(one, s)
    return state


def counts(state: InterestState, s: StateSettings = SMALL) -> dict[int, float]:
    return {item.key: item.count for item in state.counted_items(s)}


interactions = st.builds(
    Interaction,
    event=st.integers(1, 40),
    type=st.integers(0, len(EVENT_TYPES) - 1),
    time_ms=st.one_of(
        st.integers(START_MS, START_MS + 90 * DAY_MS),
        st.sampled_from([0, -5, 2**52, START_MS * 1000]),
    ),
    items=st.lists(st.integers(1, 2**63 - 1) | st.integers(1, 9), max_size=7).map(tuple),
    interests=st.just(()),
    weight=st.sampled_from([0.0, 1.0, 8.0, -4.0, 1e30, math.nan, math.inf]),
    offset=st.integers(0, 2**40),
).flatmap(
    lambda i: st.lists(st.text(max_size=60), min_size=len(i.items), max_size=len(i.items)).map(
        lambda names: msgspec.structs.replace(i, interests=tuple(map(interest_key, names)))
    )
)


# --- duplicates


def test_an_event_sent_twice_is_applied_once() -> None:
    state = InterestState()
    once = event("a", id=7)
    assert state.apply(once, SMALL) is True
    before = copy.copy(state)
    assert state.apply(once, SMALL) is False
    assert state == before
    assert state.events_applied == 1


@given(st.lists(interactions, max_size=30), interactions)
def test_applying_twice_is_applying_once(events: list[Interaction], last: Interaction) -> None:
    state = apply(InterestState(), *events)
    state.apply(last, SMALL)
    before = encode_state(state)
    assert state.apply(last, SMALL) is False
    assert encode_state(state) == before


def test_the_ring_remembers_the_last_ids_only() -> None:
    state = apply(InterestState(), *(event("a", id=number) for number in range(1, 6)))
    assert [state.advance(event("a", id=number), SMALL) for number in (5, 4, 3, 2)] == [Applied.DUPLICATE] * 4
    assert state.advance(event("a", id=1), SMALL) is Applied.APPLIED


def test_an_id_that_stands_across_two_others_is_no_duplicate() -> None:
    first = int.from_bytes(bytes(range(8)), "little")
    second = int.from_bytes(bytes(range(8, 16)), "little")
    across = int.from_bytes(bytes(range(4, 12)), "little")
    state = apply(InterestState(), event("a", id=first), event("a", id=second))
    assert state.apply(event("a", id=across), SMALL) is True
    # And where it stands across and also in its own place, it is found.
    assert state.apply(event("a", id=across), SMALL) is False


# --- what is counted


def test_counters_and_times_follow_the_events() -> None:
    state = apply(
        InterestState(),
        event("a", "b", at_ms=START_MS, offset=3),
        event("a", at_ms=START_MS - 5000, offset=9),
    )
    assert state.events_applied == 2  # events, not items
    assert state.last_offset == 9
    assert state.last_time_ms == START_MS  # the newest, not the last to arrive
    assert [item.key for item in state.recent_items()] == [key_of("a"), key_of("b"), key_of("a")]


def test_counts_halve_in_a_half_life() -> None:
    state = apply(InterestState(), event("a", weight=4.0), event("b", at_ms=START_MS + DAY_MS))
    assert counts(state) == pytest.approx({key_of("a"): 2.0, key_of("b"): 1.0})


def test_an_event_that_comes_late_is_worth_its_age_and_never_more() -> None:
    """
    arrives      1st          2nd
    time     b <- a day -> a
    """
    late = apply(InterestState(), event("a", at_ms=START_MS + DAY_MS), event("b", at_ms=START_MS))
    punctual = apply(InterestState(), event("b", at_ms=START_MS), event("a", at_ms=START_MS + DAY_MS))
    assert counts(late) == pytest.approx(counts(punctual))
    assert counts(late)[key_of("b")] == pytest.approx(0.5)


@given(st.permutations(range(8)))
def test_counts_and_windows_do_not_depend_on_the_order_of_arrival(order: list[int]) -> None:
    settings = StateSettings()
    events = [
        event(f"i{number % 3}", at_ms=START_MS + number * 100_000, category=f"c{number % 2}", weight=1.0 + number)
        for number in range(8)
    ]
    straight = apply(InterestState(), *events, s=settings)
    mixed = apply(InterestState(), *(events[number] for number in order), s=settings)
    assert counts(mixed, settings) == pytest.approx(counts(straight, settings), rel=1e-5)
    assert interests(mixed, settings) == interests(straight, settings)


def test_years_of_silence_neither_overflow_nor_revive() -> None:
    state = apply(
        InterestState(),
        event("a", at_ms=0, weight=1e6, category="x"),
        event("b", at_ms=START_MS, category="y"),
        event("c", at_ms=START_MS + DAY_MS, category="y"),
    )
    found = counts(state)
    assert found[key_of("a")] == 0.0
    assert found[key_of("b")] == pytest.approx(0.5)
    assert interests(state).keys() == {"y"}


def test_an_event_of_weight_zero_is_counted_but_leaves_no_item() -> None:
    state = apply(InterestState(), event("a", type="impression", weight=0.0, category="x"))
    assert state.events_applied == 1
    assert state.recent_items() == []
    assert counts(state) == {}
    assert interests(state) == {}


def test_the_smallest_count_makes_room() -> None:
    weights = {"a": 5.0, "b": 1.0, "c": -9.0, "d": 3.0}
    state = apply(InterestState(), *(event(item, weight=weight) for item, weight in weights.items()))
    apply(state, event("e", weight=2.0))
    # b was nearest to nothing: a strong dislike is kept.
    assert set(counts(state)) == {key_of(item) for item in "acde"}


def test_a_lowered_setting_makes_the_table_shrink() -> None:
    state = apply(InterestState(), *(event(item, weight=w) for item, w in zip("abcd", (1, 2, 3, 4), strict=True)))
    apply(state, event("e", weight=5.0), s=StateSettings(max_counted_items=2))
    assert set(counts(state)) == {key_of("d"), key_of("e")}


def test_the_strongest_event_on_an_item_is_remembered() -> None:
    state = apply(InterestState(), event("a"), event("a", type="purchase"), event("a", type="click"))
    (item,) = state.counted_items(SMALL)
    assert EVENT_TYPES[item.type] == "purchase"


# --- half-lives by type

HOUR_MS = 3_600_000
BY_TYPE = StateSettings(
    max_counted_items=4,
    count_half_life_s=86_400,
    count_half_lives_s={"view": 3600, "purchase": 10 * 86_400, "hide": 2 * 86_400},
)


def half_life_ms(kind: int) -> float:
    return BY_TYPE.half_lives_s[kind] * 1000.0


def test_a_count_halves_in_the_half_life_of_its_type() -> None:
    state = apply(
        InterestState(),
        event("seen", weight=8.0),
        event("bought", type="purchase", weight=8.0),
        event("hidden", type="hide", weight=-8.0),
        event("liked", type="like", weight=8.0),
        s=BY_TYPE,
    )
    at_ms = START_MS + 10 * DAY_MS
    found = {item.key: item.count for item in state.counted_items(BY_TYPE, at_ms)}
    days = {"seen": 8 * 2.0**-240, "bought": 4.0, "hidden": -8 * 2.0**-5, "liked": 8 * 2.0**-10}
    assert found == pytest.approx({key_of(item): count for item, count in days.items()}, rel=1e-5, abs=1e-30)


def test_the_strongest_event_sets_the_half_life_from_then_on() -> None:
    """
    view (4)     purchase (8): 2 are left of the view      view (1)
    |---- 1 h -->|--------------- 10 days ---------------->|
    """
    bought_ms = START_MS + HOUR_MS
    state = apply(InterestState(), event("a", weight=4.0), s=BY_TYPE)
    apply(state, event("a", type="purchase", weight=8.0, at_ms=bought_ms), s=BY_TYPE)
    assert counts(state, BY_TYPE)[key_of("a")] == pytest.approx(10.0)
    apply(state, event("a", weight=1.0, at_ms=bought_ms + 10 * DAY_MS), s=BY_TYPE)
    assert counts(state, BY_TYPE)[key_of("a")] == pytest.approx(6.0)


def test_without_half_lives_of_their_own_states_are_the_same_byte_for_byte() -> None:
    alike = msgspec.structs.replace(SMALL, count_half_lives_s={"view": 86_400, "purchase": 86_400})
    log = [
        event(f"i{number % 7}", type=EVENT_TYPES[number % 10], at_ms=START_MS + number**3 * 1_000_000, id=number + 1)
        for number in range(60)
    ]
    assert encode_state(apply(InterestState(), *log, s=alike)) == encode_state(apply(InterestState(), *log))


typed = st.tuples(
    st.sampled_from(["view", "click", "purchase", "like", "hide", "rating"]),
    st.integers(0, 30 * 24).map(lambda hours: hours * HOUR_MS),
    st.sampled_from([1.0, 8.0, -20.0, 0.5]),
    st.sampled_from("ab"),
)


@given(st.lists(typed, max_size=30))
def test_counts_are_those_of_a_model_that_keeps_each_items_value(log: list[tuple[str, int, float, str]]) -> None:
    log.sort(key=lambda one: one[1])
    state = InterestState()
    model: dict[int, tuple[float, int, int]] = {}  # item -> what it is worth at a time, the time, its strongest type
    for kind, at_ms, weight, item in log:
        apply(state, event(item, type=kind, at_ms=START_MS + at_ms, weight=weight), s=BY_TYPE)
        code, key = TYPE_CODES[kind], key_of(item)
        value, since_ms, strongest = model.get(key, (0.0, at_ms, code))
        value *= 2.0 ** (-(at_ms - since_ms) / half_life_ms(strongest))
        model[key] = value + weight, at_ms, code if STRENGTH[code] > STRENGTH[strongest] else strongest
    now_ms = log[-1][1] if log else 0
    for item in state.counted_items(BY_TYPE):
        value, since_ms, strongest = model.pop(item.key)
        expected = value * 2.0 ** (-(now_ms - since_ms) / half_life_ms(strongest))
        assert (item.count, item.type) == (pytest.approx(expected, rel=1e-4, abs=1e-4), strongest)
    assert not model


@given(st.lists(typed, max_size=30))
def test_no_order_makes_a_count_larger_than_all_that_entered_it(log: list[tuple[str, int, float, str]]) -> None:
    state, entered = InterestState(), {key_of("a"): 0.0, key_of("b"): 0.0}
    for kind, at_ms, weight, item in log:
        apply(state, event(item, type=kind, at_ms=START_MS + at_ms, weight=weight), s=BY_TYPE)
        entered[key_of(item)] += abs(weight)
        for counted in state.counted_items(BY_TYPE):
            assert abs(counted.count) <= entered[counted.key] * 1.0001


@given(st.permutations(range(6)), st.sampled_from(["view", "purchase", "like"]))
def test_of_one_type_the_order_of_arrival_does_not_matter(order: list[int], kind: str) -> None:
    log = [event("a", type=kind, at_ms=START_MS + n * HOUR_MS, weight=1.0 + n) for n in range(6)]
    straight = counts(apply(InterestState(), *log, s=BY_TYPE), BY_TYPE)
    mixed = counts(apply(InterestState(), *(log[n] for n in order), s=BY_TYPE), BY_TYPE)
    assert mixed == pytest.approx(straight, rel=1e-5)


def test_a_late_purchase_takes_the_views_as_they_are_and_not_as_they_were() -> None:
    state = apply(InterestState(), event("a", weight=4.0, at_ms=START_MS + 10 * DAY_MS), s=BY_TYPE)
    apply(state, event("a", type="purchase", weight=8.0), s=BY_TYPE)  # 240 half-lives of a view before
    assert counts(state, BY_TYPE)[key_of("a")] == pytest.approx(4.0 + 4.0)


def test_the_smallest_of_now_makes_room_and_not_the_smallest_amount() -> None:
    """Views fade in hours: what was bought long ago is worth more than what was seen yesterday."""
    old = START_MS - 5 * DAY_MS
    state = apply(InterestState(), *(event(item, type="purchase", at_ms=old) for item in "abc"), s=BY_TYPE)
    apply(state, event("seen", weight=50.0, at_ms=START_MS - DAY_MS), s=BY_TYPE)
    apply(state, event("new", weight=1.0), s=BY_TYPE)
    assert set(counts(state, BY_TYPE)) == {key_of(item) for item in ("a", "b", "c", "new")}


@given(st.lists(interactions, max_size=40))
def test_hostile_events_leave_finite_counts_with_half_lives_by_type_too(log: list[Interaction]) -> None:
    narrow = msgspec.structs.replace(BY_TYPE, count_half_lives_s={"view": 1, "purchase": 2**40})
    state = apply(InterestState(), *log, s=narrow)
    assert all(math.isfinite(item.count) for item in state.counted_items(narrow))
    assert len(state.count_keys) <= 8 * narrow.max_counted_items


# --- windows by type


def test_a_type_counts_in_windows_up_to_its_last() -> None:
    """
    impression, view, click, all of weight 1
    |---- 1 h ---->| the day  |---- 2 days ---->| the month
    """
    settings = StateSettings(last_window={"impression": "session", "view": "day"})
    log = [event(kind, type=kind, category="x") for kind in ("impression", "view", "click")]
    state = apply(InterestState(), *log, s=settings)
    assert interests(state, settings) == {"x": (3.0, 2.0, 1.0)}
    apply(state, event("b", category="y", at_ms=START_MS + HOUR_MS, type="click"), s=settings)
    assert interests(state, settings)["x"] == (0.0, 2.0, 1.0)
    apply(state, event("b", category="y", at_ms=START_MS + 2 * DAY_MS, type="click"), s=settings)
    assert interests(state, settings)["x"] == (0.0, 0.0, 1.0)


# --- windows


def interests(state: InterestState, s: StateSettings = SMALL) -> dict[str, tuple[float, ...]]:
    """Weights of the interests that the tests name in half hour, day and month, at the newest event."""
    names = {interest_key(name): name for name in ("x", "y", "c0", "c1", "shoes", "shoes for men")}
    found = s.windowing.view(state.windows, state.last_time_ms // 1000)
    return {names[key]: weights for key, weights in found.items()}


def test_windows_hold_what_fell_into_them() -> None:
    """
    x (3)              y (1)  y (-0.5)
    |---- 2 days ----->|--5 min-->| now
    """
    state = apply(
        InterestState(),
        event("a", category="x", weight=3.0),
        event("b", category="y", at_ms=START_MS + 2 * DAY_MS),
        event("c", category="y", at_ms=START_MS + 2 * DAY_MS + 300_000, weight=-0.5, type="dislike"),
    )
    assert interests(state) == {"x": (0.0, 0.0, 3.0), "y": (0.5, 0.5, 0.5)}


def test_a_category_that_is_part_of_another_is_not_taken_for_it() -> None:
    state = apply(InterestState(), event("a", category="shoes for men"), event("b", category="shoes"))
    assert interests(state).keys() == {"shoes for men", "shoes"}


# --- sessions


def test_a_session_start_empties_the_session() -> None:
    state = apply(InterestState(), event("a"), event(type="session_start", at_ms=START_MS + 1), event("b"))
    assert state.session_items() == [key_of("b")]
    assert state.session_start_ms == START_MS + 1
    assert [item.key for item in state.recent_items()] == [key_of("a"), key_of("b")]


def test_a_pause_begins_a_session() -> None:
    """
    a . 30 min . b . 30 min 1 ms . c
    |--- session ---|             |--- session
    """
    gap_ms = 1_800_000
    state = apply(InterestState(), event("a"), event("b", at_ms=START_MS + gap_ms))
    assert state.session_items() == [key_of("a"), key_of("b")]
    apply(state, event("c", at_ms=START_MS + 2 * gap_ms + 1))
    assert state.session_items() == [key_of("c")]


def test_late_events_end_no_session() -> None:
    state = apply(
        InterestState(),
        event("a"),
        event("b", at_ms=START_MS - DAY_MS),
        event(type="session_start", at_ms=START_MS - DAY_MS),
    )
    assert state.session_items() == [key_of("a"), key_of("b")]
    assert state.session_start_ms == START_MS


def test_sessions_that_the_producer_names_are_cut_by_it() -> None:
    """A pause within a session does not end it, and another name does without a pause."""

    def at(item: str, minutes: int, session: str) -> Interaction:
        one = event(item, at_ms=START_MS + minutes * 60_000)
        one.session = key_of(session) if session else 0
        return one

    state = apply(InterestState(), at("a", 0, "s1"), at("b", 120, "s1"))
    assert state.session_items() == [key_of("a"), key_of("b")]
    apply(state, at("c", 121, "s2"))
    assert state.session_items() == [key_of("c")]
    apply(state, at("d", 122, ""))  # from a producer that names none: by the pause
    assert state.session_items() == [key_of("c"), key_of("d")]
    apply(state, at("e", 200, ""), at("f", 201, "s2"))
    assert state.session_items() == [key_of("e"), key_of("f")]


def test_only_a_session_start_is_told_as_the_beginning_of_a_session() -> None:
    state = InterestState()
    assert state.advance(event("a"), SMALL) is Applied.APPLIED
    assert state.advance(event(type="session_start"), SMALL) is Applied.BEGAN
    assert state.advance(event("b", at_ms=START_MS + DAY_MS), SMALL) is Applied.APPLIED


# --- bounds


@settings(max_examples=150)
@given(st.lists(interactions, max_size=40))
def test_a_state_is_bounded_and_readable_whatever_comes(events: list[Interaction]) -> None:
    state = InterestState(vector=bytes(64))
    for one in events:
        state.apply(one, SMALL)
        assert len(encode_state(state)) <= SMALL.max_state_bytes(64)
    assert state.events_applied <= len(events)
    assert len(state.recent_items()) <= SMALL.recent_items
    assert all(math.isfinite(item.count) for item in state.counted_items(SMALL))
    assert decode_state(encode_state(state)) == state


def test_a_full_state_stays_within_its_bound() -> None:
    settings = StateSettings()
    draw = random.Random(1)
    vector = bytes(2 * 256)
    state = InterestState(vector=vector, vector_model=2**32 - 1)
    size = 0
    for number in range(500):
        at_ms = START_MS + number * 2 * 3_600_000  # fills the panes of every window
        one = event(f"i{draw.random()}", at_ms=at_ms, category=f"{draw.random()}", offset=2**40)
        one.session = 2**62
        state.apply(one, settings)
        size = max(size, len(encode_state(state)))
    assert settings.max_state_bytes(len(vector)) - 220 < size <= settings.max_state_bytes(len(vector)) <= 2048


def test_one_id_with_another_content_is_a_conflict_and_counts_once() -> None:
    state = InterestState()

    def sent(payload: int) -> Applied:
        return state.advance(Interaction(7, 1, 10**12, (1,), (), 1.0, 0, payload=payload), SMALL)

    assert sent(500) is Applied.APPLIED
    assert sent(500) is Applied.DUPLICATE
    assert sent(501) is Applied.CONFLICT
    assert sent(0) is Applied.DUPLICATE  # content not known: nothing says that it differs
    assert state.events_applied == 1


def test_the_content_of_one_event_is_not_taken_for_the_id_of_another() -> None:
    """The ring is searched as bytes: only what begins at an entry is an id."""
    state = InterestState()
    for number, payload in ((0x0101_0101_0101, 0x0101), (0x0101_0101_0102, 0x0101)):
        assert state.apply(Interaction(number, 1, 10**12, (1,), (), 1.0, 0, payload=payload), SMALL)
    assert not state.apply(Interaction(0x0101_0101_0101, 1, 10**12, (1,), (), 1.0, 0, payload=0x0101), SMALL)
    assert state.apply(Interaction(0x0102_0101_0101, 1, 10**12, (1,), (), 1.0, 0, payload=1), SMALL)
