"""The crossing of int16 and float: exact there and back, clipped, and silent where there is no number."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from watermark.pcm import bytes_from_float, float_from_bytes, float_from_int16, int16_from_float

ROOT = Path(__file__).resolve().parents[2]
ALL = np.arange(-(1 << 15), 1 << 15).astype(np.int16)


def test_every_sample_comes_back_as_it_was() -> None:
    assert np.array_equal(int16_from_float(float_from_int16(ALL)), ALL)
    assert bytes_from_float(float_from_bytes(ALL.astype("<i2").tobytes())) == ALL.astype("<i2").tobytes()


def test_a_sound_that_crosses_often_does_not_drift() -> None:
    sound = np.random.default_rng(1).normal(0, 0.2, 10_000).astype(np.float32)
    once = int16_from_float(sound)
    again = once
    for _ in range(10):
        again = int16_from_float(float_from_int16(again))
    assert np.array_equal(once, again)


def test_full_scale_is_one_in_both_directions() -> None:
    assert float_from_int16(np.array([-32768, 16384, 0], np.int16)).tolist() == [-1.0, 0.5, 0.0]
    assert int16_from_float(np.array([-1.0, 0.5, 1.0], np.float32)).tolist() == [-32768, 16384, 32767]


def test_what_is_nearest_is_taken() -> None:
    steps = np.array([0.4, 0.6, -0.4, -0.6, 100.4, -100.6, 32766.6, 32767.4]) / 32768
    assert int16_from_float(steps).tolist() == [0, 1, 0, -1, 100, -101, 32767, 32767]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_too_loud_is_clipped_and_no_number_is_silence(kind: type) -> None:
    wild = np.array([1.7, -1.7, 0.25, np.inf, -np.inf, np.nan, 1e30], kind)
    kept = wild.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crossed = int16_from_float(wild)
    assert crossed.tolist() == [32767, -32768, 8192, 32767, -32768, 0, 32767]
    assert crossed.dtype == np.int16
    np.testing.assert_array_equal(wild, kept, err_msg="the caller's samples stay as they were")


def test_shapes_stay_and_nothing_is_nothing() -> None:
    assert int16_from_float(np.zeros((3, 160), np.float32)).shape == (3, 160)
    assert float_from_int16(np.zeros((3, 160), np.int16)).shape == (3, 160)
    assert bytes_from_float(np.zeros(0, np.float32)) == b""
    assert float_from_bytes(b"").shape == (0,)


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer size"):
        float_from_bytes(b"\x01\x02\x03")


def test_nobody_else_crosses() -> None:
    """No other module scales samples by a full scale of its own."""
    own = re.compile(r"(?<![\w.])(?:32_?76[78]\b|1 << 15\b|2 ?\*\* ?15\b|0x7fff\b|0x8000\b)", re.IGNORECASE)
    scaled = re.compile(r"astype\([^)]*i2|frombuffer\([^)]*i2[^)]*\)\s*(?:\.astype|/|\*)")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for package in ("gateway", "model", "consent", "watermark", "benchmarks")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.relative_to(ROOT) != Path("watermark/pcm.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if scaled.search(line) or (own.search(line) and not line.lstrip().startswith(('"""', "#")))
    ]
    # a limit of positions; the level at which consent hashes; where a telephone without numpy clips a sum
    allowed = ("gateway/config/settings.py", "consent/checks/sound.py", "gateway/phone/phone_ear.py")
    assert [line for line in found if not line.startswith(allowed)] == []
