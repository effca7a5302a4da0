"""Times on the wire: what is accepted, and the one form used inside (integer milliseconds, UTC).

Accepted are ISO-8601 text (without a zone it is read as UTC; a date alone is its midnight) and the time
since 1970 as a number, or as text of nine digits and more. Its unit is told by its size; the ranges do
not overlap, and each spans 1973-03-03 to 5138-11-16:

    seconds        10^8  to 10^11      1767323045, 1767323045.123
    milliseconds   10^11 to 10^14      1767323045123
    microseconds   10^14 to 10^17      1767323045123456 (GA4)
    nanoseconds    10^17 to 10^20

A time before that span is refused: it is nearly always a zero, a counter or a broken clock.
"""

from datetime import UTC, datetime

FIRST_MS = 10**11
END_MS = 10**14

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_ms(value: float | str) -> int:
    """Milliseconds since 1970 (UTC) of a time in any accepted form.

    Raises ValueError, without the value in its text, when it is in none.
    """
    if isinstance(value, str):
        if not (len(value) >= 9 and value.isascii() and value.isdigit()):
            return _iso_ms(value)
        value = int(value) if len(value) <= 20 else 0
    if FIRST_MS <= value < END_MS:
        return int(value)
    if 10**8 <= value < 10**11:
        return int(value * 1_000)
    if 10**14 <= value < 10**17:
        return int(value // 1_000)
    if 10**17 <= value < 10**20:
        return int(value // 1_000_000)
    raise ValueError("the number is no time between 1973 and 5138 in s, ms, us or ns since 1970")


def _iso_ms(text: str) -> int:
    if "\0" in text:  # fromisoformat lets a NUL at the end pass
        raise ValueError("the text is no ISO-8601 time")
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("the text is no ISO-8601 time") from None
    # In integers: the float of 0.123 s is a little below 123 ms.
    since = moment - _EPOCH
    ms = since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000
    if ms < FIRST_MS:
        raise ValueError("the time is before 1973-03-03")
    return ms


def iso_utc(at_ms: int) -> str:
    """ISO-8601 text in UTC with milliseconds: 1767323045123 -> '2026-01-02T03:04:05.123Z'."""
    seconds, ms = divmod(at_ms, 1_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"
