"""Text becomes sound piece by piece; what was said before costs nothing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from model.api import RATE_HZ
from model.embedded.mouth import FLOOR, Mouth, pieces, trim

HOURS = (
    "We are open Monday to Friday from nine in the morning to six in the evening, "
    "and Saturday from ten to two. Can I help you with anything else?"
)


@pytest.fixture(scope="module")
def mouth() -> Mouth:
    return Mouth()


@pytest.fixture
def renders(mouth: Mouth, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What had to be synthesized."""
    rendered: list[str] = []
    synthesize = mouth._synthesize
    monkeypatch.setattr(
        mouth, "_synthesize", lambda text, **kw: rendered.append(text) or synthesize(text, **kw)
    )
    mouth._kept.clear()
    mouth._kept_samples = 0
    return rendered


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good morning. How are you?", ["Good morning.", "How are you?"]),
        ("", []),
        ("  ", []),
        ("no end", ["no end"]),
        ("It is 3:05 PM.", ["It is 3:05 PM."]),
        (HOURS, [HOURS[:76], HOURS[77:106], HOURS[107:]]),
        ("Yes, " + "a" * 100 + ".", ["Yes, " + "a" * 100 + "."]),  # a piece of one word is no beginning
    ],
)
def test_text_is_cut_at_sentences_and_a_long_first_one_at_a_comma(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected
    assert " ".join(pieces(text)) == text.strip()


async def test_sound_begins_soon_and_ends_in_a_pause(mouth: Mouth) -> None:
    async for piece, pcm in mouth.speak(HOURS):
        loud = np.flatnonzero(np.abs(pcm) > FLOOR)
        assert pcm.dtype == np.float32
        assert loud[0] / RATE_HZ <= 0.025
        pause = (len(pcm) - loud[-1]) / RATE_HZ
        assert pause == pytest.approx(0.18 if piece[-1] in ".?" else 0.06, abs=0.005)
        assert 0.03 < len(pcm) / RATE_HZ / len(piece) < 0.12


async def test_what_was_said_before_is_not_rendered_again(mouth: Mouth, renders: list[str]) -> None:
    first = [pcm async for _, pcm in mouth.speak(HOURS)]
    again = [pcm async for _, pcm in mouth.speak(HOURS)]
    assert renders == pieces(HOURS)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


async def test_what_was_learned_is_not_rendered_when_it_is_said(mouth: Mouth, renders: list[str]) -> None:
    await mouth.learn([HOURS])
    rendered = [*renders]
    assert [piece async for piece, _ in mouth.speak(HOURS)] == rendered == renders


async def test_many_who_say_the_same_at_once_wait_for_one_rendering(mouth: Mouth, renders: list[str]) -> None:
    async def speak() -> int:
        return sum([len(pcm) async for _, pcm in mouth.speak("This is said by many.")])

    lengths = await asyncio.gather(*(speak() for _ in range(5)))
    assert len(set(lengths)) == 1
    assert renders == ["This is said by many."]


async def test_who_asked_first_may_be_interrupted(mouth: Mouth, renders: list[str]) -> None:
    async def speak() -> list[str]:
        return [piece async for piece, _ in mouth.speak("Somebody else wants this too.")]

    first, second = asyncio.create_task(speak()), asyncio.create_task(speak())
    await asyncio.sleep(0)
    first.cancel()
    assert await second == ["Somebody else wants this too."]
    assert len(renders) == 1


async def test_only_so_much_is_kept(
    mouth: Mouth, renders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.embedded.mouth.KEPT_S", 3.0)
    for text in ("Number one.", "Number two.", "Number three.", "Number four."):
        await mouth.learn([text])
        await mouth.learn(["Number one."])  # used all the time, so it stays
    assert mouth._kept_samples == sum(len(pcm) for pcm in mouth._kept.values()) <= 3.0 * RATE_HZ
    assert "Number one." in mouth._kept
    assert "Number two." not in mouth._kept


def test_silence_has_no_sound_to_trim() -> None:
    assert len(trim(np.zeros(1000, np.float32))) == 0
    assert len(trim(np.full(3, 0.5, np.float32))) == 3
