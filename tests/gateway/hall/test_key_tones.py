"""Keys in sound: what ITU-T Q.24 asks of a receiver, and no key where nobody pressed one."""

from __future__ import annotations

import wave
from collections.abc import Sequence

import numpy as np
import pytest

from gateway.hall.media.audio import Floats, VoiceActivity
from gateway.hall.media.key_tones import KEYS, WINDOW, KeyTones
from tests.gateway.hall.key_sounds import RATE_HZ, key_sound, mu_law
from tests.needs import need_sounds

VOICES = ("en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU")
ROUNDS = 8
"""Each times all 16 keys, in another order and at other places between the frames."""


def heard_in(sounds: Sequence[Floats]) -> list[str]:
    """The keys in each sound, all heard at once."""
    longest = max(map(len, sounds)) // WINDOW + 6
    whole = np.zeros((len(sounds), longest * WINDOW), np.float32)
    for row, sound in zip(whole, sounds, strict=True):
        row[: len(sound)] = sound
    tones, rows = KeyTones(len(sounds) + 3), np.arange(len(sounds)) + 3
    keys = [""] * len(sounds)
    for at in range(0, whole.shape[1], WINDOW):
        for index, key in tones.hear(rows, whole[:, at : at + WINDOW]):
            keys[index] += key
    return keys


def lines(
    random: np.random.Generator, orders: list[str], on_s: float, off_s: float, noise_db: float,
    detuned: tuple[float, float] = (0.0, 0.0), low_db: float = -10.0, high_db: float = -10.0,
) -> list[Floats]:  # fmt: skip
    """Keys in these orders on telephone lines with so much noise below the tones, after G.711."""
    sounds = []
    for order in orders:
        parts = [np.zeros(random.integers(400, 560), np.float32)]
        for key in order:
            phase = random.uniform(0, 6)
            parts += [key_sound(key, on_s, detuned=detuned, low_db=low_db, high_db=high_db, phase=phase)]
            parts += [np.zeros(round(off_s * RATE_HZ) + random.integers(0, 2), np.float32)]
        sound = np.concatenate([*parts, np.zeros(800, np.float32)])
        power = (10 ** (low_db / 10) + 10 ** (high_db / 10)) / 2
        noise = random.normal(size=len(sound)) * np.sqrt(power * 10 ** (-noise_db / 10))
        sounds.append(mu_law((sound + noise).astype(np.float32)))
    return sounds


def orders(random: np.random.Generator) -> list[str]:
    return ["".join(random.permutation(list(KEYS))) for _ in range(ROUNDS)]


@pytest.mark.parametrize(("low_db", "high_db"), [(-10, -10), (-10, -18), (-14, -10), (-3, -4), (-30, -26)])
@pytest.mark.parametrize(
    "detuned", [(0, 0), (0.015, 0.015), (-0.015, -0.015), (0.015, -0.015), (-0.015, 0.015)]
)
def test_every_key_is_heard_once_in_40_ms_at_the_edges_of_q24(
    detuned: tuple[float, float], low_db: float, high_db: float
) -> None:
    """40 ms on and off, noise 20 dB below, 1.5 % off in both tones, twist of 8 and of 4 dB, loud and soft."""
    random = np.random.default_rng(4733)
    dialled = orders(random)
    heard = heard_in(lines(random, dialled, 0.04, 0.04, 20, detuned, low_db, high_db))
    assert heard == dialled


def test_the_same_key_again_is_another_press_after_40_ms_and_after_20_it_goes_on() -> None:
    random = np.random.default_rng(1)
    for off_s, keys in ((0.04, "55#**"), (0.02, "5#*")):
        assert set(heard_in(lines(random, ["55#**"] * 20, 0.06, off_s, 30))) == {keys}


def test_a_long_press_is_one_and_a_short_sound_none() -> None:
    random = np.random.default_rng(2)
    assert set(heard_in(lines(random, ["5"] * 5, 4.0, 0.1, 20))) == {"5"}
    assert set(heard_in(lines(random, ["5"] * 40, 0.023, 0.1, 30))) == {""}


