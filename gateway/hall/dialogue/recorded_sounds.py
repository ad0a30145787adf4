"""An operator's recordings, as a hall plays them: read once, at the house's rate, as loud as voices are.

Kept as int16, within bounds; each call marks them with its own payload when it plays them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.dialplan.played_file import read_played
from gateway.errors import PlayedFileError, VoicegateError
from watermark.pcm import int16_from_float

Pcm = NDArray[np.int16]
KEPT_BYTES: Final = 64 << 20
"""Of all recordings that are kept; the one that was played longest ago goes first."""

_Key = tuple[str, bool, int, int]
"""Path, whether it is normalised, when the file was written, and its length."""


class RecordedSounds:
    """Those in the plans' folder. A file that is another one than last time is read again."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        """`folder` names the plans' folder; it may raise a `VoicegateError`."""
        self._folder = folder
        self._kept: OrderedDict[_Key, Pcm] = OrderedDict()
        self._reading = asyncio.Lock()

    async def sound(self, path: str, *, normalise: bool) -> Pcm:
        """The recording at `path`, int16 24 kHz mono. Raises `PlayedFileError`."""
        async with self._reading:  # many calls that want the same one read it once
            return await asyncio.to_thread(self._sound, path, normalise)

    def _sound(self, path: str, normalise: bool) -> Pcm:
        try:
            folder = self._folder()
            about = (folder / path).stat()
        except VoicegateError as error:
            raise PlayedFileError(str(error)) from None
        except (OSError, ValueError):
            raise PlayedFileError("there is no such file in the folder of the plans") from None
        key = path, normalise, about.st_mtime_ns, about.st_size
        if (known := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return known
        pcm = int16_from_float(read_played(folder, path).at_house_rate(normalise=normalise))
        for old in [old for old in self._kept if old[:2] == key[:2]]:
            del self._kept[old]
        self._kept[key] = pcm
        while sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return pcm
