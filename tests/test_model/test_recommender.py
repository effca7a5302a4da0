import copy
import dataclasses
import random

import numpy as np
import pytest

from model.artifact import Artifact, untrained_artifact
from model.ranking.features import FEATURES
from model.recommender import Portion, RankingSettings, Recommender, UserList
from state.codec import decode_state, encode_state
from state.interaction import Interaction
from state.interest import InterestState
from state.keys import key_of
from state.names import Names
from state.settings import StateSettings
from state.trend import Trend
from state.weights import DEFAULT_WEIGHTS, EVENT_TYPES
from state.window import interest_key

START_MS = 1_700_000_000_000
Log = list[tuple[bytes, Interaction]]

IDS = [f"item-{k}" for k in range(200)]
CATEGORIES = [f"category {k % 9}" for k in range(200)]
SETTINGS = StateSettings(recent_items=20, max_counted_items=12, event_id_ring=8)


def _blend() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(2)
    shapes = {"w1": (6, len(FEATURES)), "b1": (6,), "w2": (4, 6), "b2": (4,), "w3": (1, 4)}
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained_artifact(IDS, CATEGORIES, dim=16, hidden=16, rules=20)


@pytest.fixture(scope="module")
def recommender(artifact: Artifact) -> Recommender:
    return Recommender(artifact, SETTINGS, RankingSettings(trend_refresh_events=64))


def process(
    recommender: Recommender,
    batch: Log,
    states: dict[bytes, InterestState],
    trend: Trend,
    *,
    every_event: bool = False,
    names: Names | None = None,
) -> Portion:
    """One portion, processed alone."""
    portion = Portion(batch, states, trend, names or Names())
    recommender.process([portion], every_event=every_event)
    return portion


def event(
    number: int, item: str | None, kind: str = "view", *, time_ms: int | None = None, category: str = ""
) -> Interaction:
    return Interaction(
        event=key_of(f"event-{number}"),
        type=EVENT_TYPES.index(kind),
        time_ms=START_MS + number * 1000 if time_ms is None else time_ms,
        items=() if item is None else (key_of(item),),
        interests=(interest_key(category),) if item and category else (),
        names=(category,) if item and category else (),
        weight=DEFAULT_WEIGHTS[kind],
        offset=number,
    )


def a_log(events: int, seed: int = 0) -> Log:
    """Users of every kind, unknown items, events sent twice, late ones, several items at once, jumps in offsets."""
    draw = random.Random(seed)
    log: Log = []
    offset = 0
    for number in range(events):
        offset += draw.choice((1, 1, 1, 2, 150 if draw.random() < 0.02 else 1))
        if log and draw.random() < 0.04:
            user, old = draw.choice(log[-40:])
            again = copy.copy(old)
            again.offset = offset
            log.append((user, again))
            continue
        user = b"user-%d" % min(int(draw.expovariate(1 / 40)), 150)
        kind = draw.choice([*EVENT_TYPES, "view", "purchase", "purchase"])
        items = [draw.randrange(220) for _ in range(draw.choice((1, 1, 1, 3)))]
        if kind == "session_start":
            items = []
        log.append(
            (
                user,
                Interaction(
                    event=key_of(f"{seed}/{number}"),
                    type=EVENT_TYPES.index(kind),
                    time_ms=START_MS + number * 20_000 - draw.choice((0, 0, 0, 40_000_000)),
                    items=tuple(key_of(f"item-{item}") for item in items),
                    interests=tuple(interest_key(f"category {item % 9}") for item in items),
                    names=tuple(f"category {item % 9}" for item in items),
                    weight=DEFAULT_WEIGHTS[kind] * draw.choice((1, 1, 3)),
                    offset=offset,
                ),
            )
        )
    return log


def run(
    recommender: Recommender, log: Log, cuts: list[int], *, store: bool = False
) -> tuple[dict[bytes, bytes], dict[bytes, UserList]]:
    """Encoded states and the last list of every user after a log processed in pieces that end at `cuts`.

    `store`: states, trend and names go through their encoded form between the pieces, as in a worker.
    """
    states: dict[bytes, InterestState] = {}
    trend, names = recommender.new_trend(), Names()
    kept: dict[bytes, bytes] = {}
    trend_store: dict[bytes, bytes] = {}
    last: dict[bytes, UserList] = {}
    for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        if store:
            trend = Trend.load(trend_store.get, trend.half_life_s, trend.refresh_events)
            names = Names.load(trend_store.get)
            users = {user for user, _ in log[start:end]}
            states = {user: decode_state(kept[user]) for user in users if user in kept}
        done = process(recommender, log[start:end], states, trend, names=names)
        for made in done.lists:
            last[made.user] = made
        kept.update((user, encode_state(state)) for user, state in states.items())
        for key, value in [*trend.drain(), *names.drain()]:
            if value is None:
                del trend_store[key]
            else:
                trend_store[key] = value
    return kept, last


