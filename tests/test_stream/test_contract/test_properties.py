from typing import Any

import pytest

from stream.contract.properties import MAX_CHARS, text_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("red", "red"),
        ("", ""),
        ("x" * MAX_CHARS, "x" * MAX_CHARS),
        ("x" * (MAX_CHARS + 1), ""),
        (True, "true"),
        (False, "false"),
        (42, "42"),
        (42.0, "42"),
        (4.25, "4.25"),
        (10**MAX_CHARS, ""),
        (None, ""),
        (["red"], ""),
        ({"name": "red"}, ""),
    ],
)
def test_a_property_as_text(value: Any, text: str) -> None:
    assert text_of({"color": value}, "color") == text


@pytest.mark.parametrize("properties", [None, {}, {"size": 4}])
def test_one_that_is_not_there(properties: dict[str, Any] | None) -> None:
    assert text_of(properties, "color") == ""
