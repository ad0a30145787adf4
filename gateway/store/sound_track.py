"""The sound track of a call: how loud both sides were in each tenth of a second, and what was the matter.

A hall writes it in rows of text, some seconds each, and a reader makes parts of them:

    <began_at> <base64>     steps of three bytes: the caller's level, our voice's level, flags
    <at> quality <JSON>     how packets came and went in the time before
    <at> marks <JSON>       whether what was sent in the time before carries its mark
    <at> grants <JSON>      the call may speak: by a new grant, or by one that was renewed
    <at> ducks <JSON>       our voice was softer for a while, since the caller began to speak
    <at> end                the track is full; the call goes on without one

Times are seconds since the epoch. A level is the RMS in -dBFS: 0 is full scale, 96 is digital silence, 255 is
nothing at all: no packet came, or nothing was sent. A row says itself when it began, so what is missing is a
gap in time. Nothing here is a word, nor can one be made of it.
"""

from __future__ import annotations

import base64
import json
import math
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

STEP_S: Final = 0.1
LONGEST_S: Final = 4 * 3600.0
"""Of a call, so much has a sound track."""
ROW_STEPS: Final = 50
"""Steps that are written together."""
MAX_ROWS: Final = 8192
"""Rows that are read of one call: 4 h of steps (2,880), and fewer points of each kind."""
MAX_DUCKS: Final = 1000
"""Of one call so many are kept; its steps have a flag for each."""

SILENCE: Final = 96
"""The level of digital silence, in -dBFS; nothing is quieter."""
NOTHING: Final = 255
"""Instead of a level: no packet came, or nothing was sent."""
STEP_BYTES: Final = 3

FLAGS: Final[Mapping[str, int]] = {
    "speech": 1,  # the caller speaks, as the judge of speech has it
    "playing": 2,  # our voice is put out
    "ducked": 4,  # … more softly, since the caller begins to speak
    "held": 8,  # the line plays nothing to the caller any more
    "muted": 16,  # our voice may not be heard: silence goes out instead
    "not_marked": 32,  # a frame could not be marked and went out as silence
    "underrun": 64,  # the line had nothing of ours to play and played silence
}
"""The bits of a step's flags."""

POINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "quality": (
        "loss_percent", "jitter_ms", "buffer_ms", "round_trip_ms", "mos",
        "far_loss_percent", "far_jitter_ms", "far_mos",
    ),  # as in `call_events.SoundRated`
    "marks": ("score", "found"),  # of `watermark.selfcheck`; found: 1, or 0
    "grants": ("until", "renewed"),  # when it lapses, in seconds since the epoch; renewed: 1, or 0
    "ducks": ("seconds", "cut"),  # until then; cut: 1 where the caller went on, 0 where our voice came back
}  # fmt: skip
"""Rows beside the steps, each of some figures: numbers, or not there."""

_LONGEST_ROW: Final = 2048
_LATEST: Final = 1e11
"""No call is later than this, in seconds since the epoch, and no figure is larger."""
_APART_S: Final = 1.5 * STEP_S
"""Rows that are no farther apart than this from where the one before ends are one part."""


def sound_key(call_id: str) -> str:
    """Where Redis has a call's rows, a list."""
    return f"vg:sound:{call_id}"


@dataclass(slots=True)
class TrackPart:
    """Steps without a gap; levels in dBFS, None where there was nothing."""

    began_at: float
    caller: list[int | None] = field(default_factory=list)
    voice: list[int | None] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)

    @property
    def ends_at(self) -> float:
        """When its last step is over."""
        return self.began_at + STEP_S * len(self.flags)

    def add(self, steps: bytes) -> None:
        """More steps follow."""
        self.caller.extend(map(_level, steps[0::STEP_BYTES]))
        self.voice.extend(map(_level, steps[1::STEP_BYTES]))
        self.flags.extend(steps[2::STEP_BYTES])


@dataclass(frozen=True, slots=True)
class SoundTrack:
    """What is kept of a call's sound, in order of time."""

    parts: tuple[TrackPart, ...] = ()
    points: Mapping[str, Sequence[dict[str, float]]] = field(default_factory=dict)
    """by their kind, each with `at` and some of what `POINTS` names"""
    ended_early: bool = False
    """the call went on without a track"""

    def to_json(self) -> dict[str, Any]:
        """The track for the API and the page."""
        return {
            "step_s": STEP_S,
            "flag_names": dict(FLAGS),
            "parts": [
                {
                    "began_at": round(part.began_at, 2),
                    "caller": part.caller,
                    "voice": part.voice,
                    "flags": part.flags,
                }
                for part in self.parts
            ],
            **{kind: list(self.points.get(kind, ())) for kind in POINTS},
            "ended_early": self.ended_early,
        }


def steps_row(began_at: float, steps: bytes) -> str:
    """The row of `steps`, `STEP_BYTES` each, the first of which began at `began_at`."""
    return f"{began_at:.2f} {base64.b64encode(steps).decode()}"


def point_row(at: float, kind: str, facts: Mapping[str, object]) -> str | None:
    """The row of what is known of such a point (`POINTS`); None when nothing is."""
    found = ((name, facts.get(name)) for name in POINTS[kind])
    known = {name: +value for name, value in found if isinstance(value, (int, float))}  # True is 1
    return f"{at:.2f} {kind} {json.dumps(known, separators=(',', ':'))}" if known else None


def end_row(at: float) -> str:
    """The row that says that there are no more, though the call goes on."""
    return f"{at:.2f} end"


def read_track(rows: Iterable[str]) -> SoundTrack:
    """The track of these rows. What is not one of ours is left out."""
    steps: list[tuple[float, bytes]] = []
    points: dict[str, list[dict[str, float]]] = {kind: [] for kind in POINTS}
    ended_early = False
    for row in rows:
        time_text, _, body = row.partition(" ")
        at = _time(time_text)
        if at is None or len(row) > _LONGEST_ROW:
            continue
        kind, _, told = body.partition(" ")
        if body == "end":
            ended_early = True
        elif kind in POINTS:
            if known := _figures(told, POINTS[kind]):
                points[kind].append({"at": at, **known})
        elif found := _steps(body):
            steps.append((at, found))
    parts: list[TrackPart] = []
    for at, more in sorted(steps, key=lambda step: step[0]):
        if not parts or abs(at - parts[-1].ends_at) > _APART_S:
            parts.append(TrackPart(at))
        parts[-1].add(more)
    for of_kind in points.values():
        of_kind.sort(key=lambda point: point["at"])
    return SoundTrack(tuple(parts), points, ended_early)


def _time(text: str) -> float | None:
    try:
        at = float(text)
    except ValueError:
        return None
    return at if math.isfinite(at) and 0.0 < at < _LATEST else None


def _steps(text: str) -> bytes | None:
    """None for what is not whole steps; nobody writes more than `ROW_STEPS` in one row."""
    try:
        steps = base64.b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return None
    return steps if len(steps) <= STEP_BYTES * ROW_STEPS and len(steps) % STEP_BYTES == 0 else None


def _figures(text: str, names: Sequence[str]) -> dict[str, float] | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    known = {name: told[name] for name in names if type(told.get(name)) in (int, float)}
    return {name: value for name, value in known.items() if abs(value) < _LATEST}  # NaN is not


def _level(kept: int) -> int | None:
    return None if kept == NOTHING else -min(kept, SILENCE)
