"""Fits heads to plans, out of their own examples and the library, and keeps those that it has fitted."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from model.api import Floats
from model.meaning.embedder import SIZE, Embedder
from model.meaning.head import AnswerHead, plain
from model.meaning.intents import NO, YES, library
from model.meaning.points import read_points

SAME: Final = 0.7
"""A sentence of the library this near (cosine) to a plan's own example is not evidence against it."""
ALIKE: Final = 0.4
"""An example whose nearest sentence of the library is farther is like none of its intents."""
KEPT: Final = 8
"""Heads kept ready, each of 4 MB."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What one answer of a plan is asked by: its own sentences, and the library's of the intent it names."""

    intent: str
    ask: tuple[str, ...] = ()
    library: str | None = None


@dataclass(frozen=True, slots=True)
class _Class:
    """Sentences and their points `(n, 384)`."""

    texts: list[str]
    points: Floats

    def apart_from(self, points: Floats) -> _Class:
        """Without the sentences that say the same as one of `points`."""
        nearest = (self.points @ points.T).max(axis=1, initial=-1.0)
        kept = np.flatnonzero(nearest < SAME)
        return _Class([self.texts[k] for k in kept], self.points[kept])


class Heads:
    """For any thread; a head is fitted once."""

    def __init__(self, embedder: Embedder) -> None:
        """Raises `EngineError` when the library's points are not those of its sentences."""
        self._embedder = embedder
        self._library = library()
        said = map(plain, self._library.sentences())
        self._points = dict(zip(said, read_points(self._library), strict=True))
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Examples, ...], AnswerHead] = OrderedDict()

    @classmethod
    def load(cls, models: Path) -> Self:
        """Raises `ModelFileMissing`, `ModelFileError` or `EngineError`."""
        return cls(Embedder.load(models))

    def head(self, answers: Sequence[Examples]) -> AnswerHead:
        """The head for these answers. An unknown intent of the library adds nothing."""
        key = tuple(answers)
        with self._lock:
            if (head := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return head
            head = self._kept[key] = self.fit(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return head

    def fit(self, answers: Sequence[Examples], hands: Collection[str] | None = None) -> AnswerHead:
        """A head out of what `hands` wrote of the library; None: all of them."""
        for name in (YES, NO):
            if not any(name in (answer.intent, answer.library) for answer in answers):
                answers = (*answers, Examples(name, library=name))
        intents = {name: self._class(_by(written, hands)) for name, written in self._library.intents.items()}
        own = [self._class([plain(text) for text in answer.ask]) for answer in answers]
        named = [intents.get(answer.library or "", _NOTHING) for answer in answers]
        used = {answer.library for answer in answers}
        custom = [some.points for some, answer in zip(own, answers, strict=True) if answer.library is None]
        others = [some for name, some in intents.items() if name not in used]
        others = [*_not_meant(others, custom), self._class(_by(self._library.negatives, hands))]
        examples = np.concatenate([_NOTHING.points, *(some.points for some in own)])
        classes = [
            *(
                _Class(mine.texts + theirs.texts, np.concatenate([mine.points, theirs.points]))
                for mine, theirs in zip(own, named, strict=True)
            ),
            *(other.apart_from(examples) for other in others),
        ]
        names = [answer.intent for answer in answers]
        filled = [k for k, one in enumerate(classes) if one.texts]
        return AnswerHead(
            self._embedder,
            [names[k] for k in filled if k < len(names)],
            [classes[k].texts for k in filled],
            [classes[k].points for k in filled],
            {text: answer.intent for answer, some in zip(answers, own, strict=True) for text in some.texts},
        )

    def embed(self, texts: Sequence[str]) -> Floats:
        """`(len(texts), 384)`: the points of `plain` texts; those of the library are known already."""
        fresh = [text for text in texts if text not in self._points]
        found = dict(zip(fresh, self._embedder.embed(fresh), strict=True))
        points = [found[text] if text in found else self._points[text] for text in texts]
        return np.array(points, np.float32).reshape(len(texts), SIZE)

    def _class(self, texts: list[str]) -> _Class:
        return _Class(texts, self.embed(texts))


_NOTHING: Final = _Class([], np.empty((0, SIZE), np.float32))


def _by(written: dict[str, tuple[str, ...]], hands: Collection[str] | None) -> list[str]:
    texts = [plain(text) for hand, some in written.items() if hands is None or hand in hands for text in some]
    return list(dict.fromkeys(texts))


def _not_meant(others: list[_Class], custom: Sequence[Floats]) -> list[_Class]:
    """`others`, intents of the library that a plan does not name, without those that it means all the same.

    `custom`: the points of each answer that names none. Where most of an answer's examples lie nearest to one
    of `others`, that is what the answer is about.
    """
    meant = set()
    for points in custom:
        if len(points) and others:
            nearest = np.array([(points @ other.points.T).max(axis=1, initial=-1.0) for other in others])
            votes = np.where(nearest.max(axis=0) > ALIKE, nearest.argmax(axis=0), -1)
            meant |= {k for k in range(len(others)) if np.mean(votes == k) > 0.5}
    return [other for k, other in enumerate(others) if k not in meant]
