"""An OpenAI-compatible chat server, asked over HTTP: one streamed answer per question, bounded in every way.

No redirect is followed, no proxy of the environment is used, and what is compressed is refused: words of a
caller go to the one server that the operator named, and so many bytes as are read are all there are. What the
server says of an error is not repeated, since it may hold the caller's words.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import structlog

from model.cascade.chat_meters import ChatMeters
from model.cascade.chat_settings import COMPLETIONS, ChatSettings
from model.cascade.event_stream import EventStream
from model.errors import ChatServerError, EngineError
from model.trace_context import passed_on

log = structlog.get_logger("cascade")

CONNECT_S: Final = 3.0
MOST_STREAM: Final = 4 << 20
"""Bytes of one answer on its way, and"""
MOST_BODY: Final = 1 << 16
"""of what is read of an error."""
MOST_MODELS: Final = 1 << 20
KEPT: Final = 64
KEPT_S: Final = 60.0
"""Connections that wait for the next question, and how long: a handshake far away takes a while."""
LAST_S: Final = 0.2
LAST_BYTES: Final = 1 << 16
"""What is waited for and read after the answer's end, so that its connection can be kept."""
DONE: Final = "[DONE]"
_CODE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,59}")
Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ToolPart:
    """A piece of a tool call; pieces of one call have its `index`."""

    index: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """What one event of a stream says."""

    text: str = ""
    tools: tuple[ToolPart, ...] = ()
    finish: str | None = None
    tokens: int | None = None
    """of the whole answer, where the server says so"""


