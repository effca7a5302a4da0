"""From a log of events to an artifact: dataset, loss, loop; the demo's data in journey; the ranker in blend."""