def test_a_lost_packet_within_a_press_makes_no_second_one() -> None:
    """20 ms of it are silent, wherever they fall."""
    sounds = []
    for at in range(0, 2000, 53):
        sound = np.concatenate((np.zeros(480), key_sound("7", 0.4), np.zeros(400))).astype(np.float32)
        sound[1300 + at // 4 : 1300 + at // 4 + 160] = 0
        sounds.append(sound)
    assert set(heard_in(sounds)) == {"7"}


def test_frequencies_that_are_no_keys_and_single_tones_are_nothing() -> None:
    sounds = [
        key_sound(key, 0.2, detuned=detuned)
        for key in KEYS
        for detuned in ((0.035, 0.0), (0.0, 0.035), (-0.035, 0.0), (0.0, -0.035))
    ]
    sounds += [key_sound(key, 0.2, low_db=-10, high_db=high_db) for key in KEYS for high_db in (-60, -25, 0)]
    at = np.arange(8000) / RATE_HZ
    for pair in ((350, 440), (440, 480), (480, 620), (425, 425), (1100, 1100), (2100, 2100), (697, 941)):
        sounds.append(sum(0.2 * np.sin(2 * np.pi * hz * at) for hz in pair).astype(np.float32))  # type: ignore[union-attr]
    assert set(heard_in(sounds)) == {""}


def test_noise_and_silence_are_nothing() -> None:
    random = np.random.default_rng(3)
    noise = [random.normal(size=60 * RATE_HZ).astype(np.float32) * level for level in (0.0, 1e-3, 0.1, 0.5)]
    assert heard_in(noise) == [""] * 4


def test_what_is_late_or_lost_within_a_press_makes_no_second_one_and_long_silence_ends_it() -> None:
    """Up to 100 ms of it. The packets after them go on with the tones, from another point of them."""
    tones, row = KeyTones(1), np.zeros(1, np.intp)

    def press(phase: float) -> list[str]:
        sound = key_sound("5", 0.1, phase=phase).reshape(-1, WINDOW)
        return [key for block in sound for _, key in tones.hear(row, block[None])]

    assert press(0.0) == ["5"]
    for lost in (1, 2, 3, 4, 5):
        for _ in range(lost):
            tones.miss(0)
            assert tones.sounding(row).tolist() == [True]
        assert press(lost) == []
    for _ in range(6):
        tones.miss(0)
    assert tones.sounding(row).tolist() == [False]
    assert press(0.0) == ["5"]
    tones.reset(0)
    assert press(0.0) == ["5"]


@pytest.mark.parametrize("every", [1, 2])
def test_a_press_whose_packets_come_late_is_heard(every: int) -> None:
    """On a network so busy that there is nothing to play after each frame, or after every second one."""
    tones, row, heard = KeyTones(1), np.zeros(1, np.intp), ""
    for key in KEYS:
        sound = np.concatenate((key_sound(key, 0.1), np.zeros(800))).astype(np.float32)
        for n, block in enumerate(sound.reshape(-1, WINDOW)):
            heard += "".join(key for _, key in tones.hear(row, block[None]))
            if n % every == 0:
                tones.miss(0)
    assert heard == KEYS


def human_speech(voice: str, seconds: float) -> list[Floats]:
    """Prompts of one person, float32 at 8 kHz, a line each."""
    found: list[Floats] = []
    have = 0.0
    for path in sorted(need_sounds(voice).rglob("*.wav")):
        if "dtmf" in path.name or "beep" in path.name or "tone" in path.name:
            continue
        with wave.open(str(path)) as sound:
            assert sound.getframerate() == RATE_HZ
            found.append(
                np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32) / 32768
            )
        have += len(found[-1]) / RATE_HZ
        if have > seconds:
            break
    return found


@pytest.mark.parametrize("voice", VOICES)
def test_people_who_speak_press_no_key(voice: str) -> None:
    """Two minutes of each, after G.711, at three levels."""
    speech = human_speech(voice, 120.0)
    for gain in (1.0, 0.3, 2.5):
        assert "".join(heard_in([mu_law(sound * np.float32(gain)) for sound in speech])) == ""


def test_no_key_is_taken_for_speech() -> None:
    """By the network that judges who speaks, so that a key neither interrupts nor begins a turn."""
    pause = np.random.default_rng(5).normal(size=4000).astype(np.float32) * 1e-3
    for key in KEYS:
        voices, row = VoiceActivity(1), np.zeros(1, np.intp)
        sound = np.concatenate((pause, key_sound(key, 0.5), pause))
        judged = [
            voices.judge(row, sound[at : at + WINDOW][None]).get(0, 0.0)
            for at in range(0, len(sound) - WINDOW, WINDOW)
        ]
        assert max(judged) < 0.35, key
