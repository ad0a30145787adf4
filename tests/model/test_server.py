"""Who may open a session, for how long, and what one client can do to the others."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from consent.grants.grant import LEEWAY_S, VoiceGrant
from model import tasks
from model.api import FRAME, Limits
from model.client import Audio, Created, Done, EngineClient, Failure, Truncated, Words
from model.errors import EngineBusy, EngineError, EngineLost
from model.reference import ReferenceDesk
from model.server import build
from tests.model.conftest import Grants, Served, serve
from tests.model.scripted import ScriptedEngine
from tests.needs import HANGS_S
from tests.slept import Slept


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(slots=2)


@pytest.fixture
async def served(engine: ScriptedEngine, grants: Grants) -> AsyncIterator[Served]:
    async with serve(engine, grants) as served:
        yield served


async def refusal(served: Served, token: str | None, boot: str | None = None) -> tuple[int, str]:
    """(HTTP status, body) of a session that is refused."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    if boot is not None:
        headers["X-Voicegate-Boot"] = boot
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{served.url}/v1/realtime", additional_headers=headers, proxy=None)
    response = refused.value.response
    return response.status_code, (response.body or b"").decode()


def lapsing(grants: Grants, in_s: float, call_id: str = "call-1") -> VoiceGrant:
    """A grant whose last leeway ends in `in_s`; grants live a minute."""
    return grants.issue(call_id, now=time.time() - 60.0 - LEEWAY_S + in_s)


def forged(grant: VoiceGrant) -> str:
    """The same claims with another signature."""
    head, body, signature = grant.token.split(".")
    return f"{head}.{body}.{signature[::-1]}"


# ── grants ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_grant_no_session(served: Served, grants: Grants, engine: ScriptedEngine) -> None:
    for token, reason in (
        (None, "grant_none"),
        ("", "grant_none"),
        ("sk-123", "grant_tampered"),
        (forged(grants.issue()), "grant_tampered"),
        (grants.issue(now=time.time() - 120).token, "grant_expired"),
        (grants.issue(now=time.time() + 120).token, "grant_not_yet_valid"),
    ):
        status, body = await refusal(served, token)
        assert (status, reason in body) == (403, True), body
    assert engine.conversations == []


