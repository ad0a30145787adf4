"""The child of the public detector: one recording on stdin, one word on stdout, inside hard limits.

`python -m watermark.examine KEYS` says `yes`, `no` or `unsure` and what was examined, or `wrong <reason>`.

Each channel is searched with each key, the newest key first, since it marks; the first mark that is found
is the answer. No search is begun when `ENOUGH_CPU_S` are used up: then the answer is `unsure`, and says how
much was examined. The CPU time that the child may take at all grows with the recording; a child that takes
more dies of SIGXCPU, and that says nothing about it.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

from watermark import sound
from watermark.detect import apart, detect
from watermark.errors import SoundError
from watermark.judge import NOTHING, Detection, clearest, of_many
from watermark.keys import KeyRing
from watermark.whiten import SHORTEST_S

START_CPU_S: Final = 20
"""CPU seconds to start in and to read the file."""
CPU_S_PER_SEARCH_S: Final = 0.5
"""More of them for each second of each channel with each key: three times what a search of both layers
takes."""
ENOUGH_CPU_S: Final = 150.0
"""After so many no search is begun: a minute of stereo with eight keys of both layers takes them."""
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


@dataclass(frozen=True, slots=True)
class Examined:
    """The best of what was found; `done` of `all` searches, one for each channel and key."""

    found: Detection
    done: int
    all: int


def answer(recording: sound.Recording, keys: KeyRing, enough_cpu_s: float = ENOUGH_CPU_S) -> str:
    """One word, and what was examined. Raises `SoundError` for what is not."""
    if recording.seconds > LONGEST_S:
        raise SoundError(f"it is longer than {LONGEST_S:.0f} s: send the part in question")
    if recording.seconds < SHORTEST_S:
        raise SoundError(f"it is shorter than {SHORTEST_S:.0f} s")
    allow_cpu(cpu_s(recording.seconds, len(recording.channels), len(keys.keys)))
    examined = search(recording, keys, enough_cpu_s)
    said = word(examined.found, recording.seconds)
    if examined.done < examined.all and said == "no":
        said = "unsure"
    return f"{said} {_told(recording, keys, examined)}"


def search(recording: sound.Recording, keys: KeyRing, enough_cpu_s: float) -> Examined:
    """Each channel with each key, the newest first, until a mark is found or the time is up. Every key counts
    as tried."""
    channels = apart(recording)
    best, done, every = NOTHING, 0, len(channels) * len(keys.keys)
    for key in reversed(keys.keys):
        for channel in channels:
            if done and time.process_time() > enough_cpu_s:
                return Examined(best, done, every)
            found = of_many(detect(channel, recording.rate_hz, [key]), len(keys.keys))
            best, done = clearest([best, found]), done + 1
            if best.detected:
                return Examined(best, done, every)
    return Examined(best, done, every)


def _told(recording: sound.Recording, keys: KeyRing, examined: Examined) -> str:
    """What was examined: never which key or channel it was."""
    whole = f"{recording.seconds:.1f} s in {_count(len(recording.channels), 'channel')}"
    if examined.found.detected or examined.done == examined.all:
        return f"{whole}, with {_count(len(keys.keys), 'key')}"
    return (
        f"{whole}: {examined.done} of {examined.all} searches (a channel with a key) were done in the time "
        "there is; send one channel, or a shorter part"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


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
