import numpy as np
import pytest

from model.online.blend import OnlineBlend

TRUE = np.array([2.0, -1.0, 0.0])


def lists(count: int, weights_of: object = None) -> list[tuple[np.ndarray, float, int]]:
    """Signals, context and what was taken, drawn by the softmax of TRUE (of its negative at context below 0)."""
    draw = np.random.default_rng(8)
    made = []
    for _ in range(count):
        signals, context = draw.normal(size=(3, 20)), float(draw.choice([-1.0, 1.0]))
        true = TRUE if weights_of is None else TRUE * context
        chance = np.exp(true @ signals)
        made.append((signals, context, int(draw.choice(20, p=chance / chance.sum()))))
    return made


def test_weights_come_near_those_that_made_the_answers() -> None:
    blend = OnlineBlend(np.zeros(3), fade=1.0)
    for signals, context, taken in lists(1500):
        blend.learn(signals, context, taken)
    np.testing.assert_allclose(blend.weights, [*TRUE, 0.0, 0.0, 0.0], atol=0.2)


def test_a_signal_may_be_worth_more_at_another_context() -> None:
    blend = OnlineBlend(np.zeros(3), fade=1.0)
    for signals, context, taken in lists(1500, weights_of="context"):
        blend.learn(signals, context, taken)
    np.testing.assert_allclose(blend.weights, [0.0, 0.0, 0.0, *TRUE], atol=0.2)


def test_it_follows_a_change_when_old_answers_fade() -> None:
    fading, keeping = OnlineBlend(np.zeros(3), fade=0.99), OnlineBlend(np.zeros(3), fade=1.0)
    for sign in (1.0, -1.0):
        for signals, _, taken in lists(800):
            for blend in (fading, keeping):
                blend.learn(sign * signals, 0.0, taken)
    assert np.abs(fading.weights[:3] + TRUE).max() < 0.6
    assert np.abs(keeping.weights[:3] + TRUE).max() > 1.0


def test_before_any_answer_it_scores_by_the_first_weights() -> None:
    blend = OnlineBlend(np.array([1.0, 0.0]))
    signals = np.array([[3.0, 1.0, 2.0], [9.0, 9.0, -9.0]])
    assert blend.score(signals, 0.7).tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("signals", [np.zeros((2, 5)), np.full((2, 1), 700.0)])
def test_a_list_that_tells_nothing_changes_nothing(signals: np.ndarray) -> None:
    blend = OnlineBlend(np.array([1.0, 2.0]))
    for _ in range(5):
        blend.learn(signals, 1.0, 0)
    np.testing.assert_allclose(blend.weights, [1.0, 2.0, 0.0, 0.0])
