"""Rotary positions (Su et al., arXiv 2104.09864), with Llama 3's stretching; one for every part."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.chroma.network.config import RopeConfig


def inverse_frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    """`(head_dim / 2,)` float32: radians per position."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    plain = 1.0 / config.theta**exponents
    scaling = config.scaling
    if scaling is None:
        return plain
    # wavelengths above `longest` are stretched whole, below `shortest` left alone, between them blended
    longest = scaling.original_positions / scaling.low_freq_factor
    shortest = scaling.original_positions / scaling.high_freq_factor
    wavelength = 2 * math.pi / plain
    share = (scaling.original_positions / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blended = (1 - share) * plain / scaling.factor + share * plain
    stretched = torch.where(wavelength > longest, plain / scaling.factor, plain)
    between = (wavelength <= longest) & (wavelength >= shortest)
    return torch.where(between, blended, stretched)


class Rope:
    """Turns positions into angles; keeps its frequencies on the device it was last asked on."""

    def __init__(self, config: RopeConfig, head_dim: int) -> None:
        # not under a meta device: these are computed, not loaded
        with torch.device("cpu"):
            self._frequencies = inverse_frequencies(config, head_dim)
        self._known: dict[tuple[tuple[int, ...], torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def known(
        self, positions: tuple[int, ...], device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """`angles` of positions that the host knows and asks for again: `(1, 1, T, D / 2)`, kept."""
        key = positions, device, dtype
        if key not in self._known:
            self._known[key] = self.angles(torch.tensor([positions]).to(device), dtype)
        return self._known[key]

    def angles(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin `(B, 1, T, D / 2)` for positions `(B, T)`; computed in float32."""
        if self._frequencies.device != positions.device:
            self._frequencies = self._frequencies.to(positions.device)
        turned = positions[:, None, :, None] * self._frequencies
        return turned.cos().to(dtype), turned.sin().to(dtype)


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """`x` `(B, heads, T, D)` turned; dimension i is paired with i + D / 2."""
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
