"""Engines elsewhere: refusal instead of queueing, spare slots, draining, where a call goes, voices."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import types
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from ray.serve.schema import ServeDeploySchema
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from consent.grants.grant import GrantVerifier, VoiceGrant
from consent.grants.scope import Scope
from consent.office.office import ConsentOffice
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.front.http.credentials import WRONG_TOKENS
from gateway.front.http.engine_door import engine_door
from gateway.run.preflight import check_engines
from model.api import Limits, Output, Reference, SessionConfig, Understood
from model.client import EngineClient, EngineSession
from model.cluster import FULL, GONE_S, ClusterSettings, ReplicaStanding, Roster, by_slots, exposition
from model.errors import EngineBusy, EngineError, EngineLost
from model.reference import ReferenceDesk
from model.server import EngineApp, listening
from tests.model.voices import asker, grant_of
from tests.needs import HANGS_S

TOKEN = "a-token-of-engines-and-gateway"


class Talk:
    """A conversation that says nothing."""

    async def configure(self, config: SessionConfig) -> None: ...
    def hear(self, pcm: Any) -> None: ...
    async def commit(self) -> Understood:
        return Understood(0.0)

    def clear(self) -> None: ...
    async def respond(self, item_id: str, say: str | None = None) -> AsyncIterator[Output]:
        for nothing in ():
            yield nothing

    async def truncate(self, item_id: str, heard_s: float) -> str:
        return ""

    async def restore(self, item: Any) -> None: ...
    async def close(self) -> None: ...


class Quiet:
    """An engine of that many slots."""

    def __init__(self, slots: int) -> None:
        self.limits = Limits(conversations=slots)

    async def open(self, grant: VoiceGrant, reference: Reference) -> Talk:
        return Talk()

    def forget(self, voice_hash: str) -> None: ...
    async def metrics(self) -> str:
        return ""

    async def close(self) -> None: ...


@contextlib.asynccontextmanager
async def serving(app: Starlette, **tls: Any) -> AsyncIterator[str]:
    """The app on a port of loopback; yields `127.0.0.1:port`."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(listening(app, **tls))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await task


@pytest.fixture
def office(tmp_path: Path) -> ConsentOffice:
    return ConsentOffice.open(f"sqlite:///{tmp_path}/db", tmp_path / "consent")


Engines = Callable[..., Any]


@pytest.fixture
async def engine(office: ConsentOffice) -> AsyncIterator[Engines]:
    """Starts engines: `await engine(slots, spare)` answers (app, ws:// address)."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(slots: int, spare: int = 0) -> tuple[EngineApp, str]:
            verifier = GrantVerifier.load(office.public_keys_path)
            fetch = ReferenceDesk(None, None).fetch
            app = EngineApp(Quiet(slots), verifier, fetch, TOKEN, spare=spare)
            return app, f"ws://{await stack.enter_async_context(serving(app.asgi()))}"

        yield start


@pytest.fixture
def grant(office: ConsentOffice) -> Callable[[str], str]:
    return lambda call_id: _grant(office, call_id)


def _grant(office: ConsentOffice, call_id: str) -> str:
    return office.grant(Scope("heart", "support", "demo", "en", call_id)).token


async def _lost(session: EngineSession) -> None:
    """The session's end, as its call sees it."""
    await session.aclose()
    with pytest.raises(EngineLost):
        async for _ in session:
            pass


Grant = Callable[[str], str]


async def test_a_full_engine_refuses_at_once(engine: Engines, grant: Grant) -> None:
    _, url = await engine(slots=1)
    client = EngineClient(url, boot_token=TOKEN)
    first = await client.connect(grant("a"))
    with pytest.raises(EngineBusy, match="1 conversations are all"):
        await client.connect(grant("b"))
    await first.aclose()


async def test_a_wrong_token_gets_nowhere(engine: Engines, grant: Grant) -> None:
    _, url = await engine(slots=1)
    with pytest.raises(EngineError, match="401"):
        await EngineClient(url, boot_token="another").connect(grant("a"))


async def test_the_spare_slot_is_for_a_call_that_lost_its_engine(engine: Engines, grant: Grant) -> None:
    dying, dying_url = await engine(slots=1)
    _, url = await engine(slots=2, spare=1)
    client = EngineClient([dying_url, url], boot_token=TOKEN)
    lost, other = grant("lost"), grant("other")
    session = await client.connect(lost)
    assert dying.used == 1
    await client.connect(other)
    dying.draining = True  # it takes nobody any more
    with pytest.raises(EngineBusy, match="1 of them for calls taken up again"):
        await client.connect(grant("new"))
    await _lost(session)
    assert await client.connect(lost), "it may have the spare one"


