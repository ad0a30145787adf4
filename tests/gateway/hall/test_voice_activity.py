"""Calls in which nothing stirs are not judged, and nobody who speaks is missed or heard later for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from gateway.hall.media.audio import FRAME_S, VAD_WINDOW, Floats, VoiceActivity
from gateway.hall.media.noise import NoiseFloor
from gateway.hall.media.turns import WINDOW_S, TurnEvent, Turns
from gateway.rtp.payloads import g711
from tests.gateway.hall.speakerphone import prompts
from tests.needs import need_sounds
from watermark.pcm import float_from_int16, int16_from_float

FRAME = 160
RATE_HZ = 8_000
LINE_S = 40.0
VOICES = ("it_IT_m_Carlo", "en_US_f_Allison")


def level(db: float) -> float:
    return float(10 ** (db / 20))


@dataclass
class LineBehaviour:
    """What came of one line's sound."""

    onsets: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    judged: list[float] = field(default_factory=list)


def behaviour(lines: list[Floats], *, spares: bool) -> tuple[list[LineBehaviour], float]:
    """What the hall makes of these lines' sound, with every window judged or as it `spares`; and the share of
    windows that the network judged."""
    rows = np.arange(len(lines))
    activity, noise, turns = VoiceActivity(len(lines)), NoiseFloor(len(lines)), [Turns() for _ in lines]
    found = [LineBehaviour() for _ in lines]
    block = np.stack(lines)
    ticks = block.shape[1] // FRAME
    for at in range(ticks):
        narrow = block[:, at * FRAME : (at + 1) * FRAME]
        stirs = noise.hear(rows, narrow)
        judged = activity.judge(rows, narrow, stirs if spares else None)
        noise.doubt(rows, judged, [one.speaking for one in turns])
        for row, one in enumerate(turns):
            likely = judged.get(row)
            event = one.hear(np.repeat(narrow[row], 3), likely, we_talk=False)
            one.take()
            if likely is not None:
                found[row].judged.append(likely)
            if event is TurnEvent.ONSET:
                found[row].onsets.append((at + 1) * FRAME_S)
            elif event in (TurnEvent.END, TurnEvent.TRIFLE):
                found[row].ends.append((at + 1) * FRAME_S)
    return found, activity.judged / (len(lines) * (block.shape[1] // VAD_WINDOW))


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────


def spoken(seed: int, db: float) -> Floats:
    """Prompts of a person at `db` dBFS, three fifths of the time silent."""
    chance = np.random.default_rng(seed)
    said = prompts(need_sounds(VOICES[seed % 2]), 1.0, 3.0)
    sound = np.zeros(round(LINE_S * RATE_HZ), np.float32)
    at = round(chance.uniform(2.5, 4.0) * RATE_HZ)
    while True:
        words = said[chance.integers(len(said))]
        if at + len(words) > len(sound) - RATE_HZ:
            return sound
        loud = words[np.abs(words) > 0.1 * np.abs(words).max()]
        sound[at : at + len(words)] = words * np.float32(level(db) / np.sqrt(np.mean(loud**2)))
        at += len(words) + round(len(words) * chance.uniform(1.0, 2.0))


def hiss(seed: int, db: float) -> Floats:
    sound = np.random.default_rng(1_000 + seed).normal(0, level(db), round(LINE_S * RATE_HZ))
    return sound.astype(np.float32)


def comfort_noise(seed: int) -> Floats:
    """As telephones make it: its level changes each second or two, between -70 and -50 dBFS."""
    chance, parts = np.random.default_rng(2_000 + seed), []
    while sum(map(len, parts)) < LINE_S * RATE_HZ:
        length = round(chance.uniform(0.8, 2.5) * RATE_HZ)
        parts.append(chance.normal(0, level(chance.uniform(-70, -50)), length))
    return np.concatenate(parts)[: round(LINE_S * RATE_HZ)].astype(np.float32)


def babble(seed: int, db: float) -> Floats:
    """Six people behind the caller."""
    said = np.zeros(round(LINE_S * RATE_HZ), np.float32)
    for talker in range(6):
        chance = np.random.default_rng(3_000 + 10 * seed + talker)
        own = prompts(need_sounds(VOICES[talker % 2]), 1.0, 9.0)
        order = np.concatenate([own[at] for at in chance.permutation(len(own))[:30]])
        said += np.resize(order, len(said))
    return said * np.float32(level(db) / np.sqrt(np.mean(said**2)))


def over_the_telephone(sound: Floats) -> Floats:
    return float_from_int16(g711.decode("PCMU", g711.encode("PCMU", int16_from_float(sound))))


KINDS: dict[str, tuple[float, Callable[[int], Floats], float]] = {
    "silent line": (-20, lambda seed: hiss(seed, -200), 0.6),
    "silent line, soft caller": (-32, lambda seed: hiss(seed, -200), 0.6),
    "hiss": (-20, lambda seed: hiss(seed, -62), 0.6),
    "louder hiss, soft caller": (-32, lambda seed: hiss(seed, -50), 0.6),
    "comfort noise": (-26, comfort_noise, 0.85),
    "whisper": (-50, lambda seed: hiss(seed, -70), 0.7),
    "babble": (-20, lambda seed: babble(seed, -45), 1.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_missed_or_heard_later_where_windows_are_spared(kind: str) -> None:
    db, behind, most = KINDS[kind]
    lines = [over_the_telephone(spoken(seed, db) + behind(seed)) for seed in range(6)]
    every, _ = behaviour(lines, spares=False)
    spared, share = behaviour(lines, spares=True)
    assert share <= most
    later = WINDOW_S + FRAME_S
    for whole, some in zip(every, spared, strict=True):
        assert len(whole.judged) == len(some.judged)
        assert len(some.onsets) == len(whole.onsets)
        for before, now in zip(whole.onsets, some.onsets, strict=True):
            assert -0.4 < now - before < later
        for before, now in zip(whole.ends, some.ends, strict=True):
            assert now - before < later
