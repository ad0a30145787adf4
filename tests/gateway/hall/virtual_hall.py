"""A hall in memory and in a time of its own: lines, phones, engine, front and Redis are scripted.

It lives in a `HouseLoop` (`tests/house_time.py`). The hall, its floor and its calls are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent.grants.grant import GrantVerifier, VoiceGrant, sign
from consent.grants.revocation_feed import RevocationFeed
from consent.grants.scope import Scope
from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.dialplan import Disclose, Route, Verb
from gateway.errors import RpcError
from gateway.hall.calls.call import Call
from gateway.hall.calls.tick_pass import Floor
from gateway.hall.dialogue.scribe import Scribe, WritingEars
from gateway.hall.hall import Hall
from gateway.hall.media.audio import VAD_WINDOW, Floats
from gateway.hall.media.noise import NoiseFloor
from gateway.hall.media.rate import CAPACITY
from gateway.ipc import tick
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.codec import from_json, packed, to_json, unpacked
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import A, Ask, Message
from gateway.ipc.hall_messages import CallOffer, FollowRoute, GrantRenewal, RenewGrant, RouteGrant
from gateway.ipc.hello import Hello, LineFacts
from gateway.ipc.line_messages import (
    AnswerCall,
    CallConfirmed,
    CallLeft,
    CallStarted,
    CallTarget,
    DropCall,
    KeyPressed,
    KeyWay,
    MediaTurned,
    ProgressCall,
    ReferCall,
    ShowCaller,
    Shown,
    TransferOutcome,
)
from gateway.store.call_record import CallRecord
from gateway.store.call_session import Session
from gateway.store.living_calls import LivingCalls
from gateway.store.sound_track import SoundTrack, read_track
from model import client
from model.api import EarlyHearing, HearingState
from model.ears.words_heard import Words
from model.errors import EngineBusy, EngineLost, EngineRefused
from tests.house_time import HouseLoop
from watermark.errors import MarkError
from watermark.frames import _SEAL, MarkedFrame
from watermark.keys import MarkKey
from watermark.mark import MarkerBank
from watermark.pcm import bytes_from_float

KEY = MarkKey("wm-0001", 1, bytes(range(32)))
FRAME_S = 0.02
WORD_S = 0.4
"""How long the scripted engine takes over one word."""
PIECE = 1_920
"""Samples the engine sends at once (80 ms)."""
VOICE = np.random.default_rng(1).normal(0.3, 0.1, PIECE).astype(np.float32)
"""80 ms of what the engine says: as loud everywhere, and wide enough to hold a mark"""
DISCLOSE = Disclose(principal="Lindens", language="en")
TOLD = DISCLOSE.words(cloned=False)
"""what it says, 11 words"""
TOLD_S = len(TOLD.split()) * WORD_S
RINGING_S = 0.1
"""From the line's 200 OK to the caller's ACK."""


M = TypeVar("M", bound=Message)


def through(message: M) -> M:
    """The message as it comes out of the other end of a socket."""
    kind = type(message)
    return from_json(kind, unpacked(packed(to_json(kind, message))), message.wire)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────


class HouseTime:
    """The loop's time as the hall's clocks."""

    def __init__(self, loop: HouseLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.time()

    def time(self) -> float:
        return self._loop.wall()


# ── consent, marks, hearing ──────────────────────────────────────────────────────────────────────────────


class Consent(GrantVerifier):
    """Signs grants and revocations, and verifies them in the house's time."""

    def __init__(self, loop: HouseLoop) -> None:
        self._signer = Ed25519PrivateKey.generate()
        super().__init__({"k": self._signer.public_key()})
        self._loop = loop
        self.life_s = 60.0

    def token(self, call_id: str, *, voice: str = "heart", life_s: float | None = None) -> str:
        """The grant that a call begins with, in a route as `House.offer` makes it."""
        return self.signed(Scope(voice, "support", "demo", "en", call_id), f"jti-{call_id}", life_s)

    def signed(self, scope: Scope, jti: str, life_s: float | None = None) -> str:
        at = self._loop.wall()
        claims = {
            "jti": jti, "sub": scope.voice, "vh": f"hash of {scope.voice}", "pur": scope.purpose,
            "dp": scope.dialplan, "lang": scope.language, "call": scope.call_id, "iat": at,
            "exp": at + (life_s or self.life_s),
        }  # fmt: skip
        return sign(claims, self._signer, "k")

    def revocation(self, voice: str = "heart") -> str:
        claims = {"sub": voice, "vh": f"hash of {voice}", "reason": "asked", "iat": self._loop.wall()}
        return sign(claims, self._signer, "k", "voice-revocation+jws")

    def verify(
        self, token: str, *, call_id: str | None = None, now: float | None = None, leeway_s: float = 5.0
    ) -> VoiceGrant:
        at = self._loop.wall() if now is None else now
        return super().verify(token, call_id=call_id, now=at, leeway_s=leeway_s)


