"""What a caller says is kept where the plan asks for it, whatever engine it is, and nowhere else."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import asdict, replace

import pytest

from gateway.dialplan import Answer, Converse, Gather, Route
from gateway.dialplan.routes import Keep
from gateway.ipc.line_messages import ShownHeard
from tests.gateway.hall import virtual_hall as scripted
from tests.gateway.hall.test_scribe import Ears
from tests.gateway.hall.virtual_hall import WORD_S, House, Phone

HOUSE_TIME = True

TALK = Converse(
    instructions="be kind", greeting="how can I help", goodbye="bye", not_understood=("say again",),
    silence_s=60.0,
)  # fmt: skip
KEEPS = {"keep": Keep(transcript=True)}
PAGE = {"transport": "webrtc", "line": "web0", "rate_hz": 48_000}
PLANTED = "zyzzyva"
"""A word that nothing else in here says."""


async def talking(house: House, route: dict[str, object], **offer: object) -> Phone:
    """A call whose greeting was heard."""
    phone = await house.ring(Answer(), TALK, route=route, **offer)  # type: ignore[arg-type]
    await house.until(lambda: phone.heard_s() > 4 * WORD_S - 0.1)
    await house.until(lambda: not house.call(phone).playout.busy)
    return phone


async def speaks(house: House, phone: Phone, answer: str = "well then") -> None:
    """The caller says something, and hears the answer to its end."""
    house.engine.answers = [scripted.Answer(answer)]
    at = len(phone.heard)
    phone.speak(0.6)
    await house.until(lambda: phone.heard_s(at) > (len(answer.split()) - 0.2) * WORD_S)
    await house.until(lambda: not house.call(phone).playout.busy)


def texts(house: House, phone: Phone, who: str = "caller") -> list[str | None]:
    """The words of the turns that the session has."""
    return [turn.get("text") for turn in house.events(phone, "turn") if turn["who"] == who]


def shown(phone: Phone) -> list[str | None]:
    """What the caller's page shows as heard."""
    return [event.text for event in phone.shown if isinstance(event, ShownHeard)]


# ── an engine that does not transcribe ───────────────────────────────────────────────────────────────────


async def test_what_an_engine_does_not_write_down_is_written_beside_the_call(house: House) -> None:
    house.engine.transcribes = False
    ears = Ears(["when are you open"])
    house.give_ears(ears)
    phone = await talking(house, KEEPS, **PAGE)
    await speaks(house, phone)
    await house.until(lambda: texts(house, phone))
    assert texts(house, phone) == ["when are you open"]
    assert texts(house, phone, "bot") == ["well then"]
    assert shown(phone) == ["when are you open"]
    ((samples, language, patient),) = ears.asked
    assert samples == sum(map(len, house.engine.told("append"))), "what the engine heard of the turn"
    assert (language, patient) == ("en", True)
    kept = await house.memory.history(phone.call_id)
    assert kept[1]["content"][0]["type"] == "input_audio", "the engine hears sound again, as before"


async def test_nobody_waits_for_what_is_written_late(house: House) -> None:
    house.engine.transcribes = False
    house.give_ears(Ears(["first", "second"], takes_s=8.0))
    phone = await talking(house, KEEPS)
    took = house.loop.time()
    await speaks(house, phone)
    await speaks(house, phone)
    assert house.loop.time() - took < 5.0
    assert texts(house, phone) == []
    await asyncio.sleep(12.0)
    assert texts(house, phone) == ["first", "second"]


async def test_turns_are_noted_in_order_also_when_one_of_them_takes_long(house: House) -> None:
    house.engine.transcribes = False
    ears = Ears(["first", "second"], takes_s=8.0)
    house.give_ears(ears)
    phone = await talking(house, KEEPS)
    await speaks(house, phone)
    ears.takes_s = 0.1
    await speaks(house, phone)
    await asyncio.sleep(10.0)
    assert texts(house, phone) == ["first", "second"]


