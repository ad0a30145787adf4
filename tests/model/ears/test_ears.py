"""The ears' process: words for many, a bounded queue, a death that costs one utterance."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soxr

from consent.checks.sound import read
from consent.models.model_files import locked_model
from consent.whisper.whisper import ENGLISH
from model.api import RATE_HZ, Floats
from model.ears.ear_messages import LENGTHS, EarMessage, EarReader, Forget, Hear, Queue, written
from model.ears.ears_client import Ears
from model.errors import EarsError
from tests.model.embedded.callers import demo_phrases, espeak, telephone
from tests.needs import HANGS_S, MODELS, need_model, need_sounds

PROMPTS = {
    "conf-waitforleader": "The conference will begin when the leader arrives.",
    "vm-nonumber": "I'm afraid I don't know who sent this message.",
    "conf-unmuted": "You are now unmuted.",
}


def prompt(name: str) -> Floats:
    return soxr.resample(read(need_sounds() / f"{name}.wav").at_16k, 16_000, RATE_HZ)


@pytest.fixture
async def ears(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ears]:
    """Ears of this process' own, with the weights of English."""
    need_model(ENGLISH)
    monkeypatch.setenv("VOICEGATE_MODELS", str(MODELS))
    monkeypatch.delenv("VOICEGATE_EARS", raising=False)
    ears = await Ears.of_this_house()
    yield ears
    await ears.close()


@pytest.fixture
async def ears_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ears]:
    monkeypatch.setenv("VOICEGATE_MODELS", str(tmp_path))
    monkeypatch.delenv("VOICEGATE_EARS", raising=False)
    ears = await Ears.of_this_house()
    yield ears
    await ears.close()


def environ(pid: int) -> set[str]:
    """What the process was given."""
    return set(Path(f"/proc/{pid}/environ").read_text().split("\0"))


