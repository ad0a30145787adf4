"""An utterance is understood while the caller is silent, before anybody says that it is over."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from model.api import RATE_HZ, Floats
from model.embedded.ears import EARLY, QUIET_S, Ears, Listening
from model.embedded.evidence import NOTHING, Hearing

PHRASES = ["good morning"]
CHUNK = RATE_HZ // 50


class Notes(Ears):
    """Ears that note how much they were given, and answer that."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def understand(self, pcm: Floats, phrases: Sequence[str]) -> Hearing:
        self.asked.append(len(pcm))
        return Hearing(f"{len(pcm)} samples", 1.0, True)


def sound(seconds: float, amplitude: float, seed: int = 1) -> Floats:
    noise = np.random.default_rng(seed).normal(0, amplitude, round(seconds * RATE_HZ))
    return noise.astype(np.float32)


async def hear(listening: Listening, *parts: Floats) -> None:
    for part in parts:
        for at in range(0, len(part), CHUNK):
            listening.hear(part[at : at + CHUNK], PHRASES)
            await asyncio.sleep(0)


SPEECH, LINE = sound(0.8, 0.1), sound(0.3, 0.001)


@pytest.fixture
def notes() -> Notes:
    return Notes()


async def test_the_answer_is_there_when_the_turn_is_over(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, LINE, SPEECH, sound(QUIET_S + 0.02, 0.001))
    (asked,) = notes.asked
    await hear(listening, sound(0.2, 0.001))
    assert await listening.finish(PHRASES) == Hearing(f"{asked} samples", 1.0, True)
    assert notes.asked == [asked]


async def test_speech_after_a_pause_asks_anew(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, LINE, SPEECH, LINE, SPEECH, LINE)
    whole = await listening.finish(PHRASES)
    assert len(notes.asked) == 2
    assert whole.phrase == f"{notes.asked[1]} samples"
    assert notes.asked[1] > 2 * len(SPEECH)


async def test_without_a_pause_the_answer_is_sought_at_the_end(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, LINE, SPEECH)
    assert notes.asked == []
    await listening.finish(PHRASES)
    assert notes.asked == [len(LINE) + len(SPEECH)]


async def test_another_grammar_asks_anew(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, SPEECH, LINE)
    await listening.finish([*PHRASES, "yes"])
    assert len(notes.asked) == 2


async def test_utterances_do_not_run_into_each_other(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, SPEECH, LINE)
    listening.clear()
    assert listening.seconds == 0
    assert await listening.finish(PHRASES) is NOTHING
    await hear(listening, SPEECH)
    await listening.finish(PHRASES)
    assert notes.asked[-1] == len(SPEECH)


async def test_a_stammering_caller_is_not_sought_for_at_every_pause(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, *[part for _ in range(3 * EARLY) for part in (SPEECH, LINE)])
    assert len(notes.asked) == EARLY
    await listening.finish(PHRASES)
    assert len(notes.asked) == EARLY + 1


async def test_noise_of_a_bad_line_is_silence_all_the_same(notes: Notes) -> None:
    """20 dB below the speech: heard apart by the quietest it was."""
    listening = Listening(notes)
    await hear(listening, sound(0.3, 0.01), SPEECH, sound(0.3, 0.01))
    assert len(notes.asked) == 1


def test_a_killed_engine_leaves_no_recogniser_behind(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from model.embedded.ears import Ears\n"
        "async def main():\n"
        "    ears = Ears()\n"
        "    await ears.ready()\n"
        "    print(*ears._pool._processes, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    script = tmp_path / "engine.py"
    script.write_text(program)
    root = Path(__file__).parents[3]
    engine = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert engine.stdout is not None
    workers = [int(pid) for pid in engine.stdout.readline().split()]
    assert workers
    descriptors = [os.pidfd_open(pid) for pid in workers]
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 5.0)[0], "a worker outlived its engine by five seconds"
        os.close(descriptor)
