"""A registered voice without its registration: what a front would grant and hand out."""

from __future__ import annotations

import secrets
import time

import numpy as np
from numpy.typing import NDArray

from consent.errors import GrantRefused
from consent.grants.grant import hash_voice, sign
from consent.office.office import ConsentOffice
from gateway.errors import RpcError
from gateway.front.http.engine_door import Fetch
from gateway.ipc.front_messages import VoiceClip

Clip = NDArray[np.float32]


def grant_of(office: ConsentOffice, clip: Clip, text: str) -> str:
    """A grant's token for this clip and its words, signed as the office signs."""
    now = time.time()
    claims = {
        "iss": "voicegate-consent", "jti": secrets.token_hex(16), "sub": "jane", "pur": "support",
        "vh": hash_voice(clip.tobytes(), text), "dp": "demo", "lang": "en", "call": "c1",
        "iat": now, "exp": now + 60,
    }  # fmt: skip
    return sign(claims, office.keys.signer.private, office.keys.signer.kid)


def asker(office: ConsentOffice, clip: Clip, text: str, fetched: list[str] | None = None) -> Fetch:
    """What the front's desk does, with this one voice; notes in `fetched` who fetched it."""

    async def fetch(token: str, voice_hash: str) -> VoiceClip:
        try:
            grant = office.verifier.verify(token)
        except GrantRefused as refused:
            raise RpcError(str(refused)) from None
        if grant.voice_hash != voice_hash:
            raise RpcError("the grant is for another voice")
        if fetched is not None:
            fetched.append(token)
        return VoiceClip(grant.voice, voice_hash, text, stock=False, pcm_f32=clip.tobytes())

    return fetch
