"""What passes is asked again; what does not is told at once."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream.engine.asking import patiently


class Broker:
    """Fails with each of `codes` in turn, then answers 7."""

    def __init__(self, *codes: int) -> None:
        self._codes = list(codes)
        self.asked = 0

    def ask(self) -> int:
        self.asked += 1
        if self._codes:
            raise KafkaException(KafkaError(self._codes.pop(0)))
        return 7


def test_a_leader_that_moves_is_asked_again() -> None:
    broker = Broker(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    assert patiently(broker.ask) == 7
    assert broker.asked == 3


def test_a_refusal_is_told_at_once() -> None:
    broker = Broker(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException):
        patiently(broker.ask)
    assert broker.asked == 1


def test_patience_ends() -> None:
    broker = Broker(*[KafkaError.NOT_LEADER_FOR_PARTITION] * 1000)
    with pytest.raises(KafkaException):
        patiently(broker.ask, seconds=0.3)
    assert 1 < broker.asked < 10
