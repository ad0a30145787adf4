"""What a call says without its engine: tones, and texts that were rendered in advance in the stock voice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gateway.hall.dialogue.prompts import Prompts
from gateway.hall.media.audio import HOUSE_HZ, Floats
from gateway.hall.parts.call_line import CallLine
from gateway.hall.parts.playout import Item, Playout


class OwnSounds:
    """Of one call. All of it is marked like everything else."""

    def __init__(
        self, playout: Playout, prompts: Prompts, line: CallLine, number: Callable[[], str], log: Any
    ) -> None:
        """`number`: a fresh item's id."""
        self._playout = playout
        self._prompts = prompts
        self._line = line
        self._number = number
        self._log = log

    def beep(self, hz: float, seconds: float) -> Item:
        """A tone."""
        at = np.arange(round(seconds * HOUSE_HZ), dtype=np.float32) / HOUSE_HZ
        return self._put((0.2 * np.sin(2 * np.pi * hz * at)).astype(np.float32))

    def prompt(self, text: str) -> Item | None:
        """Says a text rendered in advance; None, which is logged, when it never was."""
        item = self.if_rendered(text)
        if item is None:
            self._log.warning("prompt.missing", text=text)
        return item

    def if_rendered(self, text: str, then: Callable[[Item], None] | None = None) -> Item | None:
        """The same of what need not be there. `then`: once all of it was heard."""
        sound = self._prompts.sound(text)
        if sound is None:
            return None
        item = self._put(sound, then)
        item.add_words(text)
        self._line.show_words(item, True)
        return item

    def begin(self, text: str, then: Callable[[Item], None]) -> Item:
        """A recording whose sound comes piece by piece. `text` is said in it; `then`: once all was heard."""
        item = Item(self._number(), own=True, then=then)
        if text:
            item.add_words(text)
            self._line.show_words(item, True)
        return item

    def _put(self, sound: Floats, then: Callable[[Item], None] | None = None) -> Item:
        item = Item(self._number(), own=True, then=then)
        self._playout.put(item, sound)
        self._playout.end(item)
        return item
