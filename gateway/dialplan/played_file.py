"""A recording of the operator's own, for the verb `play`: which file it may be, and what is wrong with it.

It lies in the plans' folder. A path that leads out of it, by `..` or by a link, is refused where the file is
opened, so that a link which is changed after the check leads nowhere. A plan is checked when it loads, and a
hall reads by the same rules.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.errors import PlayedFileError

_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_. -]*"
PATH: Final = re.compile(rf"(?:{_NAME}/)*{_NAME}\.wav", re.IGNORECASE)
"""Names from the folder downwards; none begins with a dot."""
HOUSE_HZ: Final = 24_000
"""The rate that all sound of ours has until it leaves for a line."""
LONGEST_S: Final = 300.0
SHORTEST_S: Final = 0.1
LARGEST_BYTES: Final = 64 << 20
LOWEST_HZ: Final = 8_000
HIGHEST_HZ: Final = 192_000
SILENT: Final = 0.003
"""A recording whose loudest 20 ms have a lower rms (-50 dB) is silence: so much the mark needs, too."""
FULL: Final = 0.999
"""A sample at or beyond this is as loud as a file can say."""
CLIPPED_RUN: Final = 3
"""So many of them in a row were louder before they were recorded …"""
CLIPPED_SHARE: Final = 0.001
"""… and this share of all samples in such runs is heard."""
LEVEL: Final = 0.1
"""The rms (-20 dB) that the sounding parts of a recording are brought to."""
MOST_GAIN: Final = 10.0
PEAK: Final = 0.89
"""-1 dB: what gain may make of the loudest sample."""
SOUNDS: Final = 0.03
"""20 ms with this share (-30 dB) of the loudest 20 ms' rms sound; the rest are pauses."""


@dataclass(frozen=True, slots=True)
class PlayedFile:
    """A recording that may be played: mono float32 in [-1, 1] at `rate_hz`, as the file has it."""

    samples: Any
    rate_hz: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return float(len(self.samples) / self.rate_hz)

    @property
    def gain(self) -> float:
        """What brings its sounding parts to `LEVEL`, within bounds."""
        levels = _levels(self.samples, self.rate_hz)
        sounding = levels[levels >= SOUNDS * levels.max()]
        wanted = LEVEL / float((sounding**2).mean() ** 0.5)
        return min(wanted, MOST_GAIN, PEAK / float(abs(self.samples).max()))

    def at_house_rate(self, *, normalise: bool) -> Any:
        """float32 mono at `HOUSE_HZ`, with `gain` where that is wanted."""
        import numpy as np
        import soxr

        samples = self.samples * np.float32(self.gain if normalise else 1.0)
        return np.asarray(soxr.resample(samples, self.rate_hz, HOUSE_HZ), np.float32)


def why_no_path(path: str) -> str | None:
    """Why `path` cannot name a recording; None when it can."""
    if os.path.isabs(path) or "\\" in path or ".." in path.split("/"):
        return 'a recording is in the folder of the plans; write its path from there: "prompts/hello.wav"'
    if not path.lower().endswith(".wav"):
        return "it is not a .wav file; convert it with: ffmpeg -i IN -ac 1 -ar 24000 OUT.wav"
    if len(path) > 200 or PATH.fullmatch(path) is None:
        return "letters, digits, spaces and - _ . make its name; no part of it begins with a dot"
    return None


def read_played(folder: Path, path: str) -> PlayedFile:
    """The recording at `path` in the plans' `folder`. Reads a file: not for an event loop.

    Raises `PlayedFileError` with what is wrong, and what helps.
    """
    from watermark import sound  # with numpy: only a process that has to do with recordings needs them
    from watermark.errors import SoundError

    if (why := why_no_path(path)) is not None:
        raise PlayedFileError(why)
    try:
        whole = sound.parse(_bytes(folder, path))
    except SoundError as error:
        raise PlayedFileError(str(error)) from None
    if not LOWEST_HZ <= whole.rate_hz <= HIGHEST_HZ:
        raise PlayedFileError(f"its rate is {whole.rate_hz} Hz; {LOWEST_HZ} to {HIGHEST_HZ} Hz can be played")
    if len(whole.channels) > 2:
        raise PlayedFileError(f"it has {len(whole.channels)} channels; one or two can be played")
    if not SHORTEST_S <= whole.seconds <= LONGEST_S:
        raise PlayedFileError(
            f"it is {whole.seconds:.2f} s long; {SHORTEST_S:g} to {LONGEST_S:g} s can be played"
        )
    if (why := _why_unfit(whole.channels, whole.rate_hz)) is not None:
        raise PlayedFileError(why)
    return PlayedFile(whole.channels.mean(axis=0), whole.rate_hz)


def _bytes(folder: Path, path: str) -> bytes:
    """Raises `PlayedFileError` for what is not a file within the folder, wherever links lead."""
    try:
        inside = folder.resolve(strict=True)
        opened = os.open(folder / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise PlayedFileError("there is no such file in the folder of the plans") from None
    except OSError as error:
        raise PlayedFileError(f"it cannot be read: {error.strerror}") from None
    try:
        about = os.fstat(opened)
        if not Path(os.readlink(f"/proc/self/fd/{opened}")).is_relative_to(inside):
            raise PlayedFileError("a link leads out of the folder of the plans; put the file itself there")
        if not stat.S_ISREG(about.st_mode):
            raise PlayedFileError("it is a folder or a device, not a file")
        if about.st_size > LARGEST_BYTES:
            raise PlayedFileError(f"it is larger than {LARGEST_BYTES >> 20} MiB")
        with os.fdopen(os.dup(opened), "rb") as file:
            return file.read(LARGEST_BYTES)
    except OSError as error:
        raise PlayedFileError(f"it cannot be read: {error.strerror}") from None
    finally:
        os.close(opened)


def _why_unfit(channels: Any, rate_hz: int) -> str | None:
    """What is wrong with float32 `(C, n)`; None when nothing is."""
    import numpy as np

    if not np.isfinite(channels).all():
        return "some of its samples are not numbers: the file is damaged"
    mono = channels.mean(axis=0)
    if float(_levels(mono, rate_hz).max()) < SILENT:
        opposite = len(channels) == 2 and float(_levels(channels[0], rate_hz).max()) >= SILENT
        return "its two channels cancel each other out" if opposite else "it is silent"
    for one in channels:
        if (share := _clipped(one)) > CLIPPED_SHARE:
            return f"it is clipped ({share:.1%} of its samples): record or export it at a lower level"
    return None


def _levels(mono: Any, rate_hz: int) -> Any:
    """The rms of each 20 ms, float64; of what is left at the end none, but where there is nothing else."""
    import numpy as np

    size = min(len(mono), rate_hz // 50)
    whole = mono[: len(mono) // size * size].reshape(-1, size).astype(np.float64)
    return np.sqrt(np.square(whole).mean(axis=1))


def _clipped(one: Any) -> float:
    """The share of a channel's samples that are in runs at full scale."""
    import numpy as np

    full = np.concatenate(([False], np.abs(one) >= FULL, [False]))
    edges = np.flatnonzero(full[1:] != full[:-1])
    runs = edges[1::2] - edges[::2]
    return float(runs[runs >= CLIPPED_RUN].sum() / len(one))
