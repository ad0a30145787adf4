"""One WebSocket's session: the contract's rules around any engine's conversation.

The reader handles events in order; one reply runs at a time beside it. The lead, the grant's life, binary
frames and late interruptions are dealt with here, so that no engine has to.
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
from consent.grant import VoiceGrant
from model import events
from model.api import (
    FRAME,
    MAX_UTTERANCE_S,
    RATE_HZ,
    Conversation,
    Forgot,
    HistoryItem,
    Limits,
    SessionConfig,
    Sound,
    Text,
    Tool,
    Understood,
)
from model.errors import EngineError, ProtocolError

log = structlog.get_logger("engine")

REPORT_STALE_S: Final = 0.5
"""Without a playout report for this long the lead goes by wall clock."""
GRANT_LEEWAY_S: Final = 5.0
LEAD_S: Final = 1.0

Send = Callable[[events.Event | bytes], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Reply:
    """A response under way or done."""

    number: int
    response_id: str
    item_id: str
    sent: int = 0
    """samples"""
    text: str = ""
    began: float | None = None
    played_ms: float | None = None
    played_at: float = 0.0
    status: str = "in_progress"
    task: asyncio.Task[None] | None = None

    def played_s(self, now: float) -> float:
        """What the caller has heard: the last report, carried on by the clock once it is stale."""
        if self.played_ms is None:
            return now - self.began if self.began is not None else 0.0
        stale = now - self.played_at - REPORT_STALE_S
        return self.played_ms / 1000 + max(0.0, stale)


class Session:
    """One client. `verify` turns a grant token into a `VoiceGrant` or raises `GrantRefused`."""

    def __init__(
        self,
        conversation: Conversation,
        grant: VoiceGrant,
        verify: Callable[[str], VoiceGrant],
        limits: Limits,
        send: Send,
    ) -> None:
        self.id = events.new_id("sess")
        self._conversation = conversation
        self._grant = grant
        self._verify = verify
        self._limits = limits
        self._send = send
        self._config = SessionConfig()
        self._binary = False
        self._lead_s = LEAD_S
        self._number = 0
        self._reply: Reply | None = None
        self._replies: dict[str, Reply] = {}
        self._moved = asyncio.Event()
        """a playout report came, or something else that may let the reply go on"""
        self._heard = 0
        self._committing: asyncio.Task[None] | None = None
        self._log = log.bind(call_id=grant.call_id)

    async def start(self) -> None:
        await self._tell_session("session.created")

    async def close(self) -> None:
        if self._reply is not None and self._reply.task is not None:
            self._reply.task.cancel()
            await asyncio.gather(self._reply.task, return_exceptions=True)
        if self._committing is not None:
            await asyncio.gather(self._committing, return_exceptions=True)
        await self._conversation.close()

    async def _tell_session(self, kind: str) -> None:
        await self._send(
            events.session(
                kind, self.id, self._config.instructions, self._grant.voice, self._limits, self._lead_s
            )
        )

    # ── what the client says ─────────────────────────────────────────────────────────────────────────

    async def take_binary(self, raw: bytes) -> None:
        """A binary frame is sound of the caller."""
        await self._answer(self._append(events.pcm_from_bytes, raw), None)

    async def take(self, message: str) -> None:
        """One text frame; whatever is wrong with it becomes an `error` event."""
        try:
            event = events.parse(message)
        except ProtocolError as error:
            await self._send(events.error(str(error), error.code, param=error.param))
            return
        handler = getattr(self, "_on_" + event["type"].replace(".", "_"))
        await self._answer(handler(event), event.get("event_id"))

    async def _answer(self, work: Awaitable[None], event_id: str | None) -> None:
        try:
            await work
        except ProtocolError as error:
            await self._send(events.error(str(error), "invalid_value", param=error.param, event_id=event_id))
        except GrantRefused as refusal:
            await self._send(events.error(str(refusal), f"grant_{refusal.reason}", event_id=event_id))
        except EngineError as error:
            await self._send(events.error(str(error), error.code, event_id=event_id))

    async def _on_session_update(self, event: events.Event) -> None:
        given = event.get("session") or {}
        ours = given.get("voicegate") or {}
        if "grant" in ours:
            renewed = self._verify(str(ours["grant"]))
            if (renewed.call_id, renewed.voice_hash) != (self._grant.call_id, self._grant.voice_hash):
                raise GrantRefused("other_call", "a session keeps its call and its voice")
            self._grant = renewed
        self._binary = bool(ours.get("binary", self._binary))
        if "lead_s" in ours:
            self._lead_s = min(10.0, max(0.1, _number(ours["lead_s"], "session.voicegate.lead_s")))
        if {"instructions", "tools"} & given.keys() or {"answers", "facts", "phrases"} & ours.keys():
            self._config = SessionConfig(
                instructions=str(given.get("instructions", self._config.instructions)),
                tools=tuple(given.get("tools", self._config.tools)),
                answers=tuple(ours.get("answers", self._config.answers)),
                facts=dict(ours.get("facts", self._config.facts)),
                phrases=dict(ours.get("phrases", self._config.phrases)),
            )
            await self._conversation.configure(self._config)
        await self._tell_session("session.updated")

    async def _on_input_audio_buffer_append(self, event: events.Event) -> None:
        await self._append(events.pcm_from_base64, event.get("audio"))

    async def _append(self, decode: Callable[[Any], Any], raw: Any) -> None:
        pcm = decode(raw)
        if self._heard + len(pcm) > MAX_UTTERANCE_S * RATE_HZ * 1.05:
            raise ProtocolError(f"an utterance is at most {MAX_UTTERANCE_S:g} s: commit or clear", "audio")
        if self._committing is not None:
            await asyncio.wait((self._committing,))
        self._heard += len(pcm)
        self._conversation.hear(pcm)

    async def _on_input_audio_buffer_commit(self, event: events.Event) -> None:
        if not self._heard:
            raise ProtocolError("there is nothing to commit", "input_audio_buffer")
        duration_s, self._heard = self._heard / RATE_HZ, 0
        item_id = events.new_id("item")
        await self._send(
            events.server(
                "input_audio_buffer.committed",
                item_id=item_id,
                previous_item_id=None,
                voicegate={"duration_s": duration_s},
            )
        )
        self._committing = asyncio.create_task(self._commit(item_id))

    async def _commit(self, item_id: str) -> None:
        try:
            understood: Understood = await self._conversation.commit()
        except EngineError as error:
            await self._send(events.error(str(error), error.code))
            return
        item = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_audio", "transcript": understood.text}],
        }
        await self._send(events.server("conversation.item.added", item=item, previous_item_id=None))
        if self._limits.transcribes:
            await self._send(events.transcription(item_id, understood))

    async def _on_input_audio_buffer_clear(self, event: events.Event) -> None:
        self._heard = 0
        self._conversation.clear()
        await self._send(events.server("input_audio_buffer.cleared"))

    async def _on_conversation_item_create(self, event: events.Event) -> None:
        item = event.get("item") or {}
        if item.get("type") == "function_call_output":
            return  # what became of a tool is the hall's business; nothing to remember
        role = item.get("role")
        if role not in ("user", "assistant", "system"):
            raise ProtocolError(f"an item's role is user, assistant or system, not {role!r}", "item.role")
        for part in item.get("content", []):
            kind = part.get("type")
            if kind in ("input_text", "output_text", "text"):
                await self._conversation.restore(HistoryItem(role, text=str(part.get("text", ""))))
            elif kind == "input_audio":
                pcm = events.pcm_from_base64(part.get("audio")) if part.get("audio") else None
                await self._conversation.restore(HistoryItem(role, text=part.get("transcript"), pcm=pcm))
            elif kind == "output_audio":
                await self._conversation.restore(HistoryItem(role, text=part.get("transcript")))
            else:
                raise ProtocolError(f"unknown content {kind!r}", "item.content.type")
        item = {"id": item.get("id") or events.new_id("item"), "status": "completed", **item}
        await self._send(events.server("conversation.item.added", item=item, previous_item_id=None))

    async def _on_conversation_item_truncate(self, event: events.Event) -> None:
        item_id = str(event.get("item_id"))
        reply = self._replies.get(item_id)
        if reply is None:
            raise ProtocolError(f"no item {item_id} of ours", "item_id")
        heard_ms = _number(event.get("audio_end_ms"), "audio_end_ms")
        if reply.status == "in_progress":
            await self._cancel(reply)
        text = self._conversation.truncate(item_id, heard_ms / 1000)
        await self._send(
            events.server(
                "conversation.item.truncated",
                item_id=item_id,
                content_index=0,
                audio_end_ms=round(heard_ms),
                voicegate={"text": text},
            )
        )

    async def _on_response_cancel(self, event: events.Event) -> None:
        wanted = event.get("response_id")
        reply = self._reply
        if reply is not None and (wanted is None or wanted == reply.response_id):
            await self._cancel(reply)

    async def _cancel(self, reply: Reply) -> None:
        if reply.task is not None and not reply.task.done():
            reply.task.cancel()
            await asyncio.gather(reply.task, return_exceptions=True)

    async def _on_voicegate_playout(self, event: events.Event) -> None:
        reply = self._replies.get(str(event.get("item_id")))
        if reply is not None:
            reply.played_ms = _number(event.get("played_ms"), "played_ms")
            reply.played_at = time.monotonic()
            self._moved.set()

    # ── replies ──────────────────────────────────────────────────────────────────────────────────────

    async def _on_response_create(self, event: events.Event) -> None:
        if self._reply is not None and self._reply.status == "in_progress":
            raise ProtocolError(f"response {self._reply.response_id} is still in progress", "response")
        ours = (event.get("response") or {}).get("voicegate") or {}
        say = ours.get("say")
        if say is not None and (not isinstance(say, str) or not say.strip()):
            raise ProtocolError("voicegate.say must be words", "response.voicegate.say")
        self._check_grant()
        self._number += 1
        reply = Reply(self._number, events.new_id("resp"), events.new_id("item"))
        self._reply = self._replies[reply.item_id] = reply
        if len(self._replies) > 64:
            del self._replies[next(iter(self._replies))]
        await self._send(
            events.response("response.created", reply.response_id, reply.item_id, "in_progress", reply.number)
        )
        reply.task = asyncio.create_task(self._run(reply, say))

    def _check_grant(self) -> None:
        if time.time() > self._grant.expires_at + GRANT_LEEWAY_S:
            raise GrantRefused("expired", "the voice grant has lapsed; renew it by session.update")

    async def _run(self, reply: Reply, say: str | None) -> None:
        details: dict[str, Any] = {}
        try:
            if self._committing is not None and say is None:
                await self._committing
            item = events.assistant_item(reply.item_id, "", "in_progress")
            await self._send(
                events.server(
                    "response.output_item.added", response_id=reply.response_id, output_index=0, item=item
                )
            )
            async with contextlib.aclosing(self._conversation.respond(reply.item_id, say)) as outputs:  # type: ignore[type-var]
                async for output in outputs:
                    self._check_grant()
                    match output:
                        case Text(delta):
                            reply.text += delta
                            await self._send(
                                self._delta("response.output_audio_transcript.delta", reply, delta)
                            )
                        case Sound(pcm):
                            await self._wait_for_lead(reply)
                            await self._send_sound(reply, pcm)
                        case Forgot(turns):
                            await self._send(events.server("voicegate.forgot", turns=turns))
                        case Tool(name, arguments):
                            await self._send_tool(reply, name, dict(arguments))
            reply.status = "completed"
        except asyncio.CancelledError:
            reply.status = "cancelled"
        except GrantRefused as refusal:
            reply.status = "failed"
            details = {"reason": f"grant_{refusal.reason}"}
            await self._send(events.error(str(refusal), f"grant_{refusal.reason}"))
        except EngineError as error:
            reply.status = "failed"
            details = {"reason": error.code}
            await self._send(events.error(str(error), error.code))
        except Exception as error:
            self._log.exception("reply.failed")
            reply.status = "failed"
            details = {"reason": "engine_error"}
            await self._send(events.error(f"{type(error).__name__}: {error}", "engine_error"))
        with contextlib.suppress(Exception):  # the client may be gone
            await self._finish(reply, details)

    async def _finish(self, reply: Reply, details: dict[str, Any]) -> None:
        item = events.assistant_item(reply.item_id, reply.text, "completed")
        for kind, more in (
            ("response.output_audio.done", {}),
            ("response.output_audio_transcript.done", {"transcript": reply.text}),
        ):
            await self._send(
                events.server(
                    kind,
                    response_id=reply.response_id,
                    item_id=reply.item_id,
                    output_index=0,
                    content_index=0,
                    **more,
                )
            )
        await self._send(
            events.server(
                "response.output_item.done", response_id=reply.response_id, output_index=0, item=item
            )
        )
        await self._send(
            events.response(
                "response.done",
                reply.response_id,
                reply.item_id,
                reply.status,
                reply.number,
                output=[item],
                audio_s=reply.sent / RATE_HZ,
                **details,
            )
        )

    def _delta(self, kind: str, reply: Reply, delta: str) -> events.Event:
        return events.server(
            kind,
            response_id=reply.response_id,
            item_id=reply.item_id,
            output_index=0,
            content_index=0,
            delta=delta,
        )

    async def _wait_for_lead(self, reply: Reply) -> None:
        """Until the reply is at most `lead_s` ahead of what was played."""
        while True:
            now = time.monotonic()
            if reply.began is None:
                reply.began = now
            ahead = reply.sent / RATE_HZ - reply.played_s(now) - self._lead_s
            if ahead <= 0:
                return
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(ahead, 0.1)):
                    await self._moved.wait()

    async def _send_sound(self, reply: Reply, pcm: Any) -> None:
        for at in range(0, len(pcm), FRAME):
            raw = events.pcm_to_bytes(pcm[at : at + FRAME])
            reply.sent += len(raw) // 2
            if self._binary:
                await self._send(events.BINARY_HEAD.pack(reply.number) + raw)
            else:
                await self._send(
                    self._delta("response.output_audio.delta", reply, base64.b64encode(raw).decode())
                )

    async def _send_tool(self, reply: Reply, name: str, arguments: dict[str, Any]) -> None:
        await self._send(
            events.server(
                "response.function_call_arguments.done",
                response_id=reply.response_id,
                item_id=events.new_id("item"),
                output_index=1,
                call_id=events.new_id("call"),
                name=name,
                arguments=json.dumps(arguments),
            )
        )


def _number(value: Any, param: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ProtocolError(f"{param} must be a number of 0 or more, not {value!r}", param)
    return float(value)
