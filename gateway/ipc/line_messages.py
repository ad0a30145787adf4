"""What lines, halls and the front say to each other about calls on a line.

`call_id` is the gateway's id of the call everywhere. Lines import this module: it knows no dialplan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import Ask, Tell

HUNG_UP: Final = CallEnding(End.VOICE)

# ── a line tells its hall ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CallStarted(Tell):
    """A line has the call. `resumed`: it had the call before this hall was there."""

    wire: ClassVar[str] = "call.started"
    call_id: str
    call: int
    """The line's own number for it, on its ticks."""
    slot: int
    codec: str | None
    resumed: bool
    confirmed: bool
    handed_over: bool = False
    """A target that the line called has the caller already."""


@dataclass(frozen=True, slots=True)
class CallConfirmed(Tell):
    """The caller's ACK came, or a browser's media; `at` is `time.monotonic()` in the line."""

    wire: ClassVar[str] = "call.confirmed"
    call_id: str
    codec: str | None
    at: float


KeyWay = Literal["event", "info", "tone", "page"]
"""How a key came: by RFC 4733, by SIP INFO, as sound, from the caller's page."""


@dataclass(frozen=True, slots=True)
class KeyPressed(Tell):
    """The caller pressed a key: 0-9, A-D, *, #. Some phones send one press in several ways."""

    wire: ClassVar[str] = "call.dtmf"
    call_id: str
    digit: str
    way: KeyWay


@dataclass(frozen=True, slots=True)
class MediaTurned(Tell):
    """The call was held, or taken up again: what its direction includes now, as the line sees it."""

    wire: ClassVar[str] = "call.hold"
    call_id: str
    sending: bool
    receiving: bool


@dataclass(frozen=True, slots=True)
class TransferOutcome(Tell):
    """The target of a transfer gave its final answer (a SIP status)."""

    wire: ClassVar[str] = "call.transferred"
    call_id: str
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class TargetRings(Tell):
    """A target that the line calls has said something before its final answer (a SIP status, 180 or 183)."""

    wire: ClassVar[str] = "call.target_rings"
    call_id: str
    status: int
    early: bool
    """The caller hears the target's own sound from now on."""


MoveWay = Literal["followed", "described", "stream"]
"""Why other packets are believed: an address was followed that nobody described, the caller described it, or
only the stream is another (its SSRC)."""


@dataclass(frozen=True, slots=True)
class RtpMoved(Tell):
    """Sound comes from elsewhere all at once. The hall tells the front too."""

    wire: ClassVar[str] = "call.rtp_moved"
    call_id: str
    was: str
    now: str
    way: MoveWay = "followed"
    was_ssrc: str | None = None
    """as packet captures show it, `0x1a2b3c4d`"""
    now_ssrc: str | None = None


@dataclass(frozen=True, slots=True)
class FarReception:
    """How our sound comes to the caller, by the caller's last RTCP report."""

    sent: int
    """RTP packets of ours until then"""
    lost: int
    """of these, that the caller never got"""
    jitter_ms: float


@dataclass(frozen=True, slots=True)
class LineQuality(Tell):
    """How a call's sound comes and goes, since the call began; told every 10 s and just before `CallLeft`."""

    wire: ClassVar[str] = "call.quality"
    call_id: str
    codec: str | None
    received: int
    """RTP packets"""
    lost: int
    """that never came, or too late to be played"""
    jitter_ms: float | None
    """by RTCP (RFC 3550 §6.4.1); None where the line does not measure it"""
    buffer_ms: float | None = None
    """how long packets wait to be played of late"""
    round_trip_ms: float | None = None
    """by RTCP; None while nobody has told"""
    far: FarReception | None = None
    """None while the caller has told nothing"""
    last: bool = True
    """the call is over"""
    srtp: str | None = None
    """the suite by which telephones' sound is encrypted; None: in the clear, or a browser's"""
    target: str | None = None
    """of the target that has the caller, by its name in the plan; None: of the caller"""


@dataclass(frozen=True, slots=True)
class CallLeft(Tell):
    """The line has the call no more. Front and hall are told."""

    wire: ClassVar[str] = "call.ended"
    call_id: str
    how: CallEnding


# ── a line is asked ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class AnswerCall(Ask[None]):
    """Has the line answer with 200 OK."""

    wire: ClassVar[str] = "answer"
    call_id: str


@dataclass(frozen=True, slots=True)
class RingCall(Ask[None]):
    """Has the line ring: 180 Ringing."""

    wire: ClassVar[str] = "ring"
    call_id: str


@dataclass(frozen=True, slots=True)
class OpenBridge(Ask[int]):
    """Has a browser's line open a way for its caller's sound to a target: the UDP port of this host."""

    wire: ClassVar[str] = "open_bridge"
    call_id: str


@dataclass(frozen=True, slots=True)
class BridgeTarget(Ask[int]):
    """`CallTarget`, of a line for telephones, for a caller whose sound is at that port of this host.

    Returns the port at which it hears that sound.
    """

    wire: ClassVar[str] = "bridge_target"
    call_id: str
    target: str
    within_s: float
    port: int


@dataclass(frozen=True, slots=True)
class JoinBridge(Ask[None]):
    """Tells a browser's line the other end of its bridge."""

    wire: ClassVar[str] = "join_bridge"
    call_id: str
    port: int


