"""Our model of a made-up world."""

from __future__ import annotations

from dataclasses import replace

from model.artifact import Artifact
from model.ranking.settings import RankingSettings
from model.training.choose import Lists
from model.training.dataset import Dataset
from model.training.journey import SETTINGS
from model.training.loop import train

LISTS = Lists(RankingSettings(exclude="none"))
"""They hold what was seen, too: a world's users come back to what they like."""


def learn_ours(past: Dataset, steps: int, seed: int) -> Artifact:
    """Train on `past` by so many steps, and choose the blend on its newest part."""
    return train(past, replace(SETTINGS, name="simulated", max_steps=steps, seed=seed), lists=LISTS)