class Bank(MarkerBank):
    """The real markers; those of calls in `broken` fail, all of them when `gone`."""

    def __init__(self) -> None:
        super().__init__(KEY)
        self.slots: set[int] = set()
        self.broken: set[int] = set()
        self.gone = False
        self.lies = False
        """calls sound marked, and are not"""

    def open(self, payload: int, hop: int = 0) -> int:
        slot = super().open(payload, hop)
        self.slots.add(slot)
        return slot

    def close(self, slot: int) -> None:
        super().close(slot)
        self.slots.discard(slot)

    def mark(self, slots: Any, pcm: Any) -> list[Any]:
        if self.gone:
            raise MarkError("the key is gone")
        marked: list[Any] = list(super().mark(slots, pcm))
        if self.lies:
            marked = [MarkedFrame(np.array(row, np.float32), seal=_SEAL) for row in pcm]
        for at, slot in enumerate(slots.tolist()):
            if slot in self.broken:
                marked[at] = MarkError(f"slot {slot} is broken")
        return marked


class Loudness:
    """Takes loud for speech, window by window as Silero does."""

    def __init__(self) -> None:
        self._heard: dict[int, list[Any]] = {}

    def reset(self, row: int) -> None:
        self._heard.pop(row, None)

    def judge(self, rows: Any, block: Any, stirs: Any = None) -> dict[int, float]:
        judged = {}
        for row, sound in zip(rows.tolist(), block, strict=True):
            heard = np.concatenate([*self._heard.get(row, []), sound])
            if len(heard) >= VAD_WINDOW:
                window, heard = heard[:VAD_WINDOW], heard[VAD_WINDOW:]
                judged[row] = 0.95 if float(np.sqrt(np.mean(window**2))) > 0.02 else 0.01
            self._heard[row] = [heard]
        return judged


class Noiseless(NoiseFloor):
    """For phones that speak in tones: what never changes is taken for noise."""

    def doubt(self, rows: Any, judged: dict[int, float], speaking: Any) -> None:
        pass


@dataclass
class Ears:
    """What the hall uses of `model.ears.ears_client.Ears`: the languages and words that it finds, one a
    question."""

    finds: list[tuple[str, float]] = field(default_factory=list)
    think_s: float = 0.1
    asked: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    """(seconds of sound, languages to choose from)"""
    taken_back: int = 0

    async def language(self, pcm: Floats, among: Sequence[str]) -> tuple[str, float]:
        self.asked.append((len(pcm) / 24_000, tuple(among)))
        try:
            await asyncio.sleep(self.think_s)
        except asyncio.CancelledError:
            self.taken_back += 1
            raise
        return self.finds.pop(0) if self.finds else ("", 0.0)

    words: list[str] = field(default_factory=list)
    """what it understands; of all after these, the last one"""
    refuses: str = ""
    wait_s: float = 0.0
    waiting: int = 0
    listened: list[tuple[float, str | None, bool]] = field(default_factory=list)
    """(seconds of sound, language, patient)"""

    async def transcribe(
        self,
        pcm: Floats,
        language: str | None = "en",
        *,
        phrases: Sequence[str] = (),
        patient: bool = False,
    ) -> Words:
        seconds = len(pcm) / 24_000
        self.listened.append((seconds, language, patient))
        text = (self.words.pop(0) if len(self.words) > 1 else self.words[0]) if self.words else None
        await asyncio.sleep(self.think_s)
        if self.refuses or text is None:
            return Words("", language or "", 0.0, seconds, self.refuses or "no weights")
        return Words(text, language or "", 0.8, seconds, "" if text else "no speech")


# ── Redis ────────────────────────────────────────────────────────────────────────────────────────────────


