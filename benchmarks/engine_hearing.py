"""What the mel's maximum costs when speech is encoded while it is spoken.

    python -m benchmarks.engine_hearing CHECKPOINT [FOLDER_OF_WAVS]

Human prompts (Debian's asterisk-core-sounds packages) of 2.5 s and more, at the telephone's 8 kHz, are heard
in pieces of half a second, as the engine does: "exact" encodes a chunk again when a louder one changes it,
"running" never does.
"""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import numpy as np
import soxr
import torch

from model.chroma.network import checkpoint
from model.chroma.network.hearing import EAR_HZ, Ear, Mel
from watermark.pcm import float_from_bytes

SOUNDS = Path("/usr/share/asterisk/sounds")
SHORTEST_S = 2.5
MOST = 400
PIECE = EAR_HZ // 2


def read(path: Path) -> torch.Tensor:
    """A WAV at 16 kHz."""
    with wave.open(str(path)) as file:
        sound = float_from_bytes(file.readframes(file.getnframes()))
        return torch.from_numpy(soxr.resample(sound, file.getframerate(), EAR_HZ))


def hear(ear: Ear, sound: torch.Tensor) -> int:
    """Listens piece by piece; answers how many chunks the last piece made it encode a second time."""
    *pieces, last = torch.split(sound, PIECE)
    for piece in pieces:
        ear.push(piece)
        ear.listen()
    before, known = ear.encoded_chunks, ear.chunks
    ear.push(last)
    ear.finish()
    ear.listen()
    return ear.encoded_chunks - before - (ear.chunks - known)


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    model = checkpoint.load(Path(sys.argv[1]), device=torch.device("cpu"), dtype=torch.float32)
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else SOUNDS
    tower, mel = model.thinker.audio_tower, Mel(model.config.hearing.mels)
    chunks = again = late = changed = heard = 0
    worst_mel = worst_token = 0.0
    apart = total = 0.0
    shares = []
    for path in sorted(folder.rglob("*.wav")):
        sound = read(path)
        if len(sound) < SHORTEST_S * EAR_HZ:
            continue
        exact, running = Ear(tower, mel), Ear(tower, mel, "running")
        late += hear(exact, sound) > 0
        hear(running, sound)
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
    print(f"exact: {again} chunks encoded again ({again / chunks:.1%}),")
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
