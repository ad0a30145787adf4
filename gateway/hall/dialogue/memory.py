"""What was said so far, for another engine or another hall: words as they were heard, and the caller's own
sound where no words may be kept, or the engine writes none down.

Whatever the caller said comes through `Memory.hear`, and goes on from there as a `Passage`: nothing else in
the hall has words of a caller's that are not redacted.

An item is as `conversation.item.create` has it, but sound is kept at the line's rate, with `rate_hz` beside
it: a minute takes 1 or 2 MB, not 3, in Redis and here.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import soxr
import structlog

from gateway.hall.media.audio import HOUSE_HZ, Floats
from model.json_log import untold
from model.redaction.redactor import Passage, Redactor
from watermark.pcm import bytes_from_float, float_from_bytes

log = structlog.get_logger("memory")

LONGEST_S: Final = 15.0
"""Of one utterance: its end, if it was longer."""
MOST_BYTES: Final = 4 << 20
MOST_ITEMS: Final = 64

Item = dict[str, Any]


def words(role: str, text: str) -> Item:
    kind = "input_text" if role == "user" else "output_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def sound(pcm: Floats, rate_hz: int) -> Item:
    """The caller's float32 24 kHz as it came from a line of `rate_hz`."""
    last = pcm[-round(LONGEST_S * HOUSE_HZ) :]
    narrow = bytes_from_float(soxr.resample(last, HOUSE_HZ, rate_hz) if rate_hz < HOUSE_HZ else last)
    part = {
        "type": "input_audio",
        "audio": base64.b64encode(narrow).decode(),
        "rate_hz": min(rate_hz, HOUSE_HZ),
    }
    return {"type": "message", "role": "user", "content": [part]}


def for_engine(item: Item) -> Item:
    """The item as the contract has it: PCM16 at 24 kHz."""
    return {**item, "content": [_at_house_rate(part) for part in item["content"]]}


def is_message(item: object) -> bool:
    """Whether an item that a store kept is one that a hall put there: others may write there."""
    if not isinstance(item, dict) or not isinstance(item.get("role"), str):
        return False
    content = item.get("content")
    if not isinstance(content, list):
        return False
    return bool(content) and all(isinstance(part, dict) and _is_part(part) for part in content)


def _is_part(part: Item) -> bool:
    if part.get("type") != "input_audio":
        return isinstance(part.get("text"), str)
    rate_hz, audio = part.get("rate_hz", HOUSE_HZ), part.get("audio")
    if not isinstance(audio, str) or rate_hz not in (8_000, 16_000, HOUSE_HZ):
        return False
    try:
        return len(base64.b64decode(audio, validate=True)) % 2 == 0
    except ValueError:
        return False


def _at_house_rate(part: Item) -> Item:
    if "rate_hz" not in part:
        return part
    pcm = float_from_bytes(base64.b64decode(part["audio"]))
    if part["rate_hz"] != HOUSE_HZ:
        pcm = soxr.resample(pcm, part["rate_hz"], HOUSE_HZ)
    return {"type": part["type"], "audio": base64.b64encode(bytes_from_float(pcm)).decode()}


class Memory:
    """One call's items, the oldest going first when there are too many or too large ones.

    It begins with `items`; `told` hears of those that other halls may know. `keeps_sound`: the caller's own
    sound may be among them; `keeps_words`: the caller's words may. `language` is the call's (ISO 639-1).
    """

    def __init__(
        self,
        items: Iterable[Item] = (),
        *,
        keeps_sound: bool = False,
        keeps_words: bool = False,
        language: str = "en",
        told: Callable[[Item], None] = lambda _: None,
    ) -> None:
        self.keeps_sound = keeps_sound
        self.keeps_words = keeps_words
        self._told = told
        self._redactor = Redactor(language)
        self._said = ""
        """what the caller heard last"""
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        for item in items:
            self._keep(item)

    def __bool__(self) -> bool:
        return bool(self._items)

    def follow(self, *, keeps_sound: bool, keeps_words: bool, language: str) -> None:
        """The call goes on as a route that has another word on what is kept."""
        self.keeps_sound, self.keeps_words = keeps_sound, keeps_words
        self._redactor.change_language(language)

    def hear(self, text: str, *, as_item: bool = True) -> Passage:
        """The caller's words; what may be kept of them. `as_item`: they stand for what was said."""
        try:
            passage = self._redactor.hear(text, asked=self._said)
        except Exception as error:  # what nobody can look through is not kept
            log.error("words.unread", **untold(error))
            return Passage("", [], [])
        if as_item and text:
            item = words("user", self._redactor.kept_by_now(passage))
            self._keep(item)
            if self.keeps_words:
                self._told(item)
        return passage

    def say(self, text: str) -> None:
        """Words that the caller has heard."""
        self._said = text
        self.add(words("assistant", self._redactor.say(text)))

    def kept_of(self, text: str) -> str:
        """What may be kept of words that the caller was told."""
        return self._redactor.say(text)

    def finish(self) -> None:
        """Nobody says anything more: what waited for more of a number is settled."""
        self._redactor.finish()

    def add(self, item: Item) -> None:
        """An item, for engines and other halls."""
        self._keep(item)
        self._told(item)

    def tell(self, item: Item) -> None:
        """An item for other halls only: engines of this one know it in other words."""
        self._told(item)

    def _keep(self, item: Item) -> None:
        size = len(json.dumps(item))
        self._items.append((item, size))
        self._bytes += size
        while len(self._items) > MOST_ITEMS or (self._bytes > MOST_BYTES and len(self._items) > 1):
            self._bytes -= self._items.popleft()[1]

    def for_engine(self) -> list[Item]:
        return [for_engine(item) for item, _ in self._items]
