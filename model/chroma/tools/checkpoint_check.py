"""A real checkpoint on this device: its names, its tokenizer, and whether its speech is understood.

The thinker is told what to say, so that what a recogniser hears can be compared with it. The voice is a clip
that is named, or the house's own, rendered by the embedded engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
import wave
from collections.abc import Mapping
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.api import RATE_HZ
from model.chroma.network import checkpoint
from model.chroma.network import config as chroma_config
from model.chroma.network.hearing import EAR_HZ, Ear, Mel
from model.chroma.network.quirks import SERVING
from model.chroma.network.sampling import Sampling
from model.chroma.serving import chat as chats
from model.chroma.serving import voices
from model.chroma.serving.chat import Chat
from model.chroma.serving.reply import Reply, perform
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.chroma.tools.gpu_job import Job
from model.errors import CheckpointError
from watermark.pcm import bytes_from_float, float_from_bytes

SAID: Final = (
    "Good morning. The train to the coast leaves at a quarter past nine from the second platform. You can "
    "buy a ticket at the counter, or from the driver, and the journey takes about forty minutes."
)
"""About ten seconds."""
SYSTEM: Final = "You are a friendly assistant. Answer in one sentence."
LONGEST: Final = 200
"""Frames: 16 s."""
OWN: Final = 60
"""Words at most of an answer of its own."""
UNDERSTOOD: Final = 0.6
"""The share of the words that a recogniser must hear in their order."""


def check(job: Job, directory: Path) -> None:
    """Everything, one thing after the other."""
    config = chroma_config.read(directory / checkpoint.CONFIG)
    job.do("names and shapes", partial(_names, directory))
    chat = chats.load(directory, config)
    job.do("tokenizer and template", partial(_template, directory, chat))
    job.do("speech", partial(_speech, job, directory, chat))


def _names(directory: Path) -> Mapping[str, Any]:
    """Every tensor that the model needs is there once, of its shape; and the index names what is stored."""
    model = checkpoint.blueprint(chroma_config.read(directory / checkpoint.CONFIG))
    tensors = checkpoint.stored(directory)
    checkpoint.plan(model, {name: tensor.shape for name, tensor in tensors.items()}, str(directory))
    found: dict[str, Any] = {
        "tensors": len(tensors),
        "types": sorted({one.dtype for one in tensors.values()}),
    }
    index = directory / checkpoint.INDEX
    if not index.exists():
        return {"passed": True, **found, "index": "none: a single file"}
    named: dict[str, str] = json.loads(index.read_text())["weight_map"]
    lost = sorted(set(named) ^ set(tensors))
    moved = [name for name in named if name in tensors and tensors[name].file.name != named[name]]
    wrong = {"not in both": lost[:5], "in another file": moved[:5]}
    return {"passed": not lost and not moved, **found, **{key: some for key, some in wrong.items() if some}}


def _template(directory: Path, chat: Chat) -> Mapping[str, Any]:
    """The pieces that turns are fed in are what the template renders whole."""
    if chat.meaningless:
        return {"left_out": "a test checkpoint: bytes stand in for words"}
    from transformers import AutoTokenizer

    inner: Any = AutoTokenizer.from_pretrained(str(directory))
    sound = {"role": "user", "content": [{"type": "audio", "audio": "sound"}]}
    messages = [{"role": "system", "content": [{"type": "text", "text": SYSTEM}]}, sound]
    try:
        whole = inner.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template may raise anything
        return {"passed": False, "why": f"the template cannot be used: {error}"}
    config = chroma_config.read(directory / checkpoint.CONFIG)
    ids = [*chat.system(SYSTEM), *chat.user_open, *chat.sound_open, config.audio_token, *chat.sound_close,
           *chat.user_close, *chat.answer_open]  # fmt: skip
    same = chat.encode(str(whole)) == ids
    back = chat.decode(chat.encode(SAID)) == SAID
    return {"passed": same and back, "pieces are the whole": same, "text comes back": back, "ids": len(ids)}


def _speech(job: Job, directory: Path, chat: Chat) -> Mapping[str, Any]:
    """The checkpoint says `SAID`; a recogniser writes what it hears."""
    began = time.monotonic()
    model = checkpoint.load(directory, device=job.device, dtype=job.dtype, codec_dtype=torch.float32)
    found: dict[str, Any] = {"load s": time.monotonic() - began}
    clip = _clip(job, chat)
    if isinstance(clip, str):
        return {**found, "left_out": clip}
    pcm, words = clip
    steps = Steps(model, Slots.make(model, 1, SERVING, context=1024), SERVING)
    if not chat.meaningless:
        found["own answer"] = _own(steps, chat, pcm)
    began = time.monotonic()
    sound, frames = _say(steps, chat, pcm, words)
    found |= {
        "seconds": len(sound) / RATE_HZ,
        "ms a frame": 1000 * (time.monotonic() - began) / max(1, frames),
    }
    path = Path(job.asked.folder) / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, len(sound), "NONE", "not compressed"))
        file.writeframes(bytes_from_float(sound))
    found["file"] = str(path)
    if chat.meaningless:
        return {**found, "left_out": "a test checkpoint: its speech means nothing"}
    return {**found, **_heard(sound)}


def _clip(job: Job, chat: Chat) -> tuple[NDArray[np.float32], str] | str:
    """A voice and its words, or what is missing for one."""
    if job.asked.clip is not None:
        try:
            with wave.open(job.asked.clip) as file:
                if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE_HZ):
                    raise CheckpointError(f"{job.asked.clip} must be mono, 16 bits, {RATE_HZ} Hz")
                return float_from_bytes(file.readframes(file.getnframes())), job.asked.clip_words or ""
        except (OSError, EOFError, wave.Error) as error:
            raise CheckpointError(f"{job.asked.clip} cannot be read: {error}") from None
    if chat.meaningless:
        draw = np.random.default_rng(1)
        return (0.1 * draw.standard_normal(RATE_HZ)).astype(np.float32), "A clip."
    try:
        from model.embedded import clip
    except ImportError as error:
        return f"no voice: name one by --clip and --clip-words, or install hibari-tts ({error})"
    try:
        return asyncio.run(clip.render()), clip.WORDS
    except ImportError as error:
        return f"no voice: name one by --clip and --clip-words, or install hibari-tts ({error})"


@torch.inference_mode()
def _ask(steps: Steps, chat: Chat, pcm: NDArray[np.float32]) -> None:
    """The slot stands before an answer to the clip's own sound."""
    import soxr

    model, slots = steps.model, steps.slots

    def feed(ids: list[int]) -> None:
        steps.prefill({0: model.thinker.embed(torch.tensor(ids).to(model.device))})

    slots.clear(0)
    feed([*chat.system(SYSTEM), *chat.user_open, *chat.sound_open])
    ear = Ear(model.thinker.audio_tower, Mel(model.config.hearing.mels))
    ear.push(torch.from_numpy(np.asarray(soxr.resample(pcm, RATE_HZ, EAR_HZ), np.float32)))
    ear.finish()
    steps.hear(0, ear, slots.thinker.lengths[0])
    feed([*chat.sound_close, *chat.user_close, *chat.answer_open])