class ChatServer:
    """One server, for all conversations of an engine."""

    def __init__(self, settings: ChatSettings, meters: ChatMeters | None = None) -> None:
        self.settings = settings
        self.meters = meters or ChatMeters()
        self._limit = "max_tokens"
        """how this server calls the limit of an answer"""
        self._takes_tools = True
        headers = {"User-Agent": "voicegate", "Accept-Encoding": "identity"}
        if settings.key is not None:
            headers["Authorization"] = f"Bearer {settings.key}"
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(settings.give_up_s, connect=CONNECT_S),
            limits=httpx.Limits(max_keepalive_connections=KEPT, keepalive_expiry=KEPT_S),
            follow_redirects=False,
            trust_env=False,
            verify=ssl.create_default_context(),
        )

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> AsyncIterator[ChatDelta]:
        """The answer as it comes; closing the iterator ends the request, and with it the server's work.

        Raises `ChatServerError`, also when the stream ends before the answer does.
        """
        while True:
            asked = self._asked(messages, tools)
            try:
                async with contextlib.aclosing(self._stream(asked)) as deltas:  # type: ignore[type-var]
                    async for delta in deltas:
                        yield delta
                return
            except _OtherWords:
                continue

    def _asked(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        settings = self.settings
        asked = {
            "model": settings.model,
            "messages": [dict(message) for message in messages],
            "stream": True,
            self._limit: settings.tokens,
        }
        if tools and self._takes_tools:
            asked["tools"] = [dict(tool) for tool in tools]
        return asked

    async def _stream(self, asked: dict[str, Any]) -> AsyncIterator[ChatDelta]:
        events, size, finished = EventStream(), 0, False
        try:
            url = self.settings.url + COMPLETIONS
            async with self._http.stream("POST", url, json=asked, headers=passed_on()) as response:
                await self._check(response, asked)
                chunks = response.aiter_raw()
                async for chunk in chunks:
                    size += len(chunk)
                    if size > MOST_STREAM:
                        raise ChatServerError(
                            "too_large", f"an answer of more than {MOST_STREAM >> 20} MB came"
                        )
                    for event in events.feed(chunk):
                        if event.strip() == DONE:
                            await _read_out(chunks)
                            return
                        delta = _read(event)
                        finished = finished or delta.finish is not None
                        yield delta
        except httpx.HTTPError as error:
            raise _failed(error) from None
        except (httpx.InvalidURL, UnicodeError):
            raise ChatServerError("request", "VOICEGATE_LLM_URL cannot be asked", lasting=True) from None
        if not finished:
            raise ChatServerError("cut", "the chat server's stream ended before its answer did")

    async def _check(self, response: httpx.Response, asked: Mapping[str, Any]) -> None:
        """Raises `ChatServerError` for what is not a stream of events."""
        status = response.status_code
        if status != 200:
            words = await _body(response, MOST_BODY)
            if status in (400, 422):
                self._reword(words, asked)
            raise _refusal(response, words)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise ChatServerError("garbage", "the chat server compresses its answers, unasked", lasting=True)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            raise ChatServerError(
                "garbage", "the chat server's answer is not a stream of events (stream = true)", lasting=True
            )

    def _reword(self, words: bytes, asked: Mapping[str, Any]) -> None:
        """Raises `_OtherWords` when another way to ask may do: some models call the limit otherwise, some
        servers take no tools."""
        if b"max_completion_tokens" in words and "max_tokens" in asked:
            self._limit = "max_completion_tokens"
            raise _OtherWords
        if "tools" in asked and b"tool" in words.lower():
            self._takes_tools = False
            log.warning(
                "chat_server.no_tools",
                remedy="this server refuses tools: callers cannot ask to be put through; start it with tool "
                "calls, or use another model",
            )
            raise _OtherWords

    async def models(self) -> list[str]:
        """The names of the server's models, for the doctor. Raises `ChatServerError`."""
        try:
            async with self._http.stream("GET", self.settings.url + "/models", timeout=CONNECT_S) as response:
                body = await _body(response, MOST_MODELS)
                if response.status_code != 200:
                    raise _refusal(response, body)
            return [str(one["id"]) for one in json.loads(body)["data"]]
        except httpx.HTTPError as error:
            raise _failed(error) from None
        except (httpx.InvalidURL, UnicodeError):
            raise ChatServerError("request", "VOICEGATE_LLM_URL cannot be asked", lasting=True) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ChatServerError("garbage", "its list of models cannot be read", lasting=True) from None

    async def close(self) -> None:
        """Ends what is under way."""
        await self._http.aclose()


class _OtherWords(EngineError):
    """The same question is to be asked again in other words."""


async def _read_out(chunks: AsyncIterator[bytes]) -> None:
    """Reads what little follows an answer, if it comes at once."""
    size = 0
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(LAST_S):
            async for chunk in chunks:
                size += len(chunk)
                if size > LAST_BYTES:
                    return


async def _body(response: httpx.Response, most: int) -> bytes:
    """The first `most` bytes of a body."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= most:
            break
    return bytes(body[:most])


def _failed(error: httpx.HTTPError) -> ChatServerError:
    """What happened on the way; its own text may hold addresses, and never holds words."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ChatServerError("unreachable", f"the chat server cannot be reached: {_why(error)}")
    if isinstance(error, httpx.TimeoutException):
        return ChatServerError("stalled", "the chat server says nothing more")
    return ChatServerError("cut", f"the connection to the chat server broke: {type(error).__name__}")


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _refusal(response: httpx.Response, body: bytes) -> ChatServerError:
    """What a status other than 200 means."""
    status = response.status_code
    said = f"the chat server answered {status}{_code_in(body)}"
    match status:
        case 401 | 403:
            return ChatServerError("key", f"{said}: look into VOICEGATE_LLM_KEY_FILE", lasting=True)
        case 404:
            return ChatServerError(
                "not_found", f"{said}: look at VOICEGATE_LLM_URL and VOICEGATE_LLM_MODEL", lasting=True
            )
        case 408 | 425 | 429:
            return ChatServerError("busy", said, retry_after_s=_retry_after(response))
        case _ if 300 <= status < 400:
            return ChatServerError(
                "redirect", f"{said}, which leads elsewhere and is not followed", lasting=True
            )
        case _ if status >= 500:
            return ChatServerError("server", said, retry_after_s=_retry_after(response))
    return ChatServerError("request", said, lasting=True)


def _code_in(body: bytes) -> str:
    """The error's code in OpenAI's shape, where it is a word of the protocol's kind; never its text."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        error = json.loads(body)["error"]
        for code in (error.get("code"), error.get("type")):
            if isinstance(code, str) and _CODE.fullmatch(code):
                return f" ({code})"
    return ""


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server wants to be left alone for (RFC 9110 §10.2.3)."""
    said = response.headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    with contextlib.suppress(ValueError, TypeError):
        at = parsedate_to_datetime(said)
        return max(
            0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()
        )
    return None


def _read(event: str) -> ChatDelta:
    """One chunk. Raises `ChatServerError` for what is none."""
    garbage = ChatServerError("garbage", "the chat server sent an event that is not a completion's chunk")
    try:
        chunk = json.loads(event)
    except (ValueError, RecursionError):
        raise garbage from None
    if not isinstance(chunk, dict):
        raise garbage
    if chunk.get("error"):
        raise ChatServerError("server", f"the chat server failed{_code_in(event.encode(errors='replace'))}")
    try:
        usage, choices = chunk.get("usage"), chunk.get("choices") or []
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        tokens = tokens if isinstance(tokens, int) and 0 <= tokens < 1 << 31 else None
        if not choices:
            return ChatDelta(tokens=tokens)
        delta, finish = choices[0].get("delta") or {}, choices[0].get("finish_reason")
        text = delta.get("content") or ""
        calls = [(call.get("index", 0), call.get("function") or {}) for call in delta.get("tool_calls") or ()]
        parts = [ToolPart(at, call.get("name") or "", call.get("arguments") or "") for at, call in calls]
    except (AttributeError, KeyError, TypeError, IndexError):
        raise garbage from None
    strings = [text, *(part.name for part in parts), *(part.arguments for part in parts)]
    if not all(isinstance(one, str) for one in strings) or not all(type(part.index) is int for part in parts):
        raise garbage
    return ChatDelta(text, tuple(parts), None if finish is None else str(finish)[:40], tokens)
