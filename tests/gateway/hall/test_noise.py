"""Who speaks to us, and what is only there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from gateway.dialplan import Answer, Converse
from gateway.hall.media.audio import Floats
from gateway.hall.media.noise import NoiseFloor
from tests.gateway.hall.speakerphone import prompts
from tests.gateway.hall.virtual_hall import House, Loudness
from tests.needs import SOUNDS

HOUSE_TIME = True

FRAME = 160
ROW = np.array([3], np.intp)


def noise(seconds: float, level: float = 0.02) -> Floats:
    return np.random.default_rng(1).normal(0, level, round(seconds * 8_000)).astype(np.float32)


def speech(seconds: float) -> Floats:
    """Human prompts one after the other."""
    return np.concatenate(prompts(SOUNDS / "it_IT_m_Carlo", 1.5, 4.0))[: round(seconds * 8_000)]


def believed(floor: NoiseFloor, sound: Floats, *, speaking: bool = True) -> np.ndarray:
    """Frame by frame: whether a judge who says "speech" is believed."""
    found = []
    for at in range(0, len(sound) - FRAME + 1, FRAME):
        judged = {3: 0.9}
        floor.hear(ROW, sound[None, at : at + FRAME])
        floor.doubt(ROW, judged, [speaking])
        found.append(judged[3] > 0.5)
    return np.array(found)


def loud(sound: Floats) -> np.ndarray:
    """Frames that hold a good part of the voice."""
    frames = sound[: len(sound) // FRAME * FRAME].reshape(-1, FRAME)
    level = np.sqrt(np.mean(frames**2, axis=1))
    return np.asarray(level > 0.3 * np.percentile(level, 95))


def test_what_has_been_there_all_the_time_is_nobody() -> None:
    for speaking in (True, False):
        assert np.mean(believed(NoiseFloor(8), noise(6.0), speaking=speaking)[100:]) < 0.02


def test_who_begins_must_be_louder_than_who_goes_on() -> None:
    sound = np.concatenate((noise(4.0), noise(0.5) * np.float32(10 ** (7 / 20))))
    assert believed(NoiseFloor(8), sound)[-15:].all()
    assert not believed(NoiseFloor(8), sound, speaking=False)[-15:].any()


def test_a_caller_is_believed_on_a_quiet_line_and_before_noise() -> None:
    voice = speech(10.0)
    assert np.mean(believed(NoiseFloor(8), voice)[loud(voice)]) > 0.98
    behind = noise(13.0, 0.01)
    floor = NoiseFloor(8)
    believed(floor, behind[:24_000])
    assert np.mean(believed(floor, voice + behind[24_000:])[loud(voice)]) > 0.95


def test_in_the_first_second_everybody_is_believed() -> None:
    assert believed(NoiseFloor(8), noise(0.9)).all()


def test_a_row_that_is_given_to_another_call_knows_nothing_of_the_noise_before() -> None:
    floor = NoiseFloor(8)
    believed(floor, noise(3.0))
    floor.reset(3)
    assert believed(floor, noise(0.1)).all()


def test_each_call_has_a_noise_of_its_own() -> None:
    floor, both = NoiseFloor(8), np.array([3, 5], np.intp)
    voice, behind = speech(4.0), noise(4.0)
    doubts = {3: 0, 5: 0}
    for at in range(0, len(voice) - FRAME + 1, FRAME):
        judged = dict.fromkeys(doubts, 0.9)
        floor.hear(both, np.stack((voice[at : at + FRAME], behind[at : at + FRAME])))
        floor.doubt(both, judged, [True, True])
        for row in doubts:
            doubts[row] += judged[row] == 0.0
    assert doubts[5] > 90
    assert doubts[3] < 30


@pytest.fixture
async def noisy(tmp_path: Path) -> House:
    """A hall whose judge takes for speech whatever is loud."""
    return House(tmp_path, activity=Loudness())


async def test_a_noise_that_begins_while_we_talk_stops_us_once_at_most(noisy: House) -> None:
    await noisy.open()
    try:
        noisy.engine.knows_asides = True
        verb = Converse(instructions="x", greeting="a b c d e f g h i j", silence_s=60.0)
        phone = await noisy.ring(Answer(), verb)
        await noisy.until(lambda: phone.heard_s() > 0.3)
        phone.play(noise(12.0, 0.1))
        await asyncio.sleep(3.0)
        call = noisy.call(phone)
        turns = len(noisy.events(phone, "barge_in"))
        assert turns <= 1
        for _ in range(90):
            await asyncio.sleep(0.1)
            assert not call.ear.turns.speaking
        assert len(noisy.events(phone, "barge_in")) == turns
    finally:
        await noisy.close()
