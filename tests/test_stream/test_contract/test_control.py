"""Control messages, and the headers of dead letters."""

import msgspec
import pytest

from state.errors import StateCorruptError
from stream.contract.control import (
    ERROR_HEADERS,
    FIRST_SENT,
    ErasureConfirmed,
    ModelPointer,
    decode_erasure,
    decode_model_pointer,
    encode_control,
    error_headers,
    first_sent_ms,
    user_hash,
    with_first_sent,
)
from stream.contract.recommendation import Source
from stream.errors import ContractError, EventError

POINTER = ModelPointer(
    name="glr", version="7", uri="models/glr-7", sha256="0" * 64, activated_at="2026-01-02T03:04:05.123Z"
)
ERASURE = ErasureConfirmed(
    user_hash=user_hash(b"jane"),
    erased_at="2026-01-02T03:04:05.123Z",
    source=Source("driftline.events.v1", 3, 7),
    requested_at="2026-01-02T03:04:04.000Z",
)


def test_round_trips() -> None:
    assert decode_model_pointer(encode_control(POINTER)) == POINTER
    assert decode_erasure(encode_control(ERASURE)) == ERASURE


def test_an_erasure_does_not_name_the_user() -> None:
    assert b"jane" not in encode_control(ERASURE)
    assert user_hash(b"jane") != user_hash(b"john")


def test_the_confirmations_of_a_user_with_two_states_do_not_replace_each_other() -> None:
    elsewhere = msgspec.structs.replace(ERASURE, source=Source("driftline.events.v1", 4, 7))
    assert ERASURE.key == f"{user_hash(b'jane')}/3".encode()
    assert elsewhere.key != ERASURE.key


def test_when_an_event_was_first_sent_is_told_once_and_read_with_care() -> None:
    told = with_first_sent([("trace", b"1")], 1_780_000_000_000)
    assert told == [("trace", b"1"), (FIRST_SENT, b"1780000000000")]
    assert with_first_sent(told, 1_780_000_999_999) == told
    assert first_sent_ms(told) == 1_780_000_000_000
    for value in (None, b"", b"-5", b"soon", b"9" * 16):
        assert first_sent_ms([(FIRST_SENT, value)]) is None


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b'{"name":"\xff"}', b"[" * 100_000])
def test_no_control_message(value: bytes) -> None:
    for decode in (decode_model_pointer, decode_erasure):
        with pytest.raises(ContractError, match="who writes"):
            decode(value)


def test_a_pointer_needs_a_whole_checksum() -> None:
    with pytest.raises(ContractError, match="sha256"):
        decode_model_pointer(encode_control(POINTER).replace(b"0" * 64, b"0" * 63))


def test_headers_of_a_refused_event() -> None:
    headers = error_headers(
        EventError("no_user", "nobody"), stage="decode", topic="driftline.events.v1", partition=3, offset=7
    )
    assert headers == [
        ("__streams.errors.exception", b"stream.errors.EventError"),
        ("__streams.errors.message", b"nobody"),
        ("__streams.errors.stacktrace", b""),
        ("__streams.errors.topic", b"driftline.events.v1"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"7"),
        ("driftline.errors.stage", b"decode"),
        ("driftline.errors.reason", b"no_user"),
    ]
    assert tuple(name for name, _ in headers) == ERROR_HEADERS


def test_headers_of_an_unexpected_error_hold_its_trace() -> None:
    try:
        raise KeyError("x")
    except KeyError as error:
        headers = dict(error_headers(error, stage="process", topic="t", partition=0, offset=0))
    assert headers["__streams.errors.exception"] == b"builtins.KeyError"
    assert headers["driftline.errors.reason"] == b"unexpected"
    assert b"test_control" in headers["__streams.errors.stacktrace"]


def test_headers_of_another_error_of_ours() -> None:
    headers = dict(error_headers(StateCorruptError("torn"), stage="state", topic="t", partition=0, offset=0))
    assert (headers["driftline.errors.reason"], headers["__streams.errors.stacktrace"]) == (b"unexpected", b"")


def test_headers_are_bounded_and_can_always_be_encoded() -> None:
    error = ValueError("\ud800" + "x" * 100_000)
    headers = dict(error_headers(error, stage="process", topic="t", partition=0, offset=0))
    assert headers["__streams.errors.message"].startswith(b"?x")
    assert sum(map(len, headers.values())) < 10_000
