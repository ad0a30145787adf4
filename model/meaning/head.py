"""What a caller means: which of a plan's answers a sentence asks for, or none of them.

A head is logistic regression over the points of sentences (`embedder`), fitted when a plan's answers are
known: on the plan's own examples, on the library's paraphrases of the intents that it names, and, as what is
not asked for, on the library's negatives and its other intents. Those are classes too and never an answer.

`SURE`, `POSSIBLE` and `NEAR` were fitted by `python -m benchmarks.meaning --tune`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final, Self

import numpy as np

from model.api import Floats
from model.errors import EngineError
from model.meaning.embedder import SIZE, WEIGHTS, Embedder
from model.meaning.intents import NO, YES, Library, library
from model.meaning.slots import NO_SLOTS, Slots, find_slots

SURE: Final = 0.50
"""Chance from which on an answer is taken as asked for."""
POSSIBLE: Final = 0.20
"""Chance from which on the caller is asked; below, nothing was understood."""
NEAR: Final = 0.5
"""A second answer is near when its chance is this share of the first one's."""
RIDGE: Final = 0.1
STEPS: Final = 150
CLOSE: Final = 1e-3
"""The fit ends when no weight moves by more than this share of the largest."""
SAME: Final = 0.7
"""A sentence of the library this near (cosine) to a plan's own example is not evidence against it."""
POINTS: Final = Path(__file__).with_name("points.bin")
SCALE: Final = 400.0
"""of the int8 numbers in `POINTS`"""
KEPT: Final = 32
"""Heads kept ready, each of 40 kB."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What one answer of a plan is asked by: its own sentences, and the library's of the intent it names."""

    intent: str
    ask: tuple[str, ...] = ()
    library: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a sentence asks for. `intent` is None when it asks for nothing that the plan knows."""

    intent: str | None
    sure: bool
    rival: str | None = None
    """a second answer that is near, where it is not sure"""
    confidence: float = 0.0
    """chance of `intent`, in [0, 1]"""
    slots: Slots = NO_SLOTS
    chances: Mapping[str, float] = field(default_factory=dict)
    """of each answer, and of yes and no"""


UNHEARD: Final = Judgement(None, False)


class Head:
    """One plan's; not changed once it is fitted, so that any thread may ask it."""

    def __init__(self, embedder: Embedder, names: Sequence[str], weights: Floats) -> None:
        """`weights`: `(385, classes)`, the first `len(names)` classes being answers."""
        self._embedder = embedder
        self._names = tuple(names)
        self._weights = weights

    def judge(self, text: str, today: date | None = None) -> Judgement:
        """What `text` (as a recogniser writes it) asks for. `today` is the day that "tomorrow" follows."""
        if not text.strip():
            return UNHEARD
        chances = softmax(self._embedder.embed([plain(text)]), self._weights)[0, : len(self._names)]
        return self.weigh(chances, find_slots(text, today))

    def weigh(self, chances: Floats, slots: Slots) -> Judgement:
        """The judgement on these chances of its answers."""
        named = {name: round(float(chance), 4) for name, chance in zip(self._names, chances, strict=True)}
        if not named:
            return Judgement(None, False, slots=slots)
        first, *rest = sorted(named, key=named.__getitem__, reverse=True)
        second = rest[0] if rest else None
        if named[first] >= SURE:
            return Judgement(first, True, None, named[first], slots, named)
        near = second is not None and named[second] >= NEAR * named[first]
        if named[first] + (named[second] if near and second is not None else 0.0) < POSSIBLE:
            return Judgement(None, False, None, named[first], slots, named)
        return Judgement(first, False, second if near else None, named[first], slots, named)


