"""Speech for the watermark's tests: the embedded engine's voice, and human prompts where they are
installed."""

from pathlib import Path

import numpy as np
import pytest

from watermark import sound
from watermark.keys import KeyRing, MarkKey

PROMPTS = Path("/usr/share/asterisk/sounds")  # Debian: asterisk-core-sounds-*-wav


@pytest.fixture(scope="session")
def key() -> MarkKey:
    return MarkKey("wm-beef", 0xBEEF, bytes(range(32)))


@pytest.fixture(scope="session")
def ring(key: MarkKey) -> KeyRing:
    return KeyRing((MarkKey("wm-0001", 1, bytes(32)), key))


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """12 s at 24 kHz, float32."""
    from hibari import Hibari

    speak = Hibari(threads=1)
    said = [
        "Thank you for calling the clinic. This is an artificial voice. How may I help you today?",
        "Your appointment is on Monday the fourth of June, at ten thirty in the morning.",
        "We are open from nine to five on weekdays, and from ten to two on Saturdays.",
    ]
    spoken = np.concatenate([np.asarray(speak(text, seed=0), np.float32) for text in said])
    assert len(spoken) > 12 * 24_000
    return spoken[: 12 * 24_000]


@pytest.fixture(scope="session")
def prompt() -> tuple[np.ndarray, int]:
    """The longest human prompt, 20 s of it, with its rate."""
    found = sorted(PROMPTS.glob("fr_*/**/*.wav"), key=lambda path: path.stat().st_size)
    if not found:
        pytest.skip(f"no human prompts in {PROMPTS}: apt-get install asterisk-core-sounds-fr-wav")
    recording = sound.read(found[-1])
    return recording.channels[0][: 20 * recording.rate_hz], recording.rate_hz
