"""Logs of the past through the code of the present: sources, bounds, pace, targets, and what differs from live.

files, folders, buckets ──┐
ranges of topics ─────────┴─> Log ──> places ──> InterestAgent, as in a worker ──> folder | shadow topics | state
                          (one order,  (partition,                                └> diff against live or another
                           bounds)      offset)
                            └───────────────────> live topics, paced (`--into live`)
"""
