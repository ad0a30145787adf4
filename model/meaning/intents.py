"""The house's library: what callers commonly want, in many words, and what must not be taken for it.

`library/` holds a file for each intent and `negatives.toml`. Each lists sentences by the hand that wrote them
(`first`, `second`): what one hand wrote measures a head that was fitted on another's. Reading it needs no
weights and no numpy: a dialplan is checked against these names.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("library")
NEGATIVES: Final = "negatives"
LANGUAGE: Final = "en"
"""The language of all of it."""
YES: Final = "yes"
NO: Final = "no"

Hands = dict[str, tuple[str, ...]]
"""hand -> what it wrote"""


@dataclass(frozen=True, slots=True)
class Library:
    """Sentences by intent and hand, lower case, as a recogniser writes them."""

    intents: Mapping[str, Hands]
    negatives: Hands

    def sentences(self) -> list[str]:
        """All of them, in the order of `points.bin`."""
        return [
            text
            for hands in (*self.intents.values(), self.negatives)
            for some in hands.values()
            for text in some
        ]


@lru_cache(maxsize=1)
def library() -> Library:
    """The library as it is shipped."""
    read = {
        path.stem: {hand: tuple(texts) for hand, texts in tomllib.loads(path.read_text("utf-8")).items()}
        for path in sorted(FOLDER.glob("*.toml"))
    }
    negatives = read.pop(NEGATIVES)
    return Library(read, negatives)
