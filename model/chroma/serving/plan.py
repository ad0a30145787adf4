"""What of a frame's step is fixed before it runs, and what it tells: the host's side of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

FACTS: Final = ("word", "end", "heard", "text_over", "pending", "thinker", "backbone", "codec")
"""The integers of a row, before its codes and its sound."""
NO_WORD: Final = -1


class Ending(IntEnum):
    """Why a slot's reply is over."""

    GOING = 0
    SOUND = 1
    """the model ended it"""
    POSITIONS = 2
    """the backbone is full"""
    LENGTH = 3
    """it is as long as it may be"""


@dataclass(frozen=True, slots=True)
class Shape:
    """Python's part of a step; a graph is captured for each. All else is in tensors on the device.

    `rows`: how many, with those that pad a graph's. `words`: the thinker goes on for those who wait for a
    word. `width`: new backbone positions, 3 where a word comes in, else 1. `thinker`, `backbone`, `codec`:
    how far the caches are read at most.
    """

    rows: int
    words: bool
    width: int
    thinker: int
    backbone: int
    codec: int
    sound: bool = True


@dataclass(frozen=True, slots=True)
class Told:
    """One row of what a step tells. `word` came in with this frame; `pending`: the next is there already;
    `thinker`, `backbone` and `codec` are the slot's positions; `codes` `(codebooks,)`, `pcm` `(frame,)`."""

    word: int | None
    end: Ending
    heard: bool
    text_over: bool
    pending: bool
    thinker: int
    backbone: int
    codec: int
    codes: NDArray[Any]
    pcm: NDArray[Any]

    @classmethod
    def of(cls, row: NDArray[Any], codebooks: int) -> Self:
        """A row of what `pack` packed."""
        word, end, heard, text_over, pending, thinker, backbone, codec = map(int, row[: len(FACTS)])
        codes, pcm = row[len(FACTS) :][:codebooks].astype(int), row[len(FACTS) + codebooks :]
        return cls(
            None if word == NO_WORD else word, Ending(end), bool(heard), bool(text_over), bool(pending),
            thinker, backbone, codec, codes, pcm,
        )  # fmt: skip


def pack(facts: list[Tensor], codes: Tensor, pcm: Tensor | None) -> Tensor:
    """All that the host must know in one tensor `(B, n)` float32, which holds every id exactly.

    `facts` `(B,)` as `FACTS` names them, `codes` `(B, codebooks)`, `pcm` `(B, frame)`.
    """
    parts = [torch.stack(facts, dim=1).float(), codes.float()]
    return torch.cat(parts if pcm is None else [*parts, pcm.float()], dim=1)
