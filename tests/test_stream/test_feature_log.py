"""Features written beside lists, and that a replay of the log gives the same: no skew between live and training."""

import random
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from model.artifact import untrained_artifact
from model.recommender import Portion, Recommender
from state.features import FeatureReader
from state.interaction import Interaction
from state.interest import InterestState
from stream.agents.interest import InterestAgent
from stream.contract.recommendation import decode_recommendation
from stream.errors import ContractError, SettingsError
from stream.feature_log import FeatureRecord, decode_features
from stream.metrics import Metrics
from stream.settings import Settings, load_settings
from stream.topics import topic_specs
from tests.test_stream.test_agents.records import FakePartition, Record, event

TOPIC = "driftline.features.v1"
MINUTE_MS = 60_000


def _settings(**more: Any) -> Settings:
    return load_settings(overrides={"topics.features": TOPIC, "worker.lists": "event", **more}, environ={})


def _recommender(settings: Settings) -> Recommender:
    items, categories = [f"i{n}" for n in range(60)], [f"c{n % 6}" for n in range(60)]
    artifact = untrained_artifact(items, categories, dim=8, hidden=8, seed=1)
    return Recommender(artifact, settings.state_settings(), settings.ranking_settings())


def _log(count: int, seed: int) -> list[Record]:
    """Events of nine users over some days: all types, some sent twice, some out of order."""
    rng = random.Random(seed)
    kinds = ["view", "view", "click", "add_to_cart", "remove_from_cart", "purchase", "hide", "dislike", "session_start"]
    start_ms, records = 1_779_000_000_000, []
    for offset in range(count):
        kind = rng.choice(kinds)
        more: dict[str, Any] = {
            "event_type": kind,
            "brand": f"b{offset % 7}",
            "event_id": f"e{rng.randrange(offset - 5, offset) if offset > 5 and rng.random() < 0.05 else offset}",
            "occurred_at": start_ms + offset * 20 * MINUTE_MS - rng.randrange(15 * MINUTE_MS),
        }
        if kind == "session_start":
            more["item_id"] = None
        records.append(event(f"u{rng.randrange(9)}", f"i{rng.randrange(80)}", offset, **more))
    return records


class Live:
    """A worker's agent over one partition, with all that it sends."""

    def __init__(self, settings: Settings, recommender: Recommender) -> None:
        metrics = Metrics(CollectorRegistry())
        self.agent = InterestAgent(settings, recommender, metrics, now_ms=lambda: 1_780_000_100_000)
        self.partition = FakePartition()
        self.sends: list[tuple[str, bytes | None, bytes | None, int]] = []
        self.batches: list[tuple[bytes, Interaction]] = []

    def run(self, records: list[Record], size: int) -> None:
        for start in range(0, len(records), size):
            chunk = self.partition.chunk(records[start : start + size])
            with chunk:
                self.agent.process([chunk], 1)
            self.sends += [(topic, value, key, partition) for topic, value, key, partition, _ in chunk.sends]
            self.partition.commit(chunk)

    def features(self) -> dict[int, FeatureRecord]:
        records = [decode_features(value or b"") for topic, value, *_ in self.sends if topic == TOPIC]
        return {record.source.offset: record for record in records}


def _interactions(
    settings: Settings, recommender: Recommender, records: list[Record]
) -> list[tuple[bytes, Interaction]]:
    """The log as a training run reads it: by the agent's own reader, into interactions."""
    batches: list[tuple[bytes, Interaction]] = []

    class Reader(Recommender):
        def process(self, portions: Any, **more: Any) -> Any:
            batches.extend(pair for portion in portions for pair in portion.batch)
            return super().process(portions, **more)

    Live(settings, Reader(recommender.artifact, recommender.state_settings, recommender.ranking_settings)).run(
        records, len(records)
    )
    return batches


BY_TYPE: dict[str, Any] = {
    "state.interests": "category,brand",
    "state.last_window": {"view": "session", "click": "day"},
    "state.count_half_lives_s": {"view": 3600, "purchase": "90d"},
}


