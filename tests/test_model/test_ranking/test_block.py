import random

import msgspec
import numpy as np
import pytest

from model.ranking.block import Block
from model.ranking.index import ItemIndex
from state.features import FeatureReader
from state.interaction import Interaction
from state.interest import InterestState
from state.settings import StateSettings
from state.weights import TYPE_CODES, WeightSettings


def test_lists_of_users_become_rows(make_block) -> None:
    block = make_block(["view milk", "purchase drill", "view bread"], [])
    assert block.rows == 2
    # Six places, the newest last; token 8 is "none, or unknown".
    assert block.recent_tokens[0].tolist() == [8, 8, 8, 0, 8, 1]
    assert block.recent_types[0, -2] == TYPE_CODES["purchase"]
    assert (block.recent_tokens[1:] == 8).all()
    assert block.count_tokens[0].tolist() == [0, 8, 1, 8, 8]
    assert block.count_age_s[0, :3].tolist() == [120, 60, 0]
    assert block.known.tolist() == [True, False]


def test_counts_are_decayed_to_the_users_newest_event(make_block) -> None:
    block = make_block(["purchase milk", *["view bread"] * 3])
    # Half-life a day, so three minutes take nearly nothing.
    assert block.counts[0, :2] == pytest.approx([8.0 * 2 ** -(180 / 86_400), 3.0], rel=1e-3)


def test_counts_are_decayed_by_their_types_as_the_state_itself_reads_them(make_request, artifact) -> None:
    own = StateSettings(max_counted_items=5, count_half_lives_s={"view": 60, "purchase": 86_400 * 400, "hide": 7})
    state, rng = InterestState(), random.Random(3)
    kinds, at_ms = ["view", "purchase", "hide", "like", "view"], 1_700_000_000_000
    for number in range(40):
        at_ms += rng.randrange(120) * 1000
        kind = rng.choice(kinds)
        event = Interaction(number + 1, TYPE_CODES[kind], at_ms, (rng.randrange(1, 8),), (), 3.0, number)
        state.apply(event, own)
    request = msgspec.structs.replace(make_request(), state=state)
    block = Block([request], ItemIndex(artifact.item_ids), own)
    assert block.counts[0] == pytest.approx([item.count for item in state.counted_items(own)], rel=1e-5)
    reader = FeatureReader(own, WeightSettings())
    shares = reader.read([state], [at_ms], np.array([[item.key for item in state.counted_items(own)]], np.uint64)).pairs
    column = [feature.name for feature in reader.pair].index("count_share")
    total = np.abs(block.counts[0]).sum()
    assert shares[0, :, column] == pytest.approx(block.counts[0] / total, rel=1e-5)


def test_a_user_of_unknown_items_only_is_unknown(make_block) -> None:
    block = make_block(["view drill", "session_start"], ["session_start"], ["hide milk"])
    assert block.known[:3].tolist() == [False, False, True]


def test_last_items_are_the_known_ones_that_speak_for_themselves(make_block) -> None:
    block = make_block(
        ["view milk", "view bread", "hide jam", "session_start", "view drill", "view hammer"], ["like nails"]
    )
    last = block.last_items(4, of_session=False)
    assert last.tokens.tolist() == [4, 1, 0, 5]
    assert last.rows.tolist() == [0, 0, 0, 1]
    assert last.ages.tolist() == [0, 1, 2, 0]
    assert last.types.tolist() == [TYPE_CODES["view"]] * 3 + [TYPE_CODES["like"]]
    assert block.last_items(4, of_session=True).tokens.tolist() == [4, 5]
    assert block.last_items(2, of_session=False).tokens.tolist() == [4, 1, 5]


def test_a_session_longer_than_the_recent_list_goes_on_in_the_counts(make_block) -> None:
    block = make_block(["view milk", "session_start", "view bread", *["view jam"] * 6])
    assert 1 not in block.recent_tokens[0]
    in_session = block.count_tokens[0][block.counted_in_session[0]]
    # Milk was before the session; its place in time tells it apart.
    assert sorted(set(in_session.tolist()) - {8}) == [1, 3]


def test_a_fuller_state_than_the_settings_allow_is_cut(make_block, make_request, artifact, state_settings) -> None:
    request = make_request("view milk", "view bread", "view jam")
    small = StateSettings(recent_items=2, max_counted_items=1)
    block = Block([request], ItemIndex(artifact.item_ids), small)
    assert block.recent_tokens[0].tolist() == [1, 3]
    assert block.count_tokens.shape == (1, 1)
    assert np.isfinite(block.counts).all()
