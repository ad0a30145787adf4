"""Where an engine gets a voice: from the front, by hash, against the grant.

On the front's own host that is the gateway's RPC (4-byte length and JSON over its unix socket); this is the
little of it that an engine needs, so that `model` knows nothing of `gateway`. An engine elsewhere asks by
HTTPS, `POST /engine/voice`, with the token that it shares with the gateway. An engine without a front has
stock voices only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
import struct
from functools import cached_property
from typing import Any, Final

import httpx
import numpy as np

from consent.grants.grant import VoiceGrant, hash_voice
from model import __version__
from model.address import is_safe
from model.api import Reference
from model.errors import EngineError

WITHIN_S: Final = 5.0
MAX_ANSWER: Final = 64 << 20
_LENGTH: Final = struct.Struct(">I")


def _encode(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


class ReferenceDesk:
    """Fetches references; one short connection each, since the engine keeps what it got by hash.

    `front`: the path of its unix socket, or `https://…`. A plain `http://…` to another machine is refused by
    `EngineError`, unless `VOICEGATE_ENGINE_PLAIN` says that the network between is private.
    """

    def __init__(self, front: str | None, token: str | None) -> None:
        self._front = front
        self._token = token
        self._remote = front is not None and front.startswith(("http://", "https://"))
        if self._remote and front is not None:
            if token is None:
                raise EngineError("voices from another machine need VOICEGATE_ENGINE_TOKEN")
            if not is_safe(front) and os.environ.get("VOICEGATE_ENGINE_PLAIN") not in ("1", "true"):
                raise EngineError(
                    f"{front} would send voices in the clear: use https://, "
                    "or VOICEGATE_ENGINE_PLAIN=1 on a private network"
                )

    @property
    def has_front(self) -> bool:
        """Whether there is a front to ask; without one an engine has stock voices only."""
        return self._front is not None

    async def withdrawn(self, series: str, known: int) -> tuple[str, list[str], float | None]:
        """The signed revocations after the first `known` of a front's `series`.

        Returns the series that it is now, the tokens, and how old the front's last good look into the ledger
        is in seconds. Raises `EngineError` when the front is away, or says what is none of this.
        """
        params = {"series": series, "known": known}
        try:
            async with asyncio.timeout(WITHIN_S):
                if self._remote:
                    said = await self._post("/engine/withdrawn", params)
                else:
                    said = await self._ask("voices.withdrawn.since", params)
            ago_s = said["looked_ago_s"]
            tokens = [str(token) for token in said["tokens"]]
            return str(said["series"]), tokens, None if ago_s is None else float(ago_s)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, httpx.HTTPError) as error:
            raise EngineError(f"the front cannot be asked: {error!r}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise EngineError(f"the front says what is not a list of withdrawn voices: {error!r}") from None

    async def redeem(self, grant: VoiceGrant, connection: str) -> bool:
        """Whether the grant opens this connection, and no other from now on. Raises `EngineError`.

        An engine without a front has stock voices only, and knows of no other engine.
        """
        return True if self._front is None else await self._redeem(grant, connection, give_back=False)

    async def give_back(self, grant: VoiceGrant, connection: str) -> None:
        """The connection opened no session. A front that is away does not hear it, and the grant is spent."""
        if self._front is not None:
            with contextlib.suppress(EngineError):
                await self._redeem(grant, connection, give_back=True)

    async def _redeem(self, grant: VoiceGrant, connection: str, *, give_back: bool) -> bool:
        asked = {"connection": connection, "give_back": give_back}
        try:
            async with asyncio.timeout(WITHIN_S):
                if self._remote:
                    said = await self._post("/engine/redeem", {"grant": grant.token, **asked})
                    return said["redeemed"] is True
                return await self._ask("grant.redeem", {"token": grant.token, **asked}) is True
        except (OSError, TimeoutError, asyncio.IncompleteReadError, httpx.HTTPError) as error:
            raise EngineError(f"the grant cannot be redeemed: {error!r}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise EngineError(f"the front says nothing of the grant: {error!r}") from None

    async def fetch(self, grant: VoiceGrant) -> Reference:
        """The grant's voice. Raises `EngineError` when the front refuses or is away."""
        if self._front is None:
            return Reference(grant.voice, grant.voice_hash, None, "", stock=True)
        asked = {"voice_hash": grant.voice_hash}
        try:
            async with asyncio.timeout(WITHIN_S):
                if self._remote:
                    found = await self._post("/engine/voice", {"grant": grant.token, **asked})
                else:
                    found = await self._ask("voice.reference", {"token": grant.token, **asked})
        except (OSError, TimeoutError, asyncio.IncompleteReadError, httpx.HTTPError) as error:
            raise EngineError(f"the voice {grant.voice} cannot be fetched: {error!r}") from None
        pcm = None if found["pcm_f32"] is None else base64.b64decode(found["pcm_f32"])
        # without a clip it is the engine's own voice, which the front names by its record
        true = found["voice_hash"] if pcm is None else hash_voice(pcm, found["text"])
        if true != grant.voice_hash:
            raise EngineError(f"the front answers with another voice than {grant.voice}")
        return Reference(
            voice=found["voice"],
            voice_hash=true,
            pcm=None if pcm is None else np.frombuffer(pcm, np.float32),
            text=found["text"],
            stock=found["stock"],
        )

    @cached_property
    def _secure(self) -> ssl.SSLContext:
        """The system's certificates, or SSL_CERT_FILE's; reading them takes longer than a question does."""
        return ssl.create_default_context()

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}"}
        async with httpx.AsyncClient(
            timeout=WITHIN_S, trust_env=False, headers=headers, verify=self._secure
        ) as client:
            answer = await client.post(f"{str(self._front).rstrip('/')}{path}", json=body)
        if answer.status_code != 200:
            raise EngineError(f"the front refuses: {answer.status_code} {answer.text[:200]}")
        if len(answer.content) > MAX_ANSWER:
            raise EngineError("the front's answer is too large")
        return dict(answer.json())

    async def _ask(self, method: str, params: dict[str, Any]) -> Any:
        reader, writer = await asyncio.open_unix_connection(str(self._front))
        try:
            hello = {"role": "engine", "name": "engine", "token": self._token, "version": __version__}
            writer.write(_encode({"tell": "hello", "params": hello}))
            writer.write(_encode({"ask": 1, "method": method, "params": params}))
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if length > MAX_ANSWER:
                raise EngineError("the front's answer is too large")
            answer = json.loads(await reader.readexactly(length))
        finally:
            writer.close()
        refusal = answer.get("error", answer.get("refused"))
        if refusal is not None:
            raise EngineError(f"the front refuses: {refusal}")
        return answer["result"]
