"""Gathering digits, recording, transferring, and what is said when the engine cannot speak."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from gateway.dialplan import Answer, Converse, Gather, Hangup, Record, Route, Say, Transfer
from gateway.ipc.line_messages import CallConfirmed, CallTarget, ReferCall, TargetRings
from tests.full_disk import full_disk
from tests.gateway.hall.virtual_hall import WORD_S, House, Phone

HOUSE_TIME = True

MENU = Gather(prompt="press one or two", branches={"1": "one", "2": "two"}, timeout_s=3.0)
ONE = Route(name="one", do=(Hangup(say="you chose one"),))
TWO = Route(name="two", do=(Hangup(say="you chose two"),))
ELSE = Hangup(say="you chose nothing")
TARGETS = {"desk": "sip:100@192.0.2.1"}


async def asked(house: House, verb: Gather = MENU) -> Phone:
    phone = await house.ring(Answer(), verb, ELSE, others=(ONE, TWO))
    await house.until(lambda: phone.heard_s() > 0.4)
    return phone


async def test_a_call_that_is_acknowledged_before_the_line_says_so_is_confirmed_all_the_same(
    house: House,
) -> None:
    phone = await house.ring(Answer(), Say(text="hello"), Hangup(say=""))
    phone.acks_first = True
    assert await house.over(phone) == "hung up"
    states = [event["state"] for event in house.events(phone, "state")]
    assert states == ["ringing", "answered", "confirmed"]


async def test_a_key_takes_its_branch_and_stops_the_prompt(house: House) -> None:
    phone = await asked(house)
    await house.press(phone, "2")
    assert await house.over(phone) == "hung up"
    assert house.engine.said == ["press one or two", "you chose two"]
    assert phone.heard_s() < 6 * WORD_S, "the prompt was cut"
    assert house.engine.told("cancel") == ["resp1"], "and the engine told of it"
    assert house.events(phone, "gathered") == [{"digits": "2"}]


async def test_a_long_prompt_that_is_cut_does_not_keep_the_next_text_waiting(house: House) -> None:
    menu = Gather(prompt=" ".join(["word"] * 40), branches={"1": "one"})
    phone = await asked(house, menu)
    await house.press(phone, "1")
    took = await house.until(lambda: "you chose one" in house.engine.said)
    assert took < 1.0
    await house.over(phone)


async def test_nothing_dialled_goes_on_after_the_timeout(house: House) -> None:
    phone = await asked(house)
    await house.until(lambda: not house.call(phone).playout.busy)
    took = await house.until(lambda: "you chose nothing" in house.engine.said)
    assert took == pytest.approx(3.0, abs=0.1), "counted from the end of the prompt"
    await house.over(phone)


async def test_the_timeout_goes_to_else_where_there_is_one(house: House) -> None:
    menu = Gather(prompt="press one", branches={"1": "one"}, timeout_s=1.0, otherwise="two")
    phone = await asked(house, menu)
    await house.over(phone)
    assert house.engine.said[-1] == "you chose two"


async def test_digits_end_with_the_finish_key_or_the_timeout_between_them(house: House) -> None:
    menu = Gather(prompt="dial", branches={"12": "one", "1234": "two"}, digits=6, timeout_s=2.0)
    phone = await asked(house, menu)
    await house.press(phone, "12#")
    await house.over(phone)
    assert house.engine.said[-1] == "you chose one"
    phone = await asked(house, menu)
    for digit in "1234":
        await house.press(phone, digit)
        await asyncio.sleep(1.5)
    await house.over(phone)
    assert house.engine.said[-1] == "you chose two"


async def test_a_key_that_is_no_branch_goes_on(house: House) -> None:
    phone = await asked(house)
    await house.press(phone, "9")
    await house.over(phone)
    assert house.engine.said[-1] == "you chose nothing"


async def test_keys_pressed_ahead_count(house: House) -> None:
    phone = await house.ring(Answer(), Say(text="welcome to us"), MENU, ELSE, others=(ONE, TWO))
    await house.until(lambda: phone.heard_s() > 0.2)
    await house.press(phone, "1")
    await house.over(phone)
    assert house.engine.said[-1] == "you chose one"


async def recording(house: House, verb: Record) -> Phone:
    phone = await house.ring(Answer(), verb, Hangup(say="thank you"))
    await house.until(lambda: house.call(phone).ear.tapped)
    return phone


def recorded(house: House, phone: Phone) -> tuple[float, np.ndarray]:
    (event,) = house.events(phone, "recorded")
    path = Path(event["path"])
    assert path.stat().st_mode & 0o777 == 0o600
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        sound = np.frombuffer(file.readframes(1 << 24), "<i2") / 32768
    assert event["seconds"] == pytest.approx(len(sound) / 24_000, abs=0.01)
    return len(sound) / 24_000, sound


async def test_a_message_is_recorded_after_the_beep_until_silence(house: House) -> None:
    phone = await recording(house, Record(announce="speak now", silence_s=2.0))
    assert phone.heard_s() == pytest.approx(2 * WORD_S + 0.3, abs=0.06), "the words and the beep"
    phone.speak(3.0)
    await house.over(phone)
    seconds, sound = recorded(house, phone)
    assert 5.0 < seconds < 7.5
    assert np.sum(np.abs(sound) > 0.05) / 24_000 == pytest.approx(3.0, abs=0.5)
    assert house.engine.said[-1] == "thank you"


async def test_a_key_ends_a_recording(house: House) -> None:
    phone = await recording(house, Record(announce="speak now", beep=False))
    phone.speak(10.0)
    await asyncio.sleep(2.0)
    await house.press(phone, "#")
    await house.says("thank you", 2.0)
    seconds, _ = recorded(house, phone)
    assert seconds == pytest.approx(2.0, abs=0.3)


async def test_a_recording_has_a_longest_duration(house: House) -> None:
    phone = await recording(house, Record(announce="speak now", max_s=4.0))
    phone.speak(30.0)
    await house.says("thank you")
    assert recorded(house, phone)[0] == pytest.approx(4.0, abs=1.1)


async def test_a_recording_goes_on_when_the_engine_is_lost(house: House) -> None:
    phone = await recording(house, Record(announce="speak now", max_s=60.0))
    house.engine.die()
    phone.speak(15.0)
    await house.until(lambda: house.call(phone).inbox.refused, 20)
    assert await house.over(phone) == "failed: the engine was lost", "nobody is left to say thank you"
    assert recorded(house, phone)[0] == pytest.approx(19.5, abs=1.5)


async def test_nobody_is_recorded_who_was_not_told(house: House) -> None:
    house.engine.breaks = 99
    phone = await house.ring(Answer(), Record(announce="this is recorded"), Hangup())
    assert await house.over(phone) == "failed: what must be said first could not be said"
    assert not house.events(phone, "recorded")


@pytest.mark.parametrize("room_s", [0.0, 3.0])
async def test_who_leaves_a_message_that_a_full_disk_does_not_take_is_not_thanked(
    house: House, room_s: float
) -> None:
    with capture_logs() as logs, full_disk(largest_bytes=round(44 + room_s * 48_000)):
        phone = await recording(house, Record(announce="speak now"))
        phone.speak(10.0)
        assert await house.over(phone) == "failed: the recording could not be kept: File too large"
    assert [(line["event"], line["error"]) for line in logs if line["log_level"] == "error"] == [
        ("recording.failed", "File too large")
    ]
    assert "thank you" not in house.engine.said
    (event,) = house.events(phone, "recorded")
    assert event["error"] == "File too large"
    assert event["seconds"] == pytest.approx(room_s, abs=1.0), "what the disk took stays there"
    assert house.is_empty()


async def test_a_caller_who_hangs_up_on_a_full_disk_hung_up(house: House) -> None:
    with capture_logs(), full_disk():
        phone = await recording(house, Record(announce="speak now"))
        phone.speak(3.0)
        await house.hang_up(phone)
        assert await house.over(phone) == "caller hung up"
    assert house.events(phone, "recorded")[0]["error"] == "File too large"


async def test_who_hangs_up_has_left_a_message(house: House) -> None:
    phone = await recording(house, Record(announce="speak now"))
    phone.speak(3.0)
    await asyncio.sleep(2.5)
    await house.hang_up(phone)
    await house.over(phone)
    assert recorded(house, phone)[0] == pytest.approx(2.5, abs=0.3)


async def test_a_transfer_that_is_accepted_ends_the_call(house: House) -> None:
    phone = await house.ring(Answer(), Transfer(target="desk", say="one moment"), ELSE, targets=TARGETS)
    assert await house.over(phone) == "transferred"
    assert ReferCall(phone.call_id, "sip:100@192.0.2.1") in phone.asked
    assert phone.heard_s() == pytest.approx(2 * WORD_S, abs=0.06)


async def test_a_target_that_the_line_calls_has_the_caller_and_the_voice_its_grant_no_more(
    house: House,
) -> None:
    targets = {"desk": "trunk:carrier/+4930123"}
    phone = await house.ring(Answer(), Transfer(target="desk"), ELSE, targets=targets)
    await house.until(lambda: house.events(phone, "transfer"))
    assert house.events(phone, "transfer") == [{"target": "desk", "via": "trunk:carrier"}]
    await house.until(lambda: house.call(phone).state == "transferred")
    assert house.call(phone).licence.grant is None
    await asyncio.sleep(120)
    assert house.call(phone).licence.grant is None, "nor is one renewed"
    assert [type(one) for one in phone.asked].count(CallTarget) == 1
    assert "you chose nothing" not in house.engine.said
    await house.hang_up(phone)
    assert await house.over(phone) == "caller hung up"
    assert house.is_empty()


async def test_a_caller_hears_ringing_until_the_target_has_sound_of_its_own(house: House) -> None:
    targets = {"desk": "user:reception"}
    phone = await house.ring(Answer(), Transfer(target="desk"), ELSE, targets=targets)
    phone.transfers_to = 180
    line = house.lines["n0"]
    await house.until(lambda: house.events(phone, "transfer"))
    await asyncio.sleep(12)
    rung_s = phone.heard_s()
    assert rung_s == pytest.approx(3.0, abs=0.1)
    await house.hall.target_rings(line, TargetRings(phone.call_id, 183, True))  # type: ignore[arg-type]
    await asyncio.sleep(12)
    assert phone.heard_s() == pytest.approx(rung_s, abs=0.1)
    assert house.events(phone, "transfer_rings") == [{"status": 183}]


@pytest.mark.parametrize("status", [486, 603, None])
async def test_after_a_transfer_that_failed_the_route_goes_on(house: House, status: int | None) -> None:
    await house.line()
    phone = await house.ring(Answer(), Transfer(target="desk"), ELSE, targets=TARGETS)
    phone.transfers_to = status
    assert await house.over(phone) == "hung up"
    assert house.engine.said == ["you chose nothing"]
    (failed,) = house.events(phone, "transfer_failed")
    assert failed["status"] == (status or 0)


async def test_a_transfer_of_which_nothing_is_heard_is_given_up(house: House) -> None:
    phone = await house.ring(Answer(), Transfer(target="desk"), ELSE, targets=TARGETS)
    house.later = lambda seconds, work, *args: None  # type: ignore[method-assign]  # nobody says anything
    confirmed = CallConfirmed(phone.call_id, "PCMU", 0.0)
    await house.hall.call_confirmed(house.lines["n0"], confirmed)  # type: ignore[arg-type]
    took = await house.until(lambda: house.events(phone, "transfer_failed"), 60)
    assert took == pytest.approx(32.0, abs=1.0)
    assert house.events(phone, "transfer_failed")[0]["status"] == 408


async def test_a_transfer_to_nobody_is_not_tried(house: House) -> None:
    phone = await house.ring(Answer(), Transfer(target="desk"), ELSE)
    await house.over(phone)
    assert house.events(phone, "transfer_refused") == [{"target": "desk"}]
    assert not [message for message in phone.asked if isinstance(message, ReferCall)]


async def test_a_call_goes_through_its_verbs_in_order(house: House) -> None:
    phone = await house.ring(
        Answer(), Say(text="a"), Say(text="b"), Converse(instructions="x", silence_s=1.0)
    )
    await house.over(phone)
    assert house.engine.said[:2] == ["a", "b"]
    assert house.is_empty()
