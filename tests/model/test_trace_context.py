"""An engine learns of which trace a call is, logs it and passes it on, whatever else stands there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.contextvars import clear_contextvars, merge_contextvars
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.http11 import Request, Response

from consent.grants.grant import VoiceGrant
from model.api import Output, Reference
from model.client import Done, EngineClient, Words
from model.errors import EngineBusy
from model.proxy import EngineProxy
from model.trace_context import HEADER, current, enter, read_traceparent, trace_of, traceparent_of
from tests.model.cascade.chat_script import says
from tests.model.cascade.conftest import calling
from tests.model.conftest import Grants, serve
from tests.model.scripted import ScriptedConversation, ScriptedEngine
from tests.model.test_proxy import REFERENCE, never
from tests.needs import HANGS_S

CALL = "5a0e6f0f8f3b1a77"
TRACE, ROOT = trace_of(CALL)
PARENT = f"00-{TRACE}-{ROOT}-01"


class TracedConversation(ScriptedConversation):
    """Says of which trace it is, however it is asked."""

    async def truncate(self, item_id: str, heard_s: float) -> str:
        return str(current())

    async def respond(self, item_id: str, say: str | None = None) -> AsyncIterator[Output]:
        self.words = [str(current())]
        async for output in super().respond(item_id, say):
            yield output


class TracedEngine(ScriptedEngine):
    """`opened`: of which traces its conversations were opened."""

    async def open(self, grant: VoiceGrant, reference: Reference) -> ScriptedConversation:
        conversation = await super().open(grant, reference)
        conversation.__class__ = TracedConversation
        self.opened = [*getattr(self, "opened", []), current()]
        return conversation


async def far() -> TracedEngine:
    return TracedEngine()


@pytest.fixture(autouse=True)
def _no_trace() -> None:
    enter(None)
    clear_contextvars()


def test_the_header_has_the_ids_of_the_calls_spans_and_nothing_else() -> None:
    assert traceparent_of(CALL, traced=True) == PARENT
    assert traceparent_of(CALL, traced=False) == f"{PARENT[:-2]}00"
    assert read_traceparent([PARENT]) == PARENT
    assert CALL not in PARENT


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (f"00-{TRACE}-{ROOT}-03", PARENT),
        (f"cc-{TRACE}-{ROOT}-01-what-comes-later", PARENT),
        (f"cc-{TRACE}-{ROOT}-01", PARENT),
        (f"00-{TRACE}-{ROOT}-01-what", None),
        (f"ff-{TRACE}-{ROOT}-01", None),
        (f"00-{'0' * 32}-{ROOT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (PARENT.upper(), None),
        (PARENT[:-1], None),
        (f"{PARENT}\n", None),
        (f" {PARENT}", None),
        (f"cc-{TRACE}-{ROOT}-01-{'x' * 10_000}", None),
        ("", None),
        ("00-١-٢-01", None),
    ],
)
def test_a_header_that_nobody_can_go_by_is_not_one(given: str, read: str | None) -> None:
    assert read_traceparent([given]) == read


def test_two_headers_are_none() -> None:
    assert read_traceparent([PARENT, PARENT]) is None
    assert read_traceparent([]) is None


async def test_a_hall_tells_any_engine_the_trace_of_its_call(grants: Grants) -> None:
    seen: list[Request] = []

    def look(connection: ServerConnection, request: Request) -> Response:
        seen.append(request)
        return connection.respond(503, "busy")

    async def hold(_: ServerConnection) -> None:
        """Nobody gets this far."""

    async with serve_websocket(hold, "127.0.0.1", 0, process_request=look) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        for traced in (True, False):
            client = EngineClient(f"ws://127.0.0.1:{port}", "boot", traced=traced)
            with pytest.raises(EngineBusy):
                await client.connect(grants.issue(CALL).token)
    assert [one.headers.get_all(HEADER) for one in seen] == [[PARENT], [f"{PARENT[:-2]}00"]]
    assert not any("tracestate" in one.headers or "baggage" in one.headers for one in seen)


async def test_an_engine_works_and_logs_for_that_trace(grants: Grants) -> None:
    engine = TracedEngine()
    with capture_logs(processors=[merge_contextvars]) as lines:
        async with serve(engine, grants) as served:
            session = await EngineClient(served.url, traced=True).connect(grants.issue(CALL).token)
            await session.respond()
            async with asyncio.timeout(HANGS_S):
                text = ""
                async for event in session:
                    if isinstance(event, Done):
                        break
                    text += event.delta if isinstance(event, Words) else ""
            await session.aclose()
    assert text == PARENT
    assert engine.opened == [PARENT]
    started = next(line for line in lines if line["event"] == "session.started")
    assert (started["call_id"], started["trace_id"]) == (CALL, TRACE)


async def test_one_connections_trace_is_not_anothers(grants: Grants) -> None:
    engine = TracedEngine()
    async with serve(engine, grants) as served:
        for header in ({HEADER: PARENT}, {}, {HEADER: "00-nonsense"}):
            token = {"Authorization": f"Bearer {grants.issue(CALL).token}", **header}
            async with connect(f"{served.url}/v1/realtime", additional_headers=token, proxy=None) as socket:
                await socket.recv()
    assert engine.opened == [PARENT, None, None]


async def test_an_engines_own_process_works_for_it_too(grants: Grants) -> None:
    engine = await EngineProxy.start(f"{__name__}:far", never)
    try:
        async with asyncio.timeout(HANGS_S):
            enter(PARENT)
            traced = await engine.open(grants.issue(CALL), REFERENCE)
            enter(None)
            untraced = await engine.open(grants.issue("another"), REFERENCE)
            assert [await one.truncate("item", 0.0) for one in (traced, untraced)] == [PARENT, "None"]
            words = [output async for output in traced.respond("item")]
            assert PARENT in str(words[0])
    finally:
        await engine.close()


@pytest.mark.parametrize("traced", [True, False])
async def test_a_chat_server_is_told_where_a_collector_is(traced: bool) -> None:
    enter(traceparent_of(CALL, traced=traced))
    async with calling(says("Hello.")) as caller:
        await caller.asks("hello")
        assert caller.script.asked[0].headers.get(HEADER) == (PARENT if traced else None)
