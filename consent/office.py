"""The office that grants voices. First form: the stock voice with its built-in record."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from numpy.typing import NDArray

from consent.errors import GrantRefused
from consent.grant import ISSUER, GrantVerifier, VoiceGrant, _b64, sign

STOCK_RECORD: Final = {
    "voice": "heart",
    "kind": "stock",
    "statement": "A synthetic voice of the hibari-tts package (Apache-2.0); no living person's voice.",
    "purposes": ["*"],
}


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice that may be asked for."""

    name: str
    voice_hash: str
    stock: bool


@dataclass(frozen=True, slots=True)
class VoiceReference:
    """What an engine needs to speak as a voice; `pcm` float32 24 kHz, None for a stock voice."""

    voice: str
    voice_hash: str
    pcm: NDArray[np.float32] | None
    text: str
    stock: bool


class ConsentOffice:
    """Issues grants. Blocking, a millisecond; call it in a thread from an event loop."""

    def __init__(self, directory: Path, key: Ed25519PrivateKey, kid: str, grant_s: float) -> None:
        self._key = key
        self._kid = kid
        self._grant_s = grant_s
        self.public_keys_path = directory / "grant-keys.json"
        record = json.dumps(STOCK_RECORD, sort_keys=True)
        self._heart = Voice("heart", hashlib.sha256(record.encode()).hexdigest(), stock=True)
        self.stock_record = sign({**STOCK_RECORD, "iss": ISSUER}, key, kid, "consent-record+jws")

    @classmethod
    def open(cls, sql_url: str, directory: Path, *, grant_s: float = 60.0) -> Self:
        """Opens (or makes) the office's keys in `directory`."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / "grant-key"
        if not path.exists():
            fresh = Ed25519PrivateKey.generate()
            raw = fresh.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(raw)
        key = Ed25519PrivateKey.from_private_bytes(path.read_bytes())
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        kid = hashlib.sha256(public).hexdigest()[:12]
        office = cls(directory, key, kid, grant_s)
        new = office.public_keys_path.with_suffix(".new")
        new.write_text(json.dumps({"keys": {kid: _b64(public)}}))
        new.replace(office.public_keys_path)
        return office

    def voices(self) -> list[Voice]:
        return [self._heart]

    def grant(
        self,
        *,
        voice: str,
        purpose: str,
        dialplan: str,
        language: str,
        call_id: str,
        now: float | None = None,
    ) -> VoiceGrant:
        """A grant for one call. Raises `GrantRefused`."""
        if voice != self._heart.name:
            raise GrantRefused("unknown", f"no voice is called {voice!r}")
        at = time.time() if now is None else now
        return self._issue(
            {
                "iss": ISSUER, "jti": secrets.token_hex(16), "sub": voice, "vh": self._heart.voice_hash,
                "pur": purpose, "dp": dialplan, "lang": language, "call": call_id,
                "iat": at, "exp": at + self._grant_s,
            }
        )  # fmt: skip

    def _issue(self, claims: dict[str, Any]) -> VoiceGrant:
        token = sign(claims, self._key, self._kid)
        return self._verifier().verify(token, now=float(claims["iat"]))

    def _verifier(self) -> GrantVerifier:
        return GrantVerifier({self._kid: self._key.public_key()})

    def renew(self, grant: VoiceGrant) -> VoiceGrant:
        """The same grant, from now on."""
        at = time.time()
        return self._issue(
            {
                "iss": ISSUER, "jti": grant.jti, "sub": grant.voice, "vh": grant.voice_hash,
                "pur": grant.purpose, "dp": grant.dialplan, "lang": grant.language, "call": grant.call_id,
                "iat": at, "exp": at + self._grant_s,
            }
        )  # fmt: skip

    def reference(self, token: str, voice_hash: str) -> VoiceReference:
        """The voice of a valid grant, by hash. Raises `GrantRefused`."""
        grant = self._verifier().verify(token)
        if grant.voice_hash != voice_hash:
            raise GrantRefused("other_call", "the grant is for another voice")
        return VoiceReference(grant.voice, voice_hash, None, "", stock=True)

    def record_usage(self, *, jti: str, call_id: str, seconds: float, dialplan: str) -> None:
        """Notes how long a voice spoke."""

    def close(self) -> None:
        """Nothing to close yet."""
