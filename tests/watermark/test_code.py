import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark import code

PAYLOADS = st.integers(0, (1 << 64) - 1)


@settings(max_examples=50)
@given(PAYLOADS)
def test_what_is_encoded_is_decoded(payload: int) -> None:
    soft = code.encode(payload)
    assert code.decode(soft) == [payload]
    assert code.decode(soft, payload >> 48, 4)[0] == payload


def by_register(payload: int) -> list[int]:
    """3GPP TS 25.212 §4.2.3.1's shift register, its ends tied together."""
    bits = [payload >> k & 1 for k in range(63, -1, -1)]
    coded = []
    for at in range(64):
        window = [bits[at - back] for back in range(9)]
        for generator in (0o561, 0o753):
            taps = [generator >> k & 1 for k in range(8, -1, -1)]
            coded.append(1 - 2 * (sum(b & t for b, t in zip(window, taps, strict=True)) % 2))
    return coded


@settings(max_examples=20)
@given(st.lists(PAYLOADS, min_size=1, max_size=5))
def test_many_are_encoded_as_one_by_the_shift_register(payloads: list[int]) -> None:
    many = code.encode_all(np.array(payloads, np.uint64))
    assert many.tolist() == [by_register(payload) for payload in payloads]
    assert many[0].tolist() == code.encode(payloads[0]).tolist()


@settings(max_examples=20)
@given(PAYLOADS, st.integers(0, 127))
def test_the_code_is_circular(payload: int, shift: int) -> None:
    turned = (payload << shift % 64 | payload >> (64 - shift % 64)) & (1 << 64) - 1
    assert np.array_equal(code.encode(turned), np.roll(code.encode(payload), -2 * (shift % 64)))


def test_noise_is_overcome_and_known_bits_help() -> None:
    rng = np.random.default_rng(2)
    right = {"blind": 0, "known": 0, "listed": 0}
    for _ in range(60):
        payload = int(rng.integers(1 << 63))
        soft = (1.1 * code.encode(payload) + rng.standard_normal(128)).astype(np.float32)
        right["blind"] += code.decode(soft) == [payload]
        right["known"] += code.decode(soft, payload >> 48) == [payload]
        right["listed"] += payload in code.decode(soft, payload >> 48, 16)
    assert 20 <= right["blind"] < right["known"] <= right["listed"]
    assert right["listed"] >= 57


def test_the_list_is_ordered_and_without_repeats() -> None:
    soft = np.random.default_rng(3).standard_normal(128).astype(np.float32)
    listed = code.decode(soft, 0x1234, 16)
    metrics = [float(code.encode(payload) @ soft) for payload in listed]
    assert metrics == sorted(metrics, reverse=True)
    assert len(set(listed)) == len(listed) > 8
    assert {payload >> 48 for payload in listed} == {0x1234}


def test_a_payload_has_64_bits() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        code.encode(1 << 64)
