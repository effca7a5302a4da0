import dataclasses

import msgspec
import numpy as np
import pytest

from model.ranking.fallback import Popular
from model.ranking.features import FEATURES
from model.ranking.index import ItemIndex
from model.ranking.pipeline import Pipeline
from model.ranking.rerank import LogLinear
from model.ranking.settings import RankingSettings
from model.recommender import Recommender
from model.serving import BLOCK, Serving
from state.catalog import Catalog, CatalogItem
from state.keys import key_of


@pytest.fixture
def rank(artifact, state_settings, make_request):
    """rank([events], [events], exclude=...) -> the users' lists."""

    def made(*users: list[str], **ranking):
        settings = RankingSettings(**{"list_size": 4, "exclude": "none", **ranking})
        pipeline = Pipeline(artifact, ItemIndex(artifact.item_ids), Serving(artifact), state_settings, settings)
        requests = [make_request(*events, user=b"user-%d" % n) for n, events in enumerate(users)]
        return pipeline.rank(requests)

    return made


def test_a_list_names_its_user_event_and_state(rank) -> None:
    first, second = rank(["view milk"], ["view hammer", "view nails"])
    assert (first.user, second.user) == (b"user-0", b"user-1")
    assert (first.events_applied, second.events_applied) == (1, 2)
    assert second.offset == second.event.offset == 1
    assert first.strategy == "hybrid"
    assert [item.rank for item in first.items] == [1, 2, 3, 4]
    scores = [item.score for item in first.items]
    assert scores == sorted(scores, reverse=True)
    assert second.interests[0].name == "tools"


def test_rules_and_popularity_decide_where_the_network_does_not(rank) -> None:
    (made,) = rank(["view milk"], exclude="seen")
    assert [item.item_id for item in made.items] == ["bread", "butter", "jam", "hammer"]
    assert [item.reasons[0].type for item in made.items[:2]] == ["because_of"] * 2


@pytest.mark.parametrize(
    ("exclude", "missing"),
    [("seen", {"milk", "bread", "jam"}), ("session", {"bread", "jam"}), ("none", {"jam"})],
)
def test_what_is_excluded_is_on_no_list(rank, exclude, missing) -> None:
    events = ["purchase milk", "view jam", "hide jam", "session_start", "view bread"]
    (made,) = rank(events, exclude=exclude, list_size=8)
    assert {"milk", "bread", "jam"} - {item.item_id for item in made.items} == missing
    assert len(made.items) == 8 - len(missing)


def test_a_user_of_nothing_known_gets_the_popular_list(rank) -> None:
    stranger, newcomer = rank(["view telescope"], ["session_start"])
    for made in (stranger, newcomer):
        assert made.strategy == "popular"
        assert [item.item_id for item in made.items] == ["milk", "bread", "butter", "jam"]
        assert {item.reasons[0].type for item in made.items} == {"popular"}


def test_an_unknown_item_of_a_known_category_raises_that_category(rank) -> None:
    (made,) = rank(["view drill"])
    assert made.strategy == "popular"
    assert [item.item_id for item in made.items[:3]] == ["hammer", "nails", "screws"]
    assert made.items[0].reasons[0].category == "tools"


def test_a_list_is_never_empty(rank) -> None:
    everything = [f"view {item}" for item in ("milk", "bread", "butter", "jam", "hammer", "nails", "screws", "unsold")]
    (made,) = rank(everything, exclude="seen")
    # A state of five counts and six recent items has lost sight of the first two.
    assert {item.item_id for item in made.items} == {"milk", "bread"}
    (all_hidden,) = rank([*everything, *everything], exclude="seen", list_size=3)
    assert len(all_hidden.items) >= 1


def test_when_all_is_excluded_the_popular_list_steps_in(artifact, popular) -> None:
    from state.settings import StateSettings

    pipeline = Pipeline(
        artifact,
        ItemIndex(artifact.item_ids),
        Serving(artifact),
        StateSettings(),
        RankingSettings(list_size=3, exclude="seen"),
    )
    from model.ranking.block import Request
    from state.interaction import Interaction
    from state.interest import InterestState
    from state.keys import key_of

    state = InterestState()
    for number, item in enumerate(artifact.item_ids):
        event = Interaction(number + 1, 5, 10**12, (key_of(item),), (), 8.0, number)
        state.apply(event, StateSettings())
    (made,) = pipeline.rank([Request(b"u", event, state, popular, {})])
    assert made.strategy == "popular"
    assert [item.item_id for item in made.items] == ["milk", "bread", "butter"]


