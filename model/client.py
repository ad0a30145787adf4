"""The hall's side of the engine's WebSocket: one `EngineSession` per call, typed events out of it.

Cheap enough for a hundred in one process: sound travels in binary frames, nothing is parsed twice.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import httpx
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from model import events
from model.address import is_safe
from model.api import EarlyHearing, Floats
from model.errors import EngineBusy, EngineError, EngineLost, EngineRefused, GrantSpent, VoiceError
from model.trace_context import HEADER, traceparent_of
from watermark.pcm import bytes_from_float

CONNECT_WITHIN_S: Final = 3.0
ASK_WITHIN_S: Final = 0.5
"""A cluster's answer of which engines there are; its last one will do."""
CONVERSATIONS_KNOWN: Final = 4096
REFUSED: Final = 4403
BUSY: Final = 4503
"""WebSocket close codes of the engine: grant refused, no slot."""


@dataclass(frozen=True, slots=True)
class Created:
    """A reply began."""

    response_id: str
    item_id: str


@dataclass(frozen=True, slots=True)
class Words:
    """Words of a reply; their sound follows."""

    item_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound of a reply, float32 24 kHz."""

    item_id: str
    pcm: Floats


@dataclass(frozen=True, slots=True)
class Done:
    """A reply ended: completed, cancelled or failed."""

    response_id: str
    item_id: str
    status: str
    text: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class CallerWords:
    """What the engine understood of the caller's turn."""

    text: str = field(repr=False)
    duration_s: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class HeardEarly:
    """What the engine makes of a pause. `utterance`: commits and clears that it had been sent by then."""

    utterance: int
    early: EarlyHearing


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """The engine wants something done."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Truncated:
    """The words of an interrupted item that stay in the history."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An `error` event."""

    code: str
    message: str


EngineEvent = Created | Words | Audio | Done | CallerWords | HeardEarly | ToolRequest | Truncated | Failure


class EngineSession:
    """One conversation. Iterate it for its events; the iteration ends with `EngineLost`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._items: dict[int, str] = {}
        self.transcribes = True
        """whether the engine writes down what the caller said; known once it has greeted"""
        self.knows_asides = False
        """whether it tells what it hears early, asides too; known once it was asked to"""
        self.recalls = True
        """whether what the caller said before is of use to it; known once it has greeted"""

    async def _say(self, kind: str, **fields: Any) -> None:
        await self._put(json.dumps({"type": kind, **fields}, separators=(",", ":")))

    async def _put(self, frame: str | bytes) -> None:
        try:
            await self._socket.send(frame)
        except ConnectionClosed as error:
            raise EngineLost(f"the engine is gone: {error}") from None

    async def update(
        self,
        *,
        instructions: str | None = None,
        tools: list[Mapping[str, Any]] | None = None,
        **voicegate: Any,
    ) -> None:
        """`voicegate`: grant, answers, facts, phrases, lead_s, binary, hearing, as the contract has them."""
        session: dict[str, Any] = {"type": "realtime", "voicegate": voicegate}
        if instructions is not None:
            session["instructions"] = instructions
        if tools is not None:
            session["tools"] = tools
        await self._say("session.update", session=session)

    async def append(self, pcm: Floats) -> None:
        """The caller's speech, float32 24 kHz."""
        await self._put(bytes_from_float(pcm))

    async def commit(self) -> None:
        await self._say("input_audio_buffer.commit")

    async def clear(self) -> None:
        await self._say("input_audio_buffer.clear")

    async def respond(self, *, say: str | None = None) -> None:
        """A reply, or exactly the words `say`; `Created` tells its ids."""
        response = {"voicegate": {"say": say}} if say is not None else {}
        await self._say("response.create", response=response)

    async def cancel(self, response_id: str) -> None:
        await self._say("response.cancel", response_id=response_id)

    async def truncate(self, item_id: str, audio_end_ms: int) -> None:
        await self._say(
            "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=audio_end_ms
        )

    async def playout(self, item_id: str, played_ms: int) -> None:
        await self._say("voicegate.playout", item_id=item_id, played_ms=played_ms)

    async def restore(self, items: Sequence[Mapping[str, Any]]) -> None:
        """`items` are Realtime items (type, role, content)."""
        for item in items:
            await self._say("conversation.item.create", item=item)

    async def aclose(self) -> None:
        with contextlib.suppress(WebSocketException, OSError):
            await self._socket.close()

    async def __aiter__(self) -> AsyncIterator[EngineEvent]:
        try:
            async for frame in self._socket:
                event = self._binary(frame) if isinstance(frame, bytes) else self._event(json.loads(frame))
                if event is not None:
                    yield event
        except ConnectionClosed as closed:
            raise _why(closed) from None
        raise EngineLost("the engine closed the conversation")

    def _binary(self, frame: bytes) -> Audio | None:
        (number,) = events.BINARY_HEAD.unpack_from(frame)
        item_id = self._items.get(number)
        return (
            None
            if item_id is None
            else Audio(item_id, events.pcm_from_bytes(frame[events.BINARY_HEAD.size :]))
        )

    def _event(self, event: events.Event) -> EngineEvent | None:
        match event["type"]:
            case "session.created" | "session.updated":
                ours = event["session"]["voicegate"]
                self.transcribes = bool(ours["limits"]["transcribes"])
                self.recalls = bool(ours["limits"].get("recalls", True))
                self.knows_asides = bool(ours.get("asides"))
            case "response.output_audio_transcript.delta":
                return Words(event["item_id"], event["delta"])
            case "response.output_audio.delta":
                return Audio(event["item_id"], events.pcm_from_base64(event["delta"]))
            case "response.created":
                response = event["response"]
                ours = response["voicegate"]
                self._items = {ours["number"]: ours["item_id"]}  # replies are one at a time
                return Created(response["id"], ours["item_id"])
            case "response.done":
                response = event["response"]
                ours = response["voicegate"]
                text = "".join(
                    part.get("transcript") or "" for item in response["output"] for part in item["content"]
                )
                return Done(response["id"], ours["item_id"], response["status"], text, ours.get("reason"))
            case "conversation.item.input_audio_transcription.completed":
                ours = event["voicegate"]
                return CallerWords(event["transcript"], ours["duration_s"], ours["confidence"])
            case "voicegate.hearing":
                early = EarlyHearing(event["state"], event["heard_ms"] / 1000, bool(event["aside"]))
                return HeardEarly(event["utterance"], early)
            case "response.function_call_arguments.done":
                return ToolRequest(event["name"], event["arguments"])
            case "conversation.item.truncated":
                return Truncated(event["item_id"], event["voicegate"]["text"])
            case "error":
                return Failure(event["error"]["code"], event["error"]["message"])
        return None


