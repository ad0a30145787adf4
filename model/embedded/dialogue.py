"""The embedded engine's manners: from what was understood to what is said next. No sound in here.

The knowledge is the dialplan's: `answers` say what may be asked and what follows, `facts` fill the braces,
`phrases` hold the sentences for doubt. What every caller may say besides: yes and no, when asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from model.api import SessionConfig
from model.embedded.ears import Hearing

YES: Final = ("yes", "yes please", "yeah", "yes i did", "that is right", "correct", "sure", "okay")
NO: Final = ("no", "no thank you", "no i did not", "nope", "not that", "no thanks")
DEFAULT_UNSURE: Final = "Did you ask about {about}? Please say yes or no."
DEFAULT_NOT_UNDERSTOOD: Final = "Sorry, I did not understand that."
DENIED: Final = "All right. What would you like to know?"
NOTHING_SAID: Final = "I have not said anything yet."
ROBOT: Final = "You are talking to an automated voice, a computer program."
_FACT: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Move:
    """What to do: say `text`, then use `tool`. `intent` is what it was taken for."""

    text: str = ""
    tool: str | None = None
    intent: str | None = None


@dataclass(slots=True)
class Dialogue:
    """One conversation's state between turns."""

    config: SessionConfig = field(default_factory=SessionConfig)
    last_said: str = ""
    pending: Mapping[str, Any] | None = None
    """the answer that waits for a yes"""
    misses: int = 0

    def grammar(self) -> list[str]:
        """Phrases that may be said now."""
        phrases = [phrase for answer in self.config.answers for phrase in answer.get("ask", ())]
        return [*phrases, *YES, *NO] if self.pending is not None else phrases

    def next(self, hearing: Hearing, now: datetime) -> Move:
        """The move after one utterance."""
        if self.pending is not None:
            asked, self.pending = self.pending, None
            if hearing.phrase in YES:
                return self._do(asked, now)
            if hearing.phrase in NO:
                return Move(DENIED)
        answer = self._answer_to(hearing.phrase)
        if answer is None:
            return self._not_understood()
        if not hearing.sure or answer.get("confirm"):
            self.pending = answer
            unsure = str(self.config.phrases.get("unsure") or DEFAULT_UNSURE)
            about = answer.get("about") or str(answer["intent"]).replace("_", " ")
            return Move(unsure.replace("{about}", about), intent=str(answer["intent"]))
        return self._do(answer, now)

    def _answer_to(self, phrase: str | None) -> Mapping[str, Any] | None:
        if phrase is None:
            return None
        return next((a for a in self.config.answers if phrase in a.get("ask", ())), None)

    def _not_understood(self) -> Move:
        texts = self.config.phrases.get("not_understood") or (DEFAULT_NOT_UNDERSTOOD,)
        text = str(texts[min(self.misses, len(texts) - 1)])
        self.misses += 1
        return Move(text)

    def _do(self, answer: Mapping[str, Any], now: datetime) -> Move:
        self.misses = 0
        intent, tool = str(answer["intent"]), answer.get("tool")
        if tool == "repeat":
            return Move(self.last_said or NOTHING_SAID, intent=intent)
        return Move(self.fill(str(answer.get("say") or ""), now), tool, intent)

    def fill(self, text: str, now: datetime) -> str:
        """`text` with its facts and the clock's put in."""
        known = {
            "time": f"{now.hour % 12 or 12}:{now.minute:02d} {'AM' if now.hour < 12 else 'PM'}",
            "date": f"{now:%A}, {now:%B} {now.day}",
            "weekday": f"{now:%A}",
            **self.config.facts,
        }
        return _FACT.sub(lambda match: str(known.get(match.group(1), match.group(0))), text)
