"""One WebSocket's session: the contract's rules around any engine's conversation.

The reader handles the client's events in order; one reply runs at a time beside it. What every engine would
have to get right (who may speak, how long an utterance is, what an interruption means) is here, so that none
has to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import structlog

from consent.errors import GrantRefused
from consent.grants.grant import VoiceGrant
from model import events
from model.api import (
    MAX_UTTERANCE_S,
    RATE_HZ,
    Conversation,
    EarlyHearing,
    Floats,
    HearsEarly,
    HearsLate,
    HistoryItem,
    Limits,
    SessionConfig,
    Understood,
)
from model.errors import ClientGone, EngineError, ProtocolError
from model.json_log import untold
from model.reply import Reply, ReplyTerms, Send
from model.tasks import Tasks

log = structlog.get_logger("engine")

LEAD_RANGE_S: Final = (0.1, 10.0)
REPLIES: Final = 64
"""Replies whose items can still be truncated."""


class Session:
    """One client. `renew` turns a token into this connection's next grant or raises `GrantRefused`."""

    def __init__(
        self,
        conversation: Conversation,
        grant: VoiceGrant,
        renew: Callable[[str], VoiceGrant],
        limits: Limits,
        send: Send,
        revoked: Callable[[VoiceGrant], bool],
    ) -> None:
        self.id = events.new_id("sess")
        self._conversation = conversation
        self._terms = ReplyTerms(grant, revoked)
        self._renew = renew
        self._limits = limits
        self._send = send
        self._config = SessionConfig()
        self._number = 0
        self._reply: Reply | None = None
        self._replies: dict[str, Reply] = {}
        self._heard = 0
        """samples of the utterance so far"""
        self._utterance = 0
        """commits and clears so far"""
        self._wants_hearing = False
        self._hears_early = self._knows_asides = False
        if isinstance(conversation, HearsEarly):
            self._hears_early, self._knows_asides = True, conversation.knows_asides
            conversation.tell_early(self._heard_early)
        self._tasks = Tasks()
        self._committing: asyncio.Task[None] | None = None
        self._late: asyncio.Task[None] | None = None
        """tells the words of an utterance that was answered for before they were there"""
        self._log = log.bind(call_id=grant.call_id)

    async def start(self) -> None:
        # for whatever this task and the tasks that it begins have to log
        structlog.contextvars.bind_contextvars(call_id=self._terms.grant.call_id)
        self._log.info("session.started", voice=self._terms.grant.voice)
        await self._tell_session("session.created")

    async def close(self) -> None:
        """Ends what is under way and frees the engine's slot."""
        if self._reply is not None:
            await self._reply.cancel()
        await self._tasks.stop()
        await self._conversation.close()
        self._log.info("session.closed")

    async def _tell_session(self, kind: str) -> None:
        terms = self._terms
        await self._send(
            events.session(
                kind,
                self.id,
                self._config.instructions,
                terms.grant.voice,
                self._limits,
                terms.lead_s,
                hearing=self._wants_hearing and self._hears_early,
                asides=self._wants_hearing and self._knows_asides,
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
            await self._send(events.error(str(error), error.code, param=error.param, event_id=error.event_id))
            return
        handler = getattr(self, "_on_" + event["type"].replace(".", "_"))
        await self._answer(handler(event), event.get("event_id"))

    async def _answer(self, work: Awaitable[None], event_id: str | None) -> None:
        try:
            await work
        except ProtocolError as error:
            await self._send(events.error(str(error), error.code, param=error.param, event_id=event_id))
        except GrantRefused as refusal:
            await self._send(events.error(str(refusal), f"grant_{refusal.reason}", event_id=event_id))
        except ClientGone:
            raise
        except EngineError as error:
            await self._send(events.error(str(error), error.code, event_id=event_id))

    async def _on_session_update(self, event: events.Event) -> None:
        given = event["session"]
        ours = given.get("voicegate", {})
        voice = given.get("audio", {}).get("output", {}).get("voice", self._terms.grant.voice)
        if voice != self._terms.grant.voice:
            raise _invalid(f"the grant's voice is {self._terms.grant.voice!r}", "session.audio.output.voice")
        if "grant" in ours:
            self._terms.grant = self._renew(ours["grant"])
        known = {
            **{name: given[name] for name in ("instructions", "tools") if name in given},
            **{name: ours[name] for name in ("answers", "facts", "phrases", "timezone") if name in ours},
        }
        if known:
            config = replace(self._config, **known)
            await self._conversation.configure(config)
            self._config = config
        self._terms.binary = ours.get("binary", self._terms.binary)
        self._wants_hearing = ours.get("hearing", self._wants_hearing)
        if "lead_s" in ours:
            least, most = LEAD_RANGE_S
            self._terms.lead_s = min(most, max(least, ours["lead_s"]))
        await self._tell_session("session.updated")

    async def _on_input_audio_buffer_append(self, event: events.Event) -> None:
        await self._append(events.pcm_from_base64, event["audio"])

    async def _append(self, decode: Callable[[Any], Floats], raw: Any) -> None:
        pcm = decode(raw)
        if self._heard + len(pcm) > MAX_UTTERANCE_S * RATE_HZ:
            raise _invalid(f"an utterance is at most {MAX_UTTERANCE_S:g} s: commit or clear it", "audio")
        if self._committing is not None:  # the utterance before is the conversation's until it is understood
            await asyncio.wait((self._committing,))
        self._heard += len(pcm)
        self._conversation.hear(pcm)

    def _heard_early(self, early: EarlyHearing) -> None:
        """A pause was understood; of an utterance that is over by now, nobody is told."""
        if self._wants_hearing and self._heard:
            self._tasks.short(self._tell_hearing(events.hearing(self._utterance, early)), "engine.hearing")

    async def _tell_hearing(self, event: events.Event) -> None:
        with contextlib.suppress(ClientGone):
            await self._send(event)

    async def _on_input_audio_buffer_commit(self, event: events.Event) -> None:
        self._utterance += 1
        if not self._heard:
            raise _invalid("there is nothing to commit", "input_audio_buffer")
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
        self._committing = self._tasks.short(self._commit(item_id), "engine.commit")

    async def _commit(self, item_id: str) -> None:
        with contextlib.suppress(ClientGone):
            try:
                understood = await self._conversation.commit()
            except EngineError as error:
                await self._send(events.error(str(error), error.code))
                return
            except Exception as error:  # its text may hold the caller's words: it goes nowhere
                self._log.error("commit.failed", **untold(error))
                await self._send(events.error(type(error).__name__, EngineError.code))
                return
            if self._late is not None:  # the words of the utterance before come first
                await asyncio.wait((self._late,))
            await self._send(events.item_added(events.user_item(item_id, understood.text)))
            if understood.late and isinstance(self._conversation, HearsLate):
                self._late = self._tasks.short(self._tell_late(item_id, self._conversation), "engine.late")
            elif self._limits.transcribes:
                await self._send(events.transcription(item_id, understood))

    async def _tell_late(self, item_id: str, conversation: HearsLate) -> None:
        try:
            understood = await conversation.heard_late()
        except Exception as error:  # its text may hold the caller's words: it goes nowhere
            self._log.error("late.failed", **untold(error))
            understood = Understood(0.0)
        with contextlib.suppress(ClientGone):
            await self._send(events.transcription(item_id, understood))

    async def _on_input_audio_buffer_clear(self, event: events.Event) -> None:
        self._utterance += 1
        self._heard = 0
        self._conversation.clear()
        await self._send(events.server("input_audio_buffer.cleared"))

    async def _on_conversation_item_create(self, event: events.Event) -> None:
        item = event["item"]
        # what became of a tool is the hall's business: nothing to remember of it
        if item.get("type", "message") == "message":
            if "role" not in item:
                raise _invalid("an item needs its role", "item.role")
            for past in _history(item):
                await self._conversation.restore(past)
        await self._send(
            events.item_added({"id": item.get("id") or events.new_id("item"), "status": "completed", **item})
        )

    async def _on_conversation_item_truncate(self, event: events.Event) -> None:
        item_id = event["item_id"]
        reply = self._replies.get(item_id)
        if reply is None:
            raise _invalid(f"no item {item_id} of ours", "item_id")
        await reply.cancel()
        text = await self._conversation.truncate(item_id, event["audio_end_ms"] / 1000)
        await self._send(
            events.server(
                "conversation.item.truncated",
                item_id=item_id,
                content_index=0,
                audio_end_ms=round(event["audio_end_ms"]),
                voicegate={"text": text},
            )
        )

    async def _on_response_cancel(self, event: events.Event) -> None:
        reply = self._reply
        if reply is not None and event.get("response_id", reply.response_id) == reply.response_id:
            await reply.cancel()

    async def _on_voicegate_playout(self, event: events.Event) -> None:
        reply = self._replies.get(event["item_id"])
        if reply is not None:
            reply.report(event["played_ms"] / 1000)

    async def _on_response_create(self, event: events.Event) -> None:
        if self._reply is not None and self._reply.in_progress:
            raise _invalid(f"response {self._reply.response_id} is still in progress", "response")
        response = event.get("response", {})
        say = response.get("voicegate", {}).get("say")
        if say is not None and not say.strip():
            raise _invalid("response.voicegate.say must be words", "response.voicegate.say")
        self._terms.check()
        self._number += 1
        reply = self._reply = Reply(self._number, self._terms, self._send)
        self._replies[reply.item_id] = reply
        if len(self._replies) > REPLIES:
            del self._replies[next(iter(self._replies))]
        # what is to be said word for word does not wait for what is being understood
        after = self._committing if say is None else None
        await reply.start(self._conversation, say, after, response.get("metadata"))


def _history(item: events.Event) -> list[HistoryItem]:
    """What is remembered of a message. Raises `ProtocolError`."""
    past = []
    for part in item.get("content", []):
        kind = part.get("type")
        if kind in ("input_text", "output_text", "text"):
            past.append(HistoryItem(item["role"], text=part.get("text", "")))
        elif kind == "input_audio":
            pcm = events.pcm_from_base64(part["audio"]) if part.get("audio") else None
            past.append(HistoryItem(item["role"], text=part.get("transcript"), pcm=pcm))
        elif kind == "output_audio":
            past.append(HistoryItem(item["role"], text=part.get("transcript")))
        else:
            raise _invalid("a part of an item needs its type", "item.content.type")
    return past


def _invalid(message: str, param: str) -> ProtocolError:
    return ProtocolError(message, param, code="invalid_value")
