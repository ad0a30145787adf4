"""The stock voice: no person's, with a signed record built in, and the clip that an engine may speak as.

An engine without a voice of its own (Chroma) speaks as a clip of the stock voice. The gateway renders the
clip once; the signed record names its hash, and both lie sealed among the house's items. So another clip,
whoever puts it there, is not the one that the grant names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from consent.archive.keys import OfficeKeys
from consent.archive.vault import HOUSE, Vault
from consent.checks.sound import Floats, from_pcm16, pcm16
from consent.errors import GrantRefused, VaultError
from consent.grants.grant import ISSUER, GrantVerifier, hash_voice, sign
from consent.grants.scope import STOCK
from consent.office.record import TYP

STOCK_RECORD: Final = {
    "voice": STOCK,
    "kind": "stock",
    "statement": "A synthetic voice of the hibari-tts package (Apache-2.0); no living person's voice.",
    "purposes": ["*"],
}
UNHEARD_HASH: Final = hashlib.sha256(json.dumps(STOCK_RECORD, sort_keys=True).encode()).hexdigest()
"""The stock voice's hash while there is no clip: of the record alone."""
SOUND: Final = "stock sound"
RECORD: Final = "stock record"


@dataclass(frozen=True, slots=True)
class StockClip:
    """The clip as it was rendered; `pcm` float32 24 kHz mono."""

    pcm: Floats
    text: str
    voice_hash: str


def keep(connection: Connection, vault: Vault, keys: OfficeKeys, pcm: Floats, text: str, now: float) -> str:
    """Keeps the clip that the gateway rendered, unless one is kept; returns the hash of the one that is."""
    vault.open_house(connection, now)
    try:
        if (known := kept(connection, vault, keys)) is not None:
            return known.voice_hash
    except VaultError:  # it is worth nothing: the fresh one takes its place
        vault.remove(connection, HOUSE, SOUND, 0)
        vault.remove(connection, HOUSE, RECORD, 0)
    sound = pcm16(pcm)
    voice_hash = hash_voice(from_pcm16(sound).tobytes(), text)
    claims = {**STOCK_RECORD, "iss": ISSUER, "iat": now, "voice_hash": voice_hash, "text": text}
    token = sign(claims, keys.signer.private, keys.signer.kid, TYP)
    vault.put(connection, HOUSE, SOUND, sound)
    vault.put(connection, HOUSE, RECORD, token.encode())
    return voice_hash


def kept(connection: Connection, vault: Vault, keys: OfficeKeys) -> StockClip | None:
    """The clip, checked against its signed record; None while none was rendered. Raises `VaultError`."""
    tokens = vault.all(connection, HOUSE, RECORD)
    sounds = vault.all(connection, HOUSE, SOUND)
    if not tokens and not sounds:
        return None
    try:
        claims = GrantVerifier(keys.public).claims(tokens[0].decode(), TYP)
        pcm, text = from_pcm16(sounds[0]), str(claims["text"])
        if claims["kind"] != "stock" or claims["voice_hash"] != hash_voice(pcm.tobytes(), text):
            raise ValueError("another clip")
    except (GrantRefused, KeyError, ValueError):
        raise VaultError(
            "the stock voice's clip is not the one that its signed record names; start the gateway with "
            "VOICEGATE_ENGINE=chroma again, which renders it anew"
        ) from None
    return StockClip(pcm, text, claims["voice_hash"])
