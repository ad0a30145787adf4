"""What was said in one item, piece by piece, so that it can be cut to what was heard."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class SpokenItem:
    """Pieces of text, each with the samples of the item up to its end; `samples`: up to now."""

    samples: int = 0
    _pieces: list[tuple[str, int]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(piece for piece, _ in self._pieces if piece)

    def add(self, piece: str, samples: int) -> None:
        """`piece` was said, and took so many samples; an empty one is sound that nobody remembers."""
        self.samples += samples
        self._pieces.append((piece, self.samples))

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
        return " ".join(piece for piece in kept if piece)
