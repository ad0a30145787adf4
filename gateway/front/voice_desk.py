"""What halls and engines ask of consent, by RPC: a voice's sound, enrolment by telephone, the owner's door.

The front decides and holds the state; a hall only speaks, records and passes digits on. What is remembered of
a call here goes with the call.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from typing import Any, Final

import numpy as np
import structlog

from consent.enrolment import Enrolment, by_code
from consent.errors import ChallengeError, ConsentError
from consent.office import ConsentOffice
from consent.owner import Owner, OwnerDesk
from consent.withdrawal import Withdrawals
from gateway.errors import RpcError
from gateway.ipc.rpc import Handler, Peer

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
    def of_halls(self) -> dict[str, Handler]:
        """RPC methods of a hall's connection."""
        return {
            "enroll.begin": self.enroll_begin,
            "enroll.heard": self.enroll_heard,
            "enroll.finish": self.enroll_finish,
            "owner.enter": self.owner_enter,
            "owner.revoke": self.owner_revoke,
        }

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

    async def reference(self, _: Peer | None, token: str, voice_hash: str) -> dict[str, Any]:
        """The engine fetches a voice against a grant; see the contract's row "voice"."""
        try:
            reference = await asyncio.to_thread(self._office.reference, token, voice_hash)
        except ConsentError as error:
            raise RpcError(str(error)) from None
        pcm = base64.b64encode(reference.pcm.tobytes()).decode() if reference.pcm is not None else None
        return {
            "voice": reference.voice,
            "voice_hash": reference.voice_hash,
            "text": reference.text,
            "stock": reference.stock,
            "pcm_f32": pcm,
        }

    # ── enrolment ────────────────────────────────────────────────────────────────────────────────────

    async def enroll_begin(self, _: Peer, call_id: str, code: str) -> dict[str, Any]:
        """What is to be repeated, as `lines`; `refused` for a code that opens nothing."""
        try:
            enrolment = await asyncio.to_thread(by_code, self._office, code)
        except ChallengeError as error:
            return {"refused": str(error)}
        self._enrolling[call_id] = enrolment
        return {"lines": [line.say for line in enrolment.lines]}

    async def enroll_heard(self, _: Peer, call_id: str, at: int, pcm: str, source_hz: int) -> dict[str, Any]:
        """A line as the caller repeated it (PCM16, 24 kHz, base64); `again` says why it will not do."""
        sound = np.frombuffer(base64.b64decode(pcm), "<i2").astype(np.float32) / np.float32(32768)
        return {"again": await asyncio.to_thread(self._enrolment(call_id).heard, at, sound, source_hz)}

    async def enroll_finish(self, _: Peer, call_id: str, pin: str) -> dict[str, Any]:
        """Hands everything in, for two operators to hear; `refused` says why it was not taken."""
        enrolment = self._enrolment(call_id)
        handle = _handle(enrolment.challenge.terms.name)
        try:
            taken = await asyncio.to_thread(enrolment.finish, handle, pin)
        except ConsentError as error:
            log.warning("enroll.refused", call_id=call_id, error=str(error))
            return {"refused": getattr(error, "check", "refused"), "why": str(error)}
        self._enrolling.pop(call_id, None)
        return {"voice": taken.handle, "state": taken.state}

    def _enrolment(self, call_id: str) -> Enrolment:
        enrolment = self._enrolling.get(call_id)
        if enrolment is None:
            raise RpcError("this call enrols nobody")
        return enrolment

    # ── the owner ────────────────────────────────────────────────────────────────────────────────────

    async def owner_enter(self, _: Peer, call_id: str, voice: str, pin: str, language: str) -> dict[str, Any]:
        """What to say of the voice's use, as `usage`; `refused` when the PIN does not open it."""
        try:
            owner = await asyncio.to_thread(self._owners.enter, voice, pin, call_id)
            usage = await asyncio.to_thread(owner.spoken, language)
        except ConsentError as error:
            return {"refused": str(error)}
        self._entered[call_id] = owner
        return {"usage": usage}

    async def owner_revoke(self, _: Peer, call_id: str, pin: str) -> dict[str, Any]:
        """Takes the voice back, the PIN given once more; `refused` when it does not fit."""
        owner = self._entered.get(call_id)
        if owner is None:
            raise RpcError("nobody entered a PIN in this call")
        try:
            await asyncio.to_thread(owner.revoke, pin)
        except ConsentError as error:
            return {"refused": str(error)}
        log.warning("voice.revoked_by_owner", call_id=call_id, voice=owner.handle)
        return {}


def _handle(name: str) -> str:
    """A name for a voice that came by telephone: "jane-doe-3f2a"."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:40]
    return f"{plain or 'voice'}-{secrets.token_hex(2)}"
