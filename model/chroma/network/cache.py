"""Keys and values of conversations: pages of positions, found by slot through a table on the device.

A step names its slots by a tensor of their numbers (`rows`), in any order; a row is whatever slot it names.
Padding rows name the scratch slot: its number is the count of slots, and its pages are the scratch page. Rows
of a step may bring different numbers of new positions: `counts` says how many of the `width` are real, the
others go to the scratch page too, which is never read. With a `window` the positions go round a ring and
older ones are forgotten.

How many positions a slot has seen is kept twice: `ends` on the device, which a frame's step reads and moves
without asking the host, and `lengths` on the host. Prefill, `cut` and `give` are decided by the host and
change both; what a frame's step did, the host is told by `learn`.

Keys and values may be kept in a narrower type than they are computed in: they are rounded once, where they
are written, and made wide again where they are read (`rounded`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model.chroma.network.pages import Pages
from model.chroma.network.token_run import TokenRun
from model.chroma.network.upload import uploaded

PAGE: Final = 64
"""Positions of a page: what the decode kernel reads at once, so that a block lies in one page."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where one step's new positions go, and what they see; the same for every layer.

    `rows` `(B,)` are slots; `positions` and `places` `(B or 1, T)`; `counts` `(B,)`, how many are real (None:
    all, and nobody counts them); `mask` `(B or 1, 1, T, live)` bool (None: all is seen).
    `starts` `(B,)`: the split kernel reads each row to its own end, without a mask.
    """

    rows: Tensor
    positions: Tensor
    places: Tensor
    counts: Tensor | None
    mask: Tensor | None
    live: int
    known: Mapping[int, int] | None = None
    """`counts` by slot, where the host decided them"""
    starts: Tensor | None = None
    put: tuple[Tensor, Tensor] | None = None
    """pages and places in them of new positions, `(B, T)`, for plain torch"""
    run: TokenRun | None = None
    """tokens of several slots, each a row of its own that brings one position"""
    pages: Tensor | None = None
    """pages that hold what is live, `(B, n)`; None: a frame's depth, which lies by row number"""
    page: int | None = None
    """the only page that holds what is live, where the host knows it"""
    depth: int | None = None
    """where a frame's depth goes on, the same for all rows"""


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """As a cache of this type keeps it: what is beyond the largest number of float8 becomes the largest."""
    if dtype.itemsize == 1 and x.dtype != dtype:
        most = torch.finfo(dtype).max
        x = x.clamp(-most, most)
    return x.to(dtype)


