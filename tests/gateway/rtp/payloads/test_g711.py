"""G.711 and G.722 beside FFmpeg's."""

from __future__ import annotations

import av
import numpy as np
import pytest

from gateway.rtp.payloads import g711
from gateway.rtp.payloads.g711 import Law
from gateway.rtp.payloads.g722 import G722Decoder, G722Encoder

FFMPEG = {"PCMU": "pcm_mulaw", "PCMA": "pcm_alaw"}
ALL_CODES = bytes(range(256))
ALL_SOUNDS = np.arange(-(1 << 14), 1 << 14, dtype=np.int16) * 2


@pytest.mark.parametrize("law", g711.LAWS)
def test_each_code_is_the_sound_that_ffmpeg_hears(law: Law) -> None:
    decoder = av.CodecContext.create(FFMPEG[law], "r")
    decoder.sample_rate, decoder.layout = 8_000, "mono"  # type: ignore[attr-defined]
    (frame,) = decoder.decode(av.Packet(ALL_CODES))  # type: ignore[attr-defined]
    assert np.array_equal(g711.decode(law, ALL_CODES), frame.to_ndarray()[0])


@pytest.mark.parametrize("law", g711.LAWS)
def test_each_sound_gets_the_nearest_code(law: Law) -> None:
    values = g711.decode(law, ALL_CODES).astype(np.int64)
    made = g711.decode(law, g711.encode(law, ALL_SOUNDS)).astype(np.int64)
    nearest = np.abs(values[None, :] - ALL_SOUNDS[::8, None]).min(axis=1)
    assert np.array_equal(np.abs(made - ALL_SOUNDS)[::8], nearest)


@pytest.mark.parametrize("law", g711.LAWS)
def test_a_sound_that_has_a_code_comes_back_as_itself(law: Law) -> None:
    values = g711.decode(law, ALL_CODES)
    assert np.array_equal(g711.decode(law, g711.encode(law, values)), values)


def test_many_calls_are_decoded_as_each_by_itself() -> None:
    chance = np.random.default_rng(1)
    for law in g711.LAWS:
        codes = [chance.bytes(160) for _ in range(40)]
        together = g711.decode(law, b"".join(codes)).reshape(40, 160)
        assert np.array_equal(together, np.stack([g711.decode(law, one) for one in codes]))


def test_g722_carries_a_tone_and_calls_do_not_disturb_each_other() -> None:
    time = np.arange(16_000) / 16_000
    tones = [(6000 * np.sin(2 * np.pi * hz * time)).astype(np.int16) for hz in (500, 3000)]
    makers, hearers = [G722Encoder(), G722Encoder()], [G722Decoder(), G722Decoder()]
    heard: list[list[np.ndarray]] = [[], []]
    for at in range(0, 16_000, 320):
        for each in range(2):  # in turn, as a pass does
            codes = makers[each].encode(tones[each][at : at + 320].tobytes())
            assert len(codes) == 160
            heard[each].append(hearers[each].decode(codes))
    for each in range(2):
        sound = np.concatenate(heard[each])[22:]  # the codec's own delay
        error = sound.astype(np.float64) - tones[each][: len(sound)]
        assert np.mean(error[800:] ** 2) < 0.01 * np.mean(tones[each].astype(np.float64) ** 2)
