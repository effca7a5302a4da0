import dataclasses

import msgspec
import numpy as np
import pytest

from model.ranking.block import Block, Request
from model.ranking.candidates import Candidates, Scores
from model.ranking.explain import INTERESTS, Explainer
from model.ranking.fallback import Popular
from model.ranking.index import ItemIndex
from model.ranking.lists import Interest, Reason
from model.ranking.settings import RankingSettings
from model.serving import Serving
from state.interaction import Interaction
from state.interest import InterestState
from state.keys import key_of
from state.names import interest_name
from state.settings import StateSettings
from state.window import Window, WindowSettings, interest_key

MILK, BREAD, BUTTER, JAM, HAMMER, NAILS, SCREWS, UNSOLD = range(8)


@pytest.fixture
def popular(artifact):
    return Popular(artifact.popularity, shown_as_popular=1)


@pytest.fixture
def reasons_of(artifact, state_settings, make_block):
    """reasons_of([events], tokens, personal=True) -> {token: Reason} of the first user."""
    ranking = RankingSettings(rules_age_decay=0.5)
    serving = Serving(artifact)
    candidates = Candidates(artifact, serving, ranking)
    explainer = Explainer(artifact, state_settings, serving.width)

    def reasons(events: list[str], tokens: list[int], *, personal: bool = True) -> dict[int, Reason]:
        # The user asked about is the second, so that a mistake in rows shows.
        block = make_block(["view milk", "view hammer"], events)
        listed = np.tile(np.array(tokens, np.int64), (2, 1))
        # All scores are equal: none of the listed items is too low to be looked up.
        values, lowest = np.zeros((2, serving.width), np.float32), np.zeros(2, np.float32)
        scores = Scores(iter([values]), candidates.rules(block), candidates.basket(block))
        found = explainer.find(block, 0, values, listed, lowest, scores, personal=personal)
        made = explainer.reasons(block, listed, scores, found, explainer.interests(block))
        assert len(made) == 2 * len(tokens)
        return {token: why[0] for token, why in zip(tokens, made[len(tokens) :], strict=True)}

    return reasons


def test_each_reason_and_the_order_of_their_strength(reasons_of) -> None:
    events = ["purchase screws", "view hammer", "session_start", "view bread", "view nails"]
    assert reasons_of(events, [SCREWS, BUTTER, JAM, HAMMER, NAILS, MILK, UNSOLD]) == {
        SCREWS: Reason("bought_before"),
        # By age the bread's rule (butter) weighs most; nails itself has none.
        BUTTER: Reason("because_of", item_id="bread", item_name="Bread", event_type="view"),
        JAM: Reason("often_together", item_id="bread", item_name="Bread"),
        # Viewed and not bought: because it was viewed.
        HAMMER: Reason("because_of", item_id="hammer", item_name="Hammer", event_type="view"),
        NAILS: Reason("because_of", item_id="nails", item_name="Nails", event_type="view"),
        MILK: Reason("popular"),
        UNSOLD: Reason("for_you"),
    }


def test_an_interest_explains_the_items_of_its_category(reasons_of) -> None:
    found = reasons_of(["view drill"], [HAMMER, NAILS, BUTTER])  # drill is unknown, its category is not
    assert found[HAMMER] == found[NAILS] == Reason("interest_in", category="tools")
    assert found[BUTTER] == Reason("for_you")


def test_the_strongest_rule_is_named(reasons_of) -> None:
    # milk -> butter .4, bread -> butter .5: an item older counts half.
    assert reasons_of(["view bread", "view milk"], [BUTTER])[BUTTER].item_id == "milk"
    assert reasons_of(["view milk", "purchase bread"], [BUTTER])[BUTTER] == Reason(
        "because_of", item_id="bread", item_name="Bread", event_type="purchase"
    )


def test_what_the_user_hid_is_no_reason(reasons_of) -> None:
    assert reasons_of(["view bread", "hide milk"], [MILK])[MILK] == Reason("popular")


def test_without_personal_items_on_lists_none_is_explained_so(reasons_of) -> None:
    assert reasons_of(["purchase screws"], [SCREWS], personal=False)[SCREWS] == Reason("for_you")