class Memory:
    """`gateway.store.sessions.Sessions` whose Redis are dicts; outlives halls."""

    def __init__(self) -> None:
        self.hashes: dict[str, dict[str, str]] = {}
        self.streams: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.lists: dict[str, list[str]] = {}
        self.crowded = False
        self.living = LivingCalls(self, 60.0)  # type: ignore[arg-type]  # all that it uses of a writer
        self.away = False

    def put(self, commands: Any, *, important: bool = False) -> None:
        for name, key, *words in commands:
            if name == "HSET":
                self.hashes.setdefault(key, {}).update(zip(words[::2], words[1::2], strict=True))
            elif name == "HDEL":
                self.hashes.get(key, {}).pop(words[0], None)
            elif name == "XADD":
                entry = dict(zip(words[4::2], words[5::2], strict=True))
                call_id = key.removeprefix("vg:events:")
                self.streams.setdefault(call_id, []).append((entry["kind"], json.loads(entry["data"])))
            elif name == "RPUSH":
                self.lists.setdefault(key, []).append(words[0])
            elif name == "UNLINK":
                self.lists.pop(key, None)

    def session(self, call_id: str) -> Session:
        return Session(call_id, self.living)

    async def get(self, call_id: str) -> CallRecord | None:
        if self.away:
            raise ConnectionError("Redis is away")
        facts = self.hashes.get(f"vg:call:{call_id}")
        return CallRecord(call_id, facts) if facts else None

    async def history(self, call_id: str) -> list[dict[str, Any]]:
        return [json.loads(item) for item in self.lists.get(f"vg:history:{call_id}", [])]

    def counters(self) -> dict[str, int]:
        return {}

    async def asked_ready(self) -> bool:
        return not self.away

    async def close(self) -> int:
        return 0


# ── the engine ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Answer:
    """What the engine answers to a turn."""

    text: str
    tool: str | None = None


