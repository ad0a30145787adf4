"""What the caller said and the engine has not taken in: if the engine goes, another one hears it."""

from __future__ import annotations

from collections import deque

from gateway.hall.media.audio import Floats


class Unanswered:
    """One call's. Sound is float32 24 kHz, in the pieces in which it came."""

    def __init__(self) -> None:
        self.utterance: list[Floats] = []
        """what the caller is saying"""
        self.question: list[Floats] = []
        """what the caller said, until the engine begins to answer"""
        self.closed = 0
        """commits and clears that the present engine is told before this utterance"""
        self._committed: deque[int] = deque(maxlen=64)
        """turns that the engine has not told its understanding of"""

    def append(self, sound: Floats) -> None:
        self.utterance.append(sound)

    def clear(self) -> None:
        """What was appended was nothing."""
        self.utterance.clear()
        self.closed += 1

    def commit(self, turn: int) -> None:
        """The caller's turn number `turn` is over: what they said is a question now."""
        self.question, self.utterance = self.utterance, []
        self._committed.append(turn)
        self.closed += 1

    def answered(self) -> list[Floats]:
        """The engine begins to answer; returns the question, which is none any more."""
        question, self.question = self.question, []
        return question

    def understood(self) -> int:
        """The engine tells its understanding of a turn; returns the turn's number, 0 when nobody knows it."""
        return self._committed.popleft() if self._committed else 0

    def start_over(self) -> None:
        """The engine is gone: another one will only understand what it is asked again."""
        last = [self._committed[-1]] if self._committed and self.question else []
        self._committed.clear()
        self._committed.extend(last)
        self.closed = 1 if self.question else 0
