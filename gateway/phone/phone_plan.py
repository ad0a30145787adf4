"""What a test phone is to do, and what became of it: what its process (`phone`) reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from gateway.phone.rough_line import RoughLine

Codec = Literal["pcmu", "pcma", "g722"]
CODEC_IDS: Final[dict[Codec, str]] = {"pcmu": "PCMU/8000/1", "pcma": "PCMA/8000/1", "g722": "G722/16000/1"}
Verb = Literal["listen", "say", "press", "wait", "at", "interrupt", "hold", "hang up"]
EndedBy = Literal["us", "them", "nobody"]


@dataclass(frozen=True)
class ScriptStep:
    """Something to do in the call. The next step begins when it is done."""

    verb: Verb
    """`listen`: until the other side has spoken and is quiet, or has been quiet for too long. `interrupt`:
    until it has been speaking for `seconds`."""
    pcm: str = ""
    """What to say: a file of int16 mono at the plan's rate."""
    digits: str = ""
    """What to press."""
    seconds: float = 0.0
    """How long to wait or hold; `at`: until so long after the answer."""


@dataclass(frozen=True)
class CallPlan:
    """One call to place."""

    uri: str
    steps: tuple[ScriptStep, ...] = ()
    record: str = ""
    """File for what was heard, int16 mono at the plan's rate."""
    duration_s: float | None = None
    """Hang up this long after the answer; None: when all is said and answered."""
    user: str = ""
    password: str = ""
    caller: str = "voicegate"
    headers: dict[str, str] = field(default_factory=dict)
    sip_call_id: str = ""
    after_s: float = 0.0
    """Dial so long after the phone has started."""
    background: str = ""
    """File of int16 mono at the plan's rate: what is behind the caller all the time, over and over."""
    line: RoughLine = field(default_factory=RoughLine)
    number: int = 0
    """Of the call, by which rough lines of one seed differ."""


@dataclass(frozen=True)
class PhonePlan:
    """What one phone process does."""

    calls: tuple[CallPlan, ...]
    rate_hz: int = 8000
    codecs: tuple[Codec, ...] = ("pcmu", "pcma")
    address: str = "127.0.0.1"
    """Local address to call from."""
    sound_address: str = ""
    """Local address for the sound; empty: `address`."""
    srtp: Literal["required", "optional", "off"] = "off"
    """Whether the sound is encrypted, by SDES over whatever the SIP goes by: for calls through a booth that
    stands beside the phone."""
    takes_one_codec: bool = False
    """An answer with several codecs is taken as it is; pjsua2 would ask once more, for one of them."""
    answer_s: float = 30.0
    """Longest wait for an answer."""
    pause_s: float = 0.7
    """Silence after which it is our turn."""
    patience_s: float = 4.0
    """Longest wait for the other side to say something."""
    longest_s: float = 120.0


@dataclass(frozen=True)
class TurnReport:
    """One thing we said, and when it was answered."""

    kind: Literal["speech", "digits"]
    start_s: float
    end_s: float
    """End of our own sound, in seconds after the answer."""
    latency_s: float | None
    """From there to the first answering sound; None: nothing came before our next turn."""


@dataclass(frozen=True)
class PhoneOutcome:
    """What became of a call. Times are seconds; after the answer unless said."""

    status: int = 0
    reason: str = ""
    answered: bool = False
    placed_at: float = 0.0
    """When the INVITE went, in Unix time."""
    answered_after_s: float | None = None
    """From the INVITE to the 200 OK."""
    first_audio_s: float | None = None
    """From the 200 OK to the first sound."""
    codec: str = ""
    duration_s: float = 0.0
    ended: str = ""
    ended_by: EndedBy = "nobody"
    """`nobody`: it was not answered, or failed."""
    turns: tuple[TurnReport, ...] = ()
    packets: int = 0
    """Received; one carries a frame of 20 ms."""
    packets_sent: int = 0
    packets_dropped: int = 0
    """Of those sent: how many the rough line lost."""
    lost: int = 0
    discarded: int = 0
    jitter_ms: float = 0.0
    gaps: int = 0
    """How often packets came more than 40 ms apart, holds left out: as the phone's process saw them."""
    longest_hole_s: float = 0.0
    """Between two packets."""
    buffer_ms: float = 0.0
    """The phone's jitter buffer's mean delay."""
