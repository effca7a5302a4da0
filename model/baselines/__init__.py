"""What a model has to beat: baselines on the same splits and with the same metrics (model.evaluation)."""

from __future__ import annotations

from collections.abc import Callable

from model.baselines.base import FitSettings, Model
from model.baselines.ease import EASE
from model.baselines.gru4rec import GRU4Rec
from model.baselines.itemknn import ItemKNN
from model.baselines.mf import ALS, BPR
from model.baselines.ncf import NCF
from model.baselines.personal import PersonalCounts
from model.baselines.popularity import DecayedPopularity, Popularity
from model.baselines.rules import Rules
from model.baselines.sasrec import SASRec

__all__ = ["BASELINES", "FitSettings", "Model"]

BASELINES: dict[str, Callable[[], Model]] = {
    "popularity": Popularity,
    "decayed-popularity": DecayedPopularity,
    "personal": PersonalCounts,
    "itemknn": ItemKNN,
    "ease": EASE,
    "als": ALS,
    "bpr": BPR,
    "ncf": NCF,
    "gru4rec": GRU4Rec,
    "sasrec": SASRec,
    "rules": Rules,
}
"""By name, in the order of a table: counting, then factors, then networks, then the rules."""
