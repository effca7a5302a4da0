import logging

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.artifact import Artifact, untrained_artifact
from model.errors import ModelError
from model.serving import BLOCK, LARGER, Serving
from state.interest import VECTOR_DTYPE

F32 = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained_artifact([f"item-{k}" for k in range(300)], dim=16, hidden=24)


@pytest.fixture(scope="module")
def serving(artifact: Artifact) -> Serving:
    return Serving(artifact)


def some_vectors(artifact: Artifact, rows: int) -> list[bytes]:
    draw = np.random.default_rng(5)
    return [row.tobytes() for row in draw.standard_normal((rows, artifact.state_size)).astype(VECTOR_DTYPE)]


def floats(vectors: list[bytes]) -> F32:
    return np.stack([np.frombuffer(vector, VECTOR_DTYPE) for vector in vectors]).astype(np.float32)


def test_a_step_is_the_networks(artifact: Artifact, serving: Serving) -> None:
    vectors = some_vectors(artifact, 3)
    state = torch.from_numpy(floats(vectors))
    expected = artifact.network.step(state, torch.tensor([0, 300, 7]), torch.tensor([1, 10, 5]))
    got = floats(serving.step(vectors, [0, 300, 7], [1, 10, 5]))
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-3, atol=1e-6)  # rounded to half precision


def test_a_new_user_starts_from_zeros(artifact: Artifact, serving: Serving) -> None:
    zeros = bytes(2 * artifact.state_size)
    assert serving.step([b""], [4], [1]) == serving.step([zeros], [4], [1])


def test_a_users_vector_does_not_depend_on_the_others(artifact: Artifact, serving: Serving) -> None:
    rows = LARGER + 2 * BLOCK + 9
    vectors = some_vectors(artifact, rows)
    tokens = [row % 301 for row in range(rows)]
    together = serving.step(vectors, tokens, [1] * rows)
    for order in (list(range(rows))[::-1], [*range(50, rows), *range(50)]):
        moved = serving.step([vectors[at] for at in order], [tokens[at] for at in order], [1] * rows)
        assert moved == [together[at] for at in order]
    one_by_one = [serving.step([vectors[at]], [tokens[at]], [1])[0] for at in range(0, rows, 11)]
    assert one_by_one == together[::11]


def test_scores_are_query_times_items_plus_bias(artifact: Artifact, serving: Serving) -> None:
    vectors = some_vectors(artifact, 5)
    bias = np.full(serving.width, -np.inf, np.float32)
    bias[:300] = np.arange(300)
    out = np.zeros((BLOCK, serving.width), np.float32)
    serving.score(vectors, bias[None], np.zeros(5, np.int64), out)
    state = torch.from_numpy(floats(vectors))
    query = artifact.network.query(state).numpy()
    np.testing.assert_allclose(out[:5, :300], query @ artifact.item_matrix.T + np.arange(300), rtol=1e-4, atol=1e-4)
    assert (out[:5, 300:] == -np.inf).all()
    backwards = np.zeros_like(out)
    serving.score(vectors[::-1], bias[None], np.zeros(5, np.int64), backwards)
    assert backwards[:5].tobytes() == out[:5][::-1].tobytes()
    biases = np.stack([bias, 2 * bias])
    serving.score(vectors, biases, np.array([0, 1, 0, 1, 1]), out)
    np.testing.assert_allclose(
        out[3, :300], (query @ artifact.item_matrix.T)[3] + 2 * np.arange(300), rtol=1e-4, atol=1e-3
    )
    assert out[2].tobytes() == backwards[2].tobytes()


def test_there_is_always_a_column_that_is_no_item() -> None:
    for n in (1, 127, 128, 129):
        assert Serving(untrained_artifact([f"i{k}" for k in range(n)], dim=4, hidden=4)).width > n


def test_one_thread_is_used(serving: Serving) -> None:
    assert torch.get_num_threads() == 1


def test_a_vector_of_another_size_is_refused(serving: Serving) -> None:
    with pytest.raises(ModelError, match="not rebuilt"):
        serving.step([bytes(8)], [0], [1])


class _Placed(torch.nn.Module):
    """A network whose results depend on the row's place, as a matrix library's might on some machine."""

    @torch.jit.export
    def step(self, state: torch.Tensor, token: torch.Tensor, type: torch.Tensor) -> torch.Tensor:
        return state + torch.arange(state.shape[0], dtype=torch.float32).unsqueeze(1)

    @torch.jit.export
    def query(self, state: torch.Tensor) -> torch.Tensor:
        return state[:, :4]


def test_where_a_rows_place_matters_rows_are_computed_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    import dataclasses

    tiny = untrained_artifact(["a", "b"], dim=4, hidden=4)
    placed = dataclasses.replace(tiny, network=torch.jit.script(_Placed()))
    with caplog.at_level(logging.WARNING):
        serving = Serving(placed)
    assert serving.sizes == (1,)
    assert "one by one" in caplog.text
    vectors = some_vectors(tiny, 3)
    assert serving.step(vectors, [0, 0, 0], [1, 1, 1]) == vectors
    out = np.zeros((BLOCK, serving.width), np.float32)
    serving.score(vectors, np.zeros((1, serving.width), np.float32), np.zeros(3, np.int64), out)
    query = floats(vectors)[:, :4]
    np.testing.assert_allclose(out[:3, :2], query @ tiny.item_matrix.T, rtol=1e-5, atol=1e-6)
