"""A recommender that learns from every event at once: counts, and a blend of them fitted in passing."""
