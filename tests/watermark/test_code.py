import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark import code

PAYLOADS = st.integers(0, (1 << 64) - 1)


@settings(max_examples=50, deadline=None)
@given(PAYLOADS)
def test_what_is_encoded_is_decoded(payload: int) -> None:
    soft = code.encode(payload)
    assert code.decode(soft) == [payload]
    assert code.decode(soft, payload >> 48, 4)[0] == payload


@settings(max_examples=20, deadline=None)
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
