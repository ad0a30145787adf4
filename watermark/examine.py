"""The child of the public detector: one recording on stdin, one word on stdout, inside hard limits.

`python -m watermark.examine KEYS`; says `yes`, `no`, `unsure` or `wrong <reason>`. The CPU time that it may
take grows with the recording; a child that takes more dies of SIGXCPU, and that says nothing about it.
"""

from __future__ import annotations

import resource
import sys
from math import ceil
from pathlib import Path
from typing import Final

from watermark import sound
from watermark.detect import Detection, detect_recording
from watermark.errors import SoundError
from watermark.keys import KeyRing
from watermark.whiten import SHORTEST_S

START_CPU_S: Final = 20
"""CPU seconds to start in and to read the file."""
CPU_S_PER_SEARCH_S: Final = 0.5
"""More of them for each second of each channel with each key: four times what a search takes."""
MOST_CPU_S: Final = 1200
"""Enough for a minute in four channels with nine keys."""
MEMORY_BYTES: Final = 3 << 30
LONGEST_S: Final = 60.0
SURE_S: Final = 5.0
"""A shorter recording without a mark is `unsure`: it may be too short to show one."""
SUSPECT: Final = 1e-3
"""A recording whose p-value is below this, yet too large for a yes, is `unsure` too."""


def limit() -> None:
    """CPU, memory and files of this process, from now on."""
    allow_cpu(START_CPU_S)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_cpu(seconds: int) -> None:
    """This process is ended by SIGXCPU when it has used so many CPU seconds since it began."""
    resource.setrlimit(resource.RLIMIT_CPU, (min(seconds, MOST_CPU_S), MOST_CPU_S))


def cpu_s(seconds: float, channels: int, keys: int) -> int:
    """CPU seconds that the examination of a recording may take, the start included."""
    return START_CPU_S + ceil(CPU_S_PER_SEARCH_S * seconds * channels * keys)


def answer(recording: sound.Recording, keys: KeyRing) -> str:
    """Raises `SoundError` for what is not examined."""
    if recording.seconds > LONGEST_S:
        raise SoundError(f"it is longer than {LONGEST_S:.0f} s: send the part in question")
    if recording.seconds < SHORTEST_S:
        raise SoundError(f"it is shorter than {SHORTEST_S:.0f} s")
    allow_cpu(cpu_s(recording.seconds, len(recording.channels), len(keys.keys)))
    return word(detect_recording(recording, keys), recording.seconds)


def word(found: Detection, seconds: float) -> str:
    if found.detected:
        return "yes"
    return "unsure" if seconds < SURE_S or found.p_value < SUSPECT else "no"


def main() -> None:
    keys = KeyRing.load(Path(sys.argv[1]))
    limit()
    try:
        print(answer(sound.parse(sys.stdin.buffer.read()), keys))
    except SoundError as error:
        print("wrong", error)


if __name__ == "__main__":
    main()
