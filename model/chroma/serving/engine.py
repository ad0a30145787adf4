"""The Chroma engine: weights, slots for conversations, voices by hash. Implements `model.api.Engine`."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import time
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, Self

import numpy as np
import structlog
import torch
from torch import Tensor

from consent.grants.grant import VoiceGrant, hash_voice
from model import own_process
from model.api import RATE_HZ, Floats, Limits, Reference
from model.chroma.network import checkpoint
from model.chroma.network import config as chroma_config
from model.chroma.network.hearing import Mel
from model.chroma.network.mimi import MimiStream
from model.chroma.network.quirks import SERVING, Quirks
from model.chroma.network.sampling import Sampling
from model.chroma.network.upload import uploaded, uploaded_sound
from model.chroma.network.weights import Chroma
from model.chroma.serving import admission, voices
from model.chroma.serving import chat as chats
from model.chroma.serving.admission import Capacity
from model.chroma.serving.chat import Chat
from model.chroma.serving.conductor import Conductor
from model.chroma.serving.conversation import ChromaConversation
from model.chroma.serving.engine_settings import (
    AUTO,
    EngineSettings,
    frames_of,
    place,
    promises,
    reply_positions,
)
from model.chroma.serving.fates import PREPARED_S, READ_S
from model.chroma.serving.garbage import Garbage
from model.chroma.serving.meters import Meters
from model.chroma.serving.schedule import LEAST_FRAMES, Kind
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.chroma.serving.utterance import Utterance
from model.chroma.serving.voices import Voice, VoiceCache
from model.chroma.serving.warming import make_ready
from model.errors import CheckpointError, EngineBusy, EngineError, VoiceError
from model.tasks import Tasks

__all__ = ["ChromaEngine", "EngineSettings"]

log = structlog.get_logger("chroma")

LONGEST_REFERENCE_S: Final = 60.0
"""More of a voice teaches nothing new and takes the reply's positions."""
PIECE_FRAMES: Final = 25
"""A reference is encoded in pieces of 2 s."""


