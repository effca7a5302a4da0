"""What training minimises: cross-entropy against *sets* of targets.

A position is an event after which the next items are known. When the next items share one time (a basket), their
order says nothing, so all that remain of the basket are targets of equal share; a lone next item is the set of one.

Letters in shapes: P positions, K pairs (position, target), n items, C sampled items, d width, G groups of targets.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class _FullCrossEntropy(torch.autograd.Function):
    """Cross-entropy over all items, with the gradient worked out in the forward pass.

    Plain autograd writes and reads the P x n logits a dozen times; at 4096 x 1537 that memory traffic costs as
    much as the matrix products. Here one buffer holds logits, then probabilities, then their gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,  # P d
        items: Tensor,  # n d
        bias: Tensor,  # n
        offset_weight: Tensor,  # scalar
        offset: Tensor | None,  # G n
        group: Tensor,  # P, into G
        pair_position: Tensor,  # K
        pair_item: Tensor,  # K
        pair_share: Tensor,  # K, sums to 1 over each position
        pair_done: tuple[Tensor, Tensor],  # positions and items of the basket that are in it already
    ) -> Tensor:
        scores = torch.addmm(bias, u, items.T)  # P n
        known: Tensor | None = None
        if offset is not None:
            known = offset[group]  # P n
            scores.addcmul_(known, offset_weight)
        scores[pair_done[0], pair_done[1]] = -1e9  # no candidates any more, here as when a list is made
        scores.sub_(scores.amax(dim=1, keepdim=True))
        shifted = scores[pair_position, pair_item]  # K
        scores.exp_()
        total = scores.sum(dim=1, keepdim=True)  # P 1
        loss = (total.squeeze(1).log().sum() - (shifted * pair_share).sum()) / u.shape[0]
        grad = scores.div_(total)  # P n, from here on the gradient by the scores
        grad.index_put_((pair_position, pair_item), -pair_share, accumulate=True)
        grad.div_(u.shape[0])
        weight_grad = (grad * known).sum() if known is not None else torch.zeros_like(offset_weight)
        ctx.save_for_backward(grad @ items, grad.T @ u, grad.sum(dim=0), weight_grad)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        by = grads[0]
        u, items, bias, weight = ctx.saved_tensors
        return u * by, items * by, bias * by, weight * by, None, None, None, None, None, None


def full_cross_entropy(
    u: Tensor,
    items: Tensor,
    bias: Tensor,
    pairs: tuple[Tensor, Tensor, Tensor],
    *,
    done: tuple[Tensor, Tensor],
    offset: tuple[Tensor, Tensor] | None = None,
    offset_weight: Tensor | None = None,
) -> Tensor:
    """Mean over positions of -sum(share * log softmax(u @ items.T + bias + weight * offset)) at the targets.

    u: f32[P, d]; items: f32[n, d]; bias: f32[n]; pairs: positions i64[K], items i64[K], shares f32[K].
    done: positions and items, i64[*] each, that are no candidates: in the basket already.
    offset: what counting knows, f32[G, n], and the row of it for each position, i64[P]; offset_weight: scalar.
    """
    if offset is None or offset_weight is None:
        nothing = torch.zeros((), dtype=u.dtype, device=u.device)
        args = (nothing, None, torch.empty(0, dtype=torch.long, device=u.device))
    else:
        args = (offset_weight, *offset)  # type: ignore[assignment]  # None or a tensor in the middle
    loss: Tensor = _FullCrossEntropy.apply(u, items, bias, *args, *pairs, done)  # type: ignore[no-untyped-call]
    return loss


def sampled_cross_entropy(
    u: Tensor,
    items: Tensor,
    bias: Tensor,
    pairs: tuple[Tensor, Tensor, Tensor],
    *,
    negatives: Tensor,
    log_q: Tensor,
) -> Tensor:
    """As full_cross_entropy, against each target and the same C drawn items for the whole batch.

    negatives: i64[C]; log_q: f32[C], log of the probability of each in one draw. A drawn item stands for 1 / (C q)
    items, so that their sum estimates that over all (Jean et al. 2015); one that is the target itself counts no more.
    """
    position, item, share = pairs
    drawn = torch.addmm(bias[negatives], u, items[negatives].T)  # P C
    drawn = drawn - (log_q + math.log(len(negatives)))  # P C
    target = (u[position] * items[item]).sum(dim=1) + bias[item]  # K
    others = drawn[position].masked_fill(negatives == item[:, None], -math.inf)  # K C
    per_pair = torch.logaddexp(target, torch.logsumexp(others, dim=1)) - target  # K
    return (per_pair * share).sum() / u.shape[0]
