"""A shop of eight items in which every signal can be set by hand, and states made from a few events.

    token     0     1      2       3      4      5     6      7
    item      milk  bread  butter  jam    hammer nails screws unsold
    category  food  food   food    food   tools  tools tools  (none)

Rules: milk -> bread, milk -> butter, bread -> butter, hammer -> nails. Baskets: bread + jam.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from model.artifact import Artifact, untrained_artifact
from model.ranking.block import Block, Request
from model.ranking.fallback import Popular
from model.ranking.index import ItemIndex
from state.interaction import Interaction
from state.interest import InterestState
from state.keys import key_of
from state.settings import StateSettings
from state.weights import DEFAULT_WEIGHTS, TYPE_CODES
from state.window import interest_key

ITEMS = ["milk", "bread", "butter", "jam", "hammer", "nails", "screws", "unsold"]
START_MS = 1_700_000_000_000
NAMES = {interest_key(name): name for name in ("food", "tools")}

MakeRequest = Callable[..., Request]
MakeBlock = Callable[..., Block]


@pytest.fixture
def artifact() -> Artifact:
    """The network's scores are zero for every item, so that a test's list is decided by what it is about."""
    made = untrained_artifact(ITEMS, ["food"] * 4 + ["tools"] * 3 + [""], dim=8, hidden=8)
    to = np.full((8, 2), -1, np.int32)
    weight = np.zeros((8, 2), np.float32)
    to[0], weight[0] = (1, 2), (0.6, 0.4)
    to[1, 0], weight[1, 0] = 2, 0.5
    to[4, 0], weight[4, 0] = 5, 0.3
    basket = np.full((8, 1), -1, np.int32)
    basket_weight = np.zeros((8, 1), np.float32)
    basket[1], basket[3] = 3, 1
    basket_weight[1] = basket_weight[3] = 0.9
    return dataclasses.replace(
        made,
        item_names=[item.title() for item in ITEMS],
        item_matrix=np.zeros((8, made.dim), np.float32),
        item_bias=np.zeros(8, np.float32),
        rules_to=to,
        rules_weight=weight,
        basket_to=basket,
        basket_weight=basket_weight,
        popularity=np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05, 0.0], np.float32),
    )


@pytest.fixture
def state_settings() -> StateSettings:
    return StateSettings(recent_items=6, max_counted_items=5, count_half_life_s=86_400)


@pytest.fixture
def popular(artifact: Artifact) -> Popular:
    return Popular(artifact.popularity, shown_as_popular=3)


@pytest.fixture
def make_request(state_settings: StateSettings, popular: Popular) -> MakeRequest:
    """make_request("view milk", "session_start", "purchase bread") -> a Request, events a minute apart."""

    def make(*events: str, user: bytes = b"user") -> Request:
        state = InterestState()
        last = Interaction(1, 0, START_MS, (), (), 0.0, 0)
        for number, text in enumerate(events):
            type_name, _, item = text.partition(" ")
            categories = {"hammer": "tools", "nails": "tools", "drill": "tools", "milk": "food"}
            last = Interaction(
                event=number + 1,
                type=TYPE_CODES[type_name],
                time_ms=START_MS + number * 60_000,
                items=(key_of(item),) if item else (),
                interests=(interest_key(categories[item]),) if item in categories else (),
                weight=DEFAULT_WEIGHTS[type_name],
                offset=number,
            )
            state.apply(last, state_settings)
        return Request(user, last, state, popular, NAMES)

    return make


@pytest.fixture
def make_block(artifact: Artifact, state_settings: StateSettings, make_request: MakeRequest) -> MakeBlock:
    """make_block(["view milk"], ["purchase jam", "hide jam"]) -> a Block of two users."""

    def make(*users: list[str]) -> Block:
        return Block([make_request(*events) for events in users], ItemIndex(artifact.item_ids), state_settings)

    return make
