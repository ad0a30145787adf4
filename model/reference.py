"""Where an engine gets a voice: from the front, by hash, against the grant.

The front speaks the gateway's RPC (4-byte length and JSON over its unix socket); this is the little of it
that an engine needs, so that `model` knows nothing of `gateway`. An engine without a front has stock voices
only.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np

from consent.grant import VoiceGrant
from model.api import Reference
from model.errors import EngineError

WITHIN_S: Final = 5.0
MAX_ANSWER: Final = 64 << 20
_LENGTH: Final = struct.Struct(">I")


def _encode(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


class ReferenceDesk:
    """Fetches references; one short connection each, since the engine keeps what it got by hash."""

    def __init__(self, front: Path | None, token: str | None) -> None:
        self._front = front
        self._token = token

    async def fetch(self, grant: VoiceGrant) -> Reference:
        """The grant's voice. Raises `EngineError` when the front refuses or is away."""
        if self._front is None:
            return Reference(grant.voice, grant.voice_hash, None, "", stock=True)
        try:
            async with asyncio.timeout(WITHIN_S):
                found = await self._ask(grant)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise EngineError(f"the voice {grant.voice} cannot be fetched: {error!r}") from None
        pcm = found["pcm_f32"]
        return Reference(
            voice=found["voice"],
            voice_hash=found["voice_hash"],
            pcm=None if pcm is None else np.frombuffer(base64.b64decode(pcm), np.float32),
            text=found["text"],
            stock=found["stock"],
        )

    async def _ask(self, grant: VoiceGrant) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(self._front)
        try:
            hello = {"role": "engine", "name": "engine", "token": self._token}
            writer.write(_encode({"tell": "hello", "params": hello}))
            params = {"token": grant.token, "voice_hash": grant.voice_hash}
            writer.write(_encode({"ask": 1, "method": "voice.reference", "params": params}))
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if length > MAX_ANSWER:
                raise EngineError("the front's answer is too large")
            answer = json.loads(await reader.readexactly(length))
        finally:
            writer.close()
        if "error" in answer:
            raise EngineError(f"the front refuses the voice {grant.voice}: {answer['error']}")
        return dict(answer["result"])
