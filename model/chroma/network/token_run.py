"""New positions of several slots as one run of tokens, so that a pass has one shape whoever is in it.

The host decides; everything that it decides is one tensor of whole numbers, and `TokenRun` has its parts by
name. A run is padded to a number of tokens, seats and tiles: padding tokens stand at position 0 of the
scratch slot, padding seats are the scratch slot's, padding tiles have no token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

FEW: Final = 64
"""Tokens up to which tiles are small, so that there are enough of them to fill a device."""


@dataclass(frozen=True, slots=True)
class TokenRun:
    """`rows` and `positions` `(tokens,)`: each token's slot, and its place in it. `tiles` `(n, 2)`: first
    token and number of neighbours in one slot that attend together. For each seat, `(seats,)`: its slot, its
    last token, and how many positions the slot has by then."""

    rows: Tensor
    positions: Tensor
    slots: Tensor
    lasts: Tensor
    ends: Tensor
    tiles: Tensor
    tile: int


@dataclass(frozen=True, slots=True)
class Packing:
    """The shape of a run: how many tokens, and how many slots at most."""

    tokens: int
    seats: int

    @property
    def tile(self) -> int:
        """Tokens of a tile, at most."""
        return 2 if self.tokens <= FEW else 8

    @property
    def tiles(self) -> int:
        """Enough for any company: each slot has one tile at most that is not full."""
        return self.tokens // self.tile + self.seats

    @property
    def size(self) -> int:
        """Whole numbers of a run."""
        return 2 * self.tokens + 3 * self.seats + 2 * self.tiles

    def numbers(self, starts: Mapping[int, int], widths: Mapping[int, int], scratch: int) -> list[int]:
        """`widths[slot]` new positions of each slot, behind `starts[slot]`, in the order of `widths`."""
        rows: list[int] = []
        positions: list[int] = []
        tiles: list[int] = []
        lasts: list[int] = []
        ends: list[int] = []
        for slot, width in widths.items():
            first, start = len(rows), starts[slot]
            rows += [slot] * width
            positions += range(start, start + width)
            for at in range(0, width, self.tile):
                tiles += (first + at, min(self.tile, width - at))
            lasts.append(len(rows) - 1)
            ends.append(start + width)
        padded = (
            (rows, self.tokens, scratch),
            (positions, self.tokens, 0),
            ([*widths], self.seats, scratch),
            (lasts, self.seats, 0),
            (ends, self.seats, 0),
            (tiles, 2 * self.tiles, 0),
        )
        return [
            number for part, size, filling in padded for number in (*part, *[filling] * (size - len(part)))
        ]

    def run(self, numbers: Tensor) -> TokenRun:
        """The parts of `numbers` `(size,)`."""
        sizes = [self.tokens, self.tokens, self.seats, self.seats, self.seats, 2 * self.tiles]
        rows, positions, slots, lasts, ends, tiles = torch.split(numbers, sizes)
        return TokenRun(rows, positions, slots, lasts, ends, tiles.view(-1, 2), self.tile)
