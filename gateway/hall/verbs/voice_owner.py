"""The verb `voice_owner`: who knows a voice's PIN hears where it was used, and may take it back."""

from __future__ import annotations

from typing import Final

from gateway.dialplan import VoiceOwner
from gateway.errors import RpcError
from gateway.hall.calls.call import Call
from gateway.hall.verbs.dtmf import dialled
from gateway.ipc.hall_messages import EnterOwner, RevokeVoice

PIN_DIGITS: Final = 12
CHOICE_S: Final = 15.0
WITHIN_S: Final = 5.0


async def serve_owner(call: Call, verb: VoiceOwner) -> None:
    """Returns when the caller is done. Raises `CallEnded`."""
    try:
        usage = await _enter(call, verb)
        if usage is None:
            return
        await call.played(call.speech.say(usage))
        choice = await dialled(call, call.speech.say(verb.offer), 1, timeout_s=CHOICE_S)
        if choice == verb.revoke_key:
            await _revoke(call, verb)
    except RpcError as error:
        call.log.warning("owner.failed", error=str(error))
        await call.played(call.speech.say(verb.refused))


async def _enter(call: Call, verb: VoiceOwner) -> str | None:
    """What to say of the voice's use; None when no right PIN came."""
    prompt = verb.ask_pin
    for _ in range(verb.tries):
        pin = await dialled(call, call.speech.say(prompt), PIN_DIGITS)
        entering = EnterOwner(call.id, verb.voice, pin, call.route.language)
        usage = await call.ask_front(entering, WITHIN_S)
        call.session.event("owner_entered", voice=verb.voice, granted=usage is not None)
        if usage is not None:
            return usage
        prompt = f"{verb.refused} {verb.ask_pin}"
    await call.played(call.speech.say(verb.refused))
    return None


async def _revoke(call: Call, verb: VoiceOwner) -> None:
    pin = await dialled(call, call.speech.say(verb.confirm), PIN_DIGITS)
    revoked = await call.ask_front(RevokeVoice(call.id, pin), WITHIN_S)
    call.session.event("owner_revoked", voice=verb.voice, revoked=revoked)
    await call.played(call.speech.say(verb.revoked if revoked else verb.refused))
