"""From a log of events to a model: windows of histories, the loss, a schedule, a budget.

The network is trained on what counting does not know.  How often a user took an item before is the strongest single
fact in shops and costs nothing to keep, so its logarithm enters the training logits as an offset with a learnt
weight: the gradient then pulls at what is left over. The offset is not part of the model; the ranker adds the
counts again, with weights of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.artifact import Artifact, artifact_from_network
from model.errors import DatasetError, TrainingError
from model.evaluation.metrics import hit_rate, ndcg, ranks
from model.interest_net import InterestNet, NetSettings
from model.training.dataset import Dataset
from model.training.loss import full_cross_entropy, sampled_cross_entropy
from model.transitions import Transitions, basket_rules, sequence_rules

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
_DAY_MS = 86_400_000
_LARGEST_SVD = 100_000
"""Items beyond which the embeddings start at random: at 64,000 the vectors take six seconds."""
_LARGEST_GROUP = 256
"""A larger group (a log whose times are days, an import) is cut: its pairs grow with the square of its size."""

Progress = Callable[[int, float, float, float], None]
"""Called with step, loss, validation HR@20 and remaining seconds."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The numbers are those of the demo's data unless a reason says otherwise."""

    name: str = "glr"
    dim: int = 64
    hidden: int = 96
    blocks: int = 2
    dropout: float = 0.0
    learning_rate: float = 3e-3
    """Adam, falling by a cosine over the budget; higher than usual because the budget is a minute."""
    warmup_steps: int = 30
    time_budget_s: float = 60.0
    """Wall-clock seconds. On the demo's data 120 instead of 60 bring 0.001 of HR@20, 20 cost 0.002."""
    max_epochs: int = 20
    """On small data the budget is not needed: twenty passes."""
    batch_events: int = 1024
    """Events in a batch, 35 ms a step. Four times as many made a quarter of the steps and 0.02 less HR@20."""
    window_events: int = 256
    """Longest piece of a history; memory starts empty at its begin. Above the slowest channel's memory."""
    full_softmax_items: int = 10_000
    """Above, the softmax is sampled: all items at once would take most of the budget."""
    negatives: int = 1024
    """Items drawn for a batch when it is sampled."""
    offset_half_life_days: float = 120.0
    """Half-life of the counts that enter the logits; also the best one for the ranker's own counts."""
    offset_floor: float = 0.1
    """The offset is log(1 + count / floor): a tenth of a purchase is where knowing begins."""
    popularity_half_life_days: float = 60.0
    """Of the artifact's popularity: the long run. What is popular this week, the live stream tells."""
    validation_share: float = 0.05
    """Newest share of the events that is held out, when no validation data is given."""
    validation_positions: int = 2000
    seed: int = 1
    threads: int = 1


# --- what a position is asked ------------------------------------------------------------------


@dataclass(frozen=True)
class Targets:
    """For every row of a dataset, the rows that are its targets: [row + 1, end[row])."""

    begin: I64
    """i64[m]: begin of the group (items of one user, session and time) that the row belongs to."""
    end: I64
    """i64[m]: row + 1 where there is no target: the user's end, or a session's start comes next."""


def find_targets(data: Dataset) -> Targets:
    """Groups and targets of all rows."""
    m = len(data)
    row = np.arange(m, dtype=np.int64)
    if m == 0:
        return Targets(row, row)
    is_item = data.is_item
    together = np.zeros(m, np.bool_)  # with the row before
    together[1:] = (
        is_item[1:] & is_item[:-1] & (data.session[1:] == data.session[:-1]) & (data.time_ms[1:] == data.time_ms[:-1])
    )
    begin = np.maximum.accumulate(np.where(together, 0, row))
    together &= (row - begin) % _LARGEST_GROUP != 0
    begin = np.maximum.accumulate(np.where(together, 0, row))
    group = np.cumsum(~together) - 1
    group_end = np.append(np.flatnonzero(~together)[1:], m)[group]  # m
    end = row + 1
    asks = np.zeros(m, np.bool_)
    asks[:-1] = is_item[1:] & (data.user[1:] == data.user[:-1])
    end[asks] = group_end[row[asks] + 1]
    return Targets(begin, end)


