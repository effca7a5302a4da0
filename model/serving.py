"""The network, stepped for many users at once, and its scores of all items.

Every call has one of a few fixed numbers of rows, the missing ones zero. Matrix products may differ in their last
bits with the number of rows, so with batches of whatever size a user's vector would depend on who else was in the
chunk. Which of the sizes give the same bits on this machine is tried at start, and only those are used: then a vector
depends on the user's events alone, and a replay gives the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from model.artifact import Artifact
from model.errors import ModelError
from state.interest import VECTOR_DTYPE

BLOCK = 64
"""Rows of a full call: enough to amortise it."""

LARGER = 256
"""Rows of a call of `step` where so many wait, if they give the same bits: a row takes 2.7 us instead of 3.8."""

SMALLER = (8, 16, 32)
"""Rows of a call for a short chunk, where they give the same bits as BLOCK: 8 rows are stepped in half the time of 64
and scored in a seventh, and at a trickle most chunks are that short."""

LANES = 512
"""The width of score rows is a multiple of this many items (and at least one more than there are items)."""

_HALF_MAX = 65_504.0
"""The largest number of half precision: beyond it stands infinity, which no later event would mend."""

_TRIALS = 4
"""Draws of 64 random vectors by which sizes are compared; a kernel that sums in another order shows in the first."""

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

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
        self.width = (n // LANES + 1) * LANES
        """N > n: columns n .. N-1 are no items. Their score is -inf, so that whatever has no token may be
        written to column n without harm."""
        self._network = artifact.network
        self._zero = bytes(VECTOR_DTYPE.itemsize * artifact.state_size)
        matrix = torch.zeros(artifact.dim, self.width)  # D N
        matrix[:, :n] = torch.from_numpy(artifact.item_matrix).T
        self._matrix = matrix
        self._inputs = {rows: _Inputs(rows, self.state_size) for rows in (1, *SMALLER, BLOCK, LARGER)}
        self.sizes: tuple[int, ...] = (BLOCK,)
        """Numbers of rows that a call may have, ascending; (1,) on a machine where a row's result depends on its
        place among others."""
        self.sizes = self._agreeing_sizes()
        if self.sizes == (1,):
            log.warning(
                "on this machine a row's result depends on its place in a block of %d; so that replays stay equal, "
                "rows are computed one by one, which is slow. MKL_CBWR=COMPATIBLE may help.",
                BLOCK,
            )

    def _inputs_for(self, rows: int) -> _Inputs:
        """The largest that are filled by so many rows, from BLOCK on; else the smallest that hold them."""
        full = [size for size in self.sizes if BLOCK <= size <= rows]
        return self._inputs[full[-1] if full else next((size for size in self.sizes if size >= rows), self.sizes[-1])]

    def step(self, vectors: Sequence[bytes], tokens: Sequence[int], types: Sequence[int]) -> list[bytes]:
        """One event for each of B users: vectors f16[S] as bytes (b"" is a new user), tokens, type codes.

        Rounded to half precision after every event, not only where a state is stored: a vector must not depend on
        where chunks end.
        """
        size = len(self._zero)
        stepped: list[bytes] = []
        start = 0
        while start < len(vectors):
            inputs = self._inputs_for(len(vectors) - start)
            used = self._fill(inputs, vectors[start : start + inputs.rows])
            inputs.token_array[:used] = tokens[start : start + used]
            inputs.token_array[used:] = 0
            inputs.type_array[:used] = types[start : start + used]
            inputs.type_array[used:] = 0
            with torch.inference_mode():
                after = self._network.step(inputs.state, inputs.token, inputs.type)  # rows S
                packed = after.clamp_(-_HALF_MAX, _HALF_MAX).half().numpy().tobytes()
            stepped.extend([packed[at : at + size] for at in range(0, used * size, size)])
            start += used
        return stepped

    def score(self, vectors: Sequence[bytes], biases: F32, which: I64, out: F32, weight: float = 1.0) -> None:
        """Scores of all items for at most BLOCK users into `out` f32[BLOCK, N]: weight * query @ item_matrix.T + bias.

        biases: f32[any, N], -inf from column n on; which: the bias of each user. Rows of `out` beyond the users' are
        finite or -inf before and after, and mean nothing.
        """
        out_tensor = torch.from_numpy(out)  # BLOCK N
        with torch.inference_mode():
            start = 0
            while start < len(vectors):
                inputs = self._inputs_for(len(vectors) - start)
                used = self._fill(inputs, vectors[start : start + inputs.rows])
                # Every index is in range: "clip" saves a copy.
                own = slice(start, start + used)
                np.take(biases, which[own], axis=0, out=out[own], mode="clip")
                query = self._network.query(inputs.state)  # rows D
                out_tensor[start : start + inputs.rows].addmm_(query, self._matrix, alpha=weight)
                start += used

    def _fill(self, inputs: _Inputs, vectors: Sequence[bytes]) -> int:
        used = len(vectors)
        zero = self._zero
        packed = b"".join([vector or zero for vector in vectors])
        if len(packed) != used * len(zero):
            raise ModelError(
                f"a user's vector has not the {self.state_size} floats of this model: it was not rebuilt after a "
                "change of model. Please report this."
            )
        inputs.state_array[:used] = np.frombuffer(packed, VECTOR_DTYPE).reshape(used, self.state_size)
        inputs.state_array[used:] = 0.0
        return used

    def _agreeing_sizes(self) -> tuple[int, ...]:
        """The numbers of rows that give a row the same bits, wherever it stands among others.

        Tried on random vectors, several times. Warms TorchScript up on the way: its first calls profile and compile,
        and must not be those of the first events.
        """
        draw = np.random.default_rng(0)
        agreeing = {*SMALLER, LARGER}
        for _ in range(_TRIALS):
            states = draw.standard_normal((BLOCK, self.state_size)).astype(VECTOR_DTYPE)
            vectors = [row.tobytes() for row in states]
            tokens = draw.integers(0, self.session_token + 1, BLOCK)
            stepped, scores = self._results(vectors, tokens, BLOCK)
            for shift in (1, 7, 31):
                order = np.roll(np.arange(BLOCK), shift)
                moved = self._results([vectors[at] for at in order], tokens[order], BLOCK)
                if moved != ([stepped[at] for at in order], [scores[at] for at in order]):
                    return (1,)
            for size in sorted(agreeing):
                copies = max(1, size // BLOCK)
                if self._results(vectors * copies, np.tile(tokens, copies), size) != (stepped * copies, scores):
                    agreeing.discard(size)
        return tuple(sorted({*agreeing, BLOCK}))

    def _results(
        self, vectors: list[bytes], tokens: npt.NDArray[np.int64], rows: int
    ) -> tuple[list[bytes], list[bytes]]:
        """For each vector the stepped one, and for the first BLOCK their scores, by calls of so many rows."""
        self.sizes = (rows,)
        stepped = self.step(vectors, tokens.tolist(), [0] * len(vectors))
        self.sizes = (min(rows, BLOCK),)
        out = np.empty((BLOCK, self.width), np.float32)
        self.score(stepped[:BLOCK], np.zeros((1, self.width), np.float32), np.zeros(BLOCK, np.int64), out)
        return stepped, [row.tobytes() for row in out]


class _Inputs:
    """Tensors for a call of so many rows, and views of the same memory to fill it without torch's overhead."""

    def __init__(self, rows: int, state_size: int) -> None:
        self.rows = rows
        self.state = torch.zeros(rows, state_size)
        self.token = torch.zeros(rows, dtype=torch.int64)
        self.type = torch.zeros(rows, dtype=torch.int64)
        self.state_array: F32 = self.state.numpy()
        self.token_array = self.token.numpy()
        self.type_array = self.type.numpy()