def _movable(x: Tensor) -> Tensor:
    """The same memory in a type that every device copies by index: not all know float8."""
    return x.view(torch.uint8) if x.itemsize == 1 else x


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
    """`keys`, `values`: `(layers, pages, kv_heads, page, head_dim)`; the last two are blank, and scratch.

    `table` `(slots + 1, pages of a slot + 1)` int32 says which page holds a slot's n-th piece of `page`
    positions, and the blank one where it has none; its last column, and the row of the scratch slot, name the
    scratch page. `lengths[slot]` and `ends` `(slots + 1,)` are how many positions a slot has seen, `limits`
    `(slots + 1,)` how many it may have by now. `kernels`: the GPU's own write and read it.

    `page`: None is one page for each slot, which has it for ever. Otherwise `pages` are shared by all, and
    `promised` positions are sure to each (None: all that a slot can use). The host hands pages out before a
    prefill or a step needs them, and tells the device with the next of either.
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
        page: int | None = None,
        pages: int | None = None,
        promised: int = 0,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        if window is not None and capacity < window:
            raise ValueError(f"a ring of {capacity} cannot hold a window of {window}")
        self.page = page or capacity
        self.capacity = capacity
        each = self.pages_of(capacity)
        self.pages = Pages(slots, each, pages, self.pages_of(promised))
        shape = (layers, self.pages.count + 2, kv_heads, self.page, head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self._blank = self.pages.count
        self.table = torch.full((slots + 1, each + 1), self._blank + 1, device=device, dtype=torch.int32)
        self.table[:slots, :each] = self._blank
        self._limits = [capacity if pages is None else 0] * slots
        """as the device knows them"""
        self._told: dict[tuple[int, int], int] = {}
        """what changed of the table since the device was told: slot and column"""
        self.window = window
        self.kernels = device.type != "cpu"
        self._paged = page is not None
        self.lengths = [0] * slots
        self._bounds = torch.zeros(2, slots + 1, device=device, dtype=torch.long)
        self.ends: Tensor = self._bounds[0]
        self.limits: Tensor = self._bounds[1]
        self.limits.fill_(0 if pages else capacity)
        self._slots = torch.arange(slots + 1, device=device)
        self._scratch = each * self.page
        self._depth: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}
        if page is None:
            for slot in range(slots):
                self.pages.take(slot, 1)
            self.table[:slots, 0] = self._slots[:slots]

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    @property
    def position_bytes(self) -> int:
        """What one position of one slot takes."""
        layers, _, kv_heads, _, dim = self.keys.shape
        return 2 * layers * kv_heads * dim * self.keys.itemsize

    def room(self, slot: int) -> int:
        """Positions that still fit; a ring has room for ever."""
        return self.capacity - self.lengths[slot]

    def rows(self, slots: Sequence[int]) -> Tensor:
        """Slots as rows `(B,)`."""
        if len(slots) == 1:
            return self._slots[slots[0] : slots[0] + 1]
        return uploaded(slots, self.keys.device)

    def span(self, slots: Sequence[int], counts: Sequence[int], width: int) -> Span:
        """The places of `counts[b]` new positions in each of `slots`, padded to `width`: the host decides."""
        ends = [self.lengths[slot] + count for slot, count in zip(slots, counts, strict=True)]
        if self.window is None:
            assert max(ends) <= self.capacity, "a step beyond the cache: the caller watches `room`"  # noqa: S101  # no input reaches this unchecked
        else:
            assert max(counts) <= self.capacity - self.window + 1, "a step too wide for the ring"  # noqa: S101  # steps are cut to the window
        live = max(1, min(max(ends), self.capacity))
        self.reserve(dict(zip(slots, ends, strict=True)))
        on_device = uploaded(counts, self.keys.device)
        rows = self.rows(slots)
        known = dict(zip(slots, counts, strict=True))
        return self._span(rows, self.starts(rows), on_device, width, live, known)

    def packed(self, widths: Mapping[int, int]) -> Packed:
        """The places of `widths[slot]` new positions of each of these slots: the host decides."""
        pieces = [self.span([slot], [width], width) for slot, width in widths.items()]
        return Packed(pieces, torch.cat([piece.positions for piece in pieces], dim=1))

    def extend(self, widths: Mapping[int, int]) -> dict[int, int]:
        """Where so many new positions of each of these slots start: the host decides, and counts them. The
        device counts them when the step is done (`run_span`)."""
        starts = {slot: self.lengths[slot] for slot in widths}
        self.reserve({slot: starts[slot] + width for slot, width in widths.items()})
        for slot, width in widths.items():
            assert width <= self.room(slot), "a step beyond the cache: the caller watches `room`"  # noqa: S101  # no input reaches this unchecked
            self.lengths[slot] += width
        return starts

    def run_span(self, run: TokenRun) -> Span:
        """The places of tokens of several slots, for the GPU's kernels."""
        at = run.positions[:, None]
        return Span(run.rows, at, at, None, None, self.capacity, run=run)

    def starts(self, rows: Tensor) -> Tensor:
        """How many positions the slots of `rows` have seen, `(B,)`."""
        return self.ends.index_select(0, rows)

    def bounds(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How many positions the slots of `rows` have seen and how many they may have by now, `(B,)` each."""
        starts, limits = self._bounds.index_select(1, rows)
        return starts, limits

    def device_span(self, rows: Tensor, starts: Tensor, counts: Tensor, width: int, live: int) -> Span:
        """The same for `counts` `(B,)` that only the device knows, from `starts` on; no row's end is behind
        `live`."""
        return self._span(rows, starts, counts, width, live, None)

    def _span(
        self, rows: Tensor, starts: Tensor, counts: Tensor, width: int, live: int,
        known: Mapping[int, int] | None,
    ) -> Span:  # fmt: skip
        device = self.keys.device
        start, count = starts[:, None], counts[:, None]
        step = torch.arange(width, device=device)
        positions = start + step
        real = step < count
        places = positions if self.window is None else positions % self.capacity
        places = torch.where(real, places, self._scratch)
        if self.kernels and known is None:
            return Span(rows, positions, places, counts, None, live, starts=starts)
        if self.window is None:
            seen = torch.arange(live, device=device) <= positions[..., None]
        else:
            place = torch.arange(live, device=device)
            last = start + count - 1
            held = (last - (last - place) % self.capacity)[:, None]  # the position that each place holds
            query = positions[..., None]
            seen = (held >= 0) & (held <= query) & (held > query - self.window)
        # a padded query sees anything: its output is not used, but it must not divide by nothing
        mask = (seen | ~real[..., None])[:, None]
        table = self.table.index_select(0, rows).long()
        only = None
        if known and len(known) == 1 and live <= self.page:
            only = self.pages.held[next(iter(known))][0]
        put = None if self.kernels else (table.gather(1, places // self.page), places % self.page)
        pages = table[:, : self.pages_of(live)]
        return Span(rows, positions, places, counts, mask, live, known, put=put, pages=pages, page=only)

    def fresh_span(self, rows: int, start: int, width: int) -> Span:
        """Positions `start` and on of the first `rows`, which all begin at 0 and which nobody counts: a
        frame's depth."""
        live = start + width
        if (start, width) not in self._depth:  # the same in every frame
            at = torch.arange(start, live, device=self.keys.device)[None]
            mask = None if width == 1 else (torch.arange(live, device=at.device) <= at[..., None])[None]
            self._depth[start, width] = at, mask
        at, mask = self._depth[start, width]
        return Span(self._slots[:rows], at, at, None, mask, live, depth=start)

    def put(self, layer: int, span: Span, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes `(B, kv_heads, T, D)`; returns all that is live, `(B, kv_heads, live, D)`."""
        if span.put is None:
            start = span.live - k.shape[2]
            self.keys[layer, : len(k), :, start : span.live] = rounded(k, self.keys.dtype)
            self.values[layer, : len(v), :, start : span.live] = rounded(v, self.values.dtype)
        else:
            page, place = (index[:, None] for index in span.put)
            head = torch.arange(k.shape[1], device=k.device)[None, :, None]
            self.keys[layer].index_put_((page, head, place), rounded(k, self.keys.dtype))
            self.values[layer].index_put_((page, head, place), rounded(v, self.values.dtype))
        return self.read(layer, span, k.dtype)

    def read(self, layer: int, span: Span, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of all that is live, `(B, kv_heads, live, D)`, in this type."""
        keys, values = (self._live(whole[layer], span).to(dtype) for whole in (self.keys, self.values))
        return keys, values

    @staticmethod
    def _live(whole: Tensor, span: Span) -> Tensor:
        """One layer's keys or values for the span, as they are kept."""
        if span.pages is None:
            return whole[: len(span.rows), :, : span.live]
        if span.page is not None:
            return whole[span.page : span.page + 1, :, : span.live]
        return whole[span.pages].transpose(1, 2).flatten(2, 3)[:, :, : span.live]

    def advance(self, span: Span | Packed) -> None:
        """The step is done: its positions count."""
        for piece in span.pieces if isinstance(span, Packed) else (span,):
            if piece.run is not None:
                self.ends.index_copy_(0, piece.run.slots, piece.run.ends)
            if piece.counts is not None:
                self.ends.index_add_(0, piece.rows, piece.counts)
            for slot, count in (piece.known or {}).items():
                self.lengths[slot] += count

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
        kept = self.pages_of(length)
        if self.window is None and self._paged:
            for column in range(kept, kept + self.pages.cut(slot, kept)):
                self._told[slot, column] = self._blank

    # ── pages ────────────────────────────────────────────────────────────────────────────────────────

    def pages_of(self, positions: int) -> int:
        """Pages that hold so many positions, up to all that a slot can use."""
        return -(-min(positions, self.capacity) // self.page)

    def claim(self, slot: int, positions: int) -> bool:
        """The slot may hold so many positions from now on; False when there are not enough pages.

        It and `allowed` may be called by the event loop, beside what reads and writes.
        """
        return self.pages.claim(slot, self.pages_of(positions))

    def allowed(self, slot: int) -> int:
        """How many positions a slot may claim by now, so that those who come find theirs."""
        return min(self.capacity, self.pages.allowed(slot) * self.page)

    def leave(self, slot: int) -> None:
        """The slot's conversation is over: it has nothing, and claims nothing."""
        self.cut(slot, 0)
        self.pages.leave(slot)

    def limit(self, slot: int) -> int:
        """How many positions the slot may have by now."""
        return min(self.capacity, self.pages.claims[slot] * self.page)

    def reserve(self, lengths: Mapping[int, int]) -> None:
        """Each slot gets the pages that so many positions take, as far as it may, before they are written."""
        for slot, length in lengths.items():
            self._take(slot, length)
            if self._limits[slot] != (limit := self.limit(slot)):
                self.limits[slot] = self._limits[slot] = limit
        self._tell()

    def _take(self, slot: int, length: int) -> None:
        held = len(self.pages.held[slot])
        for column, page in enumerate(self.pages.take(slot, self.pages_of(length)), start=held):
            self._told[slot, column] = page

    def _tell(self) -> None:
        """The device's table as the host's."""
        told, self._told = self._told, {}
        if not told:
            return
        width = self.table.shape[1]
        changed = [[slot * width + column for slot, column in told], [*told.values()]]
        places, values = uploaded(changed, self.table.device)
        self.table.view(-1).index_copy_(0, places, values.int())

    def _held(self, whole: Tensor, slot: int, length: int) -> Tensor:
        """A slot's first positions, `(layers, kv_heads, length, D)`: a copy."""
        pages = self.table[slot, : self.pages_of(length)].long()
        found = _movable(whole)[:, pages].view(whole.dtype)
        return found.transpose(1, 2).flatten(2, 3)[:, :, :length]

    def take(self, slot: int, length: int) -> tuple[Tensor, Tensor]:
        """A copy of a slot's first positions, `(layers, kv_heads, length, D)`."""
        return self._held(self.keys, slot, length), self._held(self.values, slot, length)

    def give(self, slot: int, keys: Tensor, values: Tensor) -> None:
        """Starts a slot with what `take` answered, here or of a cache of another type."""
        length = keys.shape[2]
        self.reserve({slot: length})
        at = torch.arange(length, device=self.keys.device)
        page, place = self.table[slot].long()[at // self.page], at % self.page
        for whole, part in ((self.keys, keys), (self.values, values)):
            # the indexed axes come first, `(length, layers, kv_heads, D)`
            fresh = rounded(part.permute(2, 0, 1, 3).to(whole.device), whole.dtype)
            _movable(whole)[:, page, :, place] = _movable(fresh)
        self._set(slot, length)
