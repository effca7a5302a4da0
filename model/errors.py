"""Errors of the model.

DriftlineError                 (state.errors)
└── ModelError
    └── ArtifactError          a model folder that is missing, damaged, foreign or of another version
"""

from state.errors import DriftlineError


class ModelError(DriftlineError):
    """Something is wrong with a model."""


class ArtifactError(ModelError):
    """A model folder that cannot be used; nothing was loaded."""
