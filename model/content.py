"""What an item is, as features of its embedding: category and its levels, brand, price bucket, words of its name and of
its description.

An item's embedding is its own vector plus the sum of its features' vectors, so that an item which few took borrows from
those of its kind. Serving knows nothing of it: the sum is made once, when the model is exported.

Letters in shapes: n items, F features, k features of all items together, d width.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

PRICE_BUCKETS = 16
"""Of equal numbers of items: what is dear differs from shop to shop."""
FEWEST_ITEMS = 2
"""A feature of a single item tells no more than the item itself."""
TEXT_WORDS = 32
"""Of an item's description: its rarest words. Frequent ones tell no item from another, and each word costs time."""
LEVELS = re.compile(r"\s*(?:>|/|\|)\s*")
"""Between the levels of a category's path: 'shoes > running', 'shoes/running'."""
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Which features each item has."""

    names: list[str]
    """F, such as 'category=shoes', 'brand=acme', 'price=3', 'word=running'."""
    feature: I64
    """i64[k]: those of item 0, then of item 1, ..., each item's ascending."""
    offset: I64
    """i64[n]: where each item's begin."""

    def of(self, item: int) -> list[str]:
        """The features of one item, by name."""
        end = self.offset[item + 1] if item + 1 < len(self.offset) else len(self.feature)
        return [self.names[k] for k in self.feature[self.offset[item] : end]]


def item_features(
    ids: Sequence[str],
    names: Sequence[str],
    categories: Sequence[str],
    brands: Sequence[str] | None = None,
    prices: F64 | None = None,
    texts: Sequence[str] | None = None,
) -> ItemFeatures:
    """Features of n items; '' and nan are unknown. prices: f64[n], in whatever one currency. texts: descriptions.

    A name that only repeats the id has no words. Words of a description are features as words of the name are: of each
    item its TEXT_WORDS rarest (in the fewest names and descriptions, at least FEWEST_ITEMS; equally rare ones by the
    alphabet) that its name has not. A feature that fewer than FEWEST_ITEMS items have is left out.
    """
    buckets = _buckets(prices) if prices is not None else [""] * len(ids)
    count = _word_counts(ids, names, texts) if texts is not None else {}
    number: dict[str, int] = {}
    flat, length = array("q"), []
    for k, item_id in enumerate(ids):
        words = _name_words(item_id, names[k])
        if texts is not None and texts[k]:
            words |= _rarest(_words(texts[k]) - words, count)
        found = {
            *_category(categories[k]),
            *([f"brand={brands[k]}"] if brands is not None and brands[k] else []),
            *([f"price={buckets[k]}"] if buckets[k] else []),
            *(f"word={word}" for word in words),
        }
        flat.extend(number.setdefault(name, len(number)) for name in found)
        length.append(len(found))
    # From numbers in order of appearance to the names that are kept, in order; and each item's ascending.
    all_names = list(number)
    feature, item = np.array(flat, np.int64), np.repeat(np.arange(len(ids)), length)
    common = np.flatnonzero(np.bincount(feature, minlength=len(number)) >= FEWEST_ITEMS).tolist()
    kept = sorted(common, key=all_names.__getitem__)
    place = np.full(len(number), -1)
    place[kept] = np.arange(len(kept))
    feature = place[feature]
    item, feature = item[feature >= 0], feature[feature >= 0]
    lengths = np.bincount(item, minlength=len(ids))
    return ItemFeatures(
        names=[all_names[k] for k in kept],
        feature=feature[np.lexsort((feature, item))],
        offset=np.cumsum(lengths) - lengths,
    )


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _name_words(item_id: str, name: str) -> set[str]:
    return _words(name) if name != item_id else set()


def _word_counts(ids: Sequence[str], names: Sequence[str], texts: Sequence[str]) -> Counter[str]:
    """In how many items' names and texts each word is."""
    count: Counter[str] = Counter()
    for item_id, name, text in zip(ids, names, texts, strict=True):
        count.update(_name_words(item_id, name) | _words(text))
    return count


def _rarest(words: set[str], count: Mapping[str, int]) -> set[str]:
    """The TEXT_WORDS rarest of a text's words: see item_features."""
    shared = [(count[word], word) for word in words if count[word] >= FEWEST_ITEMS]
    return {word for _, word in sorted(shared)[:TEXT_WORDS]}


def _category(path: str) -> Iterable[str]:
    """'a > b' is in 'a' and in 'a > b'."""
    levels = [level for level in LEVELS.split(path) if level]
    return (f"category={' > '.join(levels[: depth + 1])}" for depth in range(len(levels)))


def _buckets(prices: F64) -> list[str]:
    known = np.isfinite(prices) & (prices > 0)
    if not known.any():
        return [""] * len(prices)
    borders = np.unique(np.quantile(prices[known], np.linspace(0, 1, PRICE_BUCKETS + 1)[1:-1]))
    bucket = np.searchsorted(borders, np.where(known, prices, 0.0), side="right")
    return [str(number) if is_known else "" for number, is_known in zip(bucket.tolist(), known.tolist(), strict=True)]


class Content(nn.Module):
    """What the features add to the items' embeddings: nothing at first, then what training finds.

    Each item's sum is divided by the root of its number of features: a long name weighs no more than a short one.
    """

    def __init__(self, features: ItemFeatures, dim: int) -> None:
        super().__init__()
        length = np.diff(np.append(features.offset, len(features.feature)))  # n
        share = np.repeat(1.0 / np.sqrt(np.maximum(length, 1)), length)  # k
        self.register_buffer("feature", torch.from_numpy(features.feature))
        self.register_buffer("offset", torch.from_numpy(features.offset))
        self.register_buffer("share", torch.from_numpy(share.astype(np.float32)))
        self.table = nn.EmbeddingBag(max(len(features.names), 1), dim, mode="sum")
        nn.init.zeros_(self.table.weight)

    def forward(self) -> Tensor:
        """f32[n, d]."""
        out: Tensor = self.table(self.feature, self.offset, per_sample_weights=self.share)  # n d
        return out
