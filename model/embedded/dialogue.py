"""The embedded engine's manners: from what was understood to what is said next. No sound in here.

The knowledge is the dialplan's: `answers` say what may be asked and what follows, `facts` fill the braces,
`phrases` hold the sentences for doubt. What every caller may say besides: yes and no, when asked, and which
of two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from model.api import SessionConfig
from model.ears.evidence import Hearing
from model.ears.last_words import is_aside, words_of
from model.errors import ProtocolError
from model.meaning.head import Judgement
from model.meaning.heads import Examples

YES: Final = ("yes", "yes please", "yeah", "yes i did", "yes that is right", "that is right", "that's right",
              "correct", "sure", "okay", "yes exactly")  # fmt: skip
NO: Final = ("no", "no thank you", "no i did not", "no i didn't", "nope", "not that", "no thanks",
             "no that is wrong")  # fmt: skip
DEFAULT_UNSURE: Final = "Did you ask about {about}? Please say yes or no."
DEFAULT_WHICH: Final = "Did you ask about {about}, or about {other}?"
FILLER: Final = "One moment, please."
NOT_UNDERSTOOD: Final = "Sorry, I did not understand that."
STILL_NOT: Final = "Sorry, I still did not understand."
OFFER: Final = "You can ask about {offers}."
AGAIN: Final = "Sorry, was that a yes or a no? {question}"
WHICH_AGAIN: Final = "Sorry, which of the two? {question}"
DENIED: Final = "All right. What would you like to know?"
LEFT_AT_THAT: Final = "All right."
NOTHING_SAID: Final = "I have not said anything yet."
OFFERED: Final = 4
"""Things that one sentence offers."""
REPLIES: Final = frozenset({"yes", "yep", "yup", "sure"})
"""Who says one of these means more than to nod."""
CLEARLY: Final = 2.0
"""Of two answers that were asked about, one is named when it is so many times likelier than the other."""
CLOCK: Final = frozenset({"time", "date", "weekday"})
_FACT: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Move:
    """What to do: say `text`, then use `tool`. `intent` is what it was taken for, `slots` what it named."""

    text: str = ""
    tool: str | None = None
    intent: str | None = None
    slots: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Pending:
    """An answer that waits for a yes, or two of which one is to be named."""

    answer: Mapping[str, Any]
    question: str
    asked: int = 1
    other: Mapping[str, Any] | None = None
    slots: Mapping[str, object] = field(default_factory=dict)
    """of the sentence that was asked about"""

    @property
    def again(self) -> str:
        """The question, when the caller said neither."""
        return (AGAIN if self.other is None else WHICH_AGAIN).replace("{question}", self.question)

    def named(self, judged: Judgement) -> Mapping[str, Any] | None:
        """The one of the two that was named, if there are two."""
        if self.other is None:
            return None
        both = (self.answer, self.other)
        if judged.slots.choice is not None:
            return both[judged.slots.choice - 1]
        likely = sorted(both, key=lambda answer: judged.chances.get(str(answer["intent"]), 0.0), reverse=True)
        first, second = (judged.chances.get(str(answer["intent"]), 0.0) for answer in likely)
        if judged.intent != likely[0]["intent"] or first < CLEARLY * second:
            return None
        return likely[0]


def check(config: SessionConfig) -> None:
    """Raises `ProtocolError` naming what a dialogue cannot be held with."""
    for k, answer in enumerate(config.answers):
        path = f"session.voicegate.answers[{k}]"
        ask = answer.get("ask", () if answer.get("library") else None)
        if not isinstance(answer.get("intent"), str):
            raise _invalid(f"{path}.intent", "must be the name of what is asked for")
        if not isinstance(ask, list | tuple) or not all(isinstance(phrase, str) for phrase in ask):
            raise _invalid(f"{path}.ask", "must be a list of phrases")
        for name in ("say", "about", "tool", "library"):
            if not isinstance(answer.get(name) or "", str):
                raise _invalid(f"{path}.{name}", "must be a string")
    path = "session.voicegate.phrases"
    for name in ("unsure", "which"):
        if not isinstance(config.phrases.get(name) or "", str):
            raise _invalid(f"{path}.{name}", "must be a string")
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
    was_cut: bool = False
    """the caller has not heard all of it"""
    pending: Pending | None = None
    misses: int = 0

    def configure(self, config: SessionConfig) -> None:
        """It goes on with this."""
        self.config = config

    def remember_said(self, text: str) -> None:
        """What was said last, for a caller who asks to hear it again."""
        self.last_said, self.was_cut = text, False

    def remember_cut(self) -> None:
        """What was said last was stopped before its end."""
        self.was_cut = True

    def grammar(self) -> list[str]:
        """Phrases that may be said now."""
        phrases = [phrase for answer in self.config.answers for phrase in answer.get("ask") or ()]
        return [*phrases, *YES, *NO] if self.pending is not None else phrases

    def now(self) -> datetime:
        """The clock of the route's zone."""
        zone = self.config.timezone
        return datetime.now(ZoneInfo(zone)) if zone is not None else datetime.now().astimezone()

    def examples(self) -> list[Examples]:
        """What each answer is asked by, for a head."""
        return [
            Examples(str(answer["intent"]), tuple(answer.get("ask") or ()), answer.get("library"))
            for answer in self.config.answers
        ]

    def next(self, heard: Hearing | Judgement, now: datetime, *, nods: bool = False) -> Move:
        """The move after one utterance, of which a phrase was heard or whose words were judged.

        `nods`: the caller only lets us go on ("okay"). Unless that is a reply, it asks for nothing: what was
        cut short by it is said again, and else there is nothing to say.
        """
        judged = self.judged(heard) if isinstance(heard, Hearing) else heard
        pending, self.pending = self.pending, None
        if pending is not None and (move := self._to_question(pending, judged, now)) is not None:
            return move
        if nods and pending is None and not judged.sure:
            return Move(self.last_said if self.was_cut else "")
        if judged.agrees is False and pending is None and not judged.sure and self.last_said.endswith("?"):
            return Move(LEFT_AT_THAT)  # a plan's own question: "Is there anything else?"
        answer = self._answer(judged.intent)
        if answer is None:
            if pending is not None and pending.asked == 1:
                self.pending = replace(pending, asked=2)
                return Move(pending.again)
            return self.not_understood()
        slots = judged.slots.as_json()
        if judged.sure and not answer.get("confirm"):
            return self._do(answer, now, slots)
        other = self._answer(judged.rival)
        self.pending = Pending(answer, self._question(answer, other), other=other, slots=slots)
        return Move(self.pending.question, None, str(answer["intent"]), slots)

    def settles(self, judged: Judgement) -> bool:
        """Whether nothing more need be said: a sure answer, or a reply to what was asked."""
        if self.pending is not None and (judged.agrees is not None or self.pending.named(judged) is not None):
            return True
        return judged.sure and self._answer(judged.intent) is not None

    def _to_question(self, pending: Pending, judged: Judgement, now: datetime) -> Move | None:
        """The move after the reply to a question; None when it was no reply to it."""
        if judged.agrees is False:
            self.misses = 0
            return Move(DENIED)
        named = pending.named(judged)
        if named is not None:
            return self._do(named, now, pending.slots)
        if judged.agrees and pending.other is None:
            return self._do(pending.answer, now, pending.slots)
        return None

    def _question(self, answer: Mapping[str, Any], other: Mapping[str, Any] | None) -> str:
        name, default = ("unsure", DEFAULT_UNSURE) if other is None else ("which", DEFAULT_WHICH)
        question = str(self.config.phrases.get(name) or default).replace("{about}", _about(answer))
        return question if other is None else question.replace("{other}", _about(other))

    def judged(self, hearing: Hearing) -> Judgement:
        """What a phrase says; a yes that is not sure is none."""
        answers = (a for a in self.config.answers if hearing.phrase in (a.get("ask") or ()))
        answer = next(answers, None) if hearing.phrase is not None else None
        agrees = False if hearing.phrase in NO else (hearing.sure and hearing.phrase in YES) or None
        intent = None if answer is None else str(answer["intent"])
        return Judgement(intent, hearing.sure, None, agrees, hearing.confidence)

    def _answer(self, intent: str | None) -> Mapping[str, Any] | None:
        return next((a for a in self.config.answers if intent is not None and a["intent"] == intent), None)

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

    def _do(self, answer: Mapping[str, Any], now: datetime, slots: Mapping[str, object]) -> Move:
        self.misses = 0
        intent, tool = str(answer["intent"]), answer.get("tool")
        if tool == "repeat":
            return Move(self.last_said or NOTHING_SAID, None, intent, slots)
        return Move(self.fill(str(answer.get("say") or ""), now), tool, intent, slots)

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
        now = self.now()
        says = [str(answer.get("say") or "") for answer in self.config.answers]
        return [
            *(self.fill(say, now) for say in says if say and not CLOCK & set(_FACT.findall(say))),
            *self._doubts(),
            *(self._question(answer, None) for answer in self.config.answers),
            DENIED,
        ]


def is_nod(text: str) -> bool:
    """Whether these words only let us go on: "okay", "uh-huh", "I see"."""
    return is_aside(text) and REPLIES.isdisjoint(words_of(text))


def _about(answer: Mapping[str, Any]) -> str:
    """How an answer is named in a question."""
    return str(answer.get("about") or str(answer["intent"]).replace("_", " "))
