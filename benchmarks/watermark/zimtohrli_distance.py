"""Zimtohrli's distance of marked clips, by a Python that has it (`VOICEGATE_ZIMTOHRLI_PYTHON`, PyPI's
zimtohrli).

`python zimtohrli_distance.py IN.npz OUT.json`: IN holds `plain` and `marked`, float32 `(clips, n)` at 24
kHz.
"""

import json
import sys
from pathlib import Path

import numpy as np


def twice(samples: np.ndarray) -> np.ndarray:
    """24 kHz -> the 48 kHz that Zimtohrli asks for."""
    spectrum = np.zeros(len(samples) + 1, np.complex128)
    spectrum[: len(samples) // 2] = np.fft.rfft(samples)[: len(samples) // 2]
    return np.fft.irfft(spectrum, 2 * len(samples)).astype(np.float32) * np.float32(2)


def main() -> None:
    import zimtohrli

    measure = zimtohrli.Pyohrli()
    clips = np.load(sys.argv[1])
    pairs = zip(clips["plain"], clips["marked"], strict=True)
    Path(sys.argv[2]).write_text(json.dumps([measure.distance(twice(a), twice(b)) for a, b in pairs]))


if __name__ == "__main__":
    main()
