"""Strays get the key of their user."""

from prometheus_client import CollectorRegistry

from stream.agents.rekey import RekeyAgent
from stream.contract.control import ERROR_REASON, ERROR_STAGE, FIRST_SENT
from stream.metrics import Metrics
from stream.settings import Settings
from tests.test_stream.test_agents.records import FakePartition, Record, event


def test_a_stray_is_sent_on_under_its_user_unchanged() -> None:
    agent = RekeyAgent(Settings(), Metrics(CollectorRegistry()))
    stray = event("ann", "i3", 0, key=b"session-9")
    chunk = FakePartition().chunk([stray])
    agent.process(chunk)
    # Partition -1: murmur2 of the key decides.
    sent = [(FIRST_SENT, b"1780000000000")]
    assert chunk.sends == [("driftline.events.v1", stray.value(), b"ann", -1, sent)]


def test_when_it_was_first_sent_is_told_once() -> None:
    agent = RekeyAgent(Settings(), Metrics(CollectorRegistry()))
    given = event("ann", "i3", 0)
    chunk = FakePartition().chunk([Record(given.value(), b"x", 0, headers=[(FIRST_SENT, b"1779999999000")])])
    agent.process(chunk)
    assert [headers for *_, headers in chunk.sends] == [[(FIRST_SENT, b"1779999999000")]]


def test_headers_go_with_it() -> None:
    agent = RekeyAgent(Settings(), Metrics(CollectorRegistry()))
    given = event("ann", "i3", 0)
    chunk = FakePartition().chunk([Record(given.value(), None, 0, headers=[("trace", b"1")])])
    agent.process(chunk)
    assert [headers for *_, headers in chunk.sends] == [[("trace", b"1"), (FIRST_SENT, b"1780000000000")]]


def test_what_cannot_be_read_is_a_dead_letter() -> None:
    metrics = Metrics(CollectorRegistry())
    agent = RekeyAgent(Settings(), metrics)
    chunk = FakePartition().chunk([Record(b"[]", b"x", 0)])
    agent.process(chunk)
    ((topic, value, key, _, headers),) = chunk.sends
    assert (topic, value, key) == ("driftline.events.v1.dlq", b"[]", b"x")
    assert dict(headers or [])[ERROR_STAGE] == b"rekey"
    assert metrics.registry.get_sample_value("driftline_dead_letters_total", {"stage": "rekey", "reason": "wrong_type"})


def test_one_too_far_ahead_is_a_dead_letter_and_one_whose_clock_can_be_corrected_is_not() -> None:
    agent = RekeyAgent(Settings(), Metrics(CollectorRegistry()))
    ahead_ms = 1_780_000_000_000 + 3_600_000
    known = event("ann", "i3", 1, key=b"x", occurred_at=ahead_ms, sent_at=ahead_ms)
    chunk = FakePartition().chunk([event("ann", "i3", 0, key=b"x", occurred_at=ahead_ms), known])
    agent.process(chunk)
    (refused, sent) = chunk.sends
    assert refused[0] == "driftline.events.v1.dlq"
    assert dict(refused[4] or [])[ERROR_REASON] == b"future_time"
    assert sent[:3] == ("driftline.events.v1", known.value(), b"ann")


def test_what_the_events_topic_would_not_take_is_a_dead_letter() -> None:
    """Its headers make it too large: sent on, it would be refused by the broker, again and again."""
    agent = RekeyAgent(Settings(), Metrics(CollectorRegistry()))
    given = event("ann", "i3", 0)
    chunk = FakePartition().chunk([Record(given.value(), b"x", 0, headers=[("big", b"x" * 1_500_000)])])
    agent.process(chunk)
    ((topic, *_, headers),) = chunk.sends
    assert topic == "driftline.events.v1.dlq"
    assert dict(headers or [])[ERROR_REASON] == b"too_large"