async def test_a_grant_signed_by_another_office_is_refused(
    served: Served, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Grants(tmp_path_factory.mktemp("other"))
    status, body = await refusal(served, other.issue().token)
    assert (status, "grant_unknown_key" in body) == (403, True)


async def test_a_grant_is_good_for_one_connection_at_a_time(served: Served, grants: Grants) -> None:
    grant = grants.issue()
    async with served.wire(grant):
        status, body = await refusal(served, grant.token)
        assert (status, "grant_replayed" in body) == (403, True)
    async with served.wire(grants.issue()):
        pass


async def test_the_boot_token_is_wanted_where_there_is_one(engine: ScriptedEngine, grants: Grants) -> None:
    async with serve(engine, grants, boot_token="of this boot") as served:
        for boot in (None, "of another boot"):
            assert (await refusal(served, grants.issue().token, boot))[0] == 401
        session = await EngineClient(served.url, "of this boot").connect(grants.issue().token)
        await session.aclose()


async def test_a_session_outlives_its_first_grant_when_it_is_renewed(
    served: Served, grants: Grants, engine: ScriptedEngine
) -> None:
    grant = lapsing(grants, 0.6)
    async with served.wire(grant) as wire:
        renewed = grants.office.renew(grant)
        await wire.ask("session.update", "session.updated", session={"voicegate": {"grant": renewed.token}})
        conversation = engine.conversations[0]
        conversation.words, conversation.frames_a_word = ["one"], 12  # ends .96 s on, less the lead of .1 s
        await wire.ask("session.update", "session.updated", session={"voicegate": {"lead_s": 0.1}})
        done = (await wire.ask("response.create", "response.done"))["response"]
        assert time.time() > grant.expires_at + LEEWAY_S
        assert done["status"] == "completed"


async def test_a_lapsed_grant_ends_the_reply_and_says_why(
    served: Served, grants: Grants, engine: ScriptedEngine
) -> None:
    grant = lapsing(grants, 0.5)
    async with served.wire(grant) as wire:
        engine.conversations[0].frames_a_word = 1000
        await wire.ask("session.update", "session.updated", session={"voicegate": {"lead_s": 0.1}})
        await wire.say("response.create")
        reply = await wire.gather("response.done")
        late = time.time() - grant.expires_at - LEEWAY_S
        assert 0 <= late < 1.0
        done = reply[-1]["response"]
        assert (done["status"], done["voicegate"]["reason"]) == ("failed", "grant_expired")
        assert next(e for e in reply if e["type"] == "error")["error"]["code"] == "grant_expired"
        assert engine.conversations[0].ended == 1
        assert (await wire.error("response.create"))["code"] == "grant_expired"  # until it is renewed
        renewed = grants.office.renew(grant)
        engine.conversations[0].frames_a_word = 1
        await wire.ask("session.update", "session.updated", session={"voicegate": {"grant": renewed.token}})
        assert (await wire.ask("response.create", "response.done"))["response"]["status"] == "completed"


async def test_a_renewal_is_as_strict_as_a_first_grant(served: Served, grants: Grants) -> None:
    async with served.wire(grants.issue()) as wire, served.wire(grants.issue("call-2")):
        other_call, lapsed = grants.issue("call-3"), grants.issue(now=time.time() - 120)
        for token, code in (
            (other_call.token, "grant_other_call"),
            (lapsed.token, "grant_expired"),
            (forged(grants.issue()), "grant_tampered"),
        ):
            error = await wire.error("session.update", session={"voicegate": {"grant": token}})
            assert error["code"] == code
        # refused renewals are not used up: the call they are for may open its session with them
    async with served.wire(other_call):
        pass


@pytest.mark.parametrize("part", ["purpose", "dialplan", "language"])
async def test_a_session_is_not_taken_over_to_another_use_of_its_voice(
    served: Served, grants: Grants, part: str
) -> None:
    grant = grants.issue()
    async with served.wire(grant) as wire:
        other = grants.office.grant(replace(grant.scope, **{part: "zz"}))
        error = await wire.error("session.update", session={"voicegate": {"grant": other.token}})
        assert error["code"] == "grant_scope"


async def test_a_renewal_in_use_elsewhere_is_a_replay(served: Served, grants: Grants) -> None:
    mine, theirs = grants.issue("call-1"), grants.issue("call-1")
    async with served.wire(mine) as wire, served.wire(theirs):
        error = await wire.error("session.update", session={"voicegate": {"grant": theirs.token}})
        assert error["code"] == "grant_replayed"


async def test_a_revoked_voice_stops_at_the_next_frame_and_is_not_opened_again(
    engine: ScriptedEngine, grants: Grants
) -> None:
    revoked: set[str] = set()
    async with serve(engine, grants, revoked=lambda grant: grant.voice_hash in revoked) as served:
        grant = grants.issue()
        async with served.wire(grant) as wire:
            engine.conversations[0].frames_a_word = 10_000
            await wire.ask("response.create", "response.created")
            await wire.until("response.output_audio.delta")
            revoked.add(grant.voice_hash)
            reply = await wire.gather("response.done")
            assert reply[-1]["response"]["voicegate"]["reason"] == "grant_revoked"
            assert next(e for e in reply if e["type"] == "error")["error"]["code"] == "grant_revoked"
            assert (await wire.error("response.create"))["code"] == "grant_revoked"
            renewal = {"grant": grants.office.renew(grant).token}
            await wire.ask("session.update", "session.updated", session={"voicegate": renewal})
            assert (await wire.error("response.create"))["code"] == "grant_revoked"
        assert "grant_revoked" in (await refusal(served, grants.issue().token))[1]


# ── slots ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_an_engine_ran_out_of_is_told_with_busy(
    served: Served, grants: Grants, engine: ScriptedEngine
) -> None:
    engine.refuses = EngineBusy("time: 99 of 100 frames take up to 79 ms now")
    status, body = await refusal(served, grants.issue().token)
    assert (status, json.loads(body)["error"]) == (503, {"code": "busy", "message": str(engine.refuses)})
    engine.limits = Limits(conversations=0, bound="all that memory holds")
    status, body = await refusal(served, grants.issue().token)
    assert (status, json.loads(body)["error"]["code"]) == (503, "busy")
    assert json.loads(body)["error"]["message"] == "0 conversations are all that memory holds"


async def test_a_full_engine_is_busy_at_once_and_free_again_when_someone_leaves(
    served: Served, grants: Grants, engine: ScriptedEngine
) -> None:
    client = EngineClient(served.url)
    async with served.wire(grants.issue("call-1")), served.wire(grants.issue("call-2")):
        with Slept() as slept, pytest.raises(EngineBusy, match="2 conversations"):
            await client.connect(grants.issue("call-3").token)
        assert slept.seconds < 1.0
    await asyncio.gather(*(conversation.closed.wait() for conversation in engine.conversations))
    session = await client.connect(grants.issue("call-3").token)
    await session.aclose()


async def test_a_refused_grant_can_be_used_once_there_is_a_slot(
    served: Served, grants: Grants, engine: ScriptedEngine
) -> None:
    grant = grants.issue()
    engine.refuses = EngineError("not now")
    assert (await refusal(served, grant.token))[0] == 502
    engine.refuses = None
    async with served.wire(grant):
        pass


async def test_a_client_that_is_gone_frees_its_slot_in_mid_reply(
    served: Served, grants: Grants, engine: ScriptedEngine
) -> None:
    async with served.wire() as wire:
        conversation = engine.conversations[0]
        conversation.frames_a_word = 10_000
        await wire.ask("response.create", "response.created")
        wire.socket.transport.abort()
        async with asyncio.timeout(5):
            await conversation.closed.wait()
    assert (conversation.ended, engine.taken) == (1, 0)


