"""What is said of each cause of a bad call (`gateway.store.call_cause`), and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.ipc.ending import End

LOG: Final = "read the log's lines of this call_id"

TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "given up": ("the caller gave up before we answered", "see whether the plan answers at once"),
    "consent refused": (
        "consent let the route's voice not speak; the stock voice stood in",
        "`voicegate voice list` says how the voice stands; renew its consent, or name another voice",
    ),
    "consent withdrawn": (
        "consent was withdrawn or ran out during the call: it fell silent and was ended",
        "expired: see whether this machine's clock is right; revoked: name another voice in the plan",
    ),
    "mark not found": (
        "the watermark was not found in what the caller was sent: the call was silenced and ended",
        f"{LOG} (mark.not_found), and see whether the mark keys were exchanged meanwhile",
    ),
    "not marked": (
        "frames could not be marked and went out as silence",
        f"{LOG} (mark.failed) at once: this is an error of ours or of the machine",
    ),
    "no sound from the caller": (
        "no packet of the caller's sound ever came here (one-way media)",
        "open the RTP ports (VOICEGATE_RTP_PORT) in the firewall, and see which address our answer "
        "names: behind a "
        "NAT it must be one that the caller reaches",
    ),
    "sound stopped": (
        "the caller's sound stopped, and nobody hung up",
        "look at the caller's network; a telephone that sends nothing while it is silent needs a longer "
        "VOICEGATE_RTP_TIMEOUT_S",
    ),
    "no sound to the caller": (
        "next to nothing of our sound came to the caller (one-way media)",
        "see whether a firewall or NAT between us and the caller lets our packets through",
    ),
    "poor sound from the caller": (
        "the caller's sound came with losses or too unevenly",
        "look at the caller's line (Wi-Fi, a full uplink); when all callers sound so, at this "
        "machine's network",
    ),
    "poor sound to the caller": (
        "our sound came to the caller with losses or too unevenly",
        "look at the caller's line (Wi-Fi, a full downlink); when all callers hear so, at this "
        "machine's network",
    ),
    "poor sound from the target": (
        "the target's sound came with losses or too unevenly", "look at the target's line, or its trunk's",
    ),
    "poor sound to the target": (
        "the caller's sound came to the target with losses or too unevenly",
        "look at the target's line, or its trunk's",
    ),
    "sound moved": (
        "the caller's sound came from elsewhere again and again, and no SIP said so",
        "without a NAT before the caller it is somebody else's: close the RTP ports to all but your peers",
    ),
    "underruns": (
        "frames of ours were not ready in time: the caller heard holes",
        "the machine is too busy: see voicegate_hall_late_share, and let fewer calls in",
    ),
    "engine away": (
        "the engine went away during the call, and came back",
        "`process.died` or `engine.away` in the log says why; see voicegate_hall_up{part=\"engine\"}",
    ),
    "engine lost": (
        "the engine was lost and did not come back, or said nothing when it was asked to speak",
        "see whether the engine runs and has a processor left: `/readyz`, `process.died` in the log",
    ),
    "engine busy": ("the engine had no place for the call", "start another engine, or let fewer calls in"),
    "engine refused": ("the engine refused the call", f"{LOG} of the engine"),
    "answer late": ("an answer came late", LOG),
    "no answer": (
        "what the caller said was not answered",
        f"{LOG} about that time (engine.away, engine.reply_failed)",
    ),
    "not understood": (
        "the recogniser had no words for most of what the caller said",
        "listen to the recording: another language, noise, or a low voice? docs/ears.md says what it hears",
    ),
    "nothing heard": (
        "packets came, but nobody was heard speaking in them",
        "the caller's microphone was muted or far away, or the caller said nothing",
    ),
    "cut off": (
        "our answers were cut off as soon as they began",
        "noise or an echo was taken for the caller: have the caller leave the loudspeaker, or set "
        "`interruptible = false` in the plan",
    ),
    "nothing said": (
        "the call was answered, and none of our voice was sent to the caller", f"{LOG} from its answer on",
    ),
    "hung up at once": (
        "the caller hung up at once",
        "nothing was wrong here before that; a dialler or a wrong number does so",
    ),
    "not played": (
        "a file that the plan plays could not be played",
        "`voicegate dialplan check` names the file",
    ),
    "not recorded": ("what the caller said could not be kept", "see whether the disk is full"),
    "transfer failed": ("the target did not take the caller", LOG),
    "transfer refused": ("the plan has no target of that name", "name it in the plan's [targets]"),
    "transfer not answered": (
        "the caller hung up while the target was being called",
        "see whether somebody is there to answer the target",
    ),
    "process taken over": (
        "the call's hall died, and another one took the call up: some seconds were silent",
        "`process.died` in the log says why it died",
    ),
    "longest duration": (
        "the call was ended because it lasted as long as it may",
        "raise `max_s` in the plan if it may",
    ),
    "console": ("somebody ended the call at the console", "ask who did; the log's call.ended has the time"),
    "line died": (
        "the process that had the call's sound died", "`process.died` in the log, at that time, says why",
    ),
    "hall died": (
        "the process that led the call died, and nobody took it up",
        "`process.died` in the log, at that time, says why",
    ),
    "gateway stopped": (
        "the gateway was stopped, or died",
        "see who stopped it, or `process.died` in the log",
    ),
    "connection lost": (
        "the connection to the browser was lost, or never came about",
        "see whether the browser's network lets UDP through; else give it a TURN server "
        "(VOICEGATE_ICE_SERVERS)",
    ),
    "not acknowledged": (
        "the caller never acknowledged our answer",
        "see which address our Contact names: the ACK must reach it",
    ),
    "ended by us: voice": ("the voice may not be used", "`voicegate voice list` says how it stands"),
    "ended by us: engine": ("the engine did not serve the call", "see whether the engine runs: `/readyz`"),
    "ended by us: refused": (
        "no hall or line took the call",
        "see `/readyz`, and whether all places were taken",
    ),
    "ended by us: error": ("an error of ours ended the call", f"{LOG}, and report it"),
}  # fmt: skip
"""By the cause's name: what was wrong, and what to do."""

