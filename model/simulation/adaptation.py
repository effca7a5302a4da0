"""How soon a list follows a drift: our own measure, on a world whose truth is known.

    user's events   o o o o | n o n n o n n n ...        o: of an old interest, n: of the new one
                          drift
    list            O O O O   O O O O X X X X ...        X: half of the top 10 is of the new category
                              1 2 3 4                    adaptation time: 4 events

The adaptation time of a user is the number of the user's events between the drift and the first list of which half of
the top 10 belongs to the new category. Live, there is a list after every event; else one at every midnight, and while
nobody is there, no event passes. Users whose list does not get there before their last event, or before the judged days
end, are censored: they count as slower than all others, in quantiles too.

    python -m model.simulation.adaptation --users 100000 --seeds 3 --json build/adaptation.json

The days up to the first judged midnight are trained on; users whose drift comes on the day after it are judged, and
followed to the end of the world. Every model gets the same histories and no filter of what was seen (people of this
world buy again). Ours is trained once, at the first midnight, and then frozen. GRU4Rec and the counts of popularity
are learnt anew at every midnight, on all until then. With several seeds all of this is done for a world of each.

Letters in shapes: U judged users, q lists, n items.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model.baselines.base import FitSettings, Model
from model.baselines.gru4rec import GRU4Rec
from model.baselines.personal import PersonalCounts
from model.baselines.popularity import DecayedPopularity
from model.baselines.train import DescentSettings
from model.errors import SimulationError
from model.evaluation.offline import Scoring, best_items
from model.evaluation.ours import Ours
from model.evaluation.questions import Questions
from model.simulation.command import Say, run
from model.simulation.learn import learn_ours
from model.simulation.world import Events, World, WorldSettings
from model.training.dataset import Dataset

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

LIST = 10
HALF = 0.5
_DAY_MS = 86_400_000
_BLOCK = 1024
"""Lists made together: ours reads a user's history once a block."""
_GRU_LENGTH, _GRU_HIDDEN, _GRU_RATE = 50, 96, 3e-3
"""GRU4Rec as wide and with the rate of ours, reading some four sessions: larger ones make fewer steps of their time."""


@dataclass(frozen=True)
class AdaptationSettings:
    """What is judged."""

    users: int = 100_000
    items: int = 1_000
    events: int = 4_800_000
    days: int = 8
    seed: int = 1
    seeds: int = 1
    """Worlds: of `seed` and those after it, each with models of its own."""
    judged: int = 400
    """Users drawn of those that can be judged."""
    from_day: int = 4
    """Days that are trained on; drifts of the day after them are judged."""
    least_before: int = 20
    """Events of a user before the drift: of whom less is known has no list to be slow with."""
    steps: int = 400
    """Of our network's training, 60 ms of CPU each."""
    gru_seconds: float = 50.0
    """CPU of GRU4Rec's training, every midnight."""


@dataclass(frozen=True, eq=False)
class Lists:
    """q moments at which lists of the judged users are made."""

    user: I32
    """i32[q]: which of the judged, 0..U-1."""
    events: I64
    """i64[q]: the user's events since the drift."""
    row: I64
    """i64[q]: the history is all of the user's rows before this one."""
    time_ms: I64
    """i64[q]."""

    def at(self, which: Any) -> Lists:
        """A part of them."""
        return Lists(self.user[which], self.events[which], self.row[which], self.time_ms[which])


def live_lists(begin: I64, end: I64, time_ms: I64) -> Lists:
    """One after each event since the drift. begin, end: i64[U], each user's rows since the drift; time_ms: i64[m]."""
    count = end - begin
    user = np.repeat(np.arange(len(begin), dtype=np.int32), count)
    passed = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    row = begin[user] + passed
    return Lists(user, passed + 1, row + 1, time_ms[row])


