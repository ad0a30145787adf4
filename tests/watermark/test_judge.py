"""Who is named of what was decoded."""

from __future__ import annotations

import numpy as np
import pytest

from watermark import carrier, code, judge
from watermark.judge import LISTED, agrees

GATEWAY = 0xBEEF
FITS = carrier.LAPS / carrier.ROWS
"""The share of wrong payloads that fit the row that was heard."""


def named_share(noise: float, tries: int) -> tuple[float, float]:
    """(wrongly, rightly) named of so many decodings of bits in noise of this deviation. The right payload
    fits the row, and each wrong one does with `FITS`, of which there is at most one here."""
    rng = np.random.default_rng(int(100 * noise))
    wrong = right = 0.0
    for _ in range(tries):
        payload = GATEWAY << 48 | int(rng.integers(1 << 48))
        soft = (code.encode(payload) + noise * rng.standard_normal(code.CODED_BITS)).astype(np.float32)
        listed = code.decode(soft, GATEWAY, LISTED)
        fitting = [payload] if payload in listed else []
        right += sum(agrees(soft, listed, fitting, each) for each in fitting)
        for each in listed:
            if each != payload:
                wrong += FITS * agrees(soft, listed, [*fitting, each], each)
    return wrong / tries, right / tries


@pytest.mark.parametrize("noise", [2.0, 1.43, 1.2])
def test_bits_in_noise_name_the_wrong_call_less_than_once_in_500(noise: float) -> None:
    wrong, _ = named_share(noise, 120)
    assert wrong < 0.002


def test_bits_with_little_noise_name_their_call() -> None:
    wrong, right = named_share(0.7, 60)
    assert wrong < 1e-4
    assert right > 0.95


def test_no_sound_at_all_names_nobody() -> None:
    assert not agrees(np.zeros(code.CODED_BITS, np.float32), [0], [0], 0)
    assert not judge.nobody(judge.NOTHING)
