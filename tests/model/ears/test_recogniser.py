"""What is in the grammar is found in telephone sound, and what is not is told from it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from model.api import RATE_HZ
from model.ears.evidence import NOTHING, weigh
from model.ears.recogniser import Recogniser
from tests.model.embedded.callers import (
    callers,
    demo_phrases,
    espeak,
    known_humans,
    prompts,
    telephone,
)
from tests.needs import need_program, need_sounds


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser()


def taken(recogniser: Recogniser, pcm: np.ndarray, phrases: list[str]) -> tuple[str | None, bool]:
    """(phrase, sure)"""
    found = recogniser.align(pcm, phrases)
    hearing = NOTHING if found is None else weigh(found)
    return hearing.phrase, hearing.sure


def test_callers_are_understood(recogniser: Recogniser) -> None:
    """A sample of the plan's phrases in voices that no constant was fitted on: another seed."""
    need_program("espeak-ng")
    phrases = dict(itertools.islice(demo_phrases().items(), 0, None, 9))
    intents = [
        (one.intent, demo_phrases().get(taken(recogniser, one.pcm, [*demo_phrases()])[0] or ""))
        for one in callers(seed=7, espeaks=3, phrases=phrases)
    ]
    right = sum(said == heard for said, heard in intents)
    wrong = sum(heard is not None and said != heard for said, heard in intents)
    assert len(intents) == 6 * len(phrases)
    assert right >= 0.85 * len(intents)
    assert wrong <= 0.05 * len(intents)


def test_other_speech_is_not_taken_for_an_intent(recogniser: Recogniser) -> None:
    """At most one of ten humans who say something else, even counting those who are asked to confirm."""
    need_sounds()
    some = list(itertools.islice(prompts(), 3, None, 12))
    heard = [taken(recogniser, one.pcm, [*demo_phrases()]) for one in some]
    assert len(some) > 40
    assert sum(phrase is not None for phrase, _ in heard) <= 0.1 * len(some)
    assert sum(sure for _, sure in heard) <= 0.06 * len(some)


def test_humans_are_understood_when_their_words_are_in_the_grammar(recogniser: Recogniser) -> None:
    need_sounds()
    some = [one for one in known_humans() if " " in (one.phrase or "")]
    assert len(some) > 10
    right = sum(
        taken(recogniser, one.pcm, [*demo_phrases(), str(one.phrase)])[0] == one.phrase for one in some
    )
    assert right >= 0.8 * len(some)


@pytest.mark.parametrize(
    "pcm",
    [
        np.zeros(RATE_HZ, np.float32),
        np.zeros(0, np.float32),
        np.full(100, 0.5, np.float32),
        np.random.default_rng(1).normal(0, 0.1, RATE_HZ).astype(np.float32),
        np.sin(np.arange(RATE_HZ) * 0.1).astype(np.float32),
    ],
    ids=["silence", "nothing", "a click", "noise", "a tone"],
)
def test_what_is_no_speech_says_nothing(recogniser: Recogniser, pcm: np.ndarray) -> None:
    assert taken(recogniser, pcm, [*demo_phrases()])[0] is None


def test_words_out_of_the_dictionary_are_told_and_do_no_harm(recogniser: Recogniser) -> None:
    need_program("espeak-ng")
    assert not recogniser.sayable("xyzzy please")
    assert recogniser.sayable("what's the time")
    pcm = telephone(espeak("what is your address"), "address")
    assert taken(recogniser, pcm, ["xyzzy please", "what is your address"])[0] == "what is your address"
    assert recogniser.align(pcm, ["xyzzy please"]) is None
    assert recogniser.align(pcm, []) is None


def test_a_phrase_may_begin_another(recogniser: Recogniser) -> None:
    need_program("espeak-ng")
    both = ["what time is it", "what time is it now"]
    for phrase in both:
        assert taken(recogniser, telephone(espeak(phrase), phrase), both)[0] == phrase


def test_many_grammars_can_be_used_in_turn(recogniser: Recogniser) -> None:
    """More than are kept ready: the oldest goes, and is made again when it is wanted."""
    need_program("espeak-ng")
    pcm = telephone(espeak("what is your address"), "address")
    words = [word for phrase in demo_phrases() for word in phrase.split()]
    for word in [*dict.fromkeys(words)][:34]:
        assert taken(recogniser, pcm, ["what is your address", word])[0] == "what is your address"
    assert taken(recogniser, pcm, ["what is your address", words[0]])[0] == "what is your address"
