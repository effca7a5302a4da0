"""The order in which tests look for a real Kafka, and what they are told when there is none."""

import pytest

import stream.brokers.find as find
from stream.brokers import Broker, EmbeddedBroker, find_broker
from stream.errors import BrokerError


class Fake(Broker):
    """Stands for a broker that started."""


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with none of the sources."""
    monkeypatch.delenv(find.GIVEN_VARIABLE, raising=False)
    monkeypatch.setattr(find, "why_no_docker", lambda: "no Docker")
    monkeypatch.setattr(find, "why_no_local", lambda: "no Java")
    return monkeypatch


def test_a_given_one_first(embedded: EmbeddedBroker, nothing: pytest.MonkeyPatch) -> None:
    nothing.setenv(find.GIVEN_VARIABLE, embedded.bootstrap_servers)
    found = find_broker()
    assert found.source == "given"
    assert found.broker is not None
    found.broker.stop()  # not ours to stop
    assert EmbeddedBroker.running_here(embedded.bootstrap_servers) is embedded


def test_a_given_one_that_does_not_answer_is_an_error(nothing: pytest.MonkeyPatch) -> None:
    nothing.setenv(find.GIVEN_VARIABLE, "127.0.0.1:1")
    with pytest.raises(BrokerError, match=r"no broker answers at 127\.0\.0\.1:1"):
        find_broker()


def test_docker_before_a_jdk(nothing: pytest.MonkeyPatch) -> None:
    for name in ("why_no_docker", "why_no_local"):
        nothing.setattr(find, name, lambda: None)
    nothing.setattr(find, "DockerKafka", Fake)
    found = find_broker()
    assert (found.source, type(found.broker)) == ("docker", Fake)


def test_the_next_one_when_one_fails_to_start(nothing: pytest.MonkeyPatch) -> None:
    def fails() -> Broker:
        raise BrokerError("the image is not to be had")

    for name in ("why_no_docker", "why_no_local"):
        nothing.setattr(find, name, lambda: None)
    nothing.setattr(find, "DockerKafka", fails)
    nothing.setattr(find, "LocalKafka", Fake)
    found = find_broker()
    assert found.source == "local"
    assert "the image is not to be had" in found.reasons


def test_none_with_all_reasons(nothing: pytest.MonkeyPatch) -> None:
    found = find_broker()
    assert found.broker is None
    assert found.reasons == [f"{find.GIVEN_VARIABLE} names no broker", "no Docker", "no Java"]
