"""The office's signed word on every voice that may not be heard any more."""

from __future__ import annotations

from collections.abc import Callable

from consent.archive.keys import OfficeKeys
from consent.archive.tables import Archive
from consent.grants.revocation import Revocation, signed
from consent.ledger.standing import Standing
from consent.office.handles import Handles


class SignedRevocations:
    """Signs a revocation once for each voice, reason and signing key, and remembers it."""

    def __init__(
        self, archive: Archive, keys: OfficeKeys, handles: Handles, clock: Callable[[], float]
    ) -> None:
        """`clock` says seconds since the epoch."""
        self._archive = archive
        self._keys = keys
        self._handles = handles
        self._clock = clock
        self._signed: dict[str, tuple[tuple[str, str], Revocation]] = {}
        """by voice hash: (reason, key) and what was signed so"""

    def of(self, standing: Standing) -> list[Revocation]:
        """One for each voice that is revoked or erased. Raises `VaultError` without a key that signs."""
        gone = [voice for voice in list(standing.voices.values()) if voice.state in ("revoked", "erased")]
        signer = self._keys.signer
        with self._archive.reading() as connection:
            for voice in gone:
                reason = "erased" if voice.state == "erased" else "revoked"
                known = self._signed.get(voice.voice_hash)
                if known is None or known[0] != (reason, signer.kid):
                    handle = self._handles.name(connection, voice)
                    word = signed(handle, voice.voice_hash, reason, self._clock(), signer.private, signer.kid)
                    self._signed[voice.voice_hash] = (reason, signer.kid), word
        return [self._signed[voice.voice_hash][1] for voice in gone]
