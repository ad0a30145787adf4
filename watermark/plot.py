"""The score line over the spectrogram, as a PNG. Needs matplotlib (the extra `plot`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from watermark.detect import Detection
from watermark.errors import SoundError
from watermark.sound import Recording


def draw(path: Path, recording: Recording, found: Detection) -> None:
    """Raises `ModuleNotFoundError` without matplotlib, `SoundError` when `path` cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    samples = recording.channels.mean(axis=0)
    window = max(64, 1 << int(recording.rate_hz * 0.032).bit_length() - 1)
    axes.specgram(
        samples + 1e-9 * np.random.default_rng(0).standard_normal(len(samples)),
        NFFT=window, Fs=recording.rate_hz, noverlap=window // 2, cmap="Greys", vmin=-140,
    )  # fmt: skip
    axes.set(
        xlabel="s", ylabel="Hz", xlim=(0, recording.seconds), ylim=(0, min(4_000, recording.rate_hz / 2))
    )
    line = axes.twinx()
    scores = found.scores or (0.0,) * max(1, round(recording.seconds))
    line.step(np.arange(len(scores) + 1), (*scores, scores[-1]), where="post")
    line.axhline(0, color="C7", linewidth=0.5)
    line.set(ylabel="score of each second (standard normal without a mark)")
    whose = f"payload {found.payload:016x}" if found.payload is not None else "no payload"
    verdict = f"ours, by {found.layer}" if found.detected else "not found"
    axes.set_title(f"{verdict}: {whose}, score {found.score:.1f}, p = {found.p_value:.2g}")
    try:
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise SoundError(f"{path}: {error.strerror}") from None
