"""Faust on librdkafka: chunks of records in, one Kafka transaction a cycle out.

Read in this order: `chunk` (what an agent gets), `cycle` (fetch, hand out, commit), `ledger` (no offset skipped,
none taken twice), `recovery` (the store from the changelog), `watch` (lag, stalls), `plain` (ordinary topics), then
`consumer`, `producer` and `transport`, which make a Faust transport of it.
"""

from stream.engine.chunk import Chunk, ChunkTopic

__all__ = ["Chunk", "ChunkTopic"]
