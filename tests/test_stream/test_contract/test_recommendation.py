"""A list goes out and comes back the same; its id says where it came from, not whose it is."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ranking.lists import PARTS, Interest, RankedItem, Reason
from stream.contract.event import Experiment
from stream.contract.recommendation import (
    ModelRef,
    Recommendation,
    Source,
    decode_recommendation,
    encode_recommendation,
    recommendation_id,
)
from stream.errors import ContractError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**63 - 1)
reasons = st.builds(Reason, texts, st.none() | texts, st.none() | texts, st.none() | texts, st.none() | texts)
lists = st.builds(
    Recommendation,
    recommendation_id=texts,
    user_id=texts,
    generated_at=texts,
    trigger_event_id=texts,
    events_applied=counts,
    source=st.builds(Source, texts, st.integers(0, 10_000), counts),
    model=st.builds(ModelRef, texts, texts),
    strategy=st.sampled_from(["hybrid", "popular"]),
    interests=st.lists(st.builds(Interest, texts, numbers, numbers), max_size=3),
    items=st.lists(
        st.builds(RankedItem, texts, counts, numbers, st.lists(reasons, max_size=2), st.lists(numbers, max_size=4)),
        max_size=4,
    ),
    parts=st.just(()) | st.just(PARTS),
    experiment=st.none() | st.builds(Experiment, texts, texts),
)


@given(lists)
def test_what_is_encoded_is_decoded(recommendation: Recommendation) -> None:
    assert decode_recommendation(encode_recommendation(recommendation)) == recommendation


def test_on_the_wire() -> None:
    value = encode_recommendation(
        Recommendation(
            recommendation_id="3-7-ab",
            user_id="u1",
            generated_at="2026-01-02T03:04:05.123Z",
            trigger_event_id="e1",
            events_applied=2,
            source=Source("driftline.events.v1", 3, 7),
            model=ModelRef("glr", "1"),
            strategy="hybrid",
            interests=[Interest("Shoes", 1.5, 0.75, "rising", 1_767_000_000, 1_767_323_045)],
            items=[RankedItem("i1", 1, 0.5, [Reason("because_of", item_id="i0", event_type="view")])],
        )
    )
    assert msgspec.json.decode(value) == {
        "recommendation_id": "3-7-ab",
        "user_id": "u1",
        "generated_at": "2026-01-02T03:04:05.123Z",
        "trigger_event_id": "e1",
        "events_applied": 2,
        "source": {"topic": "driftline.events.v1", "partition": 3, "offset": 7},
        "model": {"name": "glr", "version": "1"},
        "strategy": "hybrid",
        "interests": [
            {
                "name": "Shoes",
                "weight": 1.5,
                "share": 0.75,
                "trend": "rising",
                "first_seen_s": 1_767_000_000,
                "last_seen_s": 1_767_323_045,
            }
        ],
        "items": [
            {
                "item_id": "i1",
                "rank": 1,
                "score": 0.5,
                "reasons": [{"type": "because_of", "item_id": "i0", "event_type": "view"}],
            }
        ],
    }


def test_parts_of_the_scores_on_the_wire() -> None:
    value = encode_recommendation(
        Recommendation(
            recommendation_id="3-7-ab",
            user_id="u1",
            generated_at="2026-01-02T03:04:05.123Z",
            trigger_event_id="e1",
            events_applied=2,
            source=Source("t", 3, 7),
            model=ModelRef("glr", "1"),
            strategy="hybrid",
            interests=[],
            items=[RankedItem("i1", 1, 4.2, [Reason("popular")], [3.1, 1.25, 0.0, -0.15])],
            parts=PARTS,
        )
    )
    read = msgspec.json.decode(value)
    assert read["parts"] == ["network", "rules", "personal", "popularity"]
    assert read["items"][0]["parts"] == [3.1, 1.25, 0.0, -0.15]


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"\xff", b'{"user_id":"\xff"}', b"[" * 100_000])
def test_no_list(value: bytes) -> None:
    with pytest.raises(ContractError, match="recommendations topic"):
        decode_recommendation(value)


def test_id_is_stable() -> None:
    # Written down: readers keep these ids, so another formula is another version of the contract.
    assert recommendation_id(b"jane@example.com", 3, 1234) == "3-1234-9c0bb1c963b80f7c"


def test_id_differs_with_each_of_its_parts_and_hides_the_user() -> None:
    ids = {
        recommendation_id(key, partition, offset)
        for key in (b"jane", b"john", b"", b"\xff")
        for partition in (0, 1, 11)
        for offset in (0, 1, 11, 2**63 - 1)
    }
    assert len(ids) == 4 * 3 * 4
    assert not any("jane" in text for text in ids)
    # The same user has another hash in each list.
    assert recommendation_id(b"jane", 1, 1)[-16:] != recommendation_id(b"jane", 1, 2)[-16:]