@torch.inference_mode()
def _answer(
    steps: Steps, chat: Chat, pcm: NDArray[np.float32], words: str, say: list[int] | None, most: int
) -> tuple[Reply, list[NDArray[np.float32]]]:
    """A reply in the clip's voice to its end, and the sound of its frames."""
    model = steps.model
    _ask(steps, chat, pcm)
    codes = voices.encode(model, torch.from_numpy(pcm).to(model.device), SERVING, 25)
    ids: Tensor = torch.tensor(chat.encode(words)).to(model.device)
    voices.lend(voices.prepare(model, ids, codes), steps.slots, 0)
    steps.slots.sample(0, Sampling(seed=1))
    reply = Reply(0, most, say)
    heard = []
    while reply.end is None and reply.frames < most:
        (frame,) = perform(steps, [reply])
        if frame.pcm is not None:
            heard.append(frame.pcm)
    return reply, heard


def _own(steps: Steps, chat: Chat, pcm: NDArray[np.float32]) -> str:
    """What it answers to the clip by itself, for a person to read."""
    reply, _ = _answer(steps, chat, pcm, "A clip.", None, 2 * OWN)
    return chat.decode(reply.words)


def _say(steps: Steps, chat: Chat, pcm: NDArray[np.float32], words: str) -> tuple[NDArray[np.float32], int]:
    """`SAID`, and the number of frames."""
    most = min(LONGEST, steps.slots.backbone.capacity // 4)
    said = [*chat.encode(SAID), chat.im_end]
    reply, heard = _answer(steps, chat, pcm, words, said, most)
    return np.concatenate(heard) if heard else np.zeros(0, np.float32), reply.frames


def _heard(sound: NDArray[np.float32]) -> Mapping[str, Any]:
    """What the house's ears hear of it, beside what was said."""
    try:
        import soxr

        from consent.data_dir import default_data_dir
        from consent.errors import ModelFileError
        from consent.models.model_files import models_dir
        from consent.whisper.whisper import ENGLISH, Whisper
    except ImportError as error:
        return {"left_out": f"nobody hears it: {error}"}
    named = os.environ.get("VOICEGATE_MODELS")
    where = models_dir(
        Path(os.environ.get("VOICEGATE_DATA_DIR") or default_data_dir()), Path(named) if named else None
    )
    try:
        ears = Whisper.load(ENGLISH, where)
    except (ImportError, ModelFileError) as error:
        return {"left_out": f"nobody hears it: {error}"}
    text = ears.transcribe(np.asarray(soxr.resample(sound, RATE_HZ, EAR_HZ), np.float32), "en").text
    share = understood(SAID, text)
    return {"passed": share >= UNDERSTOOD, "understood": share, "heard": text}


def understood(said: str, heard: str) -> float:
    """The share of the words said that were heard, in their order."""
    a, b = (re.findall(r"[a-z']+", text.lower()) for text in (said, heard))
    matches = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    return sum(match.size for match in matches) / len(a)