async def test_a_client_that_does_not_read_is_not_buffered_for(
    served: Served, grants: Grants, engine: ScriptedEngine
) -> None:
    """It says that it played everything, so the engine would run on; its socket holds the engine back."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
    small.connect(("127.0.0.1", served.port))
    async with served.wire(max_queue=1, sock=small) as slow, served.wire(grants.issue("call-2")) as quick:
        conversation = engine.conversations[0]
        conversation.frames_a_word = 1_000_000
        created = await slow.ask("response.create", "response.created")
        item_id = created["response"]["voicegate"]["item_id"]
        await slow.say("voicegate.playout", item_id=item_id, played_ms=900_000_000)
        made = -1
        while conversation.frames_made != made:  # until it stands still
            made = conversation.frames_made
            for _ in range(20):  # others are served meanwhile
                await quick.ask("session.update", "session.updated", session={})
        assert made * FRAME * 2 * 4 / 3 < 16e6  # the kernel's share of 15 GB
        slow.socket.transport.abort()


# ── the hall's client ───────────────────────────────────────────────────────────────────────────────────────


async def test_the_halls_client_has_a_conversation(
    served: Served, grants: Grants, engine: ScriptedEngine
) -> None:
    session = await EngineClient(served.url).connect(grants.issue().token)
    await session.update(binary=True, lead_s=2.0)
    await session.append(np.zeros(2_400, np.float32))
    await session.commit()
    await session.respond()
    kinds: list[type] = []
    item_id = None
    async with asyncio.timeout(5):
        async for event in session:
            if not kinds or kinds[-1] is not type(event):
                kinds.append(type(event))
            match event:
                case Created():
                    item_id = event.item_id
                case Audio(item, pcm):
                    assert item == item_id
                    assert abs(float(pcm.mean()) - 0.1) < 1e-3
                case Done(_, item, status, text, _):
                    assert (item, status, text) == (item_id, "completed", "one two three")
                    await session.truncate(item, 100)
                case Truncated(item, text):
                    assert (item, text) == (item_id, "0.1 s")
                    await session.respond(say="  ")
                case Failure(code, message):
                    assert (code, "say" in message) == ("invalid_value", True)
                    break
    assert Words in kinds
    await session.aclose()


async def test_the_halls_client_learns_that_the_engine_is_gone(
    engine: ScriptedEngine, grants: Grants
) -> None:
    async with serve(engine, grants) as served:
        client = EngineClient(served.url)
        session = await client.connect(grants.issue().token)
        assert await client.ready()
    with pytest.raises(EngineLost):
        async for _ in session:
            pass
    with pytest.raises(EngineLost):
        await client.connect(grants.issue().token)
    assert not await client.ready()


async def test_an_engine_of_this_machine_is_asked_without_reading_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssl, "create_default_context", pytest.fail)
    assert not await EngineClient(str(tmp_path / "engine.sock")).ready()


async def test_metrics_count_failed_background_tasks(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.failures, "engine.revocations", 3)
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://127.0.0.1:{served.port}/metrics")).text
    shown = 'voicegate_engine_task_failures_total{process="server",task="engine.revocations"} 3.0'
    assert shown in text


async def test_metrics_count_sessions_and_refusals(served: Served, grants: Grants) -> None:
    async with served.wire():
        await refusal(served, "sk-123")
        async with httpx.AsyncClient(trust_env=False) as http:
            text = (await http.get(f"http://127.0.0.1:{served.port}/metrics")).text
    assert "voicegate_engine_conversations 1.0\n" in text
    assert 'voicegate_engine_refused_total{reason="grant_tampered"} 1.0' in text
    assert text.endswith("scripted_taken 1\n"), "then the engine's own"


async def test_a_client_that_left_while_it_was_spoken_to_may_have_said_more(
    engine: ScriptedEngine, grants: Grants
) -> None:
    """What it said is read after a word to it was in vain: nobody is told, and that is no error."""
    said: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    item, broke = "", asyncio.Event()

    def says(kind: str, **fields: object) -> None:
        said.put_nowait({"type": "websocket.receive", "text": json.dumps({"type": kind, **fields})})

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal item
        if item:
            broke.set()
            raise OSError("nobody is there")
        event = json.loads(message.get("text") or "{}")
        item = event.get("item", {}).get("id", "") if "added" in event.get("type", "") else ""

    said.put_nowait({"type": "websocket.connect"})
    says("response.create")
    scope = {
        "type": "websocket", "path": "/v1/realtime", "root_path": "", "query_string": b"", "subprotocols": [],
        "headers": [(b"authorization", f"Bearer {grants.issue().token}".encode())],
    }  # fmt: skip
    app = build(engine, grants.verifier, ReferenceDesk(None, None).fetch, None)
    served = asyncio.create_task(app(scope, said.get, send))
    await asyncio.wait_for(broke.wait(), HANGS_S)
    says("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=0)
    said.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await asyncio.wait_for(served, HANGS_S)
