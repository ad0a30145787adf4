"""A call on the golden checkpoint from end to end: the engine's process as the gateway starts it, a voice by
its grant from a front, the hall's own client. The sound is noise; words, order and plumbing are not."""

from __future__ import annotations

import asyncio
import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from consent.grants.grant import VoiceGrant
from consent.grants.scope import Scope
from consent.office.office import ConsentOffice
from gateway.front.halls.grant_door import GrantDoor
from gateway.front.halls.voice_desk import VoiceDesk
from gateway.ipc.front_messages import AskWithdrawn, FetchVoice, RedeemGrant, VoiceClip, WithdrawnVoices
from gateway.ipc.rpc import Peer, Server
from gateway.store.redeemed_grants import RedeemedGrants
from gateway.store.registry import Registry
from model.client import (
    Audio,
    Created,
    Done,
    EngineClient,
    EngineEvent,
    EngineSession,
    Truncated,
    Words,
)
from model.errors import EngineError
from tests.needs import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "boot-token"
RATE_HZ = 24_000


@contextmanager
def short_folder() -> Iterator[Path]:
    """pytest's own are too long for a unix socket's path."""
    with tempfile.TemporaryDirectory(prefix="vgt-") as name:
        yield Path(name)


class Front:
    """The front's doors for an engine; `pcm` is the stock voice's clip."""

    def __init__(self, folder: Path, office: ConsentOffice, pcm: Any) -> None:
        office.stock.keep_clip(pcm, "These are the words of the clip.")
        self.asked = 0
        self._voices = VoiceDesk(office)
        self._registry = Registry.open(f"sqlite:///{folder}/calls.sqlite")
        redeemed = RedeemedGrants(self._registry)
        redeemed.open()
        door = GrantDoor(redeemed, office.public_keys_path)
        handlers = [
            FetchVoice.handled_by(self._fetched),
            RedeemGrant.handled_by(door.asked),
            AskWithdrawn.handled_by(self._withdrawn),
        ]
        self._server = Server(folder / "front.sock", TOKEN, handlers)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()
        self._registry.close()

    async def _fetched(self, peer: Peer, asked: FetchVoice) -> VoiceClip:
        self.asked += 1
        return await self._voices.fetched(peer, asked)

    async def _withdrawn(self, _: Peer, asked: AskWithdrawn) -> WithdrawnVoices:
        return WithdrawnVoices(asked.series, (), 0.0)


