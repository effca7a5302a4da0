"""Where training reads from: a log in memory, or in shards on disk (model.training.shards), one in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.training.dataset import Dataset
from model.training.protocol import Part, cut, find_borders
from model.training.settings import TrainSettings


@dataclass(frozen=True, eq=False)
class Source:
    """A log in one or several shards, each cut by the protocol. All rows of a user are in one shard."""

    load: Sequence[Callable[[], Part]]
    """Loads each shard."""
    rows: Sequence[int]
    """Rows of each shard."""
    catalog: Dataset
    """No rows: items, names and categories of the log."""
    fingerprint: dict[str, Any]
    """Of the whole log: see Dataset.fingerprint."""

    def parts(self) -> Iterator[Part]:
        """All shards in turn."""
        for load in self.load:
            yield load()


def in_memory(data: Dataset, settings: TrainSettings) -> Source:
    """A log in memory, cut by the settings' protocol. Raises DatasetError when it cannot be cut so."""
    borders = find_borders(data.time_ms[data.is_item], settings, data.source, has_time=data.has_time)
    return of_part(cut(data, settings, borders), data.fingerprint())


def of_part(part: Part, fingerprint: dict[str, Any] | None = None) -> Source:
    """A log that is in memory and cut already; the fingerprint is that of its final part if none is given."""
    catalog = part.final.select(np.empty(0, np.int64))
    return Source([lambda: part], [len(part.learn)], catalog, fingerprint or part.final.fingerprint())
