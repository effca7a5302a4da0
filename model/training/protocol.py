"""What of a log is learnt, what validates, and what is held out for others to ask.

    all             everything is learnt; the newest events validate, or each user's last where there are no times
    leave-one-out   each user's last item is the test, the one before it validates
    temporal        the newest events are the test, those before them validate

Nothing of the test is ever read: not by the network, not by rules or popularity, not for the choice among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.errors import DatasetError
from model.evaluation.questions import Questions
from model.evaluation.splits import leave_one_out
from model.training.dataset import Bool, Dataset
from model.training.settings import TrainSettings

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """A log, or the part of one with some of its users: what serves for what."""

    learn: Dataset
    """What the network learns, and what is counted while it is judged."""
    final: Dataset
    """What the final model may have learnt: `learn` and the validation part."""
    validation: Questions
    """Questions of the validation part; none where there is none."""


@dataclass(frozen=True)
class Borders:
    """Times at which a log is cut; both 0 where the protocol does not go by time."""

    validation_ms: int = 0
    test_ms: int = 0


def find_borders(times_ms: I64, settings: TrainSettings, source: str, *, has_time: bool = True) -> Borders:
    """Where to cut a log, by the times of its items or of an even sample of them.

    Raises DatasetError when it has no times, or too few.
    """
    if settings.protocol == "leave-one-out" or len(times_ms) == 0:
        return Borders()
    if settings.protocol == "all":
        if settings.validation_share <= 0 or not has_time:
            return Borders()
        validation_ms = int(np.quantile(times_ms, 1 - settings.validation_share))
        # Where nothing is older (an import of one day), all is learnt and nothing validates.
        return Borders(validation_ms if times_ms.min() < validation_ms else 0, 0)
    if not has_time:
        raise DatasetError(f"{source}: has no times, so it cannot be cut by time; use --protocol leave-one-out.")
    ordered = np.sort(times_ms)
    validation_ms, test_ms = (int(ordered[place]) for place in border_places(len(ordered), settings))
    if not ordered[0] < validation_ms < test_ms:
        raise DatasetError(f"{source}: too few distinct times to cut into three; give more data.")
    return Borders(validation_ms, test_ms)


def border_places(items: int, settings: TrainSettings) -> tuple[int, int]:
    """Places, among the sorted times of so many items, of the borders of the temporal protocol."""
    shares = (settings.validation_share + settings.test_share, settings.test_share)
    validation, test = (int(items * (1.0 - share)) for share in shares)
    return validation, test


def cut(data: Dataset, settings: TrainSettings, borders: Borders, *, whole: bool = True) -> Part:
    """The parts of a log, or (whole=False) of some of its users.

    Raises DatasetError when leave-one-out finds nobody to ask in a whole log.
    """
    if settings.protocol == "leave-one-out" and (whole or has_long_history(data)):
        split = leave_one_out(data)
        return Part(split.train, data.select(_before(data, split.test.row)), split.validation)
    none = Questions(data, np.empty(0, np.int64))
    if not data.has_time and settings.validation_share > 0 and has_long_history(data):
        last = leave_one_out(data).test
        return Part(data.select(_before(data, last.row)), data, last)
    if not borders.validation_ms:
        return Part(data, data, none)
    asked = data.is_item & (data.time_ms >= borders.validation_ms)
    final = data
    if borders.test_ms:
        known = data.time_ms < borders.test_ms
        asked, final = asked & known, data.select(known)
    learn = data.select(data.time_ms < borders.validation_ms)
    return Part(learn, final, Questions(data, np.flatnonzero(asked).astype(np.int64)))


def has_long_history(data: Dataset) -> bool:
    """Whether any user has the three items that leave-one-out needs."""
    return bool((np.bincount(data.user[data.is_item], minlength=1) >= 3).any())


def _before(data: Dataset, row: I64) -> Bool:
    """bool[m]: all rows but these, one a user at most, and their users' later ones."""
    change = np.zeros(len(data) + 1, np.int64)
    change[row] += 1
    change[np.searchsorted(data.user, data.user[row], side="right")] -= 1
    kept: Bool = np.cumsum(change[:-1]) == 0
    return kept
