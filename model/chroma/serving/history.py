"""What the thinker remembers of a conversation: turns of words and sound, and how much of them it was fed.

Keys and values are kept between turns. `filled` positions of them are right; an edit anywhere (a reply cut
to what was heard, an utterance that turned louder, an old turn dropped) only lowers it, and what is behind
is fed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from torch import Tensor

from model.chroma.serving.chat import Chat

Role = Literal["system", "user", "assistant"]
Piece = list[int] | Tensor
"""Ids, or embeddings `(n, H)`."""
UNTOUCHED: Final = 1 << 62


@dataclass(slots=True, eq=False)
class Turn:
    """`before`, then `words` or `sound` `(n, H)`, then `after`. An answer without `after` is still open."""

    role: Role
    before: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    sound: Tensor | None = None
    after: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.pieces()))

    def pieces(self) -> list[Piece]:
        middle: list[Piece] = [] if self.sound is None else [self.sound]
        return [self.before + self.words, *middle, self.after]


def _behind(pieces: list[Piece], first: int) -> list[Piece]:
    """The pieces without their first positions."""
    left: list[Piece] = []
    for piece in pieces:
        if first < len(piece):
            left.append(piece[first:])
        first = max(0, first - len(piece))
    return left


class History:
    """Turns in order; the first is the system's."""

    def __init__(self, chat: Chat, instructions: str) -> None:
        self.chat = chat
        self.turns: list[Turn] = [Turn("system", chat.system(instructions))]
        self.filled = 0
        """positions of the thinker that hold what `turns` say, and perhaps the opening of the next answer"""
        self._edited = UNTOUCHED
        """the first position that changed since `pending` was asked"""

    def __len__(self) -> int:
        return sum(map(len, self.turns))

    def start(self, turn: Turn) -> int:
        """The position at which a turn begins."""
        return sum(map(len, self.turns[: self.turns.index(turn)]))

    def changed(self, position: int) -> None:
        """Whatever is at or behind this position must be fed again."""
        self.filled = min(self.filled, position)
        self._edited = min(self._edited, position)

    def instruct(self, instructions: str) -> None:
        """Another system prompt."""
        fresh = Turn("system", self.chat.system(instructions))
        if fresh.before != self.turns[0].before:
            self.turns[0] = fresh
            self.changed(0)

    def append(self, turn: Turn) -> None:
        """A turn that follows. The opening of an answer that was fed ahead serves an answer only."""
        if turn.role != "assistant":
            self.changed(len(self))
        self.turns.append(turn)

    def remove(self, turn: Turn) -> None:
        self.changed(self.start(turn))
        self.turns.remove(turn)

    def close(self, turn: Turn, words: Sequence[int], fed: int) -> None:
        """An answer is over: these words of it stay; the thinker was fed the first `fed` of them.

        An answer that is closed already is cut to the words, which are its first ones.
        """
        kept = [word for word in words if word != self.chat.im_end]
        begin = self.start(turn) + len(turn.before)
        if not kept:
            self.remove(turn)
            return
        if turn.after:
            self.changed(begin + len(kept))
        else:
            self.filled = min(begin + min(len(kept), fed), self._edited)
        turn.words, turn.after = kept, list(self.chat.answer_close)

    def drop_oldest(self, capacity: int) -> int:
        """Drops turns after the system's until `capacity` positions hold the rest; answers how many went.

        The last turn that is no open answer stays.
        """
        dropped = 0
        least = 3 if self._open else 2
        while len(self) > capacity and len(self.turns) > least:
            self.changed(len(self.turns[0]))
            del self.turns[1]
            dropped += 1
        return dropped

    @property
    def listening(self) -> bool:
        """The caller's turn is not over."""
        return self.turns[-1].role == "user" and not self.turns[-1].after

    @property
    def _open(self) -> bool:
        return self.turns[-1].role == "assistant" and not self.turns[-1].after

    def pending(self, *, opening: bool) -> tuple[int, list[Piece]]:
        """(the position to feed from, what was not fed yet). With `opening` the next answer's is added,
        and there is always something, so that the thinker's state is that of the end."""
        pieces = [piece for turn in self.turns for piece in turn.pieces()]
        if opening and not self._open:
            pieces.append(list(self.chat.answer_open))
        total = sum(map(len, pieces))
        self.filled = min(self.filled, total - 1 if opening else total)
        self._edited = UNTOUCHED
        return self.filled, _behind(pieces, self.filled)

    @property
    def told(self) -> bool:
        """The thinker was fed all of it and the opening of the answer, and stands before the answer."""
        opening = 0 if self._open else len(self.chat.answer_open)
        return self.filled == len(self) + opening

    def fed(self, position: int) -> None:
        """What `pending` answered is in, up to this position."""
        self.filled = min(position, self._edited)
