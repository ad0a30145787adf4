"""Giving one's voice over the telephone, and taking it back."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gateway.dialplan import Answer, Enroll, Hangup, VoiceOwner
from gateway.ipc.hall_messages import (
    BeginEnrolment,
    EnrolmentOutcome,
    EnterOwner,
    FinishEnrolment,
    LineRepeated,
    RevokeVoice,
)
from tests.gateway.hall.virtual_hall import House, Phone

HOUSE_TIME = True

ENROLL = Enroll(
    ask_code="code", wrong_code="wrong", begin="repeat after me", ask_pin="pin", wrong_pin="no pin",
    done="thanks", failed="sorry",
)  # fmt: skip
OWNER = VoiceOwner(
    voice="alice", ask_pin="pin", refused="refused", offer="press nine", confirm="sure", revoked="gone"
)
BYE = Hangup(say="bye")


async def dial(house: House, phone: Phone, text: str, digits: str) -> None:
    """Dials once `text` was asked for anew."""
    asked = house.engine.said.count(text)
    await house.until(lambda: house.engine.said.count(text) > asked or house.engine.said[-1:] == [text])
    await asyncio.sleep(0.2)
    await house.press(phone, digits)
    await asyncio.sleep(0.1)


async def repeat(house: House, phone: Phone, line: str, seconds: float) -> None:
    """Says something after the tone."""
    await house.says(line)
    await house.until(lambda: house.call(phone).ear.tapped)
    phone.speak(seconds)
    await house.until(lambda: not house.call(phone).ear.tapped, 20)


async def test_a_person_gives_their_voice(house: House) -> None:
    house.front.answers = {
        BeginEnrolment: [("i am alice", "the sky is blue")],
        LineRepeated: [None, "too short", None],
        FinishEnrolment: [EnrolmentOutcome(refused="pin"), EnrolmentOutcome(voice="alice")],
    }
    phone = await house.ring(Answer(), ENROLL, BYE)
    await dial(house, phone, "code", "1234567890")
    await repeat(house, phone, "i am alice", 2.0)
    await repeat(house, phone, "the sky is blue", 0.5)
    await repeat(house, phone, "too short the sky is blue", 1.5)
    await dial(house, phone, "pin", "11#")
    await dial(house, phone, "no pin pin", "483920#")
    assert await house.over(phone) == "hung up"
    assert house.engine.said[-2:] == ["thanks", "bye"]
    assert house.events(phone, "enrolled") == [{"voice": "alice"}]
    asked = house.front.asked
    assert [type(message) for message in asked] == [
        BeginEnrolment, LineRepeated, LineRepeated, LineRepeated, FinishEnrolment, FinishEnrolment,
    ]  # fmt: skip
    assert asked[0] == BeginEnrolment(phone.call_id, "1234567890")
    repeated = [message for message in asked if isinstance(message, LineRepeated)]
    assert [line.at for line in repeated] == [0, 1, 1]
    for line, seconds in zip(repeated, (2.0, 0.5, 1.5), strict=True):
        sound = np.frombuffer(line.pcm, "<i2") / 32768
        assert np.sum(np.abs(sound) > 0.02) / 24_000 == pytest.approx(seconds, rel=0.15)
        assert len(sound) / 24_000 < seconds + 2.0, "and not the quiet after it"
    assert [message.pin for message in asked if isinstance(message, FinishEnrolment)] == ["11", "483920"]
    written = str(house.memory.streams[phone.call_id]) + str(house.memory.hashes)
    assert "483920" not in written, "a PIN is written nowhere"
    assert "1234567890" not in written


async def test_a_wrong_code_is_asked_for_three_times(house: House) -> None:
    house.front.answers = {BeginEnrolment: [None, None, None]}
    phone = await house.ring(Answer(), ENROLL, BYE)
    await dial(house, phone, "code", "0000000000")
    for _ in range(2):
        await dial(house, phone, "wrong code", "0000000000")
    await house.over(phone)
    assert house.engine.said == ["code", "wrong code", "wrong code", "sorry", "bye"]
    assert len(house.front.asked) == 3


async def test_a_line_that_nobody_repeats_is_given_up(house: House) -> None:
    house.front.answers = {
        BeginEnrolment: [("i am alice",)],
        LineRepeated: ["I heard nothing"] * 3,
    }
    phone = await house.ring(Answer(), ENROLL, BYE)
    await dial(house, phone, "code", "1234567890")
    await house.over(phone)
    assert house.engine.said[-2:] == ["sorry", "bye"]
    assert len(house.front.asked) == 4


async def test_with_the_front_away_nothing_is_kept_and_the_caller_is_told(house: House) -> None:
    phone = await house.ring(Answer(), ENROLL, BYE)
    house.front.away = True
    await dial(house, phone, "code", "1234567890")
    await house.over(phone)
    assert house.engine.said[-2:] == ["sorry", "bye"]


async def test_who_hangs_up_in_a_line_leaves_nothing(house: House) -> None:
    house.front.answers = {BeginEnrolment: [("i am alice",)], LineRepeated: []}
    phone = await house.ring(Answer(), ENROLL, BYE)
    await dial(house, phone, "code", "1234567890")
    await house.says("i am alice")
    await house.until(lambda: house.call(phone).ear.tapped)
    phone.speak(5.0)
    await asyncio.sleep(1.0)
    await house.hang_up(phone)
    await house.until(house.is_empty, 5.0)
    assert [type(message) for message in house.front.asked] == [BeginEnrolment]


async def test_an_owner_takes_their_voice_back(house: House) -> None:
    house.front.answers = {EnterOwner: ["used twice"], RevokeVoice: [True]}
    phone = await house.ring(Answer(), OWNER, BYE)
    await dial(house, phone, "pin", "483920#")
    await dial(house, phone, "press nine", "9")
    await dial(house, phone, "sure", "483920#")
    await house.over(phone)
    assert house.engine.said == ["pin", "used twice", "press nine", "sure", "gone", "bye"]
    assert house.front.asked == [
        EnterOwner(phone.call_id, "alice", "483920", "en"),
        RevokeVoice(phone.call_id, "483920"),
    ]
    assert "483920" not in str(house.memory.streams[phone.call_id])


async def test_who_does_not_know_the_pin_learns_nothing(house: House) -> None:
    house.front.answers = {EnterOwner: [None, None, None]}
    phone = await house.ring(Answer(), OWNER, BYE)
    await dial(house, phone, "pin", "1#")
    for _ in range(2):
        await dial(house, phone, "refused pin", "1#")
    await house.over(phone)
    assert house.engine.said == ["pin", "refused pin", "refused pin", "refused", "bye"]


async def test_an_owner_who_presses_nothing_keeps_their_voice(house: House) -> None:
    house.front.answers = {EnterOwner: ["used twice"], RevokeVoice: []}
    phone = await house.ring(Answer(), OWNER, BYE)
    await dial(house, phone, "pin", "483920#")
    await house.over(phone)
    assert house.engine.said[-2:] == ["press nine", "bye"]
