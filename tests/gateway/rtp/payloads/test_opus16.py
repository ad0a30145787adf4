"""Opus at 16 kHz: sound comes through, what is lost is made good, and what is no Opus breaks nothing."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.rtp.payloads.opus16 import FRAME, LONGEST, Opus16Decoder, Opus16Encoder
from tests.gateway.line.line_harness import is_tone

AT = np.arange(50 * FRAME)
SAID = (8_000 * np.sin(2 * np.pi * 1_000 * AT / 16_000)).astype("<i2").tobytes()
FRAMES = [SAID[at : at + 2 * FRAME] for at in range(0, len(SAID), 2 * FRAME)]


def packets(encoder: Opus16Encoder) -> list[bytes]:
    return [encoder.encode(frame) for frame in FRAMES]


def test_a_tone_comes_through_at_its_rate_and_no_more_bits_than_asked() -> None:
    said = packets(Opus16Encoder(24_000, fec=False))
    assert sum(map(len, said)) * 8 < 30_000
    decoder = Opus16Decoder()
    heard = np.concatenate([decoder.decode(packet) for packet in said])
    assert len(heard) == 50 * FRAME
    assert is_tone(heard[5 * FRAME :].tobytes(), 1_000, 16_000)


def test_a_lost_packet_is_made_good_from_the_one_after_it() -> None:
    encoder = Opus16Encoder(24_000, fec=True)
    encoder.heed(0.1)
    said = packets(encoder)
    decoder = Opus16Decoder()
    for packet in said[:20]:
        decoder.decode(packet)
    copy = decoder.recover(said[21], FRAME)
    assert len(copy) == FRAME
    assert is_tone(copy.tobytes(), 1_000, 16_000)


@pytest.mark.parametrize(
    ("fec", "lost", "percent"), [(False, 0.5, 0), (True, 0.01, 0), (True, 0.1, 15), (True, 1.0, 40)]
)
def test_copies_go_along_where_they_are_of_use_and_packets_get_lost(
    fec: bool, lost: float, percent: int
) -> None:
    encoder = Opus16Encoder(24_000, fec=fec)
    encoder.heed(lost)
    assert encoder.loss_percent == percent
    assert len(encoder.encode(FRAMES[0])) > 10


@pytest.mark.parametrize("packet", [b"\xff", b"\x03", bytes(1_400), b"\xfb\x3f" + bytes(20), b"\x07\xff\xff"])
def test_what_is_no_opus_breaks_nothing(packet: bytes) -> None:
    decoder = Opus16Decoder()
    decoder.decode(packets(Opus16Encoder(24_000, fec=False))[0])
    assert 0 < len(decoder.decode(packet)) <= LONGEST
    assert 0 < len(decoder.recover(packet, FRAME)) <= LONGEST


@pytest.mark.parametrize("count", [0, 1, 39, 333, FRAME, 10 * FRAME])
def test_any_length_is_concealed_in_lengths_that_the_codec_has(count: int) -> None:
    sound = Opus16Decoder().recover(b"", count)
    assert len(sound) % 40 == 0
    assert 40 <= len(sound) <= LONGEST
