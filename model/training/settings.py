"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["all", "leave-one-out", "temporal"]
Refit = Literal["no", "counts", "all"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The numbers serve logs like MovieLens-1M and Beauty; the demo, of a minute, has others."""

    name: str = "glr"
    dim: int = 64
    hidden: int = 96
    blocks: int = 2
    dropout: float = 0.2
    """0.1 to 0.5 were as good on MovieLens-1M and Beauty, where none learns by heart."""
    content: bool = True
    """Whether what an item is (category, brand, price, words) adds to its embedding: see model.content."""
    learning_rate: float = 2e-3
    """Adam, falling by a cosine over all steps. Half of it needs twice the steps (MovieLens-1M)."""
    warmup_steps: int = 100
    epochs: int = 30
    """Passes over the events. The schedule follows steps and never the clock, so that any machine makes the same."""
    max_steps: int = 20_000
    """Steps at most, and the end of the schedule if epochs are longer; 0: as many as the epochs have."""
    max_seconds: float = 3600.0
    """Wall-clock of the network's training, in case the steps take too long: then what was best is kept, and the
    model's settings say `stopped: time`."""
    judgements: int = 10
    """Times that the network is asked the validation questions, evenly over the schedule."""
    patience: int = 0
    """Judgements in a row without a better NDCG@10 after which training stops early; 0: never."""
    batch_events: int = 2048
    """Events in a batch. Larger ones make fewer steps: on the demo's data four times as many cost 0.02 of HR@20."""
    window_events: int = 256
    """Longest piece of a history; memory starts empty at its begin. Above the slowest channel's memory."""
    full_softmax_items: int = 10_000
    """Above, the softmax is sampled: all items at once would take most of the time."""
    negatives: int = 1024
    """Items drawn for a batch when it is sampled."""
    negative_power: float = 0.5
    """They are drawn in proportion to (count + 1) ** power, corrected by log q: 0 is evenly, 1 by popularity. On the
    validation part of Amazon Beauty 0, 0.5 and 1 gave an NDCG@10 of 0.063, 0.067 and 0.064 after 1500 steps."""
    offset: bool = True
    """Whether counts enter the logits, where there are times and no more items than full_softmax_items."""
    offset_half_life_days: float = 120.0
    """Half-life of the counts that enter the logits; also the best one for the ranker's own counts."""
    offset_floor: float = 0.1
    """The offset is log(1 + count / floor): a tenth of a purchase is where knowing begins."""
    popularity_half_life_days: float = 60.0
    """Of the artifact's popularity: the long run. What is popular this week, the live stream tells."""
    protocol: Protocol = "all"
    """What is held out: see model.training.protocol."""
    validation_share: float = 0.05
    """Newest share of the events (of those before the test, if there is one) that validates, where time decides."""
    test_share: float = 0.1
    """Newest share of the events that is the test of the temporal protocol."""
    validation_questions: int = 2000
    """Asked at most: they settle HR@10 to about 0.01."""
    refit_on_validation: Refit = "counts"
    """What the final model learns of the validation part, once it has served: "no", nothing; "counts", rules and
    popularity; "all", the network too, by a second training of as many steps. Of the test part: nothing, ever."""
    seed: int = 1
    threads: int = 1
    """Of the CPU; 0: all cores. Another number may round otherwise, and so make another model."""
    device: Device = "cpu"
    """cpu, cuda, or auto: cuda where there is one."""
