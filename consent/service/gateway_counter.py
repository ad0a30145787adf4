"""What the office does for the gateway: it grants, renews, hands out voices, enrols, and lets owners in.

What is remembered of a call between its questions stands here, by the call's id: the front holds none of it.
"""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
import structlog
from sqlalchemy import select

from consent.errors import ChallengeError, LedgerError, PinRefused, RegistrationError
from consent.grants.revocation import Revocation
from consent.office.enrolment import Enrolment, by_code
from consent.office.office import ConsentOffice
from consent.office.owner import Owner, OwnerDesk
from consent.office.voice_names import known_voices
from consent.office.withdrawal import Receipt, Withdrawals
from consent.service import front_questions as asked
from consent.service.office_rooms import OfficeRooms
from consent.service.office_server import Answered, Asker
from consent.service.remembered import Remembered
from watermark.pcm import float_from_bytes

log = structlog.get_logger("consent")

CALLS: Final = 1_000
"""Calls that something is remembered of; the one that was asked about longest ago is forgotten."""
RATES_HZ: Final = (8_000, 48_000)


class GatewayCounter:
    """Answers the questions of `consent.service.front_questions`."""

    def __init__(self, rooms: OfficeRooms) -> None:
        self._rooms = rooms
        self._enrolling: Remembered[Enrolment] = Remembered(CALLS)
        self._entered: Remembered[Owner] = Remembered(CALLS)

    @property
    def _office(self) -> ConsentOffice:
        return self._rooms.office()

    @property
    def answers(self) -> list[Answered]:
        """What may be asked here."""
        return [
            Answered(asked.AskGrant, self.grant),
            Answered(asked.AskRenewal, self.renew),
            Answered(asked.AskReference, self.reference),
            Answered(asked.NoteUsage, self.used),
            Answered(asked.SealCalls, self.seal_calls),
            Answered(asked.SignSpeechStatement, self.sign_speech_statement),
            Answered(asked.AskRevocations, self.withdrawn),
            Answered(asked.AskUsable, self.usable),
            Answered(asked.AskNames, self.names),
            Answered(asked.AskLedger, self.ledger),
            Answered(asked.AskTime, self.time),
            Answered(asked.AskKeys, self.keys),
            Answered(asked.TidyVoices, self.tidy),
            Answered(asked.AskStockClip, self.has_stock_clip),
            Answered(asked.KeepStockClip, self.keep_stock_clip),
            Answered(asked.OpenEnrolment, self.open_enrolment),
            Answered(asked.HearLine, self.hear_line),
            Answered(asked.CloseEnrolment, self.close_enrolment),
            Answered(asked.OpenOwnersDoor, self.open_owners_door),
            Answered(asked.TakeVoiceBack, self.take_back),
            Answered(asked.ForgetCall, self.forget),
        ]

    # ── grants ───────────────────────────────────────────────────────────────────────────────────────

    def grant(self, _: Asker, question: asked.AskGrant) -> str:
        """Raises `GrantRefused`."""
        return self._office.grant(question.scope).token

    def renew(self, _: Asker, question: asked.AskRenewal) -> str:
        """Raises `GrantRefused`, for a token that lapsed too."""
        office = self._office
        return office.renew(office.verifier.verify(question.token, now=office.clock())).token

    def reference(self, _: Asker, question: asked.AskReference) -> asked.VoiceSound:
        """Raises `GrantRefused`."""
        found = self._office.reference(question.token, question.voice_hash)
        pcm = None if found.pcm is None else found.pcm.tobytes()
        return asked.VoiceSound(found.voice, found.voice_hash, found.text, found.stock, pcm)

    def used(self, _: Asker, question: asked.NoteUsage) -> None:
        """Raises `LedgerError`."""
        self._office.record_usage(
            jti=question.jti, call_id=question.call_id, seconds=question.seconds, dialplan=question.dialplan
        )

    def seal_calls(self, _: Asker, question: asked.SealCalls) -> int:
        """Raises `LedgerError`, for what is not a batch too."""
        whole, each = question.leaves.hex(), 2 * asked.LEAF_BYTES
        leaves = [whole[at : at + each] for at in range(0, len(whole), each)]
        try:
            return self._office.seal_calls(question.batch, leaves)
        except ValueError as error:
            raise LedgerError(f"the calls' seal: {error}") from None

    def sign_speech_statement(self, _: Asker, question: asked.SignSpeechStatement) -> str:
        """Raises `VaultError`."""
        return self._office.sign_speech_statement(question.claims)

    def withdrawn(self, _: Asker, __: asked.AskRevocations) -> tuple[Revocation, ...]:
        """Raises `LedgerError`."""
        return tuple(self._office.withdrawn())

    def usable(self, _: Asker, __: asked.AskUsable) -> tuple[str, ...]:
        """Raises `LedgerError` when the database does not answer; a broken ledger refuses voices only."""
        office = self._office
        with office.archive.reading() as connection:
            connection.scalar(select(1))
        return tuple(voice.name for voice in office.voices())

    def ledger(self, _: Asker, __: asked.AskLedger) -> asked.LedgerState:
        """As was seen when witnesses were last asked."""
        heads = self._rooms.witnessed().heads
        return asked.LedgerState(heads.state, heads.doubt, self._rooms.alarms)

    def time(self, _: Asker, __: asked.AskTime) -> float:
        """Raises `ClockError`."""
        return self._office.books.now()

    def names(self, _: Asker, __: asked.AskNames) -> tuple[str, ...]:
        """Raises `LedgerError`."""
        return tuple(sorted(known_voices(self._rooms.place.sql_url)))

    def keys(self, _: Asker, __: asked.AskKeys) -> str:
        """What `read_public_keys` reads."""
        return self._office.public_keys_path.read_text()

    def tidy(self, _: Asker, __: asked.TidyVoices) -> tuple[Receipt, ...]:
        """Raises `LedgerError`."""
        office = self._office
        return tuple(Withdrawals(office.books, office.vault).tidy())

    def has_stock_clip(self, _: Asker, __: asked.AskStockClip) -> bool:
        """Raises `LedgerError`."""
        return self._office.stock.has_clip

    def keep_stock_clip(self, _: Asker, question: asked.KeepStockClip) -> None:
        """Raises `RegistrationError` for what is not a sound, `LedgerError`."""
        if len(question.pcm) % 4:
            raise RegistrationError("sound", "the stock voice's clip is not a float32 sound")
        self._office.stock.keep_clip(np.frombuffer(question.pcm, "<f4"), question.text)

    # ── in a call ────────────────────────────────────────────────────────────────────────────────────

    def open_enrolment(self, _: Asker, question: asked.OpenEnrolment) -> tuple[str, ...]:
        """Raises `ChallengeError`, the same for every code that opens nothing."""
        enrolment = by_code(self._office, question.code)
        self._enrolling.keep(question.call_id, enrolment)
        return tuple(line.say for line in enrolment.lines)

    def hear_line(self, _: Asker, question: asked.HearLine) -> str | None:
        """Raises `ChallengeError` when the call enrols nobody, `RegistrationError`."""
        enrolment = self._enrolment(question.call_id)
        if not 0 <= question.at < len(enrolment.lines):
            raise RegistrationError("statement", f"there is no line {question.at + 1}")
        low, high = RATES_HZ
        if not low <= question.source_hz <= high or len(question.pcm) % 2:
            raise RegistrationError("sound", "this is not a sound of a call")
        return enrolment.heard(question.at, float_from_bytes(question.pcm), question.source_hz)

    def close_enrolment(self, _: Asker, question: asked.CloseEnrolment) -> str:
        """Raises `ChallengeError` when the call enrols nobody, and as `Registrar.submit` does."""
        self._rooms.listening()
        enrolment = self._enrolment(question.call_id)
        taken = enrolment.finish(_handle(), question.pin)
        self._enrolling.forget(question.call_id)
        return taken.handle

    def _enrolment(self, call_id: str) -> Enrolment:
        enrolment = self._enrolling.of(call_id)
        if enrolment is None:
            raise ChallengeError("this call enrols nobody")
        return enrolment

    def open_owners_door(self, _: Asker, question: asked.OpenOwnersDoor) -> str:
        """Raises `PinRefused`, `LedgerError`."""
        owner = OwnerDesk(self._office).enter(question.voice, question.pin, question.call_id)
        usage = owner.spoken(question.language)
        self._entered.keep(question.call_id, owner)
        return usage

    def take_back(self, _: Asker, question: asked.TakeVoiceBack) -> str:
        """Raises `PinRefused`, `LedgerError`."""
        owner = self._entered.of(question.call_id)
        if owner is None:
            raise PinRefused("nobody entered a PIN in this call")
        owner.revoke(question.pin)
        log.warning("voice.revoked_by_owner", call_id=question.call_id, voice=owner.handle)
        return owner.handle

    def forget(self, _: Asker, question: asked.ForgetCall) -> None:
        """The call is over."""
        self._enrolling.forget(question.call_id)
        self._entered.forget(question.call_id)


def _handle() -> str:
    """A name for a voice that came by telephone. It stays when the voice is erased, so it says nothing."""
    return f"voice-{secrets.token_hex(5)}"
