"""What an operator wants of a conversation: words, a transfer, silence."""

from __future__ import annotations

import asyncio

import pytest

from gateway.dialplan import Answer, Say
from gateway.errors import RpcError
from gateway.ipc.hall_messages import SteerCall, Steering
from gateway.ipc.line_messages import ReferCall
from tests.gateway.hall import virtual_hall as scripted
from tests.gateway.hall.test_converse import TALK, talking
from tests.gateway.hall.virtual_hall import House, Line, Phone

HOUSE_TIME = True

DESK = {"desk": "sip:100@192.0.2.1"}


async def steer(house: House, phone: Phone, act: Steering, what: str = "") -> None:
    await house.hall.steer_call(Line, SteerCall(phone.call_id, act, what, "anna"))  # type: ignore[arg-type]


async def test_the_voice_says_what_an_operator_wants_word_for_word(house: House) -> None:
    phone = await talking(house)
    await steer(house, phone, "say", "a colleague will {call} you back")
    await house.says("a colleague will {call} you back")
    assert house.events(phone, "steered") == [{"act": "say", "by": "anna"}]


async def test_it_cuts_what_is_being_said(house: House) -> None:
    house.engine.answers = [scripted.Answer("this is a very long answer that goes on and on " * 5)]
    phone = await talking(house)
    phone.speak(1.0)
    await house.until(lambda: house.call(phone).playout.heard_now)
    await steer(house, phone, "say", "stop")
    await house.says("stop")
    await house.until(lambda: not house.call(phone).playout.busy)


async def test_a_muted_voice_says_and_hears_nothing_until_it_may_again(house: House) -> None:
    house.engine.answers = [scripted.Answer("nine to five"), scripted.Answer("at the market")]
    phone = await talking(house)
    await steer(house, phone, "mute")
    await asyncio.sleep(0.2)  # what the line has
    before = phone.heard_s()
    phone.speak(1.0)
    await asyncio.sleep(10.0)  # longer than the plan's silence, twice
    assert phone.heard_s() == before
    assert house.engine.told("commit") == []
    assert not house.events(phone, "goodbye")
    await steer(house, phone, "unmute")
    phone.speak(1.0)
    await house.says("nine to five")


async def test_an_operator_hands_the_caller_over(house: House) -> None:
    phone = await talking(house, TALK, targets=DESK)
    phone.transfers_to = 200
    await steer(house, phone, "transfer", "desk")
    assert await house.over(phone) == "transferred"
    assert [one.target for one in phone.asked if isinstance(one, ReferCall)] == [DESK["desk"]]


async def test_where_nobody_is_the_conversation_goes_on(house: House) -> None:
    house.engine.answers = [scripted.Answer("nine to five")]
    phone = await talking(house, TALK, targets=DESK)
    phone.transfers_to = 486
    await steer(house, phone, "transfer", "desk")
    await house.says("nobody is here")
    await house.until(lambda: not house.call(phone).playout.busy)
    phone.speak(1.0)
    await house.says("nine to five")


async def test_a_call_that_is_in_no_conversation_is_not_steered(house: House) -> None:
    phone = await house.ring(Answer(), Say(text="a long text " * 30), TALK)
    with pytest.raises(RpcError, match="no conversation"):
        await steer(house, phone, "say", "now")
    with pytest.raises(RpcError, match="no call"):
        await house.hall.steer_call(Line, SteerCall("nobody", "mute"))  # type: ignore[arg-type]
