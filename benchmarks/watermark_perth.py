"""resemble-perth on the same excerpts, run by a Python that has it (`VOICEGATE_PERTH_PYTHON`).

`python watermark_perth.py IN.npz OUT.json MARKED.npz`; its own detector decides with its own threshold (.5).
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

RATE_HZ = 24_000
LENGTH = 5 * RATE_HZ
CHANNELS = (
    "clean",
    "G.711 mu",
    "G.722",
    "Opus 16k",
    "GSM-FR",
    "AMR 12.2",
    "Opus 12k",
    "20 dB noise",
    "AMR 7.4",
)


def main() -> None:
    import perth

    from benchmarks.watermark_channels import attacks

    marker = perth.PerthImplicitWatermarker()
    channels = {attack.name: attack.channel for attack in attacks()}
    voices = np.load(sys.argv[1])
    out: dict[str, str] = {}
    kept: dict[str, list[np.ndarray]] = {voice: [] for voice in voices.files}
    took = [0.0, 0.0]
    hits = dict.fromkeys((*CHANNELS, "unmarked"), 0)
    count = 0
    for voice in voices.files:
        for at in range(0, len(voices[voice]) - LENGTH + 1, LENGTH):
            plain = voices[voice][at : at + LENGTH]
            began = time.process_time()
            marked = np.asarray(marker.apply_watermark(plain, sample_rate=RATE_HZ), np.float32)
            took[0] += time.process_time() - began
            kept[voice].append(marked)
            count += 1
            hits["unmarked"] += float(np.mean(marker.get_watermark(plain, sample_rate=RATE_HZ))) > 0.5
            for name in CHANNELS:
                samples, rate_hz = channels[name](marked, RATE_HZ)
                began = time.process_time()
                hits[name] += float(np.mean(marker.get_watermark(samples, sample_rate=rate_hz))) > 0.5
                took[1] += time.process_time() - began
    for name, found in hits.items():
        out[f"{name}, 5 s"] = f"says marked: {found}/{count}"
    embed, look = took[0] / (5 * count), took[1] / (5 * count * len(CHANNELS))
    out["cost"] = f"CPU-seconds per second of sound: mark {embed:.4f}, detect {look:.4f}"
    Path(sys.argv[2]).write_text(json.dumps(out))
    joined = {voice: np.concatenate(parts) for voice, parts in kept.items()}
    np.savez(sys.argv[3], **joined)  # type: ignore[arg-type]  # numpy: a voice might be called allow_pickle


if __name__ == "__main__":
    main()