async def test_the_last_words_are_noted_after_the_call(house: House) -> None:
    house.engine.transcribes = False
    house.give_ears(Ears(["and goodbye"], takes_s=3.0))
    phone = await talking(house, KEEPS)
    phone.speak(0.6)
    await house.until(lambda: house.engine.told("commit"))
    await house.hang_up(phone)
    assert await house.over(phone, 1.0) == "caller hung up"
    assert texts(house, phone) == []
    await asyncio.sleep(4.0)
    assert texts(house, phone) == ["and goodbye"]
    assert house.is_empty()


async def test_ears_that_hang_cost_the_text_and_nothing_else(house: House) -> None:
    house.engine.transcribes = False
    house.give_ears(Ears(takes_s=10_000.0))
    phone = await talking(house, KEEPS)
    await speaks(house, phone)
    await house.hang_up(phone)
    await house.over(phone, 1.0)
    await asyncio.sleep(30.0)
    assert texts(house, phone) == [None]
    assert texts(house, phone, "bot") == ["well then"]
    assert house.is_empty()


async def test_without_ears_all_is_as_it_was(house: House) -> None:
    house.engine.transcribes = False
    phone = await talking(house, KEEPS, **PAGE)
    await speaks(house, phone)
    await house.until(lambda: texts(house, phone))
    assert texts(house, phone) == [None]
    assert texts(house, phone, "bot") == ["well then"]
    assert shown(phone) == []


@pytest.mark.parametrize(("transcribes", "keep"), [(True, True), (False, False)])
async def test_nobody_writes_what_the_engine_writes_or_nobody_keeps(
    house: House, transcribes: bool, keep: bool
) -> None:
    house.engine.transcribes = transcribes
    ears = Ears(["never"])
    house.give_ears(ears)
    phone = await talking(house, {"keep": Keep(transcript=keep)})
    await speaks(house, phone)
    await asyncio.sleep(2.0)
    assert ears.asked == []


# ── a plan that keeps no words ───────────────────────────────────────────────────────────────────────────


def holds_group(text: str) -> bool:
    """Whether four digits of the card stand in it; such a group is in many an id and time by chance."""
    return re.search(r"(?<![\w.-])1111(?![\w.-])", text) is not None


def everything(house: House, phone: Phone) -> str:
    """All that the hall has told anybody but the engine, and what lies in the data directory."""
    files = [path for path in house.settings.data_dir.rglob("*") if path.is_file()]
    return repr(
        [
            house.memory.hashes, house.memory.streams, house.memory.lists, phone.asked,
            [asdict(event) for event in phone.shown],
            house.front.events, house.front.asked, [path.read_bytes() for path in files],
            [str(path) for path in files],
        ]
    )  # fmt: skip


@pytest.mark.parametrize("caller_audio", [True, False])
@pytest.mark.parametrize("transcribes", [True, False])
async def test_no_word_of_a_callers_is_anywhere_when_the_plan_keeps_none(
    house: House, capfd: pytest.CaptureFixture[str], transcribes: bool, caller_audio: bool
) -> None:
    house.engine.transcribes = transcribes
    house.give_ears(Ears([f"my {PLANTED} is broken"] * 9))
    route = {"keep": Keep(transcript=False, caller_audio=caller_audio)}
    phone = await talking(house, route, **PAGE)
    house.engine.hears = [f"my {PLANTED} is broken"] if transcribes else []
    await speaks(house, phone)
    house.engine.sessions[-1].send(scripted.client.ToolRequest(PLANTED, json.dumps({"of": PLANTED})))
    house.engine.hears = [f"a {PLANTED}, I said"] if transcribes else []
    phone.speak(0.6)
    await house.until(lambda: len(house.engine.told("commit")) == 2)
    house.engine.die()
    await asyncio.sleep(1.0)
    house.engine.down = False
    await asyncio.sleep(1.0)
    during = everything(house, phone)
    await house.hang_up(phone)
    await house.over(phone)
    logged = capfd.readouterr()
    assert PLANTED not in during + everything(house, phone) + logged.out + logged.err
    assert len(house.events(phone, "turn")) == 4, "that they spoke is known"


