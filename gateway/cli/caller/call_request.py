"""Calls that are asked for: who is called, what is said, over which line; and their plans for a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from gateway.cli.caller.call_script import CallerAct, in_turn
from gateway.cli.caller.caller_sound import SPOKEN_HZ, active_level_db, background, read_wav, spoken
from gateway.edge.grammar.sdes import SrtpRule
from gateway.errors import CallerError
from gateway.phone.phone_plan import CODEC_IDS, CallPlan, ScriptStep, Verb
from gateway.phone.rough_line import RoughLine
from watermark.pcm import Floats, bytes_from_float, float_from_bytes

CODECS: Final = tuple(CODEC_IDS)


@dataclass(frozen=True, slots=True)
class Behind:
    """What is heard behind a caller: a wav file, or pink noise, `snr_db` below what the caller says."""

    snr_db: float
    sound: Path | None = None
    seed: int = 1


@dataclass(frozen=True, slots=True)
class BoothSide:
    """How a call's sound goes to a trunk: from which address of ours, and whether it is encrypted."""

    sound_address: str
    srtp: SrtpRule


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call to place."""

    uri: str
    script: Sequence[Path | str | CallerAct] = ()
    """What is done, one after the other; wav files are said and digits (0-9, *, #, A-D) pressed in turn, that
    is when the other side is quiet (`in_turn`)."""
    record: Path | None = None
    """wav of what was heard, from the answer on: mono, 8 kHz, or 16 kHz with G.722; holds left out."""
    duration_s: float | None = None
    """Hang up this long after the answer; None: when everything is said and answered."""
    at_s: float | None = None
    """Say the first thing this long after the answer, whoever is speaking; None: in turn."""
    after_s: float = 0.0
    """Dial this long after the others that are placed with it."""
    user: str | None = None
    password: str | None = None
    caller: str = "voicegate"
    """User part of From, when there is no `user`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to the INVITE."""
    sip_call_id: str = ""
    """SIP Call-ID to use; empty: a random one."""
    codec: str | None = None
    """One of `CODECS`, offered alone; None: PCMU and PCMA."""
    behind: Behind | None = None
    line: RoughLine = field(default_factory=RoughLine)
    mark_keys: Path | None = None
    """Keys by which the mark is sought in what was heard."""
    booth: BoothSide | None = None
    """By a trunk: how its booth has the sound."""

    @property
    def rate_hz(self) -> int:
        """Of its sound."""
        return 16_000 if self.codec == "g722" else 8_000


def arrivals(request: CallRequest, count: int, over_s: float) -> list[CallRequest]:
    """So many calls like this one, of which one is dialled every `over_s / count`."""
    return [replace(request, after_s=request.after_s + over_s * n / count) for n in range(count)]


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────


class CallerSounds:
    """The sounds of calls at one rate, each made once. Raises `CallerError` with the script's line."""

    def __init__(self, folder: Path, rate_hz: int) -> None:
        self._folder, self._rate_hz = folder, rate_hz
        self._said: dict[Path | str, tuple[str, Floats]] = {}
        self._behind: dict[tuple[Behind, float], str] = {}
        folder.mkdir()

    def said(self, act: CallerAct) -> tuple[str, Floats]:
        """(file, sound) of what is said."""
        key = act.sound or act.words
        if key not in self._said:
            try:
                raw = self._made(act)
            except CallerError as error:
                raise CallerError(f"{act.where}: {error}" if act.where else str(error)) from None
            self._said[key] = self._keep(raw), float_from_bytes(raw)
        return self._said[key]

    def behind(self, asked: Behind | None, said: list[Floats]) -> str:
        """The file of what is behind a caller who says that; empty: nothing."""
        if asked is None:
            return ""
        level_db = active_level_db(said, self._rate_hz)
        if (asked, level_db) not in self._behind:
            noise = background(asked.sound, asked.snr_db, level_db, asked.seed, self._rate_hz)
            self._behind[asked, level_db] = self._keep(bytes_from_float(noise))
        return self._behind[asked, level_db]

    def _made(self, act: CallerAct) -> bytes:
        if act.sound is not None:
            return read_wav(act.sound, self._rate_hz).tobytes()
        sound = spoken(act.words)
        if self._rate_hz != SPOKEN_HZ:
            sound = np.asarray(soxr.resample(sound, SPOKEN_HZ, self._rate_hz), np.float32)
        return bytes_from_float(sound)

    def _keep(self, raw: bytes) -> str:
        path = self._folder / f"sound-{len(self._said) + len(self._behind)}"
        path.write_bytes(raw)
        return str(path)


def planned(request: CallRequest, sounds: CallerSounds, number: int, record: Path, due_s: float) -> CallPlan:
    """The plan of the `number`-th call, for a phone that is started `due_s` after the first.

    Raises `CallerError`.
    """
    acts = list(in_turn(request.script))
    if acts and request.at_s is not None:
        first = CallerAct("at", seconds=request.at_s)
        acts[:1] = [first] if acts[0].act == "listen" else [first, acts[0]]
    steps, said = [], []
    for act in acts:
        if act.act in ("play", "say"):
            path, sound = sounds.said(act)
            steps.append(ScriptStep("say", path))
            said.append(sound)
        else:
            verb: Verb = act.act  # type: ignore[assignment]  # all but the two above
            steps.append(ScriptStep(verb, digits=act.keys, seconds=act.seconds))
    return CallPlan(
        uri=request.uri,
        steps=tuple(steps),
        record=str(record),
        duration_s=request.duration_s,
        user=request.user or "",
        password=request.password or "",
        caller=request.caller,
        headers=dict(request.headers),
        sip_call_id=request.sip_call_id,
        after_s=request.after_s - due_s,
        background=sounds.behind(request.behind, said),
        line=request.line,
        number=number,
    )