OF_END: Final[Mapping[End, str]] = {
    End.CONSOLE: "console",
    End.LIMIT: "longest duration",
    End.REFUSED: "ended by us: refused",
    End.BROWSER_LOST: "connection lost",
    End.NO_MEDIA: "connection lost",
    End.UNACKNOWLEDGED: "not acknowledged",
    End.LINE_DIED: "line died",
    End.LINE_SILENT: "line died",
    End.HALL_DIED: "hall died",
    End.ENGINE_LOST: "ended by us: engine",
    End.ENGINE_BUSY: "ended by us: engine",
    End.ENGINE_REFUSED: "ended by us: engine",
    End.VOICE_REFUSED: "ended by us: voice",
    End.UNSAID: "ended by us: error",
    End.UNRECORDED: "not recorded",
    End.STUCK: "ended by us: error",
    End.OUR_ERROR: "ended by us: error",
    End.GATEWAY_STOPPED: "gateway stopped",
    End.GATEWAY_DIED: "gateway stopped",
    End.FAILED: "ended by us: error",
}
"""The ends that are causes by themselves."""

LATE: Final[Mapping[str, str]] = {
    "endpointing": "it waited long to be sure that the caller had finished: noise behind the caller "
    "does that, and "
    "ears that are too busy (voicegate_ears_wait_seconds)",
    "engine": "the engine thought long: see its load and its own log, or take a smaller model",
    "playout": "the first sound waited in the gateway: the machine is too busy (voicegate_hall_late_share)",
}
"""What to do by the stage of an answer that took longest."""

_OF_STATUS: Final[Mapping[int, str]] = {
    401: "the caller was asked for a password and gave none: `voicegate sip users` lists them",
    403: "the caller may not call: see the users, the trunks and the plan's `from`",
    404: "no route of the plan has this number: `voicegate dialplan route` says which it takes",
    480: "consent lets the route's voice not speak, or the target is away: `voicegate voice list`",
    486: "all places were taken: let more calls in, or start more halls",
    488: "no codec or no encryption that both sides have: docs/operations.md, Codecs and Encrypted sound",
    500: "an error of ours: read the log's lines of this call_id",
    503: "a part was not ready, or there was no place or no time: `/readyz`, and `call.refused` in the log",
}
_OF_TARGET: Final[Mapping[int, str]] = {
    0: "nobody could be asked: a browser cannot be referred, or the trunk or telephone is away",
    403: "the target's side does not let us call: ask the trunk's operator",
    404: "the target's side does not know the number: see the plan's [targets]",
    408: "nobody answered: see whether the target rings, and whether it is reachable",
    480: "the target is not registered, or away",
    486: "the target was busy: give the plan another one behind it",
    487: "the target's ringing was ended: it rang for as long as it may",
    503: "the trunk does not take calls now: see voicegate_trunk_up",
    603: "whoever was called refused",
}


def of_status(status: int) -> str:
    """What to do about a call that was refused with this status (RFC 3261 §21)."""
    return _OF_STATUS.get(status, "read `call.refused` in the log")


def of_target(status: int) -> str:
    """What to do about a target that answered with this status; 0: nobody could be asked."""
    return _OF_TARGET.get(status, "ask whoever runs the target what this answer means")
