"""What a chat server is told of a call: the house's words as the system, the caller's as the user, in bounds.

A caller's words stand in messages of the role "user" and nowhere else; whoever they are from, they are
`plain` before they are kept. A number of a card or an account is told in the turn in which it was said, and
in no later one. Neighbours of one role become one message, and the first message is the user's: some servers'
templates take nothing else.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from model.cascade.sayable import plain
from model.redaction.redactor import SPAN, Passage, Redactor

CHARACTERS_A_TOKEN: Final = 3
"""On the safe side: English has four."""
MOST_TURNS: Final = 200
LONGEST_TURN: Final = 2_000
"""Characters; what a caller says in a minute has half as many."""
BEGINNING: Final = "(The call begins.)"


@dataclass(slots=True, eq=False)
class ChatTurn:
    """One side's words; an answer's grow while they are spoken, and are cut to what was heard."""

    role: Literal["user", "assistant"]
    text: str = ""


class ChatHistory:
    """One call's, in the call's language. `most_tokens`: of all messages together, by our own reckoning."""

    def __init__(self, most_tokens: int, language: str = "en") -> None:
        self._room = most_tokens * CHARACTERS_A_TOKEN
        self._redactor = Redactor(language)
        self._heard: deque[tuple[ChatTurn, Passage]] = deque(maxlen=SPAN)
        """the caller's last turns, and what may be kept of them"""
        self._turns: list[ChatTurn] = []
        self.system = ""

    @property
    def room(self) -> int:
        """Characters that instructions and turns have together."""
        return self._room

    @property
    def asked(self) -> bool:
        """Whether the last word is the caller's."""
        last = next((turn for turn in reversed(self._turns) if turn.text), None)
        return last is not None and last.role == "user"

    def add(self, role: Literal["user", "assistant"], text: str) -> None:
        """A turn that follows, in plain words."""
        turn = ChatTurn(role, plain(text[: 2 * LONGEST_TURN])[:LONGEST_TURN])
        if role == "user":
            asked = next((said.text for said in reversed(self._turns) if said.role == "assistant"), "")
            passage = self._redactor.hear(turn.text, asked=asked)
            for earlier, kept in self._heard:
                earlier.text = kept.kept
            self._heard.append((turn, passage))
        self.append(turn)

    def append(self, turn: ChatTurn) -> None:
        """A turn that follows, whose words may still grow; once."""
        if turn not in self._turns:
            self._turns.append(turn)

    def drop_oldest(self) -> int:
        """Drops the oldest turns until the rest fits; returns how many went. The latest stays."""
        turns = [turn for turn in self._turns if turn.text]
        size = len(self.system) + sum(len(turn.text) for turn in turns)
        gone = 0
        while gone < len(turns) - 1 and (size > self._room or len(turns) - gone > MOST_TURNS):
            size -= len(turns[gone].text)
            gone += 1
        if gone:
            dropped = set(map(id, turns[:gone]))
            self._turns = [turn for turn in self._turns if id(turn) not in dropped]
        return gone

    def messages(self) -> list[dict[str, str]]:
        """What the server is told."""
        told = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self._turns:
            if not turn.text:
                continue
            if told and told[-1]["role"] == turn.role:
                told[-1]["content"] += " " + turn.text
                continue
            if turn.role == "assistant" and (not told or told[-1]["role"] == "system"):
                told.append({"role": "user", "content": BEGINNING})
            told.append({"role": turn.role, "content": turn.text})
        return told
