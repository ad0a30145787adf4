"""The two promises in a running call: no voice without a grant, no sound without a mark."""

from __future__ import annotations

import asyncio

import pytest

from gateway.dialplan import Answer, Converse, Hangup, Record, Say, Verb
from gateway.ipc.hall_messages import MarkFailed, VoiceMuted
from tests.gateway.hall.virtual_hall import DISCLOSE, WORD_S, House, Phone

HOUSE_TIME = True

LONG = Say(text=" ".join(["word"] * 600))
TALK = Converse(instructions="x", greeting="how can I help", silence_s=60.0)


async def speaking(house: House, line: str = "n0") -> Phone:
    phone = await house.ring(Answer(), LONG, line=line)
    await house.until(lambda: phone.heard_s() > 1.0)
    return phone


def frames_after(house: House, phone: Phone, since: int) -> list[float]:
    return phone.heard[since:]


@pytest.mark.parametrize(
    ("token", "reason"),
    [(None, "none"), ("x.y.z", "tampered"), ("other", "other_call"), ("old", "expired")],
)
async def test_without_a_valid_grant_a_call_is_not_even_answered(
    house: House, token: str | None, reason: str
) -> None:
    if token == "other":
        token = house.consent.token("somebody else's call")
    elif token == "old":
        token = house.consent.token("call1", life_s=-60.0)
    phone = await house.ring(Answer(), DISCLOSE, grant=token)
    assert await house.over(phone) == f"failed: the voice may not be used: {reason}"
    assert not phone.answered
    assert phone.hung_up
    assert house.engine.sessions == [], "no engine was asked"
    assert house.events(phone, "muted") == [{"reason": reason}]


async def test_a_grant_is_renewed_in_time_and_the_engine_learns_of_it(house: House) -> None:
    phone = await speaking(house)
    first = house.call(phone).licence.token
    await house.until(lambda: house.front.renewed, 60)
    assert house.front.renewed == [(phone.call_id, first)], "the last token goes along"
    await asyncio.sleep(1.0)
    updates = [fields["grant"] for fields in house.engine.told("update") if "grant" in fields]
    assert updates == [house.call(phone).licence.token]
    assert updates != [first]
    await asyncio.sleep(100.0)
    assert len(house.front.renewed) == 4, "every half minute"
    assert phone.heard[-1] > 0.01


async def test_a_grant_that_is_not_renewed_lapses_into_silence_and_an_alarm(house: House) -> None:
    phone = await speaking(house)
    house.front.away = True
    grant = house.call(phone).licence.grant
    assert grant is not None
    await house.until(lambda: house.events(phone, "muted"), 120)
    assert house.loop.wall() == pytest.approx(grant.expires_at, abs=0.2)
    at = len(phone.heard)
    assert await house.over(phone) == "failed: the voice may not be used: expired"
    assert phone.heard_s(at + 2) == 0.0
    assert house.front.told(VoiceMuted)[0].reason == "expired"


async def test_a_front_that_comes_back_in_time_renews(house: House) -> None:
    phone = await speaking(house)
    house.front.away = True
    await asyncio.sleep(50.0)
    house.front.away = False
    await asyncio.sleep(30.0)
    assert not house.events(phone, "muted")
    assert phone.heard[-1] > 0.01


async def test_a_renewal_that_is_refused_silences_the_voice_at_once(house: House) -> None:
    phone = await speaking(house)
    house.front.refuses = "erased"
    await house.until(lambda: house.events(phone, "muted"), 60)
    assert await house.over(phone) == "failed: the voice may not be used: erased"


async def test_a_front_that_answers_nonsense_does_not_leave_the_voice_on(house: House) -> None:
    phone = await speaking(house)
    house.front.nonsense = True
    await house.until(lambda: house.events(phone, "muted"), 65)
    await house.over(phone)


async def test_a_revocation_silences_the_word_that_is_being_said(house: House) -> None:
    phone = await speaking(house)
    answers = len(house.lines["n0"].answers)
    await house.revoke()
    await asyncio.sleep(0.05)
    for answer in house.lines["n0"].answers[answers:]:
        for sound in answer.slots:
            samples = memoryview(sound.pcm).cast("h")
            assert max(samples[60:]) == 0, "from the next frame on, but for the filter's few ms"
    at = len(phone.heard) + 1
    assert await house.over(phone) == "failed: the voice may not be used: revoked"
    assert phone.heard_s(at) == 0.0
    assert house.events(phone, "muted") == [{"reason": "revoked"}]
    assert house.front.told(VoiceMuted)[0].call_id == phone.call_id


async def test_a_revocation_of_another_voice_disturbs_nobody(house: House) -> None:
    phone = await speaking(house)
    await house.revoke("somebody")
    await asyncio.sleep(5.0)
    assert not house.events(phone, "muted")


