"""From a log of events to a model: what is counted, then the network by gradient, step by step.

The schedule, the early stop and all that is drawn depend on the number of the step and on nothing else, least of all on
the clock: the same data, settings and number of threads make the same model, on a fast machine and on a slow one, in
one go or killed and resumed.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.artifact import Artifact, artifact_from_network
from model.content import ItemFeatures, item_features
from model.errors import DatasetError, TrainingError
from model.interest_net import InterestNet, NetSettings
from model.training.batches import Batch, Batches
from model.training.checkpoint import Checkpoint, identity
from model.training.choose import Lists, choose_blend, with_blend_of
from model.training.counts import Counts, count, start_from_counts
from model.training.dataset import Dataset
from model.training.judge import Judge
from model.training.loss import full_cross_entropy, sampled_cross_entropy
from model.training.settings import TrainSettings
from model.training.source import Source, in_memory

F64 = npt.NDArray[np.float64]

Progress = Callable[[int, float, float, float], None]
"""Called with step, loss, validation HR@10 and remaining seconds."""
Stopped = Literal["steps", "validation", "time"]
"""Why training ended: all steps were done, the validation got no better, or max_seconds were over."""

JUDGED_BY = "ndcg@10"
"""The metric that tells the best weights: it moves with every place, where a hit rate jumps."""


def train(
    log: Dataset | Source,
    settings: TrainSettings | None = None,
    progress: Progress | None = None,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every_s: float = 60.0,
    lists: Lists | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Artifact:
    """Train the network, and count rules and popularity over the same events.

    log: a dataset is cut by settings.protocol; a Source is cut already. checkpoint: folder to save to every
    checkpoint_every_s seconds and to go on from; removed at the end, unless time was over: then a training with more
    of it goes on there. lists: how the model's lists will be made; the blend that answers the validation questions best
    is chosen for that (model.training.choose), and none without it. clock: seconds, for what is told and for
    max_seconds.
    Raises DatasetError when there is nothing to learn from, TrainingError when the loss is no number, when there is no
    such device, or when the checkpoint cannot be used.
    """
    settings = settings or TrainSettings()
    device = device_of(settings)
    settings = replace(settings, device="cuda" if device.type == "cuda" else "cpu", threads=settings.threads or cores())
    source = in_memory(log, settings) if isinstance(log, Dataset) else log
    kept = Checkpoint(checkpoint) if checkpoint is not None else None
    with _machine(settings):
        training = _Training(source, settings, device, progress, kept, checkpoint_every_s, clock)
        network = training.run()
        judged = training.judged()
    catalog, at = source.catalog, training.at

    def made(network: InterestNet, counts: Counts) -> Artifact:
        # What only a held-out event tells of, nothing is known of.
        known = np.ones(catalog.items, np.bool_) if settings.protocol == "all" else counts.rules.occurrences > 0
        return artifact_from_network(
            network.cpu(),
            name=settings.name,
            item_ids=catalog.item_ids,
            item_names=catalog.item_names,
            item_categories=[item.category for item in catalog.details(known)],
            item_domains=catalog.item_domains,
            rules=counts.rules.top(),
            basket=counts.baskets.top(),
            popularity=counts.popularity(),
            settings={**asdict(settings), "trained": True, "stopped": at.stopped},
            metrics={**at.metrics, "loss": at.loss, "steps": float(at.step), "seconds": training.seconds},
            data=source.fingerprint,
        )

    artifact = made(network, count_shards(source, settings, final=settings.refit_on_validation != "no"))
    if lists is not None:
        # By what has not learnt the validation part, neither by counting nor by gradient.
        questions = next((part.validation for part in source.parts() if len(part.validation)), None)
        if questions is not None:  # one shard's: a shard has users by the thousand
            asked = made(judged, count_shards(source, settings, final=False))
            artifact = with_blend_of(choose_blend(asked, questions, lists, seed=settings.seed), artifact)
    if kept is not None and at.stopped != "time":
        kept.remove()
    return artifact


def _content(catalog: Dataset, counts: Counts) -> ItemFeatures | None:
    """The items' features, as far as a catalogue or a learnt event tells of an item; None where there are none."""
    items = catalog.details(counts.rules.occurrences > 0)
    features = item_features(
        catalog.item_ids,
        [item.name for item in items],
        [item.path for item in items],
        [item.brand for item in items],
        np.array([item.price or math.nan for item in items]),
        [item.text for item in items],
    )
    return features if features.names else None