async def test_busy_is_no_answer_for_a_call_that_lost_its_engine(engine: Engines, grant: Grant) -> None:
    app, url = await engine(slots=1)
    client = EngineClient(url, boot_token=TOKEN)
    token = grant("a")
    await _lost(await client.connect(token))
    app.draining = True
    with pytest.raises(EngineLost):
        await client.connect(token)


async def test_a_dead_engine_is_passed_over(engine: Engines, grant: Grant) -> None:
    _, url = await engine(slots=2)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = f"ws://127.0.0.1:{gone.getsockname()[1]}"
    client = EngineClient([dead, url], boot_token=TOKEN)
    for call in ("a", "b"):  # whichever comes first in the list
        assert await client.connect(grant(call))
    assert await client.ready()
    with pytest.raises(EngineLost):
        await EngineClient(dead, boot_token=TOKEN).connect(grant("c"))
    assert not await EngineClient(dead, boot_token=TOKEN).ready()


async def test_an_engine_is_reached_by_tls(
    office: ConsentOffice, grant: Grant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = _certificate(tmp_path)
    fetch = ReferenceDesk(None, None).fetch
    app = EngineApp(Quiet(1), GrantVerifier.load(office.public_keys_path), fetch, TOKEN)
    async with serving(app.asgi(), ssl_certfile=cert, ssl_keyfile=key) as place:
        with pytest.raises(EngineLost, match="certificate"):
            await EngineClient(f"wss://{place}", boot_token=TOKEN).connect(grant("a"))
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        client = EngineClient(f"wss://{place}", boot_token=TOKEN)
        assert await client.ready()
        session = await client.connect(grant("a"))
        await session.aclose()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an engine")])
    now = datetime.now(UTC)
    san = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(san, critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(cert.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert_path, key_path


async def test_a_drained_engine_takes_no_more_and_waits_a_bounded_time(engine: Engines, grant: Grant) -> None:
    app, url = await engine(slots=2)
    client = EngineClient(url, boot_token=TOKEN)
    session = await client.connect(grant("a"))
    assert await app.drain(0.2) == 1, "the conversation is still there"
    assert not await client.ready()
    with pytest.raises(EngineBusy, match="finishes its conversations"):
        await client.connect(grant("b"))
    draining = asyncio.create_task(app.drain(10 * HANGS_S))
    await session.aclose()
    assert await asyncio.wait_for(draining, HANGS_S) == 0


async def test_a_cluster_says_where_and_its_last_word_holds_while_it_is_away(
    engine: Engines, grant: Grant
) -> None:
    _, url = await engine(slots=4)
    asked: list[str | None] = []

    async def engines(request: Request) -> JSONResponse:
        asked.append(request.headers.get("x-voicegate-boot"))
        return JSONResponse({"engines": [{"url": url, "used": 0}]})

    async with serving(Starlette(routes=[Route("/embedded/v1/engines", engines)])) as place:
        client = EngineClient(f"http://{place}/embedded", boot_token=TOKEN)
        assert await client.connect(grant("a"))
    assert asked == [TOKEN]
    assert await client.connect(grant("b")), "the placement is away, the engine is not"


def test_the_roster_has_most_room_first_and_forgets_the_silent() -> None:
    roster = Roster()
    for name, used, draining in (("a", 3, False), ("b", 1, False), ("c", 0, True)):
        roster.take(ReplicaStanding(name, f"ws://{name}", 1, 4, used, 1, draining), now=10.0)
    assert [s.replica for s in roster.engines(10.0)] == ["b", "a"]
    assert len(roster.present(10.0)) == 3
    assert 'voicegate_cluster_used{replica="a"} 3' in exposition(roster.present(10.0))
    roster.take(ReplicaStanding("a", "ws://a", 1, 4, 3, 1, False), now=12.0)
    assert [s.replica for s in roster.present(10.0 + GONE_S)] == ["a"]


@pytest.mark.parametrize(("used", "replicas"), [(0, 0), (1, 1), (8, 1), (9, 2), (17, 3)])
def test_replicas_follow_the_slots_in_use(used: int, replicas: int) -> None:
    """Two replicas of ten open slots each, so eight calls to one."""
    assert math.isclose(FULL * 10, 8)
    measured = {"used": {"a": used, "b": 0}, "open": {"a": 10, "b": 10}}
    context = types.SimpleNamespace(aggregated_metrics=measured, target_num_replicas=2)
    assert by_slots(context)[0] == replicas
    unmeasured = types.SimpleNamespace(aggregated_metrics={}, target_num_replicas=2)
    assert by_slots(unmeasured)[0] == 2


def test_the_shipped_configuration_is_one() -> None:
    text = (Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml").read_text()
    config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    (app,) = config.applications
    ClusterSettings.model_validate(app.args)
    assert app.import_path == "model.cluster:build"


# ── voices ───────────────────────────────────────────────────────────────────────────────────────────────


CLIP = np.linspace(-1, 1, 200_000, dtype=np.float32)


@pytest.fixture
async def front(office: ConsentOffice) -> AsyncIterator[str]:
    async with serving(Starlette(routes=[engine_door(asker(office, CLIP, "ah"), TOKEN)])) as place:
        yield f"http://{place}"


async def test_a_voice_comes_from_the_front_against_its_grant(office: ConsentOffice, front: str) -> None:
    token = grant_of(office, CLIP, "ah")
    voice = office.verifier.verify(token)
    reference = await ReferenceDesk(front, TOKEN).fetch(voice)
    assert reference.pcm is not None
    assert np.array_equal(reference.pcm, CLIP)
    assert reference.voice_hash == voice.voice_hash
    other = office.verifier.verify(grant_of(office, CLIP, "oh"))
    with pytest.raises(EngineError, match="another voice"):
        await ReferenceDesk(front, TOKEN).fetch(other)
    with pytest.raises(EngineError, match="401"):
        await ReferenceDesk(front, "another token").fetch(voice)
    body = {"grant": token[:-6] + "AAAAAA", "voice_hash": voice.voice_hash}
    async with httpx.AsyncClient(base_url=front, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        assert (await http.post("/engine/voice", json=body)).status_code == 403, "a forged grant"
        assert (await http.post("/engine/voice", json={"grant": token, "voice_hash": "0"})).status_code == 403
        assert (await http.post("/engine/voice", content=b"[]")).status_code == 400


async def test_guessing_the_engines_token_must_wait(front: str) -> None:
    async with httpx.AsyncClient(base_url=front) as http:
        guesses = [
            await http.post("/engine/voice", json={}, headers={"Authorization": f"Bearer guess{k}"})
            for k in range(WRONG_TOKENS + 1)
        ]
    assert [guess.status_code for guess in guesses] == [401] * WRONG_TOKENS + [429]


def test_voices_do_not_travel_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="in the clear"):
        ReferenceDesk("http://192.0.2.1:8080", TOKEN)
    with pytest.raises(EngineError, match="VOICEGATE_ENGINE_TOKEN"):
        ReferenceDesk("https://192.0.2.1", None)
    ReferenceDesk("https://192.0.2.1", TOKEN)
    monkeypatch.setenv("VOICEGATE_ENGINE_PLAIN", "1")
    ReferenceDesk("http://192.0.2.1:8080", TOKEN)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"engine_url": ("ws://127.0.0.1:9000",)}, "VOICEGATE_ENGINE_TOKEN"),
        ({"engine_url": ("ws://127.0.0.1:9000",), "engine_token": "short"}, "16 characters"),
        ({"engine_url": ("ftp://127.0.0.1",), "engine_token": TOKEN}, "must begin with"),
        ({"engine_url": ("ws://192.0.2.1:9000",), "engine_token": TOKEN}, "in the clear"),
        ({"engine_url": ("http://serve.example.com",), "engine_token": TOKEN}, "in the clear"),
        ({"engine": "chroma"}, "VOICEGATE_CHROMA"),
    ],
)
def test_engines_that_cannot_be_used_safely_are_refused_at_the_start(
    given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(StartError, match=problem):
        check_engines(Settings(**given))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"engine_url": ("ws://127.0.0.1:9000", "wss://gpu.example.com:9000"), "engine_token": TOKEN},
        {"engine_url": ("ws://192.0.2.1:9000",), "engine_token": TOKEN, "engine_plain": True},
        {"engine_url": ("https://serve.example.com",), "engine_token": TOKEN, "engine": "chroma"},
    ],
)
def test_engines_elsewhere_are_settings(given: dict[str, Any]) -> None:
    settings = Settings(**given)
    check_engines(settings)
    assert TOKEN not in repr(settings), "a secret is not shown"