def test_a_catalogue_smaller_than_the_list_gives_all_of_it(rank) -> None:
    (made,) = rank(["view milk"], list_size=50)
    assert len(made.items) == 8
    assert [item.rank for item in made.items] == list(range(1, 9))


def test_more_requests_than_a_block_keep_their_order(rank) -> None:
    lists = rank(*[["view milk"] if number % 3 else ["view hammer"] for number in range(150)])
    assert [made.user for made in lists] == [b"user-%d" % number for number in range(150)]
    assert lists[0].items == lists[147].items != lists[1].items == lists[149].items


def test_lists_do_not_depend_on_the_size_of_a_block(monkeypatch, rank) -> None:
    users = [["view milk"], ["purchase hammer", "view bread"], ["session_start"], ["hide milk", "like jam"]] * 50
    together = rank(*users)
    monkeypatch.setattr(LogLinear, "ROWS", BLOCK)
    assert rank(*users) == together


KNOWN = ["view milk", "purchase milk", "view hammer"]


def test_parts_of_a_score_add_up_to_it(rank) -> None:
    made, stranger = rank(KNOWN, ["view drill"], parts=True, basket_weight=0.5)
    assert made.parts == ("network", "rules", "personal", "popularity")
    of = {item.item_id: dict(zip(made.parts, item.parts, strict=True)) for item in made.items}
    assert of["milk"]["personal"] > 0.0 == of["bread"]["personal"]
    assert of["bread"]["rules"] > 0.0 == of["milk"]["rules"]
    assert stranger.strategy == "popular"
    assert stranger.parts == ("popularity", "interest")
    assert all(item.parts[1] > 0.0 for item in stranger.items[:3])  # tools
    assert stranger.items[3].parts[1] == 0.0
    for item in made.items:
        assert sum(item.parts) == pytest.approx(item.score, abs=0.03)  # four roundings to 0.01
    for item in stranger.items:
        assert sum(item.parts) == pytest.approx(item.score, abs=3e-6)


def test_a_list_shorter_than_asked_for_has_parts_of_its_items_only(rank) -> None:
    (made,) = rank(KNOWN, parts=True, list_size=50, exclude="seen")
    assert len(made.items) == 6
    assert np.isfinite([item.parts for item in made.items]).all()


def test_parts_are_absent_where_they_are_off_and_change_nothing_else(rank) -> None:
    users = (KNOWN, ["view drill"])
    plain, told = rank(*users, parts=False), rank(*users, parts=True)
    for made in plain:
        assert made.parts == ()
        assert b"parts" not in msgspec.json.encode(made.items)
    for made in told:
        assert all(item.parts for item in made.items)
        made.parts = ()
        for item in made.items:
            item.parts = []
    assert told == plain


@pytest.mark.parametrize("learnt", [False, True])
def test_parts_do_not_depend_on_who_else_is_ranked(artifact, state_settings, make_request, learnt) -> None:
    if learnt:
        draw = np.random.default_rng(0)
        shapes = {"w1": (6, len(FEATURES)), "b1": (6,), "w2": (4, 6), "b2": (4,), "w3": (1, 4)}
        blend = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        artifact = dataclasses.replace(artifact, blend=blend)
    settings = RankingSettings(list_size=4, exclude="session", parts=True)
    pipeline = Pipeline(artifact, ItemIndex(artifact.item_ids), Serving(artifact), state_settings, settings)
    users = [["view milk"], ["purchase hammer", "view bread"], ["session_start"], ["hide milk", "like jam"]] * 40
    together = pipeline.rank([make_request(*events) for events in users])
    for at in (0, 1, 2, 3, 150, 159):
        assert pipeline.rank([make_request(*users[at])]) == [together[at]]