def count_shards(source: Source, settings: TrainSettings, *, final: bool) -> Counts:
    """Counts of the learnt part of a log, or of the final one."""
    shards = (part.final if final else part.learn for part in source.parts())
    return count(source.catalog.items, settings.popularity_half_life_days, shards)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_of(settings: TrainSettings) -> torch.device:
    """The device to train on. Raises TrainingError when it is not there."""
    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        raise TrainingError("there is no GPU that torch can use; train with --device cpu, or --device auto.")
    return torch.device("cuda" if there and settings.device != "cpu" else "cpu")


@contextmanager
def _machine(settings: TrainSettings) -> Iterator[None]:
    """Threads, and sums whose order does not depend on chance; all as before when left."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic  # torch makes its one attribute at run time
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(settings.threads)
    if settings.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for to be repeatable
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # costs time, and nothing here reads such memory
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if settings.device == "cuda" else []):
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        memory.fill_uninitialized_memory = filled
        torch.set_num_threads(threads)


@dataclass
class _At:
    """How far a training is. With weights and optimizer, all that the rest depends on."""

    refit: bool = False
    """In the second training, which learns the validation part too."""
    until: float = 1.0
    """Where the schedule is left: in the second training, where the first was best."""
    done: float = 0.0
    """Share of the schedule."""
    step: int = 0
    epoch: int = 0
    shard: int = 0
    """Shards done in this epoch."""
    batch: int = 0
    """Batches done of this shard."""
    loss: float = math.nan
    """Smoothed over some fifty steps."""
    judged: int = 0
    """Judgements made."""
    judged_step: int = -1
    """Step of the last one."""
    worse: int = 0
    """Judgements since the best."""
    best_done: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the best weights."""
    stopped: Stopped | Literal[""] = ""
    seconds: float = 0.0
    """Of earlier runs."""


