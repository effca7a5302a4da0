"""The cycle's own arithmetic; its work on Kafka is in test_exactness and in the chaos suite."""

from stream.engine.cycle import linger_ms


def test_an_idle_stream_never_waits() -> None:
    assert linger_ms(0, 0.0, 20) == 0
    assert linger_ms(255, 0.004, 20) == 0


def test_under_load_it_waits_as_long_as_the_last_cycle_took() -> None:
    assert linger_ms(400, 0.007, 20) == 7
    assert linger_ms(2_000, 0.080, 20) == 20
    assert linger_ms(2_000, 0.080, 0) == 0