def test_no_request_is_no_list(rank) -> None:
    assert rank() == []


def test_equal_scores_go_by_the_items_order(artifact, state_settings, make_request) -> None:
    import numpy as np

    flat = dataclasses.replace(artifact, popularity=np.full(8, 1 / 8, np.float32))
    pipeline = Pipeline(
        flat, ItemIndex(flat.item_ids), Serving(flat), state_settings, RankingSettings(list_size=4, exclude="seen")
    )
    request = make_request("view screws")
    request.popular = Popular(flat.popularity, shown_as_popular=3)
    (made,) = pipeline.rank([request])
    assert [item.item_id for item in made.items] == ["milk", "bread", "butter", "jam"]


class TestDomains:
    """Food is one domain, tools are another; a user's interests span both."""

    @pytest.fixture
    def lists(self, artifact, state_settings, make_request):
        """lists(["view milk"], domain="tools", ...) -> the user's list after an event that names the domain."""

        def made(events: list[str], domain: str, **ranking):
            domained = dataclasses.replace(artifact, item_domains=["food"] * 4 + ["tools"] * 3 + [""])
            settings = RankingSettings(**{"list_size": 4, "exclude": "none", "domains": "event", **ranking})
            pipeline = Pipeline(domained, ItemIndex(artifact.item_ids), Serving(domained), state_settings, settings)
            # Rows before and after it, on other tiles too, are not limited.
            requests = [make_request(*events) for _ in range(BLOCK + 2)]
            limited = requests[BLOCK] = make_request(*events)
            limited.event = msgspec.structs.replace(limited.event, domain=key_of(domain) if domain else 0)
            others = pipeline.rank(requests)
            made = others.pop(BLOCK)
            (unlimited,) = {str([item.item_id for item in other.items]) for other in others}
            return made, unlimited

        return made

    def test_a_list_after_an_event_of_a_domain_holds_no_other(self, lists) -> None:
        made, unlimited = lists(["view milk", "view hammer"], "food")
        assert {item.item_id for item in made.items} == {"milk", "bread", "butter", "jam"}
        assert "nails" in unlimited

    def test_its_interests_come_from_all_domains(self, lists) -> None:
        made, _ = lists(["view hammer", "view milk"], "tools")
        assert [item.item_id for item in made.items][:1] == ["nails"]  # by the rule of the hammer
        assert {item.item_id for item in made.items} == {"hammer", "nails", "screws"}
        assert {interest.name for interest in made.interests} == {"food", "tools"}

    def test_an_event_without_one_limits_nothing(self, lists) -> None:
        made, unlimited = lists(["view milk", "view hammer"], "")
        assert str([item.item_id for item in made.items]) == unlimited

    def test_by_default_lists_are_not_limited(self, lists) -> None:
        made, unlimited = lists(["view milk", "view hammer"], "food", domains="all")
        assert str([item.item_id for item in made.items]) == unlimited

    def test_the_popular_list_is_limited_too_even_where_all_was_seen(self, lists) -> None:
        made, _ = lists(["view drill"], "tools")  # an item that the model does not know
        assert (made.strategy, {item.item_id for item in made.items}) == ("popular", {"hammer", "nails", "screws"})
        made, _ = lists(["view hammer", "view nails", "view screws"], "tools", exclude="seen")
        assert (made.strategy, {item.item_id for item in made.items}) == ("popular", {"hammer", "nails", "screws"})

    def test_the_catalogues_word_counts_before_the_models(self, artifact, state_settings, make_request) -> None:
        artifact = dataclasses.replace(artifact, item_domains=["food"] * 4 + ["tools"] * 3 + [""])
        settings = RankingSettings(list_size=4, exclude="none", domains="event")
        pipeline = Pipeline(artifact, ItemIndex(artifact.item_ids), Serving(artifact), state_settings, settings)
        catalog = Catalog()
        for item, domain in (("jam", "gifts"), ("screws", "food"), ("milk", "")):
            key = catalog.upsert(CatalogItem(item_id=item, domain=domain))
            pipeline.catalog_changed(catalog, np.array([key], np.uint64))
        request = make_request("view milk", "view hammer")
        request.event = msgspec.structs.replace(request.event, domain=key_of("food"))
        (made,) = pipeline.rank([request])
        assert {item.item_id for item in made.items} == {"milk", "bread", "butter", "screws"}

    def test_a_domain_that_the_model_has_no_item_of_gives_an_empty_list(self, lists) -> None:
        made, _ = lists(["view milk"], "garden")
        assert (made.strategy, made.items) == ("popular", [])


