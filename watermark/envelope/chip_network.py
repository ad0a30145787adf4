"""The envelope layer's network: from how loud the band's parts are to how likely each chip is.

Five convolutions over time, 5 frames wide each, of which those in the middle are added to what they take;
it sees 370 ms. It does not know any key. Whatever it gives for a sound, chips are fair coins to it: the
bound on false alarms (`search`) does not depend on what it learnt, only how much is found does.

The weights lie beside this file with the recipe that made them: `weights.npz`, half floats, and
`weights.json`.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from watermark.envelope import loudness
from watermark.envelope.cells import BANDS
from watermark.errors import WeightsError

Floats = NDArray[np.float32]

PATH: Final = Path(__file__).with_name("weights.npz")
SHA256: Final = "154a8f909773dc95c3cb4da8fb392814bb34bc16742b2b04985cc4ced8460bea"
WIDTH: Final = 5
DILATIONS: Final = (1, 2, 3, 2, 1)
REACH: Final = WIDTH // 2 * sum(DILATIONS)
"""Frames to either side that an output depends on."""


@dataclass(frozen=True, slots=True)
class ChipNetwork:
    """`layers`: for each convolution its weights, float32 `(outputs, 5 * inputs)` in the order of taps, and
    its biases, `(outputs, 1)`."""

    layers: tuple[tuple[Floats, Floats], ...]

    @classmethod
    def load(cls, path: Path = PATH, sha256: str = SHA256) -> Self:
        """Raises `WeightsError` where the file is missing or is not the one that this release was measured
        with."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{path}: {error.strerror}; install voicegate again") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise WeightsError(f"{path} is not this release's; install voicegate again")
        with np.load(io.BytesIO(content)) as kept:
            return cls.of([(kept[f"weight{at}"], kept[f"bias{at}"]) for at in range(len(DILATIONS))])

    @classmethod
    def of(cls, layers: list[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> Self:
        """From weights `(outputs, inputs, 5)` and biases `(outputs,)`."""
        return cls(
            tuple(
                (
                    weight.transpose(0, 2, 1).reshape(len(weight), -1).astype(np.float32),
                    bias[:, None].astype(np.float32),
                )
                for weight, bias in layers
            )
        )

    def chips(self, inputs: Floats) -> Floats:
        """`loudness.inputs`'s `(32, frames)` -> half the logarithm of the odds that the chip of a band
        whose cell is centred in a frame is +1: float32 `(8, frames)`."""
        flow, last, frames = inputs, len(self.layers) - 1, inputs.shape[1]
        room = np.empty(max(weight.shape[1] for weight, _ in self.layers) * frames, np.float32)
        for at, ((weight, bias), dilation) in enumerate(zip(self.layers, DILATIONS, strict=True)):
            made = weight @ _taps(flow, dilation, room)
            made += bias
            if at < last:
                np.maximum(made, 0.0, out=made)
            if 0 < at < last:
                made += flow
            flow = made
        return flow


def _taps(flow: Floats, dilation: int, room: Floats) -> Floats:
    """What the taps of a convolution see, one after the other: `(5 * channels, frames)`, zeros beyond the
    ends. It is made in `room`, since fresh memory costs more than what is put into it."""
    channels, frames = flow.shape
    taps = room[: WIDTH * channels * frames].reshape(WIDTH, channels, frames)
    for tap in range(WIDTH):
        late = (tap - WIDTH // 2) * dilation
        if late <= 0:
            taps[tap, :, :-late] = 0.0
            taps[tap, :, -late:] = flow[:, : max(frames + late, 0)]
        else:
            taps[tap, :, max(frames - late, 0) :] = 0.0
            taps[tap, :, : max(frames - late, 0)] = flow[:, late:]
    return taps.reshape(WIDTH * channels, frames)


@cache
def network() -> ChipNetwork:
    """The release's network, loaded once. Raises `WeightsError`."""
    return ChipNetwork.load(PATH)


def soft(sound: Floats) -> Floats:
    """`sound` float32 `(n,)` at 8 kHz -> `ChipNetwork.chips` of it, `(8, n // 80 + 1)`: frame `t` is at `10
    ms * t`. Zeros for silence.

    Raises `WeightsError`.
    """
    powers = loudness.power(sound)
    if not powers.any():
        return np.zeros((BANDS, len(powers)), np.float32)
    return network().chips(loudness.inputs(powers))