def test_one_list_leaves_nothing_for_the_next(reasons_of) -> None:
    reasons_of(["view bread"], [BUTTER, JAM, HAMMER])
    assert reasons_of([], [BUTTER, JAM, HAMMER]) == dict.fromkeys([BUTTER, JAM, HAMMER], Reason("for_you"))


def test_interests_are_the_strongest_categories_with_their_shares(artifact, state_settings, make_block) -> None:
    explainer = Explainer(artifact, state_settings, 128)
    block = make_block(["view milk", "view hammer", "view hammer", "view hammer"], [], ["hide milk"])
    shown = explainer.interests(block).shown
    assert shown[0] == [
        # In half hour, day and month, which count 16, 4 and 1 times.
        Interest("tools", 3.0 * 21, 0.75, "steady", shown[0][0].first_seen_s, shown[0][0].last_seen_s),
        Interest("food", 1.0 * 21, 0.25, "steady", shown[0][1].first_seen_s, shown[0][1].last_seen_s),
    ]
    newest_s = block.requests[0].state.last_time_ms // 1000
    assert newest_s - 600 < shown[0][0].first_seen_s <= newest_s
    assert shown[0][0].last_seen_s == newest_s
    assert shown[1:] == [[], []]
    assert len(shown[0]) <= INTERESTS


def test_interests_come_from_whatever_windows_the_settings_have(artifact) -> None:
    settings = StateSettings(windows=WindowSettings((Window("visit", 3600, 600, cells=5),)))
    state = InterestState()
    event = Interaction(1, 1, 1_700_000_000_000, (key_of("milk"),), (interest_key("food"),), 1.0, 0)
    state.apply(event, settings)
    request = Request(b"u", event, state, Popular(artifact.popularity, 3), {interest_key("food"): "food"})
    block = Block([request], ItemIndex(artifact.item_ids), settings)
    ((food,),) = Explainer(artifact, settings, 128).interests(block).shown
    assert (food.name, food.weight, food.share, food.trend) == ("food", 1.0, 1.0, "steady")


def test_brands_are_shown_as_such_and_take_nothing_from_what_explains_an_item(artifact) -> None:
    settings = StateSettings(interests=("category", "brand"))
    state, names = InterestState(), {}
    # Food is one view of nine, and one cell of eighteen: enough to explain an item, as without brands.
    for number, category in enumerate(["food", *["tools"] * 8]):
        texts = (category, interest_name("food", "brand"))
        names |= {interest_key(text): text for text in texts}
        keys = tuple(map(interest_key, texts))
        event = Interaction(number + 1, 1, 1_700_000_000_000, (key_of("milk"),), keys, 1.0, number)
        state.apply(event, settings)
    request = Request(b"u", event, state, Popular(artifact.popularity, 3), names)
    found = Explainer(artifact, settings, 128).interests(Block([request], ItemIndex(artifact.item_ids), settings))
    assert [(one.kind, one.name, one.share) for one in found.shown[0]] == [
        ("brand", "food", 0.5),
        ("", "tools", 0.4444),
        ("", "food", 0.0556),
    ]
    assert found.explains.tolist() == [[True, True, False]]


def test_a_category_raises_its_items_whatever_is_shown_of_its_name(artifact, state_settings) -> None:
    """A vocabulary cuts names, and has no room for all: the key is what counts."""
    long = "tools " * 20
    artifact = dataclasses.replace(artifact, item_categories=["food"] * 4 + [long] * 3 + [""])
    state = InterestState()
    event = Interaction(1, 1, 1_700_000_000_000, (key_of("drill"),), (interest_key(long),), 1.0, 0)
    state.apply(event, state_settings)
    other = InterestState()
    other.apply(event, state_settings)
    popular = Popular(artifact.popularity, 3)
    requests = [Request(b"u", event, one, popular, {}) for one in (InterestState(), state, other)]
    explainer = Explainer(artifact, state_settings, 128)
    points = explainer.interests(Block(requests, ItemIndex(artifact.item_ids), state_settings)).points
    assert explainer.category_boost(points, 0).tolist() == [0.0] * 8
    assert explainer.category_boost(points, 1).tolist() == [0.0] * 4 + [1.0] * 3 + [0.0]
    assert explainer.category_boost(points, 2).tolist() == explainer.category_boost(points, 1).tolist()


def test_a_reason_on_the_wire_holds_what_it_has() -> None:
    assert msgspec.json.encode(Reason("popular")) == b'{"type":"popular"}'