class EngineClient:
    """Where the engines are. Each place is a unix socket's path, an engine's `ws://…` or `wss://…`, or the
    `http://…` or `https://…` of a cluster, which tells its engines' addresses, the one with most room first.

    With several engines a conversation goes to the first that takes it. A call that had one, and lost its
    engine or goes on in another voice, may use the slots that are kept for such, and for it "busy" is no
    answer but a reason to come again.
    """

    def __init__(
        self, places: str | Sequence[str], boot_token: str | None = None, *, traced: bool = False
    ) -> None:
        """`traced`: a collector is told the spans of calls."""
        self._places = (places,) if isinstance(places, str) else tuple(places)
        self._headers = {} if boot_token is None else {"X-Voicegate-Boot": boot_token}
        self._traced = traced
        self._turn = itertools.count()
        self._told: dict[str, list[str]] = {}
        """what each cluster said last"""
        self._met: dict[str, None] = {}
        """calls whose conversations there were"""

    async def connect(self, grant: str) -> EngineSession:
        """A session in the voice of `grant` (its token). Raises `EngineBusy`, `EngineLost`,
        `EngineRefused`, `GrantSpent`, `EngineError`."""
        call_id = _call_of(grant)
        resumed = call_id in self._met
        error: EngineError = EngineLost("no engine is known")
        for place in await self.engines():
            try:
                session = await self._connect(place, grant, resumed)
            except EngineLost as lost:
                error = lost if not isinstance(error, EngineBusy) else error
            except EngineBusy as busy:
                error = busy
            else:
                self._met[call_id] = None
                if len(self._met) > CONVERSATIONS_KNOWN:
                    del self._met[next(iter(self._met))]
                return session
        raise EngineLost(str(error)) if resumed else error

    async def _connect(self, place: str, grant: str, resumed: bool) -> EngineSession:
        trace = traceparent_of(_call_of(grant), traced=self._traced)
        headers = {"Authorization": f"Bearer {grant}", HEADER: trace, **self._headers}
        if resumed:
            headers["X-Voicegate-Resumed"] = "1"
        near = _is_unix(place)
        options: dict[str, Any] = {
            "additional_headers": headers,
            "compression": None,
            "max_size": 1 << 22,
            "open_timeout": CONNECT_WITHIN_S,
            "ping_interval": 5 if near else 1,  # a machine may go without a word, a process does not
            "ping_timeout": 10 if near else 3,
        }
        try:
            if near:
                socket = await unix_connect(place, "ws://engine/v1/realtime", **options)
            else:
                socket = await connect(f"{place.rstrip('/')}/v1/realtime", proxy=None, **options)
        except InvalidStatus as refused:
            raise _refusal(refused.response.status_code, bytes(refused.response.body or b"")) from None
        except (OSError, WebSocketException, TimeoutError) as error:
            raise EngineLost(f"the engine cannot be reached: {error}") from None
        return EngineSession(socket)

    async def engines(self) -> list[str]:
        """The engines to try, in order: those of a list take turns, a cluster says itself."""
        first = next(self._turn) % len(self._places) if self._places else 0
        found: list[str] = []
        for place in (*self._places[first:], *self._places[:first]):
            found += await self._ask(place) if place.startswith(("http://", "https://")) else [place]
        return found

    async def _ask(self, cluster: str) -> list[str]:
        """A cluster's engines; those of its last answer while it cannot be asked."""
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
            answer = await self._http.get(f"{cluster.rstrip('/')}/v1/engines", headers=self._headers)
            answer.raise_for_status()
            urls = [str(engine["url"]) for engine in answer.json()["engines"]]
            if cluster.startswith("https://"):  # what was kept secret on the way there is so on the way on
                urls = [url for url in urls if is_safe(url)]
            self._told[cluster] = urls
        return self._told.get(cluster, [])

    async def ready(self) -> bool:
        """Whether an engine can take a conversation now, and says so in time."""
        with contextlib.suppress(TimeoutError):
            return await self.asked_ready()
        return False

    async def asked_ready(self) -> bool:
        """Whether an engine can take a conversation now.

        Raises `TimeoutError` when none says that it can, and one says nothing within `ASK_WITHIN_S`.
        """
        silent = False
        for place in await self.engines():
            try:
                if (await self._get(place, "healthz")).status_code == 200:
                    return True
            except (httpx.TimeoutException, TimeoutError):
                silent = True
            except (httpx.HTTPError, OSError):
                continue
        if silent:
            raise TimeoutError(f"no engine says within {ASK_WITHIN_S:g} s how it is")
        return False

    async def metrics(self, place: str) -> str:
        """What one of `engines` measures, as Prometheus' text. Raises `EngineLost`."""
        try:
            return (await self._get(place, "metrics")).raise_for_status().text
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise EngineLost(f"no engine answers at {place}: {str(error) or type(error).__name__}") from None

    async def _get(self, place: str, path: str) -> httpx.Response:
        if not _is_unix(place):
            return await self._http.get(f"{place.replace('ws', 'http', 1).rstrip('/')}/{path}")
        # no TLS is spoken there: reading certificates would take longer than all else of a question
        transport = httpx.AsyncHTTPTransport(uds=place, verify=False)
        async with httpx.AsyncClient(transport=transport, timeout=ASK_WITHIN_S, trust_env=False) as client:
            return await client.get(f"http://engine/{path}")

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        """One for all questions: making it takes a while, and the hall has none to lose."""
        return httpx.AsyncClient(timeout=ASK_WITHIN_S, trust_env=False, verify=ssl.create_default_context())


def _is_unix(place: str) -> bool:
    return not place.startswith(("ws://", "wss://"))


def _call_of(grant: str) -> str:
    """The call that a grant names, unverified: the engine is who verifies."""
    try:
        body = grant.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["call"])
    except (IndexError, ValueError, KeyError, TypeError):
        return grant


def _refusal(status: int, body: bytes) -> EngineError:
    """What an engine says instead of opening a conversation; see `model.server`."""
    text = f"the engine refused: {status} {body.decode(errors='replace')}"
    if status == 503:
        return EngineBusy(text)
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        code = json.loads(body)["error"]["code"]
        if code == VoiceError.code:
            return EngineRefused(text)
        if code == GrantSpent.code:
            return GrantSpent(text)
    return EngineError(text)


def _why(closed: ConnectionClosed) -> EngineError:
    code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (0, str(closed))
    if code == BUSY:
        return EngineBusy(reason)
    if code == REFUSED:
        return EngineError(reason)
    return EngineLost(f"the engine is gone: {code} {reason}")
