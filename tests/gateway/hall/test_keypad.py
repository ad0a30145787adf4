"""Keys that callers press reach the verbs once, by whatever way they come."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gateway.dialplan import Answer, Converse, Gather, Hangup, Route, Say
from gateway.hall.media.audio import VoiceActivity
from gateway.hall.media.rate import CAPACITY
from gateway.hall.parts.keypad import ONE_PRESS_S, Keypad
from gateway.ipc.line_messages import KeyWay
from tests.gateway.hall.key_sounds import dialled_sound, key_sound, mu_law
from tests.gateway.hall.virtual_hall import House, Phone

HOUSE_TIME = True


def counted(*keys: tuple[str, KeyWay, float]) -> str:
    keypad = Keypad()
    return "".join(digit for digit, way, at in keys if keypad.is_new(digit, way, at))


def test_a_press_that_comes_by_three_ways_counts_once() -> None:
    assert counted(("5", "event", 0.0), ("5", "tone", 0.06), ("5", "info", 0.4)) == "5"
    assert counted(("5", "info", 0.0), ("5", "event", 0.01), ("5", "tone", 0.4)) == "5"


def test_a_key_again_by_the_same_way_is_another_press() -> None:
    assert counted(*(("5", "event", 0.1 * n) for n in range(4))) == "5555"


@pytest.mark.parametrize("late_s", [0.03, 0.15, 0.5, 1.0])
def test_a_way_that_is_late_presses_nothing_of_its_own(late_s: float) -> None:
    """Quick presses of the same key, whose INFOs come when the next ones are there already."""
    events: list[tuple[str, KeyWay, float]] = [("5", "event", 0.1 * n) for n in range(4)]
    infos: list[tuple[str, KeyWay, float]] = [("5", "info", 0.1 * n + late_s) for n in range(4)]
    assert counted(*sorted(events + infos, key=lambda key: key[2])) == "5555"


def test_one_way_may_miss_what_the_other_tells() -> None:
    told = (
        ("5", "event", 0.0),
        ("5", "event", 0.5),
        ("5", "tone", 0.56),
        ("6", "tone", 1.0),
        ("6", "event", 1.2),
    )
    assert counted(*told) == "556"  # type: ignore[arg-type]  # mypy takes the ways for any text


def test_long_after_it_is_a_press_again() -> None:
    assert counted(("5", "event", 0.0), ("5", "tone", ONE_PRESS_S + 0.1)) == "55"


DIAL = Gather(prompt="dial", branches={"0123456789": "all", "55": "twice"}, digits=10, timeout_s=2.0)
OTHERS = tuple(Route(name=name, do=(Say(text=f"you dialled {name}"), Hangup())) for name in ("all", "twice"))


async def asked(house: House, line: str = "n0", rate_hz: int = 8_000) -> Phone:
    """A caller who is to dial, by a phone that agreed on no telephone-event."""
    house.hall.floor._vad = VoiceActivity(CAPACITY)
    phone = await house.ring(Answer(), DIAL, line=line, rate_hz=rate_hz, others=OTHERS)
    phone.tones = True
    await house.until(lambda: phone.heard_s() > 0.1)
    return phone


@pytest.mark.parametrize(("line", "rate_hz"), [("n0", 8_000), ("w0", 16_000)])
async def test_tones_are_keys_on_lines_of_either_rate(house: House, line: str, rate_hz: int) -> None:
    phone = await asked(house, line, rate_hz)
    phone.play(mu_law(dialled_sound("0123456789", 0.05, 0.05, rate_hz)), rate_hz)
    await house.says("you dialled all")
    await house.over(phone)


async def test_one_press_by_all_ways_is_one_and_two_are_two(house: House) -> None:
    phone = await asked(house)
    for _ in range(2):
        await house.press(phone, "5")
        phone.play(key_sound("5", 0.2))
        await asyncio.sleep(0.3)
        await house.press(phone, "5", "info")
        await asyncio.sleep(0.1)
    await house.says("you dialled twice")


async def test_a_phone_that_agreed_on_events_dials_by_them_alone(house: House) -> None:
    phone = await asked(house)
    phone.tones = False
    phone.play(dialled_sound("0123456789", 0.1, 0.1))
    await house.until(lambda: phone.call_id not in house.hall.calls)
    assert [event["digits"] for event in house.events(phone, "gathered")] == [""]


async def test_silence_that_does_not_come_parts_two_presses(house: House) -> None:
    """As with a phone that sends nothing while nothing sounds."""
    phone = await asked(house)
    for _ in range(2):
        phone.receiving = True
        phone.play(key_sound("5", 0.08))
        await asyncio.sleep(0.08)
        phone.receiving = False
        await asyncio.sleep(0.2)
    await house.says("you dialled twice")


async def test_a_key_that_sounds_neither_interrupts_nor_begins_a_turn(house: House) -> None:
    house.hall.floor._vad = VoiceActivity(CAPACITY)
    talk = Converse(instructions="x", greeting=" ".join(["word"] * 40), silence_s=60.0)
    phone = await house.ring(Answer(), talk)
    phone.tones = True
    await house.until(lambda: phone.heard_s() > 0.5)
    phone.play(np.concatenate([dialled_sound("159D", 0.5, 0.2)] * 2))
    await asyncio.sleep(6.0)
    assert [event["digit"] for event in house.events(phone, "dtmf")] == list("159D159D")
    assert not house.events(phone, "barge_in")
    assert not house.engine.told("commit")


async def test_an_error_with_a_key_ends_its_call_and_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = [await asked(house) for _ in range(2)]

    def breaks(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(house.call(phones[0]).inbox, "press", breaks)
    for phone in phones:
        phone.play(dialled_sound("55", 0.1, 0.1))
    assert await house.over(phones[0]) == "failed: an error of ours"
    await house.says("you dialled twice")
