"""The host's account of a cache's pages: which slot holds which, and which slot may hold how many.

A slot takes pages as it grows and gives them back when it is cut. It may take as many as it has *claimed*,
and claims are never more than there are pages: whoever has claimed is never without. A conversation claims
what it is `promised` when it is admitted, and more while the others leave it. What newcomers may claim is
`spared` by those who grow, and whoever has more than its promise is to shrink while less than that is left.
"""

from __future__ import annotations

from typing import Final

SPARED: Final = 8
"""One page of so many is for newcomers, or what is promised to one."""


class Pages:
    """`each`: pages that a slot can use at most. `count` (None: all that slots can use, which have claimed it
    from the start) pages in all, of which each slot is `promised` some."""

    def __init__(self, slots: int, each: int, count: int | None = None, promised: int = 0) -> None:
        self.count = slots * each if count is None else count
        self.each = each
        self.promised = each if count is None else min(promised, each)
        self._at_first = each if count is None else 0
        self.claims = [self._at_first] * slots
        self.held: list[list[int]] = [[] for _ in range(slots)]
        self._free = list(range(self.count))[::-1]  # the first is taken first

    @property
    def left(self) -> int:
        """Pages that nobody has claimed."""
        return self.count - sum(self.claims)

    @property
    def spared(self) -> int:
        """Pages for those who come: the promises of slots that nobody has, up to a share of all."""
        return min(max(self.promised, self.count // SPARED), self.promised * self.claims.count(0))

    def allowed(self, slot: int) -> int:
        """How many a slot may claim by now and leave newcomers theirs; never less than its promise."""
        return min(self.each, max(self.promised, self.claims[slot] + self.left - self.spared))

    def claim(self, slot: int, pages: int) -> bool:
        """The slot may hold so many from now on, and no less than its promise and what it still holds; False,
        and nothing is changed, when there are not as many."""
        pages = max(min(pages, self.each), self.promised, len(self.held[slot]))
        if pages - self.claims[slot] > self.left:
            return False
        self.claims[slot] = pages
        return True

    def take(self, slot: int, pages: int) -> list[int]:
        """The pages that it gets in order to hold so many; raises `ValueError` beyond its claim."""
        held = self.held[slot]
        if pages > self.claims[slot]:
            raise ValueError(f"slot {slot} has claimed {self.claims[slot]} pages and takes {pages}")
        taken = [self._free.pop() for _ in range(pages - len(held))]
        held += taken
        return taken

    def cut(self, slot: int, pages: int) -> int:
        """It keeps its first so many; how many go back."""
        held = self.held[slot]
        back = held[pages:]
        self._free += back[::-1]
        del held[pages:]
        return len(back)

    def leave(self, slot: int) -> None:
        """Its conversation is over."""
        self.claims[slot] = self._at_first
