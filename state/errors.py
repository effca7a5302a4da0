"""Errors of the interest state. Every error of Driftline derives from DriftlineError.

DriftlineError
└── StateError
    ├── StateCorruptError      bytes that are no user's state
    ├── StoreError             the local store cannot be used
    └── FeatureError           features that are not those wanted
"""


class DriftlineError(Exception):
    """Base of every error that Driftline raises itself; its text ends with what to do."""


class StateError(DriftlineError):
    """Something is wrong with a user's state or its store."""


class StateCorruptError(StateError):
    """Bytes that should hold a user's state do not."""


class StoreError(StateError):
    """The local store cannot be opened, read or written."""


class FeatureError(StateError):
    """Features are of another version or other settings than those wanted."""