def windows(data: Dataset, longest: int) -> I64:
    """Pieces [first, last) of the users' histories, none longer than `longest`. i64[w, 2]."""
    starts = np.flatnonzero(np.append(True, data.user[1:] != data.user[:-1]))
    ends = np.append(starts[1:], len(data))
    pieces = [
        (first, min(first + longest, int(end)))
        for start, end in zip(starts, ends, strict=True)
        for first in range(int(start), int(end), longest)
    ]
    return np.array(pieces, np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Batch:
    """Windows side by side, and what is asked of them."""

    tokens: Tensor
    """i64[T, B], padded with the start token."""
    position: Tensor
    """i64[P]: flat index into [T, B] of each position that has targets."""
    row: I64
    """i64[P]: its row in the dataset."""
    pairs: tuple[Tensor, Tensor, Tensor]
    """Position (into P), target item, share."""
    done: tuple[Tensor, Tensor]
    """Position (into P) and item of the basket that is in it already."""
    offset: tuple[Tensor, Tensor] | None
    """log(1 + count / floor) f32[G, n], and each position's row in it."""


class Batches:
    """Makes batches of a dataset."""

    def __init__(self, data: Dataset, settings: TrainSettings) -> None:
        self.data = data
        self.settings = settings
        self.item = data.item
        self.targets = find_targets(data)
        self.windows = windows(data, settings.window_events)
        self.user_begin = np.searchsorted(data.user, np.arange(len(data.user_ids)))
        self.with_offset = data.items <= settings.full_softmax_items

    def epoch(self, draw: np.random.Generator) -> Iterator[tuple[Batch, int]]:
        """All windows once, those of like length together, the batches in random order; of how many.

        The order inside a group says nothing, so each epoch has another one.
        """
        order = np.lexsort((draw.random(len(self.item)), self.targets.begin))
        self.item = self.data.item[order]
        length = self.windows[:, 1] - self.windows[:, 0]
        order = np.argsort(length + draw.random(len(length)) * 0.2 * length)
        batches: list[I64] = []
        first = 0
        for k in range(1, len(order) + 1):
            # Padded size of the batch with one window more.
            if k == len(order) or (k - first + 1) * int(length[order[k]]) > self.settings.batch_events:
                batches.append(order[first:k])
                first = k
        for index in draw.permutation(len(batches)):
            batch = self.make(self.windows[batches[index]])
            if len(batch.row):
                yield batch, len(batches)

    def make(self, pieces: I64) -> Batch:
        """The batch of some windows. pieces: i64[B, 2], rows of the dataset."""
        n = self.data.items
        longest = int((pieces[:, 1] - pieces[:, 0]).max())
        tokens = np.full((longest, len(pieces)), n, np.int64)  # T B
        flat, rows = [], []
        for column, (first, last) in enumerate(pieces):
            tokens[: last - first, column] = self.item[first:last]
            asking = np.arange(first, last)[self.targets.end[first:last] > np.arange(first, last) + 1]
            rows.append(asking)
            flat.append((asking - first) * len(pieces) + column)
        row = np.concatenate(rows)
        count = self.targets.end[row] - row - 1  # P
        pair_position, pair_row = _ranges(row + 1, count)
        group = self.targets.begin[row + 1]  # P: where the asked group begins
        done_position, done_row = _ranges(group, row + 1 - group)
        return Batch(
            tokens=torch.from_numpy(tokens),
            position=torch.from_numpy(np.concatenate(flat)),
            row=row,
            pairs=(
                torch.from_numpy(pair_position),
                torch.from_numpy(self.item[pair_row].astype(np.int64)),
                torch.from_numpy((1.0 / count)[pair_position].astype(np.float32)),
            ),
            done=(
                torch.from_numpy(done_position),
                torch.from_numpy(self.item[done_row].astype(np.int64)),
            ),
            offset=self._offset(pieces, rows) if self.with_offset else None,
        )

    def _offset(self, pieces: I64, rows: list[I64]) -> tuple[Tensor, Tensor]:
        """What each user's decayed counts were when each group of targets began.

        Inside a window all amounts are taken at one time, that of its first group, and summed up group by group;
        a factor per group then brings the sums to its own time (forward decay, Cormode et al. 2009).
        """
        data, n = self.data, self.data.items
        half_life_ms = self.settings.offset_half_life_days * _DAY_MS
        counts: list[F32] = []
        of_position: list[I64] = []
        groups = 0
        for (first, _), asking in zip(pieces, rows, strict=True):
            if not len(asking):
                continue
            begins, index = np.unique(self.targets.begin[asking + 1], return_inverse=True)  # g
            of_position.append(index + groups)
            groups += len(begins)
            history = np.arange(self.user_begin[data.user[first]], begins[-1])
            history = history[self.item[history] < n]
            time = data.time_ms[begins]  # g
            # 1000 half-lives either way are beyond any double's range, and beyond any meaning.
            amount = np.exp2(np.clip((data.time_ms[history] - time[0]) / half_life_ms, -1000, 1000))
            into = np.searchsorted(begins, history, side="right")  # the first group that begins after the row
            sums = np.bincount(into * n + self.item[history], weights=amount, minlength=len(begins) * n)
            sums = np.cumsum(sums.reshape(len(begins), n), axis=0, dtype=np.float64)  # g n
            sums *= np.exp2(np.clip(-(time - time[0]) / half_life_ms, -1000, 0))[:, None]
            counts.append(np.log1p(sums / self.settings.offset_floor).astype(np.float32))
        if not counts:
            return torch.zeros(0, n), torch.zeros(0, dtype=torch.long)
        return torch.from_numpy(np.concatenate(counts)), torch.from_numpy(np.concatenate(of_position))


def _ranges(first: I64, count: I64) -> tuple[I64, I64]:
    """For each k, first[k] ... first[k] + count[k] - 1: the k and the value of each."""
    which = np.repeat(np.arange(len(first)), count)
    within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    return which, first[which] + within


# --- training ----------------------------------------------------------------------------------


def train(
    data: Dataset,
    settings: TrainSettings | None = None,
    progress: Progress | None = None,
    *,
    validation: Dataset | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Artifact:
    """Train the network and count rules and popularity over the same events.

    validation: later events of the same users and catalogue; without it the newest `validation_share` of
    `data` is held out. clock: seconds, for the budget.
    Raises DatasetError when there is nothing to learn from, TrainingError when the loss is no number.
    """
    settings = settings or TrainSettings()
    began_s = clock()
    learn = data
    if validation is None and settings.validation_share > 0:
        border = np.quantile(data.time_ms, 1 - settings.validation_share)
        learn, validation = data.select(data.time_ms < border), data.select(data.time_ms >= border)
    torch.set_num_threads(settings.threads)
    batches = Batches(learn, settings)
    if not (batches.targets.end > np.arange(len(learn)) + 1).any():
        raise DatasetError(
            f"{data.source}: no user has two events in order, so there is nothing to learn; give a longer log."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = InterestNet(NetSettings(data.items, settings.dim, settings.hidden, settings.blocks, settings.dropout))
        baskets = _baskets(learn)
        _start_from_counts(network, learn, baskets)
        judge = _Judge(learn, validation, settings) if validation is not None and len(validation) else None
        metrics = _fit(network, batches, judge, settings, progress, lambda: clock() - began_s)
    items = data.is_item
    return artifact_from_network(
        network,
        name=settings.name,
        item_ids=data.item_ids,
        item_names=data.item_names,
        item_categories=data.item_categories,
        item_domains=data.item_domains,
        rules=sequence_rules(data.items, data.user[items], data.item[items]).top(),
        basket=(baskets if learn is data else _baskets(data)).top(),
        popularity=popularity(data, settings.popularity_half_life_days),
        settings={**asdict(settings), "trained": True},
        metrics={**metrics, "seconds": clock() - began_s},
        data=data.fingerprint(),
    )


def _baskets(data: Dataset) -> Transitions:
    items = data.is_item
    return basket_rules(data.items, data.session[items], data.item[items])


def popularity(data: Dataset, half_life_days: float) -> F32:
    """Each item's decayed share of the events, at the time of the last one. f32[n], sums to 1."""
    items = data.is_item
    age = (data.time_ms[items] - data.time_ms.max()) / (half_life_days * _DAY_MS)
    counts = np.bincount(data.item[items], weights=np.exp2(age), minlength=data.items)
    share: F32 = (counts / counts.sum()).astype(np.float32)
    return share


def _start_from_counts(network: InterestNet, data: Dataset, baskets: Transitions) -> None:
    """Begin where counting leaves off, and not from nothing: worth 0.02 of HR@20 after the demo's minute.

    - The bias of an item is the logarithm of its share of the events. The spread is some ten units: at 3e-3 a
      step, learning it from 0 would take the better part of a minute.
    - The embeddings are the leading singular vectors of how much more often than by chance two items meet in a
      session (positive pointwise mutual information; Levy, Goldberg 2014), at the usual size of a fresh one.
    """
    rows = data.is_item
    item, n = data.item[rows], data.items
    counts = np.bincount(item, minlength=n) + 1.0
    with torch.no_grad():
        network.item_bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    x, y, count = baskets.pairs()
    d = network.embedding.embedding_dim
    if len(x) < n or not d < n <= _LARGEST_SVD:
        return
    lift = count * count.sum() / (np.bincount(x, count, n)[x] * np.bincount(y, count, n)[y])
    information = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([x, y])), torch.from_numpy(np.log(np.maximum(lift, 1.0))).float(), (n, n)
    ).coalesce()
    left, size, _ = torch.svd_lowrank(information, q=d, niter=3)  # n d, d
    embedding = left * size.sqrt()
    with torch.no_grad():
        network.embedding.weight[:-1] = embedding * (network.embedding.weight.std() / embedding.std())


def _fit(
    network: InterestNet,
    batches: Batches,
    judge: _Judge | None,
    settings: TrainSettings,
    progress: Progress | None,
    elapsed_s: Callable[[], float],
) -> dict[str, float]:
    """Train in place; the metrics of the end."""
    offset_weight = torch.nn.Parameter(torch.tensor(0.5))
    parameters = [*network.parameters(), offset_weight]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, betas=(0.9, 0.98))
    draw = np.random.default_rng(settings.seed)
    n = batches.data.items
    step, hit, smooth = 0, math.nan, math.nan
    done, judged_at = 0.0, 0.0
    began_s = elapsed_s()
    out_of_time = False
    for epoch in range(settings.max_epochs):
        for place, (batch, of) in enumerate(batches.epoch(draw)):
            now_s = elapsed_s()
            out_of_time = now_s >= settings.time_budget_s
            if out_of_time:
                break
            # The schedule follows steps, so that it does not depend on the machine, unless time ends before them.
            done = (epoch + place / of) / settings.max_epochs
            if step >= settings.warmup_steps:
                possible = step * (settings.time_budget_s - began_s) / max(now_s - began_s, 1e-9)
                done = max(done, min(step / possible, 1.0))
            warm = min(1.0, (step + 1) / settings.warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * done))
            network.train()
            out = network.sequence(batch.tokens)  # T B d
            u = out.reshape(-1, out.shape[-1])[batch.position]  # P d
            matrix = network.item_matrix()  # n d
            if batch.offset is not None:
                loss = full_cross_entropy(
                    u,
                    matrix,
                    network.item_bias,
                    batch.pairs,
                    done=batch.done,
                    offset=batch.offset,
                    offset_weight=offset_weight,
                )
            else:
                drawn = torch.from_numpy(draw.integers(0, n, settings.negatives))  # C
                loss = sampled_cross_entropy(u, matrix, network.item_bias, batch.pairs, negatives=drawn)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            value = loss.item()
            if not math.isfinite(value) or not math.isfinite(norm.item()):
                raise TrainingError(
                    f"the loss became {value} at step {step}; train again with a smaller learning_rate "
                    f"(it is {settings.learning_rate})."
                )
            optimizer.step()
            smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
            step += 1
            if judge is not None and done - judged_at >= 0.2:
                hit, judged_at = judge(network)["hr@20"], done
            if progress is not None and step % 10 == 0:
                left_s = elapsed_s() * (1.0 - done) / max(done, 1e-6)
                progress(step, smooth, hit, min(left_s, settings.time_budget_s))
        if out_of_time:
            break
    network.eval()
    metrics = {"loss": smooth, "steps": float(step), "offset_weight": float(offset_weight.detach())}
    if judge is not None:
        metrics.update(judge(network))
        hit = metrics["hr@20"]
    if progress is not None:
        progress(step, smooth, hit, 0.0)
    return metrics


