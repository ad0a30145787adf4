"""Sentences out of a text that comes in pieces, each as soon as it is whole.

A sentence ends with `.`, `!` or `?` before a blank, or with its line. The dot of an abbreviation, an initial,
a number in front of a list's line or a decimal ends none, and three dots are a pause. What a model thinks
aloud before it answers (`<think>…</think>`) is not a sentence of the answer.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 240
"""Characters after which a sentence without an end is cut, at a comma or a blank."""
MOST_THOUGHT: Final = 1 << 16
"""Characters of thinking aloud that are waited through."""
THOUGHT: Final = ("<think>", "</think>")

_END: Final = re.compile(r"[.!?…]+(?:[\"'”’)\]*_]|</\w{1,10}>)*(?=\s)|\n|[。！？]")
_NEVER: Final = frozenset(
    {"mr", "mrs", "ms", "dr", "prof", "st", "vs", "e.g", "i.e", "approx", "dept", "ext", "mt", "rev", "gen"}
)
"""Abbreviations that another word of the sentence follows."""
_PERHAPS: Final = frozenset(
    {
        "a.m",
        "p.m",
        "etc",
        "inc",
        "ltd",
        "co",
        "corp",
        "jr",
        "sr",
        "u.s",
        "u.k",
        "no",
        "nos",
        "ave",
        "rd",
        "gmbh",
    }
)
"""Abbreviations that may be the last word: it is the next one that says so."""
_LAST_WORD: Final = re.compile(r"[\w.]*$")
_CLAUSE: Final = re.compile(r"[,;:]\s")


class Sentences:
    """One answer. Pieces go in; whole sentences come out as they were written."""

    def __init__(self) -> None:
        self._text = ""
        self._begun = False
        self._thought = 0
        """characters of thinking so far, while the model thinks; 0 when it does not"""

    def add(self, piece: str) -> list[str]:
        """The sentences that `piece` makes whole."""
        self._text += piece
        if not self._begun and not self._answer_begins():
            return []
        found = []
        while (end := self._end()) is not None:
            sentence, self._text = self._text[:end].strip(), self._text[end:]
            if sentence:
                found.append(sentence)
        return found

    def rest(self) -> str:
        """What is left when nothing more comes."""
        rest, self._text = self._text.strip(), ""
        return "" if self._thought else rest

    def _answer_begins(self) -> bool:
        """Whether the answer has begun; drops what is thought before it."""
        opening, closing = THOUGHT
        if not self._thought:
            begin = self._text.lstrip()
            if len(begin) < len(opening) and opening.startswith(begin):
                return False
            if not begin.startswith(opening):
                self._begun = True
                return True
        at = self._text.find(closing)
        if at < 0:
            kept = self._text[-len(closing) :]
            self._thought += max(1, len(self._text) - len(kept))
            self._text = kept if self._thought < MOST_THOUGHT else ""
            return False
        self._text, self._thought, self._begun = self._text[at + len(closing) :], 0, True
        return True

    def _end(self) -> int | None:
        """Where the first sentence ends; None while it does not."""
        text = self._text
        for found in _END.finditer(text):
            if found[0].startswith(("..", "…")):
                continue
            if not found[0].startswith("."):
                return found.end()
            ends = self._dot_ends(text[: found.start()], text[found.end() :].lstrip())
            if ends is None:
                break  # the next word says
            if ends:
                return found.end()
        if len(text) <= LONGEST:
            return None
        head = text[:LONGEST]
        clauses = [found.end() for found in _CLAUSE.finditer(head)]
        blank = head.rfind(" ")
        return clauses[-1] if clauses else blank if blank > 0 else LONGEST

    @staticmethod
    def _dot_ends(before: str, after: str) -> bool | None:
        """Whether the dot between the two ends a sentence; None: not to be known before the next word."""
        match = _LAST_WORD.search(before)
        word = match[0] if match is not None else ""
        bare = word.lower()
        if bare in _NEVER:
            return False
        if len(word) == 1 and word.isalpha() and word.isupper() and word != "I":
            return False
        if word.isdigit() and not before[: len(before) - len(word)].strip(" \t*_-"):
            return False  # the number of a list's line
        if bare not in _PERHAPS:
            return True
        if not after:
            return None
        if bare in ("no", "nos"):
            return not after[0].isdigit()
        return not (after[0].islower() or after[0].isdigit())