@pytest.mark.parametrize(
    ("exclude", "learnt"), [("seen", False), ("session", False), ("none", False), ("session", True)]
)
def test_states_and_lists_do_not_depend_on_the_cuts(artifact: Artifact, exclude: str, learnt: bool) -> None:
    if learnt:
        artifact = dataclasses.replace(artifact, blend=_blend())
    ranking = RankingSettings(exclude=exclude, basket_weight=0.5, trend_refresh_events=256, parts=True)  # type: ignore[arg-type]  # parametrised
    recommender = Recommender(artifact, SETTINGS, ranking)
    log = a_log(3000)
    states, lists = run(recommender, log, [])
    assert len(states) > 120
    assert {made.strategy for made in lists.values()} == {"hybrid", "popular"}
    draw = random.Random(exclude)
    for pieces in (3, 40, 700):
        cuts = sorted(draw.sample(range(1, len(log)), pieces))
        again = run(recommender, log, cuts, store=True)
        assert again[0] == states
        assert again[1] == lists  # items, scores and their parts, reasons, interests
    if exclude == "seen":
        assert run(recommender, log, list(range(1, len(log)))) == (states, lists)


def test_lists_after_every_event_are_those_of_single_events(recommender: Recommender) -> None:
    log = a_log(400, seed=4)
    together_states: dict[bytes, InterestState] = {}
    together = process(recommender, log, together_states, recommender.new_trend(), every_event=True)
    states: dict[bytes, InterestState] = {}
    trend = recommender.new_trend()
    names = Names()
    single = [process(recommender, [one], states, trend, names=names) for one in log]
    assert together.lists == [made for done in single for made in done.lists]
    assert together.duplicates == {index for index, done in enumerate(single) if done.duplicates}
    assert together_states == states
    assert [made.offset for made in together.lists] == sorted(made.offset for made in together.lists)


def test_each_user_gets_one_list_after_the_last_event_applied(recommender: Recommender) -> None:
    first, second = event(1, "item-1"), event(2, "item-2")
    again = copy.copy(first)
    again.offset = 3
    states: dict[bytes, InterestState] = {}
    done = Portion([(b"a", first), (b"b", second), (b"a", again)], states, recommender.new_trend())
    spent = recommender.process([done])
    assert [(made.user, made.offset, made.events_applied) for made in done.lists] == [(b"a", 1, 1), (b"b", 2, 1)]
    assert done.duplicates == {2}
    assert states[b"a"].last_offset == 1
    assert min(spent.state_s, spent.model_s, spent.rank_s) > 0


def test_a_duplicate_alone_changes_nothing_and_makes_no_list(recommender: Recommender) -> None:
    states: dict[bytes, InterestState] = {}
    trend = recommender.new_trend()
    process(recommender, [(b"a", event(1, "item-1"))], states, trend)
    before = encode_state(states[b"a"])
    trend.drain()
    done = process(recommender, [(b"a", event(1, "item-1"))], states, trend)
    assert (done.lists, done.duplicates) == ([], {0})
    assert encode_state(states[b"a"]) == before
    assert trend.drain() == []


def vector_after(recommender: Recommender, steps: list[tuple[int, str]]) -> bytes:
    vector = b""
    for token, kind in steps:
        (vector,) = recommender.serving.step([vector], [token], [EVENT_TYPES.index(kind)])
    return vector


def test_the_network_is_stepped_for_items_and_session_starts(recommender: Recommender) -> None:
    log = [
        event(1, None, "session_start"),
        event(2, "item-7", "purchase"),
        event(3, "no such item"),
        event(4, "item-8", "hide"),  # says what the user does not want
        event(5, "item-9", "impression"),  # says nothing
        event(6, "item-10"),
    ]
    states: dict[bytes, InterestState] = {}
    process(recommender, [(b"a", one) for one in log], states, recommender.new_trend())
    assert states[b"a"].vector == vector_after(recommender, [(200, "session_start"), (7, "purchase"), (10, "view")])
    assert states[b"a"].vector_model == recommender.artifact.checksum


def test_an_unknown_item_changes_the_state_and_not_the_vector(recommender: Recommender) -> None:
    states: dict[bytes, InterestState] = {}
    done = process(recommender, [(b"a", event(1, "telescope", category="category 3"))], states, recommender.new_trend())
    state = states[b"a"]
    assert state.vector == b""
    assert [item.key for item in state.recent_items()] == [key_of("telescope")]
    (made,) = done.lists
    assert made.strategy == "popular"
    assert made.interests[0].name == "category 3"
    assert "telescope" not in {item.item_id for item in made.items}


