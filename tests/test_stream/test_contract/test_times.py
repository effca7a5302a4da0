"""Every accepted form of one moment gives the same milliseconds; all else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.contract.times import END_MS, FIRST_MS, iso_utc, time_ms

MOMENT_MS = 1_767_323_045_123


@pytest.mark.parametrize(
    "form",
    [
        1_767_323_045_123,
        1_767_323_045_123.0,
        1_767_323_045.123,
        1_767_323_045_123_456,
        1_767_323_045_123_456_789,
        "1767323045123",
        "1767323045123456",
        "2026-01-02T03:04:05.123Z",
        "2026-01-02T03:04:05.123456789Z",
        "2026-01-02T03:04:05.123",
        "2026-01-02 03:04:05.123",
        "2026-01-02T05:04:05.123+02:00",
        "2026-01-01T22:04:05.123-05:00",
        "20260102T030405.123Z",
    ],
)
def test_forms_of_one_moment(form: int | float | str) -> None:
    assert time_ms(form) == MOMENT_MS


def test_seconds_and_a_date_alone() -> None:
    assert time_ms(1_767_323_045) == 1_767_323_045_000
    assert time_ms("2026-01-02") == 1_767_312_000_000


@pytest.mark.parametrize(
    "form",
    [
        0,
        -1,
        -1_767_323_045_123,
        99_999_999,
        10**20,
        10**4000,
        1e300,
        float("nan"),
        float("inf"),
        "",
        " ",
        "yesterday",
        "0",
        "9" * 5000,
        "2026-13-01",
        "2026-01-02T03:04:60Z",
        "1970-01-01",
        "0001-01-01T00:00:00+05:00",
        "٢٠٢٦٠١٠٢٠",
        "2026-01-02T03:04:05\0",
        "1e12",
    ],
)
def test_no_time(form: int | float | str) -> None:
    with pytest.raises(ValueError):
        time_ms(form)


@given(st.integers(FIRST_MS, END_MS - 1))
def test_ms_stay_what_they_are(at_ms: int) -> None:
    assert time_ms(at_ms) == at_ms
    assert time_ms(iso_utc(at_ms)) == at_ms
    assert time_ms(at_ms * 1000) == at_ms


def test_iso_utc() -> None:
    assert iso_utc(MOMENT_MS) == "2026-01-02T03:04:05.123Z"
    assert iso_utc(1_767_323_045_000) == "2026-01-02T03:04:05.000Z"
