"""Keys and values in slots: one tensor for all conversations, a slot each, masks instead of shapes.

A step works on a run of neighbouring slots (`rows`), so that it reads and writes the tensor itself and
copies nothing; one conversation is a run of one. Rows of a step may bring different numbers of new
positions: `counts` says how many of the `width` are real, the others go to a scratch place that is never
read. With a `window` the positions go round a ring and older ones are forgotten.

How many positions a slot has seen is kept twice: `ends` on the device, which a frame's step reads and moves
without asking the host, and `lengths` on the host. Prefill, `cut` and `give` are decided by the host and
change both; what a frame's step did, the host is told by `learn`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """Where one step's new positions go, and what they see; the same for every layer.

    `positions` `(B or 1, T)`; `counts` `(B,)`, how many are real (None: all, and nobody counts them);
    `index` `(B or 1, 1, T, 1)`, their places; `mask` `(B or 1, 1, T, live)` bool (None: all is seen).
    `starts` `(B,)`: the split kernel reads each row to its own end, without a mask.
    """

    rows: slice
    positions: Tensor
    counts: Tensor | None
    index: Tensor
    mask: Tensor | None
    live: int
    known: Sequence[int] | None = None
    """`counts` where the host decided them"""
    starts: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Packed:
    """Several slots' new positions, one slot's behind another's in a single row.

    `pieces`: a span of one row for each slot; `positions` `(1, ΣT)`, counted in each slot from its own start.
    """

    pieces: Sequence[Span]
    positions: Tensor

    @property
    def widths(self) -> list[int]:
        return [piece.positions.shape[1] for piece in self.pieces]


class KVCache:
    """`keys`, `values`: `(layers, slots, kv_heads, capacity + 1, head_dim)`; the last place is scratch.

    `lengths[slot]` and `ends` `(slots,)` are how many positions a slot has seen. `kernels`: the GPU's
    own write it, and read it in a frame's step.
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
        self.kernels = device.type == "cuda"
        self.lengths = [0] * slots
        self.ends = torch.zeros(slots, device=device, dtype=torch.long)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def room(self, slot: int) -> int:
        """Positions that still fit; a ring has room for ever."""
        return self.capacity - self.lengths[slot]

    def span(self, rows: slice, counts: Sequence[int], width: int) -> Span:
        """The places of `counts[b]` new positions in each of `rows`, padded to `width`: the host decides."""
        ends = [start + count for start, count in zip(self.lengths[rows], counts, strict=True)]
        if self.window is None:
            assert max(ends) <= self.capacity, "a step beyond the cache: the caller watches `room`"  # noqa: S101  # no input reaches this unchecked
        else:
            assert max(counts) <= self.capacity - self.window + 1, "a step too wide for the ring"  # noqa: S101  # steps are cut to the window
        live = max(1, min(max(ends), self.capacity))
        on_device = torch.tensor(counts).to(self.keys.device)
        return self._span(rows, on_device, width, live, counts)

    def packed(self, widths: Mapping[int, int]) -> Packed:
        """The places of `widths[slot]` new positions of each of these slots: the host decides."""
        pieces = [self.span(slice(slot, slot + 1), [width], width) for slot, width in widths.items()]
        return Packed(pieces, torch.cat([piece.positions for piece in pieces], dim=1))

    def device_span(self, rows: slice, counts: Tensor, width: int, live: int) -> Span:
        """The same for `counts` `(B,)` that only the device knows; no row's end is behind `live`."""
        return self._span(rows, counts, width, live, None)

    def _span(self, rows: slice, counts: Tensor, width: int, live: int, known: Sequence[int] | None) -> Span:
        device = self.keys.device
        start, count = self.ends[rows, None], counts[:, None]
        step = torch.arange(width, device=device)
        positions = start + step
        real = step < count
        if self.window is None:
            index = torch.where(real, positions, self.capacity)
            if self.kernels and known is None:
                return Span(
                    rows, positions, counts, index[:, None, :, None], None, live, starts=self.ends[rows]
                )
            seen = torch.arange(live, device=device) <= positions[..., None]
        else:
            place = torch.arange(live, device=device)
            index = torch.where(real, positions % self.capacity, self.capacity)
            last = start + count - 1
            held = (last - (last - place) % self.capacity)[:, None]  # the position that each place holds
            query = positions[..., None]
            seen = (held >= 0) & (held <= query) & (held > query - self.window)
        # a padded query sees anything: its output is not used, but it must not divide by nothing
        mask = seen | ~real[..., None]
        return Span(rows, positions, counts, index[:, None, :, None], mask[:, None], live, known)

    def fresh_span(self, rows: slice, start: int, width: int) -> Span:
        """Positions `start` and on of rows that all begin at 0 and that nobody counts: a frame's depth."""
        at = torch.arange(start, start + width, device=self.keys.device)
        live = start + width
        mask = None if width == 1 else torch.arange(live, device=at.device) <= at[:, None]
        index = at[None, None, :, None]
        return Span(rows, at[None], None, index, None if mask is None else mask[None, None], live)

    def places(self, layer: int, span: Span) -> tuple[Tensor, Tensor]:
        """Keys and values of the span's rows, `(B, kv_heads, capacity + 1, D)` views."""
        return self.keys[layer, span.rows], self.values[layer, span.rows]

    def put(self, layer: int, span: Span, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes `(B, kv_heads, T, D)`; answers all that is live, `(B, kv_heads, live, D)` views."""
        keys, values = self.places(layer, span)
        index = span.index.expand(k.shape)
        keys.scatter_(2, index, k)
        values.scatter_(2, index, v)
        return keys[:, :, : span.live], values[:, :, : span.live]

    def advance(self, span: Span | Packed) -> None:
        """The step is done: its positions count."""
        for piece in span.pieces if isinstance(span, Packed) else (span,):
            if piece.counts is not None:
                self.ends[piece.rows] += piece.counts
            for row, count in enumerate(piece.known or ()):
                self.lengths[piece.rows.start + row] += count

    def learn(self, slot: int, length: int) -> None:
        """The host is told how far the device went."""
        self.lengths[slot] = length

    def cut(self, slot: int, length: int) -> None:
        """Forgets what came after `length` positions."""
        assert length <= self.lengths[slot]  # noqa: S101  # callers cut at places they have written
        assert self.window is None or length == 0, "a ring cannot go back"  # noqa: S101  # callers only begin rings anew
        self._set(slot, length)

    def _set(self, slot: int, length: int) -> None:
        self.lengths[slot] = length
        self.ends[slot] = length

    def take(self, slot: int, length: int) -> tuple[Tensor, Tensor]:
        """A copy of a slot's first positions, `(layers, kv_heads, length, D)`."""
        return self.keys[:, slot, :, :length].clone(), self.values[:, slot, :, :length].clone()

    def give(self, slot: int, keys: Tensor, values: Tensor) -> None:
        """Starts a slot with what `take` answered."""
        length = keys.shape[2]
        self.keys[:, slot, :, :length] = keys
        self.values[:, slot, :, :length] = values
        self._set(slot, length)
