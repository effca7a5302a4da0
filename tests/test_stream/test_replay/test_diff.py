from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest

from stream.errors import ReplayError
from stream.replay.diff import NO_NAME, Diff, Shift, diff, kendall, rank_biased_overlap
from stream.replay.lists import Side, Vocabulary


def value(
    user: str, items: list[str], *, strategy: str = "hybrid", reason: str = "for_you", interest: str = ""
) -> bytes:
    made = {
        "user_id": user,
        "strategy": strategy,
        "items": [{"item_id": item, "reasons": [{"type": reason}]} for item in items],
        "interests": [{"name": interest}] if interest else [],
    }
    return json.dumps(made).encode()


def sides(a: dict[str, list[str]], b: dict[str, list[str]], places: int = 4) -> tuple[Side, Side]:
    words = Vocabulary()
    found = []
    for name, lists in (("a", a), ("b", b)):
        side = Side(name, words, places)
        for user, items in lists.items():
            side.put(value(user, items))
        found.append(side)
    return found[0], found[1]


def same(a: str, b: str) -> np.ndarray:
    return np.array([[[x == y for y in b] for x in a]])


class TestMeasures:
    """Against their definitions, by hand or the slow way."""

    @pytest.mark.parametrize(
        ("a", "b", "tau"),
        [
            ("abcd", "abcd", 1.0),
            ("abcd", "dcba", -1.0),
            ("abcd", "bacd", 4 / 6),
            ("abxy", "baxz", 1 / 3),  # common: a b x, one pair of three turned
        ],
    )
    def test_kendall(self, a: str, b: str, tau: float) -> None:
        assert kendall(same(a, b)).tolist() == [pytest.approx(tau)]

    def test_kendall_of_one_common_item_is_nothing(self) -> None:
        assert np.isnan(kendall(same("ab", "ac"))).all()

    def test_rank_biased_overlap_of_equal_and_of_disjoint_lists(self) -> None:
        four = np.array([4])
        assert rank_biased_overlap(same("abcd", "abcd"), four, four).tolist() == [pytest.approx(1.0)]
        assert rank_biased_overlap(same("abcd", "efgh"), four, four).tolist() == [0.0]

    def test_rank_biased_overlap_weighs_the_top(self) -> None:
        four = np.array([4])
        (top,) = rank_biased_overlap(same("abcd", "bacd"), four, four)
        (end,) = rank_biased_overlap(same("abcd", "abdc"), four, four)
        assert top < end < 1.0

    def test_rank_biased_overlap_is_the_formula(self) -> None:
        p, a, b = 0.9, "abcde", "cax"
        s, l = len(b), len(a)  # noqa: E741 - the paper's letters
        x = [0, *(len(set(a[:d]) & set(b[:d])) for d in range(1, l + 1))]
        wanted = (1 - p) / p * (
            sum(x[d] / d * p**d for d in range(1, l + 1))
            + sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
        ) + ((x[l] - x[s]) / l + x[s] / s) * p**l
        padded = np.zeros((1, 5, 5), bool)
        padded[:, :, :3] = same(a, b)
        assert rank_biased_overlap(padded, np.array([l]), np.array([s])).tolist() == [pytest.approx(wanted)]

    def test_rank_biased_overlap_of_nothing(self) -> None:
        none, nobody = np.zeros((2, 3, 3), bool), np.array([0, 0])
        found = rank_biased_overlap(none, nobody, np.array([0, 2]))
        assert np.isnan(found[0])
        assert found[1] == 0.0


def test_users_of_one_side_only_are_counted_and_left_out() -> None:
    found = diff(*sides({"u": ["a"], "v": ["a"]}, {"v": ["a"], "w": ["a"]}))
    assert (found.users_a, found.users_b, found.users_both) == (2, 2, 1)
    assert (found.only_a, found.only_b) == (["u"], ["w"])
    assert found.changed == 0.0


def test_order_and_items_are_told_apart() -> None:
    a = {"u": ["a", "b", "c", "d"], "v": ["a", "b", "c", "d"], "w": ["a", "b", "c", "d"], "x": ["a", "b", "c", "d"]}
    b = {"u": ["a", "b", "c", "d"], "v": ["b", "a", "c", "d"], "w": ["a", "b", "c", "e"], "x": ["e", "f", "g", "h"]}
    found = diff(*sides(a, b), k=(2, 4))
    assert (found.changed, found.changed_set) == (0.75, 0.5)
    assert found.overlap["2"].mean == 0.75
    assert found.overlap["4"].mean == pytest.approx((1 + 1 + 0.75 + 0) / 4)
    assert sum(found.overlap_bins) == 4
    assert [user.user for user in found.users] == ["x", "w", "v"]
    assert found.users[0].gone == ["a", "b", "c", "d"]
    assert found.users[0].new == ["e", "f", "g", "h"]


def test_equal_sides_differ_in_nothing() -> None:
    lists = {f"u{n}": ["a", "b", "c"] for n in range(5)}
    found = diff(*sides(lists, lists), categories={"a": "x"})
    assert found.changed == found.changed_set == found.changed_strategy == found.changed_interest == 0.0
    assert found.rank_biased_overlap.mean == found.kendall.mean == 1.0
    assert found.users == []
    assert found.items == found.categories == found.reasons == found.interests == found.strategies == []