class _Judge:
    """How well the network alone, without counts, finds the next items of later events."""

    def __init__(self, past: Dataset, later: Dataset, settings: TrainSettings) -> None:
        draw = np.random.default_rng(settings.seed)
        users = np.unique(later.user)
        if len(users) > 200:  # 200 histories take a quarter of a second, and settle HR@20 to about 0.01
            users = np.sort(draw.choice(users, 200, replace=False))
        joined = _join(past, later, users)
        self.batches = Batches(joined, settings)
        self.batches.with_offset = False
        last = np.flatnonzero(np.append(joined.user[1:] != joined.user[:-1], True))
        first = np.append(0, last[:-1] + 1)
        self.pieces = [
            np.array([[max(a, b + 1 - 2 * settings.window_events), b + 1]], np.int64)
            for a, b in zip(first, last, strict=True)
        ]
        self.from_ms = int(later.time_ms.min())
        self.limit = settings.validation_positions

    def __call__(self, network: InterestNet) -> dict[str, float]:
        network.eval()
        found: list[npt.NDArray[np.float64]] = []
        data = self.batches.data
        with torch.no_grad():
            for piece in self.pieces:
                batch = self.batches.make(piece)
                later = np.flatnonzero(data.time_ms[batch.row + 1] >= self.from_ms)
                if not len(later):
                    continue
                out = network.sequence(batch.tokens)[:, 0]  # T d
                u = out[batch.position[later]]  # p d
                scores = torch.addmm(network.item_bias, u, network.item_matrix().T).numpy()  # p n
                where = np.full(len(batch.row), -1, np.int64)
                where[later] = np.arange(len(later))
                position = where[batch.done[0].numpy()]
                scores[position[position >= 0], batch.done[1].numpy()[position >= 0]] = -np.inf
                found.append(ranks(scores, data.item[batch.row[later] + 1]))
                if sum(map(len, found)) >= self.limit:
                    break
        rank = np.concatenate(found) if found else np.empty(0)
        return {"hr@20": hit_rate(rank, 20), "ndcg@20": ndcg(rank, 20)}


def _join(past: Dataset, later: Dataset, users: npt.NDArray[Any]) -> Dataset:
    """The whole histories of some users, in one dataset."""
    parts = [part.select(np.isin(part.user, users)) for part in (past, later)]
    user = np.concatenate([part.user for part in parts])
    order = np.argsort(user, kind="stable")  # past before later
    after = int(parts[0].session.max()) + 1 if len(parts[0]) else 0
    parts[1] = Dataset(**{**vars(parts[1]), "session": parts[1].session + after})
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("user", "item", "type", "time_ms", "session")
    }
    return Dataset(**{**vars(past), **columns})
