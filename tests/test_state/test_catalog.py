"""The catalogue against a dict, and what it costs to change."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from state.catalog import MAX_ID_BYTES, MAX_NAME_BYTES, NEVER_MS, Catalog, CatalogItem
from state.keys import key_of

MUG = CatalogItem(
    item_id="mug",
    name="Mug",
    category=("Kitchen", "Cups", "Mugs"),
    brand="B",
    domain="home",
    price=9.5,
    currency="EUR",
    text="A mug.",
    properties=("red", ""),
    available=False,
    expires_at_ms=1_767_323_045_000,
)

# Few ids and texts, so that items meet again, and all that JSON may carry.
_IDS = st.sampled_from([f"i{n}" for n in range(40)] + ["ä", "\ud800"])
_WORDS = st.sampled_from(["", "a", "b", "ßßß", "long " * 30])
_ITEMS = st.builds(
    CatalogItem,
    item_id=_IDS,
    name=_WORDS,
    category=st.lists(st.sampled_from(["x", "y", "z"]), max_size=3).map(tuple),
    brand=_WORDS,
    price=st.none() | st.floats(-1e12, 1e12),
    currency=st.sampled_from(["", "EUR", "USD"]),
    properties=st.sampled_from([(), ("red", "L"), ("blue", ""), ("", "")]),
    domain=st.sampled_from(["", "books", "films"]),
    text=_WORDS,
    available=st.booleans(),
    expires_at_ms=st.none() | st.integers(-(2**62), 2**62),
)


def keys(*item_ids: str) -> np.ndarray:
    return np.array([key_of(item_id) for item_id in item_ids], np.uint64)


def catalog_domains(catalog: Catalog, rows: np.ndarray) -> list[str]:
    names = {0: ""} | {key_of(name): name for name in ("books", "films")}
    return [names[key] for key in catalog.domains(rows).tolist()]


def test_all_of_an_item_comes_back() -> None:
    catalog = Catalog()
    assert catalog.upsert(MUG) == key_of("mug")
    assert catalog.get(key_of("mug")) == MUG
    assert len(catalog) == 1
    assert key_of("mug") in catalog
    assert catalog.get(key_of("jug")) is None
    assert catalog.get(0) is None
    assert key_of("jug") not in catalog


def test_an_upsert_replaces_all_and_a_removal_takes_it_out() -> None:
    catalog = Catalog()
    catalog.upsert(MUG)
    catalog.upsert(CatalogItem(item_id="mug"))
    assert catalog.get(key_of("mug")) == CatalogItem(item_id="mug")
    assert catalog.remove("mug") == key_of("mug")
    assert catalog.get(key_of("mug")) is None
    assert catalog.remove("mug") == key_of("mug")
    assert len(catalog) == 0


@pytest.mark.parametrize(("level", "name"), [(0, "Mugs"), (1, "Kitchen"), (2, "Cups"), (3, "Mugs"), (9, "Mugs")])
def test_the_category_of_a_level(level: int, name: str) -> None:
    catalog = Catalog(category_level=level)
    catalog.upsert(MUG)
    catalog.upsert(CatalogItem(item_id="plain"))
    assert catalog.category(key_of("mug")) == name
    assert catalog.category(key_of("plain")) == ""
    assert catalog.category(key_of("nothing")) == ""


def test_arrays_and_the_row_of_what_is_not_there() -> None:
    catalog = Catalog()
    catalog.upsert(MUG)
    catalog.upsert(CatalogItem(item_id="jug", brand="B", price=2.0))
    catalog.upsert(CatalogItem(item_id="cup", brand="C"))
    rows = catalog.rows(keys("mug", "nothing", "jug", "cup").reshape(2, 2))
    assert rows.shape == (2, 2)
    assert rows[0, 1] == 0
    assert catalog.rows(np.array([0, 2**64 - 1], np.uint64)).tolist() == [0, 0]
    assert catalog.available(rows).tolist() == [[False, True], [True, True]]
    assert catalog.expires_at_ms(rows).tolist() == [[MUG.expires_at_ms, NEVER_MS], [NEVER_MS, NEVER_MS]]
    np.testing.assert_array_equal(catalog.prices(rows), [[9.5, np.nan], [2.0, np.nan]])
    brands = catalog.brands(rows)
    assert brands[0, 0] == brands[1, 0] != brands[1, 1]
    assert brands[0, 1] == 0
    assert catalog.domains(rows).tolist() == [[key_of("home"), 0], [0, 0]]


def test_texts_are_cut_between_characters() -> None:
    catalog = Catalog(text_bytes=5)
    catalog.upsert(CatalogItem(item_id="a", name="n" * 1000, text="aßßß"))
    found = catalog.get(key_of("a"))
    assert found is not None
    assert (found.name, found.text) == ("n" * MAX_NAME_BYTES, "aßß")


@pytest.mark.parametrize("item_id", ["", "x" * (MAX_ID_BYTES + 1)])
def test_an_id_out_of_bounds(item_id: str) -> None:
    with pytest.raises(ValueError, match="an item id has"):
        Catalog().upsert(CatalogItem(item_id=item_id))


class AgainstADict(RuleBasedStateMachine):
    """Any upserts, removals and look-ups, against the obvious dict."""

    def __init__(self) -> None:
        super().__init__()
        self.catalog = Catalog(text_bytes=500)
        self.model: dict[int, CatalogItem] = {}

    @rule(item=_ITEMS)
    def upsert(self, item: CatalogItem) -> None:
        self.model[self.catalog.upsert(item)] = item

    @rule(item_id=_IDS)
    def remove(self, item_id: str) -> None:
        self.model.pop(self.catalog.remove(item_id), None)

    @rule(item_id=_IDS)
    def look_up(self, item_id: str) -> None:
        key = key_of(item_id)
        assert self.catalog.get(key) == self.model.get(key)
        item = self.model.get(key)
        assert self.catalog.category(key) == (item.category[-1] if item is not None and item.category else "")
        assert self.catalog.brand(key) == (item.brand if item is not None else "")
        assert self.catalog.properties(key) == (item.properties if item is not None else ())

    @invariant()
    def agrees(self) -> None:
        assert len(self.catalog) == len(self.model)
        asked = keys(*[f"i{n}" for n in range(40)])
        rows = self.catalog.rows(asked)
        assert [bool(row) for row in rows] == [int(key) in self.model for key in asked]
        items = [self.model.get(int(key)) for key in asked]
        assert self.catalog.available(rows).tolist() == [item is None or item.available for item in items]
        assert self.catalog.expires_at_ms(rows).tolist() == [
            NEVER_MS if item is None or item.expires_at_ms is None else item.expires_at_ms for item in items
        ]
        assert catalog_domains(self.catalog, rows) == [item.domain if item is not None else "" for item in items]


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_thousands_of_items_that_come_go_and_change(seed: int) -> None:
    """Tables grow, rows and blocks are used again: what is held is right all the same."""
    draw = random.Random(seed)
    catalog, model = Catalog(text_bytes=400), {}
    for step in range(6_000):
        item_id = f"item-{draw.randrange(1_500)}"
        if draw.random() < 0.3:
            model.pop(catalog.remove(item_id), None)
        else:
            item = CatalogItem(
                item_id=item_id,
                category=(f"c{draw.randrange(50)}",),
                brand=f"b{step % 700}",
                text="t" * draw.randrange(400),
                available=draw.random() < 0.5,
            )
            model[catalog.upsert(item)] = item
    assert len(catalog) == len(model)
    assert {key: catalog.get(key) for key in model} == model
    asked = keys(*[f"item-{n}" for n in range(1_500)])
    assert [bool(row) for row in catalog.rows(asked)] == [int(key) in model for key in asked]


def test_an_item_that_changes_for_ever_takes_no_more_room() -> None:
    catalog = Catalog(text_bytes=300)
    for n in range(2_000):
        catalog.upsert(CatalogItem(item_id=f"i{n}", text="a" * 300))
    before = catalog.size_bytes
    for n in range(40_000):
        catalog.upsert(CatalogItem(item_id=f"i{n % 2_000}", brand=f"b{n}", category=(f"c{n}",), text=f"{n} " * 60))
    # A quarter of what is filled may be dead, beside a megabyte.
    assert catalog.size_bytes < 1.5 * before + 2 * 2**20
    assert catalog.get(key_of("i7")) == CatalogItem(
        item_id="i7", brand="b38007", category=("c38007",), text=("38007 " * 60)[:300]
    )
    assert len(catalog._brands.values) < 2_100
    for n in range(2_000):
        catalog.remove(f"i{n}")
    assert len(catalog) == 0
    assert catalog.rows(keys("i7", "i1999")).tolist() == [0, 0]


def test_items_that_come_and_go_use_the_rows_again() -> None:
    catalog = Catalog()
    for n in range(50_000):
        catalog.upsert(CatalogItem(item_id=f"i{n}"))
        if n >= 100:
            catalog.remove(f"i{n - 100}")
    assert len(catalog) == 100
    assert catalog.size_bytes < 3 * 2**20
