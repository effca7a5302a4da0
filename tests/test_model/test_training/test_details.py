import pytest

from model.training.details import ItemDetails, price_of

EVENT = ItemDetails("Assam", "tea", "tea", "acme", 5.0, "black")


def test_what_one_source_tells_goes_before_another_and_fills_its_gaps() -> None:
    listed = ItemDetails(category="leaf", path="drinks > leaf", price=7.0)
    assert listed.over(EVENT) == ItemDetails("Assam", "leaf", "drinks > leaf", "acme", 7.0, "black")
    assert ItemDetails().over(EVENT) == EVENT
    assert EVENT.over(listed) == EVENT


def test_a_category_without_a_path_does_not_take_anothers() -> None:
    assert ItemDetails(category="cups").over(ItemDetails(category="leaf", path="drinks > leaf")).path == ""


@pytest.mark.parametrize(
    ("value", "price"),
    [(5, 5.0), ("2.5", 2.5), (None, None), ("", None), (0, None), (-1.0, None), ("nan", None), (float("inf"), None)],
)
def test_prices(value: float | str | None, price: float | None) -> None:
    assert price_of(value) == price


def test_a_text_that_is_no_price() -> None:
    with pytest.raises(ValueError, match="9,99"):
        price_of("9,99")
