"""The interest network: a gated diagonal linear recurrence, all of it in this file.

One user's interest is a row of floats that every event moves a little; a second row, read from it, is matched
against all items.  Training sees whole sequences at once (`sequence`), serving one event at a time
(`step`, `query`); both are the same arithmetic, and a test holds them together.

Letters in shape comments: B rows (users), T events in time order, d width, h channels per block, L blocks,
n items, S = L*h + d floats of state.

The family is that of LRURec (Yue et al. 2023), minGRU (Feng et al. 2024), HGRN (Qin et al. 2023) and RG-LRU
(De et al. 2024): the gate depends on the event and not on the state, so that a step costs O(h), the past is a
weighted sum, and a sequence needs no attention over itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.content import Content, ItemFeatures


@dataclass(frozen=True)
class NetSettings:
    """Sizes of the network."""

    items: int
    """Items in the catalogue; token `items` is the start of a session, so there are items + 1 tokens."""
    dim: int = 64
    """d. With h=96 there are 86k weights beside the embedding: trained in a minute of one CPU thread."""
    hidden: int = 96
    """h. Channels of memory per block, each with its own time constant. With the output a user's state is
    2 x 96 + 64 floats: 1 KiB. 128 channels were no better on the demo's data."""
    blocks: int = 2
    """L. The first sees items only, the second what the first remembers."""
    dropout: float = 0.0
    """Share of activations dropped in training. In a budget of minutes none is best: the order inside baskets,
    drawn anew each epoch, already keeps the network from learning by heart."""
    shortest_memory_events: float = 1.0
    """Time constant of the fastest channel at the start of training: the last event or two."""
    longest_memory_events: float = 200.0
    """And of the slowest: about as many events as one training window holds."""

    @property
    def state_size(self) -> int:
        """S: floats kept per user: the blocks' memories and the last output."""
        return self.blocks * self.hidden + self.dim


class _Scan(torch.autograd.Function):
    """s[t] = a[t] * s[t-1] + u[t], s[-1] = 0, along the first axis.

    A plain loop of one fused operation a step, with its backward pass by hand. Time is the first axis, so
    each step reads and writes one contiguous slab that stays in cache; on one CPU thread that is several
    times faster than a log-depth scan, which does log2(T) times the work, and than autograd through the loop.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, a: Tensor, u: Tensor) -> Tensor:
        states = u.clone(memory_format=torch.contiguous_format)  # T B h
        before: Tensor | None = None  # B h
        # unbind makes all views at once: indexing would cost as much as the arithmetic.
        for keep, now in zip(a.unbind(), states.unbind(), strict=True):
            if before is not None:
                now.addcmul_(keep, before)
            before = now
        ctx.save_for_backward(a, states)
        return states

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor]:
        a, states = ctx.saved_tensors  # type: ignore[attr-defined]  # set by save_for_backward
        grad_u = grads[0].clone(memory_format=torch.contiguous_format)  # T B h
        after: Tensor | None = None  # B h
        keep_after = a[0]  # B h
        for keep, now in zip(reversed(a.unbind()), reversed(grad_u.unbind()), strict=True):
            if after is not None:
                now.addcmul_(keep_after, after)
            after, keep_after = now, keep
        grad_a = torch.empty_like(a)  # T B h
        grad_a[0] = 0.0
        torch.mul(grad_u[1:], states[:-1], out=grad_a[1:])
        return grad_a, grad_u


def scan(a: Tensor, u: Tensor) -> Tensor:
    """All states of s[t] = a[t]*s[t-1] + u[t], from s = 0. a, u and the result: f32[T, B, h]."""
    out: Tensor = _Scan.apply(a, u)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return out


class Block(nn.Module):
    """A memory of h channels, then a gated feed-forward layer, each beside a residual path."""

    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        d, h = settings.dim, settings.hidden
        self.norm_memory = nn.LayerNorm(d)
        self.to_gates = nn.Linear(d, 3 * h)
        self.from_memory = nn.Linear(h, d)
        self.norm_mix = nn.LayerNorm(d)
        self.to_mix = nn.Linear(d, 4 * d)
        self.from_mix = nn.Linear(2 * d, d)
        self.drop = nn.Dropout(settings.dropout)
        # A channel forgets by exp(-1/tau) an event; tau is even on a log scale (LRU, Orvieto et al. 2023).
        low, high = math.log(settings.shortest_memory_events), math.log(settings.longest_memory_events)
        keep = torch.exp(-torch.exp(-torch.linspace(low, high, h)))  # h
        self.keep_bias = nn.Parameter(torch.logit(keep))  # h

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What to keep, what to add and what to show. x: [..., d]; each result: [..., h]."""
        z, v, g = self.to_gates(self.norm_memory(x)).chunk(3, dim=-1)  # [..., h] each
        keep = torch.sigmoid(z + self.keep_bias)  # [..., h]
        return keep, (1.0 - keep) * v, F.silu(g)

    def read(self, x: Tensor, memory: Tensor, show: Tensor) -> Tensor:
        """The block's output. x: [..., d]; memory, show: [..., h]; result: [..., d]."""
        x = x + self.drop(self.from_memory(memory * show))  # [..., d]
        value, gate = self.to_mix(self.norm_mix(x)).chunk(2, dim=-1)  # [..., 2d] each
        out: Tensor = x + self.drop(self.from_mix(value * F.silu(gate)))  # [..., d]
        return out