class ChromaEngine:
    """See the module."""

    def __init__(self, model: Chroma, chat: Chat, settings: EngineSettings, quirks: Quirks = SERVING) -> None:
        if model.config.codec.rate_hz != RATE_HZ:
            raise CheckpointError(f"a codec of {model.config.codec.rate_hz} Hz; calls have {RATE_HZ}")
        self.model = model
        self.chat = chat
        self.settings = settings
        self.quirks = quirks
        least_s = LEAST_FRAMES * model.config.frame_s
        if settings.lead_s < least_s:
            raise EngineError(f"VOICEGATE_CHROMA_LEAD_S={settings.lead_s:g} must be {least_s:g} s or more")
        self.reply_frames = frames_of(settings.reply_s, model.config.frame_s)
        promised = promises(settings.promised, settings.reply_s, model.config.frame_s)
        if settings.conversations == AUTO:
            self.capacity = admission.find(model, quirks, settings.context, settings.voices_bytes, promised)
        else:
            self.capacity = Capacity(settings.conversations)
        self.slots = Slots.make(
            model, self.capacity.conversations, quirks, context=settings.context, promised=promised
        )
        self.steps = Steps(model, self.slots, quirks)
        self.meters = Meters()
        garbage = Garbage() if own_process.is_own() else None
        self.conductor = Conductor(self.steps, settings.lead_s, self.meters, garbage)
        self.voices = VoiceCache(settings.voices_bytes)
        self.answer_room = min(512, self.slots.thinker.capacity // 4)
        """positions that a context keeps for the answer"""
        self._mel = Mel(model.config.hearing.mels)
        for replies, seconds in self.capacity.points:
            self.conductor.schedule.costs.spent(Kind.FRAME, replies, seconds)
        self._free = list(range(self.capacity.conversations))
        self._tasks = Tasks()
        self._preparing: dict[str, tuple[asyncio.Task[Voice], int]] = {}
        """with the bytes that each will take"""
        self.limits = Limits(
            conversations=self.capacity.conversations,
            bound=self.capacity.why,
            reply_s=settings.reply_s,
            transcribes=False,
        )

    @classmethod
    async def load(cls, source: str | Path, settings: EngineSettings) -> Self:
        """The checkpoint in a directory or on the hub. Raises `CheckpointError`."""
        return await asyncio.to_thread(cls._load, source, settings)

    @classmethod
    def _load(cls, source: str | Path, settings: EngineSettings) -> Self:
        device, dtype = place(settings)
        directory = checkpoint.find(source)
        chat = chats.load(directory, chroma_config.read(directory / checkpoint.CONFIG))
        if chat.meaningless:
            log.warning(
                "chroma.no_tokenizer",
                note="bytes stand in for words: a test checkpoint, its text means nothing",
            )
        try:
            with own_process.within(READ_S, "reading the weights"):
                own_process.prepares("weights", 0, 1)
                model = checkpoint.load(
                    directory, device=device, dtype=dtype, codec_dtype=torch.float32,
                    weights=settings.weights, kv=settings.kv,
                )  # fmt: skip
            with own_process.within(PREPARED_S, "preparing the engine"):
                engine = cls(model, chat, settings)
                make_ready(engine.steps, engine.quirks, PIECE_FRAMES)
        except torch.OutOfMemoryError:
            raise CheckpointError(
                f"{settings.conversations} conversation(s) with a context of {settings.context} do not fit "
                f"on {device}: lower VOICEGATE_ENGINE_CALLS or VOICEGATE_CHROMA_CONTEXT "
                "(`voicegate engine inspect` says what a slot takes)"
            ) from None
        log.info("chroma.loaded", source=str(source), device=str(device), dtype=str(dtype),
                 slots=engine.slots.count, bound=engine.capacity.bound,
                 slots_mib=engine.slots.nbytes >> 20)  # fmt: skip
        return engine

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return len(self._free)

    @property
    def text_lead_s(self) -> float:
        """How far an answer's text runs ahead of its sound, in seconds."""
        return self.settings.text_lead_s

    def utterance(self) -> Utterance:
        """An utterance that begins."""
        return Utterance(self.model.thinker.audio_tower, self._mel, self.settings.mel_maximum)

    async def open(self, grant: VoiceGrant, reference: Reference) -> ChromaConversation:
        """A conversation in the reference's voice. Raises `EngineBusy`, `VoiceError`."""
        self._admit()
        slot = heapq.heappop(self._free)
        try:
            voice = await self._voice(grant, reference)
        except BaseException as error:
            heapq.heappush(self._free, slot)
            if isinstance(error, VoiceError):
                log.error("voice.unusable", call_id=grant.call_id, voice=grant.voice, reason=str(error))
            raise
        slots, reply = self.slots, reply_positions(self.reply_frames)
        if not (
            slots.thinker.claim(slot, self.settings.promised)
            and slots.backbone.claim(slot, voice.positions + reply)
        ):
            slots.thinker.pages.leave(slot)
            heapq.heappush(self._free, slot)
            self._refuse("memory", "memory: open conversations hold what contexts and answers may take")
        self.voices.hold(voice)
        sampling = Sampling(
            self.settings.temperature, self.settings.top_k, self.settings.top_p, seed_of(grant.call_id)
        )
        return ChromaConversation(self, slot, voice, sampling, grant.call_id)

    def _admit(self) -> None:
        """Raises `EngineBusy` saying what a conversation more would run out of."""
        if not self._free:
            self._refuse("slots", f"{self.capacity.conversations} conversations are {self.capacity.why}")
        frame_s = self.model.config.frame_s
        now = time.perf_counter()
        if late := self.capacity.late(self.meters, now, frame_s):
            self._refuse("time", late)

    def _refuse(self, reason: str, message: str) -> NoReturn:
        self.meters.refused.labels(reason).inc()
        raise EngineBusy(message)

    async def release(self, slot: int, voice: Voice) -> None:
        """The slot is free again, and as new; the voice is not needed by its conversation."""
        self.voices.release(voice)
        await asyncio.shield(self.conductor.do(Kind.SLOT, 1, lambda: self.slots.clear(slot)))
        heapq.heappush(self._free, slot)

    async def _voice(self, grant: VoiceGrant, reference: Reference) -> Voice:
        """The grant's voice by its hash; two calls that want it at once wait for one preparation."""
        if reference.voice_hash != grant.voice_hash:
            raise VoiceError(f"the reference that came is not that of {grant.voice!r}")
        voice = self.voices.get(reference.voice_hash)
        preparing = self._preparing.get(reference.voice_hash)
        self.meters.voices.labels("miss" if voice is None and preparing is None else "hit").inc()
        if voice is not None:
            return voice
        if preparing is not None:
            return await asyncio.shield(preparing[0])
        pcm, words = self._usable(reference), self.chat.encode(reference.text)
        nbytes = voices.nbytes_of(self.model, len(words), -(-len(pcm) // self.model.config.codec.frame))
        if not self.voices.room(nbytes + sum(more for _, more in self._preparing.values())):
            self._refuse("memory", f"memory: the voices of open conversations take all of the "
                         f"{self.voices.limit >> 20} MiB that voices have")  # fmt: skip
        preparing_it = self._prepare(reference, words, pcm)
        task = self._tasks.short(preparing_it, "chroma.voice", told=(EngineError,))
        self._preparing[reference.voice_hash] = task, nbytes
        task.add_done_callback(lambda _: self._preparing.pop(reference.voice_hash, None))
        return await asyncio.shield(task)

    @staticmethod
    def _usable(reference: Reference) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """The clip. Raises `VoiceError` saying what is missing."""
        if reference.pcm is None or not len(reference.pcm):
            kind = "stock voice" if reference.stock else "voice"
            raise VoiceError(
                f"the {kind} {reference.voice!r} comes without a reference clip; Chroma speaks as a clip and "
                "its words do: register a voice with `voicegate voice` and name it in the dialplan, "
                "or run with VOICEGATE_ENGINE=embedded"
            )
        if not reference.text.strip():
            raise VoiceError(
                f"the voice {reference.voice!r} comes without the words of its clip; register it again"
            )
        if len(reference.pcm) > LONGEST_REFERENCE_S * RATE_HZ:
            raise VoiceError(
                f"the clip of {reference.voice!r} lasts {len(reference.pcm) / RATE_HZ:.1f} s; "
                f"Chroma takes at most {LONGEST_REFERENCE_S:g} s"
            )
        pcm = np.asarray(reference.pcm, np.float32).reshape(-1)
        if hash_voice(pcm.tobytes(), reference.text) != reference.voice_hash:
            raise VoiceError(f"the clip of {reference.voice!r} is not the one that was consented to")
        return pcm

    async def _prepare(
        self, reference: Reference, words: list[int], pcm: np.ndarray[tuple[int], np.dtype[np.float32]]
    ) -> Voice:
        model, do = self.model, self.conductor.do
        size = PIECE_FRAMES * model.config.codec.frame
        encoding = partial(voices.encoding, model, len(pcm), self.quirks, PIECE_FRAMES)
        stream = await do(Kind.VOICE, 1, encoding, _unhurried)
        codes = []
        for at in range(0, len(pcm), size):  # in pieces: other callers' frames go between them
            encode = partial(_encode, model, pcm[at : at + size], stream)
            codes.append(await do(Kind.VOICE, PIECE_FRAMES, encode, _unhurried))
        frames = sum(map(len, codes))
        voice = await do(Kind.VOICE, frames, lambda: _voice(model, words, codes), _unhurried)
        if voice.positions > self.slots.backbone.capacity // 2:
            raise VoiceError(
                f"the clip of {reference.voice!r} takes {voice.positions} of {self.slots.backbone.capacity} "
                "positions and leaves no room for an answer; a shorter clip will do"
            )
        self.voices.put(reference.voice_hash, voice)
        return voice

    def forget(self, voice_hash: str) -> None:
        """Drops a voice's codes and state."""
        self.voices.erase(voice_hash)

    async def metrics(self) -> str:
        """What is counted, in Prometheus' text format."""
        slots, conductor = self.slots, self.conductor
        caches = {"thinker": slots.thinker, "backbone": slots.backbone, "codec": slots.codec.cache}
        kv = {}
        for name, cache in caches.items():
            live = sum(min(length, cache.capacity) for length in cache.lengths)
            kv[name] = cache.nbytes, cache.position_bytes * live
        return self.meters.show(
            {
                "slots": slots.count,
                "slots_used": slots.count - self.free,
                "replies": conductor.playing,
                "queue": conductor.schedule.waiting,
                "least_lead_seconds": min(conductor.schedule.leads_s(time.perf_counter()), default=0.0),
                "voices_kept": len(self.voices),
                "voice_bytes": self.voices.nbytes,
                "voice_bytes_limit": self.voices.limit,
            },
            kv,
        )

    async def close(self) -> None:
        await self._tasks.stop()
        await self.conductor.close()


def _encode(model: Chroma, pcm: Floats, stream: MimiStream) -> Tensor:
    return voices.encode_piece(model, uploaded_sound(pcm, model.device), stream)


def _voice(model: Chroma, words: list[int], codes: list[Tensor]) -> Voice:
    return voices.prepare(model, uploaded(words, model.device), torch.cat(codes))


def _unhurried() -> bool:
    """A voice is prepared before its call is answered: frames of those who talk go first."""
    return False


def seed_of(call_id: str) -> int:
    """A call's own seed: the same call draws the same."""
    return int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:7])
