"""Keys and values in slots: one tensor for all conversations, a slot each, masks instead of shapes.

A step works on a run of neighbouring slots (`rows`), so that it reads and writes the tensor itself and
copies nothing; one conversation is a run of one. Rows of a step may bring different numbers of new
positions: `counts` says how many of the `width` are real, the others go to a scratch place that is never
read. With a `window` the positions go round a ring and older ones are forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """Where one step's new positions go, and what they see; the same for every layer.

    `positions` `(B, T)`, `index` `(B, 1, T, 1)`, `mask` `(B, 1, T, live)` bool.
    """

    rows: slice
    counts: Sequence[int]
    positions: Tensor
    index: Tensor
    mask: Tensor
    live: int


class KVCache:
    """`keys`, `values`: `(layers, slots, kv_heads, capacity + 1, head_dim)`; the last place is scratch.

    `lengths[slot]` is how many positions a slot has seen; kept on the host, because the host decides them.
    """

    def __init__(
        self,
        layers: int,
        slots: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        *,
        window: int | None = None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        if window is not None and capacity < window:
            raise ValueError(f"a ring of {capacity} cannot hold a window of {window}")
        shape = (layers, slots, kv_heads, capacity + 1, head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.capacity = capacity
        self.window = window
        self.lengths = [0] * slots

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def room(self, slot: int) -> int:
        """Positions that still fit; a ring has room for ever."""
        return self.capacity - self.lengths[slot]

    def span(self, rows: slice, counts: Sequence[int], width: int) -> Span:
        """The places of `counts[b]` new positions in each of `rows`, padded to `width`."""
        device = self.keys.device
        starts = self.lengths[rows]
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        if self.window is None:
            assert max(ends) <= self.capacity, "a step beyond the cache: the caller watches `room`"
        else:
            assert max(counts) <= self.capacity - self.window + 1, "a step too wide for the ring"
        live = max(1, min(max(ends), self.capacity))
        bounds = torch.tensor([starts, ends, counts]).to(device)
        start, end, count = bounds[0, :, None], bounds[1, :, None], bounds[2, :, None]
        step = torch.arange(width, device=device)
        positions = start + step
        real = step < count
        place = torch.arange(live, device=device)
        if self.window is None:
            index = torch.where(real, positions, self.capacity)
            seen = place <= positions[..., None]
        else:
            index = torch.where(real, positions % self.capacity, self.capacity)
            last = end - 1
            held = (last - (last - place) % self.capacity)[:, None]  # the position that each place holds
            query = positions[..., None]
            seen = (held >= 0) & (held <= query) & (held > query - self.window)
        # a padded query sees anything: its output is not used, but it must not divide by nothing
        mask = seen | ~real[..., None]
        return Span(rows, counts, positions, index[:, None, :, None], mask[:, None], live)

    def put(self, layer: int, span: Span, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes `(B, kv_heads, T, D)`; answers all that is live, `(B, kv_heads, live, D)` views."""
        keys, values = self.keys[layer, span.rows], self.values[layer, span.rows]
        index = span.index.expand(k.shape)
        keys.scatter_(2, index, k)
        values.scatter_(2, index, v)
        return keys[:, :, : span.live], values[:, :, : span.live]

    def advance(self, span: Span) -> None:
        """The step is done: its positions count."""
        first = span.rows.start
        for row, count in enumerate(span.counts):
            self.lengths[first + row] += count

    def cut(self, slot: int, length: int) -> None:
        """Forgets what came after `length` positions."""
        assert length <= self.lengths[slot]
        assert self.window is None or length == 0, "a ring cannot go back"
        self.lengths[slot] = length

    def take(self, slot: int, length: int) -> tuple[Tensor, Tensor]:
        """A copy of a slot's first positions, `(layers, kv_heads, length, D)`."""
        return self.keys[:, slot, :, :length].clone(), self.values[:, slot, :, :length].clone()

    def give(self, slot: int, keys: Tensor, values: Tensor) -> None:
        """Starts a slot with what `take` answered."""
        length = keys.shape[2]
        self.keys[:, slot, :, :length] = keys
        self.values[:, slot, :, :length] = values
        self.lengths[slot] = length
