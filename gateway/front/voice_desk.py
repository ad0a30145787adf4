"""What halls and engines ask of consent, by RPC: a voice's sound, enrolment by telephone, the owner's door.

The front decides and holds the state; a hall only speaks, records and passes digits on. What is remembered of
a call here goes with the call.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import Final

import structlog

from consent.errors import ChallengeError, ConsentError
from consent.office.enrolment import Enrolment, by_code
from consent.office.office import ConsentOffice
from consent.office.owner import Owner, OwnerDesk
from consent.office.withdrawal import Withdrawals
from gateway.errors import RpcError
from gateway.ipc.envelope import Handled
from gateway.ipc.front_messages import FetchVoice, VoiceClip
from gateway.ipc.hall_messages import (
    BeginEnrolment,
    EnrolmentOutcome,
    EnterOwner,
    FinishEnrolment,
    LineRepeated,
    RevokeVoice,
)
from gateway.ipc.rpc import Peer
from watermark.pcm import float_from_bytes

log = structlog.get_logger("voices")

TIDY_EVERY_S: Final = 3600.0


class VoiceDesk:
    """The front's counter for voices."""

    def __init__(self, office: ConsentOffice) -> None:
        self._office = office
        self._owners = OwnerDesk(office)
        self._enrolling: dict[str, Enrolment] = {}
        self._entered: dict[str, Owner] = {}

    @property
    def for_halls(self) -> list[Handled[Peer, Awaitable[object]]]:
        """What a hall may ask."""
        return [
            BeginEnrolment.handled_by(self.begin_enrolment),
            LineRepeated.handled_by(self.line_repeated),
            FinishEnrolment.handled_by(self.finish_enrolment),
            EnterOwner.handled_by(self.enter_owner),
            RevokeVoice.handled_by(self.revoke),
        ]

    def forget(self, call_id: str) -> None:
        """The call is over."""
        self._enrolling.pop(call_id, None)
        self._entered.pop(call_id, None)

    async def keep_tidy(self) -> None:
        """Deletes what consent may keep no longer, once an hour, until cancelled."""
        while True:
            try:
                withdrawals = Withdrawals(self._office.books, self._office.vault)
                await asyncio.to_thread(withdrawals.tidy)
            except ConsentError as error:
                log.error("consent.not_tidied", error=str(error))
            await asyncio.sleep(TIDY_EVERY_S)

    async def reference(self, token: str, voice_hash: str) -> VoiceClip:
        """The engine fetches a voice against a grant; see the contract's row "voice"."""
        try:
            reference = await asyncio.to_thread(self._office.reference, token, voice_hash)
        except ConsentError as error:
            raise RpcError(str(error)) from None
        return VoiceClip(
            voice=reference.voice,
            voice_hash=reference.voice_hash,
            text=reference.text,
            stock=reference.stock,
            pcm_f32=reference.pcm.tobytes() if reference.pcm is not None else None,
        )

    async def fetched(self, _: Peer, asked: FetchVoice) -> VoiceClip:
        """`reference`, for the engine of this host."""
        return await self.reference(asked.token, asked.voice_hash)

    # ── enrolment ────────────────────────────────────────────────────────────────────────────────────

    async def begin_enrolment(self, _: Peer, asked: BeginEnrolment) -> tuple[str, ...] | None:
        """What is to be repeated; None for a code that opens nothing."""
        try:
            enrolment = await asyncio.to_thread(by_code, self._office, asked.code)
        except ChallengeError:
            return None
        self._enrolling[asked.call_id] = enrolment
        return tuple(line.say for line in enrolment.lines)

    async def line_repeated(self, _: Peer, line: LineRepeated) -> str | None:
        """Why a line will not do; None when it will."""
        sound = float_from_bytes(line.pcm)
        enrolment = self._enrolment(line.call_id)
        return await asyncio.to_thread(enrolment.heard, line.at, sound, line.source_hz)

    async def finish_enrolment(self, _: Peer, asked: FinishEnrolment) -> EnrolmentOutcome:
        """Hands everything in, for two operators to hear."""
        enrolment = self._enrolment(asked.call_id)
        handle = _handle()
        try:
            taken = await asyncio.to_thread(enrolment.finish, handle, asked.pin)
        except ConsentError as error:
            log.warning("enroll.refused", call_id=asked.call_id, error=str(error))
            return EnrolmentOutcome(refused=getattr(error, "check", "refused"))
        self._enrolling.pop(asked.call_id, None)
        return EnrolmentOutcome(voice=taken.handle)

    def _enrolment(self, call_id: str) -> Enrolment:
        enrolment = self._enrolling.get(call_id)
        if enrolment is None:
            raise RpcError("this call enrols nobody")
        return enrolment

    # ── the owner ────────────────────────────────────────────────────────────────────────────────────

    async def enter_owner(self, _: Peer, asked: EnterOwner) -> str | None:
        """What to say of the voice's use; None when the PIN does not open it."""
        try:
            owner = await asyncio.to_thread(self._owners.enter, asked.voice, asked.pin, asked.call_id)
            usage = await asyncio.to_thread(owner.spoken, asked.language)
        except ConsentError:
            return None
        self._entered[asked.call_id] = owner
        return usage

    async def revoke(self, _: Peer, asked: RevokeVoice) -> bool:
        """Takes the voice back, the PIN given once more; False when it does not fit."""
        owner = self._entered.get(asked.call_id)
        if owner is None:
            raise RpcError("nobody entered a PIN in this call")
        try:
            await asyncio.to_thread(owner.revoke, asked.pin)
        except ConsentError:
            return False
        log.warning("voice.revoked_by_owner", call_id=asked.call_id, voice=owner.handle)
        return True


def _handle() -> str:
    """A name for a voice that came by telephone. It stays when the voice is erased, so it says nothing."""
    return f"voice-{secrets.token_hex(5)}"
