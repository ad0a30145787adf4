"""What an engine is: the protocol that the embedded one and Chroma implement and `model.server` serves.

An `Engine` holds weights; a `Conversation` holds one caller's state and nothing else, so that it can be made,
interrupted and dropped at any time. Sound is float32 mono 24 kHz in [-1, 1]; seconds are floats.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from consent.grants.grant import VoiceGrant

RATE_HZ: Final = 24_000
FRAME: Final = 1_920
"""Samples of one model frame (80 ms)."""
MAX_UTTERANCE_S: Final = 60.0
ALL_IT_TAKES: Final = "all that this engine takes"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Text:
    """Words of the reply; their sound follows."""

    delta: str


@dataclass(frozen=True, slots=True)
class Sound:
    """`pcm` float32 `(n,)`, n at most `FRAME`."""

    pcm: Floats


@dataclass(frozen=True, slots=True)
class Tool:
    """The engine asks for something to be done."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Forgot:
    """The context was full: so many of the oldest turns are no longer known."""

    turns: int


Output = Text | Sound | Tool | Forgot


@dataclass(frozen=True, slots=True)
class Understood:
    """What became of a committed utterance. `text` is None where the engine does not transcribe."""

    duration_s: float
    text: str | None = field(default=None, repr=False)
    confidence: float | None = None
    """in [0, 1]"""
    intent: str | None = None
    """the answer of the plan that it was taken for, where the engine takes it for one"""
    slots: Mapping[str, object] = field(default_factory=dict, repr=False)
    """what was named: `times`, `dates`, `numbers` (lists of strings), `agrees` (bool)"""
    late: bool = False
    """the words are still to be heard; `HearsLate` tells them"""


HearingState = Literal["answered", "unfinished", "plain"]
"""`answered`: a sure answer has been heard; `unfinished`: it ends where nobody stops ("and", digits, "um");
`plain`: neither."""


@dataclass(frozen=True, slots=True)
class EarlyHearing:
    """What an engine makes of an utterance at a pause, before anybody knows whether that is its end."""

    state: HearingState
    heard_s: float
    """of the utterance, from its first sample; speech after that makes it stale"""
    aside: bool = False
    """it is nothing to stop for: "mm-hm", or no words at all"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine can bear; tells itself in `session.updated`."""

    conversations: int
    bound: str = ALL_IT_TAKES
    """What limits `conversations`; a caller who is one too many is told this."""
    utterance_s: float = MAX_UTTERANCE_S
    reply_s: float = 60.0
    transcribes: bool = False
    recalls: bool = True
    """What callers said before is of use to it, when a conversation is restored."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A voice as the front hands it out: the clip and its words; a stock voice is the engine's own."""

    voice: str
    voice_hash: str
    pcm: Floats | None
    text: str
    stock: bool


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What `session.update` may say. `answers`, `facts` and `phrases` are the dialplan's `converse`."""

    instructions: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    answers: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    timezone: str | None = None
    """of the route (IANA's name): what time it is there; None: this machine's"""
    phrases: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One remembered turn: an assistant's words as heard, or the caller's sound (or words)."""

    role: Literal["user", "assistant", "system"]
    text: str | None = None
    pcm: Floats | None = None


class Conversation(Protocol):
    """One caller's state. Only one `respond` runs at a time; the server sees to that."""

    async def configure(self, config: SessionConfig) -> None:
        """New instructions; from the next reply on. Raises `ProtocolError` naming what it cannot use."""

    def hear(self, pcm: Floats) -> None:
        """The caller's speech as it arrives; must return at once."""

    async def commit(self) -> Understood:
        """The utterance is over."""

    def clear(self) -> None:
        """The utterance so far was nothing."""

    def respond(self, item_id: str, say: str | None = None) -> AsyncIterator[Output]:
        """The reply to what was committed, or exactly `say`. Closing the iterator cancels it."""

    async def truncate(self, item_id: str, heard_s: float) -> str:
        """Cuts an own item to what was heard; answers the words that stay."""

    async def restore(self, item: HistoryItem) -> None:
        """Appends to the history without speaking."""

    async def close(self) -> None:
        """Frees the slot; idempotent."""


@runtime_checkable
class HearsEarly(Protocol):
    """A conversation that tells what it hears while the caller still speaks; not every engine's does."""

    @property
    def knows_asides(self) -> bool:
        """Whether it can tell an aside. Then what is said over our voice waits for its words, up to .64 s."""

    def tell_early(self, tell: Callable[[EarlyHearing], None]) -> None:
        """From now on `tell` is called in the event loop, whenever a pause of the present utterance has been
        understood; of an utterance that is committed or cleared, never."""


@runtime_checkable
class HearsLate(Protocol):
    """A conversation whose `commit` may come back before the words are there (`Understood.late`)."""

    async def heard_late(self) -> Understood:
        """What became of that utterance, once that is known; without a text where nobody waits for it any
        more: another one was committed. Whoever stops waiting for this stops nothing."""


class Engine(Protocol):
    """Weights and slots."""

    @property
    def limits(self) -> Limits: ...

    async def open(self, grant: VoiceGrant, reference: Reference) -> Conversation:
        """A conversation in the grant's voice. Raises `EngineBusy`."""

    def forget(self, voice_hash: str) -> None:
        """Drops what is kept of a voice that was revoked or erased."""

    async def metrics(self) -> str:
        """What it measures of itself, as Prometheus' text; each line ends in a newline."""

    async def close(self) -> None: ...