async def test_a_call_that_comes_after_a_revocation_is_not_spoken_to(house: House) -> None:
    await house.revoke()
    phone = await house.ring(Answer(), DISCLOSE)
    assert await house.over(phone) == "failed: the voice may not be used: revoked"
    assert not phone.answered


async def test_a_muted_call_does_not_stay_silent_for_ever(house: House) -> None:
    phone = await house.ring(Answer(), TALK)
    await house.until(lambda: phone.heard_s() > 1.0)
    await house.revoke()
    took = await house.until(lambda: phone.hung_up)
    assert took == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("rest", [(), (Record(announce="recorded", max_s=60.0),), (Hangup(say="bye"),)])
async def test_what_a_muted_call_was_saying_is_not_said_and_nothing_follows_it(
    house: House, rest: tuple[Verb, ...]
) -> None:
    words = "one two three four"
    phone = await house.ring(Answer(), Say(text=words), *rest)
    await house.until(lambda: phone.heard_s() > 3.5 * WORD_S, 10)
    await house.revoke()
    took = await house.until(lambda: phone.hung_up)
    assert took == pytest.approx(3.0, abs=0.2), "however little was left to say"
    assert await house.over(phone) == "failed: the voice may not be used: revoked"
    assert not house.events(phone, "recorded"), "a caller who was not told of it is not recorded"
    assert await house.memory.history(phone.call_id) == [], "what was cut is not remembered as said"


async def test_a_frame_that_cannot_be_marked_is_silence_and_an_alarm_and_others_talk_on(house: House) -> None:
    failing, fine = await speaking(house, "n0"), await speaking(house, "n0")
    house.bank.broken.add(house.call(failing).seat.mark_slot)
    await asyncio.sleep(0.1)
    began = len(failing.heard), len(fine.heard)
    await asyncio.sleep(2.0)
    assert failing.heard_s(began[0]) == 0.0
    assert fine.heard_s(began[1]) == pytest.approx(2.0, abs=0.05)
    assert house.hall.floor.counters.mark_alarms >= 100
    assert len(house.events(failing, "mark_failed")) == 1, "said once, not fifty times a second"
    assert [event.call_id for event in house.front.told(MarkFailed)] == [failing.call_id]
    spoken = house.call(failing).seat.spoken_samples
    house.bank.broken.clear()
    await asyncio.sleep(1.0)
    assert failing.heard[-1] > 0.01, "and it comes back"
    assert house.call(failing).seat.spoken_samples > spoken


async def test_a_marker_that_is_gone_silences_all_and_kills_nobody(house: House) -> None:
    phones = [await speaking(house), await speaking(house, "w0")]
    house.bank.gone = True
    await asyncio.sleep(0.1)
    began = [len(phone.heard) for phone in phones]
    await asyncio.sleep(1.0)
    assert [phone.heard_s(at) for phone, at in zip(phones, began, strict=True)] == [0.0, 0.0]
    house.bank.gone = False
    await asyncio.sleep(1.0)
    assert all(phone.heard[-1] > 0.01 for phone in phones)


async def test_sound_that_is_no_number_is_not_played(house: House) -> None:
    phone = await house.ring(Answer(), TALK)
    await house.until(lambda: phone.heard_s() > 1.0)
    call = house.call(phone)
    call.playout.cut()
    item = call.speech.own.beep(float("nan"), 0.2)
    await house.until(lambda: house.events(phone, "mark_failed"))
    await house.until(item.done.is_set)
    assert call.id in house.hall.calls


async def test_every_audible_sample_was_marked(house: House) -> None:
    phone = await house.ring(Answer(), Say(text="one two three"), Hangup())
    await house.over(phone)
    spoken_s = float(house.memory.hashes[f"vg:call:{phone.call_id}"]["spoken_s"])
    assert spoken_s >= phone.heard_s()
    assert spoken_s == pytest.approx(3 * WORD_S, abs=0.1)


async def test_what_was_sent_is_looked_into_and_passes(house: House) -> None:
    phone = await speaking(house)
    await house.until(lambda: house.hall.floor.inspector.checked >= 1, 30)
    assert house.call(phone).licence.muted is None


async def test_a_voice_whose_mark_cannot_be_found_falls_silent(house: House) -> None:
    phone, other = await speaking(house), await speaking(house, "w0")
    house.bank.lies = True
    await house.until(lambda: house.call(phone).licence.muted is not None, 30)
    assert house.call(phone).licence.muted == "no mark"
    await asyncio.sleep(0.1)  # what the line has already
    began = len(phone.heard)
    await asyncio.sleep(1.0)
    assert phone.heard_s(began) == 0.0
    assert {event.call_id for event in house.front.told(VoiceMuted)} >= {phone.call_id}
    assert other.call_id
