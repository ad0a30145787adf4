"""Causes of a bad call that lie in its sound: none came, little came, it came late, or from elsewhere."""

from __future__ import annotations

from typing import Final

from gateway.ipc.ending import End
from gateway.store.call_record import OF_TARGET
from gateway.store.told_call import Found, ToldCall, cause, finite

POOR_MOS: Final = 3.6
"""Below it many are not satisfied (R < 70, G.107 Annex B)."""
LOSS_PERCENT: Final = 5.0
JITTER_MS: Final = 30.0
"""Above it packets wait behind others (docs/operations.md)."""
RATED: Final = 50
"""Packets that must have been due before they say anything."""
STRETCH_S: Final = 10.0
"""An event `quality` is of this much time before it."""
UNDERRUNS: Final = 25
"""Frames (20 ms) of ours that were not ready; of all that were sent, `LOSS_PERCENT` besides."""
MOVES: Final = 3
FRAMES_PER_S: Final = 50
MUTE_S: Final = 3.0
"""In less time a call may end before anything came, or was said."""
UNTOLD: Final = frozenset({
    End.LINE_DIED, End.LINE_SILENT, End.HALL_DIED, End.GATEWAY_DIED, End.GATEWAY_STOPPED, End.REFUSED,
    End.UNACKNOWLEDGED, End.NO_MEDIA, End.BROWSER_LOST,
})  # fmt: skip
"""Ends after which nobody told how the sound was,"""
NO_WAY: Final = frozenset({End.REFUSED, End.UNACKNOWLEDGED, End.NO_MEDIA, End.BROWSER_LOST})
"""and those for which there was no sound to tell of."""
TOLD_WITHIN_S: Final = 20.0
"""By now a line has told of a call to which sound comes: it does so each 10 s."""


def deaf(told: ToldCall) -> Found:
    """Nothing came from the caller. The line tells of a call's sound at its end, unless none came ever."""
    told_by_line = told.has("line_quality", "quality") or told.number("packets") is not None
    over = told.ended is not None and (told.how is None or told.how.end not in UNTOLD)
    over |= told.talk_s > TOLD_WITHIN_S and (told.how is None or told.how.end not in NO_WAY)
    heard = told.number("packets") or any(data.get("who") == "caller" for _, data in told.of("turn"))
    held = any(data.get("sending") is False or data.get("receiving") is False for _, data in told.of("hold"))
    if told.answered is None or told.talk_s < MUTE_S or heard or held or not (told_by_line or over):
        return
    since, number = told.answered, f"0 packets in {told.talk_s:.0f} s"
    yield cause("no sound from the caller", since, "ended", number, told.until)


def stopped(told: ToldCall) -> Found:
    """It came, and then did not any more."""
    if told.how is not None and told.how.end is End.SOUND_STOPPED:
        after = told.how.rpartition(": ")[2].removesuffix(" s")
        seconds = float(after) if after.replace(".", "", 1).isdigit() else 0.0
        yield cause("sound stopped", told.until - seconds, "ended", str(told.how), told.until)


def unheard(told: ToldCall) -> Found:
    """Of what we sent, next to nothing came to the caller."""
    sent, lost = told.number("far_sent") or 0.0, told.number("far_lost") or 0.0
    if told.answered is not None and sent >= RATED and lost / sent > 0.9:
        yield cause("no sound to the caller", told.answered, "line_quality", f"{lost:.0f} of {sent:.0f} lost")


def poor(told: ToldCall) -> Found:
    """Loss, jitter or a low score, each way; first by the stretch that told it, else by the whole call."""
    target = told.has("target_quality")
    for prefix, far, name in (
        ("", "", "poor sound from the caller"), ("", "far_", "poor sound to the caller"),
        (OF_TARGET, "", "poor sound from the target"), (OF_TARGET, "far_", "poor sound to the target"),
    ):  # fmt: skip
        if prefix and not target:
            continue
        kinds = ("target_quality",) if prefix else ("quality",)
        for at, data in told.of(*kinds):
            loss, jitter, mos = (finite(data.get(f"{far}{x}")) for x in ("loss_percent", "jitter_ms", "mos"))
            if bad := _bad(loss, jitter, mos):
                since = max(told.answered or told.began, at - STRETCH_S)
                yield cause(name, since, kinds[0], bad, at)
                break
        else:
            yield from _poor_whole(told, prefix + far, name)


def _poor_whole(told: ToldCall, prefix: str, name: str) -> Found:
    far = prefix.endswith("far_")
    packets = told.number(f"{prefix}{'sent' if far else 'packets'}")
    lost = told.number(f"{prefix}lost") or 0.0
    due = (packets or 0.0) + (0.0 if far else lost)
    if packets is None or due < RATED or (far and lost / due > 0.9):
        return
    bad = _bad(100 * lost / due, None, told.number(f"{prefix}mos"))
    if bad:
        number = f"{bad}, of {due:.0f} packets"
        yield cause(name, told.answered or told.began, "line_quality", number, told.until)


def _bad(loss: float | None, jitter: float | None, mos: float | None) -> str:
    """The figures, if one of them is beyond its bound."""
    said = []
    if loss is not None and loss >= LOSS_PERCENT:
        said.append(f"{loss:.1f} % lost")
    if jitter is not None and jitter >= JITTER_MS:
        said.append(f"jitter {jitter:.0f} ms")
    if mos is not None and (mos < POOR_MOS or said):
        said.append(f"MOS {mos:.1f}")
    return ", ".join(said)


def moved(told: ToldCall) -> Found:
    """It came from elsewhere again and again."""
    moves = [at for at, data in told.of("rtp_moved") if data.get("way") == "followed"]
    if len(moves) >= MOVES:
        yield cause("sound moved", moves[0], "rtp_moved", f"{len(moves)} times")


def underruns(told: ToldCall) -> Found:
    """Ours was not ready in time."""
    missed, sent = told.number("underruns") or 0.0, FRAMES_PER_S * told.talk_s
    if missed >= UNDERRUNS and 100 * missed >= LOSS_PERCENT * sent:
        number = f"{missed:.0f} of {sent:.0f} frames (20 ms)"
        yield cause("underruns", told.until, "ended", number)  # when they were, nobody kept
