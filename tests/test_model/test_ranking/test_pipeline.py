import dataclasses

import pytest

from model.ranking.fallback import Popular
from model.ranking.index import ItemIndex
from model.ranking.pipeline import Pipeline
from model.ranking.rerank import LogLinear
from model.ranking.settings import RankingSettings
from model.serving import BLOCK, Serving


@pytest.fixture
def rank(artifact, state_settings, make_request):
    """rank([events], [events], exclude=...) -> the users' lists."""

    def made(*users: list[str], **ranking):
        settings = RankingSettings(**{"list_size": 4, "exclude": "none", **ranking})
        pipeline = Pipeline(artifact, ItemIndex(artifact.item_ids), Serving(artifact), state_settings, settings)
        requests = [make_request(*events, user=b"user-%d" % n) for n, events in enumerate(users)]
        return pipeline.rank(requests)

    return made


def test_a_list_names_its_user_event_and_state(rank) -> None:
    first, second = rank(["view milk"], ["view hammer", "view nails"])
    assert (first.user, second.user) == (b"user-0", b"user-1")
    assert (first.events_applied, second.events_applied) == (1, 2)
    assert second.offset == second.event.offset == 1
    assert first.strategy == "hybrid"
    assert [item.rank for item in first.items] == [1, 2, 3, 4]
    scores = [item.score for item in first.items]
    assert scores == sorted(scores, reverse=True)
    assert second.interests[0].name == "tools"


def test_rules_and_popularity_decide_where_the_network_does_not(rank) -> None:
    (made,) = rank(["view milk"], exclude="seen")
    assert [item.item_id for item in made.items] == ["bread", "butter", "jam", "hammer"]
    assert [item.reasons[0].type for item in made.items[:2]] == ["because_of"] * 2


@pytest.mark.parametrize(
    ("exclude", "missing"),
    [("seen", {"milk", "bread", "jam"}), ("session", {"bread", "jam"}), ("none", {"jam"})],
)
def test_what_is_excluded_is_on_no_list(rank, exclude, missing) -> None:
    events = ["purchase milk", "view jam", "hide jam", "session_start", "view bread"]
    (made,) = rank(events, exclude=exclude, list_size=8)
    assert {"milk", "bread", "jam"} - {item.item_id for item in made.items} == missing
    assert len(made.items) == 8 - len(missing)


def test_a_user_of_nothing_known_gets_the_popular_list(rank) -> None:
    stranger, newcomer = rank(["view telescope"], ["session_start"])
    for made in (stranger, newcomer):
        assert made.strategy == "popular"
        assert [item.item_id for item in made.items] == ["milk", "bread", "butter", "jam"]
        assert {item.reasons[0].type for item in made.items} == {"popular"}


def test_an_unknown_item_of_a_known_category_raises_that_category(rank) -> None:
    (made,) = rank(["view drill"])
    assert made.strategy == "popular"
    assert [item.item_id for item in made.items[:3]] == ["hammer", "nails", "screws"]
    assert made.items[0].reasons[0].category == "tools"


def test_a_list_is_never_empty(rank) -> None:
    everything = [f"view {item}" for item in ("milk", "bread", "butter", "jam", "hammer", "nails", "screws", "unsold")]
    (made,) = rank(everything, exclude="seen")
    # A state of five counts and six recent items has lost sight of the first two.
    assert {item.item_id for item in made.items} == {"milk", "bread"}
    (all_hidden,) = rank([*everything, *everything], exclude="seen", list_size=3)
    assert len(all_hidden.items) >= 1


def test_when_all_is_excluded_the_popular_list_steps_in(artifact, popular) -> None:
    from state.settings import StateSettings

    pipeline = Pipeline(
        artifact,
        ItemIndex(artifact.item_ids),
        Serving(artifact),
        StateSettings(),
        RankingSettings(list_size=3, exclude="seen"),
    )
    from model.ranking.block import Request
    from state.interaction import Interaction
    from state.interest import InterestState
    from state.keys import key_of

    state = InterestState()
    for number, item in enumerate(artifact.item_ids):
        event = Interaction(number + 1, 5, 10**12, (key_of(item),), ("",), 8.0, number)
        state.apply(event, StateSettings())
    (made,) = pipeline.rank([Request(b"u", event, state, popular)])
    assert made.strategy == "popular"
    assert [item.item_id for item in made.items] == ["milk", "bread", "butter"]


def test_a_catalogue_smaller_than_the_list_gives_all_of_it(rank) -> None:
    (made,) = rank(["view milk"], list_size=50)
    assert len(made.items) == 8
    assert [item.rank for item in made.items] == list(range(1, 9))


def test_more_requests_than_a_block_keep_their_order(rank) -> None:
    lists = rank(*[["view milk"] if number % 3 else ["view hammer"] for number in range(150)])
    assert [made.user for made in lists] == [b"user-%d" % number for number in range(150)]
    assert lists[0].items == lists[147].items != lists[1].items == lists[149].items


def test_lists_do_not_depend_on_the_size_of_a_block(monkeypatch, rank) -> None:
    users = [["view milk"], ["purchase hammer", "view bread"], ["session_start"], ["hide milk", "like jam"]] * 50
    together = rank(*users)
    monkeypatch.setattr(LogLinear, "ROWS", BLOCK)
    assert rank(*users) == together


def test_no_request_is_no_list(rank) -> None:
    assert rank() == []


def test_equal_scores_go_by_the_items_order(artifact, state_settings, make_request) -> None:
    import numpy as np

    flat = dataclasses.replace(artifact, popularity=np.full(8, 1 / 8, np.float32))
    pipeline = Pipeline(
        flat, ItemIndex(flat.item_ids), Serving(flat), state_settings, RankingSettings(list_size=4, exclude="seen")
    )
    request = make_request("view screws")
    request.popular = Popular(flat.popularity, shown_as_popular=3)
    (made,) = pipeline.rank([request])
    assert [item.item_id for item in made.items] == ["milk", "bread", "butter", "jam"]
