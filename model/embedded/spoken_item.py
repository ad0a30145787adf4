"""What was said in one item, piece by piece, so that it can be cut to what was heard."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from model.api import FRAME, RATE_HZ, Floats, Sound, Text

ITEMS: Final = 32
"""Own items that can still be cut to what was heard."""


class SpeakingMouth(Protocol):
    """What renders text (`model.embedded.mouth.Mouth`)."""

    def speak(self, text: str) -> AsyncIterator[tuple[str, Floats]]: ...
    async def learn(self, texts: Iterable[str]) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class SpokenItem:
    """Pieces of text, each with the samples of the item up to its end; `samples`: up to now.

    `told` hears all words of the item whenever they grow or are cut.
    """

    samples: int = 0
    told: Callable[[str], None] = lambda _: None
    _pieces: list[tuple[str, int]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(piece for piece, _ in self._pieces if piece)

    async def say(self, mouth: SpeakingMouth, text: str, *, kept: bool = True) -> AsyncIterator[Text | Sound]:
        """`text` after what the item has said already; what is not `kept` is sound that nobody remembers."""
        async for piece, pcm in mouth.speak(text):
            yield Text(" " + piece if self.samples else piece)
            self.add(piece if kept else "", len(pcm))
            for at in range(0, len(pcm), FRAME):
                yield Sound(pcm[at : at + FRAME])

    def add(self, piece: str, samples: int) -> None:
        """`piece` was said, and took so many samples; an empty one is sound that nobody remembers."""
        self.samples += samples
        self._pieces.append((piece, self.samples))
        self.told(self.text)

    def heard(self, samples: int) -> str:
        """Whole pieces that were heard, and of the one cut as many words as its share of time."""
        kept, start = [], 0
        for piece, end in self._pieces:
            if end <= samples:
                kept.append(piece)
            elif samples > start:
                words = piece.split()
                kept.append(" ".join(words[: int(len(words) * (samples - start) / (end - start))]))
            start = end
        text = " ".join(piece for piece in kept if piece)
        self.told(text)
        return text


class SpokenItems:
    """A conversation's last items, by their ids."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, SpokenItem] = OrderedDict()

    def begin(self, item_id: str, told: Callable[[str], None] = lambda _: None) -> SpokenItem:
        """A new item; the oldest is forgotten."""
        item = self._items[item_id] = SpokenItem(told=told)
        while len(self._items) > ITEMS:
            self._items.popitem(last=False)
        return item

    def heard(self, item_id: str, heard_s: float) -> str:
        """The words of an item that were heard in its first seconds; none of an item that is not known."""
        item = self._items.get(item_id)
        return "" if item is None else item.heard(round(heard_s * RATE_HZ))

    def whole(self, item_id: str) -> str:
        """All words of an item; none of an item that is not known."""
        item = self._items.get(item_id)
        return "" if item is None else item.text
