"""What noise on callers' lines does to turns, with and without `NoiseFloor`:
`python -m benchmarks.noisy_lines`.

Babble is human prompts in four languages (Debian: asterisk-core-sounds), some talkers at once, one prompt
after the other, each at a level of its own; then there is pink noise. Levels are dBFS. First nobody calls: we
talk for a minute over the noise, and each onset ducks our voice, each turn cuts it, for nothing. Then a
caller says a sentence every six seconds while we listen: onsets and ends, against the same caller on a quiet
line. All of it over G.711 (mu-law), 20 ms by 20 ms through the hall's voice activity and its `Turns`, as
`gateway/hall/calls/tick_pass.py` calls them; without words, which the clock's rules do not need.

The third way has the judge hear what WebRTC's suppressor leaves: it is why nothing does. The fourth, while we
talk, asks the ears for words as the hall does for an engine that does not (Whisper's tiny.en,
`gateway/hall/dialogue/early_words.py`); its decodes take the CPU time that they take here.

Then callers interrupt us in English, in noise: how many cut us, and how soon, by the clock and by words.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import click
import numpy as np
from numpy.typing import NDArray
from pywebrtc_audio import NoiseSuppressor

from benchmarks.turn_ends import ON_ITS_WAY_S, Recognise, recogniser
from consent.data_dir import default_data_dir
from consent.models.model_files import models_dir
from gateway.cli.caller import caller_sound
from gateway.hall.calls.call_ear import APPEND_FRAMES
from gateway.hall.dialogue.early_words import EarlyWords
from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, VAD_HZ, Floats, Rows, VoiceActivity
from gateway.hall.media.noise import NoiseFloor
from gateway.hall.media.turns import TurnEvent, Turns
from gateway.rtp.media.rate_changer import RateChanger
from model.ears.ears_client import Ears
from model.ears.words_heard import Words
from tests.gateway.hall.key_sounds import mu_law
from tests.gateway.hall.speakerphone import prompts
from tests.needs import SOUNDS

SUPPRESSOR_HZ: Final = 16_000
"""The lowest rate that the suppressor takes, in pieces of 10 ms."""
PIECE: Final = SUPPRESSOR_HZ // 100
LEVEL: Final = 1
"""One of the suppressor's four strengths; this one takes away 12 dB at most."""
LINES: Final = 4
"""Calls a row."""
VOICES: Final = ("en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo")
EVERY_S: Final = 6.0
HEARD_S: Final = 0.5
"""A caller is found who is noticed within this."""

INTERRUPTS_S: Final = 2.5
"""How long a caller speaks over us."""

Way = Literal["without", "with", "suppressed", "asked"]


@dataclass(frozen=True, slots=True)
class Noticed:
    """What `Turns` said of one line, in seconds, and the share of the time in which it took it for a turn."""

    onsets: Floats
    turns: Floats
    ends: Floats
    in_turns: float


@cache
def _said(voice: str) -> tuple[Floats, ...]:
    return prompts(SOUNDS / voice, 1.0, 6.0)


def rms(sound: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(sound**2)))


def babble(talkers: int, level_db: float, seed: int, seconds: float) -> Floats:
    """float32 8 kHz"""
    chance, count = np.random.default_rng(seed), round(seconds * VAD_HZ)
    whole = np.zeros(count, np.float32)
    for talker in range(talkers):
        said = _said(VOICES[talker % len(VOICES)])
        parts: list[Floats] = []
        while sum(map(len, parts)) < count + VAD_HZ:
            loudness = np.float32(10 ** (chance.uniform(-6, 6) / 20))
            parts += [
                said[chance.integers(len(said))] * loudness,
                np.zeros(chance.integers(0, 4800), np.float32),
            ]
        begin = chance.integers(0, VAD_HZ)
        whole += np.concatenate(parts)[begin : begin + count]
    return (whole * (10 ** (level_db / 20) / rms(whole))).astype(np.float32)


def pink(level_db: float, seed: int, seconds: float) -> Floats:
    """float32 8 kHz"""
    return caller_sound.pink(level_db, seed, seconds, VAD_HZ)


def callers(level_db: float, seed: int, seconds: float) -> Floats:
    """A sentence every `EVERY_S`, from the third second on; float32 8 kHz."""
    chance, whole = np.random.default_rng(seed), np.zeros(round(seconds * VAD_HZ), np.float32)
    said = [voice for voice in _said("it_IT_m_Carlo") if len(voice) < 3.5 * VAD_HZ]
    for begin in np.arange(3.0, seconds - 5.0, EVERY_S):
        voice = said[chance.integers(len(said))]
        at = round(begin * VAD_HZ)
        whole[at : at + len(voice)] += voice * (10 ** (level_db / 20) / rms(voice))
    return whole