class _Training:
    """One training: a network, its optimizer, and how far they are."""

    def __init__(
        self,
        source: Source,
        settings: TrainSettings,
        device: torch.device,
        progress: Progress | None,
        checkpoint: Checkpoint | None,
        checkpoint_every_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.source, self.settings, self.device, self.progress = source, settings, device, progress
        self.checkpoint, self.checkpoint_every_s, self.clock = checkpoint, checkpoint_every_s, clock
        self.began_s = self.saved_s = clock()
        self.identity = identity(settings, source) if checkpoint is not None else ""
        self.saved = checkpoint.load(self.identity) if checkpoint is not None else None
        self.at = _At(**self.saved["at"]) if self.saved is not None else _At()
        self.at.stopped = ""
        self.best: dict[str, Tensor] = self.saved["best"] if self.saved is not None else {}
        self.earlier_s, self.began_done = self.at.seconds, self.at.done
        self.hit = self.at.metrics.get("hr@10", math.nan)

    @property
    def seconds(self) -> float:
        """Of all runs so far."""
        return self.earlier_s + self.clock() - self.began_s

    def run(self) -> InterestNet:
        """Train from where it is to the end; the network with its best weights, on the device."""
        judge = _make_judge(self.source, self.settings)
        if not self.at.refit:
            self._begin()
            self._descend(judge)
            again = self.settings.refit_on_validation == "all" and judge is not None
            if not again or self.at.stopped == "time":
                return self.network
            self.at = _At(refit=True, until=self.at.best_done, metrics=self.at.metrics)
            self.began_done = 0.0
        self._begin()
        self._descend(None)
        return self.network

    def judged(self) -> InterestNet:
        """The network with its best weights before it learnt the validation part, if it did."""
        if not self.at.refit:
            return self.network
        network = copy.deepcopy(self.network)
        if self.best:
            network.load_state_dict(self.best)
        return network.eval()

    def _begin(self) -> None:
        """A fresh network and optimizer, or those of the checkpoint."""
        settings, at = self.settings, self.at
        n = self.source.catalog.items
        torch.manual_seed(settings.seed)
        counts = count_shards(self.source, settings, final=at.refit)
        # Of the learnt part also in the second training: both networks have the same features.
        learnt = count_shards(self.source, settings, final=False) if settings.content and at.refit else counts
        content = _content(self.source.catalog, learnt) if settings.content else None
        sizes = NetSettings(n, settings.dim, settings.hidden, settings.blocks, settings.dropout)
        self.network = InterestNet(sizes, content)
        self.negatives = _Negatives(counts, settings)
        if self.saved is None:
            start_from_counts(self.network, counts)
        self.network.to(self.device)
        self.offset_weight = torch.nn.Parameter(torch.tensor(0.5, device=self.device))
        self.parameters = [*self.network.parameters(), self.offset_weight]
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.learning_rate, betas=(0.9, 0.98))
        if self.saved is not None:
            self.network.load_state_dict(self.saved["network"])
            self.optimizer.load_state_dict(self.saved["optimizer"])
            with torch.no_grad():
                self.offset_weight.copy_(self.saved["offset_weight"])
            self.saved = None

    def _save(self) -> None:
        if self.checkpoint is not None:
            state = {
                "at": {**asdict(self.at), "seconds": self.seconds},
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "offset_weight": self.offset_weight.detach(),
                "best": self.best,
            }
            self.checkpoint.save(state, self.identity)
            self.saved_s = self.clock()

    def _descend(self, judge: Judge | None) -> None:
        """Make the steps that are left, then take the best weights."""
        at = self.at
        with closing(self._batches()) as batches:
            for batch in batches:
                self._step(batch)
                if judge is not None and at.done * self.settings.judgements >= at.judged + 1:
                    self._judge(judge)
                at.stopped = self._why_stop()
                if at.stopped:
                    break
                if self.clock() - self.saved_s >= self.checkpoint_every_s:
                    self._save()
                self._tell()
        at.stopped = at.stopped or "steps"
        if at.step == 0:
            raise DatasetError(
                f"{self.source.catalog.source}: no user has two events in order, so there is nothing to learn; give a "
                "longer log."
            )
        if at.stopped == "time":
            self._save()
        if judge is not None and at.judged_step < at.step:
            self._judge(judge)
        if self.best and (not at.refit or at.stopped == "time"):
            self.network.load_state_dict(self.best)
        self.network.eval()
        if self.progress is not None:
            self.progress(at.step, at.loss, self.hit, 0.0)

    def _why_stop(self) -> Stopped | Literal[""]:
        at, settings = self.at, self.settings
        if at.done >= at.until:
            return "steps"
        if 0 < settings.patience <= at.worse:
            return "validation"
        if self.seconds >= settings.max_seconds:
            return "time"
        return ""

    def _tell(self) -> None:
        at = self.at
        if self.progress is not None and at.step % 10 == 0:
            left_s = (self.clock() - self.began_s) * (at.until - at.done) / max(at.done - self.began_done, 1e-6)
            self.progress(at.step, at.loss, self.hit, min(left_s, self.settings.max_seconds))

    def _batches(self) -> Generator[Batch, None, None]:
        """The batches that are left of the schedule; `at` is the place after each, when it is given."""
        at, settings, source = self.at, self.settings, self.source
        rows = np.array(source.rows, np.float64)
        for epoch in range(at.epoch, settings.epochs):
            order = np.random.default_rng([settings.seed, epoch]).permutation(len(rows))
            for shard in range(at.shard, len(order)):
                number = int(order[shard])
                part = source.load[number]()
                batches = Batches(part.final if at.refit else part.learn, settings)
                draw = np.random.default_rng([settings.seed, epoch, number])
                for place, of, batch in _ahead(batches.epoch(draw, at.batch), settings.threads > 1):
                    seen = (rows[order[:shard]].sum() + rows[number] * place / of) / rows.sum()
                    at.epoch, at.shard, at.batch = epoch, shard, place
                    self.next_done = float(epoch + seen) / settings.epochs
                    yield batch
                at.batch = 0
            at.shard = 0

    def _step(self, batch: Batch) -> None:
        """One step of the optimizer."""
        settings, at, network = self.settings, self.at, self.network
        warm = min(1.0, (at.step + 1) / settings.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * at.done))
        torch.manual_seed((settings.seed << 32) + at.step)  # of the step: see model.training.checkpoint
        network.train()
        on_device = batch.to(self.device)
        out = network.sequence(on_device.tokens)  # T B d
        u = out.reshape(-1, out.shape[-1])[on_device.position]  # P d
        if network.item_bias.shape[0] <= settings.full_softmax_items:
            loss = full_cross_entropy(
                u,
                network.item_matrix(),
                network.item_bias,
                on_device.pairs,
                done=on_device.done,
                offset=on_device.offset,
                offset_weight=self.offset_weight,
            )
        else:
            drawn, log_q = self.negatives.draw(at.step, self.device)
            loss = sampled_cross_entropy(
                u, network.item_matrix(), network.item_bias, on_device.pairs, negatives=drawn, log_q=log_q
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        value = loss.item()
        if not math.isfinite(value) or not math.isfinite(norm.item()):
            raise TrainingError(
                f"the loss became {value} at step {at.step}; train again with a smaller learning_rate "
                f"(it is {settings.learning_rate})."
            )
        self.optimizer.step()
        at.loss = value if math.isnan(at.loss) else 0.98 * at.loss + 0.02 * value
        at.step += 1
        at.done = max(self.next_done, at.step / settings.max_steps if settings.max_steps else 0.0)

    def _judge(self, judge: Judge) -> None:
        """Ask the validation questions, and keep the weights if they are the best."""
        at = self.at
        found = judge(self.network, self.device)
        self.hit = found["hr@10"]
        at.judged, at.judged_step = int(at.done * self.settings.judgements), at.step
        at.worse += 1
        if not self.best or found[JUDGED_BY] > at.metrics[JUDGED_BY]:
            at.metrics, at.worse, at.best_done = found, 0, at.done
            self.best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}