def midnight_lists(begin: I64, end: I64, time_ms: I64, drift_ms: I64, midnights_ms: I64) -> Lists:
    """One at each midnight after the drift. drift_ms: i64[U]; midnights_ms: i64[any], ascending."""
    parts = []
    for user, (first, last, since_ms) in enumerate(zip(begin, end, drift_ms, strict=True)):
        at = midnights_ms[midnights_ms > since_ms]
        passed = np.searchsorted(time_ms[first:last], at)
        parts.append((np.full(len(at), user, np.int32), passed.astype(np.int64), first + passed, at))
    return Lists(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def new_share(top: I32, category: I32, wanted: I32) -> F64:
    """Share of each list that is of the wanted category. top: i32[q, 10], category: i32[n], wanted: i32[q]."""
    share: F64 = (category[top] == wanted[:, None]).mean(axis=1)
    return share


def adaptation_times(lists: Lists, share: F64, users: int) -> F64:
    """Events until half of the list is new: f64[U], inf where that was not seen. share: f64[q]."""
    found = np.full(users, np.inf)
    there = share >= HALF
    np.minimum.at(found, lists.user[there], lists.events[there].astype(np.float64))
    return found


def summary(times: F64) -> dict[str, float | int | None]:
    """Median, quartiles (None: censored), number of users and of those censored."""
    quartiles = np.quantile(times, [0.25, 0.5, 0.75], method="inverted_cdf")  # no mean of a number and infinity
    names = ("quartile_1", "median", "quartile_3")
    return {
        **{name: float(value) if np.isfinite(value) else None for name, value in zip(names, quartiles, strict=True)},
        "users": len(times),
        "censored": int(np.isinf(times).sum()),
    }


def over_seeds(rows: Sequence[dict[str, float | int | None]]) -> dict[str, dict[str, float | None]]:
    """Lowest, median and highest of each figure of a `summary`, one for every seed; None is beyond all numbers.

    The median of an even number of seeds is the lower of the two in the middle.
    """
    found: dict[str, dict[str, float | None]] = {}
    for key in rows[0]:
        values = [np.inf if (value := row[key]) is None else float(value) for row in rows]
        levels = np.quantile(values, [0.0, 0.5, 1.0], method="inverted_cdf").tolist()
        names = ("lowest", "median", "highest")
        found[key] = {name: level if np.isfinite(level) else None for name, level in zip(names, levels, strict=True)}
    return found


@dataclass(frozen=True, eq=False)
class Case:
    """The log, the judged users and the moments of their lists."""

    data: Dataset
    """All events, and for each judged user a last row that is never trained on: a question needs a row to stand at."""
    world: World
    midnights_ms: I64
    """Those from the first judged day on."""
    judged: I64
    """i64[U]: users."""
    live: Lists
    daily: Lists

    def known(self, until_ms: int) -> Dataset:
        """What has happened by then."""
        return self.data.select(self.data.time_ms < until_ms)


def make_case(settings: AdaptationSettings) -> Case:
    """Make the world and draw who is judged."""
    world = World(
        WorldSettings(
            users=settings.users, items=settings.items, events=settings.events, days=settings.days, seed=settings.seed
        )
    )
    parts = list(world.events())
    end_ms = int(parts[-1].time_ms[-1]) + 1
    start_ms = world.settings.start_ms + settings.from_day * _DAY_MS
    midnights_ms = np.arange(start_ms, end_ms, _DAY_MS)
    found = Events.join(parts)
    before = np.bincount(found.user[found.time_ms < world.drift_ms[found.user]], minlength=settings.users)
    possible = (world.drift_ms >= start_ms) & (world.drift_ms < start_ms + _DAY_MS)
    possible &= before >= settings.least_before
    possible &= np.bincount(found.user, minlength=settings.users) > before
    judged = np.flatnonzero(possible)
    draw = np.random.default_rng((settings.seed, 2))
    judged = np.sort(draw.choice(judged, min(settings.judged, len(judged)), replace=False))
    last = Events(
        judged.astype(np.int32),
        np.zeros(len(judged), np.int32),
        np.ones(len(judged), np.uint8),
        np.full(len(judged), end_ms),
    )
    data = world.dataset([found, last])
    drift_ms = world.drift_ms[judged]
    end = np.searchsorted(data.user, judged, side="right") - 1
    first = np.searchsorted(data.user, judged)
    begin = np.array(
        [a + np.searchsorted(data.time_ms[a:b], at) for a, b, at in zip(first, end, drift_ms, strict=True)], np.int64
    )
    return Case(
        data,
        world,
        midnights_ms,
        judged,
        live_lists(begin, end, data.time_ms),
        midnight_lists(begin, end, data.time_ms, drift_ms, midnights_ms),
    )


def shares(model: Scoring, case: Case, lists: Lists) -> F64:
    """Share of the new category in each list of a model. f64[q]."""
    wanted = case.world.after[case.judged[lists.user], 0]
    found = np.empty(len(lists.row))
    done = 0
    for block in Questions(case.data, lists.row).blocks(_BLOCK):
        part = slice(done, done + len(block))
        found[part] = new_share(best_items(model.score(block), LIST), case.world.category, wanted[part])
        done += len(block)
    return found


def learnt_daily(model: Model, case: Case, asked: Sequence[Lists], fit: FitSettings, say: Say) -> list[F64]:
    """The same of a model that learns anew at each midnight, for several kinds of lists: each f64[q]."""
    found = [np.empty(len(lists.row)) for lists in asked]
    day = [np.searchsorted(case.midnights_ms, lists.time_ms, side="right") - 1 for lists in asked]
    for number, midnight_ms in enumerate(case.midnights_ms.tolist()):
        began_s = time.process_time()
        model.fit(case.known(midnight_ms), fit)
        took_s = time.process_time() - began_s
        say(f"{model.name}: learnt at midnight {number + 1} of {len(case.midnights_ms)}, {took_s:.0f} s CPU")
        for into, of_day, lists in zip(found, day, asked, strict=True):
            now = of_day == number
            into[now] = shares(model, case, lists.at(now))
    return found


def measure(settings: AdaptationSettings, say: Say) -> dict[str, Any]:
    """Adaptation times of all models over the seeds, and in each seed's world, as a document.

    Raises SimulationError for a number of seeds below 1.
    """
    if settings.seeds < 1:
        raise SimulationError(f"{settings.seeds} seeds: give 1 or more.")
    began_s = time.process_time()
    worlds: list[dict[str, Any]] = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        worlds.append(measure_world(replace(settings, seed=seed), say))
        times = [world["adaptation_events"] for world in worlds]
        found = {name: over_seeds([of_world[name] for of_world in times]) for name in times[0]}
        if settings.seeds > 1:
            say(f"{len(worlds)} of {settings.seeds} seeds\n{table({'adaptation_events': found})}")
    return {
        "settings": asdict(settings),
        "adaptation_events": found,
        "worlds": worlds,
        "cpu_s": time.process_time() - began_s,
    }


def measure_world(settings: AdaptationSettings, say: Say) -> dict[str, Any]:
    """Adaptation times of all models in the world of settings.seed."""
    began_s = time.process_time()
    case = make_case(settings)
    say(f"{len(case.data):,} rows, {len(case.judged):,} judged users, {len(case.live.row):,} live lists")
    artifact = learn_ours(case.known(int(case.midnights_ms[0])), settings.steps, settings.seed)
    learnt_s = time.process_time() - began_s
    say(f"world and training of ours: {learnt_s:.0f} s CPU")
    ours = Ours(artifact, case.data, seen_filtered=False)
    fit = FitSettings(
        seed=settings.seed, threads=1, max_seconds=settings.gru_seconds, clock=time.process_time, device="cpu"
    )
    gru = GRU4Rec(hidden=_GRU_HIDDEN)
    gru.length, gru.descent = _GRU_LENGTH, DescentSettings(learning_rate=_GRU_RATE)
    both = (case.live, case.daily)
    gru_live, gru_daily = learnt_daily(gru, case, both, fit, say)
    (personal,) = learnt_daily(PersonalCounts(), case, (case.live,), fit, say)
    (popular,) = learnt_daily(DecayedPopularity(), case, (case.daily,), fit, say)
    found = {
        "ours, live": (case.live, shares(ours, case, case.live)),
        "ours, list of the last midnight": (case.daily, shares(ours, case, case.daily)),
        "GRU4Rec trained daily, list of the last midnight": (case.daily, gru_daily),
        "GRU4Rec trained daily, live history": (case.live, gru_live),
        "personal counts, live": (case.live, personal),
        "popularity of 7 days": (case.daily, popular),
    }
    users = len(case.judged)
    return {
        "seed": settings.seed,
        "events_after_drift": np.quantile(np.bincount(case.live.user, minlength=users), [0.25, 0.5, 0.75]).tolist(),
        "adaptation_events": {
            name: summary(adaptation_times(lists, share, users)) for name, (lists, share) in found.items()
        },
        "cpu_s": time.process_time() - began_s,
    }


def main(arguments: list[str] | None = None) -> int:
    """Adaptation time after a drift, in events of the user: ours, GRU4Rec, counts."""
    return run("adaptation", main.__doc__, AdaptationSettings, measure, table, arguments)


def table(found: dict[str, Any]) -> str:
    """The figures for people: the median over the seeds and, of several, their range."""
    title = "events until half of the top 10 is of the new interest"
    lines = [f"{title:54}{'25 %':>16}{'median':>16}{'75 %':>16}{'never seen':>24}"]
    for name, row in found["adaptation_events"].items():
        cells = [_cell(row[key]) for key in ("quartile_1", "median", "quartile_3")]
        never = f"{_cell(row['censored'])} of {_cell(row['users'])}"
        lines.append(f"{name:54}" + "".join(f"{cell:>16}" for cell in cells) + f"{never:>24}")
    return "\n".join(lines)


def _cell(levels: dict[str, float | None]) -> str:
    """4, or 4 (3 to 6) where the seeds differ; - for what was never seen."""
    low, middle, high = ("-" if level is None else f"{level:.0f}" for level in levels.values())
    return middle if low == high else f"{middle} ({low} to {high})"


if __name__ == "__main__":
    sys.exit(main())
