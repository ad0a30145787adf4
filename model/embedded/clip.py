"""The stock voice as a clip, for an engine that speaks as whoever it has heard.

    python -m model.embedded.clip FOLDER

writes `heart.wav` and its words, `heart.txt`, where the consent office finds them.
"""

from __future__ import annotations

import asyncio
import sys
import wave
from pathlib import Path
from typing import Final

import numpy as np

from model import json_log
from model.api import RATE_HZ
from model.embedded.mouth import Mouth
from watermark.pcm import bytes_from_float

NAME: Final = "heart"
WORDS: Final = (
    "The sun came up over the harbour, and the first boats were already on their way home. Somebody laughed, "
    "a bell rang twice, and on the other side of the water a train began to move."
)


async def write(folder: Path) -> None:
    """Renders the clip. The words come last: a clip without them is not used."""
    mouth = Mouth()
    try:
        sound = np.concatenate([pcm async for _, pcm in mouth.speak(WORDS)])
    finally:
        mouth.close()
    with wave.open(str(folder / f"{NAME}.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(bytes_from_float(sound))
    (folder / f"{NAME}.txt").write_text(WORDS)


def main() -> None:
    json_log.configure("clip")
    asyncio.run(write(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