class _Negatives:
    """Draws the items that stand for all in a sampled softmax."""

    def __init__(self, counts: Counts, settings: TrainSettings) -> None:
        self.settings = settings
        q = (counts.rules.occurrences + 1.0) ** settings.negative_power  # n
        self.q: F64 = q / q.sum()
        self.up_to: F64 = np.cumsum(self.q)

    def draw(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The items of a step, i64[C], and log of their probability, f32[C]."""
        dice = np.random.default_rng([self.settings.seed, step]).random(self.settings.negatives)
        items = np.minimum(np.searchsorted(self.up_to, dice), len(self.q) - 1)
        log_q = np.log(self.q[items]).astype(np.float32)
        return torch.from_numpy(items).to(device), torch.from_numpy(log_q).to(device)


def _make_judge(source: Source, settings: TrainSettings) -> Judge | None:
    """The questions of the first shard that has any: its users are as good as drawn, shards go by a hash."""
    for part in source.parts():
        if len(part.validation):
            judge = Judge(part.validation, settings)
            return judge if len(judge) else None
    return None


def _ahead(batches: Iterator[tuple[int, int, Batch]], beside: bool) -> Iterator[tuple[int, int, Batch]]:
    """The same; `beside`: made by a second thread, some ahead of their use."""
    if not beside:
        yield from batches
        return
    with ThreadPoolExecutor(1) as pool:
        upcoming = deque(pool.submit(next, batches, None) for _ in range(3))
        while (found := upcoming.popleft().result()) is not None:
            upcoming.append(pool.submit(next, batches, None))
            yield found
