from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from model.artifact import untrained_artifact
from model.recommender import Recommender
from state.codec import VERSION, encode_state
from state.errors import StateCorruptError
from state.interest import InterestState
from stream.agents.interest import InterestAgent
from stream.contract.control import user_hash
from stream.metrics import Metrics
from stream.settings import load_settings
from tests.test_stream.test_agents.records import FakePartition, Record, event

DAMAGED = bytes([VERSION]) + b"\xff damaged"


class Log:
    """A partition that an agent processed in chunks of 7, and what it stored."""

    def __init__(self, records: list[Record], *, rebuilds: bool) -> None:
        settings = load_settings(overrides={}, environ={})
        artifact = untrained_artifact([f"i{n}" for n in range(40)], dim=8, hidden=8, seed=1)
        recommender = Recommender(artifact, settings.state_settings(), settings.ranking_settings())
        self.records = records
        self.metrics = Metrics(CollectorRegistry())
        self.agent = InterestAgent(
            settings,
            recommender,
            self.metrics,
            now_ms=lambda: 1_780_000_100_000,
            history=self.history if rebuilds else None,
        )
        self.partition = FakePartition()
        for at in range(0, len(records), 7):
            self.take(records[at : at + 7])

    def history(self, topic: str, number: int, until: int) -> Iterator[list[Record]]:
        assert (topic, number) == ("driftline.events.v1", 0)
        before = [record for record in self.records if record.offset() < until]
        for at in range(0, len(before), 5):
            yield before[at : at + 5]

    def take(self, records: list[Record]) -> None:
        chunk = self.partition.chunk(records)
        with chunk:
            self.agent.process([chunk], 1)
        self.partition.commit(chunk)

    def value(self, user: str) -> bytes | None:
        return self.partition.store.get_many([user.encode()])[0]

    def damage(self, user: str) -> None:
        self.partition.store.write([(user.encode(), DAMAGED)], None)

    def count(self, name: str) -> float:
        return sum(s.value for m in self.metrics.registry.collect() for s in m.samples if s.name == name)


def a_log() -> list[Record]:
    """Three users; events sent twice, one of no use, one too late, and one user erased in between."""
    records = [event(f"u{n % 3}", f"i{n % 11}", n, category=f"c{n % 4}") for n in range(40)]
    records[9] = event("u1", "i3", 9, event_id="e4")
    records[12] = Record(b"junk", b"u0", 12)
    records[20] = event("u1", "i30", 20, occurred_at=1_780_000_000_000 - 30 * 86_400_000)
    records[25] = event("u2", "", 25, event_type="user_erased")
    return records


@pytest.mark.parametrize("user", ["u0", "u1", "u2"])
def test_a_rebuilt_state_is_that_of_a_run_without_damage(user: str) -> None:
    more = [event(f"u{n % 3}", "i7", n) for n in range(40, 49)]
    sound, damaged = Log(a_log(), rebuilds=True), Log(a_log(), rebuilds=True)
    damaged.damage(user)
    before = damaged.count("driftline_events_total")
    for log in (sound, damaged):
        log.take(more)
    assert damaged.value(user) == sound.value(user)
    assert damaged.count("driftline_rebuilt_states_total") == 1
    assert sound.count("driftline_rebuilt_states_total") == 0
    assert damaged.count("driftline_events_total") == before + len(more)  # reading again counts nothing again


def test_without_a_log_the_worker_ends_and_says_whose_state_it_is() -> None:
    log = Log(a_log(), rebuilds=False)
    log.damage("u1")
    with pytest.raises(StateCorruptError) as raised:
        log.take([event("u1", "i7", 40)])
    told = str(raised.value)
    assert user_hash(b"u1") in told
    assert "u1 " not in told
    assert "partition 0" in told
    assert "worker.corrupt_state = rebuild" in told
    assert log.value("u1") == DAMAGED  # nothing was written over it


def test_a_user_of_whom_the_log_says_nothing_begins_anew() -> None:
    log = Log(a_log(), rebuilds=True)
    log.damage("stranger")
    log.take([event("stranger", "i7", 40)])
    fresh = Log(a_log(), rebuilds=True)
    fresh.take([event("stranger", "i7", 40)])
    assert log.value("stranger") == fresh.value("stranger") != encode_state(InterestState())
