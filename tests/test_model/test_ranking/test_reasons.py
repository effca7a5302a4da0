import numpy as np
import pytest

from model.ranking.lists import Reason
from model.ranking.reasons import BOUGHT, FOR_YOU, POPULAR, ReasonCodes
from state.weights import EVENT_TYPES, TYPE_CODES


@pytest.fixture
def codes(artifact) -> ReasonCodes:
    return ReasonCodes(artifact, ["food", "tools"])


def test_each_code_is_one_reason(codes) -> None:
    tokens, types = np.array([0, 7]), np.array([TYPE_CODES["view"], TYPE_CODES["session_start"]], np.uint8)
    asked = np.concatenate(
        [
            [FOR_YOU, POPULAR, BOUGHT],
            codes.interest_in(np.array([0, 1])),
            codes.often_together(tokens),
            codes.because_of(tokens, types),
        ]
    )
    assert [reason for (reason,) in codes.lists(asked)] == [
        Reason("for_you"),
        Reason("popular"),
        Reason("bought_before"),
        Reason("interest_in", category="food"),
        Reason("interest_in", category="tools"),
        Reason("often_together", item_id="milk", item_name="Milk"),
        Reason("often_together", item_id="unsold", item_name="Unsold"),
        Reason("because_of", item_id="milk", item_name="Milk", event_type="view"),
        Reason("because_of", item_id="unsold", item_name="Unsold", event_type="session_start"),
    ]
    assert len(set(asked.tolist())) == len(asked)


def test_equal_codes_share_one_list(codes) -> None:
    first, second = codes.lists(np.array([POPULAR, POPULAR]))
    assert first is second is codes.lists(np.array([POPULAR]))[0]


def test_a_type_unknown_here_is_left_open(codes) -> None:
    unknown = np.array([len(EVENT_TYPES), 255], np.uint8)
    made = codes.lists(codes.because_of(np.array([7, 7]), unknown))
    assert made == [[Reason("because_of", item_id="unsold", item_name="Unsold")]] * 2
