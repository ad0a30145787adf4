"""A hall with ears hears early for an engine that does not: turns end by words, and asides cut nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.dialplan import Answer, Converse
from gateway.dialplan.routes import Keep
from gateway.hall.dialogue.scribe import Scribe
from gateway.hall.media.turns import TurnRules
from tests.gateway.hall import virtual_hall as scripted
from tests.gateway.hall.test_kept_words import holds_group
from tests.gateway.hall.virtual_hall import WORD_S, House, Phone

HOUSE_TIME = True

TALK = Converse(
    instructions="be kind", greeting="how can I help", goodbye="bye", not_understood=("say again",),
    silence_s=60.0,
)  # fmt: skip
KEEPS = {"keep": Keep(transcript=True)}
LONG = " ".join(["long"] * 15)
RULES = TurnRules()


@pytest.fixture
async def hearing(tmp_path: Path) -> AsyncIterator[House]:
    """A house as beside Chroma: the engine hears nothing early and writes nothing down; the ears do."""
    house = House(tmp_path, turns_by_words="auto")
    house.engine.transcribes = False
    house.hall.scribe = Scribe(house.ears)
    await house.open()
    yield house
    await house.close()
    assert house.engine.wrongs == []


async def talking(house: House, **offer: object) -> Phone:
    """A call whose greeting was heard."""
    phone = await house.ring(Answer(), TALK, **offer)  # type: ignore[arg-type]
    await house.until(lambda: phone.heard_s() > 4 * WORD_S - 0.1)
    await house.until(lambda: not house.call(phone).playout.busy)
    return phone


async def ended_s(house: House, phone: Phone) -> float:
    """Quiet until the turn of a caller who now speaks for a second is ended."""
    commits = len(house.engine.told("commit"))
    phone.speak(1.0)
    await house.until(lambda: not phone.speaking)
    quiet_since = house.loop.time()
    await house.until(lambda: len(house.engine.told("commit")) > commits)
    took = house.loop.time() - quiet_since
    await house.until(lambda: house.call(phone).playout.busy)
    await house.until(lambda: not house.call(phone).playout.busy)
    return took


def texts(house: House, phone: Phone) -> list[str | None]:
    """The caller's words that the session has."""
    return [turn.get("text") for turn in house.events(phone, "turn") if turn["who"] == "caller"]