class Heads:
    """Fits heads, and keeps those that it has fitted. For any thread."""

    def __init__(self, embedder: Embedder) -> None:
        """Raises `EngineError` when the library's points are not those of its sentences."""
        self._embedder = embedder
        self._library = library()
        said = map(plain, self._library.sentences())
        self._points = dict(zip(said, read_points(self._library), strict=True))
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Examples, ...], Head] = OrderedDict()

    @classmethod
    def load(cls, models: Path) -> Self:
        """Raises `ModelFileMissing`, `ModelFileError` or `EngineError`."""
        return cls(Embedder.load(models))

    def head(self, answers: Sequence[Examples]) -> Head:
        """The head for these answers. An intent that the library has not adds nothing: the dialplan refuses it."""
        key = tuple(answers)
        with self._lock:
            if (head := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return head
            head = self._kept[key] = self.fit(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return head

    def fit(self, answers: Sequence[Examples], hands: Collection[str] | None = None) -> Head:
        """A head out of what `hands` wrote of the library; None: all of them."""
        own = {answer.intent: [plain(text) for text in answer.ask] for answer in answers}
        for answer in (Examples(YES, library=YES), Examples(NO, library=NO)):
            if not any(answer.library in (one.intent, one.library) for one in answers):
                answers = (*answers, answer)
        used = {answer.library for answer in answers}
        written = self._written(hands)
        groups: list[Floats] = []
        for answer in answers:
            groups.append(
                np.concatenate(
                    [
                        self.embed(own.get(answer.intent, [])),
                        self.embed(written.get(answer.library or "", [])),
                    ]
                )
            )
        alone = [
            group[: len(own.get(answer.intent, []))]
            for group, answer in zip(groups, answers, strict=True)
            if answer.library is None
        ]
        others = [self.embed(written[name]) for name in written if name not in used]
        groups += _not_meant(alone, others)
        return Head(self._embedder, [answer.intent for answer in answers], fit(groups))

    def embed(self, texts: Sequence[str]) -> Floats:
        """As `Embedder.embed`, of `plain` sentences; what the library has is known already."""
        fresh = [text for text in texts if text not in self._points]
        found = dict(zip(fresh, self._embedder.embed(fresh), strict=True))
        points = [self._points.get(text, found.get(text)) for text in texts]
        return np.array(points, np.float32).reshape(len(texts), SIZE)

    def _written(self, hands: Collection[str] | None) -> dict[str, list[str]]:
        """intent -> its sentences; the negatives' name is empty."""
        everything = {**self._library.intents, "": self._library.negatives}
        return {
            name: [
                plain(text) for hand, some in by.items() if hands is None or hand in hands for text in some
            ]
            for name, by in everything.items()
        }


def _not_meant(own: Sequence[Floats], others: Sequence[Floats]) -> list[Floats]:
    """The library's classes that a plan does not name, without what its own examples say too.

    `own`: the points of each answer that names no intent of the library. Where most of an answer's examples
    lie nearest to one of `others`, that one is what the answer means, and is left out.
    """
    left = set()
    for points in own:
        if len(points):
            nearest = np.array(
                [(points @ other.T).max(axis=1) if len(other) else -np.ones(len(points)) for other in others]
            )
            votes = np.where(nearest.max(axis=0) > 0.4, nearest.argmax(axis=0), -1)
            left |= {k for k in range(len(others) - 1) if np.mean(votes == k) > 0.5}  # the last are negatives
    everything = np.concatenate([np.empty((0, SIZE), np.float32), *own])
    kept = []
    for k, other in enumerate(others):
        if k not in left and len(other):
            apart = (other @ everything.T).max(axis=1, initial=-1.0) < SAME
            if apart.any():
                kept.append(other[apart])
    return kept


def plain(text: str) -> str:
    """A sentence as it is compared: lower case, without its marks, without the sounds of thinking."""
    words = "".join(mark if mark.isalnum() or mark in "' " else " " for mark in text.lower()).split()
    said = [word for word in words if word not in THINKING]
    return " ".join(said or words)


THINKING: Final = frozenset({"um", "umm", "uh", "uhm", "er", "erm", "hmm", "mm", "ah"})


def softmax(points: Floats, weights: Floats) -> Floats:
    """`(n, classes)`: chances of `points` `(n, 384)`."""
    odds = points @ weights[:-1] + weights[-1]
    odds -= odds.max(axis=1, keepdims=True)
    chances: Floats = np.exp(odds)
    chances /= chances.sum(axis=1, keepdims=True)
    return chances


def fit(groups: Sequence[Floats]) -> Floats:
    """`(385, len(groups))`: weights and, in the last row, the bias, of multinomial logistic regression with a
    ridge; each group `(n, 384)` is a class, and all classes weigh the same.

    Newton's steps with Böhning's fixed bound on the curvature (1992), which is inverted once; with Nesterov's
    momentum, begun anew whenever it leads uphill.
    """
    classes = len(groups)
    x = np.concatenate(groups)
    x = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)
    label = np.repeat(np.arange(classes), [len(group) for group in groups])
    share = np.array([1.0 / max(1, len(group)) for group in groups], np.float32)[label][:, None]
    share *= len(x) / classes
    target = np.eye(classes, dtype=np.float32)[label]
    ridge = np.full((x.shape[1], 1), RIDGE, np.float32)
    ridge[-1] = 1e-6
    weighed = x * share
    curve = 0.5 * (weighed.T @ x).astype(np.float64) + np.diag(ridge[:, 0].astype(np.float64))
    step = np.linalg.inv(curve).astype(np.float32)
    weights = np.zeros((x.shape[1], classes), np.float32)
    ahead, pace = weights, 1.0
    for _ in range(STEPS):
        slope = weighed.T @ (softmax(x[:, :-1], ahead) - target) + ridge * ahead
        moved = ahead - step @ slope
        if np.sum(slope * (moved - weights)) > 0:
            pace, ahead = 1.0, moved
        else:
            faster = (1 + (1 + 4 * pace * pace) ** 0.5) / 2
            ahead = moved + np.float32((pace - 1) / faster) * (moved - weights)
            pace = faster
        change = float(np.max(np.abs(moved - weights)))
        weights = moved
        if change < CLOSE * float(np.max(np.abs(weights))):
            break
    return weights


def library_hash(texts: Library) -> bytes:
    """Of the sentences and of the network, 32 bytes: points are only theirs."""
    return hashlib.sha256("\n".join([WEIGHTS.sha256, *texts.sentences()]).encode()).digest()


def read_points(texts: Library, path: Path = POINTS) -> Floats:
    """`(sentences, 384)` float32: the points of the library's sentences, kept so that nobody waits for them.

    Raises `EngineError` when they are others' points.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}; install voicegate again") from None
    known, numbers = content[:32], np.frombuffer(content, np.int8, offset=min(32, len(content)))
    if known != library_hash(texts) or len(numbers) != SIZE * len(texts.sentences()):
        raise EngineError(
            f"{path} is not of this library's sentences: python -m benchmarks.meaning --points makes it"
        )
    return (numbers.reshape(-1, SIZE) / np.float32(SCALE)).astype(np.float32)


def write_points(texts: Library, points: Floats, path: Path = POINTS) -> None:
    """What `read_points` reads; `points` as the embedder made them of `plain` sentences."""
    numbers = np.clip(np.rint(points * SCALE), -127, 127).astype(np.int8)
    path.write_bytes(library_hash(texts) + numbers.tobytes())