@dataclass(frozen=True, slots=True)
class CloseBridge(Ask[None]):
    """Nothing came of the target: the browser's caller is the hall's again."""

    wire: ClassVar[str] = "close_bridge"
    call_id: str


@dataclass(frozen=True, slots=True)
class ProgressCall(Ask[bool]):
    """Has the line let sound go to the caller before the answer: 183 with its description.

    False: it cannot, and the caller hears nothing before the answer.
    """

    wire: ClassVar[str] = "progress"
    call_id: str


@dataclass(frozen=True, slots=True)
class DropCall(Ask[None]):
    """Has the line send BYE, or before the answer `status` (None: the line's own choice).

    The line repeats `how`, to the caller's page too.
    """

    wire: ClassVar[str] = "hangup"
    call_id: str
    status: int | None = None
    how: CallEnding = HUNG_UP


@dataclass(frozen=True, slots=True)
class ReferCall(Ask[None]):
    """Has the line send REFER to a SIP URI; a `TransferOutcome` tells what came of it."""

    wire: ClassVar[str] = "transfer"
    call_id: str
    target: str


@dataclass(frozen=True, slots=True)
class CallTarget(Ask[None]):
    """Has the line call a target of the dialplan, by its name there, and join it to the caller.

    The edge knows who that is, or refuses; `TransferOutcome` tells what came of it. After a 2xx the two hear
    each other and nobody else until one of them hangs up.
    """

    wire: ClassVar[str] = "call_target"
    call_id: str
    target: str
    within_s: float
    """How long it may ring."""


@dataclass(frozen=True, slots=True)
class DialDigits(Ask[None]):
    """Keys that the caller's side is to hear: 1 to 32 of 0-9, A-D, *, #."""

    wire: ClassVar[str] = "send_dtmf"
    call_id: str
    digits: str


@dataclass(frozen=True, slots=True)
class OfferAnswer:
    """A web line's SDP, or what is wrong with the offer."""

    sdp: str | None = None
    wrong: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerOffer(Ask[OfferAnswer]):
    """A browser's SDP offer. An `RpcError` says that the line can take no call, whatever the offer."""

    wire: ClassVar[str] = "web.offer"
    call_id: str
    sdp: str
    statement: str | None = None
    """signed: that this call's voice is synthetic; for the page"""


@dataclass(frozen=True, slots=True)
class RenewOffer(Ask[OfferAnswer]):
    """A later offer in a web line's call: on hold, off hold, from another network."""

    wire: ClassVar[str] = "web.renew"
    call_id: str
    sdp: str


@dataclass(frozen=True, slots=True)
class IceReply:
    """What becomes of a `TrickleIce`: an HTTP status (RFC 9725 §4.3), and after a restart our side."""

    status: int
    fragment: str = ""
    etag: str = ""
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class TrickleIce(Ask[IceReply]):
    """A browser's later candidates or, with another name and password, its ICE restart.

    `etag` names the ICE session that it is for; "*": whichever it is.
    """

    wire: ClassVar[str] = "web.trickle"
    call_id: str
    fragment: str
    etag: str


@dataclass(frozen=True, slots=True)
class PressKey(Ask[None]):
    """A key that the caller of a web line's call pressed, as SIP INFO said it: one of 0-9, A-D, *, #."""

    wire: ClassVar[str] = "web.key"
    call_id: str
    digit: str


@dataclass(frozen=True, slots=True)
class StopLine(Ask[None]):
    """Has the line send BYE to every call, and end."""

    wire: ClassVar[str] = "line.stop"


@dataclass(frozen=True, slots=True)
class AskFailures(Ask[dict[str, int]]):
    """Background tasks of a web line that failed since its start, by name."""

    wire: ClassVar[str] = "line.failures"


# ── what a caller's page is shown ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ShownState:
    """What the voice does.

    listening, thinking, speaking (the caller may cut it), announcing (not this), held; or ended, with `how`.
    """

    state: str
    how: CallEnding | None = None
    kind: Literal["state"] = "state"


@dataclass(frozen=True, slots=True)
class ShownWords:
    """What we say so far."""

    item: str
    text: str
    final: bool
    kind: Literal["said"] = "said"


@dataclass(frozen=True, slots=True)
class ShownHeard:
    """What was understood; `text` None where nobody wrote it down, or it may not be kept."""

    text: str | None = field(repr=False)
    duration_s: float
    confidence: float | None
    kind: Literal["heard"] = "heard"


@dataclass(frozen=True, slots=True)
class ShownLatency:
    """Seconds by stage of an answered turn."""

    turn: int
    endpointing: float
    engine: float
    playout: float
    whole: float
    kind: Literal["latency"] = "latency"


@dataclass(frozen=True, slots=True)
class ShownNote:
    """A remark beside the conversation, which nobody says."""

    text: str
    kind: Literal["note"] = "note"


@dataclass(frozen=True, slots=True)
class ShownStatement:
    """The signed statement that this call's voice is synthetic (a JWS), first on the channel."""

    statement: str
    kind: Literal["synthetic-speech"] = "synthetic-speech"


Shown = ShownState | ShownWords | ShownHeard | ShownLatency | ShownNote | ShownStatement


@dataclass(frozen=True, slots=True)
class ShowCaller(Ask[None]):
    """For the caller's page; a telephone has no screen."""

    wire: ClassVar[str] = "show"
    call_id: str
    event: Shown
