"""Which items a list leaves out."""

import numpy as np
import numpy.typing as npt

from model.ranking.block import Block
from model.ranking.settings import Exclude

I64 = npt.NDArray[np.int64]


def excluded(block: Block, exclude: Exclude) -> list[I64]:
    """Arrays of tokens i64[B, any], whose items are left out of the row's list; a token of n leaves nothing out.

    "seen" leaves out all that the state remembers, "session" the running session's items. An item whose decayed
    count is below zero (hidden, disliked) is left out in any case.
    """
    n = block.n
    if exclude == "seen":
        return [block.seen_tokens]
    left_out = block.counts < 0.0
    if exclude == "session":
        left_out |= block.counted_in_session
        return [
            np.where(block.in_session, block.recent_tokens, n),
            np.where(left_out, block.count_tokens, n),
        ]
    return [np.where(left_out, block.count_tokens, n)]