def test_a_vector_of_another_model_is_rebuilt_from_the_recent_items(recommender: Recommender) -> None:
    states: dict[bytes, InterestState] = {}
    trend = recommender.new_trend()
    history = [event(1, None, "session_start"), event(2, "item-3"), event(3, "item-4", "dislike"), event(4, "item-5")]
    process(recommender, [(b"a", one) for one in history], states, trend)
    own = states[b"a"].vector
    states[b"a"].vector, states[b"a"].vector_model = bytes(12), 12345
    process(recommender, [(b"a", event(5, "item-6"))], states, trend)
    assert states[b"a"].vector == recommender.serving.step([own], [6], [1])[0]
    assert states[b"a"].vector_model == recommender.artifact.checksum


def test_the_trend_learns_what_was_applied(recommender: Recommender) -> None:
    trend = recommender.new_trend()
    log = [event(1, "item-1", "purchase"), event(1, "item-1", "purchase"), event(2, "item-2", "hide")]
    process(recommender, [(b"a", one) for one in log], {}, trend)
    trend.enter(64)
    assert trend.snapshot == {key_of("item-1"): DEFAULT_WEIGHTS["purchase"]}


def test_absorb_is_process_without_lists(recommender: Recommender) -> None:
    log = a_log(500, seed=9)
    states: dict[bytes, InterestState] = {}
    trend = recommender.new_trend()
    done = Portion(log, states, trend)
    recommender.absorb(done)
    expected: dict[bytes, InterestState] = {}
    expected_trend = recommender.new_trend()
    full = process(recommender, log, expected, expected_trend)
    assert done.lists == []
    assert done.duplicates == full.duplicates
    assert states == expected
    assert (trend.epoch, trend.snapshot) == (expected_trend.epoch, expected_trend.snapshot)


def test_an_empty_batch_is_nothing(recommender: Recommender) -> None:
    done = process(recommender, [], {}, recommender.new_trend())
    assert (done.lists, done.duplicates) == ([], set())


@pytest.mark.parametrize("blend", [None, _blend()])
@pytest.mark.parametrize("every_event", [False, True])
def test_portions_of_several_partitions_give_together_what_they_give_alone(artifact, blend, every_event) -> None:
    """Each has a popularity of its own, and a user of the same name in two partitions is two."""
    recommender = Recommender(
        dataclasses.replace(artifact, blend=blend), SETTINGS, RankingSettings(trend_refresh_events=16)
    )

    def portions() -> list[Portion]:
        sizes = [150, 3, 0, 70]
        return [Portion(a_log(size, seed), {}, recommender.new_trend()) for seed, size in enumerate(sizes)]

    together, alone = portions(), portions()
    recommender.process(together, every_event=every_event)
    for portion in alone:
        recommender.process([portion], every_event=every_event)
    for one, other in zip(together, alone, strict=True):
        assert one.lists == other.lists
        assert one.duplicates == other.duplicates
        assert {user: encode_state(state) for user, state in one.states.items()} == {
            user: encode_state(state) for user, state in other.states.items()
        }
        assert one.trend.drain() == other.trend.drain()


def test_a_state_older_than_its_limit_begins_anew_in_the_middle_of_a_batch(recommender: Recommender) -> None:
    """As after an erasure between the second event and the third: the rest is as if the first two had never been."""
    log = [(b"a", interaction) for _, interaction in a_log(6, seed=3)]
    alone: dict[bytes, InterestState] = {}
    expected = process(recommender, log[2:], alone, recommender.new_trend()).lists
    portion = Portion(log, {}, recommender.new_trend(), keep_since_ms=[-1, -1, 2**63 - 1, -1, -1, -1])
    recommender.process([portion])
    assert encode_state(portion.states[b"a"]) == encode_state(alone[b"a"])
    assert [made.events_applied for made in portion.lists] == [made.events_applied for made in expected]


def test_lists_of_both_states_are_made_where_every_event_gets_one(recommender: Recommender) -> None:
    log = [(b"a", interaction) for _, interaction in a_log(5, seed=4)]
    portion = Portion(log, {}, recommender.new_trend(), keep_since_ms=[-1, -1, 2**63 - 1, -1, -1])
    recommender.process([portion], every_event=True)
    assert [made.events_applied for made in portion.lists] == [1, 2, 1, 2, 3]
    before = Portion(log[:2], {}, recommender.new_trend())
    recommender.process([before], every_event=True)
    assert portion.lists[:2] == before.lists