async def speaks_over_us(house: House, phone: Phone, seconds: float) -> None:
    """The caller says something short into a long answer."""
    house.engine.answers = [scripted.Answer(LONG)]
    phone.speak(1.0)
    await house.until(lambda: house.call(phone).playout.busy)
    await asyncio.sleep(0.5)
    phone.speak(seconds)
    await house.until(lambda: not phone.speaking)


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_pause_after_digits_is_waited_out(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words = ["My number is five, five."]
    assert await ended_s(hearing, phone) == pytest.approx(RULES.unfinished_s, abs=0.06)


async def test_a_number_in_groups_is_one_turn(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words = ["five five five", "five five five, one two three", "That is it."]
    for _ in range(3):
        phone.speak(0.8)
        await hearing.until(lambda: not phone.speaking)
        await asyncio.sleep(0.7)
    assert len(hearing.engine.told("commit")) == 1
    assert hearing.engine.told("commit")[0] > 3.5


async def test_a_whole_question_waits_less_and_a_sentence_no_longer_than_by_the_clock(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words = ["When are you open?"]
    assert await ended_s(hearing, phone) < RULES.plain_s - 0.1
    hearing.ears.words = ["I want to know more."]
    assert await ended_s(hearing, phone) == pytest.approx(RULES.plain_s, abs=0.06)
    hearing.ears.words = ["Is it five?"]
    assert await ended_s(hearing, phone) == pytest.approx(RULES.unfinished_s, abs=0.06)


@pytest.mark.parametrize("refuses", ["busy", "lost", "no weights", "failed"])
async def test_ears_that_hear_nothing_leave_the_clock_as_it_was(hearing: House, refuses: str) -> None:
    hearing.ears.refuses = refuses
    phone = await talking(hearing)
    assert await ended_s(hearing, phone) == pytest.approx(RULES.plain_s, abs=0.06)


async def test_nobody_waits_for_ears_that_hang(hearing: House) -> None:
    hearing.ears.words, hearing.ears.think_s = ["five"], 1_000.0
    phone = await talking(hearing)
    assert await ended_s(hearing, phone) == pytest.approx(RULES.plain_s, abs=0.06)
    await speaks_over_us(hearing, phone, 0.5)
    assert len(hearing.events(phone, "barge_in")) == 1, "the clock alone cuts us, as soon as it did"


async def test_an_engine_that_hears_early_is_not_helped(hearing: House) -> None:
    hearing.engine.knows_asides = True
    phone = await talking(hearing)
    hearing.ears.words = ["five"]
    assert await ended_s(hearing, phone) == pytest.approx(RULES.plain_s, abs=0.06)
    assert hearing.ears.listened == []


async def test_it_is_switched_off_by_its_setting(house: House) -> None:
    house.engine.transcribes = False
    house.ears.words = ["five"]
    phone = await talking(house)
    assert await ended_s(house, phone) == pytest.approx(RULES.plain_s, abs=0.06)
    assert house.ears.listened == []


async def test_an_engine_that_comes_back_is_helped_as_the_one_before(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words = ["five"]
    phone.speak(3.0)
    await asyncio.sleep(1.0)
    hearing.engine.die()
    hearing.engine.down = False
    await hearing.until(lambda: not phone.speaking)
    quiet_since = hearing.loop.time()
    await hearing.until(lambda: hearing.engine.told("commit"))
    assert len(hearing.engine.sessions) == 2
    assert hearing.loop.time() - quiet_since == pytest.approx(RULES.unfinished_s, abs=0.06)


# ── over our voice ───────────────────────────────────────────────────────────────────────────────────────


async def test_an_okay_while_we_talk_does_not_cut_us(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words = ["How does that work?", "Okay."]
    await speaks_over_us(hearing, phone, 0.45)
    began = len(phone.heard)
    await hearing.until(lambda: not hearing.call(phone).playout.busy)
    assert hearing.events(phone, "barge_in") == []
    assert phone.heard_s(began) > 2.0, "all of it was heard"
    assert len(hearing.engine.told("commit")) == 1


async def test_a_repeated_hello_while_we_talk_does(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words = ["How does that work?", "Hello? Hello?"]
    await speaks_over_us(hearing, phone, 0.45)
    await hearing.until(lambda: hearing.events(phone, "barge_in"))
    await hearing.until(lambda: len(hearing.engine.told("commit")) == 2)


async def test_busy_ears_leave_it_to_the_clock_what_cuts_us(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words, hearing.ears.wait_s = ["Okay."], 5.0
    await speaks_over_us(hearing, phone, 0.45)
    assert len(hearing.events(phone, "barge_in")) == 1


async def test_people_behind_the_caller_do_not_cut_us(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words = ["How does that work?", ""]
    await speaks_over_us(hearing, phone, 2.0)
    await hearing.until(lambda: not hearing.call(phone).playout.busy)
    assert hearing.events(phone, "barge_in") == []
    assert len(hearing.engine.told("commit")) == 1
    assert len(hearing.ears.listened) < 12, "they are not asked all the time"


async def test_who_is_understood_in_the_middle_of_it_cuts_us(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words = ["How does that work?", "", "", "No, I mean"]
    await speaks_over_us(hearing, phone, 2.0)
    (cut,) = hearing.events(phone, "barge_in")
    assert 0.9 < cut["onset_to_cut_s"] < 1.8


async def test_who_goes_on_without_a_word_is_heeded_in_the_end(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words = ["How does that work?", ""]
    await speaks_over_us(hearing, phone, 4.5)
    (cut,) = hearing.events(phone, "barge_in")
    assert cut["onset_to_cut_s"] == pytest.approx(RULES.wordless_s, abs=0.1)


async def test_a_caller_with_words_cuts_us_no_later_than_before(hearing: House) -> None:
    phone = await talking(hearing)
    hearing.ears.words = ["How does that work?", "Wait, wait"]
    await speaks_over_us(hearing, phone, 2.0)
    (cut,) = hearing.events(phone, "barge_in")
    assert cut["onset_to_cut_s"] < RULES.barge_s + 0.1


# ── one hearing for turns and transcripts ────────────────────────────────────────────────────────────────


async def test_the_transcript_has_what_was_heard_early_and_nobody_hears_it_again(hearing: House) -> None:
    phone = await talking(hearing, route=KEEPS)
    hearing.ears.words = ["When are you open?"]
    await ended_s(hearing, phone)
    await hearing.until(lambda: texts(hearing, phone))
    assert texts(hearing, phone) == ["When are you open?"]
    ((_, language, patient),) = hearing.ears.listened
    assert (language, patient) == ("en", False)
    assert hearing.hall.scribe.written == 1


async def test_words_before_the_last_ones_are_not_the_transcript(hearing: House) -> None:
    """The ears understand the first part early, and are late with the rest."""
    phone = await talking(hearing, route=KEEPS)
    hearing.ears.words = ["When are", "When are you open?"]
    phone.speak(0.8)
    await hearing.until(lambda: hearing.ears.listened)
    await asyncio.sleep(0.15)
    hearing.ears.think_s = 2.0
    await ended_s(hearing, phone)
    await hearing.until(lambda: texts(hearing, phone))
    assert texts(hearing, phone) == ["When are you open?"]
    assert hearing.ears.listened[-1][2], "the whole turn, by the scribe"


async def test_words_are_noted_redacted_in_the_order_in_which_they_were_said(hearing: House) -> None:
    """The first half of a card's number comes late, by the scribe; the second one early."""
    phone = await talking(hearing, route=KEEPS)
    hearing.ears.words = ["it is 4111 1111"]
    hearing.ears.think_s = 8.0
    await ended_s(hearing, phone)
    hearing.ears.words, hearing.ears.think_s = ["1111 1111"], 0.1
    await ended_s(hearing, phone)
    hearing.ears.words = ["Thank you."]
    await asyncio.sleep(8.0)
    await hearing.hang_up(phone)
    await hearing.over(phone)
    assert not holds_group(repr((hearing.memory.streams, hearing.memory.lists)))
    assert len(texts(hearing, phone)) == 2


async def test_no_word_goes_anywhere_when_the_plan_keeps_none(
    hearing: House, capfd: pytest.CaptureFixture[str]
) -> None:
    phone = await talking(hearing, route={"keep": Keep(transcript=False)})
    hearing.ears.words = ["The zyzzyva is broken."]
    await ended_s(hearing, phone)
    await hearing.hang_up(phone)
    await hearing.over(phone)
    assert [patient for _, _, patient in hearing.ears.listened] == [False], "it was heard, for the turn's end"
    logged = capfd.readouterr()
    told = repr((hearing.memory.streams, hearing.memory.lists, hearing.memory.hashes, hearing.front.events))
    assert "zyzzyva" not in told + logged.out + logged.err
    assert texts(hearing, phone) == [None]
