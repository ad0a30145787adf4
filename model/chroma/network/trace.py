"""What `verify` compares: logits and hidden states of every step, by slot."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class Seen:
    """One slot's: logits `(V,)` and hidden states `(H,)` of thinker and backbone, and the decoder's logits
    `(codebooks - 1, V)`, a tensor for each step."""

    thinker_logits: list[Tensor] = field(default_factory=list)
    thinker_hidden: list[Tensor] = field(default_factory=list)
    backbone_logits: list[Tensor] = field(default_factory=list)
    backbone_hidden: list[Tensor] = field(default_factory=list)
    decoder_logits: list[Tensor] = field(default_factory=list)


@dataclass(slots=True)
class Trace:
    """Keeps what steps see, on the host. With a `script` `(slots, frames, codebooks)` its codes are taken for
    the own ones, so that a coarser precision can be compared step by step."""

    script: Tensor | None = None
    slots: dict[int, Seen] = field(default_factory=dict)

    def of(self, slot: int) -> Seen:
        return self.slots.setdefault(slot, Seen())

    def prefilled(self, slot: int, logits: Tensor, hidden: Tensor) -> None:
        """A slot stands before a reply's first word: it begins anew. `(V,)` and `(H,)`."""
        seen = self.slots[slot] = Seen()
        seen.thinker_logits.append(_kept(logits))
        seen.thinker_hidden.append(_kept(hidden))

    def thought(self, rows: Tensor, on: Tensor, logits: Tensor, hidden: Tensor) -> None:
        """`rows` `(B,)` are slots."""
        for row, slot in _of(rows, on):
            seen = self.of(slot)
            seen.thinker_logits.append(_kept(logits[row]))
            seen.thinker_hidden.append(_kept(hidden[row]))

    def sounded(self, rows: Tensor, on: Tensor, logits: list[Tensor], state: Tensor) -> None:
        """`logits` of every codebook; `state` the backbone's."""
        for row, slot in _of(rows, on):
            seen = self.of(slot)
            seen.backbone_logits.append(_kept(logits[0][row]))
            seen.backbone_hidden.append(_kept(state[row]))
            seen.decoder_logits.append(_kept(torch.stack([of_book[row] for of_book in logits[1:]])))

    def led(self, rows: Tensor, book: int, frames: Tensor) -> Tensor:
        """The script's codes of one codebook `(B,)` after so many `frames` `(B,)`."""
        assert self.script is not None  # noqa: S101  # for mypy: `Steps` asks a trace with a script only
        return self.script[rows, frames.clamp(max=self.script.shape[1] - 1), book]


def _of(rows: Tensor, on: Tensor) -> list[tuple[int, int]]:
    """Those that are on: row, and slot."""
    both = enumerate(zip(rows.tolist(), on.tolist(), strict=True))
    return [(row, slot) for row, (slot, is_on) in both if is_on]


def _kept(x: Tensor) -> Tensor:
    return x.float().cpu().clone()
