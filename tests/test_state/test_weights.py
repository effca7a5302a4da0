from state.weights import DEFAULT_WEIGHTS, EVENT_TYPES, NEGATIVE_TYPES, STRENGTH, TYPE_CODES


def test_the_codes_of_event_types_never_change() -> None:
    # States and artifacts hold them. A new type goes to the end.
    assert EVENT_TYPES[:11] == (
        "impression",
        "view",
        "click",
        "add_to_cart",
        "remove_from_cart",
        "purchase",
        "like",
        "dislike",
        "hide",
        "rating",
        "session_start",
    )


def test_weights_rise_with_commitment_and_cover_every_type() -> None:
    assert set(DEFAULT_WEIGHTS) == set(EVENT_TYPES)
    rising = ["impression", "view", "click", "like", "add_to_cart", "purchase"]
    weights = [DEFAULT_WEIGHTS[name] for name in rising]
    assert weights == sorted(set(weights))
    assert {TYPE_CODES[name] for name, weight in DEFAULT_WEIGHTS.items() if weight < 0} == NEGATIVE_TYPES
    assert DEFAULT_WEIGHTS["session_start"] == 0.0


def test_strength_orders_types_and_takes_any_byte() -> None:
    assert STRENGTH[TYPE_CODES["purchase"]] == max(STRENGTH)
    assert STRENGTH[TYPE_CODES["click"]] > STRENGTH[TYPE_CODES["view"]]
    assert len(STRENGTH) == 256
