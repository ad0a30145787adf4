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
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from model.api import SessionConfig
from model.ears.evidence import Hearing
from model.errors import ProtocolError

YES: Final = ("yes", "yes please", "yeah", "yes i did", "yes that is right", "that is right", "that's right",
              "correct", "sure", "okay", "yes exactly")  # fmt: skip
NO: Final = ("no", "no thank you", "no i did not", "no i didn't", "nope", "not that", "no thanks",
             "no that is wrong")  # fmt: skip
DEFAULT_UNSURE: Final = "Did you ask about {about}? Please say yes or no."
NOT_UNDERSTOOD: Final = "Sorry, I did not understand that."
STILL_NOT: Final = "Sorry, I still did not understand."
OFFER: Final = "You can ask about {offers}."
AGAIN: Final = "Sorry, was that a yes or a no? {question}"
DENIED: Final = "All right. What would you like to know?"
NOTHING_SAID: Final = "I have not said anything yet."
OFFERED: Final = 4
"""Things that one sentence offers."""
CLOCK: Final = frozenset({"time", "date", "weekday"})
_FACT: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Move:
    """What to do: say `text`, then use `tool`. `intent` is what it was taken for."""

    text: str = ""
    tool: str | None = None
    intent: str | None = None


@dataclass(slots=True)
class Pending:
    """An answer that waits for a yes."""

    answer: Mapping[str, Any]
    question: str
    asked: int = 1


def check(config: SessionConfig) -> None:
    """Raises `ProtocolError` naming what a dialogue cannot be held with."""
    for k, answer in enumerate(config.answers):
        path = f"session.voicegate.answers[{k}]"
        ask = answer.get("ask")
        if not isinstance(answer.get("intent"), str):
            raise _invalid(f"{path}.intent", "must be the name of what is asked for")
        if not isinstance(ask, list | tuple) or not all(isinstance(phrase, str) for phrase in ask):
            raise _invalid(f"{path}.ask", "must be a list of phrases")
        for name in ("say", "about", "tool"):
            if not isinstance(answer.get(name) or "", str):
                raise _invalid(f"{path}.{name}", "must be a string")
    path = "session.voicegate.phrases"
    if not isinstance(config.phrases.get("unsure") or "", str):
        raise _invalid(f"{path}.unsure", "must be a string")
    misunderstood = config.phrases.get("not_understood") or ()
    if not isinstance(misunderstood, list | tuple) or not all(isinstance(one, str) for one in misunderstood):
        raise _invalid(f"{path}.not_understood", "must be a list of strings")
    if config.timezone is not None:
        try:
            ZoneInfo(config.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise _invalid("session.voicegate.timezone", "must be a time zone's name") from None


def _invalid(param: str, what: str) -> ProtocolError:
    return ProtocolError(f"{param} {what}", param, code="invalid_value")


@dataclass(slots=True)
class Dialogue:
    """One conversation's state between turns."""

    config: SessionConfig = field(default_factory=SessionConfig)
    last_said: str = ""
    pending: Pending | None = None
    misses: int = 0

    def configure(self, config: SessionConfig) -> None:
        """It goes on with this."""
        self.config = config

    def remember_said(self, text: str) -> None:
        """What was said last, for a caller who asks to hear it again."""
        self.last_said = text

    def grammar(self) -> list[str]:
        """Phrases that may be said now."""
        phrases = [phrase for answer in self.config.answers for phrase in answer.get("ask", ())]
        return [*phrases, *YES, *NO] if self.pending is not None else phrases

    def now(self) -> datetime:
        """The clock of the route's zone."""
        zone = self.config.timezone
        return datetime.now(ZoneInfo(zone)) if zone is not None else datetime.now().astimezone()

    def next(self, hearing: Hearing, now: datetime) -> Move:
        """The move after one utterance."""
        pending, self.pending = self.pending, None
        if pending is not None and hearing.sure and hearing.phrase in YES:
            return self._do(pending.answer, now)
        if pending is not None and hearing.phrase in NO:
            self.misses = 0
            return Move(DENIED)
        answer = self._answer_to(hearing.phrase)
        if answer is None:
            if pending is not None and pending.asked == 1:
                self.pending = Pending(pending.answer, pending.question, 2)
                return Move(AGAIN.replace("{question}", pending.question))
            return self.not_understood()
        if not hearing.sure or answer.get("confirm"):
            unsure = str(self.config.phrases.get("unsure") or DEFAULT_UNSURE)
            question = unsure.replace("{about}", _about(answer))
            self.pending = Pending(answer, question)
            return Move(question, intent=str(answer["intent"]))
        return self._do(answer, now)

    def _answer_to(self, phrase: str | None) -> Mapping[str, Any] | None:
        if phrase is None:
            return None
        return next((a for a in self.config.answers if phrase in a.get("ask", ())), None)

    def not_understood(self) -> Move:
        """Says so in other words each time; the second time it also tells what may be asked."""
        texts = self._doubts()
        text = texts[min(self.misses, len(texts) - 1)]
        self.misses += 1
        return Move(text)

    def _doubts(self) -> list[str]:
        """The plan's own sentences; one of ours after it, with an offer, when it has but one."""
        texts = [str(text) for text in self.config.phrases.get("not_understood") or (NOT_UNDERSTOOD,)]
        if len(texts) == 1:
            *most, last = [_about(answer) for answer in self.config.answers][:OFFERED] or [""]
            offer = OFFER.replace("{offers}", f"{', '.join(most)} or {last}" if most else last)
            texts.append(f"{STILL_NOT} {offer}" if last else STILL_NOT)
        return texts

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

    def fixed(self) -> list[str]:
        """Texts that this conversation may say whatever the hour is."""
        unsure = str(self.config.phrases.get("unsure") or DEFAULT_UNSURE)
        now = self.now()
        says = [str(answer.get("say") or "") for answer in self.config.answers]
        return [
            *(self.fill(say, now) for say in says if say and not CLOCK & set(_FACT.findall(say))),
            *self._doubts(),
            *(unsure.replace("{about}", _about(answer)) for answer in self.config.answers),
            DENIED,
        ]


def _about(answer: Mapping[str, Any]) -> str:
    """How an answer is named in a question."""
    return str(answer.get("about") or str(answer["intent"]).replace("_", " "))