@pytest.mark.parametrize("more", [{}, BY_TYPE])
def test_features_logged_live_equal_those_rebuilt_from_the_log(more: dict[str, Any]) -> None:
    settings = _settings(**more)
    recommender = _recommender(settings)
    records = _log(400, seed=3)
    live = Live(settings, recommender)
    live.run(records, 37)
    logged = live.features()
    batch = _interactions(settings, recommender, records)
    assert len(logged) > 300

    reader = FeatureReader(recommender.state_settings, settings.weight_settings())
    for size in (1, 11, 400):
        states: dict[bytes, InterestState] = {}
        trend = recommender.new_trend()
        rebuilt: dict[int, Any] = {}
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            portion = Portion(part, states, trend)
            recommender.absorb(portion)
            last = {user: interaction for at, (user, interaction) in enumerate(part) if at not in portion.duplicates}
            values = reader.read([states[user] for user in last], [i.time_ms for i in last.values()]).users
            rebuilt.update(zip([i.offset for i in last.values()], values, strict=True))
        assert set(rebuilt) <= set(logged)
        assert len(rebuilt) == len(logged) if size == 1 else len(rebuilt) >= 9
        for offset, row in rebuilt.items():
            assert logged[offset].array().tobytes() == row.tobytes(), offset


@pytest.mark.parametrize("lists", ["event", "chunk"])
def test_how_the_log_is_cut_into_chunks_changes_no_feature(lists: str) -> None:
    settings = _settings(**{"worker.lists": lists})
    recommender = _recommender(settings)
    records = _log(150, seed=5)
    every = Live(_settings(), recommender)
    every.run(records, 1)
    some = Live(settings, recommender)
    some.run(records, 29)
    expected, found = every.features(), some.features()
    assert found.items() <= expected.items() if lists == "chunk" else found == expected
    assert len(found) >= 9


def test_a_record_tells_of_its_list() -> None:
    settings = _settings()
    recommender = _recommender(settings)
    live = Live(settings, recommender)
    live.run([event("ann", "i3", 0)], 1)
    sent = {topic: (value or b"", key, partition) for topic, value, key, partition in live.sends}
    record, made = decode_features(sent[TOPIC][0]), decode_recommendation(sent[settings.topics.recommendations][0])
    assert sent[TOPIC][1:] == (b"ann", 0)
    assert (record.recommendation_id, record.source) == (made.recommendation_id, made.source)
    assert (record.events_applied, record.event_time_ms) == (1, 1_780_000_000_000)
    reader = FeatureReader(recommender.state_settings, settings.weight_settings())
    reader.require(record.fingerprint)
    assert len(record.values) == len(reader.user)
    assert dict(zip([f.name for f in reader.user], record.values, strict=True))["top_share"] == 1.0
    assert np.array(record.values, np.float32).tolist() == record.values  # JSON has lost nothing


def test_nothing_is_written_unless_a_topic_is_named() -> None:
    settings = load_settings(environ={})
    assert "features" not in settings.topics.names()
    live = Live(settings, _recommender(settings))
    live.run([event("ann", "i3", 0)], 1)
    assert {topic for topic, *_ in live.sends} == {settings.topics.recommendations}


def test_the_topic_has_the_partitions_of_the_events_and_is_not_compacted() -> None:
    (spec,) = [spec for spec in topic_specs(_settings(), 7) if spec.role == "features"]
    assert (spec.name, spec.partitions, spec.compacted) == (TOPIC, 7, False)


@pytest.mark.parametrize("name", ["a b", "driftline.events.v1", "."])
def test_names_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="features"):
        load_settings(overrides={"topics.features": name}, environ={})


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b"[" * 5000])
def test_what_is_no_record_of_features_is_refused(value: bytes) -> None:
    with pytest.raises(ContractError, match="features topic"):
        decode_features(value)
