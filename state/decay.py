"""Forward decay: amounts that fade with age, without touching the old ones.

An event of weight w at time t is added as ``w * 2**((t - ref) / half_life)``; what it is worth at a time `now`
is that amount times ``2**((ref - now) / half_life)``. Amounts of one reference time can be added and compared
as they are, in whichever order the events came, so an update is O(1) (Cormode, Shkapenyuk, Srivastava, Xu:
"Forward Decay: A Practical Time Decay Model for Streaming Systems", ICDE 2009). An event older than the
newest is worth less than its weight, never more.
"""

REBASE_AFTER_HALF_LIVES = 32
"""When an exponent passes this, amounts are brought to a newer reference time. 2**32 times the largest weight
(1e6) times a billion events is 4e24: far below 3e38, the end of a 32-bit float."""

MAX_WEIGHT = 1e6
"""Weights are held within plus and minus this, so that no input can overflow an amount."""


def bounded_weight(weight: float) -> float:
    """The weight within its bounds; a weight that is no number counts nothing."""
    if -MAX_WEIGHT <= weight <= MAX_WEIGHT:
        return weight
    if weight != weight:
        return 0.0
    return MAX_WEIGHT if weight > 0.0 else -MAX_WEIGHT


def growth(time_s: float, ref_s: float, half_life_s: float) -> float:
    """Factor 2**((time - ref) / half_life) that a weight enters an amount with.

    Meant for times at most REBASE_AFTER_HALF_LIVES after `ref_s`; a time long before it gives 0.0. Times so far
    after it that no float holds the factor are those of a damaged state, and give a large factor, not an error.
    """
    return float(2.0 ** min((time_s - ref_s) / half_life_s, 1000.0))
