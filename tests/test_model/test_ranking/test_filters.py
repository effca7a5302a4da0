import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ArtifactError
from model.ranking.filters import Availability, Domains, excluded
from model.ranking.index import ItemIndex
from state.catalog import Catalog, CatalogItem
from state.keys import key_of

EVENTS = ["purchase milk", "view jam", "hide jam", "session_start", "view bread", "view drill"]


@pytest.mark.parametrize(
    ("exclude", "left_out"),
    [
        ("seen", {0, 3, 1}),  # milk and jam before, bread in this session
        ("session", {1, 3}),  # bread; jam was hidden
        ("none", {3}),
    ],
)
def test_what_is_left_out(make_block, exclude, left_out) -> None:
    block = make_block(EVENTS, [])
    tokens = [array[0] for array in excluded(block, exclude)]
    assert {int(token) for array in tokens for token in array} - {8} == left_out
    assert {int(token) for array in excluded(block, exclude) for token in array[1]} == {8}


def test_a_session_longer_than_the_recent_list_is_left_out_whole(make_block) -> None:
    block = make_block(["view milk", "session_start", "view bread", *["view jam"] * 6])
    tokens = {int(token) for array in excluded(block, "session") for token in array[0]} - {8}
    assert tokens == {1, 3}


class TestDomains:
    def test_what_is_outside_the_domain_of_the_rows_event(self, make_block) -> None:
        block = make_block(["view milk"], ["view jam"], ["view bread"])
        for row, name in ((0, "food"), (2, "garden")):
            request = block.requests[row]
            request.event = msgspec.structs.replace(request.event, domain=key_of(name))
        outside = Domains(ItemIndex(list("abcdefgh")), ["food"] * 4 + ["tools"] * 3 + [""]).outside(block)
        assert outside.keys() == {0, 2}
        assert np.flatnonzero(outside[0]).tolist() == [4, 5, 6, 7]
        assert outside[2].all()

    def test_the_catalogues_word_counts_before_the_models(self, make_block) -> None:
        domains, catalog = Domains(ItemIndex(list("abcd")), ["food", "food", "tools", ""]), Catalog()
        block = make_block(["view milk"])
        block.requests[0].event = msgspec.structs.replace(block.requests[0].event, domain=key_of("food"))

        def food() -> str:
            return "".join(np.array(list("abcd"))[~domains.outside(block)[0]])

        def says(**items: str) -> None:
            keys = [catalog.upsert(CatalogItem(item_id=item, domain=domain)) for item, domain in items.items()]
            domains.update(catalog, np.array(keys, np.uint64))

        assert food() == "ab"
        says(a="", b="tools", c="food", d="food", unknown="food")
        assert food() == "acd"
        domains.update(catalog, np.array([catalog.remove(item) for item in "bd"], np.uint64))
        assert food() == "abc"  # of what it does not hold any more the model's word counts again
        says(c="")
        assert food() == "ab"

    def test_where_nobody_knows_one_they_are_refused(self) -> None:
        for none in ([], ["", ""]):
            domains, catalog = Domains(ItemIndex(["a", "b"]), none), Catalog()
            with pytest.raises(ArtifactError, match=r"ranking\.domains to 'all'"):
                domains.check()
            domains.update(catalog, np.array([catalog.upsert(CatalogItem(item_id="a", domain="food"))], np.uint64))
            domains.check()


