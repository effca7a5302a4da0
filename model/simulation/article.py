"""The article's case: a dense network over fixed features, and ours, on the same world and the same questions.

100,000 users with ten features, 1,000 items with five. The article's network has three layers, 15 -> 50 -> 50 -> 1, and
learns by gradient to tell what a user clicked, put into the cart or bought from items drawn at random. Ours is what
`driftline train` makes, and reads events instead of features.

    python -m model.simulation.article --json build/article.json

The world's last tenth of time is held out. A question is a look there that led to a click: which item, of all? All that
the user did before it is the history; nothing is filtered. So the view of an item never foretells its own click.

Letters in shapes: U users, n items, q questions, B pairs, H = 50.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.baselines.base import FitSettings
from model.baselines.popularity import DecayedPopularity
from model.errors import DatasetError
from model.evaluation.offline import Judged, Scoring, judge
from model.evaluation.ours import Ours
from model.evaluation.questions import Questions
from model.evaluation.report import facts_of, p_values, report, values_of
from model.simulation.command import Say, run
from model.simulation.learn import learn_ours
from model.simulation.world import CLICK, VIEW, World, WorldSettings
from model.training.dataset import Dataset

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

LIST = 10
_HIDDEN = 50
_NEGATIVES = 4  # the usual number for such networks, as in NCF
_BATCH = 1024  # eight times as many need three times the passes
_RATE = 3e-3
_USERS_AT_ONCE = 64  # 64 users and 1,000 items in the hidden layer are 13 MB
_HELD_OUT = 0.1


@dataclass(frozen=True)
class ArticleSettings:
    """The case."""

    users: int = 100_000
    items: int = 1_000
    events: int = 2_000_000
    days: int = 30
    seed: int = 1
    questions: int = 3_000
    """Drawn of those that there are."""
    steps: int = 400
    """Of our network's training, 60 ms of CPU each."""
    epochs: int = 6
    """Of the article's network: HR@10 0.132 after 4, 0.138 after 12."""


class ArticleNetwork:
    """The article's three-layer network as a model of the evaluation (model.baselines.base)."""

    name = "article"

    def __init__(self, user_features: F32, item_features: F32, epochs: int = 6) -> None:
        """user_features: f32[U, any], item_features: f32[n, any], of about unit size."""
        self._users, self._items = torch.from_numpy(user_features), torch.from_numpy(item_features)
        self._epochs = epochs

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        taken = np.flatnonzero(train.is_item & (train.type != VIEW))
        if not len(taken):
            raise DatasetError(f"{train.source}: nothing was clicked or bought; give a longer log.")
        torch.set_num_threads(fit.threads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fit.seed)
            # The first layer of (user, item) is a layer of each, added: scoring then needs it once a user and item.
            self._from_user = nn.Linear(self._users.shape[1], _HIDDEN)
            self._from_item = nn.Linear(self._items.shape[1], _HIDDEN, bias=False)
            self._rest = nn.Sequential(nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))
            layers = nn.ModuleList([self._from_user, self._from_item, self._rest])
            optimizer = torch.optim.Adam(layers.parameters(), lr=_RATE)
            user, item = (torch.from_numpy(column[taken].astype(np.int64)) for column in (train.user, train.item))
            for _ in range(self._epochs):
                for rows in torch.split(torch.randperm(len(user)), _BATCH):
                    drawn = torch.randint(len(self._items), (_NEGATIVES * len(rows),))
                    logits = self._logits(
                        self._users[user[rows].repeat(1 + _NEGATIVES)], self._items[torch.cat([item[rows], drawn])]
                    )  # B
                    right = (torch.arange(len(logits)) < len(rows)).float()  # B
                    optimizer.zero_grad()
                    F.binary_cross_entropy_with_logits(logits, right).backward()  # type: ignore[no-untyped-call]  # torch
                    optimizer.step()

    def score(self, questions: Questions) -> F32:
        users = torch.from_numpy(questions.user.astype(np.int64))  # q
        with torch.no_grad():
            parts = torch.split(users, _USERS_AT_ONCE)
            scores = [self._logits(self._users[part][:, None], self._items) for part in parts]  # some n
            found: F32 = torch.cat(scores).numpy()
        return found

    def _logits(self, user: Tensor, item: Tensor) -> Tensor:
        """Logits that users take items: features f32[..., any] each, broadcast against each other."""
        out: Tensor = self._rest(self._from_user(user) + self._from_item(item))  # ... 1
        return out[..., 0]


def clicked_looks(data: Dataset, from_ms: int) -> I64:
    """Rows of looks from that time on that led to a click: the user's next row is a click of the item. i64[any]."""
    found = (data.type[:-1] == VIEW) & (data.type[1:] == CLICK) & (data.time_ms[:-1] >= from_ms)
    found &= (data.user[:-1] == data.user[1:]) & (data.item[:-1] == data.item[1:])
    return np.flatnonzero(found).astype(np.int64)


def measure(settings: ArticleSettings, say: Say) -> dict[str, Any]:
    """All metrics of ours, the article's network and popularity, as a document."""
    world = World(
        WorldSettings(
            users=settings.users, items=settings.items, events=settings.events, days=settings.days, seed=settings.seed
        )
    )
    data = world.dataset()
    from_ms = int(np.quantile(data.time_ms, 1.0 - _HELD_OUT))
    past = data.select(data.time_ms < from_ms)
    rows = clicked_looks(data, from_ms)
    draw = np.random.default_rng((settings.seed, 4))
    questions = Questions(data, np.sort(draw.choice(rows, min(settings.questions, len(rows)), replace=False)))
    say(f"{len(past):,} events to learn from, {len(questions):,} questions")
    fit = FitSettings(seed=settings.seed, threads=1)
    cpu_s: dict[str, float] = {}
    asked: dict[str, Judged] = {}

    def ask(model: Scoring, began_s: float) -> None:
        cpu_s[model.name] = round(time.process_time() - began_s, 1)
        asked[model.name] = judge(model, questions, seen_filtered=False, k=(LIST,))
        say(f"{model.name}: learnt in {cpu_s[model.name]:.0f} s CPU")

    for model in (
        ArticleNetwork(world.user_features, world.item_features, settings.epochs),
        DecayedPopularity(),
    ):
        began_s = time.process_time()
        model.fit(past, fit)
        ask(model, began_s)
    began_s = time.process_time()
    ask(Ours(learn_ours(past, settings.steps, settings.seed), data, seen_filtered=False), began_s)
    facts = facts_of(past)
    values = {name: values_of(judged, facts) for name, judged in asked.items()}
    return {
        "settings": asdict(settings),
        "protocol": "the last tenth of time, looks that led to a click",
        "seen_filtered": False,
        "questions": len(questions),
        "train_cpu_s": cpu_s,
        "models": {name: report(judged, facts, values[name], seed=settings.seed) for name, judged in asked.items()},
        "p_ours_against_article": p_values(values["ours"], values["article"], questions, seed=settings.seed),
    }


def main(arguments: list[str] | None = None) -> int:
    """The article's three-layer network over features, and ours, on a made-up world of 100,000 users."""
    return run("article", main.__doc__, ArticleSettings, measure, table, arguments)


def table(found: dict[str, Any]) -> str:
    """The figures for people."""
    names = [f"{name}@{LIST}" for name in ("f1", "mrr", "hr", "ndcg")]
    lines = [f"{'':20}" + "".join(f"{name:>9}" for name in names)]
    for model, row in found["models"].items():
        lines.append(f"{model:20}" + "".join(f"{row['metrics'][name]:9.4f}" for name in names))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
