"""One reply on its way to the client: its frames, its lead over what was played, its end.

The engine yields words and sound as fast as it can; here they are held back to at most `lead_s` ahead of the
playout, and stopped at the next frame when the grant lapses. A reply always ends in one `response.done`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from consent.errors import GrantRefused
from consent.grants.grant import LEEWAY_S, VoiceGrant
from model import events
from model.api import FRAME, RATE_HZ, Conversation, Floats, Forgot, Sound, Text, Tool
from model.errors import ClientGone, EngineError
from model.json_log import untold
from model.tasks import Tasks
from watermark.pcm import bytes_from_float

log = structlog.get_logger("engine")

REPORT_STALE_S: Final = 0.5
"""Without a playout report for this long the lead goes by wall clock."""
LEAD_S: Final = 1.0
LOOK_S: Final = 0.1
"""How often a reply that waits for its lead looks at the clock and at its grant."""

Send = Callable[[events.Event | bytes], Awaitable[None]]


@dataclass(slots=True)
class ReplyTerms:
    """What a session has agreed on; replies under way see changes at once."""

    grant: VoiceGrant
    revoked: Callable[[VoiceGrant], bool]
    binary: bool = False
    lead_s: float = LEAD_S

    def check(self) -> None:
        """Raises `GrantRefused` when the grant has lapsed or its voice was revoked."""
        if self.revoked(self.grant):
            raise GrantRefused("revoked", f"the voice {self.grant.voice} was revoked")
        if self.grant.left_s(time.time()) < -LEEWAY_S:
            raise GrantRefused("expired", "the voice grant has lapsed; renew it by session.update")


class Reply:
    """A response under way or done. `send` takes an event, or a binary frame."""

    def __init__(self, number: int, terms: ReplyTerms, send: Send) -> None:
        self.number = number
        self.response_id = events.new_id("resp")
        self.item_id = events.new_id("item")
        self.status = "in_progress"
        self.text = ""
        self.sent = 0
        """samples"""
        self._terms = terms
        self._send = send
        self._tasks = Tasks()
        self._task: asyncio.Task[None] | None = None
        self._began: float | None = None
        self._played: tuple[float, float] | None = None
        """(seconds the client played, when it said so)"""
        self._moved = asyncio.Event()

    @property
    def in_progress(self) -> bool:
        return self.status == "in_progress"

    async def start(
        self, conversation: Conversation, say: str | None, after: Awaitable[None] | None, metadata: Any
    ) -> None:
        """Tells the client and begins, once `after` (an utterance being understood) is done."""
        more = {"metadata": metadata} if metadata is not None else {}
        await self._send(
            events.response(
                "response.created", self.response_id, self.item_id, self.status, self.number, **more
            )
        )
        self._task = self._tasks.short(self._run(conversation, say, after), "engine.reply")

    async def cancel(self) -> None:
        """Ends it now; idempotent. The client has its `response.done` when this returns."""
        if self._task is None or self._task.done():
            return
        if self.in_progress:  # else it is telling its end already, which the client must not miss
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self.in_progress:  # it was cancelled before it began
            with contextlib.suppress(ClientGone):
                await self._finish("cancelled", None)

    def report(self, played_s: float) -> None:
        """The client has played so much of it."""
        self._played = (played_s, time.monotonic())
        self._moved.set()

    def _ahead_s(self, samples: int, now: float) -> float:
        """How far beyond its lead the reply would be with `samples` more."""
        if self._began is None:
            self._began = now
        if self._played is None:
            played = now - self._began
        else:
            seconds, at = self._played
            played = seconds + max(0.0, now - at - REPORT_STALE_S)
        return (self.sent + samples) / RATE_HZ - played - self._terms.lead_s

    async def _run(self, conversation: Conversation, say: str | None, after: Awaitable[None] | None) -> None:
        try:
            status, reason = await self._speak(conversation, say, after)
            await self._finish(status, reason)
        except ClientGone:
            self.status = "cancelled"

    async def _speak(
        self, conversation: Conversation, say: str | None, after: Awaitable[None] | None
    ) -> tuple[str, str | None]:
        """How the reply ended, and why if it failed."""
        try:
            if after is not None:
                await after
            item = events.assistant_item(self.item_id, "", "in_progress")
            await self._tell("response.output_item.added", item=item)
            outputs = conversation.respond(self.item_id, say)
            async with contextlib.aclosing(outputs):  # type: ignore[type-var]
                async for output in outputs:
                    self._terms.check()
                    match output:
                        case Text(delta):
                            self.text += delta
                            await self._tell_delta("response.output_audio_transcript.delta", delta)
                        case Sound(pcm):
                            await self._send_sound(pcm)
                        case Forgot(turns):
                            await self._send(events.server("voicegate.forgot", turns=turns))
                        case Tool(name, arguments):
                            await self._send_tool(name, dict(arguments))
            return "completed", None
        except asyncio.CancelledError:
            return "cancelled", None
        except ClientGone:
            raise
        except GrantRefused as refusal:
            failure, reason = str(refusal), f"grant_{refusal.reason}"
        except EngineError as error:
            failure, reason = str(error), error.code
        except Exception as error:  # its text may hold what was said
            log.error("reply.failed", call_id=self._terms.grant.call_id, **untold(error))
            failure, reason = type(error).__name__, EngineError.code
        await self._send(events.error(failure, reason))
        return "failed", reason

    async def _send_sound(self, pcm: Floats) -> None:
        for at in range(0, len(pcm), FRAME):
            frame = pcm[at : at + FRAME]
            while (ahead := self._ahead_s(len(frame), time.monotonic())) > 0:
                self._moved.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(ahead, LOOK_S)):
                        await self._moved.wait()
                self._terms.check()
            raw = bytes_from_float(frame)
            self.sent += len(frame)
            if self._terms.binary:
                await self._send(events.BINARY_HEAD.pack(self.number) + raw)
            else:
                await self._tell_delta("response.output_audio.delta", base64.b64encode(raw).decode())

    async def _tell(self, kind: str, **fields: Any) -> None:
        await self._send(events.server(kind, response_id=self.response_id, output_index=0, **fields))

    async def _tell_delta(self, kind: str, delta: str) -> None:
        await self._tell(kind, item_id=self.item_id, content_index=0, delta=delta)

    async def _send_tool(self, name: str, arguments: dict[str, Any]) -> None:
        await self._send(
            events.server(
                "response.function_call_arguments.done",
                response_id=self.response_id,
                item_id=events.new_id("item"),
                output_index=1,
                call_id=events.new_id("call"),
                name=name,
                arguments=json.dumps(arguments),
            )
        )

    async def _finish(self, status: str, reason: str | None) -> None:
        self.status = status
        item = events.assistant_item(
            self.item_id, self.text, "completed" if status == "completed" else "incomplete"
        )
        await self._tell("response.output_audio.done", item_id=self.item_id, content_index=0)
        await self._tell(
            "response.output_audio_transcript.done",
            item_id=self.item_id,
            content_index=0,
            transcript=self.text,
        )
        await self._tell("response.output_item.done", item=item)
        more = {} if reason is None else {"reason": reason}
        await self._send(
            events.response(
                "response.done",
                self.response_id,
                self.item_id,
                status,
                self.number,
                output=[item],
                audio_s=self.sent / RATE_HZ,
                **more,
            )
        )