def noise(seconds: float, seed: int = 0) -> Any:
    return (0.2 * np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


class House:
    """An engine's process and the front beside it. `argv`: the server's program."""

    def __init__(self, folder: Path, golden: Path, pcm: Any) -> None:
        self.folder = folder
        self.office = ConsentOffice.open(f"sqlite:///{folder}/consent.sqlite", folder / "consent")
        self.front = Front(folder, self.office, pcm)
        self.argv = ["-m", "model.server"]
        self._golden = golden
        self._listen("engine.sock")

    def _listen(self, socket: str) -> None:
        self.socket = self.folder / socket
        self.client = EngineClient(str(self.socket), TOKEN)
        self.log_path = self.folder / f"{socket}.log"

    def beside(self, socket: str) -> House:
        """Another engine, an ordinary one, at the same front."""
        other = copy.copy(self)
        other.argv = ["-m", "model.server"]
        other._listen(socket)
        return other

    async def start(self) -> None:
        await self.front.start()
        await self.start_engine()

    async def start_engine(self) -> None:
        environ = {
            **os.environ,
            "VOICEGATE_CHROMA": str(self._golden),
            "VOICEGATE_BOOT_TOKEN": TOKEN,
            "VOICEGATE_ENGINE_CALLS": "2",
            "VOICEGATE_CHROMA_CONTEXT": "1024",
            "VOICEGATE_CHROMA_REPLY_S": "2.4",
            "OMP_NUM_THREADS": "1",
        }
        argv = [
            sys.executable, *self.argv, "--engine", "chroma",
            "--uds", str(self.socket), "--front", str(self.folder / "front.sock"),
            "--keys", str(self.office.public_keys_path),
        ]  # fmt: skip
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(argv, env=environ, stdout=log, stderr=log)  # noqa: ASYNC220
        async with asyncio.timeout(HANGS_S):
            while not await self.client.ready():
                assert self.process.poll() is None, self.log_path.read_text()
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        await self.stop_engine()
        await self.front.stop()

    async def stop_engine(self) -> None:
        self.process.terminate()
        assert await asyncio.to_thread(self.process.wait, 20) in (0, -15)

    def loaded(self) -> str:
        """Files that the server's process has mapped."""
        return Path(f"/proc/{self.process.pid}/maps").read_text()

    def grant(self, call_id: str) -> VoiceGrant:
        return self.office.grant(Scope("heart", "test", "test", "en", call_id))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house(golden: Path) -> AsyncIterator[House]:
    with short_folder() as folder:
        made = House(folder, golden, noise(2.0, 9))
        await made.start()
        yield made
        await made.stop()


async def until_done(session: EngineSession) -> list[EngineEvent]:
    found: list[EngineEvent] = []
    async with asyncio.timeout(HANGS_S):
        async for event in session:
            found.append(event)
            if isinstance(event, Done):
                return found
    raise AssertionError("the session ended")


def pcm_of(events: list[EngineEvent]) -> Any:
    return np.concatenate([event.pcm for event in events if isinstance(event, Audio)])


async def speak(session: EngineSession, pcm: Any) -> None:
    for at in range(0, len(pcm), 480):
        await session.append(pcm[at : at + 480])


async def test_a_stock_voice_without_a_clip_is_refused_and_the_operator_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = house.office.stock
    monkeypatch.setattr(stock, "_clip", lambda: None)  # as before the gateway rendered one
    monkeypatch.setattr(stock, "voice", stock._look())
    assert not stock.has_clip
    with pytest.raises(EngineError, match=r"voice_unusable.*without a reference clip"):
        await house.client.connect(house.grant("call-1").token)
    log = house.log_path.read_text()
    assert "voice.unusable" in log
    assert "bytes stand in for words" in log


async def test_a_call_from_disclosure_to_goodbye(house: House) -> None:
    session = await house.client.connect(house.grant("call-1").token)
    await session.update(instructions="Be brief.", binary=True, lead_s=10.0)
    await session.respond(say="Hello, a machine speaks.")
    said = await until_done(session)
    done = said[-1]
    assert isinstance(done, Done)
    assert (done.status, done.text) == ("completed", "Hello, a machin")  # 30 frames carry 15 of its bytes
    assert len(pcm_of(said)) == 30 * 1920
    assert np.isfinite(pcm_of(said)).all()
    assert np.abs(pcm_of(said)).max() > 0.1
    assert isinstance(said[0], Created)
    first_word = next(k for k, event in enumerate(said) if isinstance(event, Words))
    first_sound = next(k for k, event in enumerate(said) if isinstance(event, Audio))
    assert first_word < first_sound

    await speak(session, noise(3.0, 1))
    await session.commit()
    await session.respond()
    replied = await until_done(session)
    done = replied[-1]
    assert isinstance(done, Done)
    assert done.status == "completed"
    assert len(done.text) > 0
    assert len(pcm_of(replied)) == 30 * 1920
    await session.aclose()
    assert house.front.asked >= 1
    assert "torch" not in house.loaded(), "the weights are not where the sockets are"


async def test_an_interrupted_reply_keeps_what_was_heard(house: House) -> None:
    session = await house.client.connect(house.grant("call-2").token)
    await session.update(binary=True, lead_s=0.2)
    await session.respond(say="One two three")
    found: list[EngineEvent] = []
    async with asyncio.timeout(HANGS_S):
        async for event in session:
            found.append(event)
            if isinstance(event, Created):
                response_id, item_id = event.response_id, event.item_id
            if sum(isinstance(event, Audio) for event in found) == 12:
                break
        await session.cancel(response_id)
        await session.truncate(item_id, 800)
        async for event in session:
            found.append(event)
            if isinstance(event, Truncated):
                break
    assert isinstance(event, Truncated)
    assert event.text == "One"
    done = next(event for event in found if isinstance(event, Done))
    assert done.status == "cancelled"
    await session.respond(say="Yes")
    assert isinstance((await until_done(session))[-1], Done)
    await session.aclose()


async def test_two_callers_at_once_and_a_third_is_refused(house: House) -> None:
    sessions = [await house.client.connect(house.grant(f"call-{k}").token) for k in range(2)]
    with pytest.raises(EngineError, match="busy"):
        await house.client.connect(house.grant("call-9").token)
    for session in sessions:
        await session.update(binary=True, lead_s=10.0)
        await session.respond(say="Good day")
    for events in await asyncio.gather(*(until_done(session) for session in sessions)):
        assert isinstance(events[-1], Done)
        assert events[-1].text == "Good day"
    await sessions[0].aclose()
    async with asyncio.timeout(5):
        while True:  # the slot is free once the engine saw the other end go
            try:
                again = await house.client.connect(house.grant("call-10").token)
                break
            except EngineError:
                await asyncio.sleep(0.02)
    await again.aclose()
    await sessions[1].aclose()


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [(None, "VOICEGATE_CHROMA names no checkpoint"), ("/nowhere/at/all", "neither a directory nor a hub id")],
)
async def test_a_wrong_setting_is_one_line_and_no_traceback(
    tmp_path: Path, checkpoint: str | None, said: str
) -> None:
    office = ConsentOffice.open(f"sqlite:///{tmp_path}/consent.sqlite", tmp_path)
    environ = {name: value for name, value in os.environ.items() if name != "VOICEGATE_CHROMA"}
    if checkpoint:
        environ["VOICEGATE_CHROMA"] = checkpoint
    argv = [
        sys.executable, "-m", "model.server", "--engine", "chroma", "--port", "1",
        "--keys", str(office.public_keys_path),
    ]  # fmt: skip
    ended = await asyncio.to_thread(
        subprocess.run, argv, env=environ, capture_output=True, text=True, timeout=HANGS_S, check=False
    )
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
