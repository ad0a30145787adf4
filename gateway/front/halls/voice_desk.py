"""What halls and engines ask of consent, by RPC: a voice's sound, enrolment by telephone, the owner's door.

A hall only speaks, records and passes digits on. The front hands them to the consent office, which decides,
and remembers what it must of a call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Final, TypeVar

import structlog

from consent.errors import ChallengeError, ConsentError, OfficeAway
from consent.service.front_office import FrontOffice
from consent.service.front_questions import (
    CloseEnrolment,
    ForgetCall,
    HearLine,
    OpenEnrolment,
    OpenOwnersDoor,
    TakeVoiceBack,
    TidyVoices,
)
from consent.service.question import Question
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

log = structlog.get_logger("voices")

TIDY_EVERY_S: Final = 3600.0

Given = TypeVar("Given")


class VoiceDesk:
    """The front's counter for voices."""

    def __init__(self, office: FrontOffice) -> None:
        self._office = office

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

    async def forget(self, call_id: str) -> None:
        """The call is over."""
        with contextlib.suppress(ConsentError):  # an office that ended remembers nothing either
            await asyncio.to_thread(self._office.client.ask, ForgetCall(call_id))

    async def keep_tidy(self) -> None:
        """Deletes what consent may keep no longer, once an hour, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self._office.client.ask, TidyVoices())
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
            pcm_f32=reference.pcm,
        )

    async def fetched(self, _: Peer, asked: FetchVoice) -> VoiceClip:
        """`reference`, for the engine of this host."""
        return await self.reference(asked.token, asked.voice_hash)

    # ── enrolment ────────────────────────────────────────────────────────────────────────────────────

    async def begin_enrolment(self, _: Peer, asked: BeginEnrolment) -> tuple[str, ...] | None:
        """What is to be repeated; None for a code that opens nothing."""
        try:
            return await self._ask(OpenEnrolment(asked.call_id, asked.code))
        except ChallengeError:
            return None

    async def line_repeated(self, _: Peer, line: LineRepeated) -> str | None:
        """Why a line will not do; None when it will."""
        return await self._ask(HearLine(line.call_id, line.at, line.pcm, line.source_hz))

    async def finish_enrolment(self, _: Peer, asked: FinishEnrolment) -> EnrolmentOutcome:
        """Hands everything in, for two operators to hear."""
        try:
            return EnrolmentOutcome(voice=await self._ask(CloseEnrolment(asked.call_id, asked.pin)))
        except ConsentError as error:
            log.warning("enroll.refused", call_id=asked.call_id, error=str(error))
            return EnrolmentOutcome(refused=getattr(error, "check", "refused"))

    # ── the owner ────────────────────────────────────────────────────────────────────────────────────

    async def enter_owner(self, _: Peer, asked: EnterOwner) -> str | None:
        """What to say of the voice's use; None when the PIN does not open it."""
        try:
            return await self._ask(OpenOwnersDoor(asked.call_id, asked.voice, asked.pin, asked.language))
        except ConsentError:
            return None

    async def revoke(self, _: Peer, asked: RevokeVoice) -> bool:
        """Takes the voice back, the PIN given once more; False when it does not fit."""
        try:
            voice = await self._ask(TakeVoiceBack(asked.call_id, asked.pin))
        except ConsentError:
            return False
        log.warning("voice.revoked_by_owner", call_id=asked.call_id, voice=voice)
        return True

    async def _ask(self, question: Question[Given]) -> Given:
        """The office's answer. Raises `ConsentError`; `RpcError` when it cannot be asked."""
        try:
            return await asyncio.to_thread(self._office.client.ask, question)
        except OfficeAway as error:
            raise RpcError(str(error)) from None