def test_the_last_list_counts_and_a_removed_one_is_none() -> None:
    a, b = sides({"u": ["a"], "v": ["a"]}, {"u": ["b"], "v": ["a"]})
    b.put(value("u", ["a"]))
    b.put(b'{"removed": "v"}')
    found = diff(a, b)
    assert (found.changed, found.users_both, found.only_a) == (0.0, 1, ["v"])


def test_how_and_why_lists_were_made() -> None:
    words = Vocabulary()
    a, b = Side("a", words, 2), Side("b", words, 2)
    for number in range(40):
        a.put(value(f"u{number}", ["x", "y"], interest="tea"))
        b.put(value(f"u{number}", ["x", "y"], strategy="popular", reason="popular", interest="milk"))
    found = diff(a, b)
    assert (found.changed, found.changed_strategy, found.changed_interest) == (0.0, 1.0, 1.0)
    for shifts, gone, new in (
        (found.strategies, "hybrid", "popular"),
        (found.reasons, "for_you", "popular"),
        (found.interests, "tea", "milk"),
    ):
        verdicts = {shift.name: shift.verdict for shift in shifts}
        assert verdicts == {gone: "lowered", new: "raised"}


class TestBoostedCategory:
    """Lists of 10 of 600 items in 12 categories; in b an item of the boosted one takes a place more often."""

    CATEGORIES = {f"i{n}": f"c{n % 12}" if n % 12 else "" for n in range(600)}  # noqa: RUF012 - never changed

    def lists(self, seed: int, boosted: str = "", share: float = 0.0, users: int = 400) -> dict[str, list[str]]:
        draw = random.Random(seed)
        items = list(self.CATEGORIES)
        of_boosted = [item for item, category in self.CATEGORIES.items() if category == boosted]
        found = {}
        for user in range(users):
            made = draw.sample(items, 10)
            for place in range(10):
                if draw.random() < share:
                    made[place] = draw.choice([item for item in of_boosted if item not in made])
            found[f"u{user}"] = made
        return found

    def found(self, **boost: object) -> Diff:
        return diff(*sides(self.lists(1), self.lists(2, **boost), 10), categories=self.CATEGORIES)  # type: ignore[arg-type]

    @pytest.mark.parametrize("boosted", ["c3", "c7"])
    def test_it_is_named_first(self, boosted: str) -> None:
        found = self.found(boosted=boosted, share=0.1)
        first = found.categories[0]
        assert (first.name, first.verdict) == (boosted, "raised")
        assert first.low < 0.1 * (1 - 1 / 12) < first.high
        assert [one.name for one in found.categories if one.verdict == "raised"] == [boosted]

    def test_without_a_boost_chance_is_not_named(self) -> None:
        assert [one for one in self.found().categories if one.verdict] == []

    def test_shares_are_whole(self) -> None:
        found = self.found(boosted="c3", share=0.1)
        assert sum(one.a for one in found.categories) == pytest.approx(1.0)
        assert sum(one.b for one in found.categories) == pytest.approx(1.0)
        assert NO_NAME in {one.name for one in found.categories}

    def test_few_users_prove_nothing(self) -> None:
        a = self.lists(1, users=3)
        b = self.lists(1, "c3", 0.9, users=3)
        found = diff(*sides(a, b, 10), categories=self.CATEGORIES)
        assert found.categories[0].name == "c3"
        assert found.categories[0].verdict == ""


def test_intervals_hold_what_they_promise() -> None:
    """Of 300 pairs of sides that differ by chance alone about 5 % of the intervals miss 0."""
    draw = random.Random(4)
    missed = []
    for _ in range(300):
        drawn = [{f"u{user}": draw.sample("abcdef", 2) for user in range(60)} for _ in range(2)]
        shift: Shift = min(diff(*sides(*drawn, 2)).items, key=lambda one: one.name)
        missed.append(not shift.low <= 0.0 <= shift.high)
    assert 0.01 < np.mean(missed) < 0.10


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(2)
    drawn = [{f"u{user}": draw.sample("abcdefgh", 4) for user in range(30)} for _ in range(2)]
    whole = diff(*sides(*drawn))
    monkeypatch.setattr("stream.replay.diff._USERS_AT_ONCE", 7)
    parts = diff(*sides(*drawn))
    assert whole.users == parts.users
    for one, two in itertools.zip_longest(whole.items, parts.items):
        assert one.name == two.name
        assert (one.difference, one.low, one.p) == pytest.approx((two.difference, two.low, two.p))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ReplayError, match="nothing to compare"):
        diff(*sides({}, {}))
    with pytest.raises(ReplayError, match="same vocabulary"):
        diff(Side("a", Vocabulary()), Side("b", Vocabulary()))


def test_no_user_in_both_gives_no_figures() -> None:
    found = diff(*sides({"u": ["a"]}, {"v": ["a"]}))
    assert found.users_both == 0
    assert found.changed is None
    assert found.rank_biased_overlap.mean is None
    assert found.items == []