@dataclass
class Engine:
    """What the hall uses of `EngineClient`, in the hands of a test."""

    answers: list[Answer] = field(default_factory=list)
    hears: list[str | None] = field(default_factory=list)
    """what it understands of each utterance; None: nothing is said of it"""
    hear_s: float = 0.05
    think_s: float = 0.05
    busy: bool = False
    down: bool = False
    refuses: bool = False
    """has no such voice, and never will"""
    silent: bool = False
    breaks: int = 0
    """so many replies fail after their first word"""
    leads: bool = True
    """keeps its lead; else it sends all at once"""
    loses_at_once: bool = False
    transcribes: bool = True
    knows_asides: bool = False
    """tells what is nothing to stop for; a test has it tell what it hears by `EngineTalk.hears`"""
    recalls: bool = True
    sessions: list[EngineTalk] = field(default_factory=list)
    sounds: dict[str, Any] = field(default_factory=dict)
    """what it makes of some words, float32 24 kHz; of all others `WORD_S` of `VOICE`"""

    def pieces(self, word: str) -> list[Any]:
        """The word's sound as it is sent."""
        sound = self.sounds.get(word)
        if sound is None:
            return [VOICE] * (round(WORD_S * 24_000) // PIECE)
        return [sound[at : at + PIECE] for at in range(0, len(sound), PIECE)]

    async def connect(self, grant: str) -> EngineTalk:
        if self.busy:
            raise EngineBusy("no slot")
        if self.refuses:
            raise EngineRefused("no such voice")
        if self.down:
            raise EngineLost("nobody listens")
        self.sessions.append(EngineTalk(self, grant))
        if self.loses_at_once:
            self.sessions[-1].die()
        return self.sessions[-1]

    async def asked_ready(self) -> bool:
        return not self.down

    def die(self) -> None:
        """As `kill -9` does: connections break, and new ones are refused."""
        self.down = True
        for session in self.sessions:
            session.die()

    @property
    def said(self) -> list[str]:
        """Texts and answers it was asked to speak, over all sessions."""
        return [text for session in self.sessions for text in session.said]

    def told(self, kind: str) -> list[Any]:
        """What it was told of one kind, over all sessions, in order."""
        return [what for session in self.sessions for name, what in session.told if name == kind]

    @property
    def wrongs(self) -> list[str]:
        """Rules of the contract that the hall broke."""
        return [wrong for session in self.sessions for wrong in session.wrongs]


class EngineTalk:
    """What the hall uses of `EngineSession`."""

    def __init__(self, engine: Engine, grant: str) -> None:
        self.engine = engine
        self.grant = grant
        self.told: list[tuple[str, Any]] = []
        self.said: list[str] = []
        self.wrongs: list[str] = []
        self.closed = False
        self.lead_s = 1.0
        self.transcribes = engine.transcribes
        self.knows_asides = engine.knows_asides
        self._closed = 0
        self.recalls = engine.recalls
        self._events: asyncio.Queue[client.EngineEvent | Exception] = asyncio.Queue()
        self._number = 0
        self._running: tuple[str, str, asyncio.Task[None]] | None = None
        self._played: dict[str, tuple[float, float]] = {}
        self._texts: dict[str, str] = {}
        self._heard = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def die(self) -> None:
        self._events.put_nowait(EngineLost("the engine is gone"))

    def send(self, event: client.EngineEvent) -> None:
        self._events.put_nowait(event)

    def hears(self, state: HearingState, *, aside: bool = False) -> None:
        """It has understood all that it was sent of the present utterance."""
        early = EarlyHearing(state, self._heard / 24_000, aside)
        self.send(client.HeardEarly(self._closed, early))

    def _note(self, kind: str, what: Any = None) -> None:
        if self.closed:
            raise EngineLost("closed")
        self.told.append((kind, what))

    async def update(self, **fields: Any) -> None:
        self._note("update", fields)
        self.grant = fields.get("grant", self.grant)
        self.lead_s = fields.get("lead_s", self.lead_s)

    async def restore(self, items: list[Mapping[str, Any]]) -> None:
        self._note("restore", items)

    async def append(self, pcm: Any) -> None:
        self._note("append", pcm)
        self._heard += len(pcm)

    async def clear(self) -> None:
        self._note("clear")
        self._closed += 1
        self._heard = 0

    async def commit(self) -> None:
        if not self._heard:
            self.wrongs.append("a commit of nothing")
        heard_s, self._heard = self._heard / 24_000, 0
        self._closed += 1
        self._note("commit", heard_s)
        text = self.engine.hears.pop(0) if self.engine.hears else None
        if text is not None:
            self._spawn(self._understand(text, heard_s))

    async def _understand(self, text: str, heard_s: float) -> None:
        await asyncio.sleep(self.engine.hear_s)
        self.send(client.CallerWords(text, heard_s, 0.9))

    async def respond(self, *, say: str | None = None) -> None:
        self._note("respond", say)
        if self._running is not None:
            self.wrongs.append(f"{say!r} was asked for while a reply was under way")
            return
        if self.engine.silent:
            return
        if say is None:
            answer = self.engine.answers.pop(0) if self.engine.answers else Answer("what was that")
        else:
            answer = Answer(say)
        self.said.append(answer.text)
        self._number += 1
        response, item = f"resp{self._number}", f"engine-item{self._number}"
        task = self._spawn(self._speak(response, item, answer))
        self._running = (response, item, task)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _speak(self, response: str, item: str, answer: Answer) -> None:
        status, sent_s, began = "completed", 0.0, 0.0
        self._texts[item] = answer.text
        try:
            await asyncio.sleep(self.engine.think_s)
            self.send(client.Created(response, item))
            loop = asyncio.get_running_loop()
            began = loop.time()
            for word in answer.text.split():
                self.send(client.Words(item, word if not sent_s else f" {word}"))
                for piece in self.engine.pieces(word):
                    await self._wait_for_lead(item, sent_s, began)
                    self.send(client.Audio(item, piece))
                    sent_s += len(piece) / 24_000
                if self.engine.breaks:
                    self.engine.breaks -= 1
                    status = "failed"
                    break
            if answer.tool is not None:
                self.send(client.ToolRequest(answer.tool, "{}"))
        except asyncio.CancelledError:
            status = "cancelled"
        self._running = None
        self.send(client.Done(response, item, status, answer.text, None))

    async def _wait_for_lead(self, item: str, sent_s: float, began: float) -> None:
        while self.engine.leads and sent_s - self._played_s(item, began) > self.lead_s:  # noqa: ASYNC110
            await asyncio.sleep(FRAME_S)

    def _played_s(self, item: str, began: float) -> float:
        """As `model.session` has it: the last report, carried on by the clock once it is old."""
        now = asyncio.get_running_loop().time()
        if item not in self._played:
            return now - began
        played_s, at = self._played[item]
        return played_s + max(0.0, now - at - 0.5)

    async def cancel(self, response_id: str) -> None:
        self._note("cancel", response_id)
        if self._running is not None and self._running[0] == response_id:
            self._running[2].cancel()

    async def truncate(self, item_id: str, audio_end_ms: int) -> None:
        self._note("truncate", (item_id, audio_end_ms))
        words = self._texts[item_id].split()[: int(audio_end_ms / 1000 / WORD_S)]
        self.send(client.Truncated(item_id, " ".join(words)))

    async def playout(self, item_id: str, played_ms: int) -> None:
        self._note("playout", (item_id, played_ms))
        self._played[item_id] = (played_ms / 1000, asyncio.get_running_loop().time())

    async def aclose(self) -> None:
        self.closed = True
        for task in list(self._tasks):
            task.cancel()

    async def __aiter__(self) -> AsyncIterator[client.EngineEvent]:
        while True:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            yield event


# ── the front ────────────────────────────────────────────────────────────────────────────────────────────


class Front:
    """The front as the hall's peer."""

    def __init__(self, consent: Consent) -> None:
        self.hello = Hello("front", "front", "token")
        self.name = "front"
        self.closed = asyncio.Event()
        self.events: list[Message] = []
        self.refuses: str | None = None
        self.away = False
        self.nonsense = False
        self.renewed: list[tuple[str, str | None]] = []
        self.renewals: list[RenewGrant] = []
        self.answers: dict[type[Ask[Any]], list[Any]] = {}
        """what it answers to other questions, in turn"""
        self.asked: list[Ask[Any]] = []
        """those questions"""
        self.routes: dict[str, tuple[Route, ...]] = {}
        """each call's, the first is the one that it begins with"""
        self.followed: list[FollowRoute] = []
        self.gives: Callable[[str, Route], str] | None = None
        """what grant it gives for a route of a call, if not the one that fits"""
        self.without: dict[str, str] = {}
        """voices that consent refuses, and why"""
        self.follows_after_s = 0.0
        self.renews_after_s = 0.0
        self._grants: dict[str, tuple[str, Scope]] = {}
        self._consent = consent

    async def ask(self, message: Ask[A], timeout_s: float = 2.0) -> A:
        message = through(message)
        if self.away:
            raise RpcError("the front does not answer")
        if type(message) in self.answers:
            self.asked.append(message)
            answer: A = self.answers[type(message)].pop(0)
            return answer
        if isinstance(message, FollowRoute):
            self.followed.append(message)
            await asyncio.sleep(self.follows_after_s)
            return self._followed(message)  # type: ignore[return-value]  # it is the A
        assert isinstance(message, RenewGrant)
        if self.nonsense:
            return message.answer_from(None)  # raises, as the peer of a real front does
        self.renewed.append((message.call_id, message.token))
        self.renewals.append(message)
        jti, scope = self._grants.get(message.call_id, (f"jti-{message.call_id}", None))
        await asyncio.sleep(self.renews_after_s)
        if self.refuses is not None:
            return GrantRenewal(refused=self.refuses)
        if scope is None:
            return GrantRenewal(token=self._consent.token(message.call_id))
        return GrantRenewal(token=self._consent.signed(scope, jti))

    def _followed(self, asked: FollowRoute) -> RouteGrant:
        """As `gateway.front.admission.routing` decides it."""
        (route,) = [route for route in self.routes[asked.call_id] if route.name == asked.route]
        scope, refused = route.scope(asked.call_id), self.refuses or self.without.get(route.voice)
        if refused is not None and route.without_voice == "hangup":
            return RouteGrant(refused=refused)
        if self.refuses is not None:
            return RouteGrant(refused=self.refuses)
        if refused is not None:
            scope = replace(scope, voice="heart")
        jti = f"jti-{asked.call_id}-{len(self.followed) + 1}"
        self._grants[asked.call_id] = jti, scope
        token = self._consent.signed(scope, jti) if self.gives is None else self.gives(asked.call_id, route)
        return RouteGrant(token, refused)

    def tell(self, message: Message) -> None:
        self.events.append(through(message))

    def told(self, kind: type[M]) -> list[M]:
        return [event for event in self.events if isinstance(event, kind)]


# ── lines and phones ─────────────────────────────────────────────────────────────────────────────────────


class Phone:
    """One caller on a line: speaks what it is told to, keeps what it hears, frame by frame."""

    def __init__(self, call_id: str, number: int, slot: int) -> None:
        self.call_id = call_id
        self.number = number
        self.slot = slot
        self.sending = self.receiving = False
        """our directions: the hall's sound is sent to the phone, the phone's is received"""
        self.answered = False
        self.up = False
        self.heard: list[float] = []
        """rms of each 20 ms since the answer"""
        self.played = 0
        self.asked: list[Ask[Any]] = []
        """what the hall asked the line for this call"""
        self.shown: list[Shown] = []
        self.transfers_to: int | None = 200
        """status that a transfer ends with, 180: it rings and rings; None: the line refuses it at once"""
        self.never_acks = False
        self.acks_first = False
        """its acknowledgement overtakes the line's word of the answer, as a browser's may"""
        self.early: bool | None = False
        """it hears something before the answer; None: its line cannot do that"""
        self.waiting: deque[bytes | None] = deque(maxlen=5)
        self.tones = False
        """no telephone-event was agreed: keys come as sound"""
        self._says: deque[float] = deque()
        self._plays: deque[bytes] = deque()

    def speak(self, seconds: float, level: float = 0.4) -> None:
        self._says.extend([level] * round(seconds / FRAME_S))

    def play(self, sound: Floats, rate_hz: int = 8_000) -> None:
        """Sends this sound, which has its line's rate."""
        size = round(rate_hz * FRAME_S)
        whole = np.pad(sound, (0, -len(sound) % size))
        self._plays.extend(bytes_from_float(whole[at : at + size]) for at in range(0, len(whole), size))

    @property
    def speaking(self) -> bool:
        return bool(self._says)

    def hear(self, sound: bytes | None) -> None:
        """The phone plays these 20 ms of the hall's sound; what it says next comes after."""

    def next_sound(self, frame: int) -> bytes:
        if self._plays:
            return self._plays.popleft()
        level = self._says.popleft() if self._says else 0.0
        at = np.arange(frame) / frame
        return (np.sin(2 * np.pi * 10 * at) * level * 32767).astype("<i2").tobytes()

    def heard_s(self, since: int = 0) -> float:
        """Seconds of sound heard since frame `since`."""
        return sum(level > 0.01 for level in self.heard[since:]) * FRAME_S

    @property
    def hung_up(self) -> bool:
        return any(isinstance(message, DropCall) for message in self.asked)


class Line:
    """A line: the hall's peer, and its end of the tick socket (`gateway.hall.calls.ticks.TickLine`)."""

    def __init__(self, house: House, name: str, rate_hz: int) -> None:
        self.house = house
        self.name = name
        self.rate_hz = rate_hz
        facts = LineFacts("narrow", rate_hz, "hall0", 4, ())
        self.hello = Hello("line", name, "token", line=facts)
        self.closed = asyncio.Event()
        self.phones: dict[str, Phone] = {}
        self.waiting: list[tick.Tick] = []
        self.late = 0
        self.answers: list[tick.Tick] = []
        self.lose: Callable[[int], bool] = lambda _: False
        """which of the line's ticks never arrive"""
        self._seq = 0
        self._frame = round(rate_hz * FRAME_S)

    async def ask(self, message: Ask[Any], timeout_s: float = 2.0) -> Any:
        message = through(message)
        call_id: str = message.call_id  # type: ignore[attr-defined]  # as all that the hall asks a line
        phone = self.phones.get(call_id)
        if phone is None:
            raise RpcError(f"no call {call_id} on {self.name}")
        phone.asked.append(message)
        hall, later = self.house.hall, self.house.later
        match message:
            case AnswerCall():
                phone.answered = phone.up = phone.sending = phone.receiving = True
                if phone.acks_first:
                    await hall.call_confirmed(self, CallConfirmed(call_id, "PCMU", 0.0))  # type: ignore[arg-type]
                elif not phone.never_acks:
                    later(RINGING_S, hall.call_confirmed, self, CallConfirmed(call_id, "PCMU", 0.0))
            case ProgressCall():
                if phone.early is None:
                    return False
                phone.up = phone.sending = phone.early = True
                return True
            case DropCall():
                del self.phones[call_id]
            case ReferCall() | CallTarget():
                if phone.transfers_to is None:
                    raise RpcError("this line cannot transfer")
                outcome = TransferOutcome(call_id, phone.transfers_to, "as scripted")
                if phone.transfers_to >= 200:
                    later(1.0, hall.transfer_outcome, self, outcome)

    def tell(self, message: Message) -> None:
        message = through(message)
        assert isinstance(message, ShowCaller)
        if (phone := self.phones.get(message.call_id)) is not None:
            phone.shown.append(message.event)

    async def start(self, phone: Phone, *, resumed: bool = False) -> None:
        """Tells the hall of a phone's call."""
        self.phones[phone.call_id] = phone
        started = CallStarted(phone.call_id, phone.number, phone.slot, None, resumed, phone.answered)
        await self.house.hall.call_started(self, started)  # type: ignore[arg-type]

    def take_waiting(self) -> list[tick.Tick]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def count_late(self, ticks: int) -> None:
        self.late += ticks

    def turn(self) -> None:
        """20 ms of the line: plays what waits, and sends its tick."""
        slots = []
        for phone in self.phones.values():
            if not phone.up:
                continue
            sound = phone.waiting.popleft() if phone.waiting else None
            phone.hear(sound if phone.sending else None)
            level = 0.0
            if sound and phone.sending:
                phone.played += self._frame
                level = float(np.sqrt(np.mean((np.frombuffer(sound, "<i2") / 32768) ** 2)))
            phone.heard.append(level)
            flags = tick.SENDING * phone.sending | tick.RECEIVING * phone.receiving | tick.TONES * phone.tones
            pcm = phone.next_sound(self._frame)
            slots.append(
                tick.SlotAudio(phone.number, phone.slot, flags, phone.played, pcm if phone.receiving else b"")
            )
        self._seq += 1
        if slots and not self.lose(self._seq):
            self.waiting.append(tick.unpack(tick.pack(self._seq, slots)))

    def answer(self, packet: bytes) -> None:
        answer = tick.unpack(packet)
        self.answers.append(answer)
        sounds = {sound.call: bytes(sound.pcm) for sound in answer.slots}
        for phone in self.phones.values():
            if phone.up:
                phone.waiting.append(sounds.get(phone.number))


# ── the house ────────────────────────────────────────────────────────────────────────────────────────────


class House:
    """One hall, its lines' clock, and everybody it talks with."""

    def __init__(self, folder: Path, *, activity: Any = None, **settings: Any) -> None:
        """`activity`: what judges speech in the place of `Loudness`. Its own ears hear no words early unless
        `settings` say so."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HouseLoop)
        self.loop = loop
        self.settings = Settings(data_dir=folder, **{"turns_by_words": "off", **settings})
        self.consent = Consent(loop)
        self.engine = Engine()
        self.ears = Ears()
        self.memory = Memory()
        self.front = Front(self.consent)
        self.lines: dict[str, Line] = {}
        self.bank = Bank()
        self.stuck = False
        """the hall takes no ticks: they wait"""
        self._numbers = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._activity = activity
        self.hall = self._new_hall()
        self._clock: asyncio.Task[None] | None = None

    def _new_hall(self) -> Hall:
        self.bank = Bank()
        clocks = HouseTime(self.loop)
        noise = Noiseless(CAPACITY) if self._activity is None else None
        return Hall(
            name="hall0",
            settings=self.settings,
            runtime=Runtime(self.settings.data_dir),
            token="token",
            floor=Floor(self.bank, KEY, activity=self._activity or Loudness(), noise=noise, clocks=clocks),  # type: ignore[arg-type]  # what the floor uses of it
            sessions=self.memory,  # type: ignore[arg-type]
            engine=self.engine,  # type: ignore[arg-type]
            verifier=self.consent,
            feed=RevocationFeed("unix:///nowhere", self.consent),
            clocks=clocks,
            ears=self.ears,  # type: ignore[arg-type]
        )

    def give_ears(self, ears: WritingEars) -> None:
        """The hall has somebody to write down what callers say."""
        self.hall.scribe = Scribe(ears)

    async def open(self) -> None:
        self._clock = asyncio.create_task(self._run())
        await self.hall._joined(self.front)  # type: ignore[arg-type]

    async def close(self) -> None:
        assert self._clock is not None
        self._clock.cancel()
        for call in list(self.hall.calls.values()):
            call.end(CallEnding(End.CONSOLE))
        await self.hall._lives.join()
        self.hall._tasks.cancel()
        for task in self._tasks:
            task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FRAME_S)
            self.turn()

    def turn(self) -> None:
        for line in self.lines.values():
            line.turn()
        if not self.stuck:
            self.hall.floor.turn([line for line in self.lines.values() if line.waiting])  # type: ignore[misc]

    def later(self, seconds: float, work: Callable[..., Any], *args: Any) -> None:
        async def then() -> None:
            await asyncio.sleep(seconds)
            with contextlib.suppress(RpcError):  # a tell: nobody learns of it
                await work(*args)

        task = asyncio.create_task(then())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def line(self, name: str = "n0", rate_hz: int = 8_000) -> Line:
        if name not in self.lines:
            self.lines[name] = Line(self, name, rate_hz)
            await self.hall._joined(self.lines[name])  # type: ignore[arg-type]
        return self.lines[name]

    async def offer(self, *verbs: Verb, others: tuple[Route, ...] = (), **offer: Any) -> str:
        """Offers a call to the hall as the front does; answers its id."""
        self._numbers += 1
        call_id = f"call{self._numbers}"
        route = Route(name="demo", do=verbs, **offer.pop("route", {}))
        facts = CallFacts(
            caller="sip:bob@x", called="sip:demo@y", display="", source="127.0.0.1",
            transport=offer.pop("transport", "udp"),
        )  # fmt: skip
        params = {
            "facts": facts, "targets": {}, "payload": self._numbers, "at": self.loop.wall(),
            "grant": self.consent.token(call_id), "routes": (route, *others),
        }  # fmt: skip
        offered = CallOffer(call_id=call_id, **(params | offer))
        self.front.routes[call_id] = offered.routes
        await self.hall.call_offered(self.front, through(offered))  # type: ignore[arg-type]
        return call_id

    async def ring(
        self, *verbs: Verb, line: str = "n0", rate_hz: int = 8_000, kind: type[Phone] = Phone, **offer: Any
    ) -> Phone:
        """A call is offered and its INVITE reaches a line."""
        call_id = await self.offer(*verbs, **offer)
        phone = kind(call_id, 100 + self._numbers, self._numbers % 4)
        await (await self.line(line, rate_hz)).start(phone)
        return phone

    async def until(self, happened: Callable[[], Any], within_s: float = 10.0, what: str = "it") -> float:
        """Waits, 20 ms by 20 ms of the house's time; answers how long it took."""
        began = self.loop.time()
        while not happened():
            if self.loop.time() - began > within_s:
                raise AssertionError(f"{what} did not happen within {within_s} s")
            await asyncio.sleep(FRAME_S / 2)
        return self.loop.time() - began

    async def says(self, text: str, within_s: float = 10.0) -> None:
        """Waits until the engine is asked for this text."""
        await self.until(lambda: text in self.engine.said, within_s, f"{text!r}")

    async def over(self, phone: Phone, within_s: float = 60.0) -> str:
        """Waits for the call's end; answers how it ended."""
        await self.until(lambda: phone.call_id not in self.hall.calls, within_s, "the call's end")
        return self.memory.hashes[f"vg:call:{phone.call_id}"]["how"]

    def call(self, phone: Phone) -> Call:
        return self.hall.calls[phone.call_id]

    def events(self, phone: Phone, kind: str) -> list[dict[str, Any]]:
        return [data for name, data in self.memory.streams[phone.call_id] if name == kind]

    def sound(self, phone: Phone) -> SoundTrack:
        """What Redis has of a call's sound."""
        return read_track(self.memory.lists.get(f"vg:sound:{phone.call_id}", []))

    async def hold(self, phone: Phone, *, held: bool) -> None:
        phone.sending = phone.receiving = not held
        line = next(line for line in self.lines.values() if phone.call_id in line.phones)
        turned = MediaTurned(phone.call_id, sending=not held, receiving=not held)
        await self.hall.media_turned(line, turned)  # type: ignore[arg-type]

    async def press(self, phone: Phone, digits: str, way: KeyWay = "event") -> None:
        for digit in digits:
            await self.hall.key_pressed(self.front, KeyPressed(phone.call_id, digit, way))  # type: ignore[arg-type]

    async def hang_up(self, phone: Phone) -> None:
        """The caller does."""
        line = next(line for line in self.lines.values() if phone.call_id in line.phones)
        await self.hall.call_left(line, CallLeft(phone.call_id, CallEnding(End.CALLER)))  # type: ignore[arg-type]

    async def line_dies(self, line: Line) -> None:
        del self.lines[line.name]
        line.closed.set()
        await self.hall._left(line)  # type: ignore[arg-type]

    async def hall_dies(self) -> None:
        """As `kill -9` does: a new hall knows nothing, and nobody has joined it."""
        self.hall._lives.cancel()
        self.hall._tasks.cancel()
        dead, self.hall = self.hall, self._new_hall()
        lost = Memory().living
        for call in dead.calls.values():  # their last words reach nobody
            call.session._living = lost
            call.line._peer = None
        dead._front = None
        for line in self.lines.values():
            line.waiting.clear()
        await asyncio.sleep(0)

    async def revoke(self, voice: str = "heart") -> None:
        revocation = self.hall.feed.revocations.take(self.consent.revocation(voice))
        assert revocation is not None
        await self.hall.grants.revoked(revocation)

    def is_empty(self) -> bool:
        """Nothing of any call is left in the hall."""
        floor = self.hall.floor
        return (
            len(floor._free) == len(set(floor._free)) == CAPACITY
            and not floor._on_line
            and not floor._meter._calls
            and not self.bank.slots
            and not self.hall.calls
            and not self.hall._lives
        )