def interrupters(level_db: float, seed: int, seconds: float) -> Floats:
    """English sentences, cut off after `INTERRUPTS_S`, every `EVERY_S`; float32 8 kHz."""
    chance, whole = np.random.default_rng(seed), np.zeros(round(seconds * VAD_HZ), np.float32)
    said = _said("en_US_f_Allison")
    for begin in np.arange(3.0, seconds - 5.0, EVERY_S):
        voice = said[chance.integers(len(said))][: round(INTERRUPTS_S * VAD_HZ)]
        at = round(begin * VAD_HZ)
        whole[at : at + len(voice)] += voice * (10 ** (level_db / 20) / rms(voice))
    return whole


class LineEars(Ears):
    """Answers when the words would have been there; `pass_` tells it the time."""

    def __init__(self, recognise: Recognise) -> None:  # without the process of `Ears`
        self._recognise = recognise
        self._due: list[tuple[float, asyncio.Future[None]]] = []
        self.now = 0.0
        self.asked = 0

    @property
    def wait_s(self) -> float:
        return 0.0

    async def transcribe(
        self,
        pcm: Floats,
        language: str | None = "en",
        *,
        phrases: Sequence[str] = (),
        patient: bool = False,
    ) -> Words:
        self.asked += 1
        words, took_s = self._recognise(pcm)
        there: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._due.append((self.now + took_s + ON_ITS_WAY_S, there))
        await there
        return words

    async def pass_(self, now: float) -> None:
        self.now = now
        for due, there in self._due:
            if due <= now and not there.done():
                there.set_result(None)
        self._due = [(due, there) for due, there in self._due if not there.done()]
        for _ in range(4):  # the answer, the task that waits for it, and who is told
            await asyncio.sleep(0)


async def over_us(lines: list[Floats], recognise: Recognise) -> tuple[list[Noticed], int]:
    """What becomes of the lines' sound while we talk, and the ears are asked; and how often they were."""
    count, frame = len(lines), round(VAD_HZ * FRAME_S)
    rows = np.arange(count)
    activity, to_house, noise = VoiceActivity(count), RateChanger(VAD_HZ, HOUSE_HZ, count), NoiseFloor(count)
    turns = [Turns() for _ in lines]
    ears = [LineEars(recognise) for _ in lines]
    words = [EarlyWords(each, "en", keeps=False) for each in ears]
    events: list[list[tuple[float, TurnEvent]]] = [[] for _ in lines]
    block = mu_law(np.stack(lines))
    ticks = block.shape[1] // frame
    speaking = np.zeros(count)
    for tick in range(ticks):
        now = (tick + 1) * FRAME_S
        narrow = block[:, tick * frame : (tick + 1) * frame]
        judged = activity.judge(rows, narrow, noise.hear(rows, narrow))
        noise.doubt(rows, judged, [one.speaking for one in turns])
        for row, sound in enumerate(to_house.change(rows, narrow)):
            await ears[row].pass_(now)
            one, early = turns[row], words[row]
            event = one.hear(
                sound,
                judged.get(row),
                we_talk=True,
                early=early.early,
                knows_asides=early.knows_asides,
                wordless_s=early.wordless_s,
            )
            speaking[row] += one.speaking
            if event is not None or one.frames_waiting >= APPEND_FRAMES or one.pausing:
                early.hear(one.take(), event, one)
            if event is not None:
                events[row].append((now, event))
    for early in words:
        early.forget()
    found = []
    for each, share in zip(events, (speaking / ticks).tolist(), strict=True):
        begun, counted, ended = (
            np.array([at for at, event in each if event is kind], np.float32)
            for kind in (TurnEvent.ONSET, TurnEvent.SPEECH, TurnEvent.END)
        )
        found.append(Noticed(begun, counted, ended, share))
    return found, sum(each.asked for each in ears)


