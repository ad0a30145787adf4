"""The stock voice: no person's, with a signed record built in, and the clip that an engine may speak as.

An engine without a voice of its own (Chroma) speaks as a clip of the stock voice. The gateway renders the
clip once; the signed record names its hash, and both lie sealed among the house's items. So another clip,
whoever puts it there, is not the one that the grant names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Connection

from consent.archive.tables import Archive
from consent.archive.vault import HOUSE, Vault
from consent.checks.sound import Floats, from_pcm16, pcm16
from consent.errors import GrantRefused, VaultError
from consent.grants.grant import ISSUER, GrantVerifier, hash_voice, sign
from consent.grants.scope import STOCK
from consent.office.record import TYP
from consent.office.voice import Voice, VoiceReference

log = structlog.get_logger("consent")

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


class StockVoice:
    """The stock voice, by its clip's hash where there is a clip that holds."""

    def __init__(self, archive: Archive, vault: Vault, clock: Callable[[], float]) -> None:
        """`clock` says seconds since the epoch."""
        self._archive = archive
        self._vault = vault
        self._clock = clock
        self.voice = self._look()
        """as others ask for it"""

    @property
    def has_clip(self) -> bool:
        """Whether a clip of the stock voice is kept that holds."""
        return self.voice.voice_hash != UNHEARD_HASH

    def keep_clip(self, pcm: Floats, text: str) -> None:
        """Keeps the clip that the gateway rendered (float32, 24 kHz mono), unless one is kept that holds."""
        with self._archive.writing() as connection:
            self._keep(connection, pcm, text, self._clock())
        self.voice = self._look()

    def reference(self, voice_hash: str) -> VoiceReference:
        """The engine's own voice; with the clip that the gateway made of it for an engine that has none.

        Raises `GrantRefused` where the clip is not the one of that hash.
        """
        try:
            clip = self._clip()
        except VaultError as error:
            raise GrantRefused("tampered", str(error)) from None
        if clip is None:
            return VoiceReference(STOCK, UNHEARD_HASH, None, "", stock=True)
        if clip.voice_hash != voice_hash:
            raise GrantRefused("tampered", "the stock voice's clip is not the one that the grant names")
        return VoiceReference(STOCK, clip.voice_hash, clip.pcm, clip.text, stock=True)

    def _look(self) -> Voice:
        try:
            clip = self._clip()
        except VaultError as error:
            log.error("stock.clip_refused", error=str(error))
            clip = None
        return Voice(STOCK, UNHEARD_HASH if clip is None else clip.voice_hash, stock=True)

    def _clip(self) -> StockClip | None:
        with self._archive.reading() as connection:
            return self._kept(connection)

    def _keep(self, connection: Connection, pcm: Floats, text: str, now: float) -> None:
        vault = self._vault
        vault.open_house(connection, now)
        try:
            if self._kept(connection) is not None:
                return
        except VaultError:  # it is worth nothing: the fresh one takes its place
            vault.remove(connection, HOUSE, SOUND, 0)
            vault.remove(connection, HOUSE, RECORD, 0)
        sound = pcm16(pcm)
        voice_hash = hash_voice(from_pcm16(sound).tobytes(), text)
        claims = {**STOCK_RECORD, "iss": ISSUER, "iat": now, "voice_hash": voice_hash, "text": text}
        signer = vault.keys.signer
        token = sign(claims, signer.private, signer.kid, TYP)
        vault.put(connection, HOUSE, SOUND, sound)
        vault.put(connection, HOUSE, RECORD, token.encode())

    def _kept(self, connection: Connection) -> StockClip | None:
        """The clip, checked against its signed record; None while none was rendered. Raises `VaultError`."""
        tokens = self._vault.all(connection, HOUSE, RECORD)
        sounds = self._vault.all(connection, HOUSE, SOUND)
        if not tokens and not sounds:
            return None
        try:
            claims = GrantVerifier(self._vault.keys.public).claims(tokens[0].decode(), TYP)
            pcm, text = from_pcm16(sounds[0]), str(claims["text"])
            if claims["kind"] != "stock" or claims["voice_hash"] != hash_voice(pcm.tobytes(), text):
                raise ValueError("another clip")
        except (GrantRefused, KeyError, ValueError):
            raise VaultError(
                "the stock voice's clip is not the one that its signed record names; start the gateway with "
                "VOICEGATE_ENGINE=chroma again, which renders it anew"
            ) from None
        return StockClip(pcm, text, claims["voice_hash"])