async def test_a_call_whose_words_are_kept_shows_them_where_they_belong(house: House) -> None:
    """The test before this one would find them."""
    phone = await talking(house, KEEPS, **PAGE)
    house.engine.hears = [f"my {PLANTED} is broken"]
    await speaks(house, phone)
    await house.until(lambda: texts(house, phone))
    found = everything(house, phone)
    assert found.count(PLANTED) == 4, "a turn, the same for the front, an item of the history, the page"


@pytest.mark.parametrize("keeps", [True, False])
async def test_words_that_come_while_a_filler_is_said_are_kept_by_the_same_rules(
    house: House, keeps: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    phone = await talking(house, {"keep": Keep(transcript=keeps)}, **PAGE)
    house.engine.hear_s = 2.0
    house.engine.hears = [f"{PLANTED} of card four one one one, 1111 1111 1111"]
    await speaks(house, phone, "one moment please " + "we are open until six " * 3)
    await house.until(lambda: texts(house, phone))
    kept = f"{PLANTED} of card [card number]" if keeps else None
    assert (texts(house, phone), shown(phone)) == ([kept], [kept])
    found = everything(house, phone)
    await house.hang_up(phone)
    await house.over(phone)
    logged = capfd.readouterr()
    assert (PLANTED in found) == keeps
    assert PLANTED not in logged.out + logged.err
    assert not holds_group(found + everything(house, phone) + logged.out + logged.err)


async def test_another_engine_knows_the_words_that_nobody_keeps(house: House) -> None:
    phone = await talking(house, {"keep": Keep(transcript=False)})
    house.engine.hears = ["a question"]
    await speaks(house, phone)
    house.engine.die()
    house.engine.down = False
    await asyncio.sleep(1.0)
    (restored,) = house.engine.told("restore")
    assert [item["content"][0]["text"] for item in restored] == ["how can I help", "a question", "well then"]


@pytest.mark.parametrize(
    ("recalls", "caller_audio", "kinds"),
    [
        (True, True, ["output_text", "input_audio", "output_text"]),
        (True, False, ["output_text", "output_text"]),
        (False, True, ["output_text", "output_text"]),
    ],
)
async def test_another_hall_has_the_callers_sound_instead_where_that_is_kept_and_of_use(
    house: House, recalls: bool, caller_audio: bool, kinds: list[str]
) -> None:
    house.engine.recalls = recalls
    phone = await talking(house, {"keep": Keep(transcript=False, caller_audio=caller_audio)})
    house.engine.hears = ["a question"]
    await speaks(house, phone)
    kept = await house.memory.history(phone.call_id)
    assert [item["content"][0]["type"] for item in kept] == kinds


async def test_a_route_that_keeps_words_does_not_speak_for_the_one_before(house: House) -> None:
    sales = Route(name="sales", do=(TALK,), keep=Keep(transcript=True))
    menu = Gather(prompt="press one", branches={"1": "sales"}, timeout_s=30.0)
    phone = await house.ring(Answer(), TALK, menu, others=(sales,), route={"keep": Keep(transcript=False)})
    await house.until(lambda: phone.heard_s() > 4 * WORD_S - 0.1)
    house.engine.hears = [f"the {PLANTED}"]
    house.engine.answers = [scripted.Answer("I put you through", tool="transfer")]
    phone.speak(0.6)
    await house.until(lambda: house.events(phone, "turn"))
    assert texts(house, phone) == [None]
    call = house.call(phone)
    call.speech.leave(replace(sales))
    assert call.speech._memory.keeps_words
    assert PLANTED not in everything(house, phone)


# ── numbers that are not kept ────────────────────────────────────────────────────────────────────────────


async def test_a_cards_number_is_in_no_turn_no_history_and_on_no_page(house: House) -> None:
    phone = await talking(house, KEEPS, **PAGE)
    house.engine.hears = ["my card is four one one one, 1111 1111 1111"]
    await speaks(house, phone, "so that is 4111 1111 1111 1111 thanks")
    await house.until(lambda: texts(house, phone))
    assert texts(house, phone) == ["my card is [card number]"]
    assert texts(house, phone, "bot") == ["so that is [card number] thanks"]
    assert shown(phone) == ["my card is [card number]"]
    phone.shown.clear()  # the voice says it again, and the page shows what is said
    assert not holds_group(everything(house, phone))


async def test_a_cards_number_over_two_turns_is_in_neither(house: House) -> None:
    phone = await talking(house, KEEPS)
    house.engine.hears = ["it is 4111 1111"]
    await speaks(house, phone, "go on")
    await asyncio.sleep(2.0)
    assert texts(house, phone) == [], "what it was is not known yet"
    house.engine.hears = ["1111 1111"]
    await speaks(house, phone, "thank you")
    await house.until(lambda: len(texts(house, phone)) == 2)
    assert texts(house, phone) == ["it is [card number]", "[card number]"]
    assert not holds_group(repr(house.memory.lists))


async def test_what_waited_for_more_of_a_number_is_noted_at_the_end(house: House) -> None:
    phone = await talking(house, KEEPS)
    house.engine.hears = ["call me at 555 123 4567"]
    await speaks(house, phone)
    await asyncio.sleep(2.0)
    assert texts(house, phone) == []
    await house.hang_up(phone)
    await house.over(phone)
    assert texts(house, phone) == ["call me at 555 123 4567"]
    assert house.memory.streams[phone.call_id][-1][0] == "ended", "and before it"


async def test_what_the_voice_asked_for_says_what_a_number_is(house: House) -> None:
    phone = await talking(house, KEEPS)
    house.engine.hears = ["hello"]
    await speaks(house, phone, "what is your account number")
    house.engine.hears = ["12345678"]
    await speaks(house, phone)
    await house.until(lambda: len(texts(house, phone)) == 2)
    assert texts(house, phone) == ["hello", "[account number]"]


async def test_keys_that_may_be_a_cards_number_are_not_noted(house: House) -> None:
    phone = await talking(house, KEEPS)
    await house.press(phone, "4111222233334444")
    await house.until(lambda: len(house.events(phone, "dtmf")) == 16)
    assert [event.get("digit") for event in house.events(phone, "dtmf")] == [*"4111", *[None] * 12]


async def test_a_number_that_was_keyed_in_is_not_noted_unless_it_is_a_choice(house: House) -> None:
    ask = Gather(prompt="your account", digits=8, timeout_s=2.0, branches={"1": "demo"})
    phone = await house.ring(Answer(), ask, replace(ask, digits=3))
    await house.until(lambda: phone.heard_s() > 0.5)
    await house.press(phone, "87654321")
    await house.until(lambda: house.events(phone, "gathered"))
    await house.press(phone, "123")
    await house.until(lambda: len(house.events(phone, "gathered")) == 2)
    assert [event["digits"] for event in house.events(phone, "gathered")] == ["8 digits", "123"]


async def test_words_that_cannot_be_looked_through_are_not_kept(
    house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError(PLANTED)

    monkeypatch.setattr("model.redaction.redactor.Redactor.hear", broken)
    phone = await talking(house, KEEPS)
    house.engine.hears = [PLANTED]
    await speaks(house, phone)
    await house.until(lambda: texts(house, phone))
    logged = capfd.readouterr()
    assert "words.unread" in logged.out + logged.err
    assert PLANTED not in everything(house, phone) + logged.out + logged.err