class Suppressed:
    """The judge behind the suppressor."""

    def __init__(self, capacity: int) -> None:
        self._up = RateChanger(VAD_HZ, SUPPRESSOR_HZ, capacity)
        self._down = RateChanger(SUPPRESSOR_HZ, VAD_HZ, capacity)
        self._suppressors = [NoiseSuppressor(SUPPRESSOR_HZ, 1, LEVEL) for _ in range(capacity)]

    def change(self, rows: Rows, narrow: Floats) -> Floats:
        """float32 `(B, 160)` at 8 kHz, and so what is left of it."""
        left = [
            np.concatenate([suppressor.process(sound[at : at + PIECE]) for at in (0, PIECE)])
            for suppressor, sound in zip(self._suppressors, self._up.change(rows, narrow), strict=True)
        ]
        return self._down.change(rows, np.stack(left))


def noticed(lines: list[Floats], way: Way, *, we_talk: bool) -> tuple[list[Noticed], float]:
    """What becomes of the lines' sound, and the CPU seconds of a second of one line that the way costs."""
    count, frame = len(lines), round(VAD_HZ * FRAME_S)
    rows = np.arange(count)
    activity, to_house = VoiceActivity(count), RateChanger(VAD_HZ, HOUSE_HZ, count)
    noise, suppressed = NoiseFloor(count), Suppressed(count)
    turns = [Turns() for _ in lines]
    events: list[list[tuple[float, TurnEvent]]] = [[] for _ in lines]
    speaking, cost_s = np.zeros(count), 0.0
    block = mu_law(np.stack(lines))
    ticks = block.shape[1] // frame
    for tick in range(ticks):
        narrow = block[:, tick * frame : (tick + 1) * frame]
        began = time.thread_time()
        heard = suppressed.change(rows, narrow) if way == "suppressed" else narrow
        cost_s += time.thread_time() - began
        began = time.thread_time()
        stirs = noise.hear(rows, narrow) if way == "with" else None
        cost_s += time.thread_time() - began
        judged = activity.judge(rows, heard, stirs)
        began = time.thread_time()
        if way == "with":
            noise.doubt(rows, judged, [one.speaking for one in turns])
        cost_s += time.thread_time() - began
        for row, sound in enumerate(to_house.change(rows, narrow)):
            event = turns[row].hear(sound, judged.get(row), we_talk=we_talk)
            turns[row].take()
            speaking[row] += turns[row].speaking
            if event is not None:
                events[row].append(((tick + 1) * FRAME_S, event))

    def times(row: int, kind: TurnEvent) -> Floats:
        return np.array([at for at, event in events[row] if event is kind], np.float32)

    found = [
        Noticed(times(row, TurnEvent.ONSET), times(row, TurnEvent.SPEECH), times(row, TurnEvent.END), share)
        for row, share in enumerate((speaking / ticks).tolist())
    ]
    return found, cost_s / (count * ticks * FRAME_S)


def nobody(seconds: float, recognise: Recognise) -> None:
    """Prints what noise alone does while we talk."""
    click.echo(
        "| nobody calls | way | onsets a minute | turns a minute | of the time in a turn | CPU a call |"
    )
    kinds: list[tuple[str, Callable[[int], Floats]]] = [
        (
            f"{talkers} talkers, {level_db} dB",
            lambda seed, t=talkers, db=level_db: babble(t, db, seed, seconds),  # type: ignore[misc]
        )
        for talkers in (6, 12, 40)
        for level_db in (-30, -40, -50)
    ]
    kinds.append(("pink noise, -40 dB", lambda seed: pink(-40, seed, seconds)))
    for name, make in kinds:
        lines = [make(seed) for seed in range(LINES)]
        for way in ("without", "with", "suppressed"):
            found, cost = noticed(lines, way, we_talk=True)
            minutes = LINES * seconds / 60
            click.echo(
                f"| {name} | {way} | {sum(len(one.onsets) for one in found) / minutes:.1f} "
                f"| {sum(len(one.turns) for one in found) / minutes:.1f} "
                f"| {np.mean([one.in_turns for one in found]):.2f} | {cost:.4f} |"
            )
        found, asked = asyncio.run(over_us(lines, recognise))
        click.echo(
            f"| {name} | asked | {sum(len(one.onsets) for one in found) / minutes:.1f} "
            f"| {sum(len(one.turns) for one in found) / minutes:.1f} "
            f"| {np.mean([one.in_turns for one in found]):.2f} | {asked / minutes:.1f} questions a minute |"
        )


