"""A second operator's review of a registered voice: listening to it first, then deciding."""

from __future__ import annotations

from consent.archive.vault import Vault
from consent.checks.sound import Floats, from_pcm16
from consent.errors import OperatorError, RegistrationError, VaultError
from consent.grants.grant import GrantVerifier
from consent.ledger.acts import refuse_two_eyes
from consent.ledger.books import Books
from consent.office.handles import Handles
from consent.office.operator_desk import acting
from consent.office.record import Record


class ReviewDesk:
    """Hands a voice's sounds to an operator's ear, and takes the decision about it."""

    def __init__(self, books: Books, vault: Vault) -> None:
        self._books = books
        self._vault = vault
        self._handles = Handles(vault)

    def listen(self, handle: str, act: str) -> dict[str, Floats]:
        """Statement and reference (float32, 24 kHz) for an operator's ear; the ledger notes who got them.

        Raises `OperatorError`, `RegistrationError`, `VaultError`.
        """
        with acting(self._books, act, "listen") as (writing, operator, claims):
            voice = self._handles.find(writing.connection, writing.standing, handle)
            if voice is None or claims.get("voice_id") != voice.voice_id:
                raise RegistrationError("name", f"no voice is called {handle!r}, or another was signed for")
            if voice.state == "erased":  # a copy of its sounds may have been put back
                raise RegistrationError("state", f"{handle} was erased")
            sounds = {
                kind: from_pcm16(self._vault.get(writing.connection, voice.voice_id, kind))
                for kind in ("statement", "reference")
            }
            writing.append("voice.heard", voice.voice_id, {"by": operator.name, "act": act})
        return sounds

    def review(self, handle: str, act: str) -> str:
        """A second operator's decision; returns the voice's state.

        The act signs `voice_id`, `record_hash`, `decision` (approve or reject) and `reason`. Raises
        `OperatorError`, `RegistrationError`, `VaultError`.
        """
        with acting(self._books, act, "review") as (writing, operator, claims):
            now = writing.now()
            voice = self._handles.find(writing.connection, writing.standing, handle)
            if voice is None or voice.state != "pending":
                state = voice.state if voice else "unknown"
                raise RegistrationError("state", f"{handle} waits for no review (it is {state})")
            if claims.get("voice_id") != voice.voice_id or claims.get("record_hash") != voice.record_hash:
                raise OperatorError(f"{operator.name} signed the review of another registration")
            decision = claims.get("decision")
            if decision not in ("approve", "reject"):
                raise OperatorError("a review approves or rejects")
            refuse_two_eyes(writing.standing, voice, operator)
            if decision == "approve":
                if operator.name not in voice.heard:
                    raise OperatorError(
                        f"{operator.name} has not listened yet; see: voicegate voice review {handle} --help"
                    )
                token = self._vault.get(writing.connection, voice.voice_id, "record").decode()
                record = Record.read(token, GrantVerifier(self._books.keys.ever))
                if record.hash != voice.record_hash:
                    raise VaultError(f"the record of {handle} is not the one in the ledger")
                record.check_acts(voice, writing.standing.operators)
                if now >= record.expires_at:
                    raise RegistrationError("terms", f"the consent for {handle} is over")
            body = {
                "decision": decision,
                "reason": str(claims.get("reason", ""))[:500],
                "by": operator.name,
                "act": act,
            }
            writing.append("voice.reviewed", voice.voice_id, body)
        return self._books.look().voices[voice.voice_id].state
