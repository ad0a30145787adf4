"""What lands in a call's inbox, for its verbs to read, and what unwinds them."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import VoicegateError
from gateway.hall.playout import Item
from gateway.hall.turns import TurnEvent


@dataclass(frozen=True, slots=True)
class Heard:
    """What the engine understood of the turn that was committed as `turn`; `text` is None when it does not
    transcribe."""

    turn: int
    text: str | None
    duration_s: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The engine wants something done once `item` was heard."""

    item: Item
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine will not, now or ever in this call: `code` is "busy" or the contract's other words."""

    code: str
    message: str


SpeechEvent = Heard | ToolCall | Refused


@dataclass(frozen=True, slots=True)
class Dtmf:
    """A key the caller pressed."""

    digit: str


@dataclass(frozen=True, slots=True)
class CallerTurn:
    """What `Turns` noticed. `at` is `time.monotonic()`, `quiet_s` how long it had been quiet by then."""

    event: TurnEvent
    at: float
    duration_s: float
    quiet_s: float


@dataclass(frozen=True, slots=True)
class Transferred:
    """What became of a transfer: the SIP status of its target."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over."""

    how: str


Event = Dtmf | CallerTurn | Transferred | Ended | SpeechEvent


class CallEnded(Exception):
    """Raised inside verbs when the call has ended, so that they unwind."""


class EngineGone(VoicegateError):
    """What should be said cannot be: the engine refused."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
