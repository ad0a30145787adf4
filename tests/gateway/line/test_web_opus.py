"""Opus as a call needs it."""

from __future__ import annotations

import math
import random
from array import array

import pytest

from gateway.line import opus
from gateway.line.opus import FRAME, OpusDecoder, OpusEncoder, OpusError
from tests.gateway.line.line_harness import power_at, tone


def voiced(frames: int) -> list[bytes]:
    """A buzzing, gliding, swelling sound: as hard to guess as speech."""
    chance = random.Random(2)
    out, phase = [], 0.0
    for n in range(frames):
        samples = array("h")
        hz = 140 + 50 * math.sin(n / 7) + chance.uniform(-10, 10)
        for _ in range(FRAME):
            phase += 2 * math.pi * hz / opus.RATE_HZ
            value = sum(math.sin(k * phase) / k for k in range(1, 9))
            samples.append(int(3500 * (1.2 + math.sin(n / 5)) * value))
        out.append(samples.tobytes())
    return out


def envelope_error(a: bytes, b: bytes) -> float:
    """Mean difference of the sounds' levels, 5 ms by 5 ms, relative to the louder."""

    def levels(pcm: bytes) -> list[float]:
        samples = array("h", pcm)
        return [
            math.sqrt(sum(s * s for s in samples[k : k + 240]) / 240)
            for k in range(0, len(samples) - 239, 240)
        ]

    pairs = list(zip(levels(a), levels(b), strict=True))
    return sum(abs(x - y) / max(x, y, 1.0) for x, y in pairs) / len(pairs)


@pytest.mark.parametrize("loss_percent", [0, 20])
def test_a_tone_survives(loss_percent: int) -> None:
    encoder, decoder = OpusEncoder(loss_percent=loss_percent), OpusDecoder()
    heard = b"".join(decoder.decode(encoder.encode(tone(1000)(n))) for n in range(50))
    assert len(heard) == 50 * 2 * FRAME
    assert power_at(heard[-48_000:], 1000) > 0.98


def test_without_loss_the_transform_half_runs_alone_and_with_it_the_speech_model() -> None:
    plain, safe = OpusEncoder(), OpusEncoder(32_000, loss_percent=10)
    frames = voiced(20)
    assert {packet[0] >> 3 for packet in map(plain.encode, frames)} <= set(range(16, 32))  # CELT
    assert {packet[0] >> 3 for packet in map(safe.encode, frames)} <= set(range(16))  # SILK or hybrid


def test_a_lost_packet_is_in_the_next_ones_fec_copy() -> None:
    frames = voiced(120)
    encoder = OpusEncoder(32_000, loss_percent=30)
    packets = [encoder.encode(frame) for frame in frames]
    whole, recovered, concealed = OpusDecoder(), OpusDecoder(), OpusDecoder()
    errors_recovered, errors_concealed = [], []
    for n, packet in enumerate(packets):
        true = whole.decode(packet)
        if n % 10 == 9 and n > 20 and n + 1 < len(packets):
            errors_recovered.append(envelope_error(true, recovered.recover(packets[n + 1], FRAME)))
            errors_concealed.append(envelope_error(true, concealed.conceal(FRAME)))
        else:
            recovered.decode(packet)
            concealed.decode(packet)
    assert sum(errors_recovered) < 0.6 * sum(errors_concealed)


def test_concealment_goes_on_and_fades() -> None:
    encoder, decoder = OpusEncoder(), OpusDecoder()
    for n in range(20):
        decoder.decode(encoder.encode(tone(440)(n)))
    first = decoder.conceal(FRAME)
    assert len(first) == 2 * FRAME
    assert power_at(first, 440) > 0.5
    later = [decoder.conceal(FRAME) for _ in range(12)][-1]
    assert max(memoryview(later).cast("h")) < max(memoryview(first).cast("h")) / 3


@pytest.mark.parametrize("packet", [b"\xff\xff\xff", bytes([0x03]), b"\x01" * 2000])
def test_what_is_no_opus_is_refused(packet: bytes) -> None:
    with pytest.raises(OpusError):
        OpusDecoder().decode(packet)


@pytest.mark.parametrize("size", [0, 2 * FRAME - 2, 2 * FRAME + 2])
def test_a_frame_of_another_size_is_refused_before_libopus_reads_beyond_it(size: int) -> None:
    with pytest.raises(ValueError, match=f"a frame of {size} bytes"):
        OpusEncoder().encode(bytes(size))