class TestWhatTheCatalogueSays:
    @pytest.fixture
    def pipeline(self, artifact, state_settings) -> Pipeline:
        settings = RankingSettings(list_size=4, exclude="none")
        return Pipeline(artifact, ItemIndex(artifact.item_ids), Serving(artifact), state_settings, settings)

    def say(self, pipeline: Pipeline, *items: CatalogItem) -> None:
        catalog = Catalog()
        keys = [catalog.upsert(item) for item in items]
        pipeline.availability.update(catalog, np.array(keys, np.uint64))

    def test_what_may_not_be_recommended_is_on_no_list(self, pipeline, make_request) -> None:
        requests = [make_request("view milk"), make_request("view telescope"), make_request("session_start")]
        before = [[item.item_id for item in made.items] for made in pipeline.rank(requests)]
        assert all("bread" in made for made in before)
        self.say(pipeline, CatalogItem(item_id="bread", available=False))
        after = pipeline.rank(requests)
        assert [made.strategy for made in after] == ["hybrid", "popular", "popular"]
        for made, was in zip(after, before, strict=True):
            items = [item.item_id for item in made.items]
            assert "bread" not in items
            assert len(items) == 4
            assert [item for item in was if item != "bread"] == items[:3]

    def test_expired_by_the_time_of_the_event(self, pipeline, make_request) -> None:
        early, late = make_request("view milk"), make_request("session_start", "view milk")
        self.say(pipeline, CatalogItem(item_id="bread", expires_at_ms=late.event.time_ms))
        first, second = pipeline.rank([early, late])
        assert "bread" in {item.item_id for item in first.items}
        assert "bread" not in {item.item_id for item in second.items}

    def test_nothing_that_may_be_recommended_gives_an_empty_list(self, pipeline, artifact, make_request) -> None:
        self.say(pipeline, *[CatalogItem(item_id=item_id, available=False) for item_id in artifact.item_ids])
        for made in pipeline.rank([make_request("view milk"), make_request("session_start")]):
            assert made.items == []
            assert made.strategy == "popular"


# --- scores for evaluation


@pytest.mark.parametrize("learnt", [False, True])
def test_the_scores_are_those_that_lists_are_made_by(artifact, state_settings, make_request, learnt: bool) -> None:
    if learnt:
        draw = np.random.default_rng(1)
        shapes = {"w1": (6, len(FEATURES)), "b1": (6,), "w2": (4, 6), "b2": (4,), "w3": (1, 4)}
        blend = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        artifact = dataclasses.replace(artifact, blend=blend)
    made = Recommender(artifact, state_settings, RankingSettings(list_size=8, exclude="none")).pipeline
    requests = [make_request("view milk"), make_request(), make_request("view drill")]
    requests += [make_request("view bread", "purchase jam")] * 100
    nothing = np.empty(0, np.int64)
    scores = made.scores(requests, [nothing] * len(requests))
    for shown, row in zip(made.rank(requests), scores, strict=True):
        assert [item.item_id for item in shown.items] == [artifact.item_ids[k] for k in np.argsort(-row, kind="stable")]


def test_hidden_items_have_no_score_and_others_keep_theirs(artifact, state_settings, make_request) -> None:
    made = Recommender(artifact, state_settings, RankingSettings(exclude="seen")).pipeline
    requests = [make_request("view milk"), make_request()]
    open_, hidden = np.empty(0, np.int64), np.array([1, 7])
    before, after = made.scores(requests, [open_, open_]), made.scores(requests, [open_, hidden])
    assert np.isfinite(before).all()
    assert np.array_equal(after[0], before[0])
    assert np.isneginf(after[1, hidden]).all()
    assert np.array_equal(np.delete(after[1], hidden), np.delete(before[1], hidden))
