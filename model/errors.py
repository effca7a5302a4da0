"""Errors of the model.

DriftlineError                 (state.errors)
└── ModelError
    ├── ArtifactError          a model folder that is missing, damaged, foreign or of another version
    ├── DatasetError           training data that cannot be read or used
    ├── SimulationError        a made-up world that cannot be, such as one without users
    ├── EvaluationError        an evaluation that cannot be made as it was asked for
    └── TrainingError          training that cannot go on, such as a loss that is no number
"""

from state.errors import DriftlineError


class ModelError(DriftlineError):
    """Something is wrong with a model."""


class ArtifactError(ModelError):
    """A model folder that cannot be used; nothing was loaded."""


class DatasetError(ModelError):
    """Training data that cannot be read or used: says which file, row and column, and what to do."""


class TrainingError(ModelError):
    """Training that cannot go on; no model was made."""


class SimulationError(ModelError):
    """A made-up world that cannot be; nothing was made."""


class EvaluationError(ModelError):
    """An evaluation that cannot be made as it was asked for; nothing was evaluated."""
