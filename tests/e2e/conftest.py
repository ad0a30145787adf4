"""One gateway for the tests that only call it; those that kill make their own."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.cli.caller.caller_sound import SPOKEN_HZ, spoken, write_wav
from tests.e2e.gateway_process import House
from watermark.pcm import bytes_from_float


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    gateway = House(tmp_path_factory.mktemp("house"))
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture
def own_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Starts gateways that the test may break."""
    houses: list[House] = []

    def start(**settings: object) -> House:
        gateway = House(tmp_path / f"house{len(houses)}", **settings)
        gateway.folder.mkdir()
        houses.append(gateway)
        gateway.start()
        return gateway

    yield start
    for gateway in houses:
        gateway.stop()


@pytest.fixture(scope="session")
def say(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A wav of somebody saying something: a caller's voice that is nobody's, lower than the bot's.

    espeak-ng's voices would be nobody's too, but the recogniser of words hardly understands them.
    """
    folder = tmp_path_factory.mktemp("spoken")

    def speak(text: str) -> Path:
        path = folder / f"{abs(hash(text))}.wav"
        if not path.exists():
            write_wav(path, bytes_from_float(spoken(text)), SPOKEN_HZ)
        return path

    return speak


def loudness(path: Path) -> np.ndarray:
    """RMS of each 20 ms of a mono 16-bit wav, in [0, 1]."""
    with wave.open(str(path)) as file:
        sound = np.frombuffer(file.readframes(1 << 26), "<i2") / 32768
        frame = file.getframerate() // 50
    whole = sound[: len(sound) // frame * frame].reshape(-1, frame)
    return np.sqrt((whole**2).mean(axis=1))
