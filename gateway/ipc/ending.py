"""How a call ends: one set of words for the page, Redis, SQL, the logs and the metrics.

Whoever ends a call says so once, by a `CallEnding`, and hands it on as it is. Which one holds when several
say so is decided in one place: by the call's hall, where the first word stays
(`gateway.hall.parts.inbox`), and by the front for a call that no hall has any more
(`gateway.front.calls.closing`). Lines, edge and page repeat what they are told.
Lines import this module: it knows nothing else.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import Any, Final, Self


@unique
class Party(Enum):
    """Whose doing an end is; the label `how` of `voicegate_calls_total`."""

    CALLER = "caller hung up"
    CANCELLED = "cancelled"
    US = "hung up"
    TRANSFERRED = "transferred"
    REFUSED = "refused"
    FAULT = "failed"
    OTHER = "other"
    """a text that this version does not know"""


@unique
class End(Enum):
    """Every way in which a call ends. The value is its text, which stands in the stores: change none."""

    CALLER = "caller hung up"
    CANCELLED = "cancelled"
    """by the caller, before the answer"""
    VOICE = "hung up"
    """the voice said goodbye, or the plan was over"""
    CONSOLE = "hung up by the console"
    LIMIT = "hung up: the longest duration was reached"
    TRANSFERRED = "transferred"
    REFUSED = "refused"
    """it was entered in the registry, and then no hall or line took it"""

    BROWSER_LOST = "failed: the connection to the browser was lost"
    NO_MEDIA = "failed: no media path to the browser"
    SOUND_STOPPED = "failed: no sound came from the caller any more"
    """RTP stopped, and nobody said goodbye"""
    UNACKNOWLEDGED = "failed: the answer was never acknowledged"
    LINE_DIED = "failed: its line died"
    LINE_SILENT = "failed: the line does not answer"
    HALL_DIED = "failed: its hall died"
    ENGINE_LOST = "failed: the engine was lost"
    ENGINE_BUSY = "failed: the engine was busy"
    ENGINE_REFUSED = "failed: the engine refused"
    VOICE_REFUSED = "failed: the voice may not be used"
    """by consent (revoked, expired, …), or because its mark was not found"""
    UNSAID = "failed: what must be said first could not be said"
    UNRECORDED = "failed: the recording could not be kept"
    """the disk did not take what the caller said"""
    STUCK = "failed: events were not taken"
    OUR_ERROR = "failed: an error of ours"
    GATEWAY_STOPPED = "failed: the gateway was stopped"
    GATEWAY_DIED = "failed: the gateway died"
    FAILED = "failed"
    """what has no name of its own; the detail says it"""


class CallEnding(str):
    """How one call ended: the text of its `End`, with a detail behind a colon where there is more to say.

    It is a `str`, so that stores, logs and the page take it as it is.
    """

    __slots__ = ()

    def __new__(cls, end: End, detail: str = "") -> Self:
        """The ending; of `detail` one line is kept, at most `LONGEST_DETAIL` characters."""
        text = " ".join(detail.split())[:LONGEST_DETAIL]
        return super().__new__(cls, f"{end.value}: {text}" if text else end.value)

    @classmethod
    def read(cls, text: str) -> Self:
        """The ending of a text that a store keeps, also in the words of older versions."""
        return super().__new__(cls, text)

    @property
    def end(self) -> End | None:
        """Which end it is; None for a text that this version does not know."""
        head = str(self)
        while head and head not in _BY_TEXT:
            head = head.rpartition(": ")[0]
        return _BY_TEXT.get(head)

    @property
    def party(self) -> Party:
        """Whose doing it was."""
        end = self.end
        return Party.OTHER if end is None else _PARTIES.get(end, Party.FAULT)

    @classmethod
    def from_json(cls, text: Any) -> Self:
        """Raises `ValueError` for what is not an ending of this version."""
        if not isinstance(text, str) or (ending := cls.read(text)).end is None:
            raise ValueError("it is not how a call ends")
        return ending

    def to_json(self) -> str:
        """Its text."""
        return str(self)


LONGEST_DETAIL: Final = 120
"""Characters; the registry's column has 200."""

_PARTIES: Final = {
    End.CALLER: Party.CALLER,
    End.CANCELLED: Party.CANCELLED,
    End.VOICE: Party.US,
    End.CONSOLE: Party.US,
    End.LIMIT: Party.US,
    End.TRANSFERRED: Party.TRANSFERRED,
    End.REFUSED: Party.REFUSED,
}

_BY_TEXT: Final = {
    **{end.value: end for end in End},
    # as versions before 0.2 wrote them
    "failed: lost": End.ENGINE_LOST,
    "failed: busy": End.ENGINE_BUSY,
    "failed: refused": End.ENGINE_REFUSED,
    "failed: its hall went away": End.HALL_DIED,
    "failed: the hall is lost": End.HALL_DIED,
    "failed: the hall did not come back": End.HALL_DIED,
    "lost: its hall went away": End.HALL_DIED,
    "failed: the gateway stops": End.GATEWAY_STOPPED,
    "hall refused": End.REFUSED,
}