class InterestNet(nn.Module):
    """Items in, interest out. `step` and `query` are what TorchScript exports; `sequence` is for training."""

    def __init__(self, settings: NetSettings, features: ItemFeatures | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.hidden = settings.hidden
        self.state_size = settings.state_size
        self.scale = math.sqrt(settings.dim)
        self.embedding = nn.Embedding(settings.items + 1, settings.dim)
        # Tied with the output: small, so that the first logits are near zero; the input is scaled up again.
        nn.init.normal_(self.embedding.weight, std=1.0 / settings.dim)
        self.item_bias = nn.Parameter(torch.zeros(settings.items))  # n
        self.content = Content(features, settings.dim) if features is not None else None
        # The cast is for mypy: a ModuleList does not say what it holds.
        self.blocks = cast("list[Block]", nn.ModuleList(Block(settings) for _ in range(settings.blocks)))
        self.norm = nn.LayerNorm(settings.dim)
        self.drop = nn.Dropout(settings.dropout)

    def sequence(self, tokens: Tensor) -> Tensor:
        """Interest after every event. tokens: i64[T, B] (time first); result: f32[T, B, d]."""
        table = self.embedding.weight  # n+1 d
        if self.content is not None:
            table = torch.cat([self.item_matrix(), table[-1:]])  # n+1 d
        x = self.drop(F.embedding(tokens, table) * self.scale)  # T B d
        for block in self.blocks:
            keep, add, show = block.gates(x)  # T B h each
            x = block.read(x, scan(keep, add), show)  # T B d
        out: Tensor = self.norm(x)  # T B d
        return out

    @torch.jit.export
    def step(self, state: Tensor, token: Tensor, type: Tensor) -> Tensor:  # noqa: ARG002  # see below
        """The state after one more event of each user.

        state: f32[B, S]; token: i64[B], an item's index or n for a session's start; type: i64[B], the event's
        type. Result: f32[B, S]. The type is not used yet: the demo's data has purchases only, and a weight
        that was never trained would be noise; it is passed so that a model that uses it needs no other seam.
        """
        x = self.embedding(token) * self.scale  # B d
        parts: list[Tensor] = []
        start = 0
        for block in self.blocks:
            keep, add, show = block.gates(x)  # B h each
            memory = torch.addcmul(add, keep, state[:, start : start + self.hidden])  # B h
            parts.append(memory)
            start += self.hidden
            x = block.read(x, memory, show)  # B d
        parts.append(self.norm(x))  # B d
        return torch.cat(parts, dim=1)  # B S

    @torch.jit.export
    def query(self, state: Tensor) -> Tensor:
        """What to match items against: the output kept at the state's end. f32[B, S] -> f32[B, d]."""
        return state[:, len(self.blocks) * self.hidden :]  # B d

    def item_matrix(self) -> Tensor:
        """The items' side of the score: interest @ item_matrix.T + item_bias. f32[n, d]."""
        own = self.embedding.weight[:-1]  # n d
        return own if self.content is None else own + self.content()  # n d

    def folded(self) -> InterestNet:
        """The same network without content: what the features say stands in the embeddings."""
        folded = InterestNet(self.settings)
        own = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("content.")}
        folded.load_state_dict(own)
        with torch.no_grad():
            folded.embedding.weight[:-1] = self.item_matrix()
        return folded.train(self.training)


def script(network: InterestNet) -> torch.jit.ScriptModule:
    """The network as TorchScript with methods `step` and `query`, for serving: no dropout, no gradients, no content."""
    scripted = torch.jit.script(network.folded().eval().requires_grad_(False))
    assert isinstance(scripted, torch.jit.ScriptModule)
    return scripted


STEP_EVENTS = 200
"""Events after which a step must still be the sequence: four times what a vector is rebuilt from."""
STEP_TOLERANCE = 1e-5


def step_error(network: InterestNet, scripted: torch.jit.ScriptModule) -> float:
    """How far the scripted step is from the sequence, over STEP_EVENTS events of one made-up user.

    The largest difference of a number, relative where it is above 1; in exact arithmetic it is 0.
    """
    network = network.folded().eval()
    tokens = torch.randint(0, network.settings.items + 1, (STEP_EVENTS, 1), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = network.sequence(tokens)[:, 0]  # T d
        state = torch.zeros(1, network.state_size)  # 1 S
        stepped = []
        for token in tokens:
            state = scripted.step(state, token, torch.zeros(1, dtype=torch.long))
            stepped.append(scripted.query(state))
        difference = (torch.cat(stepped) - whole).abs() / whole.abs().clamp(min=1.0)  # T d
    return float(difference.max())
