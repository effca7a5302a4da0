"""The features topic: what was known of a user when a list was made. Off unless topics.features names it.

One record a list, in the list's transaction: its key is the user, its partition that of the event. What is learnt from
these records cannot differ from what is seen live; and a replay of the events topic gives the same again.

The topic is no compacted one: training wants every value. Erasing a user does not take back records that are in it,
just as it leaves those of the events topic; they go after a week (`stream.topics`). Beside the key there is nothing in
them that names a user or an item.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from model.recommender import Portion
from state.features import FeatureReader
from state.settings import StateSettings
from state.weights import WeightSettings
from stream.contract.recommendation import Source, recommendation_id
from stream.engine.chunk import Chunk
from stream.errors import ContractError


class FeatureRecord(msgspec.Struct, gc=False, kw_only=True):
    """The features of a user at an event."""

    recommendation_id: str
    """The list made at it."""
    fingerprint: str
    """`FeatureReader.fingerprint`: which features these are."""
    source: Source
    """Where the event stands in the log."""
    event_time_ms: int
    """When it happened, by the log's clock."""
    events_applied: int
    """How many of the user's events the features rest on."""
    values: list[float]
    """[U] `FeatureReader.user`, in that order; JSON holds every digit of a float32."""

    def array(self) -> npt.NDArray[np.float32]:
        """f32[U]: the values."""
        return np.array(self.values, np.float32)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FeatureRecord).decode


class FeatureLog:
    """Writes the features of a portion's lists to their topic."""

    def __init__(self, topic: str, settings: StateSettings, weights: WeightSettings) -> None:
        self._topic = topic
        self.reader = FeatureReader(settings, weights)

    def send(self, chunk: Chunk, portion: Portion) -> None:
        """A record for each of the portion's lists; `Recommender.process` was given this log's reader."""
        place = chunk.partition
        for made in portion.lists:
            record = FeatureRecord(
                recommendation_id=recommendation_id(made.user, place.number, made.offset),
                fingerprint=self.reader.fingerprint,
                source=Source(place.topic, place.number, made.offset),
                event_time_ms=made.event.time_ms,
                events_applied=made.events_applied,
                values=portion.features[made.offset].tolist(),
            )
            chunk.send(self._topic, _encode(record), made.user, place.number)


def decode_features(value: bytes) -> FeatureRecord:
    """The features of a record. Raises ContractError when the value is none."""
    try:
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"the value is no record of features ({error}): is this the features topic?") from None
