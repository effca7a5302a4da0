"""Errors of the model.

DriftlineError                 (state.errors)
└── ModelError
    ├── ArtifactError          a model folder that is missing, damaged, foreign or of another version
    ├── DatasetError           training data that cannot be read or used
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
