"""A voice fetched over the gateway's own socket: the engine's side of it, against the real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

import model
from consent.office.office import ConsentOffice
from gateway.errors import RpcError
from gateway.ipc.front_messages import FetchVoice, VoiceClip
from gateway.ipc.rpc import Peer, Server
from model import reference as module
from model.errors import EngineError
from model.reference import ReferenceDesk
from tests.gateway.conftest import short_folder
from tests.model.voices import asker, grant_of

TOKEN = "token of this boot"
CLIP = np.linspace(-1, 1, 200_000, dtype=np.float32)


@pytest.fixture
def office(tmp_path: Path) -> ConsentOffice:
    return ConsentOffice.open(f"sqlite:///{tmp_path}/db", tmp_path / "consent")


@pytest.fixture
async def front(office: ConsentOffice) -> AsyncIterator[Path]:
    fetch = asker(office, CLIP, "ah")

    async def fetched(_: Peer, asked: FetchVoice) -> VoiceClip:
        return await fetch(asked.token, asked.voice_hash)

    with short_folder() as folder:
        server = Server(folder / "front.sock", TOKEN, [FetchVoice.handled_by(fetched)])
        await server.start()
        yield folder / "front.sock"
        await server.stop()


async def test_a_voice_comes_against_its_grant(office: ConsentOffice, front: Path) -> None:
    voice = office.verifier.verify(grant_of(office, CLIP, "ah"))
    reference = await ReferenceDesk(str(front), TOKEN).fetch(voice)
    assert reference.pcm is not None
    assert np.array_equal(reference.pcm, CLIP)
    assert (reference.voice_hash, reference.text, reference.stock) == (voice.voice_hash, "ah", False)


@pytest.mark.parametrize("stock", [False, True])
async def test_another_clip_than_the_grant_names_is_refused_of_the_stock_voice_too(
    office: ConsentOffice, stock: bool
) -> None:
    voice = office.verifier.verify(grant_of(office, CLIP, "ah"))

    async def another(_: Peer, asked: FetchVoice) -> VoiceClip:
        return VoiceClip(voice.voice, asked.voice_hash, "ah", stock=stock, pcm_f32=(CLIP / 2).tobytes())

    with short_folder() as folder:
        server = Server(folder / "front.sock", TOKEN, [FetchVoice.handled_by(another)])
        await server.start()
        with pytest.raises(EngineError, match="answers with another voice"):
            await ReferenceDesk(str(folder / "front.sock"), TOKEN).fetch(voice)
        await server.stop()


async def test_a_refusal_is_told_in_the_fronts_words(office: ConsentOffice) -> None:
    async def refused(_: Peer, __: FetchVoice) -> VoiceClip:
        raise RpcError("not today")

    voice = office.verifier.verify(grant_of(office, CLIP, "ah"))
    with short_folder() as folder:
        server = Server(folder / "front.sock", TOKEN, [FetchVoice.handled_by(refused)])
        await server.start()
        with pytest.raises(EngineError, match="not today"):
            await ReferenceDesk(str(folder / "front.sock"), TOKEN).fetch(voice)
        await server.stop()


async def test_an_engine_of_another_version_is_told_so(
    office: ConsentOffice, front: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "__version__", "0.0.9")
    voice = office.verifier.verify(grant_of(office, CLIP, "ah"))
    ours = model.__version__
    with pytest.raises(EngineError, match=rf"engine is of version 0\.0\.9, this process of {ours}"):
        await ReferenceDesk(str(front), TOKEN).fetch(voice)
