"""What the office remembers between two questions, by name, and no more of it than it has room for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Kept = TypeVar("Kept")


class Remembered(Generic[Kept]):
    """Of `most` names; the one that was asked for longest ago is forgotten for a new one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, name: str, what: Kept) -> None:
        """Remembers it, in place of what was remembered under that name."""
        with self._lock:
            self._kept[name] = what
            self._kept.move_to_end(name)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def of(self, name: str) -> Kept | None:
        """What is remembered, None for nothing."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def forget(self, name: str) -> None:
        """Nothing is remembered under that name any more."""
        with self._lock:
            self._kept.pop(name, None)
