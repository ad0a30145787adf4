"""What the mel's maximum costs when speech is encoded while it is spoken.

    python -m benchmarks.engine_hearing CHECKPOINT [FOLDER_OF_WAVS]

Human prompts (Debian's asterisk-core-sounds packages) of 2.5 s and more, at the telephone's 8 kHz, come in
pieces of 20 ms, and are looked at as the engine does (`Utterance`): "exact" encodes a chunk again when a
louder one changes it, "running" never does.
"""

from __future__ import annotations

import sys
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soxr
import torch

from model.api import RATE_HZ, Floats
from model.chroma.network import checkpoint
from model.chroma.network.hearing import Ear, Mel
from model.chroma.serving.utterance import Utterance
from watermark.pcm import float_from_bytes

SOUNDS: Final = Path("/usr/share/asterisk/sounds")
SHORTEST_S: Final = 2.5
MOST: Final = 400
PIECE: Final = RATE_HZ // 50


def read(path: Path) -> Floats:
    """A WAV at 24 kHz."""
    with wave.open(str(path)) as file:
        sound = float_from_bytes(file.readframes(file.getnframes()))
        resampled: Floats = soxr.resample(sound, file.getframerate(), RATE_HZ)
        return resampled


@dataclass
class Listened:
    """How an utterance was heard: `late` chunks were encoded a second time at its end; `looks` took so many
    seconds of a thread's CPU for mel frames."""

    ear: Ear
    late: int
    looks: int
    seconds: float


def hear(utterance: Utterance, sound: Floats) -> Listened:
    """All of it, as it comes."""
    looks, seconds, ear = 0, 0.0, utterance.ear

    def look(over: bool) -> None:
        nonlocal looks, seconds
        looks += 1
        began = time.thread_time()
        wanted = utterance.attend(utterance.take(), over)
        seconds += time.thread_time() - began
        if wanted is not None:
            utterance.learn(wanted, ear.tower.encode(wanted.mels))

    for at in range(0, len(sound), PIECE):
        if utterance.hear(sound[at : at + PIECE]):
            look(over=False)
    before, known = ear.encoded_chunks, ear.chunks
    look(over=True)
    return Listened(ear, ear.encoded_chunks - before - (ear.chunks - known), looks, seconds)


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    model = checkpoint.load(Path(sys.argv[1]), device=torch.device("cpu"), dtype=torch.float32)
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else SOUNDS
    tower, mel = model.thinker.audio_tower, Mel(model.config.hearing.mels)
    chunks = again = late = changed = heard = looks = 0
    worst_mel = worst_token = 0.0
    apart = total = seconds = spoken = 0.0
    shares = []
    for path in sorted(folder.rglob("*.wav")):
        sound = read(path)
        if len(sound) < SHORTEST_S * RATE_HZ:
            continue
        listened = hear(Utterance(tower, mel, "exact"), sound)
        exact, running = listened.ear, hear(Utterance(tower, mel, "running"), sound).ear
        late += listened.late > 0
        looks, seconds = looks + listened.looks, seconds + listened.seconds
        spoken += len(sound) / RATE_HZ
        count = exact.chunks
        chunks, again, heard = chunks + count, again + exact.encoded_chunks - count, heard + 1
        apart += float((exact.heard() - running.heard()).pow(2).sum())
        total += float(exact.heard().pow(2).sum())
        difference = (exact.heard() - running.heard()).abs()
        if difference.max() > 1e-4:
            changed += 1
            worst_token = max(worst_token, float(difference.max()))
            shares.append(float((difference.max(dim=1).values > 1e-4).float().mean()))
            floors = [c.floor for c in running._chunks]
            worst_mel = max(worst_mel, (max(floors) - min(floors)) / 4)
        if heard == MOST:
            break
    print(f"{heard} utterances of {SHORTEST_S} s and more, {chunks} chunks")
    print(f"exact: {looks} looks, {1000 * seconds / spoken:.2f} ms of CPU for mels in a second of speech,")
    print(f"  {again} chunks encoded again ({again / chunks:.1%}),")
    print(f"  at the end of speech in {late} utterances ({late / heard:.1%})")
    print(f"running: {changed} utterances ({changed / heard:.1%}) heard differently,")
    print(
        f"  in {np.mean(shares or [0]):.0%} of their tokens; the floor up to {worst_mel:.2f} lower (in mels)"
    )
    print(
        f"  tokens: largest difference {worst_token:.3f}, rms {np.sqrt(apart / total):.1%} of all tokens' rms"
    )


if __name__ == "__main__":
    main()
