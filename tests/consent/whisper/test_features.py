"""Whisper's features, and its tokens as text."""

from __future__ import annotations

import numpy as np

from consent.whisper.features import log_mel
from consent.whisper.vocabulary import text_of

REFERENCE = {
    (0, 0): 1.05495,
    (5, 0): 1.16749,
    (9, 10): 0.54309,
    (20, 30): -0.22871,
    (33, 50): -0.35402,
    (50, 75): 1.11859,
    (60, 99): 0.02233,
    (79, 99): -0.39094,
    (10, 100): 0.26039,
    (79, 0): -0.36426,
}


def test_the_bands_are_the_published_ones() -> None:
    """Values of OpenAI's own `log_mel_spectrogram` (by faster-whisper 1.2.1) for this sound."""
    time = np.arange(16_000) / 16_000
    pcm = (0.3 * np.sin(2 * np.pi * (200 * time + 1500 * time**2))).astype(np.float32)
    mel = log_mel(pcm, 200)
    assert mel.shape == (80, 200)
    for (band, frame), value in REFERENCE.items():
        assert abs(float(mel[band, frame]) - value) < 1e-4, (band, frame)


def test_zeros_stand_where_the_sound_is_over() -> None:
    mel = log_mel(np.full(1_600, 0.5, np.float32), 100)
    assert mel[:, :10].any(axis=0).all()
    assert not mel[:, 11:].any()
    assert not log_mel(np.zeros(0, np.float32), 5)[:, 1:].any()


def test_tokens_are_bytes_of_utf8() -> None:
    assert text_of(["ĠHello", "Ġworld", "."]) == "Hello world."
    assert text_of(["<|startoftranscript|>", "<|fr|>", "Ġdéj", "Ãł"]) == "d\ufffdj" + "à"
    assert text_of(["ÐŁ", "ÑĢ", "Ð¸"]) == "При"
    assert text_of([]) == ""