def interruptions(seconds: float, recognise: Recognise) -> None:
    """Prints how many callers cut us, and how long after they began."""
    click.echo("| a caller over our voice | way | cut us | after, s p50 / p90 / most | other cuts |")
    kinds: list[tuple[str, Callable[[int], Floats]]] = [
        ("-20 dB, line noise at -66", lambda seed: pink(-66, seed, seconds)),
        ("-20 dB, 12 talkers at -40", lambda seed: babble(12, -40, seed, seconds)),
        ("-20 dB, 6 talkers at -40", lambda seed: babble(6, -40, seed, seconds)),
        ("-20 dB, 6 talkers at -35", lambda seed: babble(6, -35, seed, seconds)),
    ]
    begins = np.arange(3.0, seconds - 5.0, EVERY_S)
    for name, noise in kinds:
        lines = [interrupters(-20.0, seed, seconds) + noise(seed) for seed in range(LINES)]
        for way in ("with", "asked"):
            if way == "asked":
                found, _ = asyncio.run(over_us(lines, recognise))
            else:
                found, _ = noticed(lines, "with", we_talk=True)
            cuts = [
                at - begin
                for one in found
                for begin in begins
                for at in one.turns[(one.turns > begin) & (one.turns < begin + INTERRUPTS_S + 0.5)][:1]
            ]
            others = sum(len(one.turns) for one in found) - len(cuts)
            click.echo(
                f"| {name} | {way} | {len(cuts)} of {LINES * len(begins)} "
                f"| {_percentiles(np.array(cuts), (50, 90, 100))} | {others} |"
            )


def somebody(seconds: float) -> None:
    """Prints what becomes of callers' onsets and ends."""
    click.echo(
        "| a caller | way | found | onset later, s p50 / p90 / most | end later, s p10 / p50 / p90 | turns |"
    )
    kinds: list[tuple[str, float, Callable[[int], Floats]]] = [
        ("-20 dB, line noise at -66", -20.0, lambda seed: pink(-66, seed, seconds)),
        ("-32 dB, the same", -32.0, lambda seed: pink(-66, seed, seconds)),
        ("-20 dB, pink noise at -45", -20.0, lambda seed: pink(-45, seed, seconds)),
        ("-20 dB, 12 talkers at -50", -20.0, lambda seed: babble(12, -50, seed, seconds)),
        ("-20 dB, 12 talkers at -40", -20.0, lambda seed: babble(12, -40, seed, seconds)),
        ("-20 dB, 6 talkers at -40", -20.0, lambda seed: babble(6, -40, seed, seconds)),
        ("-20 dB, 6 talkers at -35", -20.0, lambda seed: babble(6, -35, seed, seconds)),
    ]
    for name, level_db, noise in kinds:
        lines = [callers(level_db, seed, seconds) + noise(seed) for seed in range(LINES)]
        alone = [callers(level_db, seed, seconds) + pink(-66, seed, seconds) for seed in range(LINES)]
        truth, _ = noticed(alone, "without", we_talk=False)
        for way in ("without", "with", "suppressed"):
            found, _ = noticed(lines, way, we_talk=False)
            onsets = np.concatenate([_after(o.onsets, t.onsets) for o, t in zip(found, truth, strict=True)])
            ends = np.concatenate([_after(o.ends, t.ends) for o, t in zip(found, truth, strict=True)])
            there, over = onsets[np.abs(onsets) <= HEARD_S], ends[np.abs(ends) <= HEARD_S]
            click.echo(
                f"| {name} | {way} | {len(there)} of {len(onsets)} "
                f"| {_percentiles(there, (50, 90, 100))} | {_percentiles(over, (10, 50, 90))} "
                f"| {sum(len(one.turns) for one in found)} of {sum(len(one.turns) for one in truth)} |"
            )


def _after(found: Floats, truth: Floats) -> Floats:
    """How much later each of `truth` was found; infinite when nothing was."""
    if not len(found):
        return np.full(len(truth), np.inf, np.float32)
    nearest = found[np.abs(found[None, :] - truth[:, None]).argmin(axis=1)]
    return nearest - truth


def _percentiles(seconds: Floats, which: tuple[int, ...]) -> str:
    return " / ".join(f"{at:+.2f}" for at in np.percentile(seconds, which)) if len(seconds) else "–"


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="of each line")
@click.option("--models", type=click.Path(path_type=Path), help="model files, if not the data directory's")
def main(seconds: float, models: Path | None) -> None:
    """Noise on callers' lines."""
    recognise = recogniser(models_dir(default_data_dir(), models))
    nobody(seconds, recognise)
    interruptions(seconds, recognise)
    somebody(seconds)


if __name__ == "__main__":
    main()