class TestAvailability:
    """Ten items a .. j in rows of 16; what the catalogue says of them, against the obvious loop."""

    ITEMS = "abcdefghij"

    def make(self, *items: CatalogItem, listed_only: bool = False) -> tuple[Availability, Catalog]:
        availability = Availability(ItemIndex(list(self.ITEMS)), 16, listed_only=listed_only)
        catalog = Catalog()
        self.put(availability, catalog, *items)
        return availability, catalog

    def put(self, availability: Availability, catalog: Catalog, *items: CatalogItem) -> None:
        availability.update(catalog, np.array([catalog.upsert(item) for item in items], np.uint64))

    def shown(self, availability: Availability, *times_ms: int) -> list[str]:
        """The items that each row keeps; both ways of asking must agree."""
        scores = np.arange(len(times_ms) * 16, dtype=np.float32).reshape(-1, 16)
        availability.leave_out(scores, np.array(times_ms, np.int64))
        kept = ["".join(np.array(list(self.ITEMS))[row[:10] > -np.inf]) for row in scores]
        for row, at_ms in zip(kept, times_ms, strict=True):
            barred = availability.with_barred(None, at_ms)
            assert row == "".join(item for n, item in enumerate(self.ITEMS) if barred is None or not barred[n])
        kept_scores = scores[scores > -np.inf]
        assert np.isin(kept_scores, np.arange(scores.size)).all()  # those are as they were
        return kept

    def test_without_a_catalogue_all_are_shown_and_nothing_is_touched(self) -> None:
        availability, _ = self.make()
        assert self.shown(availability, 5, 7) == [self.ITEMS] * 2
        assert availability.with_barred(None, 5) is None

    def test_unavailable_and_gone_and_back_again(self) -> None:
        availability, catalog = self.make(CatalogItem(item_id="b", available=False), CatalogItem(item_id="zz"))
        assert self.shown(availability, 5) == ["acdefghij"]
        availability.update(catalog, np.array([catalog.remove("c"), catalog.remove("never seen")], np.uint64))
        assert self.shown(availability, 5) == ["adefghij"]
        self.put(availability, catalog, CatalogItem(item_id="b"), CatalogItem(item_id="c"))
        assert self.shown(availability, 5) == [self.ITEMS]

    def test_an_expiry_is_held_against_the_time_of_each_rows_event(self) -> None:
        availability, _ = self.make(
            CatalogItem(item_id="b", expires_at_ms=100),
            CatalogItem(item_id="a", expires_at_ms=200),
            CatalogItem(item_id="c", expires_at_ms=300, available=False),
        )
        assert self.shown(availability, 99, 100, 199, 200) == ["abdefghij", "adefghij", "adefghij", "defghij"]
        assert self.shown(availability, 1_000) == ["defghij"]
        assert self.shown(availability, 50) == ["abdefghij"]  # an earlier event again
        assert self.shown(availability, 150, 50) == ["adefghij", "abdefghij"]

    def test_listed_only(self) -> None:
        availability, catalog = self.make(listed_only=True)
        assert self.shown(availability, 5) == [""]
        self.put(availability, catalog, CatalogItem(item_id="d"), CatalogItem(item_id="e", expires_at_ms=6))
        assert self.shown(availability, 5, 6) == ["de", "d"]

    def test_with_what_is_outside_a_domain(self) -> None:
        availability, _ = self.make(CatalogItem(item_id="b", available=False))
        outside = np.zeros(10, np.bool_)
        outside[3] = True
        both = availability.with_barred(outside, 5)
        assert both is not None
        assert np.flatnonzero(both).tolist() == [1, 3]
        assert np.flatnonzero(outside).tolist() == [3]

    @given(
        st.lists(
            st.tuples(st.sampled_from(ITEMS), st.sampled_from(["on", "off", "gone", "20", "30", "40"])), max_size=30
        ),
        st.lists(st.integers(0, 50), min_size=1, max_size=5),
    )
    def test_any_changes_in_any_batches(self, changes: list[tuple[str, str]], times_ms: list[int]) -> None:
        availability, catalog = self.make()
        ends: dict[str, int] = {}
        keys = []
        for number, (item, what) in enumerate(changes):
            if what == "gone":
                keys.append(catalog.remove(item))
            else:
                expires_at_ms = int(what) if what.isdigit() else None
                keys.append(
                    catalog.upsert(CatalogItem(item_id=item, available=what != "off", expires_at_ms=expires_at_ms))
                )
            ends[item] = int(what) if what.isdigit() else {"on": 99, "off": 0, "gone": 0}[what]
            if number % 3 == 0:
                availability.update(catalog, np.array(keys, np.uint64))
                keys = []
        availability.update(catalog, np.array(keys, np.uint64))
        assert self.shown(availability, *times_ms) == [
            "".join(item for item in self.ITEMS if at_ms < ends.get(item, 99)) for at_ms in times_ms
        ]
