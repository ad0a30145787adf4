"""The office as the front sees it: its methods, asked over the socket, with grants verified as they come.

Blocking: from an event loop, call it by `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from consent.archive.keys import write_private
from consent.errors import GrantRefused, LedgerError, OfficeAway
from consent.grants.grant import SPEECH_TYP, GrantVerifier, VoiceGrant
from consent.grants.revocation import Revocation
from consent.grants.scope import Scope
from consent.service import front_questions as asked
from consent.service.office_client import OfficeClient
from consent.service.office_door import keys_readable_by

Verified = TypeVar("Verified")


class FrontOffice:
    """Grants and what goes with them. `public_keys_path` is where halls and engines find the public keys.

    The office writes that file itself where it runs in the gateway's data directory. Elsewhere it is written
    here: as often as the front looks at the ledger (`publish_keys`), so that a revoked key is trusted no
    longer, and before the first grant that a new key signed is handed on.
    """

    def __init__(self, client: OfficeClient, public_keys_path: Path) -> None:
        self.client = client
        self.public_keys_path = public_keys_path
        self.readable_by = ""
        """who can read the office's keys, as was seen when it was last asked for usable voices"""
        self.ledger = asked.LedgerState()
        """how the ledger is witnessed, as was seen then"""
        self._lock = threading.Lock()
        self._verifier: GrantVerifier | None = None

    def publish_keys(self) -> None:
        """Writes the office's public keys to the file, unless it has them. Raises `OfficeAway`, `OSError`."""
        path = self.public_keys_path
        while True:
            content = self.client.ask(asked.AskKeys()).encode()
            with self._lock:
                if path.exists() and path.read_bytes() == content:
                    return
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_private(path, content, replace_it=True)
            # what was written is asked about again: meanwhile a key may have been revoked, and another
            # thread, or the office itself, may have written so before this one

    def _verified(self, token: str) -> VoiceGrant:
        """The grant in a token of the office's. Raises `GrantRefused`, `OfficeAway`."""
        return self._by_keys(lambda verifier: verifier.verify(token))

    def _by_keys(self, verified: Callable[[GrantVerifier], Verified]) -> Verified:
        """What `verified` makes of the public keys; once more when one is not among them that is new."""
        try:
            if self._verifier is None:
                self._verifier = GrantVerifier.load(self.public_keys_path)
            return verified(self._verifier)
        except GrantRefused as refusal:
            if refusal.reason != "unknown_key":
                raise
        self.publish_keys()
        self._verifier = GrantVerifier.load(self.public_keys_path)
        return verified(self._verifier)

    def grant(self, scope: Scope) -> VoiceGrant:
        """A grant for exactly this. Raises `GrantRefused`: `office` while nobody can be asked."""
        with _refused():
            return self._verified(self.client.ask(asked.AskGrant(scope)))

    def renew(self, grant: VoiceGrant) -> VoiceGrant:
        """The same grant, from now on. Raises as `grant` does."""
        with _refused():
            return self._verified(self.client.ask(asked.AskRenewal(grant.token)))

    def reference(self, token: str, voice_hash: str) -> asked.VoiceSound:
        """The voice of a valid grant. Raises as `grant` does."""
        with _refused():
            return self.client.ask(asked.AskReference(token, voice_hash))

    def record_usage(self, *, jti: str, call_id: str, seconds: float, dialplan: str) -> None:
        """Notes how long a person's voice spoke in a call. Raises `LedgerError`, `OfficeAway`."""
        self.client.ask(asked.NoteUsage(jti, call_id, seconds, dialplan))

    def seal_calls(self, batch: str, leaves: Sequence[str]) -> int:
        """Seals rows of the registry; see `ConsentOffice.seal_calls`. Raises `LedgerError`, `OfficeAway`."""
        try:
            hashes = [bytes.fromhex(leaf) for leaf in leaves]
        except ValueError:
            hashes = [b""]
        if any(len(leaf) != asked.LEAF_BYTES for leaf in hashes):
            raise LedgerError(f"the calls' seal: batch {batch} has a leaf that is not a hash")
        return self.client.ask(asked.SealCalls(batch, b"".join(hashes)))

    def sign_speech_statement(self, claims: Mapping[str, Any]) -> str:
        """A signed statement that a call's voice is synthetic, whose key the public keys have.

        Raises `ConsentError`.
        """
        token = self.client.ask(asked.SignSpeechStatement(dict(claims)))
        self._by_keys(lambda verifier: verifier.claims(token, SPEECH_TYP))
        return token

    def withdrawn(self) -> list[Revocation]:
        """Every voice that may not be heard any more. Raises `LedgerError`, `OfficeAway`."""
        return list(self.client.ask(asked.AskRevocations()))

    def usable(self) -> tuple[str, ...]:
        """The voices that may be used now. Raises `LedgerError`, `OfficeAway`."""
        found = self.client.ask(asked.AskUsable())
        self.readable_by = keys_readable_by(self.client.user(), os.getuid())
        self.look_at_ledger()
        return found

    def look_at_ledger(self) -> int:
        """Remembers how the ledger is witnessed; returns how often that was an alarm. Raises `OfficeAway`."""
        self.ledger = self.client.ask(asked.AskLedger())
        return self.ledger.alarms

    def now(self) -> float:
        """The time, by a clock that may be believed. Raises `ClockError`, `OfficeAway`."""
        return self.client.ask(asked.AskTime())

    def names(self) -> frozenset[str]:
        """All voices in any state, for whoever checks a dialplan. Raises `LedgerError`, `OfficeAway`."""
        return frozenset(self.client.ask(asked.AskNames()))

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Whoever wants a grant hears one kind of error."""
    try:
        yield
    except OfficeAway as error:
        raise GrantRefused("office", str(error)) from None