async def test_ears_of_an_engine_that_runs_alone_compute_on_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What more threads do between two questions is spin."""
    monkeypatch.setenv("VOICEGATE_MODELS", str(tmp_path))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    ears = await Ears.of_this_house({})
    given = environ(ears.process.pid)  # type: ignore[attr-defined]  # these are ears of its own
    assert {"OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1"} <= given
    await ears.close()


async def test_words_of_several_callers_at_once(ears: Ears) -> None:
    heard = await asyncio.gather(*(ears.transcribe(prompt(name)) for name in PROMPTS))
    assert [words.text for words in heard] == list(PROMPTS.values())
    for words, name in zip(heard, PROMPTS, strict=True):
        assert words.language == "en"
        assert 0.6 < words.confidence <= 1.0
        assert words.sounded_s == pytest.approx(len(prompt(name)) / RATE_HZ, abs=0.01)


async def test_noise_is_no_word_and_says_why(ears: Ears) -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, 3 * RATE_HZ).astype(np.float32)
    words = await ears.transcribe(noise)
    assert (words.text, words.confidence, words.refused) == ("", 0.0, "silence")
    assert (await ears.transcribe(np.zeros(0, np.float32))).text == ""


async def test_a_language_without_weights_is_no_word_and_says_why(
    ears: Ears, ears_without_weights: Ears
) -> None:
    words = await ears_without_weights.transcribe(prompt("conf-unmuted"), "fr")
    assert (words.text, words.language, words.refused) == ("", "fr", "no weights")
    assert await ears_without_weights.language(prompt("vm-nonumber"), ["en", "fr"]) == ("", 0.0)
    assert await ears.unsayable(["gobbledegook"]) == []


async def test_without_weights_phrases_are_heard(ears_without_weights: Ears) -> None:
    ears = ears_without_weights
    pcm = telephone(espeak("what are your opening hours", words_per_minute=150), "phrases")
    words = await ears.transcribe(pcm, phrases=[*demo_phrases()])
    assert words.text == "what are your opening hours"
    assert words.confidence > 0.53
    assert (await ears.transcribe(pcm)).refused == "no phrase"
    assert await ears.unsayable(["opening hours", "gobbledegook"]) == ["gobbledegook"]


async def test_weights_that_are_not_the_locked_ones_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in locked_model(ENGLISH).paths(need_model(ENGLISH)):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "whisper-tiny-en.txt").unlink()
    (tmp_path / "whisper-tiny-en.txt").write_text("hello\n")
    monkeypatch.setenv("VOICEGATE_MODELS", str(tmp_path))
    monkeypatch.delenv("VOICEGATE_EARS", raising=False)
    ears = await Ears.of_this_house()
    try:
        assert await ears.unsayable(["gobbledegook"]) == ["gobbledegook"], "it hears by phrases"
    finally:
        await ears.close()
    said = capfd.readouterr().err
    assert "ears.weights_refused" in said
    assert "voicegate models get whisper-tiny-en" in said


async def test_a_killed_process_costs_one_utterance(ears: Ears) -> None:
    sound = prompt("conf-waitforleader")
    killed = ears.process.pid  # type: ignore[attr-defined]  # of ears of one's own
    asking = asyncio.ensure_future(ears.transcribe(np.tile(sound, 8)))
    await asyncio.sleep(0.05)
    os.kill(killed, signal.SIGKILL)
    lost = await asking
    assert (lost.text, lost.refused) == ("", "lost")
    await ears.ready()
    assert (await ears.transcribe(sound)).text == PROMPTS["conf-waitforleader"]


async def test_frozen_ears_are_not_waited_for_without_end(
    ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = ears.process.pid  # type: ignore[attr-defined]  # of ears of one's own
    monkeypatch.setattr("model.ears.ears_client.ANSWER_S", 0.2)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert (await ears.transcribe(prompt("conf-unmuted"))).refused == "lost"
    finally:
        os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    assert (await ears.transcribe(prompt("conf-unmuted"))).text == PROMPTS["conf-unmuted"]


# ── what is said on the socket ───────────────────────────────────────────────────────────────────────────


def test_messages_arrive_as_they_were_sent_in_whatever_pieces() -> None:
    said: list[tuple[EarMessage, bytes]] = [
        (Hear(1, "en", ("good morning", "naïve"), False), b"\0\1" * 500),
        (Forget(1), b""),
        (Queue(3, 0.25), b""),
    ]
    raw = b"".join(written(message, body) for message, body in said)
    for size in (1, 7, len(raw)):
        taken: list[tuple[EarMessage, bytes]] = []
        reader = EarReader(lambda message, body: taken.append((message, body)))  # noqa: B023
        for at in range(0, len(raw), size):
            reader.feed(raw[at : at + size])
        assert taken == said


@pytest.mark.parametrize(
    "raw",
    [
        LENGTHS.pack(1 << 30, 0),
        LENGTHS.pack(10, 1 << 31),
        LENGTHS.pack(10, 3),
        LENGTHS.pack(2, 0) + b"[]",
        LENGTHS.pack(2, 0) + b"{}",
        LENGTHS.pack(4, 0) + b"\xff\xff\xff\xff",
        LENGTHS.pack(30, 0) + b'{"kind":"forget","number":"1"}',
        LENGTHS.pack(35, 0) + b'{"kind":"forget","number":1,"x":12}',
        LENGTHS.pack(31, 0) + b'{"kind":"forget","number":1.5 }',
    ],
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(EarsError):
        EarReader(lambda *_: None).feed(raw)


async def test_who_says_nonsense_is_cut_off_and_others_are_not(ears: Ears) -> None:
    socket = str(ears._socket)
    for raw in (b"\xff" * 64, written(Queue(1, 1.0))):
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(raw)
        async with asyncio.timeout(HANGS_S):
            await reader.read()
        writer.close()
    assert (await ears.transcribe(prompt("conf-unmuted"))).text == PROMPTS["conf-unmuted"]


def test_killed_askers_leave_no_process_behind(tmp_path: Path) -> None:
    script = tmp_path / "engine.py"
    script.write_text(
        "import asyncio\n"
        "from model.ears.ears_client import Ears\n"
        "async def main():\n"
        "    ears = await Ears.of_this_house({})\n"
        "    print(ears.process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[3]
    engine = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert engine.stdout is not None
    descriptor = os.pidfd_open(int(engine.stdout.readline()))
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    assert select.select([descriptor], [], [], 5.0)[0], "the ears outlived their engine by five seconds"
    os.close(descriptor)
