"""audiowmark (Stefan Westerfeld's, GPL) on the same excerpts, and on the minute it is made for.

Its keyed 128-bit message counts when it is read exactly; its detector is asked as it comes, with no threshold
of ours.
"""

from __future__ import annotations

import resource
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.watermark_channels import attacks
from benchmarks.watermark_speech import RATE_HZ
from watermark import sound

MESSAGE = "0123456789abcdef0011223344556677"


def run(*arguments: str | Path) -> str:
    command = ["audiowmark", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def child_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(
    voices: dict[str, np.ndarray], seconds: int, names: tuple[str, ...]
) -> tuple[dict[str, str], list[tuple[np.ndarray, np.ndarray]]]:
    """Rows of the table for excerpts of `seconds` through these channels, and (plain, marked) clips."""
    length = seconds * RATE_HZ
    channels = {attack.name: attack.channel for attack in attacks()}
    hits = dict.fromkeys((*names, "unmarked"), 0)
    clips: list[tuple[np.ndarray, np.ndarray]] = []
    took = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        key, path, marked_path = Path(folder, "key"), Path(folder, "in.wav"), Path(folder, "out.wav")
        run("gen-key", key)

        def reads(samples: np.ndarray, rate_hz: int) -> bool:
            sound.write(path, samples, rate_hz)
            return MESSAGE in run("get", "--key", key, path)

        for voice in voices.values():
            for at in range(0, len(voice) - length + 1, length):
                plain = voice[at : at + length]
                hits["unmarked"] += reads(plain, RATE_HZ)
                sound.write(path, plain, RATE_HZ)
                began = child_s()
                run("add", "--key", key, path, marked_path, MESSAGE)
                took[0] += child_s() - began
                marked = sound.read(marked_path).channels[0]
                clips.append((plain, marked))
                for name in names:
                    sent = channels[name](marked, RATE_HZ)
                    began = child_s()
                    hits[name] += reads(*sent)
                    took[1] += child_s() - began
    rows = {f"{name}, {seconds} s": f"message read: {found}/{len(clips)}" for name, found in hits.items()}
    embed, look = took[0] / (seconds * len(clips)), took[1] / (seconds * len(clips) * len(names))
    rows[f"cost, {seconds} s"] = f"CPU-seconds per second of sound: mark {embed:.4f}, detect {look:.4f}"
    return rows, clips
