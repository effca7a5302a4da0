"""Training that goes on where it was killed.

    <folder>/checkpoint.pt   steps done, weights, the optimizer's memory, the best weights so far, whose training it is

Nothing random is kept, for nothing random has a memory: the order of the data is drawn from (seed, epoch) and what a
step draws from (seed, step). A training that goes on is therefore the same, bit for bit, as one that was never stopped.

The file is written whole or not at all, and read by torch's restricted reader: tensors and plain values, no code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.errors import TrainingError
from model.training.settings import TrainSettings
from model.training.source import Source

FILE = "checkpoint.pt"
_SCHEMA = 1
_WITHOUT_EFFECT = ("max_seconds",)
"""Settings that may change between two runs of one training."""


def identity(settings: TrainSettings, source: Source) -> str:
    """Tells one training from another: settings, data, what of it is learnt, and the version of torch."""
    chosen = {name: value for name, value in asdict(settings).items() if name not in _WITHOUT_EFFECT}
    told = [_SCHEMA, chosen, source.fingerprint, list(source.rows), str(torch.__version__)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class Checkpoint:
    """The folder of one training's checkpoint."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.file = self.folder / FILE

    def load(self, wanted: str) -> dict[str, Any] | None:
        """What was saved last, None if nothing was. wanted: the identity of the training.

        Raises TrainingError when the file is damaged or of another training.
        """
        if not self.file.exists():
            return None
        again = f"go on with the data and settings it was made with, or remove it: {self.folder}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # torch warns of a pickle that is not its own, and goes on
                saved = torch.load(self.file, map_location="cpu", weights_only=True)
        except Exception as error:
            # A foreign file can fail in any of torch's, zipfile's and pickle's ways; all mean the same here.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TrainingError(f"{self.file} cannot be read ({reason}); remove it to begin anew.") from error
        if not isinstance(saved, dict) or saved.get("identity") != wanted:
            raise TrainingError(f"{self.file} is of another training; {again}")
        return saved

    def save(self, state: dict[str, Any], of: str) -> None:
        """Write to disk, then put it in the place of the one before. Raises TrainingError when the disk refuses."""
        new = self.file.with_suffix(".new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                torch.save({**state, "identity": of}, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.file)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise TrainingError(
                f"the checkpoint could not be written to {self.folder}: {error}; check its space and rights."
            ) from error

    def remove(self) -> None:
        """Forget it: the training is over. Files that are not of a checkpoint stay."""
        for file in (self.file, self.file.with_suffix(".new")):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: something else is kept there
            self.folder.rmdir()
