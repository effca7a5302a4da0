"""The network, stepped for many users at once, and its scores of all items.

Every call has exactly BLOCK rows, the missing ones zero. Matrix products differ in their last bits with the
number of rows, so with batches of whatever size a user's vector would depend on who else was in the chunk; with
one size it depends on the user's events alone, and a replay gives the same bytes.
"""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from model.artifact import Artifact
from model.errors import ModelError

BLOCK = 64
"""Rows of every call: enough to amortise a call (0.2 ms), few enough not to waste much on a short chunk."""

_LANES = 128
"""The width of score rows is a multiple of this many items (and at least one more than there are items)."""

F32 = npt.NDArray[np.float32]

log = logging.getLogger(__name__)


class Serving:
    """Steps user vectors and scores all items. One thread: workers scale by processes.

    Letters in shapes: n items, N their number padded (see `width`), S floats of state, D width of a query.
    """

    def __init__(self, artifact: Artifact) -> None:
        torch.set_num_threads(1)
        n = len(artifact.item_ids)
        self.state_size = artifact.state_size
        self.session_token = n
        self.width = (n // _LANES + 1) * _LANES
        """N > n: columns n .. N-1 are no items. Their score is -inf, so that whatever has no token may be
        written to column n without harm."""
        self.rows = BLOCK
        """Rows of a call; 1 on a machine where a row's result depends on its place among others."""
        self._network = artifact.network
        self._zero = bytes(4 * artifact.state_size)
        matrix = torch.zeros(artifact.dim, self.width)  # D N
        matrix[:, :n] = torch.from_numpy(artifact.item_matrix).T
        self._matrix = matrix
        self._allocate()
        if self._placement_matters():
            log.warning(
                "on this machine a row's result depends on its place in a block of %d; so that replays stay equal, "
                "rows are computed one by one, which is slow. MKL_CBWR=COMPATIBLE may help.",
                BLOCK,
            )
            self.rows = 1
            self._allocate()

    def _allocate(self) -> None:
        self._state = torch.zeros(self.rows, self.state_size)
        self._token = torch.zeros(self.rows, dtype=torch.int64)
        self._type = torch.zeros(self.rows, dtype=torch.int64)
        # Views of the same memory, to fill it without torch's overhead per call.
        self._state_array: F32 = self._state.numpy()
        self._token_array = self._token.numpy()
        self._type_array = self._type.numpy()

    def step(self, vectors: Sequence[bytes], tokens: Sequence[int], types: Sequence[int]) -> list[bytes]:
        """One event for each of B users: vectors f32[S] as bytes (b"" is a new user), tokens, type codes."""
        size = len(self._zero)
        stepped: list[bytes] = []
        for start in range(0, len(vectors), self.rows):
            used = self._fill(vectors[start : start + self.rows])
            self._token_array[:used] = tokens[start : start + used]
            self._token_array[used:] = 0
            self._type_array[:used] = types[start : start + used]
            self._type_array[used:] = 0
            with torch.inference_mode():
                after = self._network.step(self._state, self._token, self._type)  # rows S
            packed = after.numpy().tobytes()
            stepped.extend([packed[at : at + size] for at in range(0, used * size, size)])
        return stepped

    def score(self, vectors: Sequence[bytes], bias: F32, out: F32, weight: float = 1.0) -> None:
        """Scores of all items for at most BLOCK users into `out` f32[BLOCK, N]: weight * query @ item_matrix.T + bias.

        bias: f32[N], -inf from column n on. Rows of `out` beyond the users' are finite or -inf, but mean nothing.
        """
        bias_tensor = torch.from_numpy(bias)  # N
        out_tensor = torch.from_numpy(out)  # BLOCK N
        with torch.inference_mode():
            for start in range(0, len(vectors), self.rows):
                self._fill(vectors[start : start + self.rows])
                query = self._network.query(self._state)  # rows D
                rows = out_tensor[start : start + self.rows]
                torch.addmm(bias_tensor, query, self._matrix, alpha=weight, out=rows)

    def _fill(self, vectors: Sequence[bytes]) -> int:
        used = len(vectors)
        zero = self._zero
        packed = b"".join([vector or zero for vector in vectors])
        if len(packed) != used * len(zero):
            raise ModelError(
                f"a user's vector has not the {self.state_size} floats of this model: it was not rebuilt after a "
                "change of model. Please report this."
            )
        self._state_array[:used] = np.frombuffer(packed, np.float32).reshape(used, self.state_size)
        self._state_array[used:] = 0.0
        return used

    def _placement_matters(self) -> bool:
        """Whether equal rows give other bits at another place in the block. Warms TorchScript up on the way:
        its first calls profile and compile, and must not be those of the first events."""
        draw = np.random.default_rng(0)
        states = draw.standard_normal((BLOCK, self.state_size)).astype(np.float32)
        tokens = draw.integers(0, self.session_token + 1, BLOCK)
        types = [0] * BLOCK
        bias = np.zeros(self.width, np.float32)
        out = np.empty((BLOCK, self.width), np.float32)
        vectors = [row.tobytes() for row in states]
        for _ in range(3):
            stepped = self.step(vectors, tokens.tolist(), types)
            self.score(stepped, bias, out)
        expected = out.copy()
        for shift in (1, 7, 31):
            order = np.roll(np.arange(BLOCK), shift)
            moved = self.step([vectors[at] for at in order], tokens[order].tolist(), types)
            self.score([stepped[at] for at in order], bias, out)
            if moved != [stepped[at] for at in order] or out.tobytes() != expected[order].tobytes():
                return True
        return False
