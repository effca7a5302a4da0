"""Features of items, and what they add to embeddings."""

import numpy as np
import pytest
import torch

from model.content import PRICE_BUCKETS, TEXT_WORDS, Content, item_features


def test_features_shared_by_items_are_named_and_those_of_one_item_left_out() -> None:
    features = item_features(
        ["a", "b", "c", "d"],
        ["Red shoe", "Blue SHOE", "c", "Hat, red"],
        ["wear > shoes", "wear/shoes", "", "wear|hats"],
        ["acme", "acme", "", "solo"],
    )
    assert features.of(0) == ["brand=acme", "category=wear", "category=wear > shoes", "word=red", "word=shoe"]
    assert features.of(1) == ["brand=acme", "category=wear", "category=wear > shoes", "word=shoe"]
    assert features.of(2) == []
    assert features.of(3) == ["category=wear", "word=red"]


def test_a_name_that_repeats_the_id_has_no_words() -> None:
    assert item_features(["red 1", "red 2"], ["red 1", "red 2"], ["", ""]).names == []


def test_prices_fall_into_buckets_of_equal_size_and_unknown_ones_into_none() -> None:
    n = 10 * PRICE_BUCKETS
    prices = np.append(np.arange(1.0, n + 1), [np.nan, -1.0, 0.0])
    ids = [str(k) for k in range(len(prices))]
    features = item_features(ids, ids, [""] * len(ids), prices=prices)
    counts = np.bincount(features.feature)
    assert len(counts) == PRICE_BUCKETS
    assert counts.min() >= 9
    assert counts.max() <= 11
    for unknown in range(n, n + 3):
        assert features.of(unknown) == []


@pytest.mark.parametrize("price", [5.0, float("nan")])
def test_equal_or_unknown_prices_make_no_error(price: float) -> None:
    features = item_features(["a", "b"], ["a", "b"], ["", ""], prices=np.array([price, price]))
    assert features.of(0) == features.of(1)


def test_the_sum_of_an_items_features_is_scaled_by_their_number() -> None:
    features = item_features(["a", "b", "c"], ["x y", "x y", "x"], ["", "", ""])
    content = Content(features, 4)
    assert torch.equal(content(), torch.zeros(3, 4))  # nothing before it is trained
    torch.nn.init.normal_(content.table.weight)
    table = dict(zip(features.names, content.table.weight, strict=True))
    out = content()
    torch.testing.assert_close(out[0], (table["word=x"] + table["word=y"]) / 2**0.5)
    torch.testing.assert_close(out[2], table["word=x"])


def test_words_of_a_description_are_features_as_words_of_the_name() -> None:
    features = item_features(
        ["a", "b", "c"], ["Red shoe", "Boot", "c"], ["", "", ""], texts=["A shoe, RED; suede", "red suede only", ""]
    )
    assert features.of(0) == ["word=red", "word=suede"]
    assert features.of(1) == ["word=red", "word=suede"]
    assert features.of(2) == []


def test_of_a_description_the_rarest_words_that_others_share_are_taken() -> None:
    n = TEXT_WORDS + 5
    pairs = " ".join(f"pair{k:02d}" for k in range(n))  # two items have each of these
    texts = [f"common own{k} {pairs if k < 2 else ''}" for k in range(4)]
    features = item_features(list("abcd"), list("abcd"), [""] * 4, texts=texts)
    assert features.of(0) == features.of(1) == [f"word=pair{k:02d}" for k in range(TEXT_WORDS)]
    assert features.of(2) == features.of(3) == ["word=common"]
